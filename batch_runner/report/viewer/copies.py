"""Local copies of files in a bucket, kept while the live page is served.

Hides when an object is read and where its copy is. What always holds: an object is read on demand,
once while its copy is kept, four at a time and never on the event loop; a copy is served only if
size and hash match the ledger; the copies are in a folder that only this user can read, take a
bounded space, and are removed with the page. If there is no copy to be had the answer is None, and
the first reason is reported.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Self

from batch_runner.errors import BatchRunnerError
from batch_runner.report.moment import Picture

_AT_ONCE = 4
_SIZE_LIMIT_BYTES = 64 * 2**20
_SPACE_LIMIT_BYTES = 512 * 2**20


class Copies:
    """Makes copies during the block.

    `chunks` reads a saved file by its path in the bucket, and raises FileNotFoundError or
    BatchRunnerError; `say` prints a message.
    """

    def __init__(
        self, chunks: Callable[[str], Iterator[bytes]], say: Callable[[str], None]
    ) -> None:
        self._chunks = chunks
        self._say = say
        self._has_said = False
        self._is_closing = False
        self._folder = tempfile.TemporaryDirectory(prefix="batch-runner-")
        self._kept: OrderedDict[str, tuple[Path, int]] = OrderedDict()
        self._coming: dict[str, asyncio.Future[Path | None]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copies")

    def __repr__(self) -> str:
        return f"Copies({len(self._kept)} kept, {len(self._coming)} coming)"

    async def find(self, picture: Picture) -> Path | None:
        """Return the path of a picture's copy, or None."""
        key = picture.sha256
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        if key not in self._coming:
            loop = asyncio.get_running_loop()
            self._coming[key] = loop.run_in_executor(self._pool, self._fetch, picture)
            self._coming[key].add_done_callback(lambda came: self._keep(picture, came))
        # Shielded: others may wait for the same copy when one request is cancelled.
        return await asyncio.shield(self._coming[key])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _keep(self, picture: Picture, came: asyncio.Future[Path | None]) -> None:
        del self._coming[picture.sha256]
        path = None if came.cancelled() or came.exception() else came.result()
        if path is None:
            return
        self._kept[picture.sha256] = path, picture.size_bytes
        while sum(size for _, size in self._kept.values()) > _SPACE_LIMIT_BYTES:
            _, (oldest, _) = self._kept.popitem(last=False)
            oldest.unlink(missing_ok=True)

    def _fetch(self, picture: Picture) -> Path | None:
        within = PurePosixPath(picture.path)
        # Anybody may have edited the ledger.
        is_odd = within.is_absolute() or ".." in within.parts or not picture.sha256.isalnum()
        if is_odd or picture.size_bytes > _SIZE_LIMIT_BYTES:
            return None
        path = Path(self._folder.name) / picture.sha256
        try:
            if self._read(picture, path):
                return path
        except (OSError, BatchRunnerError) as error:
            self._complain(getattr(error, "message", None) or f"{picture.path}: {error}")
        path.unlink(missing_ok=True)
        return None

    def _read(self, picture: Picture, path: Path) -> bool:
        """Write an object into a file; returns whether it matches the ledger."""
        digest, size_bytes = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in self._chunks(picture.path):
                size_bytes += len(chunk)
                if self._is_closing or size_bytes > picture.size_bytes:
                    return False
                digest.update(chunk)
                file.write(chunk)
        return size_bytes == picture.size_bytes and digest.hexdigest() == picture.sha256

    def _complain(self, why: str) -> None:
        if not self._has_said and not self._is_closing:
            self._has_said = True
            self._say(f"cannot show pictures of the bucket: {why}")
