"""Thumbnails for the page, made by worker processes and kept by hash.

Hides Pillow, the worker processes and their order. What always holds: jobs come out in the order in
which they went in; a picture is decoded once, however often the report is made; a picture that is
missing or can't be decoded is shown as such and stops nothing; only a bounded number waits.

A picture that is small enough needs no thumbnail. Files out are linked where they are; of pictures
in, which may be anywhere, the report keeps a copy that is large enough to look at.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files.disk import replacing
from batch_runner.records import SavedFile
from batch_runner.report.details import JobDetails
from batch_runner.text.path import superseded_path

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image

THUMBS_FOLDER = "thumbs"
SOURCES_FOLDER = "sources"

_THUMB_EDGE = 512
_VIEW_EDGE = 1600
_SHOWS_ITSELF_BYTES = 24 * 1024
_SHOWS_ITSELF_EDGE = 1024
_COPIED_BYTES = 256 * 1024
_HASH_CHARACTERS = 32
_QUALITY = 82
_ORDERS_AT_ONCE = 32
_JOBS_WAITING = 512
_WORKERS_AT_MOST = 8
_SHOWN_BY_BROWSERS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
}
_UPRIGHT = (None, 1)
_ORIENTATION_TAG = 0x0112


class Picture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture on the page; addresses are relative to the report's folder.

    `kind` is picture, video, link (on another machine), other (can't be shown) or missing. `view`
    is a copy to look at if browsers can't show the file itself, such as a TIFF.
    """

    kind: str
    name: str
    full: str | None = None
    view: str | None = None
    thumb: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its pictures."""

    details: JobDetails
    sources: list[Picture]
    outputs: list[Picture]


class _Order(msgspec.Struct, frozen=True):
    """A picture for a worker; `link` is the address of a file out, None for a picture in."""

    path: str
    hash: str
    name: str
    link: str | None = None


class _Batch:
    """Orders that go to a worker together, and their results."""

    def __init__(self) -> None:
        self.orders: list[_Order] = []
        self.made: Future[list[Picture]] | None = None


_Awaited = tuple[_Batch, int] | Picture


class Thumbnails:
    """Makes the pictures of a report. `with` starts and ends the worker processes.

    `fetched` holds the files of remote pictures by URL. If results are in a `bucket`, they are
    named instead of shown, unless they were fetched.
    """

    def __init__(
        self,
        report_folder: Path,
        output_folder: Path,
        fetched: Mapping[str, Path],
        *,
        bucket: str | None = None,
    ) -> None:
        self._folder = report_folder
        self._output_folder = output_folder
        self._bucket = bucket
        self._fetched = fetched
        # Jobs share sources, never results.
        self._sources: dict[str, _Awaited] = {}
        self._open = {SOURCES_FOLDER: _Batch(), THUMBS_FOLDER: _Batch()}
        self._pool = _new_pool()

    def __enter__(self) -> Self:
        try:
            for name in (THUMBS_FOLDER, SOURCES_FOLDER):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot write to {self._folder}: {error.strerror}",
                hint="the report needs this folder to itself",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def show(self, jobs: Iterable[JobDetails]) -> Iterator[Shown]:
        """Yield each job with its pictures."""
        waiting: deque[tuple[JobDetails, list[_Awaited], list[_Awaited]]] = deque()
        for details in jobs:
            sources = [self._source(url, details.local) for url in details.sources]
            outputs = [self._output(file) for file in details.files]
            waiting.append((details, sources, outputs))
            if len(waiting) >= _JOBS_WAITING:
                yield self._arrived(*waiting.popleft())
        while waiting:
            yield self._arrived(*waiting.popleft())

    def _source(self, url: str, local: Mapping[str, str]) -> _Awaited:
        known = self._sources.get(url)
        if known is None:
            path = Path(local[url]) if url in local else self._fetched.get(url)
            known = self._sources[url] = self._new_source(url, path)
        return known

    def _new_source(self, url: str, path: Path | None) -> _Awaited:
        name = unquote(urlsplit(url).path).rpartition("/")[2] or url
        if path is None:
            return Picture(kind="link", name=url, full=url if url.startswith("https://") else None)
        try:
            found = path.stat()
        except OSError:
            return Picture(kind="missing", name=name)
        version = f"{path}\0{found.st_mtime_ns}\0{found.st_size}"
        digest = hashlib.sha256(version.encode()).hexdigest()
        return self._ordered(SOURCES_FOLDER, _Order(str(path), digest[:_HASH_CHARACTERS], name))

    def _output(self, file: SavedFile) -> _Awaited:
        address = None if self._bucket is None else f"{self._bucket}/{file.path}"
        path = self._place_of(file) if address is None else self._fetched.get(address)
        if path is None:
            return Picture(
                kind="missing" if address is None else "link",
                name=address or file.path,
                size_bytes=file.size_bytes,
            )
        link = quote(os.path.relpath(path, self._folder))
        if not file.media_type.startswith("image/"):
            kind = "video" if file.media_type.startswith("video/") else "other"
            return Picture(kind=kind, name=file.path, full=link, size_bytes=file.size_bytes)
        order = _Order(str(path), file.sha256[:_HASH_CHARACTERS], file.path, link)
        return self._ordered(THUMBS_FOLDER, order)

    def _place_of(self, file: SavedFile) -> Path | None:
        """Find a file: another job may have taken its name since."""
        for name in (file.path, superseded_path(file.path, file.sha256)):
            path = self._output_folder / name
            try:
                if path.stat().st_size == file.size_bytes:
                    return path
            except OSError:
                continue
        return None

    def _ordered(self, folder: str, order: _Order) -> _Awaited:
        batch = self._open[folder]
        batch.orders.append(order)
        awaited = (batch, len(batch.orders) - 1)
        if len(batch.orders) == _ORDERS_AT_ONCE:
            self._send(folder)
        return awaited

    def _send(self, folder: str) -> None:
        batch, self._open[folder] = self._open[folder], _Batch()
        self._submit(batch)

    def _submit(self, batch: _Batch) -> None:
        try:
            batch.made = self._pool.submit(make_pictures, str(self._folder), batch.orders)
        except BrokenExecutor:
            self._pool = _new_pool()
            batch.made = self._pool.submit(make_pictures, str(self._folder), batch.orders)

    def _arrived(
        self, details: JobDetails, sources: list[_Awaited], outputs: list[_Awaited]
    ) -> Shown:
        return Shown(
            details=details,
            sources=[self._picture(one) for one in sources],
            outputs=[self._picture(one) for one in outputs],
        )

    def _picture(self, awaited: _Awaited) -> Picture:
        if isinstance(awaited, Picture):
            return awaited
        batch, place = awaited
        for folder, unsent in self._open.items():
            if batch is unsent:
                self._send(folder)
        try:
            return self._made(batch)[place]
        except BrokenExecutor:
            # A worker died, of memory or in a decoder, and the orders of all others with it.
            self._submit(batch)
        try:
            return self._made(batch)[place]
        except BrokenExecutor:
            batch.made = Future()
            batch.made.set_result([_undecodable(order) for order in batch.orders])
            return self._made(batch)[place]

    def _made(self, batch: _Batch) -> list[Picture]:
        if batch.made is None:
            raise RuntimeError("a batch was neither open nor sent")
        return batch.made.result()


def _new_pool() -> ProcessPoolExecutor:
    workers = min(os.cpu_count() or 1, _WORKERS_AT_MOST)
    # Spawned: a fork would inherit locks that no thread would ever release.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker)
    # Start all workers now: the pool hangs if it starts one while another dies.
    for _ in range(workers):
        pool.submit(make_pictures, "", [])
    return pool


# In the worker processes


def _begin_worker() -> None:
    # Ctrl-C reaches the whole group, and the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pictures of 100 megapixels are normal here; larger ones raise an error.
    warnings.simplefilter("ignore")


def make_pictures(folder: str, orders: list[_Order]) -> list[Picture]:
    """Make the missing copies of each picture; never raises if one can't be shown."""
    return [_make_picture(Path(folder), order) for order in orders]


def _make_picture(folder: Path, order: _Order) -> Picture:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - in the workers alone

    size_bytes = None
    try:
        size_bytes = Path(order.path).stat().st_size
        with Image.open(order.path) as image:
            return _made(folder, order, image, size_bytes)
    except FileNotFoundError:
        return Picture(kind="missing", name=order.name)
    except (
        OSError,
        StorageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        UnidentifiedImageError,
    ):
        # Errors of decoders. The file itself can still be opened by other programs.
        return _undecodable(order, size_bytes)


def _undecodable(order: _Order, size_bytes: int | None = None) -> Picture:
    return Picture(kind="other", name=order.name, full=order.link, size_bytes=size_bytes)


def _made(folder: Path, order: _Order, image: Image.Image, size_bytes: int) -> Picture:
    extension = _SHOWN_BY_BROWSERS.get(image.format or "")
    orientation = image.getexif().get(_ORIENTATION_TAG)
    width, height = image.size if orientation in _UPRIGHT or orientation < 5 else image.size[::-1]
    shows_itself = (
        extension is not None
        and size_bytes <= _SHOWS_ITSELF_BYTES
        and max(image.size) <= _SHOWS_ITSELF_EDGE
    )
    large = f"{SOURCES_FOLDER}/{order.hash}"
    full, view = order.link, None
    if extension is None:
        view = _reduced(folder, large, image, _VIEW_EDGE)
        full = full or view
    elif full is None and size_bytes <= _COPIED_BYTES:
        full = large + extension
        if not (folder / full).exists():
            with Path(order.path).open("rb") as file, replacing(folder / full) as part:
                shutil.copyfileobj(file, part)
    elif full is None:
        full = _reduced(folder, large, image, _VIEW_EDGE)
    small = f"{THUMBS_FOLDER}/{order.hash}"
    thumb = full if shows_itself else _reduced(folder, small, image, _THUMB_EDGE)
    return Picture(
        kind="picture",
        name=order.name,
        full=full,
        view=view,
        thumb=thumb,
        width=width,
        height=height,
        size_bytes=size_bytes,
    )


def _reduced(folder: Path, stem: str, image: Image.Image, edge: int) -> str:
    """Return the address of a smaller copy, and make it if it does not exist."""
    from PIL import ImageOps  # noqa: PLC0415 - in the workers alone

    is_opaque = "A" not in image.getbands() and "transparency" not in image.info
    path = f"{stem}.jpg" if is_opaque else f"{stem}.webp"

    if not (folder / path).exists():
        # Before decoding: a JPEG can be decoded at an eighth of its size.
        image.draft("RGB", (edge, edge))
        smaller = ImageOps.exif_transpose(image.convert("RGB" if is_opaque else "RGBA"))
        smaller.thumbnail((edge, edge))
        with replacing(folder / path) as part:
            smaller.save(part, "JPEG" if is_opaque else "WEBP", quality=_QUALITY)
    return path
