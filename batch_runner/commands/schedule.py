"""`schedule`: hand the batch to the machine's own timer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from batch_runner import timer as timers
from batch_runner.arguments import Arguments
from batch_runner.commands.console import say
from batch_runner.commands.environment import own_folder
from batch_runner.commands.opening import load
from batch_runner.errors import ExitCode, UsageError
from batch_runner.manifest import Manifest
from batch_runner.timer import File, Timer


def execute(arguments: Arguments) -> int:
    """Print or install what the machine's timer needs."""
    manifest = load(arguments)
    now = datetime.now(tz=UTC)
    kind = arguments.kind or ("systemd" if shutil.which("systemctl") else "cron")
    timer = _make_timer(arguments, manifest, kind)
    warnings = [
        timers.clock_warning(timer, now.year),
        timers.window_warning(timer, manifest.window, now),
        timers.cron_zone_warning(timer, now.year) if kind == "cron" else None,
    ]
    if kind == "github":
        _give_workflow(arguments, timer, manifest.output.dir, now.year)
    elif kind == "cron":
        _give_crontab(arguments, timer)
    else:
        _give_units(arguments, timer)
    for warning in filter(None, warnings):
        say(f"warning: {warning}")
    return ExitCode.DONE


def _make_timer(arguments: Arguments, manifest: Manifest, kind: str) -> Timer:
    window = manifest.window
    at = arguments.at or (window.opens if window is not None else None)
    if at is None:
        raise UsageError(
            "the manifest has no window, so it does not say when to start",
            hint="add --at 22:00, or a window to the manifest",
        )
    timezone = arguments.timezone or (window.timezone if window is not None else None)
    if timezone is not None:
        timers.require_zone(timezone)
    name = timers.timer_name(manifest.name)
    log_file = arguments.log_file
    if log_file is not None and kind == "github":
        raise UsageError("GitHub keeps the log itself", hint="leave out --log-file")
    if log_file is None and kind == "cron":
        state = own_folder("XDG_STATE_HOME", ".local/state")
        log_file = state / "batch-runner" / f"{name}.log"
    return timers.Timer(
        name=name,
        program=timers.program_words(Path(sys.executable)),
        manifest=timers.absolute(arguments.manifest),
        at=at,
        days=timers.parse_days(arguments.days),
        timezone=timezone,
        environment_file=own_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "env",
        log_file=None if log_file is None else timers.absolute(log_file),
    )


def _give_units(arguments: Arguments, timer: Timer) -> None:
    folder = own_folder("XDG_CONFIG_HOME", ".config") / "systemd" / "user"
    files = timers.systemd_files(timer, folder)
    if arguments.install:
        _say_written(timers.write_files(files, force=arguments.force))
        _write_environment(timer)
    else:
        _print_files(files)
    _say_next(timers.systemd_steps(timer, folder, installed=arguments.install))


def _give_crontab(arguments: Arguments, timer: Timer) -> None:
    block = timers.crontab_block(timer)
    if arguments.install:
        written = timers.install_crontab(block, timer.name, force=arguments.force)
        say("the crontab has the line now" if written else "the crontab has the line already")
        _write_environment(timer)
    else:
        print(block, end="")
        say("these lines go into your crontab: add --install, or crontab -e")
    _say_next(timers.cron_steps(timer, installed=arguments.install))


def _give_workflow(arguments: Arguments, timer: Timer, output_dir: Path, this_year: int) -> None:
    folder = timers.find_repository(timer.manifest)
    source = timers.program_source(folder)
    place = timers.Repository(folder=folder, output_dir=output_dir, source=source)
    workflow = timers.workflow_file(timer, place, this_year)
    if arguments.install:
        _say_written(timers.write_files([workflow], force=arguments.force))
    else:
        _print_files([workflow])
    if source == timers.UNKNOWN_SOURCE:
        say("warning: in the step 'Install', write from where GitHub can install batch-runner")
    say(
        "warning: GitHub's cache may lose the ledger of a run, and the next run then buys its"
        " pictures again: set limits.cost_usd, or use a machine of your own"
    )
    _say_next(timers.github_steps(workflow.path))


def _print_files(files: Sequence[File]) -> None:
    print("\n".join(file.text for file in files), end="")
    say(f"add --install to write: {', '.join(str(file.path) for file in files)}")


def _say_written(outcomes: Sequence[tuple[Path, bool]]) -> None:
    for path, is_new in outcomes:
        say(f"{'written' if is_new else 'there already'}: {path}")


def _write_environment(timer: Timer) -> None:
    timers.make_log_folder(timer)
    if timers.write_environment_file(timer.environment_file):
        say(f"written, for you alone: {timer.environment_file}")


def _say_next(steps: Sequence[str]) -> None:
    say("next:")
    for step in steps:
        say(f"  {step}")
