"""What a ledger asks of the disk: to keep what was written, and to say why not.

Hides how durability is asked for on each platform, and what the disk's errors mean to people.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from batch_runner.errors import (
    StorageError,
)


def sync_data(descriptor: int) -> None:
    """Return once what was written through a descriptor is on the disk."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:  # macOS: fsync alone leaves the data in the drive's cache
        fcntl.fcntl(descriptor, full_sync)
    else:
        os.fdatasync(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each synced into the one that holds it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def sync_file(path: Path) -> None:
    """Make durable what a file holds; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return what the disk's error means, and what can be done about it."""
    in_the_way = (
        f"a file stands where a folder has to be ({error.filename}): move it away, or choose"
        " another output.dir"
    )
    hints = {
        errno.EEXIST: in_the_way,
        errno.ENOTDIR: in_the_way,
        errno.ENOSPC: "free some space, then run the same command again: nothing is lost",
        errno.EDQUOT: "free some space, then run the same command again: nothing is lost",
        errno.EROFS: "the folder is read-only; choose another output.dir",
        errno.EACCES: "the folder may not be written to; check its permissions",
    }
    return StorageError(
        f"{path}: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "look at the disk, then run the same command again"),
    )
