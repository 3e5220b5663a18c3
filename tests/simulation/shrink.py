"""From a script that fails to a shorter one that still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
from simulation.play import Judge, play
from simulation.universe import Script, Trace

_T = TypeVar("_T")

PLAYS_LIMIT = 300


def shrink(trace: Trace, judge: Callable[[], Judge]) -> Trace:
    """Leave out acts and strikes as long as the same oracle fails; return the shortest found."""
    kind, plays = kind_of(trace.violations[0]), 0

    def still_fails(script: Script) -> Trace | None:
        nonlocal plays
        plays += 1
        found = play(script, judge())
        return found if any(kind_of(one) == kind for one in found.violations) else None

    best, last = trace, None
    while last != best.script and plays < PLAYS_LIMIT:
        last = best.script
        for field in ("acts", "strikes"):
            best = _shorter(best, field, still_fails)
    return best


def kind_of(violation: str) -> str:
    """Return which oracle failed: what stands before the colon."""
    return violation.partition(":")[0]


def _shorter(best: Trace, field: str, still_fails: Callable[[Script], Trace | None]) -> Trace:
    """Leave out parts of one list of the script: halves first, single ones last."""
    size = len(getattr(best.script, field))
    while size:
        for part in _parts(getattr(best.script, field), size):
            found = still_fails(msgspec.structs.replace(best.script, **{field: part}))
            if found is not None:
                # Calls have other numbers without an act: what was drawn for them stays as it was.
                best = found
                break
        else:
            size //= 2
            continue
        size = min(size, len(getattr(best.script, field)))
    return best


def _parts(whole: Sequence[_T], size: int) -> Iterator[tuple[_T, ...]]:
    """Yield the sequence without some neighbours."""
    for start in range(0, len(whole), size):
        yield (*whole[:start], *whole[start + size :])
