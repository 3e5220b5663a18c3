"""The service's queue as seen from here.

Hides how positions and ends tell when a request left the queue. Pure arithmetic on given moments.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque


class Line:
    """The service's queue as seen from here: when each request left it. Pure arithmetic.

    A service that works on `capacity` requests at a time, in the order they came, begins the i-th
    (from 0) at the moment of the (i - capacity)-th end, and ends are known to the second from the
    service's own times: so that what tells a start costs no question. Capacity is what positions
    say: one that has position p waits for p ends more. Others who wait in the same queue make these
    positions contradict each other; then starts are guesses, and `PollSchedule` sees that.
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
        return f"Line({self._joined} joined, {ended} ended, {self._capacity} at a time)"

    @property
    def is_known(self) -> bool:
        """Tell whether the service was seen to make requests wait."""
        return self._capacity is not None

    @property
    def is_ours(self) -> bool:
        """Tell whether positions agree, so that nobody else's requests are in the queue."""
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
        """Take in that a request ended, or will not be asked about any more."""
        insort(self._ends, now)
        if len(self._ends) > self.KEPT:
            half = self.KEPT // 2
            del self._ends[:half]
            self._forgotten += half

    def place(self, position: int, now: float) -> int:
        """Return which end a request waits for that had that position then."""
        return self._forgotten + bisect_right(self._ends, now) + position - 1

    def see_queued(self, number: int, position: int, then: float) -> None:
        """Learn from a position; best when the ends up to that moment are known."""
        self._see(number - self.place(position, then))

    def see_running(self, number: int, then: float) -> None:
        """Learn from a request that should have been waiting by what was known."""
        least = number - self._forgotten - bisect_right(self._ends, then) + 1
        if self._capacity is not None and least > self._capacity:
            self._see(least)

    def started_at(self, number: int, joined_at: float, place: int | None = None) -> float | None:
        """Return when a request left the queue, None where that has not been seen to happen."""
        if place is None:
            if self._capacity is None:
                return joined_at
            place = number - self._capacity
        place -= self._forgotten
        if place < 0:
            return joined_at
        return max(joined_at, self._ends[place]) if place < len(self._ends) else None

    def _see(self, capacity: int) -> None:
        self._capacities.append(capacity)
        self._capacity = sorted(self._capacities)[len(self._capacities) // 2]
