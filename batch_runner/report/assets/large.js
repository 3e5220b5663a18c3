/* One job, large: its pictures and all about it. */
"use strict";

let openJob = -1;
let largeOutput = 0; // which of its files is shown
const ahead = new Map(); // pictures that are loaded before they are needed

/** Show a job large, with one of its files. */
async function showLarge(job, place) {
  openJob = job;
  const one = await card(job);
  if (openJob !== job) return;
  largeOutput = Math.min(place, Math.max(0, (one.outputs || []).length - 1));
  $("viewer-title").textContent = one.key;
  $("stage").replaceChildren(pictures(one, () => {}, true));
  $("stage").classList.remove("actual");
  $("facts").replaceChildren(...facts(one));
  showVerdict(one, largeOutput);
  const at = shown.indexOf(job);
  $("viewer-previous").disabled = at <= 0;
  $("viewer-next").disabled = at < 0 || at + 1 >= shown.length;
  if (!$("viewer").open) {
    $("viewer").showModal();
    $("viewer-title").focus(); // not the slider, which would take the arrow keys
  }
  document.querySelector(".panel").scrollTop = 0;
  loadAhead(at);
}

/** Load the next pictures, of jobs that wait and of the neighbours. */
async function loadAhead(at) {
  const next = shown.slice(at + 1, at + 200).filter((job) => wordOf(job) === "waiting").slice(0, 3);
  for (const job of [...next, shown[at + 1], shown[at - 1]]) {
    if (job === undefined) continue;
    const one = await card(job);
    for (const picture of [...(one.outputs || []), ...(one.sources || [])].slice(0, 4)) {
      const url = picture.kind === "picture" && (picture.view || picture.full);
      if (!url || ahead.has(url)) continue;
      const image = new Image();
      image.src = url;
      image.decode().catch(() => {});
      ahead.set(url, image);
      if (ahead.size > 24) ahead.delete(ahead.keys().next().value);
    }
  }
}

function step(by) {
  const at = shown.indexOf(openJob) + by;
  if (at >= 0 && at < shown.length) goTo(shown[at], 0);
}

/** Show before instead of after, or the other way round. */
function flicker() {
  const range = $("stage").querySelector(".compare input");
  if (!range) return;
  range.value = Number(range.value) < 50 ? 100 : 0;
  range.dispatchEvent(new Event("input"));
}

/** Show each pixel of the file as one of the screen. */
function full() {
  $("stage").classList.toggle("actual");
}

function* facts(one) {
  const head = make("div", {});
  head.append(make("span", { className: `badge ${one.state}`, textContent: words(one.state) }));
  if (one.reason) head.append(why(one));
  yield head;
  if (one.command) yield toDo(one.command);
  if ((one.checks || []).length) yield section("Checks", list(checks(one)));
  if ((one.previous || []).length) {
    const rows = one.previous.map((picture) => make("li", {}, picture.thumb ? make("img", { src: picture.thumb, alt: "", loading: "lazy" }) : "", sourceLink(picture)));
    yield section("Before it was done again", make("ul", { className: "files" }, ...rows));
  }
  yield section("Prompt", make("p", { className: "prompt", dir: "auto", textContent: one.text }));
  const inputs = { ...(one.point || {}), ...(one.inputs || {}) };
  if (Object.keys(inputs).length) yield section("Inputs", list(inputs));
  if ((one.outputs || []).length) yield section("Files", files(one));
  if ((one.sources || []).length) {
    const rows = one.sources.map((source) => {
      const thumb = source.thumb && make("img", { src: source.thumb, alt: "", loading: "lazy" });
      return make("li", {}, thumb || "", sourceLink(source));
    });
    yield section("Sources", make("ul", { className: "files" }, ...rows));
  }
  yield section("Request", list(request(one)));
  if (Object.keys(one.cells || {}).length) yield section("From the table", list(one.cells));
}

/** Write what a check measured or requires as people would. */
function figureText(value) {
  if (Array.isArray(value)) return value.join(" × ");
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value)
    .map(([name, one]) => `${name.replaceAll("_", " ")} ${figureText(one)}`)
    .join(", ");
}

function checks(one) {
  return Object.fromEntries(
    one.checks.map(({ check, result, measured, required }) => {
      const parts = [{ fail: "fails", unmeasurable: "can’t be measured" }[result] || result];
      if (measured !== undefined) parts.push(figureText(measured));
      if (required !== undefined && required !== true) parts.push(`wanted: ${figureText(required)}`);
      return [check, parts.join(" · ")];
    }),
  );
}

function request(one) {
  const rows = { model: one.model, request_id: one.request_id, attempts: one.attempts || undefined };
  if (one.cost_usd !== undefined) rows.cost = `${one.cost_usd} USD`;
  if (one.took_s !== undefined) rows.took = seconds(one.took_s);
  if (one.submitted_at) rows.submitted = moment(one.submitted_at);
  if (one.saved_at) rows.saved = moment(one.saved_at);
  return rows;
}

function section(title, ...content) {
  return make("section", {}, make("h3", { textContent: title }), ...content);
}

function list(rows) {
  const element = make("dl");
  for (const [name, value] of Object.entries(rows)) {
    if (value === undefined || value === null) continue;
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    element.append(
      make("dt", { dir: "auto", textContent: name.replace("_", " ") }),
      make("dd", { dir: "auto", textContent: text }),
    );
  }
  return element;
}

function files(one) {
  const rows = one.outputs.map((output) => {
    const facts = [];
    if (output.size_bytes) facts.push(size(output.size_bytes));
    if (output.kind === "missing") facts.push("not in its place");
    const name =
      output.full && output.kind !== "missing"
        ? make("a", { href: output.full, target: "_blank", textContent: output.name, dir: "auto" })
        : make("span", { textContent: output.name, dir: "auto" });
    const about = make("small", { textContent: facts.join(", ") });
    about.dataset.sha256 = output.sha256;
    return make("li", {}, name, " ", about);
  });
  return make("ul", { className: "files" }, ...rows);
}

/** Add the size of a file out to its facts, once it is loaded. */
function showPixels(picture, { naturalWidth, naturalHeight }) {
  const about = document.querySelector(`#facts [data-sha256="${picture.sha256}"]`);
  if (about && !about.dataset.pixels) {
    about.dataset.pixels = "known";
    about.prepend(`${naturalWidth} × ${naturalHeight}, `);
  }
}

function setUpLarge() {
  const viewer = $("viewer");
  $("viewer-close").onclick = () => viewer.close();
  $("viewer-previous").onclick = () => step(-1);
  $("viewer-next").onclick = () => step(1);
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // beside it
  });
  viewer.addEventListener("close", () => {
    $("stage").replaceChildren();
    const job = openJob;
    openJob = -1;
    if (wanted().job !== null) choose({ job: "", page: String(page + 1) });
    const element = document.querySelector(`[data-job="${job}"] h3 button`);
    if (element) element.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (!viewer.open || $("ask-all").open) return;
    // In a text, or a video, keys mean something else.
    if (event.target.closest?.("#note, video, select")) return;
    const known = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": flicker, f: full }[event.key];
    const isButton = event.key === " " && event.target.closest?.("button, [type=checkbox]");
    if (known && !isButton && !(event.target.type === "range" && event.key.startsWith("Arrow"))) known();
    else if (isButton || !onKey(event)) return;
    event.preventDefault();
  });
}
