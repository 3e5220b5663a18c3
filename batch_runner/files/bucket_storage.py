"""Saved files as objects below a prefix of a bucket.

What always holds is what `storage` promises; large files are first written to a spool, a folder of
this machine.
Not promised: anything if other programs write below the prefix at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.disk import storage_error, try_folder
from batch_runner.files.storage import NotSavedError, Whole, each
from batch_runner.records import SavedFile
from batch_runner.text.path import ADDED_BYTES, SUPERSEDED_FOLDER, superseded_path

_MARK = ".batch-runner"
_MARK_TEXT = b"batch_runner keeps pictures below this prefix.\n"
_KEY_LIMIT_BYTES = 1024


class BucketStorage:
    """Objects below a prefix; `spool` is a folder of this machine for large files on their way."""

    threads = 16

    def __init__(self, buckets: Buckets, root: BucketUrl, spool: Path) -> None:
        self._buckets = buckets
        self._root = root
        self._spool = spool
        self._sizes: dict[str, int] | None = None
        self._listing = threading.Lock()

    def __str__(self) -> str:
        return str(self._root)

    def prepare(self, stems: Iterable[str] = ()) -> bool:
        """Write a small object, and look at it: only that shows whether this user may do both."""
        for stem in stems:
            key = self._root.join(f"{SUPERSEDED_FOLDER}/{stem}").key
            if len(key.encode()) + ADDED_BYTES > _KEY_LIMIT_BYTES:
                what = f"{self._root.join(stem)}: longer than a bucket's names may be"
                raise StorageError(what, hint="shorten output.path")
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            try_folder(self._spool)
        except OSError as error:
            raise storage_error(self._spool, error) from error
        for left in self._spool.glob("*.part"):
            # A run that was killed left it; its file is fetched again.
            left.unlink(missing_ok=True)
        mark = self._root.join(_MARK)
        self._buckets.put(mark, _MARK_TEXT, media_type="text/plain")
        self._buckets.facts(mark)
        return True

    @contextlib.contextmanager
    def unfinished(self, path: str) -> Iterator[str]:
        """Give a file in the spool: an object's hash must be known before its first byte leaves."""
        self._spool.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(path.encode()).hexdigest()[:32]
        unfinished = self._spool / f"{name}.part"
        try:
            yield str(unfinished)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()

    def put_in_place(self, unfinished: str, saved: SavedFile) -> None:
        """Send the file; the object becomes visible once all of it has arrived."""
        self._put(Path(unfinished), saved)

    def save_whole(self, files: Sequence[Whole]) -> list[SavedFile | Exception]:
        """Save small files, one after the other."""
        return each(self._save, files)

    def _save(self, file: Whole) -> SavedFile:
        saved = file.described()
        self._put(file.body, saved)
        return saved

    def _put(self, content: bytes | Path, saved: SavedFile) -> None:
        if self._copy_aside(saved):
            url = self._root.join(saved.path)
            self._buckets.put(url, content, media_type=saved.media_type, sha256=saved.sha256)
        self._remember(saved)

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name: a copy, made by the store itself.

        Raises NotSavedError if the source has changed.
        """
        saved = msgspec.structs.replace(source, path=path)
        if self._digest(source.path) != source.sha256:
            where = self._root.join(source.path)
            raise NotSavedError(f"{where}: is gone, or has changed since it was saved")
        if self._copy_aside(saved):
            self._copy(source.path, path)
        self._remember(saved)
        return saved

    def _copy_aside(self, saved: SavedFile) -> bool:
        """Copy an object with other content aside; False if the object is this very file."""
        digest = self._digest(saved.path)
        if digest is not None and digest != saved.sha256:
            self._copy(saved.path, superseded_path(saved.path, digest))
        return digest != saved.sha256

    def _copy(self, path: str, target: str) -> None:
        try:
            self._buckets.copy(self._root.join(path), self._root.join(target))
        except FileNotFoundError as error:
            raise NotSavedError(f"{self._root.join(path)}: is gone") from error

    def is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Return whether `path` is this saved file: by its size, or by the hash the store keeps.

        Sizes are listed once, a thousand a call: one call for each of many files takes hours.
        """
        if thorough:
            return self._digest(path) == saved.sha256
        with self._listing:
            if self._sizes is None:
                self._sizes = dict(self._buckets.list_below(self._root))
        return self._sizes.get(path) == saved.size_bytes

    def standing(self, stem: str) -> None:
        """Return nothing: a plan that buys everything must not need the bucket's credentials."""

    def sha256(self, path: str) -> str | None:
        """Read an object and return its SHA-256 (hex); None if there is none."""
        digest = hashlib.sha256()
        try:
            for chunk in self._buckets.chunks(self._root.join(path)):
                digest.update(chunk)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def _digest(self, path: str) -> str | None:
        """Return an object's hash: as the store keeps it, or else by reading the object."""
        facts = self._buckets.facts(self._root.join(path))
        if facts is None:
            return None
        return facts.sha256 or self.sha256(path)

    def _remember(self, saved: SavedFile) -> None:
        if self._sizes is not None:
            self._sizes[saved.path] = saved.size_bytes
