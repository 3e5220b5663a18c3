"""A crontab line for a run every night: its text, and how it gets into the crontab.

Hides cron's quoting and limits. What always holds: lines that others wrote stay byte for byte.
Not promised: that a line fits a SHELL= that is no POSIX shell.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from batch_runner.errors import StorageError, UsageError
from batch_runner.schedulers.timer import (
    MARK,
    TOKEN_VARIABLE,
    Timer,
    environment_steps,
    in_ranges,
    utc_offset,
)

_CRON_COMMAND_LIMIT_BYTES = 990
"""A thousand in the crons in use; longer commands are refused or cut."""


def cron_zone_warning(timer: Timer, year: int) -> str | None:
    """Say that a cron without time zones would start at another time here, if it would."""
    if timer.timezone is None:
        return None
    zone = ZoneInfo(timer.timezone)
    days = (datetime(year, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(365))
    if all(utc_offset(day, zone) == utc_offset(day, None) for day in days):
        return None
    return (
        f"this machine's clock is not that of {timer.timezone}: where cron ignores CRON_TZ, as"
        f" Debian's and Ubuntu's does, {timer.at:%H:%M} is this machine's time\n"
        "hint: --kind systemd obeys the time zone"
    )


def crontab_block(timer: Timer) -> str:
    """Return the lines for a crontab, between marker comments; raises UsageError if too long.

    CRON_TZ holds for all lines that follow in cronie, so the block ends it; Debian's cron takes it
    for a variable like any other.
    """
    environment_file = shlex.quote(str(timer.environment_file))
    log = "" if timer.log_file is None else f" >>{shlex.quote(str(timer.log_file))}"
    command = escape_cron(
        f"{{ set -a; [ ! -r {environment_file} ] || . {environment_file}; set +a;"
        f' {shlex.join(timer.words)}; echo "exit code $? at $(date)"; }}{log} 2>&1'
    )
    if len(command.encode()) > _CRON_COMMAND_LIMIT_BYTES:
        raise UsageError(
            "the paths are too long for a line of a crontab",
            hint="--kind systemd takes longer ones",
        )
    line = f"{timer.at.minute} {timer.at.hour} * * {cron_days(timer.days)} {command}\n"
    if timer.timezone is not None:
        line = (
            f"# cronie obeys CRON_TZ; Debian's and Ubuntu's cron ignores it: there {timer.at:%H:%M}"
            f" is the machine's time.\nCRON_TZ={timer.timezone}\n{line}"
            '# The lines below are on the machine\'s time.\nCRON_TZ=""\n'
        )
    begin, end = _markers(timer.name)
    return (
        f"{begin}\n"
        f"# {TOKEN_VARIABLE} stands in {str(timer.environment_file)!r}, never on a command line.\n"
        "# cron looks at no exit code; the log tells it, and the next start goes on.\n"
        f"{line}{end}\n"
    )


def escape_cron(command: str) -> str:
    r"""Return a shell command as cron takes it: `%` would end it, `\%` is one.

    A backslash just before a `%` stands inside single quotes, where `shlex` put it; closing and
    opening them again keeps it from the `%`, because cron knows no quotes.
    """
    return command.replace("\\%", "\\''%").replace("%", "\\%")


def cron_days(days: Iterable[int], shift: int = 0) -> str:
    """Return days as cron counts them, from Sunday as 0."""
    numbers = sorted((day + 1 + shift) % 7 for day in days)
    return "*" if len(numbers) == 7 else in_ranges(numbers, str)


def _markers(name: str) -> tuple[str, str]:
    return f"# BEGIN {name}: {MARK}", f"# END {name}"


def cron_steps(timer: Timer, *, installed: bool) -> list[str]:
    """Return what to do for the crontab line to work, and to look, and to undo it."""
    steps = environment_steps(timer, installed=installed)
    if timer.log_file is not None:
        steps.append(f"look:  less {shlex.quote(str(timer.log_file))}")
    begin, end = _markers(timer.name)
    return [*steps, f"remove:  crontab -e, and take out all from '{begin}' to '{end}'"]


def install_crontab(block: str, name: str, *, force: bool) -> bool:
    """Put the block into the user's crontab; tell whether it had to be written.

    All else stays byte for byte. Raises UsageError for a block that differs, unless `force`, and
    StorageError if crontab fails.
    """
    program = shutil.which("crontab")
    if program is None:
        raise UsageError("there is no crontab here", hint="install cron, or choose another --kind")
    old = _read_crontab(program)
    new = merge_crontab(old, block, name, force=force)
    if new == old:
        return False
    # Read from a pipe, not a file: crontab then needs no folder of ours.
    written = subprocess.run([program, "-"], input=new, capture_output=True, check=False)  # noqa: S603 - the user's own crontab
    if written.returncode != 0:
        raise StorageError(
            f"crontab did not take it: {_last_line(written.stderr)}",
            hint="the crontab is as it was",
        )
    return True


def merge_crontab(old: bytes, block: str, name: str, *, force: bool) -> bytes:
    """Return the crontab with the block in it: in its old place, or at the end."""
    begin, end = (marker.encode() for marker in _markers(name))
    lines = old.splitlines(keepends=True)
    found = [line.rstrip(b"\r\n") for line in lines]
    if begin not in found:
        gap = b"" if not old or old.endswith(b"\n") else b"\n"
        return old + gap + block.encode()
    first = found.index(begin)
    if end not in found[first:]:
        raise UsageError(
            f"the crontab has '{begin.decode()}' and no end of it",
            hint=f"crontab -e, and add '{end.decode()}' where it ends",
        )
    last = found.index(end, first)
    if b"".join(lines[first : last + 1]) != block.encode() and not force:
        raise UsageError(
            f"the crontab has another '{name}' already",
            hint="--force replaces it; another 'name:' in the manifest keeps both",
        )
    return b"".join([*lines[:first], block.encode(), *lines[last + 1 :]])


def _read_crontab(program: str) -> bytes:
    read = subprocess.run([program, "-l"], capture_output=True, check=False)  # noqa: S603 - the user's own crontab
    if read.returncode == 0:
        return read.stdout
    # An empty crontab and one that cannot be read end alike; only the words tell them apart, and
    # taking the second for the first would delete what is there.
    if read.returncode == 1 and b"no crontab for" in read.stderr:
        return b""
    raise StorageError(
        f"cannot read the crontab: {_last_line(read.stderr)}", hint="try crontab -l yourself"
    )


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
