"""Who holds a ledger: an OS lock, which the system releases when its process dies.

Hides `flock`. What always holds: finding out who the owner is changes nothing, and keeps others out
for a moment at most.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from batch_runner.errors import LedgerLockedError, StorageError
from batch_runner.files.disk import is_unsupported, make_folder, storage_error

LOCK_NAME = ".ledger.lock"

# `owner_of` takes the lock for a moment to see whether it is free. A run that begins in that moment
# must not take it for another run, so it tries again.
_LOCK_ATTEMPTS = 3
_LOCK_PAUSE_S = 0.02


def owner_of(output_folder: Path) -> str | None:
    """Return who holds a folder's ledger ("pid 12 on host"), or None; changes nothing."""
    try:
        descriptor = os.open(output_folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner_in(descriptor) or "another process"
    except OSError:
        return None  # on a file system without locks nobody can hold one
    finally:
        os.close(descriptor)
    return None


def locked(folder: Path, owner: str) -> LedgerLockedError:
    """Return the error for a folder where another run is at work."""
    return LedgerLockedError(
        f"{folder.resolve()}: another run is at work here ({owner})",
        hint="wait for it to end, or stop it with batch-runner status MANIFEST --stop; then run"
        " this command again",
    )


@contextlib.contextmanager
def hold(
    folder: Path, *, shared: bool = False, name: str = LOCK_NAME, patience_s: float = 0.0
) -> Iterator[None]:
    """Hold a folder's lock during the block, alone or shared with others.

    Raises LedgerLockedError if somebody else still holds it after so many seconds; StorageError.
    """
    path = folder / name
    try:
        make_folder(folder)
        attempts = max(_LOCK_ATTEMPTS, round(patience_s / _LOCK_PAUSE_S))
        descriptor = _open_locked(path, shared=shared, attempts=attempts)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """Lock a file for this process, write the owner into it, and return its descriptor."""
    descriptor = _open_locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_locked(path: Path, *, shared: bool = False, attempts: int = _LOCK_ATTEMPTS) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not try_to_lock(path, descriptor, shared=shared, attempts=attempts):
            raise locked(path.parent, _owner_in(descriptor) or "owner unknown")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_to_lock(
    path: Path, descriptor: int, *, shared: bool = False, attempts: int = _LOCK_ATTEMPTS
) -> bool:
    """Lock an open file; False if another process still holds it. Raises OSError, StorageError."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            if not is_unsupported(error):
                raise
            why = error.strerror or error
            raise StorageError(
                f"{path}: this file system cannot lock files ({why}), so two runs could buy the"
                " same pictures",
                hint="set output.ledger in the manifest to a folder on a local disk",
            ) from error
        return True
    return False


def _owner_in(descriptor: int) -> str:
    return os.read(descriptor, 300).decode(errors="replace").strip()
