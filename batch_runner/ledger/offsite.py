"""A ledger's copy in a bucket: written before anything is paid for, and one owner at a time.

Hides how a file that only grows becomes objects that never change. The copy is a row of segments,
numbered from 1, each put under a name that the store gives away once; their lines, one after the
other, are the ledger's. What always holds:

- whoever writes took the ledger over first, by a segment without lines. A former owner, however
  alive, then finds the next number taken: it can ship nothing more, so that nothing it would submit
  leaves;
- a segment's lines are on this machine's disk before they are shipped, and nobody is told that a
  record is durable before both are done. A machine that is lost leaves what it had shipped: at
  worst an intent without its answer, which is unknown to the next, never a second purchase;
- a ledger here that the copy does not know the end of is kept, and one that went another way is
  moved aside, never overwritten; but only a former owner's, for all that it sent is in the copy.
  One that was written to without the copy tells of purchases that nobody else knows of: it is
  refused, for a person to decide.

Nobody takes over from an owner that gives signs of life (every 20 s; a minute without one is
silence), except on the same machine, where the lock of the ledger's folder tells who is alive.

Not promised: anything where the store lets two writers have one name; that is tried at the opening,
and such a store is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner.clock import backoff_s
from batch_runner.errors import (
    BatchRunnerError,
    InputMissingError,
    LedgerDamagedError,
    LedgerLockedError,
    ServiceUnavailableError,
    StorageError,
    UsageError,
)
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.disk import sync_data, sync_folder, unused
from batch_runner.records import utc_now

OWNER_NAME = ".offsite-owner"
"""Beside the ledger: as whom this machine last owned the copy."""
DEALING_KEY = "dealing"

SIGN_KEY = "alive"
SIGN_OF_LIFE_S = 20.0
SILENT_FOR_S = 60.0
PATIENCE_S = 300.0
"""How long a store may be away before the run ends."""

_SEGMENTS = "segments/"
_CLOCK_KEY = "clock"
_NAME = re.compile(r"segments/(\d{9})")
_SEGMENT_LIMIT_BYTES = 4 * 1024 * 1024
_READERS = 16
_READ_AHEAD = 256
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a segment: where its lines belong, and who wrote them.

    `released`: the owner went away and said so.
    """

    number: int
    offset_bytes: int
    size_bytes: int
    sha256: str
    owner: str
    host: str
    pid: int
    at: datetime
    released: bool = False


class Segment(NamedTuple):
    """A part of a ledger as it is in the bucket."""

    heading: Heading
    lines: bytes


class Offsite:
    """The copy of one ledger, owned; `ship` and `close` are called from one thread at a time."""

    def __init__(self, buckets: Buckets, url: BucketUrl) -> None:
        self._buckets = buckets
        self._url = url
        self._owner = uuid.uuid4().hex
        self._number = 0
        self._size_bytes = 0
        self._ended = threading.Event()
        self._signs: threading.Thread | None = None

    @classmethod
    def take(
        cls, buckets: Buckets, url: BucketUrl, path: Path, notice: Callable[[str], None]
    ) -> Offsite:
        """Become the copy's owner, and bring the ledger at `path` up to it.

        The ledger's folder must be locked. Raises LedgerLockedError where another owner is alive,
        LedgerDamagedError, StorageError, AccessRefusedError and UsageError.
        """
        offsite = cls(buckets, url)
        try:
            offsite._take_over(path, notice)
        except BaseException:
            offsite.close(release=False)
            raise
        return offsite

    @classmethod
    def pull(
        cls, buckets: Buckets, url: BucketUrl, path: Path, notice: Callable[[str], None]
    ) -> None:
        """Bring the ledger at `path` up to the copy without owning it, to be read.

        The ledger's folder must be locked. Raises LedgerDamagedError, StorageError,
        AccessRefusedError.
        """
        offsite = cls(buckets, url)
        count = offsite._count_segments()
        if count:
            last = offsite._read(count).heading
            offsite._size_bytes = last.offset_bytes + last.size_bytes
            offsite._restore(count, path, notice)

    @property
    def size_bytes(self) -> int:
        """Return how much of the ledger is in the copy."""
        return self._size_bytes

    def ship(self, lines: bytes) -> None:
        """Put what follows in the ledger into the copy; it may be many segments' worth.

        Raises LedgerLockedError where somebody took it over, ServiceUnavailableError where the
        store is away for too long, StorageError, AccessRefusedError.
        """
        begin, start = self._size_bytes, 0
        while start < len(lines):
            self._put(lines[start : _end_of_segment(lines, start)])
            start = self._size_bytes - begin

    def hurry(self) -> None:
        """Wait for the store no longer."""
        self._ended.set()

    def close(self, *, release: bool) -> None:
        """Give the copy up; without `release` the next owner elsewhere waits for silence."""
        self._ended.set()
        if self._signs is not None:
            self._signs.join()
        if release:
            # Where this fails, whoever comes next waits for a minute, and that is all.
            with contextlib.suppress(BatchRunnerError):
                self._put(b"", released=True)

    # Taking over

    def _take_over(self, path: Path, notice: Callable[[str], None]) -> None:
        count = self._count_segments()
        last = self._read(count).heading if count else None
        owner_file = path.with_name(OWNER_NAME)
        is_mine = last is not None and last.owner == _read_owner(owner_file)
        if last is not None and not last.released and not is_mine:
            self._require_silence(last)
        if last is not None:
            self._number = last.number
            self._size_bytes = last.offset_bytes + last.size_bytes
        # From here on nobody else writes, so that what is read below is all there is.
        self._put(b"")
        self._signs = threading.Thread(target=self._give_signs, daemon=True)
        self._signs.start()
        if not (is_mine and path.exists() and path.stat().st_size >= self._size_bytes):
            try:
                self._restore(count, path, notice)
            except UsageError:
                self._put(b"", released=True)
                raise
        # Last of all: whoever finds it relies on the ledger here being that of the copy.
        owner_file.write_text(f"{self._owner}\n", encoding="ascii")

    def _count_segments(self) -> int:
        """Return how many segments there are; raises LedgerDamagedError where one is missing."""
        names = (name for name, _ in self._buckets.list_below(self._url))
        found = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
        for expected, number in enumerate(found, start=1):
            if number != expected:
                raise self._damaged(expected, "it is missing")
        return len(found)

    def _require_silence(self, last: Heading) -> None:
        """Refuse to take over from somebody who may be alive: raises LedgerLockedError."""
        sign = self._buckets.modified_at(self._url.join(SIGN_KEY))
        if sign is None:
            return
        # By the store's clock alone: those of two machines may differ by more than this.
        self._buckets.replace(self._url.join(_CLOCK_KEY), b"")
        now = self._buckets.modified_at(self._url.join(_CLOCK_KEY)) or sign
        silent_s = (now - sign).total_seconds()
        if silent_s < SILENT_FOR_S:
            raise LedgerLockedError(
                f"{self._url}: another run is at work (pid {last.pid} on {last.host},"
                f" last sign of life {silent_s:.0f} s ago)",
                hint="wait for it to end; if that machine is gone, run this again in"
                f" {SILENT_FOR_S - silent_s:.0f} s",
            )

    def _restore(self, count: int, path: Path, notice: Callable[[str], None]) -> None:
        """Bring the ledger here up to the copy, or keep it where it is further than that."""
        restored, owners = path.with_name(f"{path.name}.restored"), set()
        with restored.open("wb") as file:
            for segment in self._read_all(count):
                owners.add(segment.heading.owner)
                if segment.heading.offset_bytes != file.tell():
                    what = "the lines before it are not as long as it says"
                    raise self._damaged(segment.heading.number, what)
                file.write(segment.lines)
            file.flush()
            sync_data(file.fileno())
        here, there = _whole_lines_bytes(path), restored.stat().st_size
        if not _is_same(path, restored, min(here, there)):
            if _read_owner(path.with_name(OWNER_NAME)) not in owners:
                restored.unlink()
                raise self._stranger(path)
            name = f"{path.stem}-{utc_now():%Y%m%dT%H%M%S}-aside{path.suffix}"
            aside = unused(path.with_name(name))
            path.rename(aside)
            notice(
                f"{path}: went on here while another machine had the copy; kept as {aside.name}."
                " Where it knows the request of a job that is unknown now, give it back with"
                " resolve --attach"
            )
        elif here >= there:
            restored.unlink()
            return
        restored.rename(path)
        # Before anything says that this is the copy's: no power cut may bring another one back.
        sync_folder(path.parent)
        notice(f"{path}: restored from {self._url} ({there:,} bytes)")

    def _stranger(self, path: Path) -> UsageError:
        """Return the error about a ledger here that was written to without the copy.

        A former owner's may go: what it could not ship was not sent. What this one tells of was.
        """
        return UsageError(
            f"{path}: what was bought here is not in the copy, and {self._url} holds another"
            " ledger",
            hint="to go on with what is here, name a new output.ledger_copy; to go on with the"
            " copy, move the file away: jobs that only it tells of are bought again",
        )

    def _read_all(self, count: int) -> Iterator[Segment]:
        """Yield so many segments, in order."""
        with ThreadPoolExecutor(_READERS) as pool:
            # A group at a time: what is read ahead is held in memory.
            for first in range(1, count + 1, _READ_AHEAD):
                yield from pool.map(self._read, range(first, min(first + _READ_AHEAD, count + 1)))

    def _read(self, number: int) -> Segment:
        """Return a segment; raises LedgerDamagedError where it is not what it says."""
        try:
            body = b"".join(self._buckets.chunks(self._segment(number)))
            first, _, lines = body.partition(b"\n")
            heading = msgspec.json.decode(first, type=Heading)
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise self._damaged(number, str(error)) from error
        is_whole = (
            heading.number == number
            and heading.size_bytes == len(lines)
            and heading.sha256 == hashlib.sha256(lines).hexdigest()
        )
        if not is_whole:
            raise self._damaged(number, "its lines are not those that it names")
        return Segment(heading, lines)

    def _segment(self, number: int) -> BucketUrl:
        return self._url.join(f"{_SEGMENTS}{number:09d}")

    def _damaged(self, number: int, why: str) -> LedgerDamagedError:
        return LedgerDamagedError(
            f"{self._segment(number)}: the ledger's copy is damaged: {why}",
            hint="nothing was changed; where the ledger itself is whole, name a new"
            " output.ledger_copy",
        )

    # Shipping

    def _put(self, lines: bytes, *, released: bool = False) -> None:
        """Put one segment, and be sure that it is ours; raises LedgerLockedError and others."""
        number = self._number + 1
        heading = Heading(
            number=number,
            offset_bytes=self._size_bytes,
            size_bytes=len(lines),
            sha256=hashlib.sha256(lines).hexdigest(),
            owner=self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            at=utc_now(),
            released=released,
        )
        body = msgspec.json.encode(heading) + b"\n" + lines
        for _ in self._tries():
            try:
                heading = self._claim(heading, body)
                break
            except LedgerDamagedError:
                raise
            except StorageError:
                continue
        self._number, self._size_bytes = number, heading.offset_bytes + heading.size_bytes

    def _claim(self, heading: Heading, body: bytes) -> Heading:
        """Write the next segment, or look who was first where it is taken: what stands there now.

        That can be less than what was to be written: an earlier try, given up, that had arrived.
        """
        number = heading.number
        if self._buckets.create(self._segment(number), body):
            return heading
        # Perhaps we were first ourselves, and the store's answer was lost.
        there = self._read(number).heading
        if there.owner != self._owner:
            raise LedgerLockedError(
                f"{self._url}: another run took this ledger over (pid {there.pid} on {there.host})",
                hint="nothing more is submitted here; that run goes on with what is on record",
            )
        return there

    def _tries(self) -> Iterator[None]:
        """Yield as long as the store may come back, with waits between; then raise."""
        deadline = time.monotonic() + PATIENCE_S
        for attempt in itertools.count(1):
            yield
            wait_s = backoff_s(attempt, _FIRST_WAIT_S, _LONGEST_WAIT_S)
            if time.monotonic() > deadline or self._ended.wait(wait_s):
                raise ServiceUnavailableError(
                    f"{self._url}: the ledger's copy cannot be written",
                    hint="nothing was submitted that is not on record; run the same command again"
                    " when the store is back",
                )

    def _give_signs(self) -> None:
        """Say now and then that this owner is alive; a sign that fails is followed by another."""
        while True:
            with contextlib.suppress(StorageError, OSError):
                self._buckets.replace(self._url.join(SIGN_KEY), self._owner.encode())
            if self._ended.wait(SIGN_OF_LIFE_S):
                return


def check_dealing(buckets: Buckets, root: BucketUrl, shards: int | None) -> None:
    """Refuse to deal a batch's copy otherwise than it is dealt: raises UsageError and StorageError.

    Machines without a common folder see no other's ledger: what they agree by is one object, which
    the first of them puts there.
    """
    url, wanted = root.join(DEALING_KEY), msgspec.json.encode(_Dealing(shards))
    if buckets.create(url, wanted) and buckets.create(url, wanted):
        raise UsageError(
            f"{root}: this store gives one name away twice, so that two runs could have one ledger",
            hint="use a store that knows If-None-Match",
        )
    there = read_dealing(buckets, root)
    if there != shards:
        raise UsageError(
            f"{root} is the copy of a batch {_dealt(there)}, not {_dealt(shards)}",
            hint="run it so, or name another output.ledger_copy and keep the ledgers that are here",
        )


def read_dealing(buckets: Buckets, root: BucketUrl) -> int | None:
    """Return into how many shards a batch's copy is dealt; None: one ledger.

    Raises InputMissingError where there is no copy yet, and StorageError.
    """
    try:
        found = b"".join(buckets.chunks(root.join(DEALING_KEY)))
    except FileNotFoundError as error:
        raise InputMissingError(
            f"{root}: no ledger was copied there yet", hint="a run of the batch does it"
        ) from error
    shards: int | None = msgspec.json.decode(found, type=_Dealing).shards
    return shards


class _Dealing(msgspec.Struct):
    shards: int | None


def _dealt(shards: int | None) -> str:
    return "in one ledger" if shards is None else f"in {shards} shards"


def _end_of_segment(lines: bytes, start: int) -> int:
    """Return where a segment that begins at `start` ends: at the end of a line."""
    if len(lines) - start <= _SEGMENT_LIMIT_BYTES:
        return len(lines)
    end = lines.rfind(b"\n", start, start + _SEGMENT_LIMIT_BYTES) + 1
    return end or lines.index(b"\n", start + _SEGMENT_LIMIT_BYTES) + 1


def _read_owner(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _whole_lines_bytes(path: Path) -> int:
    """Return the length of a file without a torn last line; 0 where there is none."""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            while position > 0:
                start = max(0, position - _SEGMENT_LIMIT_BYTES)
                file.seek(start)
                found = file.read(position - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                position = start
    except FileNotFoundError:
        pass
    return 0


def _is_same(first: Path, second: Path, size_bytes: int) -> bool:
    """Tell whether two files begin with the same so many bytes."""
    if size_bytes == 0:
        return True
    with first.open("rb") as one, second.open("rb") as other:
        while size_bytes > 0:
            count = min(size_bytes, _SEGMENT_LIMIT_BYTES)
            if one.read(count) != other.read(count):
                return False
            size_bytes -= count
    return True
