"""A process that is stopped (Ctrl-Z, a paused container) for longer than every timeout it has."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import COMMAND, accepted, run, wait_for, write

from batch_runner.errors import ExitCode

LIMIT_S = 3.0
JOBS = 6

# The program with all of its timeouts so short that a test can outlast them.
IMPATIENT = f"""
import sys
from batch_runner.files import download
from batch_runner.service import transport
transport._CALL_TIMEOUT_S = transport._CONNECT_TIMEOUT_S = {LIMIT_S}
download._SILENCE_LIMIT_S = download._CONNECT_TIMEOUT_S = {LIMIT_S}
from batch_runner.commands.cli import main
sys.exit(main())
"""


def wait_until_accepted(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while accepted(folder).total() < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["submitting", "accepted", "submitted", "succeeded"])
def test_a_process_that_was_stopped_for_longer_than_every_timeout_loses_nothing(
    tmp_path: Path, moment: str
) -> None:
    words = ["sandbox", "--port", "0", "--folder", str(tmp_path / "sandbox")]
    words += ["--seconds", "0.25", "--faults", "slow-answer=100%"]
    manifest = write(tmp_path, images=1)
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            stop_and_continue(manifest, service.stdout.readline().strip(), moment)
        finally:
            service.terminate()
            service.communicate(timeout=60)
    assert sorted(accepted(tmp_path).values()) == [1] * JOBS


def stop_and_continue(manifest: Path, address: str, moment: str) -> None:
    words = ["run", str(manifest), "--api-base", address, "--quiet"]
    with subprocess.Popen([sys.executable, "-c", IMPATIENT, *words]) as process:
        try:
            if moment == "accepted":  # the answer to the first POST is on its way
                wait_until_accepted(manifest.parent, 1)
            else:
                wait_for(manifest.parent / "out" / "ledger.jsonl", moment, 1, process)
            process.send_signal(signal.SIGSTOP)
            end = time.monotonic() + 2 * LIMIT_S
            # Meanwhile, nobody takes over what it may have in hand.
            assert run(*words).returncode == ExitCode.STOPPED_EARLY
            time.sleep(max(0.0, end - time.monotonic()))
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == ExitCode.DONE
        finally:
            process.kill()
