"""`resolve`: lists jobs with an unknown outcome, and records what a person decides about them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from batch_runner.clock import Clock
from batch_runner.commands import match
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.cancel import cancel_batch
from batch_runner.commands.console import say, show
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.output import command_again, print_lines, require_ledger
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.state import State
from batch_runner.report.unknown import unknown_text
from batch_runner.run.batch import Batch
from batch_runner.run.resolve import (
    UnknownJob,
    attach,
    choose,
    known_requests,
    record_decision,
    unknown_jobs,
)
from batch_runner.run.setup import open_ledger

_Held = Sequence[tuple[Batch, Ledger]]


class Arguments(BatchArguments):
    """The options of `resolve`."""

    json: bool
    jobs: list[str]
    all_jobs: bool
    attach: str | None
    match: str | None
    not_bought: bool
    resubmit: bool
    abandon: bool
    cancel: bool


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "List jobs with an unknown outcome: a request left, and no answer came, so the service may"
        " or may not have charged for it. Give jobs and an option below to settle them."
    )
    add_batch_options(parser, only=False)
    parser.add_argument(
        "jobs",
        nargs="*",
        metavar="KEY",
        help="a job's key, the start of its fingerprint, or a glob over keys",
    )
    parser.add_argument("--all", dest="all_jobs", action="store_true", help="all unknown jobs")
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--attach", metavar="REQUEST_ID", help="the job is this request: let run collect it"
    )
    words.add_argument(
        "--match",
        metavar="FILE",
        help="find request ids in any text ('-' reads stdin), such as a copy of the service's"
        " Generations page, and attach each one that fits exactly one job",
    )
    words.add_argument("--resubmit", action="store_true", help="let the next run buy it again")
    words.add_argument("--abandon", action="store_true", help="give it up")
    words.add_argument(
        "--cancel",
        action="store_true",
        help="cancel requests that the service has not started: all, or those of the given jobs",
    )
    parser.add_argument(
        "--not-bought",
        action="store_true",
        help="with --resubmit or --abandon: it was certainly not bought, so don't count its cost as"
        " spent",
    )


def execute(arguments: Arguments) -> int:
    """List the unknown jobs, or record a decision about some."""
    if arguments.not_bought and not (arguments.resubmit or arguments.abandon):
        raise UsageError("--not-bought needs --resubmit or --abandon", hint="add one of them")
    if arguments.cancel:
        return asyncio.run(cancel_batch(arguments, arguments.jobs, as_json=arguments.json))
    return asyncio.run(_resolve_batch(arguments))


async def _resolve_batch(arguments: Arguments) -> int:
    text = None if arguments.match is None else match.read_text(arguments.match)
    decides = arguments.attach or arguments.resubmit or arguments.abandon or text is not None
    async with open_batch(arguments) as batch:
        require_ledger(arguments, "resolve", batch)
        batch.replay()
        found = _unknown_jobs((part, part.replay()) for part in batch.parts())
        if not decides or (not arguments.jobs and all(one.abandoned for one in found)):
            return _list(arguments, found)
        if text is None and bool(arguments.jobs) == arguments.all_jobs:
            raise UsageError("which jobs?", hint="name keys or globs, or use --all")
        if arguments.attach or text is not None:
            require_token(batch)
        chosen = {one.fingerprint for one in _choose(arguments, found)}
        wanted = [part for part in batch.parts() if any(map(part.has, chosen))]
        async with AsyncExitStack() as stack:
            held = [
                (part, await stack.enter_async_context(open_ledger(part, say))) for part in wanted
            ]
            # Look again under the lock: a run may have ended since, and saved some of the jobs.
            found = _unknown_jobs(((part, ledger.state) for part, ledger in held), is_owner=True)
            code: int = ExitCode.DONE
            if text is None:
                await _settle(arguments, batch, held, found)
            else:
                jobs, command = _choose(arguments, found), command_again(arguments, "resolve")
                code = await match.attach_listed(
                    batch, held, jobs, text, command=command, as_json=arguments.json
                )
    say(f"next: {command_again(arguments, 'run')}")
    return code


def _list(arguments: Arguments, found: list[UnknownJob]) -> int:
    is_any_unknown = not all(one.abandoned for one in found)
    if arguments.jobs:
        found = choose(found, arguments.jobs, may_be_several=True)
    if arguments.json:
        print_lines([one for one in found if arguments.jobs or not one.abandoned])
    else:
        show(unknown_text(found, command_again(arguments, "resolve")))
    return ExitCode.SOME_FAILED if is_any_unknown else ExitCode.DONE


def _unknown_jobs(
    states: Iterable[tuple[Batch, State]], *, is_owner: bool = False
) -> list[UnknownJob]:
    """Return the unknown and abandoned jobs of all shards, in the order they were sent."""
    found = (
        one
        for part, state in states
        for one in unknown_jobs(part.ledgers.own_folder, state, is_owner=is_owner, abandoned=True)
    )
    return sorted(found, key=lambda one: one.sent_at)


def _choose(arguments: Arguments, found: list[UnknownJob]) -> list[UnknownJob]:
    if arguments.jobs:
        chosen = choose(found, arguments.jobs)
    else:
        chosen = [one for one in found if not one.abandoned]
    if arguments.attach and len(chosen) != 1:
        raise UsageError(
            f"--attach is for one job, not for {len(chosen)}",
            hint="name its whole key or fingerprint; for many jobs, use --match FILE",
        )
    return chosen


async def _settle(arguments: Arguments, batch: Batch, held: _Held, found: list[UnknownJob]) -> None:
    chosen = _choose(arguments, found)
    for part, ledger in held:
        jobs = [one for one in chosen if part.has(one.fingerprint)]
        if arguments.attach and jobs:
            (job,), request_id = jobs, arguments.attach
            state = await attach(
                part.service,
                ledger,
                job,
                request_id,
                Clock(),
                known=known_requests(batch.ledgers.records()),
            )
            print(f"{job.job}: attached to {request_id}, which is {state}")
        elif jobs:
            record_decision(
                ledger,
                jobs,
                "resubmit" if arguments.resubmit else "abandoned",
                Clock(),
                was_bought=not arguments.not_bought,
            )
    if not arguments.attach:
        print(f"{len(chosen)} settled")
        counts = "does not count" if arguments.not_bought else "still counts"
        say(f"their cost {counts} as spent")
