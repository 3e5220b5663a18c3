"""The log file: every line with its time, and no failure of it that matters to the run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import FakeClock

from batch_runner.records import Failed, Saved
from batch_runner.report import progress as progress_module
from batch_runner.report.log import Log
from batch_runner.run.plan import Action
from batch_runner.run.survey import Survey

AT = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

OpenLog = Callable[..., Log]


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.log"


@pytest.fixture
def log(path: Path, complaints: list[str], clock: FakeClock) -> Log:
    return Log(path, "spring", complain=complaints.append, clock=clock)


def failed(message: str) -> Failed:
    return Failed(
        at=AT,
        job="mug/white",
        fingerprint="f1",
        request_id="r",
        reason="moderated",
        message=message,
    )


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def survey() -> Survey:
    found = Survey()
    found.jobs = 3
    found.counts[Action.SKIP] = 1
    return found


def test_every_line_of_a_message_is_stamped_with_its_moment_in_utc(
    log: Log, path: Path, clock: FakeClock
) -> None:
    with log:
        log.say("two\n\n  lines\n")
        clock.elapsed_s += 61
        log.say("later")
    assert path.read_text(encoding="utf-8") == (
        "2026-03-02T12:00:00Z two\n2026-03-02T12:00:00Z   lines\n2026-03-02T12:01:01Z later\n"
    )


def test_a_line_is_in_the_file_as_soon_as_it_is_said_and_what_was_there_stays(
    log: Log, path: Path
) -> None:
    path.write_text("before\n", encoding="utf-8")
    with log:
        log.say("now")
        assert path.read_text(encoding="utf-8") == "before\n2026-03-02T12:00:00Z now\n"


async def test_the_lines_are_those_that_people_see_without_a_terminal(
    log: Log, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LINE_INTERVAL_S", 0)
    with log:
        log.begin(planned := survey())
        log(failed("no such picture"))
        planned.standings.failed = 1  # as the run counts it
        log(Saved(at=AT, job="lamp/white", fingerprint="f2", files=[]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    lines = [line.partition(" ")[2] for line in lines_of(path)]
    assert lines[:3] == [
        "spring: 1/3 jobs, 0 in flight, $0.00",
        "✗ mug/white: moderated: no such picture",
        "spring: 3/3 jobs, 0 in flight, 1 failed, $0.00",
    ]


def test_a_log_that_is_moved_away_goes_on_in_a_new_file(
    log: Log, path: Path, complaints: list[str]
) -> None:
    rotated = path.with_name("run.log.1")
    with log:
        log.say("one")
        path.rename(rotated)  # as logrotate does with `nocreate`
        log.say("two")
        path.rename(rotated.with_suffix(".2"))
        path.write_bytes(b"")  # with `create`
        log.say("three")
        os.truncate(path, 0)  # with `copytruncate`
        log.say("four")
        path.unlink()  # a person
        log.say("five")
    said = [[line.split()[-1] for line in lines_of(one)] for one in sorted(path.parent.iterdir())]
    assert said == [["five"], ["one"], ["two"]]
    assert complaints == []


def test_a_log_whose_folder_is_gone_is_reported_once(
    tmp_path: Path, complaints: list[str], clock: FakeClock
) -> None:
    path = tmp_path / "logs" / "run.log"
    path.parent.mkdir()
    with Log(path, "spring", complain=complaints.append, clock=clock) as log:
        log.say("one")
        path.parent.rename(tmp_path / "away")
        log.say("two")
        log.say("three")
    assert len(complaints) == 1
    assert "No such file or directory" in complaints[0]


def test_what_a_service_says_cannot_move_anybodys_cursor(log: Log, path: Path) -> None:
    with log:
        log(failed("\x1b[2Jgone\rover\x07\u2028\ud800 ünï"))
    assert path.read_text(encoding="utf-8") == (
        "2026-03-02T12:00:00Z ✗ mug/white: moderated: \\x1b[2Jgone\\rover\\x07\\u2028\\ud800 ünï\n"
    )


def test_without_a_path_everything_is_taken_and_nothing_written(
    tmp_path: Path, complaints: list[str], clock: FakeClock
) -> None:
    with Log(None, "spring", complain=complaints.append, clock=clock) as log:
        log.begin(survey())
        log(failed("no"))
        log.say("something")
    assert list(tmp_path.iterdir()) == []
    assert complaints == []


def test_a_file_that_cannot_be_opened_is_said_once(
    tmp_path: Path, complaints: list[str], clock: FakeClock
) -> None:
    path = tmp_path / "nowhere" / "run.log"
    with Log(path, "spring", complain=complaints.append, clock=clock) as log:
        log.say("one")
        log.say("two")
    assert complaints == [
        f"cannot write to the log {path} any more: No such file or directory; the run continues"
    ]


def test_a_disk_that_fails_is_said_once_and_the_log_ends_there(
    log: Log, path: Path, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_file: int, _raw: bytes) -> int:
        raise OSError(28, "No space left on device")

    with log:
        log.say("one")
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", no_space)
            log.say("two\nthree")
        log.say("four")
    assert path.read_text(encoding="utf-8") == "2026-03-02T12:00:00Z one\n"
    assert len(complaints) == 1
    assert "No space left on device; the run continues" in complaints[0]


def test_a_line_that_was_written_in_part_ends_the_log_too(
    log: Log, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with log:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda _file, _raw: 3)
            log.say("one")
        log.say("two")
    assert len(complaints) == 1
    assert "the disk took only a part of a line" in complaints[0]
