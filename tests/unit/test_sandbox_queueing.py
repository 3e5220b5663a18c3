from __future__ import annotations

import math
import random

from batch_runner.sandbox.queueing import SimulatedQueue


def test_requests_start_in_order_as_slots_become_free() -> None:
    queue = SimulatedQueue(capacity=2)
    tickets = [queue.join(ready_at=0.0, run_s=run_s) for run_s in (4.0, 1.0, 1.0, 1.0)]
    queue.advance(10.0)
    assert [ticket.started_at for ticket in tickets] == [0.0, 0.0, 1.0, 2.0]
    assert queue.find_position(tickets[0]) is None


def test_positions_count_from_one_and_move_up_when_one_leaves() -> None:
    queue = SimulatedQueue(capacity=1)
    first, second, third, fourth = (queue.join(0.0, 5.0) for _ in range(4))
    queue.advance(1.0)
    assert [queue.find_position(ticket) for ticket in (first, second, third, fourth)] == [
        None,
        1,
        2,
        3,
    ]
    assert queue.leave(third)
    assert not queue.leave(third)
    assert not queue.leave(first)
    assert queue.find_position(fourth) == 2


def test_a_request_behind_one_that_leaves_does_not_start_in_the_past() -> None:
    queue = SimulatedQueue(capacity=1)
    slow = queue.join(ready_at=100.0, run_s=1.0)
    ready = queue.join(ready_at=1.0, run_s=1.0)
    queue.advance(50.0)
    queue.leave(slow)
    queue.advance(60.0)
    assert ready.started_at == 50.0


def test_a_request_that_never_ends_takes_no_slot_from_the_others() -> None:
    queue = SimulatedQueue(capacity=1)
    stuck, other = queue.join(0.0, math.inf), queue.join(0.0, 1.0)
    queue.advance(5.0)
    assert stuck.ends_at == math.inf
    assert other.ends_at == 1.0


def test_a_smaller_capacity_does_not_stop_running_requests() -> None:
    queue = SimulatedQueue(capacity=3)
    for run_s in (1.0, 2.0, 3.0):
        queue.join(0.0, run_s)
    last = queue.join(0.0, 1.0)
    queue.advance(0.5)
    queue.capacity = 1
    queue.advance(10.0)
    assert last.started_at == 3.0


def test_starts_do_not_depend_on_how_often_one_asks() -> None:
    def simulate(looks: int) -> list[float | None]:
        draw = random.Random(7)
        queue, tickets, now = SimulatedQueue(3), [], 0.0
        for step in range(200):
            pause = draw.uniform(0.0, 0.4)
            for look in range(looks):
                queue.advance(now + pause * look / looks)
            now += pause
            queue.advance(now)
            tickets.append(queue.join(now + draw.uniform(0, 0.3), draw.uniform(0.1, 2.0)))
            if step % 9 == 0:
                queue.leave(tickets[draw.randrange(len(tickets))])
        queue.advance(1e9)
        return [ticket.started_at for ticket in tickets]

    assert simulate(0) == simulate(7)


def test_never_more_than_the_capacity_run_at_once() -> None:
    draw = random.Random(1)
    queue = SimulatedQueue(capacity=4)
    tickets = [queue.join(draw.uniform(0, 9), draw.uniform(0.1, 3)) for _ in range(100)]
    queue.advance(1e6)
    for ticket in tickets:
        start = ticket.started_at
        assert start is not None
        running = sum(
            1
            for one in tickets
            if one.started_at is not None and one.started_at <= start < one.ends_at
        )
        assert running <= 4
