"""Learning a price: the first job of a kind is bought alone, and shows what the others cost.

Hides who waits for whom. What always holds: under a budget, no two jobs of a kind without a known
price are at the service at once; if the service does not report the cost of the first one, no other
follows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from batch_runner.records import Job
from batch_runner.run.prices import Prices


class Probes:
    """Which jobs are at the service to show what their kind costs."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._under_way: defaultdict[str, set[str]] = defaultdict(set)
        self._waiters: list[asyncio.Future[None]] = []

    async def turn(self, job: Job) -> bool:
        """Return once the price of a job is known, or the job is the one that shows it.

        False if its price cannot be learned.
        """
        while self._prices.estimate_usd(job) is None:
            if self._prices.most_usd(job) is None:
                return False
            if not self._under_way[self._prices.kind(job)] - {job.fingerprint}:
                self.begin(job)
                return True
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return True

    def begin(self, job: Job) -> None:
        """Note that a job is at the service, or soon will be; `end` follows."""
        if self._prices.estimate_usd(job) is None:
            self._under_way[self._prices.kind(job)].add(job.fingerprint)

    def end(self, job: Job) -> None:
        """Note that a job left the service: its price is known now, or the next job shows it."""
        for jobs in self._under_way.values():
            jobs.discard(job.fingerprint)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
