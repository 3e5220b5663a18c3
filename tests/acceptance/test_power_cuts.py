"""The power is cut at every flush of a real run's disk, and each time the batch is resumed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from bench import FAST
from command import accepted, run, write
from PIL import Image
from recorded_disk import Flush, RecordedDisk, mounted, needs_recording, recorded_disk

from batch_runner.errors import ExitCode
from batch_runner.files.verification import verify
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.manifest.loading import load_manifest
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.execution import run_batch
from batch_runner.sandbox import Sandbox

pytestmark = [needs_recording, pytest.mark.timeout(500)]

JOBS = 6
BOOK = Path("sandbox", "requests.jsonl")


@pytest.fixture
def recorded(tmp_path: Path, sandbox: str) -> RecordedDisk:
    """A whole run; at each flush of its disk the size of the service's book is noted."""
    manifest, book = write(tmp_path, images=1), tmp_path / BOOK
    with recorded_disk(tmp_path, tmp_path / "out", lambda: book.stat().st_size) as disk:
        done = run("run", str(manifest), "--api-base", sandbox)
        assert done.returncode == ExitCode.DONE, done.stderr
    return disk


async def resume(place: Path, image: bytes, book: bytes) -> None:
    """Run on what a power cut left, with a service that knows what it had accepted by then."""
    (place / "sandbox").mkdir(parents=True)
    (place / BOOK).write_bytes(book)
    (place / "disk.img").write_bytes(image)
    manifest = load_manifest(write(place, images=1))
    with mounted(place / "disk.img", place / "out"):
        async with Sandbox(place / "sandbox", FAST) as service:
            batch = Batch(manifest, RunOptions(api_base=service.url, token="any"))
            summary = await run_batch(batch)
        assert set(accepted(place).values()) <= {1}, "paid twice"
        assert summary.exit_code in (ExitCode.DONE, ExitCode.SOME_FAILED)
        assert summary.done + summary.unknown == JOBS
        assert not any(verify(batch.storage, read_ledger(ledger_path(place / "out"))))
        pictures = list((place / "out").rglob("*.jpg"))
        assert len(pictures) == summary.done
        for path in pictures:
            with Image.open(path) as picture:
                picture.load()
        # Of a folder that is only being tried, a hidden file may remain.
        assert {one.name[:14] for one in (place / "out").rglob("*.part")} <= {".batch-runner-"}


async def test_a_power_cut_at_any_flush_of_a_run_pays_for_nothing_twice(
    tmp_path: Path, recorded: RecordedDisk
) -> None:
    book = (tmp_path / BOOK).read_bytes()
    flushes = recorded.flushes()
    assert len(flushes) > 5 * JOBS
    for number, at in enumerate(flushes):
        flush = recorded.log[at]
        assert isinstance(flush, Flush)
        for dice in (None, random.Random(number)):
            place = tmp_path / "cut"
            await resume(place, recorded.image(at, dice), book[: flush.moment])
            shutil.rmtree(place)
