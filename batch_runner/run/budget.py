"""What a run may spend and use: what is left of the budget, and a shard's share of the limits.

Hides how shards share limits, and how purchases without a known price are counted. What always
holds: what was bought while no price was known counts at the price that is known now; all shards
together never get more than the whole budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from batch_runner.errors import BatchRunnerError, ServiceUnavailableError, UsageError
from batch_runner.ledger.reading import ledger_path, read_header, replay, unpriced_intents
from batch_runner.ledger.state import State
from batch_runner.manifest.form import Limits
from batch_runner.models.catalog import offline_model
from batch_runner.models.model import Model
from batch_runner.records import Job, LedgerHeader, usd, utc_now
from batch_runner.run.batch import Batch
from batch_runner.run.plan import sent_job
from batch_runner.shards.quota import after_overspending, budget_share, limits_share
from batch_runner.shards.shard import Shard


def left_usd(batch: Batch, state: State, now: datetime | None = None) -> Decimal | None:
    """Return what is left of the budget, or of tonight's if that is less; None without one."""
    nightly_usd = batch.limits.nightly_usd
    if not batch.limits.has_budget:
        return None
    batch.prices.look_back()
    left = []
    budget_usd = own_budget_usd(batch, state.header)
    if budget_usd is not None:
        left.append(budget_usd - committed_usd(batch, state))
    if nightly_usd is not None:
        nightly_usd = budget_share(nightly_usd, batch.options.shard, None)
        left.append(nightly_usd - batch.prices.night_usd(now or utc_now()))
    return min(left)


def committed_usd(batch: Batch, state: State) -> Decimal:
    """Return what is spent or reserved, by the prices that are known now."""
    return state.spent_usd + state.reserved_usd + batch.prices.short_usd()


def own_budget_usd(batch: Batch, header: LedgerHeader | None) -> Decimal | None:
    """Return the budget of this shard, or of the whole batch; `header` is that of its ledger."""
    cost_usd = batch.limits.cost_usd
    return None if cost_usd is None else budget_share(cost_usd, batch.options.shard, header)


def own_limits(batch: Batch, header: LedgerHeader) -> Limits:
    """Return this shard's share of the limits, or all of them; raises UsageError."""
    limits, shard = batch.limits, batch.options.shard
    if shard is None:
        return limits
    share = limits_share(limits, shard, header)
    if limits.cost_usd is None:
        return share
    return msgspec.structs.replace(share, cost_usd=_share_left(batch, limits.cost_usd, shard))


def _share_left(batch: Batch, cost_usd: Decimal, shard: Shard) -> Decimal:
    """Return a shard's share of the budget, less what others overspent under a larger one."""
    shards = [Shard(index, shard.count) for index in range(shard.count)]
    paths = [ledger_path(one.ledger_dir(batch.ledgers.folder)) for one in shards]
    shares_usd, committed = [], []
    for one, path in zip(shards, paths, strict=True):
        shares_usd.append(budget_share(cost_usd, one, read_header(path)))
        state = replay(path).state
        count_unpriced(batch, state, [path])
        committed.append(state.spent_usd + state.reserved_usd)
    return after_overspending(shares_usd, committed)[shard.index]


def count_unpriced(batch: Batch, state: State, paths: Iterable[Path] | None = None) -> Job | None:
    """Count what was sent while no price was known at the price that is known now.

    Returns the first job that still has no price.
    """
    first = None
    for intent, offset_bytes in unpriced_intents(paths or batch.ledgers.paths(), state):
        job = sent_job(intent)
        cost_usd = (
            batch.prices.estimate_usd(job)
            if job.model in batch.models
            else _model(batch, job.model).estimate_usd(job.input)
        )
        if cost_usd is not None:
            known = state.jobs.open.get(job.fingerprint)
            state.money.price(known, cost_usd, intent, offset_bytes)
        first = first or (job if cost_usd is None else None)
    return first


def _model(batch: Batch, model_id: str) -> Model:
    """Return what is known of a model; an earlier version of the manifest may have used it."""
    known = batch.models.get(model_id)
    return known or offline_model(batch.manifest, model_id, batch.ledgers.folder)


def unpriced_error(batch: Batch, job: Job, why: str = "") -> BatchRunnerError:
    """Return why a budget cannot be kept: the price of this job is not known.

    `why` names what needs the price, if it is not a job to buy now.
    """
    model, trouble = _model(batch, job.model), batch.unanswered.get(job.model)
    what = f"there is a budget, but{why} the price of '{job.key}' ({job.model}) is not known"
    where = "" if len(batch.models) == 1 else f" under models: {job.model}:"
    unit, is_open = model.price_unit, model.what_is_open(job.input)
    own = f"write price_usd:, what one {unit} costs at most, into the manifest{where}"
    own += "" if unit in ("output", "image") else f", and price_unit: {unit}"
    if job.model not in batch.models:
        own = "resolve it with batch-runner resolve MANIFEST; or put the model back into the"
        own += " manifest, with its price_usd"
    elif model.price_usd is None and batch.options.token is None:
        what, own = f"{what}: no token is set", f"set RUNCOMFY_API_TOKEN; or {own}"
    elif model.price_usd is None and trouble is not None:
        hint = f"run it again when the service is back; or {own}"
        return ServiceUnavailableError(f"{what}: the service gave no price ({trouble})", hint=hint)
    elif is_open is not None:
        own = f"write {is_open} into inputs; or price_usd: with price_unit: job into the manifest"
    elif model.price_usd is not None:
        what += f": with its inputs, {usd(model.price_usd)} per {unit} is only the least"
    own += "; or remove the budget"
    if job.model in batch.models:
        own += " and buy one (--limit 1): what it costs counts then"
    return UsageError(what, hint=own)
