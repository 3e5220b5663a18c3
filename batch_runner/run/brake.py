"""When to stop buying, because too much of what is bought comes to nothing.

Hides the counts. What always holds: until a run has saved a file, it buys at most `TRIAL` jobs, or
as many as the manifest lets fail if that is more; while files cannot be saved, and none has been
since, nothing is bought.
"""

from __future__ import annotations

import asyncio
from collections import deque

from batch_runner.files.storage import NotSavedError
from batch_runner.manifest.form import FailureLimit
from batch_runner.pacing.slots import Slots
from batch_runner.run.stop import Stop

TRIAL = 10

_WINDOW = 50
_IN_A_ROW = 5


class Brake:
    """Says when to stop: each way for a job to end is told to it."""

    def __init__(self, limit: FailureLimit) -> None:
        self._limit = limit
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._failures = 0
        self._row: dict[str, tuple[str, int]] = {}
        # A manifest that allows more failures than a trial has said so on purpose.
        self._most_in_vain = max(TRIAL, limit.count or 0)
        self._trial = Slots(self._most_in_vain)
        self._on_trial: set[str] = set()
        self._in_vain = 0
        self._is_proven = False
        self._last_error: NotSavedError | None = None
        self._in_doubt: set[str] = set()
        self._all_clear = asyncio.Event()
        self._all_clear.set()

    async def may_buy(self, fingerprint: str) -> bool:
        """Wait for a turn to buy a job; False, and none, once `stop` was called."""
        if not await self._trial.take():
            return False
        self._on_trial.add(fingerprint)
        return True

    def expect(self, fingerprint: str) -> None:
        """Take in a job that was bought before, and not saved then: it is on trial too."""
        self._trial.occupy()
        self._on_trial.add(fingerprint)

    def stop(self) -> None:
        """Give nobody a turn any more."""
        self._trial.stop()
        self._all_clear.set()

    async def all_clear(self) -> None:
        """Return once no job's files wait to be saved in vain."""
        await self._all_clear.wait()

    def doubt(self, fingerprint: str) -> None:
        """Take in that a job's files could not be saved at once: they are tried again."""
        self._in_doubt.add(fingerprint)
        self._all_clear.clear()

    def _trust(self) -> None:
        self._in_doubt.clear()
        self._all_clear.set()

    def finished(self, *, well: bool) -> Stop | None:
        """Take in how a job ended."""
        self._recent.append(not well)
        self._failures += not well
        if self._limit.count is not None:
            is_reached = self._failures >= self._limit.count
        else:
            is_reached = sum(self._recent) >= (self._limit.share or 1.0) * _WINDOW
        why = "too many of the last jobs failed (limits.failures)"
        return Stop("failures", why) if is_reached else None

    def saved(self, model: str) -> Stop | None:
        """Take in that a job's files are in place."""
        self._row.pop(model, None)
        self._is_proven = True
        self._trust()
        self._trial.lift()
        return self.finished(well=True)

    def not_saved(self, model: str, error: NotSavedError) -> Stop | None:
        """Take in that a job's files could not be saved; one reason in a row is enough."""
        self._last_error = error
        reason, count = self._row.get(model, ("", 0))
        count = count + 1 if reason == error.reason else 1
        self._row[model] = error.reason, count
        stop = self.finished(well=False)
        if count < _IN_A_ROW:
            return stop
        why = f"{count} results in a row could not be saved: {error.reason}"
        return Stop("failures", why, error.hint)

    def ended(self, fingerprint: str, *, was_bought: bool) -> Stop | None:
        """Take in that this run does nothing more about a job."""
        self._in_doubt.discard(fingerprint)
        if not self._in_doubt:
            self._trust()
        if fingerprint not in self._on_trial:
            return None
        self._on_trial.discard(fingerprint)
        if not was_bought:
            self._trial.free()
            return None
        self._in_vain += 1
        if self._is_proven or self._in_vain < self._most_in_vain:
            return None
        error, why = self._last_error, f"nothing was saved of the first {self._in_vain} jobs"
        if error is None:
            return Stop("failures", why)
        return Stop("failures", f"{why}: {error.reason}", error.hint)
