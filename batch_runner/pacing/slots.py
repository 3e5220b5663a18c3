"""Slots at the service: how many requests may be there at once (limits.in_flight).

Hides who waits. Always holds: callers get slots in the order in which they asked, and no more slots
are in use than the limit allows, except for requests that an earlier run had already sent.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque


class Slots:
    """The slots of one run.

    A slot is free again once its request has ended. If the run stops polling a request, its slot
    stays in use: the request is still at the service.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._kept = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._is_stopped = False

    @property
    def all_kept(self) -> bool:
        """Whether no slot will become free in this run."""
        return self._kept >= self._limit

    async def take(self) -> bool:
        """Wait for a slot; False, without a slot, after `stop`."""
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
                self.free()  # the slot came at the same moment as the cancellation
            raise

    def occupy(self) -> None:
        """Count a request that is already at the service, even beyond the limit."""
        self._taken += 1

    def free(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._taken < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(True)

    def lift(self) -> None:
        """Remove the limit."""
        self._limit = sys.maxsize
        self._hand_out()

    def keep(self) -> None:
        """Count a slot that stays in use until the run ends."""
        self._kept += 1

    def stop(self) -> None:
        """Hand out no more slots."""
        self._is_stopped = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(False)
        self._waiting.clear()
