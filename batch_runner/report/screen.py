"""How a batch stands, as a screen full of text.

Pure: a Moment and the size of a terminal in, lines out. What always holds: the lines fit the
terminal, in width and number; no text of a service or a manifest moves the cursor; the screen reads
the same without colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

from batch_runner.ledger.job import Standing
from batch_runner.records import usd
from batch_runner.report.moment import Moment, Picture, RunSeen
from batch_runner.report.status import needs_a_person
from batch_runner.text.quantity import duration_text, rate_text, size_text

_WIDE = 64
_COLUMN = 22
_BAR_WIDTH = 40
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLOURS = {"good": "32", "bad": "31", "doubt": "33", "faint": "2", "strong": "1"}
_COUNTS = (
    *(Standing.DONE, Standing.IN_FLIGHT, Standing.PENDING),
    *(Standing.FAILED, Standing.UNKNOWN, Standing.CANCELLED),
)


class Size(NamedTuple):
    """A terminal's size, and whether it takes colours."""

    width: int
    height: int
    colours: bool


def screen_lines(moment: Moment, pictures: Sequence[Picture], size: Size) -> list[str]:
    """Return the lines that fit: how the batch stands, then the last failures and pictures."""
    paint = _Paint(size)
    head = [
        paint.line(("strong", moment.name), ("faint", f" · {moment.model}")),
        paint.line(*_run_words(moment)),
        _bar(moment, paint),
        "",
        *_figures(moment, paint),
    ]
    foot = ["", paint.line(("faint", f"output: {moment.output}"))]
    goes_on = "; the run continues" if any(run.is_at_work for run in moment.runs) else ""
    foot += [paint.line(("faint", f"Ctrl-C leaves this view{goes_on}"))]
    room = size.height - len(head) - len(foot) - len(moment.notes)
    notes = [paint.line(("doubt", note)) for note in moment.notes]
    return [*head, *notes, *_news(moment, pictures, paint, room), *foot][: size.height]


def moment_line(moment: Moment) -> str:
    """Return how a batch stands in one line, for logs and pipes."""
    parts = [f"{moment.name}: {moment.done:,}/{moment.jobs:,} done"]
    parts += [
        f"{moment.count(standing):,} {_name(standing)}"
        for standing in _in_order(moment)
        if standing is not Standing.DONE and moment.count(standing)
    ]
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


def _in_order(moment: Moment) -> list[Standing]:
    """Return all standings, starting with those of jobs that need a person."""
    return sorted(_COUNTS, key=lambda one: not (needs_a_person(one) and moment.count(one)))


def _needed(moment: Moment) -> str:
    """Return how many jobs need a person; "" if none does."""
    needed = [one for one in _COUNTS if needs_a_person(one) and moment.count(one)]
    return ", ".join(f"{moment.count(one):,} {_name(one)}" for one in needed)


def _name(standing: Standing) -> str:
    return standing.replace("_", " ")


def _tone(standing: Standing) -> str:
    match standing:
        case Standing.DONE:
            return "good"
        case Standing.FAILED:
            return "bad"
        case Standing.UNKNOWN:
            return "doubt"
        case Standing.IN_FLIGHT | Standing.PENDING | Standing.CANCELLED:
            return ""
    assert_never(standing)


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
    from tqdm import tqdm  # noqa: PLC0415 - only a terminal has bars

    settled = moment.done + moment.cancelled
    share = settled / moment.jobs if moment.jobs else 0.0
    # Rounded down, and without failed jobs, so that nothing looks finished before it is.
    words = f" {int(share * 100)} %  {settled:,} of {moment.jobs:,}"
    width = max(0, min(_BAR_WIDTH, paint.size.width - len(words) - 2))
    bar = tqdm.format_meter(share, 1, 0, ncols=width, bar_format="{bar}").rstrip() if width else ""
    return paint.line(("good", bar), ("faint", "░" * (width - len(bar))), ("", words))


def _figures(moment: Moment, paint: _Paint) -> list[str]:
    counts = [
        (
            _tone(standing) if moment.count(standing) else "faint",
            f"  {_name(standing):<10}{moment.count(standing):>7,}",
        )
        for standing in _in_order(moment)
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
    """Return the last failures and pictures; failures get the room first."""
    failures = [
        paint.line(
            ("faint", f"  {_clock_time(one.at, moment.at)} "),
            (_tone(one.state), f"{one.state:<8}"),
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
    # Each section has an empty line and a heading.
    some_saved = min(len(saved), 3) + 2 if saved else 0
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in moment.reasons.items())
    lines = _section(f"last failures ({reasons})", failures, room - some_saved, paint)
    return [*lines, *_section("last pictures", saved, room - len(lines), paint)]


def _section(title: str, lines: list[str], room: int, paint: _Paint) -> list[str]:
    if not lines or room < 3:
        return []
    return ["", paint.line(("strong", title)), *lines[: room - 2]]


def _clock_time(at: datetime, now: datetime) -> str:
    """Return a time in this machine's zone, with its day if that is another."""
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
    """Return how many columns a text takes: two for a wide character, none for a mark."""
    return sum(map(_columns, text))


def cut_to_width(text: str, width: int) -> str:
    """Return as much of a text as fits, with an ellipsis if something is missing."""
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
