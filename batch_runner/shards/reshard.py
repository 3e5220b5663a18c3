"""Changing the split of a batch: its ledgers are merged, and split into another number of shards.

Hides the order in which files are written and moved. What always holds: no record is lost or
doubled, whenever it is killed and run again; the new ledgers add up to the old ones (jobs, their
standings, money), or nothing is changed; the old ledgers are kept; no run is active meanwhile.

    shards/.dealing/     the new ledgers, until they are whole, checked and on the disk
    shards/.dealt-N/     the same folder, renamed: from now on the new ledgers hold. First the old
                         ledgers move into its `before`, then the new ones to their places
    shards/.before-TIME/ what remains of it: the old ledgers (-2, -3 within one second)
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner import PROGRAM
from batch_runner.errors import InputMissingError, LedgerDamagedError, StorageError, UsageError
from batch_runner.files.disk import make_folder, sync_file, sync_folder, unused
from batch_runner.ledger.job import Phase
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import FILE_NAME, ledger_path, merge_ledgers, read_header, replay
from batch_runner.ledger.state import State
from batch_runner.records import JobRecord, LedgerHeader, encode
from batch_runner.shards.quota import budget_offsets
from batch_runner.shards.shard import (
    MOVING_PREFIX,
    SHARDS_FOLDER,
    Shard,
    index_of,
    ledger_dirs,
    shard_of,
)

_WRITING = ".dealing"  # named by an earlier release, whose reshard may have been interrupted
_BEFORE = "before"
# A process may have only a thousand files open, so lines are kept in memory and files opened
# rarely.
_BUFFERED_BYTES = 64 * 1024 * 1024
# The header is rewritten last: its amounts are known only after everything else is written.
_HEADER_BYTES = 512


class Resharded(NamedTuple):
    """What a reshard did: from how many ledgers to how many, with how many jobs."""

    before: int
    after: int
    jobs: int


class _Totals(NamedTuple):
    """What ledgers add up to."""

    phases: Counter[str]
    spent_usd: Decimal
    reserved_usd: Decimal

    @classmethod
    def of(cls, states: Iterable[State]) -> _Totals:
        phases: Counter[str] = Counter()
        spent_usd = reserved_usd = Decimal(0)
        for state in states:
            phases.update(str(job.phase) for job in state.jobs.open.values())
            phases[str(Phase.DONE)] += state.jobs.finished
            spent_usd += state.spent_usd
            reserved_usd += state.reserved_usd
        return cls(phases, spent_usd, reserved_usd)


def reshard(output_folder: Path, count: int, now: datetime) -> Resharded:
    """Split the ledgers of a folder into `count` shards, or merge them into one ledger for 1.

    Raises InputMissingError, UsageError, LedgerLockedError, LedgerDamagedError, StorageError.
    """
    shards = output_folder / SHARDS_FOLDER
    nothing = InputMissingError(
        f"{output_folder}: nothing was run here",
        hint="start with batch-runner run MANIFEST" + (f" --shard 0/{count}" if count > 1 else ""),
    )
    if not output_folder.exists():
        raise nothing
    with hold(output_folder), _disk_errors(shards):
        for interrupted in shards.glob(f"{MOVING_PREFIX}*"):
            _put_in_place(output_folder, interrupted, now)
        shutil.rmtree(shards / _WRITING, ignore_errors=True)
        folders = ledger_dirs(output_folder)
        paths = [path for path in map(ledger_path, folders) if path.exists()]
        if not paths:
            raise nothing
        totals = _Totals.of(replay(path).state for path in paths)
        if len(folders) != count:
            make_folder(shards)  # on the disk before the old ledgers move into it
            _write_new(paths, shards / _WRITING, count, totals, now)
            # This rename decides: before it the old ledgers hold, after it the new ones.
            moving = (shards / _WRITING).rename(shards / f"{MOVING_PREFIX}{count}")
            _put_in_place(output_folder, moving, now)
    return Resharded(len(folders), count, totals.phases.total())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror or error}",
            hint="nothing is lost: check the disk, then run the same command again",
        ) from error


def _write_new(paths: list[Path], folder: Path, count: int, totals: _Totals, now: datetime) -> None:
    """Write the new ledgers, check that they add up, and make them durable."""
    header = msgspec.structs.replace(
        _common_header(paths), at=now, program=PROGRAM, budget_offset_usd=None, last_submit_at=None
    )
    folder.mkdir()
    (folder / _BEFORE).mkdir()
    targets = [folder / _file_name(index, count) for index in range(count)]
    for index, target in enumerate(targets):
        own = None if count == 1 else str(Shard(index, count))
        target.write_bytes(_padded(msgspec.structs.replace(header, shard=own)))
    _write_records(paths, targets)
    committed, phases, last = [], _Totals.of(()), None
    for target in targets:
        state = replay(target).state
        one = _Totals.of([state])
        phases = _Totals(
            phases.phases + one.phases,
            phases.spent_usd + one.spent_usd,
            phases.reserved_usd + one.reserved_usd,
        )
        committed.append(one.spent_usd + one.reserved_usd)
        times = [now] if state.leaving else []
        last = max(filter(None, (last, *times, *list(state.submit_times)[-1:])), default=None)
    if phases != totals:
        raise LedgerDamagedError(
            f"{folder.parent.parent}: the new ledgers do not add up to the old ones",
            hint="nothing was changed; check whether two of the old ledgers record the same job",
        )
    if count > 1:
        offsets = budget_offsets(committed)
        for index, (target, offset_usd) in enumerate(zip(targets, offsets, strict=True)):
            final = msgspec.structs.replace(
                header,
                shard=str(Shard(index, count)),
                budget_offset_usd=offset_usd,
                last_submit_at=last,
            )
            with target.open("r+b") as file:
                file.write(_padded(final))
    for target in targets:
        sync_file(target)
    sync_folder(folder)


def _write_records(paths: list[Path], targets: list[Path]) -> None:
    """Write each record to the ledger that its job belongs to now, with its order among all.

    Without that order nobody could tell which of two pictures got a name last: their jobs may be in
    two ledgers now, and a clock may have been set back between them.
    """
    lines: list[list[bytes]] = [[] for _ in targets]
    buffered = 0

    def flush() -> None:
        for target, some in zip(targets, lines, strict=True):
            if some:
                with target.open("ab") as file:
                    file.writelines(some)
                some.clear()

    for order, located in enumerate(merge_ledgers(paths)):
        record, line, index = located.record, located.line, 0
        if isinstance(record, LedgerHeader):
            continue
        if isinstance(record, JobRecord):
            line = encode(msgspec.structs.replace(record, order=order))
            index = index_of(record.fingerprint, len(targets))
        # A record of a whole run goes to the first ledger: it must be there once.
        lines[index].append(line)
        buffered += len(line)
        if buffered >= _BUFFERED_BYTES:
            flush()
            buffered = 0
    flush()


def _put_in_place(output_folder: Path, moving: Path, now: datetime) -> None:
    """Replace the old ledgers by the new ones; after a kill it continues at any step."""
    shards = moving.parent
    count = int(moving.name.removeprefix(MOVING_PREFIX))
    before = moving / _BEFORE
    # First of all: until its new name is on the disk, nothing may move into it.
    sync_folder(shards)
    for folder in list(shards.iterdir()):
        shard = shard_of(folder)
        if shard is not None and shard.count != count:
            folder.rename(before / folder.name)
    if count > 1 and ledger_path(output_folder).exists():
        ledger_path(output_folder).replace(before / FILE_NAME)
    folders = [Shard(index, count).ledger_dir(output_folder) for index in range(count)]
    if count == 1:
        folders = [output_folder]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    # The old ledgers must be gone for good, and the folders there for good, before a new one gets
    # its name.
    sync_folder(before)
    sync_folder(shards)
    sync_folder(output_folder)
    for index, folder in enumerate(folders):
        new = moving / _file_name(index, count)
        if new.exists():
            new.replace(ledger_path(folder))
        # Even if it was there: who moved it may have been killed before this.
        sync_folder(folder)
    sync_folder(shards)
    moving.rename(unused(shards / f".before-{now:%Y%m%dT%H%M%SZ}"))
    sync_folder(shards)


def _common_header(paths: list[Path]) -> LedgerHeader:
    headers = [header for header in map(read_header, paths) if header is not None]
    services = {header.service for header in headers}
    if len(services) != 1:
        raise UsageError(
            f"the ledgers belong to different services: {', '.join(sorted(services))}",
            hint="keep the ledgers of one service; move a rehearsal's ledgers (local) away",
        )
    return headers[0]


def _padded(header: LedgerHeader) -> bytes:
    return encode(header).rstrip(b"\n").ljust(_HEADER_BYTES - 1) + b"\n"


def _file_name(index: int, count: int) -> str:
    return f"{index}-of-{count}.jsonl"
