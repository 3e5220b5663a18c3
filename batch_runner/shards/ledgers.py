"""The ledgers of a batch, one or one a shard: where they are, who holds them, what they record.

Hides that a batch may be split into shards. What always holds: nothing is read from, or written to,
a ledger of another service or another shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from batch_runner import PROGRAM
from batch_runner.errors import LedgerDamagedError, UsageError
from batch_runner.ledger.lock import hold, owner_of
from batch_runner.ledger.reading import ledger_path, read_header, read_ledgers, replay_all
from batch_runner.ledger.state import State
from batch_runner.records import LEDGER_VERSION, LedgerHeader, Record
from batch_runner.shards.shard import (
    Shard,
    beginning,
    check_split,
    index_of,
    ledger_dirs,
    shard_of,
)

if TYPE_CHECKING:
    from batch_runner.ledger.file import Ledger

LOCAL_SERVICE = "local"


class Running:
    """Which ledgers of a batch a run holds; true if any is held."""

    def __init__(self, held: list[bool]) -> None:
        self._held = held

    def __bool__(self) -> bool:
        return any(self._held)

    def has(self, fingerprint: str) -> bool:
        """Return whether a run holds the ledger that a job is in."""
        return self._held[index_of(fingerprint, len(self._held))]


class Ledgers:
    """The ledgers below one folder; if this is a shard, it may write to its own only.

    `service` is how their headers name the service.
    """

    def __init__(self, folder: Path, shard: Shard | None, *, service: str) -> None:
        self.folder = folder
        self._shard = shard
        self._service = service

    @property
    def own_folder(self) -> Path:
        """Return the folder of the ledger, and its lock, that this batch may write to."""
        return self.folder if self._shard is None else self._shard.ledger_dir(self.folder)

    def folders(self) -> list[Path]:
        """Return the folders of this batch's ledgers: one, or one a shard; raises UsageError."""
        if self._shard is not None:
            return [self.own_folder]
        return ledger_dirs(self.folder)

    def paths(self) -> list[Path]:
        """Return where the ledgers of this batch are, or will be."""
        return [ledger_path(folder) for folder in self.folders()]

    def other_paths(self) -> list[Path]:
        """Return where the ledgers of the batch's other shards are, or will be."""
        own = ledger_path(self.own_folder)
        return [path for path in self.all_paths() if path != own] if self._shard else []

    def running(self) -> Running:
        """Return which of the batch's ledgers a run holds now."""
        return Running([owner_of(folder) is not None for folder in self.folders()])

    def records(self) -> Iterator[Record]:
        """Yield all records of this batch's ledgers, in order."""
        return read_ledgers(self.paths())

    def all_paths(self) -> list[Path]:
        """Return where the ledgers of all shards are, or will be, in the order of shards."""
        if self._shard is None:
            return self.paths()
        shards = (Shard(index, self._shard.count) for index in range(self._shard.count))
        return [ledger_path(one.ledger_dir(self.folder)) for one in shards]

    def replay(self) -> State:
        """Read what earlier runs did; changes nothing. Raises LedgerDamagedError, UsageError."""
        paths = self.paths()
        for path in paths:
            header = read_header(path)
            if header is not None:
                self.check(path, header)
        return replay_all(paths)

    def replay_whole(self) -> State:
        """Read the ledgers of all shards; raises LedgerDamagedError, UsageError."""
        return replay_all([ledger_path(folder) for folder in ledger_dirs(self.folder)])

    @contextmanager
    def opened(self, now: datetime) -> Iterator[Ledger]:
        """Hold the ledger that this batch may write to; it is closed whatever happens.

        Raises UsageError, LedgerLockedError, LedgerDamagedError, StorageError.
        """
        from batch_runner.ledger.file import Ledger  # noqa: PLC0415 - it brings asyncio with it

        shard, header = self._shard, self.header(now)
        with ExitStack() as stack:
            if shard is None:
                check_split(self.folder, None)
                # Checked again under the lock: a shard may have begun in between.
                ledger = Ledger.open(
                    self.own_folder, header, lambda: check_split(self.folder, None)
                )
            else:
                # Keeps out runs without shards, until the end.
                stack.enter_context(hold(self.folder, shared=True))
                check_split(self.folder, shard)
                with beginning(self.folder, shard):
                    ledger = Ledger.open(self.own_folder, header)
            stack.callback(ledger.close)
            self.check(ledger.path, ledger.header)
            yield ledger

    def check(self, path: Path, header: LedgerHeader) -> None:
        """Refuse a ledger of another service or another shard.

        Raises UsageError, LedgerDamagedError.
        """
        here = self._service
        if header.service != here:
            raise UsageError(
                f"{path} belongs to another service ({_shown(header.service)}, not {_shown(here)})",
                hint="it is from a rehearsal: move the folder away, or set another output.dir"
                if header.service == LOCAL_SERVICE
                else "set another output.dir: this run cannot collect what was bought there",
            )
        shard = shard_of(path.parent)
        if header.shard != (None if shard is None else str(shard)):
            whose = "a whole batch" if header.shard is None else f"shard {header.shard}"
            raise LedgerDamagedError(
                f"{path}:1: this is the ledger of {whose}, in the wrong folder",
                hint="move it back to its folder; a batch keeps its number of shards",
            )

    def header(self, now: datetime) -> LedgerHeader:
        """Return the first line of this batch's ledger."""
        shard = self._shard
        return LedgerHeader(
            version=LEDGER_VERSION,
            at=now,
            program=PROGRAM,
            service=self._service,
            shard=None if shard is None else str(shard),
        )


def _shown(service: str) -> str:
    return "a sandbox on this machine" if service == LOCAL_SERVICE else service
