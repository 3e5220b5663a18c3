"""Dealing a batch's ledgers anew: put together, and parted into another number of shards.

Hides in which order files are written and moved. What always holds: no record is lost or told
twice, whenever it is killed and run again; what is dealt adds up to what there was (jobs, how they
stand, money), or nothing is changed; the former ledgers are kept aside; nobody runs there
meanwhile.

    shards/.dealing/     the new ledgers, until they are whole, checked and on the disk
    shards/.dealt-N/     the same, from the moment on from which they hold: now the former ledgers
                         move into its `before`, and then the new ones to their places
    shards/.before-TIME/ what remains of it: the former ledgers (-2, -3 within one second)
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
from batch_runner.files.disk import move, sync_file, sync_folder, unused
from batch_runner.ledger.job import Phase
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import FILE_NAME, ledger_path, merge_ledgers, read_header, replay
from batch_runner.ledger.state import State
from batch_runner.records import JobRecord, LedgerHeader, encode
from batch_runner.shards.quota import budget_offsets
from batch_runner.shards.shard import (
    DEALT_PREFIX,
    SHARDS_FOLDER,
    Shard,
    ledger_dirs,
    part_of,
    shard_of,
)

_DEALING = ".dealing"
_BEFORE = "before"
# Files are written through as few openings as memory allows: a process may have a thousand open.
_BUFFERED_BYTES = 64 * 1024 * 1024
# The header is written last: what it says of money is known when everything else stands.
_HEADER_BYTES = 512


class Dealt(NamedTuple):
    """What a dealing did: from how many ledgers into how many, and how many jobs it was about."""

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


def reshard(output_folder: Path, count: int, now: datetime) -> Dealt:
    """Deal the ledgers of a folder into `count` shards, or one ledger for 1.

    Raises InputMissingError, UsageError, LedgerLockedError, LedgerDamagedError, StorageError.
    """
    shards = output_folder / SHARDS_FOLDER
    if not output_folder.exists():
        raise InputMissingError(
            f"{output_folder}: nothing was run here", hint="begin with batch-runner run MANIFEST"
        )
    with hold(output_folder), _telling_of(shards):
        for interrupted in shards.glob(f"{DEALT_PREFIX}*"):
            _put_in_place(output_folder, interrupted, now)
        shutil.rmtree(shards / _DEALING, ignore_errors=True)
        folders = ledger_dirs(output_folder)
        paths = [path for path in map(ledger_path, folders) if path.exists()]
        if not paths:
            raise InputMissingError(
                f"{output_folder}: nothing was run here",
                hint="begin with batch-runner run MANIFEST"
                + (f" --shard 0/{count}" if count > 1 else ""),
            )
        totals = _Totals.of(replay(path).state for path in paths)
        if len(folders) != count:
            shards.mkdir(exist_ok=True)
            _deal(paths, shards / _DEALING, count, totals, now)
            dealt = (shards / _DEALING).rename(shards / f"{DEALT_PREFIX}{count}")
            sync_folder(shards)
            _put_in_place(output_folder, dealt, now)
    return Dealt(len(folders), count, totals.phases.total())


@contextmanager
def _telling_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror or error}",
            hint="look at the disk, then run the same command again: nothing is lost",
        ) from error


def _deal(paths: list[Path], folder: Path, count: int, totals: _Totals, now: datetime) -> None:
    """Write the new ledgers whole, see that they add up, and make them durable."""
    header = msgspec.structs.replace(
        _common_header(paths), at=now, program=PROGRAM, budget_offset_usd=None, last_submit_at=None
    )
    folder.mkdir()
    (folder / _BEFORE).mkdir()
    places = [folder / _file_name(index, count) for index in range(count)]
    for index, place in enumerate(places):
        own = None if count == 1 else str(Shard(index, count))
        place.write_bytes(_padded(msgspec.structs.replace(header, shard=own)))
    _write_records(paths, places)
    committed, phases, last = [], _Totals.of(()), None
    for place in places:
        state = replay(place).state
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
            f"{folder.parent.parent}: the ledgers do not add up when they are dealt anew",
            hint="nothing was changed; does a job stand in two of them?",
        )
    if count > 1:
        for index, (place, offset_usd) in enumerate(
            zip(places, budget_offsets(committed), strict=True)
        ):
            final = msgspec.structs.replace(
                header,
                shard=str(Shard(index, count)),
                budget_offset_usd=offset_usd,
                last_submit_at=last,
            )
            with place.open("r+b") as file:
                file.write(_padded(final))
    for place in places:
        sync_file(place)
    sync_folder(folder)


def _write_records(paths: list[Path], places: list[Path]) -> None:
    """Write each record to the ledger that its job belongs to now, with its place among all.

    Without that place nobody could tell which of two pictures took a name last: their jobs may be
    in two ledgers now, and a clock may have been set back between them.
    """
    lines: list[list[bytes]] = [[] for _ in places]
    buffered = 0

    def flush() -> None:
        for place, some in zip(places, lines, strict=True):
            if some:
                with place.open("ab") as file:
                    file.writelines(some)
                some.clear()

    for order, placed in enumerate(merge_ledgers(paths)):
        record, line, index = placed.record, placed.line, 0
        if isinstance(record, LedgerHeader):
            continue
        if isinstance(record, JobRecord):
            line = encode(msgspec.structs.replace(record, order=order))
            index = part_of(record.fingerprint, len(places))
        # A record of a whole run goes to the first ledger: it must stand once.
        lines[index].append(line)
        buffered += len(line)
        if buffered >= _BUFFERED_BYTES:
            flush()
            buffered = 0
    flush()


def _put_in_place(output_folder: Path, dealt: Path, now: datetime) -> None:
    """Let the dealt ledgers take the place of the former ones; can be gone on with at any step."""
    shards = dealt.parent
    count = int(dealt.name.removeprefix(DEALT_PREFIX))
    before = dealt / _BEFORE
    for folder in list(shards.iterdir()):
        shard = shard_of(folder)
        if shard is not None and shard.count != count:
            move(folder, before / folder.name)
    if count > 1 and ledger_path(output_folder).exists():
        move(ledger_path(output_folder), before / FILE_NAME)
    sync_folder(before)
    sync_folder(shards)
    sync_folder(output_folder)
    for index in range(count):
        new = dealt / _file_name(index, count)
        if new.exists():
            folder = output_folder if count == 1 else Shard(index, count).ledger_dir(output_folder)
            folder.mkdir(exist_ok=True)
            new.replace(ledger_path(folder))
            sync_folder(folder)
    sync_folder(shards)
    dealt.rename(unused(shards / f".before-{now:%Y%m%dT%H%M%SZ}"))
    sync_folder(shards)


def _common_header(paths: list[Path]) -> LedgerHeader:
    headers = [header for header in map(read_header, paths) if header is not None]
    services = {header.service for header in headers}
    if len(services) != 1:
        raise UsageError(
            f"the ledgers belong to different services: {', '.join(sorted(services))}",
            hint="a rehearsal's ledgers do not go together with others: move them away",
        )
    return headers[0]


def _padded(header: LedgerHeader) -> bytes:
    return encode(header).rstrip(b"\n").ljust(_HEADER_BYTES - 1) + b"\n"


def _file_name(index: int, count: int) -> str:
    return f"{index}-of-{count}.jsonl"
