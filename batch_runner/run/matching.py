"""Pairs unknown jobs with the requests of a pasted list. Pure.

Hides how ids are found in any text, and when a request belongs to a job. What always holds: a
request is paired with at most one job, and a job with at most one request; a request is paired only
if it repeats the job's prompt and pictures, and only if no different job could be meant. Not
promised: that a job without a pair was not bought; `Coverage` says whether the list would show it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from batch_runner.records import is_request_id
from batch_runner.run.resolve import CLOCK_TOLERANCE, UNANSWERED, KnownRequest, UnknownJob
from batch_runner.service.answer import Meaning, Result, Verdict
from batch_runner.service.echo import compare

# A POST is given up after a minute, and two clocks may differ.
_LATEST = timedelta(minutes=10)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:T|$)")
_LEAST_CHARACTERS = 8
_SURE_CHARACTERS = 16

NOT_WELL_FORMED = (400, 422)
"""How the service rejects words that are no ids."""


def request_ids_in(text: str, known: Collection[str] = ()) -> list[str]:
    """Return the possible request ids in a text, each once, in order.

    An id is a word alone on its line, a word of the same form as a `known` id, or a long word with
    a digit that is neither a date nor a plain number.
    """
    forms = {_form(one) for one in known}
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = _WORD.findall(line)
        for word in words:
            if is_request_id(word) and (
                len(words) == 1 or _has_form(word, forms) or _is_long_id(word)
            ):
                found[word] = None
    return list(found)


def look_like_ids(words: Sequence[str], ids: Iterable[str]) -> list[str]:
    """Return the words that have the form of some ids; without ids to compare with, long words."""
    forms = {_form(one) for one in ids}
    if not forms:
        return [word for word in words if len(word) >= _SURE_CHARACTERS]
    return [word for word in words if _has_form(word, forms)]


def _form(word: str) -> str:
    return re.sub(r"[0-9A-Za-z]", "x", word)


def _has_form(word: str, forms: Collection[str]) -> bool:
    return re.search(r"\d", word) is not None and _form(word) in forms


def _is_long_id(word: str) -> bool:
    least = _LEAST_CHARACTERS if re.search("[A-Za-z]", word) else _SURE_CHARACTERS
    return len(word) >= least and bool(re.search(r"\d", word)) and not _DATE.match(word)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the service shows it."""

    request_id: str
    state: str
    result: Result

    @property
    def created_at(self) -> datetime | None:
        """Return when the request was made, or None if the service does not tell."""
        return read_time(self.result.created_at)


def read_time(text: str | None) -> datetime | None:
    """Read a time of the service, as UTC if it names no zone; None if it is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Coverage(StrEnum):
    """Whether a list shows the time at which a job was sent."""

    COVERED = "covered"
    BEFORE = "before the list begins"
    AFTER = "after the list ends"
    GAPS = "the list has gaps"
    UNANSWERED = "the service did not answer for every id"
    NOTHING = "nothing in the list has a time"


class Moments(NamedTuple):
    """The times between which a request was made."""

    earliest: datetime
    latest: datetime

    @classmethod
    def by_service(cls, at: datetime) -> Moments:
        """Take a time of the service, whose clock may differ from ours."""
        return cls(at - CLOCK_TOLERANCE, at + CLOCK_TOLERANCE)


class Span(NamedTuple):
    """The time that a list certainly covers, and how many known requests it lacks there."""

    first: datetime | None = None
    last: datetime | None = None
    gaps: int = 0
    unanswered: int = 0

    @classmethod
    def of(
        cls, listed: Iterable[Moments], missing: Iterable[Moments], *, unanswered: int = 0
    ) -> Span:
        """Compute the span from the times of listed requests and of known ones that are missing."""
        listed = list(listed)
        if not listed:
            return cls()
        first = min(one.latest for one in listed)
        last = max(one.earliest for one in listed)
        gaps = sum(first < one.earliest and one.latest < last for one in missing)
        return cls(first, last, gaps, unanswered)

    def covers(self, job: UnknownJob) -> Coverage:
        """Return whether the list would show the job's request, if there was one."""
        if self.first is None or self.last is None:
            return Coverage.NOTHING
        if self.unanswered:
            return Coverage.UNANSWERED
        if job.sent_at < self.first:
            return Coverage.BEFORE
        if job.lost_at > self.last:
            return Coverage.AFTER
        return Coverage.GAPS if self.gaps else Coverage.COVERED


class Pair(NamedTuple):
    """A job and its request."""

    job: UnknownJob
    request: Request


class Left(NamedTuple):
    """A job without a pair, and the requests that could be its own, the nearest in time first."""

    job: UnknownJob
    candidates: list[Request]


class Matching(NamedTuple):
    """The result of comparing jobs and requests; `strangers` fit no job."""

    pairs: list[Pair]
    left: list[Left]
    strangers: list[Request]


def match(jobs: Sequence[UnknownJob], requests: Sequence[Request]) -> Matching:
    """Pair jobs with requests that can't belong to any other job."""
    # By their numbers: which requests repeat the input of which job, and which could be its own.
    proven: list[list[int]] = []
    possible: list[list[int]] = []
    for job in jobs:
        found = {
            number: compare(job.model, job.input, request.result)
            for number, request in enumerate(requests)
            if _fits_in_time(job, request.created_at)
        }
        # A request that shows neither input nor time could be any job's: then none counts as not
        # bought.
        fitting = [number for number, one in found.items() if one.difference is None]
        possible.append(fitting)
        proven.append(
            [
                one
                for one in fitting
                if found[one].is_proven and requests[one].created_at is not None
            ]
        )
    paired: dict[int, int] = {}
    for group in _groups(proven):
        paired |= _pair_group(group, proven, jobs, requests)
    free = set(range(len(requests))).difference(paired.values())
    return Matching(
        [Pair(jobs[number], requests[other]) for number, other in sorted(paired.items())],
        [
            Left(job, _nearest(job, [requests[other] for other in fitting if other in free]))
            for number, (job, fitting) in enumerate(zip(jobs, possible, strict=True))
            if number not in paired
        ],
        [requests[other] for other in sorted(free.difference(*possible))],
    )


def _fits_in_time(job: UnknownJob, at: datetime | None) -> bool:
    return at is None or job.sent_at - CLOCK_TOLERANCE <= at <= job.lost_at + _LATEST


def _nearest(job: UnknownJob, requests: list[Request]) -> list[Request]:
    def distance(request: Request) -> timedelta:
        at = request.created_at
        return timedelta.max if at is None else abs(at - job.sent_at)

    return sorted(requests, key=distance)


def _groups(proven: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the jobs that compete for the same requests, together."""
    jobs_of: dict[int, list[int]] = {}
    for number, others in enumerate(proven):
        for other in others:
            jobs_of.setdefault(other, []).append(number)
    seen: set[int] = set()
    for number in range(len(proven)):
        group, waiting = [], [number]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                group.append(one)
                waiting += [job for other in proven[one] for job in jobs_of[other]]
        if group:
            yield sorted(group)


def _pair_group(
    group: Sequence[int],
    proven: Sequence[Sequence[int]],
    jobs: Sequence[UnknownJob],
    requests: Sequence[Request],
) -> dict[int, int]:
    """Pair competing jobs if it doesn't matter which gets which request.

    It doesn't if there is one job, or if all were sent with the same input, as repeats are. If
    there are more requests than jobs, a person must decide.
    """
    model, sent = jobs[group[0]].model, jobs[group[0]].input
    are_alike = all((jobs[one].model, jobs[one].input) == (model, sent) for one in group)
    wanted = {other for number in group for other in proven[number]}
    if not are_alike or len(wanted) > len(group):
        return {}
    paired: dict[int, int] = {}
    in_time = sorted(wanted, key=lambda other: (requests[other].created_at, other))
    for number in sorted(group, key=lambda one: jobs[one].sent_at):
        fitting = next((other for other in in_time if other in proven[number]), None)
        if fitting is not None:
            paired[number] = fitting
            in_time.remove(fitting)
    return {} if in_time else paired


class Listed(msgspec.Struct, kw_only=True):
    """The ids of a list, by what the service or a ledger knows about them.

    The service does not know the `gone` ones; of these, the `expired` ones look like ids.
    """

    known: dict[str, str]
    gone: list[str] = msgspec.field(default_factory=list)
    expired: list[str] = msgspec.field(default_factory=list)
    foreign: list[str] = msgspec.field(default_factory=list)
    unanswered: list[str] = msgspec.field(default_factory=list)


def _requests(answers: dict[str, Verdict]) -> Iterator[Request]:
    for request_id, verdict in answers.items():
        if verdict.result is not None or verdict.meaning in (Meaning.WAITING, Meaning.RUNNING):
            result = verdict.result or Result()
            yield Request(request_id=request_id, state=str(verdict.meaning), result=result)


def _sort_out(
    ids: Iterable[str], known: dict[str, KnownRequest], answers: dict[str, Verdict]
) -> Listed:
    listed = Listed(known={one: known[one].job for one in ids if one in known})
    for request_id, verdict in answers.items():
        is_no_id = verdict.meaning is Meaning.GONE or verdict.status in NOT_WELL_FORMED
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


def compare_list(
    jobs: Sequence[UnknownJob],
    ids: Sequence[str],
    known: dict[str, KnownRequest],
    answers: dict[str, Verdict],
) -> tuple[Matching, Span, Listed]:
    """Compare unknown jobs with the ids of a list, by what the service answered about each."""
    listed = _sort_out(ids, known, answers)
    matching = match(jobs, list(_requests(answers)))
    hidden = len(listed.unanswered) + len(listed.expired) + len(listed.foreign)
    return matching, _span(ids, known, matching, hidden), listed
