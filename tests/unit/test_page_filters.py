"""The report filters by the matrix, and by columns of the table that products share."""

from __future__ import annotations

import json
from typing import Any

from batch_runner.ledger.job import Standing
from batch_runner.report.page import Card, _Index


def card(number: int, **changes: Any) -> Card:
    about = {"key": f"k{number}", "state": Standing.DONE, "image": f"s{number}"}
    return {**about, "text": "", "model": "m", "redone": 0, **changes}


def test_columns_with_few_values_are_filters() -> None:
    index = _Index()
    for n in range(60):
        cells = {
            "sku": f"s{n}",
            "category": ["lamp", "mug"][n % 2],
            "season": "spring" if n < 3 else "",
            "shop": "one",
            "text": "long " * 20,
            "resolution": f"r{n % 5}",
        }
        cells = {name: value for name, value in cells.items() if value}
        point = {"resolution": ["1K", "2K"][n % 2]}
        index.add(card(n, point=point, cells=cells))
    data = json.loads(index.encoded())
    assert data["axes"] == {
        "category": ["", "lamp", "mug"],
        "season": ["", "spring"],
        "resolution": ["", "1K", "2K"],
    }
    assert data["points"]["category"][:4] == [1, 2, 1, 2]
    assert data["points"]["season"][:4] == [1, 1, 1, 0]
    assert all(len(column) == 60 for column in data["points"].values())


def test_columns_that_come_later_are_filters_too() -> None:
    index = _Index()
    for n, cells in enumerate([{}, {"kind": "a"}, {"kind": "b"}, {"kind": "a"}]):
        index.add(card(n, cells=cells))
    assert json.loads(index.encoded())["points"] == {"kind": [0, 1, 2, 1]}
