"""Plan, status and summary as text, for a tired person at seven in the morning.

Pure: figures in, text out. What always holds: the words are those of the ledger and of `--json`;
amounts of money are exact; a number that needs a person is followed by the command to run.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from batch_runner.jobs.product import Tally
from batch_runner.ledger.job import Standing
from batch_runner.ledger.state import State
from batch_runner.manifest.form import TableImages
from batch_runner.models.catalog import ListedModel
from batch_runner.models.model import Model
from batch_runner.pacing.window import window_text
from batch_runner.records import usd
from batch_runner.report.status import Status
from batch_runner.run.batch import Batch
from batch_runner.run.budget import left_usd, own_budget_usd
from batch_runner.run.plan import Action
from batch_runner.run.planning import plan_orphans
from batch_runner.run.survey import Survey
from batch_runner.text.quantity import counted, duration_text
from batch_runner.text.shown import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batch_runner.run.resolve import CancelOutcome
    from batch_runner.run.summary import Summary

_PROMPTS_SHOWN = 10
_PROMPT_WIDTH = 100
_ALWAYS_COUNTED = ("done", "failed", "unknown")
_BUDGETS = ("budget", "nightly budget")
_CHECKED = {
    "service": "checked against the schema that the service publishes",
    "shipped": "checked against the schema that ships",
    "manifest": "checked against the manifest's schema",
    None: "not checked: no schema of this model is known (schema: FILE in the manifest gives one)",
}


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The commands for next steps; each ends with the manifest. `is_sandbox`: it is a rehearsal."""

    run: str
    resolve: str
    view: str
    export: str
    is_sandbox: bool


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows about the batch that does not change during a run."""

    manifest: str
    program: str
    only: str | None
    advice: Advice
    reasons: tuple[str, ...] = ()


def plan_text(
    batch: Batch, survey: Survey, state: State, balance_usd: Decimal | None, now: datetime
) -> str:
    """Return the plan: counts by action and reason, with the first jobs of each, and the money."""
    names = list(survey.models)
    of = names[0] if len(names) == 1 else counted(len(names), "model")
    lines = [f"{batch.name}: {counted(survey.standings.jobs, 'job')}, {of}"]
    lines.extend(_table_lines(batch, survey.tally))
    for action in Action:
        for (of, reason), count in survey.reasons.items():
            if of is action:
                examples = survey.examples[of, reason]
                shown = ", ".join(examples) + (", …" if count > len(examples) else "")
                lines.append(f"  {action:<9}{count:>8}  {reason:<24} {shown}")
    lines.extend(_orphan_lines(batch, survey, state))
    lines.extend(_prompt_lines(batch, survey))
    lines.extend(_model_lines(batch, survey))
    lines.append(_money_text(batch, survey, state, balance_usd))
    lines.extend(_place_lines(batch, survey))
    window = batch.manifest.window
    if window is not None:
        ignored = ignored_window(batch)
        lines.append(f"window: {window_text(window, now)}{f' ({ignored})' if ignored else ''}")
    return "\n".join(lines)


def ignored_window(batch: Batch) -> str | None:
    """Return why a run ignores the manifest's window; None if it keeps to the window."""
    if batch.manifest.window is None or batch.window is not None:
        return None
    return "a rehearsal ignores it" if batch.service.is_local else "--now ignores it"


def _table_lines(batch: Batch, tally: Tally) -> list[str]:
    """Count a table's rows, used or not: a row left out by mistake shows only here."""
    if not tally.rows:
        return []
    source = batch.manifest.images
    is_folder = isinstance(source, TableImages) and source.is_folder
    kind, row = ("folder", "picture") if is_folder else ("table", "row")
    parts = [counted(tally.rows, row)]
    if tally.products != tally.rows:
        parts.append(f"of {counted(tally.products, 'product')}")
    if tally.left_out:
        parts.append(f"{tally.left_out:,} left out by where")
    taken = tally.products - tally.left_out
    if tally.taken < taken:
        parts.append(f"{tally.taken:,} of {taken:,} taken as the sample")
    if tally.empty_rows:
        parts.append(f"{tally.empty_rows:,} empty")
    return [f"{kind}: {', '.join(parts)}"]


def _place_lines(batch: Batch, survey: Survey) -> list[str]:
    """Return where pictures come from and files go to, if not this folder."""
    lines = []
    if survey.uploads:
        size = f"{survey.uploads_bytes / 1e6:,.1f} MB"
        pictures = counted(survey.uploads, "picture")
        lines.append(f"uploads: {pictures}, {size}, to {batch.uploads}, if not there yet")
    lines.append(f"output: {batch.storage}")
    if batch.bucket is not None or batch.ledgers.own_folder != batch.output_dir:
        lines.append(f"ledger: {batch.ledgers.own_folder.resolve()}")
    return lines


def _prompt_lines(batch: Batch, survey: Survey) -> list[str]:
    """Show each prompt as its first job sends it, so that a mistake shows before it costs money."""
    if not survey.counts[Action.SUBMIT]:
        return []
    lines = []
    for prompt_id, job in list(survey.prompts.items())[:_PROMPTS_SHOWN]:
        text = str(job.input.get(batch.models[job.model].prompt_property, ""))
        lines.append(f'prompt {prompt_id}: "{visible(text, _PROMPT_WIDTH)}"')
    return lines


def _model_lines(batch: Batch, survey: Survey) -> list[str]:
    """Return which schema checked the inputs, and for several models the price of each."""
    lines = []
    for model_id, share in survey.models.items():
        model = batch.models[model_id]
        parts = [f"inputs: {_CHECKED[model.schema_source]}"]
        if len(survey.models) > 1:
            if share.submits:
                parts.insert(0, _estimate_text(share.cost_usd, share.least_usd))
            jobs = f"model {model_id}: {counted(share.jobs, 'job')}"
            parts = [jobs, f"price: {price_text(model)}", *parts]
        lines.append(" · ".join(parts))
    return lines


def price_text(model: Model | ListedModel) -> str:
    """Return a price and its unit, with 'from' if it is only the least."""
    if model.price_usd is None:
        return usd(None)
    article = "an" if model.price_unit[:1] in "aeiou" else "a"
    start = "from " if model.price_is_floor else ""
    return f"{start}{usd(model.price_usd)} {article} {model.price_unit}"


def models_text(models: list[ListedModel]) -> str:
    """Return a table of the service's models: id, price, categories."""
    rows = [(one.model_id, price_text(one), ", ".join(one.categories)) for one in models]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    return "\n".join(
        f"{model_id:<{widths[0]}}  {price:<{widths[1]}}  {categories}".rstrip()
        for model_id, price, categories in rows
    )


def _orphan_lines(batch: Batch, survey: Survey, state: State) -> list[str]:
    """Count the jobs of the ledger that are no longer in the manifest: none of them is lost."""
    beyond = 0 if batch.options.only is not None else len(state.jobs) - survey.known
    if beyond <= 0:
        return []
    waiting = len(plan_orphans(batch, state, survey))
    left = "bought before, replaced by a redo or not in the manifest now"
    lines = [f"  {Action.COLLECT:<9}{waiting:>8}  {left}"] if waiting else []
    return [*lines, f"  {'keep':<9}{beyond - waiting:>8}  {left}"] if beyond > waiting else lines


def _money_text(batch: Batch, survey: Survey, state: State, balance_usd: Decimal | None) -> str:
    alone = batch.models[next(iter(survey.models))] if len(survey.models) == 1 else None
    parts = [] if alone is None else [f"price: {price_text(alone)}"]
    if survey.counts[Action.SUBMIT]:
        parts.append(_estimate_text(survey.cost_usd, survey.least_usd))
    if state.spent_usd or state.reserved_usd:
        parts.append(f"spent: {usd(state.spent_usd)}, reserved: {usd(state.reserved_usd)}")
    left = left_usd(batch, state)
    if left is not None:
        budgets = [usd(one) for one in (own_budget_usd(batch, state.header),) if one is not None]
        nightly_usd = batch.limits.nightly_usd
        budgets += [] if nightly_usd is None else [f"{usd(nightly_usd)} a night"]
        parts.append(f"budget: {' and '.join(budgets)}, {usd(left)} left")
        submits = survey.counts[Action.SUBMIT]
        if survey.cost_usd is not None and survey.covered < submits:
            parts.append(
                f"the budget covers {survey.covered:,} of {counted(submits, 'job')} to buy"
            )
    if balance_usd is not None:
        parts.append(f"balance: {usd(balance_usd)}")
        if survey.least_usd is not None and survey.least_usd > balance_usd:
            parts.append("the balance does not cover all jobs")
    return " · ".join(parts)


def _estimate_text(cost_usd: Decimal | None, least_usd: Decimal | None) -> str:
    if cost_usd is None and least_usd is not None:
        return f"estimate: at least {usd(least_usd)}"
    return f"estimate: {usd(cost_usd)}"


def summary_text(summary: Summary, advice: Advice) -> str:
    """Return the summary of a run: how it went, where the pictures are, what to do next."""
    elapsed = duration_text(summary.elapsed_s)
    charged = " (sandbox: nothing was charged)" if advice.is_sandbox else ""
    lines = [f"{summary.done} of {counted(summary.jobs, 'job')} done in {elapsed}"]
    for name, value in (
        ("done", summary.done),
        ("failed", summary.failed),
        ("unknown", summary.unknown),
        ("in flight", summary.in_flight),
        ("pending", summary.pending),
        ("cancelled", summary.cancelled),
        ("no file", summary.unsaved),
        ("orphaned", summary.orphans),
    ):
        if value or name in _ALWAYS_COUNTED:
            lines.append(f"  {name:<9}{value:>7}")
    lines.append(f"  cost      {_cost_text(summary)}{charged}")
    lines.append(f"pictures: {summary.place}")
    if summary.done:
        lines.append(f"to look at them: {advice.view}")
    if summary.stop is not None and summary.error is None:
        covered = f"; it covered {summary.bought:,} of {counted(summary.to_buy, 'job')} to buy"
        is_budget = summary.stop.reason in _BUDGETS
        lines.append(f"stopped: {summary.stop.message}{covered if is_budget else ''}")
        if summary.stop.hint is not None:
            lines.append(f"hint: {summary.stop.hint}")
    lines.extend(_next_steps(summary, advice))
    return "\n".join(lines)


def _next_steps(summary: Summary, advice: Advice) -> list[str]:
    lines = []
    if summary.unknown or summary.unknown_beyond:
        beyond = summary.unknown_beyond
        more = f" ({beyond:,} of them no longer in the manifest)" if beyond else ""
        lines.append(
            f"\n{counted(summary.unknown + beyond, 'job')}{more} may or may not have been bought:"
            " the call was sent, but no usable answer came back. No run sends them again by itself."
            f" See them, and decide about each:\n  {advice.resolve}"
            "\nor copy the list on the service's Generations page into a file, and compare it:"
            f"\n  {advice.resolve} --match FILE"
        )
    if summary.failed:
        lines.append(
            f"\nto buy the failed jobs again, each for its price:\n  {advice.run} --retry failed"
        )
    if summary.in_flight or summary.pending or summary.unsaved:
        how, command = _how_to_resume(summary, advice.run)
        lines.append(f"\n{how} (nothing is bought twice):\n  {command}")
    if not lines:
        lines.append("running it again buys nothing twice")
    return lines


def _how_to_resume(summary: Summary, run: str) -> tuple[str, str]:
    """Return what a person must do to resume a batch, and the command that does not stop again."""
    reason = summary.stop.reason if summary.stop is not None else None
    if reason in _BUDGETS:
        needed = summary.needed_usd
        amount = "USD" if needed is None else usd(needed).removesuffix(" USD")
        run = f"{re.sub('--max-cost [^ ]+ ', '', run)} --max-cost {amount}"
    match reason:
        case "budget":
            return "to resume, raise limits.cost_usd, or run it with a budget for all jobs", run
        case "nightly budget":
            return "to resume, run it again tomorrow, or now with a budget for all jobs", run
        case "window":
            return "to resume then (--wait waits for it, --now ignores it)", run
        case "failures":
            return "to resume, once you know why so many failed", run
        case _:
            return "to resume", run


def _cost_text(summary: Summary) -> str:
    """Return what this run cost, and the whole batch too if it cost more."""
    if summary.spent_usd in (None, summary.cost_usd):
        return usd(summary.cost_usd)
    return f"{usd(summary.cost_usd)} in this run, {usd(summary.spent_usd)} in all"


def status_text(batch: Batch, status: Status) -> str:
    """Return how a batch stands."""
    lines = [f"{batch.name}: {counted(status.jobs, 'job')}"]
    lines += [
        f"  {standing.replace('_', ' '):<10}{getattr(status, standing):>8}" for standing in Standing
    ]
    lines += [f"    {reason}: {count}" for reason, count in status.reasons.items()]
    if status.unknown_beyond:
        lines.append(f"    and {status.unknown_beyond:,} unknown, no longer in the manifest")
    lines.append(f"  spent      {usd(status.cost_usd)}, reserved {usd(status.reserved_usd)}")
    if status.unpriced:
        lines.append(
            f"             without {counted(status.unpriced, 'purchase')} of unknown price"
        )
    if status.stopped is not None:
        lines.append(f"last run: {status.stopped}")
    lines.append(f"output: {batch.storage}")
    if batch.bucket is not None:
        lines.append(f"ledger: {batch.ledgers.folder.resolve()}")
    return "\n".join(lines)


def cancel_text(outcomes: list[CancelOutcome], jobs: Sequence[str] = ()) -> str:
    """Return the result of cancelling each job; `jobs` are the keys or globs from the command."""
    if not outcomes:
        called = " or ".join(jobs)
        return f"nothing in flight is called {called}" if jobs else "nothing is in flight"
    lines = [f"{one.job}: {one.message}" for one in outcomes]
    cancelled = sum(one.cancelled for one in outcomes)
    lines.append(f"{cancelled} of {counted(len(outcomes), 'request')} cancelled")
    return "\n".join(lines)
