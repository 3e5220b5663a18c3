"""A ledger's copy as it lies in a bucket: segments, which never change.

Hides how a file that only grows becomes objects. Segments are numbered from 1, and the store gives
each number away once; their lines, one after the other, are the ledger's. What always holds: a
segment that is missing, or does not match its heading, is refused, and nothing is changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner.errors import LedgerDamagedError
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.disk import sync_data

SIZE_LIMIT_BYTES = 4 * 1024 * 1024

_FOLDER = "segments/"
_NAME = re.compile(r"segments/(\d{9})")
_READERS = 16
_READ_AHEAD = 256


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a segment: where its lines belong, and who wrote them.

    `released`: the owner gave the ledger up in an orderly way.
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

    @property
    def end_bytes(self) -> int:
        """Return where the next segment begins in the ledger."""
        return self.offset_bytes + self.size_bytes


class Segment(NamedTuple):
    """A piece of a ledger as it is in the bucket."""

    heading: Heading
    lines: bytes


class Segments:
    """The segments of one ledger's copy, below `url`."""

    def __init__(self, buckets: Buckets, url: BucketUrl) -> None:
        self._buckets = buckets
        self.url = url

    def create(self, heading: Heading, lines: bytes) -> bool:
        """Write a new segment; False if its number is taken. Raises StorageError and others."""
        body = msgspec.json.encode(heading) + b"\n" + lines
        return self._buckets.create(self._of(heading.number), body)

    def count(self) -> int:
        """Return how many segments there are; raises LedgerDamagedError if one is missing."""
        names = (name for name, _ in self._buckets.list_below(self.url))
        found = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
        for expected, number in enumerate(found, start=1):
            if number != expected:
                raise self._damaged(expected, "this segment is missing")
        return len(found)

    def read(self, number: int) -> Segment:
        """Return a segment; raises LedgerDamagedError if it does not match its heading."""
        try:
            body = b"".join(self._buckets.chunks(self._of(number)))
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
            raise self._damaged(number, "its lines do not match its checksum")
        return Segment(heading, lines)

    def write_to(self, path: Path, count: int) -> set[str]:
        """Write the lines of so many segments to a file, and sync it; returns their owners."""
        owners = set()
        with path.open("wb") as file:
            for heading, lines in self._read_all(count):
                owners.add(heading.owner)
                if heading.offset_bytes != file.tell():
                    why = "it does not begin where the segment before it ends"
                    raise self._damaged(heading.number, why)
                file.write(lines)
            file.flush()
            sync_data(file.fileno())
        return owners

    def _read_all(self, count: int) -> Iterator[Segment]:
        with ThreadPoolExecutor(_READERS) as pool:
            # A group at a time, because all that is read ahead is held in memory.
            for first in range(1, count + 1, _READ_AHEAD):
                yield from pool.map(self.read, range(first, min(first + _READ_AHEAD, count + 1)))

    def _of(self, number: int) -> BucketUrl:
        return self.url.join(f"{_FOLDER}{number:09d}")

    def _damaged(self, number: int, why: str) -> LedgerDamagedError:
        return LedgerDamagedError(
            f"{self._of(number)}: the ledger's copy is damaged: {why}",
            hint="nothing was changed; if the ledger on this machine is whole, set another"
            " output.ledger_copy",
        )


def end_of_segment(lines: bytes, start: int) -> int:
    """Return where a segment that begins at `start` ends: at the end of a line."""
    if len(lines) - start <= SIZE_LIMIT_BYTES:
        return len(lines)
    end = lines.rfind(b"\n", start, start + SIZE_LIMIT_BYTES) + 1
    return end or lines.index(b"\n", start + SIZE_LIMIT_BYTES) + 1
