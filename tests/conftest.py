"""What all tests share: a clock they move themselves, a manifest on disk, a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batch_runner.model import Model, shipped_schema
from batch_runner.pacing import Clock

MODEL_ID = "google/nano-banana-2/edit"


class FakeClock(Clock):
    """A clock whose time moves only when somebody sleeps on it; no test ever waits."""

    def __init__(self, start: datetime = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)) -> None:
        self.start = start
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s

    async def sleep(self, seconds: float) -> None:
        self.elapsed_s += max(0.0, seconds)
        await asyncio.sleep(0)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        if not event.is_set():
            await self.sleep(timeout_s)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def model() -> Model:
    return Model(MODEL_ID, schema=shipped_schema(MODEL_ID), schema_source="shipped")


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str], Path]:
    """Write a manifest's text below version and model, which are put before it."""

    def write(text: str, *, head: str = f"version: 1\nmodel: {MODEL_ID}\n") -> Path:
        path = tmp_path / "batch.yaml"
        path.write_text(head + text, encoding="utf-8")
        return path

    return write
