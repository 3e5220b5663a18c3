"""From a job to a request: reserved, recorded, sent, and the answer recorded.

Hides what may hold up a submit: pictures, the window, limits and the budget, refusals. What always
holds, in this order: a submit is reserved and recorded before it is sent, and its record is on the
disk before the first byte leaves; an answer is recorded before anything else is done with it, with
no await between the two.
"""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from functools import partial
from typing import Any

from batch_runner.errors import BatchRunnerError, StorageError
from batch_runner.files.upload import PictureMissingError
from batch_runner.ledger.job import JobState
from batch_runner.ledger.tail import Replaced, Tail
from batch_runner.pacing.window import is_open, next_time, opening_text
from batch_runner.records import Job, Refused, Resolved, Submitted, Submitting, Unknown, redact, usd
from batch_runner.run.budget import committed_usd, unpriced_error
from batch_runner.run.control import Control
from batch_runner.run.pictures_in import PicturesIn
from batch_runner.run.stop import Stop
from batch_runner.service.answer import Meaning, Verdict
from batch_runner.table.distinct import Distinct


class Submission:
    """Submits jobs to the service."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._batch = batch = control.setting.batch
        self._ledger = control.setting.ledger
        self._pacer = control.pacer
        # Even when the run ends, a result is asked for only in its turn.
        turn = partial(control.pacer.turn_to_poll, asyncio.Event())
        self.pictures = PicturesIn(control.setting, turn)
        self._clock = control.setting.clock
        self._prices = batch.prices
        self._wait_for_window = batch.options.wait
        self._said_waiting = False
        self._sent = 0
        # By hash: a collision makes a job unknown, for one job in 20 million million.
        self._request_ids = Distinct()
        self._others = [Tail(path) for path in batch.ledgers.other_paths()]
        self.posting: set[asyncio.Task[None]] = set()
        """The workers whose POST is under way, or about to be."""

    def know_requests(self) -> None:
        """Learn which requests the ledgers know, so that none becomes another job's.

        Raises LedgerDamagedError or StorageError if another shard's ledger cannot be read.
        """
        state = self._ledger.state
        known = (one.request_id for one in state.jobs.each() if one.request_id is not None)
        for request_id in itertools.chain(known, state.former_requests):
            self._request_ids.add(request_id)
        for tail in self._others:
            self._read(tail)

    def _read(self, tail: Tail) -> None:
        for line in tail.read():
            self._request_ids.add(getattr(line.record, "request_id", None) or "")

    def _is_of_another_job(self, request_id: str) -> bool:
        """Return whether a request is known, by what the ledgers of all shards hold now."""
        for at, tail in enumerate(self._others):
            try:
                self._read(tail)
            except Replaced:
                self._others[at] = Tail(tail.path)
            except BatchRunnerError:
                # An answer that was paid for must be recorded, whatever is wrong elsewhere.
                continue
        return request_id in self._request_ids

    async def prepare(self, job: Job, known: JobState | None) -> bool:
        """Upload pictures ahead, because that is slow; return False if the job ends here."""
        if self._pacer.is_stopped:
            return True
        if self._why_not_submit(job, self._prices.estimate_usd(job)) is not None:
            return True
        return await self._with_pictures(job, known, ahead=True) is not None

    async def submit(self, job: Job, known: JobState | None, *, has_pictures: bool) -> str | None:
        """Submit until it is accepted, refused for good, or unknown; return any request_id.

        `has_pictures`: its pictures must be uploaded or signed.
        """
        await self._control.reattached.wait()
        if self._wait_for_window:
            await self._opening_of_window()
        for attempt in itertools.count(1):
            if not await self._pacer.turn_to_submit():
                break
            # Pictures must be there even if they were not uploaded ahead. URLs are signed as late
            # as possible, so that signatures last, but before the limits: no await may come
            # between the limits and the record that counts against them.
            input_: dict[str, Any] | None = job.input
            if has_pictures:
                input_ = await self._with_pictures(job, known)
            if input_ is None:
                break
            price_usd = self._prices.estimate_usd(job)
            stop = self._why_not_submit(job, price_usd)
            if stop is not None:
                self._control.end(stop)
                break
            if known is not None and (known.may_have_been_bought or known.was_abandoned):
                # Only a person can decide this: record that one did.
                self._control.record(Resolved(**self._control.about(job), how="resubmit"))
            self._control.record(self._intent(job, attempt, price_usd))
            self._sent += 1
            verdict = self._record_answer(job, await self._post(job, input_))
            if verdict is not None:
                return verdict.request_id
        return None

    async def _with_pictures(
        self, job: Job, known: JobState | None, *, ahead: bool = False
    ) -> dict[str, Any] | None:
        """Return the input with pictures that the service can fetch; None if one is missing."""
        try:
            await self.pictures.prepare(job)
            return job.input if ahead else await self.pictures.sign(job)
        except PictureMissingError as error:
            if known is not None and (known.may_have_been_bought or known.was_abandoned):
                self._control.notice(f"{job.key}: {error}; left for the next run")
                return None
            # Never sent, so certainly not accepted: to the next run it is like any refusal.
            self._control.record(self._intent(job, 1, self._prices.estimate_usd(job)))
            self._control.record(
                Refused(
                    **self._control.about(job),
                    reason="picture missing",
                    message=str(error),
                    again=False,
                )
            )
            self._control.tally.failed += 1
            self._control.finished(well=False)
            return None

    def _intent(self, job: Job, attempt: int, price_usd: Decimal | None) -> Submitting:
        # Without a price, the base price is the least that is on its way out.
        reserved_usd = self._prices.least_usd(job) if price_usd is None else price_usd
        return Submitting(
            **self._control.about(job),
            model=job.model,
            input=redact(job.input),
            path=job.path,
            attempt=attempt,
            reserved_usd=reserved_usd,
            named=job.is_named,
        )

    async def _opening_of_window(self) -> None:
        """With --wait, wait for the window's first opening; once it has closed, the run ends."""
        window = self._batch.window
        while window is not None and not self._pacer.is_stopped:
            now = self._clock.now()
            if is_open(window, now):
                break
            if not self._said_waiting:
                self._said_waiting = True
                opening = opening_text(window, now)
                self._control.notice(f"waiting until {opening}, when the window opens")
            opens_at = next_time(window.opens, window.timezone, now)
            await self._pacer.pause((opens_at - now).total_seconds())
        self._wait_for_window = False

    async def _post(self, job: Job, input_: dict[str, Any]) -> Verdict:
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a worker
        self.posting.add(task)
        try:
            # The order is the promise: first the record is on the disk, then the call leaves.
            await self._ledger.durable()
            await self._pacer.leave_with_submit()
            if self._control.leaving.is_set():
                return Verdict(meaning=Meaning.TRANSIENT, reason="not sent", message="leaving")
            return await self._batch.service.submit(job.model, input_)
        finally:
            self.posting.discard(task)

    def _record_answer(self, job: Job, verdict: Verdict) -> Verdict | None:
        """Record what a POST's answer means, and return it; None if the job may be sent again."""
        about = self._control.about(job)
        if verdict.request_id is not None and self._is_of_another_job(verdict.request_id):
            why = f"the service answered with the request {verdict.request_id} of another job"
            verdict = Verdict(meaning=Meaning.UNKNOWN, reason="unusable answer", message=why)
        if verdict.meaning is Meaning.ACCEPTED and verdict.request_id is not None:
            self._record_accepted(job, Submitted(**about, request_id=verdict.request_id))
            self._control.tally.submitted += 1
            self._pacer.reached()
            return verdict
        if verdict.meaning is Meaning.UNKNOWN:
            self._control.record(Unknown(**about, why=f"{verdict.reason}: {verdict.message}"))
            self._control.tally.unknown += 1
            self._control.finished(well=False)
            return verdict
        is_permanent = verdict.meaning is Meaning.PERMANENT
        self._sent -= 1  # certainly not accepted, so it does not count against --limit
        refused = Refused(
            **about,
            reason=verdict.reason,
            message=verdict.message,
            again=not is_permanent,
            status=verdict.status,
            code=verdict.code,
        )
        if is_permanent:
            self._control.fail(job, refused)
            return verdict
        self._control.record(refused)
        if self._control.leaving.is_set():
            return verdict
        self._control.after_trouble(verdict)
        return None

    def _record_accepted(self, job: Job, record: Submitted) -> None:
        self._request_ids.add(record.request_id)
        try:
            self._control.record(record)
        except StorageError:
            # If the disk cannot keep the request_id, a person still can.
            self._control.notice(
                f"{job.key}: accepted as request {record.request_id}, but that could not be"
                " recorded; once the disk works, record it with resolve --attach"
            )
            raise

    def _why_not_submit(self, job: Job, price_usd: Decimal | None) -> Stop | None:
        """Return the limit that does not allow this submit, if there is one."""
        window = self._batch.window
        if window is not None and not is_open(window, self._clock.now()):
            opening = opening_text(window, self._clock.now())
            closed = f"the window for submits is closed until {opening}"
            return Stop("window", closed)
        most = self._batch.options.limit
        if most is not None and self._sent >= most:
            return Stop("limit", f"--limit {most} is reached")
        return self._over_budget(job, price_usd)

    def _over_budget(self, job: Job, price_usd: Decimal | None) -> Stop | None:
        limits = self._control.limits
        if not limits.has_budget:
            return None
        if price_usd is None:
            return Stop.of_error(unpriced_error(self._batch, job))
        if limits.cost_usd is not None:
            expected_usd = committed_usd(self._batch, self._ledger.state) + price_usd
            if expected_usd > limits.cost_usd:
                return Stop("budget", f"the budget of {usd(limits.cost_usd)} is used up")
        if limits.nightly_usd is not None:
            expected_usd = self._prices.night_usd(self._clock.now()) + price_usd
            if expected_usd > limits.nightly_usd:
                spent = f"tonight's budget of {usd(limits.nightly_usd)} is used up"
                return Stop("nightly budget", spent)
        return None
