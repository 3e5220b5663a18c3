"""`schedule` as a user runs it, judged by the programs that will read what it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import PROJECT, run

SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
CRON = pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed")

PUBLIC = "https://cdn.example.com/{{ sku }}.png"


class Home:
    """A user's folders, and a repository whose path is hard to quote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / 'my "shop" %n $HOME it\'s ünï'
        self.manifest = self.repository / "jobs" / "over night.yaml"
        self.units = folder / "config" / "systemd" / "user"
        self.environment_file = folder / "config" / "batch-runner" / "env"
        (self.repository / ".git").mkdir(parents=True)
        shutil.copytree(PROJECT / "samples", self.repository / "samples")
        self.manifest.parent.mkdir()
        example = (PROJECT / "jobs" / "overnight.yaml").read_text(encoding="utf-8")
        # A night at the real service needs pictures that it can fetch.
        self.manifest.write_text(example.replace("{{ front_url }}", PUBLIC), encoding="utf-8")
        (folder / "bin").mkdir()
        (folder / "runtime").mkdir(mode=0o700)
        self.environment = {
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "RUNCOMFY_API_TOKEN": "s3cret-token",
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "TZ": "UTC",
        }

    def schedule(self, *words: str, manifest: Path | None = None) -> Any:
        done = run("schedule", str(manifest or self.manifest), *words, **self.environment)
        assert "s3cret-token" not in done.stdout + done.stderr
        return done


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def judged(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "XDG_RUNTIME_DIR": home.environment["XDG_RUNTIME_DIR"]},
    )


@SYSTEMD
@pytest.mark.parametrize("words", [(), ("--days", "mon-fri")])
def test_systemd_finds_nothing_wrong_with_the_units(home: Home, words: tuple[str, ...]) -> None:
    done = home.schedule("--kind", "systemd", "--install", *words)
    assert done.returncode == 0, done.stderr
    units = sorted(home.units.iterdir())
    assert [unit.name for unit in units] == [
        "batch-runner-over-night.service",
        "batch-runner-over-night.timer",
    ]
    # In a folder with a plain name: verify reads a unit's path as words.
    plain = home.folder / "units"
    shutil.copytree(home.units, plain)
    paths = [str(plain / unit.name) for unit in units]
    verified = judged(home, "systemd-analyze", "--user", "verify", *paths)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@SYSTEMD
def test_a_unit_whose_program_is_missing_is_what_systemd_complains_of(home: Home) -> None:
    home.schedule("--kind", "systemd", "--install")
    unit = home.folder / "broken.service"
    text = (home.units / "batch-runner-over-night.service").read_text()
    unit.write_text(text.replace('ExecStart=:"/', 'ExecStart=:"/nowhere/'))
    verified = judged(home, "systemd-analyze", "--user", "verify", str(unit))
    assert verified.returncode != 0
    assert "is not executable" in verified.stderr


@SYSTEMD
@pytest.mark.parametrize(
    ("words", "next_utc"),
    [
        ((), "Next elapse: Sun 2026-03-01 21:00:00 UTC"),
        (("--days", "mon-fri"), "Next elapse: Mon 2026-03-02 21:00:00 UTC"),
        (("--days", "sat,mon-tue", "--at", "03:05"), "Next elapse: Mon 2026-03-02 02:05:00 UTC"),
        (("--days", "fri-mon"), "Next elapse: Sun 2026-03-01 21:00:00 UTC"),
    ],
)
def test_systemd_starts_the_run_on_time(home: Home, words: tuple[str, ...], next_utc: str) -> None:
    text = home.schedule("--kind", "systemd", *words).stdout
    calendar = next(line for line in text.splitlines() if line.startswith("OnCalendar="))
    judgement = subprocess.run(
        [
            *("systemd-analyze", "calendar", "--base-time=2026-03-01 12:00:00 UTC"),
            calendar.removeprefix("OnCalendar="),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": "UTC"},
    )
    assert next_utc in judgement.stdout


@CRON
@pytest.mark.parametrize("words", [(), ("--days", "sat,sun")])
def test_cron_finds_nothing_wrong_with_the_line(home: Home, words: tuple[str, ...]) -> None:
    done = home.schedule("--kind", "cron", *words)
    assert done.returncode == 0, done.stderr
    tab = home.folder / "printed"
    tab.write_text("MAILTO=ana\n" + done.stdout + "5 4 * * sun true\n")
    checked = judged(home, "crontab", "-n", str(tab))
    if "-n" in checked.stderr and checked.returncode != 0:
        pytest.skip("this crontab checks no files")
    assert checked.returncode == 0, checked.stderr


def test_what_is_printed_is_what_is_written_and_writing_twice_changes_nothing(home: Home) -> None:
    printed = home.schedule("--kind", "systemd")
    assert not home.units.exists()
    first = home.schedule("--kind", "systemd", "--install")
    assert first.returncode == 0
    assert first.stdout == ""
    units = sorted(home.units.iterdir())
    assert printed.stdout == "\n".join(unit.read_text() for unit in units)
    assert home.environment_file.stat().st_mode & 0o777 == 0o600
    home.environment_file.write_text("RUNCOMFY_API_TOKEN=mine\n")
    before = [unit.stat().st_mtime_ns for unit in units]
    second = home.schedule("--kind", "systemd", "--install")
    assert second.returncode == 0
    assert [unit.stat().st_mtime_ns for unit in units] == before
    assert home.environment_file.read_text() == "RUNCOMFY_API_TOKEN=mine\n"


@pytest.mark.parametrize("kind", ["another text", "a link to nothing"])
def test_a_unit_that_differs_is_never_overwritten_and_then_nothing_is_written(
    home: Home, kind: str
) -> None:
    home.units.mkdir(parents=True)
    unit = home.units / "batch-runner-over-night.timer"
    if kind == "another text":
        unit.write_text("[Timer]\n")
    else:
        unit.symlink_to("nowhere")
    done = home.schedule("--kind", "systemd", "--install")
    assert done.returncode == 64
    assert "already exists, and differs" in done.stderr
    assert f"hint: read it, and if you don't need it: rm {unit}" in done.stderr
    assert [path.name for path in home.units.iterdir()] == [unit.name]
    assert not home.environment_file.exists()


def test_variables_of_the_manifest_are_written_beside_the_token(home: Home) -> None:
    text = home.manifest.read_text(encoding="utf-8")
    assert "\nnotify:" not in text
    home.manifest.write_text(text + "notify: {apprise: '${ROOM_URL}'}\n", encoding="utf-8")
    done = home.schedule("--kind", "systemd")
    assert f"write RUNCOMFY_API_TOKEN=…, ROOM_URL=… into {home.environment_file}" in done.stderr


def test_the_scheduler_of_this_machine_is_chosen_and_the_time_of_the_window(home: Home) -> None:
    (home.folder / "bin" / "systemctl").write_text("#!/bin/sh\n")
    (home.folder / "bin" / "systemctl").chmod(0o755)
    assert " *-*-* 22:00:00 Europe/Madrid\n" in home.schedule().stdout
    home.environment["PATH"] = str(home.folder / "nowhere")
    assert "\n0 22 * * 0,1,2,3,4,5,6 " in home.schedule().stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--at", "25:00"), 64, "is not a time of day"),
        (("--days", "someday"), 64, "'someday' is not mon-fri or sat,sun"),
        (("--kind", "cron", "--install"), 64, "--install is for systemd only"),
        (("--at", "12:00"), 0, "the manifest's window is closed (22:00-06:00 Europe/Madrid)"),
        # In summer it is six o'clock in Madrid.
        (("--kind", "cron", "--at", "04:30"), 0, "at 04:30 of this machine the manifest's window"),
    ],
)
def test_what_cannot_be_is_an_error_and_what_is_doubtful_a_warning(
    home: Home, words: tuple[str, ...], code: int, says: str
) -> None:
    done = home.schedule(*words)
    assert done.returncode == code
    assert says in done.stderr
    assert ("warning: " in done.stderr) is (code == 0)


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_a_night_that_can_only_fail_is_refused_as_a_run_would(home: Home, kind: str) -> None:
    text = home.manifest.read_text(encoding="utf-8")
    home.manifest.write_text(text.replace(PUBLIC, "{{ front_url }}"), encoding="utf-8")
    refused = home.schedule("--kind", kind)
    assert (refused.returncode, refused.stdout) == (65, "")
    assert "catalog.csv:2: row 2: column 'front_url': " in refused.stderr
    planned = run("plan", str(home.manifest), **home.environment)
    assert planned.stderr.endswith(refused.stderr)
    assert not home.units.exists()


def test_a_manifest_without_a_window_needs_a_time(home: Home) -> None:
    plain = home.manifest.with_name("quick.yaml")
    with_window = home.manifest.read_text(encoding="utf-8")
    plain.write_text(with_window.partition("window:")[0], encoding="utf-8")
    done = home.schedule(manifest=plain)
    assert done.returncode == 64
    assert "hint: add --at 22:00" in done.stderr
    done = home.schedule("--kind", "systemd", "--at", "22:00", manifest=plain)
    assert " *-*-* 22:00:00\n" in done.stdout
