"""`schedule` as a user runs it, judged by the programs that will read what it writes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import PROJECT, run

SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
CRON = pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed")

PUBLIC = "https://cdn.example.com/{{ sku }}.png"

FAKE_CRONTAB = f"""\
#!{sys.executable}
import pathlib, sys
tab = pathlib.Path(__file__).with_name("tab")
if sys.argv[1:] == ["-l"]:
    if not tab.exists():
        sys.exit("no crontab for somebody")
    sys.stdout.buffer.write(tab.read_bytes())
elif sys.argv[1:] == ["-"]:
    tab.write_bytes(sys.stdin.buffer.read())
    with tab.with_name("writes").open("a") as writes:
        writes.write("x")
else:
    sys.exit("not expected here")
"""


class Home:
    """A user's folders, a repository whose path is hard to quote, and a crontab of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / 'my "shop" %n $HOME it\'s ünï'
        self.manifest = self.repository / "jobs" / "over night.yaml"
        self.units = folder / "config" / "systemd" / "user"
        self.environment_file = folder / "config" / "batch-runner" / "env"
        self.tab = folder / "bin" / "tab"
        (self.repository / ".git").mkdir(parents=True)
        shutil.copytree(PROJECT / "samples", self.repository / "samples")
        self.manifest.parent.mkdir()
        example = (PROJECT / "jobs" / "overnight.yaml").read_text(encoding="utf-8")
        # A night at the real service needs pictures that it can fetch.
        self.manifest.write_text(example.replace("{{ front_url }}", PUBLIC), encoding="utf-8")
        self.tab.parent.mkdir()
        (folder / "bin" / "crontab").write_text(FAKE_CRONTAB)
        (folder / "bin" / "crontab").chmod(0o755)
        (folder / "runtime").mkdir(mode=0o700)
        self.environment = {
            "HOME": pwd.getpwuid(os.getuid()).pw_dir,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
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
@pytest.mark.parametrize("words", [(), ("--log-file", "a b%h.log", "--days", "mon-fri")])
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
    # The same with what the comments offer: a credential in the place of the environment file.
    service = plain / units[0].name
    lines = service.read_text().splitlines()
    lines = [
        line.removeprefix("#") if line.startswith(("#LoadCredential", "#ExecStart")) else line
        for line in lines
        if not line.startswith(("EnvironmentFile", "ExecStart"))
    ]
    service.write_text("\n".join(lines) + "\n")
    verified = judged(home, "systemd-analyze", "--user", "verify", str(service))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@SYSTEMD
def test_a_unit_whose_program_is_missing_is_what_systemd_complains_of(home: Home) -> None:
    home.schedule("--kind", "systemd", "--install")
    unit = home.folder / "broken.service"
    text = (home.units / "batch-runner-over-night.service").read_text()
    unit.write_text(
        text.replace("ExecStart=/", "ExecStart=/nowhere/").replace("=:/", "=:/nowhere/")
    )
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
        (("--timezone", "Asia/Tokyo"), "Next elapse: Sun 2026-03-01 13:00:00 UTC"),
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
@pytest.mark.parametrize("words", [(), ("--days", "sat,sun", "--log-file", "a b%.log")])
def test_cron_finds_nothing_wrong_with_the_line(home: Home, words: tuple[str, ...]) -> None:
    done = home.schedule("--kind", "cron", *words)
    assert done.returncode == 0, done.stderr
    tab = home.folder / "printed"
    tab.write_text("MAILTO=ana\n" + done.stdout + "5 4 * * sun true\n")
    # From the system's folders: the first crontab of this test's PATH is a fake.
    crontab = shutil.which("crontab", path=os.defpath) or "crontab"
    checked = judged(home, crontab, "-n", str(tab))
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
    assert second.stderr.count("unchanged: ") == 2
    assert [unit.stat().st_mtime_ns for unit in units] == before
    assert home.environment_file.read_text() == "RUNCOMFY_API_TOKEN=mine\n"
    differs = home.schedule("--kind", "systemd", "--install", "--at", "23:00")
    assert differs.returncode == 64
    assert "hint: --force replaces it" in differs.stderr
    assert (
        home.schedule("--kind", "systemd", "--install", "--at", "23:00", "--force").returncode == 0
    )
    assert "23:00:00 Europe/Madrid" in units[1].read_text()


def test_a_foreign_unit_is_never_overwritten(home: Home) -> None:
    home.units.mkdir(parents=True)
    unit = home.units / "batch-runner-over-night.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    done = home.schedule("--kind", "systemd", "--install", "--force")
    assert done.returncode == 64
    assert "batch-runner did not write it" in done.stderr
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert not (home.units / "batch-runner-over-night.timer").exists()


def test_a_foreign_crontab_stays_byte_for_byte_and_is_written_once(home: Home) -> None:
    foreign = b"# mine \xff\r\n\n\tMAILTO = ana\n5 4 * * sun  echo 100\\%"
    home.tab.write_bytes(foreign)
    first = home.schedule("--kind", "cron", "--install")
    assert first.returncode == 0, first.stderr
    assert "added to the crontab" in first.stderr
    text = home.tab.read_bytes()
    assert text.startswith(foreign + b"\n# BEGIN batch-runner-over-night")
    printed = home.schedule("--kind", "cron").stdout
    assert text == foreign + b"\n" + printed.encode()
    home.tab.write_bytes(text + b"1 1 * * * after\n")
    second = home.schedule("--kind", "cron", "--install")
    assert "the crontab already has these lines" in second.stderr
    assert home.tab.read_bytes() == text + b"1 1 * * * after\n"
    assert home.tab.with_name("writes").read_text() == "x"
    assert (home.folder / "state" / "batch-runner").is_dir()


def test_a_home_of_another_user_leaves_the_crontab_alone(home: Home) -> None:
    (home.folder / "home").mkdir()
    home.environment["HOME"] = str(home.folder / "home")
    done = home.schedule("--kind", "cron", "--install")
    assert done.returncode == 64
    assert f"HOME is {home.folder}/home, but this would change the crontab of " in done.stderr
    assert "hint: " in done.stderr
    assert not home.tab.exists()
    assert not home.environment_file.exists()
    assert home.schedule("--kind", "cron").stdout.startswith("# BEGIN ")
    link = home.folder / "link"
    link.symlink_to(pwd.getpwuid(os.getuid()).pw_dir)
    home.environment["HOME"] = str(link)
    assert home.schedule("--kind", "cron", "--install").returncode == 0


def test_variables_of_the_manifest_that_the_runs_will_not_find_are_named(home: Home) -> None:
    text = home.manifest.read_text(encoding="utf-8")
    assert "\nnotify:" not in text
    home.manifest.write_text(text + "notify: {apprise: '${ROOM_URL}'}\n", encoding="utf-8")
    first = home.schedule("--kind", "systemd", "--install")
    warning = f"warning: notify needs ROOM_URL: set it in {home.environment_file}"
    assert warning in first.stderr
    assert "RUNCOMFY_API_TOKEN=…, ROOM_URL=…" in first.stderr
    assert "\nROOM_URL=\n" in home.environment_file.read_text()
    home.environment_file.write_text("ROOM_URL=https://example.com/x\n")
    assert warning not in home.schedule("--kind", "systemd", "--install").stderr


def test_a_missing_crontab_is_created(home: Home) -> None:
    assert home.schedule("--kind", "cron", "--install").returncode == 0
    assert home.tab.read_bytes().startswith(b"# BEGIN ")


def test_the_scheduler_of_this_machine_is_chosen_and_the_time_of_the_window(home: Home) -> None:
    (home.folder / "bin" / "systemctl").write_text("#!/bin/sh\n")
    (home.folder / "bin" / "systemctl").chmod(0o755)
    assert "OnCalendar=*-*-* 22:00:00 Europe/Madrid\n" in home.schedule().stdout
    home.environment["PATH"] = str(home.folder / "nowhere")
    assert "\n0 22 * * * " in home.schedule().stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--at", "25:00"), 64, "is not a time of day"),
        (("--days", "someday"), 64, "is not a day of the week"),
        (("--timezone", "Europe/Madird"), 64, "hint: did you mean 'Europe/Madrid'?"),
        (("--at", "12:00"), 0, "the manifest's window is closed (22:00-06:00)"),
        (("--kind", "cron"), 0, "this machine is not in the time zone Europe/Madrid"),
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
def test_a_night_that_can_only_fail_is_refused_as_a_run_would_before_anything_is_installed(
    home: Home, kind: str
) -> None:
    text = home.manifest.read_text(encoding="utf-8")
    home.manifest.write_text(text.replace(PUBLIC, "{{ front_url }}"), encoding="utf-8")
    refused = home.schedule("--kind", kind, "--install")
    assert (refused.returncode, refused.stdout) == (65, "")
    assert "catalog.csv:2: row 2: column 'front_url': " in refused.stderr
    planned = run("plan", str(home.manifest), **home.environment)
    assert planned.stderr.endswith(refused.stderr)
    assert not home.units.exists()
    assert not home.tab.exists()


def test_a_manifest_without_a_window_needs_a_time(home: Home) -> None:
    plain = home.manifest.with_name("quick.yaml")
    with_window = home.manifest.read_text(encoding="utf-8")
    plain.write_text(with_window.partition("window:")[0], encoding="utf-8")
    done = home.schedule(manifest=plain)
    assert done.returncode == 64
    assert "hint: add --at 22:00" in done.stderr
    done = home.schedule("--kind", "systemd", "--at", "22:00", manifest=plain)
    assert "OnCalendar=*-*-* 22:00:00\n" in done.stdout
