"""The program's name and version, as records and requests carry them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("batch-runner")
    except PackageNotFoundError:
        return "0+unknown"


VERSION = _installed_version()
PROGRAM = f"batch_runner {VERSION}"
