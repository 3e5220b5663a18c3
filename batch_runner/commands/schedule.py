"""`schedule`: lets systemd or cron run the batch every night."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from batch_runner.commands.arguments import BatchArguments, add_manifest, time_of_day
from batch_runner.commands.console import say
from batch_runner.commands.context import check_jobs, load
from batch_runner.commands.environment import TOKEN_VARIABLES, settings_folder
from batch_runner.commands.timer import (
    DAYS,
    Timer,
    crontab_text,
    log_file,
    service_text,
    timer_name,
    timer_text,
)
from batch_runner.errors import ExitCode, UsageError
from batch_runner.files.disk import replacing
from batch_runner.manifest.form import Manifest, Window
from batch_runner.pacing.window import is_open

_HALF_A_YEAR = timedelta(days=182)


class Arguments(BatchArguments):
    """The options of `schedule`."""

    at: time | None
    kind: str | None
    days: tuple[int, ...]
    install: bool


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Print systemd units, or lines for a crontab, that run the manifest every night; --install"
        " writes the units. They never contain the token."
    )
    add_manifest(parser)
    parser.add_argument(
        "--at",
        type=time_of_day,
        metavar="HH:MM",
        help="when the run starts (default: when the manifest's window opens)",
    )
    parser.add_argument(
        "--kind",
        choices=("systemd", "cron"),
        help="the scheduler (default: systemd if this machine has systemctl, or else cron)",
    )
    parser.add_argument(
        "--days", type=_days, default="mon-sun", help="such as mon-fri or sat,sun (default: all)"
    )
    parser.add_argument(
        "--install", action="store_true", help="write the units, and a file for the token"
    )


def execute(arguments: Arguments) -> int:
    """Print or install the timer."""
    manifest = load(arguments)
    is_cron = (arguments.kind or ("systemd" if shutil.which("systemctl") else "cron")) == "cron"
    if is_cron and arguments.install:
        raise UsageError(
            "--install is for systemd only",
            hint="leave it out, and paste the lines that are printed with crontab -e",
        )
    timer = _make_timer(arguments, manifest, is_cron=is_cron)
    # Refuse now, while somebody is watching, what would fail every night.
    check_jobs(arguments, manifest)
    folder = settings_folder() / "systemd" / "user"
    units = {
        folder / f"{timer.name}.service": service_text(timer),
        folder / f"{timer.name}.timer": timer_text(timer),
    }
    if arguments.install:
        _install(units, timer)
    else:
        print(crontab_text(timer) if is_cron else "\n".join(units.values()), end="")
    _warn(timer, manifest.window)
    names = ", ".join(f"{name}=…" for name in (TOKEN_VARIABLES[0], *manifest.notify.variables))
    say(f"next:\n  write {names} into {timer.environment_file}, readable by you only (mode 0600)")
    if is_cron:
        say(f"  crontab -e, and paste the lines; later: less {shlex.quote(str(log_file(timer)))}")
        return ExitCode.DONE
    if not arguments.install:
        say(f"  the same command with --install writes the units to {folder}")
    unit = f"{timer.name}.timer"
    say(
        f"  systemctl --user daemon-reload && systemctl --user enable --now {unit}\n"
        "  loginctl enable-linger    so that it also runs while you are logged out\n"
        f"  journalctl --user -u {timer.name}.service    to read what the runs report\n"
        f"  systemctl --user disable --now {unit}    to end it"
    )
    return ExitCode.DONE


def _make_timer(arguments: Arguments, manifest: Manifest, *, is_cron: bool) -> Timer:
    window, path = manifest.window, arguments.manifest
    at = arguments.at or (window.opens if window is not None else None)
    if at is None:
        raise UsageError(
            "no time to start: the manifest has no window",
            hint="add --at 22:00, or add a window to the manifest",
        )
    program = Path(sys.executable).with_name("batch-runner")
    return Timer(
        name=timer_name(manifest.name),
        program=[str(program)] if program.is_file() else [sys.executable, "-m", "batch_runner"],
        # A link to the manifest stays one, so that it can change.
        manifest=path.parent.resolve() / path.name,
        at=at,
        days=arguments.days,
        # Few crons know time zones.
        timezone=None if is_cron or window is None else window.timezone,
        environment_file=settings_folder() / "batch-runner" / "env",
    )


def _warn(timer: Timer, window: Window | None) -> None:
    """Warn if the window is closed when the run starts, in winter or in summer."""
    zone = None if timer.timezone is None else ZoneInfo(timer.timezone)
    today = datetime.now(tz=UTC).astimezone(zone).date()
    for day in (today, today + _HALF_A_YEAR):
        start = datetime.combine(day, timer.at, zone)
        if window is not None and not is_open(window, start.astimezone()):
            hours = f"{window.opens:%H:%M}-{window.closes:%H:%M} {window.timezone or ''}".strip()
            say(
                f"warning: at {timer.at:%H:%M} of {timer.timezone or 'this machine'} the manifest's"
                f" window is closed ({hours}): the run will only collect\n"
                "hint: choose another --at; systemd obeys the window's time zone, cron does not"
            )
            return


def _install(units: dict[Path, str], timer: Timer) -> None:
    """Write all units or none, and create the file for the token if there is none."""
    missing = []
    for path, text in units.items():
        if not os.path.lexists(path):
            missing.append(path)
        elif path.is_symlink() or path.read_bytes() != text.encode():
            raise UsageError(
                f"{path} already exists, and differs",
                hint=f"read it, and if you don't need it: rm {shlex.quote(str(path))}",
            )
    for path in missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as written:
            written.write(units[path].encode())
        say(f"written: {path}")
    timer.environment_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(timer.environment_file, "ab", opener=_for_the_user_only):
        pass


def _for_the_user_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _days(text: str) -> tuple[int, ...]:
    """Parse days and ranges such as mon-fri or sat,sun; Monday is 0."""
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = (word.strip() for word in part.partition("-"))
        if first not in DAYS or (last or first) not in DAYS:
            raise argparse.ArgumentTypeError(f"'{text}' is not mon-fri or sat,sun, for example")
        start, end = DAYS.index(first), DAYS.index(last or first)
        found.update(day % 7 for day in range(start, end + 1 + 7 * (end < start)))
    return tuple(sorted(found))
