"""`cancel`: cancels requests that the service has not started."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

from batch_runner.clock import Clock
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.output import print_lines, require_ledger
from batch_runner.errors import ExitCode
from batch_runner.report.text import cancel_text
from batch_runner.run.resolve import cancel
from batch_runner.run.setup import open_ledger


class Arguments(BatchArguments):
    """The options of `cancel`."""

    json: bool
    jobs: list[str]


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Cancel requests that the service has not started. The next run collects the others."
    )
    add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="only jobs with these keys or globs")


def execute(arguments: Arguments) -> int:
    """Cancel requests that the service has not started."""
    return asyncio.run(_cancel_batch(arguments))


async def _cancel_batch(arguments: Arguments) -> int:
    async with open_batch(arguments) as batch:
        require_ledger(arguments, "cancel", batch)
        require_token(batch)
        batch.replay()
        async with AsyncExitStack() as stack:
            # Lock all shards before the first cancel: another run refuses the whole command.
            parts = [
                (part, await stack.enter_async_context(open_ledger(part, say)))
                for part in batch.parts()
            ]
            outcomes = [
                outcome
                for part, ledger in parts
                for outcome in await cancel(part.service, ledger, arguments.jobs, Clock())
            ]
    if arguments.json:
        print_lines(outcomes)
    else:
        print(cancel_text(outcomes, arguments.jobs))
    return ExitCode.DONE if all(one.cancelled for one in outcomes) else ExitCode.SOME_FAILED
