from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

import pytest
from conftest import FakeClock, PatientClock
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.clock import Clock
from batch_runner.errors import ServiceUnavailableError
from batch_runner.manifest.form import Limits, Rate, Retry
from batch_runner.pacing.pacer import Pacer
from batch_runner.pacing.slots import Slots
from batch_runner.pacing.throttle import Throttle

RATES = st.builds(Rate, st.integers(1, 30), st.sampled_from([1.0, 60.0, 3600.0]))


def pacer(
    clock: Clock,
    *,
    submits: str = "5/s",
    polls: str = "20/s",
    retry: Retry | None = None,
    dice: Callable[[], float] = lambda: 1.0,
) -> Pacer:
    limits = Limits(submits=Rate.parse(submits), polls=Rate.parse(polls))
    return Pacer(limits, retry or Retry(), clock, dice)


def share_of(pacer: Pacer) -> float:
    return pacer._submits.share


# The arithmetic


def departures(rate: Rate, arrivals: list[float], lateness: list[float]) -> list[float]:
    """Send calls through a throttle as the pacer does; timers wake up late by some time."""
    throttle = Throttle(rate)
    late = itertools.cycle(lateness)
    now, left = 0.0, []
    for arrival in arrivals:
        now = max(now, arrival)
        while (wait_s := max(throttle.turn_in_s(now), throttle.leave_in_s(now))) > 0:
            now += wait_s + next(late) + 1e-9 * now  # no float is exact
        throttle.take_turn(now)
        throttle.leave(now)
        left.append(now)
    return left


def most_in_any_window(moments: list[float], window_s: float) -> int:
    """Return the largest number of moments in any window, its two ends included."""
    inside: deque[float] = deque()
    most = 0
    for moment in moments:
        inside.append(moment)
        while moment - inside[0] > window_s:
            inside.popleft()
        most = max(most, len(inside))
    return most


@given(
    RATES,
    st.lists(st.floats(0, 3), min_size=1, max_size=120),
    st.lists(st.floats(0, 0.3), min_size=1, max_size=10),
)
def test_no_window_of_its_length_ever_sees_more_calls_than_the_limit(
    rate: Rate, gaps: list[float], lateness: list[float]
) -> None:
    arrivals = list(itertools.accumulate(gaps))
    left = departures(rate, arrivals, lateness)
    assert most_in_any_window(left, rate.window_s) <= rate.count


@given(
    RATES,
    st.lists(st.floats(0, 0.99), min_size=1, max_size=20),
    st.lists(st.floats(0, 0.3), min_size=1, max_size=10),
)
def test_nor_does_the_service_when_calls_take_differently_long_to_arrive(
    rate: Rate, delays: list[float], lateness: list[float]
) -> None:
    left = departures(rate, [0.0] * 150, lateness)
    # The network's jitter does not grow with the length of the window.
    longest_s = min(0.02 * rate.window_s, 0.1)
    delay_s = itertools.cycle(delay * longest_s for delay in delays)
    arrived = sorted(moment + next(delay_s) for moment in left)
    assert most_in_any_window(arrived, rate.window_s) <= rate.count


@pytest.mark.parametrize("rate", ["1/s", "5/s", "7/s", "100/s", "30/min", "90/h"])
@pytest.mark.parametrize("lateness", [[0.0], [0.0, 0.002, 0.001], [0.003]])
def test_a_long_run_uses_nearly_all_of_the_rate(rate: str, lateness: list[float]) -> None:
    parsed = Rate.parse(rate)
    count = parsed.count * 200
    left = departures(parsed, [0.0] * count, lateness)
    ideal_s = (count - 1) / parsed.count * parsed.window_s
    assert ideal_s / left[-1] >= 0.97


def test_calls_are_spread_evenly_over_the_window() -> None:
    left = departures(Rate(5, 1.0), [10.0] * 40, [0.0])
    gaps = [later - earlier for earlier, later in itertools.pairwise(left)]
    assert min(gaps) > 0.19
    assert max(gaps) < 0.22


def test_a_smaller_share_slows_the_pace_and_is_never_more_than_the_limit() -> None:
    throttle = Throttle(Rate(10, 1.0))
    throttle.share = 0.5
    throttle.take_turn(100.0)
    assert throttle.turn_in_s(100.0) == pytest.approx(0.204)


def test_a_call_that_had_its_turn_waits_until_the_window_has_room() -> None:
    throttle = Throttle(Rate(2, 1.0))
    assert throttle.leave_in_s(0.0) == 0
    throttle.leave(0.0)
    throttle.leave(0.5)
    assert throttle.leave_in_s(0.6) == pytest.approx(0.42)
    assert throttle.leave_in_s(1.02) <= 0


# The pacer


async def test_submits_are_served_in_the_order_in_which_they_came() -> None:
    clock = PatientClock()
    paced = pacer(clock)
    served: list[int] = []

    async def submit(number: int) -> None:
        assert await paced.turn_to_submit()
        served.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(submit(number))
        await clock.advance(60)
    assert served == list(range(12))


async def test_polls_are_served_in_order_and_within_their_own_limit() -> None:
    clock = PatientClock()
    paced = pacer(clock, polls="4/s")
    served: list[tuple[int, float]] = []

    async def poll(number: int) -> None:
        await paced.turn_to_poll(asyncio.Event())
        served.append((number, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(poll(number))
        await clock.advance(60)
    assert [number for number, _ in served] == list(range(20))
    assert most_in_any_window([moment for _, moment in served], 1.0) <= 4


async def test_submits_that_were_held_up_after_their_turn_still_leave_within_the_limit() -> None:
    clock = PatientClock()
    paced = pacer(clock, submits="3/s")
    left: list[float] = []

    async def leave() -> None:
        await paced.leave_with_submit()
        left.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        for _ in range(10):  # a slow disk lets all of them go at once
            group.create_task(leave())
        await clock.advance(60)
    assert len(left) == 10
    assert most_in_any_window(left, 1.0) <= 3


async def test_a_429_closes_the_gate_for_submits_and_polls_alike_until_it_may_open(
    clock: FakeClock,
) -> None:
    paced = pacer(clock)
    paced.throttled(30.0)
    await paced.turn_to_poll(asyncio.Event())
    assert clock.monotonic() == pytest.approx(30.0)
    paced.throttled(30.0)
    assert await paced.turn_to_submit()
    assert clock.monotonic() == pytest.approx(60.0)


async def test_a_shorter_wait_never_opens_the_gate_earlier(
    clock: FakeClock,
) -> None:
    paced = pacer(clock)
    paced.throttled(30.0)
    paced.throttled(1.0)
    paced.throttled(None)
    await paced.turn_to_poll(asyncio.Event())
    assert clock.monotonic() == pytest.approx(30.0)


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 10.0])
async def test_the_rate_is_halved_once_for_each_closing_however_many_calls_were_under_way(
    clock: FakeClock, retry_after_s: float | None
) -> None:
    paced = pacer(clock)
    for expected in (0.5, 0.25, 0.125):
        for _ in range(20):
            paced.throttled(retry_after_s)
        assert share_of(paced) == expected
        clock.elapsed_s += 10.0
    for _ in range(20):
        paced.throttled(retry_after_s)
        clock.elapsed_s += 10.0
    assert share_of(paced) == 0.02


async def test_the_rate_recovers_by_itself_within_a_minute_after_the_gate_opened(
    clock: FakeClock,
) -> None:
    paced = pacer(clock)
    paced.throttled(20.0)
    clock.elapsed_s = 20.0
    assert await paced.turn_to_submit()
    assert share_of(paced) == 0.5
    clock.elapsed_s = 35.0
    assert await paced.turn_to_submit()
    assert share_of(paced) == pytest.approx(0.75)
    clock.elapsed_s = 80.0
    assert await paced.turn_to_submit()
    assert share_of(paced) == 1.0


async def test_429s_in_a_row_without_retry_after_close_the_gate_for_longer_each_time(
    clock: FakeClock,
) -> None:
    paced = pacer(clock)
    closed_s = []
    for _ in range(9):
        paced.throttled(None)
        began = clock.monotonic()
        await paced.turn_to_poll(asyncio.Event())
        closed_s.append(clock.monotonic() - began)
    assert closed_s == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60])
    paced.reached()
    paced.throttled(None)
    began = clock.monotonic()
    await paced.turn_to_poll(asyncio.Event())
    assert clock.monotonic() - began == pytest.approx(0.5)


async def test_stopping_wakes_every_submit_that_waits_and_lets_no_further_one_start() -> None:
    clock = PatientClock()
    paced = pacer(clock, submits="1/h")
    assert await paced.turn_to_submit()
    waiting = [asyncio.create_task(paced.turn_to_submit()) for _ in range(5)]
    await clock.settle()
    assert not any(task.done() for task in waiting)
    assert not paced.is_stopped
    paced.stop()
    assert await asyncio.gather(*waiting) == [False] * 5
    assert clock.monotonic() == 0.0, "nobody had to wait for it"
    assert await paced.turn_to_submit() is False
    assert paced.is_stopped


async def test_polls_continue_after_submits_were_stopped(clock: FakeClock) -> None:
    paced = pacer(clock)
    paced.stop()
    for _ in range(50):
        await paced.turn_to_poll(asyncio.Event())
    assert clock.monotonic() == pytest.approx(2.5, rel=0.1)


async def test_an_unreachable_service_is_given_up_only_after_give_up_s(
    clock: FakeClock,
) -> None:
    paced = pacer(clock, retry=Retry(give_up_s=900.0))
    for _ in range(90):
        paced.unreachable("connection refused")
        clock.elapsed_s += 10.0
    paced.unreachable("connection refused")  # 900 seconds: the last one that is borne
    clock.elapsed_s += 1.0
    with pytest.raises(ServiceUnavailableError, match=r"away for 901 s: connection refused") as it:
        paced.unreachable("connection refused")
    assert "nothing is lost" in (it.value.hint or "")


async def test_a_usable_answer_begins_the_time_anew(clock: FakeClock) -> None:
    paced = pacer(clock, retry=Retry(give_up_s=900.0))
    paced.unreachable("x")
    clock.elapsed_s = 899.0
    paced.reached()
    clock.elapsed_s = 1700.0
    paced.unreachable("x")
    clock.elapsed_s = 2600.0
    paced.unreachable("x")


async def test_an_outage_closes_the_gate_but_takes_nothing_from_the_rate(clock: FakeClock) -> None:
    paced = pacer(clock)
    paced.unreachable("x")
    assert await paced.turn_to_submit()
    assert clock.monotonic() == pytest.approx(0.5)
    assert share_of(paced) == 1.0


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 600))
def test_a_backoff_is_at_least_half_of_its_step_and_never_longer_than_allowed(
    attempt: int, dice: float, max_wait_s: float
) -> None:
    paced = pacer(FakeClock(), retry=Retry(max_wait_s=max_wait_s), dice=lambda: dice)
    step_s = min(max_wait_s, 0.5 * 2.0 ** min(attempt - 1, 40))
    assert 0.5 * step_s <= paced.backoff_s(attempt) <= step_s


# The poll schedule


# The real clock


async def test_the_real_clock_wakes_for_an_event_and_at_the_end_of_its_time() -> None:
    clock = Clock()
    event = asyncio.Event()
    before = clock.monotonic()
    await clock.wait(event, 0.0)
    event.set()
    await clock.wait(event, 3600.0)
    await clock.sleep(0.0)
    assert 0 <= clock.monotonic() - before < 3600
    assert clock.now().tzinfo is not None


async def test_nothing_but_429_is_given_up_after_the_time_for_that(clock: FakeClock) -> None:
    paced = pacer(clock, retry=Retry(give_up_s=900.0))
    for _ in range(15):
        paced.throttled(60.0)
        clock.elapsed_s += 60.0
    clock.elapsed_s += 1.0
    with pytest.raises(ServiceUnavailableError, match=r"nothing but 429 .* for 901 s"):
        paced.throttled(60.0)


async def test_a_wait_that_the_service_asks_for_is_no_reason_to_give_up(clock: FakeClock) -> None:
    paced = pacer(clock, retry=Retry(give_up_s=900.0))
    for _ in range(4):
        paced.throttled(3600.0)
        clock.elapsed_s += 3600.0
    paced.reached()
    paced.throttled(3600.0)


async def test_slots_are_given_in_order_and_never_more_than_there_are() -> None:
    slots = Slots(2)
    assert await slots.take()
    assert await slots.take()
    order: list[int] = []

    async def wait(number: int) -> None:
        assert await slots.take()
        order.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    for _ in range(3):
        slots.free()
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]


async def test_requests_of_earlier_runs_occupy_slots_beyond_the_limit() -> None:
    slots = Slots(1)
    slots.occupy()
    slots.occupy()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.free()
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.free()
    assert await waiting


async def test_a_kept_slot_is_never_handed_out_and_stop_ends_every_wait() -> None:
    slots = Slots(1)
    assert await slots.take()
    slots.keep()
    assert slots.all_kept
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.stop()
    assert not await waiting
    assert not await slots.take()


@pytest.mark.parametrize("given", [True, False])
async def test_a_cancelled_wait_takes_no_slot(given: bool) -> None:
    slots = Slots(1)
    assert await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    if given:
        slots.free()  # in the very moment in which the waiter is cancelled
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not given:
        slots.free()
    assert await asyncio.wait_for(slots.take(), 5)
