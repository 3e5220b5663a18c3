"""Simulated universes: the real program, run in a world where anything may go wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulation.oracles import Oracles, watching_ledgers
from simulation.play import play
from simulation.run import play_one
from simulation.scenarios import SCENARIOS, draw
from simulation.shrink import shrink
from simulation.universe import Command, Universe


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_script_leads_to_one_trace(name: str) -> None:
    for seed in range(5):
        first = play(draw(SCENARIOS[name], seed))
        again = play(first.script)
        assert again.lines == first.lines
        assert again.script == first.script


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_no_universe_breaks_a_promise(first: int) -> None:
    """`run.py` plays thousands with fresh seeds, and shows the shortest script that fails."""
    for seed in range(first, first + 10):
        assert play_one(seed).violations == [], f"python tests/simulation/run.py --first {seed}"


class Pessimist(Oracles):
    """Takes any saved picture after a killed run for a violation."""

    def after_command(self, universe: Universe, command: Command) -> Iterator[str]:
        if command.code == 0 and any(one.code is None for one in universe.commands):
            yield "pessimism: a run was killed, and another ended well"


def test_a_failing_script_is_shortened_to_what_matters() -> None:
    for seed in range(100):
        with watching_ledgers():
            trace = play(draw(SCENARIOS["plain"], seed), Pessimist())
        if trace.violations and len(trace.script.acts) > 3:
            break
    shortest = shrink(trace, Pessimist)
    assert len(shortest.script.acts) == 1
    assert not shortest.script.strikes
    assert shortest.violations
