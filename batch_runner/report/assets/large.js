/* One job, large: its pictures and all about it. */
"use strict";

let openJob = -1;

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
  if (!$("viewer").open) {
    $("viewer").showModal();
    $("viewer-title").focus(); // not the slider, which would take the arrow keys
  }
  document.querySelector(".panel").scrollTop = 0;
}

function step(by) {
  const place = shown.indexOf(openJob) + by;
  if (place >= 0 && place < shown.length) {
    const next = shown[place];
    page = Math.floor(place / index.page);
    address({ job: index.key[next], page: page ? String(page + 1) : "" });
    show(next);
  }
}

function* facts(one) {
  const head = make("div", {});
  head.append(make("span", { className: `badge ${one.state}`, textContent: words(one.state) }));
  if (one.reason) head.append(why(one));
  yield head;
  if (one.command) yield toDo(one.command);
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
  viewer.addEventListener("keydown", (event) => {
    // Inside a slider, a video or a list, the arrows move that instead.
    if (event.target.closest("input, video, select")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}
