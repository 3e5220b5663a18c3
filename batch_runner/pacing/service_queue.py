"""The service's queue, reconstructed from queue positions and from when requests ended.

Pure arithmetic on given moments. Not promised: anything exact while others use the same queue.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque


class ServiceQueue:
    """When each request left the service's queue.

    A service that works on `capacity` requests at a time, in order, starts the i-th (from 0) when
    the (i - capacity)-th ends. The service reports ends to the second, so starts need no polls of
    their own. Capacity follows from positions: a request at position p waits for p more ends.
    If other clients use the same queue, positions contradict each other, and `is_ours` is False.
    """

    SAMPLES = 15
    KEPT = 50_000

    def __init__(self) -> None:
        self._joined = 0
        self._ends: list[float] = []
        self._forgotten = 0
        self._capacities: deque[int] = deque(maxlen=self.SAMPLES)
        self._capacity: int | None = None

    def __repr__(self) -> str:
        ended = self._forgotten + len(self._ends)
        return f"ServiceQueue({self._joined} joined, {ended} ended, {self._capacity} at a time)"

    @property
    def is_known(self) -> bool:
        """Whether the service was seen to make requests wait."""
        return self._capacity is not None

    @property
    def is_ours(self) -> bool:
        """Whether positions agree with each other, so that nobody else uses the queue."""
        if self._capacity is None:
            return False
        most = max(1.0, 0.05 * self._capacity)
        agrees = [abs(seen - self._capacity) <= most for seen in self._capacities]
        return sum(agrees) >= 0.85 * len(agrees) and agrees[-1]

    def join(self) -> int:
        """Count a request that was accepted; returns its number."""
        self._joined += 1
        return self._joined - 1

    def end(self, now: float) -> None:
        """Count a request that ended, or that is no longer polled."""
        insort(self._ends, now)
        if len(self._ends) > self.KEPT:
            half = self.KEPT // 2
            del self._ends[:half]
            self._forgotten += half

    def awaited_end(self, position: int, now: float) -> int:
        """Return the number of the end that a request at this position waits for."""
        return self._forgotten + bisect_right(self._ends, now) + position - 1

    def see_queued(self, number: int, position: int, then: float) -> None:
        """Learn from a position. Best called once all ends up to that moment are known."""
        self._see(number - self.awaited_end(position, then))

    def see_running(self, number: int, then: float) -> None:
        """Learn from a request that runs, although by what was known it should have waited."""
        least = number - self._forgotten - bisect_right(self._ends, then) + 1
        if self._capacity is not None and least > self._capacity:
            self._see(least)

    def started_at(
        self, number: int, joined_at: float, awaited_end: int | None = None
    ) -> float | None:
        """Return when a request left the queue; None if it has not, as far as is known."""
        if awaited_end is None:
            if self._capacity is None:
                return joined_at
            awaited_end = number - self._capacity
        index = awaited_end - self._forgotten
        if index < 0:
            return joined_at
        return max(joined_at, self._ends[index]) if index < len(self._ends) else None

    def _see(self, capacity: int) -> None:
        self._capacities.append(capacity)
        self._capacity = sorted(self._capacities)[len(self._capacities) // 2]
