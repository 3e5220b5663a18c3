"""The command that a run starts at its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from run_results import ended

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.report.notify import LIMIT_S, notify_end

TEXT = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background}
images: {mug: https://cdn.example.com/mug.png}
output: {dir: out}
limits: {submits: 1000/s, polls: 1000/s}
"""

TOKEN = "token-of-the-real-service"

Notify = Callable[..., Awaitable[None]]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def notify(tmp_path: Path, said: list[str]) -> Notify:
    """Run a command as a run does at its end."""

    async def run(command: str | None, *, limit_s: float = LIMIT_S, **changes: Any) -> None:
        environment = {"PATH": os.environ["PATH"], "ID": "secret"}
        await notify_end(
            command,
            ended(**changes),
            environment=environment,
            folder=tmp_path,
            say=said.append,
            limit_s=limit_s,
        )

    return run


# Commands


async def test_a_command_of_the_shell_gets_its_folder_and_the_totals_and_its_output_is_said(
    notify: Notify, said: list[str], tmp_path: Path
) -> None:
    await notify('pwd; printf "%s|" "two words" "x${ID}"; echo $BATCH_RUNNER_DONE >&2')
    assert said == [f"on_finish: {tmp_path}\non_finish: two words|xsecret|16"]


async def test_without_a_command_nobody_is_told(notify: Notify, said: list[str]) -> None:
    await notify(None)
    assert said == []


async def test_a_command_beside_the_manifest_is_found_by_its_relative_path(
    notify: Notify, said: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "tell.sh"
    write_script(script, "#!/bin/sh\necho told $BATCH_RUNNER_OUTCOME\n")
    await notify("./tell.sh", failed=1)
    assert said == ["on_finish: told some failed"]


def write_script(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "it ended with exit code 3"),
        ("a\0b", "it cannot be started: ValueError"),
    ],
)
async def test_a_command_that_fails_is_reported(
    notify: Notify, said: list[str], command: str, why: str
) -> None:
    await notify(command)
    assert said == [f"notify.on_finish failed: {why}"]


async def test_nothing_goes_to_an_address_with_a_variable_that_is_not_set(
    notify: Notify, said: list[str]
) -> None:
    await notify('echo "sent to https://example.com/$WHO"')
    assert "sent to" not in said[0]
    assert "WHO" in said[0]
    assert said[1].startswith("notify.on_finish failed: it ended with exit code ")


async def test_a_slow_command_is_killed_with_all_that_it_started(
    notify: Notify, said: list[str], tmp_path: Path
) -> None:
    # The pipe ends when the last process does.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    os.set_inheritable(writer, True)
    os.set_blocking(reader, True)
    write_script(tmp_path / "slow.sh", "#!/bin/sh\nsleep 600 >pipe &\nsleep 600 >pipe\n")
    await notify("./slow.sh", limit_s=0)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 1) == b""
    os.close(reader)
    assert said == ["notify.on_finish failed: it took longer than 0 s and was killed"]


async def test_a_process_that_a_command_leaves_behind_keeps_nobody_waiting(
    notify: Notify, said: list[str], tmp_path: Path
) -> None:
    write_script(tmp_path / "leave.sh", "#!/bin/sh\nsleep 600 &\necho $!\n")
    async with asyncio.timeout(30):
        await notify("./leave.sh")
    left = int(said[0].removeprefix("on_finish: "))
    os.kill(left, 9)


async def test_a_command_is_killed_when_the_program_is_left(
    notify: Notify, said: list[str], tmp_path: Path
) -> None:
    pipe, stream = tmp_path / "pipe", asyncio.StreamReader()
    os.mkfifo(pipe)
    write_script(tmp_path / "slow.sh", "#!/bin/sh\nexec >pipe\necho started\nexec sleep 600\n")
    opened = os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), opened
    )
    telling = asyncio.ensure_future(notify("./slow.sh"))
    started = asyncio.ensure_future(stream.readline())
    await asyncio.wait((telling, started), return_when=asyncio.FIRST_COMPLETED)
    assert started.done(), said
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert await stream.read() == b"", "the command still has the pipe open"
    transport.close()


async def test_of_a_flood_of_output_the_beginning_is_said(notify: Notify, said: list[str]) -> None:
    await notify("yes | head -c 1000000")
    assert len(said[0]) < 1_000_000


# The command line


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RUNCOMFY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "batch.yaml"
    tell = "#!/bin/sh\nenv -0 > told\nenv | grep -E '^[A-Z_]*(RUN|TOKEN)' | cut -d= -f1 | sort\n"
    write_script(folder / "tell.sh", tell)
    path.write_text(f"{text}notify: {{on_finish: ./tell.sh}}\n", encoding="utf-8")
    return path


def told(folder: Path) -> dict[str, str]:
    lines = (folder / "told").read_text(encoding="utf-8").split("\0")
    found = dict(line.partition("=")[::2] for line in lines)
    prefix = "BATCH_RUNNER_"
    return {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}


def test_a_run_notifies_its_end_whatever_fails_and_never_shows_the_token(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", TOKEN)
    monkeypatch.setenv("COPY_OF_THE_TOKEN", f" {TOKEN} ")
    assert main(["run", str(write(tmp_path)), "--sandbox", "--quiet"]) == ExitCode.DONE
    result = told(tmp_path)
    assert (result["OUTCOME"], result["DONE"], result["COST_USD"]) == ("done", "1", "0.05")
    out, err = capsys.readouterr()
    assert "1 of 1 job done" in out
    assert "on_finish: BATCH_RUNNER_DONE\n" in err
    assert "RUNCOMFY" not in err
    assert "COPY_OF_THE_TOKEN" not in err


def test_a_run_that_fails_before_its_first_submit_notifies_that_too(
    tmp_path: Path, capsys: Captured
) -> None:
    assert main(["run", str(write(tmp_path))]) == ExitCode.REFUSED
    result = told(tmp_path)
    assert (result["OUTCOME"], result["EXIT_CODE"]) == ("error", "77")
    assert result["TEXT"].startswith("batch: error\nno token for the service is set\n")
    assert "no token for the service" in capsys.readouterr().err


def test_a_table_that_broke_over_night_is_notified_as_a_failure(tmp_path: Path) -> None:
    text = TEXT.replace("white background", "'{{ nonsense }}'")
    assert main(["run", str(write(tmp_path, text)), "--sandbox"]) == ExitCode.INVALID
    assert told(tmp_path)["EXIT_CODE"] == str(int(ExitCode.INVALID))


def test_a_manifest_that_is_not_valid_notifies_nobody(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + "nonsense: 1\n")
    assert main(["run", str(path), "--sandbox"]) == ExitCode.INVALID
    assert not (tmp_path / "told").exists()
