"""The clock, and the one back-off between attempts.

Hides real time: everything that waits gets a Clock, so that tests can move time themselves.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime

from batch_runner.records import utc_now


class Clock:
    """The real clock."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return utc_now()

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; they never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        """Return once the event is set, or after so many seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return


def backoff_s(
    attempt: int, first_s: float, longest_s: float, dice: Callable[[], float] = random.random
) -> float:
    """Return how long to wait after the nth failed attempt: doubling, bounded, with jitter."""
    return min(longest_s, first_s * 2.0 ** min(attempt - 1, 30)) * (0.5 + 0.5 * dice())
