"""How a run went, for webhooks, commands and metrics alike.

Pure: a summary in, or the error that ended the run before its first submit; a RunResult out. What
always holds: every target gets the same words and numbers; nothing in them is secret; an unknown
number is None, never 0.
"""

from __future__ import annotations

import shlex
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import msgspec

from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.ledger.job import Standing
from batch_runner.records import usd
from batch_runner.run.batch import Batch
from batch_runner.text.quantity import counted

if TYPE_CHECKING:
    from batch_runner.run.summary import Summary


class Outcome(StrEnum):
    """How a run went, in a word."""

    DONE = "done"
    SOME_FAILED = "some failed"
    STOPPED = "stopped"
    ERROR = "error"


class NextCommands(TypedDict):
    """The commands that texts suggest as next steps, and whether the run was a rehearsal."""

    run_again: str
    resolve: str
    report: str
    is_sandbox: bool


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went; webhooks get it as JSON.

    `counts` are the jobs by how they stand; `stopped` is the ledger's word for why the run stopped
    submitting; `hint` is what to do next; `text` has all of it for people.
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
    def of_summary(cls, name: str, summary: Summary, **wording: Unpack[NextCommands]) -> Self:
        """Build the result of a run that has a summary."""
        outcome = _outcome(summary)
        counts = {one.value: getattr(summary, one) for one in Standing}
        hint = _hint(summary, wording["run_again"], wording["resolve"])
        head = _head(name, outcome, _why(summary), is_sandbox=wording["is_sandbox"])
        return cls(
            batch=name,
            outcome=outcome,
            exit_code=summary.exit_code,
            text=_text(head, _figures(summary, counts), hint),
            counts=counts,
            submitted=summary.submitted,
            cost_usd=summary.cost_usd,
            elapsed_s=round(summary.elapsed_s, 3),
            stopped=None if summary.stop is None else summary.stop.reason,
            output_dir=summary.place,
            hint=hint,
        )

    @classmethod
    def of_error(
        cls, batch: Batch, error: Exception, elapsed_s: float, *, is_sandbox: bool
    ) -> Self:
        """Build the result of a run that ended by an error before its first submit, or by a bug."""
        name = batch.name
        if isinstance(error, BatchRunnerError):
            exit_code, why, hint = error.exit_code, error.message, error.hint
        else:
            # The message of a bug may hold anything, also secrets; its name is enough.
            exit_code, why, hint = ExitCode.BUG, type(error).__name__, None
        nothing_sent = isinstance(error, BatchRunnerError)
        return cls(
            batch=name,
            outcome=Outcome.ERROR,
            exit_code=exit_code,
            text=_text(_head(name, Outcome.ERROR, why, is_sandbox=is_sandbox), hint),
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


def _why(summary: Summary) -> str | None:
    if summary.error is not None:
        return summary.error.message
    return stop_text(summary)


def _hint(summary: Summary, run_again: str, resolve: str) -> str | None:
    """Return the one thing to do next: an error first, then what may have been paid for."""
    if summary.error is not None:
        return summary.error.hint
    if summary.stop is not None and summary.stop.hint is not None:
        return summary.stop.hint
    if summary.unknown:
        return f"decide about the unknown jobs: {resolve}"
    if summary.in_flight or summary.pending or summary.unsaved:
        return f"{how_to_resume(summary)}: {command_to_resume(summary, run_again)}"
    return f"retry the failed jobs: {run_again} --retry failed" if summary.failed else None


def how_to_resume(summary: Summary) -> str:
    """Return what a person must do, besides running it again, to resume a batch."""
    match summary.stop.reason if summary.stop is not None else None:
        case "budget":
            return "to resume, raise limits.cost_usd, or run it with a budget for all jobs"
        case "nightly budget":
            return "to resume, run it again tomorrow, or now with a budget for all jobs"
        case "window":
            return "to resume then (--wait waits for it, --now ignores it)"
        case "failures":
            return "to resume, once you know why so many failed"
        case _:
            return "to resume"


def command_to_resume(summary: Summary, run_again: str) -> str:
    """Return the command that resumes a batch and does not stop again at once."""
    if summary.stop is None or summary.stop.reason not in ("budget", "nightly budget"):
        return run_again
    needed = "USD" if summary.needed_usd is None else usd(summary.needed_usd).removesuffix(" USD")
    *words, manifest = shlex.split(run_again)
    if "--max-cost" in words:
        place = words.index("--max-cost")
        del words[place : place + 2]
    return shlex.join([*words, "--max-cost", needed, manifest])


def stop_text(summary: Summary) -> str | None:
    """Return why a run stopped, and how many jobs a budget covered."""
    if summary.stop is None:
        return None
    if summary.stop.reason not in ("budget", "nightly budget"):
        return summary.stop.message
    jobs = counted(summary.to_buy, "job")
    return f"{summary.stop.message}; it covered {summary.bought:,} of {jobs} to buy"


def _figures(summary: Summary, counts: dict[str, int]) -> str:
    parts = [f"{summary.done:,} of {summary.jobs:,} jobs done"]
    parts += [
        f"{count:,} {state.replace('_', ' ')}"
        for state, count in counts.items()
        if count and state != "done"
    ]
    return ", ".join([*parts, cost_text(summary)])


def cost_text(summary: Summary) -> str:
    """Return what this run cost, and the whole batch too if it cost more."""
    if summary.spent_usd in (None, summary.cost_usd):
        return usd(summary.cost_usd)
    return f"{usd(summary.cost_usd)} in this run, {usd(summary.spent_usd)} in all"


def _head(name: str, outcome: Outcome, why: str | None, *, is_sandbox: bool) -> str:
    return f"{name}{' (sandbox)' if is_sandbox else ''}: {outcome}{f': {why}' if why else ''}"


def _text(*lines: str | None) -> str:
    return "\n".join(line for line in lines if line)
