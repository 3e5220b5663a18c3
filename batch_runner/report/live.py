"""Reads a batch's ledgers as they grow, also while a run in another process is at work.

Hides reading what is new, and counting. What always holds: the six counts equal those of `status`
at that moment; the service is not asked, and nothing is locked or changed.
Not promised: that the rate stays; the time left assumes the rate of the last jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import takewhile
from pathlib import Path

from batch_runner.clock import Clock
from batch_runner.errors import LedgerLockedError, ManifestError
from batch_runner.ledger.drain import ask_to_drain, is_asked_to_drain
from batch_runner.ledger.job import Standing, standing_of
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import damaged, replay_all
from batch_runner.ledger.state import State
from batch_runner.ledger.tail import Line, Replaced, Tail
from batch_runner.ledger.verdict import Header, Verdicts
from batch_runner.ledger.verdict_book import Book
from batch_runner.records import (
    Cancelled,
    Failed,
    Job,
    JobRecord,
    LedgerHeader,
    Record,
    Refused,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Unknown,
)
from batch_runner.report.details import JobDetails, Trace, details_of, follow
from batch_runner.report.moment import Failure, Moment, RunSeen
from batch_runner.report.status import Status, count_jobs
from batch_runner.run.batch import Batch
from batch_runner.shards.ledgers import Running

_FAILURES_LIMIT = 50
_RATE_OF_LAST = 200
_TEXT_LIMIT_CHARACTERS = 500


def stop_runs(paths: Iterable[Path]) -> int:
    """Ask every run at work on these ledgers to drain; returns how many were asked.

    Raises LedgerLockedError if a run has not begun to submit, and so can't be asked yet;
    StorageError; LedgerDamagedError.
    """
    asked, early = 0, None
    for path in paths:
        owner = owner_of(path.parent)
        if owner is None:
            continue
        state = replay_all([path])
        last = state.run_started if state.run_finished is None else None
        if last is not None and _owner(last) == owner:
            ask_to_drain(path.parent, last.run)
            asked += 1
        else:
            early = owner
    if early is not None:
        raise LedgerLockedError(
            f"{early} is at work, and has not begun to submit",
            hint="ask again in a moment: it can be asked to stop once it has begun",
        )
    return asked


def _owner(started: RunStarted) -> str:
    """Return a run's name in the lock of its ledger."""
    return f"pid {started.pid} on {started.host}"


class _RunTaken:
    """What the last run of one ledger has done so far."""

    def __init__(self, started: RunStarted, spent_before_usd: Decimal) -> None:
        self.started = started
        self.finished: RunFinished | None = None
        self.spent_before_usd = spent_before_usd

    def seen(self, folder: Path) -> RunSeen:
        started, finished = self.started, self.finished
        at_work = finished is None and owner_of(folder) == _owner(started)
        stopped = finished.stopped if finished is not None else None if at_work else "killed"
        return RunSeen(
            run=started.run,
            pid=started.pid,
            host=started.host,
            began_at=started.at,
            ended_at=None if finished is None else finished.at,
            stopped=stopped,
            is_at_work=at_work,
            is_draining=at_work and is_asked_to_drain(folder, started.run),
        )


class Live:
    """A batch and its ledgers: each `look` reads what is new and returns how the batch stands.

    `open_batch` reads the manifest, again whenever a run begins, because it may have changed.
    `is_left` is checked now and then during a long read, and ends it. `details` are complete only
    if the history of each job is kept (`traced`). `changed` collects the fingerprints that records
    and verdicts were about, `has_other_jobs` that a redo took a job's place, until someone resets
    them.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        clock: Clock,
        is_left: Callable[[], bool] = lambda: False,
        *,
        traced: bool = False,
    ) -> None:
        self._traced = traced
        self._open_batch = open_batch
        self._clock = clock
        self._is_left = is_left
        self.batch = open_batch()
        self.changed: set[str] = set()
        self.has_other_jobs = False
        self.beyond = 0
        self._fingerprints: list[str] | None = None
        self._notes: tuple[str, ...] = ()
        self._generation = 0
        self._begin()

    def _begin(self) -> None:
        self.state = State()
        self.verdicts = Verdicts()
        self._said_bytes = 0
        self._replaced: dict[str, str] = {}
        self._traces: dict[str, Trace] = {}
        self._tails: dict[Path, Tail] = {}
        self._runs: dict[Path, _RunTaken] = {}
        self._ended_at: deque[datetime] = deque(maxlen=_RATE_OF_LAST)
        self._failures: deque[tuple[str, Failure]] = deque(maxlen=_FAILURES_LIMIT)
        self._counted: tuple[object, Status] | None = None
        self._records = 0

    def look(self) -> Moment:
        """Read what was written since the last look, and return how the batch stands.

        Raises LedgerDamagedError, StorageError, or UsageError for another service's ledger.
        """
        runs = {path: taken.started.run for path, taken in self._runs.items()}
        is_first = not self._tails
        self.read()
        if not is_first and runs != {path: one.started.run for path, one in self._runs.items()}:
            self._read_manifest_again()
        return self._moment()

    def read(self) -> None:
        """Read what was written since the last time."""
        try:
            self._read_tails()
        except Replaced:
            self._generation += 1
            self._begin()
            self._read_tails()
        self._read_verdicts()

    def _read_verdicts(self) -> None:
        for said, end_bytes in Book(self.batch.ledgers.folder).read(self._said_bytes):
            self._said_bytes = end_bytes
            if isinstance(said, Header):
                continue
            redo = self.verdicts.redos.get(said.fingerprint)
            self.verdicts.add(said)
            self.changed.add(said.fingerprint)
            # A redo is another job in place of the one that it replaces.
            if redo != (new := self.verdicts.redos.get(said.fingerprint)):
                self._fingerprints, self._counted = None, None
                self.has_other_jobs = True
            if new is not None:
                self._replaced[new.fingerprint] = said.fingerprint
                self.changed.add(new.fingerprint)

    def details(self) -> Iterator[JobDetails]:
        """Yield every job of the manifest, as of the last read; raises ManifestError.

        Afterwards `beyond` is how many jobs of the ledger left the manifest; 0 with --only.
        """
        running, shown = self.batch.ledgers.running(), set[str]()
        for job in self.batch.jobs():
            yield self.detail(job, running, with_cost=job.fingerprint not in shown)
            if job.fingerprint in self._traces:
                shown.add(job.fingerprint)
        self.beyond = len(self._traces) - len(shown) if self.batch.options.only is None else 0

    def detail(self, job: Job, running: Running, *, with_cost: bool) -> JobDetails:
        """Return everything about a job, as of the last read."""
        known, trace = self.state.job(job.fingerprint), self._traces.get(job.fingerprint)
        standing = standing_of(known, running=running.has(job.fingerprint))
        return details_of(
            self.batch,
            job,
            known,
            trace,
            standing,
            previous=self._replaced_by(job),
            verdicts=self.verdicts,
            with_cost=with_cost,
        )

    def fingerprint_of(self, job: Job, sha256: str) -> str | None:
        """Return under which fingerprint a job has a file: its own, or that of what it replaces."""
        for fingerprint in (job.fingerprint, self._replaced.get(job.fingerprint)):
            known = None if fingerprint is None else self.state.job(fingerprint)
            if known is not None and sha256 in {file.sha256 for file in known.files}:
                return fingerprint
        return None

    def _replaced_by(self, job: Job) -> tuple[SavedFile, ...]:
        """Return the files that a redo replaces, or will."""
        replaces = self._replaced.get(job.fingerprint) if job.redo else None
        known = None if replaces is None else self.state.job(replaces)
        return () if known is None else known.files

    def _read_tails(self) -> None:
        paths = self.batch.ledgers.paths()
        if not self._tails.keys() <= set(paths) and self._records:
            raise Replaced  # the batch was split into other shards
        for path in paths:
            for line in self._tails.setdefault(path, Tail(path)).read():
                self._take(path, line)
                self._records += 1
                if line.number % 1000 == 0 and self._is_left():
                    return

    def _take(self, path: Path, line: Line) -> None:
        record = line.record
        match record:
            case LedgerHeader():
                self.batch.ledgers.check(path, record)
            case RunStarted():
                self._runs[path] = _RunTaken(record, self.state.spent_usd)
            case RunFinished() if path in self._runs:
                self._runs[path].finished = record
        if isinstance(record, JobRecord):
            self._take_job(path, line, record)

    def _take_job(self, path: Path, line: Line, record: JobRecord) -> None:
        try:
            self.state.apply(line.record, line.offset_bytes)
        except ValueError as error:
            raise damaged(path, line.number, str(error)) from error
        if self._traced:
            follow(self._traces.setdefault(record.fingerprint, Trace()), record)
            self.changed.add(record.fingerprint)
        if _has_ended(line.record):
            self._ended_at.append(record.at)
        failure = _failure(line.record)
        if failure is not None:
            self._failures.append((record.fingerprint, failure))

    def _read_manifest_again(self) -> None:
        """Read the manifest of the new run: it, its table or its model may have changed."""
        try:
            batch = self._open_batch()
            fingerprints = self._jobs_of(batch)
        except ManifestError as error:
            what = f"the manifest was changed, and cannot be read: {error.problems[0]}"
            self._notes = (what,)
            return
        if fingerprints != self._fingerprints:
            self._generation += 1
        self.batch, self._fingerprints, self._notes = batch, fingerprints, ()
        self._counted = None

    def _jobs_of(self, batch: Batch) -> list[str]:
        jobs = takewhile(lambda _: not self._is_left(), batch.jobs())
        return [job.fingerprint for job in jobs]

    def _status(self) -> Status:
        """Count the jobs, unless nothing was written and the same runs are at work."""
        if self._fingerprints is None:
            self._fingerprints = self._jobs_of(self.batch)
        basis = (self._records, [owner_of(path.parent) for path in self._tails])
        if self._counted is None or self._counted[0] != basis:
            running = self.batch.ledgers.running()
            self._counted = basis, count_jobs(self._fingerprints, self.state, running)
        return self._counted[1]

    def _moment(self) -> Moment:
        now = self._clock.now()
        runs = tuple(taken.seen(path.parent) for path, taken in self._runs.items())
        last = max(runs, key=lambda run: run.began_at, default=None)
        status = self._status()
        moment = Moment(
            at=now,
            name=self.batch.name,
            model=", ".join(self.batch.models),
            # The name of a folder may not be UTF-8.
            output=str(self.batch.storage).encode(errors="backslashreplace").decode(),
            generation=self._generation,
            budget_usd=self.batch.limits.cost_usd,
            runs=runs,
            failures=self._failures_now(),
            notes=self._notes,
            **{name: getattr(status, name) for name in status.__struct_fields__},
        )
        moment.stopped = None if last is None else last.stopped
        if moment.is_at_work:
            moment.stopped = "running"
        if self._runs:
            before_usd = min(taken.spent_before_usd for taken in self._runs.values())
            moment.run_cost_usd = self.state.spent_usd - before_usd
        moment.rate_per_s = self._rate_per_s(now, [run.began_at for run in runs if run.is_at_work])
        # A run that drains leaves what is pending to the next one.
        waiting = moment.in_flight + (0 if moment.is_draining else moment.pending)
        if moment.rate_per_s and waiting:
            moment.left_s = waiting / moment.rate_per_s
        return moment

    def _rate_per_s(self, now: datetime, began_at: list[datetime]) -> float | None:
        """Return the rate of the last jobs, measured up to now, so that a halt shows."""
        if not began_at:
            return None
        ended_at = sorted(at for at in self._ended_at if at >= min(began_at))
        if not ended_at:
            return None
        # Until there are enough jobs, count from the run's start: the first job takes longest.
        since = ended_at[0] if len(ended_at) == _RATE_OF_LAST else min(began_at)
        return len(ended_at) / max(1.0, (now - since).total_seconds())

    def _failures_now(self) -> tuple[Failure, ...]:
        """Return the last failures that still hold, each job once, the newest first."""
        shown: dict[str, Failure] = {}
        ours = set(self._fingerprints or ()) if self.batch.options.only is not None else None
        for fingerprint, failure in reversed(self._failures):
            holds = standing_of(self.state.job(fingerprint), running=True) is failure.state
            if holds and (ours is None or fingerprint in ours):
                shown.setdefault(fingerprint, failure)
        return tuple(shown.values())


def _has_ended(record: Record) -> bool:
    """Tell whether a record ends a job; copying a file that is there already took no time."""
    match record:
        case Saved():
            return record.reused_from is None
        case Refused():
            return not record.again
        case _:
            return isinstance(record, Failed | Unknown | Cancelled)


def _failure(record: Record) -> Failure | None:
    match record:
        case Failed() | Refused(again=False):
            state, what = Standing.FAILED, f"{record.reason}: {record.message}"
        case Unknown():
            state, what = Standing.UNKNOWN, record.why
        case _:
            return None
    return Failure(at=record.at, job=record.job, state=state, what=what[:_TEXT_LIMIT_CHARACTERS])
