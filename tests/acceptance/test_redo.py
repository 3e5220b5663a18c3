"""Doing jobs again under kills: each redo is bought once, and nothing else is bought again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, accepted, run, write

from batch_runner.errors import ExitCode

JOBS, REDONE = 6, ("p0/white/seed=1", "p0/blur/seed=2")
# Start and end of the run, and four records for each of the two jobs.
LEDGER_WRITES = 10

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def traced(path: Path, number: int, *words: str) -> int:
    """Run a command, and kill it at its nth write to a file."""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(path)]
    strace += ["-e", f"inject=write:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        [*strace, *COMMAND, *words], capture_output=True, timeout=240, check=False
    )
    return done.returncode


def done_batch(folder: Path, sandbox: str) -> list[str]:
    manifest = write(folder, images=1)
    words = [str(manifest), "--api-base", sandbox]
    assert run("run", *words, "--quiet").returncode == ExitCode.DONE
    return words


def check_that_redone_jobs_were_bought_once_more(
    folder: Path, words: list[str], checks: ExitCode = ExitCode.DONE
) -> None:
    status = json.loads(run("status", *words, "--json").stdout)
    unknown = status["unknown"]
    assert (status["jobs"], status["done"]) == (JOBS, JOBS - unknown)
    assert unknown <= len(REDONE)
    bought = accepted(folder)
    assert JOBS + len(REDONE) - unknown <= sum(bought.values()) <= JOBS + len(REDONE)
    assert set(bought.values()) == {1}, "an input was paid for twice"
    # Until the new picture is saved, the old one keeps its place.
    assert len(list((folder / "out" / "p0").glob("*.jpg"))) == JOBS
    assert len(list((folder / "out" / "superseded").rglob("*.jpg"))) == len(REDONE) - unknown
    if unknown < len(REDONE):
        assert run("check", *words).returncode == checks


@needs_strace
@pytest.mark.parametrize("number", range(1, LEDGER_WRITES + 1))
def test_a_redo_killed_at_any_write_to_the_ledger_is_bought_once(
    tmp_path: Path, sandbox: str, number: int
) -> None:
    words = done_batch(tmp_path, sandbox)
    assert run("redo", *words, *REDONE, "--note", "lighter").returncode == ExitCode.DONE
    ledger = tmp_path / "out" / "ledger.jsonl"
    assert traced(ledger, number, "run", *words, "--quiet") != 0
    last = run("run", *words)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    check_that_redone_jobs_were_bought_once_more(tmp_path, words)


# Every picture has another shape, but that matters for one prompt only.
CHECKED = """
checks: {aspect: "1:1", where: "{{ prompt == 'white' }}"}
review: {redo: {checks: 1}}
"""


@needs_strace
@pytest.mark.parametrize("sandbox", ["wrong-size"], indirect=True)
@pytest.mark.parametrize(
    ("file", "number"),
    [
        *(("ledger.jsonl", number) for number in range(1, LEDGER_WRITES + 3)),
        *(("verdicts.jsonl", number) for number in range(1, 3)),
    ],
)
def test_a_redo_after_a_failed_check_is_bought_once_whatever_write_kills_it(
    tmp_path: Path, sandbox: str, file: str, number: int
) -> None:
    words = done_batch(tmp_path, sandbox)
    with (tmp_path / "batch.yaml").open("a") as manifest:
        manifest.write(CHECKED)
    assert traced(tmp_path / "out" / file, number, "run", *words, "--quiet") != 0
    last = run("run", *words)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    # The new pictures fail too, and are not done a second time.
    check_that_redone_jobs_were_bought_once_more(tmp_path, words, ExitCode.SOME_FAILED)


@needs_strace
@pytest.mark.parametrize("number", [1, 2])
def test_asking_for_a_redo_is_all_or_nothing(tmp_path: Path, sandbox: str, number: int) -> None:
    words = done_batch(tmp_path, sandbox)
    verdicts = tmp_path / "out" / "verdicts.jsonl"
    was_killed = traced(verdicts, number, "redo", *words, *REDONE, "--note", "lighter") != 0
    assert was_killed is (number == 1)
    assert run("run", *words).returncode == ExitCode.DONE
    assert sum(accepted(tmp_path).values()) == JOBS + (0 if was_killed else len(REDONE))
    if was_killed:
        assert run("redo", *words, *REDONE, "--note", "lighter").returncode == ExitCode.DONE
        assert run("run", *words).returncode == ExitCode.DONE
    check_that_redone_jobs_were_bought_once_more(tmp_path, words)


def test_a_redo_may_be_redone_taken_back_and_is_limited(tmp_path: Path, sandbox: str) -> None:
    words = done_batch(tmp_path, sandbox)
    key = REDONE[0]
    picture = next((tmp_path / "out").rglob("white*1.jpg"))
    seen = {picture.read_bytes()}
    for _ in range(3):
        assert run("redo", *words, key, "--seed", str(10 + len(seen))).returncode == ExitCode.DONE
        assert run("run", *words).returncode == ExitCode.DONE
        seen.add(picture.read_bytes())
    assert len(seen) == 4
    assert sum(accepted(tmp_path).values()) == JOBS + 3
    refused = run("redo", *words, key)
    assert refused.returncode == ExitCode.USAGE
    assert "was done again 3 times, and review.redo.times is 3" in refused.stderr
    assert "hint: raise review.redo.times" in refused.stderr
    for wrong in ("p0/whit/seed=1", "p9"):
        assert run("redo", *words, wrong).returncode == ExitCode.USAGE


def test_a_redo_stays_within_the_budget(tmp_path: Path, sandbox: str) -> None:
    words = done_batch(tmp_path, sandbox)
    manifest = tmp_path / "batch.yaml"
    spent = json.loads(run("status", *words, "--json").stdout)["cost_usd"]
    text = manifest.read_text().replace("limits: {", f"limits: {{cost_usd: {spent}, ")
    manifest.write_text(text)
    assert run("redo", *words, *REDONE).returncode == ExitCode.DONE
    assert run("run", *words).returncode == ExitCode.STOPPED_EARLY
    assert sum(accepted(tmp_path).values()) == JOBS
