"""The ledger: an append-only file of records, and the state that replaying it gives.

Hides the file, its lock, its repair and how records become durable. What always holds:

- one owner: an OS lock is held from `open` to `close`; a dead owner's lock is gone with it;
- a torn last line was never acknowledged: it is cut before the first append; damage anywhere else
  is refused with its line, and nothing is changed;
- an append is one write that no cancellation can split from its answer; `durable()` returns only
  after everything appended before it is on the disk, and never blocks the event loop;
- after a failed write or sync nothing more is appended: what is known stays as it is; but on a full
  disk what is known of requests that were sent is still written, in space set aside for it;
- `State.apply` is the only place where a record changes what is known of a job: replaying a file
  and running live give the same state.

What is not promised: that a record which was appended but not made durable survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import heapq
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec

from batch_runner.errors import (
    BatchRunnerError,
    InputMissingError,
    LedgerDamagedError,
    LedgerLockedError,
    StorageError,
)
from batch_runner.offsite import OWNER_NAME, Offsite
from batch_runner.records import (
    LEDGER_VERSION,
    Cancelled,
    Failed,
    JobRecord,
    LedgerHeader,
    Record,
    Refused,
    Resolved,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    decode,
    encode,
)
from batch_runner.reserve import Reserve

FILE_NAME = "ledger.jsonl"
LOCK_NAME = ".ledger.lock"

ABANDONED = "abandoned"
"""The reason of a job that a person gave up."""

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_READ_BYTES = 4 * 1024 * 1024
_SOON_S = 0.02
_ZERO = Decimal(0)
# As many of the last submits are remembered for the rate limits of the next run.
_SUBMIT_TIMES = 10_000

# `owner_of` holds the lock for a moment to see whether it is free; a run that begins in that very
# moment must not take it for another run.
_LOCK_ATTEMPTS = 3
_LOCK_PAUSE_S = 0.02


class Phase(StrEnum):
    """How far a job has come, by its last record."""

    REFUSED = "refused"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"


class JobState(msgspec.Struct, gc=False):
    """What the ledger knows of one fingerprint. `phase` RELEASED: a person allowed another POST.

    `reserved_usd` and `spent_usd` are what its latest request counts for in the totals.
    """

    key: str
    fingerprint: str
    phase: Phase = Phase.SUBMITTING
    path: str = ""
    model: str = ""
    request_id: str | None = None
    reserved_usd: Decimal | None = None
    spent_usd: Decimal = _ZERO
    reason: str | None = None
    message: str | None = None
    again: bool = False
    intent_offset_bytes: int = 0
    files: tuple[SavedFile, ...] = ()
    copies: tuple[tuple[SavedFile, ...], ...] = ()

    @property
    def may_have_been_bought(self) -> bool:
        """Tell whether a POST of this job may be at the service, its outcome still open."""
        return self.phase in _OPEN_PHASES

    @property
    def was_abandoned(self) -> bool:
        """Tell whether a person gave this job up, not knowing whether it was bought."""
        return self.phase is Phase.CANCELLED and self.reason == ABANDONED


_OPEN_PHASES = frozenset((Phase.SUBMITTING, Phase.UNKNOWN, Phase.IN_FLIGHT))


class State:
    """Everything a ledger says, folded up; `apply` takes one record further."""

    def __init__(self) -> None:
        self.header: LedgerHeader | None = None
        self.jobs: dict[str, JobState] = {}
        self.fingerprints: dict[str, str] = {}
        self.spent_usd = _ZERO
        self.reserved_usd = _ZERO
        self._amounts: dict[Decimal, Decimal] = {}
        self.submit_times: deque[datetime] = deque(maxlen=_SUBMIT_TIMES)
        self.run_started: RunStarted | None = None
        self.run_finished: RunFinished | None = None

    def job(self, fingerprint: str) -> JobState | None:
        """Return what is known of a fingerprint, or None."""
        return self.jobs.get(fingerprint)

    def last_fingerprint(self, key: str) -> str | None:
        """Return the fingerprint under which a key was last seen, or None."""
        return self.fingerprints.get(key)

    def apply(self, record: Record, offset_bytes: int = 0) -> None:
        """Take one record into account; ValueError where it cannot follow what came before.

        `offset_bytes` is where its line begins: what was sent is read again when it is asked for,
        instead of being held for every job.
        """
        self.check(record)
        self.apply_checked(record, offset_bytes)

    def apply_checked(self, record: Record, offset_bytes: int) -> None:
        """Take a record into account that `check` has let pass."""
        # By their types, in a table: a million jobs have four million records, and isinstance()
        # of a struct takes as long as all the rest of it.
        kind = type(record)
        if kind is Submitting:
            self._apply_submitting(record, offset_bytes)  # type: ignore[arg-type]  # see above
        elif kind in self._STEPS:
            job = self._job_of(record)  # type: ignore[arg-type]
            self._STEPS[kind](self, job, record)
        elif isinstance(record, LedgerHeader):
            self.header = record
        elif isinstance(record, RunStarted):
            self.run_started, self.run_finished = record, None
        elif isinstance(record, RunFinished):
            self.run_finished = record

    def check(self, record: Record) -> None:
        """Change nothing; ValueError where a record cannot follow what came before."""
        kind = type(record)
        if kind not in _FOLLOWING:
            self._check_first(record)
        elif record.fingerprint not in self.jobs:  # type: ignore[union-attr]  # a job's, all of them
            raise ValueError("the job was never submitted")
        name = _AMOUNTS.get(kind)
        amount = None if name is None else getattr(record, name)
        if amount is not None and not (amount.is_finite() and amount >= 0):
            raise ValueError(f"{amount} USD is not an amount")

    def _check_first(self, record: Record) -> None:
        if isinstance(record, LedgerHeader) and self.header is not None:
            raise ValueError("a second header")
        if isinstance(record, Resolved) and record.how == "attached" and not record.request_id:
            raise ValueError("no request is named that the job is attached to")

    def _job_of(self, record: JobRecord) -> JobState:
        job = self.jobs.get(record.fingerprint)
        if job is None:
            job = self.jobs[record.fingerprint] = JobState(record.job, record.fingerprint)
        # What a key stands for moves with what was last asked for under it; a late result of an
        # earlier prompt does not move it back.
        if record.job not in self.fingerprints:
            self.fingerprints[record.job] = job.fingerprint
        return job

    def _apply_submitting(self, record: Submitting, offset_bytes: int) -> None:
        job = self._job_of(record)
        self.fingerprints[record.job] = job.fingerprint
        self._presume_paid(job)
        job.key, job.path, job.model = record.job, record.path, sys.intern(record.model)
        job.phase, job.request_id = Phase.SUBMITTING, None
        job.reason = job.message = None
        job.intent_offset_bytes = offset_bytes
        self.submit_times.append(record.at)
        self._reserve(job, record.reserved_usd)

    def _apply_refused(self, job: JobState, record: Refused) -> None:
        self._settle(job, _ZERO)
        job.phase, job.again = Phase.REFUSED, record.again
        job.reason, job.message = record.reason, record.message

    def _apply_submitted(self, job: JobState, record: Submitted) -> None:
        job.phase, job.request_id = Phase.IN_FLIGHT, record.request_id

    def _apply_unknown(self, job: JobState, record: Unknown) -> None:
        job.phase, job.reason, job.message = Phase.UNKNOWN, "unknown", record.why

    def _apply_succeeded(self, job: JobState, record: Succeeded) -> None:
        self._settle(job, record.cost_usd)
        job.phase, job.request_id = Phase.SUCCEEDED, record.request_id

    def _apply_failed(self, job: JobState, record: Failed) -> None:
        self._settle(job, record.cost_usd)
        job.phase, job.reason, job.message = Phase.FAILED, record.reason, record.message

    def _apply_cancelled(self, job: JobState, record: Cancelled) -> None:
        self._settle(job, record.cost_usd or _ZERO)
        job.phase, job.reason = Phase.CANCELLED, "cancelled"

    def _apply_saved(self, job: JobState, record: Saved) -> None:
        if record.reused_from is not None:
            self.fingerprints[record.job] = job.fingerprint
        self._settle(job, None)
        files = tuple(record.files)
        if job.files and job.files != files:
            # Under an earlier or another name: whole copies that were paid for.
            others = (one for one in job.copies if one not in (files, job.files))
            job.copies = (*others, job.files)
        job.phase, job.files = Phase.DONE, files
        job.reason = job.message = None

    def _apply_resolved(self, job: JobState, record: Resolved) -> None:
        match record.how:
            case "attached":
                job.phase, job.request_id = Phase.IN_FLIGHT, record.request_id
            case "resubmit":
                self._presume_paid(job)
                job.phase = Phase.RELEASED
            case "abandoned":
                self._settle(job, None)
                job.phase, job.reason = Phase.CANCELLED, ABANDONED

    # Money: what was reserved stays counted until the service, or the lack of a better figure,
    # replaces it. One request counts once, however often its result is read; the figure read last
    # holds. An unknown job that is sent again counts twice: it may have been paid twice.

    def _reserve(self, job: JobState, amount: Decimal | None) -> None:
        job.reserved_usd = amount
        self.reserved_usd += amount or _ZERO

    def _settle(self, job: JobState, cost_usd: Decimal | None) -> None:
        if job.reserved_usd is None and cost_usd is None:
            return
        reserved_usd, job.reserved_usd = job.reserved_usd or _ZERO, None
        spent_usd = job.spent_usd + reserved_usd if cost_usd is None else cost_usd
        # A million jobs have a handful of prices: one object for each of those.
        spent_usd = self._amounts.setdefault(spent_usd, spent_usd)
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd - job.spent_usd
        job.spent_usd = spent_usd

    def _presume_paid(self, job: JobState) -> None:
        """Count the request as paid for, and be done with it: what follows is another one."""
        self._settle(job, None)
        job.spent_usd = _ZERO

    _STEPS: ClassVar[dict[type, Callable[[State, JobState, Any], None]]] = {
        Refused: _apply_refused,
        Submitted: _apply_submitted,
        Unknown: _apply_unknown,
        Succeeded: _apply_succeeded,
        Failed: _apply_failed,
        Cancelled: _apply_cancelled,
        Saved: _apply_saved,
        Resolved: _apply_resolved,
    }


_FOLLOWING = frozenset((Refused, Submitted, Unknown, Succeeded, Failed, Cancelled))
_AMOUNTS = dict.fromkeys((Succeeded, Failed, Cancelled), "cost_usd") | {Submitting: "reserved_usd"}


class Torn(NamedTuple):
    """The unfinished end of a ledger: where it begins, and how long it is."""

    offset_bytes: int
    size_bytes: int


class Replayed(NamedTuple):
    """A ledger read to its end."""

    state: State
    torn: Torn | None
    size_bytes: int


def ledger_path(output_folder: Path) -> Path:
    """Return where the ledger of an output folder is."""
    return output_folder / FILE_NAME


def read_ledger(path: Path | str) -> Iterator[Record]:
    """Yield a ledger's records, without a torn last line; changes nothing.

    Raises InputMissingError, LedgerDamagedError or StorageError.
    """
    path = Path(path)
    try:
        for number, line in enumerate(_lines(path), start=1):
            if line.endswith(b"\n"):
                yield decode_line(path, number, line)
    except FileNotFoundError as error:
        raise InputMissingError(f"{path}: no such ledger", hint="nothing was run here") from error


def replay(path: Path) -> Replayed:
    """Read a ledger into a State; a ledger that is not there is an empty one; changes nothing.

    Raises LedgerDamagedError or StorageError.
    """
    state, size, torn = State(), 0, None
    try:
        for number, line in enumerate(_lines(path), start=1):
            if not line.endswith(b"\n"):
                torn = Torn(size, len(line))
                break
            record = decode_line(path, number, line)
            try:
                state.apply(record, size)
            except ValueError as error:
                raise damaged(path, number, str(error)) from error
            size += len(line)
    except FileNotFoundError:
        return Replayed(state, None, 0)
    return Replayed(state, torn, size)


class Placed(NamedTuple):
    """A record, its line, and where that stands."""

    record: Record
    line: bytes
    offset_bytes: int
    path: Path
    number: int


def _read_placed(path: Path) -> Iterator[Placed]:
    size = 0
    with contextlib.suppress(FileNotFoundError):
        for number, line in enumerate(_lines(path), start=1):
            if line.endswith(b"\n"):
                yield Placed(decode_line(path, number, line), line, size, path, number)
                size += len(line)


def merge_ledgers(paths: Iterable[Path]) -> Iterator[Placed]:
    """Yield the records of several ledgers by time; those of one stay in their order."""
    return heapq.merge(*map(_read_placed, paths), key=lambda placed: placed.record.at)


def read_ledgers(paths: Sequence[Path]) -> Iterator[Record]:
    """Yield the records of a batch's ledgers by time, as if they were one with one header.

    A ledger that is not there is an empty one. Raises LedgerDamagedError or StorageError.
    """
    has_header = False
    for placed in merge_ledgers(paths):
        if isinstance(placed.record, LedgerHeader):
            if has_header:
                continue
            has_header = True
        yield placed.record


def replay_all(paths: Sequence[Path]) -> State:
    """Read a batch's ledgers into one State, as if they were one; changes nothing.

    A fingerprint is in one ledger only, so that nothing depends on how the others run beside it.
    `run_finished` is None if the last run of any ledger did not finish; else it is one that
    stopped early, if there is one. Raises LedgerDamagedError or StorageError.
    """
    if len(paths) == 1:
        return replay(paths[0]).state
    state = State()
    started: dict[Path, RunStarted] = {}
    finished: dict[Path, RunFinished] = {}
    for record, _, offset_bytes, path, number in merge_ledgers(paths):
        if isinstance(record, LedgerHeader) and state.header is not None and number == 1:
            continue
        if isinstance(record, RunStarted):
            started[path] = record
            finished.pop(path, None)
        elif isinstance(record, RunFinished):
            finished[path] = record
        try:
            state.apply(record, offset_bytes)
        except ValueError as error:
            raise damaged(path, number, str(error)) from error
    state.run_finished = None
    if started.keys() == finished.keys():
        state.run_finished = max(
            finished.values(), key=lambda run: (run.stopped is not None, run.at), default=None
        )
    return state


def read_header(path: Path) -> LedgerHeader | None:
    """Return the first line of a ledger; None where there is none yet."""
    first = next(_read_placed(path), None)
    return first.record if first and isinstance(first.record, LedgerHeader) else None


def read_intent(path: Path, job: JobState) -> Submitting | None:
    """Return the last `submitting` record of a job: what was sent; None where there is none."""
    if job.intent_offset_bytes == 0:
        return None  # the header stands there: nothing was ever sent for this job
    with path.open("rb") as file:
        file.seek(job.intent_offset_bytes)
        record = decode(file.readline())
    return record if isinstance(record, Submitting) else None


def owner_of(output_folder: Path) -> str | None:
    """Return who holds the ledger of a folder ("pid 12 on host"), or None; changes nothing."""
    try:
        descriptor = os.open(output_folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(descriptor, 300).decode(errors="replace").strip() or "another process"
    finally:
        os.close(descriptor)
    return None


class Ledger:
    """The open ledger of one output folder, and its owner's only way to write to it."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        lock: int,
        replayed: Replayed,
        *,
        reserve: Reserve,
        copy: Offsite | None = None,
    ) -> None:
        self.path = path
        self._reserve = reserve
        self._full: StorageError | None = None
        self._name = str(path)
        self._copy = copy
        self._copy_failure: BatchRunnerError | None = None
        self.state = replayed.state
        self.cut_bytes = replayed.torn.size_bytes if replayed.torn else 0
        self._descriptor = descriptor
        self._lock = lock
        self._size_bytes = replayed.size_bytes
        self._appended = 0
        self._synced = 0
        self._failure: StorageError | None = None
        self._wanted = 0
        self._soon: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @classmethod
    def open(
        cls,
        output_folder: Path,
        header: LedgerHeader,
        check: Callable[[], None] | None = None,
        take_copy: Callable[[Path], Offsite] | None = None,
    ) -> Ledger:
        """Lock, repair and replay; a new ledger begins with `header`.

        `check` is called once the folder is locked and nothing is changed yet; it may refuse.
        `take_copy` then becomes the owner of the ledger's copy, and may bring the file up to it.
        Raises LedgerLockedError, LedgerDamagedError, StorageError.
        """
        path = ledger_path(output_folder)
        with contextlib.ExitStack() as undo:
            try:
                _make_folder(output_folder)
                lock = _take_lock(output_folder / LOCK_NAME)
                undo.callback(os.close, lock)
                if check is not None:
                    check()
                if take_copy is None:
                    # What is bought from now on is in no copy: none may be taken for it later.
                    (output_folder / OWNER_NAME).unlink(missing_ok=True)
                copy = None if take_copy is None else take_copy(path)
                if copy is not None:
                    undo.callback(copy.close, release=False)
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                descriptor = os.open(path, flags, 0o644)
                undo.callback(os.close, descriptor)
                # The ledger itself is locked too: somebody may remove the lock file under a run.
                if not _is_locked_now(descriptor):
                    raise _locked(output_folder, "its lock file was removed")
                replayed = replay(path)
                if replayed.torn is not None:
                    # Before the first append: otherwise the next record would be glued to the torn
                    # one, and both would be lost to the run after this.
                    os.ftruncate(descriptor, replayed.size_bytes)
                    _sync_data(descriptor)
                # Before anything is bought: a disk that is full already is said now.
                reserve = Reserve(output_folder)
                undo.callback(reserve.close)
                ledger = cls(path, descriptor, lock, replayed, reserve=reserve, copy=copy)
                if replayed.state.header is None:
                    ledger.append(header)
                    _sync_data(descriptor)
                    sync_folder(output_folder)
                    ledger._synced = ledger._appended
                # What a former run wrote here, and did not come to ship.
                ledger._ship(ledger._size_bytes)
            except OSError as error:
                raise _storage_error(path, error) from error
            undo.pop_all()
        return ledger

    @property
    def header(self) -> LedgerHeader:
        """Return its first line."""
        if self.state.header is None:
            raise damaged(self.path, 1, "there is no header")
        return self.state.header

    def __repr__(self) -> str:
        return (
            f"Ledger({str(self.path)!r}, {len(self.state.jobs)} jobs,"
            f" {self._appended - self._synced} records not yet durable)"
        )

    def append(self, record: Record) -> None:
        """Write one record, and take it into the state; raises StorageError.

        Synchronous on purpose: nothing can be cancelled between an answer and its record.
        """
        if self._failure is not None:
            raise self._failure
        # Before the write: a line that no replay accepts would make the whole file useless.
        self.state.check(record)
        line, is_intent = encode(record), isinstance(record, Submitting)
        if is_intent and self._full is not None:
            raise self._full
        try:
            self._write(line, reserved=not is_intent)
        except OSError as error:
            failure = _storage_error(self.path, error)
            try:
                # The tail was never acknowledged.
                os.ftruncate(self._descriptor, self._size_bytes)
            except OSError:
                self._failure = failure  # nothing may stand behind it: the next open repairs it
            if is_intent and error.errno in _FULL:
                # Nothing was sent. What the service still answers has the reserve to be written in.
                self._full = failure
            else:
                self._failure = failure
            raise failure from error
        self.state.apply_checked(record, self._size_bytes)
        self._size_bytes += len(line)
        self._appended += 1

    def _write(self, line: bytes, *, reserved: bool) -> None:
        """Write a line; `reserved` says whether it may take the space that was set aside."""
        rest = line
        while rest:
            try:
                written = os.write(self._descriptor, rest)
                if not written or (written < len(rest) and not reserved):
                    # A full disk shows itself first as a short write. What stands there is torn.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                if not reserved or error.errno not in _FULL or not self._reserve.give_back():
                    raise
                # From now on what is known is written down, and nothing more is bought.
                self._full = _storage_error(self.path, error)
                continue
            rest = rest[written:]

    async def durable(self) -> None:
        """Return once everything appended so far is on the disk; raises StorageError.

        One sync serves everyone who waits: whatever was appended while the last one ran.
        """
        failure = self._failure or self._copy_failure
        if failure is not None:
            raise failure
        if self._synced < self._appended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((self._appended, waiter))
            self._begin_sync()
            # Its own future: a waiter that is cancelled takes the sync away from nobody.
            await waiter

    def sync_soon(self) -> None:
        """Make everything appended so far durable within moments, without waiting for it.

        The next intent's sync takes it along; where none comes, it gets one of its own. What fails
        then is raised by whatever is asked of the ledger next.
        """
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SOON_S, self._begin_sync)

    def _begin_sync(self) -> None:
        self._forget_soon()
        self._wanted = self._appended
        if self._syncing is None and self._failure is None and self._synced < self._wanted:
            loop = asyncio.get_running_loop()
            sync = functools.partial(self._sync_to_disk, self._size_bytes)
            self._syncing = loop.run_in_executor(self._pool, sync)
            self._syncing.add_done_callback(functools.partial(self._after_sync, self._appended))

    def _forget_soon(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _after_sync(self, covers: int, syncing: asyncio.Future[None]) -> None:
        self._syncing = None
        error = syncing.exception()
        if error is None:
            self._synced = covers
        elif isinstance(error, OSError):
            # After a failed sync the kernel may have dropped the pages: nobody can know what is on
            # the disk, and a second sync would lie. So this ledger takes nothing more.
            error = self._failure = _storage_error(self.path, error)
        elif isinstance(error, BatchRunnerError):
            # The disk is well: what is known here is still recorded, but nothing more may leave.
            self._copy_failure = error
        # An append may have failed while the sync ran: what it did not cover never becomes durable.
        error = error or self._failure or self._copy_failure
        waiters, self._waiters = self._waiters, []
        for wanted, waiter in waiters:
            if waiter.done():
                continue  # it was cancelled
            if wanted <= self._synced:
                waiter.set_result(None)
            elif error is not None:
                waiter.set_exception(error)
            else:
                self._waiters.append((wanted, waiter))
        if self._synced < self._wanted and self._copy_failure is None:
            self._begin_sync()

    def _sync_to_disk(self, size_bytes: int) -> None:
        """Make so much of the file durable: on this disk, and then in its copy."""
        _sync_data(self._descriptor)
        # A ledger whose name is gone takes every byte, and nobody will ever read them.
        if not os.path.samestat(os.stat(self._name), os.fstat(self._descriptor)):  # noqa: PTH116 - per sync
            raise FileNotFoundError(errno.ENOENT, "the ledger was replaced under the run")
        self._ship(size_bytes)

    def _ship(self, size_bytes: int) -> None:
        """Bring the copy, where there is one, up to so much of the file."""
        while self._copy is not None and self._copy_failure is None:
            missing = size_bytes - self._copy.size_bytes
            if missing <= 0:
                return
            read = os.pread(self._descriptor, min(missing, _READ_BYTES), self._copy.size_bytes)
            whole = read.rfind(b"\n") + 1
            # A line longer than what is read at a time is read whole.
            self._copy.ship(
                read[:whole] or os.pread(self._descriptor, missing, self._copy.size_bytes)
            )

    def close(self) -> None:
        """Make everything durable and give the ledger up; raises StorageError."""
        self._forget_soon()
        if self._copy is not None:
            self._copy.hurry()
        self._pool.shutdown(wait=True)
        try:
            if self._failure is None and self._synced < self._appended:
                self._sync_to_disk(self._size_bytes)
            if self._copy is not None:
                self._copy.close(release=self._failure is None and self._copy_failure is None)
        except OSError as error:
            raise _storage_error(self.path, error) from error
        finally:
            self._reserve.close()
            os.close(self._descriptor)
            os.close(self._lock)


class _FirstLine(msgspec.Struct, frozen=True):
    """What a ledger of any format says about itself."""

    record: str
    version: Any = None


def _lines(path: Path) -> Iterator[bytes]:
    """Yield every line with its newline, which only a torn last one lacks.

    Raises FileNotFoundError or StorageError.
    """
    try:
        with path.open("rb", buffering=_READ_BYTES) as file:
            yield from file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def decode_line(path: Path, number: int, line: bytes) -> Record:
    """Return the record on a ledger's line; raises LedgerDamagedError, naming the line."""
    try:
        if number == 1:
            _check_format(path, msgspec.json.decode(line, type=_FirstLine))
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(path, number, str(error)) from error


def _check_format(path: Path, first: _FirstLine) -> None:
    # Before anything else is read: other formats may have other fields, and other records.
    if first.record != "ledger":
        raise damaged(path, 1, "the first line is not a ledger's header")
    if first.version != LEDGER_VERSION:
        raise LedgerDamagedError(
            f"{path}:1: it has format {first.version}, this program knows {LEDGER_VERSION}",
            hint="use the program that wrote it, or another output.dir",
        )


def damaged(path: Path, number: int, why: str) -> LedgerDamagedError:
    """Return the error that says which line of a ledger cannot be."""
    return LedgerDamagedError(
        f"{path}:{number}: the ledger is damaged: {why}",
        hint="nothing was changed; restore the file from a backup, or repair the line by hand",
    )


def _locked(folder: Path, owner: str) -> LedgerLockedError:
    return LedgerLockedError(
        f"{folder}: another run is at work here ({owner})",
        hint="wait for it to end, or stop it; this command can be run again at any time",
    )


@contextlib.contextmanager
def hold(
    folder: Path, *, shared: bool = False, name: str = LOCK_NAME, patience_s: float = 0.0
) -> Iterator[None]:
    """Hold a folder's lock as long as the block lasts, alone or with others who share it.

    Raises LedgerLockedError where somebody else holds it after so many seconds, or StorageError.
    """
    path = folder / name
    try:
        _make_folder(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _storage_error(path, error) from error
    try:
        attempts = max(_LOCK_ATTEMPTS, round(patience_s / _LOCK_PAUSE_S))
        if not _is_locked_now(descriptor, shared=shared, attempts=attempts):
            owner = os.read(descriptor, 300).decode(errors="replace").strip()
            raise _locked(folder, owner or "owner unknown")
        yield
    finally:
        os.close(descriptor)


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _is_locked_now(descriptor):
            owner = os.read(descriptor, 300).decode(errors="replace").strip()
            raise _locked(path.parent, owner or "owner unknown")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_locked_now(
    descriptor: int, *, shared: bool = False, attempts: int = _LOCK_ATTEMPTS
) -> bool:
    """Lock the file; False where somebody else holds it, and goes on holding it."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
    return False


def _sync_data(descriptor: int) -> None:
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:  # macOS: fsync alone leaves the data in the drive's cache
        fcntl.fcntl(descriptor, full_sync)
    else:
        os.fdatasync(descriptor)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each synced into the one that holds it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def sync_file(path: Path) -> None:
    """Make durable what a file holds; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(path: Path, error: OSError) -> StorageError:
    hints = {
        errno.ENOSPC: "free some space, then run the same command again: nothing is lost",
        errno.EDQUOT: "free some space, then run the same command again: nothing is lost",
        errno.EROFS: "the folder is read-only; choose another output.dir",
        errno.EACCES: "the folder may not be written to; check its permissions",
    }
    return StorageError(
        f"{path}: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "look at the disk, then run the same command again"),
    )
