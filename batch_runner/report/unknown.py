"""Unknown jobs as text: what was sent, and what a pasted list of requests says about them.

Pure. What always holds: every job is shown with the name that settles it, and with the command.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from batch_runner.run.matching import Coverage, Left, Matching, Request, Span
from batch_runner.run.resolve import UnknownJob
from batch_runner.text.quantity import counted

_SHOWN = 10
_CANDIDATES = 3
_TIME = "%Y-%m-%d %H:%M:%S"


def unknown_text(jobs: Sequence[UnknownJob], command: str) -> str:
    """Return the unknown jobs as they can be compared with the service's Generations page."""
    unknown = [one for one in jobs if not one.abandoned]
    lines = ["no job is unknown"] if not unknown else []
    for one in unknown:
        lines.append(f"{one.job}  sent {one.sent_at:{_TIME}} UTC to {one.model}  [{one.short}]")
        lines.append(f"  why: {one.why}")
        for name, value in one.input.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"  {name}: {shown}")
    if unknown:
        lines.append(
            f"\n{counted(len(unknown), 'job')} may or may not have been bought. Copy the list of"
            " requests from the service's Generations page into a file, and have it compared:"
            f"\n  {command} --match FILE"
            "\nOr decide yourself, with a key, the 8 characters in brackets, a glob, or --all:"
            f"\n  {command} KEY --attach REQUEST_ID       it is on the page: collect it"
            f"\n  {command} KEY --resubmit --not-bought   it is not: buy it with the next run"
            f"\n  {command} KEY --abandon                 give it up; it counts as spent"
            f"\n  {command} KEY --abandon --not-bought    give it up; it was never bought"
        )
    lines += _abandoned_lines([one for one in jobs if one.abandoned], command)
    return "\n".join(lines)


def _abandoned_lines(jobs: Sequence[UnknownJob], command: str) -> list[str]:
    if not jobs:
        return []
    lines = [f"\n{counted(len(jobs), 'job')} abandoned:"]
    lines += [
        f"  {one.job}  [{one.short}]  counts as {one.counted_usd} USD" for one in jobs[:_SHOWN]
    ]
    if len(jobs) > _SHOWN:
        lines.append(f"  and {len(jobs) - _SHOWN:,} more")
    lines.append(
        "To bring one back, or to correct what it counts as:"
        f"\n  {command} KEY --resubmit | --attach REQUEST_ID | --abandon --not-bought"
    )
    return lines


class Listed(msgspec.Struct, kw_only=True):
    """What a list of request ids held, by what the service or a ledger says about each.

    `gone` are those that the service does not know; `expired` those of them that look like ids.
    """

    known: dict[str, str]
    gone: list[str] = msgspec.field(default_factory=list)
    expired: list[str] = msgspec.field(default_factory=list)
    foreign: list[str] = msgspec.field(default_factory=list)
    unanswered: list[str] = msgspec.field(default_factory=list)


def match_text(
    matching: Matching, span: Span, listed: Listed, command: str, *, is_dry: bool = False
) -> str:
    """Return which jobs were attached to which requests, and what to do about the others."""
    requests = len(matching.strangers) + len(matching.pairs)
    requests += len({one.request_id for left in matching.left for one in left.candidates})
    parts = [f"{counted(requests, 'request')} looked up"]
    parts += [f"{len(listed.known):,} of this batch already"] if listed.known else []
    parts += [f"{len(listed.gone):,} that the service does not know"] if listed.gone else []
    parts += [f"{len(listed.foreign):,} of another account"] if listed.foreign else []
    lines = [f"the list: {', '.join(parts)}"]
    if span.first is not None and span.last is not None and span.first <= span.last:
        lines.append(f"it shows {span.first:{_TIME}} to {span.last:{_TIME}} UTC")
    lines += _pair_lines(matching, is_dry=is_dry)
    lines += _left_lines(matching.left, span, command)
    lines += _stranger_lines(matching.strangers)
    if listed.foreign:
        lines.append(
            f"\n{counted(len(listed.foreign), 'request')} of another account: is the token"
            " the one of the account that ran this batch?"
        )
    if listed.expired:
        lines.append(
            f"\n{counted(len(listed.expired), 'id')} the service no longer knows (it keeps results"
            f" about 7 days):\n  {', '.join(listed.expired[:_SHOWN])}"
        )
    if listed.unanswered:
        lines.append(
            f"\n{counted(len(listed.unanswered), 'id')} got no answer from the service: run the"
            f" same command again later\n  {', '.join(listed.unanswered[:_SHOWN])}"
        )
    return "\n".join(lines)


def _pair_lines(matching: Matching, *, is_dry: bool) -> list[str]:
    if not matching.pairs:
        return ["\nno request of the list can only be an unknown job's: nothing was attached"]
    what = "would be attached" if is_dry else "attached; the next run collects them"
    lines = [f"\n{counted(len(matching.pairs), 'job')} {what}:"]
    names = names_of([pair.job for pair in matching.pairs])
    wide = max(map(len, names))
    for name, (job, request) in zip(names, matching.pairs, strict=True):
        sent = f"sent {job.sent_at:{_TIME}}"
        lines.append(f"  {name:<{wide}}  {request.request_id}  {sent}  {request.state}")
    return lines


_HEADINGS = {
    Coverage.COVERED: "not in the list, which shows the time they were sent: they were not bought",
    Coverage.BEFORE: "sent before the list begins: copy an older part of the page as well",
    Coverage.AFTER: "sent after the list ends, or just then: copy a newer part of the page as well",
    Coverage.GAPS: "not in the list, but it lacks other requests of this batch from that time:"
    " copy all of the page",
    Coverage.UNANSWERED: "not found, but the service does not show every request of the list:"
    " one of those may be theirs",
    Coverage.NOTHING: "not in the list, which shows no time",
}


def _left_lines(left: Sequence[Left], span: Span, command: str) -> list[str]:
    if not left:
        return ["\nno job is unknown any more"]
    jobs = [one.job for one in left]
    names = dict(zip([job.fingerprint for job in jobs], names_of(jobs), strict=True))
    lines = [f"\n{counted(len(left), 'job')} still unknown"]
    for coverage, heading in _HEADINGS.items():
        some = [one.job for one in left if not one.candidates and span.covers(one.job) is coverage]
        if not some:
            continue
        lines.append(f"  {heading}")
        lines += [_job_line(names[job.fingerprint], job.sent_at) for job in some]
        if coverage is Coverage.COVERED:
            # By their names, never --all: another job may have become unknown meanwhile.
            named = shlex.join([names[job.fingerprint] for job in some])
            lines.append(f"    {command} {named} --resubmit --not-bought")
    return lines + _candidate_lines([one for one in left if one.candidates], names, command)


def _candidate_lines(left: Sequence[Left], names: dict[str, str], command: str) -> list[str]:
    """Show the jobs that requests may belong to: a person can tell them apart on the page."""
    lines = []
    dated = [one for one in left if one.candidates[0].created_at is not None]
    undated = [one for one in left if one.candidates[0].created_at is None]
    if dated:
        lines.append("  requests may be theirs, or others': compare them with the page")
    for one in dated:
        name = names[one.job.fingerprint]
        lines.append(_job_line(name, one.job.sent_at))
        lines += [
            f"      {command} {shlex.quote(name)} --attach {request.request_id}   {_made(request)}"
            for request in one.candidates[:_CANDIDATES]
        ]
    if undated:
        requests = dict.fromkeys(
            request.request_id for one in undated for request in one.candidates
        )
        lines.append(
            f"  {counted(len(requests), 'request')} of the list have not ended, and do not show yet"
            " what they are for: run the same command again later"
        )
        lines += [_job_line(names[one.job.fingerprint], one.job.sent_at) for one in undated]
    return lines


def _job_line(name: str, sent_at: datetime) -> str:
    return f"    {name}  sent {sent_at:{_TIME}}"


def _stranger_lines(strangers: Sequence[Request]) -> list[str]:
    if not strangers:
        return []
    lines = [f"\n{counted(len(strangers), 'request')} fit no unknown job:"]
    for request in strangers[:_SHOWN]:
        model = f", {request.result.model_id}" if request.result.model_id else ""
        lines.append(f"  {request.request_id}  ({_made(request)}{model})")
    if len(strangers) > _SHOWN:
        lines.append(f"  and {len(strangers) - _SHOWN:,} more")
    return lines


def _made(request: Request) -> str:
    at = request.created_at
    return f"{'no time' if at is None else f'made {at:{_TIME}}'}, {request.state}"


def names_of(jobs: Sequence[UnknownJob]) -> list[str]:
    """Return what names each job on the command line: its key, unless several have it."""
    times = Counter(job.job for job in jobs)
    return [job.job if times[job.job] == 1 else job.short for job in jobs]
