/*
 * The gallery: filters, sorting, cards, before and after.
 *
 * The address after # says what is shown, so that a view can be sent to somebody.
 */
"use strict";

const order = new Intl.Collator("en", { numeric: true });
const DATALIST = 500;
const AT_TOP = 300;

let shown = []; // numbers of the jobs that pass the filters, in order
let page = 0;
let drawing = 0;
let view = 50;
const elements = new Map(); // the cards on the page, by job

// Filters and order

function wanted() {
  const chosen = new URLSearchParams(location.hash.slice(1));
  return {
    state: chosen.get("state") || "",
    prompt: chosen.get("prompt"),
    image: (chosen.get("image") || "").toLowerCase(),
    reason: chosen.get("reason"),
    words: (chosen.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean),
    sort: chosen.get("sort") || "first",
    page: Math.max(1, parseInt(chosen.get("page") || "1", 10) || 1),
    job: chosen.get("job"),
    verdict: chosen.get("verdict") || "",
    axes: Object.keys(index.axes)
      .map((name) => [name, chosen.get(`is.${name}`)])
      .filter(([, value]) => value !== null),
  };
}

function haystack(job) {
  const texts = index.texts;
  return `${index.key[job]}\n${texts[index.text[job]]}\n${texts[index.more[job]]}`.toLowerCase();
}

function passes(filters) {
  const state = index.states.indexOf(filters.state);
  const prompt = filters.prompt === null ? -1 : index.prompts.indexOf(filters.prompt);
  const reason = filters.reason === null ? -1 : index.reasons.indexOf(filters.reason);
  const axes = filters.axes.map(([name, value]) => [
    index.points[name],
    index.axes[name].indexOf(value),
  ]);
  const images = filters.image
    ? index.images.map((image) => image.toLowerCase().includes(filters.image))
    : null;
  return (job) =>
    (!filters.state || index.state[job] === state) &&
    (!filters.verdict || (filters.verdict === "failing" ? index.failing[job] > 0 : wordOf(job) === filters.verdict)) &&
    (filters.prompt === null || index.prompt[job] === prompt) &&
    (filters.reason === null || index.reason[job] === reason) &&
    (images === null || images[index.image[job]]) &&
    axes.every(([column, value]) => column[job] === value) &&
    (filters.words.length === 0 || includesAll(haystack(job), filters.words));
}

function includesAll(text, searched) {
  return searched.every((word) => text.includes(word));
}

/** Compare two jobs; equal ones stay in the manifest's order, because sorting is stable. */
function comparison(sort) {
  const falling = (column) => (a, b) => (column[b] ?? -1) - (column[a] ?? -1);
  switch (sort) {
    case "key":
      return (a, b) => order.compare(index.key[a], index.key[b]);
    case "newest":
      return falling(index.saved);
    case "slowest":
      return falling(index.took);
    case "dearest":
      return falling(index.cost);
    case "manifest":
      return () => 0;
    default: {
      // What needs a decision, then pictures that fail a check, then those that wait for a verdict.
      const ranks = { unknown: 0, failed: 1, done: 4, in_flight: 5, pending: 6, cancelled: 7 };
      const rank = index.states.map((state) => ranks[state]);
      const ranked = Array.from({ length: index.jobs }, (_, job) => {
        const word = wordOf(job);
        if (word === "waiting" && rank[index.state[job]] === 4) return index.failing[job] ? 2 : 3;
        return rank[index.state[job]];
      });
      return (a, b) => ranked[a] - ranked[b] || (ranked[a] < 2 ? index.reason[a] - index.reason[b] : 0);
    }
  }
}

/** Change the address, and show what it says then. */
function choose(changes) {
  address({ page: "", job: "", ...changes });
  apply();
}

/** Put changes into the address, without a history entry for each typed letter. */
function address(changes) {
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null) chosen.delete(name);
    else chosen.set(name, value);
  }
  const hash = chosen.toString();
  try {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  } catch {
    location.hash = hash; // a browser that lets pages from the disk change nothing else
  }
}

function apply() {
  const filters = wanted();
  const all = Array.from({ length: index.jobs }, (_, job) => job);
  shown = all.filter(passes(filters)).sort(comparison(filters.sort));
  page = Math.min(filters.page, Math.max(1, Math.ceil(shown.length / index.page))) - 1;
  showControls(filters);
  draw();
  if (filters.job !== null) {
    const job = index.key.indexOf(filters.job);
    if (job >= 0 && job !== openJob) showLarge(job, 0);
  } else if ($("viewer").open) $("viewer").close();
}

// The tools above the cards

function option(value, text) {
  return make("option", { value, textContent: text });
}

function fill(select, values, any) {
  const named = values.filter((value) => value !== "");
  select.replaceChildren(option("", any), ...named.map((value) => option(`=${value}`, value)));
}

/** Draw what depends on how the jobs stand. */
function showStates() {
  const counts = index.states.map(() => 0);
  for (const state of index.state) counts[state] += 1;
  const buttons = [["", "All", index.jobs]];
  const usual = ["unknown", "failed", "in_flight", "pending", "cancelled", "done"];
  for (const state of usual) {
    const count = counts[index.states.indexOf(state)];
    if (count) buttons.push([state, words(state), count]);
  }
  $("states").replaceChildren(
    ...buttons.map(([state, text, count]) => {
      const button = make("button", { type: "button", value: state });
      if (state) button.append(make("i", { className: state }));
      button.append(text, make("small", { textContent: number.format(count) }));
      button.onclick = () => choose({ state, reason: "" });
      return button;
    }),
  );
  fill($("reason"), index.reasons, "any");
  $("reason-field").hidden = index.reasons.every((reason) => reason === "");
}

function stateButton(text, count, className, isPressed, onclick) {
  const button = make("button", { type: "button" });
  if (className) button.append(make("i", { className }));
  button.append(text, make("small", { textContent: number.format(count) }));
  button.setAttribute("aria-pressed", String(isPressed));
  button.onclick = onclick;
  return button;
}

/** Draw the filters for verdicts, once there are pictures to judge. */
function showVerdictFilters(total) {
  const chosen = wanted().verdict;
  const failing = index.failing.filter(Boolean).length;
  const counts = { failing, waiting: 0, accepted: 0, rejected: 0, redo: 0 };
  index.word.forEach((_, job) => {
    const word = wordOf(job);
    if (word in counts) counts[word] += 1;
  });
  $("verdicts").hidden = !failing && !(total.accepted + total.rejected);
  $("verdicts").replaceChildren(
    ...Object.entries(counts)
      .filter(([word, count]) => count || word === chosen)
      .map(([word, count]) =>
        stateButton(word === "failing" ? "fail a check" : word, count, `word ${word}`, word === chosen, () =>
          choose({ verdict: word === chosen ? "" : word }),
        ),
      ),
  );
}

function setUpGallery() {
  fill($("prompt"), index.prompts, "any");
  $("images").append(
    ...index.images.slice(0, DATALIST).map((image) => make("option", { value: image })),
  );
  for (const [name, values] of Object.entries(index.axes)) {
    const select = make("select", { id: `axis-${name}` });
    fill(select, values, "any");
    select.onchange = () => choose({ [`is.${name}`]: select.value.slice(1) });
    $("selects").append(make("label", {}, name, select));
  }
  const late = (act) => {
    let timer;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(act, 120);
    };
  };
  $("search").oninput = late(() => choose({ q: $("search").value.trim() }));
  $("image").oninput = late(() => choose({ image: $("image").value.trim() }));
  $("prompt").onchange = () => choose({ prompt: $("prompt").value.slice(1) });
  $("reason").onchange = () => choose({ reason: $("reason").value.slice(1) });
  $("sort").onchange = () => choose({ sort: $("sort").value === "first" ? "" : $("sort").value });
  $("reset").onclick = () => {
    choose(Object.fromEntries([...new URLSearchParams(location.hash.slice(1)).keys()].map((name) => [name, ""])));
  };
  $("tools").onsubmit = (event) => event.preventDefault();
  $("previous").onclick = () => turn(-1);
  $("next").onclick = () => turn(1);
  for (const radio of document.querySelectorAll("input[name=view]")) {
    radio.onchange = () => setView({ before: 100, compare: 50, after: 0 }[radio.value]);
  }
  document.addEventListener("click", (event) => {
    if (!$("more").contains(event.target)) $("more").open = false;
  });
  $("more").addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      $("more").open = false;
      $("more").querySelector("summary").focus();
    }
  });
  window.addEventListener("hashchange", () => {
    apply();
    if (wanted().job === null) $("gallery").scrollIntoView();
  });
}

function showControls(filters) {
  showStates();
  for (const button of $("states").children) {
    button.setAttribute("aria-pressed", String(button.value === filters.state));
  }
  const chosen = new URLSearchParams(location.hash.slice(1));
  const put = (control, value) => {
    if (document.activeElement !== control) control.value = value;
  };
  put($("search"), chosen.get("q") || "");
  put($("image"), chosen.get("image") || "");
  $("prompt").value = filters.prompt === null ? "" : `=${filters.prompt}`;
  $("reason").value = filters.reason === null ? "" : `=${filters.reason}`;
  $("sort").value = filters.sort;
  for (const name of Object.keys(index.axes)) {
    const value = chosen.get(`is.${name}`);
    $(`axis-${name}`).value = value === null ? "" : `=${value}`;
  }
  const active =
    filters.axes.length +
    [filters.prompt !== null, filters.reason !== null, filters.image !== ""].filter(Boolean).length;
  showJudged([]);
  $("active").textContent = active ? String(active) : "";
  const isFiltered = shown.length !== index.jobs;
  const jobs = plural(shown.length, "job");
  $("count").textContent = isFiltered ? `${jobs} of ${number.format(index.jobs)}` : jobs;
  $("reset").hidden = !(active || filters.state || filters.verdict || filters.words.length);
  const pages = Math.max(1, Math.ceil(shown.length / index.page));
  $("pager").hidden = pages === 1;
  $("place").textContent = `Page ${number.format(page + 1)} of ${number.format(pages)}`;
  $("previous").disabled = page === 0;
  $("next").disabled = page + 1 >= pages;
}

function turn(by) {
  choose({ page: String(page + 1 + by) });
  $("gallery").scrollIntoView();
  $("gallery").focus({ preventScroll: true });
}

function setView(at) {
  view = at;
  for (const slider of document.querySelectorAll(".compare input")) {
    slider.value = at;
    slider.dispatchEvent(new Event("input"));
  }
}

// Cards

async function draw() {
  const mine = ++drawing;
  const jobs = shown.slice(page * index.page, (page + 1) * index.page);
  $("cards").setAttribute("aria-busy", "true");
  try {
    const cards = await Promise.all(jobs.map(card));
    if (mine !== drawing) return; // another choice was made meanwhile
    const before = new Map(elements);
    elements.clear();
    cards.forEach((one, place) => {
      const known = before.get(jobs[place]);
      elements.set(jobs[place], known?.one === one ? known : { one, element: cardElement(one, jobs[place]) });
    });
    $("cards").replaceChildren(...[...elements.values()].map((known) => known.element));
  } catch (error) {
    $("count").textContent = `${error.message}: make the report again`;
  }
  $("cards").setAttribute("aria-busy", "false");
}

let redraw = 0;

/** Show cards that have changed: sorted again at the top of the page, else where they are. */
function showRenewed(jobs) {
  clearTimeout(redraw);
  redraw = setTimeout(() => {
    showHead();
    if (scrollY < AT_TOP && !$("viewer").open) return apply();
    for (const job of jobs) {
      if (!elements.has(job)) continue;
      const one = renewed.get(job);
      const element = cardElement(one, job);
      elements.get(job).element.replaceWith(element);
      elements.set(job, { one, element });
    }
  }, 200);
}

function cardElement(one, job) {
  const open = () => choose({ job: one.key, page: page ? String(page + 1) : "" });
  const title = make("button", { type: "button", dir: "auto", textContent: one.image || one.key });
  title.setAttribute("aria-label", `${one.key}: all about it`);
  title.onclick = open;
  const body = make("div", { className: "body" }, make("h3", {}, title));
  const chips = make("div", { className: "chips" });
  if (one.state !== "done") {
    chips.append(make("span", { className: `badge ${one.state}`, textContent: words(one.state) }));
  }
  const word = wordOf(job);
  if (["accepted", "rejected", "redo"].includes(word)) {
    chips.append(make("span", { className: `badge ${word}`, textContent: word }));
  }
  for (const check of one.checks || []) {
    if (check.result === "fail") chips.append(make("span", { className: "badge failed", textContent: check.check }));
  }
  if (one.prompt) chips.append(chip(one.prompt));
  for (const [name, value] of Object.entries(one.point || {})) chips.append(chip(value, name));
  if (chips.children.length) body.append(chips);
  if (one.reason) body.append(why(one));
  body.append(make("p", { className: "words", dir: "auto", textContent: one.text }));
  if (one.command) body.append(toDo(one.command));
  const meta = [];
  if (one.cost_usd) meta.push(`${one.cost_usd} USD`);
  if (one.took_s !== undefined) meta.push(seconds(one.took_s));
  if ((one.outputs || []).length > 1) meta.push(plural(one.outputs.length, "result"));
  if ((one.sources || []).length > 1) meta.push(plural(one.sources.length, "source"));
  if (one.attempts > 1) meta.push(plural(one.attempts, "attempt"));
  if (meta.length) body.append(make("p", { className: "meta", textContent: meta.join(" · ") }));
  const element = make("article", { className: `card ${one.state}` }, pictures(one, open), body);
  element.dataset.job = String(job);
  return element;
}

function toDo(command) {
  return make("div", { className: "do" }, make("span", { textContent: command.words }), line(command.line));
}

function chip(text, title) {
  return make("span", { className: "chip", dir: "auto", textContent: text, title: title || text });
}

function why(one) {
  const text = make("p", { className: `why ${one.state}`, dir: "auto" });
  text.append(make("b", { textContent: one.reason }));
  if (one.message) text.append(`: ${one.message}`);
  return text;
}

// Before and after

/** The pictures of a job: the chosen source over the chosen result, and strips to choose with. */
function pictures(one, open, isLarge = false) {
  const sources = (one.sources || []).filter((source) => source.kind === "picture");
  const outputs = one.outputs || [];
  const frame = make("div", { className: "pictures" });
  const chosen = { source: 0, output: isLarge ? largeOutput : 0 };
  const redraw = () => {
    const stage = compare(one, sources[chosen.source], outputs[chosen.output], open, isLarge);
    const strips = [];
    if (outputs.length > 1) strips.push(strip("Results", outputs, "output"));
    if (sources.length > 1 && isLarge) strips.push(strip("Sources", sources, "source"));
    frame.replaceChildren(stage, ...strips);
  };
  const strip = (name, list, which) => {
    const row = make("div", { className: "strip", role: "group" }, make("span", { textContent: name }));
    row.setAttribute("aria-label", `${name} of ${one.key}`);
    list.forEach((picture, place) => {
      const button = make("button", { type: "button", title: picture.name });
      button.setAttribute("aria-label", `${name.slice(0, -1)} ${place + 1}: ${picture.name}`);
      button.setAttribute("aria-pressed", String(place === chosen[which]));
      button.dataset.place = which === "source" && outputs.length > 1 ? outputs.length + place : place;
      if (picture.thumb) button.append(make("img", { src: picture.thumb, alt: "", loading: "lazy" }));
      else button.textContent = picture.kind === "video" ? "▶" : "?";
      button.onclick = () => {
        chosen[which] = place;
        if (isLarge && which === "output") {
          largeOutput = place;
          showVerdict(one, place);
        }
        redraw();
        // The strip was drawn again: keep the focus of keyboard users.
        frame.querySelectorAll(".strip button")[button.dataset.place].focus();
      };
      row.append(button);
    });
    return row;
  };
  redraw();
  return frame;
}

function compare(one, source, output, open, isLarge) {
  const stage = make("div", { className: "compare" });
  const name = one.image || one.key;
  const after = output ? result(one, output, name, isLarge) : null;
  if (after) stage.append(after);
  if (output && output.kind === "video") return stage;
  if (source && (!output || after.tagName === "IMG")) {
    stage.append(image(source, `Source of ${name}`, after ? "before" : "", isLarge));
  }
  if (!after && !source) stage.append(empty(one));
  if (!isLarge && stage.querySelector("img")) {
    // For pointers only: by keyboard, the title does the same.
    const button = make("button", { type: "button", className: "open", tabIndex: -1 });
    button.setAttribute("aria-label", `${one.key}: show large`);
    button.onclick = open;
    stage.append(button);
  }
  if (source && after && after.tagName === "IMG") stage.append(...slider(stage, name, open, isLarge ? 0 : view));
  else if (source && !output) stage.append(make("span", { className: "tag left", textContent: "Source" }));
  return stage;
}

function result(one, output, name, isLarge) {
  if (output.kind === "picture") {
    return image(output, `Result for ${name}: ${one.text}`, "after", isLarge);
  }
  if (output.kind === "video") {
    const video = make("video", { controls: true, loop: true, playsInline: true, preload: "none" });
    video.setAttribute("aria-label", `Result for ${name}: ${one.text}`);
    video.src = output.full;
    seen.observe(video);
    return video;
  }
  const text = make("div", { className: "empty" }, make("b", { textContent: output.name }));
  if (output.kind === "missing") text.append("is not in its place: check --fix restores it for free");
  else if (output.kind === "link") text.append("is in the bucket: batch-runner view shows it here");
  else text.append(make("a", { href: output.full, target: "_blank", textContent: "open the file" }));
  return text;
}

/** Load the length and first picture of a video once it comes into view. */
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      entry.target.preload = "metadata";
      seen.unobserve(entry.target);
    }
  }
});

function image(picture, alt, className, isLarge) {
  const speed = isLarge ? { loading: "eager", decoding: "sync" } : { loading: "lazy", decoding: "async" };
  const element = make("img", { ...speed, alt, className });
  element.onerror = () => {
    const link = make("a", { href: picture.link || picture.full, target: "_blank", rel: "noopener noreferrer" });
    put(link, picture.name);
    element.replaceWith(make("div", { className: "empty" }, "can’t be shown here: ", link));
  };
  // A copy has other pixels than the file.
  if (isLarge && picture.sha256 && !picture.view) element.onload = () => showPixels(picture, element);
  element.src = isLarge ? picture.view || picture.full : picture.thumb;
  return element;
}

function slider(stage, name, open, start) {
  const range = make("input", { type: "range", min: "0", max: "100", step: "1" });
  range.setAttribute("aria-label", `Source and result of ${name}`);
  const move = () => {
    const at = Number(range.value);
    stage.style.setProperty("--at", `${at}%`);
    stage.classList.toggle("at-start", at < 22);
    stage.classList.toggle("at-end", at > 78);
    range.setAttribute("aria-valuetext", `${at} % source, ${100 - at} % result`);
  };
  range.oninput = move;
  // A mere click on the handle, in the middle of the picture, opens it.
  let held = null;
  range.onpointerdown = () => (held = range.value);
  range.onclick = () => {
    if (held === range.value) open();
  };
  range.value = String(start);
  move();
  return [
    range,
    make("span", { className: "rule" }),
    make("span", { className: "tag left", textContent: "Before" }),
    make("span", { className: "tag right", textContent: "After" }),
  ];
}

function empty(one) {
  const states = {
    pending: "not sent yet",
    in_flight: "at the service; the next run collects it",
    cancelled: one.reason === "abandoned" ? "abandoned" : "cancelled",
  };
  const text = make("div", { className: "empty", textContent: states[one.state] || "no picture" });
  for (const source of one.sources || []) text.append(sourceLink(source));
  return text;
}

function sourceLink(source) {
  const name = source.name.length > 60 ? `…${source.name.slice(-58)}` : source.name;
  const address = source.full || source.link;
  if (!address) return make("span", { textContent: source.kind === "missing" ? `${name} (missing)` : name });
  return make("a", {
    href: address,
    target: "_blank",
    rel: "noopener noreferrer",
    textContent: name,
    dir: "auto",
  });
}
