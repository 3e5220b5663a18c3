from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time as clock
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batch_runner.commands.cron import (
    cron_steps,
    cron_zone_warning,
    crontab_block,
    install_crontab,
    merge_crontab,
)
from batch_runner.commands.install import (
    make_log_folder,
    unset_names,
    write_environment_file,
    write_files,
)
from batch_runner.commands.systemd import systemd_files, systemd_steps
from batch_runner.commands.timer import (
    EVERY_DAY,
    File,
    Timer,
    absolute,
    environment_steps,
    parse_days,
    program_words,
    require_zone,
    timer_name,
    window_warning,
)
from batch_runner.errors import StorageError, UsageError
from batch_runner.manifest.form import Window

MADRID = "Europe/Madrid"

PATHS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufffe\uffff/"),
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
        "timezone": MADRID,
    }
    return Timer(**{**options, **changes})


def service(**changes: Any) -> str:
    return systemd_files(timer(**changes), Path("/units"))[0].text


def setting(text: str, name: str) -> str:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)[0]  # type: ignore[no-any-return]


def systemd_words(line: str) -> list[str]:
    """Split a command as systemd.service(5) says: words, double quotes, escapes, specifiers."""
    words = []
    for quoted, plain in re.findall(r'"((?:\\.|[^"\\])*)"(?=\s|$)|(\S+)', line):
        word = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        assert re.sub("%%", "", word).count("%") == 0, "a specifier"
        words.append(word.replace("%%", "%"))
    if words[0].startswith(":"):
        return [words[0][1:], *words[1:]]
    assert not any("$" in word for word in words), "a variable"
    return words


def cron_command(line: str) -> str:
    """Read the command of a line as cron does: a backslash keeps a % from ending it."""
    text = line.split(maxsplit=5)[5]
    command, is_escaped = "", False
    for letter in text:
        if is_escaped and letter == "%":
            command = command[:-1]
        elif letter == "%":
            raise AssertionError("an unescaped % ends the command")
        command += letter
        is_escaped = letter == "\\" and not is_escaped
    return command


def cron_line(block: str) -> str:
    return next(line for line in block.splitlines() if re.match(r"\d", line))


# Names, days, zones


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


@pytest.mark.parametrize(
    ("text", "days", "systemd", "cron"),
    [
        ("mon-fri", (0, 1, 2, 3, 4), "Mon..Fri", "1-5"),
        ("sat,sun", (5, 6), "Sat,Sun", "0,6"),
        ("Mon, wed-FRI", (0, 2, 3, 4), "Mon,Wed..Fri", "1,3-5"),
        ("fri-mon", (0, 4, 5, 6), "Mon,Fri..Sun", "0-1,5-6"),
        ("sun", (6,), "Sun", "0"),
    ],
)
def test_days_are_read_and_written_as_each_scheduler_writes_them(
    text: str, days: tuple[int, ...], systemd: str, cron: str
) -> None:
    assert parse_days(text) == days
    some = timer(days=days)
    assert (
        setting(systemd_files(some, Path())[1].text, "OnCalendar")
        == f"{systemd} *-*-* 22:00:00 {MADRID}"
    )
    field = cron_line(crontab_block(some)).split()[4]
    assert {n for part in field.split(",") for n in numbers(part)} == {
        n for part in cron.split(",") for n in numbers(part)
    }


def numbers(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def test_daily_is_every_day() -> None:
    assert parse_days("daily") == parse_days("mon-sun") == EVERY_DAY
    assert cron_line(crontab_block(timer())).startswith("0 22 * * * ")


@pytest.mark.parametrize("text", ["weekdays", "mon-", "1-5", ""])
def test_other_words_are_no_days(text: str) -> None:
    with pytest.raises(UsageError, match="is not a day of the week"):
        parse_days(text)


def test_an_unknown_zone_is_refused_with_the_closest_one() -> None:
    assert require_zone(MADRID).key == MADRID
    with pytest.raises(UsageError) as caught:
        require_zone("Europe/Madird")
    assert caught.value.hint == "did you mean 'Europe/Madrid'?"
    with pytest.raises(UsageError) as caught:
        require_zone("../../etc/passwd")
    assert caught.value.hint == "write a name such as Europe/Madrid"


def test_the_program_is_the_script_beside_python_or_else_the_module(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    assert program_words(python) == (str(python), "-m", "batch_runner")
    (tmp_path / "batch-runner").touch()
    assert program_words(python) == (str(tmp_path / "batch-runner"),)


def test_a_path_becomes_absolute_without_following_its_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "v1.yaml").touch()
    (tmp_path / "real" / "current.yaml").symlink_to("v1.yaml")
    path = tmp_path / "real" / "current.yaml"
    assert absolute(path) == path
    assert absolute(tmp_path / "real" / ".." / "real" / "current.yaml") == path
    assert absolute(Path("x.yaml")) == Path.cwd() / "x.yaml"


# Quoting


@given(PATHS, PATHS)
@example('/a b/%n $HOME/"q" it\'s/ünï\\x/;&|<>`!#~[z]*', "/plain/bin/batch-runner")
@example("/a\\%b\\\\%c", "/$x")
def test_every_path_comes_back_from_every_format_as_it_was(path: str, program: str) -> None:
    assume(len(path) + len(program) < 200)
    path = str(Path(path))
    assume(not str(Path(path).parent).endswith((" ", "\\")))
    some = timer(manifest=Path(path), program=(program,), environment_file=Path(path + ".env"))
    text = systemd_files(some, Path())[0].text
    words = [program, "run", path, "--quiet"]
    assert systemd_words(setting(text, "ExecStart")) == words
    assert setting(text, "WorkingDirectory").replace("%%", "%") == str(Path(path).parent)
    pattern = setting(text, "EnvironmentFile").removeprefix("-").replace("%%", "%")
    assert re.sub(r"\\(.)", r"\1", pattern) == path + ".env"
    assert not re.search(r"(?<!\\)(?:\\\\)*[*?\[]", pattern)
    command = cron_command(cron_line(crontab_block(some)))
    shell_words = shlex.split(command.replace(";", " ; "), posix=True)
    if ";" not in path + program:
        start = shell_words.index("run") - 1
        assert shell_words[start : start + 4] == words
        assert shell_words[7] == path + ".env"


def test_the_line_of_cron_is_what_a_shell_obeys(tmp_path: Path) -> None:
    folder = tmp_path / 'a %b\\%c "d" it\'s $HOME;ü'
    folder.mkdir()
    program = folder / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$RUNCOMFY_API_TOKEN"\nexit 75\n')
    program.chmod(0o755)
    some = timer(
        program=(str(program),),
        manifest=folder / "job.yaml",
        environment_file=folder / "env",
        log_file=folder / "log",
    )
    command = cron_command(cron_line(crontab_block(some)))
    subprocess.run(["/bin/sh", "-c", command], check=True)
    (folder / "env").write_text("# comment\nRUNCOMFY_API_TOKEN='s3 cret'\n")
    subprocess.run(["/bin/sh", "-c", command], check=True)
    lines = (folder / "log").read_text().splitlines()
    begin = ["run", str(folder / "job.yaml"), "--quiet"]
    assert lines[:4] == [*begin, ""]
    assert lines[4].startswith("exit code 75 at ")
    assert lines[5:9] == [*begin, "s3 cret"]


def test_the_credential_of_the_comment_reaches_the_program_in_its_environment(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    line = re.findall("^#ExecStart=:(.*)$", service(), re.MULTILINE)[0]
    words = shlex.split(line.replace("%d", str(tmp_path)))
    words[3] = "/usr/bin/env"
    words[4:] = []
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "RUNCOMFY_API_TOKEN=s3cret\n" in done.stdout
    assert setting(service(), "#LoadCredential") == "token:/home/ana/.config/batch-runner/token"


@pytest.mark.parametrize(
    "name", ["a\nb.yaml", "a\x7fb.yaml", "a\udcff.yaml", "a\\", "a ", "a\u2028", "a /b", "a\\/b"]
)
def test_a_name_that_no_format_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written into a schedule"):
        timer(manifest=Path("/x") / name)


def test_a_command_that_cron_would_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="too long for a crontab line"):
        crontab_block(timer(manifest=Path("/" + "x" * 990)))


# systemd


def test_the_service_accepts_75_retries_after_69_and_fails_otherwise() -> None:
    text = service()
    assert setting(text, "Type") == "exec"
    assert setting(text, "SuccessExitStatus") == "75"
    assert setting(text, "Restart") == "no"
    assert setting(text, "RestartForceExitStatus") == "69"
    assert setting(text, "RestartSec") == "10min"
    assert setting(text, "TimeoutStopSec") == "120s"
    assert setting(text, "StandardOutput") == "journal"
    assert (
        setting(text, "ExecStart")
        == "/opt/venv/bin/batch-runner run /home/ana/jobs/spring.yaml --quiet"
    )
    assert setting(text, "EnvironmentFile") == "-/home/ana/.config/batch-runner/env"


def test_the_service_appends_to_its_log_file() -> None:
    text = service(log_file=Path("/var/log/50 %/x.log"))
    assert setting(text, "StandardOutput") == "append:/var/log/50 %%/x.log"


def test_the_timer_catches_up_and_uses_the_machines_zone_by_default() -> None:
    text = systemd_files(timer(timezone=None, at=time(3, 5)), Path())[1].text
    assert setting(text, "OnCalendar") == "*-*-* 03:05:00"
    assert setting(text, "Persistent") == "true"


# cron


def test_a_zone_holds_for_the_block_of_the_crontab_only() -> None:
    lines = crontab_block(timer()).splitlines()
    assert lines[0] == "# BEGIN batch-runner-spring: written by batch-runner schedule"
    assert lines.index(f"CRON_TZ={MADRID}") < lines.index('CRON_TZ=""')
    assert lines[-1] == "# END batch-runner-spring"
    assert "CRON_TZ" not in crontab_block(timer(timezone=None))


def test_the_log_of_cron_is_a_file_or_else_its_mail() -> None:
    assert crontab_block(timer(timezone=None)).splitlines()[-2].endswith("; } 2>&1")
    block = crontab_block(timer(timezone=None, log_file=Path("/l o/g")))
    assert block.splitlines()[-2].endswith("; } >>'/l o/g' 2>&1")


# The time


def test_a_zone_that_cron_may_ignore_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", MADRID)
    clock.tzset()
    try:
        assert cron_zone_warning(timer(timezone=None), 2026) is None
        assert cron_zone_warning(timer(timezone="Europe/Paris"), 2026) is None
        # The same time in winter, another in summer.
        for zone in ("Africa/Lagos", "Europe/London"):
            warning = cron_zone_warning(timer(timezone=zone), 2026)
            assert warning is not None
            assert "at 22:00 of this machine's time\nhint: --kind systemd" in warning
    finally:
        monkeypatch.undo()
        clock.tzset()


def test_a_time_at_which_the_window_is_closed_is_warned_of() -> None:
    window = Window(time(22), time(6), MADRID)
    today = datetime(2026, 3, 2, tzinfo=UTC)
    assert window_warning(timer(), None, today) is None
    assert window_warning(timer(), window, today) is None
    warning = window_warning(timer(at=time(12)), window, today)
    assert warning is not None
    assert "(22:00-06:00)" in warning
    assert warning.endswith("hint: --at 22:00")
    assert window_warning(timer(timezone="Asia/Tokyo"), window, today) is not None
    plain = Window(time(0), time(23, 59))
    assert window_warning(timer(timezone=None), plain, today) is None


# What people do next


def test_the_next_steps_are_to_start_look_and_remove() -> None:
    units = "\n".join(systemd_steps(timer(), Path("/u nits"), installed=True))
    assert "systemctl --user daemon-reload && systemctl --user enable --now batch-" in units
    assert "loginctl enable-linger" in units
    assert "journalctl --user -u batch-runner-spring.service" in units
    assert "rm '/u nits/batch-runner-spring.timer'" in units
    logged = timer(log_file=Path("/l/x.log"))
    assert "less /l/x.log" in "\n".join(systemd_steps(logged, Path(), installed=True))
    assert "mkdir -p /l" in "\n".join(systemd_steps(logged, Path(), installed=False))
    assert "mkdir" not in "\n".join(cron_steps(logged, installed=True))
    assert "less" not in "\n".join(cron_steps(timer(), installed=True))
    assert "crontab -e" in cron_steps(timer(), installed=True)[-1]


# Installing


def test_files_are_written_once_and_replaced_only_by_force(tmp_path: Path) -> None:
    files = systemd_files(timer(), tmp_path / "units")
    assert [is_new for _, is_new in write_files(files, force=False)] == [True, True]
    assert [is_new for _, is_new in write_files(files, force=False)] == [False, False]
    assert (files[0].path.stat().st_mode & 0o777) == 0o644
    later = systemd_files(timer(at=time(23)), tmp_path / "units")
    with pytest.raises(UsageError, match="already exists, and differs"):
        write_files(later, force=False)
    assert files[1].path.read_text() == files[1].text
    assert [is_new for _, is_new in write_files(later, force=True)] == [False, True]
    assert later[1].path.read_text() == later[1].text
    assert sorted(path.name for path in (tmp_path / "units").iterdir()) == [
        "batch-runner-spring.service",
        "batch-runner-spring.timer",
    ]


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_file_is_never_overwritten_and_then_nothing_is(
    tmp_path: Path, force: bool
) -> None:
    files = systemd_files(timer(), tmp_path)
    files[1].path.write_text("[Timer]\nOnCalendar=daily\n")
    with pytest.raises(UsageError, match="batch-runner did not write it"):
        write_files(files, force=force)
    assert files[1].path.read_text() == "[Timer]\nOnCalendar=daily\n"
    assert not files[0].path.exists()
    files[1].path.unlink()
    files[1].path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="batch-runner did not write it"):
        write_files(files, force=force)


def test_a_folder_in_the_way_or_a_full_disk_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        write_files([File(tmp_path / "folder", "x")], force=True)

    def full(_: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"cannot write .*file: No space left on device"):
        write_files([File(tmp_path / "file", "x")], force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_environment_file_is_made_once_for_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "env"
    some = timer(environment_file=path)
    assert write_environment_file(some)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("\nRUNCOMFY_API_TOKEN=\n")
    path.write_text("RUNCOMFY_API_TOKEN=x\n")
    assert not write_environment_file(some)
    assert path.read_text() == "RUNCOMFY_API_TOKEN=x\n"
    with pytest.raises(StorageError, match="cannot write"):
        write_environment_file(timer(environment_file=path / "below" / "a" / "file"))


def test_the_environment_file_lists_what_the_manifest_names_and_lacks_are_found(
    tmp_path: Path,
) -> None:
    path = tmp_path / "env"
    names = ("SLACK_URL", "PING", "ROOM")
    some = timer(environment_file=path, variables=names)
    assert unset_names(some) == list(names)
    assert write_environment_file(some)
    assert path.read_text().endswith("\nRUNCOMFY_API_TOKEN=\nSLACK_URL=\nPING=\nROOM=\n")
    assert unset_names(some) == list(names)
    path.write_text("SLACK_URL='https://x/'\n  export PING=1 \n#ROOM=no\nROOM=''\r\nMYROOM=1\n")
    assert unset_names(some) == ["ROOM"]
    (step,) = environment_steps(some, installed=True)
    assert "RUNCOMFY_API_TOKEN=…, SLACK_URL=…, PING=…, ROOM=…" in step


def test_the_folder_of_the_log_is_made(tmp_path: Path) -> None:
    make_log_folder(timer())
    make_log_folder(timer(log_file=tmp_path / "a" / "b" / "x.log"))
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot create the log folder"):
        make_log_folder(timer(log_file=tmp_path / "file" / "x.log"))


BLOCK = crontab_block(timer())


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_crontab_keeps_everything_else_byte_for_byte(before: bytes, after: bytes) -> None:
    name = timer().name
    merged = merge_crontab(before, BLOCK, name, force=False)
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    assert merged == before + gap + BLOCK.encode()
    merged += after
    assert merge_crontab(merged, BLOCK, name, force=False) == merged
    later = crontab_block(timer(at=time(23)))
    with pytest.raises(UsageError, match="already contains a different 'batch-runner-spring'"):
        merge_crontab(merged, later, name, force=False)
    replaced = merge_crontab(merged, later, name, force=True)
    assert replaced == before + gap + later.encode() + after


def test_two_manifests_have_a_block_each_and_half_a_block_is_not_guessed_at() -> None:
    other = crontab_block(timer(name="batch-runner-spring-2"))
    both = merge_crontab(BLOCK.encode(), other, "batch-runner-spring-2", force=False)
    assert both == BLOCK.encode() + other.encode()
    half = BLOCK.encode().splitlines()[0] + b"\n0 1 * * * other\n"
    with pytest.raises(UsageError, match="but not its end"):
        merge_crontab(half, BLOCK, timer().name, force=True)


def test_a_machine_without_crontab_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="this machine has no crontab"):
        install_crontab(BLOCK, timer().name, force=False)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'you (ana) are not allowed to use this program' >&2; exit 1", "not allowed"),
        ("exit 1", "cannot read the crontab: no message"),
        ("[ \"$1\" = -l ] && { echo 'no crontab for ana' >&2; exit 1; }; exit 2", "did not accept"),
    ],
)
def test_a_crontab_that_cannot_be_read_or_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    program = tmp_path / "crontab"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StorageError, match=says):
        install_crontab(BLOCK, timer().name, force=False)


def test_a_crontab_is_written_through_the_program_and_only_if_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "crontab"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\npath = pathlib.Path(__file__).with_name('tab')\n"
        "if sys.argv[1:] == ['-l']: sys.stdout.buffer.write(path.read_bytes())\n"
        "elif sys.argv[1:] == ['-']: path.write_bytes(sys.stdin.buffer.read())\n"
    )
    program.chmod(0o755)
    (tmp_path / "tab").write_bytes(b"MAILTO=\xff\n1 2 * * * x")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert install_crontab(BLOCK, timer().name, force=False)
    assert not install_crontab(BLOCK, timer().name, force=False)
    assert (tmp_path / "tab").read_bytes() == b"MAILTO=\xff\n1 2 * * * x\n" + BLOCK.encode()
