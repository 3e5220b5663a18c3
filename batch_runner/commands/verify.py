"""`verify`: compares every saved file with the ledger; `--fix` restores missing files."""

from __future__ import annotations

import argparse
import asyncio
import json

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.output import command_again, require_ledger
from batch_runner.errors import ExitCode
from batch_runner.files.verification import Finding, verify
from batch_runner.run.mend import mend


class Arguments(BatchArguments):
    """The options of `verify`."""

    json: bool
    fix: bool


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Compare every saved file with its recorded SHA-256, and list the files that are missing"
        " ('-') or changed ('*')."
    )
    add_batch_options(parser, only=False)
    parser.add_argument(
        "--fix", action="store_true", help="restore these files: downloads them again, buys nothing"
    )


def execute(arguments: Arguments) -> int:
    """Compare every saved file with the ledger; return the exit code."""
    return asyncio.run(_verify_batch(arguments))


async def _verify_batch(arguments: Arguments) -> int:
    async with open_batch(arguments) as batch:
        require_ledger(arguments, "verify", batch)
        checked = list(verify(batch.storage, batch.ledgers.records()))
        wrong = [one for one in checked if one is not None]
        if wrong and arguments.fix:
            require_token(batch)
            for part in batch.parts():
                mine = [one for one in wrong if part.has(one.fingerprint)]
                if mine:
                    await mend(part, mine, say)
            left = {
                one.path
                for one in verify(batch.storage, batch.ledgers.records())
                if one is not None
            }
            say(f"restored {len(wrong) - len(left)} of {len(wrong)} files")
            wrong = [one for one in wrong if one.path in left]
    for one in wrong:
        line = {"path": one.path, "finding": one.finding.name.lower(), "job": one.job}
        shown = (
            json.dumps(line, ensure_ascii=False) if arguments.json else f"{one.finding} {one.path}"
        )
        print(shown)
    marks = f" ({', '.join(f'{one} {one.name.lower()}' for one in Finding)})" if wrong else ""
    say(f"{len(checked) - len(wrong)} of {len(checked)} files are whole{marks}")
    if not wrong:
        return ExitCode.DONE
    if not arguments.fix:
        say(f"hint: restore them for free: {command_again(arguments, 'verify')} --fix")
    return ExitCode.SOME_FAILED
