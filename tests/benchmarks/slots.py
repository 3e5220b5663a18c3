"""Slots, polls and delays: the real runner, pacer and poll schedule in virtual time.

The service is simulated (durations drawn from a distribution, a queue with as many places as it
works on at a time); time moves to the next timer whenever nobody has anything to do. The disk and
the network are left out: a call takes five milliseconds, and a download none.

Slot use: the share of the time between the first and the last submit in which the allowed requests
really were at the service. `bound` is what the same number of questions a job allows at best to
whoever knows the distribution, but asks at ages alone.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from measure import progress, report

from batch_runner.clock import Clock
from batch_runner.files.download import Downloads
from batch_runner.ledger.file import Ledger
from batch_runner.manifest.form import FailureLimit, Limits, Rate, Retry
from batch_runner.models.model import Model
from batch_runner.pacing.polling import PollSchedule
from batch_runner.records import LEDGER_VERSION, Job, LedgerHeader, SavedFile
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.plan import Action, Planned
from batch_runner.run.pool import Runner
from batch_runner.run.prices import Prices
from batch_runner.run.setting import Setting
from batch_runner.run.stop import Ending
from batch_runner.service.answer import Answer, Call, Verdict, classify
from batch_runner.service.call import Service

CALL_S = 0.005
START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

Draw = Callable[[random.Random], float]

DISTRIBUTIONS: dict[str, Draw] = {
    "constant 10 s": lambda _: 10.0,
    "10 s +- 7 %": lambda dice: dice.uniform(9.3, 10.7),
    "log-normal 10 s, sigma 0.1": lambda dice: 10 * math.exp(dice.gauss(0, 0.1)),
    "log-normal 10 s, sigma 0.3": lambda dice: 10 * math.exp(dice.gauss(0, 0.3)),
    "bimodal 5 or 20 s, +- 2 %": lambda dice: dice.choice((5, 20)) * dice.uniform(0.98, 1.02),
}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        scheduled = cast("list[asyncio.TimerHandle]", getattr(self, "_scheduled"))  # noqa: B009
        if not getattr(self, "_ready") and scheduled:  # noqa: B009 - asyncio's own, hence so
            self._virtual_s = max(self._virtual_s, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]  # asyncio's own


class VirtualClock(Clock):
    """The loop's time; sleeping and waiting are asyncio's, and so follow it."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())


class SimulatedService:
    """Takes jobs, works on some at a time in the order they came, and keeps book of the truth."""

    def __init__(self, draw: Draw, seed: int, capacity: int | None) -> None:
        self._draw, self._dice = draw, random.Random(seed)
        self._capacity = capacity
        self._running: list[tuple[float, str]] = []
        self._waiting: deque[str] = deque()
        self._durations_s: dict[str, float] = {}
        self.created_s: dict[str, float] = {}
        self.ended_s: dict[str, float] = {}
        self.found_s: dict[str, float] = {}
        self.polls = 0

    async def submit(self, model: str, input_: dict[str, Any]) -> Verdict:
        """Take a job."""
        await asyncio.sleep(CALL_S)
        request_id = f"r{len(self.created_s)}"
        now = asyncio.get_running_loop().time()
        self._move_on(now)
        self.created_s[request_id] = now
        self._durations_s[request_id] = self._draw(self._dice)
        self._waiting.append(request_id)
        self._move_on(now)
        return classify(Call.SUBMIT, Answer(status=200, body={"request_id": request_id}))

    async def result(self, request_id: str, _: Any = ()) -> Verdict:
        """Tell how a request stands."""
        await asyncio.sleep(CALL_S / 2)
        now = asyncio.get_running_loop().time()
        self._move_on(now)
        self.polls += 1
        body: dict[str, Any] = {"request_id": request_id, "status": "in_progress"}
        if request_id in self.ended_s:
            self.found_s[request_id] = now
            body["status"] = "succeeded"
            body["output"] = {"images": ["https://cdn.runcomfy.net/a.png"]}
            body["created_at"] = _iso(self.created_s[request_id])
            body["finished_at"] = _iso(self.ended_s[request_id])
        elif request_id in self._waiting:
            body["status"] = "in_queue"
            body["queue_position"] = 1 + self._waiting.index(request_id)
        await asyncio.sleep(CALL_S / 2)
        return classify(Call.RESULT, Answer(status=200, body=body))

    def _move_on(self, now: float) -> None:
        """Let everything happen that has happened until now."""
        while True:
            free = self._capacity is None or len(self._running) < self._capacity
            if self._waiting and free:
                request_id = self._waiting.popleft()
                began = max(self.created_s[request_id], self._free_since)
                heapq.heappush(self._running, (began + self._durations_s[request_id], request_id))
            elif self._running and self._running[0][0] <= now:
                ended, request_id = heapq.heappop(self._running)
                self.ended_s[request_id] = self._free_since = ended
            else:
                return

    _free_since = 0.0


class InstantLedger(Ledger):
    """The real ledger, on a disk that takes no time."""

    async def durable(self) -> None:
        """Return at once."""

    def sync_soon(self) -> None:
        """Do nothing."""


class NoDownloads:
    """Every output is there at once."""

    async def has(self, url: str) -> bool:
        """Say that it can be fetched."""
        return True

    async def fetch(self, url: str, stem: str) -> SavedFile:
        """Say that it was saved."""
        return SavedFile(path=f"{stem}.png", size_bytes=1, sha256="a" * 64, media_type="image/png")


def _iso(moment_s: float) -> str:
    return (START + timedelta(seconds=moment_s)).isoformat()


def _jobs(count: int) -> Iterator[Planned]:
    for number in range(count):
        job = Job(
            key=f"job-{number}", fingerprint=f"{number:064}", model="m", input={}, path=f"p{number}"
        )
        yield Planned(job, Action.SUBMIT, "new")


async def _simulate(
    folder: Path, draw: Draw, in_flight: int, jobs: int, capacity: int | None
) -> SimulatedService:
    fast = Rate(1_000_000, 1.0)
    limits = Limits(
        submits=fast,
        polls=fast,
        in_flight=in_flight,
        downloads=8,
        cost_usd=None,
        failures=FailureLimit(share=0.5),
    )
    clock = VirtualClock()
    service = SimulatedService(draw, in_flight, capacity)
    header = LedgerHeader(version=LEDGER_VERSION, at=clock.now(), program="p", service="local")
    ledger = InstantLedger.open(folder, header)
    batch = SimpleNamespace(
        service=cast("Service", service),
        storage=None,
        prices=Prices(
            {"m": Model("m", price_usd=Decimal("0.05"))},
            lambda: (),
            is_own=lambda _: True,
            night_of=lambda moment: moment,
        ),
        manifest=SimpleNamespace(retry=Retry(), uploads_inline=False),
        options=RunOptions(),
        uploads=None,
        window=None,
        ledgers=SimpleNamespace(other_paths=list),
    )
    setting = Setting(
        batch=cast("Batch", batch),
        ledger=ledger,
        downloads=cast("Downloads", NoDownloads()),
        uploads=None,
        clock=clock,
        began_s=0.0,
        ending=Ending(),
        listener=lambda _: None,
        notice=progress,
    )
    runner = Runner(setting, limits)
    await runner.run([], _jobs(jobs))
    if setting.ending.stop is not None:
        raise RuntimeError(setting.ending.stop.message)
    ledger.close()
    return service


def _figures(service: SimulatedService, in_flight: int, draw: Draw, queued: str) -> dict[str, Any]:
    jobs = len(service.created_s)
    first, last = min(service.created_s.values()), max(service.created_s.values())
    busy_s = sum(
        min(ended, last) - min(service.created_s[name], last)
        for name, ended in service.ended_s.items()
    )
    delays = [service.found_s[name] - ended for name, ended in service.ended_s.items()]
    polls = service.polls / jobs
    return {
        "polls a job": f"{polls:.2f}",
        "slot use": f"{busy_s / (in_flight * (last - first)):.1%}",
        "bound": "" if queued else f"{_bound(draw, polls):.1%}",
        "mean delay s": f"{sum(delays) / jobs:.3f}",
    }


def _bound(draw: Draw, polls: float) -> float:
    """Return the best slot use that so many questions a job allow who knows all durations."""

    class Knowing(PollSchedule):
        TARGET, SEEN, GRID, ENOUGH = polls, 4000, 400, 4000
        TARGETS = (polls, polls)

    dice, schedule = random.Random(1), Knowing()
    durations = sorted(draw(dice) for _ in range(4000))
    for duration in durations:
        schedule.learn(duration)
    late, mean = 0.0, sum(durations) / len(durations)
    for duration in durations:
        age = 0.0
        while age < duration - 1e-9:
            age += schedule.wait_s(age)
        late += age - duration
    return mean / (mean + late / len(durations) + CALL_S)


def main(folder: Path, *, quick: bool = False) -> None:
    """Simulate each service with each limit."""
    rows = []
    sizes = ((10, 600), (100, 3000)) if quick else ((10, 1000), (100, 4000), (1000, 10_000))
    for name, draw in DISTRIBUTIONS.items():
        for in_flight, jobs in sizes:
            # A queue: the service works on seven of ten, the others wait with a position.
            for queued, capacity in (("", None), ("7 of 10", in_flight * 7 // 10)):
                with (
                    tempfile.TemporaryDirectory(dir=folder) as scratch,
                    asyncio.Runner(loop_factory=VirtualLoop) as loop,
                ):
                    service = loop.run(_simulate(Path(scratch), draw, in_flight, jobs, capacity))
                about = {"durations": name, "works on": queued or "all", "in_flight": in_flight}
                rows.append(about | _figures(service, in_flight, draw, queued))
                progress(" ".join(str(value) for value in rows[-1].values()))
    report("slots", rows, folder)
