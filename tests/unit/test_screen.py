"""The live view as text: it fits, says what is so, and nothing in it moves the cursor."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from batch_runner.ledger.job import Standing
from batch_runner.report.moment import Failure, Moment, RunSeen
from batch_runner.report.screen import cut_to_width, screen_lines

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def run_seen(**changes: Any) -> RunSeen:
    values: dict[str, Any] = {
        "run": "4f1",
        "pid": 4711,
        "host": "night",
        "began_at": NOW - timedelta(minutes=12, seconds=3),
        "ended_at": None,
        "stopped": None,
        "is_at_work": True,
        "is_draining": False,
    }
    return RunSeen(**{**values, **changes})


def moment_of(**changes: Any) -> Moment:
    values: dict[str, Any] = {
        "at": NOW,
        "name": "spring-catalog",
        "model": "google/nano-banana-2/edit",
        "output": "/pictures/spring",
        "generation": 0,
        "budget_usd": None,
        "jobs": 960,
        "done": 412,
        "in_flight": 20,
        "pending": 521,
        "failed": 5,
        "unknown": 2,
        "cost_usd": Decimal("20.60"),
        "reserved_usd": Decimal("1.00"),
        "run_cost_usd": Decimal("18.10"),
        "rate_per_s": 0.57,
        "left_s": 949.0,
        "runs": (run_seen(),),
        "reasons": {"content refused": 5, "unknown": 2},
    }
    return Moment(**{**values, **changes})


def failure(number: int, what: str = "content refused: no") -> Failure:
    return Failure(at=NOW, job=f"sku-{number}/white", state=Standing.FAILED, what=what)


def shown(moment: Moment, width: int = 80, height: int = 24) -> list[str]:
    return screen_lines("spring-catalog: 960 jobs\n  done   412", moment, width, height)


def width_of(line: str) -> int:
    """Count two columns for a wide character, none for a mark."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in line
    )


@pytest.mark.parametrize("width", [20, 40, 63, 64, 80, 200])
@pytest.mark.parametrize("height", [8, 24, 60])
def test_the_view_fits_any_terminal(width: int, height: int) -> None:
    names = "名前" * 30
    failures = tuple(failure(n, f"{names} \x1b[2J\r\n") for n in range(30))
    for lines in (
        shown(moment_of(failures=failures, name=names), width, height),
        shown(moment_of(failures=failures, name=names, notes=(names,)), width, height),
    ):
        assert len(lines) <= height
        assert max(map(width_of, lines)) <= width
        assert not re.search("[\x00-\x1f\x7f]", "".join(lines))


def test_the_view_shows_status_pace_and_failures() -> None:
    text = "\n".join(shown(moment_of(failures=(failure(1), failure(2)))))
    for words in (
        "spring-catalog: 960 jobs\n  done   412\nrunning\n",
        "pid 4711 on night, 34.2/min, 15 min 49 s left, until ",
        "last failures\n",
        "sku-1/white: content refused: no",
        "Ctrl-C leaves this view; a run goes on without it",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runs": ()}, "no run yet"),
        ({"runs": (run_seen(is_draining=True),)}, "stopping"),
        ({"runs": (run_seen(), run_seen(run="2", pid=7))}, "pid 4711 on night, pid 7 on night"),
        ({"stopped": "killed"}, "the last run was killed; run it again, nothing is lost"),
        ({"stopped": "budget"}, "the last run stopped: budget"),
        ({"failed": 1}, "the last run ended, and left jobs for you"),
        ({"unknown": 1}, "the last run ended, and left jobs for you"),
        ({}, "finished"),
    ],
)
def test_the_view_says_whether_a_run_is_at_work_and_how_the_last_one_ended(
    changes: dict[str, Any], words: str
) -> None:
    over = run_seen(is_at_work=False, ended_at=NOW)
    rest = {"rate_per_s": None, "left_s": None, "failed": 0, "unknown": 0, "runs": (over,)}
    assert words in "\n".join(shown(moment_of(**{**rest, **changes})))


def test_wide_characters_and_marks_count_as_they_are_shown() -> None:
    assert cut_to_width("名前名前", 5) == "名前…"
    assert cut_to_width("abcdef", 6) == "abcdef"
    assert cut_to_width("abcdef", 3) == "ab…"
