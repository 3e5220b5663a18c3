"""The clock: what time it is, and waiting for another.

Hides that time passes by itself. Whatever waits gets a Clock, so that tests move time themselves.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from batch_runner.records import utc_now


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
