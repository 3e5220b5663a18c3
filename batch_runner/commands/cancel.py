"""`resolve --cancel`: cancels requests that the service has not started."""

from __future__ import annotations

from contextlib import AsyncExitStack

from batch_runner.clock import Clock
from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.console import say
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.output import print_lines, require_ledger
from batch_runner.errors import ExitCode
from batch_runner.report.text import cancel_text
from batch_runner.run.resolve import cancel
from batch_runner.run.setup import open_ledger


async def cancel_batch(arguments: BatchArguments, jobs: list[str], *, as_json: bool) -> int:
    """Cancel the requests of these jobs, or of all; the next run collects those that remain."""
    async with open_batch(arguments) as batch:
        require_ledger(arguments, "resolve", batch)
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
                for outcome in await cancel(part.service, ledger, jobs, Clock())
            ]
    if as_json:
        print_lines(outcomes)
    else:
        print(cancel_text(outcomes, jobs))
    return ExitCode.DONE if all(one.cancelled for one in outcomes) else ExitCode.SOME_FAILED
