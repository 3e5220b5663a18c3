"""A power cut at every operation that loses everything that was not synced.

`enumeration.py` crosses every other state, too; that takes longer than a test may.
"""

from __future__ import annotations

import itertools

import pytest
from simulation.enumeration import CASES, Case, cross

ALL_LOST = 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_power_cut_at_any_operation_breaks_no_promise(case: Case) -> None:
    for number in itertools.count(1):
        crossed = cross(case, number, ALL_LOST, bound=1)
        if crossed is None:
            break
        assert not crossed.violations, (crossed.operation, crossed.story)
    assert number > 5


def test_the_enumeration_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_runner.ledger.file.sync_data", lambda _: True)
    crossed = (cross(CASES[0], number, ALL_LOST, bound=1) for number in range(20, 40))
    assert any(one is not None and one.violations for one in crossed)
