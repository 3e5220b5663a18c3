"""`plan`: shows what a run would do and cost."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch_runner.commands.arguments import BatchArguments, add_batch_options, add_purchases
from batch_runner.commands.console import say
from batch_runner.commands.context import open_batch
from batch_runner.commands.environment import TOKEN_VARIABLES
from batch_runner.commands.originals import original_of
from batch_runner.commands.output import command_again, print_lines
from batch_runner.errors import ExitCode
from batch_runner.ledger.state import State
from batch_runner.records import SavedFile, redact, utc_now
from batch_runner.report.progress import show_planning
from batch_runner.report.text import plan_text
from batch_runner.run.batch import Batch
from batch_runner.run.budget import unpriced_error
from batch_runner.run.concerns import concerns
from batch_runner.run.learning import learn_models
from batch_runner.run.plan import Action, Planned
from batch_runner.run.planning import plan_jobs, survey_jobs

_FOR_A_RUN = (Action.SUBMIT, Action.COLLECT, Action.DOWNLOAD, Action.REUSE)


class Arguments(BatchArguments):
    check_urls: bool


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what run would do with each job, why, and what it would cost. Changes nothing."
    )
    add_batch_options(parser)
    add_purchases(parser)
    parser.add_argument(
        "--now", action="store_true", help="plan for run --now: ignore the manifest's window"
    )
    parser.add_argument(
        "--check-urls",
        action="store_true",
        help="try the address of every picture in, and list by row the addresses that are"
        " unreachable, need a login, are no picture or are larger than 50 MB (exit code 65)",
    )


def execute(arguments: Arguments) -> int:
    """Show what a run would do; return the exit code."""
    return asyncio.run(_plan_batch(arguments))


async def _plan_batch(arguments: Arguments) -> int:
    async with open_batch(arguments, for_run=False) as batch:
        balance_usd = None
        if batch.options.token is not None:
            async with batch.service:
                await learn_models(batch, keep=False)
                balance_usd = await batch.service.balance_usd()
        state = batch.replay()
        survey = survey_jobs(batch, state, shown=show_planning)
        for note in (*batch.notes, *survey.tally.notes):
            say(note)
        unpriced = any(model.price_usd is None for model in batch.models.values())
        if batch.options.token is None and unpriced:
            say(
                "the price is unknown: without a token, the service was not asked\n"
                f"hint: set {TOKEN_VARIABLES[0]}, or plan a rehearsal with --sandbox"
            )
        if batch.manifest.checks and survey.counts[Action.SUBMIT]:
            for prediction in _predictions(batch, state):
                say(f"{prediction}\nhint: change the inputs or the checks before you pay")
        for concern in concerns(batch, survey, state):
            say(f"{concern.message}\nhint: {concern.hint}")
        if arguments.json:
            print_lines(_plan_line(batch, planned) for planned in plan_jobs(batch, state))
        else:
            print(plan_text(batch, survey, state, balance_usd, utc_now()), flush=True)
        if arguments.check_urls:
            from batch_runner.commands.check_urls import check_urls  # noqa: PLC0415 - brings aiohttp

            if await check_urls(batch, state, as_json=arguments.json):
                return ExitCode.INVALID
        if survey.unpriced is not None and batch.limits.has_budget and batch.options.token:
            raise unpriced_error(batch, survey.unpriced)
        if not arguments.json and any(survey.counts[action] for action in _FOR_A_RUN):
            words = [
                command_again(arguments, "run"),
                *(f"--retry {what}" for what in arguments.retry),
            ]
            shards = len(batch.ledgers.paths())
            words += [f"--shard I/{shards}"] if shards > 1 else []
            say(f"next: {' '.join(words)}")
    return ExitCode.DONE


def _predictions(batch: Batch, state: State) -> Iterator[str]:
    """Yield which jobs would fail a check, by the pictures that are saved already."""
    from batch_runner.pictures.inspection import predictions  # noqa: PLC0415 - brings Pillow
    from batch_runner.pictures.measure import Measured, measure  # noqa: PLC0415

    find = original_of(batch)

    def look(file: SavedFile) -> Measured | None:
        original = find(file)
        if isinstance(original, str):
            original = Path(original).read_bytes()
        return None if original is None else measure(original)

    planned = (
        (one.job, one.action is Action.SUBMIT, known.files if known is not None else ())
        for one in plan_jobs(batch, state)
        for known in [state.job(one.job.fingerprint)]
    )
    yield from predictions(batch.manifest, batch.models, planned, look)


def _plan_line(batch: Batch, planned: Planned) -> dict[str, Any]:
    job = planned.job
    cost_usd = batch.prices.estimate_usd(job) if planned.action == "submit" else None
    return {
        "job": job.key,
        "fingerprint": job.fingerprint,
        "model": job.model,
        "action": str(planned.action),
        "reason": planned.reason,
        "path": job.path,
        "input": redact(job.input),
        "estimate_usd": None if cost_usd is None else str(cost_usd),
    }
