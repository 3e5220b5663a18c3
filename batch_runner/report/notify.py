"""Tells people and machines how a run ended, with the command of `notify.on_finish`.

Hides the process. What always holds: a failure here is reported, but never raises and never changes
the result of the run; the command ends within a bounded time, with everything it started; the
result holds nothing secret, and the service's token is not available here; an unknown number is
empty, never 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.ledger.job import Standing
from batch_runner.report.text import Advice, summary_text
from batch_runner.run.batch import Batch

if TYPE_CHECKING:
    from batch_runner.run.summary import Summary

LIMIT_S = 60.0
_OUTPUT_LIMIT_BYTES = 64 * 1024


def result_of_run(name: str, summary: Summary, advice: Advice) -> dict[str, str]:
    """Return how a run went that has a summary, as variables for a command."""
    outcome = {ExitCode.DONE: "done", ExitCode.SOME_FAILED: "some failed"}.get(summary.exit_code)
    text = summary_text(summary, advice)
    if summary.error is not None:
        outcome, text = "error", f"{summary.error.message}\n{text}"
    # A run that stopped as planned, and is ready to resume, is well.
    is_well = summary.error is None and summary.exit_code in (ExitCode.DONE, ExitCode.STOPPED_EARLY)
    return _variables(
        name,
        outcome or "stopped",
        summary.exit_code,
        text,
        is_sandbox=advice.is_sandbox,
        STATUS=0 if is_well else int(summary.exit_code),
        COST_USD=f"{summary.cost_usd:f}",
        ELAPSED_S=round(summary.elapsed_s, 3),
        OUTPUT_DIR=summary.place,
        STOPPED="" if summary.stop is None else summary.stop.reason,
        **{one.upper(): getattr(summary, one) for one in Standing},
    )


def result_of_error(batch: Batch, error: Exception, elapsed_s: float) -> dict[str, str]:
    """Return how a run went that ended by an error before its first submit, or by a bug."""
    # The message of a bug may hold anything, also secrets; its name is enough.
    exit_code, text, cost_usd = ExitCode.BUG, type(error).__name__, ""
    if isinstance(error, BatchRunnerError):
        exit_code, cost_usd = error.exit_code, "0"
        text = "\n".join(filter(None, (error.message, error.hint)))
    return _variables(
        batch.name,
        "error",
        exit_code,
        text,
        is_sandbox=batch.options.rehearsal,
        STATUS=int(exit_code),
        COST_USD=cost_usd,
        ELAPSED_S=round(elapsed_s, 3),
        OUTPUT_DIR=batch.storage,
        STOPPED="error",
        **{one.upper(): "" for one in Standing},
    )


def _variables(
    name: str, outcome: str, exit_code: int, text: str, *, is_sandbox: bool, **more: object
) -> dict[str, str]:
    title = f"{name}{' (sandbox)' if is_sandbox else ''}: {outcome}"
    values: dict[str, object] = {
        "NAME": name,
        "OUTCOME": outcome,
        "EXIT_CODE": int(exit_code),
        "TEXT": f"{title}\n{text}",
        **more,
    }
    return {f"BATCH_RUNNER_{name}": str(value) for name, value in values.items()}


async def notify_end(
    command: str | None,
    result: Mapping[str, str],
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
    # A file, not a pipe: a process that the command leaves behind could keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            # No await may come between the start and the `finally`: whatever happens, it is killed.
            # A variable that is not set is an error (-u): nothing goes to half an address.
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - the manifest names the command
                ("/bin/sh", "-uc", command),
                cwd=folder,
                env={**environment, **result},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                if code := await asyncio.to_thread(process.wait, limit_s):
                    why = f"it ended with exit code {code}"
            finally:
                if process.poll() is None:
                    # It leads its own process group, so that its children end as well.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        except subprocess.TimeoutExpired:
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
