"""Simulated universes: the real program, run in a world where anything may go wrong."""

from __future__ import annotations

import pytest
from simulation.play import play
from simulation.scenarios import SCENARIOS, draw


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_script_leads_to_one_trace(name: str) -> None:
    for seed in range(5):
        first = play(draw(SCENARIOS[name], seed))
        again = play(first.script)
        assert again.lines == first.lines
        assert again.script == first.script
