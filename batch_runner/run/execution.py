"""One execution of a batch: prepared, asked for consent, run, and summed up.

Hides the order. What always holds: a manifest, its tables and the plan are checked as a whole, a
person has consented, the disks were tried and the balance was looked at before the first submit.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from batch_runner import PROGRAM
from batch_runner.clock import Clock
from batch_runner.errors import BatchRunnerError, UsageError
from batch_runner.files.disk import require_utf8_names, storage_error, try_folder
from batch_runner.ledger.drain import forget_request, is_asked_to_drain
from batch_runner.ledger.state import State
from batch_runner.manifest.form import Limits
from batch_runner.records import Record, RunFinished, RunStarted, usd
from batch_runner.run.batch import Batch
from batch_runner.run.budget import own_limits, unpriced_error
from batch_runner.run.concerns import Concern, concerns
from batch_runner.run.control import no_balance_error
from batch_runner.run.learning import learn_models
from batch_runner.run.plan import Action, Planned
from batch_runner.run.planning import (
    Shown,
    basis_of,
    lasting_basis,
    plan_jobs,
    plan_orphans,
    survey_jobs,
    survey_of_ledger,
)
from batch_runner.run.pool import Runner
from batch_runner.run.setting import Notice, Setting, ignore, open_setting
from batch_runner.run.stop import Ending, Stop
from batch_runner.run.summary import Summary, summary_of
from batch_runner.run.survey import Survey

Ask = Callable[[Concern], Coroutine[Any, Any, bool]]
"""Gets a concern, and returns whether a person accepts it."""

_LOOK_FOR_REQUEST_S = 0.5


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is going to do: its plan in figures, and the limits that hold.

    - `orphans`: what to collect for jobs that have left the manifest.
    - `basis`: shows later runs that the same manifest makes the same jobs.
    - `held`: why nothing may be bought.
    """

    survey: Survey
    orphans: list[Planned]
    limits: Limits
    basis: str | None
    held: BatchRunnerError | None


async def run_batch(
    batch: Batch,
    *,
    listener: Callable[[Record], None] = ignore,
    notice: Notice = ignore,
    on_survey: Callable[[Survey], None] = ignore,
    ask: Ask | None = None,
    shown: Shown = iter,
    ending: Ending | None = None,
    clock: Clock | None = None,
) -> Summary:
    """Run a batch to its end; raises BatchRunnerError only before the first submit.

    - `listener` gets every record; `notice` gets sentences for people.
    - `on_survey` gets the plan in figures; `shown` passes the stream of planning through.
    - `ask` gets each concern; without it, a person accepts none.
    - `ending` ends the run from outside.
    """
    opening = open_setting(batch, listener=listener, notice=notice, ending=ending, clock=clock)
    async with opening as setting:
        prepared = await prepare(setting, ask=ask, shown=shown)
        on_survey(prepared.survey)
        return await execute(setting, prepared)


async def prepare(setting: Setting, *, ask: Ask | None = None, shown: Shown = iter) -> Prepared:
    """Plan all jobs, and find out what may be bought; changes nothing but `models/`."""
    batch, state, ending = setting.batch, setting.ledger.state, setting.ending
    # Ask the service for nothing if the limits can't be kept.
    own_limits(batch, setting.ledger.header)
    await ending.unless_ended(learn_models(batch, keep=True))
    # Once more: purchases without a price can be counted only now.
    limits = own_limits(batch, setting.ledger.header)
    _report(setting, batch.notes)
    basis = basis_of(batch)
    survey = survey_of_ledger(batch, state, shown=shown) or survey_jobs(
        batch, state, setting.clock.now(), buys=not ending.is_ended, shown=shown
    )
    _report(setting, survey.tally.notes)
    submits = survey.counts[Action.SUBMIT]
    if survey.left_usd is not None and survey.cost_usd and survey.covered < submits:
        setting.notice(f"the budget covers {survey.covered:,} of {submits:,} jobs to buy")
    return Prepared(
        survey=survey,
        orphans=plan_orphans(batch, state, survey),
        limits=limits,
        basis=lasting_basis(batch, basis, survey, state),
        held=await _why_not_buy(setting, survey, state, ask),
    )


async def execute(setting: Setting, prepared: Prepared) -> Summary:
    """Do what was prepared, record it, and sum it up."""
    batch, ledger, survey = setting.batch, setting.ledger, prepared.survey
    if prepared.held is not None:
        # What is paid for is collected all the same.
        if not (survey.waiting or prepared.orphans):
            raise prepared.held
        setting.ending.end(Stop.of_error(prepared.held))
    if survey.counts[Action.SUBMIT] and not setting.ending.is_ended:
        _report(setting, await asyncio.to_thread(_try_disks, setting, survey))
    spent_before_usd, started = ledger.state.spent_usd, _run_started(setting, prepared)
    _record(setting, started)
    runner = Runner(
        setting,
        prepared.limits,
        survey=survey,
        orphans={planned.job.fingerprint for planned in prepared.orphans},
    )
    fresh = _fresh(batch, ledger.state, survey)
    with _obeying_requests(setting, ledger.path.parent, started.run):
        await runner.run([*prepared.orphans, *survey.waiting.values()], fresh)
    tally, stop = runner.control.tally, setting.ending.stop
    summary = summary_of(
        batch,
        tally,
        survey,
        ledger.state,
        stop=stop,
        spent_before_usd=spent_before_usd,
        elapsed_s=setting.clock.monotonic() - setting.began_s,
    )
    if stop is not None and stop.error is not None and stop.error is not summary.error:
        raise stop.error  # a bug
    finished = RunFinished(
        at=setting.clock.now(),
        run=started.run,
        submitted=summary.submitted,
        saved=tally.saved,
        failed=tally.failed,
        unknown=tally.unknown,
        cost_usd=summary.cost_usd,
        elapsed_s=round(summary.elapsed_s, 3),
        stopped=None if stop is None else stop.reason,
    )
    _record(setting, finished)
    return summary


def _report(setting: Setting, notes: Iterable[str]) -> None:
    for note in notes:
        setting.notice(note)


async def _why_not_buy(
    setting: Setting, survey: Survey, state: State, ask: Ask | None
) -> BatchRunnerError | None:
    """Return the error that forbids to buy anything, if there is one.

    A run that buys nothing needs no price, no balance and no consent.
    """
    batch, ending = setting.batch, setting.ending
    if ending.is_ended:
        return None
    if survey.unpriced is not None and batch.limits.has_budget:
        return unpriced_error(batch, survey.unpriced)
    for concern in concerns(batch, survey, state):
        if ask is None or not await ending.unless_ended(ask(concern)):
            # A signal that comes while the question stands ends the run like any other.
            return None if ending.is_ended else UsageError(concern.message, hint=concern.hint)
    if not survey.counts[Action.SUBMIT]:
        return None
    balance_usd = await ending.unless_ended(batch.service.balance_usd())
    if balance_usd is None:
        return None  # if the service does not tell the balance, the run goes ahead
    if balance_usd <= 0:
        return no_balance_error(usd(balance_usd))
    if survey.least_usd is not None and balance_usd < survey.least_usd:
        setting.notice(
            f"the balance of {usd(balance_usd)} is less than the estimated"
            f" {usd(survey.least_usd)}; the run will stop when it runs out"
        )
    return None


def _try_disks(setting: Setting, survey: Survey) -> list[str]:
    """Try to keep files before anything is bought; return what cannot be promised here."""
    require_utf8_names()
    storage, folder = setting.batch.storage, setting.ledger.path.parent
    notes = []
    if not storage.prepare(survey.destinations.stems):
        notes.append(
            f"{storage}: this file system cannot sync files: a power failure may damage the"
            " newest pictures (batch-runner check finds them)"
        )
    try:
        if not try_folder(folder):
            notes.append(
                f"{folder}: this file system cannot sync files: a power failure may lose the"
                " newest lines of the ledger, and their jobs could be bought again (set"
                " output.ledger to a folder on a local disk)"
            )
    except OSError as error:
        raise storage_error(folder, error) from error
    return notes


def _fresh(batch: Batch, state: State, survey: Survey) -> Iterable[Planned]:
    """Return whatever is not waiting to be collected or downloaded, if there is such a job.

    What the survey could not keep is planned again, as a stream.
    """
    if not (survey.counts[Action.SUBMIT] or survey.counts[Action.REUSE]):
        return ()
    if survey.fresh is not None:
        return survey.fresh
    return (
        planned
        for planned in plan_jobs(batch, state, redos=survey.redos)
        if planned.is_twin or planned.job.fingerprint not in survey.waiting
    )


@contextmanager
def _obeying_requests(setting: Setting, folder: Path, run_id: str) -> Iterator[None]:
    """End when another process asks for it. By real time: that is what the other one has."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        if is_asked_to_drain(folder, run_id):
            setting.notice(
                "asked to stop: nothing more is submitted, what is paid for is collected"
            )
            setting.ending.end(Stop("drained", "another process asked this run to stop"))
        else:
            timer = loop.call_later(_LOOK_FOR_REQUEST_S, look)

    look()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        forget_request(folder, run_id)


def _record(setting: Setting, record: Record) -> None:
    try:
        setting.ledger.append(record)
    except BatchRunnerError as error:
        # The run's outcome matters more than the note about it; the disk is already reported.
        setting.notice(error.message)
    setting.listener(record)


def _run_started(setting: Setting, prepared: Prepared) -> RunStarted:
    survey = prepared.survey
    return RunStarted(
        at=setting.clock.now(),
        run=uuid.uuid4().hex[:12],
        pid=os.getpid(),
        host=socket.gethostname(),
        program=PROGRAM,
        manifest_sha256=setting.batch.manifest.document.sha256,
        jobs=survey.standings.jobs,
        plan={str(action): count for action, count in survey.counts.items() if count},
        basis=prepared.basis,
    )
