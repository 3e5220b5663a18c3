"""Reading ledgers: lines to records, records to a State; nothing is ever changed.

Hides the format on the disk. What always holds: a torn last line was never acknowledged, and is
ignored, as are lines after zeros that were not synced; damage anywhere else is refused with its
line.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, takewhile
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner.errors import InputMissingError, LedgerDamagedError, StorageError
from batch_runner.ledger.job import JobState
from batch_runner.ledger.state import State
from batch_runner.records import (
    LEDGER_VERSION,
    Cancelled,
    Failed,
    JobRecord,
    LedgerHeader,
    Record,
    RunFinished,
    RunStarted,
    Saved,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    decode,
)

FILE_NAME = "ledger.jsonl"
READ_BYTES = 4 * 1024 * 1024
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_SINCE_ORDERED = sys.maxsize
_NEWS = (Submitted, Unknown, Succeeded, Failed, Cancelled)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Replayed(NamedTuple):
    """A ledger read to its end: how long it is, without a torn last line of so many bytes."""

    state: State
    torn_bytes: int
    size_bytes: int


def ledger_path(output_folder: Path) -> Path:
    """Return where the ledger of an output folder is."""
    return output_folder / FILE_NAME


def read_ledger(path: Path | str) -> Iterator[Record]:
    """Yield a ledger's records, without a torn last line; changes nothing.

    Raises InputMissingError, LedgerDamagedError or StorageError.
    """
    path = Path(path)
    if not path.exists():
        raise InputMissingError(
            f"{path}: no such ledger", hint="the first run of the batch creates it"
        )
    for located in _read_located(path):
        yield located.record


def replay(path: Path) -> Replayed:
    """Read a ledger into a State; a missing ledger counts as empty; changes nothing.

    Raises LedgerDamagedError or StorageError.
    """
    state, number, size, torn = State(), 0, 0, 0
    apply = state.apply
    try:
        for lines in _blocks(path):
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            if lines and number == 0:
                decode_line(path, 1, lines[0])  # it checks the format
            for line in lines:
                number += 1
                apply(decode(line), size)
                size += len(line)
            if rest:
                torn = len(rest)
                break
    except FileNotFoundError:
        return Replayed(state, 0, 0)
    except (*_UNREADABLE, ValueError) as error:
        raise damaged(path, number, str(error)) from error
    return Replayed(state, torn, size)


class Located(NamedTuple):
    """A record, and where its line is."""

    record: Record
    offset_bytes: int
    path: Path
    number: int


def _read_located(path: Path) -> Iterator[Located]:
    size = 0
    with contextlib.suppress(FileNotFoundError):
        for number, line in enumerate(chain.from_iterable(_blocks(path)), start=1):
            if line.endswith(b"\n"):
                yield Located(decode_line(path, number, line), size, path, number)
                size += len(line)


def merge_ledgers(paths: Iterable[Path]) -> Iterator[Located]:
    """Yield the records of several ledgers in the order in which they were written.

    Records with an `order` keep it. Later records follow by time; those of one ledger keep their
    order, even if the clock was set back between them.
    """
    return map(itemgetter(1), heapq.merge(*map(_read_ranked, paths), key=itemgetter(0)))


def _read_ranked(path: Path) -> Iterator[tuple[tuple[int, datetime], Located]]:
    order, at = 0, _LONG_AGO
    for located in _read_located(path):
        record = located.record
        # The time of a header or a run's record does not count: it stays behind the job's record
        # before it. A header's time may be long after the records that follow it.
        if isinstance(record, JobRecord):
            order = _SINCE_ORDERED if record.order is None else record.order
            at = max(at, record.at) if record.order is None else _LONG_AGO
        yield (order, at), located


def read_ledgers(paths: Sequence[Path]) -> Iterator[Record]:
    """Yield the records of a batch's ledgers in order, with the header of each.

    A missing ledger counts as empty. Raises LedgerDamagedError or StorageError.
    """
    return (located.record for located in merge_ledgers(paths))


def replay_all(paths: Sequence[Path]) -> State:
    """Read a batch's ledgers into one State, as if they were one; changes nothing.

    A fingerprint is in one ledger only, so the others do not affect its state. `run_finished` is
    None if the last run of any ledger did not finish; otherwise it is a run that stopped early, if
    there is one. Raises LedgerDamagedError or StorageError.
    """
    if len(paths) == 1:
        return replay(paths[0]).state
    state = State()
    started: dict[Path, RunStarted] = {}
    finished: dict[Path, RunFinished] = {}
    for record, offset_bytes, path, number in merge_ledgers(paths):
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


def unpriced_intents(paths: Iterable[Path], state: State) -> Iterator[tuple[Submitting, int]]:
    """Yield the intent of each purchase that `state` counts for nothing, and its offset."""
    if not state.money.unpriced:
        return
    for located in merge_ledgers(paths):
        record, offset_bytes = located.record, located.offset_bytes
        if isinstance(record, Submitting) and state.money.is_unpriced(record, offset_bytes):
            yield record, offset_bytes


def read_header(path: Path) -> LedgerHeader | None:
    """Return the first line of a ledger; None if there is none yet."""
    first = next(_read_located(path), None)
    return first.record if first and isinstance(first.record, LedgerHeader) else None


def read_intent(path: Path, job: JobState) -> Submitting | None:
    """Return the last intent of a job, or the one it would have had; None if there is neither."""
    if job.intent_offset_bytes == 0:
        return None  # that is the header's place: nothing was ever sent for this job
    with path.open("rb") as file:
        file.seek(job.intent_offset_bytes)
        record = decode(file.readline())
    if isinstance(record, Saved) and record.model is not None:
        return Submitting(
            at=record.at,
            job=record.job,
            fingerprint=record.fingerprint,
            model=record.model,
            input=record.input or {},
            path=job.path,
            attempt=0,
            named=record.named,
        )
    return record if isinstance(record, Submitting) else None


def whole_lines_bytes(descriptor: int) -> int:
    """Return the length of a file without a torn last line."""
    place = os.fstat(descriptor).st_size
    while place > 0:
        start = max(0, place - READ_BYTES)
        newline = os.pread(descriptor, place - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        place = start
    return 0


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield every line with its newline, which only a torn last line lacks, thousands at a time.

    Raises FileNotFoundError or StorageError.
    """
    try:
        with path.open("rb", buffering=READ_BYTES) as file:
            while lines := file.readlines(READ_BYTES):
                hole = next((at for at, line in enumerate(lines) if b"\0" in line), None)
                if hole is None:
                    yield lines
                    continue
                rest = [*lines[hole:], *file.readlines()]
                was_synced = _was_synced(path, rest)
                yield [*lines[:hole], lines[hole] if was_synced else b"".join(rest).rstrip(b"\n")]
                return
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be read: {error.strerror}",
            hint="nothing was changed; check its permissions and the disk",
        ) from error


def _was_synced(path: Path, rest: list[bytes]) -> bool:
    """Tell whether the zeros at the begin of these last lines are damage, by the lines after them.

    A power cut can leave zeros in place of a page, and the next page whole, but only in what was
    not synced yet: the torn end may be several lines. An intent is synced before its call leaves.
    So two things show that the zeros stand where something was: an answer to an intent after them,
    and news of a job without any intent, which must have been there.
    """
    with path.open("rb") as file:
        intact = _decoded(takewhile(lambda line: b"\0" not in line, file))
        before = {one.fingerprint for one in intact if isinstance(one, Submitting)}
    # Fingerprints whose intent is before the zeros, and not after them.
    for record in _decoded(rest):
        if isinstance(record, Submitting):
            before.discard(record.fingerprint)
        elif isinstance(record, _NEWS) and record.fingerprint not in before:
            return True
    return False


def _decoded(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        with contextlib.suppress(*_UNREADABLE):
            yield decode(line)


def decode_line(path: Path, number: int, line: bytes) -> Record:
    """Return the record on a ledger's line; raises LedgerDamagedError, naming the line."""
    try:
        record = decode(line)
    except _UNREADABLE as error:
        raise damaged(path, number, str(error)) from error
    if number == 1:
        if not isinstance(record, LedgerHeader):
            raise damaged(path, 1, "the first line is not a ledger's header")
        if record.version != LEDGER_VERSION:
            raise LedgerDamagedError(
                f"{path}:1: this ledger has format {record.version}, and this program reads format"
                f" {LEDGER_VERSION}",
                hint="use the release that wrote it, or set another output.dir",
            )
    return record


def damaged(path: Path, number: int, why: str) -> LedgerDamagedError:
    """Return the error for a line of a ledger that cannot be right."""
    return LedgerDamagedError(
        f"{path}:{number}: the ledger is damaged: {why}",
        hint="nothing was changed; restore the file from a backup, or repair this line by hand",
    )
