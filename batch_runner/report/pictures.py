"""The pictures of the page: which addresses they have, and the smaller copies behind some of them.

Hides Pillow, and where originals are. What always holds: addresses follow from the ledger and from
names alone, so that a page never waits for a picture; a copy is made once, and kept under a name
that changes with its original; copies hold the pixels alone, upright; a picture that is missing or
can't be decoded has no copy, and stops nothing.

Files out are linked where they are. Of pictures in, which may be anywhere, the page has a copy that
is large enough to look at.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files.bucket import is_bucket_url
from batch_runner.files.disk import replacing
from batch_runner.records import SavedFile
from batch_runner.report.details import JobDetails
from batch_runner.report.remote import Remote
from batch_runner.text.address import unsigned_url
from batch_runner.text.path import superseded_path

_THUMB_EDGE = 512
_VIEW_EDGE = 1600
_SHOWS_ITSELF_BYTES = 24 * 1024
_HASH_CHARACTERS = 32
_QUALITY = 82
_SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif")


class Picture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture on the page; addresses are relative to the report's folder.

    `kind` is picture, video, link (on another machine), other (can't be shown) or missing. `view`
    is a copy to look at if browsers can't show the file itself, such as a TIFF. `link` is where a
    picture of another machine is. `sha256` is that of a file out: verdicts name it.
    """

    kind: str
    name: str
    full: str | None = None
    view: str | None = None
    thumb: str | None = None
    link: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy is made of: a file, or what a URL gives; `edge` None keeps it as it is."""

    path: Path | None = None
    url: str | None = None
    sha256: str | None = None
    edge: int | None = None


class Pictures:
    """Names the pictures of jobs. `copies` are to be made, by address below the report's folder.

    `files` are the files out by address. With `with_remote`, pictures of other hosts and of the
    batch's bucket get copies too; otherwise they are links.
    """

    def __init__(self, output_folder: Path, *, bucket: str | None, with_remote: bool) -> None:
        self._folder = output_folder
        self._bucket = bucket
        self._with_remote = with_remote
        self._sources: dict[str, Picture] = {}
        self.copies: dict[str, Copy] = {}
        self.files: dict[str, SavedFile] = {}

    def of(self, details: JobDetails) -> tuple[list[Picture], list[Picture]]:
        """Return the pictures in and the files out of a job."""
        sources = []
        for shown, url in zip(details.sources, details.fetchable, strict=True):
            if shown not in self._sources:
                local = details.local.get(shown)
                self._sources[shown] = self._source(shown, url, local)
            sources.append(self._sources[shown])
        return sources, self.outputs(details.files)

    def outputs(self, saved: Iterable[SavedFile]) -> list[Picture]:
        """Return files out."""
        return [self._output(file) for file in saved]

    def _source(self, shown: str, url: str, local: str | None) -> Picture:
        name = unquote(urlsplit(shown).path).rpartition("/")[2] or shown
        link = None
        if local is not None:
            try:
                found = Path(local).stat()
            except OSError:
                return Picture(kind="missing", name=name)
            version = f"{local}\0{found.st_mtime_ns}\0{found.st_size}"
            copy = Copy(path=Path(local))
        else:
            link = shown if shown.startswith("https://") else None
            is_address = url.startswith(("https://", "http://")) or is_bucket_url(url)
            if not (self._with_remote and is_address):
                return Picture(kind="link", name=shown, link=link)
            version, copy = unsigned_url(url), Copy(url=url)
        stem = hashlib.sha256(version.encode()).hexdigest()
        suffix = PurePosixPath(name).suffix.lower()
        return Picture(
            kind="picture",
            name=name,
            full=self._reduced("sources", stem, suffix, copy, _VIEW_EDGE),
            thumb=self._reduced("thumbs", stem, suffix, copy, _THUMB_EDGE),
            link=link,
        )

    def _output(self, file: SavedFile) -> Picture:
        stem, suffix = file.sha256, PurePosixPath(file.path).suffix.lower()
        if self._bucket is None:
            path = self._place_of(file)
            if path is None:
                return Picture(kind="missing", name=file.path, size_bytes=file.size_bytes)
            full = quote(f"../{path}")
            self.files[f"../{path}"] = file
            copy = Copy(path=self._folder / path)
        else:
            address = f"{self._bucket}/{file.path}"
            if not self._with_remote:
                return Picture(kind="link", name=address, size_bytes=file.size_bytes)
            copy = Copy(url=address, sha256=file.sha256)
            full = self._add("fetched", stem, suffix, copy)
            self.files[full] = file
        picture = Picture(
            kind="picture",
            name=file.path,
            full=full,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
        if not file.media_type.startswith("image/"):
            kind = "video" if file.media_type.startswith("video/") else "other"
            return msgspec.structs.replace(picture, kind=kind)
        is_shown = suffix in _SHOWN_BY_BROWSERS
        view = None if is_shown else self._reduced("sources", stem, suffix, copy, _VIEW_EDGE)
        is_small = is_shown and file.size_bytes <= _SHOWS_ITSELF_BYTES
        thumb = full if is_small else self._reduced("thumbs", stem, suffix, copy, _THUMB_EDGE)
        return msgspec.structs.replace(picture, view=view, thumb=thumb)

    def _place_of(self, file: SavedFile) -> str | None:
        """Find a file: another job may have taken its name since."""
        for name in (file.path, superseded_path(file.path, file.sha256)):
            try:
                if (self._folder / name).stat().st_size == file.size_bytes:
                    return name
            except OSError:
                continue
        return None

    def _reduced(self, folder: str, stem: str, suffix: str, copy: Copy, edge: int) -> str:
        # A JPEG has no transparent pixels to keep.
        kind = ".jpg" if suffix in (".jpg", ".jpeg") else ".webp"
        return self._add(folder, stem, kind, msgspec.structs.replace(copy, edge=edge))

    def _add(self, folder: str, stem: str, suffix: str, copy: Copy) -> str:
        address = f"{folder}/{stem[:_HASH_CHARACTERS]}{suffix}"
        self.copies[address] = copy
        return address


class Copies:
    """Makes copies in the report's folder, in threads."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        # Pictures of 100 megapixels are normal here; larger ones raise an error.
        warnings.filterwarnings("ignore", module="PIL")
        self._folder = folder
        self._remote = remote
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)

    async def get(self, address: str, copy: Copy) -> Path | None:
        """Return the file of a copy, made now if it is not there yet; None if it can't be made."""
        target, original = self._folder / address, copy.path
        if target.exists():
            return target
        if original is None and copy.url is not None:
            original = await self._remote.find(copy.url, copy.sha256)
        if original is None or copy.edge is None:
            return original
        async with self._turns:
            return await asyncio.to_thread(make_copy, original, target, copy.edge)


def make_copy(original: Path, target: Path, edge: int) -> Path | None:
    """Write a copy of a picture, no larger than `edge`; None if the picture can't be decoded.

    If the disk takes no copy, the original is returned in its place.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - few commands decode pictures

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(original) as image:
            # Before decoding: a JPEG can be decoded at an eighth of its size.
            image.draft("RGB", (edge, edge))
            is_opaque = "A" not in image.getbands() and "transparency" not in image.info
            smaller = ImageOps.exif_transpose(image.convert("RGB" if is_opaque else "RGBA"))
            smaller.thumbnail((edge, edge))
            if target.suffix == ".jpg":
                smaller = smaller.convert("RGB")
            with replacing(target) as part:
                kind = "JPEG" if target.suffix == ".jpg" else "WEBP"
                smaller.save(part, kind, quality=_QUALITY, method=2)
            return target
    except StorageError:
        return original
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
