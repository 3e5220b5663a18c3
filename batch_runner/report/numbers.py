"""How many pictures people accept, and what an accepted one costs.

Pure. What always holds: accepted, rejected and waiting add up to the saved pictures that somebody
still needs to judge or has judged; a rate has an interval that says how much is known. A picture
for which a redo was asked counts as rejected. If one of a job's repeats is accepted, the others
need no verdict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Word
from batch_runner.report.details import JobDetails

_Z_90 = 1.6448536269514722
"""How many standard deviations hold 90 % of a normal distribution."""


class Count(msgspec.Struct):
    """Pictures by what people said."""

    accepted: int = 0
    rejected: int = 0
    waiting: int = 0


class Numbers(Count):
    """The counts of a batch, and of each prompt and model in it; the commonest reasons first."""

    cost_usd: Decimal = Decimal(0)
    parts: dict[tuple[str, str], Count] = {}
    reasons: dict[str, int] = {}

    @property
    def usd_per_accepted(self) -> Decimal | None:
        """Return what an accepted picture costs, with all others; None if there is none."""
        return round(self.cost_usd / self.accepted, 4) if self.accepted else None


def numbers(jobs: Iterable[JobDetails], spent_usd: Decimal) -> Numbers:
    """Count all pictures. Everything that was spent, redos included, is for the accepted ones."""
    total, reasons = Numbers(parts={}, cost_usd=spent_usd), Counter[str]()
    settled: set[Any] = set()
    waiting: list[tuple[Any, Count]] = []
    for details in jobs:
        part = total.parts.setdefault((details.job.prompt_id or "", details.job.model), Count())
        # Pictures that redos have replaced. The last one is shown until the new one is there.
        part.rejected += details.redone
        for said in details.reviewed:
            group = _without_repeat(details)
            if said is None:
                waiting.append((group, part))
            elif said.word is Word.ACCEPTED:
                part.accepted += 1
                settled.add(group)
            else:
                part.rejected += 1
                reasons[said.reason or "no reason"] += 1
    for group, part in waiting:
        part.waiting += group not in settled
    for part in total.parts.values():
        total.accepted += part.accepted
        total.rejected += part.rejected
        total.waiting += part.waiting
    total.reasons = dict(reasons.most_common())
    return total


def _without_repeat(details: JobDetails) -> tuple[object, ...]:
    job = details.job
    return job.model, job.image_id, job.prompt_id, *map(str, job.point.values())


def interval(accepted: int, rejected: int) -> tuple[float, float]:
    """Return the rates between which the true one lies with 90 % confidence (Wilson's score)."""
    judged = accepted + rejected
    if not judged:
        return 0.0, 1.0
    rate, spread = accepted / judged, _Z_90**2 / judged
    middle = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + (spread / 2) ** 2) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def numbers_text(found: Numbers) -> str:
    """Return the numbers as lines; "" if nobody judged anything."""
    if not found.accepted + found.rejected:
        return ""
    lines = [
        f"  accepted  {found.accepted:>9,}   {_rate_text(found)}",
        f"  rejected  {found.rejected:>9,}   "
        + ", ".join(f"{reason} {count:,}" for reason, count in list(found.reasons.items())[:5]),
        f"  waiting   {found.waiting:>9,}",
    ]
    if found.usd_per_accepted is not None:
        lines.append(f"  {found.usd_per_accepted} USD per accepted picture")
    judged = {name: one for name, one in found.parts.items() if one.accepted + one.rejected}
    if len(judged) > 1:
        lines += [
            f"    {prompt} · {model}: {_rate_text(one)}" for (prompt, model), one in judged.items()
        ]
    return "\n".join(line.rstrip() for line in lines)


def _rate_text(count: Count) -> str:
    low, high = interval(count.accepted, count.rejected)
    rate = count.accepted / (count.accepted + count.rejected)
    return f"{rate:.0%} of what was judged (90 % interval: {low:.0%} to {high:.0%})"
