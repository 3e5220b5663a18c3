"""How a batch stands this moment, while a run in another process goes on: from its ledgers alone.

Hides following the ledgers and counting as they grow. What always holds: the six counts are those
of `standing.status` at that moment; a look costs what was written since the last one, not what the
ledgers hold; nothing is asked of the service, nothing is locked for longer than a look.
Not promised: that the rate stays; the time left is what is left, at the rate of late.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import LedgerLockedError, ManifestError
from batch_runner.jobs.images import table_of
from batch_runner.ledger.drain import ask_to_drain, is_asked_to_drain
from batch_runner.ledger.job import JobState, Phase, standing_of
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import damaged, read_ledger
from batch_runner.ledger.state import State
from batch_runner.ledger.tail import Line, Replaced, Tail
from batch_runner.models.catalog import KEPT_FOLDER, kept_entry
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
from batch_runner.report.status import Status
from batch_runner.run.batch import Batch

PICTURES_LIMIT = 500
"""As many of the last pictures are remembered."""

_FAILURES_LIMIT = 50
_RATE_OF_LAST = 200
_TEXT_LIMIT_CHARACTERS = 500
_SHOWN_DIGITS = 16


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was saved, numbered in the order in which it was seen.

    `path` is relative to the output folder; `sha256` is what it was when it was saved.
    """

    number: int
    at: datetime
    job: str
    path: str
    media_type: str
    size_bytes: int
    sha256: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed or is unknown, and is so still."""

    at: datetime
    job: str
    state: str
    what: str


class RunSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of a ledger. `stopped` is the ledger's word, or "killed"; None: it did all."""

    run: str
    pid: int
    host: str
    began_at: datetime
    ended_at: datetime | None
    stopped: str | None
    is_at_work: bool
    is_draining: bool
    folder: str


class Moment(Status, kw_only=True):
    """How a batch stands, as `status` counts it, and how it is getting on.

    `generation` changes when everything that was told before no longer holds. `output` is where the
    pictures are; `output_dir` the same as a folder of this machine, or None for a bucket.
    """

    at: datetime
    name: str
    model: str
    output: str
    output_dir: str | None
    generation: int = 0
    budget_usd: Decimal | None = None
    run_cost_usd: Decimal = Decimal(0)
    rate_per_s: float | None = None
    left_s: float | None = None
    runs: tuple[RunSeen, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_at_work(self) -> bool:
        """Tell whether any run is at work."""
        return any(run.is_at_work for run in self.runs)

    @property
    def is_draining(self) -> bool:
        """Tell whether every run that is at work was asked to stop."""
        return self.is_at_work and all(run.is_draining for run in self.runs if run.is_at_work)


def stop_runs(paths: Iterable[Path]) -> int:
    """Ask whoever holds one of these ledgers to stop in good order; returns how many were asked.

    Reads nothing but the ledgers. Raises LedgerLockedError where a run has not begun to submit: it
    cannot be asked yet. Raises StorageError, LedgerDamagedError.
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
    """Return how a run is named in the lock of its ledger."""
    return f"pid {started.pid} on {started.host}"


class _Wanted:
    """How often each fingerprint stands in the manifest: eight bytes a job."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._numbers = array("Q", sorted(_number(job.fingerprint) for job in jobs))

    def __len__(self) -> int:
        return len(self._numbers)

    def count(self, fingerprint: str) -> int:
        number = _number(fingerprint)
        return bisect_right(self._numbers, number) - bisect_left(self._numbers, number)


class _RunTaken:
    """What the last run of one ledger has done so far."""

    def __init__(self, started: RunStarted, spent_before_usd: Decimal) -> None:
        self.started = started
        self.finished: RunFinished | None = None
        self.spent_before_usd = spent_before_usd
        self.endings: deque[datetime] = deque(maxlen=_RATE_OF_LAST)


class Live:
    """A batch that is being watched. `look` reads what is new and says how it stands.

    `open_batch` reads the manifest: anew when a run has begun, which may be of another version.
    `is_left` is asked now and then during a long read, and ends it.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        clock: Clock,
        is_left: Callable[[], bool] | None = None,
    ) -> None:
        self._open_batch = open_batch
        self._clock = clock
        self._is_left = is_left or _never
        self.batch = open_batch()
        self._basis = _basis(self.batch)
        self._wanted = _Wanted(self._until_left(self.batch.jobs()))
        self._notes: tuple[str, ...] = ()
        self._generation = 0
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._state = State()
        self._tails: dict[Path, Tail] = {}
        self._runs: dict[Path, _RunTaken] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._submitting: dict[str, int] = {}
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
            self._read_manifest_anew()
        return self._moment()

    def ask_to_drain(self) -> int:
        """Ask every run that is at work to stop in good order; returns how many there are.

        Raises StorageError.
        """
        asked = 0
        for path, taken in list(self._runs.items()):
            # Now, and not as it was at the last look: a request is for a run that is there.
            if self._seen(path, taken).is_at_work:
                ask_to_drain(path.parent, taken.started.run)
                asked += 1
        return asked

    def _read(self) -> None:
        saved: list[Saved] = []
        paths = self.batch.ledgers.paths()
        if not self._tails.keys() <= set(paths) and self._state.jobs:
            raise Replaced  # the batch was dealt anew
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
        # Several ledgers are read one after the other; people see pictures in order of time.
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
        times = self._wanted.count(fingerprint)
        before = _label(self._state.job(fingerprint))
        try:
            self._state.apply(line.record, line.offset_bytes)
        except ValueError as error:
            raise damaged(path, line.number, str(error)) from error
        if times:
            after = _label(self._state.job(fingerprint))
            if before != after:
                self._counts[before] -= times
                self._counts[after] += times
            if after == _SUBMITTING:
                self._submitting[fingerprint] = times
            else:
                self._submitting.pop(fingerprint, None)
        if _is_ending(line.record) and path in self._runs:
            self._runs[path].endings.append(record.at)
        failure = _failure(line.record)
        if failure is not None and self._is_about(times):
            self._failures.append((fingerprint, failure))

    def _is_about(self, times: int) -> bool:
        """Tell whether a job is to be shown: all are, but for those that --only leaves out."""
        return times > 0 or self.batch.options.only is None

    def _show(self, record: Saved) -> None:
        if not self._is_about(self._wanted.count(record.fingerprint)):
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

    def _read_manifest_anew(self) -> None:
        """Count by the manifest that the new run has: it, its table or its model may be others."""
        try:
            batch = self._open_batch()
            basis = _basis(batch)
            if basis == self._basis:
                return
            wanted = _Wanted(self._until_left(batch.jobs()))
        except ManifestError as error:
            what = f"the manifest was changed, and cannot be read: {error.problems[0]}"
            self._notes = (what,)
            return
        self.batch, self._basis, self._wanted, self._notes = batch, basis, wanted, ()
        self._counts.clear()
        self._submitting.clear()
        for known in self._state.jobs.each():
            fingerprint = known.fingerprint
            times = wanted.count(fingerprint)
            if times:
                label = _label(known)
                self._counts[label] += times
                if label == _SUBMITTING:
                    self._submitting[fingerprint] = times

    def _until_left(self, jobs: Iterable[Job]) -> Iterator[Job]:
        return itertools.takewhile(lambda _: not self._is_left(), jobs)

    def _moment(self) -> Moment:
        now = self._clock.now()
        runs = tuple(self._seen(path, taken) for path, taken in self._runs.items())
        running = any(run.is_at_work for run in runs)
        folder = str(self.batch.output_dir.resolve())
        moment = Moment(
            at=now,
            name=self.batch.name,
            model=", ".join(self.batch.models),
            output=folder if self.batch.bucket is None else self.batch.bucket,
            output_dir=folder if self.batch.bucket is None else None,
            generation=self._generation,
            jobs=len(self._wanted),
            cost_usd=self._state.spent_usd,
            reserved_usd=self._state.reserved_usd,
            budget_usd=self.batch.limits.cost_usd,
            reasons={},
            stopped="running" if running else _stopped(runs),
            runs=runs,
            failures=self._failures_now(),
            notes=self._notes,
        )
        self._count(moment)
        if self._runs:
            before_usd = min(taken.spent_before_usd for taken in self._runs.values())
            moment.run_cost_usd = self._state.spent_usd - before_usd
        moment.rate_per_s = self._rate_per_s(now, runs)
        # A run that was asked to stop leaves what is pending to the next one.
        waiting = moment.in_flight + (0 if moment.is_draining else moment.pending)
        if moment.rate_per_s and waiting:
            moment.left_s = waiting / moment.rate_per_s
        return moment

    def _count(self, moment: Moment) -> None:
        counts = Counter(self._counts)
        running = self.batch.ledgers.running()
        # Whose POST is on its way: by whether its run lives, and that no record tells.
        for fingerprint, times in self._submitting.items():
            counts[_IN_FLIGHT if running.has(fingerprint) else _UNKNOWN] += times
        for (column, reason), count in counts.items():
            if count and (column, reason) not in (_PENDING, _SUBMITTING):
                setattr(moment, column, getattr(moment, column) + count)
                if reason:
                    moment.reasons[reason] = moment.reasons.get(reason, 0) + count
        settled = moment.done + moment.failed + moment.unknown + moment.cancelled
        moment.pending = moment.jobs - settled - moment.in_flight

    def _seen(self, path: Path, taken: _RunTaken) -> RunSeen:
        started, finished = taken.started, taken.finished
        owner = _owner(started)
        at_work = finished is None and owner_of(path.parent) == owner
        stopped = finished.stopped if finished is not None else None if at_work else "killed"
        return RunSeen(
            run=started.run,
            pid=started.pid,
            host=started.host,
            began_at=started.at,
            ended_at=None if finished is None else finished.at,
            stopped=stopped,
            is_at_work=at_work,
            is_draining=at_work and is_asked_to_drain(path.parent, started.run),
            folder=str(path.parent),
        )

    def _rate_per_s(self, now: datetime, runs: Sequence[RunSeen]) -> float | None:
        """Return the rate of late: of the last endings, up to now, so that a halt shows."""
        at_work = {run.run for run in runs if run.is_at_work}
        endings = sorted(
            at
            for taken in self._runs.values()
            if taken.started.run in at_work
            for at in taken.endings
        )[-_RATE_OF_LAST:]
        if not endings:
            return None
        began = min(taken.started.at for taken in self._runs.values())
        # Before the window is full, the run's begin is the better edge: the first takes longest.
        since = began if len(endings) < _RATE_OF_LAST else endings[0]
        return len(endings) / max(1.0, (now - since).total_seconds())

    def _failures_now(self) -> tuple[Failure, ...]:
        """Return the last failures that still stand, each job once, the newest first."""
        shown: dict[str, Failure] = {}
        for fingerprint, failure in reversed(self._failures):
            known = self._state.job(fingerprint)
            if known is not None and standing_of(known, running=True) == failure.state:
                shown.setdefault(fingerprint, failure)
        return tuple(shown.values())


_PENDING = ("pending", "")
_IN_FLIGHT = ("in_flight", "")
_UNKNOWN = ("unknown", "unknown")
_SUBMITTING = ("submitting", "")


def _never() -> bool:
    return False


def _number(fingerprint: str) -> int:
    """Return 64 bits of a fingerprint: of a million jobs, hardly ever do two share them."""
    try:
        return int(fingerprint[:_SHOWN_DIGITS], 16)
    except ValueError:
        return 0  # no program wrote it


def _basis(batch: Batch) -> object:
    """Return what the jobs of a batch follow from; a picture's content aside."""
    table, manifest = table_of(batch.manifest), batch.manifest
    changed = None
    if table is not None and table.exists():
        status = table.stat()
        changed = (status.st_mtime_ns, status.st_size)
    kept = [
        kept_entry(batch.ledgers.own_folder / KEPT_FOLDER, model_id) for model_id in batch.models
    ]
    return manifest.sha256, changed, kept


def _label(known: JobState | None) -> tuple[str, str]:
    """Return as what a job counts, and why."""
    if known is not None and known.phase is Phase.SUBMITTING:
        return _SUBMITTING
    column = standing_of(known, running=False)
    if column == "failed":
        return column, (known.reason if known else None) or column
    return column, "unknown" if column == "unknown" else ""


def _is_ending(record: Record) -> bool:
    """Tell whether a job came to its end with this record; a copy of a file took no time."""
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
            state, what = "failed", f"{record.reason}: {record.message}"
        case Unknown():
            state, what = "unknown", record.why
        case _:
            return None
    return Failure(at=record.at, job=record.job, state=state, what=what[:_TEXT_LIMIT_CHARACTERS])


def _stopped(runs: Sequence[RunSeen]) -> str | None:
    return max(runs, key=lambda run: run.began_at).stopped if runs else None
