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
from bisect import bisect_right
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


class PollSchedule:
    """When to ask about a request: at the moments where asking pays best, by what was seen so far.

    From the durations of the last requests it chooses the ages at which to ask, so that the mean
    time between a request's end and its discovery is least for `TARGET` questions a request: a
    shortest path over the sorted durations (each question costs `price` for every request that is
    still open), the price found by bisection. What was asked beyond that, while nothing was known
    or because the service has changed, is saved over the next requests. Before enough is known, and
    beyond the longest duration seen, ages grow by a constant factor.
    """

    TARGET = 3.9
    SAVING = 200
    """Over as many requests a debt of questions is paid back."""
    TARGETS = (2.5, 5.0)
    """How few questions a request that may come to, and how many after a time of few."""
    LEAST_S = 0.1
    GROWTH = 1.3
    SEEN = 400
    ENOUGH = 12
    GRID = 80

    def __init__(self) -> None:
        self._durations_s: deque[float] = deque(maxlen=self.SEEN)
        self._ages_s: list[float] = []
        self._learned = 0
        self._owed = 0.0
        self._choose_at = self.ENOUGH

    def learn(self, duration_s: float, questions: int | None = None) -> None:
        """Take in how long a request took from its submit to its end, and how often it was asked.

        `questions` None: as often as planned.
        """
        self._durations_s.append(duration_s)
        self._learned += 1
        if questions is not None:
            self._owed += questions - self.TARGET
        # Often at first, then ever more rarely: the choice costs two milliseconds.
        if self._learned >= self._choose_at:
            self._ages_s = self._choose()
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
        if len(self._durations_s) < self.ENOUGH:
            return _STUCK_UNLESS_KNOWN_S
        return max(_STUCK_LEAST_S, _STUCK_FACTOR * max(self._durations_s))

    def _choose(self) -> list[float]:
        ordered = sorted(self._durations_s)
        step = max(1, len(ordered) // self.GRID)
        # The longest of each group stands for it: a question a moment too early is wasted.
        grid = [ordered[min(at + step, len(ordered)) - 1] for at in range(0, len(ordered), step)]
        least, most = self.TARGETS
        target = min(max(self.TARGET - self._owed / self.SAVING, least), most)
        cheap, dear = 0.0, grid[-1]
        for _ in range(12):
            price = (cheap + dear) / 2
            if _mean_questions(_best_stops(grid, price), len(grid)) > target:
                cheap = price
            else:
                dear = price
        stops = _best_stops(grid, dear)
        return [grid[stop] for stop in stops]


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
