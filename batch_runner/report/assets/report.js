/*
 * The report's page: filters, sorting, cards, the large view.
 *
 * Data comes from scripts in data/ that call batchReport.index (columns of all jobs, for filters and
 * sorting) and batchReport.jobs (one chunk of cards). Whatever they hold is put in as text, never as
 * HTML. The address after # says what is shown, so that a view can be sent to somebody.
 */
"use strict";

const batchReport = (() => {
  const $ = (id) => document.getElementById(id);
  const words = (state) => state.replace("_", " ");
  const number = new Intl.NumberFormat("en");
  const order = new Intl.Collator("en", { numeric: true });
  const KEPT_CHUNKS = 64;
  const DATALIST = 500;

  let index;
  let shown = []; // numbers of the jobs that pass the filters, in order
  let page = 0;
  let drawing = 0;
  let openJob = -1;
  let view = 50;
  const chunks = new Map();
  const arrivals = new Map();

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

  function plural(count, noun) {
    return `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
  }

  function seconds(value) {
    if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
    return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  }

  function size(bytes) {
    if (bytes < 1000) return `${bytes} B`;
    if (bytes < 1e6) return `${Math.round(bytes / 1000)} KB`;
    return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
  }

  function moment(text) {
    return text.replace("T", " ").replace(/\.\d+/, "").replace(/Z$/, " UTC");
  }

  // Data

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
    const cards = await chunk(Math.floor(job / index.page));
    return cards[job % index.page];
  }

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
        return falling(index.run);
      case "dearest":
        return falling(index.cost);
      case "manifest":
        return () => 0;
      default: {
        // Unknown, failed and cancelled jobs before the pictures; those without a picture yet after them.
        const ranks = { unknown: 0, failed: 1, cancelled: 2, done: 3, in_flight: 4, pending: 5 };
        const rank = index.states.map((state) => ranks[state]);
        return (a, b) =>
          rank[index.state[a]] - rank[index.state[b]] ||
          (rank[index.state[a]] < 2 ? index.reason[a] - index.reason[b] : 0);
      }
    }
  }

  function choose(changes) {
    const chosen = new URLSearchParams(location.hash.slice(1));
    if (!("page" in changes) && !("job" in changes)) chosen.delete("page");
    if (!("job" in changes)) chosen.delete("job");
    for (const [name, value] of Object.entries(changes)) {
      if (value === "" || value === null) chosen.delete(name);
      else chosen.set(name, value);
    }
    address(chosen.toString());
    apply();
  }

  /** Put the filters into the address, without a history entry for each typed letter. */
  function address(hash) {
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
      if (job >= 0) show(job);
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

  function setUp() {
    const counts = index.states.map(() => 0);
    for (const state of index.state) counts[state] += 1;
    const buttons = [["", "All", index.jobs]];
    const usual = ["unknown", "failed", "in_flight", "pending", "cancelled", "done"];
    for (const state of usual) {
      const count = counts[index.states.indexOf(state)];
      if (count) buttons.push([state, words(state), count]);
    }
    for (const [state, text, count] of buttons) {
      const button = make("button", { type: "button", value: state });
      if (state) button.append(make("i", { className: state }));
      button.append(text, make("small", { textContent: number.format(count) }));
      button.onclick = () => choose({ state, reason: "" });
      $("states").append(button);
    }
    fill($("prompt"), index.prompts, "any");
    fill($("reason"), index.reasons, "any");
    $("reason-field").hidden = index.reasons.every((reason) => reason === "");
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
      address("");
      apply();
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
    $("active").textContent = active ? String(active) : "";
    const isFiltered = shown.length !== index.jobs;
    const jobs = plural(shown.length, "job");
    $("count").textContent = isFiltered ? `${jobs} of ${number.format(index.jobs)}` : jobs;
    $("reset").hidden = !(active || filters.state || filters.words.length);
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
      $("cards").replaceChildren(...cards.map((one, place) => cardElement(one, jobs[place])));
    } catch (error) {
      $("count").textContent = `${error.message}: make the report again`;
    }
    $("cards").setAttribute("aria-busy", "false");
  }

  function cardElement(one, job) {
    const open = () => choose({ job: one.key });
    const title = make("button", { type: "button", dir: "auto", textContent: one.image || one.key });
    title.setAttribute("aria-label", `${one.key}: all about it`);
    title.onclick = open;
    const body = make("div", { className: "body" }, make("h3", {}, title));
    const chips = make("div", { className: "chips" });
    if (one.state !== "done") {
      chips.append(make("span", { className: `badge ${one.state}`, textContent: words(one.state) }));
    }
    if (one.prompt) chips.append(chip(one.prompt));
    for (const [name, value] of Object.entries(one.point || {})) chips.append(chip(value, name));
    if (chips.children.length) body.append(chips);
    if (one.reason) body.append(why(one));
    body.append(make("p", { className: "words", dir: "auto", textContent: one.text }));
    for (const command of one.commands || []) {
      body.append(
        make("div", { className: "do" }, make("span", { textContent: command.words }), line(command.line)),
      );
    }
    const meta = [];
    if (one.cost_usd) meta.push(`${one.cost_usd} USD`);
    if (one.run_s !== undefined) meta.push(seconds(one.run_s + (one.queue_s || 0)));
    if ((one.outputs || []).length > 1) meta.push(plural(one.outputs.length, "result"));
    if ((one.sources || []).length > 1) meta.push(plural(one.sources.length, "source"));
    if (one.attempts > 1) meta.push(plural(one.attempts, "attempt"));
    if (meta.length) body.append(make("p", { className: "meta", textContent: meta.join(" · ") }));
    const element = make("article", { className: `card ${one.state}` }, pictures(one, open), body);
    element.dataset.job = String(job);
    return element;
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

  function line(text) {
    const copy = make("button", { type: "button", className: "copy", textContent: "Copy" });
    copy.dataset.copy = text;
    copy.setAttribute("aria-label", `Copy: ${text}`);
    return make("span", { className: "command" }, make("code", { textContent: text, title: text }), copy);
  }

  // Before and after

  /** The pictures of a job: the chosen source over the chosen result, and strips to choose with. */
  function pictures(one, open, isLarge = false) {
    const sources = (one.sources || []).filter((source) => source.kind === "picture");
    const outputs = one.outputs || [];
    const frame = make("div", { className: "pictures" });
    const chosen = { source: 0, output: 0 };
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
    if (source && after && after.tagName === "IMG") stage.append(...slider(stage, name, open));
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
    if (output.kind === "missing") text.append("is not in its place: verify --fix puts it back for free");
    else if (output.kind === "link") text.append("is in the bucket: report --fetch-sources shows it here");
    else if (!output.full) text.append("is not on this machine");
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
    return make("img", {
      loading: "lazy",
      decoding: "async",
      alt,
      className,
      width: picture.width,
      height: picture.height,
      src: isLarge ? picture.view || picture.full : picture.thumb,
    });
  }

  function slider(stage, name, open) {
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
    range.value = String(view);
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
    if (!source.full) return make("span", { textContent: `${name} (missing)` });
    return make("a", {
      href: source.full,
      target: "_blank",
      rel: "noopener noreferrer",
      textContent: name,
      dir: "auto",
    });
  }

  // One job, large

  async function show(job) {
    openJob = job;
    const one = await card(job);
    if (openJob !== job) return;
    $("viewer-title").textContent = one.key;
    $("stage").replaceChildren(pictures(one, () => {}, true));
    $("facts").replaceChildren(...facts(one));
    const place = shown.indexOf(job);
    $("viewer-previous").disabled = place <= 0;
    $("viewer-next").disabled = place < 0 || place + 1 >= shown.length;
    if (!$("viewer").open) $("viewer").showModal();
    document.querySelector(".panel").scrollTop = 0;
  }

  function step(by) {
    const place = shown.indexOf(openJob) + by;
    if (place >= 0 && place < shown.length) {
      const next = shown[place];
      choose({ job: index.key[next], page: String(Math.floor(place / index.page) + 1) });
    }
  }

  function* facts(one) {
    const head = make("div", {});
    head.append(make("span", { className: `badge ${one.state}`, textContent: words(one.state) }));
    if (one.reason) head.append(why(one));
    yield head;
    if ((one.commands || []).length) {
      const list = one.commands.map((command) =>
        make("div", { className: "do" }, make("span", { textContent: command.words }), line(command.line)),
      );
      yield section("What can be done", ...list);
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

  function request(one) {
    const rows = { model: one.model, request_id: one.request_id, attempts: one.attempts || undefined };
    if (one.cost_usd !== undefined) rows.cost = `${one.cost_usd} USD`;
    if (one.queue_s !== undefined) rows.queue = `${seconds(one.queue_s)} or more`;
    if (one.run_s !== undefined) {
      rows.run = one.queue_s === undefined ? `${seconds(one.run_s)} with the queue` : `${seconds(one.run_s)} or less`;
    }
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
      if (output.width) facts.push(`${output.width} × ${output.height}`);
      if (output.size_bytes) facts.push(size(output.size_bytes));
      if (output.kind === "missing") facts.push("not in its place");
      const name =
        output.full && output.kind !== "missing"
          ? make("a", { href: output.full, target: "_blank", textContent: output.name, dir: "auto" })
          : make("span", { textContent: output.name, dir: "auto" });
      return make("li", {}, name, " ", make("small", { textContent: facts.join(", ") }));
    });
    return make("ul", { className: "files" }, ...rows);
  }

  function setUpViewer() {
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
    viewer.addEventListener("keydown", (event) => {
      // Inside a slider, a video or a list, the arrows move that instead.
      if (event.target.closest("input, video, select")) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
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

  return {
    index(data) {
      index = data;
      for (const part of document.querySelectorAll(".share i")) {
        part.style.flexGrow = part.dataset.grow;
      }
      setUp();
      setUpViewer();
      apply();
    },
    jobs(which, cards) {
      arrivals.get(which)?.(cards);
      arrivals.delete(which);
    },
  };
})();
