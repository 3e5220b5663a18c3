"""`resolve --match`: compares pasted request ids with the unknown jobs, and attaches sure pairs.

Hides how requests are looked up. What always holds: a look-up costs nothing; every pair is durable
before it is reported; a refused token changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batch_runner.clock import Clock
from batch_runner.commands.console import say, show
from batch_runner.commands.environment import TOKEN_VARIABLES
from batch_runner.commands.output import print_lines
from batch_runner.errors import AccessRefusedError, ExitCode, InputMissingError, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.pacing.pacer import Pacer
from batch_runner.report.unknown import Listed, match_text
from batch_runner.run.batch import Batch
from batch_runner.run.matching import (
    Matching,
    Moments,
    Request,
    Span,
    look_like_ids,
    match,
    request_ids_in,
)
from batch_runner.run.resolve import UNANSWERED, KnownRequest, UnknownJob, attached, known_requests
from batch_runner.service.answer import OTHER_ACCOUNT, Meaning, Result, Verdict

_AT_ONCE = 8
_ATTEMPTS = 3
_IDS_LIMIT = 10_000
_NOT_WELL_FORMED = (400, 422)


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
    is_dry: bool,
) -> int:
    """Attach each job whose request is surely in the text; print the result, return the exit code.

    `command` is how to resolve the jobs that are left; with `is_dry`, nothing is attached.
    """
    known = known_requests(batch.ledgers.records())
    ids = request_ids_in(text, known)
    if not ids:
        raise UsageError(
            "no request id in the list", hint="copy the ids from the service's Generations page"
        )
    if len(ids) > _IDS_LIMIT:
        raise UsageError(
            f"the list has {len(ids):,} ids, more than {_IDS_LIMIT:,}", hint="paste it in parts"
        )
    new = [one for one in ids if one not in known]
    answers = await _look_up(ledgers[0][0], new)
    listed = _sorted_out(ids, known, answers)
    matching = match(jobs, list(_requests(answers)))
    hidden = len(listed.unanswered) + len(listed.expired) + len(listed.foreign)
    span = _span(ids, known, matching, hidden)
    if not is_dry:
        await _attach(matching, ledgers)
    if as_json:
        print_lines([_document(matching, span, listed)])
    else:
        show(match_text(matching, span, listed, command, is_dry=is_dry))
    if listed.unanswered:
        return ExitCode.UNAVAILABLE
    return ExitCode.SOME_FAILED if matching.left or is_dry else ExitCode.DONE


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
                elif (
                    verdict.meaning is Meaning.TRANSIENT and verdict.status not in _NOT_WELL_FORMED
                ):
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


def _requests(answers: dict[str, Verdict]) -> Iterator[Request]:
    for request_id, verdict in answers.items():
        if verdict.result is not None or verdict.meaning in (Meaning.WAITING, Meaning.RUNNING):
            result = verdict.result or Result()
            yield Request(request_id=request_id, state=str(verdict.meaning), result=result)


def _sorted_out(
    ids: Iterable[str], known: dict[str, KnownRequest], answers: dict[str, Verdict]
) -> Listed:
    listed = Listed(known={one: known[one].job for one in ids if one in known})
    for request_id, verdict in answers.items():
        # Some words of the text are no ids: the service rejects them as malformed.
        is_no_id = verdict.meaning is Meaning.GONE or verdict.status in _NOT_WELL_FORMED
        if verdict.meaning is Meaning.TOKEN_REFUSED:
            listed.foreign.append(request_id)
        elif verdict.result is None and is_no_id:
            listed.gone.append(request_id)
        elif verdict.result is None and verdict.meaning in UNANSWERED:
            listed.unanswered.append(request_id)
    answered = [one for one, verdict in answers.items() if verdict.result is not None]
    listed.expired = look_like_ids(listed.gone, [*known, *answered])
    return listed


def _span(
    ids: Iterable[str], known: dict[str, KnownRequest], matching: Matching, unanswered: int
) -> Span:
    """Return the time that the list covers, by its requests and by requests in the ledgers."""
    listed = set(ids)
    ours = {
        request_id: Moments(one.sent_at, one.accepted_at)
        for request_id, one in known.items()
        if one.sent_at is not None and one.accepted_at is not None
    }
    times = [moments for request_id, moments in ours.items() if request_id in listed]
    times += [Moments(pair.job.sent_at, pair.job.lost_at) for pair in matching.pairs]
    others = [*matching.strangers, *(one for left in matching.left for one in left.candidates)]
    times += [Moments.by_service(one.created_at) for one in others if one.created_at is not None]
    missing = (moments for request_id, moments in ours.items() if request_id not in listed)
    return Span.of(times, missing, unanswered=unanswered)


async def _attach(matching: Matching, ledgers: Sequence[tuple[Batch, Ledger]]) -> None:
    """Record every pair, durably."""
    for part, ledger in ledgers:
        for job, request in matching.pairs:
            if part.has(job.fingerprint):
                ledger.append(attached(job, request.request_id, Clock()))
        await ledger.durable()


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
