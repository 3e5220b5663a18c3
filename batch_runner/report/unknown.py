"""Unknown jobs as text: what was sent, and what a pasted list of requests shows about them.

Pure. What always holds: each job is shown with the name that commands take, and with the commands
that decide about it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from batch_runner.run.matching import Coverage, Left, Listed, Matching, Request, Span
from batch_runner.run.resolve import UnknownJob
from batch_runner.text.quantity import counted

_SHOWN = 10
_CANDIDATES = 3
_TIME = "%Y-%m-%d %H:%M:%S"


def unknown_text(jobs: Sequence[UnknownJob], command: str) -> str:
    """Return the unknown jobs in a form to compare with the service's Generations page."""
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
            " requests from the service's Generations page into a file, and compare it:"
            f"\n  {command} --match FILE"
            "\nOr decide yourself, by key, the 8 characters in brackets, a glob, or --all:"
            f"\n  {command} KEY --attach REQUEST_ID       it is on the page: collect it"
            f"\n  {command} KEY --resubmit --not-bought   it is not: buy it with the next run"
            f"\n  {command} KEY --abandon                 give it up; it counts as spent"
            f"\n  {command} KEY --abandon --not-bought    give it up; it was never bought"
        )
    abandoned = [
        f"  {one.job}  [{one.short}]  counts as {one.counted_usd} USD"
        for one in jobs
        if one.abandoned
    ]
    if abandoned:
        lines.append(f"\n{counted(len(abandoned), 'job')} abandoned:")
        lines += _first(abandoned)
        lines.append(
            "To bring one back, or to correct what it counts as:"
            f"\n  {command} KEY --resubmit | --attach REQUEST_ID | --abandon --not-bought"
        )
    return "\n".join(lines)


def match_text(matching: Matching, span: Span, listed: Listed, command: str) -> str:
    """Return which jobs were attached to which requests, and what to do about the others."""
    requests = len(matching.strangers) + len(matching.pairs)
    requests += len({one.request_id for left in matching.left for one in left.candidates})
    parts = [f"{counted(requests, 'request')} looked up"]
    parts += [f"{len(listed.known):,} of this batch already"] if listed.known else []
    parts += [f"{len(listed.gone):,} that the service does not know"] if listed.gone else []
    parts += [f"{len(listed.foreign):,} of another account"] if listed.foreign else []
    lines = [f"the list: {', '.join(parts)}"]
    if span.first is not None and span.last is not None and span.first <= span.last:
        lines.append(f"it covers {span.first:{_TIME}} to {span.last:{_TIME}} UTC")
    lines += _pair_lines(matching)
    lines += _left_lines(matching.left, span, command)
    lines += _stranger_lines(matching.strangers)
    if listed.foreign:
        lines.append(
            f"\n{counted(len(listed.foreign), 'request')} of another account: is the token the one"
            " of the account that ran this batch?"
        )
    if listed.expired:
        lines.append(
            f"\nthe service no longer knows {counted(len(listed.expired), 'id')} (it keeps results"
            f" about 7 days):\n  {', '.join(listed.expired[:_SHOWN])}"
        )
    if listed.unanswered:
        lines.append(
            f"\nthe service did not answer for {counted(len(listed.unanswered), 'id')}; run the"
            f" same command again later:\n  {', '.join(listed.unanswered[:_SHOWN])}"
        )
    return "\n".join(lines)


def _pair_lines(matching: Matching) -> list[str]:
    if not matching.pairs:
        return ["\nnothing was attached: no request in the list is certain to be an unknown job's"]
    names = _names([pair.job for pair in matching.pairs])
    wide = max(map(len, names.values()))
    return [
        f"\n{counted(len(matching.pairs), 'job')} attached; the next run collects them:",
        *(
            f"  {names[job.fingerprint]:<{wide}}  {request.request_id}"
            f"  sent {job.sent_at:{_TIME}}  {request.state}"
            for job, request in matching.pairs
        ),
    ]


_HEADINGS = {
    Coverage.COVERED: "not in the list, which covers the time they were sent: not bought",
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
    names = _names([one.job for one in left])
    lines = [f"\n{counted(len(left), 'job')} still unknown"]
    for coverage, heading in _HEADINGS.items():
        some = [one.job for one in left if not one.candidates and span.covers(one.job) is coverage]
        if not some:
            continue
        lines.append(f"  {heading}")
        lines += [_job_line(names, job) for job in some]
        if coverage is Coverage.COVERED:
            # By name, never --all: another job may have become unknown meanwhile.
            named = shlex.join([names[job.fingerprint] for job in some])
            lines.append(f"    {command} {named} --resubmit --not-bought")
    return lines + _candidate_lines([one for one in left if one.candidates], names, command)


def _candidate_lines(left: Sequence[Left], names: Mapping[str, str], command: str) -> list[str]:
    """Show the jobs with possible requests, which a person can tell apart on the page."""
    lines = []
    dated = [one for one in left if one.candidates[0].created_at is not None]
    undated = [one for one in left if one.candidates[0].created_at is None]
    if dated:
        lines.append("  these requests may be theirs or not: compare them with the page")
    for one in dated:
        attach = f"{command} {shlex.quote(names[one.job.fingerprint])} --attach"
        lines.append(_job_line(names, one.job))
        lines += [
            f"      {attach} {request.request_id}   {_made(request)}"
            for request in one.candidates[:_CANDIDATES]
        ]
    if undated:
        requests = {request.request_id for one in undated for request in one.candidates}
        lines.append(
            f"  {counted(len(requests), 'request')} of the list have not ended, and do not show yet"
            " what they are for: run the same command again later"
        )
        lines += [_job_line(names, one.job) for one in undated]
    return lines


def _stranger_lines(strangers: Sequence[Request]) -> list[str]:
    if not strangers:
        return []
    shown = [
        f"  {one.request_id}  ({_made(one)}"
        f"{f', {one.result.model_id}' if one.result.model_id else ''})"
        for one in strangers
    ]
    return [f"\n{counted(len(strangers), 'request')} fit no unknown job:", *_first(shown)]


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"  and {more:,} more"] if more > 0 else [])]


def _job_line(names: Mapping[str, str], job: UnknownJob) -> str:
    return f"    {names[job.fingerprint]}  sent {job.sent_at:{_TIME}}"


def _made(request: Request) -> str:
    at = request.created_at
    return f"{'no time' if at is None else f'made {at:{_TIME}}'}, {request.state}"


def _names(jobs: Sequence[UnknownJob]) -> dict[str, str]:
    """Return each job's name on the command line: its key, unless several jobs share it."""
    times = Counter(job.job for job in jobs)
    return {job.fingerprint: job.job if times[job.job] == 1 else job.short for job in jobs}
