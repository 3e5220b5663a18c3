"""A crontab line for a nightly run: its text, and how to install it.

Hides cron's quoting and limits. Always holds: lines that others wrote stay byte for byte.
Not promised: a line that works if SHELL= is not a POSIX shell.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from batch_runner.commands.timer import (
    MARK,
    TOKEN_VARIABLE,
    Timer,
    environment_steps,
    in_ranges,
)
from batch_runner.errors import StorageError, UsageError

_CRON_COMMAND_LIMIT_BYTES = 990
"""Common crons refuse or cut commands of a thousand bytes."""


def cron_zone_warning(timer: Timer, year: int) -> str | None:
    """Return a warning if a cron without time zones would start the run at another time."""
    if timer.timezone is None:
        return None
    zone = ZoneInfo(timer.timezone)
    seasons = [datetime(year, month, 1, 12, tzinfo=UTC) for month in (1, 7)]
    if all(now.astimezone(zone).utcoffset() == now.astimezone().utcoffset() for now in seasons):
        return None
    return (
        f"this machine is not in the time zone {timer.timezone}; Debian's and Ubuntu's cron ignore"
        f" CRON_TZ and will start the run at {timer.at:%H:%M} of this machine's time\n"
        "hint: --kind systemd obeys the time zone"
    )


def crontab_block(timer: Timer) -> str:
    """Return the lines for a crontab, between marker comments; raises UsageError if too long.

    In cronie, CRON_TZ applies to all lines that follow, so the block resets it. To Debian's cron it
    is a variable like any other.
    """
    environment_file = shlex.quote(str(timer.environment_file))
    log = "" if timer.log_file is None else f" >>{shlex.quote(str(timer.log_file))}"
    command = escape_cron(
        f"{{ set -a; [ ! -r {environment_file} ] || . {environment_file}; set +a;"
        f' {shlex.join(timer.words)}; echo "exit code $? at $(date)"; }}{log} 2>&1'
    )
    if len(command.encode()) > _CRON_COMMAND_LIMIT_BYTES:
        raise UsageError(
            "the paths are too long for a crontab line",
            hint="--kind systemd takes longer ones",
        )
    line = f"{timer.at.minute} {timer.at.hour} * * {_cron_days(timer)} {command}\n"
    if timer.timezone is not None:
        line = (
            f"# cronie obeys CRON_TZ. Debian's and Ubuntu's cron ignore it: there, {timer.at:%H:%M}"
            f" is the machine's time.\nCRON_TZ={timer.timezone}\n{line}"
            '# The lines below use the machine\'s time.\nCRON_TZ=""\n'
        )
    begin, end = _markers(timer.name)
    return (
        f"{begin}\n"
        f"# {TOKEN_VARIABLE} is in {str(timer.environment_file)!r}, never on a command line.\n"
        "# cron ignores exit codes; they are in the log, and the next run resumes.\n"
        f"{line}{end}\n"
    )


def escape_cron(command: str) -> str:
    r"""Return a shell command with each `%` as `\%`, because a bare `%` would end it.

    `shlex` has put a backslash before a `%` into single quotes. Cron knows no quotes, so closing
    and reopening them keeps that backslash apart from the `%`.
    """
    return command.replace("\\%", "\\''%").replace("%", "\\%")


def _cron_days(timer: Timer) -> str:
    """Return days as cron counts them, from Sunday as 0."""
    numbers = sorted((day + 1) % 7 for day in timer.days)
    return "*" if len(numbers) == 7 else in_ranges(numbers, str)


def _markers(name: str) -> tuple[str, str]:
    return f"# BEGIN {name}: {MARK}", f"# END {name}"


def cron_steps(timer: Timer, *, installed: bool) -> list[str]:
    """Return how to make the crontab line work, see its log, and remove it."""
    steps = environment_steps(timer, installed=installed)
    if timer.log_file is not None:
        steps.append(f"look:  less {shlex.quote(str(timer.log_file))}")
    begin, end = _markers(timer.name)
    return [*steps, f"remove:  crontab -e, and delete everything from '{begin}' to '{end}'"]


def install_crontab(block: str, name: str, *, force: bool) -> bool:
    """Put the block into the user's crontab; returns whether anything changed.

    Everything else stays byte for byte. Raises UsageError if a different block is there, unless
    `force`, and StorageError if crontab fails.
    """
    program = shutil.which("crontab")
    if program is None:
        raise UsageError("this machine has no crontab", hint="install cron, or use --kind systemd")
    old = _read_crontab(program)
    new = merge_crontab(old, block, name, force=force)
    if new == old:
        return False
    # Through a pipe, so that crontab needs no file of ours.
    written = subprocess.run([program, "-"], input=new, capture_output=True, check=False)  # noqa: S603 - the user's own crontab
    if written.returncode != 0:
        raise StorageError(
            f"crontab did not accept the new line: {_last_line(written.stderr)}",
            hint="your crontab has not changed; without --install the line is printed",
        )
    return True


def merge_crontab(old: bytes, block: str, name: str, *, force: bool) -> bytes:
    """Return the crontab with the block: in place of the old one, or at the end."""
    begin, end = (marker.encode() for marker in _markers(name))
    lines = old.splitlines(keepends=True)
    found = [line.rstrip(b"\r\n") for line in lines]
    if begin not in found:
        gap = b"" if not old or old.endswith(b"\n") else b"\n"
        return old + gap + block.encode()
    first = found.index(begin)
    if end not in found[first:]:
        raise UsageError(
            f"the crontab contains '{begin.decode()}', but not its end",
            hint=f"crontab -e, and add '{end.decode()}' after its last line",
        )
    last = found.index(end, first)
    if b"".join(lines[first : last + 1]) != block.encode() and not force:
        raise UsageError(
            f"the crontab already contains a different '{name}'",
            hint="--force replaces it; another 'name:' in the manifest keeps both",
        )
    return b"".join([*lines[:first], block.encode(), *lines[last + 1 :]])


def _read_crontab(program: str) -> bytes:
    read = subprocess.run([program, "-l"], capture_output=True, check=False)  # noqa: S603 - the user's own crontab
    if read.returncode == 0:
        return read.stdout
    # A missing crontab and an unreadable one have the same exit code; only the text differs.
    # Mistaking the second for the first would delete the crontab.
    if read.returncode == 1 and b"no crontab for" in read.stderr:
        return b""
    raise StorageError(f"cannot read the crontab: {_last_line(read.stderr)}", hint="try crontab -l")


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
