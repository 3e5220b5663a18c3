"""`reshard`: deal a batch into another number of shards."""

from __future__ import annotations

from datetime import UTC, datetime

from batch_runner.arguments import Arguments
from batch_runner.commands.opening import load
from batch_runner.errors import ExitCode, UsageError
from batch_runner.shards.reshard import reshard


def execute(arguments: Arguments) -> int:
    """Deal the ledgers anew."""
    manifest = load(arguments)
    if manifest.output.ledger_copy is not None:
        raise UsageError(
            "a batch whose ledgers have a copy cannot be dealt anew: its copy would not know",
            hint="run every shard here once, so that all ledgers are here; then take ledger_copy"
            " out of the manifest, reshard, and name a new, empty one",
        )
    dealt = reshard(manifest.output.ledger_dir, arguments.shards, datetime.now(tz=UTC))
    into = _ledgers(dealt.after)
    if dealt.before == dealt.after:
        print(f"{manifest.name} is in {into} already: {dealt.jobs:,} jobs")
    else:
        print(f"{dealt.jobs:,} jobs dealt from {_ledgers(dealt.before)} into {into}")
    shard = f" --shard I/{dealt.after}" if dealt.after > 1 else ""
    print(f"next: batch-runner run {arguments.manifest}{shard}")
    return ExitCode.DONE


def _ledgers(count: int) -> str:
    return "one ledger" if count == 1 else f"{count} shards"
