"""The worker pool, and the life of a job, which reads from top to bottom.

Hides concurrency. What always holds, in this order: a submit is reserved and recorded before it is
sent, and its record is on the disk before the first byte leaves; an answer is recorded before
anything else is done with it, with no await between the two; files are in place before the record
that says so. A worker never lets a job's failure out, and an error that ends the run lets the
submits under way finish: a POST that is broken off is a POST nobody knows about.
The only place that starts tasks.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from typing import Any

import msgspec

from batch_runner.clock import Clock
from batch_runner.distinct import Distinct
from batch_runner.errors import (
    AccessRefusedError,
    BatchRunnerError,
    ManifestError,
    StorageError,
)
from batch_runner.files.download import Downloads
from batch_runner.files.storage import NotSavedError, Storage
from batch_runner.files.upload import PictureMissingError, Uploads
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.reading import read_intent
from batch_runner.manifest.form import FailureLimit, Limits, Retry, Window
from batch_runner.pacing.pacer import Pacer
from batch_runner.pacing.places import Places
from batch_runner.pacing.polling import STUCK_GRACE_S, Inquiry, PollSchedule, Vigil
from batch_runner.plan import Action, Planned, decide, numbered, reusable, wanted_paths
from batch_runner.records import (
    Cancelled,
    Failed,
    Job,
    Record,
    Refused,
    Resolved,
    Saved,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    redact,
    redact_url,
    usd,
)
from batch_runner.schedule.window import is_open, next_opening
from batch_runner.service import Meaning, Result, Service, Verdict

Listener = Callable[[Record], None]
"""Receives every record, right after the ledger took it; must not block."""

_BRAKE_WINDOW = 50
_OUTPUTS_LIMIT = 64
_LEAVE_GRACE_S = 5.0
_SAY_PAUSE_S = 2.0


class Stop(msgspec.Struct, frozen=True):
    """Why no further submits are made: a word for machines, a sentence for people."""

    reason: str
    message: str


class Next(Enum):
    """What follows an answer."""

    COLLECT = auto()
    AGAIN = auto()
    END = auto()


class Tally(msgspec.Struct):
    """What became of the manifest's jobs in this run, counted as it happens."""

    submitted: int = 0
    saved: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    left: int = 0
    orphans: int = 0
    orphans_left: int = 0


class Brake:
    """Stops submits when too many of the last finished jobs failed, or too many altogether."""

    def __init__(self, limit: FailureLimit) -> None:
        self._limit = limit
        self._recent: deque[bool] = deque(maxlen=_BRAKE_WINDOW)
        self._failures = 0

    def finished(self, *, well: bool) -> bool:
        """Take in how a job ended; True once the limit is reached."""
        self._recent.append(not well)
        self._failures += not well
        if self._limit.count is not None:
            return self._failures >= self._limit.count
        return sum(self._recent) >= (self._limit.share or 1.0) * _BRAKE_WINDOW


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may do, and until when. `submit_limit` bounds the submits of this run alone.

    `most_in_flight` is how far the limit of requests in flight may be raised on the way.
    """

    limits: Limits
    retry: Retry
    most_in_flight: int | None = None
    window: Window | None = None
    submit_limit: int | None = None
    until: datetime | None = None
    wait_for_window: bool = False


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a run could use more of, and what it needs no longer; `waits_for` names limits.

    `submits_are_over` once everything that was to be submitted has been.
    """

    waits_for: frozenset[str]
    submits_are_over: bool
    in_flight: int
    committed_usd: Decimal


MoreBudget = Callable[[Decimal], Awaitable[bool]]
"""Asks others for so much of the budget; tells whether some came."""


async def _nobody_has_more(_: Decimal) -> bool:
    return False


class Runner:
    """Does what was planned. One run, one object."""

    def __init__(
        self,
        *,
        service: Service,
        downloads: Downloads,
        storage: Storage,
        uploads: Uploads | None,
        ledger: Ledger,
        pacer: Pacer,
        clock: Clock,
        terms: Terms,
        estimate_usd: Callable[[Job], Decimal | None],
        listener: Listener,
        notice: Callable[[str], None],
        orphans: Collection[str] = (),
        more_budget: MoreBudget | None = None,
    ) -> None:
        self._service = service
        self._downloads = downloads
        self._ledger = ledger
        self._pacer = pacer
        self._clock = clock
        self._terms = terms
        self._estimate_usd = estimate_usd
        self._storage = storage
        self._uploads = uploads
        self._listener = listener
        self._notice = notice
        self._wait_for_window = terms.wait_for_window
        self._orphans = orphans
        self.tally = Tally()
        self.stop: Stop | None = None
        self.error: BatchRunnerError | None = None
        self.bug: Exception | None = None
        self._brake = Brake(terms.limits.failures)
        # A film takes a hundred times as long as a picture: each model has its own usual duration.
        self._schedules: defaultdict[str, PollSchedule] = defaultdict(PollSchedule)
        self._places = Places(terms.limits.in_flight)
        self._moved_at = clock.monotonic()
        self._budget_usd = terms.limits.cost_usd
        self._more_budget = more_budget or _nobody_has_more
        self._stream_ended = False
        self._to_submit: set[str] = set()
        self._downloading = asyncio.Semaphore(terms.limits.downloads)
        self._to_reattach = 0
        self._reattached = asyncio.Event()
        self._leaving = asyncio.Event()
        self._posting: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._twins: list[Planned] = []
        self._said_waiting = False
        self._reusing = asyncio.Lock()
        self._sent = 0
        # By their hashes: two equal ones would leave one job of 20 million million unknown.
        self._request_ids = Distinct()

    # The pool

    async def run(self, waiting: list[Planned], fresh: Iterable[Planned]) -> None:
        """Collect what is `waiting`, and do everything else that is planned.

        Returns when nothing is left to do, or `stop` or `error` says why not.
        """
        if fresh:
            # What a submit is given must be no other job's: where there are none, nobody asks.
            for known in self._ledger.state.jobs.each():
                if known.request_id is not None:
                    self._request_ids.add(known.request_id)
        self._to_reattach = sum(planned.action is Action.COLLECT for planned in waiting)
        if not self._to_reattach:
            self._reattached.set()
        # All workers share one iterator; taking the next job is synchronous, so each job goes to
        # exactly one of them, and a million jobs cost no memory. What is paid for comes first.
        stream = itertools.chain(waiting, fresh)
        count = self._terms.most_in_flight or self._terms.limits.in_flight
        count += self._terms.limits.downloads
        async with asyncio.TaskGroup() as group:
            self._workers = [group.create_task(self._work(stream)) for _ in range(count)]
        try:
            await self._settle_twins()
        except BatchRunnerError as error:
            self._abort(error)

    def change(self, limits: Limits) -> None:
        """Keep to other limits from now on."""
        self._pacer.change(limits)
        self._places.change(limits.in_flight)
        self._budget_usd = limits.cost_usd

    def needs(self) -> Needs:
        """Return what this run could use more of now, and what it needs no longer."""
        pacer, state = self._pacer, self._ledger.state
        waits = {
            "submits": pacer.waits_to_submit,
            "polls": pacer.waits_to_poll,
            "in_flight": self._places.is_wanted,
        }
        return Needs(
            waits_for=frozenset(name for name, does in waits.items() if does),
            submits_are_over=self._stream_ended and not self._to_submit,
            in_flight=self._places.taken,
            committed_usd=state.spent_usd + state.reserved_usd,
        )

    def drain(self, stop: Stop) -> None:
        """Stop submitting; what is paid for is still collected. The first reason stays."""
        if self.stop is None:
            self.stop = stop
        self._pacer.stop()
        self._places.stop()

    async def cancel_queued(self) -> None:
        """Ask the service to cancel what has not begun; polling then sees what came of it."""
        for known in list(self._ledger.state.jobs.open.values()):
            if known.phase is Phase.IN_FLIGHT and known.request_id is not None:
                await self._service.cancel(known.request_id)

    async def leave(self, stop: Stop) -> None:
        """End now: what is at the service stays there for the next run."""
        self.drain(stop)
        self._leaving.set()
        self._reattached.set()
        for worker in set(self._workers) - self._posting:
            worker.cancel()
        # A POST that is broken off is unknown for ever; most are answered within moments.
        if self._posting:
            await asyncio.wait(self._posting, timeout=_LEAVE_GRACE_S)
        for worker in self._workers:
            worker.cancel()

    async def _work(self, stream: Iterator[Planned]) -> None:
        while not self._leaving.is_set():
            try:
                planned = next(stream, None)
                if planned is None:
                    self._stream_ended = True
                    return
                await self._live(planned)
            except ManifestError as error:
                # A table or picture changed under the run; what is paid for is still collected.
                self.error = self.error or error
                self.drain(Stop("error", error.message))
                return
            except BatchRunnerError as error:
                self._abort(error)
                return
            except Exception as error:  # noqa: BLE001 - the one place: see below
                # Let out, it would cancel the other workers, and with them POSTs that are paid for.
                # So they finish what they are at, and the run ends as a bug of this program.
                self.bug = self.bug or error
                self.drain(Stop("bug", f"a bug of this program: {error!r}"))
                return
            if self._pacer.is_stopped and planned.action is Action.SUBMIT:
                # Everything behind it in the stream is a submit too, or can wait for the next run.
                return
            if planned.action in (Action.SKIP, Action.HOLD):
                # Nothing was awaited: let the others have the loop, or a million finished jobs in
                # a row would hold up their polls.
                await asyncio.sleep(0)

    def _abort(self, error: BatchRunnerError) -> None:
        if self.error is None:
            self.error = error
        self.drain(Stop("error", error.message))
        self._leaving.set()
        self._reattached.set()

    # The life of a job

    async def _live(self, planned: Planned) -> None:
        job = planned.job
        try:
            await self._steps(planned)
        except asyncio.CancelledError:
            # Told to leave: what is at the service, or not yet downloaded, is the next run's.
            known = self._ledger.state.job(job.fingerprint)
            if known is not None and known.phase in (Phase.IN_FLIGHT, Phase.SUCCEEDED):
                self._count(job, "left")
            elif known is not None and known.phase is Phase.SUBMITTING:
                self._count(job, "unknown")
            raise
        finally:
            self._to_submit.discard(job.fingerprint)

    async def _steps(self, planned: Planned) -> None:
        job = planned.job
        match planned.action:
            case Action.SUBMIT:
                self._to_submit.add(job.fingerprint)
                # Uploading is slow: if it can be, it is done before the service's place is taken.
                ahead = not self._pacer.is_stopped and self._why_not_submit(job) is None
                if ahead and not await self._prepare_pictures(job, planned.state):
                    return None
                if not await self._places.take():
                    return None
                with self._place_of(job):
                    request = await self._submit(job, planned.state)
                    self._to_submit.discard(job.fingerprint)
                    if request:
                        # A request_id that was read is paid for: not even a power cut may lose it.
                        # Nothing waits for that, though: until then the job is unknown, not lost.
                        self._ledger.sync_soon()
                    made = await self._collect(job, request) if request else None
            case Action.COLLECT | Action.DOWNLOAD:
                self._places.occupy()
                with self._place_of(job):
                    request = planned.state.request_id if planned.state else None
                    reattach = planned.action
                    made = await self._collect(job, request, reattach=reattach) if request else None
            case Action.REUSE:
                return await self._reuse(planned)
            case Action.SKIP | Action.HOLD:
                return None
        if request is not None and made is not None:
            async with self._downloading:
                await self._save(job, request, made)
        return None

    @contextmanager
    def _place_of(self, job: Job) -> Iterator[None]:
        """Hold a place at the service, and keep it where the request is there still."""
        try:
            yield
        finally:
            known = self._ledger.state.job(job.fingerprint)
            if known is None or known.phase is not Phase.IN_FLIGHT:
                self._places.free()
            else:
                self._places.keep()
                if self._places.all_kept:
                    what = "requests that do not end hold every place of limits.in_flight"
                    self.drain(Stop("stuck", what))

    async def _prepare_pictures(self, job: Job, known: JobState | None) -> bool:
        """Have the job's pictures where the service can fetch them; False where that cannot be."""
        if self._uploads is None:
            return True
        try:
            await self._uploads.prepare(job)
        except PictureMissingError as error:
            if known is not None and (known.may_have_been_bought or known.was_abandoned):
                self._notice(f"{job.key}: {error}; left for the next run")
                return False
            # Never sent, so certainly not accepted: the next run goes on as after any refusal.
            self._record(self._intent(job, attempt=1))
            self._record(
                Refused(
                    at=self._clock.now(),
                    job=job.key,
                    fingerprint=job.fingerprint,
                    reason="picture missing",
                    message=str(error),
                    again=False,
                )
            )
            self.tally.failed += 1
            self._finished(well=False)
            return False
        return True

    async def _submit(self, job: Job, known: JobState | None) -> str | None:
        """Submit until the service has it, refuses it for good, or nobody knows: the request_id."""
        await self._reattached.wait()
        await self._opening_of_window()
        for attempt in itertools.count(1):
            if not await self._pacer.turn_to_submit():
                return None
            # Whatever was done ahead, no job is sent without its pictures. Signed now, so that
            # signatures last; no await may come between the limits and the record that counts
            # against them.
            if not await self._prepare_pictures(job, known):
                return None
            input_ = await self._signed(job)
            while self._exceeds_budget(job):
                if not await self._more_budget(self._estimate_usd(job) or Decimal(0)):
                    break
            if not self._may_submit(job):
                return None
            if known is not None and (known.may_have_been_bought or known.was_abandoned):
                # Only a person's word plans this: it stays on record that there was one.
                self._record(self._resubmit(job))
            self._record(self._intent(job, attempt=attempt))
            self._sent += 1
            verdict = await self._post(job, input_)
            match self._settle_submit(job, verdict):
                case Next.COLLECT:
                    return verdict.request_id
                case Next.END:
                    return None
        return None

    async def _signed(self, job: Job) -> dict[str, Any]:
        if self._uploads is None:
            return job.input
        return await self._uploads.sign(job.input)

    def _intent(self, job: Job, *, attempt: int) -> Submitting:
        return Submitting(
            at=self._clock.now(),
            job=job.key,
            fingerprint=job.fingerprint,
            model=job.model,
            input=redact(job.input),
            path=job.path,
            attempt=attempt,
            reserved_usd=self._estimate_usd(job),
        )

    async def _opening_of_window(self) -> None:
        """With --wait, wait for the window's first opening; once it has closed, the run ends."""
        window = self._terms.window
        while self._wait_for_window and window is not None and not self._pacer.is_stopped:
            now = self._clock.now()
            if is_open(window, now):
                break
            opening = next_opening(window, now)
            if not self._said_waiting:
                self._said_waiting = True
                self._notice(f"waiting until {opening:%Y-%m-%d %H:%M}, when the window opens")
            await self._pacer.pause((opening - now).total_seconds())
        self._wait_for_window = False

    def _resubmit(self, job: Job) -> Resolved:
        return Resolved(
            at=self._clock.now(), job=job.key, fingerprint=job.fingerprint, how="resubmit"
        )

    async def _post(self, job: Job, input_: dict[str, Any]) -> Verdict:
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a worker
        self._posting.add(task)
        try:
            # The order is the promise: first the record is on the disk, then the call leaves.
            await self._ledger.durable()
            await self._pacer.leave_with_submit()
            if self._leaving.is_set():
                return Verdict(meaning=Meaning.TRANSIENT, reason="not sent", message="leaving")
            return await self._service.submit(job.model, input_)
        finally:
            self._posting.discard(task)

    def _settle_submit(self, job: Job, verdict: Verdict) -> Next:
        """Record what a POST's answer means, and say what follows."""
        about: dict[str, Any] = {
            "at": self._clock.now(),
            "job": job.key,
            "fingerprint": job.fingerprint,
        }
        if verdict.request_id is not None and verdict.request_id in self._request_ids:
            why = f"the service named the request {verdict.request_id}, which is another job's"
            verdict = Verdict(meaning=Meaning.UNKNOWN, reason="unusable answer", message=why)
        if verdict.meaning is Meaning.ACCEPTED and verdict.request_id is not None:
            self._record_accepted(job, Submitted(**about, request_id=verdict.request_id))
            self.tally.submitted += 1
            self._pacer.reached()
            return Next.COLLECT
        if verdict.meaning is Meaning.UNKNOWN:
            self._record(Unknown(**about, why=f"{verdict.reason}: {verdict.message}"))
            self.tally.unknown += 1
            self._finished(well=False)
            return Next.END
        permanent = verdict.meaning is Meaning.PERMANENT
        self._sent -= 1  # it was certainly not accepted, so it is none of --limit's
        self._record(
            Refused(
                **about,
                reason=verdict.reason,
                message=verdict.message,
                again=not permanent,
                status=verdict.status,
                code=verdict.code,
            )
        )
        if permanent:
            self.tally.failed += 1
            self._pacer.reached()
            self._finished(well=False)
            return Next.END
        if self._leaving.is_set():
            return Next.END
        self._after_trouble(verdict)
        return Next.AGAIN

    def _record_accepted(self, job: Job, record: Submitted) -> None:
        self._request_ids.add(record.request_id)
        try:
            self._record(record)
        except StorageError:
            # What the disk does not take, a person can still write down.
            self._notice(
                f"{job.key}: was accepted as request {record.request_id}, which could not be"
                " recorded; once the disk is well, give it back with resolve --attach"
            )
            raise

    async def _collect(
        self, job: Job, request_id: str, *, reattach: Action | None = None
    ) -> Result | None:
        """Ask until the request has ended; returns what it made, if it made something."""
        inquiry = self._schedules[job.model].begin(self._clock.monotonic())
        troubles, asked_s, queued_until, vigil = 0, 0.0, None, Vigil()
        while not self._leaving.is_set():
            if reattach is None or inquiry.questions:
                await self._wait_to_ask(inquiry, troubles)
                if self._leaving.is_set():
                    break
            await self._pacer.turn_to_poll(self._leaving)
            if self._leaving.is_set():
                break
            before_s, asked_s = asked_s, self._clock.monotonic() - inquiry.joined_at
            verdict = await self._service.result(request_id)
            self._take_in(inquiry, verdict)
            if inquiry.questions == 1 and reattach is Action.COLLECT:
                self._count_reattached()
            if verdict.meaning in (Meaning.WAITING, Meaning.RUNNING):
                self._pacer.reached()
                if verdict.meaning is Meaning.WAITING:
                    queued_until = self._clock.now()
                troubles = 0
                if self._is_stuck(job, verdict, vigil, reattach=reattach):
                    break
                continue
            ended, result = self._settle_result(job, request_id, verdict, troubles, queued_until)
            if ended:
                self._moved_at = self._clock.monotonic()
                if result is not None and reattach is None:
                    inquiry.end(_duration_s(result, before_s, asked_s))
                else:
                    inquiry.leave(self._moved_at)
                return result
            troubles += 1
        inquiry.leave(self._clock.monotonic())
        self._count(job, "left")
        return None

    def _take_in(self, inquiry: Inquiry, verdict: Verdict) -> None:
        """Tell the poll schedule what was answered."""
        now = self._clock.monotonic()
        match verdict.meaning:
            case Meaning.WAITING:
                inquiry.see_queued(verdict.result.queue_position if verdict.result else None, now)
            case Meaning.RUNNING:
                inquiry.see_running(now)
            case _:
                inquiry.see_nothing(now)

    async def _wait_to_ask(self, inquiry: Inquiry, troubles: int) -> None:
        """Return when the next question is due, or when it is time to leave."""
        backoff_s = self._pacer.backoff_s(troubles) if troubles else 0.0
        while not self._leaving.is_set():
            wait_s = max(backoff_s, inquiry.wait_s(self._clock.monotonic()))
            if wait_s <= 0:
                return
            await self._clock.wait(self._leaving, wait_s)
            backoff_s = 0.0

    def _is_stuck(
        self, job: Job, verdict: Verdict, vigil: Vigil, *, reattach: Action | None
    ) -> bool:
        """Take in that a request goes on; True, and said, where it shows no sign of life."""
        now, is_running = self._clock.monotonic(), verdict.meaning is Meaning.RUNNING
        longest_s = self._terms.retry.stuck_s or self._schedules[job.model].stuck_after_s()
        is_found = reattach is not None and is_running and vigil.is_new
        age_s = self._age_s(job) if is_found else 0.0
        position = verdict.result.queue_position if verdict.result else None
        if vigil.see(verdict.meaning, position, now, min(age_s, max(0, longest_s - STUCK_GRACE_S))):
            self._moved_at = now
        # One that waits has no news of its own as long as the queue before it moves.
        since = vigil.since if is_running else max(vigil.since, self._moved_at)
        if now - since <= longest_s:
            return False
        what = "been running" if is_running else "waited in a queue that does not move"
        self._notice(
            f"{job.key}: has {what} for {(now - since) / 60:.0f} min; left for the next run,"
            " and it keeps its place of limits.in_flight"
        )
        return True

    def _age_s(self, job: Job) -> float:
        """Return how long ago a request of an earlier run was sent."""
        known = self._ledger.state.job(job.fingerprint)
        intent = None if known is None else read_intent(self._ledger.path, known)
        return 0.0 if intent is None else (self._clock.now() - intent.at).total_seconds()

    def _settle_result(
        self,
        job: Job,
        request_id: str,
        verdict: Verdict,
        troubles: int,
        queued_until: datetime | None,
    ) -> tuple[bool, Result | None]:
        """Record what the end of a request means: (whether it has ended here, what it made)."""
        about: dict[str, Any] = {
            "at": self._clock.now(),
            "job": job.key,
            "fingerprint": job.fingerprint,
            "request_id": request_id,
        }
        result = verdict.result or Result()
        given_up = troubles + 1 >= self._terms.retry.attempts
        if len(result.outputs) > _OUTPUTS_LIMIT:
            self._notice(
                f"{job.key}: the answer names {len(result.outputs):,} outputs;"
                f" the first {_OUTPUTS_LIMIT} are saved"
            )
        match verdict.meaning:
            case Meaning.SUCCEEDED:
                self._record(_succeeded(about, result, queued_until))
            case Meaning.FAILED:
                self._fail(
                    job,
                    Failed(
                        **about,
                        reason=verdict.reason,
                        message=verdict.message,
                        cost_usd=result.cost_usd,
                    ),
                )
                return True, None
            case Meaning.CANCELLED:
                self._record(Cancelled(**about, cost_usd=result.cost_usd))
                self._count(job, "cancelled")
            case Meaning.GONE if given_up:
                message = "the service no longer knows the request; results are kept about 7 days"
                self._fail(job, Failed(**about, reason="expired", message=message))
            case Meaning.GONE:
                return False, None
            case _:
                self._after_trouble(verdict)
                if not given_up or verdict.meaning is Meaning.THROTTLED:
                    return False, None
                # It is paid for: it stays in flight, and the next run asks again.
                self._notice(
                    f"{job.key}: {verdict.reason}: {verdict.message}; left for the next run"
                )
                self._count(job, "left")
                return True, None
        self._pacer.reached()
        return True, verdict.result if verdict.meaning is Meaning.SUCCEEDED else None

    async def _save(self, job: Job, request_id: str, result: Result) -> None:
        """Download every output; the record follows when all of them are in place."""
        files = []
        for number, _ in enumerate(result.outputs[:_OUTPUTS_LIMIT], start=1):
            for attempt in itertools.count(1):
                try:
                    url = result.outputs[number - 1]
                    files.append(await self._downloads.fetch(url, numbered(job.path, number)))
                    break
                except (NotSavedError, IndexError) as error:
                    if attempt >= self._terms.retry.attempts or self._leaving.is_set():
                        # Downloads are free: the next run tries again, with fresh URLs.
                        self._notice(f"{job.key}: {error}; left for the next run")
                        self._count(job, "left")
                        return
                    await self._clock.wait(self._leaving, self._pacer.backoff_s(attempt))
                    result = await self._fresh(request_id) or result
        self._record(
            Saved(at=self._clock.now(), job=job.key, fingerprint=job.fingerprint, files=files)
        )
        self._count(job, "saved")
        self._finished(well=True)

    async def _fresh(self, request_id: str) -> Result | None:
        """Ask for the outputs again: their URLs may have expired."""
        await self._pacer.turn_to_poll(self._leaving)
        verdict = await self._service.result(request_id)
        return verdict.result if verdict.meaning is Meaning.SUCCEEDED else None

    # Jobs that need no service

    async def _reuse(self, planned: Planned) -> None:
        """Give the job the files that were bought for the same fingerprint."""
        job, known = planned.job, planned.state
        # One at a time: names may be swapped, and each moves aside what the other looks for.
        async with self._reusing:
            sources = None
            if known is not None:
                # In a thread: a bucket is asked over the network, a file is read as a whole.
                sources = await asyncio.to_thread(reusable, known, self._storage.is_in_place)
            if known is None or not sources:
                # Its twin is under way in this run: see when that one has ended.
                self._twins.append(planned)
                return
            try:
                # Where the disk cannot link, a video is copied: not on the loop.
                files = [
                    await asyncio.to_thread(self._storage.reuse, source, path)
                    for source, path in zip(sources, wanted_paths(job, sources), strict=True)
                ]
            except NotSavedError as error:
                self._notice(f"{job.key}: {error}; left for the next run")
                self._count(job, "left")
                return
        self._record(
            Saved(
                at=self._clock.now(),
                job=job.key,
                fingerprint=job.fingerprint,
                files=files,
                reused_from=known.key,
            )
        )
        self._count(job, "saved")

    async def _settle_twins(self) -> None:
        """Look again at jobs whose twin had not ended when their turn came."""
        twins, self._twins = self._twins, []
        for planned in twins:
            if self._leaving.is_set():
                return
            again = decide(planned.job, self._ledger.state, self._storage.is_in_place)
            match again.action:
                case Action.REUSE:
                    await self._reuse(again)
                case Action.HOLD if again.state and again.state.may_have_been_bought:
                    self.tally.unknown += 1
                case Action.HOLD:
                    self.tally.failed += 1
                case Action.COLLECT | Action.DOWNLOAD:
                    self.tally.left += 1

    # What every step uses

    def _record(self, record: Record) -> None:
        self._ledger.append(record)
        try:
            self._listener(record)
        except Exception as error:  # noqa: BLE001 - a listener is a guest: it must not break a job
            self._listener = _deaf
            self.bug = self.bug or error
            self.drain(Stop("bug", f"a listener failed: {error!r}"))

    def _fail(self, job: Job, record: Failed) -> None:
        self._record(record)
        self._count(job, "failed")
        self._pacer.reached()
        self._finished(well=False)

    def _count(self, job: Job, what: str) -> None:
        if job.fingerprint in self._orphans:
            what = "orphans_left" if what == "left" else "orphans"
        setattr(self.tally, what, getattr(self.tally, what) + 1)

    def _finished(self, *, well: bool) -> None:
        if self._brake.finished(well=well):
            self.drain(Stop("failures", "too many of the last jobs failed (limits.failures)"))

    def _count_reattached(self) -> None:
        self._to_reattach -= 1
        if self._to_reattach == 0:
            self._reattached.set()

    def _may_submit(self, job: Job) -> bool:
        """Tell whether limits allow this submit; the first that does not ends all of them."""
        stop = self._why_not_submit(job)
        if stop is not None:
            self.drain(stop)
        return stop is None

    def _why_not_submit(self, job: Job) -> Stop | None:
        if not is_open(self._terms.window, self._clock.now()):
            return Stop("window", "the window for submits is closed")
        if self._terms.until is not None and self._clock.now() >= self._terms.until:
            return Stop("until", f"it is {self._terms.until:%H:%M}, and --until said so")
        if self._terms.submit_limit is not None and self._sent >= self._terms.submit_limit:
            return Stop("limit", "as many jobs were submitted as --limit allows")
        if self._exceeds_budget(job):
            return Stop("budget", f"the budget of {usd(self._budget_usd)} is used up")
        return None

    def _exceeds_budget(self, job: Job) -> bool:
        if self._budget_usd is None:
            return False
        state, cost_usd = self._ledger.state, self._estimate_usd(job) or Decimal(0)
        return state.spent_usd + state.reserved_usd + cost_usd > self._budget_usd

    def _after_trouble(self, verdict: Verdict) -> None:
        """Wait, slow down or end the run, by what kind of trouble a free answer tells of."""
        match verdict.meaning:
            case Meaning.THROTTLED:
                self._pacer.throttled(verdict.retry_after_s)
            case Meaning.NO_BALANCE:
                error = AccessRefusedError(
                    f"the account has no balance: {verdict.message}",
                    hint="top it up, then run the same command again: nothing is lost",
                )
                self.error = self.error or error
                self.drain(Stop("no balance", error.message))
            case Meaning.TOKEN_REFUSED:
                raise AccessRefusedError(
                    f"the service refused the token ({verdict.reason}): {verdict.message}",
                    hint="set RUNCOMFY_API_TOKEN to a valid token of the account that ran this"
                    " batch, then run the same command again: nothing is lost",
                )
            case _:
                wait_s = self._pacer.unreachable(f"{verdict.reason}: {verdict.message}")
                if wait_s is not None and wait_s >= _SAY_PAUSE_S:
                    trouble = f"{verdict.reason}: {verdict.message}"
                    self._notice(f"no usable answer ({trouble}); asking again in {wait_s:.0f} s")


def _succeeded(about: dict[str, Any], result: Result, queued_until: datetime | None) -> Succeeded:
    return Succeeded(
        **about,
        outputs=[redact_url(url) for url in result.outputs[:_OUTPUTS_LIMIT]],
        cost_usd=result.cost_usd,
        created_at=result.created_at,
        finished_at=result.finished_at,
        queued_until=queued_until,
    )


def _deaf(_: Record) -> None:
    """Stand in for a listener that failed."""


def _duration_s(result: Result, least_s: float, most_s: float) -> float:
    """Return how long a request took, known to lie between two questions.

    By the service's own times where it tells them; a schedule that learned from the moments of its
    own questions would come later and later.
    """
    try:
        created = datetime.fromisoformat(result.created_at or "")
        finished = datetime.fromisoformat(result.finished_at or "")
        took_s = (finished - created).total_seconds()
    except (ValueError, TypeError):
        took_s = (least_s + most_s) / 2
    return min(max(took_s, least_s), most_s)
