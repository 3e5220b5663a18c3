"""Saved files in a folder of this machine.

Hides how a file gets its final name. What always holds is what `storage` promises: the content is
synced before the rename, and the folder after it, so that after a power cut a final name either is
missing or names the whole file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files import disk
from batch_runner.files.storage import NotSavedError, Whole, disk_error, each
from batch_runner.records import SavedFile
from batch_runner.text.path import SUPERSEDED_FOLDER, superseded_path

_FOLDERS_LISTED = 1000


class _Unfinished(NamedTuple):
    """A small file on its way: what is known of it, and its path until it is renamed."""

    saved: SavedFile
    path: str
    descriptor: int


class FolderStorage:
    """Files in a folder of this machine."""

    threads = 2

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed = functools.lru_cache(_FOLDERS_LISTED)(_files_in)
        # Folders whose own names are on the disk.
        self._durable: set[str] = set()

    def __str__(self) -> str:
        # Path.resolve fails at links that go round in a circle.
        return os.path.realpath(self._folder)

    def prepare(self, stems: Iterable[str] = ()) -> bool:
        """Make the folder, and try each existing folder below it that files will go to."""
        place, is_synced = self._folder, True
        try:
            disk.make_folder(self._folder)
            # By folder, the longest name that is planned there.
            names = {self._folder: "batch-runner"}
            for stem in (*stems, f"{SUPERSEDED_FOLDER}/batch-runner"):
                path = self._folder / stem
                place = next(filter(os.path.lexists, path.parents), path.parent)
                new = path.relative_to(place).parts
                names[place] = max(names.get(place, ""), *new, key=lambda n: len(os.fsencode(n)))
            for place, name in names.items():
                if not place.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
                # Syncs are slow, and most folders are on one disk.
                is_synced &= disk.try_folder(place, name, sync=place == self._folder)
        except OSError as error:
            what = f"cannot keep pictures in {place}"
            raise disk.storage_error(place, error, what=what) from error
        return is_synced

    def save_whole(self, files: Sequence[Whole]) -> list[SavedFile | Exception]:
        """Save small files together: write all, sync all, rename all, then sync their folders.

        In step, because the first sync of a group writes most of what the others wait for, and a
        folder needs one sync for all files that came into it.
        """
        folders: dict[str, OSError | None] = {}
        written = each(self._write, files)
        synced = each(_sync_and_close, written)
        renamed = each(self._rename_synced, synced)
        return each(functools.partial(self._sync_folder_once, folders), renamed)

    def _write(self, file: Whole) -> _Unfinished:
        """Write a whole file under its unfinished name; it is not synced yet."""
        saved, unfinished = file.described(), self._unfinished_path(file.path)
        descriptor = self._create(unfinished)
        try:
            disk.write_all(descriptor, file.body)
        except OSError:
            os.close(descriptor)
            _remove(unfinished)
            raise
        return _Unfinished(saved, unfinished, descriptor)

    def _create(self, path: str) -> int:
        # Exclusively: the name may be a second name of a saved file, which must not change.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except FileExistsError:
            os.unlink(path)  # a crash left it
        except FileNotFoundError:
            self._make_folder(Path(path).parent)
        return os.open(path, flags, 0o666)

    def _rename_synced(self, whole: _Unfinished) -> SavedFile:
        try:
            self._rename(whole.path, whole.saved)
        except (OSError, StorageError):
            _remove(whole.path)
            raise
        return whole.saved

    def _sync_folder_once(self, folders: dict[str, OSError | None], saved: SavedFile) -> SavedFile:
        """Sync the folder of a new name, unless another file of the group has done so.

        Those above it too, until one whose name is on the disk: a run that made a folder may have
        been killed before it synced it.
        """
        places = [os.path.dirname(f"{self._folder}/{saved.path}")]
        while places[-1] not in self._durable and places[-1] != str(self._folder):
            places.append(os.path.dirname(places[-1]))
        for folder in places:
            if folder not in folders:
                folders[folder] = None
                try:
                    disk.sync_folder(folder)
                except OSError as error:
                    folders[folder] = error
            failure = folders[folder]
            if failure is not None:
                raise failure
        if len(self._durable) > _FOLDERS_LISTED:
            self._durable.clear()
        self._durable.update(places[:-1])
        return saved

    def standing(self, stem: str) -> str | None:
        """Return the file at a path without extension; each folder is listed once."""
        folder, slash, name = stem.rpartition("/")
        found = self._listed(f"{self._folder}/{folder}").get(name)
        return None if found is None else f"{folder}{slash}{found}"

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name: a link if the disk can, else a copy.

        Raises NotSavedError if the source has changed, and StorageError.
        """
        saved = msgspec.structs.replace(source, path=path)
        try:
            with self.unfinished(path) as unfinished:
                try:
                    os.link(self._folder / source.path, unfinished)
                except OSError:
                    shutil.copyfile(self._folder / source.path, unfinished)
                if file_sha256(Path(unfinished)) != source.sha256:
                    raise NotSavedError(f"{source.path}: has changed since it was saved")
                self.put_in_place(unfinished, saved)
        except OSError as error:
            raise disk_error(f"{self._folder}/{path}", error) from error
        return saved

    @contextlib.contextmanager
    def unfinished(self, path: str) -> Iterator[str]:
        """Give the name of a file until it is whole; nothing remains under that name."""
        unfinished = self._unfinished_path(path)
        try:
            # It may be a second name of a saved file, which writing to it would change.
            os.unlink(unfinished)
        except FileNotFoundError:
            folder = Path(unfinished).parent
            if not folder.is_dir():
                self._make_folder(folder)
        try:
            yield unfinished
        finally:
            # After success, too: by POSIX, a rename between two names of one file keeps both.
            _remove(unfinished)

    def _unfinished_path(self, path: str) -> str:
        # It depends on the final name alone, so the next run overwrites what a crash left. Plain
        # text, because this runs for every file: pathlib costs as much as the file system.
        folder, name = os.path.split(f"{self._folder}/{path}")
        return f"{folder}/.{name}.part"

    def _make_folder(self, folder: Path) -> None:
        if not self._folder.is_dir():
            # Somebody removed it during the run. A new one would hold files without their ledger.
            raise StorageError(
                f"{self._folder}: the folder is gone",
                hint="bring it back, then run the command again",
            )
        folder.mkdir(parents=True, exist_ok=True)

    def put_in_place(self, unfinished: str, saved: SavedFile) -> None:
        """Sync the file, rename it, and sync its folder."""
        disk.sync_file(unfinished)
        self._rename(unfinished, saved)
        self._sync_folder_once({}, saved)

    def _rename(self, unfinished: str, saved: SavedFile) -> None:
        """Give a synced file its final name; its folder must be synced after that.

        In this order: after a power cut the final name is missing or names the whole file.
        """
        target = f"{self._folder}/{saved.path}"
        if os.path.lexists(target):
            self._move_aside(Path(target), saved)
        os.replace(unfinished, target)

    def _move_aside(self, target: Path, saved: SavedFile) -> None:
        """Move a file with other content away: it may be paid for, or belong to somebody."""
        try:
            with target.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            if not target.is_symlink():
                raise
            # A link that leads nowhere now, perhaps to an unmounted disk: the link itself is kept.
            digest = hashlib.sha256(os.fsencode(os.readlink(target))).hexdigest()
        if digest == saved.sha256:
            return
        aside = self._folder / superseded_path(saved.path, digest)
        disk.make_folder(aside.parent)
        target.rename(aside)
        disk.sync_folder(aside.parent)

    def is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Return whether `path` is this saved file: by its size, or thoroughly by its hash."""
        target = f"{self._folder}/{path}"
        try:
            if os.stat(target).st_size != saved.size_bytes:
                return False
        except OSError:
            return False
        return not thorough or file_sha256(Path(target)) == saved.sha256

    def sha256(self, path: str) -> str | None:
        """Read a file and return its SHA-256 (hex); None if it cannot be read."""
        return file_sha256(self._folder / path)


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 (hex) of a file's content; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _files_in(folder: str) -> dict[str, str]:
    """Return the files of a folder that are not empty: names without extension, and names."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            stem, dot, _ = entry.name.rpartition(".")
            is_file = stem and dot and entry.is_file(follow_symlinks=False)
            if is_file and entry.stat(follow_symlinks=False).st_size:
                found[stem] = entry.name
    return found


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
