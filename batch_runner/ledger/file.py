"""The ledger as its owner holds it: opened, repaired, appended to, made durable.

Hides the file and how records become durable. What always holds:

- one owner: it holds an OS lock from `open` to `close`, and the lock of a dead owner is gone;
- a torn last line was never acknowledged: it is cut before the first append; damage anywhere else
  is refused with its line, and nothing is changed;
- an append is one write, and no cancellation can come between an answer and its record;
  `durable()` returns only after everything appended before it is on the disk, and never blocks the
  event loop;
- after a failed write or sync nothing more is appended. Only on a full disk, what is learned of
  requests that were sent is still written, in space reserved for it.

Not promised: that a record which was appended but not made durable survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from batch_runner.errors import StorageError
from batch_runner.files.disk import make_folder, storage_error, sync_data, sync_folder
from batch_runner.ledger.lock import LOCK_NAME, locked, take_lock, try_to_lock
from batch_runner.ledger.reading import Replayed, damaged, ledger_path, replay
from batch_runner.ledger.reserve import Reserve
from batch_runner.records import LedgerHeader, Record, Submitting, encode

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_SOON_S = 0.02


class Ledger:
    """The open ledger of one output folder: the only way to write to it."""

    def __init__(
        self, path: Path, descriptor: int, lock: int, replayed: Replayed, reserve: Reserve
    ) -> None:
        self.path = path
        self.state = replayed.state
        self.cut_bytes = replayed.torn_bytes
        self._name = str(path)
        self._descriptor = descriptor
        self._lock = lock
        self._reserve = reserve
        self._size_bytes = replayed.size_bytes
        # After a failure no record is written. On a full disk no intent is, but answers still are.
        self._failure: BaseException | None = None
        self._full: StorageError | None = None
        # Records, counted: appended, on the disk, and to be on the disk when the syncs have ended.
        self._appended = 0
        self._synced = 0
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
    ) -> Ledger:
        """Lock, repair and replay; a new ledger begins with `header`.

        `check` is called when the folder is locked and nothing is changed yet; it may refuse.
        Raises LedgerLockedError, LedgerDamagedError, StorageError.
        """
        path = ledger_path(output_folder)
        with contextlib.ExitStack() as undo:
            try:
                make_folder(output_folder)
                lock = take_lock(output_folder / LOCK_NAME)
                undo.callback(os.close, lock)
                if check is not None:
                    check()
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                descriptor = os.open(path, flags, 0o644)
                undo.callback(os.close, descriptor)
                # The ledger itself is locked, too: somebody may remove the lock file during a run.
                if not try_to_lock(path, descriptor):
                    raise locked(output_folder, "its lock file was removed")
                replayed = replay(path)
                if replayed.torn_bytes:
                    # Before the first append: otherwise the next record would be glued to the torn
                    # line, and the next run would lose both.
                    os.ftruncate(descriptor, replayed.size_bytes)
                    sync_data(descriptor)
                # Before anything is bought: this fails if the disk is full already.
                reserve = Reserve(output_folder)
                undo.callback(reserve.close)
                ledger = cls(path, descriptor, lock, replayed, reserve)
                if replayed.state.header is None:
                    ledger.append(header)
                    sync_data(descriptor)
                    sync_folder(output_folder)
                    ledger._synced = ledger._appended
            except OSError as error:
                raise storage_error(path, error) from error
            undo.pop_all()
        return ledger

    @property
    def header(self) -> LedgerHeader:
        """Return its first line."""
        if self.state.header is None:
            raise damaged(self.path, 1, "there is no header")
        return self.state.header

    def append(self, record: Record) -> None:
        """Write one record, and add it to the state; raises StorageError.

        Synchronous on purpose: nothing can be cancelled between an answer and its record.
        """
        if self._failure is not None:
            raise self._failure
        # Before the write: a line that replay refuses would make the whole file useless.
        self.state.check(record)
        line, is_intent = encode(record), isinstance(record, Submitting)
        if is_intent and self._full is not None:
            raise self._full
        try:
            self._write(line, reserved=not is_intent)
        except OSError as error:
            failure = storage_error(self.path, error)
            try:
                # What was written of the line was never acknowledged.
                os.ftruncate(self._descriptor, self._size_bytes)
            except OSError:
                self._failure = failure  # nothing may follow a torn line: the next open cuts it
            if is_intent and error.errno in _FULL:
                # Nothing was sent for it. Answers to what was sent can still use the reserve.
                self._full = failure
            else:
                self._failure = failure
            raise failure from error
        self.state.apply(record, self._size_bytes)
        self._size_bytes += len(line)
        self._appended += 1

    def _write(self, line: bytes, *, reserved: bool) -> None:
        """Write a line; with `reserved` it may use the space that was set aside."""
        rest = line
        while rest:
            try:
                written = os.write(self._descriptor, rest)
                if not written or (written < len(rest) and not reserved):
                    # The first sign of a full disk is a short write, which leaves a torn line.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                if not reserved or error.errno not in _FULL or not self._reserve.give_back():
                    raise
                # From now on answers are recorded, and nothing more is bought.
                self._full = storage_error(self.path, error)
                continue
            rest = rest[written:]

    async def durable(self) -> None:
        """Return once everything appended so far is on the disk; raises StorageError.

        A group commit: one sync covers everything that was appended while the last one ran.
        """
        if self._failure is not None:
            raise self._failure
        if self._synced < self._appended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((self._appended, waiter))
            self._begin_sync()
            # A future of its own: cancelling one waiter must not cancel the sync of the others.
            await waiter

    def sync_soon(self) -> None:
        """Make everything appended so far durable soon, without waiting for it.

        The sync of the next intent covers it; if there is none, it gets a sync of its own. The next
        call to the ledger raises its error.
        """
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SOON_S, self._sync_now)

    def _sync_now(self) -> None:
        self._soon = None
        self._begin_sync()

    def _begin_sync(self) -> None:
        self._wanted = self._appended
        if self._syncing is None and self._failure is None and self._synced < self._wanted:
            loop = asyncio.get_running_loop()
            self._syncing = loop.run_in_executor(self._pool, self._sync_to_disk)
            self._syncing.add_done_callback(functools.partial(self._after_sync, self._appended))

    def _after_sync(self, covers: int, syncing: asyncio.Future[None]) -> None:
        self._syncing = None
        error = syncing.exception()
        if error is None:
            self._synced = covers
        else:
            # After a failed sync the kernel may have dropped the pages, and a second sync would
            # succeed without them. Nobody knows what is on the disk, so nothing more is appended.
            self._failure = storage_error(self.path, error) if isinstance(error, OSError) else error
        waiters, self._waiters = self._waiters, []
        for wanted, waiter in waiters:
            if waiter.done():
                continue  # it was cancelled
            if wanted <= self._synced:
                waiter.set_result(None)
            elif self._failure is not None:
                # Of this sync, or of an append while it ran: no other sync follows.
                waiter.set_exception(self._failure)
            else:
                self._waiters.append((wanted, waiter))
        if self._synced < self._wanted:
            self._begin_sync()

    def _sync_to_disk(self) -> None:
        sync_data(self._descriptor)
        # If somebody replaced the file, the open one still takes every byte, and nobody will ever
        # read them.
        if not os.path.samestat(os.stat(self._name), os.fstat(self._descriptor)):  # noqa: PTH116 - per sync
            raise FileNotFoundError(errno.ENOENT, "the ledger was replaced during the run")

    def close(self) -> None:
        """Make everything durable, and give the ledger up; raises StorageError."""
        if self._soon is not None:
            self._soon.cancel()
        self._wanted = 0  # no sync follows the running one: the last one is made below
        self._pool.shutdown(wait=True)
        try:
            if self._failure is None and self._synced < self._appended:
                self._sync_to_disk()
        except OSError as error:
            raise storage_error(self.path, error) from error
        finally:
            self._reserve.close()
            os.close(self._descriptor)
            os.close(self._lock)
