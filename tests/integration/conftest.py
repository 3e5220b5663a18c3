"""A fast sandbox in the same process, and a bench to run batches on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import FAST, Bench, OpenSandbox

from batch_runner.sandbox import Sandbox


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def open_sandbox(tmp_path: Path) -> OpenSandbox:
    """Open a sandbox on one folder, each time with the faults that are asked for."""

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[Sandbox]:
        async with Sandbox(tmp_path / "sandbox", replace(FAST, **changes)) as sandbox:
            yield sandbox

    return opened
