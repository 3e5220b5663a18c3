"""A batch in shards as tasks of Ray, on this machine or on a cluster that is there already.

Hides Ray. What always holds: a shard's task is one `run` in a process of its own; a worker that is
killed, or whose machine is lost, is started again by Ray, a shard that stopped early (75) or found
the service away (69) from here, after a growing wait, and neither for ever; the shard's ledger, on
a file system that all machines share, keeps what was bought from being bought again.

Not promised: that a machine that hangs is noticed (Ray waits for it), and that the token reaches
the machines of an existing cluster (it belongs into their own environment: what Ray is given, it
shows). A cluster begun here listens on loopback only.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import ray

from batch_runner.errors import ExitCode, UsageError
from batch_runner.fleet.limiter import Limiter
from batch_runner.shards.exchange import Answer, AwayError

Work = Callable[[list[str]], int]
"""Runs a command line in the process it is called in; gives its exit code."""

LIMITER_NAME = "batch-runner-limiter"
RESTARTS = 20
FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 360.0

_KNOCK_S = 10.0
_ASK_TIMEOUT_S = 5.0

_AGAIN = (ExitCode.STOPPED_EARLY, ExitCode.UNAVAILABLE)
# What a batch is said to have ended with, where its shards ended differently: the worst of them.
_WORST_FIRST = (
    ExitCode.REFUSED,
    ExitCode.STORAGE,
    ExitCode.INVALID,
    ExitCode.NO_INPUT,
    ExitCode.USAGE,
    ExitCode.BUG,
    ExitCode.UNAVAILABLE,
    ExitCode.INTERRUPTED,
    ExitCode.STOPPED_EARLY,
    ExitCode.SOME_FAILED,
    ExitCode.DONE,
)


class Restart(NamedTuple):
    """A shard that is to be started again, and when by the monotonic clock."""

    at: float
    shard: int


def worst(codes: Iterable[int]) -> ExitCode:
    """Return the exit code of a batch whose shards ended with these."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), ExitCode.BUG)


def wait_before_restart_s(restarts: int) -> float:
    """Return how long a shard waits before it is started for the nth time again."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(restarts - 1, 10))


def start_ray(address: str | None, shards: int) -> None:
    """Join the cluster at `address`, or begin one on this machine; raises UsageError."""
    if address is None:
        # On this machine all shards run at once, however few its cores: they mostly wait.
        ray.init(
            num_cpus=shards,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            logging_level=logging.ERROR,
        )
        return
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"there is no cluster of Ray at {address}: {str(error).splitlines()[0]}",
            hint="leave out --address to begin one on this machine",
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


class LimiterActor:
    """The limiter of one batch, as an actor; started again, it knows nothing and lends nothing."""

    def __init__(self) -> None:
        self._limiter = Limiter()

    def trade(self, told: dict[str, Any]) -> dict[str, Any]:
        """Take in what a shard gave and took, and give it what it may take more."""
        return self._limiter.trade(told, int(time.monotonic() * 1000))


class ActorServer:
    """How a shard in a worker reaches the limiter."""

    place = f"Ray's actor {LIMITER_NAME}"

    def __init__(self) -> None:
        self._actor: Any = None

    async def ask(self, key: str, told: dict[str, Any]) -> Answer:  # noqa: ARG002 - one batch, one actor
        """Tell what a shard gave and took, and what it wants; raises AwayError."""
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                if self._actor is None:
                    self._actor = await asyncio.to_thread(ray.get_actor, LIMITER_NAME)
                answer = await self._actor.trade.remote(told | {"server": LIMITER_NAME})
        except (ray.exceptions.RayError, ValueError, TimeoutError) as error:
            raise AwayError(str(error).partition("\n")[0] or type(error).__name__) from error
        return msgspec.convert(answer, Answer)

    async def close(self) -> None:
        """Be done with it."""
        self._actor = None


def start_limiter() -> Any:
    """Start the limiter that the shards of this job find by its name; it lives as long as this."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(LimiterActor)
    return actor.options(name=LIMITER_NAME).remote()


class ShardTasks:
    """The tasks of one batch. `wait` may be broken off by a signal, and called again."""

    def __init__(self, work: Work, commands: list[list[str]], say: Callable[[str], None]) -> None:
        self._commands = commands
        self._say = say
        # A process of its own for each shard: what one leaves behind never meets another.
        self._task: Any = ray.remote(num_cpus=1, max_calls=1, max_retries=RESTARTS)(work)
        self._running: dict[Any, int] = {}
        self._restarts: list[Restart] = []
        self._started = [0] * len(commands)
        self._codes: dict[int, int] = {}
        self._stopping = False

    def start(self) -> None:
        """Start every shard."""
        for shard in range(len(self._commands)):
            self._start(shard)

    def wait(self) -> ExitCode:
        """Return when all have ended; a shard is started again where that is worth it."""
        while self._running or self._restarts:
            self._start_due()
            self._wait_for_one()
        early = ExitCode.STOPPED_EARLY
        return worst(self._codes.get(shard, early) for shard in range(len(self._commands)))

    def stop(self) -> None:
        """Tell every shard to submit nothing more, collect, and end; nothing is started again."""
        self._stopping = True
        for one in self._restarts:
            self._codes[one.shard] = ExitCode.STOPPED_EARLY
        self._restarts.clear()
        for reference in self._running:
            ray.cancel(reference, force=False)

    def _start(self, shard: int) -> None:
        self._started[shard] += 1
        task = self._task.options(name=f"shard {shard}")
        self._running[task.remote(self._commands[shard])] = shard

    def _start_due(self) -> None:
        while self._restarts and self._restarts[0].at <= time.monotonic():
            self._start(heapq.heappop(self._restarts).shard)

    def _wait_for_one(self) -> None:
        timeout_s = None
        if self._restarts:
            timeout_s = max(0.0, self._restarts[0].at - time.monotonic())
        if not self._running:
            time.sleep(timeout_s or 0.0)
            return
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        for reference in ended:
            self._ended(self._running.pop(reference), reference)

    def _ended(self, shard: int, reference: Any) -> None:
        try:
            code = int(ray.get(reference))
        except ray.exceptions.TaskCancelledError:
            code = int(ExitCode.INTERRUPTED)
        except ray.exceptions.RayError as error:
            self._say(f"shard {shard}: lost: {str(error).splitlines()[0]}")
            code = int(ExitCode.STOPPED_EARLY)
        self._codes[shard] = code
        if code in _AGAIN and not self._stopping and self._started[shard] <= RESTARTS:
            wait_s = wait_before_restart_s(self._started[shard])
            self._say(f"shard {shard}: ended with {code}; starts again in {wait_s:.0f} s")
            heapq.heappush(self._restarts, Restart(time.monotonic() + wait_s, shard))
        else:
            self._say(f"shard {shard}: ended with {code}")
