"""Progress of work that has no records: what is seen where nobody watches a terminal."""

from __future__ import annotations

import io
import itertools

from batch_runner.report.progress import tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_a_line_is_written_every_half_minute() -> None:
    clock = itertools.count(step=10.0)
    stream = io.StringIO()
    things = tracked(
        range(9), "urls", total=9, unit="urls", stream=stream, monotonic=lambda: next(clock)
    )
    assert list(things) == list(range(9))
    assert stream.getvalue().splitlines() == [f"urls: {n} of 9 urls" for n in (3, 6, 9)]


def test_without_a_total_the_line_says_how_many_there_were_so_far() -> None:
    clock = itertools.count(step=40.0)
    stream = io.StringIO()
    things = tracked(range(2000), "planning", stream=stream, monotonic=lambda: next(clock))
    assert sum(1 for _ in things) == 2000
    assert stream.getvalue().splitlines()[-1] == "planning: 2,000 jobs"


def test_on_a_terminal_there_is_a_bar_and_of_quick_planning_nothing() -> None:
    stream = Terminal()
    assert len(list(tracked(range(5), "urls", total=5, unit="urls", stream=stream))) == 5
    assert "5/5" in stream.getvalue()
    quick = Terminal()
    assert len(list(tracked(range(5), "planning", stream=quick))) == 5
    assert "planning" not in quick.getvalue()
