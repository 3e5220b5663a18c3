"""The installed command as a process, and what the service's own book says it accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "batch_runner"]

TEXT = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background, sepia: make it sepia, blur: blur the background}
matrix: {seed: [1, 2]}
images:
%s
output: {dir: out}
limits: {submits: 500/s, in_flight: 40, polls: 500/s}
"""


def accepted(folder: Path) -> Counter[str]:
    """Count what the service accepted, by input, from its own file."""
    lines = (folder / "sandbox" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    found = (json.loads(line) for line in lines)
    return Counter(json.dumps(one["input"], sort_keys=True) for one in found if "input" in one)


def write(folder: Path, images: int, name: str = "batch", submits: str = "500/s") -> Path:
    """Write a manifest of six jobs an image; `name` makes its pictures other ones."""
    lines = [f"  p{n}: https://cdn.example.com/{name}/p{n}.png" for n in range(images)]
    path = folder / "batch.yaml"
    text = (TEXT % "\n".join(lines)).replace("500/s, in_flight", f"{submits}, in_flight")
    path.write_text(text, encoding="utf-8")
    return path


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
    )


def records_of(ledger: Path, kind: str) -> int:
    """Count the records of a kind whose name begins so; "" counts all."""
    return ledger.read_bytes().count(f'"record":"{kind}'.encode()) if ledger.exists() else 0


def wait_for(ledger: Path, kind: str, count: int, process: subprocess.Popen[Any]) -> None:
    """Wait until a process has written so many records, or has ended (an event, not a time)."""
    deadline = time.monotonic() + 60
    while records_of(ledger, kind) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
