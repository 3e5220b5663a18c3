"""Which results show the same picture, although they are of different products.

Hides how few pairs need a look. What always holds: pictures of one product are not compared with
each other, nor those whose pictures in are alike; of a pair, only the one is named that is less
like what was sent, if that is clear.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product

import msgspec

from batch_runner.checks.measure import CELLS, distance

_ALIKE = 3
_OF_CONTRAST = 25
_SOURCES_ALIKE = 8
_STEP = 3
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
        if first.product == second.product or _sent_alike(first, second):
            continue
        # Of two white products on white little is to be seen, so they must be equal.
        strict = min(_ALIKE, _contrast(first) // _OF_CONTRAST, _contrast(second) // _OF_CONTRAST)
        if distance(first.cells, second.cells, leave_out=0) > strict:
            continue
        own, others = _away(first, first), _away(first, second)
        if own is None or others is None or own * _CLEARLY + 1 >= others:
            found.setdefault(one, second.job)
        if own is None or others is None or others * _CLEARLY + 1 >= own:
            found.setdefault(other, first.job)
    return found


def _pairs(shown: Sequence[Shown]) -> Iterator[tuple[int, int]]:
    """Yield the pairs that may be alike: their middles have about the same colour."""
    near = [*product((-1, 0, 1), repeat=3)]
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at, one in enumerate(shown):
        if not one.cells:
            continue
        middle = bytes(one.cells[place] for place in _MIDDLE)
        colour = [sum(middle[band::3]) * 3 / len(middle) for band in range(3)]
        key = [round(value / _STEP) for value in colour]
        for away in near:
            others = places.get(tuple(map(sum, zip(key, away, strict=True))), ())
            yield from ((other, at) for other in others)
        places[tuple(key)].append(at)


def _contrast(one: Shown) -> int:
    middle = [one.cells[place] for place in _MIDDLE]
    return max(middle) - min(middle)


def _sent_alike(one: Shown, other: Shown) -> bool:
    pairs = product(one.sources, other.sources)
    return any(distance(*pair) < _SOURCES_ALIKE for pair in pairs)


def _away(one: Shown, other: Shown) -> float | None:
    """Return how far the colours of a result are from those of what was sent for it, or another."""
    ground = one.cells[:3]
    product_cells = [cell for cell in _colours(one.cells) if _apart(cell, ground) > _NOT_GROUND]
    palettes = [set(_colours(source)) for source in other.sources if source]
    if not palettes or not product_cells:
        return None
    return min(
        sum(min(_apart(cell, sent) for sent in palette) for cell in product_cells)
        for palette in palettes
    ) / len(product_cells)


def _colours(grid: bytes) -> list[bytes]:
    return [grid[place : place + 3] for place in range(0, len(grid), 3)]


def _apart(one: bytes, other: bytes) -> int:
    return max(abs(first - second) for first, second in zip(one, other, strict=True))
