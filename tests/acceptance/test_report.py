"""The page as people see it: Chromium opens it from the disk, and looks, clicks and types."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import CHROMIUM, FLAGS, needs_browser
from command import run
from fabricated import NOBODY, Content, fabricate, jpeg_of, picture

from batch_runner.ledger.reading import ledger_path
from batch_runner.records import Job
from batch_runner.sandbox.pictures import render

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page


HOSTILE = "<script>window.pwned=1</script>"
NAME = "<img src=x onerror=window.pwned=1>"
TABLE = f"""\
sku,title,file
A-1,"mug ""blue"" {HOSTILE}",a1.jpg
B-2,كوب أزرق 🏺,b2.jpg
C-3,plain,c3.png
"""
TEXT = f"""\
version: 1
model: google/nano-banana-2/edit
name: "night '& {NAME}"
inputs: {{resolution: 0.5K, output_format: jpeg}}
prompts:
  white: "white {{{{ title }}}}"
  sepia: "sepia {{{{ title }}}} {HOSTILE}"
images: {{from: table.csv, id: "{{{{ sku }}}}", urls: ["{{{{ file }}}}"]}}
matrix: {{aspect_ratio: ["1:1", "4:5"]}}
output: {{dir: "out put #1"}}
"""
OUTCOMES = {
    "A-1/white/aspect_ratio=4:5": "failed",
    "A-1/sepia/aspect_ratio=4:5": "failed",
    "B-2/white/aspect_ratio=4:5": "unknown",
    "B-2/sepia/aspect_ratio=4:5": "in_flight",
    "C-3/white/aspect_ratio=4:5": "pending",
}

Open = Callable[..., Any]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture
async def opened(browser: Browser) -> AsyncIterator[Open]:
    """Open a report; at the end nothing was complained of, and nothing outside was asked for."""
    contexts, complaints, asked = [], [], []

    async def open_page(index: Path, **options: Any) -> Page:
        context = await browser.new_context(**options)
        contexts.append((context, index))
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(index.as_uri())
        await page.wait_for_selector("#cards[aria-busy=false]")
        return page

    yield open_page
    for context, index in contexts:
        folder = index.parents[1].as_uri() + "/"
        assert [url for url in asked if not url.startswith((folder, "data:"))] == []
        await context.close()
    assert complaints == []


def make_report(manifest: Path, *words: str) -> Path:
    done = run("report", str(manifest), "--api-base", NOBODY, *words)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def write_batch(folder: Path, text: str = TEXT) -> Path:
    (folder / "table.csv").write_text(TABLE, encoding="utf-8")
    (folder / "a1.jpg").write_bytes(picture("a1", (900, 700)))
    (folder / "b2.jpg").write_bytes(picture("b2", (3000, 2000)))
    (folder / "c3.png").write_bytes(picture("c3", (400, 300), "PNG"))
    path = folder / "batch.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A batch with every outcome, hostile words in it, and a ledger that was never run."""
    return _write_fabricated(tmp_path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of such a batch, for tests that only look at it."""
    return make_report(_write_fabricated(tmp_path_factory.mktemp("looked-at")))


def _write_fabricated(folder: Path) -> Path:
    path = write_batch(folder)
    fabricate(path, lambda job: OUTCOMES.get(job.key, "done"), _large_or_small)
    return path


def _large_or_small(job: Job, number: int) -> Content:
    if job.image_id == "A-1":
        return picture(job.key, (1024, 1024), "PNG"), ".png", "image/png"
    return jpeg_of(job, number)


async def _keys(page: Page) -> list[str]:
    """Return the keys of the cards, in order."""
    labels = await page.locator(".card h3 button").evaluate_all("all => all.map(e => e.ariaLabel)")
    return [label.removesuffix(": all about it") for label in labels]


async def _natural_widths(page: Page) -> list[int]:
    await page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    await page.wait_for_function("() => [...document.images].every(i => i.complete)")
    widths: list[int] = await page.evaluate("[...document.images].map(i => i.naturalWidth)")
    return widths


@needs_browser
async def test_every_picture_shows_and_hostile_words_are_text(index: Path, opened: Open) -> None:
    page = await opened(index)
    widths = await _natural_widths(page)
    # Seven jobs with source and result, five with the source at most.
    assert len(widths) >= 7 * 2
    assert min(widths) > 0
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("h1").inner_text() == f"night '& {NAME}"
    assert HOSTILE in await page.locator(".card.done .words").first.inner_text()
    assert await page.locator("img:not([alt])").count() == 0
    assert "كوب أزرق 🏺" in await page.locator("#cards").inner_text()
    assert await page.locator("b b, .why i").count() == 0
    assert "the model <b>refuses</b> this" in await page.locator("#cards").inner_text()


@needs_browser
async def test_a_slider_moves_by_keyboard_and_pointer_and_all_of_them_at_once(
    index: Path, opened: Open
) -> None:
    page = await opened(index)
    stage = page.locator(".card.done .compare").first
    slider = stage.locator("input[type=range]")
    before = stage.locator("img.before")
    await stage.scroll_into_view_if_needed()
    assert await before.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 50% 0px 0px)"
    await slider.focus()
    for _ in range(10):
        await page.keyboard.press("ArrowLeft")
    assert await before.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 60% 0px 0px)"
    assert await slider.get_attribute("aria-valuetext") == "40 % source, 60 % result"
    box = await stage.bounding_box()
    await page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=4)
    await page.mouse.up()
    assert await slider.input_value() == "80"
    await page.get_by_text("After", exact=True).first.click()
    values = await page.locator(".compare input").evaluate_all("all => all.map(e => e.value)")
    assert set(values) == {"0"}


@needs_browser
async def test_filters_filter_and_the_address_keeps_them(index: Path, opened: Open) -> None:
    page = await opened(index)
    assert await page.locator(".card").count() == 12
    await page.locator("#states button[value=failed]").click()
    await _count_is(page, "2 jobs of 12")
    await page.locator("#states button[value='']").click()
    await page.locator("#more summary").click()
    await page.locator("#prompt").select_option("sepia")
    await _count_is(page, "6 jobs of 12")
    await page.locator("#axis-aspect_ratio").select_option("1:1")
    await _count_is(page, "3 jobs of 12")
    await page.locator("#image").fill("b-")
    await _count_is(page, "1 job of 12")
    assert await _keys(page) == ["B-2/sepia/aspect_ratio=1:1"]
    address = page.url
    await page.goto("about:blank")
    await page.goto(address)
    await _count_is(page, "1 job of 12")
    await page.locator("#reset").click()
    await _count_is(page, "12 jobs")
    for words, count in (("أزرق", 4), ("PLAIN white", 2), ("request-3", 1), ("refuses", 2)):
        await page.locator("#search").fill(words)
        await _count_is(page, f"{count} job{'s' if count > 1 else ''} of 12")
    await page.locator("#search").fill("nothing has this")
    await _count_is(page, "0 jobs of 12")


async def _count_is(page: Page, text: str) -> None:
    await page.wait_for_function(
        "text => document.getElementById('count').textContent === text"
        " && document.getElementById('cards').ariaBusy === 'false'",
        arg=text,
    )


@needs_browser
async def test_what_needs_a_person_is_first_and_sorting_sorts(index: Path, opened: Open) -> None:
    page = await opened(index)
    first = await _keys(page)
    assert first[:3] == [
        "B-2/white/aspect_ratio=4:5",
        "A-1/white/aspect_ratio=4:5",
        "A-1/sepia/aspect_ratio=4:5",
    ]
    assert first[-1] == "C-3/white/aspect_ratio=4:5"
    await page.locator("#sort").select_option("manifest")
    await page.wait_for_selector("#cards[aria-busy=false] .card:first-child.done")
    manifest_order = await _keys(page)
    assert manifest_order[0] == "A-1/white/aspect_ratio=1:1"
    await page.locator("#sort").select_option("newest")
    await page.wait_for_function("() => document.querySelector('.card').dataset.job === '11'")
    newest = await _keys(page)
    assert newest[0] == manifest_order[-1]
    await page.locator("#sort").select_option("slowest")
    await page.wait_for_function("() => document.querySelector('.card').dataset.job === '6'")


@needs_browser
async def test_one_job_large_its_facts_and_its_neighbours(index: Path, opened: Open) -> None:
    folder = index.parents[2] / "out put #1"
    page = await opened(index)
    await page.locator("#states button[value=done]").click()
    await _count_is(page, "7 jobs of 12")
    await page.locator(".card .open").first.click(position={"x": 20, "y": 60})
    viewer = page.locator("#viewer[open]")
    await viewer.locator("img.after").wait_for()
    await page.wait_for_function(
        "() => [...document.querySelectorAll('#stage .compare img')].every(i => i.naturalWidth > 0)"
    )
    after = viewer.locator("img.after")
    assert await after.evaluate("i => i.naturalWidth") == 1024
    facts = await viewer.inner_text()
    for words in (
        "A-1/white/aspect_ratio=1:1",
        "request-0",
        "0.05 USD",
        "1024 \u00d7 1024",
        "0.5K",
    ):
        assert words in facts
    assert re.search(r"attempts\s+1\b", facts)
    assert re.search(r"took\s+5.0 s", facts)
    link = await viewer.locator(".files a").first.evaluate("e => e.href")
    assert Path(unquote(urlsplit(link).path)) == folder / "A-1" / "white-1x1.png"
    await viewer.locator("h2").click()
    await page.keyboard.press("ArrowRight")
    await page.wait_for_function(
        "() => document.getElementById('viewer-title').textContent === 'A-1/sepia/aspect_ratio=1:1'"
    )
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#viewer:not([open])", state="attached")


@needs_browser
async def test_it_fits_a_phone_in_the_dark_and_every_text_has_contrast(
    index: Path, opened: Open
) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        size = {"width": 390, "height": 844}
        page = await opened(index, viewport=size, color_scheme=scheme, has_touch=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        grounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        weak = await page.evaluate(CONTRAST)
        assert weak == []
    assert len(grounds) == 2


CONTRAST = """() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const part = (at) => {
      const value = parseInt(hex.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4);
  };
  const weak = [];
  const pairs = [
    ["--text", "--ground"], ["--text", "--surface"], ["--text", "--sunken"],
    ["--soft", "--ground"], ["--soft", "--surface"], ["--soft", "--sunken"],
    ["--soft", "--quiet-ground"], ["--accent", "--surface"], ["--accent", "--ground"],
    ["--accent", "--sunken"], ["--on-accent", "--accent"], ["--failed-text", "--failed-ground"],
    ["--failed-text", "--surface"], ["--unknown-text", "--unknown-ground"],
    ["--unknown-text", "--surface"], ["--in_flight-text", "--in_flight-ground"],
  ];
  for (const [front, back] of pairs) {
    const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (!(ratio >= 4.5)) weak.push([front, back, ratio]);
  }
  return weak;
}"""


@needs_browser
async def test_pages_of_two_hundred_and_filters_across_all_of_them(
    tmp_path: Path, opened: Open
) -> None:
    path = tmp_path / "batch.yaml"
    lines = "".join(f"  p{n:03}: https://cdn.example.com/{n}.png\n" for n in range(450))
    path.write_text(
        "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {w: white}\n"
        f"images:\n{lines}output: {{dir: out}}\n",
        encoding="utf-8",
    )
    fabricate(path, lambda job: "failed" if job.image_id == "p444" else "done")
    page = await opened(make_report(path))
    assert await page.locator(".card").count() == 200
    assert (await _keys(page))[:2] == ["p444/w", "p000/w"]
    assert await page.locator("#place").inner_text() == "Page 1 of 3"
    await page.locator("#next").click()
    await page.locator("#next").click()
    await page.wait_for_function("() => document.querySelectorAll('.card').length === 50")
    assert (await _keys(page))[-1] == "p449/w"
    await page.locator("#search").fill("p31")
    await _count_is(page, "10 jobs of 450")
    # Sources from elsewhere are linked, never loaded.
    await page.locator(".card h3 button").first.click()
    href = await page.locator("#viewer .files a[href^=https]").get_attribute("href")
    assert href == "https://cdn.example.com/310.png"


@needs_browser
async def test_films_play_in_place_and_further_results_can_be_chosen(
    tmp_path: Path, opened: Open
) -> None:
    path = write_batch(tmp_path, TEXT.replace("0.5K,", "0.5K, num_images: 3,"))

    def content(job: Job, number: int) -> Content:
        if number == 3:
            film = render("video", {"prompt": job.key, "duration": 1}, 1, is_small=True)
            return film.data, ".mp4", "video/mp4"
        return jpeg_of(job, number)

    fabricate(path, content=content)
    page = await opened(make_report(path))
    card = page.locator(".card").first
    results = card.locator(".strip button")
    assert await results.count() == 3
    await results.nth(1).click()
    assert (await card.locator("img.after").get_attribute("src") or "").endswith("-2.jpg")
    await results.nth(2).click()
    film = card.locator("video")
    await page.wait_for_function("() => document.querySelector('.card video').readyState >= 1")
    await film.evaluate("v => { v.muted = true; return v.play() }")
    await page.wait_for_function("() => document.querySelector('.card video').currentTime > 0")
    assert await film.evaluate("v => v.videoWidth") > 0


@needs_browser
async def test_files_that_are_gone_or_broken_are_said_and_stop_nothing(
    manifest: Path, opened: Open
) -> None:
    folder = manifest.parent / "out put #1"
    gone = next(folder.glob("C-3/*.jpg"))
    broken = next(folder.glob("B-2/*.jpg"))
    gone.unlink()
    broken.write_bytes(b"x" * broken.stat().st_size)
    page = await opened(make_report(manifest))
    await page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    await page.wait_for_selector("#cards .compare .empty a")
    words = await page.locator("#cards").text_content()
    assert "check --fix" in words
    assert f"t be shown here: {broken.relative_to(folder)}" in words
    assert await page.locator(".card").count() == 12


def test_it_is_the_same_again_reuses_its_thumbnails_and_leaves_the_ledger_alone(
    manifest: Path,
) -> None:
    ledger = ledger_path(manifest.parent / "out put #1")
    before = ledger.read_bytes()
    index = make_report(manifest)
    data = sorted(path.name for path in (index.parent / "data").glob("jobs-*"))
    thumbs = {path: path.stat().st_mtime_ns for path in (index.parent / "thumbs").iterdir()}
    assert thumbs
    old = index.parent / "data" / "jobs-9-000000000000.js"
    old.write_text("old", encoding="utf-8")
    os.utime(old, (0, 0))
    assert make_report(manifest) == index
    assert sorted(path.name for path in (index.parent / "data").glob("jobs-*")) == data
    assert {path: path.stat().st_mtime_ns for path in thumbs} == thumbs
    assert ledger.read_bytes() == before
    assert list(index.parent.rglob("*.part")) == []


def test_a_folder_that_cannot_be_written_is_told_with_its_name(manifest: Path) -> None:
    (manifest.parent / "out put #1" / "report").write_text("in the way", encoding="utf-8")
    done = run("report", str(manifest), "--api-base", NOBODY)
    assert done.returncode == 74
    assert f"cannot write {manifest.parent / 'out put #1' / 'report'}: " in done.stderr
    assert "Traceback" not in done.stderr


@needs_browser
async def test_the_command_on_the_page_does_what_it_says(
    tmp_path: Path, sandbox: str, opened: Open
) -> None:
    path = write_batch(tmp_path, TEXT + "limits: {submits: 500/s, polls: 500/s}\n")
    key = "A-1/white/aspect_ratio=1:1"
    fabricate(path, lambda job: "failed" if job.key == key else "pending")
    done = run("report", str(path), "--api-base", sandbox)
    page = await opened(Path(done.stdout.strip()))
    line = await page.locator(".card.failed .command code").first.inner_text()
    program, *words = shlex.split(line)
    assert program == "batch-runner"
    again = run(*words)
    assert again.returncode == 0, again.stderr
    status = json.loads(run("status", str(path), "--api-base", sandbox, "--json").stdout)
    assert (status["done"], status["failed"], status["pending"]) == (1, 0, 11)
