"""What the program needs from a disk: whole files, syncs, and errors that people understand.

Hides how each platform syncs, and which errors mean "this file system cannot do that" rather than
"this disk fails". What always holds: anyone who opens a name sees the whole old file or the whole
new one; a sync raises OSError if the disk fails.
Not promised: that a file system which cannot sync keeps anything in a power failure. `try_folder`
finds that out before anything is bought.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from batch_runner.errors import StorageError, UsageError
from batch_runner.text.path import ADDED_BYTES

_UNSUPPORTED = frozenset(
    (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ENOLCK)
)
# Some systems refuse to open folders, or sync only what was opened for writing.
_UNSUPPORTED_FOR_FOLDERS = _UNSUPPORTED | {errno.EACCES, errno.EISDIR, errno.EBADF}


def is_unsupported(error: OSError) -> bool:
    """Return whether the file system cannot do what was asked; otherwise the disk failed."""
    return error.errno in _UNSUPPORTED


def sync_data(descriptor: int) -> bool:
    """Return once what was written through a descriptor is on the disk.

    False if the file system cannot sync; raises OSError if the disk fails.
    """
    ways: list[Callable[[int], object]]
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is None:
        ways = [os.fdatasync]
    else:  # macOS: fsync alone leaves the data in the drive's cache
        ways = [lambda file: fcntl.fcntl(file, full_sync), os.fsync]
    for sync in ways:
        try:
            sync(descriptor)
        except OSError as error:
            if not is_unsupported(error):
                raise
        else:
            return True
    return False


def write_all(descriptor: int, content: bytes) -> None:
    """Write the content, in as many writes as that takes; raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_file(path: str | Path) -> bool:
    """Make a file's content durable; False if the file system cannot sync. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str | Path) -> bool:
    """Make a folder's names durable; False if the file system cannot. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED_FOR_FOLDERS:
            raise
        return False
    return True


def require_utf8_names() -> None:
    """Refuse a locale in which files would get other names than planned, or none.

    Raises UsageError.
    """
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") != "utf8":
        raise UsageError(
            f"this locale names files in {encoding}, but batch-runner names them in UTF-8",
            hint="set PYTHONUTF8=1 or LC_ALL=C.UTF-8, then run the same command again",
        )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; a power cut will not undo it.

    Each is synced before the next is made, so only the last one that is there may not be on the
    disk: a run that made it may have been killed.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    there = missing[-1].parent if missing else folder
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    sync_folder(there.parent)
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Give a new file to write to, and replace `path` by it at the end.

    With `durable` it survives a power failure; a file that can be made again at any time does not
    need that. A kill leaves at most one hidden file whose name ends in `.part`. Raises
    StorageError.
    """
    target = Path(os.path.realpath(path))
    # Shards on several machines may replace the same file, so each has an unfinished file of its
    # own. Its suffix is another one, so that no program takes it for the file.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        if target.exists() and not target.is_file():
            raise StorageError(
                f"cannot write {path}: it is not a regular file", hint="choose another path"
            )
        with part.open("wb") as file:
            yield file
            file.flush()
            if durable:
                sync_data(file.fileno())
        part.replace(target)
        if durable:
            sync_folder(target.parent)
    except OSError as error:
        raise storage_error(path, error, what=f"cannot write {path}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def try_folder(folder: Path, stem: str = "batch-runner", *, sync: bool = True) -> bool:
    """Write, sync, rename and remove a small file with the longest name that `stem` may get.

    Its name is always the same, so the next run removes what a kill left. Returns False if the file
    system cannot sync; raises OSError.
    """
    whole = folder / f".{stem}-{'x' * (ADDED_BYTES - 2)}"
    part = folder / f".{stem}-{'x' * (ADDED_BYTES - 7)}.part"
    try:
        with part.open("wb") as file:
            file.write(b"written by batch_runner to try this folder\n")
            file.flush()
            is_synced = not sync or sync_data(file.fileno())
        with contextlib.suppress(FileNotFoundError):  # another shard, trying too, was faster
            part.replace(whole)
        return is_synced and (not sync or sync_folder(folder))
    finally:
        for path in (part, whole):
            with contextlib.suppress(OSError):
                path.unlink()


def storage_error(path: Path, error: OSError, *, what: str | None = None) -> StorageError:
    """Return an error that says what the disk reported, and what to do about it."""
    in_the_way = (
        f"a file is in the place of a folder ({error.filename}): move it away, or set another"
        " output.dir"
    )
    full = "nothing is lost: free some space, then run the same command again"
    permissions = "check the folder's owner and permissions, or set another output.dir"
    hints = {
        errno.EEXIST: in_the_way,
        errno.ENOTDIR: in_the_way,
        errno.ENOSPC: full,
        errno.EDQUOT: full,
        errno.EROFS: "this folder is read-only: set another output.dir",
        errno.EACCES: permissions,
        errno.EPERM: permissions,
        errno.ENAMETOOLONG: "shorten output.path, or set another output.dir",
    }
    return StorageError(
        f"{what or path}: {error.strerror or error}",
        hint=hints.get(
            error.errno or 0, "nothing is lost: check the disk, then run the same command again"
        ),
    )
