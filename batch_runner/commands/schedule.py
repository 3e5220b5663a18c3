"""`schedule`: lets systemd or cron run the batch every night."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, time
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments, add_manifest, time_of_day
from batch_runner.commands.console import say
from batch_runner.commands.context import check_jobs, load
from batch_runner.commands.cron import (
    cron_steps,
    cron_zone_warning,
    crontab_block,
    install_crontab,
)
from batch_runner.commands.environment import needed_folder, require_home_of_account
from batch_runner.commands.install import (
    make_log_folder,
    unset_names,
    write_environment_file,
    write_files,
)
from batch_runner.commands.systemd import systemd_files, systemd_steps
from batch_runner.commands.timer import (
    File,
    Timer,
    absolute,
    parse_days,
    program_words,
    require_zone,
    timer_name,
    window_warning,
)
from batch_runner.errors import ExitCode, UsageError
from batch_runner.manifest.form import Manifest


class Arguments(BatchArguments):
    """The options of `schedule`."""

    log_file: Path | None
    at: time | None
    kind: str | None
    days: str
    timezone: str | None
    install: bool
    force: bool


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Print the systemd units or crontab lines that run the manifest every night; --install"
        " installs them. They never contain the token."
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
        "--days",
        default="daily",
        help="daily, mon-fri, or sat,sun, for example (default: %(default)s)",
    )
    parser.add_argument(
        "--timezone",
        metavar="ZONE",
        help="the time zone of --at (default: the window's, or else this machine's)",
    )
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="where the runs log (default: systemd's journal; with cron, a file in your home)",
    )
    parser.add_argument("--install", action="store_true", help="install it")
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --install: replace what an earlier --install wrote",
    )


def execute(arguments: Arguments) -> int:
    """Print or install the timer."""
    manifest = load(arguments)
    now = datetime.now(tz=UTC)
    kind = arguments.kind or ("systemd" if shutil.which("systemctl") else "cron")
    timer = _make_timer(arguments, manifest, kind)
    # Refuse now, while somebody is watching, what would fail every night.
    check_jobs(arguments, manifest)
    warnings = [
        window_warning(timer, manifest.window, now),
        cron_zone_warning(timer, now.year) if kind == "cron" else None,
    ]
    if kind == "cron":
        _give_crontab(arguments, timer)
    else:
        _give_units(arguments, timer)
    for warning in filter(None, warnings):
        say(f"warning: {warning}")
    for name in unset_names(timer):
        say(f"warning: notify needs {name}: set it in {timer.environment_file}")
    return ExitCode.DONE


def _make_timer(arguments: Arguments, manifest: Manifest, kind: str) -> Timer:
    window = manifest.window
    at = arguments.at or (window.opens if window is not None else None)
    if at is None:
        raise UsageError(
            "no time to start: the manifest has no window",
            hint="add --at 22:00, or add a window to the manifest",
        )
    timezone = arguments.timezone or (window.timezone if window is not None else None)
    if timezone is not None:
        require_zone(timezone)
    name = timer_name(manifest.name)
    log_file = arguments.log_file
    if log_file is None and kind == "cron":
        state = needed_folder("XDG_STATE_HOME", ".local/state")
        log_file = state / "batch-runner" / f"{name}.log"
    return Timer(
        name=name,
        program=program_words(Path(sys.executable)),
        manifest=absolute(arguments.manifest),
        at=at,
        days=parse_days(arguments.days),
        timezone=timezone,
        environment_file=needed_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "env",
        log_file=None if log_file is None else absolute(log_file),
        variables=tuple(manifest.notify.variables),
    )


def _give_units(arguments: Arguments, timer: Timer) -> None:
    folder = needed_folder("XDG_CONFIG_HOME", ".config") / "systemd" / "user"
    files = systemd_files(timer, folder)
    if arguments.install:
        _say_written(write_files(files, force=arguments.force))
        _write_environment(timer)
    else:
        _print_files(files)
    _say_next(systemd_steps(timer, folder, installed=arguments.install))


def _give_crontab(arguments: Arguments, timer: Timer) -> None:
    block = crontab_block(timer)
    if arguments.install:
        require_home_of_account()
        written = install_crontab(block, timer.name, force=arguments.force)
        say("added to the crontab" if written else "the crontab already has these lines")
        _write_environment(timer)
    else:
        print(block, end="")
        say("to put these lines into your crontab, add --install, or use crontab -e")
    _say_next(cron_steps(timer, installed=arguments.install))


def _print_files(files: Sequence[File]) -> None:
    print("\n".join(file.text for file in files), end="")
    say(f"with --install, they are written to: {', '.join(str(file.path) for file in files)}")


def _say_written(outcomes: Sequence[tuple[Path, bool]]) -> None:
    for path, is_new in outcomes:
        say(f"{'written' if is_new else 'unchanged'}: {path}")


def _write_environment(timer: Timer) -> None:
    make_log_folder(timer)
    if write_environment_file(timer):
        say(f"written, readable by you only: {timer.environment_file}")


def _say_next(steps: Sequence[str]) -> None:
    say("next:")
    for step in steps:
        say(f"  {step}")
