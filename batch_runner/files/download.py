"""From one URL to one verified file in place.

Hides HTTP, data: URLs, and which answers are files; `storage` decides where files go. What always
holds: files come from trusted hosts only, whatever a URL or a redirect says, and no request carries
the token; a file reaches the storage only when it is whole and hashed; pictures, films and sounds
are recognised by their content.
Not promised: that a whole picture also shows what was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import re
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self
from urllib.parse import unquote_to_bytes
from weakref import WeakValueDictionary

import aiofiles
import aiohttp
from yarl import URL

from batch_runner.files.media import HEAD_BYTES, is_whole, is_whole_file, kind_by_name, recognise
from batch_runner.files.storage import NotSavedError, Storage, Whole, disk_error
from batch_runner.records import SavedFile, redact_url
from batch_runner.service.network import NO_PROXIES, Proxies, is_loopback_host
from batch_runner.service.web import Client, describe
from batch_runner.text.path import collision_key

TRUSTED_HOSTS = ("*.runcomfy.net", "*.runcomfy.com")
SIZE_LIMIT_BYTES = 2 * 1024**3

_MEMORY_LIMIT_BYTES = 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_SILENCE_LIMIT_S = 120.0
_CONNECT_TIMEOUT_S = 10.0
_SHOWN_CHARACTERS = 200
_CUT_OFF = "the file that came is cut off"

_UNUSUAL = re.compile(r"[\\\x00-\x20]")
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_URL_SAFE = bytes.maketrans(b"-_", b"+/")

_Waiting = tuple[Whole, asyncio.Future[SavedFile]]
_Results = list[SavedFile | Exception]


class DownloadError(NotSavedError):
    """One output could not be fetched; it is paid for, and fetching it again is free."""

    def __init__(
        self,
        url: str,
        what: str,
        *,
        reason: str | None = None,
        hint: str | None = None,
        is_lasting: bool = True,
    ) -> None:
        self.what = what
        message = f"{redact_url(url)[:_SHOWN_CHARACTERS]}: {what}"
        super().__init__(message, reason=reason or what, hint=hint, is_lasting=is_lasting)


class UnusableError(DownloadError):
    """The service's answer holds the output itself, and it can't become a file."""


class Downloads:
    """Fetches outputs into one storage. `async with` opens and closes its connections."""

    def __init__(
        self,
        storage: Storage,
        *,
        hosts: Iterable[str] = (),
        allow_loopback: bool = False,
        size_limit_bytes: int | None = None,
        pictures_only: bool = False,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._storage = storage
        self._hosts = (*TRUSTED_HOSTS, *(host.lower() for host in hosts))
        self._allow_loopback = allow_loopback
        self._size_limit_bytes = size_limit_bytes
        self._pictures_only = pictures_only
        self._proxies = proxies
        self._client: Client | None = None
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writers = ThreadPoolExecutor(storage.threads, thread_name_prefix="download")
        self._waiting: deque[_Waiting] = deque()
        self._saving = 0

    async def __aenter__(self) -> Self:
        self._client = Client(
            self._proxies,
            timeout={
                "total": None,
                "sock_connect": _CONNECT_TIMEOUT_S,
                "sock_read": _SILENCE_LIMIT_S,
            },
            connector={"limit": 0},
            # A body is saved as it was sent: 1 MB could be decompressed to 1 GB.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()
        # Their jobs were cancelled, so nobody would record them. The next run fetches them again.
        self._waiting.clear()
        self._writers.shutdown(wait=True)

    async def fetch(self, url: str, stem: str) -> SavedFile:
        """Save one output under `stem` (relative, no extension) and return what was saved.

        Raises DownloadError, NotSavedError if the file came but cannot be kept there, or
        StorageError if the disk failed.
        """
        try:
            # Two jobs can have one name if the service returns more outputs than it was asked for.
            async with self._under_way.setdefault(collision_key(stem), asyncio.Lock()):
                return await self._fetch(url, stem)
        except (aiohttp.ClientError, TimeoutError, ValueError, IndexError) as error:
            # ValueError and IndexError: parsers raise them for hostile addresses, some late.
            why = describe(error)
            reason = "its host could not be reached, or sent no whole answer"
            raise DownloadError(url, why, reason=reason, is_lasting=False) from error
        except OSError as error:
            raise disk_error(f"{self._storage}/{stem}", error) from error

    async def has(self, url: str) -> bool:
        """Try whether an address still gives a file, without reading it."""
        try:
            async with await self._open(url):
                return True
        except (DownloadError, aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def _fetch(self, url: str, stem: str) -> SavedFile:
        if url[:5].lower() == "data:":
            try:
                named, body = self._read_data(url)
                return await self._save_body(url, named, body, stem)
            except DownloadError as error:
                raise UnusableError(url, error.what, reason=error.reason) from error
        response = await self._open(url)
        try:
            named = _named(response)
            expected = response.content_length
            if expected is not None and expected <= _MEMORY_LIMIT_BYTES:
                return await self._save_body(url, named, await response.read(), stem)
            self._check_size(url, expected or 0)
            head = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                head += chunk
                if len(head) > _MEMORY_LIMIT_BYTES:
                    return await self._save_stream(url, stem, head, named, response)
        finally:
            response.close()
        return await self._save_body(url, named, bytes(head), stem)

    def _check_size(self, url: str, size_bytes: int) -> None:
        limit_bytes = self._size_limit_bytes or SIZE_LIMIT_BYTES
        if size_bytes > limit_bytes:
            what = f"more than {limit_bytes / 2**20:,.0f} MiB"
            raise DownloadError(url, what, reason="too large")

    def _read_data(self, url: str) -> tuple[str, bytes]:
        """Return the media type of a data: URL, and its content."""
        head, _, text = url[5:].partition(",")
        kind, *parameters = (part.strip().lower() for part in head.split(";"))
        self._check_size(url, len(text) // 2)
        body = unquote_to_bytes(text)
        if "base64" in parameters:
            digits = b"".join(body.split()).translate(_URL_SAFE).rstrip(b"=")
            try:
                body = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
            except ValueError as error:
                raise DownloadError(url, "its base64 text can't be decoded") from error
        self._check_size(url, len(body))
        return kind, body

    async def _save_body(self, url: str, named: str, body: bytes, stem: str) -> SavedFile:
        media_type, extension = self._recognise(url, named, body)
        if not is_whole(media_type, body):
            raise DownloadError(url, _CUT_OFF, is_lasting=False)
        # Small files are saved together with others that arrive meanwhile. A future of its own:
        # cancelling one job must not cancel the files of the others.
        saving: asyncio.Future[SavedFile] = asyncio.get_running_loop().create_future()
        self._waiting.append((Whole(stem + extension, media_type, body), saving))
        self._begin_saving()
        return await saving

    async def _open(self, url: str) -> aiohttp.ClientResponse:
        """Follow redirects, each of which must lead to a trusted host; the caller closes it."""
        if self._client is None:
            raise RuntimeError("downloads are used outside their `async with`")
        response, target = await self._client.follow(
            "GET", self._trusted(url), lambda base, location: self._trusted(location, base=base)
        )
        if response.status == 200:
            return response
        response.close()
        # These will not come back; other statuses may be a host's bad hour.
        is_lasting = response.status in (401, 403, 404, 410)
        raise DownloadError(str(target), f"HTTP {response.status}", is_lasting=is_lasting)

    def _trusted(self, url: str, *, base: URL | None = None) -> URL:
        """Return the URL as it will be contacted; raises DownloadError unless its host is trusted.

        The host is read from the very object that the HTTP client gets: two parsers could read one
        text differently.
        """
        try:
            parsed = URL(url) if base is None else base.join(URL(url))
            host = parsed.raw_host or ""
        except ValueError as error:
            raise DownloadError(url, "it is not a URL") from error
        if parsed.user is not None or parsed.password is not None or _UNUSUAL.search(url):
            raise DownloadError(
                url, "it is not a URL to follow: it has a user, a space or a backslash"
            )
        if self._allow_loopback and parsed.scheme in ("http", "https") and is_loopback_host(host):
            return parsed
        is_usual = parsed.scheme == "https" and _HOST_NAME.fullmatch(host) is not None
        if is_usual and any(
            host.endswith(one[1:]) if one.startswith("*.") else host == one for one in self._hosts
        ):
            return parsed
        hint = f"if you trust it, add {host} to output.hosts, then run the command again"
        raise DownloadError(
            url,
            f"the output is on {parsed.scheme}://{host}, which is not a trusted host",
            hint=hint if is_usual else None,
        )

    async def _save_stream(
        self, url: str, stem: str, head: bytearray, named: str, response: aiohttp.ClientResponse
    ) -> SavedFile:
        media_type, extension = self._recognise(url, named, head)
        digest, size = hashlib.sha256(), 0
        with self._storage.unfinished(stem + extension) as unfinished:
            async with aiofiles.open(unfinished, "wb", executor=self._writers) as file:
                chunk = bytes(head)
                head.clear()
                while chunk:
                    digest.update(chunk)
                    size += len(chunk)
                    self._check_size(url, size)
                    await file.write(chunk)
                    chunk = await response.content.read(_CHUNK_BYTES)
            saved = SavedFile(
                path=stem + extension,
                size_bytes=size,
                sha256=digest.hexdigest(),
                media_type=media_type,
            )

            def keep() -> None:
                if not is_whole_file(unfinished, media_type):
                    raise DownloadError(url, _CUT_OFF, is_lasting=False)
                self._storage.put_in_place(unfinished, saved)

            await asyncio.get_running_loop().run_in_executor(self._writers, keep)
        return saved

    def _recognise(self, url: str, named: str, head: bytes | bytearray) -> tuple[str, str]:
        found = recognise(bytes(head[:HEAD_BYTES]))
        if found is None and not self._pictures_only:
            path = "" if url[:5].lower() == "data:" else URL(url).path
            found = kind_by_name(named, path)
        if found is None:
            what = f"neither a picture nor a video came (it begins {bytes(head[:16])!r}"
            what += f" and calls itself {named[:60]})" if named else ")"
            raise DownloadError(url, what, reason="not a known kind of file")
        return found

    def _begin_saving(self) -> None:
        """Share the waiting files evenly among the threads, and start those that are free."""
        while self._waiting and self._saving < self._storage.threads:
            share = -(-len(self._waiting) // self._storage.threads)
            batch = [self._waiting.popleft() for _ in range(share)]
            self._saving += 1
            saving = asyncio.get_running_loop().run_in_executor(
                self._writers, self._storage.save_whole, [file for file, _ in batch]
            )
            saving.add_done_callback(functools.partial(self._after_saving, batch))

    def _after_saving(self, batch: list[_Waiting], saving: asyncio.Future[_Results]) -> None:
        self._saving -= 1
        error = saving.exception()
        results = [error] * len(batch) if error is not None else saving.result()
        for (_, waiter), result in zip(batch, results, strict=True):
            if waiter.done():
                continue  # it was cancelled
            if isinstance(result, SavedFile):
                waiter.set_result(result)
            else:
                waiter.set_exception(result)
        self._begin_saving()


def _named(response: aiohttp.ClientResponse) -> str:
    """Return the media type that a response gives its file."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return "a packed file"
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
