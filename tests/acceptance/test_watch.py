"""A run seen from another process: in a terminal, as lines, as a page in a browser."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from browser import Visit, browsing, needs_browser
from command import COMMAND, accepted, run, wait_for, write
from terminal import COLUMNS, Terminal

from batch_runner.ledger.lock import hold


@contextmanager
def running(manifest: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "run", str(manifest), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def serving(manifest: Path, sandbox: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve the page; gives its process and its address."""
    process = subprocess.Popen(
        [*COMMAND, "view", str(manifest), "--api-base", sandbox, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_bar_of_a_run_is_whole_on_80_columns_and_messages_do_not_tear_it(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=5)
    text = manifest.read_text(encoding="utf-8").replace("make it sepia", "forbidden")
    manifest.write_text(text, encoding="utf-8")
    terminal = Terminal("run", str(manifest), "--api-base", sandbox, NO_COLOR="1")
    assert terminal.end() == 3
    assert b"\x1b[3" not in terminal.raw  # no colours
    frames = [
        frame.strip() for frame in re.split("[\r\n]|\x1b\\[[AK]", terminal.text) if frame.strip()
    ]
    bars = [frame for frame in frames if re.search(r"\d/30\b", frame)]
    assert bars
    for bar in bars:
        assert len(bar) <= COLUMNS
        assert bar.count("|") in (0, 2)
        assert "✗" not in bar
    assert re.search(r"100%\|█+\| 30/30 \[.*0 in flight, 10 failed, \$1\.00\]", bars[-1])
    refused = [frame for frame in frames if frame.startswith("✗")]
    assert len(refused) == 10
    assert all(frame.endswith("refused by the safety check") for frame in refused)


def test_without_a_terminal_there_are_lines_and_with_quiet_there_are_none(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=1)
    loud = run("run", str(manifest), "--api-base", sandbox)
    assert "batch: 0/6 jobs, 0 in flight, $0.00\n" in loud.stderr
    assert "\r" not in loud.stderr
    quiet = run("run", str(write(tmp_path, images=2)), "--api-base", sandbox, "--quiet")
    assert quiet.returncode == 0
    assert quiet.stderr == ""


def test_a_terminal_shows_a_run_of_another_process_and_follows_its_width(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=5, submits="10/s")  # longer than between two looks
    words = (str(manifest), "--api-base", sandbox)
    terminal = Terminal("status", *words, "--watch")
    terminal.read_until("0/30")
    with running(manifest, "--api-base", sandbox) as process:
        terminal.read_until("last run: running")
        terminal.resize(50)
        assert process.wait(timeout=240) == 0
    terminal.read_until("30/30")
    assert terminal.end(signal.SIGINT) == 0
    # What was seen last stays in the terminal.
    last = terminal.text.split("\x1b[J")[-1]
    assert "batch: 30 jobs" in last
    assert "100%|" in last
    assert all(len(line.rstrip("\r")) <= 50 for line in last.split("\n"))


def test_a_damaged_ledger_ends_the_view_with_its_line(tmp_path: Path) -> None:
    manifest = write(tmp_path, images=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.jsonl").write_text("{}\n", encoding="utf-8")
    terminal = Terminal("status", "--watch", str(manifest))
    assert terminal.end() == 74
    assert "ledger.jsonl:1:" in terminal.text


def test_elsewhere_than_on_a_terminal_the_view_is_lines_of_json(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=2)
    words = [*COMMAND, "status", "--watch", str(manifest), "--api-base", sandbox]
    machine = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert machine.stdout is not None
    moment = json.loads(machine.stdout.readline())
    assert (moment["jobs"], moment["pending"], moment["was_run"]) == (12, 12, False)
    assert run("run", str(manifest), "--api-base", sandbox).returncode == 0
    while moment["done"] < 12 or moment["stopped"] == "running":
        moment = json.loads(machine.stdout.readline())
    assert moment["cost_usd"] == "0.60"
    machine.send_signal(signal.SIGINT)
    machine.communicate(timeout=240)
    assert machine.returncode == 0


def test_serve_says_its_address_alone_on_stdout_and_ends_with_ctrl_c(
    tmp_path: Path, sandbox: str
) -> None:
    with serving(write(tmp_path, images=1), sandbox) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22}/report/", address)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, "")
    assert "anyone who knows it can see the batch and stop the run" in err
    assert "Traceback" not in err


def test_stop_lets_a_run_in_another_process_stop_in_good_order(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=60, submits="4/s")
    words = ("status", str(manifest), "--api-base", sandbox, "--stop")
    with running(manifest, "--api-base", sandbox) as process:
        wait_for(tmp_path / "out" / "ledger.jsonl", "submitted", 2, process)
        stopped = run(*words)
        assert (stopped.returncode, stopped.stdout) == (0, "")
        assert stopped.stderr == (
            "asked the run to stop: it submits nothing more, and collects paid jobs\n"
        )
        assert process.wait(timeout=240) == 75
    assert not list((tmp_path / "out").glob(".drain-*"))
    status = json.loads(run("status", str(manifest), "--api-base", sandbox, "--json").stdout)
    assert status["in_flight"] == status["unknown"] == 0
    assert 0 < status["done"] < status["jobs"]
    nobody = run(*words)
    assert (nobody.returncode, nobody.stderr) == (0, "no run is at work\n")
    # Held, and not yet begun: the run before it, of the same ledger, is asked nothing.
    with hold(tmp_path / "out"):
        early = run(*words)
    assert early.returncode == 75
    assert "has not begun to submit" in early.stderr
    assert not list((tmp_path / "out").glob(".drain-*"))


def test_a_port_or_address_that_cannot_be_had_is_misuse(tmp_path: Path, sandbox: str) -> None:
    manifest = str(write(tmp_path, images=1))
    port = sandbox.rpartition(":")[2]
    for words in (["--port", port], ["--port", "70000"], ["--host", "203.0.113.7"]):
        failed = run("view", manifest, *words)
        assert failed.returncode == 64, words
        assert "hint: " in failed.stderr


@needs_browser
def test_the_page_shows_pictures_as_they_are_saved_and_its_button_lets_the_run_stop_in_good_order(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=60, submits="8/s")
    with serving(manifest, sandbox) as (_, address), browsing() as browser:
        visit = Visit(browser, viewport={"width": 1280, "height": 900})
        page = visit.page
        page.goto(address)
        page.get_by_text("no run yet").wait_for()
        assert page.title() == "batch: 0 of 360 done"
        assert page.locator("#stop").is_hidden()
        page.evaluate(WATCH_PICTURES)
        with running(manifest, "--api-base", sandbox) as process:
            page.get_by_text("running", exact=True).wait_for()
            visit.wait_until("window.shown.length >= 12")
            shown = page.evaluate("window.shown")  # once: pictures go on appearing
            delays_s = seen_after_s(shown, tmp_path / "out")
            # The page looks twice a second. The quickest tells of it; the others also tell how
            # busy this machine is.
            assert min(delays_s) < 2
            assert len(delays_s) == len({name for name, *_ in shown})
            check_pictures(page)
            press_stop(page)
            page.get_by_text("stopping", exact=True).wait_for()
            assert process.wait(timeout=240) == 75
        page.get_by_text("stopped: drained", exact=True).wait_for()
        assert page.locator("#stop").is_hidden()
        check_keyboard(visit)
        # The sources are on a host that does not exist; the page shows their links instead.
        assert all("404" in complaint for complaint in visit.complaints)
        assert all(url.startswith(address.removesuffix("report/")) for url in visit.asked)
    status = json.loads(run("status", str(manifest), "--api-base", sandbox, "--json").stdout)
    assert status["in_flight"] == status["unknown"] == 0
    assert status["done"] == sum(accepted(tmp_path).values())
    assert status["pending"] > 0
    assert not list((tmp_path / "out").glob(".drain-*"))


WATCH_PICTURES = """
window.shown = [];
document.getElementById("cards").addEventListener("load", (event) => {
  const name = event.target.closest(".card").querySelector("h3 button").ariaLabel;
  if (event.target.classList.contains("after")) {
    window.shown.push([name.replace(": all about it", ""), Date.now()]);
  }
}, true);
"""


def seen_after_s(shown: list[tuple[str, int]], output: Path) -> list[float]:
    """Return how long after its `saved` record each picture stood in the page."""
    lines = (output / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    records = [one for one in map(json.loads, lines) if one["record"] == "saved"]
    saved = {one["job"]: datetime.fromisoformat(one["at"]).timestamp() for one in records}
    return [at_ms / 1000 - saved[job] for job, at_ms in shown]


def check_pictures(page: Any) -> None:
    widths = page.eval_on_selector_all("#cards .after", "all => all.map(one => one.naturalWidth)")
    assert sum(width > 0 for width in widths) >= 12
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def press_stop(page: Any) -> None:
    """Stop the run with the keyboard alone; the first thing offered is to let it run."""
    page.locator("#stop").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Stop the run?").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Let it run"
    page.keyboard.press("Enter")
    page.locator("#ask").wait_for(state="hidden")
    assert page.locator("#stop").is_enabled()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def check_keyboard(visit: Visit) -> None:
    """Open a picture, go to the next one and close it, with the keyboard alone."""
    page = visit.page
    page.locator(".card h3 button").first.focus()
    page.keyboard.press("Enter")
    page.locator("#viewer img.after").wait_for()
    title = page.locator("#viewer-title").text_content()
    page.keyboard.press("ArrowRight")
    visit.wait_until(
        "before => document.getElementById('viewer-title').textContent !== before", title
    )
    page.keyboard.press("Escape")
    page.locator("#viewer").wait_for(state="hidden")


@needs_browser
def test_whatever_stands_in_keys_and_messages_is_text_and_the_page_says_when_it_ends(
    tmp_path: Path, sandbox: str
) -> None:
    nasty = "a<img src=x onerror=alert(1)>&quot;'\u202e\U0001f6cb"
    manifest = tmp_path / "batch.yaml"
    manifest.write_text(
        "version: 1\nmodel: google/nano-banana-2/edit\n"
        f"name: {json.dumps('b<script>alert(2)')}\n"
        "inputs: {resolution: 0.5K, output_format: jpeg}\n"
        "prompts: {white: white background, bad: forbidden}\n"
        f"images: {{{json.dumps(nasty, ensure_ascii=False)}: https://cdn.example.com/p.png}}\n"
        "output: {dir: out, path: 'x-{{ prompt }}'}\n",
        encoding="utf-8",
    )
    with serving(manifest, sandbox) as (process, address), browsing() as browser:
        visit = Visit(browser, viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = visit.page
        page.goto(address)
        assert run("run", str(manifest), "--api-base", sandbox).returncode == 3
        page.locator(".card.done img.after").wait_for()
        assert page.locator("h1").text_content() == "b<script>alert(2)"
        assert nasty in (page.locator(".card.failed h3").text_content() or "")
        assert "content refused" in (page.locator(".group.failed").text_content() or "")
        page.locator(".figure.failed b", has_text="1").wait_for()
        assert page.get_by_text("finished", exact=True).count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # The source is on a host that does not exist; the page shows its link instead.
        assert all("404" in complaint for complaint in visit.complaints)
        process.send_signal(signal.SIGINT)
        page.get_by_text("A run does not depend on it").wait_for()
