"""A nightly run: which program, when, on which days, in which time zone.

Always holds, for systemd and cron alike: no text made here contains the token, only the name of the
file with it; every path is absolute. Two runs never overlap, because the ledger's lock turns the
second away with exit code 75, which neither scheduler treats as a failure.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from batch_runner.errors import UsageError, closest
from batch_runner.manifest.form import Window
from batch_runner.pacing.window import is_open

TOKEN_VARIABLE = "RUNCOMFY_API_TOKEN"  # noqa: S105 - the name of a variable, not a token
EVERY_DAY = tuple(range(7))
"""Days of the week as datetime counts them: Monday is 0."""
MARK = "written by batch-runner schedule"
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class Timer:
    """What to start, and when; all paths are absolute. `timezone` None is the machine's own.

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
        """The command line to start."""
        return (*self.program, "run", str(self.manifest), "--quiet")


class File(NamedTuple):
    """A file to write: its path and its whole text."""

    path: Path
    text: str


def timer_name(manifest_name: str) -> str:
    """Return the name for units, crontab blocks and job files."""
    plain = unicodedata.normalize("NFKD", manifest_name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-.")
    return f"batch-runner-{plain[:100] or 'batch'}"


def absolute(path: Path) -> Path:
    """Return a path that works from any folder; links stay links, so that they can change."""
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


def require_writable_as_text(path: str) -> None:
    """Refuse the few names that one of the formats cannot hold, however they are quoted."""
    unwritable = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path)
    if unwritable or path.endswith(("\\", " ")) or re.search("[\ufffe\uffff]", path):
        raise UsageError(
            f"{path!a} cannot be written into a schedule",
            hint="rename it: no control characters, no space or backslash at the end",
        )


def window_warning(timer: Timer, window: Window | None, today: datetime) -> str | None:
    """Return a warning if the manifest's window is closed when the run starts."""
    zone = None if timer.timezone is None else ZoneInfo(timer.timezone)
    start = datetime.combine(today.astimezone(zone).date(), timer.at, zone)
    if window is None or is_open(window, start):
        return None
    return (
        f"at {timer.at:%H:%M} the manifest's window is closed"
        f" ({window.opens:%H:%M}-{window.closes:%H:%M}): the run will only collect\n"
        f"hint: --at {window.opens:%H:%M}"
    )


def in_ranges(numbers: Sequence[int], show: Callable[[int], str], dash: str = "-") -> str:
    """Write ascending numbers, three or more in a row as a range."""
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
    """Return how to give the runs the token and other secrets."""
    environment_file = shlex.quote(str(timer.environment_file))
    names = ", ".join(f"{name}=…" for name in (TOKEN_VARIABLE, *timer.variables))
    label = "secrets" if timer.variables else "token"
    steps = [f"{label}:  write {names} into {environment_file}, mode 0600"]
    if timer.log_file is not None and not installed:
        steps.append(f"log folder:  mkdir -p {shlex.quote(str(timer.log_file.parent))}")
    return steps
