"""When a call may start: rates, the shared gate after a 429 or an outage, the poll schedule.

Hides all waiting. What always holds: in no window of its length do more submits leave than the
limit says, nor more polls than theirs; whoever waits is served in order; a 429 anywhere closes one
gate for every call, lowers the submit rate, and the rate recovers by itself; `stop()` ends every
wait for a submit at once, while polls go on. Time comes from a Clock that is passed in.
Not promised: limits across several processes at once.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

from batch_runner.errors import ServiceUnavailableError
from batch_runner.manifest.form import Limits, Rate, Retry
from batch_runner.records import utc_now

# A call takes a moment to arrive, and not always the same moment. The window is kept a little
# longer here than the service measures it there: at most two per cent of the rate.
_WINDOW_MARGIN = 0.02
_WINDOW_MARGIN_LIMIT_S = 0.1
_CATCH_UP_S = 0.25

_FIRST_BACKOFF_S = 0.5
# "Retry-After: 0", or a date that clocks which differ have put into the past, still closes the
# gate: else each of the calls under way would bring a 429 of its own, and a cut of the rate.
_LEAST_CLOSED_S = 0.5
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

# Nothing but 429 is believed after so many waits, however long each was.
_LEAST_THROTTLINGS = 4
_RATE_CUT = 0.5
_RATE_FLOOR = 0.02
_RATE_RECOVERY_S = 60.0


class Clock:
    """The real clock; tests pass one whose time they move themselves."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return utc_now()

    def monotonic(self) -> float:
        """Return seconds since some moment, never going back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        """Return when the event is set, at the latest after so many seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return


class Throttle:
    """At most `count` calls in any window, evenly spread: pure arithmetic on given moments.

    `share` (0 to 1) slows the pace below the limit; it never raises it.
    """

    def __init__(self, rate: Rate) -> None:
        self._left: deque[float] = deque(maxlen=rate.count)
        self._next = float("-inf")
        self.share = 1.0
        self.change(rate)

    def __repr__(self) -> str:
        return f"Throttle({self._count} in {self._window_s:g} s, share {self.share:.2f})"

    def change(self, rate: Rate) -> None:
        """Keep to another rate from now on; what has left counts."""
        margin_s = min(rate.window_s * _WINDOW_MARGIN, _WINDOW_MARGIN_LIMIT_S)
        self._window_s = rate.window_s + margin_s
        self._count = rate.count
        # As far apart as the window asks: turns given faster would pile up between their intent on
        # the disk and their leaving, and a kill would make every one of them unknown.
        self._spacing_s = self._window_s / rate.count
        if rate.count > (self._left.maxlen or 0):
            # Never shorter: a rate that is lowered and raised again knows what left in between.
            self._left = deque(self._left, maxlen=rate.count)

    def turn_in_s(self, now: float) -> float:
        """Return how long the next call has to wait for its turn; 0 or less: it may start."""
        return self._next - now

    def take_turn(self, now: float) -> None:
        """Count a call that begins now; the one after it is due one spacing later.

        A call that was late does not delay the ones behind it, up to a quarter of a second: timers
        are late by a little each time, and that would add up to a lower rate. After a time without
        calls there is nothing to catch up with.
        """
        spacing_s = self._spacing_s / self.share
        was_idle = now - self._next > self._window_s
        catch_up_s = 0.0 if was_idle else _CATCH_UP_S
        self._next = max(self._next, now - catch_up_s) + spacing_s

    def leave_in_s(self, now: float) -> float:
        """Return how long a call that had its turn must still wait, so that the window holds."""
        if len(self._left) < self._count:
            return 0.0
        return self._left[-self._count] + self._window_s - now

    def leave(self, now: float) -> None:
        """Count a call that leaves now."""
        self._left.append(now)

    def remember(self, left: Iterable[float]) -> None:
        """Count calls that left before, in order: a limit an hour outlives a restart."""
        for moment in left:
            self._left.append(moment)
            self._next = moment + self._spacing_s


class Places:
    """How many requests are at the service: never more than the limit by our doing.

    A place is freed when its request has ended. One whose request nobody asks about any more is
    kept: the request is there, and counts. Whoever waits is served in order.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._kept = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"Places({self._taken} of {self._limit} taken, {len(self._waiting)} waiting)"

    @property
    def taken(self) -> int:
        """Return how many requests are at the service."""
        return self._taken

    @property
    def is_wanted(self) -> bool:
        """Tell whether anybody waits for a place."""
        return any(not waiter.done() for waiter in self._waiting)

    def change(self, limit: int) -> None:
        """Give out so many from now on; nobody loses a place."""
        self._limit = limit
        self._give_out()

    @property
    def all_kept(self) -> bool:
        """Tell whether no place can be had in this run any more."""
        return self._kept >= self._limit

    async def take(self) -> bool:
        """Wait for a place; False, and none, once `stop` was called."""
        if self._is_stopped:
            return False
        if self._taken < self._limit and not self._waiting:
            self._taken += 1
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.free()  # it was given a place in the very moment in which it was cancelled
            raise

    def occupy(self) -> None:
        """Count a request that is at the service already, whether or not there is room."""
        self._taken += 1

    def free(self) -> None:
        """Give a place back."""
        self._taken -= 1
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting and self._taken < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(True)

    def keep(self) -> None:
        """Leave a place taken for as long as the run lasts."""
        self._kept += 1

    def stop(self) -> None:
        """Give out no further place."""
        self._is_stopped = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(False)
        self._waiting.clear()


class Pacer:
    """The one place where calls wait."""

    def __init__(
        self,
        limits: Limits,
        retry: Retry,
        clock: Clock,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._dice = dice
        self._submits = Throttle(limits.submits)
        self._polls = Throttle(limits.polls)
        self._submit_queue = asyncio.Lock()
        self._poll_queue = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._closed_until = float("-inf")
        self._closings = 0
        self._rate_moved_at = clock.monotonic()
        self._away_since: float | None = None
        self._throttled_since: float | None = None
        self._throttlings = 0

    def __repr__(self) -> str:
        closed_s = max(0.0, self._closed_until - self._clock.monotonic())
        return f"Pacer({self._submits}, gate closed for {closed_s:.1f} s)"

    def change(self, limits: Limits) -> None:
        """Keep to other rates from now on."""
        self._submits.change(limits.submits)
        self._polls.change(limits.polls)

    @property
    def waits_to_submit(self) -> bool:
        """Tell whether a submit waits for its turn."""
        return self._submit_queue.locked()

    @property
    def waits_to_poll(self) -> bool:
        """Tell whether a poll waits for its turn."""
        return self._poll_queue.locked()

    def stop(self) -> None:
        """Let no further submit start; those that wait for one are told so at once."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Tell whether submits were stopped."""
        return self._stopped.is_set()

    def remember_submits(self, ages_s: Iterable[float]) -> None:
        """Count submits of earlier runs, given how long ago each was, the oldest first."""
        now = self._clock.monotonic()
        self._submits.remember(now - max(0.0, age_s) for age_s in ages_s)

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds, or at once when submits are stopped."""
        await self._clock.wait(self._stopped, seconds)

    async def turn_to_submit(self) -> bool:
        """Wait until the next submit is due; False once submits were stopped."""
        async with self._submit_queue:
            while not self._stopped.is_set():
                now = self._clock.monotonic()
                self._recover(now)
                wait_s = max(self._closed_until - now, self._submits.turn_in_s(now))
                if wait_s <= 0:
                    self._submits.take_turn(now)
                    return True
                await self._clock.wait(self._stopped, wait_s)
        return False

    async def leave_with_submit(self) -> None:
        """Return at the moment the submit may leave; nearly always at once.

        Between a submit's turn and its leaving lies a sync of the disk, which can make two calls
        leave together that had their turns apart. What the service counts is the leaving.
        """
        while (wait_s := self._submits.leave_in_s(self._clock.monotonic())) > 0:
            await self._clock.sleep(wait_s)
        self._submits.leave(self._clock.monotonic())

    async def turn_to_poll(self, leaving: asyncio.Event) -> None:
        """Wait until the next poll is due, or until it is time to leave."""
        async with self._poll_queue:
            while not leaving.is_set():
                now = self._clock.monotonic()
                wait_s = max(
                    self._closed_until - now,
                    self._polls.turn_in_s(now),
                    self._polls.leave_in_s(now),
                )
                if wait_s <= 0:
                    self._polls.take_turn(now)
                    self._polls.leave(now)
                    return
                await self._clock.wait(leaving, wait_s)

    def throttled(self, retry_after_s: float | None) -> None:
        """Take in that the service said 429: close the gate, and submit more slowly afterwards.

        Raises ServiceUnavailableError when it has said nothing else for too long.
        """
        now = self._clock.monotonic()
        self._away_since = None
        if self._throttled_since is None:
            self._throttled_since = now
        if now >= self._closed_until:
            self._throttlings += 1
            throttled_s = now - self._throttled_since
            # A wait that the service itself asked for is no reason to give up after it.
            if throttled_s > self._retry.give_up_s and self._throttlings > _LEAST_THROTTLINGS:
                raise ServiceUnavailableError(
                    f"the service has answered nothing but 429 (too many calls) for"
                    f" {throttled_s:.0f} s",
                    hint="nothing is lost; run the same command again later, or ask what the"
                    " account's limits are",
                )
            # Calls that were under way when the gate closed come back with 429 too; they tell
            # nothing new about the rate.
            self._submits.share = max(_RATE_FLOOR, self._submits.share * _RATE_CUT)
            self._rate_moved_at = now
        self._close(now, retry_after_s)

    def unreachable(self, why: str) -> float | None:
        """Take in that the service could not be reached; raises ServiceUnavailableError in time.

        Returns for how many seconds the gate was closed, or None where it was closed already.
        """
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > self._retry.give_up_s:
            raise ServiceUnavailableError(
                f"the service has been away for {now - self._away_since:.0f} s: {why}",
                hint="nothing is lost; run the same command again when it is back",
            )
        return self._close(now, None)

    def reached(self) -> None:
        """Take in that the service answered, and not with a 429."""
        self._away_since = self._throttled_since = None
        self._closings = self._throttlings = 0

    def backoff_s(self, attempt: int) -> float:
        """Return how long to wait after the nth failed attempt: doubling, jittered, bounded."""
        longest = min(self._retry.max_wait_s, _FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 30))
        return longest * (0.5 + 0.5 * self._dice())

    def _close(self, now: float, wait_s: float | None) -> float | None:
        if wait_s is None:
            if now < self._closed_until:
                return None
            self._closings += 1
            wait_s = self.backoff_s(self._closings)
        wait_s = max(wait_s, _LEAST_CLOSED_S)
        self._closed_until = max(self._closed_until, now + wait_s)
        return wait_s

    def _recover(self, now: float) -> None:
        """Give back the rate that a 429 took, linearly: all of it in a minute."""
        gained = (now - max(self._rate_moved_at, self._closed_until)) / _RATE_RECOVERY_S
        if gained > 0 and self._submits.share < 1:
            self._submits.share = min(1.0, self._submits.share + gained)
        self._rate_moved_at = max(self._rate_moved_at, now)


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
