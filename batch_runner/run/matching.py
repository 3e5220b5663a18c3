"""Which of the service's requests are those of unknown jobs: a pasted list, paired with jobs. Pure.

Hides how ids are found in any text, and what a pair needs. What always holds: a request is paired
with one job at most, and a job with one request; only a request that repeats the job's prompt and
pictures is paired, and never one that could be a different job's. Not promised: that a job without
a pair was not bought; `Coverage` says whether the list would show it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from batch_runner.records import is_request_id
from batch_runner.run.resolve import CLOCK_TOLERANCE, UnknownJob
from batch_runner.service.answer import Result
from batch_runner.service.echo import compare

# A POST is given up after a minute, and two clocks may differ.
_LATEST = timedelta(minutes=10)
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:T|$)")
_LEAST_CHARACTERS = 8
_SURE_CHARACTERS = 16


def request_ids_in(text: str, known: Collection[str] = ()) -> list[str]:
    """Return what may be request ids in a text, each once, in order.

    That is a word alone on its line, a word of the form of a `known` id, or a long one that holds a
    digit, but no date and no plain number.
    """
    forms = {_form(one) for one in known}
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = _WORD.findall(line)
        for word in words:
            if is_request_id(word) and (
                len(words) == 1 or _looks_like_id(word) or _has_form(word, forms)
            ):
                found[word] = None
    return list(found)


def look_like_ids(words: Sequence[str], ids: Iterable[str]) -> list[str]:
    """Return the words of the form of some ids; if there are no ids to compare with, long ones."""
    forms = {_form(one) for one in ids}
    if not forms:
        return [word for word in words if len(word) >= _SURE_CHARACTERS]
    return [word for word in words if _has_form(word, forms)]


def _has_form(word: str, forms: Collection[str]) -> bool:
    return _form(word) in forms and any(character.isdigit() for character in word)


def _form(word: str) -> str:
    return re.sub(r"[0-9A-Za-z]", "x", word)


def _looks_like_id(word: str) -> bool:
    has_digit = any(character.isdigit() for character in word)
    is_number = not any(character.isalpha() for character in word)
    least = _SURE_CHARACTERS if is_number else _LEAST_CHARACTERS
    return has_digit and len(word) >= least and not _DATE.match(word)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the service shows it."""

    request_id: str
    state: str
    result: Result

    @property
    def created_at(self) -> datetime | None:
        """Return when it was made, or None if the service does not say."""
        return read_time(self.result.created_at)


def read_time(text: str | None) -> datetime | None:
    """Read a time of the service, in UTC if it names no zone; None if there is none."""
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
    """Between which times one request of a list was made."""

    earliest: datetime
    latest: datetime

    @classmethod
    def by_service(cls, at: datetime) -> Moments:
        """Take a time of the service, whose clock may differ from ours."""
        return cls(at - CLOCK_TOLERANCE, at + CLOCK_TOLERANCE)


class Span(NamedTuple):
    """The time that a list shows for certain. `gaps` counts known requests that it lacks there."""

    first: datetime | None = None
    last: datetime | None = None
    gaps: int = 0
    unanswered: int = 0

    @classmethod
    def of(
        cls, listed: Iterable[Moments], missing: Iterable[Moments], *, unanswered: int = 0
    ) -> Span:
        """Take the times of what is listed, and of known requests that are not."""
        listed = list(listed)
        if not listed:
            return cls()
        first = min(one.latest for one in listed)
        last = max(one.earliest for one in listed)
        gaps = sum(first < one.earliest and one.latest < last for one in missing)
        return cls(first, last, gaps, unanswered)

    def covers(self, job: UnknownJob) -> Coverage:
        """Tell whether the list would show the job's request, if there was one."""
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
    """A job, and the request that is its own."""

    job: UnknownJob
    request: Request


class Left(NamedTuple):
    """A job without a pair, and the requests that could be its own."""

    job: UnknownJob
    candidates: list[Request]


class Matching(NamedTuple):
    """What became of jobs and requests; `strangers` fit no job."""

    pairs: list[Pair]
    left: list[Left]
    strangers: list[Request]


def match(jobs: Sequence[UnknownJob], requests: Sequence[Request]) -> Matching:
    """Pair jobs with the requests that can only be their own."""
    times = [request.created_at for request in requests]
    told: dict[int, list[int]] = {number: [] for number in range(len(jobs))}
    possible: dict[int, list[int]] = {number: [] for number in range(len(jobs))}
    for number, job in enumerate(jobs):
        for other, request in enumerate(requests):
            if not _fits_in_time(job, times[other]):
                continue
            found = compare(job.model, job.input, request.result)
            if found.difference is not None:
                continue
            if found.is_proven and times[other] is not None:
                told[number].append(other)
            # What shows neither input nor time could be any job's: none counts as not bought then.
            possible[number].append(other)
    paired: dict[int, int] = {}
    for group in _groups(told):
        paired |= _pair_group(group, told, jobs, requests)
    taken = set(paired.values())
    left = [
        Left(
            job,
            _nearest(job, [requests[other] for other in possible[number] if other not in taken]),
        )
        for number, job in enumerate(jobs)
        if number not in paired
    ]
    fitting = {other for others in possible.values() for other in others}
    return Matching(
        [Pair(jobs[number], requests[other]) for number, other in sorted(paired.items())],
        left,
        [request for other, request in enumerate(requests) if other not in fitting],
    )


def _nearest(job: UnknownJob, requests: list[Request]) -> list[Request]:
    """Return requests by their time, those that are nearest to the job's first."""

    def distance(request: Request) -> timedelta:
        at = request.created_at
        return timedelta.max if at is None else abs(at - job.sent_at)

    return sorted(requests, key=distance)


def _fits_in_time(job: UnknownJob, at: datetime | None) -> bool:
    return at is None or job.sent_at - CLOCK_TOLERANCE <= at <= job.lost_at + _LATEST


def _groups(told: dict[int, list[int]]) -> Iterable[list[int]]:
    """Yield the jobs that compete for the same requests, together."""
    jobs_of: dict[int, list[int]] = {}
    for number, others in told.items():
        for other in others:
            jobs_of.setdefault(other, []).append(number)
    seen: set[int] = set()
    for number in told:
        group, waiting = [], [number]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                group.append(one)
                waiting += [job for other in told[one] for job in jobs_of[other]]
        if group:
            yield sorted(group)


def _pair_group(
    group: list[int],
    told: dict[int, list[int]],
    jobs: Sequence[UnknownJob],
    requests: Sequence[Request],
) -> dict[int, int]:
    """Pair jobs that compete for requests: only if it does not matter which gets which.

    So it is if there is one job; or if all were sent the same, as repeats are. More requests than
    jobs are left to a person.
    """
    wanted = {other for number in group for other in told[number]}
    first = jobs[group[0]]
    alike = all((jobs[one].model, jobs[one].input) == (first.model, first.input) for one in group)
    if len(wanted) > len(group) or not alike:
        return {}
    paired: dict[int, int] = {}
    in_time = sorted(wanted, key=lambda other: (requests[other].created_at, other))
    for number in sorted(group, key=lambda one: jobs[one].sent_at):
        for other in in_time:
            if other in told[number]:
                paired[number] = other
                in_time.remove(other)
                break
    return {} if in_time else paired
