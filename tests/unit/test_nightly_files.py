"""The examples for a run every night, held against the programs that read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from batch_runner.commands.run import GRACE_S
from batch_runner.errors import ExitCode

JOBS = Path(__file__).parents[2] / "jobs"
SERVICE = (JOBS / "nightly.service").read_text(encoding="utf-8")
TIMER = (JOBS / "nightly.timer").read_text(encoding="utf-8")
GUIDE = (JOBS / "README.md").read_text(encoding="utf-8")
[CRON] = re.findall(r"^\d+ \d+ \* \* .*$", GUIDE, re.MULTILINE)
# After the grace, calls under way get a few seconds, and notifications up to a minute.
LEAVING_S = GRACE_S + 60

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "TZ": "UTC"},
    )


def setting(unit: str, name: str) -> str:
    [value] = re.findall(f"^{name}=(.*)$", unit, re.MULTILINE)
    return str(value)


@systemd
@pytest.mark.parametrize("is_there", [True, False], ids=["usable", "program missing"])
def test_systemd_accepts_the_units_once_the_program_is_there(
    tmp_path: Path, is_there: bool
) -> None:
    program = setting(SERVICE, "ExecStart").split()[0]
    mine = SERVICE.replace(program, shutil.which("true") or "" if is_there else "/nowhere/true")
    for name, text in (("nightly.service", mine), ("nightly.timer", TIMER)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [str(tmp_path / "nightly.service"), str(tmp_path / "nightly.timer")]
    done = analyze(tmp_path, "--user", "verify", *paths)
    assert (done.returncode == 0 and not done.stderr) is is_there, done.stderr


@systemd
def test_the_timer_obeys_the_time_zone(tmp_path: Path) -> None:
    when = setting(TIMER, "OnCalendar")
    done = analyze(tmp_path, "calendar", "--base-time=2026-03-01 12:00:00 UTC", when)
    assert "Next elapse: Mon 2026-03-02 21:00:00 UTC" in done.stdout


def test_the_service_repeats_what_is_worth_repeating_and_waits_for_a_run_that_leaves() -> None:
    assert setting(SERVICE, "SuccessExitStatus") == str(int(ExitCode.STOPPED_EARLY))
    assert setting(SERVICE, "RestartForceExitStatus") == str(int(ExitCode.UNAVAILABLE))
    assert setting(SERVICE, "Restart") == "no"
    assert int(setting(SERVICE, "TimeoutStopSec").removesuffix("s")) >= LEAVING_S


@pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed")
def test_cron_accepts_the_line_of_the_guide(tmp_path: Path) -> None:
    tab = tmp_path / "tab"
    tab.write_text(f"{CRON}\n", encoding="utf-8")
    done = subprocess.run(["crontab", "-n", tab], capture_output=True, text=True, check=False)
    if "-n" in done.stderr and done.returncode != 0:
        pytest.skip("this crontab checks no files")
    assert done.returncode == 0, done.stderr


def test_the_line_for_cron_hands_the_token_over_and_logs_the_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "batch-runner" / ".venv" / "bin" / "batch-runner"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$RUNCOMFY_API_TOKEN $*"\nexit 3\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "shop").mkdir()
    (tmp_path / ".config" / "batch-runner").mkdir(parents=True)
    settings = tmp_path / ".config" / "batch-runner" / "env"
    settings.write_text("RUNCOMFY_API_TOKEN=secret\n", encoding="utf-8")
    command = CRON.split(maxsplit=5)[5]
    assert "%" not in command  # for cron, it would end the command
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", command], env=environment, cwd=tmp_path, check=True)
    log = (tmp_path / "shop" / "products.log").read_text(encoding="utf-8")
    assert log == "secret run products.yaml --quiet\nexit code 3\n"
