"""When a call may leave: rates, and the shared gate after a 429 or an outage.

Hides all waiting for a turn. Always holds: calls get their turns in order; a 429 closes one gate
for every call and lowers the submit rate, which recovers by itself; `stop()` ends every wait for a
submit at once, while polls continue.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from batch_runner.clock import Clock, backoff_s
from batch_runner.errors import ServiceUnavailableError
from batch_runner.manifest.form import Limits, Retry
from batch_runner.pacing.throttle import Throttle

_FIRST_BACKOFF_S = 0.5
# "Retry-After: 0", or a date that is past on this machine's clock, still closes the gate.
# Otherwise every call under way would bring its own 429 and cut the rate again.
_LEAST_CLOSED_S = 0.5

# The run gives up only after more waits than this, however long they were.
_LEAST_WAITS = 4
_RATE_CUT = 0.5
_RATE_FLOOR = 0.02
_RATE_RECOVERY_S = 60.0


class Pacer:
    """Where every call waits for its turn."""

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
        self._troubled_since: float | None = None
        self._waits = 0

    def stop(self) -> None:
        """Start no more submits; those that wait return at once."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether submits were stopped."""
        return self._stopped.is_set()

    def remember_submits(self, ages_s: Iterable[float]) -> None:
        """Count submits of earlier runs, given how long ago each was, the oldest first."""
        now = self._clock.monotonic()
        self._submits.remember(now - max(0.0, age_s) for age_s in ages_s)

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as submits are stopped."""
        await self._clock.wait(self._stopped, seconds)

    async def turn_to_submit(self) -> bool:
        """Wait until the next submit is due; False once submits were stopped."""
        return await self._turn(self._submits, self._submit_queue, self._stopped)

    async def turn_to_poll(self, leaving: asyncio.Event) -> None:
        """Wait until the next poll is due, or until the run leaves."""
        if await self._turn(self._polls, self._poll_queue, leaving):
            await self._leave(self._polls)

    async def leave_with_submit(self) -> None:
        """Return when the submit may leave; nearly always at once.

        A sync of the disk lies between a submit's turn and its departure, so two calls whose turns
        were apart can become ready together. The service counts departures.
        """
        await self._leave(self._submits)

    async def _turn(self, throttle: Throttle, queue: asyncio.Lock, ended: asyncio.Event) -> bool:
        async with queue:
            while not ended.is_set():
                now = self._clock.monotonic()
                self._recover(now)
                wait_s = max(self._closed_until - now, throttle.turn_in_s(now))
                if wait_s <= 0:
                    throttle.take_turn(now)
                    return True
                await self._clock.wait(ended, wait_s)
        return False

    async def _leave(self, throttle: Throttle) -> None:
        while (wait_s := throttle.leave_in_s(self._clock.monotonic())) > 0:
            await self._clock.sleep(wait_s)
        throttle.leave(self._clock.monotonic())

    def throttled(self, retry_after_s: float | None) -> None:
        """Note a 429: close the gate, and submit more slowly afterwards.

        Raises ServiceUnavailableError if the service has answered nothing else for too long.
        """
        now = self._clock.monotonic()
        if now >= self._closed_until:
            # Calls that were under way when the gate closed get a 429 too, which says nothing
            # new about the rate.
            self._submits.share = max(_RATE_FLOOR, self._submits.share * _RATE_CUT)
            self._rate_moved_at = now
        what = "has answered nothing but 429 (too many calls)"
        self._bear(now, what, "run the same command again later, or lower limits.submits")
        self._close(now, retry_after_s)

    def unreachable(self, why: str) -> float | None:
        """Note that the service could not be reached: close the gate.

        Returns for how many seconds, or None if it was closed already. Raises
        ServiceUnavailableError once the service has been away for too long.
        """
        now = self._clock.monotonic()
        hint = "check this machine's network (behind a proxy, set HTTPS_PROXY), and run the same"
        hint += " command again when the service is back"
        self._bear(now, "has been away", hint, f": {why}")
        return self._close(now, None)

    def _bear(self, now: float, what: str, hint: str, why: str = "") -> None:
        """Note a trouble; raises ServiceUnavailableError if nothing else came for too long."""
        if self._troubled_since is None:
            self._troubled_since = now
        self._waits += now >= self._closed_until
        lasted_s = now - self._troubled_since
        # A single long wait that the service asked for is no reason to give up.
        if lasted_s > self._retry.give_up_s and self._waits > _LEAST_WAITS:
            raise ServiceUnavailableError(
                f"the service {what} for {lasted_s:.0f} s{why}", hint=f"nothing is lost; {hint}"
            )

    def reached(self) -> None:
        """Note that the service answered, and not with a 429."""
        self._troubled_since, self._waits, self._closings = None, 0, 0

    def backoff_s(self, attempt: int) -> float:
        """Return how long to wait after the nth failed attempt."""
        return backoff_s(attempt, _FIRST_BACKOFF_S, self._retry.max_wait_s, self._dice)

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
        """Raise a lowered rate again, linearly: from nothing to all of it takes a minute."""
        gained = (now - max(self._rate_moved_at, self._closed_until)) / _RATE_RECOVERY_S
        if gained > 0 and self._submits.share < 1:
            self._submits.share = min(1.0, self._submits.share + gained)
        self._rate_moved_at = max(self._rate_moved_at, now)
