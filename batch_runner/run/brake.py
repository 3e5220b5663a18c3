"""When to stop buying, because too many purchases fail.

Hides the counts. What always holds: until a run has saved a file, it buys at most `TRIAL` jobs, or
as many as the manifest lets fail if that is more.
"""

from __future__ import annotations

from collections import deque

from batch_runner.files.storage import NotSavedError
from batch_runner.manifest.form import FailureLimit
from batch_runner.pacing.slots import Slots
from batch_runner.run.stop import Stop

TRIAL = 10

_WINDOW = 50
_IN_A_ROW = 5


class Brake:
    """Counts how jobs end, and returns a Stop when it is time for one."""

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

    async def may_buy(self, fingerprint: str) -> bool:
        """Wait for a turn to buy a job; returns False, without a turn, once `stop` was called."""
        if not self._is_proven:
            if not await self._trial.take():
                return False
            self._on_trial.add(fingerprint)
        return True

    def expect(self, fingerprint: str) -> None:
        """Put a job on trial that an earlier run bought and did not save."""
        self._trial.occupy()
        self._on_trial.add(fingerprint)

    def stop(self) -> None:
        """Give out no more turns."""
        self._trial.stop()

    def finished(self, *, well: bool) -> Stop | None:
        """Count how a job ended."""
        self._recent.append(not well)
        self._failures += not well
        if well:
            return None
        if self._limit.count is not None:
            is_reached = self._failures >= self._limit.count
        else:
            is_reached = sum(self._recent) >= (self._limit.share or 1.0) * _WINDOW
        why = "too many of the last jobs failed (limits.failures)"
        return Stop("failures", why) if is_reached else None

    def saved(self, model: str) -> None:
        """Count a job whose files are in place."""
        self._row.pop(model, None)
        self.finished(well=True)
        if not self._is_proven:
            self._is_proven = True
            self._trial.lift()

    def not_saved(self, model: str, error: NotSavedError) -> Stop | None:
        """Count a job whose files could not be saved; a few in a row for one reason are enough."""
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
        """Note that this run is finished with a job."""
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
