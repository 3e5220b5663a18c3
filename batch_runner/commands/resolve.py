"""`resolve`: a person's word on jobs of which nobody knows whether they were bought."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.clock import Clock
from batch_runner.commands.console import say
from batch_runner.commands.opening import opened, require_token
from batch_runner.commands.wording import command_again, print_lines, require_ledger
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.state import State
from batch_runner.report.text import unknown_text
from batch_runner.run import Run
from batch_runner.settlement import UnknownJob, attach, choose, settle, unknown_jobs


def execute(arguments: Arguments) -> int:
    """List the unknown jobs, or settle some."""
    return asyncio.run(_resolve_batch(arguments))


async def _resolve_batch(arguments: Arguments) -> int:
    async with opened(arguments) as batch:
        require_ledger(arguments, "resolve", batch)
        state = batch.replay()
        found = _unknown_jobs(batch.parts())
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
        chosen = {one.fingerprint for one in _choose(arguments, found)}
        wanted = [part for part in batch.parts() if any(map(part.has, chosen))]
        async with AsyncExitStack() as stack:
            ledgers = [
                await stack.enter_async_context(Run(part, notice=say).opened()) for part in wanted
            ]
            # Looked up again under the lock: a run may have ended since, and saved what it awaited.
            found = _unknown_jobs(wanted, ledgers)
            await _settle(arguments, wanted, ledgers, _choose(arguments, found), state)
    say(f"next: {command_again(arguments, 'run')}")
    return ExitCode.DONE


def _unknown_jobs(parts: Sequence[Batch], ledgers: Sequence[Ledger] = ()) -> list[UnknownJob]:
    """Return the unknown jobs of all parts in the order they were sent; `ledgers` are held."""
    found = [
        one
        for number, part in enumerate(parts)
        for one in unknown_jobs(
            part.ledgers.own_folder,
            ledgers[number].state if ledgers else part.replay(),
            is_owner=bool(ledgers),
        )
    ]
    return sorted(found, key=lambda one: one.sent_at)


def _choose(arguments: Arguments, found: list[UnknownJob]) -> list[UnknownJob]:
    chosen = found if arguments.all_jobs else choose(found, arguments.jobs)
    if arguments.attach and len(chosen) != 1:
        raise UsageError(
            f"--attach settles one job, here are {len(chosen)}", hint="name its whole key"
        )
    return chosen


async def _settle(
    arguments: Arguments,
    parts: Sequence[Batch],
    ledgers: Sequence[Ledger],
    chosen: list[UnknownJob],
    everything: State,
) -> None:
    for part, ledger in zip(parts, ledgers, strict=True):
        jobs = [one for one in chosen if part.has(one.fingerprint)]
        if arguments.attach and jobs:
            request_id = arguments.attach
            state = await attach(
                part.service, ledger, jobs[0], request_id, Clock(), elsewhere=everything
            )
            print(f"{jobs[0].job}: attached to {request_id}, which is {state}")
        elif jobs:
            settle(ledger, jobs, "resubmit" if arguments.resubmit else "abandoned", Clock())
    if not arguments.attach:
        print(f"{len(chosen)} settled")
