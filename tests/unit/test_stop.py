"""Which of several reasons to stop is kept: the first, but an error, and then a bug, wins."""

from __future__ import annotations

import pytest

from batch_runner.errors import StorageError
from batch_runner.run.stop import Ending, Stop

PLAIN = Stop("interrupted", "interrupted by Ctrl-C")
ERROR = Stop.of_error(StorageError("the disk is full"), at_once=True)
BUG = Stop("bug", "a bug", error=KeyError("x"))


@pytest.mark.parametrize(
    ("stops", "kept"),
    [
        ([PLAIN], PLAIN),
        ([PLAIN, Stop("budget", "used up")], PLAIN),
        ([PLAIN, ERROR], ERROR),
        ([ERROR, PLAIN], ERROR),
        ([ERROR, Stop.of_error(StorageError("another"))], ERROR),
        ([ERROR, BUG], BUG),
        ([BUG, ERROR], BUG),
    ],
)
def test_the_most_serious_reason_is_kept_and_of_equal_ones_the_first(
    stops: list[Stop], kept: Stop
) -> None:
    ending = Ending()
    for stop in stops:
        ending.end(stop)
    assert ending.stop is kept
    assert ending.leaving.is_set() == any(stop.at_once for stop in stops)
