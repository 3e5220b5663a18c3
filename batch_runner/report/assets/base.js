/*
 * What all parts of the page share: making elements, formats, and the data.
 *
 * Data comes from scripts in data/ that call batchReport.index (columns of all jobs, for filters and
 * sorting) and batchReport.jobs (one chunk of cards): a page from the disk may load scripts and
 * nothing else. Whatever they hold is put in as text, never as HTML.
 */
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const KEPT_CHUNKS = 64;

let index; // the columns, and `head`
const chunks = new Map(); // promises of cards
const arrivals = new Map();
const renewed = new Map(); // cards that have changed since the page was written

/** Make an element: properties are set, never parsed. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const words = (state) => state.replace("_", " ");

function plural(count, noun) {
  return `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function usd(text) {
  if (text === null || text === undefined) return "not known";
  const [whole, cents = ""] = text.split(".");
  const shown = cents.replace(/0+$/, "").padEnd(2, "0");
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${shown} USD`;
}

function seconds(value) {
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  const minutes = Math.round(value / 60);
  if (minutes < 120) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1000)} KB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function moment(text) {
  return text.replace("T", " ").replace(/\.\d+/, "").replace(/Z$/, " UTC");
}

/** A command line to copy. */
function line(text) {
  const copy = make("button", { type: "button", className: "copy", textContent: "Copy" });
  copy.dataset.copy = text;
  copy.setAttribute("aria-label", `Copy: ${text}`);
  return make("span", { className: "command" }, make("code", { textContent: text, title: text }), copy);
}

function chunk(which) {
  const known = chunks.get(which);
  if (known) return known;
  const promise = new Promise((resolve, reject) => {
    arrivals.set(which, resolve);
    const script = make("script", { src: `data/${index.chunks[which]}` });
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error(`data/${index.chunks[which]} is missing`));
    document.head.append(script);
  });
  chunks.set(which, promise);
  if (chunks.size > KEPT_CHUNKS) chunks.delete(chunks.keys().next().value);
  return promise;
}

async function card(job) {
  if (renewed.has(job)) return renewed.get(job);
  const cards = await chunk(Math.floor(job / index.page));
  return renewed.get(job) || cards[job % index.page];
}

/** Take in a card that has changed: the columns follow from it. */
function renew(job, one) {
  renewed.set(job, one);
  const numbered = (values, value) => {
    const place = values.indexOf(value);
    return place < 0 ? values.push(value) - 1 : place;
  };
  index.state[job] = index.states.indexOf(one.state);
  index.reason[job] = numbered(index.reasons, one.reason || "");
  index.cost[job] = one.cost_usd === undefined ? null : Number(one.cost_usd);
  index.took[job] = one.took_s ?? null;
  index.saved[job] = one.saved_at === undefined ? null : Date.parse(one.saved_at) / 1000;
  index.outputs[job] = (one.outputs || []).length;
  for (const output of one.outputs || []) said.delete(output.sha256);
  index.word[job] = (one.outputs || []).map((output, place) =>
    output.sha256 ? words_((one.said || [])[place] || null) : "-",
  );
  index.redone[job] = one.redone || 0;
  index.failing[job] = (one.checks || []).filter((check) => check.result === "fail").length;
  settledGroups = null;
  const news = [one.request_id, one.reason, one.message].filter(Boolean).join("\n");
  index.more[job] = index.texts.push(`${index.texts[index.more[job]]}\n${news}`) - 1;
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1600);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button) copy(button);
});

const batchReport = {
  index(data) {
    index = data;
    setUpGallery();
    setUpLarge();
    setUpReview();
    showHead();
    apply();
    if (index.head.revision !== null) follow(index.head.revision);
  },
  jobs(which, cards) {
    arrivals.get(which)?.(cards);
    arrivals.delete(which);
  },
};
