"""The kinds of universes, and the scripts that are drawn for them."""

from __future__ import annotations

import random

from simulation import faults as _  # noqa: F401 - they become known
from simulation.actors import ACTS
from simulation.service import all_faults
from simulation.universe import Act, Scenario, Script

SCENARIOS = {
    one.name: one
    for one in (
        Scenario(name="plain"),
        Scenario(name="streams", streams=True),
    )
}

RATES = (0.02, 0.1, 0.4)


def draw(scenario: Scenario, seed: int) -> Script:
    """Draw a script: some acts, and a weather of some faults."""
    dice = random.Random(f"script {scenario.name} {seed}")
    names = scenario.acts or tuple(ACTS)
    chances = [ACTS[name].chance for name in names]
    acts = tuple(
        Act(name, dice.randrange(10**9))
        for name in dice.choices(names, chances, k=dice.randint(1, 5))
    )
    known = scenario.faults if scenario.faults is not None else all_faults()
    chosen = dice.sample(known, min(len(known), dice.choice((0, 1, 2, 3, 6))))
    weather = {name: dice.choice(RATES) for name in chosen}
    return Script(scenario=scenario.name, seed=seed, acts=acts, weather=weather)
