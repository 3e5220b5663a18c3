"""`resolve`: lists jobs with an unknown outcome, and records what a person decides about them."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from batch_runner.clock import Clock
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.output import command_again, print_lines, read_given, require_ledger
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.state import State
from batch_runner.pacing.pacer import Pacer
from batch_runner.report.text import cancel_text
from batch_runner.report.unknown import match_text, unknown_text
from batch_runner.run.batch import Batch
from batch_runner.run.matching import UNANSWERED, kind_of, look_up, made_at, pair, request_ids_in
from batch_runner.run.resolve import (
    UnknownJob,
    Word,
    attach,
    attached,
    cancel,
    choose,
    known_requests,
    record_decision,
    unknown_jobs,
)
from batch_runner.run.setting import open_ledger

_Held = Sequence[tuple[Batch, Ledger]]


class Arguments(BatchArguments):
    jobs: list[str]
    all_jobs: bool
    attach: str | None
    match: Path | None
    not_bought: bool
    resubmit: bool
    abandon: bool
    cancel: bool


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List jobs with an unknown outcome: a request left, and no answer came, so the service may"
        " or may not have charged for it. Give jobs and an option below to settle them."
    )
    add_batch_options(parser, only=False)
    parser.add_argument(
        "jobs",
        nargs="*",
        default=[],
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
        type=Path,
        metavar="FILE",
        help="find request ids in a text, such as a copy of the service's Generations page, and"
        " attach each one that fits exactly one job",
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
    return asyncio.run(_resolve_batch(arguments))


async def _resolve_batch(arguments: Arguments) -> int:
    text = None
    if arguments.match is not None:
        hint = "name a file with request ids, such as a copy of the Generations page"
        text = read_given(arguments.match, hint).decode(errors="replace")
    decides = arguments.attach or arguments.resubmit or arguments.abandon or text is not None
    async with open_batch(arguments) as batch:
        require_ledger(arguments, batch)
        batch.replay()
        if arguments.cancel:
            return await _cancel(arguments, batch)
        found = _unknown_jobs((part, part.replay()) for part in batch.parts())
        if not decides or (not arguments.jobs and all(one.abandoned for one in found)):
            return _list(arguments, found)
        if text is None and bool(arguments.jobs) == arguments.all_jobs:
            raise UsageError("which jobs?", hint="name keys or globs, or use --all")
        if arguments.attach or text is not None:
            require_token(batch.options.token)
        chosen = {one.fingerprint for one in _choose(arguments, found)}
        async with _held(part for part in batch.parts() if any(map(part.has, chosen))) as held:
            # Look again under the lock: a run may have ended since, and saved some of the jobs.
            found = _unknown_jobs(((part, ledger.state) for part, ledger in held), is_owner=True)
            jobs = _choose(arguments, found)
            if text is not None:
                code = await _match(arguments, batch, held, jobs, text)
            else:
                code = await _settle(arguments, batch, held, jobs)
    say(f"next: {command_again(arguments, 'run')}")
    return code


@asynccontextmanager
async def _held(parts: Iterable[Batch]) -> AsyncIterator[_Held]:
    """Hold the ledgers of all parts before anything is changed: a run refuses the whole command."""
    async with AsyncExitStack() as stack:
        yield [(part, await stack.enter_async_context(open_ledger(part, say))) for part in parts]


def _list(arguments: Arguments, found: list[UnknownJob]) -> int:
    is_any_unknown = not all(one.abandoned for one in found)
    if arguments.jobs:
        found = choose(found, arguments.jobs)
    if arguments.json:
        print_lines([one for one in found if arguments.jobs or not one.abandoned])
    else:
        print(unknown_text(found, command_again(arguments, "resolve")))
    return ExitCode.SOME_FAILED if is_any_unknown else ExitCode.DONE


def _unknown_jobs(
    states: Iterable[tuple[Batch, State]], *, is_owner: bool = False
) -> list[UnknownJob]:
    """Return the unknown and abandoned jobs of all shards, in the order they were sent."""
    found = (
        one
        for part, state in states
        for one in unknown_jobs(part.ledgers.own_folder, state, is_owner=is_owner)
    )
    return sorted(found, key=lambda one: one.sent_at)


def _choose(arguments: Arguments, found: list[UnknownJob]) -> list[UnknownJob]:
    """Return the jobs to decide about; raises UsageError if a key names several."""
    if not arguments.jobs:
        chosen = [one for one in found if not one.abandoned]
    else:
        chosen = choose(found, arguments.jobs)
    for word in arguments.jobs:
        alike = [one.short for one in chosen if one.job == word]
        if len(alike) > 1:
            what = f"{len(alike)} unknown jobs are called '{word}', with different inputs"
            raise UsageError(what, hint=f"name each by its fingerprint: {', '.join(alike)}")
    if arguments.attach and len(chosen) != 1:
        raise UsageError(
            f"--attach is for one job, not for {len(chosen)}",
            hint="name its whole key or fingerprint; for many jobs, use --match FILE",
        )
    return chosen


async def _settle(
    arguments: Arguments, batch: Batch, held: _Held, chosen: list[UnknownJob]
) -> ExitCode:
    known = known_requests(batch.ledgers.records()) if arguments.attach else {}
    for part, ledger in held:
        jobs = [one for one in chosen if part.has(one.fingerprint)]
        if arguments.attach and jobs:
            (job,), request_id = jobs, arguments.attach
            state = await attach(part.service, ledger, job, request_id, Clock(), known=known)
            print(f"{job.job}: attached to {request_id}, which is {state}")
        elif jobs:
            how: Word = "resubmit" if arguments.resubmit else "abandoned"
            record_decision(ledger, jobs, how, Clock(), was_bought=not arguments.not_bought)
    if not arguments.attach:
        print(f"{len(chosen)} settled")
        counts = "does not count" if arguments.not_bought else "still counts"
        say(f"their cost {counts} as spent")
    return ExitCode.DONE


async def _match(
    arguments: Arguments, batch: Batch, held: _Held, jobs: list[UnknownJob], text: str
) -> ExitCode:
    """Attach each job whose request is certain to be in a text, and print the result."""
    ids, known = request_ids_in(text), known_requests(batch.ledgers.records())
    if not ids:
        hint = "copy the ids from the service's Generations page"
        raise UsageError("no request id in the list", hint=hint)
    pacer = Pacer(batch.manifest.limits, batch.manifest.retry, Clock())
    answers = await look_up(held[0][0].service, pacer, (one for one in ids if one not in known))
    paired = pair(jobs, answers)
    for part, ledger in held:
        for job in jobs:
            if job.fingerprint in paired and part.has(job.fingerprint):
                ledger.append(attached(job, paired[job.fingerprint], Clock()))
        # What is reported as attached must be on the disk.
        await ledger.durable()
    kinds = Counter(map(kind_of, answers.values()))
    kinds["of this batch already"] = len(ids) - len(answers)
    left = [one for one in jobs if one.fingerprint not in paired]
    if arguments.json:
        print_lines(
            [
                {
                    "attached": [
                        {"job": one.job, "request_id": paired[one.fingerprint]}
                        for one in jobs
                        if one.fingerprint in paired
                    ],
                    "unknown": [{"job": one.job, "sent_at": one.sent_at} for one in left],
                    "ids": kinds,
                }
            ]
        )
    else:
        times = sorted(filter(None, map(made_at, answers.values())))
        print(match_text(jobs, paired, kinds, times, command_again(arguments, "resolve")))
    if kinds[UNANSWERED]:
        say("hint: run the same command again later: it looks up what was not answered")
        return ExitCode.UNAVAILABLE
    return ExitCode.SOME_FAILED if left else ExitCode.DONE


async def _cancel(arguments: Arguments, batch: Batch) -> ExitCode:
    """Cancel the requests of these jobs, or of all; the next run collects those that remain."""
    require_token(batch.options.token)
    async with _held(batch.parts()) as held:
        outcomes = [
            outcome
            for part, ledger in held
            for outcome in await cancel(part.service, ledger, arguments.jobs, Clock())
        ]
    if arguments.json:
        print_lines(outcomes)
    else:
        print(cancel_text(outcomes, arguments.jobs))
    return ExitCode.DONE if all(one.cancelled for one in outcomes) else ExitCode.SOME_FAILED
