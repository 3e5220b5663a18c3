"""Pairs unknown jobs with the requests of a pasted list. Pure.

Hides how ids are found in any text, and when a request belongs to a job. What always holds: a
request is paired with at most one job, and a job with at most one request; a request is paired only
if it repeats the job's prompt and pictures, and only if no different job could be meant. Not
promised: that a job without a pair was not bought; `Coverage` says whether the list would show it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from batch_runner.records import digest, is_request_id
from batch_runner.run.resolve import CLOCK_TOLERANCE, UNANSWERED, KnownRequest, UnknownJob
from batch_runner.service.answer import Meaning, Result, Verdict
from batch_runner.service.echo import compare

# A POST is given up after a minute, and two clocks may differ.
_LATEST = timedelta(minutes=10)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_LETTER = re.compile(r"[A-Za-z0-9]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:T|$)")
_LEAST_CHARACTERS = 8
_SURE_CHARACTERS = 16

NOT_WELL_FORMED = (400, 422)
"""How the service rejects words that are no ids."""


def request_ids_in(text: str) -> list[str]:
    """Return the possible request ids in a text, each once, in order.

    An id is a word alone on its line, or a long word with a digit that is neither a date nor a
    plain number.
    """
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = _WORD.findall(line)
        for word in words:
            if is_request_id(word) and (len(words) == 1 or _is_long_id(word)):
                found[word] = None
    return list(found)


def look_like_ids(words: Iterable[str], ids: Iterable[str]) -> list[str]:
    """Return the words that have the form of some ids; a model's name in the list has another."""
    forms = {_LETTER.sub("x", one) for one in ids}
    if not forms:
        return [one for one in words if len(one) >= _SURE_CHARACTERS]
    return [one for one in words if _LETTER.sub("x", one) in forms]


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
    """Pair jobs with requests that can't belong to any other job.

    Jobs that were sent with the same input, as repeats are, may get each other's requests. If there
    are more requests than such jobs, or one also repeats another input, a person must decide.
    """
    kinds: defaultdict[str, list[UnknownJob]] = defaultdict(list)
    for job in jobs:
        kinds[digest([job.model, job.input])].append(job)
    possible: dict[str, list[Request]] = {}
    proven: dict[str, list[Request]] = {}
    for kind, alike in kinds.items():
        found = [(one, compare(alike[0].model, alike[0].input, one.result)) for one in requests]
        # A request that shows neither input nor time could be any job's: then none counts as not
        # bought.
        fitting = [one for one, compared in found if compared.difference is None]
        for job in alike:
            possible[job.fingerprint] = [one for one in fitting if _fits_in_time(job, one)]
        in_time = {one.request_id for job in alike for one in possible[job.fingerprint]}
        proven[kind] = [
            one
            for one, compared in found
            if compared.is_proven and one.created_at is not None and one.request_id in in_time
        ]
    times = Counter(one.request_id for found_ in proven.values() for one in found_)
    paired: dict[str, Request] = {}
    for kind, alike in kinds.items():
        if all(times[one.request_id] == 1 for one in proven[kind]):
            paired |= _paired(alike, proven[kind])
    taken = {one.request_id for one in paired.values()}
    some = {one.request_id for found_ in possible.values() for one in found_}
    return Matching(
        [Pair(job, paired[job.fingerprint]) for job in jobs if job.fingerprint in paired],
        [
            Left(job, _nearest(job, possible[job.fingerprint], taken))
            for job in jobs
            if job.fingerprint not in paired
        ],
        [one for one in requests if one.request_id not in taken | some],
    )


def _paired(alike: Sequence[UnknownJob], requests: Sequence[Request]) -> dict[str, Request]:
    """Give equal jobs their requests in order of time; none if a request is left over."""
    paired: dict[str, Request] = {}
    left = sorted(requests, key=lambda one: (one.created_at, one.request_id))
    for job in sorted(alike, key=lambda one: one.sent_at):
        fitting = next((one for one in left if _fits_in_time(job, one)), None)
        if fitting is not None:
            paired[job.fingerprint] = fitting
            left.remove(fitting)
    return {} if left else paired


def _fits_in_time(job: UnknownJob, request: Request) -> bool:
    at = request.created_at
    return at is None or job.sent_at - CLOCK_TOLERANCE <= at <= job.lost_at + _LATEST


def _nearest(job: UnknownJob, requests: list[Request], taken: set[str]) -> list[Request]:
    """Return the requests that are no other job's, the nearest in time first."""

    def distance(request: Request) -> timedelta:
        at = request.created_at
        return timedelta.max if at is None else abs(at - job.sent_at)

    return sorted((one for one in requests if one.request_id not in taken), key=distance)


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
