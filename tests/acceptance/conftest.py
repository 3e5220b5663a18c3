"""A sandbox in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND


@pytest.fixture
def sandbox(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve a sandbox from a process of its own; gives its address. Its parameter is its faults."""
    words = ["sandbox", "--port", "0", "--folder", str(tmp_path / "sandbox")]
    words += ["--capacity", "64", "--seconds", "0.25"]
    words += ["--faults", getattr(request, "param", "")]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)
