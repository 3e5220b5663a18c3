"""Where saved files are kept: a folder of this machine, or a bucket.

Hides how a file comes to stand under its final name. What always holds: it gets that name only
whole and synced; a file that stands in the way is moved aside, never overwritten; nothing is
written outside the folder or prefix. Everything here blocks: it is called in threads (see
`threads`). Folders are here, buckets in `objects`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import mmap
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files import disk
from batch_runner.records import SavedFile
from batch_runner.text.path import ADDED_BYTES, SUPERSEDED_FOLDER, NameLimits, superseded_path

_FATAL_ERRNOS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)
)

_FOLDERS_LISTED = 1000
_PAGE_BYTES = 4096
_DIRECT_LIMIT_BYTES = 1024 * 1024
# Around the page cache: a synced file gains nothing from it, and half of its CPU goes there.
_DIRECT = getattr(os, "O_DIRECT", 0)


_T = TypeVar("_T")
_U = TypeVar("_U")


class NotSavedError(Exception):
    """One file could not be put in its place now; it can be tried again, for free.

    `reason` is the same for all files that meet the same trouble; `is_lasting` says that trying
    again will probably not help.
    """

    def __init__(
        self, message: str, *, reason: str = "", hint: str | None = None, is_lasting: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason or "not saved"
        self.hint = hint
        self.is_lasting = is_lasting


class Whole(NamedTuple):
    """A small file that came whole: where it belongs, what it is, and all of it."""

    path: str
    media_type: str
    body: bytes

    def described(self) -> SavedFile:
        """Return what the ledger will say of it."""
        return SavedFile(
            path=self.path,
            size_bytes=len(self.body),
            sha256=hashlib.sha256(self.body).hexdigest(),
            media_type=self.media_type,
        )


class _Unfinished(NamedTuple):
    """A small file on its way: what is known of it, and where it stands until it is renamed."""

    saved: SavedFile
    path: str
    descriptor: int


class Storage(Protocol):
    """Where the files of a batch stand; `str()` of it is what people are shown.

    Paths are relative, with `/` between folders. Each method raises NotSavedError where one file is
    at fault, and StorageError or AccessRefusedError where nothing further can be saved.
    """

    threads: int
    """As many files are written at a time."""

    def limits(self) -> NameLimits:
        """Return how long names may be here."""

    def prepare(self, stems: Iterable[str] = ()) -> bool:
        """Try, before anything is paid for, to keep files here: under these paths, for example.

        Returns False if files may be lost in a power failure; raises StorageError.
        """

    def unfinished(self, path: str) -> AbstractContextManager[str]:
        """Give a file of this machine in which a large one is made until it is whole."""

    def put_in_place(self, unfinished: str, saved: SavedFile) -> None:
        """Give what was made in `unfinished` its final name."""

    def save_whole(self, files: Sequence[Whole]) -> list[SavedFile | Exception]:
        """Save small files in one go; returns what became of each."""

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name."""

    def is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Tell whether a saved file stands under `path`: by its size, or thoroughly by its hash."""

    def standing(self, stem: str) -> str | None:
        """Return the file that stands under a path without extension, if that is known."""

    def sha256(self, path: str) -> str | None:
        """Read a file and return its SHA-256 (hex); None where it cannot be read."""


class FolderStorage:
    """Files in a folder of this machine."""

    threads = 2

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, str]] = {}

    def __str__(self) -> str:
        return str(self._folder.resolve())

    def limits(self) -> NameLimits:
        """Ask the file system. The longest path is that of a picture that loses its place."""
        name_bytes, path_bytes = disk.name_limits(self._folder)
        if path_bytes is not None:
            path_bytes -= len(SUPERSEDED_FOLDER) + len("/")
        return NameLimits(name_bytes, path_bytes)

    def prepare(self, stems: Iterable[str] = ()) -> bool:
        """Make the folder, and try each folder below it that exists and that files will go to."""
        place, name = self._folder, "batch-runner"
        is_synced, devices = True, set()
        try:
            disk.make_folder(self._folder)
            for (place, _), name in self._longest_names(stems).items():
                if not place.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
                # A folder may be on another disk. To sync once on each is enough: syncs are slow.
                device = place.stat().st_dev
                is_synced &= disk.try_folder(place, name, sync=device not in devices)
                devices.add(device)
        except OSError as error:
            what = f"cannot keep pictures in {place}"
            if error.errno == errno.ENAMETOOLONG:
                size = disk.size(name) + ADDED_BYTES
                what = f"{place}: cannot hold a name of {size} bytes, which '{name}' may need"
            raise disk.storage_error(place, error, what=what) from error
        return is_synced

    def _longest_names(self, stems: Iterable[str]) -> dict[tuple[Path, bool], str]:
        """Return the longest names that are planned below each folder that exists.

        By folder, and by whether the name is ASCII; what is below the folder may be folders.
        """
        names = {(self._folder, True): "batch-runner"}
        for stem in (*stems, f"{SUPERSEDED_FOLDER}/batch-runner"):
            planned = self._folder / stem
            place = disk.existing(planned.parent)
            *folders, name = planned.relative_to(place).parts
            # A folder gets the name that is planned, and nothing is added to it: what stands for
            # it here is as long with what is added, or short and has its letters.
            lengths = ["x" * (disk.size(one) - ADDED_BYTES) for one in folders]
            letters = [re.sub(r"[\x00-\x7f]", "", one)[:9] for one in folders]
            for one in (name, *lengths, *letters):
                key = place, one.isascii()
                names[key] = max(names.get(key, ""), one, key=disk.size)
        return names

    def save_whole(self, files: Sequence[Whole]) -> list[SavedFile | Exception]:
        """Save small files in one go: all are written, then synced, then renamed, at last noted.

        In step, because the first sync of a group takes along most of what the others wait for, and
        a folder is synced once for all files that came into it.
        """
        folders: dict[str, OSError | None] = {}
        written = _each(self._write, files)
        synced = _each(_sync_and_close, written)
        renamed = _each(self._name, synced)
        return _each(functools.partial(self._note, folders), renamed)

    def _write(self, file: Whole) -> _Unfinished:
        """Write all of a file under its unfinished name; on the disk it is only once synced."""
        saved, unfinished = file.described(), self._unfinished_path(file.path)
        try:
            content = _aligned.holding(file.body)
            descriptor = self._write_new(unfinished, content, len(file.body), _DIRECT)
        except OSError as error:
            if not disk.is_unsupported(error):
                raise
            # Not every file system takes direct writes; some make the file all the same.
            content = memoryview(file.body)
            descriptor = self._write_new(unfinished, content, len(file.body))
        return _Unfinished(saved, unfinished, descriptor)

    def _write_new(self, path: str, content: memoryview, size_bytes: int, flags: int = 0) -> int:
        """Write a new file of so many bytes; returns its descriptor."""
        descriptor = self._create(path, flags)
        try:
            rest = content
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if len(content) > size_bytes:
                os.ftruncate(descriptor, size_bytes)
        except OSError:
            os.close(descriptor)
            _remove(path)
            raise
        return descriptor

    def _create(self, path: str, flags: int) -> int:
        # Exclusively: into a second name of a saved file nothing may ever be written.
        flags |= os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except FileExistsError:
            os.unlink(path)  # what a crash left
        except FileNotFoundError:
            self._make_folder(Path(path).parent)
        return os.open(path, flags, 0o666)

    def _name(self, whole: _Unfinished) -> SavedFile:
        """Give a synced file its final name."""
        try:
            self._rename(whole.path, whole.saved)
        except (OSError, StorageError):
            _remove(whole.path)
            raise
        return whole.saved

    def _note(self, folders: dict[str, OSError | None], saved: SavedFile) -> SavedFile:
        """Sync the folder that holds a file's name, unless that was done for one before it."""
        folder = os.path.dirname(f"{self._folder}/{saved.path}")
        if folder not in folders:
            folders[folder] = _failure_of_sync(folder)
        failure = folders[folder]
        if failure is not None:
            raise failure
        return saved

    def standing(self, stem: str) -> str | None:
        """Return the file that stands under a path without extension; folders are listed once."""
        folder, _, name = stem.rpartition("/")
        if folder not in self._listed:
            if len(self._listed) > _FOLDERS_LISTED:
                self._listed.clear()
            self._listed[folder] = dict(self._list(folder))
        found = self._listed[folder].get(name)
        return None if found is None else f"{folder}/{found}" if folder else found

    def _list(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield the files of a folder: the name without extension, and the name."""
        with contextlib.suppress(OSError), os.scandir(f"{self._folder}/{folder}") as entries:
            for entry in entries:
                stem, dot, _ = entry.name.rpartition(".")
                is_file = stem and dot and entry.is_file(follow_symlinks=False)
                if is_file and entry.stat(follow_symlinks=False).st_size:
                    yield stem, entry.name

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name: a link where the disk can, else a copy.

        Raises NotSavedError where the source is no longer what it was, and StorageError.
        """
        saved = msgspec.structs.replace(source, path=path)
        try:
            with self.unfinished(path) as unfinished:
                try:
                    os.link(self._folder / source.path, unfinished)
                except OSError:
                    shutil.copyfile(self._folder / source.path, unfinished)
                if file_sha256(Path(unfinished)) != source.sha256:
                    raise NotSavedError(f"{source.path}: is another file by now")
                self.put_in_place(unfinished, saved)
        except OSError as error:
            raise disk_error(f"{self._folder}/{path}", error) from error
        return saved

    @contextlib.contextmanager
    def unfinished(self, path: str) -> Iterator[str]:
        """Give the name under which a file is made until it is whole; nothing stays under it."""
        unfinished = self._unfinished_path(path)
        try:
            # It may be a second name of a saved file: to write into it would change that file.
            os.unlink(unfinished)
        except FileNotFoundError:
            folder = Path(unfinished).parent
            if not folder.is_dir():
                self._make_folder(folder)
        try:
            yield unfinished
        finally:
            # Also after success: a rename between two names of one file leaves both, says POSIX.
            _remove(unfinished)

    def _unfinished_path(self, path: str) -> str:
        # It only depends on the final name: what a crash left is overwritten next time. Names are
        # plain text here: this runs for every file, and pathlib costs as much as the file system.
        folder, name = os.path.split(f"{self._folder}/{path}")
        return f"{folder}/.{name}.part"

    def _make_folder(self, folder: Path) -> None:
        if not self._folder.is_dir():
            # Removed under the run: made anew, it would hold files that no ledger knows of.
            raise StorageError(
                f"{self._folder}: is gone", hint="bring the folder back, then run the command again"
            )
        folder.mkdir(parents=True, exist_ok=True)

    def put_in_place(self, unfinished: str, saved: SavedFile) -> None:
        """Sync what was made and rename it."""
        disk.sync_file(unfinished)
        self._rename(unfinished, saved)
        disk.sync_folder(os.path.dirname(f"{self._folder}/{saved.path}"))

    def _rename(self, unfinished: str, saved: SavedFile) -> None:
        """Give a synced file its final name; the folder that holds the name is synced after that.

        In this order: after a power cut the final name either is not there or names all of the
        file.
        """
        target = f"{self._folder}/{saved.path}"
        if os.path.lexists(target):
            self._keep_aside(Path(target), saved)
        os.replace(unfinished, target)

    def _keep_aside(self, target: Path, saved: SavedFile) -> None:
        """Move a file with other content out of the way: it may be paid for, or a person's own."""
        try:
            with target.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            if not target.is_symlink():
                raise
            # It leads nowhere now, such as to a disk that is away: the link itself is kept.
            digest = hashlib.sha256(os.fsencode(os.readlink(target))).hexdigest()
        if digest == saved.sha256:
            return
        kept = self._folder / superseded_path(saved.path, digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        disk.move(target, kept)
        disk.sync_folder(kept.parent)

    def is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Tell whether a saved file stands under `path`: by its size, or thoroughly by its hash."""
        target = f"{self._folder}/{path}"
        try:
            if os.stat(target).st_size != saved.size_bytes:
                return False
        except OSError:
            return False
        return not thorough or file_sha256(Path(target)) == saved.sha256

    def sha256(self, path: str) -> str | None:
        """Read a file and return its SHA-256 (hex); None where it cannot be read."""
        return file_sha256(self._folder / path)


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 (hex) of a file's content; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def disk_error(path: str, error: OSError) -> Exception:
    """Tell a disk that fails (the run ends) from one name that cannot be had (the job waits)."""
    if error.errno not in _FATAL_ERRNOS:
        why = error.strerror or str(error)
        hint = None
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = f"let this user write in {os.path.dirname(path)}, then run the command again"
        return NotSavedError(f"{path}: {why}", reason=why, hint=hint)
    return disk.storage_error(Path(path), error)


class _Aligned(threading.local):
    """A thread's own memory, aligned so that the disk can read from it by itself."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _DIRECT_LIMIT_BYTES)

    def holding(self, body: bytes) -> memoryview:
        """Return the body, filled up with zeros to whole pages; as it is where it is too large."""
        padded = -(-len(body) // _PAGE_BYTES) * _PAGE_BYTES
        if padded > len(self._memory):
            return memoryview(body)
        self._memory[: len(body)] = body
        self._memory[len(body) : padded] = bytes(padded - len(body))
        return memoryview(self._memory)[:padded]


_aligned = _Aligned()


def _each(step: Callable[[_T], _U], ones: Iterable[_T | Exception]) -> list[_U | Exception]:
    """Take each a step further; what fails, or failed before, fails alone."""
    results: list[_U | Exception] = []
    for one in ones:
        try:
            results.append(one if isinstance(one, Exception) else step(one))
        except (OSError, NotSavedError, StorageError) as error:
            results.append(error)
    return results


def _sync_and_close(whole: _Unfinished) -> _Unfinished:
    try:
        disk.sync_data(whole.descriptor)
    except OSError:
        _remove(whole.path)
        raise
    finally:
        os.close(whole.descriptor)
    return whole


def _remove(unfinished: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(unfinished)


def _failure_of_sync(folder: str) -> OSError | None:
    try:
        disk.sync_folder(folder)
    except OSError as error:
        return error
    return None
