"""`verdicts.jsonl`: where verdicts are kept, beside the ledger.

Hides the file. What always holds, as for the ledger: it is only ever appended to; a verdict is one
write, and on the disk when `append` returns; only the last line may be torn, it was never
acknowledged, and it is cut before the next append; lines in whose place a power cut left zeros were
never acknowledged either, and are passed over; damage anywhere else is refused with its line.
Unlike the ledger it has many writers (a page, a run, a second terminal), so its lock is held for
one append only, and a run that is active keeps nobody from judging.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from batch_runner.errors import LedgerDamagedError
from batch_runner.files.disk import storage_error, sync_data, sync_folder, write_all
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import whole_lines_bytes
from batch_runner.ledger.verdict import FORMAT_VERSION, Header, Verdict, Verdicts, decode, encode
from batch_runner.records import utc_now

FILE_NAME = "verdicts.jsonl"
LOCK_NAME = ".verdicts.lock"

_PATIENCE_S = 10.0


class Book:
    """The verdicts of one batch, in the folder of its ledger."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def append(self, said: Sequence[Verdict]) -> None:
        """Add verdicts, and return once they are on the disk.

        Raises LedgerLockedError if another writer is stuck, LedgerDamagedError, StorageError.
        """
        if not said:
            return
        lines = b"".join(encode(one) + b"\n" for one in said)
        with hold(self.path.parent, name=LOCK_NAME, patience_s=_PATIENCE_S):
            try:
                self._append(lines)
            except OSError as error:
                raise storage_error(self.path, error) from error

    def _append(self, lines: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o644)
        try:
            size = whole_lines_bytes(descriptor)
            # Before the append: otherwise the new line would be glued to a torn one.
            os.ftruncate(descriptor, size)
            if size == 0:
                # First the name: a kill must not leave verdicts under one that a power cut takes.
                sync_folder(self.path.parent)
                lines = encode(Header(version=FORMAT_VERSION, at=utc_now())) + b"\n" + lines
            try:
                write_all(descriptor, lines)
                sync_data(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # it was never acknowledged
                raise
        finally:
            os.close(descriptor)

    def read(self, start_bytes: int = 0) -> Iterator[tuple[Verdict, int]]:
        """Yield each verdict from there on, and where the next one begins; changes nothing.

        Raises LedgerDamagedError, StorageError.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(start_bytes)
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        return
                    start_bytes += len(line)
                    if b"\0" in line:
                        continue
                    yield self._decoded(line, number), start_bytes
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(self.path, error) from error

    def verdicts(self) -> Verdicts:
        """Read everything that was said."""
        return Verdicts(said for said, _ in self.read())

    def _decoded(self, line: bytes, number: int) -> Verdict:
        try:
            said = decode(line)
            if isinstance(said, Header) and said.version > FORMAT_VERSION:
                raise ValueError(f"format {said.version} needs a newer program")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise LedgerDamagedError(
                f"{self.path}:{number}: not a verdict: {error}",
                hint="restore the file from a backup, or move it away: the pictures are then"
                " unjudged",
            ) from error
        return said
