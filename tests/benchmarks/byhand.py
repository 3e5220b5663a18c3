"""The whole product against the loop that makes the same promises by hand, and the bare one.

By the time that the processes use, too, because others may use the machine: user and system time a
job say more about a program than its jobs a second.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from canned import canned_service
from measure import CORE, Measured, alternate, median, report
from throughput import AT_ONCE, HERE, Arena, write_manifest

ROUNDS = 3
SIZES = (2_000, 10_000)


def loop(arena: Arena, name: str, words: list[str], number: int) -> Measured:
    """Run a loop, `bare` or `careful`."""
    output = arena.folder / f"{name}-{'-'.join(words)}-{number}"
    script = [sys.executable, str(HERE / f"{name}.py"), arena.service.url, str(output)]
    return arena.run(name, number, [*script, str(arena.jobs), str(AT_ONCE), *words], output)


def product(arena: Arena, path: str, number: int) -> Measured:
    """Run the product as its users do."""
    output = arena.folder / f"product-{len(path)}-{number}"
    manifest = write_manifest(arena.folder, output, arena.jobs)
    text = manifest.read_text(encoding="utf-8").replace('path: "{{ image }}"', f'path: "{path}"')
    manifest.write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "batch_runner", "run", str(manifest)]
    return arena.run("product", number, [*words, "--api-base", arena.service.url], output)


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure flat names and one folder a product, on one core and on two."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        with canned_service(scratch / "nginx") as service:
            for jobs in SIZES[:1] if quick else SIZES:
                for cores, core in (("one", CORE), ("two", None)):
                    arena = Arena(scratch / f"{jobs}-{cores}", service, jobs, core)
                    contenders = {
                        "bare": partial(loop, arena, "bare", []),
                        "careful": partial(loop, arena, "careful", []),
                        "careful, folders": partial(loop, arena, "careful", ["nested"]),
                        "batch_runner": partial(product, arena, "{{ image }}"),
                        "batch_runner, folders": partial(
                            product, arena, "{{ image }}/{{ prompt }}"
                        ),
                    }
                    found = alternate(contenders, 1 if quick else ROUNDS)
                    rows += [_row(name, found[name], jobs, cores) for name in found]
        report("byhand", rows, folder)


def _row(name: str, rounds: list[Measured], jobs: int, cores: str) -> dict[str, Any]:
    def per_job(of: list[float]) -> str:
        return f"{median(of) / jobs * 1000:.3f}"

    return {
        "contender": name,
        "jobs": jobs,
        "cores": cores,
        "wall s": f"{median([one.wall_s for one in rounds]):.1f}",
        "jobs/s": f"{jobs / median([one.wall_s for one in rounds]):.0f}",
        "user ms/job": per_job([one.user_s for one in rounds]),
        "system ms/job": per_job([one.cpu_s - one.user_s for one in rounds]),
    }
