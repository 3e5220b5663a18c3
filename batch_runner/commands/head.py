"""What the page shows about the batch, whichever command makes it."""

from __future__ import annotations

from batch_runner import PROGRAM
from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.output import command_again
from batch_runner.report.page import About, Advice
from batch_runner.run.batch import Batch


def about(arguments: BatchArguments, batch: Batch) -> About:
    """Return what the page shows, with the next commands for the whole batch."""
    every: dict[str, object] = {"only": [], "limit": None, "max_cost": None}
    whole = BatchArguments(**{**vars(arguments), **every})
    # The name of a file may not be UTF-8, as a page must be.
    manifest, *commands = (
        text.encode(errors="backslashreplace").decode()
        for text in (
            str(arguments.manifest),
            *(command_again(whole, name) for name in ("run", "resolve", "export")),
        )
    )
    return About(
        manifest=manifest,
        program=PROGRAM,
        is_sandbox=arguments.sandbox,
        only=", ".join(arguments.only) or None,
        advice=Advice(*commands),
        reasons=batch.manifest.review.reasons,
    )
