"""systemd user units for a nightly run: their text, and the commands to use them.

Hides systemd's quoting, and which exit codes mean success, a retry, or work for a person.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from batch_runner.commands.timer import (
    DAY_NAMES,
    EVERY_DAY,
    MARK,
    TOKEN_VARIABLE,
    File,
    Timer,
    environment_steps,
    in_ranges,
)


def systemd_files(timer: Timer, folder: Path) -> tuple[File, File]:
    """Return a user's service and its timer."""
    service, timer_unit = f"{timer.name}.service", f"{timer.name}.timer"
    return (
        File(folder / service, f"# {service}: {MARK}\n{_service_text(timer)}"),
        File(folder / timer_unit, f"# {timer_unit}: {MARK}\n{_timer_text(timer)}"),
    )


def quote_systemd(word: str) -> str:
    """Quote a word of a command line; `$` also needs a `:` before the program."""
    if re.fullmatch(r"[A-Za-z0-9_/.:=@+,-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_without_specifiers(escaped)}"'


def _service_text(timer: Timer) -> str:
    # Not oneshot, which cannot restart on 69 alone; not simple, which reports a missing program as
    # started.
    words = timer.words
    if any("$" in word for word in words):
        words = (f":{words[0]}", *words[1:])
    command = " ".join(map(quote_systemd, words))
    plain = " ".join(map(quote_systemd, timer.words))
    credential = _without_specifiers(str(timer.environment_file.with_name("token")))
    environment_file = re.sub(r"([\\*?\[])", r"\\\1", str(timer.environment_file))
    log = "journal"
    if timer.log_file is not None:
        log = f"append:{_without_specifiers(str(timer.log_file))}"
    return f"""\
[Unit]
Description=batch-runner: {timer.name.removeprefix("batch-runner-")}
# While the service is away: at most six starts a night.
StartLimitIntervalSec=8h
StartLimitBurst=6

[Service]
Type=exec
WorkingDirectory={_without_specifiers(str(timer.manifest.parent))}
# {TOKEN_VARIABLE} is read from this file, never from a command line.
EnvironmentFile=-{_without_specifiers(environment_file)}
ExecStart={command}
# To keep it as a credential, replace the two lines above by these:
#LoadCredential=token:{credential}
#ExecStart=:/bin/sh -c 'export {TOKEN_VARIABLE}="$(cat "%d/token")"; exec "$0" "$@"' {plain}
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
StandardOutput={log}
StandardError=inherit
"""


def _timer_text(timer: Timer) -> str:
    days = "" if timer.days == EVERY_DAY else f"{_systemd_days(timer.days)} "
    zone = "" if timer.timezone is None else f" {timer.timezone}"
    return f"""\
[Unit]
Description=When to start {timer.name}.service

[Timer]
OnCalendar={days}*-*-* {timer.at:%H:%M}:00{zone}
# If the machine was off at that time, start the run when it is back.
Persistent=true
RandomizedDelaySec=2min
AccuracySec=1min

[Install]
WantedBy=timers.target
"""


def _systemd_days(days: Sequence[int]) -> str:
    names = [name.title() for name in DAY_NAMES]
    return in_ranges(days, lambda day: names[day], "..")


def _without_specifiers(text: str) -> str:
    return text.replace("%", "%%")


def systemd_steps(timer: Timer, folder: Path, *, installed: bool) -> list[str]:
    """Return how to start the timer, see its log, and remove it."""
    unit = f"{timer.name}.timer"
    paths = shlex.join(str(folder / f"{timer.name}.{kind}") for kind in ("timer", "service"))
    log = f"journalctl --user -u {timer.name}.service"
    if timer.log_file is not None:
        log = f"less {shlex.quote(str(timer.log_file))}"
    return [
        *environment_steps(timer, installed=installed),
        f"start it:  systemctl --user daemon-reload && systemctl --user enable --now {unit}",
        "also while you are logged out:  loginctl enable-linger",
        f"look:  systemctl --user list-timers {unit}; {log}",
        f"remove:  systemctl --user disable --now {unit} && rm {paths}",
    ]
