"""The sandbox in a process of its own, as the judge of a benchmark."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COMMAND = [sys.executable, "-m", "batch_runner"]


class SandboxProcess:
    """A running sandbox; after its block, `polls` is how often it was polled."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.polls = 0


@contextlib.contextmanager
def sandbox_process(folder: Path, *options: str) -> Iterator[SandboxProcess]:
    """Serve the sandbox from its own process as long as the block lasts."""
    words = ["sandbox", "--port", "0", "--folder", str(folder), "--swatches", *options]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        sandbox = SandboxProcess(process.stdout.readline().strip())
        try:
            yield sandbox
        finally:
            process.send_signal(signal.SIGTERM)
            found = re.search(r"([\d,]+) of them polls", process.stderr.read())
            sandbox.polls = int(found[1].replace(",", "")) if found else 0


def run_batch(manifest: Path, url: str, *options: str) -> int:
    """Run a manifest as a user does; returns the exit code."""
    words = ["run", str(manifest), "--api-base", url, "--quiet", *options]
    return subprocess.run(
        [*COMMAND, *words], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
