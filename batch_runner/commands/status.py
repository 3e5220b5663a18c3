"""`status`: where the batch stands, by its ledger alone."""

from __future__ import annotations

import msgspec

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.commands.console import say, show
from batch_runner.commands.opening import load, run_options
from batch_runner.commands.wording import print_lines, rehearsal_note
from batch_runner.errors import ExitCode
from batch_runner.report.text import status_text
from batch_runner.standing import RARE, status


def execute(arguments: Arguments) -> int:
    """Print where the batch stands."""
    if arguments.watch:
        from batch_runner.commands import watch  # noqa: PLC0415 - it brings a server with it

        return watch.execute(arguments)
    manifest = load(arguments)
    batch = Batch(manifest, run_options(arguments, manifest))
    found = status(batch)
    note = rehearsal_note(arguments, "status", batch)
    if note is not None:
        say(note)
    if arguments.json:
        # Scripts know the others: these come only when there is something to count.
        shown = msgspec.structs.asdict(found).items()
        print_lines([{name: value for name, value in shown if value or name not in RARE}])
    else:
        show(status_text(batch, found))
    return ExitCode.DONE
