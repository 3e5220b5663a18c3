"""Rare orders of events and hostile hands: each of these once lost money, data or the way out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, OpenSandbox

from batch_runner.clock import Clock
from batch_runner.errors import ExitCode, LedgerLockedError, ManifestError
from batch_runner.files.disk import sync_data
from batch_runner.ledger import file as ledger_module
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.lock import LOCK_NAME
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.records import Record, Submitted, Unknown
from batch_runner.run.execution import run_batch
from batch_runner.run.stop import Ending, Stop
from batch_runner.service.answer import Verdict
from batch_runner.service.call import Service

TWO = """\
prompts: {white: white background, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png}
"""


def unknown(bench: Bench) -> int:
    return sum(isinstance(one, Unknown) for one in read_ledger(ledger_path(bench.output)))


async def test_removing_the_lock_file_under_a_run_lets_nobody_else_in(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        ledger = Ledger.open(batch.output_dir, batch.ledgers.header(datetime.now(UTC)))
        try:
            (batch.output_dir / LOCK_NAME).unlink()
            with pytest.raises(LedgerLockedError, match="lock file was removed"):
                await bench.run(TWO, sandbox)
        finally:
            ledger.close()


async def test_a_listener_that_fails_breaks_no_job(bench: Bench, open_sandbox: OpenSandbox) -> None:
    def listen(record: Record) -> None:
        raise RuntimeError("nobody listens")

    async with open_sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="nobody listens"):
            await run_batch(bench.batch(TWO, sandbox.url), listener=listen)
        assert unknown(bench) == 0
        summary = await bench.run(TWO, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 2)
        assert len(sandbox.accepted()) == 2


async def test_a_bug_in_one_job_lets_the_others_finish_what_is_paid_for(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Service.submit

    async def stumble(self: Service, model_id: str, input_: dict[str, Any]) -> Verdict:
        if input_["prompt"] == "sepia":
            raise ZeroDivisionError("a bug")
        return await submit(self, model_id, input_)

    monkeypatch.setattr(Service, "submit", stumble)
    async with open_sandbox() as sandbox:
        with pytest.raises(ZeroDivisionError):
            await bench.run(TWO, sandbox)
        monkeypatch.undo()
        summary = await bench.run(TWO, sandbox)
        assert (summary.done, summary.unknown) == (1, 1)
        assert len(sandbox.accepted()) == 1


async def test_a_bug_while_the_ledger_is_made_durable_ends_the_run_and_what_was_sent_is_collected(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(descriptor: int) -> None:
        if any(isinstance(record, Submitted) for record in bench.records):
            raise RuntimeError("a bug")
        sync_data(descriptor)

    monkeypatch.setattr(ledger_module, "sync_data", stumble)
    text = f"{TWO}limits: {{submits: 1000/s, polls: 1000/s, in_flight: 1}}\n"
    async with open_sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="a bug"):
            await bench.run(text, sandbox)
        assert len(sandbox.accepted()) == 1
        monkeypatch.undo()
        summary = await bench.run(text, sandbox)
        assert summary.done + summary.unknown == 2
        assert len(sandbox.accepted()) == len(bench.files) == summary.done


async def test_a_picture_that_vanishes_under_the_run_ends_it_and_the_paid_ones_are_collected(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    photo = Path(__file__).parents[2] / "samples" / "photos" / "mug.jpg"
    for n in range(20):
        (bench.folder / f"{n}.jpg").write_bytes(photo.read_bytes() + bytes([n]))
    images = "\n".join(f"  p{n}: {n}.jpg" for n in range(20))
    text = f"prompts: {{white: white}}\nimages:\n{images}\n"
    text += "limits: {submits: 1000/s, polls: 1000/s, in_flight: 1}\n"

    def spoil(record: Record) -> None:
        if isinstance(record, Submitted):
            (bench.folder / "19.jpg").unlink(missing_ok=True)

    async with open_sandbox() as sandbox:
        summary = await run_batch(bench.batch(text, sandbox.url), listener=spoil)
        assert isinstance(summary.error, ManifestError)
        assert summary.exit_code is ExitCode.INVALID
        assert (unknown(bench), summary.in_flight) == (0, 0)
        assert summary.done == len(sandbox.accepted()) >= 1


async def test_an_unusable_schema_of_the_service_is_said_and_not_kept(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Service.model

    async def poisoned(self: Service, model_id: str) -> tuple[Verdict, dict[str, Any] | None]:
        verdict, entry = await model(self, model_id)
        assert entry is not None
        return verdict, {**entry, "input_schema": {"properties": {"a": {"type": "nonsense"}}}}

    monkeypatch.setattr(Service, "model", poisoned)
    async with open_sandbox() as sandbox:
        summary = await bench.run(TWO, sandbox)
        assert summary.done == 2
    assert any("is not usable" in notice for notice in bench.notices)


async def test_limit_counts_what_was_sent_and_not_what_was_refused_for_now(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="rate-limit=60%", seed=2) as sandbox:
        summary = await bench.run(TWO, sandbox, clock=clock, limit=2)
    assert summary.done == 2


async def test_the_twin_of_a_waiting_job_is_served_in_the_same_run(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    text = """\
prompts: {white: white}
images: {mug: https://cdn.example.com/mug.png, cup: https://cdn.example.com/mug.png}
"""
    async with open_sandbox(faults="html-file") as sandbox:
        await bench.run(text, sandbox, clock=clock)
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
    assert (summary.exit_code, summary.done) == (ExitCode.DONE, 2)


async def test_a_job_is_downloaded_if_the_file_of_its_twin_was_damaged(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = """\
prompts: {white: white}
images: {mug: https://cdn.example.com/mug.png}
"""
    async with open_sandbox() as sandbox:
        await bench.run(text, sandbox)
        mug = bench.output / "mug/white.jpg"
        whole = mug.read_bytes()
        mug.write_bytes(bytes(len(whole)))
        twins = text.replace("mug.png}", "mug.png, cup: https://cdn.example.com/mug.png}")
        summary = await bench.run(twins, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 2)
        assert len(sandbox.accepted()) == 1
    assert (bench.output / "cup/white.jpg").read_bytes() == whole


async def test_swapped_names_end_with_every_file_right(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    images = [f"  p{n}: https://cdn.example.com/{n}.png" for n in range(6)]
    swapped = [f"  p{n}: https://cdn.example.com/{n ^ 1}.png" for n in range(6)]
    async with open_sandbox() as sandbox:
        head = "prompts: {white: white}\nimages:\n"
        await bench.run(head + "\n".join(images) + "\n", sandbox)
        before = {n: (bench.output / f"p{n}/white.jpg").read_bytes() for n in range(6)}
        summary = await bench.run(head + "\n".join(swapped) + "\n", sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 6)
        assert len(sandbox.accepted()) == 6
    for n in range(6):
        assert (bench.output / f"p{n}/white.jpg").read_bytes() == before[n ^ 1]


async def test_leaving_before_anything_was_sent_does_not_wait_for_the_service(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang(self: Service, model_id: str) -> tuple[Verdict, None]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Service, "model", hang)
    async with open_sandbox() as sandbox:
        ending = Ending()
        executing = asyncio.ensure_future(run_batch(bench.batch(TWO, sandbox.url), ending=ending))
        await asked.wait()
        ending.end(Stop("interrupted", "interrupted by Ctrl-C", at_once=True))
        summary = await executing
    assert (summary.exit_code, summary.submitted) == (ExitCode.INTERRUPTED, 0)


def test_a_picture_with_a_thumbnail_that_is_cut_off_is_not_whole() -> None:
    from batch_runner.files.media import is_whole

    photo = Path(__file__).parents[2] / "samples" / "photos" / "mug.jpg"
    whole = photo.read_bytes()
    thumbnail = b"\xff\xd8\xff\xda\x00\x02x\xff\xd9"
    size = (len(thumbnail) + 2).to_bytes(2, "big")
    with_thumbnail = whole[:2] + b"\xff\xe1" + size + thumbnail + whole[2:]
    assert is_whole("image/jpeg", with_thumbnail)
    assert not is_whole("image/jpeg", with_thumbnail[: len(with_thumbnail) // 2])


async def test_a_body_without_an_end_is_cut_off_and_left_for_the_next_run(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_runner.files.download.SIZE_LIMIT_BYTES", 2 * 2**20)
    text = TWO + "retry: {attempts: 1}\n"
    async with open_sandbox(faults="endless-file") as sandbox:
        summary = await bench.run(text, sandbox)
        assert (summary.done, summary.in_flight) == (0, 2)
    assert not list(bench.output.rglob("*.part"))
    async with open_sandbox() as sandbox:
        assert (await bench.run(text, sandbox)).done == 2


async def test_a_picture_that_would_unpack_to_a_hundred_megabytes_is_saved_without_unpacking_it(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="bomb-file") as sandbox:
        summary = await bench.run(TWO, sandbox)
        assert summary.done == 2
    (white,) = bench.output.glob("mug/white.png")
    assert white.stat().st_size < 200_000
