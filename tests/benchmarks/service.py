"""The sandbox in a process of its own, as the judge of a benchmark."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "batch_runner"]


class SandboxProcess:
    """A running sandbox; after its block, `traffic` is what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.traffic: dict[str, Any] = {}


@contextlib.contextmanager
def sandbox_process(folder: Path, *options: str) -> Iterator[SandboxProcess]:
    """Serve the sandbox from its own process as long as the block lasts."""
    words = ["sandbox", "--port", "0", "--folder", str(folder), "--swatches", "--json", *options]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if process.stdout is None:
            raise RuntimeError("the sandbox has no stdout")
        sandbox = SandboxProcess(process.stdout.readline().strip())
        try:
            yield sandbox
        finally:
            process.send_signal(signal.SIGTERM)
            last = process.stdout.read().strip()
            sandbox.traffic = json.loads(last) if last else {}


def run_batch(manifest: Path, url: str, *options: str) -> int:
    """Run a manifest as a user does; returns the exit code."""
    words = ["run", str(manifest), "--api-base", url, "--quiet", *options]
    return subprocess.run(
        [*COMMAND, *words], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
