"""Rows of a Parquet file, read a batch of rows at a time.

Hides pyarrow. What always holds: a batch of rows is in memory, not the file; text, numbers,
true/false and lists stay what they are, dates and decimals become text, null and NaN an empty cell.
A column of bytes (pictures inside of the table) is left out: the service takes addresses.
"""

from __future__ import annotations

import math
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from batch_runner.table.row import Row, Rows, TableError
from batch_runner.text.shown import trimmed

_BATCH_ROWS = 512


def read(path: Path) -> Rows:
    """Yield the rows; raises TableError and OSError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TableError(
            f"reading '{path.name}' needs an extra", hint="pip install 'batch-runner[parquet]'"
        ) from error
    with path.open("rb") as raw:
        try:
            file = parquet.ParquetFile(raw, pre_buffer=False)
            # Text, and the names of types around it: binary, list<item: binary>, struct<…>.
            names = [field.name for field in file.schema_arrow if "binary" not in str(field.type)]
            if not names:
                raise TableError("the table has no columns of text or numbers")
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    cells = {trimmed(name): _cell(value) for name, value in values.items()}
                    is_filled = any(value != "" for value in cells.values())
                    yield Row(number, cells if is_filled else {}, number)
        except (pa.ArrowException, UnicodeError) as error:
            raise TableError(
                f"'{path.name}' cannot be read: {str(error).splitlines()[0]}",
                hint="write the file again",
            ) from error


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return trimmed(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time | Decimal):
        return str(value)
    if isinstance(value, list):
        return [_cell(item) for item in value]
    if isinstance(value, dict):
        return {name: _cell(item) for name, item in value.items()}
    return value
