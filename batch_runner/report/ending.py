"""How a run went, in the one form in which people and machines elsewhere are told.

Pure: a summary, or the error that came before the first submit, in; an Ending out. What always
holds: the same words and numbers reach webhooks, commands and metrics; there is nothing secret in
them; what nobody knows is None, never 0.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from batch_runner.batch import Batch, Summary
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.report.text import usd

STATES = ("done", "failed", "unknown", "in_flight", "pending", "cancelled")


class Outcome(StrEnum):
    """How a run went, in a word."""

    DONE = "done"
    SOME_FAILED = "some failed"
    STOPPED = "stopped"
    ERROR = "error"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went; as JSON it is what a webhook gets.

    `counts` holds the jobs by state; `stopped` is the ledger's word for why no more was submitted;
    `hint` is what to do next; `text` says it all for people.
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
        """Tell whether all is well: done, or stopped as planned and to be gone on with."""
        return self.outcome is Outcome.DONE or (
            self.outcome is Outcome.STOPPED and self.exit_code == ExitCode.STOPPED_EARLY
        )

    @classmethod
    def of_summary(
        cls, name: str, summary: Summary, *, run_again: str, resolve: str, is_sandbox: bool
    ) -> Self:
        """Tell of a run that came to its end."""
        outcome, counts = _outcome(summary), {name: getattr(summary, name) for name in STATES}
        hint = _hint(summary, run_again, resolve)
        figures = [f"{summary.done:,} of {summary.jobs:,} jobs done"]
        figures += [f"{counts[name]:,} {name.replace('_', ' ')}" for name in STATES[1:] if counts[name]]
        return cls(
            batch=name,
            outcome=outcome,
            exit_code=summary.exit_code,
            text=_text(
                name,
                outcome,
                why=_why(summary),
                figures=", ".join([*figures, usd(summary.cost_usd)]),
                hint=hint,
                is_sandbox=is_sandbox,
            ),
            counts=counts,
            submitted=summary.submitted,
            cost_usd=summary.cost_usd,
            elapsed_s=round(summary.elapsed_s, 3),
            stopped=None if summary.stop is None else summary.stop.reason,
            output_dir=_shown(summary.output_dir),
            hint=hint,
        )

    @classmethod
    def of_error(cls, batch: Batch, error: Exception, *, elapsed_s: float, is_sandbox: bool) -> Self:
        """Tell of a run that an error ended before its first submit, or that a bug ended."""
        known = isinstance(error, BatchRunnerError)
        hint = error.hint if isinstance(error, BatchRunnerError) else None
        # What a bug has to say may hold anything; its name is enough.
        why = error.message if isinstance(error, BatchRunnerError) else type(error).__name__
        name = batch.manifest.name
        return cls(
            batch=name,
            outcome=Outcome.ERROR,
            exit_code=error.exit_code if isinstance(error, BatchRunnerError) else ExitCode.BUG,
            text=_text(
                name, Outcome.ERROR, why=why, figures=None, hint=hint, is_sandbox=is_sandbox
            ),
            counts=None,
            submitted=0 if known else None,
            cost_usd=Decimal(0) if known else None,
            elapsed_s=round(elapsed_s, 3),
            stopped="error",
            output_dir=_shown(batch.output_dir),
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


def _why(summary: Summary) -> str | None:
    if summary.error is not None:
        return summary.error.message
    return None if summary.stop is None else summary.stop.message


def _hint(summary: Summary, run_again: str, resolve: str) -> str | None:
    """Return the one thing to do next: an error first, then what may have been paid for."""
    if summary.error is not None:
        return summary.error.hint
    if summary.unknown:
        return f"settle the unknown jobs: {resolve}"
    if summary.in_flight or summary.pending:
        return f"to go on: {run_again}"
    return f"try the failed ones once more: {run_again} --retry failed" if summary.failed else None


def _text(
    name: str,
    outcome: Outcome,
    *,
    why: str | None,
    figures: str | None,
    hint: str | None,
    is_sandbox: bool,
) -> str:
    head = f"{name}{' (sandbox)' if is_sandbox else ''}: {outcome}{f', {why}' if why else ''}"
    return "\n".join(line for line in (head, figures, hint) if line)


def _shown(folder: Path) -> str:
    return str(folder.resolve())
