"""Edit pictures in bulk through an image-generation API: never pay twice, never lose what was paid.

The library in three steps:

    manifest = load_manifest("jobs/catalog.yaml")
    batch = Batch(manifest, RunOptions(token="…"))
    summary = await run_batch(batch, listener=print)

A listener receives every record (`Submitted`, `Saved`, …) right after the ledger took it.
"""

from __future__ import annotations

__version__ = "0.1.0"
PROGRAM = f"batch_runner {__version__}"
"""What records and requests name."""

TYPE_CHECKING = False  # as type checkers know it: to import `typing` takes as long as all the rest
if TYPE_CHECKING:
    from typing import Any

    from batch_runner.errors import BatchRunnerError, ManifestError
    from batch_runner.ledger.reading import read_ledger
    from batch_runner.manifest.form import Manifest
    from batch_runner.manifest.loading import load_manifest
    from batch_runner.records import Job, Record, Saved
    from batch_runner.report.status import Status, status
    from batch_runner.run.batch import Batch, RunOptions
    from batch_runner.run.execution import run_batch
    from batch_runner.run.summary import Summary
    from batch_runner.sandbox import Sandbox

__all__ = [
    "Batch",
    "BatchRunnerError",
    "Job",
    "Manifest",
    "ManifestError",
    "Record",
    "RunOptions",
    "Sandbox",
    "Saved",
    "Status",
    "Summary",
    "load_manifest",
    "read_ledger",
    "run_batch",
    "status",
]

# Names are looked up when they are first used: `--help` must not wait for aiohttp and Jinja2.
_HOMES = {
    "errors": ("BatchRunnerError", "ManifestError"),
    "ledger.reading": ("read_ledger",),
    "manifest.form": ("Manifest",),
    "manifest.loading": ("load_manifest",),
    "records": ("Job", "Record", "Saved"),
    "report.status": ("Status", "status"),
    "run.batch": ("Batch", "RunOptions"),
    "run.execution": ("run_batch",),
    "run.summary": ("Summary",),
    "sandbox": ("Sandbox",),
}


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415 - nobody else waits for it

    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
