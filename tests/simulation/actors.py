"""Who does what to a batch: runs, crashes, a person.

An act is a function that gets the universe and dice of its own; `chance` says how often it is
drawn. A function is all it takes to add one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from simulation.disk import Crash, Operation, PowerCut
from simulation.universe import Universe

_Do: TypeAlias = Callable[[Universe, random.Random], object]


class _Known(NamedTuple):
    do: _Do
    chance: int


ACTS: dict[str, _Known] = {}


def act(chance: int) -> Callable[[_Do], _Do]:
    """Add an act, under the name of its function."""

    def add(function: _Do) -> _Do:
        ACTS[function.__name__.replace("_", "-")] = _Known(function, chance)
        return function

    return add


# Runs, and what ends them


@act(4)
def a_run(universe: Universe, dice: random.Random) -> None:
    universe.run()


@act(4)
def a_crash(universe: Universe, dice: random.Random) -> None:
    _at_operation(universe, dice.randrange(90), Crash())
    universe.run()


@act(4)
def a_power_cut(universe: Universe, dice: random.Random) -> None:
    _at_operation(universe, dice.randrange(90), PowerCut())
    universe.run()
    universe.cut_power(dice.randrange(10**9))


def _at_operation(universe: Universe, number: int, error: BaseException) -> None:
    """Raise an error at the nth operation from now on, counted from 0."""
    at = universe.disk.ordinal + 1 + number

    def happen(operation: Operation) -> None:
        if operation.ordinal == at:
            universe.world.note(f"  {error!r}")
            raise error

    universe.at_operation = happen
