"""How the last run went, as a file for Prometheus' textfile collector.

Hides the text exposition format. What always holds: a reader sees the whole file or the whole
previous one, never a part; a batch's name cannot break out of its label; unknown figures are left
out. Not promised: figures during a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from batch_runner.files.disk import replacing
from batch_runner.report.result import RunResult

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def metrics_text(result: RunResult, at: datetime) -> str:
    """Return the metrics of a run that ended at `at`, which must be aware; pure."""
    return "".join(f"{line}\n" for line in _lines(result, at))


def write_metrics(path: Path, result: RunResult, at: datetime) -> None:
    """Replace the file with the metrics; raises StorageError."""
    # Synced before the rename, so that a power failure leaves no empty file to the collector.
    with replacing(path, durable=True) as file:
        file.write(metrics_text(result, at).encode())


def _lines(result: RunResult, at: datetime) -> Iterator[str]:
    states = result.counts or {}
    jobs = [(f'state="{state}"', count) for state, count in states.items()]
    yield from _gauge(result, "jobs", "Jobs of the batch, by how they stand.", *jobs)
    yield from _gauge(result, "cost_usd", "What the last run cost, in USD.", result.cost_usd)
    yield from _gauge(result, "submitted", "Jobs that the last run submitted.", result.submitted)
    yield from _gauge(result, "elapsed_seconds", "How long the last run took.", result.elapsed_s)
    yield from _gauge(result, "exit_code", "The exit code of the last run.", result.exit_code)
    moment = round(at.timestamp(), 3)
    yield from _gauge(result, "last_run_timestamp_seconds", "When the last run ended.", moment)


_Number = Decimal | float | None


def _gauge(
    result: RunResult, name: str, meaning: str, *samples: _Number | tuple[str, _Number]
) -> Iterator[str]:
    metric = f"batch_runner_{name}"
    labels = f'batch="{result.batch.translate(_ESCAPES)}"'
    yield f"# HELP {metric} {meaning}"
    yield f"# TYPE {metric} gauge"
    for sample in samples:
        further, value = sample if isinstance(sample, tuple) else ("", sample)
        if value is not None:
            # A Decimal of 1E+2 is written out: not every reader accepts an exponent.
            shown = f"{value:f}" if isinstance(value, Decimal) else str(value)
            yield f"{metric}{{{labels}{',' if further else ''}{further}}} {shown}"
