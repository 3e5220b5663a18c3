"""Notifies people and machines when a run ends: with apprise, or with a command.

What always holds: a failure here is reported, but never raises and never changes the result of the
run; all targets are notified at once, each on its own, within a bounded time; the URL of a target
is a secret, so messages show only its scheme; the service's token is not available here.
Not promised: exactly one notification; after a lost answer the target gets another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from batch_runner.clock import Clock, backoff_s
from batch_runner.ledger.job import Standing
from batch_runner.manifest.form import VARIABLE, Notify
from batch_runner.report.result import RunResult

TRIES = 3

_COMMAND_LIMIT_S = 60.0
_APPRISE_LIMIT_S = 60.0
_BACKOFF_S = 1.0
_LONGEST_WAIT_S = 10.0
_OUTPUT_LIMIT_BYTES = 64 * 1024

_encoder = msgspec.json.Encoder(decimal_format="string")


class NotDeliveredError(Exception):
    """A target could not be notified; the message shows nothing secret."""


@dataclass(frozen=True, kw_only=True)
class NotifyContext:
    """What notifications need from outside.

    `environment` is for `${NAME}` and for commands; it does not hold the service's token. `folder`
    is where commands run; `say` prints a message.
    """

    environment: Mapping[str, str]
    folder: Path
    say: Callable[[str], None]
    clock: Clock


async def notify_end(notify: Notify, result: RunResult, context: NotifyContext) -> None:
    """Send the result of a run to all targets at once."""
    targets: dict[str, Awaitable[None]] = {}
    if notify.on_finish:
        targets[f"on_finish {notify.on_finish[0]}"] = _run_command(notify, result, context)
    for position, text in enumerate(notify.apprise, start=1):
        # Only the scheme: in many of these URLs the host is a token.
        what = f"apprise {text.partition(':')[0]} ({position})"
        targets[what] = _notify_apprise(text, result, context)
    results = await asyncio.gather(*targets.values(), return_exceptions=True)
    for what, error in zip(targets, results, strict=True):
        if error is not None:
            # The message of a library's error may hold the URL; its name does not.
            why = str(error) if isinstance(error, NotDeliveredError) else type(error).__name__
            context.say(f"could not notify {what}: {why}")


def _fill(text: str, environment: Mapping[str, str]) -> str:
    """Fill in environment variables; raises NotDeliveredError if one is not set."""

    def value(found: re.Match[str]) -> str:
        if not environment.get(found[1]):
            raise NotDeliveredError(f"the environment variable {found[1]} is not set")
        return environment[found[1]]

    return VARIABLE.sub(value, text)


async def _notify_apprise(text: str, result: RunResult, context: NotifyContext) -> None:
    try:
        import apprise  # noqa: PLC0415 - an extra, and heavy
    except ImportError as error:
        hint = "it needs an extra: pip install 'batch-runner[notify]'"
        raise NotDeliveredError(hint) from error
    asset = apprise.AppriseAsset(app_id="batch-runner")
    asset.http_redirects = False
    sender = apprise.Apprise(asset=asset)
    if not sender.add(_fill(text, context.environment)):
        raise NotDeliveredError("apprise cannot read this URL")
    title, _, body = result.text.partition("\n")
    async with asyncio.timeout(_APPRISE_LIMIT_S):
        for tried in range(TRIES):
            if tried:
                await context.clock.sleep(backoff_s(tried, _BACKOFF_S, _LONGEST_WAIT_S))
            if await sender.async_notify(title=title, body=body or title):
                return
    raise NotDeliveredError("apprise could not deliver it")


async def _run_command(notify: Notify, result: RunResult, context: NotifyContext) -> None:
    """Run `on_finish` and show its output; raises NotDeliveredError if it fails."""
    words = [_fill(word, context.environment) for word in notify.on_finish]
    # Files, not pipes: a process that the command leaves behind could keep a pipe open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(_encoder.encode(result))
        given.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=context.folder,
                env={**context.environment, **command_variables(result)},
                stdin=given,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise NotDeliveredError(f"it cannot be started: {why}") from error
        in_time = await _ends_in_time(process, context.clock)
        _say_output(output, context)
    if not in_time:
        raise NotDeliveredError(f"it took longer than {_COMMAND_LIMIT_S:g} s and was killed")
    if process.returncode:
        raise NotDeliveredError(f"it ended with exit code {process.returncode}")


def command_variables(result: RunResult) -> dict[str, str]:
    """Return the result as environment variables for a command; unknown ones are empty."""
    values: dict[str, object] = {
        "NAME": result.batch,
        "EXIT_CODE": int(result.exit_code),
        "STATUS": 0 if result.is_success else int(result.exit_code),
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


async def _ends_in_time(process: asyncio.subprocess.Process, clock: Clock) -> bool:
    """Wait for a process; kill it and everything it started if it takes too long."""
    ended = asyncio.Event()

    async def watch() -> None:
        await process.wait()
        ended.set()

    async def limit() -> bool:
        await clock.wait(ended, _COMMAND_LIMIT_S)
        is_late = not ended.is_set()
        if is_late:
            _kill(process)
        return not is_late

    try:
        return (await asyncio.gather(limit(), watch()))[0]
    finally:
        # Cancelled: the command must not outlive the program.
        if process.returncode is None:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    # It leads its own process group, so that its children end as well.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _say_output(output: IO[bytes], context: NotifyContext) -> None:
    output.seek(0)
    raw = output.read(_OUTPUT_LIMIT_BYTES + 1)
    cut = "\n…" if len(raw) > _OUTPUT_LIMIT_BYTES else ""
    text = raw[:_OUTPUT_LIMIT_BYTES].decode(errors="replace").rstrip() + cut
    if text:
        context.say("\n".join(f"on_finish: {line}" for line in text.split("\n")))
