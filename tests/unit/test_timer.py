"""The texts of systemd units and crontab lines, read as their programs read them."""

from __future__ import annotations

import re
import shlex
import subprocess
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batch_runner.commands.timer import (
    Timer,
    crontab_text,
    log_file,
    service_text,
    timer_name,
    timer_text,
)
from batch_runner.errors import UsageError

PATHS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\", include_characters=" "),
    min_size=1,
    max_size=30,
).map(lambda text: f"/home/{text}/job.yaml")


def timer(**changes: Any) -> Timer:
    options: dict[str, Any] = {
        "name": "batch-runner-spring",
        "program": ("/opt/venv/bin/batch-runner",),
        "manifest": Path("/home/ana/jobs/spring.yaml"),
        "at": time(22),
        "environment_file": Path("/home/ana/.config/batch-runner/env"),
        "days": range(7),
        "timezone": "Europe/Madrid",
    }
    return Timer(**{**options, **changes})


def setting(text: str, name: str) -> str:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)[0]  # type: ignore[no-any-return]


def systemd_words(line: str) -> list[str]:
    """Split a command as systemd.service(5) says: double quotes, escapes, specifiers."""
    assert line.startswith(":"), "variables would be replaced"
    words = []
    for quoted in re.findall(r'"((?:\\.|[^"\\])*)"(?=\s|$)', line[1:]):
        word = re.sub(r"\\(.)", r"\1", quoted)
        assert re.sub("%%", "", word).count("%") == 0, "a specifier"
        words.append(word.replace("%%", "%"))
    return words


def cron_command(some: Timer) -> str:
    """Return the command of a line as cron reads it: a backslash keeps a % from ending it."""
    command = crontab_text(some).splitlines()[-1].split(maxsplit=5)[5]
    assert not re.search(r"(?<!\\)%", command), "a bare % ends the command"
    return command.replace("\\%", "%")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("overnight", "batch-runner-overnight"),
        ("Año nuevo / 50 %", "batch-runner-Ano-nuevo-50"),
        ("../etc", "batch-runner-etc"),
        ("夜", "batch-runner-batch"),
        ("x" * 300, "batch-runner-" + "x" * 100),
    ],
)
def test_a_timer_has_a_name_that_every_scheduler_takes(name: str, expected: str) -> None:
    assert timer_name(name) == expected


def test_days_are_written_as_each_scheduler_writes_them() -> None:
    some = timer(days=(0, 2, 6), at=time(3, 5))
    when = setting(timer_text(some), "OnCalendar")
    assert when == "Mon,Wed,Sun *-*-* 03:05:00 Europe/Madrid"
    assert crontab_text(some).splitlines()[-1].startswith("5 3 * * 0,1,3 ")


@given(PATHS, PATHS)
@example('/a b/%n $HOME/"q" it\'s/ünïx/;&|<>`!#~[z]*', "/plain/bin/batch-runner")
def test_every_path_comes_back_from_every_format_as_it_was(path: str, program: str) -> None:
    path = str(Path(path))
    assume(".." not in Path(path).parts)
    some = timer(manifest=Path(path), program=(program,))
    words = [program, "run", path, "--quiet"]
    assert systemd_words(setting(service_text(some), "ExecStart")) == words
    if ";" not in path + program:
        found = shlex.split(cron_command(some).replace(";", " ; "))
        start = found.index("run") - 1
        assert found[start : start + 4] == words
        assert f">>{log_file(some)}" in found


def test_the_line_of_cron_is_what_a_shell_obeys(tmp_path: Path) -> None:
    folder = tmp_path / 'a %b "d" it\'s $HOME;ü'
    folder.mkdir()
    program = folder / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$RUNCOMFY_API_TOKEN"\nexit 75\n')
    program.chmod(0o755)
    some = timer(
        program=(str(program),), manifest=folder / "job.yaml", environment_file=folder / "env"
    )
    subprocess.run(["/bin/sh", "-c", cron_command(some)], check=True)
    (folder / "env").write_text("# comment\nRUNCOMFY_API_TOKEN='s3 cret'\n")
    subprocess.run(["/bin/sh", "-c", cron_command(some)], check=True)
    lines = (folder / "job.log").read_text().splitlines()
    begin = ["run", str(folder / "job.yaml"), "--quiet"]
    assert lines[:4] == [*begin, ""]
    assert lines[4].startswith("exit code 75 at ")
    assert lines[5:9] == [*begin, "s3 cret"]


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\x7fb.yaml", "a\udcff.yaml", "a\\", "a\u2028"])
def test_a_name_that_no_format_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written into a schedule"):
        service_text(timer(manifest=Path("/x") / name))


def test_the_service_accepts_75_retries_after_69_and_fails_otherwise() -> None:
    text = service_text(timer())
    assert setting(text, "Type") == "exec"
    assert setting(text, "SuccessExitStatus") == "75"
    assert setting(text, "Restart") == "no"
    assert setting(text, "RestartForceExitStatus") == "69"
    assert setting(text, "TimeoutStopSec") == "120s"
    assert setting(text, "EnvironmentFile") == "-/home/ana/.config/batch-runner/env"
    assert setting(timer_text(timer()), "Persistent") == "true"
