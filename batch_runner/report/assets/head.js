/* How the batch stands as a whole, what needs a person, and the news of a page that is served. */
"use strict";

const FOR_A_PERSON = ["unknown", "failed"];
const IN_BAR = ["done", "in_flight", "unknown", "failed", "cancelled", "pending"];

function showHead() {
  const { head } = index;
  const now = head.moment;
  put($("name"), now.name);
  document.title = `${now.name}: ${number.format(now.done)} of ${number.format(now.jobs)} done`;
  $("rehearsal").hidden = !head.advice.is_sandbox;
  showUnder(head, now);
  showFigures(head, now);
  showBar(now);
  showRun(now);
  showAsks(head, now);
  const earlier =
    head.beyond > 0 ? ` ${plural(head.beyond, "earlier job")} that left the manifest count in the money above.` : "";
  $("foot").replaceChildren(
    `Made by ${head.program} from ${head.manifest} and its ledger.${earlier} The same as a table: `,
    make("code", { textContent: head.advice.export }),
  );
}

function showUnder(head, now) {
  const parts = [now.model];
  if (head.only) parts.push(`only ${head.only}, money of the whole batch`);
  if (head.revision === null) parts.push(moment(head.made_at).slice(0, 16) + " UTC");
  if (now.rate_per_s) parts.push(`${number.format(Number((now.rate_per_s * 60).toPrecision(2)))} jobs a minute`);
  if (now.left_s) parts.push(`about ${seconds(now.left_s)} left`);
  $("under").replaceChildren(...parts.map((part) => make("span", { dir: "auto", textContent: part })));
}

function figure(className, big, small, below) {
  const value = make("b", {}, big);
  if (small) value.append(make("small", { textContent: small }));
  return make("div", { className: `figure ${className}` }, value, make("span", { textContent: below }));
}

function showFigures(head, now) {
  const figures = [
    figure("lead", number.format(now.done), ` of ${number.format(now.jobs)}`, "jobs done"),
  ];
  for (const state of ["unknown", "failed", "in_flight", "pending", "cancelled"]) {
    if (now[state]) figures.push(figure(state, number.format(now[state]), "", words(state)));
  }
  let below = head.advice.is_sandbox ? "would have cost" : "spent";
  if (Number(now.reserved_usd)) below += `, ${usd(now.reserved_usd)} reserved`;
  if (now.budget_usd !== null) below += `, ${head.advice.is_sandbox ? "budget" : "of"} ${usd(now.budget_usd)}`;
  figures.push(figure("", usd(now.cost_usd).replace(" USD", ""), " USD", below));
  $("figures").replaceChildren(...figures);
}

function showBar(now) {
  const parts = IN_BAR.filter((state) => now[state]);
  $("share").setAttribute(
    "aria-label",
    parts.map((state) => `${number.format(now[state])} ${words(state)}`).join(", "),
  );
  $("share").replaceChildren(
    ...parts.map((state) => {
      const part = make("i", { className: state });
      part.style.flexGrow = now[state];
      return part;
    }),
  );
}

function showRun(now) {
  const isRunning = now.at_work.length > 0;
  let text = "";
  if (now.is_draining) text = "stopping";
  else if (isRunning) text = "running";
  else if (!now.was_run) text = "no run yet";
  else if (now.stopped) text = now.stopped === "killed" ? "the last run was killed" : `stopped: ${now.stopped}`;
  else if (!FOR_A_PERSON.some((state) => now[state])) text = "finished";
  $("state").hidden = !text;
  put($("state"), text);
  $("state").classList.toggle("in_flight", isRunning && !now.is_draining);
  $("stop").hidden = !isRunning || index.head.revision === null;
  $("stop").disabled = now.is_draining;
}

/** The failed and unknown jobs by reason, and the command for each kind. */
function showAsks(head, now) {
  const groups = new Map();
  index.state.forEach((state, job) => {
    if (!FOR_A_PERSON.includes(index.states[state])) return;
    const name = `${index.states[state]}\n${index.reasons[index.reason[job]]}`;
    groups.set(name, (groups.get(name) || 0) + 1);
  });
  const articles = [...groups]
    .map(([name, count]) => [...name.split("\n"), count])
    .sort((a, b) => FOR_A_PERSON.indexOf(a[0]) - FOR_A_PERSON.indexOf(b[0]) || b[2] - a[2])
    .map(([state, reason, count]) => group(head, state, reason, count));
  if (!now.at_work.length && (now.in_flight || now.pending)) {
    const what = now.in_flight
      ? `${number.format(now.in_flight)} in flight: paid for; the next run collects them.`
      : `${number.format(now.pending)} pending: the next run submits them.`;
    articles.push(make("p", { className: "note", textContent: `${what} ` }, line(head.advice.run)));
  }
  $("asks").hidden = articles.length === 0;
  $("asks").replaceChildren(...articles);
}

function group(head, state, reason, count) {
  const title = make("h3", {}, make("span", { className: `badge ${state}`, textContent: words(state) }));
  title.append(
    make("span", { dir: "auto", textContent: reason }),
    make("small", { textContent: plural(count, "job") }),
    make("a", {
      href: `#state=${state}&reason=${encodeURIComponent(reason)}`,
      textContent: count === 1 ? "show it" : "show them",
    }),
  );
  const article = make("article", { className: `group ${state}` }, title);
  if (state === "unknown") {
    const what =
      "Sent, but no usable answer came back, so each may or may not have been bought. No run sends them again by itself. Look for them on the service’s Generations page, then decide: ";
    article.append(make("p", {}, what, line(head.advice.resolve)));
  } else {
    article.append(make("p", {}, "To buy all failed jobs again: ", line(`${head.advice.run} --retry failed`)));
  }
  return article;
}

function trouble(text) {
  $("trouble").hidden = !text;
  put($("trouble"), text);
}

/** Follow the server's news. */
function follow(revision) {
  const events = new EventSource(`events?since=${revision}`);
  const on = (name, then) =>
    events.addEventListener(name, (event) => {
      trouble("");
      then(JSON.parse(event.data));
    });
  on("reload", () => {
    events.close();
    location.reload();
  });
  on("moment", (now) => {
    index.head.moment = now;
    showHead();
  });
  on("jobs", (cards) => {
    for (const [job, one] of cards) renew(job, one);
    showRenewed(cards.map(([job]) => job));
  });
  events.addEventListener("error", () => {
    const ended = events.readyState === EventSource.CLOSED;
    $("stop").hidden = true;
    trouble(
      ended
        ? "This page is no longer served. A run does not depend on it. To look again: batch-runner view"
        : "The page's server does not answer; trying again. A run does not depend on it.",
    );
  });
}

async function stopRun() {
  try {
    const answer = await fetch("drain", { method: "POST" });
    const told = await answer.json();
    if (!answer.ok) trouble(told.message);
  } catch {
    trouble("The run could not be asked to stop: the page's server does not answer.");
  }
}

$("stop").addEventListener("click", () => $("ask").showModal());
$("ask").addEventListener("close", () => {
  if ($("ask").returnValue === "stop") stopRun();
  $("ask").returnValue = "";
});
