"""The program's name and version, as records, requests and the package carry them."""

from __future__ import annotations

VERSION = "0.1.0"
PROGRAM = f"batch_runner {VERSION}"
