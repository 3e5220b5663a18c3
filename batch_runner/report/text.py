"""Plan, status and summary as a tired person reads them at seven in the morning.

Pure: figures in, text out. What always holds: the same words for the same things as in the ledger
and in `--json`; amounts of money are exact; every number that asks for something to be done is
followed by the command that does it.
"""

from __future__ import annotations

import shlex
from decimal import Decimal
from pathlib import Path

from batch_runner.batch import Batch, Status, Summary
from batch_runner.ledger import State
from batch_runner.plan import Action, Survey

_ORDER = (
    Action.SUBMIT,
    Action.COLLECT,
    Action.DOWNLOAD,
    Action.REUSE,
    Action.SKIP,
    Action.HOLD,
)


def plan_text(batch: Batch, survey: Survey, state: State, balance_usd: Decimal | None) -> str:
    """Return the plan: counts by action and reason with the first jobs of each, and the money."""
    lines = [f"{batch.manifest.name}: {_count(survey.jobs, 'job')}, {batch.manifest.model}"]
    for action in _ORDER:
        for (of, reason), count in survey.reasons.items():
            if of is action:
                examples = survey.examples[of, reason]
                shown = ", ".join(examples) + (", …" if count > len(examples) else "")
                lines.append(f"  {action:<9}{count:>8}  {reason:<24} {shown}")
    lines.append(_money_text(batch, survey, state, balance_usd))
    if batch.model.schema_source is None:
        lines.append("inputs: not checked, no schema of this model is known")
    lines.append(f"output: {batch.output_dir.resolve()}")
    return "\n".join(lines)


def _money_text(batch: Batch, survey: Survey, state: State, balance_usd: Decimal | None) -> str:
    price_usd = batch.model.price_usd
    if price_usd is None:
        parts = ["price: not known"]
    else:
        parts = [f"price: {usd(price_usd)} an {batch.model.price_unit}"]
    if survey.counts[Action.SUBMIT]:
        parts.append(f"estimate: {usd(survey.cost_usd)}")
    if state.spent_usd or state.reserved_usd:
        parts.append(f"spent: {usd(state.spent_usd)}, reserved: {usd(state.reserved_usd)}")
    if batch.budget_usd is not None:
        left = batch.budget_usd - state.spent_usd - state.reserved_usd
        parts.append(f"budget: {usd(batch.budget_usd)}, {usd(left)} left")
    if balance_usd is not None:
        parts.append(f"balance: {usd(balance_usd)}")
        if survey.cost_usd is not None and survey.cost_usd > balance_usd:
            parts.append("the balance will not do")
    return " · ".join(parts)


def summary_text(summary: Summary, *, manifest: Path, command: str, is_sandbox: bool) -> str:
    """Return the end of a run: how it went, where the pictures are, what to do next."""
    charged = " (sandbox: nothing was charged)" if is_sandbox else ""
    lines = [
        f"{summary.done} of {_count(summary.jobs, 'job')} done in {_duration(summary.elapsed_s)}",
        f"  done     {summary.done:>7}",
        f"  failed   {summary.failed:>7}",
        f"  unknown  {summary.unknown:>7}",
    ]
    for name, value in (
        ("in flight", summary.in_flight),
        ("pending", summary.pending),
        ("cancelled", summary.cancelled),
        ("orphaned", summary.orphans),
    ):
        if value:
            lines.append(f"  {name:<9}{value:>7}")
    lines.append(f"  cost      {usd(summary.cost_usd)}{charged}")
    lines.append(f"pictures: {summary.output_dir.resolve()}")
    if summary.stop is not None and summary.error is None:
        lines.append(f"stopped: {summary.stop.message}")
    lines.extend(_advice(summary, f"{command} {shlex.quote(str(manifest))}"))
    return "\n".join(lines)


def _advice(summary: Summary, again: str) -> list[str]:
    lines = []
    if summary.unknown:
        lines.append(
            f"\n{_count(summary.unknown, 'job')} may or may not have been bought: the call was"
            " sent, but no usable answer came back. Nothing sends them again by itself. Look them"
            " up on the service's Generations page; to buy them once more:"
            f"\n  {again} --retry unknown"
        )
    if summary.failed:
        lines.append(f"\nto try the failed ones once more:\n  {again} --retry failed")
    if summary.in_flight or summary.pending:
        lines.append(f"\nto go on (nothing is bought twice):\n  {again}")
    if not lines:
        lines.append("next: look at the pictures; running it again buys nothing that is done")
    return lines


def status_text(batch: Batch, status: Status) -> str:
    """Return how a batch stands."""
    lines = [f"{batch.manifest.name}: {_count(status.jobs, 'job')}"]
    for name in ("done", "failed", "unknown", "in_flight", "pending", "cancelled"):
        count = getattr(status, name)
        lines.append(f"  {name.replace('_', ' '):<10}{count:>8}")
    lines += [f"    {reason}: {count}" for reason, count in status.reasons.items()]
    lines.append(f"  spent      {usd(status.cost_usd)}, reserved {usd(status.reserved_usd)}")
    if status.stopped is not None:
        lines.append(f"last run: {status.stopped}")
    lines.append(f"output: {batch.output_dir.resolve()}")
    return "\n".join(lines)


def usd(amount: Decimal | None) -> str:
    """Return an amount with at least two decimals, and all that it has."""
    if amount is None:
        return "not known"
    normal = amount.normalize()
    places = max(2, -int(normal.as_tuple().exponent))
    return f"{normal:.{places}f} USD"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
