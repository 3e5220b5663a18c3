"""The queue of the sandbox: which request starts when, computed instead of run.

Hides the simulation of a service with a fixed number of slots. Nothing runs in the background:
`advance` brings the simulation up to a moment, at a cost only for requests that started since.

Always holds: requests start in order, each as soon as it is ready, the one before it has started
and a slot is free. Starts do not depend on how often `advance` is called: replaying the same joins
and leaves at the same times gives the same starts.
"""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Ticket:
    """One request in the queue; `started_at` is None while it waits. Times are epoch seconds."""

    number: int
    ready_at: float
    run_s: float
    started_at: float | None = None

    @property
    def ends_at(self) -> float:
        """When the work ends; infinity if it has not started or never ends."""
        return math.inf if self.started_at is None else self.started_at + self.run_s


class SimulatedQueue:
    """The queue and its slots. Changing `capacity` does not affect running requests."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._joined = 0
        self._waiting: dict[int, Ticket] = {}
        self._order: list[int] = []  # the numbers in _waiting, rising
        self._slot_ends: list[float] = []  # a heap
        self._advanced_to = -math.inf

    def __repr__(self) -> str:
        waiting, running = len(self._order), len(self._slot_ends)
        return f"SimulatedQueue({running} of {self.capacity} slots, {waiting} waiting)"

    def join(self, ready_at: float, run_s: float) -> Ticket:
        """Add a request at the end. If it runs forever, it takes no slot from the others."""
        self._joined += 1
        ticket = Ticket(self._joined, ready_at, run_s)
        self._waiting[ticket.number] = ticket
        self._order.append(ticket.number)
        return ticket

    def leave(self, ticket: Ticket) -> bool:
        """Remove a request; those behind it move up. False if it no longer waits."""
        if ticket.number not in self._waiting:
            return False
        del self._waiting[ticket.number]
        del self._order[bisect.bisect_left(self._order, ticket.number)]
        return True

    def find_position(self, ticket: Ticket) -> int | None:
        """Return its position, 1 for the next to start; None if it does not wait."""
        if ticket.number not in self._waiting:
            return None
        return bisect.bisect_left(self._order, ticket.number) + 1

    def advance(self, now: float) -> list[Ticket]:
        """Start every request that can start by now, in order, and return those requests."""
        started: list[Ticket] = []
        while self._order:
            ticket = self._waiting[self._order[0]]
            # Never before the moment already simulated: the request ahead may have left only then.
            start = max(ticket.ready_at, self._advanced_to)
            if len(self._slot_ends) >= self.capacity:
                start = max(start, self._find_free_slot())
            if start > now:
                break
            self._start(ticket, start)
            started.append(ticket)
        self._advanced_to = max(self._advanced_to, now)
        return started

    def _find_free_slot(self) -> float:
        """Return when fewer than `capacity` requests will be running."""
        surplus = len(self._slot_ends) - self.capacity + 1
        if surplus == 1:  # larger only after a restart with a smaller capacity
            return self._slot_ends[0]
        return heapq.nsmallest(surplus, self._slot_ends)[-1]

    def _start(self, ticket: Ticket, start: float) -> None:
        while self._slot_ends and self._slot_ends[0] <= start:
            heapq.heappop(self._slot_ends)
        ticket.started_at = start
        if math.isfinite(ticket.run_s):
            heapq.heappush(self._slot_ends, ticket.ends_at)
        del self._waiting[ticket.number]
        del self._order[0]
        # The next request may not start before this one.
        self._advanced_to = max(self._advanced_to, start)
