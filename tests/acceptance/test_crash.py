"""The promise under kills, power cuts, full disks and dropped answers.

Whoever pays twice is found out by the service's own book: `accepted` counts every input that the
sandbox, a process of its own, ever took. What needs root or a tool that is not there is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bench import Bench
from command import COMMAND, accepted, records_of, run, wait_for, write
from PIL import Image

from batch_runner.errors import ExitCode
from batch_runner.run.summary import Summary
from batch_runner.sandbox import Sandbox

# Sweeps of whole runs take their time, more so on a busy machine.
pytestmark = pytest.mark.timeout(500)

RANDOM_KILLS, BATCHES = 50, 2
# Header, start and end of the run, and four records for each of the six jobs.
LEDGER_WRITES = 27

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def check_the_promise(folder: Path, output: Path, manifest: Path, sandbox: str) -> dict[str, int]:
    """Assert what must hold after any crash and a finished run; returns the status."""
    bought = accepted(folder)
    status: dict[str, int] = json.loads(
        run("status", str(manifest), "--api-base", sandbox, "--json").stdout
    )
    assert set(bought.values()) <= {1}, "a fingerprint was paid for twice"
    # Every accepted request is saved, or honestly unknown; none is forgotten.
    assert status["done"] <= sum(bought.values()) <= status["done"] + status["unknown"]
    assert status["in_flight"] == status["failed"] == 0
    pictures = list(output.rglob("*.jpg"))
    assert len(pictures) == status["done"]
    for path in pictures:
        with Image.open(path) as image:
            image.load()
    assert not list(output.rglob("*.part"))
    assert run("check", str(manifest), "--api-base", sandbox).returncode == 0
    return status


def start(manifest: Path, sandbox: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def traced(manifest: Path, sandbox: str, *inject: str) -> subprocess.CompletedProcess[bytes]:
    """Run under strace, which strikes at chosen system calls on the ledger."""
    ledger = manifest.parent / "out" / "ledger.jsonl"
    words = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(ledger)]
    for one in inject:
        words += ["-e", f"inject={one}"]
    command = [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--quiet"]
    return subprocess.run([*words, *command], capture_output=True, timeout=240, check=False)


@needs_strace
@pytest.mark.parametrize("number", range(1, LEDGER_WRITES + 1))
def test_a_kill_at_any_single_write_to_the_ledger_of_a_run_never_pays_twice(
    tmp_path: Path, sandbox: str, number: int
) -> None:
    manifest = write(tmp_path, images=1)
    killed = traced(manifest, sandbox, f"write:signal=SIGKILL:when={number}")
    assert killed.returncode != 0, "the run ended before this write"
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    status = check_the_promise(tmp_path, tmp_path / "out", manifest, sandbox)
    assert status["done"] + status["unknown"] == 6


@needs_strace
def test_a_run_makes_no_more_writes_than_those_that_were_killed(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=1)
    one_more = traced(manifest, sandbox, f"write:signal=SIGKILL:when={LEDGER_WRITES + 1}")
    assert one_more.returncode == 0


@pytest.mark.parametrize("seed", range(BATCHES))
def test_kills_at_random_moments_of_a_batch_never_pay_twice(
    tmp_path: Path, sandbox: str, seed: int
) -> None:
    dice = random.Random(seed)
    manifest = write(tmp_path, images=40, submits="30/s")
    ledger = tmp_path / "out" / "ledger.jsonl"
    for _ in range(RANDOM_KILLS // BATCHES):
        before = records_of(ledger, "")
        process = start(manifest, sandbox)
        wait_for(ledger, "", before + dice.randrange(1, 20), process)
        assert process.poll() is None, "the batch was finished before it could be killed"
        process.kill()
        process.wait()
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    status = check_the_promise(tmp_path, tmp_path / "out", manifest, sandbox)
    assert status["pending"] == 0


@needs_strace
@pytest.mark.parametrize(
    "fault",
    [
        "write:error=ENOSPC:when=10..12",
        "write:error=EIO:when=7",
        "write:retval=30:when=3",  # the first intent; what any other record misses is written next
        "fdatasync:error=EIO:when=3",
    ],
)
def test_a_failing_disk_stops_the_run_with_74_and_the_next_run_goes_on(
    tmp_path: Path, sandbox: str, fault: str
) -> None:
    manifest = write(tmp_path, images=5)
    failed = traced(manifest, sandbox, fault)
    assert failed.returncode == ExitCode.STORAGE, failed.stderr
    assert b"hint: " in failed.stderr
    assert b"Traceback" not in failed.stderr
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    check_the_promise(tmp_path, tmp_path / "out", manifest, sandbox)


@contextlib.contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *options, str(image), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount does not work here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@needs_root
def test_a_full_disk_stops_the_run_and_nothing_is_lost_once_there_is_space(
    tmp_path: Path, sandbox: str
) -> None:
    with mounted(Path("none"), tmp_path / "out", "-t", "tmpfs", "-o", "size=1M"):
        manifest = write(tmp_path, images=20)
        failed = run("run", str(manifest), "--api-base", sandbox)
        assert failed.returncode == ExitCode.STORAGE, failed.stdout + failed.stderr
        assert "No space left" in failed.stderr
        again = run("run", str(manifest), "--api-base", sandbox)
        assert again.returncode == ExitCode.STORAGE
        remount = ["mount", "-o", "remount,size=64M", str(tmp_path / "out")]
        subprocess.run(remount, check=True)
        last = run("run", str(manifest), "--api-base", sandbox)
        assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
        check_the_promise(tmp_path, tmp_path / "out", manifest, sandbox)


@needs_root
def test_a_folder_that_became_read_only_is_reported_and_changes_nothing(
    tmp_path: Path, sandbox: str
) -> None:
    with mounted(Path("none"), tmp_path / "out", "-t", "tmpfs"):
        manifest = write(tmp_path, images=1)
        assert run("run", str(manifest), "--api-base", sandbox).returncode == 0
        before = (tmp_path / "out" / "ledger.jsonl").read_bytes()
        (tmp_path / "out" / "p0" / "white-1.jpg").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "out")], check=True)
        refused = run("run", str(manifest), "--api-base", sandbox)
        assert refused.returncode == ExitCode.STORAGE, refused.stderr
        assert "read-only" in refused.stderr.lower()
        assert (tmp_path / "out" / "ledger.jsonl").read_bytes() == before


def test_a_ledger_folder_that_is_removed_under_the_run_stops_it(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=20)
    process = start(manifest, sandbox)
    wait_for(tmp_path / "out" / "ledger.jsonl", "saved", 5, process)
    (tmp_path / "out").rename(tmp_path / "moved-away")
    assert process.wait(timeout=240) == ExitCode.STORAGE
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "moved-away").rename(tmp_path / "out")
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    check_the_promise(tmp_path, tmp_path / "out", manifest, sandbox)


@asynccontextmanager
async def answer_dropping_proxy(target: str) -> AsyncIterator[str]:
    """Forward everything, but drop the reply to each POST after the service has it."""
    port = urlsplit(target).port
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(forward(reader, writer))
        serving.add(task)
        await asyncio.wait([task])

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        first = await reader.read(65536)
        up_writer.write(first)
        posting = first.startswith(b"POST /v1/models/")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()

        requests = asyncio.ensure_future(pump(reader, up_writer))
        try:
            if posting:
                await up_reader.read(1)  # it has answered, so it has accepted
            else:
                await pump(up_reader, writer)
        finally:
            requests.cancel()
            for one in (writer, up_writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # Connections that were kept alive are still being served, and a server waits for its last.
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_two_hundred_lost_answers_lead_to_no_second_submission(tmp_path: Path) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(200))
    text = f"prompts: {{white: white}}\nimages:\n{images}\n"
    text += "limits: {submits: 1000/s, polls: 1000/s, failures: 100000}\n"
    bench = Bench(tmp_path)
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        async with answer_dropping_proxy(sandbox.url) as proxy:
            lost: Summary = await bench.run(text, proxy)
            assert (lost.exit_code, lost.unknown) == (ExitCode.SOME_FAILED, 200)
            again = await bench.run(text, proxy)
            assert again.unknown == 200
        direct = await bench.run(text, sandbox.url)
        assert direct.unknown == 200
        posts = [call for call in sandbox.calls if call.method == "POST"]
        assert len(posts) == len(sandbox.accepted()) == 200


def test_two_runs_at_once_on_one_folder_are_one_run_and_one_refusal(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=10, submits="10/s")  # slow enough for the second to begin
    first = start(manifest, sandbox)
    wait_for(tmp_path / "out" / "ledger.jsonl", "run_started", 1, first)
    second = run("run", str(manifest), "--api-base", sandbox)
    assert second.returncode == ExitCode.STOPPED_EARLY
    assert f"pid {first.pid} on " in second.stderr
    assert first.wait(timeout=240) == 0
    assert set(accepted(tmp_path).values()) == {1}


def test_the_lock_of_a_dead_run_never_blocks(tmp_path: Path, sandbox: str) -> None:
    manifest = write(tmp_path, images=2)
    process = start(manifest, sandbox)
    wait_for(tmp_path / "out" / "ledger.jsonl", "submitted", 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr


def test_damage_in_the_middle_of_the_ledger_is_refused_and_nothing_is_changed(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=2)
    assert run("run", str(manifest), "--api-base", sandbox).returncode == 0
    ledger = tmp_path / "out" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:20] + b"\n"
    ledger.write_bytes(b"".join(lines))
    before = ledger.read_bytes()
    for command in ("run", "plan", "status", "check"):
        refused = run(command, str(manifest), "--api-base", sandbox)
        assert refused.returncode == ExitCode.STORAGE
        assert "ledger.jsonl:5: the ledger is damaged" in refused.stderr
    assert ledger.read_bytes() == before
