"""A run that another process asks to stop: it submits nothing more and collects."""

from __future__ import annotations

from bench import Bench, OpenSandbox

from batch_runner.errors import ExitCode
from batch_runner.ledger.drain import ask_to_drain
from batch_runner.records import Record, RunStarted, Submitted
from batch_runner.run.batch import Batch
from batch_runner.run.execution import run_batch
from batch_runner.run.summary import Summary

TEXT = f"""\
prompts: {{white: On white.}}
matrix: {{seed: {list(range(60))}}}
images: {{mug: https://cdn.example.com/mug.png}}
limits: {{submits: 10/s, polls: 1000/s}}
"""


async def asking(batch: Batch, records: list[Record]) -> Summary:
    """Run, and be asked to stop after its third submit, as another process would."""

    def listen(record: Record) -> None:
        records.append(record)
        submitted = [one for one in records if isinstance(one, Submitted)]
        if len(submitted) == 3 and isinstance(record, Submitted):
            started = next(one for one in records if isinstance(one, RunStarted))
            ask_to_drain(batch.ledgers.own_folder, "0" * 12)  # another run's request stops nobody
            ask_to_drain(batch.ledgers.own_folder, started.run)

    return await run_batch(batch, listener=listen)


async def test_a_run_that_is_asked_to_stop_collects_and_says_so_and_the_next_one_goes_on(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        batch = bench.batch(TEXT, sandbox.url)
        summary = await asking(batch, bench.records)
        assert summary.stop is not None
        assert summary.stop.reason == "drained"
        assert summary.exit_code == ExitCode.STOPPED_EARLY
        assert 3 <= summary.done == summary.submitted < 60
        assert summary.in_flight == summary.unknown == 0
        left = [path.name for path in batch.ledgers.own_folder.glob(".drain-*")]
        assert left == [f".drain-{'0' * 12}"]
        second = await bench.run(TEXT.replace("10/s", "1000/s"), sandbox)
        assert second.exit_code == ExitCode.DONE
        assert second.done == 60
