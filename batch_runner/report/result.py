"""How a run went, for commands and apprise alike.

Pure: a summary in, or the error that ended the run before its first submit; a RunResult out. What
always holds: every target gets the same text and numbers; nothing in them is secret; an unknown
number is None, never 0.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Self, Unpack

import msgspec

from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.ledger.job import Standing
from batch_runner.report.text import NextCommands, summary_text
from batch_runner.run.batch import Batch

if TYPE_CHECKING:
    from batch_runner.run.summary import Summary


class Outcome(StrEnum):
    """How a run went, in a word."""

    DONE = "done"
    SOME_FAILED = "some failed"
    STOPPED = "stopped"
    ERROR = "error"


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went; commands read it as JSON.

    `counts` are the jobs by how they stand; `stopped` is the ledger's word for why the run stopped
    submitting; `hint` is what to do about an error or a stop; `text` has all of it for people, and
    its first line is a title.
    """

    batch: str
    outcome: Outcome
    exit_code: int
    text: str
    counts: dict[str, int] | None
    submitted: int | None
    cost_usd: Decimal | None
    elapsed_s: float
    stopped: str | None
    output_dir: str
    hint: str | None

    @property
    def is_success(self) -> bool:
        """Tell whether all is well: done, or stopped as planned and ready to resume."""
        return self.outcome is Outcome.DONE or (
            self.outcome is Outcome.STOPPED and self.exit_code == ExitCode.STOPPED_EARLY
        )

    @classmethod
    def of_summary(cls, name: str, summary: Summary, **commands: Unpack[NextCommands]) -> Self:
        """Build the result of a run that has a summary."""
        outcome, ended = _outcome(summary), summary.error or summary.stop
        text = summary_text(summary, **commands)
        if summary.error is not None:
            text = f"{summary.error.message}\n{text}"
        return cls(
            batch=name,
            outcome=outcome,
            exit_code=summary.exit_code,
            text=f"{_title(name, outcome, is_sandbox=commands['is_sandbox'])}\n{text}",
            counts={one.value: getattr(summary, one) for one in Standing},
            submitted=summary.submitted,
            cost_usd=summary.cost_usd,
            elapsed_s=round(summary.elapsed_s, 3),
            stopped=None if summary.stop is None else summary.stop.reason,
            output_dir=summary.place,
            hint=None if ended is None else ended.hint,
        )

    @classmethod
    def of_error(
        cls, batch: Batch, error: Exception, elapsed_s: float, *, is_sandbox: bool
    ) -> Self:
        """Build the result of a run that ended by an error before its first submit, or by a bug."""
        # The message of a bug may hold anything, also secrets; its name is enough.
        exit_code, why, hint = ExitCode.BUG, type(error).__name__, None
        nothing_sent = isinstance(error, BatchRunnerError)
        if isinstance(error, BatchRunnerError):
            exit_code, why, hint = error.exit_code, error.message, error.hint
        title = _title(batch.name, Outcome.ERROR, is_sandbox=is_sandbox)
        return cls(
            batch=batch.name,
            outcome=Outcome.ERROR,
            exit_code=exit_code,
            text="\n".join(line for line in (title, why, hint) if line),
            counts=None,
            submitted=0 if nothing_sent else None,
            cost_usd=Decimal(0) if nothing_sent else None,
            elapsed_s=round(elapsed_s, 3),
            stopped="error",
            output_dir=str(batch.storage),
            hint=hint,
        )


def _outcome(summary: Summary) -> Outcome:
    match summary.exit_code:
        case ExitCode.DONE:
            return Outcome.DONE
        case ExitCode.SOME_FAILED:
            return Outcome.SOME_FAILED
        case _:
            return Outcome.STOPPED if summary.error is None else Outcome.ERROR


def _title(name: str, outcome: Outcome, *, is_sandbox: bool) -> str:
    return f"{name}{' (sandbox)' if is_sandbox else ''}: {outcome}"
