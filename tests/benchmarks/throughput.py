"""The whole product against the bare loop: 3,000 jobs with 100 KB each, 128 in flight."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from canned import Canned, canned_service
from measure import CORE, ROUNDS, Measured, alternate, measure, median, report

JOBS = 3_000
AT_ONCE = 128
BUSY = 0.85
"""A server that used more of its core than this may have been the bottleneck."""

HERE = Path(__file__).parent

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
prompts: {{white: "Put {{{{ title }}}} on a pure white background."}}
images: {{from: products.csv, id: "{{{{ sku }}}}", urls: ["{{{{ url }}}}"]}}
output: {{dir: {folder}, path: "{{{{ image }}}}"}}
limits: {{submits: 100000/s, polls: 100000/s, in_flight: {at_once}, downloads: 32, cost_usd: 1000}}
"""


def write_manifest(folder: Path, output: Path, jobs: int = JOBS, at_once: int = AT_ONCE) -> Path:
    """Write a table of so many products and the manifest that edits them into `output`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f"p{n},Mug {n},https://cdn.example.com/{n}.jpg" for n in range(jobs))
    (folder / "products.csv").write_text("\n".join(["sku,title,url", *rows]), encoding="utf-8")
    path = folder / f"{output.name}.yaml"
    path.write_text(MANIFEST.format(folder=output, at_once=at_once), encoding="utf-8")
    return path


class Arena:
    """Where contenders do the same work: each round in a folder of its own.

    Nothing is deleted before the last round: after many deletions a file system creates files
    more slowly.
    """

    def __init__(self, folder: Path, service: Canned, jobs: int, core: int | None = CORE) -> None:
        self.folder = folder
        self.service = service
        self.jobs = jobs
        self.core = core
        self.server_share: list[float] = []

    def run(self, name: str, number: int, words: list[str], output: Path) -> Measured:
        """Measure one command, and see that it did its work."""
        before_s = self.service.cpu_s()
        measured = measure(words, core=self.core, RUNCOMFY_API_TOKEN="token")
        self.server_share.append((self.service.cpu_s() - before_s) / measured.wall_s)
        saved = sum(1 for path in output.rglob("*.jpg") if path.stat().st_size > 0)
        if measured.exit_code != 0 or saved != self.jobs:
            raise SystemExit(
                f"{name}, round {number + 1}: exit code {measured.exit_code}, {saved} files"
            )
        return measured

    def refuse_if_server_was_busy(self) -> None:
        """End the benchmark where the server may have been the bottleneck."""
        if max(self.server_share) > BUSY:
            raise SystemExit(
                f"not reported: the server used {max(self.server_share):.0%} of its core"
            )

    def bare(self, number: int) -> Measured:
        """Run the bare loop."""
        output = self.folder / f"bare-{number}"
        script = [sys.executable, str(HERE / "bare.py"), self.service.url, str(output)]
        return self.run("bare", number, [*script, str(self.jobs), str(AT_ONCE)], output)

    def product(self, number: int) -> Measured:
        """Run the product as its users do."""
        output = self.folder / f"product-{number}"
        manifest = write_manifest(self.folder, output, self.jobs)
        words = [sys.executable, "-m", "batch_runner", "run", str(manifest)]
        return self.run("product", number, [*words, "--api-base", self.service.url], output)


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure, and report unless the server may have been the bottleneck."""
    jobs, rounds = (600, 3) if quick else (JOBS, ROUNDS)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        with canned_service(scratch / "nginx") as service:
            # On one core all work competes; on all of them the files' threads have room.
            for cores, core in (("one", CORE), ("all", None)):
                arena = Arena(scratch / cores, service, jobs, core)
                found = alternate({"bare": arena.bare, "batch_runner": arena.product}, rounds)
                arena.refuse_if_server_was_busy()
                rows += _rows(found, jobs, cores, max(arena.server_share))
        # Before all that was saved is deleted, which takes its time.
        report("throughput", rows, folder)


def _rows(
    found: dict[str, list[Measured]], jobs: int, cores: str, share: float
) -> list[dict[str, Any]]:
    rows = []
    for name, rounds in found.items():
        # Ratios of runs of one round, and of them the median: a drift of the machine cancels out.
        speed = median([b.wall_s / m.wall_s for b, m in zip(found["bare"], rounds, strict=True)])
        cpu = median([m.cpu_s / b.cpu_s for b, m in zip(found["bare"], rounds, strict=True)])
        rows.append(
            {
                "contender": name,
                "cores": cores,
                "jobs/s": f"{jobs / median([m.wall_s for m in rounds]):.0f}",
                "x bare": f"{speed:.2f}",
                "CPU ms/job": f"{median([m.cpu_s for m in rounds]) / jobs * 1000:.3f}",
                "CPU x bare": f"{cpu:.2f}",
                "peak MB": f"{median([m.peak_mb for m in rounds]):.0f}",
                "server's core": f"{share:.0%}",
            }
        )
    return rows
