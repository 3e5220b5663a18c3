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
from batch_runner.records import usd
from batch_runner.report.moment import Moment
from batch_runner.report.status import BY_URGENCY, needs_a_person
from batch_runner.text.quantity import duration_text, rate_text

_BAR_WIDTH = 40
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def screen_lines(moment: Moment, width: int, height: int) -> list[str]:
    """Return the lines that fit: how the batch stands, then the last failures."""
    lines = [f"{moment.name} · {moment.model}", _run_text(moment), _bar(moment, width), ""]
    lines += [f"  {_name(one):<10}{moment.count(one):>9,}" for one in BY_URGENCY[::-1]]
    lines += ["", f"  {_money_text(moment)}"]
    if pace := _pace(moment):
        lines.append(f"  {', '.join(pace)}")
    lines += moment.notes
    foot = ["", f"output: {moment.output}", "Ctrl-C leaves this view; a run goes on without it"]
    room = height - len(lines) - len(foot) - 2
    if moment.failures and room > 0:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in moment.reasons.items())
        lines += ["", f"last failures ({reasons})"]
        lines += [
            f"  {_clock_time(one.at, moment.at)} {one.state:<8}{one.job}: {one.what}"
            for one in moment.failures[:room]
        ]
    return [cut_to_width(_CONTROL.sub("�", line), width) for line in [*lines, *foot]][:height]


def moment_line(moment: Moment) -> str:
    """Return how a batch stands in one line, for logs and pipes."""
    counts = [
        f"{moment.count(one):,} {_name(one)}"
        for one in BY_URGENCY
        if one is not Standing.DONE and moment.count(one)
    ]
    parts = [f"{moment.name}: {moment.done:,}/{moment.jobs:,} done", *counts, *_pace(moment)]
    return ", ".join([*parts, usd(moment.cost_usd), _state_text(moment)])


def _state_text(moment: Moment) -> str:
    if moment.is_draining:
        return "stopping"
    if moment.is_at_work:
        return "running"
    if not moment.runs:
        return "no run yet"
    if moment.stopped:
        return f"stopped: {moment.stopped}"
    return "ended, and needs you" if _needed(moment) else "finished"


def _needed(moment: Moment) -> str:
    """Return how many jobs need a person; "" if none does."""
    needed = [one for one in BY_URGENCY if needs_a_person(one) and moment.count(one)]
    return ", ".join(f"{moment.count(one):,} {_name(one)}" for one in needed)


def _name(standing: Standing) -> str:
    return standing.replace("_", " ")


def _run_text(moment: Moment) -> str:
    at_work = [run for run in moment.runs if run.is_at_work]
    if not moment.runs:
        return "nothing was run here yet; waiting for a run"
    if at_work:
        since = duration_text((moment.at - min(run.began_at for run in at_work)).total_seconds())
        who = ", ".join(f"pid {run.pid} on {run.host}" for run in at_work[:3])
        return f"{_state_text(moment)}, begun {since} ago by {who}"
    last = max(moment.runs, key=lambda run: run.began_at)
    ended = "" if last.ended_at is None else f", {_clock_time(last.ended_at, moment.at)}"
    if last.stopped == "killed":
        return "the last run was killed; run it again, nothing is lost"
    if last.stopped is not None:
        return f"the last run stopped: {last.stopped}{ended}"
    if needed := _needed(moment):
        return f"{needed}: the last run left them for you{ended}"
    return f"the last run did all it could{ended}"


def _bar(moment: Moment, width: int) -> str:
    # Rounded down, and without failed jobs, so that nothing looks finished before it is.
    settled = moment.done + moment.cancelled
    share = settled / moment.jobs if moment.jobs else 0.0
    text = f" {int(share * 100)} %  {settled:,} of {moment.jobs:,}"
    room = max(0, min(_BAR_WIDTH, width - len(text)))
    return "█" * int(share * room) + "░" * (room - int(share * room)) + text


def _pace(moment: Moment) -> list[str]:
    pace = [rate_text(moment.rate_per_s)] if moment.rate_per_s else []
    if moment.left_s is not None:
        ends = moment.at + timedelta(seconds=min(moment.left_s, 10 * 365 * 86400))
        pace.append(f"{duration_text(moment.left_s)} left, until {_clock_time(ends, moment.at)}")
    return pace


def _money_text(moment: Moment) -> str:
    spent = f"spent {usd(moment.cost_usd)}"
    if moment.budget_usd is not None:
        spent += f" of {usd(moment.budget_usd)}"
    if moment.reserved_usd:
        spent += f", reserved {usd(moment.reserved_usd)}"
    if moment.runs and moment.cost_usd != moment.run_cost_usd:
        spent += f", {usd(moment.run_cost_usd)} in this run"
    return spent


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
