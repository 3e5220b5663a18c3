/*
 * Judging pictures, by key, by mouse or with a thumb.
 *
 * A served page shows a verdict once the server has it on its disk. A page from the disk keeps
 * verdicts in the browser, to be saved as a file for `batch-runner review --import`.
 */
"use strict";

const AT_ONCE = 500; // verdicts in one request
const said = new Map(); // what was said here, by SHA-256; null if it was taken back
const done = []; // what can be undone

let queue = Promise.resolve(); // one verdict after another, however fast the keys come

const isServed = () => index.head.revision !== null;
const storageName = () => `verdicts ${location.pathname} ${index.head.made_at}`;
const words_ = (one) => (one === null ? "" : one.reason ? `${one.word}: ${one.reason}` : one.word);

/** What was said about a file out of a job, or null. */
function saidOn(one, place) {
  const output = (one.outputs || [])[place];
  if (!output || !output.sha256) return null;
  return said.has(output.sha256) ? said.get(output.sha256) : (one.said || [])[place] || null;
}

/** How a job is judged: accepted if one of its files is; waiting while a file has no verdict. */
function wordOf(job) {
  const all = index.word[job].filter((word) => word !== "-"); // no file, no verdict
  if (!all.length) return null;
  if (all.some((word) => word.startsWith("accepted"))) return "accepted";
  if (all.includes("")) return settled().has(index.group[job]) ? "settled" : "waiting";
  return all.some((word) => word.startsWith("redo")) ? "redo" : "rejected";
}

let settledGroups = null;

/** The groups of repeats of which one is accepted: the others need no verdict. */
function settled() {
  if (settledGroups === null) {
    settledGroups = new Set();
    index.word.forEach((all, job) => {
      if (all.some((word) => word.startsWith("accepted"))) settledGroups.add(index.group[job]);
    });
  }
  return settledGroups;
}

/** Take in what was said, here or elsewhere. */
function take(job, one, place, what) {
  said.set(one.outputs[place].sha256, what);
  index.word[job][place] = words_(what);
  settledGroups = null;
}

/** Make verdicts durable; throws an Error with a message for people. */
async function send(verdicts) {
  if (!isServed()) {
    const all = JSON.parse(localStorage.getItem(storageName()) || "[]");
    localStorage.setItem(storageName(), JSON.stringify([...all, ...verdicts]));
    return;
  }
  const wanted = verdicts.map(({ job, sha256, word, reason, note, start }) => ({ job, sha256, word, reason, note, start }));
  let answer;
  try {
    answer = await fetch("verdicts", { method: "POST", body: JSON.stringify(wanted) });
  } catch {
    throw new Error("Not recorded: the page's server does not answer. Start batch-runner view again.");
  }
  if (!answer.ok) throw new Error(`Not recorded: ${(await answer.json()).message}`);
}

function verdict(job, one, place, what) {
  const output = one.outputs[place];
  return { at: new Date().toISOString(), job, key: one.key, fingerprint: one.fingerprint, sha256: output.sha256, ...what };
}

/** Judge the file that is shown, and go to the next one that waits. */
function judge(what) {
  queue = queue.then(async () => {
    const job = openJob;
    const place = largeOutput;
    if (job < 0) return;
    const one = await card(job);
    if (!one.outputs?.[place]?.sha256) return;
    const before = saidOn(one, place);
    try {
      await send([verdict(job, one, place, what)]);
    } catch (error) {
      showSaid(error.message, "failed");
      return;
    }
    take(job, one, place, what);
    done.push({ job, place, before });
    await goOn(job, place);
    showJudged([job]);
  });
  return queue;
}

async function undo() {
  const last = done.pop();
  if (!last) return;
  const one = await card(last.job);
  const { word, reason, note } = last.before || { word: "withdrawn" };
  try {
    await send([verdict(last.job, one, last.place, { word, reason, note })]);
  } catch (error) {
    done.push(last);
    showSaid(error.message, "failed");
    return;
  }
  take(last.job, one, last.place, last.before);
  showJudged([last.job]);
  await goTo(last.job, last.place);
}

/** Show the next file that waits: of this job, then of those after it, then from the beginning. */
async function goOn(job, place) {
  const rest = index.word[job].indexOf("", place + 1);
  if (rest > 0 && wordOf(job) === "waiting") return goTo(job, rest);
  const at = shown.indexOf(job);
  const order = [...shown.slice(at + 1), ...shown.slice(0, at)];
  const next = order.find((other) => wordOf(other) === "waiting");
  if (next === undefined) {
    await showLarge(job, place);
    return showSaid("All pictures that are shown have a verdict.", "accepted");
  }
  return goTo(next, Math.max(0, index.word[next].indexOf("")));
}

function goTo(job, place) {
  const at = shown.indexOf(job);
  if (at >= 0) page = Math.floor(at / index.page);
  address({ job: index.key[job], page: page ? String(page + 1) : "" });
  return showLarge(job, place);
}

let drawingNumbers = 0;

/** Draw again what depends on verdicts; the numbers a moment later, because the keys come first. */
function showJudged(jobs) {
  for (const job of jobs) {
    if (!elements.has(job)) continue;
    const { one, element } = elements.get(job);
    const other = cardElement(one, job);
    element.replaceWith(other);
    elements.set(job, { one, element: other });
  }
  clearTimeout(drawingNumbers);
  drawingNumbers = setTimeout(() => {
    showNumbers();
    showActs();
  }, 150);
}

function showSaid(text, className) {
  put($("said"), text);
  $("said").className = `said ${className || ""}`;
}

/** Show the verdict on a file in the large view. */
function showVerdict(one, place) {
  const what = saidOn(one, place);
  const canJudge = Boolean(one.outputs?.[place]?.sha256);
  $("judge").hidden = !canJudge;
  $("undo").disabled = done.length === 0;
  $("noting").hidden = true;
  $("judge").classList.remove("rejecting");
  $("accept").setAttribute("aria-pressed", String(what?.word === "accepted"));
  $("reject").setAttribute("aria-pressed", String(what?.word === "rejected"));
  $("redo").setAttribute("aria-pressed", String(what?.word === "redo"));
  if (!canJudge) return showSaid("");
  if (what === null) return showSaid("waits for a verdict", "waiting");
  const text = { accepted: "accepted", rejected: "rejected", redo: "to be done again by the next run" }[what.word];
  const details = [what.reason, what.note && `“${what.note}”`, what.by && `by ${what.by}`].filter(Boolean);
  return showSaid([text, ...details].join(" · "), what.word);
}

const reject = (place) => judge({ word: "rejected", reason: index.head.reasons[place] });

function redo(event) {
  event?.preventDefault();
  const note = $("noting").hidden ? "" : $("note").value.trim();
  const start = !$("noting").hidden && $("from-result").checked ? "result" : "source";
  $("note").value = "";
  judge({ word: "redo", note: note || undefined, start });
}

function askNote() {
  $("noting").hidden = !$("noting").hidden;
  if (!$("noting").hidden) $("note").focus();
}

/** Do what a key means; tells whether it means anything. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const digit = Number(event.key);
  if (digit >= 1 && digit <= index.head.reasons.length) reject(digit - 1);
  else if (event.key === "a") judge({ word: "accepted" });
  else if (event.key === "A") askAll();
  else if (event.key === "r") redo();
  else if (event.key === "n") askNote();
  else if (event.key === "u") queue = queue.then(undo);
  else return false;
  return true;
}

// Everything that is shown

function waiting() {
  return shown.filter((job) => wordOf(job) === "waiting");
}

function showActs() {
  const count = waiting().length;
  $("review").hidden = $("accept-all").hidden = count === 0;
  put($("review"), `Review ${number.format(count)} waiting`);
  put($("accept-all"), `Accept all ${number.format(count)} …`);
  const kept = isServed() ? 0 : JSON.parse(localStorage.getItem(storageName()) || "[]").length;
  $("save").hidden = kept === 0;
  put($("save"), `Save ${plural(kept, "verdict")} as a file`);
}

function askAll() {
  const count = waiting().length;
  if (!count) return;
  put($("ask-all-title"), `Accept ${plural(count, "picture")}?`);
  $("ask-all").showModal();
}

async function acceptAll() {
  const jobs = waiting();
  for (let from = 0; from < jobs.length; from += AT_ONCE) {
    const some = [];
    for (const job of jobs.slice(from, from + AT_ONCE)) {
      const one = await card(job);
      index.word[job].forEach((word, place) => word === "" && some.push([job, one, place]));
    }
    const what = { word: "accepted" };
    try {
      await send(some.map(([job, one, place]) => verdict(job, one, place, what)));
    } catch (error) {
      trouble(error.message);
      break;
    }
    for (const [job, one, place] of some) take(job, one, place, what);
  }
  showJudged(jobs);
  if (openJob >= 0) showLarge(openJob, largeOutput);
}

/** Save the verdicts of a page from the disk, in the form of verdicts.jsonl. */
function save() {
  const kept = JSON.parse(localStorage.getItem(storageName()) || "[]");
  const lines = kept.map(({ key, job, ...rest }) => JSON.stringify({ record: "reviewed", ...rest, job: key }));
  const head = JSON.stringify({ record: "verdicts", version: 1, at: new Date().toISOString() });
  const blob = new Blob([[head, ...lines, ""].join("\n")], { type: "application/jsonl" });
  const link = make("a", { href: URL.createObjectURL(blob), download: `verdicts-${index.head.moment.name}.jsonl` });
  link.click();
  URL.revokeObjectURL(link.href);
}

// The numbers that count

/** The rates between which the true one lies with 90 % confidence, as report/numbers.py has it. */
function interval(accepted, judged) {
  const rate = accepted / judged;
  const spread = 1.6448536269514722 ** 2 / judged;
  const middle = (rate + spread / 2) / (1 + spread);
  const half = Math.sqrt(rate * (1 - rate) * spread + (spread / 2) ** 2) / (1 + spread);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function rateText({ accepted, rejected }) {
  const judged = accepted + rejected;
  const percent = (value) => Math.round(100 * value);
  const [low, high] = interval(accepted, judged);
  return `${percent(accepted / judged)} % accepted (${percent(low)} to ${percent(high)} %), ${number.format(judged)} judged`;
}

function showNumbers() {
  const none = () => ({ accepted: 0, rejected: 0, waiting: 0 });
  const total = none();
  const parts = new Map();
  const reasons = new Map();
  index.word.forEach((all, job) => {
    const name = index.prompt[job] * index.models.length + index.model[job];
    if (!parts.has(name)) parts.set(name, none());
    const part = parts.get(name);
    total.rejected += index.redone[job];
    part.rejected += index.redone[job];
    for (const word of all) {
      const [kind, reason] = word.split(": ");
      if (kind === "-" || (kind === "" && settled().has(index.group[job]))) continue;
      const column = { accepted: "accepted", "": "waiting" }[kind] || "rejected";
      total[column] += 1;
      part[column] += 1;
      if (column === "rejected") reasons.set(reason || "no reason", (reasons.get(reason || "no reason") || 0) + 1);
    }
  });
  showVerdictFilters(total);
  const judged = total.accepted + total.rejected;
  $("numbers").hidden = judged === 0;
  if (!judged) return;
  const cost = index.head.moment.cost_usd;
  const each = total.accepted && cost !== null ? `${(Number(cost) / total.accepted).toFixed(3)} USD per accepted picture` : "";
  put($("numbers-sum"), [rateText(total), `${number.format(total.waiting)} waiting`, each].filter(Boolean).join(" · "));
  const commonest = [...reasons].sort((a, b) => b[1] - a[1]).slice(0, 9);
  const nameOf = (name) =>
    [index.prompts[Math.floor(name / index.models.length)], index.models[name % index.models.length]]
      .filter(Boolean)
      .join(" · ");
  const rows = [...parts].filter(([, part]) => part.accepted + part.rejected);
  $("numbers-parts").replaceChildren(
    list(Object.fromEntries(rows.map(([name, part]) => [nameOf(name), rateText(part)]))),
    list(Object.fromEntries(commonest.map(([reason, count]) => [reason, number.format(count)]))),
  );
}

function setUpReview() {
  for (const kept of isServed() ? [] : JSON.parse(localStorage.getItem(storageName()) || "[]")) {
    const what = kept.word === "withdrawn" ? null : kept;
    said.set(kept.sha256, what);
    chunk(Math.floor(kept.job / index.page)).then((cards) => {
      const place = cards[kept.job % index.page].outputs.findIndex((output) => output.sha256 === kept.sha256);
      index.word[kept.job][place] = words_(said.get(kept.sha256));
      settledGroups = null;
      showNumbers();
    });
  }
  $("reasons").replaceChildren(
    ...index.head.reasons.map((reason, place) => {
      const button = make("button", { type: "button" }, make("kbd", { textContent: place + 1 }), reason);
      button.onclick = () => reject(place);
      return button;
    }),
  );
  $("accept").onclick = () => judge({ word: "accepted" });
  // On a phone, the first tap shows the reasons; without one of them, the picture is rejected too.
  $("reject").onclick = () => {
    if (getComputedStyle($("reasons")).display === "none") $("judge").classList.add("rejecting");
    else judge({ word: "rejected" });
  };
  $("redo").onclick = () => redo();
  $("redo-note").onclick = askNote;
  $("noting").onsubmit = redo;
  $("undo").onclick = () => (queue = queue.then(undo));
  $("review").onclick = () => {
    const first = waiting()[0];
    if (first !== undefined) goTo(first, Math.max(0, index.word[first].indexOf("")));
  };
  $("accept-all").onclick = askAll;
  $("save").onclick = save;
  $("ask-all").addEventListener("close", () => {
    if ($("ask-all").returnValue === "yes") queue = queue.then(acceptAll);
    $("ask-all").returnValue = "";
  });
}
