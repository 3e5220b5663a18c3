"""Pairs unknown jobs with the requests of a pasted list.

Hides how ids are found in any text, and when a request belongs to a job. What always holds: a
request is paired with at most one job, and a job with at most one request; a request is paired only
if it repeats the job's prompt and pictures, and only if no different job could be meant. Not
promised: that a job without a pair was not bought.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from batch_runner.pacing.pacer import Pacer
from batch_runner.records import digest, is_request_id
from batch_runner.run.resolve import CLOCK_TOLERANCE, SAY_NOTHING, UnknownJob, read_time
from batch_runner.service.answer import OTHER_ACCOUNT, Meaning, Verdict
from batch_runner.service.call import Service
from batch_runner.service.echo import compare
from batch_runner.service.network import token_refused

# A POST is given up after a minute, and two clocks may differ.
_LATEST = timedelta(minutes=15)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_ID = re.compile(r"(?=.*\d).{8,}")
_ATTEMPTS = 3

UNANSWERED = "without an answer"


def request_ids_in(text: str) -> list[str]:
    """Return the possible request ids in a text, each once, in order.

    An id is a word alone on its line, or a long word with a digit. To look up another word costs
    nothing.
    """
    found: dict[str, None] = {}
    for words in map(_WORD.findall, text.splitlines()):
        for word in words:
            if is_request_id(word) and (len(words) == 1 or _ID.fullmatch(word)):
                found[word] = None
    return list(found)


async def look_up(service: Service, pacer: Pacer, ids: Iterable[str]) -> dict[str, Verdict]:
    """Ask the service for each request, which is free; raises AccessRefusedError."""
    never = asyncio.Event()

    async def ask(request_id: str) -> Verdict:
        for attempt in range(1, _ATTEMPTS + 1):
            await pacer.turn_to_poll(never)
            verdict = await service.result(request_id)
            if verdict.meaning is Meaning.THROTTLED:
                pacer.throttled(verdict.retry_after_s)
            elif kind_of(verdict) == UNANSWERED:
                await pacer.pause(pacer.backoff_s(attempt))
            else:
                break
        if verdict.meaning is Meaning.TOKEN_REFUSED and verdict.code not in OTHER_ACCOUNT:
            raise token_refused(verdict.message)
        return verdict

    ids = list(ids)
    return dict(zip(ids, await asyncio.gather(*map(ask, ids)), strict=True))


def kind_of(verdict: Verdict) -> str:
    """Return what the service's answer says about an id, in words for people."""
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        return "of another account"
    if verdict.meaning is Meaning.GONE or verdict.status in (400, 422):
        return "unknown to the service"
    return UNANSWERED if verdict.meaning in SAY_NOTHING else "known to the service"


def made_at(verdict: Verdict) -> datetime | None:
    """Return when a request was made, if the service tells."""
    return None if verdict.result is None else read_time(verdict.result.created_at)


def pair(jobs: Sequence[UnknownJob], answers: Mapping[str, Verdict]) -> dict[str, str]:
    """Pair jobs with requests that can't belong to any other job: fingerprint to request id.

    Jobs that were sent with the same input, as repeats are, may get each other's requests. If there
    are more requests than such jobs, or one also repeats another input, a person must decide.
    """
    kinds: defaultdict[str, list[UnknownJob]] = defaultdict(list)
    for job in jobs:
        kinds[digest([job.model, job.input])].append(job)
    proven = {
        kind: [
            request_id
            for request_id, verdict in answers.items()
            if any(_fits(job, verdict) for job in alike)
        ]
        for kind, alike in kinds.items()
    }
    times = Counter(request_id for found in proven.values() for request_id in found)
    paired: dict[str, str] = {}
    for kind, alike in kinds.items():
        if all(times[request_id] == 1 for request_id in proven[kind]):
            paired |= _in_order(alike, {one: answers[one] for one in proven[kind]})
    return paired


def _in_order(alike: Sequence[UnknownJob], requests: dict[str, Verdict]) -> dict[str, str]:
    """Give equal jobs their requests in order of time; none if a request is left over."""
    paired: dict[str, str] = {}
    left = sorted(requests, key=lambda one: (made_at(requests[one]), one))
    for job in sorted(alike, key=lambda one: one.sent_at):
        fitting = next((one for one in left if _fits(job, requests[one])), None)
        if fitting is not None:
            paired[job.fingerprint] = fitting
            left.remove(fitting)
    return {} if left else paired


def _fits(job: UnknownJob, verdict: Verdict) -> bool:
    """Tell whether a request repeats what a job sent, and was made at that time."""
    result, at = verdict.result, made_at(verdict)
    if result is None or at is None:
        return False
    is_in_time = job.sent_at - CLOCK_TOLERANCE <= at <= job.sent_at + _LATEST
    return is_in_time and compare(job.model, job.input, result).is_proven
