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

from batch_runner.pacing.polling import PollSchedule

ANSWER_S = 0.005

Draw = Callable[[random.Random], float]


def simulate(draw: Draw, jobs: int, in_flight: int) -> tuple[float, float]:
    """Run jobs in virtual time; returns (slot use against the ideal, polls a job)."""
    dice = random.Random(20260301)
    durations_s = [draw(dice) for _ in range(jobs)]
    schedule, waiting = PollSchedule(), iter(durations_s)
    numbers = itertools.count()
    events = [
        (schedule.wait_s(0.0), next(numbers), 0.0, next(waiting), 1) for _ in range(in_flight)
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
            later_s = begins_s + schedule.wait_s(0.0)
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
