"""What was sent while no price was known counts under a budget that is set later."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from bench import Bench, OpenSandbox

from batch_runner.clock import Clock
from batch_runner.errors import UsageError
from batch_runner.report.status import status
from batch_runner.run.resolve import record_decision, unknown_jobs
from batch_runner.run.setting import open_ledger

IMAGES = "images:\n" + "".join(f"  p{n}: https://cdn.example.com/p{n}.png\n" for n in range(6))
SIX = f"prompts: {{white: white background}}\n{IMAGES}"
LOST = "no-price,lost-answer"


async def _nothing(bench: Bench, url: str) -> None:
    """Leave the jobs unknown."""


async def _abandoned(bench: Bench, url: str) -> None:
    batch = bench.batch(SIX, url)
    async with open_ledger(batch) as ledger:
        record_decision(
            ledger, unknown_jobs(batch.output_dir, batch.replay()), "abandoned", Clock()
        )


async def _released(bench: Bench, url: str) -> None:
    batch = bench.batch(SIX, url)
    async with open_ledger(batch) as ledger:
        record_decision(ledger, unknown_jobs(batch.output_dir, batch.replay()), "resubmit", Clock())


@pytest.mark.parametrize("word", [_nothing, _abandoned, _released])
async def test_jobs_sent_without_a_price_count_at_the_price_that_is_known_later(
    bench: Bench, open_sandbox: OpenSandbox, word: Any
) -> None:
    async with open_sandbox(faults=LOST) as sandbox:
        await bench.run(SIX, sandbox, limit=4)
    assert status(bench.batch(SIX, sandbox.url)).unpriced == 4
    async with open_sandbox() as sandbox:
        await word(bench, sandbox.url)
        # 4 at 0.05 may have been bought: of 0.25, one more is left.
        summary = await bench.run(SIX, sandbox, max_cost_usd=Decimal("0.25"))
        assert (summary.submitted, summary.stop and summary.stop.reason) == (1, "budget")
        assert len(sandbox.accepted()) == 5
        again = await bench.run(SIX, sandbox, max_cost_usd=Decimal("0.25"))
        assert again.submitted == 0


async def test_a_budget_is_refused_while_jobs_sent_earlier_have_no_price(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults=LOST) as sandbox:
        await bench.run(SIX, sandbox, limit=3)
    # Another model now, whose price is known; nobody says what the first one costs.
    other = SIX + "inputs: {}\nmatrix: {model: [google/nano-banana-2-lite/edit]}\n"
    other += "models: {google/nano-banana-2-lite/edit: {price_usd: 0.05}}\n"
    other += "limits: {cost_usd: 1, submits: 1000/s, polls: 1000/s}\n"
    async with open_sandbox(faults="no-price") as sandbox:
        with pytest.raises(UsageError, match="'p0/white' was sent without a price"):
            await bench.run(other, sandbox)
        assert len(sandbox.accepted()) == 3


async def test_a_cost_that_is_learned_takes_the_place_of_the_price(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="no-price,error-500-get") as sandbox:
        # The service gives every call but a submit no answer: what was sent is left in flight.
        summary = await bench.run(SIX, sandbox, limit=2, clock=clock)
        assert summary.in_flight == 2
    assert status(bench.batch(SIX, sandbox.url)).unpriced == 2
    async with open_sandbox() as sandbox:
        summary = await bench.run(SIX, sandbox, max_cost_usd=Decimal("0.20"))
        assert (summary.done, summary.submitted) == (4, 2)
        assert summary.spent_usd == Decimal("0.20")
    found = status(bench.batch(SIX, sandbox.url))
    assert (found.unpriced, found.cost_usd) == (0, Decimal("0.20"))
