"""Rows of .jsonl: a JSON object a line, each with columns of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from batch_runner.table.row import Row, Rows, TableError
from batch_runner.table.text import opened
from batch_runner.text.shown import trimmed


def read(path: Path, encoding: str | None) -> Rows:
    """Yield the rows; raises TableError and OSError."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    with opened(path, encoding, newline=None) as file:
        for number, line in enumerate(file, start=1):
            try:
                cells = decoder.decode(line) if line.strip() else {}
            except (msgspec.DecodeError, RecursionError) as error:
                raise TableError(
                    f"is not a JSON object: {error}",
                    row=number,
                    line=number,
                    hint='one {"column": value} a line',
                ) from error
            yield Row(number, {trimmed(name): _cell(cells[name]) for name in cells}, number)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return trimmed(value) if isinstance(value, str) else value
