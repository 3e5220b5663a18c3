"""Slots at a real queue: the whole program against the sandbox, each in a process of its own.

Slot use: the share of the time between the first and the last submit in which the allowed requests
were at the service, by the service's own `created_at` and `finished_at`, read from the ledger.
Polls are the sandbox's own count.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from measure import progress, report
from service import run_batch, sandbox_process

IN_FLIGHT = 20
JOBS = 400
# At work at once; seconds of work; seconds of waiting though there is room.
CASES = ((20, "2,3", "0,0.2"), (14, "2,3", "0,0.2"), (5, "1,1.5", "0,0.2"))

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
limits: {{in_flight: {in_flight}, submits: 40/s, polls: 40/s}}
prompts: {{draw: "A mug on a white table"}}
images: {{one: https://cdn.example.com/one.png}}
matrix: {{seed: [{numbers}]}}
output: {{dir: "{folder}"}}
"""


def _case(folder: Path, jobs: int, capacity: int, run_s: str, queue_s: str) -> dict[str, Any]:
    manifest, output = folder / "queued.yaml", folder / "pictures"
    numbers = ", ".join(str(number) for number in range(jobs))
    manifest.write_text(
        MANIFEST.format(in_flight=IN_FLIGHT, numbers=numbers, folder=output), encoding="utf-8"
    )
    options = ("--capacity", str(capacity), "--run-s", run_s, "--queue-s", queue_s)
    with sandbox_process(folder / "sandbox", *options) as sandbox:
        code = run_batch(manifest, sandbox.url)
    if code != 0:
        raise SystemExit(f"the run ended with {code}")
    spans = []
    for ledger in output.rglob("*.jsonl"):
        for line in ledger.read_bytes().splitlines():
            record = msgspec.json.decode(line)
            if record.get("created_at") and record.get("finished_at"):
                spans.append([datetime.fromisoformat(record[name]).timestamp() for name in _TIMES])
    if len(spans) != jobs:
        raise SystemExit(f"{len(spans)} requests were found in the ledger, not {jobs}")
    first, last = min(began for began, _ in spans), max(began for began, _ in spans)
    busy_s = sum(min(ended, last) - began for began, ended in spans)
    return {
        "works on": capacity,
        "in_flight": IN_FLIGHT,
        "run s": run_s,
        "jobs": jobs,
        "polls a job": f"{sandbox.polls / jobs:.2f}",
        "slot use": f"{busy_s / (IN_FLIGHT * (last - first)):.1%}",
    }


_TIMES = ("created_at", "finished_at")


def main(folder: Path, *, quick: bool = False) -> None:
    """Run each case once; a quick one is shorter, and so mostly its beginning."""
    rows = []
    for capacity, run_s, queue_s in CASES:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            rows.append(_case(Path(scratch), 100 if quick else JOBS, capacity, run_s, queue_s))
        progress(" ".join(str(value) for value in rows[-1].values()))
    report("queued", rows, folder)
