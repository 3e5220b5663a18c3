"""Why a run ends before everything is done.

Hides nothing: one value, made by whatever ends the run, and passed on to its summary.
"""

from __future__ import annotations

from typing import Self

import msgspec

from batch_runner.errors import BatchRunnerError


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

    def outweighs(self, other: Stop | None) -> bool:
        """Tell whether this is the reason to keep: the first, but an error or even a bug wins."""
        return other is None or self.weight > other.weight

    @property
    def weight(self) -> int:
        """Return how serious it is: a plain stop, an error, a bug."""
        if self.error is None:
            return 0
        return 1 if isinstance(self.error, BatchRunnerError) else 2
