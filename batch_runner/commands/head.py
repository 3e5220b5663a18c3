"""What the page shows above the pictures, whichever command makes it."""

from __future__ import annotations

from batch_runner import PROGRAM
from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.output import command_again
from batch_runner.records import utc_now
from batch_runner.report.moment import Moment
from batch_runner.report.page import Advice, Head
from batch_runner.run.batch import Batch


def advice_of(arguments: BatchArguments) -> Advice:
    """Return the next commands for the whole batch; the page adds --only for a job."""
    every: dict[str, object] = {"only": [], "limit": None, "max_cost": None}
    whole = BatchArguments(**{**vars(arguments), **every})
    return Advice(
        run=_as_text(command_again(whole, "run")),
        resolve=_as_text(command_again(whole, "resolve")),
        export=_as_text(command_again(whole, "export")),
    )


def _as_text(path: str) -> str:
    """Return a path that a page can contain: a name of a file may not be UTF-8."""
    return path.encode(errors="backslashreplace").decode()


def head_of(
    arguments: BatchArguments,
    batch: Batch,
    moment: Moment,
    beyond: int,
    revision: int | None = None,
) -> Head:
    """Return what the page shows about the batch as a whole."""
    return Head(
        moment=moment,
        manifest=_as_text(str(arguments.manifest)),
        made_at=utc_now(),
        program=PROGRAM,
        is_sandbox=arguments.sandbox,
        only=", ".join(arguments.only) or None,
        advice=advice_of(arguments),
        reasons=batch.manifest.review.reasons,
        beyond=beyond,
        revision=revision,
    )
