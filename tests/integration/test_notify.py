"""Commands and apprise against real servers and processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import FakeClock
from loopback import serving
from run_results import ended

from batch_runner.clock import Clock
from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.manifest.form import Notify
from batch_runner.report.notify import NotifyContext, notify_end

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

Captured = pytest.CaptureFixture[str]


class Ear:
    """A server that remembers what it was told; `answers` are its first ones, then 200 for ever."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.bodies: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[web.Response] = []

    async def hear(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.method, request.path_qs))
        self.bodies.append(await request.text())
        self.headers.append(dict(request.headers))
        return self.answers.pop(0) if self.answers else web.Response(text="ok")


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def context(tmp_path: Path, said: list[str], clock: FakeClock) -> NotifyContext:
    return NotifyContext(
        environment={"PATH": os.environ["PATH"], "ID": "secret"},
        folder=tmp_path,
        say=said.append,
        clock=clock,
    )


@pytest.fixture
def real_context(tmp_path: Path, said: list[str]) -> NotifyContext:
    """NotifyContext with a real clock: for commands, whose minute must not be over at once."""
    environment = {"PATH": os.environ["PATH"], "ID": "secret"}
    return NotifyContext(environment=environment, folder=tmp_path, say=said.append, clock=Clock())


def python(code: str, *words: str) -> Notify:
    return Notify(on_finish=(sys.executable, "-c", code, *words))


# Commands


async def test_a_command_gets_its_words_its_folder_and_the_totals_and_its_output_is_said(
    real_context: NotifyContext, said: list[str], tmp_path: Path
) -> None:
    code = (
        "import os, sys; print(os.getcwd()); print(sys.argv[1:]);"
        "print(os.environ['BATCH_RUNNER_DONE'], file=sys.stderr)"
    )
    await notify_end(python(code, "two words", "x${ID}"), ended(), real_context)
    assert sorted(said[0].split("\n")) == [
        f"on_finish: {tmp_path}",
        "on_finish: 16",
        "on_finish: ['two words', 'xsecret']",
    ]
    assert len(said) == 1


async def test_a_command_beside_the_manifest_is_found_by_its_relative_path(
    real_context: NotifyContext, said: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "tell.sh"
    write_script(script, "#!/bin/sh\necho told $BATCH_RUNNER_OUTCOME\n")
    await notify_end(Notify(on_finish=("./tell.sh",)), ended(failed=1), real_context)
    assert said == ["on_finish: told some failed"]


def write_script(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


async def test_a_command_that_does_not_do_well_is_said(
    real_context: NotifyContext, said: list[str]
) -> None:
    await notify_end(python("raise SystemExit(3)"), ended(), real_context)
    await notify_end(Notify(on_finish=("./nowhere",)), ended(), real_context)
    await notify_end(Notify(on_finish=("a\0b",)), ended(), real_context)
    assert said == [
        f"could not notify on_finish {sys.executable}: it ended with exit code 3",
        "could not notify on_finish ./nowhere: it cannot be started: No such file or directory",
        "could not notify on_finish a\0b: it cannot be started: ValueError",
    ]


async def test_a_slow_command_is_killed_with_all_that_it_started(
    context: NotifyContext, said: list[str], tmp_path: Path
) -> None:
    # The clock is one whose minute is over at once; the pipe ends when the last process does.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    os.set_inheritable(writer, True)
    os.set_blocking(reader, True)
    write_script(tmp_path / "slow.sh", "#!/bin/sh\nsleep 600 >pipe &\nsleep 600 >pipe\n")
    await notify_end(Notify(on_finish=("./slow.sh",)), ended(), context)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 1) == b""
    os.close(reader)
    assert said == ["could not notify on_finish ./slow.sh: it took longer than 60 s and was killed"]


async def test_a_process_that_a_command_leaves_behind_keeps_nobody_waiting(
    real_context: NotifyContext, said: list[str], tmp_path: Path
) -> None:
    write_script(tmp_path / "leave.sh", "#!/bin/sh\nsleep 600 &\necho $!\n")
    async with asyncio.timeout(30):
        await notify_end(Notify(on_finish=("./leave.sh",)), ended(), real_context)
    left = int(said[0].removeprefix("on_finish: "))
    os.kill(left, 9)


class WatchedClock(Clock):
    """A real clock that tells when somebody waits for an event."""

    def __init__(self) -> None:
        self.is_waited_for = asyncio.Event()

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        self.is_waited_for.set()
        await super().wait(event, timeout_s)


async def test_a_command_is_killed_when_the_program_is_left(
    real_context: NotifyContext, tmp_path: Path
) -> None:
    clock = WatchedClock()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    write_script(tmp_path / "slow.sh", "#!/bin/sh\nexec sleep 600 >pipe\n")
    notify = Notify(on_finish=("./slow.sh",))
    telling = asyncio.ensure_future(notify_end(notify, ended(), replace(real_context, clock=clock)))
    # Opening waits for the command to open its end; reading, for the command to be gone.
    reader = await asyncio.to_thread(os.open, pipe, os.O_RDONLY)
    await clock.is_waited_for.wait()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert await asyncio.to_thread(os.read, reader, 1) == b""
    os.close(reader)


async def test_of_a_flood_of_output_the_beginning_is_said(
    real_context: NotifyContext, said: list[str]
) -> None:
    await notify_end(python("print('x' * 1_000_000)"), ended(), real_context)
    assert len(said[0]) < 70_000
    assert said[0].endswith("\non_finish: …")


# Apprise


# Apprise loads all of its plugins, some of which use what their libraries no longer want.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_apprise_tells_everything_else(
    ear: Ear, context: NotifyContext, said: list[str]
) -> None:
    pytest.importorskip("apprise", reason="the extra [notify] is not installed")
    async with serving(ear.hear) as url:
        target = url.replace("http://", "json://")
        notify = Notify(apprise=(f"{target}/${{ID}}",))
        await notify_end(notify, ended(failed=1), context)
    told = json.loads(ear.bodies[0])
    assert ear.heard == [("POST", "/secret")]
    assert told["title"] == "spring: some failed"
    assert told["message"].startswith("16 of 16 jobs done in 12 s")
    assert said == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_apprise_is_tried_three_times_follows_no_redirect_and_shows_no_url(
    ear: Ear, context: NotifyContext, said: list[str], clock: FakeClock
) -> None:
    pytest.importorskip("apprise", reason="the extra [notify] is not installed")
    ear.answers = [
        web.Response(status=302, headers={"Location": "/elsewhere"}),
        *(web.Response(status=500) for _ in range(2)),
    ]
    async with serving(ear.hear) as url:
        target = url.replace("http://", "json://")
        notify = Notify(apprise=(f"{target}/${{ID}}", "nonsense://${ID}"))
        await notify_end(notify, ended(), context)
    assert ear.heard == [("POST", "/secret")] * 3
    assert 1.5 <= clock.elapsed_s <= 3
    assert said == [
        "could not notify apprise json (1): apprise could not deliver it",
        "could not notify apprise nonsense (2): apprise cannot read this URL",
    ]


async def test_without_the_extra_the_command_to_install_it_is_said(
    context: NotifyContext, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    await notify_end(Notify(apprise=("json://127.0.0.1/",)), ended(), context)
    assert said == [
        "could not notify apprise json (1): it needs an extra: pip install 'batch-runner[notify]'"
    ]


# The command line


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RUNCOMFY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "batch.yaml"
    tell = "#!/bin/sh\ncat > told.json\nenv | grep -E 'RUN|TOKEN' | cut -d= -f1 | sort\n"
    write_script(folder / "tell.sh", tell)
    path.write_text(
        f"{text}notify: {{on_finish: ./tell.sh, apprise: 'json://127.0.0.1:1/${{ID}}'}}\n",
        encoding="utf-8",
    )
    return path


def told(folder: Path) -> Any:
    return json.loads((folder / "told.json").read_text(encoding="utf-8"))


def test_a_run_notifies_its_end_whatever_fails_and_never_shows_the_token(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", TOKEN)
    monkeypatch.setenv("COPY_OF_THE_TOKEN", f" {TOKEN} ")
    assert main(["run", str(write(tmp_path)), "--sandbox", "--quiet"]) == ExitCode.DONE
    result = told(tmp_path)
    assert (result["outcome"], result["counts"]["done"], result["cost_usd"]) == ("done", 1, "0.05")
    out, err = capsys.readouterr()
    assert "1 of 1 job done" in out
    assert "on_finish: BATCH_RUNNER_DONE\n" in err
    assert "could not notify apprise json (1): the environment variable ID is not set" in err
    assert "RUNCOMFY" not in err
    assert "COPY_OF_THE_TOKEN" not in err


def test_a_run_that_fails_before_its_first_submit_notifies_that_too(
    tmp_path: Path, capsys: Captured
) -> None:
    assert main(["run", str(write(tmp_path))]) == ExitCode.REFUSED
    result = told(tmp_path)
    assert (result["outcome"], result["exit_code"]) == ("error", 77)
    assert result["text"].startswith("batch: error\nno token for the service is set\n")
    assert "no token for the service" in capsys.readouterr().err


def test_a_table_that_broke_over_night_is_notified_as_a_failure(tmp_path: Path) -> None:
    text = TEXT.replace("white background", "'{{ nonsense }}'")
    assert main(["run", str(write(tmp_path, text)), "--sandbox"]) == ExitCode.INVALID
    assert told(tmp_path)["exit_code"] == ExitCode.INVALID


def test_a_manifest_that_is_not_valid_notifies_nobody(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + "nonsense: 1\n")
    assert main(["run", str(path), "--sandbox"]) == ExitCode.INVALID
    assert not (tmp_path / "told.json").exists()
