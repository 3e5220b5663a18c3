"""A batch as it stands this moment, as a screen full of text.

Pure: a Moment and the size of a terminal in, lines out. What always holds: no line is wider than
the terminal and there are no more of them than it has; nothing that a service or a manifest says
moves the cursor; it reads the same without colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from batch_runner.records import usd
from batch_runner.text.quantity import duration_text, rate_text, size_text

if TYPE_CHECKING:
    from batch_runner.report.live import Moment, Picture, RunSeen

_WIDE = 64
_COLUMN = 22
_BAR_WIDTH = 40
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLOURS = {"good": "32", "bad": "31", "doubt": "33", "faint": "2", "strong": "1"}
_COUNTS = ("done", "in_flight", "pending", "failed", "unknown", "cancelled")
_FOR_A_PERSON = ("failed", "unknown")
_TONES = {"failed": "bad", "unknown": "doubt", "done": "good"}


class Size(NamedTuple):
    """A terminal's size, and whether it takes colours."""

    width: int
    height: int
    colours: bool


def screen_lines(moment: Moment, pictures: Sequence[Picture], size: Size) -> list[str]:
    """Return what fits: how it stands first, then the last failures and pictures."""
    paint = _Paint(size)
    head = [
        paint.line(("strong", moment.name), ("faint", f" · {moment.model}")),
        paint.line(*_run_words(moment)),
        _bar(moment, paint),
        "",
        *_figures(moment, paint),
    ]
    foot = ["", paint.line(("faint", f"output: {moment.output}"))]
    goes_on = "; the run goes on" if any(run.is_at_work for run in moment.runs) else ""
    foot += [paint.line(("faint", f"Ctrl-C leaves this view{goes_on}"))]
    room = size.height - len(head) - len(foot) - len(moment.notes)
    notes = [paint.line(("doubt", note)) for note in moment.notes]
    return [*head, *notes, *_news(moment, pictures, paint, room), *foot][: size.height]


def moment_line(moment: Moment) -> str:
    """Return how a batch stands in one line, for logs and pipes."""
    parts = [f"{moment.name}: {moment.done:,}/{moment.jobs:,} done"]
    for name in _in_order(moment, _COUNTS[1:]):
        count = getattr(moment, name)
        if count:
            parts.append(f"{count:,} {name.replace('_', ' ')}")
    if moment.rate_per_s:
        parts.append(rate_text(moment.rate_per_s))
    if moment.left_s is not None:
        parts.append(f"{duration_text(moment.left_s)} left")
    parts.append(usd(moment.cost_usd))
    return ", ".join([*parts, _state_words(moment)])


def _state_words(moment: Moment) -> str:
    if moment.is_draining:
        return "stopping"
    if moment.is_at_work:
        return "running"
    if not moment.runs:
        return "no run yet"
    if moment.stopped:
        return f"stopped: {moment.stopped}"
    return "ended, and needs you" if _needed(moment) else "finished"


def _in_order(moment: Moment, names: Sequence[str]) -> list[str]:
    """Return the names of counts, those first that need a person."""
    return sorted(names, key=lambda name: not (name in _FOR_A_PERSON and getattr(moment, name)))


def _needed(moment: Moment) -> str:
    """Return how many jobs need a person; "" if none does."""
    counts = ((name, getattr(moment, name)) for name in _FOR_A_PERSON)
    return ", ".join(f"{count:,} {name}" for name, count in counts if count)


def _run_words(moment: Moment) -> list[tuple[str, str]]:
    if not moment.runs:
        return [("faint", "nothing was run here yet; waiting for a run")]
    at_work = [run for run in moment.runs if run.is_at_work]
    if at_work:
        since = duration_text((moment.at - min(run.began_at for run in at_work)).total_seconds())
        who = _who(at_work)
        if moment.is_draining:
            return [("doubt", "stopping"), ("", f" since asked, {since}"), ("faint", f" · {who}")]
        return [("good", "running"), ("", f" {since}"), ("faint", f" · {who}")]
    last = max(moment.runs, key=lambda run: run.began_at)
    ended = "" if last.ended_at is None else f", {_clock_time(last.ended_at, moment.at)}"
    if last.stopped == "killed":
        return [("bad", "the last run was killed"), ("", "; run it again, nothing is lost")]
    if last.stopped is not None:
        return [("doubt", f"the last run stopped: {last.stopped}"), ("", ended)]
    if _needed(moment):
        return [("bad", f"{_needed(moment)}: the last run left them for you"), ("", ended)]
    return [("good", "the last run did all it could"), ("", ended)]


def _who(at_work: Sequence[RunSeen]) -> str:
    if len(at_work) > 1:
        return f"{len(at_work)} runs at work"
    return f"pid {at_work[0].pid} on {at_work[0].host}"


def _bar(moment: Moment, paint: _Paint) -> str:
    well = moment.done + moment.cancelled
    share = well / moment.jobs if moment.jobs else 0.0
    # Rounded down, and without what failed: nothing looks finished before it is.
    words = f" {int(share * 100)} %  {well:,} of {moment.jobs:,}"
    width = max(0, min(_BAR_WIDTH, paint.size.width - len(words) - 2))
    eighths = int(share * width * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return paint.line(("good", bar), ("faint", "░" * (width - len(bar))), ("", words))


def _figures(moment: Moment, paint: _Paint) -> list[str]:
    counts = [
        (_TONES.get(name, "") if getattr(moment, name) else "faint", _count(moment, name))
        for name in _in_order(moment, _COUNTS)
    ]
    pace = ["rate", "left", "ends"], _pace_values(moment)
    money = ["spent", "reserved", "this run"], _money_values(moment)
    labelled = [
        [(name, value) for name, value in zip(*pair, strict=True) if value]
        for pair in (pace, money)
    ]
    if paint.size.width < _WIDE:
        rows = [
            paint.line(("", f"  {name:<10}{value}")) for group in labelled for name, value in group
        ]
        return [*(paint.line(count) for count in counts), *rows]
    columns = [
        [f"{name:<6}{value}" for name, value in labelled[0]],
        [f"{name:<10}{value}" for name, value in labelled[1]],
    ]
    lines = []
    for number, (tone, count) in enumerate(counts):
        cells = [column[number] if number < len(column) else "" for column in columns]
        lines.append(
            paint.line((tone, f"{count:<{_COLUMN}}"), ("", f"{cells[0]:<{_COLUMN}}{cells[1]}"))
        )
    return lines


def _count(moment: Moment, name: str) -> str:
    return f"  {name.replace('_', ' '):<10}{getattr(moment, name):>7,}"


def _pace_values(moment: Moment) -> list[str]:
    rate = rate_text(moment.rate_per_s) if moment.rate_per_s else ""
    if moment.left_s is None:
        return [rate, "", ""]
    ends = moment.at + timedelta(seconds=min(moment.left_s, 10 * 365 * 86400))
    return [rate, duration_text(moment.left_s), f"about {_clock_time(ends, moment.at)}"]


def _money_values(moment: Moment) -> list[str]:
    spent = usd(moment.cost_usd)
    if moment.budget_usd is not None:
        spent = f"{spent.removesuffix(' USD')} of {usd(moment.budget_usd)}"
    reserved = usd(moment.reserved_usd) if moment.reserved_usd else ""
    this_run = usd(moment.run_cost_usd) if moment.runs else ""
    return [spent, reserved, this_run if moment.cost_usd != moment.run_cost_usd else ""]


def _news(moment: Moment, pictures: Sequence[Picture], paint: _Paint, room: int) -> list[str]:
    """Return the last failures and pictures: failures get the room, pictures what is left of it."""
    failures = [
        paint.line(
            ("faint", f"  {_clock_time(one.at, moment.at)} "),
            ("bad" if one.state == "failed" else "doubt", f"{one.state:<8}"),
            ("", f"{one.job}: {one.what}"),
        )
        for one in moment.failures
    ]
    saved = [
        paint.line(
            ("faint", f"  {_clock_time(one.at, moment.at)} "),
            ("", f"{one.job}  "),
            ("faint", f"{one.path} · {size_text(one.size_bytes)}"),
        )
        for one in reversed(pictures)
    ]
    # A heading and an empty line come with each part.
    some_saved = min(len(saved), 3) + 2 if saved else 0
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in moment.reasons.items())
    lines = _part(f"last failures ({reasons})", failures, room - some_saved, paint)
    return [*lines, *_part("last pictures", saved, room - len(lines), paint)]


def _part(title: str, lines: list[str], room: int, paint: _Paint) -> list[str]:
    if not lines or room < 3:
        return []
    return ["", paint.line(("strong", title)), *lines[: room - 2]]


def _clock_time(at: datetime, now: datetime) -> str:
    """Return a moment in the time of this machine, with its day where that is another."""
    here, now_here = at.astimezone(), now.astimezone()
    if here.date() == now_here.date():
        return f"{here:%H:%M:%S}"
    return f"{here:%a %H:%M}" if abs(here - now_here) < timedelta(days=6) else f"{here:%Y-%m-%d}"


class _Paint:
    """Cuts lines to the terminal's width, and colours their parts."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def line(self, *parts: tuple[str, str]) -> str:
        left, shown = self.size.width, []
        for tone, text in parts:
            safe = _CONTROL.sub("�", text)
            cut = cut_to_width(safe, left)
            left -= width_of(cut)
            code = _COLOURS.get(tone) if self.size.colours else None
            shown.append(f"\x1b[{code}m{cut}\x1b[0m" if code and cut else cut)
            if cut != safe:
                break
        return "".join(shown)


def width_of(text: str) -> int:
    """Return how many columns a text takes: wide characters two, marks none."""
    return sum(map(_columns, text))


def cut_to_width(text: str, width: int) -> str:
    """Return as much of a text as fits, its end marked where something is missing."""
    if len(text) * 2 <= width or width_of(text) <= width:
        return text
    used, kept = 0, []
    for character in text:
        used += _columns(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
