"""The places at the service: limits.in_flight, given out in the order in which jobs ask.

Hides who waits. What always holds: no more places are taken than the limit says, but for requests
that were there when the limit was lowered, or before the run.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque


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

    def lift(self) -> None:
        """Give a place to everybody from now on."""
        self._limit = sys.maxsize
        self._give_out()

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
