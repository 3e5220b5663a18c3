"""Tells people and machines how a run ended, with the command of `notify.on_finish`.

Hides the process. What always holds: a failure here is reported, but never raises and never changes
the result of the run; the command ends within a bounded time, with everything it started; the
result holds nothing secret, and the service's token is not available here; an unknown number is
None or empty, never 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import msgspec

from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.ledger.job import Standing
from batch_runner.report.text import NextCommands, summary_text
from batch_runner.run.batch import Batch

if TYPE_CHECKING:
    from batch_runner.run.summary import Summary

LIMIT_S = 60.0
_OUTPUT_LIMIT_BYTES = 64 * 1024


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went; the command reads it as JSON.

    `outcome` is done, some failed, stopped or error. `counts` are the jobs by how they stand;
    `stopped` is the ledger's word for why the run stopped submitting; `hint` is what to do about an
    error or a stop; `text` has all of it for people, and its first line is a title.
    """

    batch: str
    outcome: str
    exit_code: int
    text: str
    counts: dict[str, int] | None = None
    submitted: int | None = None
    cost_usd: Decimal | None = None
    elapsed_s: float
    stopped: str | None
    output_dir: str
    hint: str | None = None


def result_of_run(name: str, summary: Summary, **commands: Unpack[NextCommands]) -> RunResult:
    """Return how a run went that has a summary."""
    outcome = {ExitCode.DONE: "done", ExitCode.SOME_FAILED: "some failed"}.get(summary.exit_code)
    if outcome is None:
        outcome = "stopped" if summary.error is None else "error"
    text, ended = summary_text(summary, **commands), summary.error or summary.stop
    if summary.error is not None:
        text = f"{summary.error.message}\n{text}"
    return RunResult(
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


def result_of_error(
    batch: Batch, error: Exception, elapsed_s: float, *, is_sandbox: bool
) -> RunResult:
    """Return how a run went that ended by an error before its first submit, or by a bug."""
    # The message of a bug may hold anything, also secrets; its name is enough.
    exit_code, why, hint = ExitCode.BUG, type(error).__name__, None
    nothing_sent = isinstance(error, BatchRunnerError)
    if isinstance(error, BatchRunnerError):
        exit_code, why, hint = error.exit_code, error.message, error.hint
    title = _title(batch.name, "error", is_sandbox=is_sandbox)
    return RunResult(
        batch=batch.name,
        outcome="error",
        exit_code=exit_code,
        text="\n".join(line for line in (title, why, hint) if line),
        submitted=0 if nothing_sent else None,
        cost_usd=Decimal(0) if nothing_sent else None,
        elapsed_s=round(elapsed_s, 3),
        stopped="error",
        output_dir=str(batch.storage),
        hint=hint,
    )


def _title(name: str, outcome: str, *, is_sandbox: bool) -> str:
    return f"{name}{' (sandbox)' if is_sandbox else ''}: {outcome}"


def command_variables(result: RunResult) -> dict[str, str]:
    """Return the result as environment variables for a command; unknown ones are empty."""
    # A run that stopped as planned, and is ready to resume, is a success.
    is_well = result.outcome == "done" or (
        result.outcome == "stopped" and result.exit_code == ExitCode.STOPPED_EARLY
    )
    values: dict[str, object] = {
        "NAME": result.batch,
        "EXIT_CODE": int(result.exit_code),
        "STATUS": 0 if is_well else int(result.exit_code),
        "OUTCOME": result.outcome,
        **{one.upper(): (result.counts or {}).get(one) for one in Standing},
        "COST_USD": None if result.cost_usd is None else f"{result.cost_usd:f}",
        "ELAPSED_S": result.elapsed_s,
        "OUTPUT_DIR": result.output_dir,
        "STOPPED": result.stopped,
        "TEXT": result.text,
    }
    return {
        f"BATCH_RUNNER_{name}": "" if value is None else str(value)
        for name, value in values.items()
    }


async def notify_end(
    command: str | None,
    result: RunResult,
    *,
    environment: Mapping[str, str],
    folder: Path,
    say: Callable[[str], None],
    limit_s: float = LIMIT_S,
) -> None:
    """Run the command of `notify.on_finish` in a folder, and show its output."""
    if command is None:
        return
    why = None
    # Files, not pipes: a process that the command leaves behind could keep a pipe open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(msgspec.json.Encoder(decimal_format="string").encode(result))
        given.seek(0)
        try:
            # A variable that is not set is an error (-u): nothing goes to half an address.
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-uc", command),
                cwd=folder,
                env={**environment, **command_variables(result)},
                stdin=given,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(limit_s):
                    if code := await process.wait():
                        why = f"it ended with exit code {code}"
            finally:
                if process.returncode is None:
                    # It leads its own process group, so that its children end as well.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
        except TimeoutError:
            why = f"it took longer than {limit_s:g} s and was killed"
        except (OSError, ValueError) as error:
            why = (
                f"it cannot be started: {getattr(error, 'strerror', None) or type(error).__name__}"
            )
        output.seek(0)
        text = output.read(_OUTPUT_LIMIT_BYTES).decode(errors="replace").rstrip()
    if text:
        say("\n".join(f"on_finish: {line}" for line in text.split("\n")))
    if why is not None:
        say(f"notify.on_finish failed: {why}")
