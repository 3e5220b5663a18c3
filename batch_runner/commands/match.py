"""`resolve --match`: compares pasted request ids with the unknown jobs, and attaches sure pairs.

Hides how requests are looked up. What always holds: a look-up costs nothing; every pair is durable
before it is reported; a refused token changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from batch_runner.clock import Clock
from batch_runner.commands.console import say, show
from batch_runner.commands.environment import TOKEN_VARIABLES
from batch_runner.commands.output import print_lines
from batch_runner.errors import AccessRefusedError, ExitCode, InputMissingError, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.pacing.pacer import Pacer
from batch_runner.report.unknown import match_text
from batch_runner.run.batch import Batch
from batch_runner.run.matching import (
    NOT_WELL_FORMED,
    Listed,
    Matching,
    Span,
    compare_list,
    request_ids_in,
)
from batch_runner.run.resolve import UnknownJob, attached, known_requests
from batch_runner.service.answer import OTHER_ACCOUNT, Meaning, Verdict

_AT_ONCE = 8
_ATTEMPTS = 3


def read_text(name: str) -> str:
    """Return the text of a file, or stdin for '-'; raises InputMissingError."""
    try:
        if name == "-":
            if sys.stdin.isatty():
                say("paste the list of requests, then press Ctrl-D on an empty line")
            return sys.stdin.buffer.read().decode(errors="replace")
        return Path(name).read_bytes().decode(errors="replace")
    except OSError as error:
        raise InputMissingError(
            f"{name}: cannot read it: {error.strerror}",
            hint="name a file with request ids, or - for stdin",
        ) from error


async def attach_listed(
    batch: Batch,
    ledgers: Sequence[tuple[Batch, Ledger]],
    jobs: Sequence[UnknownJob],
    text: str,
    *,
    command: str,
    as_json: bool,
) -> int:
    """Attach each job whose request is surely in the text; print the result, return the exit code.

    `command` is how to resolve the jobs that are left.
    """
    known = known_requests(batch.ledgers.records())
    ids = request_ids_in(text)
    if not ids:
        raise UsageError(
            "no request id in the list", hint="copy the ids from the service's Generations page"
        )
    answers = await _look_up(ledgers[0][0], [one for one in ids if one not in known])
    matching, span, listed = compare_list(jobs, ids, known, answers)
    for part, ledger in ledgers:
        for job, request in matching.pairs:
            if part.has(job.fingerprint):
                ledger.append(attached(job, request.request_id, Clock()))
        await ledger.durable()
    if as_json:
        print_lines([_document(matching, span, listed)])
    else:
        show(match_text(matching, span, listed, command))
    if listed.unanswered:
        say("hint: run the same command again later: it looks up what was not answered")
        return ExitCode.UNAVAILABLE
    return ExitCode.SOME_FAILED if matching.left else ExitCode.DONE


async def _look_up(batch: Batch, ids: Iterable[str]) -> dict[str, Verdict]:
    """Ask the service for each request, which is free, within limits.polls."""
    pacer = Pacer(batch.manifest.limits, batch.manifest.retry, clock := Clock())
    answers: dict[str, Verdict] = {}
    waiting, refused = iter(ids), asyncio.Event()

    async def work() -> None:
        for request_id in waiting:
            for attempt in range(1, _ATTEMPTS + 1):
                await pacer.turn_to_poll(refused)
                if refused.is_set():
                    return
                verdict = answers[request_id] = await batch.service.result(request_id)
                if verdict.meaning is Meaning.THROTTLED:
                    pacer.throttled(verdict.retry_after_s)
                elif verdict.meaning is Meaning.TRANSIENT and verdict.status not in NOT_WELL_FORMED:
                    await clock.wait(refused, pacer.backoff_s(attempt))
                else:
                    break
            if verdict.meaning is Meaning.TOKEN_REFUSED and verdict.code not in OTHER_ACCOUNT:
                refused.set()

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    if refused.is_set():
        raise AccessRefusedError(
            "the service refused the token; nothing was changed",
            hint=f"set {TOKEN_VARIABLES[0]} to a valid token of the account that ran this batch",
        )
    return answers


def _document(matching: Matching, span: Span, listed: Listed) -> dict[str, Any]:
    """Return the result for scripts."""
    return {
        "attached": [
            {
                "job": job.job,
                "fingerprint": job.fingerprint,
                "request_id": request.request_id,
                "state": request.state,
                "sent_at": job.sent_at,
                "created_at": request.created_at,
            }
            for job, request in matching.pairs
        ],
        "unknown": [
            {
                "job": left.job.job,
                "fingerprint": left.job.fingerprint,
                "sent_at": left.job.sent_at,
                "list": span.covers(left.job),
                "candidates": [request.request_id for request in left.candidates],
            }
            for left in matching.left
        ],
        "fit_no_job": [request.request_id for request in matching.strangers],
        "known": listed.known,
        "gone": listed.gone,
        "expired": listed.expired,
        "other_account": listed.foreign,
        "unanswered": listed.unanswered,
        "first": span.first,
        "last": span.last,
    }
