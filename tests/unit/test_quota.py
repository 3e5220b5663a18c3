"""Parts of limits: together never more than the limit, whichever shards run."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.errors import UsageError
from batch_runner.manifest.form import FailureLimit, Limits, Rate
from batch_runner.records import LedgerHeader
from batch_runner.shards.quota import after_overspending, budget_share, limits_share
from batch_runner.shards.shard import Shard

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HEADER = LedgerHeader(version=1, at=NOW, program="p", service="local")

amounts = st.decimals(0, 10_000, places=4)


def header(**fields: object) -> LedgerHeader:
    return LedgerHeader(version=1, at=NOW, program="p", service="local", **fields)  # type: ignore[arg-type]


@given(
    count=st.integers(1, 40), spare=st.integers(0, 100), cost_usd=amounts, window_s=st.floats(1, 9)
)
def test_all_parts_together_are_the_limit_and_the_budget_never_more(
    count: int, spare: int, cost_usd: Decimal, window_s: float
) -> None:
    whole = count + spare
    limits = Limits(
        submits=Rate(whole, window_s),
        polls=Rate(whole + 1, window_s),
        in_flight=whole + 2,
        downloads=whole + 3,
        cost_usd=cost_usd,
    )
    parts = [limits_share(limits, Shard(index, count), HEADER) for index in range(count)]
    assert all(window_s < part.submits.window_s <= window_s * 1.08 for part in parts)
    assert sum(part.submits.count for part in parts) == whole
    assert sum(part.polls.count for part in parts) == whole + 1
    assert sum(part.in_flight for part in parts) == whole + 2
    assert sum(part.downloads for part in parts) == whole + 3
    assert min(part.submits.count for part in parts) >= 1
    total = sum((part.cost_usd or Decimal(0) for part in parts), Decimal(0))
    assert cost_usd - count * Decimal("0.01") < total <= cost_usd


def test_a_shard_of_an_earlier_release_keeps_what_its_jobs_had_cost_more() -> None:
    known = header(budget_offset_usd=Decimal("-1.25"))
    assert budget_share(Decimal(10), Shard(0, 4), known) == Decimal("1.25")


def test_a_limit_that_is_smaller_than_the_number_of_shards_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        limits_share(Limits(submits=Rate(5, 1.0)), Shard(0, 8), HEADER)
    assert caught.value.message == "8 shards cannot share limits.submits: 5/s"
    with pytest.raises(UsageError, match=r"submits: 5/s, limits.in_flight: 20, limits.polls: 20/s"):
        limits_share(Limits(), Shard(0, 24), HEADER)
    assert limits_share(Limits(), Shard(4, 5), HEADER).submits == Rate(1, 1.08)


def test_a_count_of_failures_is_dealt_and_a_share_is_everyones() -> None:
    share = Limits()
    assert limits_share(share, Shard(0, 4), HEADER).failures == share.failures
    parts = [
        limits_share(Limits(failures=FailureLimit(count=6)), Shard(index, 4), HEADER).failures.count
        for index in range(4)
    ]
    assert parts == [2, 2, 1, 1]
    few = Limits(failures=FailureLimit(count=1))
    assert limits_share(few, Shard(3, 4), HEADER).failures.count == 1


def test_without_a_budget_there_is_none_to_deal() -> None:
    assert limits_share(Limits(), Shard(0, 4), HEADER).cost_usd is None


@given(
    committed=st.lists(amounts, min_size=1, max_size=12),
    cost_usd=amounts,
    order=st.randoms(use_true_random=False),
)
def test_what_was_spent_of_a_larger_budget_is_made_up_for_by_those_that_have_something_left(
    committed: list[Decimal], cost_usd: Decimal, order: Random
) -> None:
    count, before = len(committed), sum(committed)
    parts = [budget_share(cost_usd, Shard(index, count), None) for index in range(count)]
    # One after the other begins, and spends all it may, in whichever order.
    for index in order.sample(range(count), count):
        may_have = after_overspending(parts, committed)[index]
        committed[index] = max(committed[index], may_have)
    assert sum(committed) <= max(before, cost_usd)
    # Nothing is held back but fractions of a cent.
    assert sum(committed) >= min(sum(parts), cost_usd) - count * Decimal("0.02")


def test_a_part_stays_what_it_is_as_long_as_nobody_spent_more_than_theirs() -> None:
    parts = [Decimal(5), Decimal(5), Decimal(5)]
    assert after_overspending(parts, [Decimal(5), Decimal(0), Decimal(4)]) == parts
    assert after_overspending(parts, [Decimal(7), Decimal(1), Decimal(0)])[1:] == [4, 4]
    assert after_overspending(parts, [Decimal(7), Decimal("4.5"), Decimal(0)])[2] == Decimal("3.5")
