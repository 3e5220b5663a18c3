"""A world for simulated processes: one virtual time, and one process at work at any moment.

Hides threads. Each process is a thread that runs a command of the program as it is; it gives the
turn back when its event loop has nothing to do, or when it sleeps, and gets it again at the moment
it waits for. What always holds: the order of all that happens follows from the seed alone, and no
real time passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import io
import itertools
import math
import random
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from simulation.disk import Crash
from simulation.disk import process as process_name

_T = TypeVar("_T")

STEPS_LIMIT = 50_000
ITERATION_S = 1e-6
"""What one turn of an event loop takes: without it, a wait for less than a moment never ends."""

BEGIN = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class NeverEndsError(AssertionError):
    """Processes wait for something that never comes, or go round in a circle."""


class World:
    """Time, the processes in it, and what happens outside of them."""

    def __init__(self, seed: object) -> None:
        self.dice = random.Random(f"world {seed}")
        self.now_s = 0.0
        self.jumped = timedelta()
        """How far the clock on the wall was set forward, or back."""
        self.trace: list[str] = []
        self.processes: list[Process] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._steps = 0
        self.back = threading.Lock()
        self.back.acquire()

    def clock(self) -> datetime:
        """Return the time of day, as the machine shows it."""
        return BEGIN + timedelta(seconds=self.now_s) + self.jumped

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now_s:11.3f} {what}")

    def after(self, delay_s: float, happening: Callable[[], None]) -> None:
        """Let something happen, outside of all processes, after so much time."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), happening))

    def start(self, name: str, command: Callable[[], int]) -> Process:
        """Start a process; it begins to run in `run`."""
        process = Process(self, name, command)
        self.processes.append(process)
        return process

    def run(self) -> None:
        """Let time pass until every process has ended; raises NeverEndsError."""
        self._steps, alive = 0, self.processes
        try:
            while alive := [one for one in self.processes if not one.has_ended]:
                self._step(alive)
        except BaseException:
            for one in alive:
                one.abandon()
            raise
        finally:
            self.processes = []

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what happens outside, while no process runs."""
        end = self.now_s + seconds
        while self._events and self._events[0][0] <= end:
            self._happen()
        self.now_s = end

    def _step(self, alive: list[Process]) -> None:
        self._steps += 1
        if self._steps > STEPS_LIMIT:
            raise NeverEndsError(f"{', '.join(map(str, alive))}: no end in sight")
        awake = [one for one in alive if not one.is_paused]
        first = min(awake, key=lambda one: one.wakes_at_s) if awake else None
        moment_s = math.inf if first is None else first.wakes_at_s
        if self._events and self._events[0][0] <= moment_s:
            self._happen()
        elif first is None or moment_s == math.inf:
            raise NeverEndsError(f"{', '.join(map(str, alive))}: waiting for ever")
        else:
            self.now_s = max(self.now_s, moment_s)
            first.resume()

    def _happen(self) -> None:
        at_s, _, happening = heapq.heappop(self._events)
        self.now_s = max(self.now_s, at_s)
        happening()


class Process:
    """A process: a command of the program, its event loop, and what it printed."""

    def __init__(self, world: World, name: str, command: Callable[[], int]) -> None:
        self.name = name
        self.out, self.err = io.StringIO(), io.StringIO()
        self.code: int | None = None
        self.error: BaseException | None = None
        """What ended it other than its exit code: a Crash, or a bug of the simulation."""
        self.is_killed = self.is_paused = self.has_ended = self.is_noted = False
        self.began_s = self.wakes_at_s = world.now_s
        self.ended_s = math.inf
        self.signals: dict[int, Callable[[], object]] = {}
        self._world = world
        self._command = command
        self._go = threading.Lock()
        self._go.acquire()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return self.name

    @property
    def world(self) -> World:
        """The world that it is in."""
        return self._world

    def resume(self) -> None:
        """Give it the turn; returns when it waits, or has ended."""
        self._go.release()
        self._world.back.acquire()
        if self.has_ended:
            self._thread.join()

    def wait(self, until_s: float) -> None:
        """Give the turn back until a moment, or until woken; raises Crash if it was killed."""
        self.wakes_at_s = until_s
        self._world.back.release()
        self._go.acquire()
        if self.is_killed:
            raise Crash

    def wake(self) -> None:
        """Let it run now."""
        self.wakes_at_s = min(self.wakes_at_s, self._world.now_s)

    def kill(self) -> None:
        """Let it die without a word."""
        if not self.has_ended:
            self._world.note(f"{self.name} is killed")
            self.is_killed, self.is_paused = True, False
            self.wake()

    def pause(self, seconds: float) -> None:
        """Stop it, as SIGSTOP does, for so long."""

        def resume() -> None:
            self.is_paused = False
            self._world.note(f"{self.name} goes on")

        if not self.has_ended:
            self._world.note(f"{self.name} is stopped for {seconds:.0f} s")
            self.is_paused = True
            self._world.after(seconds, resume)

    def signal(self, number: int) -> None:
        """Send it a signal; before it listens, the signal kills it."""
        if self.has_ended:
            return
        self._world.note(f"{self.name} gets signal {number}")
        handler = self.signals.get(number)
        if handler is None:
            self.kill()
        else:
            handler()
            self.wake()

    def abandon(self) -> None:
        """End its thread, however; the simulation itself is at fault."""
        self.is_killed = True
        for _ in range(1000):
            if self.has_ended:
                return
            self.resume()

    def _live(self) -> None:
        self._go.acquire()
        process_name.set(self.name)
        _current.set(self)
        try:
            if not self.is_killed:
                self.code = self._command()
        except BaseException as error:  # noqa: BLE001 - however it dies, the world goes on
            self.error = error
        self.is_killed |= isinstance(self.error, Crash)
        self.has_ended, self.ended_s = True, self._world.now_s
        self._world.back.release()


_current: contextvars.ContextVar[Process] = contextvars.ContextVar("current")


def current() -> Process | None:
    """Return the process at work, or None."""
    return _current.get(None)


def require_life() -> None:
    """Raise Crash if the process at work was killed: the dead call nobody."""
    process = current()
    if process is not None and process.is_killed:
        raise Crash


def sleep(seconds: float) -> None:
    """Stand in for `time.sleep`."""
    process = current()
    assert process is not None
    process.wait(process.world.now_s + seconds)


def run(main: Coroutine[Any, Any, _T], **_: Any) -> _T:
    """Stand in for `asyncio.run`."""
    process = current()
    assert process is not None
    loop = Loop(process)
    try:
        return loop.run_until_complete(main)
    except Crash:
        process.is_killed = True
        raise
    finally:
        _end(loop)


def _end(loop: Loop) -> None:
    """Cancel what is left; of a dead process, nothing that it still tries comes to pass."""
    loop.is_ending = True
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.wait(tasks) if tasks else asyncio.sleep(0))
    with contextlib.suppress(BaseException):
        loop.run_until_complete(loop.shutdown_asyncgens())
    for task in tasks:
        coroutine = task.get_coro()
        if not task.done() and asyncio.iscoroutine(coroutine):
            with contextlib.suppress(BaseException):
                coroutine.close()
    loop.close()


class Loop(asyncio.BaseEventLoop):
    """An event loop in virtual time. Work for threads is done at some moment, all at once."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        self._world = process.world
        self._selector = self  # where a loop waits
        self.is_ending = False
        self._for_threads: defaultdict[object, list[Callable[[], None]]] = defaultdict(list)
        self.set_exception_handler(lambda *_: None)
        process.signals.clear()

    def time(self) -> float:
        return self._world.now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Wait, as a selector does."""
        if self.process.is_killed and not (self.is_ending and timeout == 0):
            raise Crash
        self._world.now_s += ITERATION_S
        if timeout != 0:
            now_s = self._world.now_s
            self.process.wait(math.inf if timeout is None else now_s + timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        context = contextvars.copy_context()
        self.process.signals[sig] = lambda: self.call_soon(callback, *args, context=context)

    def remove_signal_handler(self, sig: int) -> bool:
        return self.process.signals.pop(sig, None) is not None

    def run_in_executor(  # type: ignore[override]  # no thread, so no executor
        self, executor: object, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        """Do some work now or a little later, and give its result later still."""
        future: asyncio.Future[_T] = self.create_future()
        dice, waiting = self._world.dice, self._for_threads[executor]
        done: list[tuple[_T | None, BaseException | None]] = []

        def work() -> None:
            if not done:
                waiting.remove(work)
                done.append(_outcome(func, args))

        def answer() -> None:
            work()
            ((result, error),) = done
            if not future.done():
                future.set_exception(error) if error else future.set_result(result)  # type: ignore[arg-type]

        waiting.append(work)
        if dice.random() < 0.5:
            work()
        self.call_later(dice.choice((0.0, 0.0005, 0.002, 0.03)), answer)
        return future

    def finish(self, executor: object) -> None:
        """Do what an executor was given, as its `shutdown` does."""
        for work in list(self._for_threads[executor]):
            work()


def _outcome(func: Callable[..., _T], args: Any) -> tuple[_T | None, BaseException | None]:
    try:
        return func(*args), None
    except BaseException as error:  # noqa: BLE001 - a future carries it on
        return None, error


def shut_down(executor: ThreadPoolExecutor, **_: Any) -> None:
    """Stand in for `ThreadPoolExecutor.shutdown`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.finish(executor)


class Stream(io.TextIOBase):
    """Stands in for stdout or stderr: each process has its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._real = getattr(sys, name)

    encoding = "utf-8"

    @property
    def buffer(self) -> io.BufferedIOBase:
        """Take bytes, as a real stream does."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        process = current()
        stream = self._real if process is None else getattr(process, self._name[3:])
        written: int = stream.write(text)
        return written

    def flush(self) -> None:
        pass


class _Bytes(io.BufferedIOBase):
    """A stream's buffer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._stream.write(bytes(data).decode())
