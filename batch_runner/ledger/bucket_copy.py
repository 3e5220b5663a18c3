"""A ledger's copy in a bucket: written before anything is paid for, by one owner at a time.

Hides who owns the copy, and how the ledger here and the copy come together. What always holds:

- a new owner first takes the ledger over with a segment that has no lines. The former owner, even
  if it is alive, then finds the next number taken: it can ship nothing more, so it submits nothing
  more;
- a segment's lines are on this machine's disk before they are shipped, and a record counts as
  durable only after both. A machine that is lost leaves what it had shipped: at worst an intent
  without its answer, which is unknown to the next owner, and never a second purchase;
- a ledger here that is longer than the copy is kept. One that differs from the copy is moved aside,
  never overwritten, and only if it is a former owner's: everything that owner submitted is in the
  copy. A ledger that was written without the copy may record purchases that nothing else records:
  it is refused, for a person to decide.

Nobody takes over from an owner that shows signs of life (every 20 s; after a minute without one it
counts as gone), except on the same machine: there the lock of the ledger's folder decides.

Not promised: anything on a store that lets two writers create one object. `check_split` tries that
before the first run, and refuses such a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from batch_runner.errors import (
    BatchRunnerError,
    LedgerDamagedError,
    LedgerLockedError,
    ServiceUnavailableError,
    StorageError,
    UsageError,
)
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.disk import sync_folder, unused
from batch_runner.ledger.reading import whole_lines_bytes
from batch_runner.ledger.segments import SIZE_LIMIT_BYTES, Heading, Segments, end_of_segment
from batch_runner.records import utc_now

OWNER_NAME = ".offsite-owner"
"""A file beside the ledger: the name under which this machine last owned the copy."""

SIGN_KEY = "alive"
SIGN_OF_LIFE_S = 20.0
SILENT_FOR_S = 60.0
PATIENCE_S = 300.0
"""How long a store may fail before the run ends."""

_CLOCK_KEY = "clock"
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0


class BucketCopy:
    """The copy of one ledger, owned; `ship` and `close` are called from one thread at a time."""

    def __init__(self, buckets: Buckets, url: BucketUrl) -> None:
        self._buckets = buckets
        self._url = url
        self._segments = Segments(buckets, url)
        self._owner = uuid.uuid4().hex
        self._number = 0
        self._ended = threading.Event()
        self._signs: threading.Thread | None = None
        self.size_bytes = 0
        """How much of the ledger is in the copy."""

    @classmethod
    def take(
        cls, buckets: Buckets, url: BucketUrl, path: Path, notice: Callable[[str], None]
    ) -> BucketCopy:
        """Become the copy's owner, and bring the ledger at `path` up to date with it.

        The ledger's folder must be locked. Raises LedgerLockedError if another owner is alive,
        LedgerDamagedError, StorageError, AccessRefusedError and UsageError.
        """
        copy = cls(buckets, url)
        try:
            copy._take_over(path, notice)
        except BaseException:
            copy.close(release=False)
            raise
        return copy

    def ship(self, lines: bytes) -> None:
        """Put the next lines of the ledger into the copy, in one segment or many.

        Raises LedgerLockedError if another run took the ledger over, ServiceUnavailableError if the
        store fails for too long, StorageError, AccessRefusedError.
        """
        begin, start = self.size_bytes, 0
        while start < len(lines):
            self._put(lines[start : end_of_segment(lines, start)])
            start = self.size_bytes - begin

    def hurry(self) -> None:
        """Stop waiting for the store."""
        self._ended.set()

    def close(self, *, release: bool) -> None:
        """Give the copy up; without `release` an owner elsewhere waits until this one is silent."""
        self._ended.set()
        if self._signs is not None:
            self._signs.join()
        if release:
            # If this fails, the next owner waits for a minute, and that is all.
            with contextlib.suppress(BatchRunnerError):
                self._put(b"", released=True)

    # Taking over

    def _take_over(self, path: Path, notice: Callable[[str], None]) -> None:
        count = self._segments.count()
        last = self._segments.read(count).heading if count else None
        owner_file = path.with_name(OWNER_NAME)
        is_mine = last is not None and last.owner == _read_owner(owner_file)
        if last is not None:
            if not last.released and not is_mine:
                self._require_silence(last)
            self._number, self.size_bytes = last.number, last.end_bytes
        # After this nobody else writes, so what is read below is all there is.
        self._put(b"")
        self._signs = threading.Thread(target=self._give_signs, daemon=True)
        self._signs.start()
        if not (is_mine and path.exists() and path.stat().st_size >= self.size_bytes):
            try:
                _restore(self._segments, count, path, notice)
            except UsageError:
                self._put(b"", released=True)
                raise
        # Last: this file says that the ledger here is the copy's, and the next run relies on it.
        owner_file.write_text(f"{self._owner}\n", encoding="ascii")

    def _require_silence(self, last: Heading) -> None:
        """Raise LedgerLockedError if the last owner may be alive."""
        sign = self._buckets.facts(self._url.join(SIGN_KEY))
        if sign is None:
            return
        # By the store's clock alone: the clocks of two machines may differ by more than a minute.
        self._buckets.put(self._url.join(_CLOCK_KEY), b"")
        now = self._buckets.facts(self._url.join(_CLOCK_KEY)) or sign
        silent_s = (now.modified_at - sign.modified_at).total_seconds()
        if silent_s < SILENT_FOR_S:
            raise LedgerLockedError(
                f"{self._url}: another run is at work (pid {last.pid} on {last.host},"
                f" last sign of life {silent_s:.0f} s ago)",
                hint="wait for it to end; if that machine is gone, run this again in"
                f" {SILENT_FOR_S - silent_s:.0f} s",
            )

    # Shipping

    def _put(self, lines: bytes, *, released: bool = False) -> None:
        """Write the next segment, and make sure it is ours; raises what `ship` raises."""
        wanted = Heading(
            number=self._number + 1,
            offset_bytes=self.size_bytes,
            size_bytes=len(lines),
            sha256=hashlib.sha256(lines).hexdigest(),
            owner=self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            at=utc_now(),
            released=released,
        )
        for _ in self._tries():
            try:
                written = self._claim(wanted, lines)
                break
            except LedgerDamagedError:
                raise
            except StorageError:
                continue
        self._number, self.size_bytes = written.number, written.end_bytes

    def _claim(self, heading: Heading, lines: bytes) -> Heading:
        """Write the segment, or read what has its number already; returns what is there now.

        That can be shorter than these lines: an earlier try that had arrived although it failed.
        """
        if self._segments.create(heading, lines):
            return heading
        # Perhaps this run wrote it, and the store's answer was lost.
        there = self._segments.read(heading.number).heading
        if there.owner != self._owner:
            raise LedgerLockedError(
                f"{self._url}: another run took this ledger over (pid {there.pid} on {there.host})",
                hint="let that run finish: it continues with everything on record, and nothing"
                " more is submitted here",
            )
        return there

    def _tries(self) -> Iterator[None]:
        """Yield as long as the store may recover, with waits between; then raise."""
        deadline, wait_s = time.monotonic() + PATIENCE_S, _FIRST_WAIT_S
        while True:
            yield
            if time.monotonic() > deadline or self._ended.wait(wait_s):
                raise ServiceUnavailableError(
                    f"{self._url}: the ledger's copy cannot be written",
                    hint="nothing was submitted without its record; once the store is back, run"
                    " the same command again",
                )
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _give_signs(self) -> None:
        """Show regularly that this owner is alive; if one sign fails, another follows."""
        while True:
            with contextlib.suppress(StorageError, OSError):
                self._buckets.put(self._url.join(SIGN_KEY), self._owner.encode())
            if self._ended.wait(SIGN_OF_LIFE_S):
                return


def pull_copy(buckets: Buckets, url: BucketUrl, path: Path, notice: Callable[[str], None]) -> None:
    """Bring the ledger at `path` up to date with its copy, for reading; the owner stays the same.

    The ledger's folder must be locked. Raises LedgerDamagedError, StorageError, AccessRefusedError,
    UsageError.
    """
    segments = Segments(buckets, url)
    count = segments.count()
    if count:
        _restore(segments, count, path, notice)


def _restore(segments: Segments, count: int, path: Path, notice: Callable[[str], None]) -> None:
    """Bring the ledger here up to date with the copy, or keep it if it is longer."""
    restored = path.with_name(f"{path.name}.restored")
    owners = segments.write_to(restored, count)
    here, there = 0, restored.stat().st_size
    if path.exists():
        with path.open("rb") as file:
            here = whole_lines_bytes(file.fileno())
    if not _is_same(path, restored, min(here, there)):
        if _read_owner(path.with_name(OWNER_NAME)) not in owners:
            restored.unlink()
            raise _written_without_copy(path, segments.url)
        name = f"{path.stem}-{utc_now():%Y%m%dT%H%M%S}-aside{path.suffix}"
        aside = unused(path.with_name(name))
        path.rename(aside)
        notice(
            f"{path}: this machine kept writing after another one had taken over the copy; its"
            f" ledger is kept as {aside.name}. If it records the request of a job that is unknown"
            " now, attach that request with batch-runner resolve --attach"
        )
    elif here >= there:
        restored.unlink()
        return
    restored.rename(path)
    # Before anything says that this is the copy's: a power cut must not bring the other file back.
    sync_folder(path.parent)
    notice(f"{path}: restored from {segments.url} ({there:,} bytes)")


def _written_without_copy(path: Path, url: BucketUrl) -> UsageError:
    # A former owner's ledger may go: what it could not ship was not submitted. What this ledger
    # records was.
    return UsageError(
        f"{path}: this ledger records purchases that the copy lacks: {url} holds another ledger",
        hint="to continue with this ledger, set another output.ledger_copy; to continue with the"
        " copy, move this file away (jobs that only it records will be bought again)",
    )


def _read_owner(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _is_same(first: Path, second: Path, size_bytes: int) -> bool:
    """Return whether two files begin with the same so many bytes."""
    if size_bytes == 0:
        return True
    with first.open("rb") as one, second.open("rb") as other:
        while size_bytes > 0:
            count = min(size_bytes, SIZE_LIMIT_BYTES)
            if one.read(count) != other.read(count):
                return False
            size_bytes -= count
    return True
