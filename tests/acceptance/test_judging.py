"""Judging pictures on the page: fast by keyboard, and no verdict that was shown is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import random
import statistics
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from browser import Visit, browsing, needs_browser
from command import COMMAND, run
from fabricated import NOBODY, fabricate

from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.loading import load_manifest
from batch_runner.report.feed import Feed
from batch_runner.report.pictures import Copies
from batch_runner.report.remote import Remote
from batch_runner.report.server import Server
from batch_runner.report.text import About, Advice
from batch_runner.run.batch import Batch, RunOptions

KILLS = 50
JOBS = 500
TEXT = """\
version: 1
model: google/nano-banana-2/edit
prompts: {white: white}
images:
%s
output: {dir: out}
review: {reasons: [cut off, colour]}
"""


def write(folder: Path, jobs: int) -> Path:
    path = folder / "batch.yaml"
    lines = "\n".join(f"  p{n:03}: https://cdn.example.com/{n}.png" for n in range(jobs))
    path.write_text(TEXT % lines, encoding="utf-8")
    fabricate(path)
    return path


@contextmanager
def viewing(path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve the page; gives its process and its address."""
    process = subprocess.Popen(
        [*COMMAND, "view", str(path), "--api-base", NOBODY, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def said_in(path: Path) -> dict[str, str]:
    """Return the last word on each job, as the file has it."""
    people = Book(path.parent / "out").verdicts().people.values()
    return {one.job: one.word for one in people}


# Presses a key whenever another picture is there, and notes how long that took.
PRESS = """async ([key, count]) => {
  const took = [];
  const title = document.getElementById("viewer-title");
  for (let n = 0; n < count; n++) {
    const before = title.textContent;
    const began = performance.now();
    document.dispatchEvent(new KeyboardEvent("keydown", { key }));
    while (title.textContent === before || !document.querySelector("#stage img.after")?.complete) {
      await new Promise((go) => setTimeout(go, 1));
      if (performance.now() - began > 10000) return took;
    }
    took.push(performance.now() - began);
  }
  return took;
}"""


@needs_browser
def test_five_hundred_verdicts_by_keyboard(tmp_path: Path) -> None:
    path = write(tmp_path, JOBS)
    with viewing(path) as (_, address), browsing() as browser:
        visit = Visit(browser, viewport={"width": 1280, "height": 900})
        page = visit.page
        page.goto(address)
        page.locator("#review", has_text="Review 500 waiting").click()
        page.locator("#viewer img.after").wait_for()
        took_ms = page.evaluate(PRESS, ["a", JOBS - 1])
        assert len(took_ms) == JOBS - 1
        assert statistics.median(took_ms) <= 100
        page.keyboard.press("2")
        page.get_by_text("All pictures that are shown have a verdict.").wait_for()
    said = said_in(path)
    assert len(said) == JOBS
    assert sorted(set(said.values())) == ["accepted", "rejected"]


def serve(path: Path, address: Connection) -> None:
    """Serve the page as `view` does, in a process that is quick to start."""

    def batch() -> Batch:
        return Batch(load_manifest(path), RunOptions(api_base=NOBODY, token="any"))

    async def work() -> None:
        copies = Copies(path.parent / "out" / "report", Remote(batch(), print))
        advice = Advice(run="", resolve="", view="", export="", is_sandbox=False)
        about = About(manifest="", program="", only=None, advice=advice)
        with tempfile.TemporaryDirectory() as folder:
            feed = Feed(batch, about, Path(folder), copies)
            await feed.renew()
            async with Server(feed, host="127.0.0.1", port=0) as server:
                address.send(server.url)
                await asyncio.Event().wait()

    asyncio.run(work())


def post(address: str, job: int, sha256: str) -> None:
    body = json.dumps([{"job": job, "sha256": sha256, "word": "accepted"}]).encode()
    request = urllib.request.Request(f"{address}verdicts", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


# Python 3.12 warns of threads; those of the test runner do nothing in the child.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_verdict_that_was_answered_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    path, dice = write(tmp_path, JOBS), random.Random(17)
    files = [
        (job.key, known.files[0].sha256)
        for batch in [Batch(load_manifest(path), RunOptions(api_base=NOBODY, token="any"))]
        for state in [batch.replay()]
        for job in batch.jobs()
        if (known := state.job(job.fingerprint)) is not None
    ]
    context = multiprocessing.get_context("fork")  # everything is imported already
    answered: set[str] = set()
    for _ in range(KILLS):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(path, theirs))
        process.start()
        address = ours.recv()
        killer = threading.Timer(dice.uniform(0.0, 0.02), process.kill)
        # urllib wraps what is refused, http.client what is broken off.
        with contextlib.suppress(OSError, HTTPException):
            for number in itertools.count(len(answered)):
                key, sha256 = files[number % JOBS]
                post(address, number % JOBS, sha256)
                answered.add(key)
                if killer.ident is None:
                    killer.start()
        killer.join()
        process.join()
        assert answered <= said_in(path).keys()
    assert len(answered) >= KILLS


@needs_browser
def test_every_key_does_what_it_says_and_can_be_undone(tmp_path: Path) -> None:
    path = write(tmp_path, 6)
    with viewing(path) as (_, address), browsing() as browser:
        visit = Visit(browser, viewport={"width": 1280, "height": 900})
        page, title = visit.page, "#viewer-title"
        page.goto(address)
        page.locator("#review").click()
        page.locator("#viewer img.after").wait_for()
        for key, told in (("a", "p001/white"), ("1", "p002/white"), ("r", "p003/white")):
            page.keyboard.press(key)
            page.locator(title, has_text=told).wait_for()
        page.keyboard.press("n")
        page.locator("#note").fill("make it lighter")
        page.locator("#from-result").check()
        page.locator("#note").press("Enter")
        page.locator(title, has_text="p004/white").wait_for()
        assert said_in(path) == {
            "p000/white": "accepted",
            "p001/white": "rejected",
            "p002/white": "redo",
            "p003/white": "redo",
        }
        page.keyboard.press("u")
        page.locator(title, has_text="p003/white").wait_for()
        page.locator("#said", has_text="waits for a verdict").wait_for()
        assert "p003/white" not in said_in(path)
        page.keyboard.press("ArrowLeft")
        page.locator(title, has_text="p002/white").wait_for()
        page.get_by_text("to be done again by the next run").wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("f")
        page.locator("#stage.actual").wait_for()
        page.keyboard.press("Shift+A")
        page.locator("#ask-all-title", has_text="Accept 3 pictures?").wait_for()
        page.locator("#ask-all .primary").click()
        page.keyboard.press("Escape")
        page.locator("#verdicts button", has_text="accepted").wait_for()
        page.locator("#numbers-sum", has_text="67 % accepted").wait_for()
        assert "0.075 USD per accepted picture" in (page.locator("#numbers").text_content() or "")
        page.locator("#verdicts button", has_text="rejected").click()
        page.locator("#count", has_text="1 job of 6").wait_for()
    assert sorted(said_in(path).values()) == ["accepted"] * 4 + ["redo", "rejected"]


@needs_browser
def test_a_file_that_is_gone_needs_no_verdict_and_a_broken_manifest_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    next((tmp_path / "out").glob("p000/*.jpg")).unlink()
    with viewing(path) as (_, address), browsing() as browser:
        page = Visit(browser).page
        page.goto(address)
        page.locator("#review", has_text="Review 2 waiting").click()
        page.locator("#viewer-title", has_text="p001/white").wait_for()
        path.write_text("nonsense: 1\n", encoding="utf-8")
        page.keyboard.press("a")
        page.locator("#viewer-title", has_text="p002/white").wait_for()
        assert said_in(path) == {"p001/white": "accepted"}


@needs_browser
def test_a_folder_that_was_sent_to_someone_saves_their_verdicts_as_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    made = run("report", str(path), "--api-base", NOBODY)
    index = Path(made.stdout.strip())
    with browsing() as browser:
        page = Visit(browser, viewport={"width": 390, "height": 844}, has_touch=True).page
        page.goto(index.as_uri())
        page.locator("#review").tap()
        page.locator("#accept").tap()
        page.locator("#viewer-title", has_text="p001/white").wait_for()
        page.locator("#reject").tap()
        page.locator("#reasons button", has_text="colour").tap()
        page.locator("#viewer-title", has_text="p002/white").wait_for()
        # Nothing is lost with the window.
        page.reload()
        page.locator("#viewer-close").tap()
        page.locator("#save", has_text="Save 2 verdicts as a file").wait_for()
        with page.expect_download() as download:
            page.locator("#save").tap()
        file = tmp_path / "anna.jsonl"
        download.value.save_as(file)
    assert said_in(path) == {}
    taken = run("review", str(path), "--api-base", NOBODY, "--import", str(file))
    assert taken.returncode == 0, taken.stderr
    assert "took over 2 verdicts" in taken.stderr
    assert said_in(path) == {"p000/white": "accepted", "p001/white": "rejected"}
