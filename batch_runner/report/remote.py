"""Pictures on other machines, fetched so that a page can show them, and a check compare them.

Hides where they are kept. What always holds: a picture is fetched only if the manifest, its tables
or the ledger name it, by the rules of every download (https, no redirect to an unnamed host, a size
limit, recognised by content, whole) and without the token; a file out is shown only if it is the
one that was saved; a picture is fetched once, even if its URL is signed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path, PurePosixPath

from yarl import URL

from batch_runner.errors import BatchRunnerError
from batch_runner.files.bucket import is_bucket_url, parse_bucket_url
from batch_runner.files.disk import replacing
from batch_runner.files.download import DownloadError, Downloads
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import NotSavedError
from batch_runner.run.batch import Batch
from batch_runner.text.address import unsigned_url

FOLDER = "report"
"""The page's folder in the output folder; what is fetched is in there, for a check as well."""

_AT_ONCE = 8
_SIZE_LIMIT_BYTES = 64 * 2**20
_REPORTED = 5
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.IGNORECASE)


class Remote:
    """Fetches pictures into the page's folder; `say` prints the first failures."""

    def __init__(self, batch: Batch, say: Callable[[str], None]) -> None:
        self._batch = batch
        self._folder = batch.output_dir / FOLDER / "fetched"
        self._say = say
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._found: dict[str, asyncio.Future[Path | None]] = {}
        self._failures = 0

    async def find(self, url: str, sha256: str | None) -> Path | None:
        """Return the file of a picture; None if it can't be had, which is tried once."""
        stem = (sha256 or hashlib.sha256(unsigned_url(url).encode()).hexdigest())[:32]
        if stem not in self._found:
            self._found[stem] = asyncio.ensure_future(self._try(url, stem, sha256))
        # Shielded: others may wait for the same picture when one of them leaves.
        return await asyncio.shield(self._found[stem])

    async def _try(self, url: str, stem: str, sha256: str | None) -> Path | None:
        for path in self._folder.glob(f"{stem}.*"):
            return path
        async with self._turns:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                if is_bucket_url(url):
                    return await asyncio.to_thread(self._from_bucket, url, stem, sha256)
                return await self._from_host(url, stem)
            except (BatchRunnerError, DownloadError, NotSavedError, OSError) as error:
                self._failures += 1
                if self._failures <= _REPORTED:
                    self._say(f"not fetched: {error}")
                return None

    async def _from_host(self, url: str, stem: str) -> Path:
        # Plain names only: a pattern would trust other hosts too.
        host = URL(url).raw_host or ""
        async with Downloads(
            FolderStorage(self._folder),
            hosts={host} if _HOST.fullmatch(host) else (),
            allow_loopback=self._batch.service.is_local,
            proxies=self._batch.options.proxies,
            size_limit_bytes=_SIZE_LIMIT_BYTES,
            pictures_only=True,
        ) as downloads:
            return self._folder / (await downloads.fetch(url, stem)).path

    def _from_bucket(self, url: str, stem: str, sha256: str | None) -> Path:
        place, size_bytes, digest = parse_bucket_url(url), 0, hashlib.sha256()
        path = self._folder / (stem + PurePosixPath(place.key).suffix.lower())
        chunks = self._batch.buckets.chunks(place)
        first = next(chunks, b"")  # before opening the file: the object may be missing
        with replacing(path) as file:
            for chunk in chain([first], chunks):
                size_bytes += len(chunk)
                if size_bytes > _SIZE_LIMIT_BYTES:
                    raise NotSavedError(f"{url}: larger than {_SIZE_LIMIT_BYTES // 2**20} MiB")
                digest.update(chunk)
                file.write(chunk)
            if sha256 not in (None, digest.hexdigest()):
                raise NotSavedError(f"{url}: not the file that was saved")
        return path
