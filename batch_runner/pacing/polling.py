"""When to poll a request, and when it has been silent for too long.

Hides how the moments are chosen from how long earlier requests took. Pure arithmetic: callers pass
all moments, read from one clock. Not promised: few polls while nothing is known.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque

from batch_runner.pacing.service_queue import ServiceQueue

# A request is left alone after ten times the longest time seen, and never within half an hour.
_STUCK_FACTOR = 10
_STUCK_LEAST_S = 1800.0
_STUCK_UNLESS_KNOWN_S = 7200.0
# If a request is already older than that when a run finds it, the run polls it for another minute.
STUCK_GRACE_S = 60.0

# A poll planned within the next millisecond is due: timers are not exact.
_DUE_S = 0.001
# Ages count from the start of the work only if that finds ends at least this much sooner.
_WORTH = 0.9


class LastSeen:
    """The state in which a request was last seen, and since when."""

    def __init__(self) -> None:
        self._seen: tuple[str, int | None] | None = None
        self.since = float("-inf")

    @property
    def is_new(self) -> bool:
        """Whether nothing was seen yet."""
        return self._seen is None

    def see(self, state: str, queue_position: int | None, now: float, age_s: float = 0.0) -> bool:
        """Note an answer; True if it differs from the last. `age_s`: how old its state is."""
        if self._seen == (state, queue_position):
            return False
        self._seen, self.since = (state, queue_position), now - age_s
        return True


class PollTimer:
    """One request, and when to poll it next."""

    def __init__(self, schedule: PollSchedule, now: float, *, at_once: bool) -> None:
        self._schedule = schedule
        self._at_once = at_once
        self.number = schedule.queue.join()
        self.joined_at = now
        self.polls = 0
        self._answered_at = now
        self._awaited_end: int | None = None
        self._queued: tuple[int, float] | None = None
        self._running_from: float | None = None
        self._first_running = now

    def wait_s(self, now: float) -> float:
        """Return how long to wait before calling this again; 0: poll now."""
        if self._at_once and not self.polls:
            return 0.0
        schedule, answered = self._schedule, self._answered_at
        started_at = self.started_at() if schedule.counts_from_start else self.joined_at
        if started_at is None:
            # As far as is known it still waits in the queue; more may be known soon.
            patience_s = schedule.patience_s - (now - max(answered, self.joined_at))
            if patience_s <= _DUE_S:
                return 0.0
            return min(patience_s, max(schedule.LEAST_S, schedule.first_wait_s(0.0) / 4))
        if self.polls and answered >= started_at:
            due = answered + schedule.wait_s(answered - started_at)
        else:
            due = started_at + schedule.first_wait_s(0.0)
        return due - now if due - now > _DUE_S else 0.0

    def started_at(self) -> float | None:
        """Return when the request left the queue, as far as is known."""
        started_at = self._schedule.queue.started_at(self.number, self.joined_at, self._awaited_end)
        if self._running_from is not None and (
            started_at is None or started_at > self._first_running
        ):
            return self._running_from
        return started_at

    def see_queued(self, position: int | None, now: float) -> None:
        """Note that it waits in the queue, at a position if the service reports one."""
        self.see_other(now)
        if position is not None and position > 0:
            queue = self._schedule.queue
            if not queue.is_known:
                queue.see_queued(self.number, position, now)
            self._queued = (position, now)
            self._awaited_end = queue.awaited_end(position, now)

    def see_running(self, now: float) -> None:
        """Note that the service works on it."""
        self.see_other(now)
        if self._running_from is None:
            since = self._queued[1] if self._queued else self.joined_at
            self._running_from = (since + now) / 2
            self._first_running = now

    def see_other(self, now: float) -> None:
        """Note any other answer."""
        self.polls += 1
        self._answered_at = now

    def leave(self, now: float) -> None:
        """Note that the request is no longer polled, or that it ended without work."""
        self._schedule.queue.end(now)

    def end(self, duration_s: float) -> None:
        """Note how long the request took from its submit to its end."""
        schedule, queue = self._schedule, self._schedule.queue
        queue.end(self.joined_at + duration_s)
        # All ends up to then are known now, so the position can be interpreted.
        if self._queued is not None:
            queue.see_queued(self.number, *self._queued)
        elif self._running_from is not None:
            queue.see_running(self.number, self._first_running)
        schedule.learn(duration_s, self.polls, (self.number, self.joined_at))


class PollSchedule:
    """When to poll the requests of one model, learned from those that ended.

    From the durations of the last requests, the schedule chooses the ages at which to poll so that
    ends are noticed as early as `TARGET` polls a request allow. It looks for a shortest path over
    the sorted durations: each poll costs `price` for every request still open, and bisection finds
    the price. Polls beyond the target (while nothing was known, or after the service changed) are
    saved over the next requests. Until enough is known, and beyond the longest duration seen, ages
    grow by a constant factor.

    If the service has a queue, ages count from when a request left it (`ServiceQueue`), provided
    that this would have noticed the ends of the last requests earlier.
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
    AT_ONCE = 20
    """If there is a queue, one request in so many is polled at once for its position."""

    def __init__(self) -> None:
        self.queue = ServiceQueue()
        self.counts_from_start = False
        self._seen: deque[tuple[float, tuple[int, float] | None]] = deque(maxlen=self.SEEN)
        self._ages_s: list[float] = []
        self._longest_s = 0.0
        self._learned = 0
        self._begun = 0
        self._surplus = 0.0
        self._choose_at = self.ENOUGH

    def begin(self, now: float) -> PollTimer:
        """Return the timer of a request that was accepted now."""
        self._begun += 1
        at_once = self.queue.is_known and self._begun % self.AT_ONCE == 0
        return PollTimer(self, now, at_once=at_once)

    @property
    def patience_s(self) -> float:
        """How long to assume, without a poll, that a request waits in the queue."""
        return self._longest_s

    def learn(
        self,
        duration_s: float,
        polls: int | None = None,
        joined: tuple[int, float] | None = None,
    ) -> None:
        """Learn from a request that ended: how long it took, and how many polls.

        `polls` None: as many as planned. `joined`: its number in the queue, and since when.
        """
        self._seen.append((duration_s, joined))
        self._learned += 1
        if self.counts_from_start and not self.queue.is_ours:
            self._choose_at = min(self._choose_at, self._learned)
        if polls is not None:
            self._surplus += polls - self.TARGET
        # Ever more rarely, because choosing takes two milliseconds.
        if self._learned >= self._choose_at:
            self._choose()
            self._choose_at += min(max(1, self._learned // 10), self.SEEN // 2)

    def first_wait_s(self, age_s: float) -> float:
        """Return how long to wait before the first poll of a request of that age."""
        return max(0.0, self._ages_s[0] - age_s) if self._ages_s else self.wait_s(age_s)

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

    def stuck_after_s(self) -> float:
        """Return after how long without a change a request is given up for this run."""
        if len(self._seen) < self.ENOUGH:
            return _STUCK_UNLESS_KNOWN_S
        return max(_STUCK_LEAST_S, _STUCK_FACTOR * max(took_s for took_s, _ in self._seen))

    def _choose(self) -> None:
        """Choose the ages at which to poll, and from when they count."""
        durations_s = [took_s for took_s, _ in self._seen]
        self._longest_s = max(durations_s)
        least, most = self.TARGETS
        target = min(max(self.TARGET - self._surplus / self.SAVING, least), most)
        late_s, self._ages_s = self._best_ages(durations_s, target)
        self.counts_from_start = False
        runs_s = self._runs_s() if self.queue.is_ours else []
        if len(runs_s) < self.ENOUGH:
            return
        run_late_s, ages_s = self._best_ages(runs_s, target)
        if run_late_s < _WORTH * late_s:
            self._ages_s, self.counts_from_start = ages_s, True

    def _runs_s(self) -> list[float]:
        """Return how long the last requests took, without their time in the queue."""
        runs_s = []
        for took_s, joined in self._seen:
            if joined is not None:
                number, joined_at = joined
                started_at = self.queue.started_at(number, joined_at)
                if started_at is not None:
                    runs_s.append(max(0.0, joined_at + took_s - started_at))
        return runs_s

    def _best_ages(self, durations_s: list[float], target: float) -> tuple[float, list[float]]:
        """Return the mean delay with which ends are noticed, and the ages to poll at for it."""
        ordered = sorted(durations_s)
        step = max(1, len(ordered) // self.GRID)
        # The longest represents its group, because a poll a moment too early is wasted.
        grid = [ordered[min(at + step, len(ordered)) - 1] for at in range(0, len(ordered), step)]
        cheap, dear = 0.0, grid[-1]
        for _ in range(12):
            price = (cheap + dear) / 2
            if _mean_polls(_best_stops(grid, price), len(grid)) > target:
                cheap = price
            else:
                dear = price
        stops = _best_stops(grid, dear)
        return _mean_lateness(stops, grid), [grid[stop] for stop in stops]


def _mean_lateness(stops: list[int], grid: list[float]) -> float:
    """Return how late the end of a request is noticed, if durations are as in the list."""
    late_s, first = 0.0, 0
    for stop in stops:
        late_s += sum(grid[stop] - took_s for took_s in grid[first : stop + 1])
        first = stop + 1
    return late_s / len(grid)


def _best_stops(grid: list[float], price: float) -> list[int]:
    """Return the positions in a sorted list of durations at which to poll, for a price a poll.

    Backwards: `least[i]` is the least cost of noticing all ends from position i on. A poll at j
    notices i to j, each late by the difference, and every request still open pays for it. A later
    start never moves the next poll forward, so only stops up to the last one chosen are tried.
    """
    count = len(grid)
    total = [0.0, *itertools.accumulate(grid)]
    least, chosen = [0.0] * (count + 1), [0] * count
    last = count - 1
    for first in range(count - 1, -1, -1):
        polls = price * (count - first)
        best = float("inf")
        for stop in range(first, last + 1):
            late = grid[stop] * (stop + 1 - first) - (total[stop + 1] - total[first])
            cost = late + polls + least[stop + 1]
            if cost < best:
                best, chosen[first] = cost, stop
        least[first], last = best, chosen[first]
    stops, first = [], 0
    while first < count:
        stops.append(chosen[first])
        first = chosen[first] + 1
    return stops


def _mean_polls(stops: list[int], count: int) -> float:
    """Return how many polls a request takes on average, if durations are as in the list."""
    polls, before = 0, -1
    for number, stop in enumerate(stops, start=1):
        polls += number * (stop - before)
        before = stop
    return polls / count
