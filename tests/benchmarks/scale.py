"""A million jobs in one manifest: planning them, resuming when all are done, asking how they stand.

The ledger is made by the program's own jobs and `encode`, as a run leaves it that did all of them:
four records a job, and for each job a file of the recorded size (names of a few files, for a
million inodes would only measure the disk). A resume goes by that ledger; once anything in the
table has changed, the jobs are made again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from measure import Measured, measure, progress, report

from batch_runner.ledger.reading import FILE_NAME
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import (
    LEDGER_VERSION,
    Job,
    LedgerHeader,
    Record,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    encode,
)
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.planning import basis_of

NAME = "scale"
SIZES = (10_000, 100_000, 1_000_000)
ORIGIN = "http://127.0.0.1:9"
"""Nobody listens there: nothing of what is measured needs the service."""

CSV_AND_HASH = "csv.DictReader and a hash a row"
"""What `plan` is compared with."""

_SIZE_BYTES = 100
_PRICE_USD = Decimal("0.05")
_NAMES_OF_ONE_FILE = 50_000

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
price_usd: "0.05"
inputs: {{resolution: 1K}}
prompts: {{white: "Put the {{{{ title }}}} on a pure white background, soft shadow."}}
images: {{from: products.csv, id: "{{{{ sku }}}}", urls: ["{{{{ url }}}}"]}}
output: {{dir: out, path: "{{{{ folder }}}}/{{{{ image }}}}-{{{{ prompt }}}}"}}
"""


def write_table(folder: Path, jobs: int) -> Path:
    """Write a table of so many products, and the manifest that names it."""
    folder.mkdir(parents=True)
    with (folder / "products.csv").open("w", encoding="utf-8") as file:
        file.write("sku,title,url,folder\n")
        for n in range(jobs):
            url = f"https://cdn.example.com/catalog/{n:07}/front.jpg"
            file.write(f"sku-{n:07},Enamel mug number {n},{url},{n // 1000:04}\n")
    path = folder / "batch.yaml"
    path.write_text(MANIFEST.format(), encoding="utf-8")
    return path


def write_ledger(manifest: Path, jobs: int) -> None:
    """Write what a run leaves that did all of its so many jobs, files included."""
    batch = Batch(
        load_manifest(manifest),
        RunOptions(api_base=ORIGIN, token="token"),
    )
    out = manifest.parent / "out"
    out.mkdir()
    with (out / FILE_NAME).open("wb", buffering=1 << 20) as file:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        file.write(
            encode(
                LedgerHeader(
                    version=LEDGER_VERSION, at=moment, program="benchmark", service="local"
                )
            )
        )
        file.write(encode(_run_started(batch, jobs, moment)))
        for number, job in enumerate(batch.jobs()):
            file.writelines(encode(record) for record in _life(job, number, moment))
            _put_file(out, number, f"{job.path}.png")
        file.write(encode(_run_finished(jobs, moment)))


def _run_started(batch: Batch, jobs: int, moment: datetime) -> RunStarted:
    return RunStarted(
        at=moment,
        run=NAME,
        pid=1,
        host="benchmark",
        program="benchmark",
        manifest_sha256=batch.manifest.document.sha256,
        jobs=jobs,
        plan={"submit": jobs},
        basis=basis_of(batch),
    )


def _run_finished(jobs: int, moment: datetime) -> RunFinished:
    return RunFinished(
        at=moment,
        run=NAME,
        submitted=jobs,
        saved=jobs,
        failed=0,
        unknown=0,
        cost_usd=jobs * _PRICE_USD,
        elapsed_s=0.0,
    )


def _life(job: Job, number: int, moment: datetime) -> Iterator[Record]:
    about: dict[str, Any] = {"at": moment, "job": job.key, "fingerprint": job.fingerprint}
    request_id = f"{number:032x}"
    yield Submitting(
        **about,
        model=job.model,
        input=job.input,
        path=job.path,
        attempt=1,
        reserved_usd=_PRICE_USD,
    )
    yield Submitted(**about, request_id=request_id)
    yield Succeeded(
        **about,
        request_id=request_id,
        outputs=[f"https://cdn.runcomfy.net/outputs/{request_id}/0.png"],
        cost_usd=_PRICE_USD,
        created_at="2026-01-01T00:00:00Z",
        finished_at="2026-01-01T00:00:09Z",
    )
    saved = SavedFile(
        path=f"{job.path}.png",
        size_bytes=_SIZE_BYTES,
        sha256=job.fingerprint,
        media_type="image/png",
    )
    yield Saved(**about, files=[saved])


def _put_file(out: Path, number: int, path: str) -> None:
    target = out / path
    first = out / f"first-{number // _NAMES_OF_ONE_FILE}"
    if number % _NAMES_OF_ONE_FILE == 0:
        first.write_bytes(b"b" * _SIZE_BYTES)
    if number % 1000 == 0:
        target.parent.mkdir(exist_ok=True)
    os.link(first, target)


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure each size, and report how time grows with it."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for jobs in SIZES[:2] if quick else SIZES:
            rows += _measure_size(Path(name) / str(jobs), jobs, rows)
        report(NAME, rows, folder)


def _measure_size(folder: Path, jobs: int, smaller: list[dict[str, Any]]) -> list[dict[str, Any]]:
    progress(f"{jobs:,} jobs: writing the table")
    manifest = write_table(folder, jobs)
    script = Path(__file__).with_name("csv_hash.py")
    by_hand = measure([sys.executable, str(script), str(folder / "products.csv")], core=None)
    found = {CSV_AND_HASH: by_hand, "plan": _run("plan", manifest)}
    progress(
        f"plan takes {found['plan'].cpu_s / by_hand.cpu_s:.1f} times the CPU of {CSV_AND_HASH}"
    )
    progress(f"{jobs:,} jobs: writing a ledger of {4 * jobs:,} records, and the files")
    write_ledger(manifest, jobs)
    found |= {"resume, all done": _run("run", manifest), "status": _run("status", manifest)}
    with (folder / "products.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    found["resume, table changed"] = _run("run", manifest)
    return [_row(what, jobs, measured, smaller) for what, measured in found.items()]


def _run(command: str, manifest: Path) -> Measured:
    # Not on one core: it is one process that computes, and the machine may move it as it likes.
    words = [sys.executable, "-m", "batch_runner", command, str(manifest), "--api-base", ORIGIN]
    measured = measure(words, core=None)
    if measured.exit_code != 0:
        raise SystemExit(f"{command} of {manifest} ended with {measured.exit_code}")
    progress(f"{command}: {measured.wall_s:.1f} s, {measured.peak_mb:.0f} MB")
    return measured


def _row(what: str, jobs: int, measured: Measured, smaller: list[dict[str, Any]]) -> dict[str, Any]:
    before = [row for row in smaller if row["what"] == what]
    slope = ""
    if before:
        last = before[-1]
        took_us = (measured.cpu_s - last["CPU s"]) / (jobs - last["jobs"]) * 1e6
        slope = f"{took_us:.1f}"
    return {
        "what": what,
        "jobs": jobs,
        "s": round(measured.wall_s, 2),
        "CPU s": round(measured.cpu_s, 2),
        "peak MB": round(measured.peak_mb),
        "us for each further job": slope,
    }
