"""Webhooks, heartbeats, commands and apprise against real servers and processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import FakeClock
from loopback import listening, read_request, serving
from run_results import ended

from batch_runner.clock import Clock
from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.manifest.form import Notify
from batch_runner.report import notify as notify_module
from batch_runner.report.notify import NotifyContext, notify_end, notify_start
from batch_runner.run.stop import Stop

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


# Webhooks and heartbeats


async def test_a_webhook_is_sent_the_ending_once_as_json(
    ear: Ear, context: NotifyContext, said: list[str]
) -> None:
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/hook/${{ID}}?a=1",)), ended(), context)
    assert ear.heard == [("POST", "/hook/secret?a=1")]
    assert json.loads(ear.bodies[0])["counts"]["done"] == 16
    assert ear.headers[0]["Content-Type"] == "application/json"
    assert ear.headers[0]["User-Agent"].startswith("batch_runner/")
    assert "Authorization" not in ear.headers[0]
    assert said == []


async def test_a_webhook_that_fails_twice_is_told_the_third_time(
    ear: Ear, context: NotifyContext, said: list[str], clock: FakeClock
) -> None:
    ear.answers = [web.Response(status=503), web.Response(status=429, headers={"Retry-After": "4"})]
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/hook",)), ended(), context)
    assert len(ear.heard) == 3
    assert 4.5 <= clock.elapsed_s <= 5  # a back-off of up to 1 s, and a Retry-After of 4 s
    assert said == []


async def test_a_webhook_that_goes_on_failing_is_given_up_and_said_by_its_host(
    ear: Ear, context: NotifyContext, said: list[str], clock: FakeClock
) -> None:
    hour = {"Retry-After": "3600"}
    ear.answers = [web.Response(status=500, headers=hour) for _ in range(9)]
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/${{ID}}",)), ended(), context)
    assert len(ear.heard) == 3
    assert clock.elapsed_s == 20
    assert said == ["could not notify webhook 127.0.0.1: HTTP 500"]


async def test_a_refusal_is_not_repeated(ear: Ear, context: NotifyContext, said: list[str]) -> None:
    ear.answers = [web.Response(status=404)]
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/${{ID}}",)), ended(), context)
    assert len(ear.heard) == 1
    assert said == ["could not notify webhook 127.0.0.1: HTTP 404"]


async def test_a_redirect_is_not_followed(
    ear: Ear, context: NotifyContext, said: list[str]
) -> None:
    ear.answers = [web.Response(status=307, headers={"Location": "/elsewhere"})]
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/hook",)), ended(), context)
    assert ear.heard == [("POST", "/hook")]
    assert said == [
        "could not notify webhook 127.0.0.1: it redirects (HTTP 307), which is not followed"
    ]


async def test_a_server_that_never_answers_is_given_up(
    context: NotifyContext, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "_CALL_TIMEOUT_S", 0.05)
    calls: list[bytes] = []

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        calls.append(await read_request(reader))
        await asyncio.Event().wait()

    async with listening(hang) as url:
        await notify_end(Notify(webhooks=(f"{url}/${{ID}}",)), ended(), context)
    assert len(calls) == 3
    assert said == ["could not notify webhook 127.0.0.1: no answer within 0.05 s"]


async def test_a_connection_that_breaks_and_one_that_never_comes_to_be_are_said_as_such(
    context: NotifyContext, said: list[str]
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.close()

    async with listening(hang_up) as broken, listening(hang_up) as gone:
        pass
    async with listening(hang_up) as broken:
        notify = Notify(webhooks=(f"{broken}/${{ID}}", f"{gone}/${{ID}}"))
        await notify_end(notify, ended(), context)
    assert said == [
        "could not notify webhook 127.0.0.1: the connection broke before an answer came",
        "could not notify webhook 127.0.0.1 (2): not reachable",
    ]


async def test_one_target_that_fails_keeps_no_other_from_being_told(
    ear: Ear, context: NotifyContext, said: list[str]
) -> None:
    async with serving(ear.hear) as url:
        notify = Notify(webhooks=("${UNSET}", "https://a..b/${ID}", f"{url}/hook"))
        await notify_end(notify, ended(), context)
    assert ear.heard == [("POST", "/hook")]
    assert said == [
        "could not notify webhook ${UNSET}: the environment variable UNSET is not set",
        "could not notify webhook a..b (2): it is not a URL",
    ]


async def test_what_nobody_foresaw_is_said_by_its_name_and_raises_nothing(
    ear: Ear, context: NotifyContext, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(notify_module, "webhook_body", fail)
    async with serving(ear.hear) as url:
        await notify_end(Notify(webhooks=(f"{url}/hook",)), ended(), context)
    assert said == ["could not notify webhook 127.0.0.1: RuntimeError"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "/uuid?rid=1"),
        ({"pending": 1, "stop": Stop("window", "closed")}, "/uuid?rid=1"),
        ({"failed": 1}, "/uuid/fail?rid=1"),
        ({"pending": 1, "stop": Stop("interrupted", "Ctrl-C")}, "/uuid/fail?rid=1"),
    ],
)
async def test_a_heartbeat_is_pinged_at_the_start_and_with_the_text_at_the_end(
    ear: Ear, context: NotifyContext, said: list[str], changes: dict[str, Any], path: str
) -> None:
    ending = ended(**changes)
    async with serving(ear.hear) as url:
        notify = Notify(heartbeat=f"{url}/uuid?rid=1")
        await notify_start(notify, context)
        await notify_end(notify, ending, context)
    assert ear.heard == [("GET", "/uuid/start?rid=1"), ("POST", path)]
    assert ear.bodies == ["", ending.text]
    assert said == []


async def test_a_heartbeat_that_cannot_be_pinged_at_the_start_is_said(
    ear: Ear, context: NotifyContext, said: list[str]
) -> None:
    ear.answers = [web.Response(status=410)]
    async with serving(ear.hear) as url:
        await notify_start(Notify(heartbeat=f"{url}/${{ID}}/"), context)
    assert ear.heard == [("GET", "/secret/start")]
    assert said == ["could not notify heartbeat 127.0.0.1: HTTP 410"]


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
    assert told["message"].startswith("16 of 16 jobs done, 1 failed, 0.80 USD")
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


@contextmanager
def hearing(ear: Ear) -> Iterator[str]:
    """Serve an ear from a thread with a loop of its own, as `main` has one here."""
    started: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(ear.hear) as url:
            started.append(url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(30)
    try:
        yield started[0]
    finally:
        done.set()
        thread.join()


def write(folder: Path, url: str, text: str = TEXT) -> Path:
    path = folder / "batch.yaml"
    write_script(folder / "tell.sh", "#!/bin/sh\nenv | grep -E 'RUN|TOKEN' | cut -d= -f1 | sort\n")
    path.write_text(
        f"{text}notify:\n  webhook: {url}/hook/${{ID}}\n  heartbeat: {url}/beat\n"
        "  on_finish: ./tell.sh\n",
        encoding="utf-8",
    )
    return path


def test_a_run_tells_its_start_and_its_end_to_everyone_and_never_the_token(
    tmp_path: Path, ear: Ear, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", TOKEN)
    monkeypatch.setenv("COPY_OF_THE_TOKEN", f" {TOKEN} ")
    monkeypatch.setenv("ID", "secret")
    metrics, log = tmp_path / "batch.prom", tmp_path / "run.log"
    with hearing(ear) as url:
        manifest = write(tmp_path, url)
        words = ["run", str(manifest), "--sandbox", "--quiet"]
        words += ["--metrics", str(metrics), "--log-file", str(log)]
        assert main(words) == ExitCode.DONE
    assert sorted(ear.heard) == [
        ("GET", "/beat/start"),
        ("POST", "/beat"),
        ("POST", "/hook/secret"),
    ]
    assert ear.heard[0] == ("GET", "/beat/start")
    assert TOKEN not in str((ear.bodies, ear.headers))
    out, err = capsys.readouterr()
    assert "1 of 1 job done" in out
    assert "on_finish: BATCH_RUNNER_DONE\n" in err
    assert "RUNCOMFY" not in err
    assert "COPY_OF_THE_TOKEN" not in err
    assert 'batch_runner_jobs{batch="batch",state="done"} 1' in metrics.read_text(encoding="utf-8")
    said = log.read_text(encoding="utf-8")
    assert f"run of {manifest} started\n" in said
    assert "batch: 0/1 jobs" in said
    assert "  done           1\n" in said
    assert "run ended with exit code 0\n" in said
    assert "secret" not in said


def test_no_notification_that_fails_changes_how_a_run_ends(
    tmp_path: Path, ear: Ear, capsys: Captured
) -> None:
    ear.answers = [web.Response(status=404) for _ in range(9)]
    with hearing(ear) as url:
        words = ["run", str(write(tmp_path, url)), "--sandbox", "--metrics", str(tmp_path)]
        assert main(words) == ExitCode.DONE
    _, err = capsys.readouterr()
    assert "could not notify webhook 127.0.0.1: the environment variable ID is not set" in err
    assert err.count("could not notify heartbeat 127.0.0.1: HTTP 404") == 2
    assert f"cannot write {tmp_path}: it is not a regular file" in err


def test_a_run_that_fails_before_its_first_submit_tells_that_too(
    tmp_path: Path, ear: Ear, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ID", "x")
    metrics, log = tmp_path / "batch.prom", tmp_path / "run.log"
    with hearing(ear) as url:
        words = ["run", str(write(tmp_path, url)), "--log-file", str(log)]
        assert main([*words, "--metrics", str(metrics)]) == ExitCode.REFUSED
    assert sorted(ear.heard)[1:] == [("POST", "/beat/fail"), ("POST", "/hook/x")]
    told = next(json.loads(body) for body in ear.bodies if body.startswith("{"))
    assert told["outcome"] == "error"
    assert told["exit_code"] == 77
    assert told["text"].startswith("batch: error: no token for the service is set\n")
    assert 'batch_runner_exit_code{batch="batch"} 77\n' in metrics.read_text(encoding="utf-8")
    assert "error: no token for the service" in log.read_text(encoding="utf-8")
    assert "no token for the service" in capsys.readouterr().err


def test_a_table_that_broke_over_night_is_told_as_a_failure(tmp_path: Path, ear: Ear) -> None:
    text = TEXT.replace("white background", "'{{ nonsense }}'")
    with hearing(ear) as url:
        assert main(["run", str(write(tmp_path, url, text)), "--sandbox"]) == ExitCode.INVALID
    assert [path for _, path in ear.heard] == ["/beat/start", "/beat/fail"]


def test_a_manifest_that_is_not_valid_tells_nobody(tmp_path: Path, ear: Ear) -> None:
    with hearing(ear) as url:
        path = write(tmp_path, url, TEXT + "nonsense: 1\n")
        assert main(["run", str(path), "--sandbox"]) == ExitCode.INVALID
    assert ear.heard == []


def test_the_log_holds_an_error_that_stopped_the_run(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ID", "x")
    log = tmp_path / "run.log"
    with hearing(ear) as url:
        words = ["run", str(write(tmp_path, url)), "--sandbox", "--log-file", str(log)]
        code = main([*words, "--faults", "token-revoked"])
    assert code == ExitCode.REFUSED
    assert "run ended with exit code 77" in log.read_text(encoding="utf-8")
    assert ("POST", "/beat/fail") in ear.heard
