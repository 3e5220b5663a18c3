"""Why a run ends before everything is done, and how anyone may end it.

What always holds: of all reasons the most serious one is kept, and of equal ones the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import msgspec

from batch_runner.errors import BatchRunnerError

_T = TypeVar("_T")


class Stop(msgspec.Struct, frozen=True):
    """Why nothing more is submitted: a word for machines, a sentence for people.

    `error` is what the run ends with, if it is more than a stop; an error that is no
    BatchRunnerError is a bug. What is paid for is still collected, unless the run ends `at_once`:
    then the next run collects it.
    """

    reason: str
    message: str
    hint: str | None = None
    error: Exception | None = None
    at_once: bool = False

    @classmethod
    def of_error(cls, error: BatchRunnerError, *, at_once: bool = False) -> Self:
        """Return the stop that an error causes."""
        return cls("error", error.message, error=error, at_once=at_once)

    @property
    def weight(self) -> int:
        """Return how serious it is: a plain stop, an error, a bug."""
        if self.error is None:
            return 0
        return 1 if isinstance(self.error, BatchRunnerError) else 2


class Ending:
    """Ends one run: by its own jobs, or from outside, at any time, even before it has begun.

    `stop` is why it ends, or None. `leaving` is set once it ends at once.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.leaving = asyncio.Event()
        self._listeners: list[Callable[[Stop], None]] = []

    @property
    def is_ended(self) -> bool:
        """Return whether anything has ended the run."""
        return self.stop is not None

    def end(self, stop: Stop | None) -> None:
        """Stop submitting. What is paid for is collected, or left to the next run if `at_once`."""
        if stop is None:
            return
        if self.stop is None or stop.weight > self.stop.weight:
            self.stop = stop
        if stop.at_once:
            self.leaving.set()
        for listener in list(self._listeners):
            listener(stop)

    def listen(self, listener: Callable[[Stop], None]) -> None:
        """Pass every later stop to a listener."""
        self._listeners.append(listener)

    async def unless_ended(self, answer: Coroutine[Any, Any, _T]) -> _T | None:
        """Wait for an answer; None if the run is ended before or meanwhile."""
        if self.is_ended:
            answer.close()
            return None
        task = asyncio.ensure_future(answer)

        def give_up(_: Stop) -> None:
            task.cancel()

        self.listen(give_up)
        try:
            return await task
        except asyncio.CancelledError:
            if self.stop is None:
                raise
            return None
