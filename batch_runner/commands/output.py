"""What commands print for scripts, and the next commands that their messages advise."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from batch_runner import PROGRAM
from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.console import complain
from batch_runner.errors import InputMissingError
from batch_runner.ledger.reading import ledger_path
from batch_runner.report.text import About, Advice
from batch_runner.run.batch import Batch


def print_lines(values: Iterable[Any]) -> None:
    """Print structs or mappings as JSON lines."""
    for value in values:
        print(msgspec.json.encode(value).decode())


def read_given(path: Path, hint: str) -> bytes:
    """Read a file that the command line names; raises InputMissingError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputMissingError(f"{path}: cannot read it: {error.strerror}", hint=hint) from error


def advice(arguments: BatchArguments) -> Advice:
    """Return the commands that summaries and pages advise."""
    names = ("run", "resolve", "view", "export")
    return Advice(
        **{name: _printable(command_again(arguments, name)) for name in names},
        is_sandbox=arguments.sandbox,
    )


def _printable(text: str) -> str:
    """Escape what is not UTF-8: the name of a manifest may hold any bytes, JSON may not."""
    return text.encode(errors="backslashreplace").decode()


def about(arguments: BatchArguments, batch: Batch) -> About:
    """Return what the page shows about the batch, with the next commands for the whole batch."""
    return About(
        manifest=_printable(str(arguments.manifest)),
        program=PROGRAM,
        only=", ".join(arguments.only) or None,
        advice=advice(BatchArguments(**{**vars(arguments), "only": ()})),
        reasons=batch.manifest.review.reasons,
    )


def require_ledger(arguments: BatchArguments, batch: Batch, *, is_needed: bool = True) -> None:
    """Raise InputMissingError if the batch was never run, with a hint what to type instead.

    If the ledger is not needed, only print how to see a batch that was rehearsed and never run.
    """
    if any(path.exists() for path in batch.ledgers.paths()):
        return
    folder = batch.manifest.output.dir
    if not arguments.sandbox and ledger_path(folder.with_name(f"{folder.name}-sandbox")).exists():
        rehearsed = BatchArguments(**{**vars(arguments), "sandbox": True, "api_base": None})
        what = "this batch was only rehearsed, in the sandbox"
        hint = f"see it with: {command_again(rehearsed, arguments.command)}"
    elif is_needed:
        path = ledger_path(batch.ledgers.own_folder.resolve())
        what = f"this batch was never run here: there is no {path}"
        hint = f"run it with: {command_again(arguments, 'run')}"
    else:
        return
    error = InputMissingError(what, hint=hint)
    if is_needed:
        raise error
    complain(error)


def command_again(arguments: BatchArguments, command: str) -> str:
    """Return a command line for this batch, with the options that it needs again."""
    words = ["batch-runner", command]
    words += ["--sandbox"] if arguments.sandbox else []
    words += ["--api-base", arguments.api_base] if arguments.api_base else []
    if command == "run":
        # What limited this run limits the next one: pasted advice must not buy more.
        words += ["--shard", str(arguments.shard)] if arguments.shard else []
        for only in arguments.only:
            words += ["--only", only]
        words += ["--now"] if arguments.now else []
        words += ["--limit", str(arguments.limit)] if arguments.limit else []
        words += ["--max-cost", str(arguments.max_cost)] if arguments.max_cost is not None else []
    return shlex.join([*words, str(arguments.manifest)])
