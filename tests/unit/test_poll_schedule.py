"""The poll schedule against simulated services: slots kept full, few polls."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_runner.pacing.polling import PollSchedule, PollTimer
from batch_runner.pacing.service_queue import ServiceQueue

ANSWER_S = 0.005

Draw = Callable[[random.Random], float]


def simulate(draw: Draw, jobs: int, in_flight: int) -> tuple[float, float]:
    """Run jobs in virtual time; returns (slot use against the ideal, polls a job)."""
    dice = random.Random(20260301)
    durations_s = [draw(dice) for _ in range(jobs)]
    schedule, waiting = PollSchedule(), iter(durations_s)
    numbers = itertools.count()
    events = [
        (schedule.first_wait_s(0.0), next(numbers), 0.0, next(waiting), 1) for _ in range(in_flight)
    ]
    heapq.heapify(events)
    polls, ended_s = 0, 0.0
    while events:
        now_s, _, submitted_s, duration_s, tried = heapq.heappop(events)
        polls += 1
        age_s = now_s - submitted_s
        if age_s < duration_s:
            later_s = now_s + ANSWER_S + schedule.wait_s(age_s + ANSWER_S)
            about = (submitted_s, duration_s, tried + 1)
            heapq.heappush(events, (later_s, next(numbers), *about))
            continue
        schedule.learn(duration_s, tried)
        ended_s = now_s
        following_s = next(waiting, None)
        if following_s is not None:
            begins_s = now_s + ANSWER_S
            later_s = begins_s + schedule.first_wait_s(0.0)
            heapq.heappush(events, (later_s, next(numbers), begins_s, following_s, 1))
    return sum(durations_s) / in_flight / ended_s, polls / jobs


@pytest.mark.parametrize(
    ("draw", "least_use"),
    [
        pytest.param(lambda dice: 10 + dice.random() * 0.05, 0.98, id="constant"),
        pytest.param(lambda dice: dice.uniform(9.3, 10.7), 0.97, id="within a seventh"),
        pytest.param(lambda dice: dice.uniform(8, 12), 0.945, id="within two fifths"),
        pytest.param(lambda dice: 10 * math.exp(dice.gauss(0, 0.1)), 0.945, id="log-normal"),
        pytest.param(lambda dice: dice.uniform(5, 15), 0.89, id="threefold"),
        pytest.param(lambda dice: dice.choice([5, 20]) * dice.uniform(0.98, 1.02), 0.93, id="two"),
    ],
)
def test_slots_are_kept_as_full_as_four_polls_a_job_allow(draw: Draw, least_use: float) -> None:
    use, polls = simulate(draw, jobs=1000, in_flight=10)
    assert use >= least_use
    assert polls <= 4.0


def test_before_anything_is_known_the_polls_grow_rarer_with_age() -> None:
    schedule = PollSchedule()
    waits = [schedule.wait_s(age_s) for age_s in (0.0, 1.0, 10.0, 100.0)]
    assert waits == sorted(waits)
    assert waits[0] == PollSchedule.LEAST_S
    assert waits[-1] == pytest.approx(30.0)


def test_a_request_slower_than_all_before_is_polled_soon_and_then_ever_more_rarely() -> None:
    schedule = PollSchedule()
    for _ in range(20):
        schedule.learn(10.0)
    assert schedule.wait_s(0.0) == pytest.approx(10.0)
    age_s, waits = 10.01, []
    for _ in range(6):
        waits.append(schedule.wait_s(age_s))
        age_s += waits[-1]
    assert waits[0] == pytest.approx(0.3, abs=0.01)
    assert waits == sorted(waits)


def test_only_the_latest_durations_count() -> None:
    schedule = PollSchedule()
    for duration_s in [100.0] * 50 + [1.0] * PollSchedule.SEEN:
        schedule.learn(duration_s)
    assert schedule.wait_s(0.0) == pytest.approx(1.0)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0.0, 1000.0), min_size=0, max_size=60),
    st.floats(0.0, 2000.0),
)
def test_there_is_always_a_next_poll_and_never_at_once(
    durations_s: list[float], age_s: float
) -> None:
    schedule = PollSchedule()
    for duration_s in durations_s:
        schedule.learn(duration_s)
    assert 0.0 < schedule.wait_s(age_s) < math.inf


def simulate_queue(draw: Draw, jobs: int, in_flight: int, capacity: int) -> tuple[float, float]:
    """The same at a service that works on some at a time, in the order they came."""
    dice, schedule = random.Random(20260301), PollSchedule()
    numbers = itertools.count()
    events: list[tuple[float, int, int, PollTimer]] = []
    starts_s: list[float] = []
    ends_s: list[float] = []
    polls, occupied_s, now_s = 0, 0.0, 0.0

    def submit(now_s: float) -> None:
        # Nothing starts before the one before it, nor before fewer than `capacity` are at work.
        free_s = sorted(ends_s)[-capacity] if len(ends_s) >= capacity else 0.0
        starts_s.append(max(now_s, free_s))
        ends_s.append(starts_s[-1] + draw(dice))
        timer = schedule.begin(now_s)
        due_s = now_s + timer.wait_s(now_s)
        heapq.heappush(events, (due_s, next(numbers), len(ends_s) - 1, timer))

    for _ in range(in_flight):
        submit(0.0)
    while events:
        now_s, _, job, timer = heapq.heappop(events)
        if timer.wait_s(now_s) <= 0:
            polls += 1
            if now_s >= ends_s[job]:
                occupied_s += ends_s[job] - timer.joined_at
                timer.see_other(now_s)
                timer.end(ends_s[job] - timer.joined_at)
                if len(ends_s) < jobs:
                    submit(now_s + ANSWER_S)
                continue
            waiting = sum(now_s < start_s <= starts_s[job] for start_s in starts_s)
            if waiting:
                timer.see_queued(waiting, now_s)
            else:
                timer.see_running(now_s)
        due_s = now_s + timer.wait_s(now_s)
        heapq.heappush(events, (due_s, next(numbers), job, timer))
    return occupied_s / in_flight / now_s, polls / jobs


@pytest.mark.parametrize(
    ("draw", "capacity", "least_use"),
    [
        pytest.param(lambda dice: dice.uniform(9.3, 10.7), 14, 0.95, id="within a seventh"),
        pytest.param(lambda dice: dice.uniform(9.3, 10.7), 5, 0.95, id="mostly waiting"),
        pytest.param(lambda dice: 10 * math.exp(dice.gauss(0, 0.1)), 14, 0.94, id="log-normal"),
        pytest.param(
            lambda dice: dice.choice([5, 20]) * dice.uniform(0.98, 1.02), 14, 0.92, id="2"
        ),
    ],
)
def test_time_in_a_queue_costs_no_polls(draw: Draw, capacity: int, least_use: float) -> None:
    use, polls = simulate_queue(draw, 1000, 20, capacity)
    assert use >= least_use
    assert polls <= 4.0


def test_a_line_knows_from_ends_alone_when_each_request_left_it() -> None:
    queue = ServiceQueue()
    numbers = [queue.join() for _ in range(5)]
    queue.see_queued(numbers[3], 2, 1.0)  # two at a time, so 0 and 1 are at work and 2 is before it
    assert [queue.started_at(number, 0.0) for number in numbers[:3]] == [0.0, 0.0, None]
    queue.end(7.0)
    queue.end(6.0)  # it was discovered later, and ended before
    assert [queue.started_at(number, 0.0) for number in numbers] == [0.0, 0.0, 6.0, 7.0, None]


def test_a_line_with_requests_of_others_in_it_is_not_taken_for_ours() -> None:
    queue = ServiceQueue()
    for position in (1, 9, 3, 40, 2, 17):
        number = queue.join()
        queue.see_queued(number, position, 0.0)
    assert queue.is_known
    assert not queue.is_ours


def test_a_line_takes_in_that_the_service_works_on_more_than_before() -> None:
    queue = ServiceQueue()
    numbers = [queue.join() for _ in range(20)]
    queue.see_queued(numbers[2], 1, 0.0)
    assert queue.started_at(numbers[9], 0.0) is None
    for _ in range(3):
        queue.see_running(numbers[9], 1.0)
    assert queue.started_at(numbers[9], 0.0) == 0.0


def test_a_request_believed_to_wait_is_polled_in_the_end() -> None:
    schedule = PollSchedule()
    schedule.queue.join()
    for _ in range(30):
        timer = schedule.begin(0.0)
        timer.end(10.0)
    schedule.counts_from_start = True
    timer = schedule.begin(0.0)
    timer.see_queued(1000, 0.0)  # a thousand ends that never come
    now_s, waits = 0.0, 0
    while (wait_s := timer.wait_s(now_s)) > 0:
        now_s += wait_s
        waits += 1
    assert now_s == pytest.approx(10.0, abs=0.01)
    assert waits < 10
