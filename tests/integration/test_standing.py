"""However a run ends, its summary and progress count the jobs as `status` does afterwards."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from bench import Bench, OpenSandbox

from batch_runner.clock import Clock
from batch_runner.errors import ExitCode
from batch_runner.ledger.job import Standings
from batch_runner.records import Cancelled, Submitted, utc_now
from batch_runner.report.progress import Progress
from batch_runner.report.status import status
from batch_runner.report.text import Advice, summary_text
from batch_runner.run.execution import run_batch
from batch_runner.run.resolve import record_decision, unknown_jobs
from batch_runner.run.setting import open_ledger
from batch_runner.run.summary import Summary

ADVICE = Advice(run="RUN", resolve="RESOLVE", view="VIEW", export="EXPORT", is_sandbox=False)
COUNTS = Standings.__struct_fields__
SIX = "prompts: {white: white background}\nimages:\n" + "".join(
    f"  p{n}: https://cdn.example.com/p{n}.png\n" for n in range(6)
)
# The third is equal to the first: one purchase, two files.
EQUAL = """\
prompts: {white: white background}
images:
  cup: https://cdn.example.com/cup.png
  mug: https://cdn.example.com/mug.png
  same: https://cdn.example.com/cup.png
"""


def counts(of: Any) -> dict[str, int]:
    return {name: getattr(of, name) for name in COUNTS}


def agree(bench: Bench, text: str, summary: Summary) -> Standings:
    """Return how the jobs stand, once summary and status count the same."""
    found = status(bench.batch(text, "http://127.0.0.1:1"))
    assert counts(summary) == counts(found)
    assert summary.unknown_beyond == found.unknown_beyond
    return msgspec.convert(counts(found), Standings)


@pytest.mark.parametrize("text", [SIX, EQUAL])
@pytest.mark.parametrize("fault", ["lost-answer", "failed", "error-500"])
@pytest.mark.parametrize(
    "options",
    [
        {"limit": 1},
        {"retry": ("unknown",), "limit": 1},
        {"retry": ("failed",), "limit": 1},
        {"retry": ("all",), "max_cost_usd": Decimal("0.20")},
        {"retry": ("all",)},
    ],
    ids=str,
)
async def test_after_a_run_that_does_not_reach_every_job_summary_and_status_agree(
    bench: Bench, open_sandbox: OpenSandbox, text: str, fault: str, options: dict[str, Any]
) -> None:
    async with open_sandbox(faults=fault) as sandbox:
        agree(bench, text, await bench.run(text, sandbox))
    async with open_sandbox(faults="failed=50%", seed=5) as sandbox:
        summary = await bench.run(text, sandbox, **options)
    agree(bench, text, summary)
    advice = summary_text(summary, ADVICE)
    assert ("RESOLVE" in advice) == bool(summary.unknown)


async def abandon(bench: Bench, text: str, url: str) -> None:
    batch = bench.batch(text, url)
    async with open_ledger(batch) as ledger:
        record_decision(
            ledger, unknown_jobs(batch.output_dir, batch.replay()), "abandoned", Clock()
        )


async def cancel(bench: Bench, text: str, url: str) -> None:
    batch = bench.batch(text, url)
    async with open_ledger(batch) as ledger:
        for job in unknown_jobs(batch.output_dir, batch.replay(), is_owner=True):
            about: dict[str, Any] = {"job": job.job, "fingerprint": job.fingerprint}
            about |= {"at": utc_now(), "request_id": f"r-{job.short}"}
            ledger.append(Submitted(**about))
            ledger.append(Cancelled(**about))


@pytest.mark.parametrize("word", [abandon, cancel])
@pytest.mark.parametrize(("text", "cancelled"), [(SIX, 6), (EQUAL, 3)])
async def test_what_was_given_up_and_what_is_equal_to_it_count_as_cancelled_everywhere(
    bench: Bench, open_sandbox: OpenSandbox, text: str, cancelled: int, word: Any
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(text, sandbox)
        await word(bench, text, sandbox.url)
    stream = io.StringIO()
    async with open_sandbox() as sandbox:
        with Progress("spring", stream) as progress:
            batch = bench.batch(text, sandbox.url)
            summary = await run_batch(batch, listener=progress, on_survey=progress.begin)
    assert agree(bench, text, summary) == Standings(jobs=cancelled, cancelled=cancelled)
    assert (summary.exit_code, summary.submitted) == (ExitCode.DONE, 0)
    assert "failed" not in stream.getvalue()


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        ("error-500-get", ExitCode.STOPPED_EARLY),
        ("missing-file", ExitCode.STOPPED_EARLY),
        ("result-404", ExitCode.SOME_FAILED),
    ],
)
async def test_a_job_whose_file_cannot_be_fetched_again_is_not_all_done(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock, fault: str, exit_code: ExitCode
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(SIX, sandbox)
    (bench.output / "p3/white.jpg").unlink()
    async with open_sandbox(faults=fault) as sandbox:
        summary = await bench.run(SIX, sandbox, clock=clock)
    agree(bench, SIX, summary)
    assert summary.exit_code is exit_code


@pytest.mark.parametrize("text", [SIX, EQUAL])
async def test_unknown_jobs_that_left_the_manifest_are_still_named_with_the_advice(
    bench: Bench, open_sandbox: OpenSandbox, text: str
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        first = await bench.run(text, sandbox)
        bought = len(sandbox.accepted())
    edited = text.replace("white background", "sand")
    async with open_sandbox() as sandbox:
        summary = await bench.run(edited, sandbox)
    agree(bench, edited, summary)
    assert (first.unknown_beyond, summary.unknown_beyond) == (0, bought)
    advice = summary_text(summary, ADVICE)
    assert "RESOLVE --match FILE" in advice
