"""`status` counts by the ledger alone where that is exact, and by the manifest everywhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench import Bench, OpenSandbox

from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.records import Job, RunStarted
from batch_runner.report.status import Status, status
from batch_runner.run import planning
from batch_runner.run.batch import Batch

HERE = "http://127.0.0.1"
FOUR = """\
prompts: {white: white background, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
"""
TABLE = """\
prompts: {white: white background}
images: {from: products.csv, id: "{{ sku }}", urls: ["{{ url }}"]}
"""


def _never(*_: Any) -> None:
    return None


def by_manifest(batch: Batch) -> Status:
    """Count by making every job again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "basis_of", _never)
        return status(batch)


def by_ledger(batch: Batch) -> Status:
    """Count without making a single job."""

    def refuse(*_: Any) -> list[Job]:
        raise AssertionError("the jobs were made again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "jobs", refuse)
        return status(batch)


def last_basis(bench: Bench) -> str | None:
    """Return the basis that the last run wrote down."""
    records = read_ledger(ledger_path(bench.output))
    return [record for record in records if isinstance(record, RunStarted)][-1].basis


def write_table(folder: Path, *skus: str) -> None:
    rows = [f"{sku},https://cdn.example.com/{sku}.png\n" for sku in skus]
    (folder / "products.csv").write_text("sku,url\n" + "".join(rows), encoding="utf-8")


async def test_after_runs_that_stopped_failed_or_finished_both_count_the_same(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(FOUR, sandbox, limit=1)
    batch = bench.batch(FOUR, HERE)
    found = by_ledger(batch)
    assert found == by_manifest(batch)
    assert (found.jobs, found.unknown, found.pending) == (4, 1, 3)
    async with open_sandbox(faults="failed") as sandbox:
        await bench.run(FOUR, sandbox, limit=1)
    assert by_ledger(batch) == by_manifest(batch)
    async with open_sandbox() as sandbox:
        await bench.run(FOUR, sandbox, retry=("all",))
    found = by_ledger(batch)
    assert found == by_manifest(batch)
    assert (found.jobs, found.done) == (4, 4)


async def test_what_left_the_manifest_is_not_counted_and_what_came_is(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    other = FOUR.replace("sepia: sepia", "sepia: in sepia")
    async with open_sandbox() as sandbox:
        await bench.run(FOUR, sandbox, limit=3)
        changed = bench.batch(other, HERE)
        assert status(changed) == by_manifest(changed)
        await bench.run(other, sandbox)
    assert last_basis(bench) is None, "the ledger knows jobs that are not in the manifest"
    assert status(changed) == by_manifest(changed)
    assert status(changed).done == 4
    back = bench.batch(FOUR, HERE)
    assert status(back) == by_manifest(back)


async def test_equal_jobs_and_a_part_of_them_are_counted_by_the_manifest(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    equal = FOUR.replace("lamp.png", "mug.png")
    async with open_sandbox() as sandbox:
        await bench.run(FOUR, sandbox, only=("mug/*",))
        assert last_basis(bench) is None
        await bench.run(equal, sandbox)
        assert last_basis(bench) is None
    batch = bench.batch(equal, HERE)
    assert (status(batch).jobs, status(batch).done) == (4, 4)
    whole = bench.batch(FOUR, HERE)
    part = bench.batch(FOUR, HERE, only=("lamp/*",))
    assert (status(whole).jobs, status(part).jobs) == (4, 2)


async def test_a_table_that_was_changed_is_read_again_however_alike_it_looks(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    write_table(bench.folder, "a1", "a2", "a3")
    async with open_sandbox() as sandbox:
        await bench.run(TABLE, sandbox)
    batch = bench.batch(TABLE, HERE)
    assert by_ledger(batch) == by_manifest(batch)
    table = bench.folder / "products.csv"
    before = table.stat()
    write_table(bench.folder, "a1", "a2", "b3")
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = status(batch)
    assert found == by_manifest(batch)
    assert (found.jobs, found.done, found.pending) == (3, 2, 1)


async def test_what_is_kept_of_a_model_is_part_of_the_basis(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(FOUR, sandbox)
    batch = bench.batch(FOUR, HERE)
    before = planning.basis_of(batch)
    assert before == last_basis(bench)
    (kept,) = (bench.output / "models").iterdir()
    entry = msgspec.json.decode(kept.read_bytes())
    kept.write_bytes(msgspec.json.encode({**entry, "name": "another"}))
    assert planning.basis_of(batch) != before


def test_the_file_that_schema_names_is_part_of_the_basis(bench: Bench) -> None:
    schema = bench.folder / "model.json"
    found = set()
    for limit in (1000, 2000):
        properties = {"prompt": {"type": "string", "maxLength": limit}, "image_urls": {}}
        schema.write_bytes(msgspec.json.encode({"properties": properties}))
        found.add(planning.basis_of(bench.batch("schema: model.json\ninputs: {}\n" + FOUR, HERE)))
    assert len(found) == 2
