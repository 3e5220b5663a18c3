"""Signals: once, stop submitting and collect; twice, leave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from batch_runner.run import Run
from batch_runner.runner.terms import Stop


@contextlib.contextmanager
def obeying_signals(
    run: Run, say: Callable[[str], None], grace_s: float, on_interrupt: str
) -> Iterator[None]:
    """Once: stop submitting, collect what is paid for. Twice: leave; all requests are on disk."""
    loop = asyncio.get_running_loop()
    pressed: list[int] = []
    under_way: list[asyncio.Future[None]] = []

    def leave(stop: Stop) -> None:
        under_way.append(asyncio.ensure_future(run.leave(stop)))
        say("leaving now; the next run collects what is paid for")

    def on_signal(number: int) -> None:
        pressed.append(number)
        if number == signal.SIGINT:
            stop = Stop("interrupted", "interrupted by Ctrl-C")
        else:
            stop = Stop("terminated", f"ended by {signal.Signals(number).name}")
        if len(pressed) > 1 or on_interrupt == "detach":
            leave(stop)
            return
        run.drain(stop)
        if number != signal.SIGINT:
            loop.call_later(grace_s, leave, stop)
        say("stopping: nothing more is submitted, what is paid for is collected; again to leave")
        if on_interrupt == "cancel":
            say("what the service has not begun yet is cancelled")
            under_way.append(asyncio.ensure_future(run.cancel_queued()))

    with on_signals(on_signal):
        yield


@contextlib.contextmanager
def on_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the number of each signal that asks the program to end."""
    loop = asyncio.get_running_loop()
    # What whoever started the program wants ignored (nohup) stays ignored.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in numbers:
        loop.add_signal_handler(number, act, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
