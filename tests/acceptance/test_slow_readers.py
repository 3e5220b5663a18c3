"""Readers who have stopped, slowed down or gone: a run goes on, and nothing it says is lost."""

from __future__ import annotations

import fcntl
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import COMMAND, accepted, wait_for, write
from terminal import Terminal

from batch_runner.ledger.reading import read_ledger
from batch_runner.records import Saved

PIPE_BYTES = 4096


def narrow(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
    """Let the pipe that the process prints to hold little, so that few jobs fill it."""
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process


def test_a_reader_of_the_records_who_has_stopped_holds_up_no_job_and_later_gets_them_all(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=4)
    process = narrow(
        subprocess.Popen(
            [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--json", "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )
    ledger = tmp_path / "out" / "ledger.jsonl"
    wait_for(ledger, "run_finished", 1, process)
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert sum(map(len, lines)) > 2 * PIPE_BYTES  # more than a pipe holds
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0
    assert out == b"".join(lines[1:])
    assert b"24 of 24 jobs done" in err
    assert set(accepted(tmp_path).values()) == {1}


def test_a_reader_who_never_comes_back_can_be_left_and_the_exit_code_is_the_runs(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=4)
    process = narrow(
        subprocess.Popen(
            [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert process.stderr is not None
    while "waiting until the output is read" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(timeout=240) == 0
    assert "nobody read the last " in err
    assert "Traceback" not in err
    process.communicate()


def test_a_terminal_that_is_held_holds_up_no_job(tmp_path: Path, sandbox: str) -> None:
    manifest = write(tmp_path, images=4)
    terminal = Terminal("run", str(manifest), "--api-base", sandbox)
    terminal.read_until("/24")
    terminal.type("\x13")  # Ctrl-S
    wait_for(tmp_path / "out" / "ledger.jsonl", "run_finished", 1, terminal.process)
    terminal.type("\x11")  # Ctrl-Q
    assert terminal.end() == 0
    assert "24 of 24 jobs done" in terminal.text
    assert set(accepted(tmp_path).values()) == {1}


def test_with_too_much_unread_nothing_more_is_submitted(tmp_path: Path, sandbox: str) -> None:
    manifest = write(tmp_path, images=10, submits="20/s")
    code = (
        "import sys\nfrom batch_runner.commands import run\nrun.UNREAD_LIMIT_BYTES = 5000\n"
        "from batch_runner.commands.cli import main\nsys.exit(main())"
    )
    words = ["run", str(manifest), "--api-base", sandbox, "--json"]
    process = narrow(
        subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    )
    ledger = tmp_path / "out" / "ledger.jsonl"
    wait_for(ledger, "run_finished", 1, process)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 75
    assert out == b"".join(ledger.read_bytes().splitlines(keepends=True)[1:])
    assert b"nobody reads the records that --json prints" in err
    assert 0 < sum(accepted(tmp_path).values()) < 60


def test_with_no_standard_streams_at_all_a_run_is_as_any_other_and_its_ledger_is_whole(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=1)
    words = [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--json"]
    for closed in ("<&- >&- 2>&-", ">&-", "2>&-"):
        command = f"{shlex.join(words)} {closed}"
        done = subprocess.run(["bash", "-c", command], timeout=240, check=False)
        assert done.returncode == 0, closed
    records = list(read_ledger(tmp_path / "out" / "ledger.jsonl"))
    assert sum(isinstance(record, Saved) for record in records) == 6
    assert set(accepted(tmp_path).values()) == {1}
