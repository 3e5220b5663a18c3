"""Which results show the same picture, although they are of different products.

Hides how few pairs need a look. What always holds: pictures of one product are not compared with
each other, nor those whose pictures in are alike; of a pair, only the one is named that is less
like what was sent, if that is clear.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice, product
from math import nan

import msgspec

from batch_runner.pictures.measure import CELLS, distance

_ALIKE = 3
_LEAST_CONTRAST = 40
_BLANK = 8
_MOST = 10
_SOURCES_ALIKE = 8
_STEP = 2
_SAMPLE = range(0, 192, 7)
_CLEARLY = 1.5
_NOT_GROUND = 24
_MIDDLE = [
    (line * CELLS + column) * 3 + band
    for line in range(CELLS // 4, CELLS - CELLS // 4)
    for column in range(CELLS // 4, CELLS - CELLS // 4)
    for band in range(3)
]
"""Where the colours of the cells in the middle of a grid are."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A result: its job, its product, what it shows, and the grids of what was sent for it."""

    job: str
    product: str
    cells: bytes
    sources: tuple[bytes, ...] = ()


def twins(shown: Sequence[Shown]) -> dict[int, str]:
    """Return the results with the picture of another product: their places, and that job."""
    found: dict[int, str] = {}
    for one, other in _pairs(shown):
        first, second = shown[one], shown[other]
        if (
            (one in found and other in found)
            or first.product == second.product
            or distance(first.cells, second.cells, leave_out=0) > _ALIKE
            or any(
                distance(*sent) < _SOURCES_ALIKE for sent in product(first.sources, second.sources)
            )
        ):
            continue
        own, others = _away(first.cells, first.sources), _away(first.cells, second.sources)
        if not own * _CLEARLY + 1 < others:
            found.setdefault(one, second.job)
        if not others * _CLEARLY + 1 < own:
            found.setdefault(other, first.job)
    return found


def _pairs(shown: Sequence[Shown]) -> Iterator[tuple[int, int]]:
    """Yield the pairs that may be alike: the colours in their middles are nearly the same."""
    near = [*product((-1, 0, 1), repeat=3)]
    places: dict[object, list[tuple[int, bytes]]] = defaultdict(list)
    for at, one in enumerate(shown):
        if not one.cells or max(one.cells) - min(one.cells) < _BLANK:
            continue
        middle = bytes(one.cells[place] for place in _MIDDLE)
        # The first cell is the ground.
        if (
            max(abs(value - one.cells[place % 3]) for place, value in enumerate(middle))
            < _LEAST_CONTRAST
        ):
            # Of two white products on white little is to be seen, so they must be equal.
            yield from ((other, at) for other, _ in places[one.cells][:_MOST])
            places[one.cells].append((at, middle))
            continue
        key = [round(sum(middle[band::3]) * 3 / len(middle) / _STEP) for band in range(3)]
        others = (
            other
            for away in near
            for other, its in places.get(tuple(map(sum, zip(key, away, strict=True))), ())
            if all(abs(middle[place] - its[place]) <= _ALIKE for place in _SAMPLE)
        )
        yield from ((other, at) for other in islice(others, _MOST))
        places[tuple(key)].append((at, middle))


def _away(cells: bytes, sources: Sequence[bytes]) -> float:
    """Return how far the colours of a result are from those that were sent; NaN if unknown."""
    found, palettes = Counter(_colours(cells)), [set(_colours(one)) for one in sources if one]
    ground = cells[:3]
    shown = {one: count for one, count in found.items() if _apart(one, ground) > _NOT_GROUND}
    away = [
        sum(count * min(_apart(one, sent) for sent in palette) for one, count in shown.items())
        for palette in palettes
    ]
    return min(away, default=nan) / (sum(shown.values()) or nan)


def _colours(grid: bytes) -> Iterator[bytes]:
    """Yield the colours of a grid, in steps, because a few different ones are enough."""
    coarse = bytes(value & 0xFC for value in grid)
    return (coarse[place : place + 3] for place in range(0, len(coarse), 3))


def _apart(one: bytes, other: bytes) -> int:
    return max(abs(first - second) for first, second in zip(one, other, strict=True))
