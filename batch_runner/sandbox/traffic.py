"""Figures about the calls that a sandbox received, to judge rates and polls.

Pure arithmetic on the calls in order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from batch_runner.sandbox.server import Call


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of calls. `submits_per_s` is the mean from the first submit to the last."""

    submits: int = 0
    accepted: int = 0
    throttled: int = 0
    most_submits_in_a_second: int = 0
    submits_per_s: float | None = None
    polls: int = 0
    files: int = 0

    def __str__(self) -> str:
        rate = "" if self.submits_per_s is None else f", {self.submits_per_s:.1f}/s on average"
        return (
            f"answered {self.submits:,} submits ({self.accepted:,} accepted,"
            f" {self.throttled:,} throttled; at most {self.most_submits_in_a_second:,}"
            f" in one second{rate}), {self.polls:,} polls, {self.files:,} files"
        )


def measure_traffic(calls: Iterable[Call], accepted: int) -> Traffic:
    """Count calls by kind. A submit is a POST to a model; `accepted` of them became requests."""
    calls = list(calls)
    submits = [call for call in calls if call.method == "POST" and "/v1/models/" in call.path]
    moments_s = [call.at_s for call in submits]
    span_s = moments_s[-1] - moments_s[0] if len(moments_s) > 1 else 0.0
    return Traffic(
        submits=len(submits),
        accepted=accepted,
        throttled=sum(call.status == 429 for call in submits),
        most_submits_in_a_second=_most_in_a_second(moments_s),
        submits_per_s=(len(moments_s) - 1) / span_s if span_s else None,
        polls=sum(call.path.startswith("/v1/requests/") for call in calls if call.method == "GET"),
        files=sum(call.path.startswith("/outputs/") for call in calls),
    )


def _most_in_a_second(moments_s: Iterable[float]) -> int:
    recent: deque[float] = deque()
    most = 0
    for moment_s in moments_s:
        recent.append(moment_s)
        while moment_s - recent[0] >= 1.0:
            recent.popleft()
        most = max(most, len(recent))
    return most
