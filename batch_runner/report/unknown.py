"""Unknown jobs as text: what was sent, and which requests of a pasted list are theirs.

Pure. What always holds: each job is shown with the name that commands take, and with the commands
that decide about it; no text claims that a job was not bought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from batch_runner.run.resolve import TIME, UnknownJob
from batch_runner.text.quantity import counted

_SHOWN = 10


def unknown_text(jobs: Sequence[UnknownJob], command: str) -> str:
    """Return the unknown jobs in a form to compare with the service's Generations page."""
    unknown = [one for one in jobs if not one.abandoned]
    lines = ["no job is unknown"] if not unknown else []
    for one in unknown:
        lines.append(f"{one.job}  sent {one.sent_at:{TIME}} UTC to {one.model}  [{one.short}]")
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


def match_text(
    jobs: Sequence[UnknownJob],
    paired: Mapping[str, str],
    counts: Mapping[str, int],
    times: Sequence[datetime],
    command: str,
) -> str:
    """Return which jobs were attached to which requests, and how to decide about the others.

    `paired` is the request of each attached job, by its fingerprint; `counts` says how many ids of
    the list are what, `times` when its other requests were made, in order.
    """
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    lines = [f"ids in the list: {', '.join(parts)}"]
    if times:
        lines.append(f"its requests were made from {times[0]:{TIME}} to {times[-1]:{TIME}} UTC")
    attached = [
        f"  {one.job}  [{one.short}]  {paired[one.fingerprint]}"
        for one in jobs
        if one.fingerprint in paired
    ]
    if attached:
        lines.append(f"\n{counted(len(attached), 'job')} attached; the next run collects them:")
        lines += attached
    else:
        lines.append("\nnothing was attached: no id is certain to be an unknown job's request")
    left = [
        f"  {one.job}  [{one.short}]  sent {one.sent_at:{TIME}} UTC"
        for one in jobs
        if one.fingerprint not in paired
    ]
    if not left:
        return "\n".join([*lines, "\nno job is unknown any more"])
    lines.append(f"\n{counted(len(left), 'job')} still unknown:")
    lines += _first(left)
    lines.append(
        "Each may have been bought all the same: the list may not cover the time it was sent, or"
        " not show what a request is for. Compare prompt and time with the page, and decide:"
        f"\n  {command}"
    )
    return "\n".join(lines)


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"  and {more:,} more"] if more > 0 else [])]
