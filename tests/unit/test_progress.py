"""The progress bar keeps its shape, whatever the terminal's width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from tqdm import tqdm

from batch_runner.report.progress import fitting_format

FULL, SHORT = "5.3/s, 20 in flight, 1,234 failed, $1,234.50", "1,234 failed, $1,234.50"


def known(width: int | None, n: int = 12_345) -> dict[str, Any]:
    bar = tqdm(total=20_000, initial=0, desc="spring-catalog", unit="", file=io.StringIO())
    figures = {**bar.format_dict, "n": n, "elapsed": 3723.0, "rate": 5.3, "ncols": width}
    bar.close()
    return figures


def drawn(width: int, **changes: Any) -> str:
    figures = known(width, **changes)
    form = fitting_format(figures, FULL, SHORT)
    return tqdm.format_meter(**{**figures, "bar_format": form})


@pytest.mark.parametrize("width", [*range(12, 121, 3), 200])
def test_the_bar_is_whole_at_every_width(width: int) -> None:
    for n in (0, 7, 12_345, 20_000):
        line = drawn(width, n=n)
        assert len(line) <= max(width, 11)
        assert f"{n}/20000" in line
        # Whatever is begun is ended: no figure is cut in two.
        assert line.count("[") == line.count("]")
        assert line.count("|") in (0, 2)


@pytest.mark.parametrize(
    ("width", "there", "not_there"),
    [
        (130, ["spring-catalog", "|", "1:02:03<", FULL], []),
        (100, ["|", "1:02:03<", FULL], ["spring-catalog"]),
        (80, [" left", FULL], ["spring-catalog"]),
        (60, [" left", SHORT], ["|", "in flight"]),
        (30, [" left"], ["$"]),
        (20, ["12345/20000"], ["left"]),
    ],
)
def test_a_narrower_terminal_loses_what_matters_least(
    width: int, there: list[str], not_there: list[str]
) -> None:
    line = drawn(width)
    assert all(words in line for words in there), line
    assert not any(words in line for words in not_there), line


def test_where_nobody_knows_the_width_it_is_80() -> None:
    assert fitting_format(known(None), FULL, SHORT) == fitting_format(known(80), FULL, SHORT)
