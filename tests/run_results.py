"""Endings of runs, as tests of notifications need them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from batch_runner.manifest.loading import load_manifest
from batch_runner.report.notify import result_of_error, result_of_run
from batch_runner.report.text import Advice
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.summary import Summary

SMALL = "prompts: {white: On white.}\nimages: {mug: https://cdn.example.com/mug.png}\n"


def summary(**changes: Any) -> Summary:
    """Return the summary of a run in which all went well, but for the changes."""
    values: dict[str, Any] = {
        "jobs": 16,
        "done": 16,
        "failed": 0,
        "unknown": 0,
        "in_flight": 0,
        "pending": 0,
        "cancelled": 0,
        "to_buy": 16,
        "bought": 16,
        "submitted": 16,
        "cost_usd": Decimal("0.80"),
        "elapsed_s": 12.3456,
        "place": "/pictures",
    }
    return Summary(**{**values, **changes})


def ended(name: str = "spring", *, is_sandbox: bool = False, **changes: Any) -> dict[str, str]:
    """Return how such a run ended."""
    return result_of_run(
        name,
        summary(**changes),
        Advice(run="RUN", resolve="RESOLVE", view="VIEW", export="EXPORT", is_sandbox=is_sandbox),
    )


def broken(error: Exception, folder: Path) -> dict[str, str]:
    """Return how a run ended that an error ended before its first submit."""
    path = folder / "broken.yaml"
    path.write_text(f"version: 1\nmodel: google/nano-banana-2/edit\n{SMALL}", encoding="utf-8")
    return result_of_error(Batch(load_manifest(path), RunOptions()), error, 1.5)
