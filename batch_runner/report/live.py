"""Follows a batch while a run in another process is at work: from its ledgers alone.

Hides reading what is new in the ledgers, and counting record by record. What always holds: the six
counts equal those of `status` at that moment; a look costs what was written since the last one,
whatever the size of the ledgers; the service is not asked, and nothing stays locked after a look.
Not promised: that the rate stays; the time left assumes the rate of the last jobs.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import LedgerLockedError, ManifestError
from batch_runner.ledger.drain import ask_to_drain, is_asked_to_drain
from batch_runner.ledger.job import JobState, Phase, Standing, Standings, standing_of
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import damaged, read_ledger
from batch_runner.ledger.state import State
from batch_runner.ledger.tail import Line, Replaced, Tail
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
    Unknown,
)
from batch_runner.report.moment import Failure, Moment, Picture, RunSeen
from batch_runner.report.status import reason_of
from batch_runner.run.basis import basis_of
from batch_runner.run.batch import Batch

PICTURES_LIMIT = 500
"""How many of the last pictures are kept."""

_FAILURES_LIMIT = 50
_RATE_OF_LAST = 200
_TEXT_LIMIT_CHARACTERS = 500
_SHOWN_DIGITS = 16


def stop_runs(paths: Iterable[Path]) -> int:
    """Ask every run at work on these ledgers to drain; returns how many were asked.

    Reads nothing but the ledgers. Raises LedgerLockedError if a run has not begun to submit, and so
    can't be asked yet; StorageError; LedgerDamagedError.
    """
    asked, early = 0, None
    for path in paths:
        owner = owner_of(path.parent)
        if owner is None:
            continue
        last: RunStarted | None = None
        for record in read_ledger(path):
            if isinstance(record, RunStarted):
                last = record
            elif isinstance(record, RunFinished):
                last = None
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


class _Label(NamedTuple):
    """How a job is counted. What is `submitting` is unknown as soon as its run is gone."""

    standing: Standing
    reason: str | None = None
    is_submitting: bool = False

    @classmethod
    def of(cls, known: JobState | None) -> _Label:
        standing = standing_of(known, running=True)
        is_submitting = known is not None and known.phase is Phase.SUBMITTING
        return cls(standing, reason_of(known, standing), is_submitting)


_PENDING = _Label(Standing.PENDING)


class _Counts:
    """The manifest's jobs by how they stand: eight bytes a job, whatever the number of records."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._numbers = array("Q", sorted(_number(job.fingerprint) for job in jobs))
        self.begin(())

    def begin(self, known: Iterable[JobState]) -> None:
        """Count from the start, by everything that a ledger knows."""
        self._standings = Standings()
        self._standings.add(Standing.PENDING, len(self._numbers))
        self._reasons: Counter[str] = Counter()
        self._submitting: dict[str, int] = {}
        for one in known:
            self.move(one.fingerprint, _PENDING, _Label.of(one))

    def times(self, fingerprint: str) -> int:
        """Return how many jobs of the manifest have this fingerprint."""
        number = _number(fingerprint)
        return bisect_right(self._numbers, number) - bisect_left(self._numbers, number)

    def move(self, fingerprint: str, before: _Label, after: _Label) -> None:
        times = self.times(fingerprint)
        if before == after or not times:
            return
        self._standings.move(before.standing, after.standing, times)
        if before.reason is not None:
            self._reasons[before.reason] -= times
        if after.reason is not None:
            self._reasons[after.reason] += times
        if after.is_submitting:
            self._submitting[fingerprint] = times
        else:
            self._submitting.pop(fingerprint, None)

    def now(self, is_running: Callable[[str], bool]) -> tuple[Standings, dict[str, int]]:
        """Return the counts and reasons at this moment."""
        standings, reasons = msgspec.structs.replace(self._standings), Counter(self._reasons)
        # No record tells that the run died while a POST was under way.
        for fingerprint, times in self._submitting.items():
            if not is_running(fingerprint):
                standings.move(Standing.IN_FLIGHT, Standing.UNKNOWN, times)
                reasons[Standing.UNKNOWN] += times
        return standings, {reason: count for reason, count in reasons.items() if count}


class _RunTaken:
    """What the last run of one ledger has done so far."""

    def __init__(self, started: RunStarted, spent_before_usd: Decimal) -> None:
        self.started = started
        self.finished: RunFinished | None = None
        self.spent_before_usd = spent_before_usd
        self.jobs_ended_at: deque[datetime] = deque(maxlen=_RATE_OF_LAST)

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
            folder=str(folder),
        )


class Live:
    """A batch under watch: each `look` reads what is new and returns how the batch stands.

    `open_batch` reads the manifest, again whenever a run begins, because it may have changed.
    `is_left` is checked now and then during a long read, and ends it.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        clock: Clock,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        self._open_batch = open_batch
        self._clock = clock
        self._is_left = is_left
        self.batch = open_batch()
        self._basis = basis_of(self.batch)
        self._counts = self._counted(self.batch)
        self._notes: tuple[str, ...] = ()
        self._generation = 0
        self._number = 0
        self._begin()

    def _counted(self, batch: Batch) -> _Counts:
        return _Counts(itertools.takewhile(lambda _: not self._is_left(), batch.jobs()))

    def _begin(self) -> None:
        self._state = State()
        self._tails: dict[Path, Tail] = {}
        self._runs: dict[Path, _RunTaken] = {}
        self._counts.begin(())
        self._failures: deque[tuple[str, Failure]] = deque(maxlen=_FAILURES_LIMIT)
        self.pictures: deque[Picture] = deque(maxlen=PICTURES_LIMIT)
        self._has_new_run = False

    def look(self) -> Moment:
        """Take in what was written since the last look, and return how the batch stands.

        Raises LedgerDamagedError, StorageError, or UsageError for another service's ledger.
        """
        try:
            self._read()
        except Replaced:
            self._generation += 1
            self._begin()
            self._read()
        if self._has_new_run:
            self._has_new_run = False
            self._read_manifest_again()
        return self._moment()

    def _read(self) -> None:
        saved: list[Saved] = []
        paths = self.batch.ledgers.paths()
        if not self._tails.keys() <= set(paths) and self._state.jobs:
            raise Replaced  # the batch was split into other shards
        for path in paths:
            tail = self._tails.setdefault(path, Tail(path))
            new: deque[Saved] = deque(maxlen=PICTURES_LIMIT)
            for line in tail.read():
                self._take(path, line)
                if isinstance(line.record, Saved):
                    new.append(line.record)
                if line.number % 1000 == 0 and self._is_left():
                    return
            saved += new
        # Ledgers are read one after the other; pictures are shown in the order of their times.
        for record in sorted(saved, key=lambda one: one.at):
            self._show(record)

    def _take(self, path: Path, line: Line) -> None:
        record = line.record
        match record:
            case LedgerHeader():
                self.batch.ledgers.check(path, record)
            case RunStarted():
                self._runs[path] = _RunTaken(record, self._state.spent_usd)
                self._has_new_run = True
            case RunFinished():
                if path in self._runs:
                    self._runs[path].finished = record
            case _:
                self._take_job(path, line, record)

    def _take_job(self, path: Path, line: Line, record: JobRecord) -> None:
        fingerprint = record.fingerprint
        before = _Label.of(self._state.job(fingerprint))
        try:
            self._state.apply(line.record, line.offset_bytes)
        except ValueError as error:
            raise damaged(path, line.number, str(error)) from error
        self._counts.move(fingerprint, before, _Label.of(self._state.job(fingerprint)))
        if _has_ended(line.record) and path in self._runs:
            self._runs[path].jobs_ended_at.append(record.at)
        failure = _failure(line.record)
        if failure is not None and self._is_shown(fingerprint):
            self._failures.append((fingerprint, failure))

    def _is_shown(self, fingerprint: str) -> bool:
        """Tell whether to show a job: all of them, except those that --only leaves out."""
        return self.batch.options.only is None or self._counts.times(fingerprint) > 0

    def _show(self, record: Saved) -> None:
        if not self._is_shown(record.fingerprint):
            return
        for file in record.files:
            self._number += 1
            self.pictures.append(
                Picture(
                    number=self._number,
                    at=record.at,
                    job=record.job,
                    path=file.path,
                    media_type=file.media_type,
                    size_bytes=file.size_bytes,
                    sha256=file.sha256,
                )
            )

    def _read_manifest_again(self) -> None:
        """Count by the manifest of the new run, if it, its table or its model has changed."""
        try:
            batch = self._open_batch()
            basis = basis_of(batch)
            if basis is not None and basis == self._basis:
                return
            counts = self._counted(batch)
        except ManifestError as error:
            what = f"the manifest was changed, and cannot be read: {error.problems[0]}"
            self._notes = (what,)
            return
        counts.begin(self._state.jobs.each())
        self.batch, self._basis, self._counts, self._notes = batch, basis, counts, ()

    def _moment(self) -> Moment:
        now = self._clock.now()
        runs = tuple(taken.seen(path.parent) for path, taken in self._runs.items())
        standings, reasons = self._counts.now(self.batch.ledgers.running().has)
        folder = str(self.batch.output_dir.resolve())
        last = max(runs, key=lambda run: run.began_at, default=None)
        moment = Moment(
            at=now,
            name=self.batch.name,
            model=", ".join(self.batch.models),
            output=folder if self.batch.bucket is None else self.batch.bucket,
            output_dir=folder if self.batch.bucket is None else None,
            generation=self._generation,
            cost_usd=self._state.spent_usd,
            reserved_usd=self._state.reserved_usd,
            budget_usd=self.batch.limits.cost_usd,
            stopped=None if last is None else last.stopped,
            runs=runs,
            failures=self._failures_now(),
            notes=self._notes,
            reasons=reasons,
            **msgspec.structs.asdict(standings),
        )
        if moment.is_at_work:
            moment.stopped = "running"
        if self._runs:
            before_usd = min(taken.spent_before_usd for taken in self._runs.values())
            moment.run_cost_usd = self._state.spent_usd - before_usd
        moment.rate_per_s = self._rate_per_s(now, {run.run for run in runs if run.is_at_work})
        # A run that drains leaves what is pending to the next one.
        waiting = moment.in_flight + (0 if moment.is_draining else moment.pending)
        if moment.rate_per_s and waiting:
            moment.left_s = waiting / moment.rate_per_s
        return moment

    def _rate_per_s(self, now: datetime, at_work: Collection[str]) -> float | None:
        """Return the rate of the last jobs, measured up to now, so that a halt shows."""
        taken = [one for one in self._runs.values() if one.started.run in at_work]
        ended_at = sorted(at for one in taken for at in one.jobs_ended_at)[-_RATE_OF_LAST:]
        if not ended_at:
            return None
        # Until there are enough jobs, count from the run's start: the first job takes longest.
        is_full = len(ended_at) == _RATE_OF_LAST
        since = ended_at[0] if is_full else min(one.started.at for one in self._runs.values())
        return len(ended_at) / max(1.0, (now - since).total_seconds())

    def _failures_now(self) -> tuple[Failure, ...]:
        """Return the last failures that still hold, each job once, the newest first."""
        shown: dict[str, Failure] = {}
        for fingerprint, failure in reversed(self._failures):
            if standing_of(self._state.job(fingerprint), running=True) is failure.state:
                shown.setdefault(fingerprint, failure)
        return tuple(shown.values())


def _number(fingerprint: str) -> int:
    """Return 64 bits of a fingerprint: among a million jobs, two hardly ever share them."""
    try:
        return int(fingerprint[:_SHOWN_DIGITS], 16)
    except ValueError:
        return 0  # not written by this program


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
