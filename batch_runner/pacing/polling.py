"""When to ask about a request, and when it has shown no sign of life for too long.

Hides the choice of moments, made from how long requests took so far. Pure arithmetic: all moments
are those of one clock, given by whoever asks. Not promised: few questions while nothing is known.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque

from batch_runner.pacing.line import Line

# A request is left alone after ten times the longest that was seen, and never within half an hour.
_STUCK_FACTOR = 10
_STUCK_LEAST_S = 1800.0
_STUCK_UNLESS_KNOWN_S = 7200.0
# One that is older than that already when a run finds it is asked for a minute more.
STUCK_GRACE_S = 60.0

# Less than that before a planned question, it is due: timers are not exact.
_DUE_S = 0.001
# Counting from the start of the work is worth it where it finds ends so much sooner at least.
_WORTH = 0.9


class Vigil:
    """What was last seen of a request that has not ended, and since when: pure arithmetic."""

    def __init__(self) -> None:
        self._seen: tuple[str, int | None] | None = None
        self.since = float("-inf")

    @property
    def is_new(self) -> bool:
        """Tell whether nothing was seen yet."""
        return self._seen is None

    def see(self, state: str, queue_position: int | None, now: float, age_s: float = 0.0) -> bool:
        """Take in an answer; True where something has changed. `age_s`: it is that old already."""
        if self._seen == (state, queue_position):
            return False
        self._seen, self.since = (state, queue_position), now - age_s
        return True


class Inquiry:
    """One request, and when to ask about it next; all moments are those of one clock."""

    def __init__(self, schedule: PollSchedule, now: float, *, glances: bool) -> None:
        self._schedule = schedule
        self._glances = glances
        self.number = schedule.line.join()
        self.joined_at = now
        self.questions = 0
        self._answered_at = now
        self._place: int | None = None
        self._queued: tuple[int, float] | None = None
        self._running_from: float | None = None
        self._first_running = now

    def wait_s(self, now: float) -> float:
        """Return how long to wait; 0: ask now. After the wait, ask this again."""
        if self._glances and not self.questions:
            return 0.0
        schedule, asked = self._schedule, self._answered_at
        started_at = self.started_at() if schedule.counts_from_start else self.joined_at
        if started_at is None:
            # By all that is known it waits still; what it waits for is perhaps known soon.
            patience_s = schedule.patience_s - (now - max(asked, self.joined_at))
            if patience_s <= _DUE_S:
                return 0.0
            return min(patience_s, max(schedule.LEAST_S, schedule.first_wait_s(0.0) / 4))
        if self.questions and asked >= started_at:
            due = asked + schedule.wait_s(asked - started_at)
        else:
            due = started_at + schedule.first_wait_s(0.0)
        return due - now if due - now > _DUE_S else 0.0

    def started_at(self) -> float | None:
        """Return when it left the queue, as far as is known."""
        started_at = self._schedule.line.started_at(self.number, self.joined_at, self._place)
        if self._running_from is not None and (
            started_at is None or started_at > self._first_running
        ):
            return self._running_from
        return started_at

    def see_queued(self, position: int | None, now: float) -> None:
        """Take in that it waits, and at which position where the service tells that."""
        self.questions += 1
        self._answered_at = now
        if position is not None and position > 0:
            line = self._schedule.line
            if not line.is_known:
                line.see_queued(self.number, position, now)
            self._queued = (position, now)
            self._place = line.place(position, now)

    def see_running(self, now: float) -> None:
        """Take in that it is being worked on."""
        self.questions += 1
        if self._running_from is None:
            since = self._queued[1] if self._queued else self.joined_at
            self._running_from = (since + now) / 2
            self._first_running = now
        self._answered_at = now

    def see_nothing(self, now: float) -> None:
        """Take in an answer that told of the end, or of nothing."""
        self.questions += 1
        self._answered_at = now

    def leave(self, now: float) -> None:
        """Take in that nobody asks any more, or that it ended without work."""
        self._schedule.line.end(now)

    def end(self, duration_s: float) -> None:
        """Take in how long it took from its submit to its end."""
        schedule, line = self._schedule, self._schedule.line
        line.end(self.joined_at + duration_s)
        # Now that all ends up to then are known, what its position meant can be told.
        if self._queued is not None:
            line.see_queued(self.number, *self._queued)
        elif self._running_from is not None:
            line.see_running(self.number, self._first_running)
        schedule.learn(duration_s, self.questions, (self.number, self.joined_at))


class PollSchedule:
    """When to ask about a request: at the moments where asking pays best, by what was seen so far.

    From the durations of the last requests it chooses the ages at which to ask, so that the mean
    time between a request's end and its discovery is least for `TARGET` questions a request: a
    shortest path over the sorted durations (each question costs `price` for every request that is
    still open), the price found by bisection. What was asked beyond that, while nothing was known
    or because the service has changed, is saved over the next requests. Before enough is known, and
    beyond the longest duration seen, ages grow by a constant factor.

    Where the service has a queue, ages count from the moment a request left it (`Line`), if that
    would have discovered the last requests sooner than counting from their submits.
    """

    TARGET = 3.9
    SAVING = 80
    """Over as many requests a debt of questions is paid back."""
    TARGETS = (2.5, 5.0)
    """How few questions a request that may come to, and how many after a time of few."""
    LEAST_S = 0.1
    GROWTH = 1.3
    SEEN = 400
    ENOUGH = 12
    GRID = 80
    GLANCE = 20
    """Where there is a queue, one request of so many is asked at once for its position."""

    def __init__(self) -> None:
        self.line = Line()
        self.counts_from_start = False
        self._seen: deque[tuple[float, tuple[int, float] | None]] = deque(maxlen=self.SEEN)
        self._ages_s: list[float] = []
        self._longest_s = 0.0
        self._learned = 0
        self._begun = 0
        self._owed = 0.0
        self._choose_at = self.ENOUGH

    def begin(self, now: float) -> Inquiry:
        """Return what tells when to ask about a request that was accepted now."""
        self._begun += 1
        return Inquiry(self, now, glances=self.line.is_known and self._begun % self.GLANCE == 0)

    @property
    def patience_s(self) -> float:
        """Return how long to believe, without asking, that a request waits in the queue."""
        return self._longest_s

    def learn(
        self,
        duration_s: float,
        questions: int | None = None,
        joined: tuple[int, float] | None = None,
    ) -> None:
        """Take in how long a request took from its submit to its end, and how often it was asked.

        `questions` None: as often as planned. `joined`: its number in the line, and since when.
        """
        self._seen.append((duration_s, joined))
        self._learned += 1
        if self.counts_from_start and not self.line.is_ours:
            self._choose_at = min(self._choose_at, self._learned)
        if questions is not None:
            self._owed += questions - self.TARGET
        # Often at first, then ever more rarely: the choice costs two milliseconds.
        if self._learned >= self._choose_at:
            self._choose()
            self._choose_at += min(max(1, self._learned // 10), self.SEEN // 2)

    def first_wait_s(self, age_s: float) -> float:
        """Return how long to wait before the first question about a request of that age."""
        return max(0.0, self._ages_s[0] - age_s) if self._ages_s else self.wait_s(age_s)

    def wait_s(self, age_s: float) -> float:
        """Return how long to wait before asking again about a request of that age."""
        # A question just before its planned age would be spent twice.
        later = bisect_right(self._ages_s, age_s + 0.02)
        if later < len(self._ages_s):
            return self._ages_s[later] - age_s
        if not self._ages_s:
            return max(self.LEAST_S, (self.GROWTH - 1) * age_s)
        # Later than all that was seen: probably by little, so ask soon, then ever more rarely.
        return max(self.LEAST_S, 0.03 * age_s, age_s - self._ages_s[-1])

    def stuck_after_s(self) -> float:
        """Return after how long without a sign of life a request will not end: by what was seen."""
        if len(self._seen) < self.ENOUGH:
            return _STUCK_UNLESS_KNOWN_S
        return max(_STUCK_LEAST_S, _STUCK_FACTOR * max(took_s for took_s, _ in self._seen))

    def _choose(self) -> None:
        """Choose the ages to ask at, and from when they count."""
        durations_s = [took_s for took_s, _ in self._seen]
        self._longest_s = max(durations_s)
        least, most = self.TARGETS
        target = min(max(self.TARGET - self._owed / self.SAVING, least), most)
        late_s, self._ages_s = self._best_ages(durations_s, target)
        self.counts_from_start = False
        runs_s = self._runs_s() if self.line.is_ours else []
        if len(runs_s) < self.ENOUGH:
            return
        run_late_s, ages_s = self._best_ages(runs_s, target)
        if run_late_s < _WORTH * late_s:
            self._ages_s, self.counts_from_start = ages_s, True

    def _runs_s(self) -> list[float]:
        """Return how long the last requests took without their time in the queue."""
        runs_s = []
        for took_s, joined in self._seen:
            if joined is not None:
                number, joined_at = joined
                started_at = self.line.started_at(number, joined_at)
                if started_at is not None:
                    runs_s.append(max(0.0, joined_at + took_s - started_at))
        return runs_s

    def _best_ages(self, durations_s: list[float], target: float) -> tuple[float, list[float]]:
        """Return how late requests are discovered on average, and the ages to ask at for that."""
        ordered = sorted(durations_s)
        step = max(1, len(ordered) // self.GRID)
        # The longest of each group stands for it: a question a moment too early is wasted.
        grid = [ordered[min(at + step, len(ordered)) - 1] for at in range(0, len(ordered), step)]
        cheap, dear = 0.0, grid[-1]
        for _ in range(12):
            price = (cheap + dear) / 2
            if _mean_questions(_best_stops(grid, price), len(grid)) > target:
                cheap = price
            else:
                dear = price
        stops = _best_stops(grid, dear)
        return _mean_lateness(stops, grid), [grid[stop] for stop in stops]


def _mean_lateness(stops: list[int], grid: list[float]) -> float:
    """Return how long after its end a request is discovered, if it ends like those in the list."""
    late_s, first = 0.0, 0
    for stop in stops:
        late_s += sum(grid[stop] - took_s for took_s in grid[first : stop + 1])
        first = stop + 1
    return late_s / len(grid)


def _best_stops(grid: list[float], price: float) -> list[int]:
    """Return the positions in a sorted list of durations at which to ask, for a price a question.

    Backwards: `least[i]` is the least cost of discovering everything from position i on, where the
    question at j discovers i to j, each of them late by the difference, and every request still
    open pays for it. The next question never comes earlier for a later start, so that only the
    stops up to the one chosen last need to be looked at.
    """
    count = len(grid)
    total = [0.0, *itertools.accumulate(grid)]
    least, chosen = [0.0] * (count + 1), [0] * count
    last = count - 1
    for first in range(count - 1, -1, -1):
        questions = price * (count - first)
        best = float("inf")
        for stop in range(first, last + 1):
            late = grid[stop] * (stop + 1 - first) - (total[stop + 1] - total[first])
            cost = late + questions + least[stop + 1]
            if cost < best:
                best, chosen[first] = cost, stop
        least[first], last = best, chosen[first]
    stops, first = [], 0
    while first < count:
        stops.append(chosen[first])
        first = chosen[first] + 1
    return stops


def _mean_questions(stops: list[int], count: int) -> float:
    """Return how many questions a request takes on average, if it ends like those in the list."""
    asked, before = 0, -1
    for number, stop in enumerate(stops, start=1):
        asked += number * (stop - before)
        before = stop
    return asked / count
