"""How a batch stands, as a screen full of text.

Pure: a Moment and the size of a terminal in, lines out. What always holds: the lines fit the
terminal, in width and number; no text of a service or a manifest moves the cursor.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta
from itertools import accumulate

from batch_runner.ledger.job import Standing
from batch_runner.report.moment import Moment
from batch_runner.report.status import needs_a_person
from batch_runner.text.quantity import duration_text, rate_text

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def screen_lines(status: str, moment: Moment, width: int, height: int) -> list[str]:
    """Return the lines that fit: a status as text, what a moment adds, the last failures."""
    lines = [*status.split("\n"), _state_text(moment), *moment.notes]
    if moment.is_at_work:
        who = ", ".join(f"pid {run.pid} on {run.host}" for run in moment.runs if run.is_at_work)
        lines.append(", ".join([who, *_pace(moment)]))
    foot = ["", "Ctrl-C leaves this view; a run goes on without it"]
    room = height - len(lines) - len(foot) - 2
    if moment.failures and room > 0:
        lines += ["", "last failures"]
        lines += [
            f"  {_clock_time(one.at, moment.at)} {one.state:<8}{one.job}: {one.what}"
            for one in moment.failures[:room]
        ]
    lines = [*lines[: height - len(foot)], *foot][:height]
    return [cut_to_width(_CONTROL.sub("�", line), width) for line in lines]


def _state_text(moment: Moment) -> str:
    if moment.is_draining:
        return "stopping"
    if moment.is_at_work:
        return "running"
    if not moment.runs:
        return "no run yet"
    if moment.stopped == "killed":
        return "the last run was killed; run it again, nothing is lost"
    if moment.stopped:
        return f"the last run stopped: {moment.stopped}"
    needed = any(needs_a_person(one) and moment.count(one) for one in Standing)
    return "the last run ended, and left jobs for you" if needed else "finished"


def _pace(moment: Moment) -> list[str]:
    pace = [rate_text(moment.rate_per_s)] if moment.rate_per_s else []
    if moment.left_s is not None:
        ends = moment.at + timedelta(seconds=min(moment.left_s, 10 * 365 * 86400))
        pace.append(f"{duration_text(moment.left_s)} left, until {_clock_time(ends, moment.at)}")
    return pace


def _clock_time(at: datetime, now: datetime) -> str:
    """Return a time in this machine's zone, with its day if that is another."""
    here = at.astimezone()
    if here.date() == now.astimezone().date():
        return f"{here:%H:%M:%S}"
    return f"{here:%a %H:%M}" if abs(at - now) < timedelta(days=6) else f"{here:%Y-%m-%d}"


def cut_to_width(text: str, width: int) -> str:
    """Return as much of a text as fits, with an ellipsis if something is missing."""
    columns = list(accumulate(map(_columns, text)))
    if not columns or columns[-1] <= width:
        return text
    return text[: sum(used < width for used in columns)] + "…"


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
