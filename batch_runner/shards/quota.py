"""A shard's share of the limits.

Hides the arithmetic. What always holds, although shards do not talk to each other: all shares
together never exceed the limit, in any window and to the last cent, whichever shards run and
whenever they start. A limit smaller than the number of shards cannot be shared like this, and is
refused. A longer window is no way out: with one call in 1.6 s for each of 8 shards (5/s), all eight
could call in the same second.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from batch_runner.errors import UsageError
from batch_runner.manifest.form import FailureLimit, Limits, Rate
from batch_runner.records import LedgerHeader
from batch_runner.shards.shard import Shard

# The calls of one process arrive in order, but those of several processes are each delayed
# differently. A longer window in each process keeps two of them from making one call too many.
_SLACK = 0.08
_SLACK_LIMIT_S = 0.25

_CENT = Decimal("0.01")
_UNITS = {1.0: "s", 60.0: "min", 3600.0: "h"}


def limits_share(limits: Limits, shard: Shard, header: LedgerHeader) -> Limits:
    """Return a shard's share of the limits; `header` is that of its ledger.

    Raises UsageError if a limit is smaller than the number of shards.
    """
    small = list(_too_small(limits, shard.count))
    if small:
        raise UsageError(
            f"{shard.count} shards cannot share {', '.join(small)}",
            hint="use fewer shards, or a larger limit, perhaps over a longer time: 24 shards can"
            " share 300/min, but not 5/s",
        )
    return Limits(
        submits=_rate_share(limits.submits, shard),
        polls=_rate_share(limits.polls, shard),
        in_flight=_share(limits.in_flight, shard),
        downloads=_share(limits.downloads, shard),
        cost_usd=None if limits.cost_usd is None else budget_share(limits.cost_usd, shard, header),
        # A night's budget ignores what was bought before that night, and so the header.
        nightly_usd=None
        if limits.nightly_usd is None
        else budget_share(limits.nightly_usd, shard, None),
        # It stops a bad run early and promises nothing, so each shard may have one failure.
        failures=limits.failures
        if limits.failures.count is None
        else FailureLimit(count=max(1, _share(limits.failures.count, shard))),
    )


def budget_share(cost_usd: Decimal, shard: Shard | None, header: LedgerHeader | None) -> Decimal:
    """Return a shard's share of the budget, rounded down to a cent, plus its ledger's offset.

    `header` is None if its ledger does not exist yet. Without a shard it is the whole budget.
    """
    if shard is None:
        return cost_usd
    equal = (cost_usd / shard.count).quantize(_CENT, ROUND_FLOOR)
    return equal + ((header and header.budget_offset_usd) or 0)


def after_overspending(shares_usd: list[Decimal], committed_usd: list[Decimal]) -> list[Decimal]:
    """Return the shares of a lowered budget that some shards had exceeded before.

    The others make up for it equally, as far as they have money left: what is committed and what
    may still be spent never exceed the budget together. A shard that asks while others spend within
    their shares gets the same answer.
    """
    beyond_usd, known = Decimal(0), 0
    while True:
        gone = [
            committed - share
            for share, committed in zip(shares_usd, committed_usd, strict=True)
            if committed > share - beyond_usd
        ]
        if len(gone) in (known, len(shares_usd)):
            return [max(share - beyond_usd, Decimal(0)) for share in shares_usd]
        known = len(gone)
        beyond_usd = (sum(gone, Decimal(0)) / (len(shares_usd) - known)).quantize(
            _CENT, ROUND_CEILING
        )


def _too_small(limits: Limits, count: int) -> Iterator[str]:
    for name in ("submits", "in_flight", "polls", "downloads"):
        value = getattr(limits, name)
        if (value.count if isinstance(value, Rate) else value) < count:
            yield f"limits.{name}: {rate_text(value) if isinstance(value, Rate) else value}"


def rate_text(rate: Rate) -> str:
    """Return a rate as it is written in a manifest."""
    return f"{rate.count}/{_UNITS.get(rate.window_s, f'{rate.window_s:g} s')}"


def _rate_share(rate: Rate, shard: Shard) -> Rate:
    slack_s = min(rate.window_s * _SLACK, _SLACK_LIMIT_S)
    return Rate(_share(rate.count, shard), rate.window_s + slack_s)


def _share(whole: int, shard: Shard) -> int:
    """Return a shard's share of a number; the first shards get the remainder."""
    equal, rest = divmod(whole, shard.count)
    return equal + (shard.index < rest)
