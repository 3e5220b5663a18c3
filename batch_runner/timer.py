"""What the machine's own scheduler needs: systemd units, a crontab line, a GitHub workflow.

Hides the three formats, how each quotes a path, and how each tells the time. What always holds: the
token is in no text made here, only the name of the file or secret that holds it; every path is
absolute (in a workflow: relative to the repository); two runs never overlap, and where they would,
the ledger's lock turns the second away with exit code 75, which no scheduler here takes for a
failure. Installing never overwrites a file or a crontab line that somebody else wrote.

Not promised: that a crontab line fits a SHELL= that is no POSIX shell.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from batch_runner.errors import StorageError, UsageError, closest
from batch_runner.manifest import Window
from batch_runner.schedule import is_open

KINDS = ("systemd", "cron", "github")
TOKEN_VARIABLE = "RUNCOMFY_API_TOKEN"  # noqa: S105 - the name of a variable, not a token
EVERY_DAY = tuple(range(7))
"""Days of the week as datetime counts them: Monday is 0."""
UNKNOWN_SOURCE = "batch-runner @ git+https://WRITE-HERE-WHERE-YOU-KEEP-IT"
"""Stands in a workflow where this installation does not know where GitHub could get it."""

_MARK = "written by batch-runner schedule"
_DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CRON_COMMAND_LIMIT_BYTES = 990
"""A thousand in the crons in use; longer commands are refused or cut."""


@dataclass(frozen=True, kw_only=True)
class Timer:
    """What is started, and when; all paths are absolute. `timezone` None is the machine's own."""

    name: str
    program: tuple[str, ...]
    manifest: Path
    at: time
    environment_file: Path
    days: tuple[int, ...] = EVERY_DAY
    timezone: str | None = None
    log_file: Path | None = None

    def __post_init__(self) -> None:
        files = (self.manifest.parent, self.manifest, self.environment_file, self.log_file)
        for path in (*files, *self.program):
            _require_writable_as_text(str(path))

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


# What was asked for


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
        if first not in _DAY_NAMES or last not in _DAY_NAMES:
            raise UsageError(
                f"'{part}' is not a day of the week", hint="write daily, mon-fri, or sat,sun"
            )
        start = _DAY_NAMES.index(first)
        length = (_DAY_NAMES.index(last) - start) % 7 + 1
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


def find_repository(path: Path) -> Path:
    """Return the git repository that a file is in; raises UsageError."""
    for folder in path.parents:
        if (folder / ".git").exists():
            return folder
    raise UsageError(
        f"{path} is in no git repository",
        hint="GitHub runs what is in the repository: put the manifest into it",
    )


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


def _require_writable_as_text(path: str) -> None:
    """Refuse the few names that one of the formats cannot hold, whatever the quoting."""
    unwritable = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path)
    if unwritable or path.endswith(("\\", " ")) or re.search("[\ufffe\uffff]", path):
        raise UsageError(
            f"{path!a} cannot be written into a schedule",
            hint="rename it: no control characters, no blank or backslash at the end",
        )


# The time


def clock_changes(timezone: str | None, year: int) -> list[ClockChange]:
    """Return when the wall clock is put forward or back in a year; `None` is the machine's zone."""
    zone = None if timezone is None else ZoneInfo(timezone)
    changes = []
    moment = datetime(year, 1, 1, tzinfo=UTC)
    last = _offset(moment, zone)
    while moment.year == year:
        offset = _offset(moment, zone)
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


def cron_zone_warning(timer: Timer, year: int) -> str | None:
    """Say that a cron without time zones would start at another time here, if it would."""
    if timer.timezone is None:
        return None
    zone = ZoneInfo(timer.timezone)
    days = (datetime(year, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(365))
    if all(_offset(day, zone) == _offset(day, None) for day in days):
        return None
    return (
        f"this machine's clock is not that of {timer.timezone}: where cron ignores CRON_TZ, as"
        f" Debian's and Ubuntu's does, {timer.at:%H:%M} is this machine's time\n"
        "hint: --kind systemd obeys the time zone"
    )


def _offset(moment: datetime, zone: ZoneInfo | None) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


# systemd


def systemd_files(timer: Timer, folder: Path) -> tuple[File, File]:
    """Return a user's service and its timer."""
    service, timer_unit = f"{timer.name}.service", f"{timer.name}.timer"
    return (
        File(folder / service, f"# {service}: {_MARK}\n{_service_text(timer)}"),
        File(folder / timer_unit, f"# {timer_unit}: {_MARK}\n{_timer_text(timer)}"),
    )


def quote_systemd(word: str) -> str:
    """Return a word of a command line as systemd reads it; `$` needs a `:` before the program."""
    if re.fullmatch(r"[A-Za-z0-9_/.:=@+,-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_without_specifiers(escaped)}"'


def _service_text(timer: Timer) -> str:
    # Neither oneshot, which may not be started anew on 69 alone, nor simple, which would call a
    # program that is not there started.
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
# While the service is away: six starts a night, then wait for the next night.
StartLimitIntervalSec=8h
StartLimitBurst=6

[Service]
Type=exec
WorkingDirectory={_without_specifiers(str(timer.manifest.parent))}
# {TOKEN_VARIABLE} stands in this file, never on a command line.
EnvironmentFile=-{_without_specifiers(environment_file)}
ExecStart={command}
# To keep it as a credential, put these two in the place of the two above:
#LoadCredential=token:{credential}
#ExecStart=:/bin/sh -c 'export {TOKEN_VARIABLE}="$(cat "%d/token")"; exec "$0" "$@"' {plain}
# 75: stopped early (window, budget, another run has the ledger); the next night goes on.
# 3, some jobs failed or are unknown, stays a failure, so that somebody looks.
SuccessExitStatus=75
# 69: the service is away. All else needs a person (64 65 66 74 77) or the next night.
Restart=no
RestartForceExitStatus=69
RestartSec=10min
# When told to stop it collects what is paid for, for 30 s, tells people, and leaves by itself.
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
# A start that the machine slept through is made up for when it is back.
Persistent=true
RandomizedDelaySec=2min
AccuracySec=1min

[Install]
WantedBy=timers.target
"""


def _systemd_days(days: Sequence[int]) -> str:
    names = [name.title() for name in _DAY_NAMES]
    return _in_ranges(days, lambda day: names[day], "..")


def _without_specifiers(text: str) -> str:
    return text.replace("%", "%%")


# cron


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
    line = f"{timer.at.minute} {timer.at.hour} * * {_cron_days(timer.days)} {command}\n"
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


def _cron_days(days: Iterable[int], shift: int = 0) -> str:
    """Return days as cron counts them, from Sunday as 0."""
    numbers = sorted((day + 1 + shift) % 7 for day in days)
    return "*" if len(numbers) == 7 else _in_ranges(numbers, str)


def _markers(name: str) -> tuple[str, str]:
    return f"# BEGIN {name}: {_MARK}", f"# END {name}"


# GitHub


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where a workflow runs: the repository's folder, the output folder in it, pip's argument."""

    folder: Path
    output_dir: Path
    source: str


def workflow_file(timer: Timer, repository: Repository, year: int) -> File:
    """Return the workflow; raises UsageError for what GitHub cannot know or keep."""
    if timer.timezone is None:
        raise UsageError(
            "GitHub's clock is UTC: the time zone must be named",
            hint="add --timezone Europe/Madrid, or UTC",
        )
    manifest = _inside(timer.manifest, repository.folder, "the manifest")
    output_dir = _inside(repository.output_dir, repository.folder, "output.dir")
    name = f"{timer.name}.yml"
    text = _WORKFLOW % {
        "file": name,
        "mark": _MARK,
        "name": timer.name,
        "schedule": "\n".join(f"    {line}" for line in _workflow_schedule(timer, year)),
        "zone": json.dumps(timer.timezone),
        "source": _without_expressions(shlex.quote(repository.source)),
        "manifest": _without_expressions(shlex.quote(manifest)),
        "output_dir": _without_expressions(json.dumps(output_dir, ensure_ascii=False)),
        "ledger": _without_expressions(shlex.quote(f"{output_dir}/ledger.jsonl")),
        "token": TOKEN_VARIABLE,
    }
    return File(repository.folder / ".github" / "workflows" / name, text)


def utc_crons(timer: Timer, year: int) -> dict[str, timedelta]:
    """Return the lines of cron that start at the time all year on a clock of UTC.

    One for each offset the zone has, in the months that have it, with that offset. A month in which
    the clock changes is in both, so that no night is left out.
    """
    zone = ZoneInfo(timer.timezone or "UTC")
    found: dict[tuple[time, int, timedelta], set[int]] = {}
    day = datetime(year, 1, 1, tzinfo=UTC).date()
    while day.year == year:
        local = datetime.combine(day, timer.at, zone)
        start = local.astimezone(UTC)
        key = (start.time(), (start.date() - day).days, local.utcoffset() or timedelta())
        found.setdefault(key, set()).add(start.month)
        day += timedelta(days=1)
    crons = {}
    for (at, shift, offset), months in found.items():
        month = "*" if len(months) == 12 else _in_ranges(sorted(months), str)
        crons[f"{at.minute} {at.hour} * {month} {_cron_days(timer.days, shift)}"] = offset
    return crons


def _workflow_schedule(timer: Timer, year: int) -> Iterator[str]:
    crons = utc_crons(timer, year)
    yield f"# GitHub counts in UTC; this is {timer.at:%H:%M} in {timer.timezone}."
    if len(crons) > 1:
        yield "# Summer and winter differ there: a line for each. In the months in which the clock"
        yield "# changes both start a run, one of them an hour off; nothing is bought twice."
    for cron, offset in crons.items():
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        sign = "-" if offset < timedelta() else "+"
        yield f'- cron: "{cron}" # while it is UTC{sign}{hours:02}:{minutes:02} there'


def _inside(path: Path, folder: Path, what: str) -> str:
    try:
        relative = path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError as error:
        raise UsageError(
            f"{what} is outside the repository: {path}",
            hint="GitHub keeps only what is inside: move it there",
        ) from error
    _require_writable_as_text(relative)
    return f"./{relative}" if relative.startswith("-") else relative


def _without_expressions(text: str) -> str:
    """Keep GitHub from reading a name as one of its expressions."""
    return text.replace("${{", "${{ '${{' }}")


_WORKFLOW = """\
# %(file)s: %(mark)s
name: %(name)s

on:
  schedule:
%(schedule)s
  workflow_dispatch:
    inputs:
      first:
        description: There is no ledger yet, this is the first run
        type: boolean
        default: false

permissions:
  contents: read

# One run at a time: a second one waits.
concurrency:
  group: %(name)s
  cancel-in-progress: false

jobs:
  run:
    runs-on: ubuntu-latest
    timeout-minutes: 355
    env:
      TZ: %(zone)s
    steps:
      - uses: actions/checkout@v4

      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"

      - name: Install
        run: python -m pip install %(source)s

      # The ledger says what was bought. A run without it would buy everything again, so the output
      # folder is kept from run to run: in the cache, and with each run as an artifact. Where GitHub
      # loses a run's cache, the next run buys that run's pictures again: set limits.cost_usd.
      - name: Fetch the output folder with the ledger
        id: kept
        uses: actions/cache/restore@v4
        with:
          path: %(output_dir)s
          key: %(name)s/${{ github.run_id }}-${{ github.run_attempt }}
          restore-keys: %(name)s/

      # GitHub drops a cache after seven days without a run, or when it needs room. Then take the
      # ledger from the last artifact and commit it where it was.
      - name: Refuse to buy everything again
        if: ${{ !inputs.first }}
        run: |
          if [ ! -s %(ledger)s ]; then
            echo "::error::the ledger is gone; commit it from the last artifact, or start the" \\
              "very first run by hand with 'first' ticked"
            exit 1
          fi

      - name: Run, or go on
        env:
          %(token)s: ${{ secrets.%(token)s }}
        run: |
          code=0
          # GitHub ends a job after six hours, and leaves no time to collect what is paid for.
          timeout --preserve-status --kill-after=60s 330m \\
            batch-runner run %(manifest)s --quiet || code=$?
          # 75: stopped early (window, budget, time); the next night goes on.
          if [ "$code" -eq 75 ]; then
            echo "::notice::stopped early, the next run goes on"
            code=0
          fi
          exit "$code"

      # Also after a failure: what was bought must be on record.
      - name: Keep the output folder with the ledger
        if: always()
        uses: actions/cache/save@v4
        with:
          path: %(output_dir)s
          key: ${{ steps.kept.outputs.cache-primary-key }}

      - name: Hand out the pictures
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: %(name)s-${{ github.run_id }}-${{ github.run_attempt }}
          path: %(output_dir)s
          if-no-files-found: ignore
"""


def _in_ranges(numbers: Sequence[int], show: Callable[[int], str], dash: str = "-") -> str:
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


# What people do next


def systemd_steps(timer: Timer, folder: Path, *, installed: bool) -> list[str]:
    """Return what to type after the units are in place, and to look, and to undo it."""
    unit = f"{timer.name}.timer"
    paths = shlex.join(str(folder / f"{timer.name}.{kind}") for kind in ("timer", "service"))
    log = f"journalctl --user -u {timer.name}.service"
    if timer.log_file is not None:
        log = f"less {shlex.quote(str(timer.log_file))}"
    return [
        *_environment_steps(timer, installed=installed),
        f"start it:  systemctl --user daemon-reload && systemctl --user enable --now {unit}",
        "also while you are logged out:  loginctl enable-linger",
        f"look:  systemctl --user list-timers {unit}; {log}",
        f"remove:  systemctl --user disable --now {unit} && rm {paths}",
    ]


def cron_steps(timer: Timer, *, installed: bool) -> list[str]:
    """Return what to do for the crontab line to work, and to look, and to undo it."""
    steps = _environment_steps(timer, installed=installed)
    if timer.log_file is not None:
        steps.append(f"look:  less {shlex.quote(str(timer.log_file))}")
    begin, end = _markers(timer.name)
    return [*steps, f"remove:  crontab -e, and take out all from '{begin}' to '{end}'"]


def github_steps(workflow: Path) -> list[str]:
    """Return what to type for the workflow to run, and to look, and to undo it."""
    name, path = workflow.name, shlex.quote(str(workflow))
    return [
        f"token:  gh secret set {TOKEN_VARIABLE}",
        f"start it:  git add {path}, commit, and push to the default branch",
        f"the first run, by hand:  gh workflow run {name} -f first=true",
        f"look:  gh run list --workflow {name}",
        f"remove:  git rm {path}",
    ]


def _environment_steps(timer: Timer, *, installed: bool) -> list[str]:
    environment_file = shlex.quote(str(timer.environment_file))
    steps = [f"token:  write {TOKEN_VARIABLE}=… into {environment_file}, mode 0600"]
    if timer.log_file is not None and not installed:
        steps.append(f"folder of the log:  mkdir -p {shlex.quote(str(timer.log_file.parent))}")
    return steps


# Installing


def write_files(files: Sequence[File], *, force: bool) -> list[tuple[Path, bool]]:
    """Write all of them or none; return each path and whether it had to be written.

    A file somebody else wrote is never touched, one of ours that differs only by `force`; raises
    UsageError for both, and StorageError.
    """
    pending = [(file, _must_write(file, force=force)) for file in files]
    with _storage_errors("cannot write"):
        for file, is_new in pending:
            if is_new:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                _replace(file)
    return [(file.path, is_new) for file, is_new in pending]


def write_environment_file(path: Path) -> bool:
    """Create the file for the token if there is none, for the user alone; tell whether it did."""
    text = (
        "# For batch-runner when the machine starts it. NAME=value, in single quotes where the\n"
        "# value holds anything but letters, digits, dots, dashes and underscores.\n"
        f"{TOKEN_VARIABLE}=\n"
    )
    with _storage_errors("cannot write"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    return True


def make_log_folder(timer: Timer) -> None:
    """Make the folder the log is to be in; raises StorageError."""
    if timer.log_file is not None:
        with _storage_errors("cannot make the folder of the log"):
            timer.log_file.parent.mkdir(parents=True, exist_ok=True)


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


def _must_write(file: File, *, force: bool) -> bool:
    try:
        text = file.path.read_bytes()
    except FileNotFoundError:
        if not file.path.is_symlink():
            return True
        text = b""
    except OSError as error:
        raise StorageError(f"cannot read {file.path}: {error.strerror}") from error
    if text == file.text.encode():
        return False
    if _MARK.encode() not in text.partition(b"\n")[0]:
        raise UsageError(
            f"{file.path} is in the way: batch-runner did not write it",
            hint="move it away, or give the manifest another 'name:'",
        )
    if not force:
        raise UsageError(
            f"{file.path} is there already, and differs",
            hint="--force replaces it; another 'name:' in the manifest keeps both",
        )
    return True


def _replace(file: File) -> None:
    """Write beside it, then rename: a scheduler never reads half a file."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{file.path.name}-", dir=file.path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as written:
            written.write(file.text)
        # mkstemp makes it the user's alone; units and workflows are no secrets.
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(file.path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.filename}: {error.strerror}") from error
