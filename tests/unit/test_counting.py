"""How far long work is: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import io
import itertools

from batch_runner.report.counting import counted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_a_line_comes_every_half_minute() -> None:
    stream = io.StringIO()
    clock = itertools.count(step=10)
    things = counted(
        range(1234), total=1234, what="report", stream=stream, monotonic=lambda: next(clock)
    )
    assert list(itertools.islice(things, 7)) == list(range(7))
    assert stream.getvalue() == "report: 3 of 1,234 jobs\nreport: 6 of 1,234 jobs\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    stream = Terminal()
    assert list(counted(range(3), total=3, what="export", stream=stream)) == [0, 1, 2]
    last = stream.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("export 100%|")
    assert "3/3" in last
