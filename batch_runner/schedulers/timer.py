"""A run every night as it was asked for: which program, when, on which days, by whose clock.

Hides what clocks that are put forward or back do to it. What always holds, for systemd and cron
alike: no text made here holds the token, only the name of the file that does; every path is
absolute; two runs never overlap: the ledger's lock turns the second away with exit code 75, which
neither scheduler takes for a failure.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from batch_runner.errors import UsageError, closest
from batch_runner.manifest.form import Window
from batch_runner.pacing.window import is_open

KINDS = ("systemd", "cron")
TOKEN_VARIABLE = "RUNCOMFY_API_TOKEN"  # noqa: S105 - the name of a variable, not a token
EVERY_DAY = tuple(range(7))
"""Days of the week as datetime counts them: Monday is 0."""
UNKNOWN_SOURCE = "batch-runner @ git+https://WRITE-HERE-WHERE-YOU-KEEP-IT"
"""Stands in a job file if this installation does not know where others could get it."""

MARK = "written by batch-runner schedule"
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class Timer:
    """What is started, and when; all paths are absolute. `timezone` None is the machine's own.

    `variables` are the environment variables that the manifest names.
    """

    name: str
    program: tuple[str, ...]
    manifest: Path
    at: time
    environment_file: Path
    days: tuple[int, ...] = EVERY_DAY
    timezone: str | None = None
    log_file: Path | None = None
    variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        files = (self.manifest.parent, self.manifest, self.environment_file, self.log_file)
        for path in (*files, *self.program):
            require_writable_as_text(str(path))

    @property
    def words(self) -> tuple[str, ...]:
        """The command line that is started."""
        return (*self.program, "run", str(self.manifest), "--quiet")


class File(NamedTuple):
    """A file that is to be: where, and its whole text."""

    path: Path
    text: str


class ClockChange(NamedTuple):
    """The wall clock jumps from one time to another; both as the wall shows them."""

    before: datetime
    after: datetime

    @property
    def is_forward(self) -> bool:
        """Whether times are skipped, rather than repeated."""
        return self.after > self.before

    def touches(self, at: time) -> bool:
        """Tell whether this time of day is skipped or repeated by the jump."""
        first, last = sorted(self)
        return first <= datetime.combine(first.date(), at) < last


def timer_name(manifest_name: str) -> str:
    """Return the name that units, crontab blocks and workflows go by."""
    plain = unicodedata.normalize("NFKD", manifest_name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-.")
    return f"batch-runner-{plain[:100] or 'batch'}"


def absolute(path: Path) -> Path:
    """Return a path that holds from any folder; links stay links, so that they can be moved on."""
    if ".." in path.parts:
        return path.parent.resolve() / path.name
    return path.absolute()


def program_words(executable: Path) -> tuple[str, ...]:
    """Return how to start this program, given the Python that runs it, from any folder."""
    script = executable.with_name("batch-runner")
    if script.is_file():
        return (str(script),)
    return (str(executable), "-m", "batch_runner")


def parse_days(text: str) -> tuple[int, ...]:
    """Read `daily`, or days and ranges such as `mon-fri` or `sat,sun`; raises UsageError."""
    if text.lower() == "daily":
        return EVERY_DAY
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if first not in DAY_NAMES or last not in DAY_NAMES:
            raise UsageError(
                f"'{part}' is not a day of the week", hint="write daily, mon-fri, or sat,sun"
            )
        start = DAY_NAMES.index(first)
        length = (DAY_NAMES.index(last) - start) % 7 + 1
        days.update((start + day) % 7 for day in range(length))
    return tuple(sorted(days))


def require_zone(name: str) -> ZoneInfo:
    """Return the time zone of that name; raises UsageError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        match = closest(name, available_timezones())
        raise UsageError(
            f"'{name}' is not a known time zone",
            hint=f"did you mean '{match}'?" if match else "write a name such as Europe/Madrid",
        ) from error


def program_source(repository: Path) -> str:
    """Return what `pip install` takes to get this program on another machine."""
    with contextlib.suppress(OSError, ValueError):
        project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
        if project.get("project", {}).get("name") == "batch-runner":
            return "."
    try:
        installed = distribution("batch-runner")
    except PackageNotFoundError:
        return UNKNOWN_SOURCE
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    url = str(origin.get("url", ""))
    if not origin:
        return f"batch-runner=={installed.version}"
    if "vcs_info" in origin:
        return f"batch-runner @ {origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"batch-runner @ {url}" if url.startswith("https://") else UNKNOWN_SOURCE


def require_writable_as_text(path: str) -> None:
    """Refuse the few names that one of the formats cannot hold, whatever the quoting."""
    unwritable = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path)
    if unwritable or path.endswith(("\\", " ")) or re.search("[\ufffe\uffff]", path):
        raise UsageError(
            f"{path!a} cannot be written into a schedule",
            hint="rename it: no control characters, no blank or backslash at the end",
        )


def clock_changes(timezone: str | None, year: int) -> list[ClockChange]:
    """Return when the wall clock is put forward or back in a year; `None` is the machine's zone."""
    zone = None if timezone is None else ZoneInfo(timezone)
    changes = []
    moment = datetime(year, 1, 1, tzinfo=UTC)
    last = utc_offset(moment, zone)
    while moment.year == year:
        offset = utc_offset(moment, zone)
        if offset != last:
            wall = moment.replace(tzinfo=None)
            changes.append(ClockChange(wall + last, wall + offset))
        last = offset
        moment += timedelta(minutes=30)
    return changes


def clock_warning(timer: Timer, year: int) -> str | None:
    """Say what the nights of a year do to the time, if it is one that they skip or repeat.

    From 02:00 up to 03:00 it is said in every zone that puts its clock forward and back.
    """
    changes = clock_changes(timer.timezone, year)
    at = f"{timer.at:%H:%M}"
    if not changes or not (timer.at.hour == 2 or any(one.touches(timer.at) for one in changes)):
        return None
    nights = []
    for change in changes:
        way = "forward" if change.is_forward else "back"
        comes = "does not come" if change.is_forward else "comes twice"
        nights.append(
            f"on {min(change):%Y-%m-%d} the clock is put {way} from {change.before:%H:%M} to"
            f" {change.after:%H:%M} and {at} {comes if change.touches(timer.at) else 'comes once'}"
        )
    place = timer.timezone or "this machine's time zone"
    return (
        f"{at} in {place}: {', '.join(nights)}; schedulers differ in what they do then"
        " (a second run buys nothing twice)\n"
        "hint: choose a time that comes once every night"
    )


def window_warning(timer: Timer, window: Window | None, today: datetime) -> str | None:
    """Say that the manifest's window is closed at the time, if it is."""
    zone = None if timer.timezone is None else ZoneInfo(timer.timezone)
    start = datetime.combine(today.astimezone(zone).date(), timer.at, zone)
    if window is None or is_open(window, start):
        return None
    return (
        f"at {timer.at:%H:%M} the manifest's window is closed"
        f" ({window.opens:%H:%M}-{window.closes:%H:%M}): such a run collects, and submits nothing\n"
        f"hint: --at {window.opens:%H:%M}"
    )


def utc_offset(moment: datetime, zone: ZoneInfo | None) -> timedelta:
    """Return how far a zone's wall clock is from UTC at a moment."""
    return moment.astimezone(zone).utcoffset() or timedelta()


def in_ranges(numbers: Sequence[int], show: Callable[[int], str], dash: str = "-") -> str:
    """Write ascending numbers as cron and systemd do, three or more in a row as a range."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ",".join(
        f"{show(row[0])}{dash}{show(row[-1])}" if len(row) > 2 else ",".join(map(show, row))
        for row in rows
    )


def environment_steps(timer: Timer, *, installed: bool) -> list[str]:
    """Say how the token and other secrets get to where the runs find them."""
    environment_file = shlex.quote(str(timer.environment_file))
    names = ", ".join(f"{name}=…" for name in (TOKEN_VARIABLE, *timer.variables))
    label = "secrets" if timer.variables else "token"
    steps = [f"{label}:  write {names} into {environment_file}, mode 0600"]
    if timer.log_file is not None and not installed:
        steps.append(f"folder of the log:  mkdir -p {shlex.quote(str(timer.log_file.parent))}")
    return steps
