"""A large batch in many shards, in virtual time: what it asks of the service, the ledger, a bucket.

    python tests/benchmarks/fleet.py [SHARDS [JOBS]]

Each shard deals its limits, paces its calls and chooses when to ask with the product's own classes
(`quota`, `pacing`), and writes the product's own records. What is simulated is around them: a
service whose requests take a lognormal time, a network, a disk and a bucket with fixed latencies,
and one clock for all. Nothing is sent and nothing is waited for.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from measure import report

from batch_runner.manifest.form import Limits, Rate
from batch_runner.pacing.polling import PollSchedule
from batch_runner.pacing.throttle import Throttle
from batch_runner.records import (
    LEDGER_VERSION,
    LedgerHeader,
    Record,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    encode,
)
from batch_runner.shards.quota import limits_share
from batch_runner.shards.shard import Shard

SHARDS = 100
JOBS = 100_000
LARGE = 10_000_000
LIMITS = Limits(submits=Rate(1000, 1.0), polls=Rate(6000, 1.0), in_flight=30_000, downloads=800)

DURATION_S = 15.0
SPREAD = 0.3
CALL_S = 0.08
COMMIT_S = 0.002
PUT_S = 0.04
SOON_S = 0.02
DOWNLOAD_S = 0.4
START_SPREAD_S = 20.0
"""Shards of one array start within so many seconds of each other."""

STEADY_FROM_S = 45.0
"""From then on all shards are at work, and know how long requests take."""

BEGAN = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)
SHA256 = "0" * 64


class World:
    """The clock, and what was counted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.counted: Counter[str] = Counter()
        self.departures: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        """Call back so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), then))

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        while self._events:
            self.now, _, then = heapq.heappop(self._events)
            then()

    def share_of(self, rate: Rate, until_s: float) -> float:
        """Return how much of the rate was used while all shards were at work."""
        moments = [moment for moment in self.departures if STEADY_FROM_S < moment < until_s]
        if len(moments) < 2:
            return 0.0
        return len(moments) / (until_s - STEADY_FROM_S) / (rate.count / rate.window_s)

    def worst_second(self) -> int:
        """Return how many submits left in the worst second, wherever that began."""
        ordered, first, worst = sorted(self.departures), 0, 0
        for last, moment in enumerate(ordered):
            while moment - ordered[first] >= 1.0:
                first += 1
            worst = max(worst, last + 1 - first)
        return worst


class SimulatedShard:
    """One shard, from its first submit to its last record."""

    def __init__(
        self, world: World, limits: Limits, jobs: int, dice: random.Random, *, has_copy: bool
    ) -> None:
        self._world = world
        self._dice = dice
        self._left = jobs
        self._free = limits.in_flight
        self._submits = Throttle(limits.submits)
        self._polls = Throttle(limits.polls)
        self._schedule = PollSchedule()
        self._commit_s = COMMIT_S + (PUT_S if has_copy else 0.0)
        self._waiting: list[Callable[[], None]] = []
        self._is_committing = False
        self._is_due = False
        self._is_taking = False
        world.after(dice.uniform(0.0, START_SPREAD_S), self._take)

    # Submits: a free place, a turn, the intent made durable, the call.

    def _take(self) -> None:
        if self._is_taking or not self._left or not self._free:
            return
        wait_s = self._submits.turn_in_s(self._world.now)
        if wait_s > 0:
            self._is_taking = True
            self._world.after(wait_s, self._taken)
            return
        self._submits.take_turn(self._world.now)
        self._left -= 1
        self._free -= 1
        self._write(_intent())
        self._waiting.append(self._leave)
        self._commit()
        self._take()

    def _taken(self) -> None:
        self._is_taking = False
        self._take()

    def _leave(self) -> None:
        now = self._world.now
        wait_s = self._submits.leave_in_s(now)
        if wait_s > 0:
            self._world.after(wait_s, self._leave)
            return
        self._submits.leave(now)
        self._world.departures.append(now)
        self._world.counted["submits"] += 1
        self._world.after(CALL_S, self._accepted)

    def _accepted(self) -> None:
        self._write(_submitted())
        if not self._is_due:
            self._is_due = True
            self._world.after(SOON_S, self._commit)
        began = self._world.now
        took_s = self._dice.lognormvariate(0.0, SPREAD) * DURATION_S
        self._world.after(self._schedule.wait_s(0.0), lambda: self._ask(began, took_s))

    def _commit(self) -> None:
        """Make durable what was written, in one go for all who wait."""
        self._is_due = False
        if self._is_committing:
            return
        self._is_committing = True
        self._world.counted["commits"] += 1
        served, self._waiting = self._waiting, []

        def done() -> None:
            self._is_committing = False
            for then in served:
                then()
            if self._waiting:
                self._commit()

        self._world.after(self._commit_s, done)

    # Polls, the download, the last record.

    def _ask(self, began: float, took_s: float, questions: int = 1) -> None:
        now = self._world.now
        wait_s = max(self._polls.turn_in_s(now), self._polls.leave_in_s(now))
        if wait_s > 0:
            self._world.after(wait_s, lambda: self._ask(began, took_s, questions))
            return
        self._polls.take_turn(now)
        self._polls.leave(now)
        # Durations are learned first: what later ones are asked is what a long batch is asked.
        later = "later " if began > STEADY_FROM_S else ""
        self._world.counted[f"{later}polls"] += 1
        age_s = now - began
        if age_s < took_s:
            later_s = self._schedule.wait_s(age_s)
            self._world.after(later_s, lambda: self._ask(began, took_s, questions + 1))
            return
        self._world.counted[f"{later}jobs"] += 1
        self._schedule.learn(took_s, questions)
        self._write(_succeeded())
        self._free += 1
        self._world.after(DOWNLOAD_S, lambda: self._write(_saved()))
        self._take()

    def _write(self, record: Record) -> None:
        self._world.counted["records"] += 1
        self._world.counted["ledger bytes"] += _SIZES[type(record)]


class Outcome(NamedTuple):
    """What a batch asked, over all shards."""

    jobs: int
    worst_second: int
    share_of_rate: float
    counted: Counter[str]


def simulate(
    shards: int, jobs: int, limits: Limits = LIMITS, *, has_copy: bool = True, seed: int = 1
) -> Outcome:
    """Run a batch of so many jobs in so many shards."""
    world, dice = World(), random.Random(seed)
    header = LedgerHeader(version=LEDGER_VERSION, at=BEGAN, program="simulation", service="local")
    # Fingerprints deal jobs as dice do.
    parts = Counter(dice.randrange(shards) for _ in range(jobs))
    for index in range(shards):
        part = limits_share(limits, Shard(index, shards), header)
        SimulatedShard(world, part, parts[index], dice, has_copy=has_copy)
    world.run()
    # The shard with the fewest jobs is the first to be at its end.
    until_s = min(parts.values()) / (limits.submits.count / shards)
    share = world.share_of(limits.submits, until_s)
    return Outcome(jobs, world.worst_second(), share, world.counted)


_ABOUT: dict[str, Any] = {
    "at": BEGAN + timedelta(microseconds=123456),
    "job": "sku-1234567/white/aspect_ratio=1:1",
    "fingerprint": SHA256,
}
_REQUEST_ID = "0b2f9c1e-5d0a-4a53-9d3c-2f6c3a1f7e11"


def _intent() -> Record:
    return Submitting(
        **_ABOUT,
        model="google/nano-banana-2/edit",
        input={
            "prompt": "Put the enamel mug on a pure white background, soft shadow.",
            "image_urls": ["https://cdn.example.com/products/1234567/front.jpg"],
            "resolution": "1K",
            "output_format": "png",
            "aspect_ratio": "1:1",
        },
        path="sku-1234567/white-1-1",
        attempt=1,
        reserved_usd=Decimal("0.0390"),
    )


def _submitted() -> Record:
    return Submitted(**_ABOUT, request_id=_REQUEST_ID)


def _succeeded() -> Record:
    return Succeeded(
        **_ABOUT,
        request_id=_REQUEST_ID,
        outputs=["https://files.runcomfy.net/results/0b2f9c1e/output-0001.png"],
        cost_usd=Decimal("0.0390"),
        created_at="2026-03-02T22:00:00.123456Z",
        finished_at="2026-03-02T22:00:15.654321Z",
    )


def _saved() -> Record:
    file = SavedFile(
        path="sku-1234567/white-1-1.png",
        size_bytes=1_500_000,
        sha256=SHA256,
        media_type="image/png",
    )
    return Saved(**_ABOUT, files=[file])


_SIZES = {
    type(record): len(encode(record))
    for record in (_intent(), _submitted(), _succeeded(), _saved())
}


def rows(shards: int, jobs: int) -> list[dict[str, Any]]:
    """Return what a job costs, and what ten million do."""
    found = simulate(shards, jobs)
    counted, large = found.counted, LARGE / 1e6

    def row(what: str, per_job: float, of_all: str) -> dict[str, Any]:
        return {"what": what, "a job": f"{per_job:.2f}", "ten million jobs": of_all}

    def each(name: str) -> float:
        return counted[name] / jobs

    puts = each("commits")
    polls = counted["later polls"] / max(1, counted["later jobs"])
    return [
        row("submits", each("submits"), f"{large * each('submits'):.1f} million"),
        row("polls", polls, f"{large * polls:.1f} million"),
        row("ledger records", each("records"), f"{large * each('records'):.1f} million"),
        row("ledger bytes", each("ledger bytes"), f"{large * each('ledger bytes') / 1e3:.1f} GB"),
        row("commits, and puts where there is a copy", puts, f"{large * puts:.1f} million"),
        row("limiter calls (limits dealt)", 0.0, "0"),
        {
            "what": f"submits in the worst second, of {LIMITS.submits.count} allowed",
            "a job": "",
            "ten million jobs": str(found.worst_second),
        },
        {
            "what": "share of the rate that was used",
            "a job": "",
            "ten million jobs": f"{found.share_of_rate:.0%}",
        },
    ]


def main(shards: int, jobs: int) -> None:
    """Simulate, and say what it asks."""
    report("fleet", rows(shards, jobs), Path("out/benchmarks"))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    main(*(numbers + [SHARDS, JOBS][len(numbers) :]))
