"""A hundred shards in virtual time: what holds for all of them together."""

from __future__ import annotations

import pytest
from fleet import LIMITS, Outcome, simulate

JOBS = 6_000


@pytest.fixture(scope="module", params=[False, True], ids=["no copy", "a copy in a bucket"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return simulate(100, JOBS, has_copy=request.param)


def test_a_hundred_shards_that_start_when_they_like_never_pass_the_rate_together(
    outcome: Outcome,
) -> None:
    assert outcome.counted["submits"] == JOBS
    assert 0 < outcome.worst_second <= LIMITS.submits.count


def test_a_job_costs_four_records_and_at_most_two_commits(outcome: Outcome) -> None:
    assert outcome.counted["records"] == 4 * JOBS
    assert JOBS / 2 < outcome.counted["commits"] <= 2 * JOBS
    assert outcome.counted["ledger bytes"] < 1600 * JOBS
