"""`pull`: bring the ledgers of other machines here from their copies."""

from __future__ import annotations

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.commands.console import say
from batch_runner.commands.opening import load, run_options
from batch_runner.errors import ExitCode


def execute(arguments: Arguments) -> int:
    """Bring the ledgers here up to their copies."""
    manifest = load(arguments)
    Batch(manifest, run_options(arguments, manifest)).pull(say)
    say("the ledgers here are up to their copies")
    say(f"next: batch-runner status {arguments.manifest}; report, export and resolve work as well")
    return ExitCode.DONE
