// Shows the events of the server as text: texts of a manifest, a service or a file name never become
// markup. Counts come as "moment", failures and pictures in events of their own.
"use strict";

const SHOWN_PICTURES = 120;
const FOR_A_PERSON = ["failed", "unknown"];
const COUNTS = ["done", "failed", "unknown", "cancelled", "in_flight", "pending"];

const byId = (id) => document.getElementById(id);
const plain = new Intl.NumberFormat("en");
const pictures = new Map();
let open = null;
let isDraining = false;
let wasAtWork = false;

function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function usd(text) {
  if (text === null || text === undefined) return "not known";
  const [whole, cents = ""] = text.split(".");
  const shown = cents.replace(/0+$/, "").padEnd(2, "0");
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${shown} USD`;
}

function rate(perSecond) {
  for (const [unit, seconds] of [["s", 1], ["min", 60], ["h", 3600]]) {
    const value = perSecond * seconds;
    if (value >= 1 || unit === "h") return `${plain.format(Number(value.toPrecision(3)))}/${unit}`;
  }
}

function span(seconds) {
  const whole = Math.round(seconds);
  for (const [name, size, lesser, lesserSize] of
    [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / lesserSize);
      return `${plain.format(Math.floor(whole / size))} ${name} ${rest} ${lesser}`;
    }
  }
  return `${whole} s`;
}

function clock(date) {
  const today = date.toDateString() === new Date().toDateString();
  const options = today
    ? { hour: "2-digit", minute: "2-digit", second: "2-digit" }
    : { weekday: "short", hour: "2-digit", minute: "2-digit" };
  return date.toLocaleTimeString("en-GB", options);
}

function size(bytes) {
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return bytes >= 1000 ? `${(bytes / 1000).toFixed(1)} KB` : `${bytes} bytes`;
}

function showMoment(moment) {
  put("name", moment.name);
  put("model", moment.model);
  put("output", `output: ${moment.output}`);
  for (const name of COUNTS) {
    put(name, plain.format(moment[name]));
    document.querySelector(`.bar .${name}`).style.flexGrow = String(moment[name]);
    const needsPerson = FOR_A_PERSON.includes(name) && moment[name] > 0;
    document.querySelector(`.counts .${name}`).classList.toggle("first", needsPerson);
  }
  const well = moment.done + moment.cancelled;
  // Rounded down, and without failed jobs, so that nothing looks finished before it is.
  const percent = moment.jobs ? Math.floor((100 * well) / moment.jobs) : 0;
  put("percent", `${percent} %`);
  put("settled", `${plain.format(well)} of ${plain.format(moment.jobs)} jobs`);
  const words = COUNTS.filter((name) => moment[name])
    .map((name) => `${plain.format(moment[name])} ${name.replace("_", " ")}`);
  byId("bar").setAttribute("aria-label", words.join(", ") || "no jobs");
  document.title = `${needed(moment) || `${percent} %`} ${moment.name}`;
  const pace = [];
  if (moment.rate_per_s) pace.push(rate(moment.rate_per_s));
  if (moment.left_s !== null) {
    pace.push(`${span(moment.left_s)} left`);
    pace.push(`ends about ${clock(new Date(Date.parse(moment.at) + 1000 * moment.left_s))}`);
  }
  put("pace", pace.join(" · "));
  const spent = usd(moment.cost_usd);
  put("spent", moment.budget_usd === null
    ? spent : `${spent.replace(" USD", "")} of ${usd(moment.budget_usd)}`);
  put("reserved", usd(moment.reserved_usd));
  put("run_cost", usd(moment.run_cost_usd));
  showReasons(moment.reasons);
  showRun(moment);
  trouble(moment.notes.join(" "));
}

function needed(moment) {
  return FOR_A_PERSON.filter((name) => moment[name])
    .map((name) => `${plain.format(moment[name])} ${name}`).join(", ");
}

function showRun(moment) {
  const atWork = moment.runs.filter((run) => run.is_at_work);
  const last = moment.runs.reduce((a, b) => (a && a.began_at > b.began_at ? a : b), null);
  isDraining = atWork.length > 0 && atWork.every((run) => run.is_draining);
  let [state, tone] = ["no run yet", ""];
  if (isDraining) [state, tone] = ["stopping", "doubt"];
  else if (atWork.length) [state, tone] = ["running", "running"];
  else if (last && last.stopped === "killed") [state, tone] = ["killed", "bad"];
  else if (last && last.stopped) [state, tone] = [`stopped: ${last.stopped}`, "doubt"];
  else if (last && needed(moment)) [state, tone] = [needed(moment), "bad"];
  else if (last) [state, tone] = ["finished", "done"];
  put("state", state);
  byId("state").dataset.tone = tone;
  byId("stop").hidden = !atWork.length;
  byId("stop").disabled = isDraining;
  if (atWork.length) {
    const began = Math.min(...atWork.map((run) => Date.parse(run.began_at)));
    const who = atWork.length > 1 ? `${atWork.length} runs` : `pid ${atWork[0].pid}`;
    put("run", `${span((Date.parse(moment.at) - began) / 1000)}, ${who}`);
  } else {
    put("run", last && last.ended_at ? `ended ${clock(new Date(last.ended_at))}` : "–");
  }
  if (wasAtWork && !atWork.length) say(`The run has ended: ${state}.`);
  wasAtWork = atWork.length > 0;
}

function showReasons(reasons) {
  const chips = Object.entries(reasons).map(([reason, count]) =>
    make("li", `${reason} ${plain.format(count)}`));
  byId("reasons").replaceChildren(...chips);
}

function showFailures(failures) {
  byId("failures-section").hidden = failures.length === 0;
  byId("failures").replaceChildren(...failures.map((failure) => {
    const line = make("li");
    const at = make("time", clock(new Date(failure.at)));
    at.dateTime = failure.at;
    const what = make("p");
    what.append(make("b", failure.job), make("span", ` ${failure.what}`));
    line.append(at, make("span", failure.state, `state ${failure.state}`), what);
    return line;
  }));
}

function makeMedia(picture, isWhole) {
  if (picture.media_type.startsWith("video/")) {
    const video = make("video");
    video.src = `picture/${picture.number}`;
    video.muted = true;
    video.controls = isWhole;
    video.playsInline = true;
    video.preload = "metadata";
    return video;
  }
  const image = make("img");
  image.alt = isWhole ? picture.job : "";
  image.decoding = "async";
  image.src = `${isWhole ? "picture" : "small"}/${picture.number}`;
  image.addEventListener("error", () => {
    image.replaceWith(make("span", "cannot be shown here", "faint missing"));
  });
  return image;
}

function addPicture(picture) {
  if (pictures.has(picture.number)) return;
  const card = make("li");
  card.dataset.number = picture.number;
  const button = make("button");
  button.type = "button";
  button.setAttribute("aria-label", `Show ${picture.job}`);
  button.append(makeMedia(picture, false));
  button.addEventListener("click", () => openPicture(picture.number));
  card.append(button, make("p", picture.job, "key"),
    make("p", `${clock(new Date(picture.at))} · ${size(picture.size_bytes)}`, "faint"));
  pictures.set(picture.number, picture);
  byId("pictures").prepend(card);
  byId("nothing").hidden = true;
  while (pictures.size > SHOWN_PICTURES) {
    const oldest = pictures.keys().next().value;
    pictures.delete(oldest);
    byId("pictures").lastElementChild.remove();
  }
}

function openPicture(number) {
  const picture = pictures.get(number);
  if (!picture) return;
  open = number;
  byId("full").replaceChildren(makeMedia(picture, true));
  put("caption", `${picture.job} · ${picture.path} · ${size(picture.size_bytes)}`);
  byId("newer").disabled = neighbour(1) === undefined;
  byId("older").disabled = neighbour(-1) === undefined;
  if (!byId("viewer").open) byId("viewer").showModal();
}

function neighbour(step) {
  const numbers = [...pictures.keys()];
  return numbers[numbers.indexOf(open) + step];
}

function move(step) {
  const number = neighbour(step);
  if (open !== null && number !== undefined) openPicture(number);
}

function reset() {
  pictures.clear();
  byId("pictures").replaceChildren();
  byId("nothing").hidden = false;
}

function trouble(text) {
  byId("trouble").hidden = !text;
  put("trouble", text);
}

function say(text) {
  put("say", text);
}

async function stopRun() {
  try {
    const answer = await fetch("drain", { method: "POST" });
    const told = await answer.json();
    say(told.message);
    if (!answer.ok) trouble(told.message);
  } catch {
    trouble("The run could not be asked to stop: the page's server does not answer.");
  }
}

function connect() {
  const events = new EventSource("events");
  const on = (name, then) =>
    events.addEventListener(name, (event) => then(JSON.parse(event.data)));
  on("reset", reset);
  on("moment", showMoment);
  on("failures", showFailures);
  on("picture", addPicture);
  events.addEventListener("error", () => {
    const ended = events.readyState === EventSource.CLOSED;
    put("state", ended ? "view ended" : "reconnecting");
    byId("state").dataset.tone = "";
    byId("stop").hidden = true;
    trouble(ended
      ? "This view has ended. The run does not depend on it: start batch-runner status --serve again."
      : "The page's server does not answer; trying again. The run does not depend on it.");
  });
}

byId("stop").addEventListener("click", () => byId("ask").showModal());
byId("ask").addEventListener("close", () => {
  if (byId("ask").returnValue === "stop") stopRun();
  byId("ask").returnValue = "";
});
byId("close").addEventListener("click", () => byId("viewer").close());
byId("newer").addEventListener("click", () => move(1));
byId("older").addEventListener("click", () => move(-1));
byId("viewer").addEventListener("close", () => { open = null; byId("full").replaceChildren(); });
byId("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") move(1);
  if (event.key === "ArrowRight") move(-1);
});
connect();
