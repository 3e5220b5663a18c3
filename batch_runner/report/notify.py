"""Notifies people and machines when a run starts and ends.

Hides webhooks, heartbeats, commands and apprise. What always holds: a failure here is reported, but
never raises and never changes the result of the run; all targets are notified at once, each on its
own, within a bounded time; the URL of a target is a secret, so messages show only its host; no
redirect is followed; the service's token is not available here.
Not promised: exactly one notification; after a lost answer the target gets another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
from yarl import URL

from batch_runner import PROGRAM
from batch_runner.clock import Clock, backoff_s
from batch_runner.ledger.job import Standing
from batch_runner.manifest.form import VARIABLE, Notify
from batch_runner.manifest.notices import url_problem
from batch_runner.report.result import RunResult
from batch_runner.service.answer import parse_retry_after
from batch_runner.service.network import NO_PROXIES, Proxies
from batch_runner.service.web import Client, open_client

TRIES = 3

_CALL_TIMEOUT_S = 10.0
_COMMAND_LIMIT_S = 60.0
_APPRISE_LIMIT_S = 60.0
_BACKOFF_S = 1.0
_LONGEST_WAIT_S = 10.0
_OUTPUT_LIMIT_BYTES = 64 * 1024

_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD_HOST = re.compile(r"(?:(?:canary|ptb)\.)?(?:discord|discordapp)\.com")
_DISCORD_LIMIT_CHARACTERS = 2000

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
    proxies: Proxies = NO_PROXIES


async def notify_start(notify: Notify, context: NotifyContext) -> None:
    """Ping the heartbeat at the start. A URL that can't be used is reported at the end only."""
    if notify.heartbeat is None:
        return
    with contextlib.suppress(NotDeliveredError):
        url = _read_url(notify.heartbeat, context)
        async with _opened_client(context.proxies) as client:
            call = _send(client, "GET", _below(url, "start"), None, context.clock)
            await _gather({f"heartbeat {_shown(notify.heartbeat)}": call}, context)


async def notify_end(notify: Notify, result: RunResult, context: NotifyContext) -> None:
    """Send the result of a run to all targets at once."""
    targets: dict[str, Awaitable[None]] = {}
    async with _opened_client(context.proxies) as client:
        for position, text in enumerate(notify.webhooks, start=1):
            what = f"webhook {_shown(text)}" + (f" ({position})" if position > 1 else "")
            targets[what] = _notify_webhook(client, text, result, context)
        if notify.heartbeat is not None:
            what = f"heartbeat {_shown(notify.heartbeat)}"
            targets[what] = _notify_heartbeat(client, notify.heartbeat, result, context)
        if notify.on_finish:
            targets[f"on_finish {notify.on_finish[0]}"] = _run_command(notify, result, context)
        for position, text in enumerate(notify.apprise, start=1):
            # Only the scheme: in many of these URLs the host is a token.
            what = f"apprise {text.partition(':')[0]} ({position})"
            targets[what] = _notify_apprise(text, result, context)
        await _gather(targets, context)


async def _gather(targets: Mapping[str, Awaitable[None]], context: NotifyContext) -> None:
    results = await asyncio.gather(*targets.values(), return_exceptions=True)
    for what, result in zip(targets, results, strict=True):
        if result is not None:
            # The message of a library's error may hold the URL; its name does not.
            why = str(result) if isinstance(result, NotDeliveredError) else type(result).__name__
            context.say(f"could not notify {what}: {why}")


# Webhooks and heartbeats


async def _notify_webhook(
    client: Client, text: str, result: RunResult, context: NotifyContext
) -> None:
    url = _read_url(text, context)
    body = ("application/json", webhook_body(url, result))
    await _send(client, "POST", url, body, context.clock)


async def _notify_heartbeat(
    client: Client, text: str, result: RunResult, context: NotifyContext
) -> None:
    url = _read_url(text, context)
    target = url if result.is_success else _below(url, "fail")
    body = ("text/plain; charset=utf-8", result.text.encode())
    await _send(client, "POST", target, body, context.clock)


def webhook_body(url: str, result: RunResult) -> bytes:
    """Return the JSON for a webhook: in the form of Slack or Discord, or the whole result."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _SLACK_HOSTS:
        # Unescaped, a job's key could ping a whole channel.
        text = result.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return _encoder.encode({"text": text})
    if _DISCORD_HOST.fullmatch(host) and parts.path.startswith("/api/webhooks/"):
        text = result.text
        if len(text) > _DISCORD_LIMIT_CHARACTERS:
            text = f"{text[: _DISCORD_LIMIT_CHARACTERS - 1]}…"
        return _encoder.encode({"content": text, "allowed_mentions": {"parse": []}})
    return _encoder.encode(result)


@contextlib.asynccontextmanager
async def _opened_client(proxies: Proxies) -> AsyncIterator[Client]:
    headers = {"User-Agent": PROGRAM.replace(" ", "/")}
    client = open_client(proxies, timeout={"total": _CALL_TIMEOUT_S}, headers=headers)
    try:
        yield client
    finally:
        await client.close()


async def _send(
    client: Client,
    method: str,
    url: str,
    body: tuple[str, bytes] | None,
    clock: Clock,
) -> None:
    """Make a call, with retries if they may help; raises NotDeliveredError."""
    for tried in range(1, TRIES + 1):
        attempt = await _attempt(client, method, url, body, clock)
        if attempt.why is None:
            return
        if not attempt.again or tried == TRIES:
            raise NotDeliveredError(attempt.why)
        pause_s = backoff_s(tried, _BACKOFF_S, _LONGEST_WAIT_S)
        await clock.sleep(
            pause_s if attempt.wait_s is None else min(attempt.wait_s, _LONGEST_WAIT_S)
        )


@dataclass(frozen=True)
class _Attempt:
    """The result of a call: `why` it failed, and whether and when to make it again."""

    why: str | None = None
    again: bool = True
    wait_s: float | None = None


async def _attempt(
    client: Client,
    method: str,
    url: str,
    body: tuple[str, bytes] | None,
    clock: Clock,
) -> _Attempt:
    media_type, data = body or (None, None)
    headers = {} if media_type is None else {"Content-Type": media_type}
    try:
        async with client.request(method, URL(url), data=data, headers=headers) as response:
            return _judge(response.status, response.headers.get("Retry-After"), clock.now())
    except TimeoutError:
        return _Attempt(f"no answer within {_CALL_TIMEOUT_S:g} s")
    except ValueError:
        return _Attempt("it is not a URL", again=False)
    except aiohttp.ClientConnectorError:
        return _Attempt("not reachable")
    except (aiohttp.ClientError, OSError):
        return _Attempt("the connection broke before an answer came")


def _judge(status: int, retry_after: str | None, now: datetime) -> _Attempt:
    if 200 <= status < 300:
        return _Attempt()
    if 300 <= status < 400:
        return _Attempt(f"it redirects (HTTP {status}), which is not followed", again=False)
    again = status in (408, 425, 429) or status >= 500
    return _Attempt(f"HTTP {status}", again=again, wait_s=parse_retry_after(retry_after, now))


def _below(url: str, word: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{word}"))


# Secrets


def _fill(text: str, environment: Mapping[str, str]) -> str:
    """Fill in environment variables; raises NotDeliveredError if one is not set."""

    def value(found: re.Match[str]) -> str:
        if not environment.get(found[1]):
            raise NotDeliveredError(f"the environment variable {found[1]} is not set")
        return environment[found[1]]

    return VARIABLE.sub(value, text)


def _read_url(text: str, context: NotifyContext) -> str:
    url = _fill(text, context.environment).strip()
    problem = url_problem(url)
    if problem is not None:
        raise NotDeliveredError(f"it {problem}")
    return url


def _shown(text: str) -> str:
    """Return the part of a URL that may be shown: its host, or the variables that it names."""
    names = ", ".join(found[0] for found in VARIABLE.finditer(text))
    try:
        parts = urlsplit(text)
        host = None if "${" in parts.netloc else parts.hostname
    except ValueError:
        host = None
    return host or names


# Commands and apprise


async def _run_command(notify: Notify, result: RunResult, context: NotifyContext) -> None:
    """Run `on_finish` and show its output; raises NotDeliveredError if it fails."""
    words = [_fill(word, context.environment) for word in notify.on_finish]
    # A file, not a pipe: a process that the command leaves behind could keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=context.folder,
                env={**context.environment, **command_variables(result)},
                stdin=asyncio.subprocess.DEVNULL,
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
        "OUTCOME": result.outcome,
        **{one.upper(): (result.counts or {}).get(one) for one in Standing},
        "COST_USD": None if result.cost_usd is None else f"{result.cost_usd:f}",
        "ELAPSED_S": result.elapsed_s,
        "OUTPUT_DIR": result.output_dir,
        "STOPPED": result.stopped,
    }
    return {
        f"BATCH_RUNNER_{name}": "" if value is None else str(value)
        for name, value in values.items()
    }


async def _ends_in_time(process: asyncio.subprocess.Process, clock: Clock) -> bool:
    """Wait for a process; kill it and everything it started if it takes too long."""
    ended = asyncio.Event()
    in_time = True

    async def watch() -> None:
        await process.wait()
        ended.set()

    async def limit() -> None:
        nonlocal in_time
        await clock.wait(ended, _COMMAND_LIMIT_S)
        if not ended.is_set():
            in_time = False
            _kill(process)

    try:
        await asyncio.gather(watch(), limit())
    finally:
        # Cancelled: the command must not outlive the program.
        if process.returncode is None:
            _kill(process)
            await process.wait()
    return in_time


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
