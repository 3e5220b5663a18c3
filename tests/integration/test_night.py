"""Rates, money and nights, measured where it counts: at the service, by its own book."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bench import Bench, OpenSandbox
from conftest import PatientClock

from batch_runner.errors import ExitCode
from batch_runner.records import Submitting
from batch_runner.run.summary import Summary
from batch_runner.service.answer import Answer, Verdict
from batch_runner.service.call import Service


def manifest(jobs: int, rest: str) -> str:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(jobs))
    return f"prompts: {{white: white}}\nimages:\n{images}\n{rest}"


def worst_second(moments_s: list[float]) -> int:
    """Return the most calls that arrived within any one second."""
    worst, first = 0, 0
    for last, moment_s in enumerate(moments_s):
        while moment_s - moments_s[first] >= 1.0:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


async def test_four_hundred_jobs_at_forty_a_second_keep_to_the_limit_and_use_it(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, moments_s = Service.submit, []

    async def note(self: Service, model_id: str, input_: dict[str, Any]) -> Verdict:
        # As it leaves: on a busy machine the server notes several arrivals at one late moment.
        moments_s.append(time.monotonic())
        return await submit(self, model_id, input_)

    monkeypatch.setattr(Service, "submit", note)
    limits = "limits: {submits: 40/s, in_flight: 100, polls: 200/s}\n"
    async with open_sandbox(pictures=False) as sandbox:
        summary = await bench.run(manifest(400, limits), sandbox)
        assert (summary.done, len(sandbox.accepted())) == (400, 400)
    assert worst_second(moments_s) <= 40
    # The usual second: one in which this machine did something else tells nothing.
    assert median(Counter(map(int, moments_s)).values()) >= 0.9 * 40


async def test_a_service_that_allows_less_is_found_out_with_few_429s(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    limits = "limits: {submits: 200/s, in_flight: 100, polls: 500/s}\n"
    async with open_sandbox(pictures=False, submits_per_s=30) as sandbox:
        summary = await bench.run(manifest(300, limits), sandbox)
        statuses = [call.status for call in sandbox.calls if call.method == "POST"]
    assert summary.done == 300
    assert 1 <= statuses.count(429) < len(statuses) / 3


async def test_two_dollars_buy_exactly_forty_also_with_lost_answers_and_restarts(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    limits = "limits: {submits: 1000/s, in_flight: 7, polls: 1000/s, cost_usd: 2.00}\n"
    text = manifest(100, limits)
    async with open_sandbox(pictures=False, faults="lost-answer=10%", seed=5) as sandbox:
        first = await bench.run(text, sandbox, limit=25)
        assert first.exit_code is ExitCode.STOPPED_EARLY
        second = await bench.run(text, sandbox)
        assert (second.exit_code, second.stop and second.stop.reason) == (75, "budget")
        third = await bench.run(text, sandbox)
        assert third.submitted == 0
        assert len(sandbox.accepted()) == 40
        assert third.unknown >= 1
        assert third.done + third.unknown == 40


class NightClock(PatientClock):
    """Hours pass in moments: time moves on whenever no call to the service is under way."""

    calls_under_way = 0

    async def pass_by(self) -> None:
        while True:
            await self.settle()
            if not self.calls_under_way and self._sleepers:
                await self.advance(max(0.0, min(self._sleepers)[0] - self.elapsed_s))


@pytest.fixture
async def night_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NightClock]:
    clock, call = NightClock(), Service._call

    async def counted(self: Service, *args: Any, **options: Any) -> Answer:
        clock.calls_under_way += 1
        try:
            return await call(self, *args, **options)
        finally:
            clock.calls_under_way -= 1

    monkeypatch.setattr(Service, "_call", counted)
    passing = asyncio.create_task(clock.pass_by())
    yield clock
    passing.cancel()
    await asyncio.wait([passing])


@pytest.mark.timeout(300)
async def test_three_nights_buy_every_job_once_although_the_token_expires_in_the_second(
    bench: Bench, open_sandbox: OpenSandbox, night_clock: NightClock
) -> None:
    clock = night_clock
    rest = "limits: {submits: 200/h, in_flight: 20, polls: 1000/s}\n"
    rest += 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    text = manifest(3000, rest)

    async def night(day: int, hour: int = 20, faults: str = "") -> Summary:
        clock.start = datetime(2026, 3, day, hour, 30, tzinfo=UTC)
        clock.elapsed_s = 0.0
        balance_usd = Decimal(1000)
        async with open_sandbox(pictures=False, faults=faults, balance_usd=balance_usd) as sandbox:
            return await bench.run(text, sandbox, clock=clock, wait=True)

    first = await night(27)
    assert (first.exit_code, first.stop and first.stop.reason) == (75, "window")
    assert 500 < first.done <= 1600
    expired = await night(28, faults="token-revoked=0.2%")
    assert expired.exit_code is ExitCode.REFUSED
    renewed = await night(28, hour=23)  # the clocks go forward in this one
    assert (renewed.exit_code, renewed.stop and renewed.stop.reason) == (75, "window")
    last = await night(29)
    assert (last.exit_code, last.done) == (ExitCode.DONE, 3000)
    async with open_sandbox() as sandbox:
        bought = Counter(str(request.input) for request in sandbox.accepted())
    assert len(bought) == 3000
    assert set(bought.values()) == {1}
    zone = ZoneInfo("Europe/Madrid")
    hours = {r.at.astimezone(zone).hour for r in bench.records if isinstance(r, Submitting)}
    assert hours == {22, 23, 0, 1, 2, 3, 4, 5}
