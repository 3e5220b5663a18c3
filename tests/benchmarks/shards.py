"""One batch in 1, 2 and 4 shards on this machine: what more processes are worth on its cores.

The service answers at once, and files go to memory where there is such a folder, so that the
client's own work is what is measured; nginx needs a part of the cores too, and the table says how
much. With more shards than cores nothing is to be gained.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from canned import Canned, canned_service
from measure import Measured, alternate, measure, median, report
from throughput import write_manifest

ROUNDS = 5
JOBS = 12_000
AT_ONCE = 512
SHARDS = (1, 2, 4)
MEMORY = Path("/dev/shm")


def run_shards(count: int, service: Canned, output: Path, jobs: int) -> Measured:
    """Run all shards of a batch at once to their ends, and see that they did their work."""
    manifest = write_manifest(output.parent, output, jobs, AT_ONCE)
    words = [sys.executable, "-m", "batch_runner", "run", str(manifest), "--quiet"]
    words += ["--api-base", service.url]
    starts = [
        shlex.join([*words, *([] if count == 1 else ["--shard", f"{index}/{count}"])]) + " &"
        for index in range(count)
    ]
    measured = measure(
        ["sh", "-c", f"{' '.join(starts)} wait"], core=None, RUNCOMFY_API_TOKEN="token"
    )
    saved = sum(1 for path in output.rglob("*.jpg") if path.stat().st_size > 0)
    if saved != jobs:
        raise SystemExit(f"{count} shards saved {saved} files of {jobs}")
    return measured


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure, and report."""
    rounds, jobs = (1, 2_000) if quick else (ROUNDS, JOBS)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else folder) as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        with canned_service(scratch / "nginx") as service:
            server_s: dict[int, list[float]] = {count: [] for count in SHARDS}

            def contender(count: int, number: int) -> Measured:
                before_s = service.cpu_s()
                found = run_shards(count, service, scratch / f"out-{count}-{number}", jobs)
                server_s[count].append((service.cpu_s() - before_s) / found.wall_s)
                return found

            found = alternate({str(count): partial(contender, count) for count in SHARDS}, rounds)
    report("shards", _rows(found, server_s, jobs), folder)


def _rows(
    found: dict[str, list[Measured]], server_s: dict[int, list[float]], jobs: int
) -> list[dict[str, Any]]:
    rows = []
    for count in SHARDS:
        rounds = found[str(count)]
        gain = [one.wall_s / many.wall_s for one, many in zip(found["1"], rounds, strict=True)]
        rows.append(
            {
                "shards": count,
                "jobs/s": f"{jobs / median([one.wall_s for one in rounds]):.0f}",
                "x one process": f"{median(gain):.2f}",
                "cores the clients used": f"{median([r.cpu_s / r.wall_s for r in rounds]):.2f}",
                "cores nginx used": f"{median(server_s[count]):.2f}",
                "of cores": os.cpu_count(),
            }
        )
    return rows
