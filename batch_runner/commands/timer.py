"""A nightly run as systemd user units, or as a line for a crontab.

Hides both formats and their quoting. What always holds: no text made here contains the token, only
the name of the file with it; every path is absolute. Two runs never overlap, because the ledger's
lock turns the second away with exit code 75, which neither scheduler treats as a failure.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from batch_runner.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class Timer:
    """What to start, and when; all paths are absolute. `timezone` None is the machine's own."""

    name: str
    program: Sequence[str]
    manifest: Path
    at: time
    days: Sequence[int]
    timezone: str | None
    environment_file: Path

    @property
    def words(self) -> tuple[str, ...]:
        """The command line to start; raises UsageError if a schedule cannot contain it."""
        words = (*self.program, "run", str(self.manifest), "--quiet")
        for word in words:
            if "\\" in word or not word.isprintable():
                raise UsageError(
                    f"{word!a} cannot be written into a schedule",
                    hint="rename it: no control characters, no backslashes",
                )
        return words


def timer_name(manifest_name: str) -> str:
    """Return a name for units."""
    plain = unicodedata.normalize("NFKD", manifest_name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-.")
    return f"batch-runner-{plain[:100] or 'batch'}"


def service_text(timer: Timer) -> str:
    """Return the unit that starts the run."""
    # Not Type=oneshot, which cannot restart on 69 alone; not simple, which reports a missing
    # program as started. The colon: a `$` in a path is no variable.
    command = " ".join(f'"{_without_specifiers(word)}"' for word in timer.words)
    return f"""\
# {timer.name}.service, written by batch-runner schedule
[Unit]
Description=Run {timer.name}
# While the service is away: at most six starts a night.
StartLimitIntervalSec=8h
StartLimitBurst=6

[Service]
Type=exec
# RUNCOMFY_API_TOKEN is read from this file, never from a command line.
EnvironmentFile=-{_without_specifiers(str(timer.environment_file))}
ExecStart=:{command}
# 75: stopped early (window, budget, another run has the ledger); the next run resumes.
# 3 (some jobs failed or are unknown) counts as a failure, so that somebody looks.
SuccessExitStatus=75
# 69: the service is away. Everything else needs a person (64 65 66 74 77) or the next night.
Restart=no
RestartForceExitStatus=69
RestartSec=10min
# On SIGTERM the run collects what is paid for, for 30 s, notifies people, and exits.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=120s
"""


def _without_specifiers(text: str) -> str:
    return text.replace('"', '\\"').replace("%", "%%")


def timer_text(timer: Timer) -> str:
    """Return the unit that says when."""
    days = ",".join(DAYS[day].title() for day in timer.days)
    zone = "" if timer.timezone is None else f" {timer.timezone}"
    return f"""\
# {timer.name}.timer, written by batch-runner schedule
[Unit]
Description=When to start {timer.name}.service

[Timer]
OnCalendar={days} *-*-* {timer.at:%H:%M}:00{zone}
# If the machine was off at that time, start the run when it is back.
Persistent=true
RandomizedDelaySec=2min
AccuracySec=1min

[Install]
WantedBy=timers.target
"""


def crontab_text(timer: Timer) -> str:
    """Return the lines for a crontab; the log is beside the manifest."""
    environment_file = shlex.quote(str(timer.environment_file))
    command = (
        f"{{ set -a; [ -r {environment_file} ] && . {environment_file}; set +a;"
        f' {shlex.join(timer.words)}; echo "exit code $? at $(date)"; }}'
        f" >>{shlex.quote(str(log_file(timer)))} 2>&1"
    )
    # Cron counts days from Sunday. A bare % would end its command.
    days = ",".join(str(day) for day in sorted((day + 1) % 7 for day in timer.days))
    return (
        f"# {timer.name}: RUNCOMFY_API_TOKEN is in the first file, never on a command line.\n"
        f"# cron ignores exit codes; they are in the log, and the next run resumes.\n"
        f"{timer.at.minute} {timer.at.hour} * * {days} {command.replace('%', chr(92) + '%')}\n"
    )


def log_file(timer: Timer) -> Path:
    """Return where a run that cron starts logs."""
    return timer.manifest.with_suffix(".log")
