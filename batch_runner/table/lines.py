"""Rows of .jsonl: a JSON object a line, each with columns of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.table.row import Row, Rows, TableError, row_of_values
from batch_runner.table.text import opened


def read(path: Path, encoding: str | None, *, is_compressed: bool) -> Rows:
    """Yield the rows; raises TableError and OSError."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    with opened(path, encoding, is_compressed=is_compressed, newline=None) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                yield Row(number, {}, number)
                continue
            try:
                cells = decoder.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                raise TableError(
                    f"is not a JSON object: {error}",
                    row=number,
                    line=number,
                    hint='one {"column": value} a line',
                ) from error
            yield row_of_values(number, cells, _cell)


def _cell(value: Any, strip: Callable[[str], str]) -> Any:
    if value is None:
        return ""
    return strip(value) if isinstance(value, str) else value
