"""What commands print for scripts, and the next commands that their messages advise."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.console import say
from batch_runner.errors import InputMissingError
from batch_runner.ledger.reading import ledger_path
from batch_runner.report.text import NextCommands
from batch_runner.run.batch import Batch

_ONLY_REHEARSED = "this batch was only rehearsed, in the sandbox"


def print_lines(values: Sequence[Any]) -> None:
    """Print structs as JSON lines."""
    for value in values:
        print(msgspec.json.encode(value).decode())


def next_commands(arguments: BatchArguments) -> NextCommands:
    """Return the commands that the summary of a run advises."""
    return {
        "run_again": command_again(arguments, "run"),
        "resolve": command_again(arguments, "resolve"),
        "view": command_again(arguments, "view"),
        "is_sandbox": arguments.sandbox,
    }


def report_rehearsal(arguments: BatchArguments, command: str, batch: Batch) -> None:
    """Print how to see the rehearsal, if the batch was only rehearsed."""
    rehearsed = None if _was_run(batch) else _rehearsed(arguments, command, batch)
    if rehearsed is not None:
        say(f"{_ONLY_REHEARSED}\nhint: see it with: {rehearsed}")


def require_ledger(arguments: BatchArguments, command: str, batch: Batch) -> None:
    """Raise InputMissingError if the batch was never run, with a hint what to type instead."""
    if _was_run(batch):
        return
    rehearsed = _rehearsed(arguments, command, batch)
    if rehearsed is not None:
        raise InputMissingError(_ONLY_REHEARSED, hint=f"see it with: {rehearsed}")
    hint = f"run it with: {command_again(arguments, 'run')}"
    path = ledger_path(batch.ledgers.own_folder.resolve())
    raise InputMissingError(f"this batch was never run here: there is no {path}", hint=hint)


def _was_run(batch: Batch) -> bool:
    """Return whether the batch has a ledger."""
    return any(path.exists() for path in batch.ledgers.paths())


def _rehearsed(arguments: BatchArguments, command: str, batch: Batch) -> str | None:
    """Return the command that shows the rehearsal of a batch, if there was one."""
    folder = batch.manifest.output.dir
    if arguments.sandbox:
        return None
    if not ledger_path(folder.with_name(f"{folder.name}-sandbox")).exists():
        return None
    rehearsed = BatchArguments(**{**vars(arguments), "sandbox": True, "api_base": None})
    return command_again(rehearsed, command)


def command_again(arguments: BatchArguments, command: str) -> str:
    """Return a command line for this batch, with the options that it needs again."""
    words = ["batch-runner", command]
    words += ["--sandbox"] if arguments.sandbox else []
    words += ["--api-base", arguments.api_base] if arguments.api_base else []
    if command == "run":
        # What limited this run limits the next one: pasted advice must not buy more.
        words += ["--shard", "{}/{}".format(*arguments.shard)] if arguments.shard else []
        for only in arguments.only:
            words += ["--only", only]
        words += ["--now"] if arguments.now else []
        words += ["--limit", str(arguments.limit)] if arguments.limit else []
        words += ["--max-cost", str(arguments.max_cost)] if arguments.max_cost is not None else []
    return shlex.join([*words, str(arguments.manifest)])
