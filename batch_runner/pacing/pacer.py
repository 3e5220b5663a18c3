"""When a call may leave: rates, and the shared gate after a 429 or an outage.

Hides all waiting for a turn. What always holds: whoever waits is served in order; a 429 anywhere
closes one gate for every call, lowers the submit rate, and the rate recovers by itself; `stop()`
ends every wait for a submit at once, while polls go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from batch_runner.clock import Clock
from batch_runner.errors import ServiceUnavailableError
from batch_runner.manifest.form import Limits, Retry
from batch_runner.pacing.throttle import Throttle

_FIRST_BACKOFF_S = 0.5
# "Retry-After: 0", or a date that clocks which differ have put into the past, still closes the
# gate: else each of the calls under way would bring a 429 of its own, and a cut of the rate.
_LEAST_CLOSED_S = 0.5

# Nothing but 429 is believed after so many waits, however long each was.
_LEAST_THROTTLINGS = 4
_RATE_CUT = 0.5
_RATE_FLOOR = 0.02
_RATE_RECOVERY_S = 60.0


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
                hint="nothing is lost; look at this machine's network (behind a proxy, set"
                " HTTPS_PROXY), and run the same command again when the service is back",
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
