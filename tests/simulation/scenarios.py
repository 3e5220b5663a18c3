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
        Scenario(name="streams", streams=True, more="limits: {in_flight: 6}"),
        Scenario(name="budget", budget_usd="0.30", more="limits: {cost_usd: 0.30, in_flight: 3}"),
        Scenario(
            name="nights",
            more='limits: {cost_usd: [0.42, 0.21/night]}\nwindow: {hours: "20:00-06:00"}',
            budget_usd="0.42",
            pause_s=11 * 3600.0,
        ),
        Scenario(name="twins", images={"mug": "mug", "cup": "mug", "lamp": "lamp"}),
        Scenario(name="pairs", more="inputs: {num_images: 2}\nretry: {attempts: 2}"),
        Scenario(name="shards", shards=2),
        Scenario(name="hurried", more="retry: {give_up: 60s, stuck: 5min}\nlimits: {failures: 2}"),
    )
}

RATES = (0.02, 0.1, 0.4)


def draw(scenario: Scenario, seed: int) -> Script:
    """Draw a script: some acts, and a weather of some faults."""
    dice = random.Random(f"script {scenario.name} {seed}")
    chances = [known.chance for known in ACTS.values()]
    names = dice.choices(list(ACTS), chances, k=dice.randint(1, 5))
    acts = tuple(Act(name, dice.randrange(10**9)) for name in names)
    chosen = dice.sample(all_faults(), dice.choice((0, 1, 2, 3, 6)))
    weather = {name: dice.choice(RATES) for name in chosen}
    return Script(scenario=scenario.name, seed=seed, acts=acts, weather=weather)
