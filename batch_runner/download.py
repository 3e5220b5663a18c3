"""One URL in, one verified file in place.

Hides HTTP, temporary files and what counts as a picture. What always holds: nothing is fetched from
a host outside the trusted ones, whatever a URL or a redirect says, and never with the token; a file
gets its final name only whole, recognised by its content, hashed and synced; a file that stands in
the way is moved aside, never overwritten; nothing is written outside the folder.
Not promised: that a picture which is whole also shows what was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakValueDictionary

import aiofiles
import aiohttp
import msgspec
from yarl import URL

from batch_runner.errors import StorageError
from batch_runner.path import superseded_path
from batch_runner.records import SavedFile, redact_url
from batch_runner.service import is_loopback_host

TRUSTED_HOSTS = ("*.runcomfy.net", "*.runcomfy.com")
SIZE_LIMIT_BYTES = 2 * 1024**3

_MEMORY_LIMIT_BYTES = 1024 * 1024
_FATAL_ERRNOS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)
)
_CHUNK_BYTES = 256 * 1024
_HEAD_BYTES = 64
_SILENCE_LIMIT_S = 120.0
_CONNECT_TIMEOUT_S = 10.0
_REDIRECT_LIMIT = 5
_WRITER_THREADS = 4

_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (r"\x89PNG\r\n\x1a\n", "image/png", ".png"),
    (r"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (r"RIFF....WEBP", "image/webp", ".webp"),
    (r"GIF8[79]a", "image/gif", ".gif"),
    (r"....ftyp(?:avif|avis)", "image/avif", ".avif"),
    (r"....ftyp(?:heic|heix|mif1)", "image/heic", ".heic"),
    (r"....ftypqt  ", "video/quicktime", ".mov"),
    (r"....ftyp", "video/mp4", ".mp4"),
    (r"\x1aE\xdf\xa3", "video/webm", ".webm"),
    (r"(?:II\*\x00|MM\x00\*)", "image/tiff", ".tif"),
)
_UNUSUAL = re.compile(r"[\\\x00-\x20]")
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_RECOGNISERS = tuple(
    (re.compile(pattern.encode("latin-1"), re.DOTALL), media_type, extension)
    for pattern, media_type, extension in _SIGNATURES
)


_T = TypeVar("_T")


class DownloadError(Exception):
    """One output could not be had now; it is paid for and can be fetched again, for free."""


class Downloads:
    """Fetches outputs into one folder. `async with` opens and closes its connections."""

    def __init__(
        self, folder: Path, *, hosts: Iterable[str] = (), allow_loopback: bool = False
    ) -> None:
        self._folder = folder
        self._hosts = (*TRUSTED_HOSTS, *(host.lower() for host in hosts))
        self._allow_loopback = allow_loopback
        self._session: aiohttp.ClientSession | None = None
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writers = ThreadPoolExecutor(_WRITER_THREADS, thread_name_prefix="download")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_LIMIT_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A body is saved as it was sent; "decompressing" could make 1 GB out of 1 MB.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
        self._writers.shutdown(wait=True)

    async def fetch(self, url: str, stem: str) -> SavedFile:
        """Save one output under `stem` (relative, no extension) and return what was saved.

        Raises DownloadError, or StorageError where the disk is at fault.
        """
        try:
            # Two jobs can meet in one name when a service returns more outputs than it was asked.
            name = self._names.setdefault(stem, asyncio.Lock())
            async with name:
                return await self._fetch(url, stem)
        except (aiohttp.ClientError, TimeoutError, ValueError, IndexError) as error:
            # ValueError and IndexError: what parsers of hostile addresses raise, some of them late.
            why = str(error) or type(error).__name__
            raise DownloadError(f"{redact_url(url)}: {why[:200]}") from error
        except OSError as error:
            raise _disk_error(self._folder / stem, error) from error

    async def _fetch(self, url: str, stem: str) -> SavedFile:
        response = await self._open(url)
        async with response:
            expected = response.content_length
            if expected is not None and expected > SIZE_LIMIT_BYTES:
                raise DownloadError(f"{redact_url(url)}: {expected:,} bytes are more than 2 GiB")
            if expected is not None and expected <= _MEMORY_LIMIT_BYTES:
                body = await response.read()
            else:
                head = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    head += chunk
                    if len(head) > _MEMORY_LIMIT_BYTES:
                        return await self._save_stream(url, stem, head, response)
                body = bytes(head)
        media_type, extension = _recognise(url, body)
        if not is_whole(media_type, body):
            raise DownloadError(f"{redact_url(url)}: the file that came is cut off")
        # One trip to a thread for all of a small file: write, sync, rename.
        return await asyncio.get_running_loop().run_in_executor(
            self._writers, self._save_whole, stem + extension, media_type, body
        )

    async def _open(self, url: str) -> aiohttp.ClientResponse:
        """Follow redirects by hand: each of them has to lead to a trusted host."""
        if self._session is None:
            raise RuntimeError("downloads are used outside their `async with`")
        target = self._trusted(url)
        for _ in range(_REDIRECT_LIMIT + 1):
            response = await self._session.get(target, allow_redirects=False)
            if response.status not in (301, 302, 303, 307, 308):
                break
            location = response.headers.get("Location", "")
            response.release()
            target = self._trusted(location, base=target)
        if response.status != 200:
            response.release()
            raise DownloadError(f"{redact_url(str(target))}: HTTP {response.status}")
        return response

    def _trusted(self, url: str, *, base: URL | None = None) -> URL:
        """Return the URL as it will be contacted; raises DownloadError unless its host is trusted.

        What is compared is the host of the very object that is handed to the HTTP client, so that
        two readings of one text cannot differ.
        """
        try:
            parsed = URL(url) if base is None else base.join(URL(url))
            host = parsed.raw_host or ""
        except ValueError as error:
            raise DownloadError(f"{redact_url(url)[:200]!r} is not a URL") from error
        has_user = parsed.user is not None or parsed.password is not None
        if has_user or _UNUSUAL.search(url):
            raise DownloadError(f"{redact_url(url)[:200]!r} is not a URL this program follows")
        if self._allow_loopback and parsed.scheme in ("http", "https") and is_loopback_host(host):
            return parsed
        if parsed.scheme != "https" or not self._is_trusted(host):
            raise DownloadError(
                f"the output is at {parsed.scheme}://{host}, which is not a trusted host"
            )
        return parsed

    def _is_trusted(self, host: str) -> bool:
        """Tell whether a host is a plain name, and one of the trusted ones."""
        return _HOST_NAME.fullmatch(host) is not None and any(
            _matches(host, pattern) for pattern in self._hosts
        )

    async def _save_stream(
        self, url: str, stem: str, head: bytearray, response: aiohttp.ClientResponse
    ) -> SavedFile:
        media_type, extension = _recognise(url, head)
        digest, size = hashlib.sha256(), 0
        with self._unfinished(stem + extension) as unfinished:
            async with aiofiles.open(unfinished, "wb", executor=self._writers) as file:
                chunk = bytes(head)
                head.clear()
                while chunk:
                    digest.update(chunk)
                    size += len(chunk)
                    if size > SIZE_LIMIT_BYTES:
                        raise DownloadError(f"{redact_url(url)}: more than 2 GiB came")
                    await file.write(chunk)
                    chunk = await response.content.read(_CHUNK_BYTES)
            saved = SavedFile(
                path=stem + extension,
                size_bytes=size,
                sha256=digest.hexdigest(),
                media_type=media_type,
            )
            if not await self._in_thread(lambda: _is_whole_file(unfinished, media_type)):
                raise DownloadError(f"{redact_url(url)}: the file that came is cut off")
            await self._in_thread(lambda: self._put_in_place(unfinished, saved))
        return saved

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writers, work)

    def _save_whole(self, path: str, media_type: str, body: bytes) -> SavedFile:
        saved = SavedFile(
            path=path,
            size_bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            media_type=media_type,
        )
        with self._unfinished(path) as unfinished:
            # Exclusively: into a second name of a saved file nothing may ever be written.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(unfinished, flags, 0o666)
            try:
                rest = memoryview(body)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._put_in_place(unfinished, saved, is_synced=True)
        return saved

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name: a link where the disk can, else a copy.

        Raises DownloadError where the source is no longer what it was, and StorageError.
        """
        saved = msgspec.structs.replace(source, path=path)
        try:
            with self._unfinished(path) as unfinished:
                try:
                    os.link(self._folder / source.path, unfinished)
                except OSError:
                    shutil.copyfile(self._folder / source.path, unfinished)
                if file_sha256(Path(unfinished)) != source.sha256:
                    raise DownloadError(f"{source.path}: is another file by now")
                self._put_in_place(unfinished, saved)
        except OSError as error:
            raise _disk_error(self._folder / path, error) from error
        return saved

    @contextlib.contextmanager
    def _unfinished(self, path: str) -> Iterator[str]:
        """Give the name under which a file is made until it is whole; nothing stays under it."""
        # It only depends on the final name: what a crash left is overwritten next time. Names are
        # plain text here: this runs for every file, and pathlib costs as much as the file system.
        folder, name = os.path.split(f"{self._folder}/{path}")
        unfinished = f"{folder}/.{name}.part"
        try:
            # It may be a second name of a saved file: to write into it would change that file.
            os.unlink(unfinished)
        except FileNotFoundError:
            if not os.path.isdir(folder):
                self._make_folder(Path(folder))
        try:
            yield unfinished
        finally:
            # Also after success: a rename between two names of one file leaves both, says POSIX.
            with contextlib.suppress(OSError):
                os.unlink(unfinished)

    def _make_folder(self, folder: Path) -> None:
        if not self._folder.is_dir():
            # Removed under the run: made anew, it would hold files that no ledger knows of.
            raise StorageError(
                f"{self._folder}: is gone", hint="bring the folder back, then run the command again"
            )
        folder.mkdir(parents=True, exist_ok=True)

    def _put_in_place(self, unfinished: str, saved: SavedFile, *, is_synced: bool = False) -> None:
        target = f"{self._folder}/{saved.path}"
        # The data first, then the name, then the folder that holds the name: after a power cut the
        # final name either is not there or names all of the file.
        if not is_synced:
            _sync(unfinished)
        if os.path.exists(target):
            self._keep_aside(Path(target), saved)
        os.replace(unfinished, target)
        _sync(os.path.dirname(target))

    def _keep_aside(self, target: Path, saved: SavedFile) -> None:
        """Move a file with other content out of the way: it may be paid for, or a person's own."""
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == saved.sha256:
            return
        kept = self._folder / superseded_path(saved.path, digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        target.replace(kept)
        _sync(kept.parent)


def is_in_place(folder: Path, path: str, saved: SavedFile, *, thorough: bool) -> bool:
    """Tell whether a saved file stands under `path`: by its size, or thoroughly by its hash."""
    target = folder / path
    try:
        if target.stat().st_size != saved.size_bytes:
            return False
    except OSError:
        return False
    return not thorough or file_sha256(target) == saved.sha256


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 (hex) of a file's content; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def recognise(head: bytes) -> tuple[str, str] | None:
    """Return (media type, extension) of the picture or video that begins so, or None."""
    for pattern, media_type, extension in _RECOGNISERS:
        if pattern.match(head):
            return media_type, extension
    return None


def is_whole(media_type: str, data: bytes | mmap.mmap) -> bool:
    """Tell whether a picture reaches its own end; what may come after the end is no matter.

    A length that agrees proves little: what was cut off before it was served agrees with itself.
    Formats that do not say where they end count as whole.
    """
    match media_type:
        case "image/png":
            place = 8
            while len(data) >= place + 12 and data[place + 4 : place + 8] != b"IEND":
                place += 12 + int.from_bytes(data[place : place + 4], "big")
            return len(data) >= place + 12
        case "image/jpeg":
            return _jpeg_is_whole(data)
        case "image/webp":
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _jpeg_is_whole(data: bytes | mmap.mmap) -> bool:
    """Walk the segments to the scan: a thumbnail inside one has a scan and an end of its own."""
    place = 2
    while len(data) >= place + 4 and data[place] == 0xFF:
        if data[place + 1] == 0xDA:
            return data.rfind(b"\xff\xd9") > place
        if data[place + 1] == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def _is_whole_file(path: str, media_type: str) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return is_whole(media_type, data)


def _recognise(url: str, head: bytes | bytearray) -> tuple[str, str]:
    found = recognise(bytes(head[:_HEAD_BYTES]))
    if found is None:
        raise DownloadError(
            f"{redact_url(url)}: neither a picture nor a video came"
            f" (it begins {bytes(head[:16])!r})"
        )
    return found


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def _sync(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(path: Path, error: OSError) -> Exception:
    """Tell a disk that fails (the run ends) from one name that cannot be had (the job waits)."""
    if error.errno not in _FATAL_ERRNOS:
        return DownloadError(f"{path}: {error.strerror or error}")
    return StorageError(
        f"{path}: {error.strerror or error}",
        hint="look at the disk, then run the same command again: nothing is lost",
    )
