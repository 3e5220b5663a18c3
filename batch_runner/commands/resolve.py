"""`resolve`: a person's word on jobs of which nobody knows whether they were bought."""

from __future__ import annotations

import asyncio

from batch_runner.arguments import Arguments
from batch_runner.commands.console import say
from batch_runner.commands.opening import opened, require_token
from batch_runner.commands.wording import command_again, print_lines
from batch_runner.errors import ExitCode, UsageError
from batch_runner.pacing import Clock
from batch_runner.report.text import unknown_text
from batch_runner.run import Run
from batch_runner.settlement import attach, choose, settle, unknown_jobs


def execute(arguments: Arguments) -> int:
    """List the unknown jobs, or settle some."""
    return asyncio.run(_resolve_batch(arguments))


async def _resolve_batch(arguments: Arguments) -> int:
    async with opened(arguments) as batch:
        found = unknown_jobs(batch.ledger_dir, batch.replay())
        if not (arguments.attach or arguments.resubmit or arguments.abandon):
            found = choose(found, arguments.jobs) if arguments.jobs else found
            if arguments.json:
                print_lines(found)
            else:
                print(unknown_text(found, command_again(arguments, "resolve")))
            return ExitCode.SOME_FAILED if found else ExitCode.DONE
        if not found:
            print(unknown_text(found, ""))
            return ExitCode.DONE
        if bool(arguments.jobs) == arguments.all_jobs:
            raise UsageError("say which jobs", hint="name keys or globs, or give --all")
        if arguments.attach:
            require_token(batch)
        async with Run(batch, notice=say).opened() as ledger:
            # Looked up again under the lock: a run may have ended since, and saved what it awaited.
            found = unknown_jobs(batch.ledger_dir, ledger.state, is_owner=True)
            chosen = found if arguments.all_jobs else choose(found, arguments.jobs)
            if arguments.attach and len(chosen) != 1:
                raise UsageError(
                    f"--attach settles one job, here are {len(chosen)}", hint="name its whole key"
                )
            if arguments.attach:
                job = chosen[0]
                state = await attach(batch.service, ledger, job, arguments.attach, Clock())
                print(f"{job.job}: attached to {arguments.attach}, which is {state}")
            else:
                settle(ledger, chosen, "resubmit" if arguments.resubmit else "abandoned", Clock())
                print(f"{len(chosen)} settled")
    say(f"next: {command_again(arguments, 'run')}")
    return ExitCode.DONE
