"""Each oracle sees the bug that is planted for it, soon; and there is a bug for each."""

from __future__ import annotations

import pytest
from simulation.oracles import Oracles, names, watching_ledgers
from simulation.planted import BUGS, Bug
from simulation.play import play
from simulation.scenarios import SCENARIOS, draw

UNIVERSES = 500


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_seen(bug: Bug) -> None:
    with bug.planted(), watching_ledgers():
        for seed in range(UNIVERSES):
            script = bug.script(draw(SCENARIOS["plain"], seed))
            violations = play(script, Oracles(bug.oracle)).violations
            if any(one.startswith(f"{bug.oracle}: ") for one in violations):
                return
    pytest.fail(f"{UNIVERSES} universes, and nothing was seen")


def test_there_is_a_bug_for_each_oracle() -> None:
    assert {bug.oracle for bug in BUGS} == {*names(), "every-command-ends"}
