"""What a person says about a picture that is done again: before, during and after."""

from __future__ import annotations

import pytest
from bench import Bench, OpenSandbox, judge_saved

from batch_runner.ledger.verdict import Word
from batch_runner.records import Record, RunStarted
from batch_runner.run.execution import run_batch
from batch_runner.run.survey import Survey

ONE = "prompts: {white: white background}\nimages: {mug: https://cdn.example.com/mug.png}\n"
TWO = ONE.replace("{white:", "{sepia: sepia, white:")


def say(bench: Bench, word: Word) -> None:
    judge_saved(bench.output, word, "mug/white")


async def test_a_redo_that_is_asked_for_during_a_run_is_left_to_the_next_one(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Survey, "KEPT", 0)  # the run makes its jobs a second time

    def listen(record: Record) -> None:
        if isinstance(record, RunStarted):
            say(bench, Word.REDO)

    async with open_sandbox() as sandbox:
        await bench.run(ONE, sandbox)
        summary = await run_batch(bench.batch(TWO, sandbox.url), listener=listen)
        assert summary.submitted == summary.to_buy == 1
        assert len(sandbox.accepted()) == 2
        assert (await bench.run(TWO, sandbox)).submitted == 1
        assert len(sandbox.accepted()) == 3


async def test_to_reject_a_picture_ends_its_redo_before_it_is_bought_and_leaves_it_afterwards(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(ONE, sandbox)
        original = (bench.output / bench.files[0]).read_bytes()
        say(bench, Word.REDO)
        say(bench, Word.REJECTED)
        assert (await bench.run(ONE, sandbox)).submitted == 0
        say(bench, Word.REDO)
        assert (await bench.run(ONE, sandbox)).submitted == 1
        (path, aside) = bench.files
        assert aside.startswith("superseded/")
        again = (bench.output / path).read_bytes()
        assert again != original
        # The new picture was paid for: only who accepts the old one wants it back.
        for word, content in ((Word.REJECTED, again), (Word.ACCEPTED, original)):
            say(bench, word)
            summary = await bench.run(ONE, sandbox)
            assert (summary.submitted, summary.done) == (0, 1)
            assert (bench.output / path).read_bytes() == content
        assert len(sandbox.accepted()) == 2
