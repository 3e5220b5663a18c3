"""Pictures on other machines, fetched so that a page can show them.

Hides where they are kept. What always holds: only pictures that the manifest and its tables name,
or that are in the batch's own bucket, are fetched, by the rules of every download (https, no
redirect to an unnamed host, a size limit, recognised by content, whole) and without the token; a
picture is fetched once, even if its URL is signed again; a picture that can't be fetched is
reported, and the page links it instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

import msgspec
from yarl import URL

from batch_runner.files.bucket import Buckets, is_bucket_url, parse_bucket_url
from batch_runner.files.disk import replacing
from batch_runner.files.download import DownloadError, Downloads
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import NotSavedError
from batch_runner.report.details import BatchDetails
from batch_runner.report.progress import tracked
from batch_runner.run.batch import Batch
from batch_runner.text.address import unsigned_url

FETCHED_FOLDER = "fetched"

_AT_ONCE = 8
_SIZE_LIMIT_BYTES = 64 * 2**20
_REPORTED = 5
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.IGNORECASE)


class _Wanted(msgspec.Struct, frozen=True):
    """A picture: its name on the page, its full address, its file name here without extension."""

    shown: str
    address: str
    stem: str


async def fetch_remote_pictures(
    batch: Batch, folder: Path, say: Callable[[str], None], stream: TextIO
) -> dict[str, Path]:
    """Fetch the missing pictures; returns the file of each by its URL without signature.

    Raises ManifestError, StorageError, and AccessRefusedError of a bucket.
    """
    wanted = {one.shown: one for one in _wanted(batch)}
    kept = folder / FETCHED_FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    found = {path.stem: path for path in kept.iterdir() if not path.name.startswith(".")}
    missing = [one for one in wanted.values() if one.stem not in found]
    troubles: list[str] = []
    turns = tracked(missing, total=len(missing), what="fetching", stream=stream, unit="pictures")
    async with Downloads(
        FolderStorage(kept),
        hosts=_hosts(missing),
        allow_loopback=batch.service.is_local,
        proxies=batch.options.proxies,
        size_limit_bytes=_SIZE_LIMIT_BYTES,
        pictures_only=True,
    ) as downloads:
        fetching = _Fetching(downloads, batch.buckets, kept, found, troubles)
        await asyncio.gather(*(fetching.work(turns) for _ in range(_AT_ONCE)))
    for trouble in troubles[:_REPORTED]:
        say(f"not fetched: {trouble}")
    if len(troubles) > _REPORTED:
        say(f"not fetched: {len(troubles) - _REPORTED:,} more")
    return {shown: found[one.stem] for shown, one in wanted.items() if one.stem in found}


class _Fetching:
    """The state that all workers share."""

    def __init__(
        self,
        downloads: Downloads,
        buckets: Buckets,
        kept: Path,
        found: dict[str, Path],
        troubles: list[str],
    ) -> None:
        self._downloads = downloads
        self._buckets = buckets
        self._kept = kept
        self._found = found
        self._troubles = troubles

    async def work(self, turns: Iterator[_Wanted]) -> None:
        for one in turns:
            try:
                if is_bucket_url(one.address):
                    path = await asyncio.to_thread(self._from_bucket, one)
                else:
                    saved = await self._downloads.fetch(one.address, one.stem)
                    path = self._kept / saved.path
            except (DownloadError, NotSavedError, FileNotFoundError) as error:
                self._troubles.append(str(error) or f"{one.shown} does not exist")
            else:
                self._found[one.stem] = path

    def _from_bucket(self, one: _Wanted) -> Path:
        url, size_bytes = parse_bucket_url(one.address), 0
        path = self._kept / (one.stem + PurePosixPath(url.key).suffix.lower())
        chunks = self._buckets.chunks(url)
        first = next(chunks, b"")  # before opening the file: the object may be missing
        with replacing(path) as file:
            for chunk in itertools.chain([first], chunks):
                size_bytes += len(chunk)
                if size_bytes > _SIZE_LIMIT_BYTES:
                    limit = f"{_SIZE_LIMIT_BYTES // 2**20} MiB"
                    raise NotSavedError(f"{one.shown}: larger than {limit}")
                file.write(chunk)
        return path


def _wanted(batch: Batch) -> Iterator[_Wanted]:
    """Yield the remote pictures: pictures in, and files out if they go to a bucket."""
    bucket = batch.bucket
    for details in BatchDetails(batch):
        for shown, address in zip(details.sources, details.fetchable, strict=True):
            if shown not in details.local and (
                is_bucket_url(address) or address.startswith(("https://", "http://"))
            ):
                stem = hashlib.sha256(unsigned_url(address).encode()).hexdigest()[:32]
                yield _Wanted(shown, address, stem)
        for file in () if bucket is None else details.files:
            address = f"{bucket}/{file.path}"
            yield _Wanted(address, address, file.sha256[:32])


def _hosts(wanted: Iterable[_Wanted]) -> set[str]:
    """Return the named hosts, as plain names only: a pattern would trust other hosts too."""
    hosts = set()
    for one in wanted:
        with contextlib.suppress(ValueError):
            hosts.add(URL(one.address).raw_host or "")
    return {host for host in hosts if _HOST.fullmatch(host)}
