"""Requests that never end, a service that lets nobody in: a run ends, and can be gone on with."""

from __future__ import annotations

import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from bench import Bench, OpenSandbox
from conftest import FakeClock
from loopback import serving
from PIL import Image

from batch_runner.errors import ExitCode
from batch_runner.records import Failed, Submitted

TEXT = """\
prompts: {white: On white.}
matrix: {seed: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
images: {mug: https://cdn.example.com/mug.png}
limits: {submits: 1000/s, polls: 1000/s, in_flight: 4}
"""
AT_ONCE = {"run_s": (0.0, 0.0)}

_file = io.BytesIO()
Image.new("RGB", (8, 8)).save(_file, "PNG")
PNG = _file.getvalue()


def later(clock: FakeClock, **span: float) -> FakeClock:
    return FakeClock(clock.now() + timedelta(**span))


async def test_requests_that_never_end_are_left_for_the_next_run_and_the_others_are_done(
    bench: Bench, open_sandbox: OpenSandbox, clock: FakeClock
) -> None:
    text = TEXT.replace("in_flight: 4", "in_flight: 12")
    async with open_sandbox(faults="stuck=40%", seed=5, **AT_ONCE) as sandbox:
        first = await bench.run(text, sandbox, clock=clock)
        assert first.stop is None
        assert first.exit_code == ExitCode.STOPPED_EARLY
        assert 0 < first.in_flight < 12
        assert first.done + first.in_flight == 12
        said = [notice for notice in bench.notices if "no progress while running for" in notice]
        assert len(said) == first.in_flight
        assert "leaving it for the next run" in said[0]
        # The next night asks about them, and buys nothing anew.
        night = later(clock, hours=16)
        second = await bench.run(text, sandbox, clock=night)
        assert (second.in_flight, second.submitted) == (first.in_flight, 0)
        assert night.elapsed_s < 7200
        assert len(sandbox.accepted()) == 12


async def test_what_does_not_end_keeps_its_place_and_with_no_place_left_the_run_stops(
    bench: Bench, open_sandbox: OpenSandbox, clock: FakeClock
) -> None:
    async with open_sandbox(faults="stuck", **AT_ONCE) as sandbox:
        first = await bench.run(TEXT + "retry: {stuck: 10min}\n", sandbox, clock=clock)
        assert first.stop is not None
        assert first.stop.reason == "stuck"
        assert first.exit_code == ExitCode.STOPPED_EARLY
        assert (first.submitted, first.in_flight, first.pending) == (4, 4, 8)
        assert 600 < clock.elapsed_s < 3600
        # Never more than limits.in_flight at the service, in the next run either.
        second = await bench.run(
            TEXT + "retry: {stuck: 10min}\n", sandbox, clock=later(clock, days=1)
        )
        assert (second.submitted, second.in_flight, second.pending) == (0, 4, 8)
        assert len(sandbox.accepted()) == 4
        # With more room the batch goes on beside them.
        wider = TEXT.replace("in_flight: 4", "in_flight: 6") + "retry: {stuck: 10min}\n"
        third = await bench.run(wider, sandbox, clock=later(clock, days=2))
        assert (third.submitted, third.in_flight) == (2, 6)


async def test_a_state_nobody_knows_fails_in_time_and_is_asked_for_before_it_is_bought_again(
    bench: Bench, open_sandbox: OpenSandbox, clock: FakeClock
) -> None:
    text = TEXT + "retry: {attempts: 2, max_wait_s: 20}\n"
    async with open_sandbox(faults="unknown-state", **AT_ONCE) as sandbox:
        summary = await bench.run(text, sandbox, clock=clock)
        assert summary.failed == 10
        assert clock.elapsed_s >= 100, "it may be a new name for work under way"
    async with open_sandbox(**AT_ONCE) as sandbox:
        healed = await bench.run(TEXT, sandbox, retry=("failed",))
        assert (healed.exit_code, healed.done, healed.submitted) == (ExitCode.DONE, 12, 2)
        assert len(sandbox.accepted()) == 12


class Answers:
    """A service whose results are chosen by a request's number; it keeps count of the polls."""

    def __init__(self, results: dict[int, dict[str, Any]]) -> None:
        self.results = results
        self.polls: list[int] = []
        self.posts = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.posts += 1
            return web.json_response({"request_id": f"r{self.posts}"})
        if "/f/" in request.path:
            return web.Response(body=PNG)
        if not request.path.endswith("/result"):
            return web.json_response({}, status=404)
        number = int(request.path.split("/")[-2].removeprefix("r"))
        self.polls.append(number)
        made = {"status": "completed", "output": [f"http://{request.host}/f/{number}.png"]}
        return web.json_response({"request_id": f"r{number}", **self.results.get(number, made)})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"status": "completed", "output": {"images": []}}, "no output"),
        ({"status": "succeeded", "output": None}, "no output"),
        ({"status": "completed", "output": {"text": "refused"}}, "no output"),
        ({"status": "completed", "output": {"model": "m"}}, "no output"),
        ({"status": "moderated"}, "unknown state"),
        ({"error_code": 422001, "error_message": "refused"}, "service error"),
    ],
)
async def test_an_end_without_a_picture_fails_its_job_and_holds_up_no_other(
    bench: Bench, clock: FakeClock, odd: dict[str, Any], reason: str
) -> None:
    service = Answers({n: {**odd, "cost": 0.07} for n in (1, 2, 3)})
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(10))
    text = f"prompts: {{white: On white.}}\nimages:\n{images}\nlimits: {{in_flight: 3}}\n"
    text += "retry: {attempts: 3, max_wait_s: 10, give_up: 20s}\nprice_usd: 0.05\n"
    async with serving(service.answer) as url:
        summary = await bench.run(text, url, clock=clock)
        assert (summary.exit_code, summary.done, summary.failed) == (ExitCode.SOME_FAILED, 7, 3)
        failed = [record for record in bench.records if isinstance(record, Failed)]
        assert {record.reason for record in failed} == {reason}
        if "status" in odd:
            assert {record.cost_usd for record in failed} == {Decimal("0.07")}
        again = await bench.run(text, url, clock=clock, retry=("failed",))
        assert (again.exit_code, again.done, service.posts) == (ExitCode.DONE, 10, 13)


async def test_an_end_that_only_comes_late_is_no_failure(bench: Bench, clock: FakeClock) -> None:
    service = Answers({1: {"status": "completed", "output": []}})

    async def answer(request: web.Request) -> web.Response:
        if len(service.polls) == 3:
            service.results.clear()
        return await service.answer(request)

    async with serving(answer) as url:
        summary = await bench.run(ONE, url, clock=clock)
    assert (summary.exit_code, summary.done, service.posts) == (ExitCode.DONE, 1, 1)


async def test_odd_answers_between_signs_of_life_are_no_failure(
    bench: Bench, clock: FakeClock
) -> None:
    service, polls = Answers({}), 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal polls
        if request.path.endswith("/result") and (polls := polls + 1) < 30:
            service.results[1] = {"status": "in_progress"} if polls % 3 else {"error_code": 409001}
        else:
            service.results.clear()
        return await service.answer(request)

    text = ONE.replace("{stuck: 10min}", "{attempts: 3, max_wait_s: 2}")
    async with serving(answer) as url:
        summary = await bench.run(text, url, clock=clock)
    assert (summary.exit_code, summary.done, service.posts) == (ExitCode.DONE, 1, 1)


async def test_one_404_after_other_troubles_is_no_end(bench: Bench, clock: FakeClock) -> None:
    service, troubles = Answers({}), [500, 500, 500, 500, 500, 404]

    async def answer(request: web.Request) -> web.Response:
        if troubles and request.path.endswith("/result"):
            status = troubles.pop(0)
            return web.json_response({"error_code": status * 1000 + 1}, status=status)
        return await service.answer(request)

    async with serving(answer) as url:
        summary = await bench.run(ONE, url, clock=clock)
    assert (summary.exit_code, summary.done, service.posts) == (ExitCode.DONE, 1, 1)


class Queue:
    """A service with a queue of its own: how it stands is told by what was asked of it before."""

    def __init__(self, *, moves: bool) -> None:
        self.moves = moves
        self.polls = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"request_id": "r1"})
        if not request.path.endswith("/result"):
            return web.json_response({}, status=404)
        self.polls += 1
        position = max(0, 40 - self.polls) if self.moves else 7
        if position == 0:
            return web.json_response(
                {"request_id": "r1", "status": "failed", "error": {"message": "no"}}
            )
        state = {"request_id": "r1", "status": "in_queue", "queue_position": position}
        return web.json_response(state)


ONE = """\
prompts: {white: On white.}
images: {mug: https://cdn.example.com/mug.png}
retry: {stuck: 10min}
"""


async def test_a_queue_that_moves_is_waited_for_however_long(
    bench: Bench, clock: FakeClock
) -> None:
    queue = Queue(moves=True)
    async with serving(queue.answer) as url:
        summary = await bench.run(ONE, url, clock=clock)
    assert summary.exit_code == ExitCode.SOME_FAILED
    assert clock.elapsed_s > 600


async def test_a_queue_that_stands_still_is_left(bench: Bench, clock: FakeClock) -> None:
    async with serving(Queue(moves=False).answer) as url:
        summary = await bench.run(ONE, url, clock=clock)
    assert (summary.in_flight, summary.exit_code) == (1, ExitCode.STOPPED_EARLY)
    assert any("no progress in the queue for" in notice for notice in bench.notices)


async def test_nothing_but_429_ends_the_run_with_69_and_uses_up_no_jobs_attempts(
    bench: Bench, open_sandbox: OpenSandbox, clock: FakeClock
) -> None:
    async with open_sandbox(faults="rate-limit") as sandbox:
        summary = await bench.run(TEXT + "retry: {give_up: 2min}\n", sandbox, clock=clock)
        assert summary.exit_code == ExitCode.UNAVAILABLE
        assert summary.error is not None
        assert "nothing but 429" in summary.error.message
        assert (summary.pending, summary.failed, summary.unknown) == (12, 0, 0)
        assert sandbox.accepted() == []
        assert clock.elapsed_s > 120
    async with open_sandbox() as sandbox:
        assert (await bench.run(TEXT, sandbox)).done == 12
    assert sum(isinstance(record, Submitted) for record in bench.records) == 12
