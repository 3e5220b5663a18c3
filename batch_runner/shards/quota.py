"""A shard's part of the limits.

Hides the arithmetic of dealing limits. What always holds, without any word between the shards: all
parts together are never more than the limit, in any window and to the last cent, whichever shards
run and whenever they start. A limit that is smaller than the number of shards cannot be dealt so,
and is refused: a longer window instead (one call in 1.6 s for each of 8 shards, for 5/s) would let
all eight call in the same second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from batch_runner.errors import UsageError
from batch_runner.manifest.form import FailureLimit, Limits, Rate
from batch_runner.records import LedgerHeader
from batch_runner.shards.shard import Shard

# Calls of one process arrive in their order; those of several are late each by its own. So that
# not two of them make one too many, each process keeps a window that is longer by so much.
_SLACK = 0.08
_SLACK_LIMIT_S = 0.25

_CENT = Decimal("0.01")
_UNITS = {1.0: "s", 60.0: "min", 3600.0: "h"}


def deal_limits(limits: Limits, shard: Shard, header: LedgerHeader) -> Limits:
    """Return the part of the limits that is a shard's; `header` is that of its ledger.

    Raises UsageError where a limit is smaller than the number of shards.
    """
    wrong = list(_too_small(limits, shard.count))
    if wrong:
        raise UsageError(
            f"{shard.count} shards cannot have a part each of {', '.join(wrong)}",
            hint="use fewer shards, or raise what may be raised: 300/min can be dealt where 5/s"
            " cannot",
        )
    return Limits(
        submits=_deal_rate(limits.submits, shard),
        polls=_deal_rate(limits.polls, shard),
        in_flight=_part(limits.in_flight, shard),
        downloads=_part(limits.downloads, shard),
        cost_usd=None if limits.cost_usd is None else deal_budget(limits.cost_usd, shard, header),
        nightly_usd=_deal_nightly(limits.nightly_usd, shard),
        failures=_deal_failures(limits.failures, shard),
    )


def deal_budget(cost_usd: Decimal, shard: Shard, header: LedgerHeader | None) -> Decimal:
    """Return a shard's part of the budget: down to the cent, and what its ledger began with.

    `header` None: its ledger was not begun.
    """
    part = (cost_usd / shard.count).quantize(_CENT, ROUND_FLOOR)
    return part + ((header and header.budget_offset_usd) or 0)


def _deal_nightly(nightly_usd: Decimal | None, shard: Shard) -> Decimal | None:
    # What was bought in former nights counts for nothing here.
    return None if nightly_usd is None else deal_budget(nightly_usd, shard, None)


def budget_offsets(committed_usd: list[Decimal]) -> list[Decimal]:
    """Return for each ledger that is dealt what it may spend beyond an equal part of the budget.

    By that, what was committed before the dealing counts where it was committed, and only the rest
    of the budget is dealt equally: the parts never add up to more than the budget.
    """
    mean = (sum(committed_usd, Decimal(0)) / len(committed_usd)).quantize(_CENT, ROUND_CEILING)
    return [one - mean for one in committed_usd]


def after_overspending(parts_usd: list[Decimal], committed_usd: list[Decimal]) -> list[Decimal]:
    """Return the parts of a budget where some shards had spent more under a larger one.

    The others make up for it equally, as far as they have not spent theirs: what is committed and
    what may still be spent never add up to more than the parts. Whoever asks while others spend
    within what this gave them gets the same answer.
    """
    beyond_usd, settled = Decimal(0), 0
    while True:
        gone = [
            committed - part
            for part, committed in zip(parts_usd, committed_usd, strict=True)
            if committed > part - beyond_usd
        ]
        if len(gone) in (settled, len(parts_usd)):
            return [max(part - beyond_usd, Decimal(0)) for part in parts_usd]
        settled = len(gone)
        beyond_usd = (sum(gone, Decimal(0)) / (len(parts_usd) - settled)).quantize(
            _CENT, ROUND_CEILING
        )


def recent_submits(
    submit_times: Iterable[datetime], header: LedgerHeader, count: int
) -> Iterator[datetime]:
    """Yield when submits left that count for a rate of `count`, the oldest first.

    Those before the ledger was dealt were dealt too, but not evenly: until the last of them has
    left the window, the whole rate counts as used.
    """
    last = header.last_submit_at
    if last is not None:
        yield from [last] * count
    for moment in submit_times:
        if last is None or moment > last:
            yield moment


def _too_small(limits: Limits, count: int) -> Iterator[str]:
    for name in ("submits", "in_flight", "polls", "downloads"):
        value = getattr(limits, name)
        if (value.count if isinstance(value, Rate) else value) < count:
            yield f"limits.{name}: {rate_text(value) if isinstance(value, Rate) else value}"


def rate_text(rate: Rate) -> str:
    """Return a rate as it is written in a manifest."""
    return f"{rate.count}/{_UNITS.get(rate.window_s, f'{rate.window_s:g} s')}"


def _deal_rate(rate: Rate, shard: Shard) -> Rate:
    slack_s = min(rate.window_s * _SLACK, _SLACK_LIMIT_S)
    return Rate(_part(rate.count, shard), rate.window_s + slack_s)


def _part(whole: int, shard: Shard) -> int:
    """Deal so many; the first shards get what remains."""
    equal, rest = divmod(whole, shard.count)
    return equal + (shard.index < rest)


def _deal_failures(limit: FailureLimit, shard: Shard) -> FailureLimit:
    # A brake, not a promise: each shard may fail once before it stops.
    return limit if limit.count is None else FailureLimit(count=max(1, _part(limit.count, shard)))
