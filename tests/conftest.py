"""What all tests share: a clock they move themselves, a manifest on disk, a model."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings

from batch_runner.clock import Clock
from batch_runner.models.catalog import shipped_facts
from batch_runner.models.model import Model

# No test is timed: what takes long on a busy machine is right all the same.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Under nohup, or in the background of a script, some are ignored, and so in all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)

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


class PatientClock(FakeClock):
    """Time moves to the next sleeper's moment when everybody sleeps; events wake at once."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._numbers = itertools.count()

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        due = asyncio.Event()
        sleeper = (self.elapsed_s + max(0.0, timeout_s), next(self._numbers), due)
        self._sleepers.append(sleeper)
        either = [asyncio.ensure_future(one.wait()) for one in (due, event)]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in either:
                one.cancel()
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        end = self.elapsed_s + seconds
        await self.settle()
        while self._sleepers and min(self._sleepers)[0] <= end:
            moment, _, due = min(self._sleepers)
            self._sleepers.remove(min(self._sleepers))
            self.elapsed_s = max(self.elapsed_s, moment)
            due.set()
            await self.settle()
        self.elapsed_s = end


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def model() -> Model:
    return Model(
        MODEL_ID, schema=shipped_facts(MODEL_ID).get("input_schema"), schema_source="shipped"
    )


@pytest.fixture
def models(model: Model) -> dict[str, Model]:
    """Every model of a manifest that names one, as expanding takes them."""
    return {model.model_id: model}


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str], Path]:
    """Write a manifest's text below version and model, which are put before it."""

    def write(text: str, *, head: str = f"version: 1\nmodel: {MODEL_ID}\n") -> Path:
        path = tmp_path / "batch.yaml"
        path.write_text(head + text, encoding="utf-8")
        return path

    return write
