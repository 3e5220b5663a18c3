"""When to poll a request.

Hides how the moments are chosen from how long earlier requests took. Pure arithmetic: callers pass
all moments, read from one clock. Not promised: few polls while nothing is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque


class PollSchedule:
    """When to poll the requests of one model, learned from those that ended.

    From the durations of the last requests, the schedule chooses the ages at which to poll, so that
    ends are noticed early and a request takes about `TARGET` polls. Polls beyond that (while
    nothing was known, or after the service changed) are saved over the next requests. Until enough
    is known, and beyond the longest duration seen, ages grow by a constant factor.
    """

    TARGET = 3.9
    SAVING = 80
    """Over how many requests surplus polls are saved."""
    TARGETS = (2.5, 5.0)
    """The fewest and the most polls a request that saving may lead to."""
    LEAST_S = 0.1
    GROWTH = 1.3
    SEEN = 400
    ENOUGH = 12
    GRID = 80

    def __init__(self) -> None:
        self._seen_s: deque[float] = deque(maxlen=self.SEEN)
        self._ages_s: list[float] = []
        self._learned = 0
        self._surplus = 0.0
        self._choose_at = self.ENOUGH

    def learn(self, duration_s: float, polls: int | None = None) -> None:
        """Learn from a request that ended: how long it took, and how many polls.

        `polls` None: as many as planned.
        """
        self._seen_s.append(duration_s)
        self._learned += 1
        if polls is not None:
            self._surplus += polls - self.TARGET
        # Ever more rarely, because choosing takes a millisecond.
        if self._learned >= self._choose_at:
            least, most = self.TARGETS
            target = min(max(self.TARGET - self._surplus / self.SAVING, least), most)
            self._ages_s = self._best_ages(target)
            self._choose_at += min(max(1, self._learned // 10), self.SEEN // 2)

    def wait_s(self, age_s: float) -> float:
        """Return how long to wait before polling a request of that age again."""
        # A poll just before its planned age would be repeated at that age.
        later = bisect_right(self._ages_s, age_s + 0.02)
        if later < len(self._ages_s):
            return self._ages_s[later] - age_s
        if not self._ages_s:
            return max(self.LEAST_S, (self.GROWTH - 1) * age_s)
        # Longer than any seen before, but probably not by much: poll soon, then ever more rarely.
        return max(self.LEAST_S, 0.03 * age_s, age_s - self._ages_s[-1])

    def _best_ages(self, target: float) -> list[float]:
        """Return the ages to poll at: those that save the most lateness for a poll, one by one.

        A poll at one of the sorted durations notices all ends since the poll before it, and every
        longer request pays for it.
        """
        ordered = sorted(self._seen_s)
        step = max(1, len(ordered) // self.GRID)
        # The longest represents its group, because a poll a moment too early is wasted.
        grid = [ordered[min(at + step, len(ordered)) - 1] for at in range(0, len(ordered), step)]
        last = len(grid) - 1
        stops, polls = [last], float(len(grid))
        while True:
            best, at, before = 0.0, -1, -1
            for stop in stops:
                for middle in range(before + 1, stop):
                    saved_s = (middle - before) * (grid[stop] - grid[middle])
                    if saved_s > best * (last - middle):
                        best, at = saved_s / (last - middle), middle
                before = stop
            polls += last - at
            if at < 0 or polls > target * len(grid):
                return [grid[stop] for stop in stops]
            stops.insert(bisect_right(stops, at), at)
