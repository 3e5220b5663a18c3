"""A batch as commands look at it: with what its ledgers and verdicts say."""

from __future__ import annotations

from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.context import read_batch
from batch_runner.commands.output import require_ledger
from batch_runner.report.live import Live


def read_live(arguments: BatchArguments, *, is_needed: bool = True) -> Live:
    """Return the batch with what its ledgers and verdicts say; see `require_ledger`."""
    batch = read_batch(arguments)
    require_ledger(arguments, batch, is_needed=is_needed)
    live = Live(batch)
    live.read()
    return live
