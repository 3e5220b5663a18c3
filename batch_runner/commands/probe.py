"""Tries whether the service can fetch a picture from an address, before money is spent.

Hides HTTP, and what the answers of the world's servers mean. What always holds: HEAD comes first,
then GET for the first bytes if HEAD shows no picture, and only received bytes make an address bad;
the token is never sent; a host gets few requests at a time, and time if it asks for it; no answer
is an error of this program. Not promised: that the service can reach the address as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from yarl import URL

from batch_runner import __version__
from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, BatchRunnerError, StorageError
from batch_runner.files.bucket import Buckets, parse_bucket_url
from batch_runner.files.disk import replacing
from batch_runner.files.local_picture import SIZE_LIMIT_BYTES
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.models.model import Model
from batch_runner.records import redact_url
from batch_runner.run.plan import Action, Planned
from batch_runner.service.answer import parse_retry_after
from batch_runner.service.network import NO_PROXIES, Proxies, is_loopback_host
from batch_runner.service.web import REDIRECT_LIMIT, REDIRECTS, Client, describe, open_client
from batch_runner.table.distinct import Distinct

REMEMBERED_S = 24 * 3600.0
"""A good address is not tried again for this long."""

_AT_ONCE = 16
_PER_HOST = 4
_TIMEOUT = {"total": 30, "sock_connect": 10}
_TRIES = 3
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_PICTURE_TYPES = frozenset(
    f"image/{kind}" for kind in ("jpeg", "jpg", "png", "webp", "gif", "avif")
)
_PRIVATE_ENDINGS = (".local", ".internal", ".lan", ".home", ".localhost")
_ADDRESS = re.compile(r"(?:https?|s3|gs|az)://")


class Verdict(StrEnum):
    """The result for an address; with all but OK, the service cannot get the picture."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    NOT_ASKED = "not asked"
    PRIVATE = "not public"
    NEEDS_LOGIN = "needs login"
    MISSING = "not there"
    NO_PICTURE = "not a picture"
    TOO_LARGE = "too large"
    LIMITED = "rate limited"
    FAILING = "server error"


HINTS = {
    Verdict.UNREACHABLE: "open the address in a browser; check its host for a typing error",
    Verdict.NOT_ASKED: "the proxy refused: see HTTPS_PROXY and NO_PROXY",
    Verdict.PRIVATE: "the service is on the internet: move the picture to a public host",
    Verdict.NEEDS_LOGIN: "the service cannot log in: use public or pre-signed URLs",
    Verdict.MISSING: "correct the address, or leave such rows out with images.where",
    Verdict.NO_PICTURE: "use the address of the picture itself, not of a page that shows it",
    Verdict.TOO_LARGE: "the service takes at most 50 MB: use a smaller version",
    Verdict.LIMITED: "the host allows few requests: the service would fail as well",
    Verdict.FAILING: "try again later; if that does not help, ask the owner of the host",
}


class Source(msgspec.Struct, frozen=True):
    """An address to send, with the first job that sends it and that job's row."""

    url: str
    job: str
    row: int | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one address; `redirected_to` is the address after redirects."""

    url: str
    verdict: Verdict
    detail: str = ""
    status: int | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    redirected_to: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    """The answer to one call, after redirects; `head` has the first bytes of a GET that worked."""

    status: int
    url: URL
    media_type: str
    size_bytes: int | None
    head: bytes | None
    retry_after: str | None


class _InsecureRedirectError(Exception):
    """A redirect away from https or from the internet, or too many redirects."""


class Prober:
    """Tries addresses; `async with` opens and closes its connections.

    `allow_loopback` is for a service on this machine: it makes addresses of this machine public,
    plain http included.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool = False,
        clock: Clock | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._allow_loopback = allow_loopback
        self._clock = clock or Clock()
        self._proxies = proxies
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = open_client(
            self._proxies,
            connector={"limit": _AT_ONCE, "limit_per_host": _PER_HOST},
            timeout=_TIMEOUT,
            auto_decompress=False,
            headers={
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
                # Hosts of pictures refuse clients that look like a library.
                "User-Agent": f"Mozilla/5.0 (compatible; batch-runner/{__version__})",
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def ask(self, url: str) -> Probe:
        """Try one address; raises nothing, whatever the address or its server does."""
        try:
            target = URL(url)
            if self._is_private(target):
                host = target.host or "it"
                return Probe(url=url, verdict=Verdict.PRIVATE, detail=f"{host} is a private name")
            return await self._judge(url, target)
        except _InsecureRedirectError as error:
            return Probe(url=url, verdict=Verdict.UNREACHABLE, detail=str(error))
        except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError) as error:
            return Probe(url=url, verdict=Verdict.NOT_ASKED, detail=describe(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, IndexError) as error:
            # Parsers of odd addresses raise ValueError or IndexError.
            return Probe(url=url, verdict=Verdict.UNREACHABLE, detail=_why(error))

    async def ask_bucket(self, url: str, buckets: Buckets) -> Probe:
        """Try an object in a bucket; raises nothing either."""
        try:
            facts = await asyncio.to_thread(buckets.facts, parse_bucket_url(url))
        except AccessRefusedError as error:
            return Probe(url=url, verdict=Verdict.NEEDS_LOGIN, detail=error.message)
        except BatchRunnerError as error:
            return Probe(url=url, verdict=Verdict.UNREACHABLE, detail=error.message)
        if facts is None:
            return Probe(url=url, verdict=Verdict.MISSING)
        is_small = facts.size_bytes <= SIZE_LIMIT_BYTES
        verdict = Verdict.OK if is_small else Verdict.TOO_LARGE
        return Probe(url=url, verdict=verdict, size_bytes=facts.size_bytes)

    async def _judge(self, url: str, target: URL) -> Probe:
        answer = await self._patiently("HEAD", target)
        shows_picture = answer.status == 200 and answer.media_type in _PICTURE_TYPES
        if not shows_picture or answer.size_bytes is None:
            # Many servers answer HEAD wrongly, and an address signed for GET refuses it.
            answer = await self._patiently("GET", target)
        return _verdict(url, target, answer)

    async def _patiently(self, method: str, target: URL) -> _Answer:
        """Call, and try again after a pause if a later answer may be another one."""
        for attempt in range(1, _TRIES + 1):
            is_last = attempt == _TRIES
            try:
                answer = await self._follow(method, target)
            except (aiohttp.ClientConnectorDNSError, ssl.SSLError, aiohttp.ClientSSLError):
                raise
            except (aiohttp.ClientConnectionError, TimeoutError):
                if is_last:
                    raise
                await self._clock.sleep(_PAUSE_S)
                continue
            if is_last or (answer.status != 429 and answer.status < 500):
                return answer
            asked_s = parse_retry_after(answer.retry_after, self._clock.now())
            await self._clock.sleep(min(asked_s or _PAUSE_S, _LONGEST_PAUSE_S))
        raise AssertionError("unreachable")  # pragma: no cover - the last try returns or raises

    async def _follow(self, method: str, target: URL) -> _Answer:
        """Call; a GET asks for the first bytes only, or for all if the server cannot do that."""
        headers = {"Range": f"bytes=0-{HEAD_BYTES - 1}"} if method == "GET" else {}
        answer = await self._ask(method, target, headers)
        return await self._ask(method, target, {}) if headers and answer.status == 416 else answer

    async def _ask(self, method: str, target: URL, headers: dict[str, str]) -> _Answer:
        if self._client is None:
            raise RuntimeError("use the prober inside its `async with`")
        following = self._client.follow(method, target, self._joined, headers=headers)
        async with following as (response, url):
            if response.status in REDIRECTS and "Location" in response.headers:
                raise _InsecureRedirectError(f"it redirects more than {REDIRECT_LIMIT} times")
            is_read = method == "GET" and response.status in (200, 206)
            is_named = "Content-Type" in response.headers
            return _Answer(
                status=response.status,
                url=url,
                media_type=response.content_type.lower() if is_named else "",
                size_bytes=_size(response),
                head=await _first_bytes(response) if is_read else None,
                retry_after=response.headers.get("Retry-After"),
            )

    def _joined(self, base: URL, location: str) -> URL:
        target = base.join(URL(location))
        shown = redact_url(str(target))[:100]
        if self._is_private(target):
            raise _InsecureRedirectError(f"it redirects to {shown}, which is not public")
        is_here = self._allow_loopback and is_loopback_host(target.host or "")
        if target.scheme != "https" and not is_here:
            raise _InsecureRedirectError(f"it redirects to {shown}, which is not https")
        return target

    def _is_private(self, url: URL) -> bool:
        host = (url.host or "").lower().rstrip(".")
        if is_loopback_host(host):
            return not self._allow_loopback
        try:
            return not ip_address(host).is_global
        except ValueError:
            return "." not in host or host.endswith(_PRIVATE_ENDINGS)


class FineAnswers:
    """The addresses that were good within the last day, kept as hashes in a file.

    If the file cannot be read or written, addresses are tried again. `path` None keeps no file.
    """

    def __init__(self, path: Path | None, now: datetime) -> None:
        self._path = path
        self._now_s = int(now.timestamp())
        self._known = {digest: at_s for at_s, digest in self._read()}
        self._is_new = False

    def __contains__(self, url: str) -> bool:
        return _digest(url) in self._known

    def add(self, url: str) -> None:
        """Remember a good address."""
        self._known[_digest(url)] = self._now_s
        self._is_new = True

    def save(self) -> None:
        """Write the addresses to the file, without those that are too old."""
        if self._path is None or not self._is_new:
            return
        with contextlib.suppress(OSError, StorageError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.writelines(
                    f"{at_s} {digest.hex()}\n".encode() for digest, at_s in self._known.items()
                )

    def _read(self) -> Iterator[tuple[int, bytes]]:
        if self._path is None:
            return
        with contextlib.suppress(OSError), self._path.open(encoding="ascii", errors="replace") as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    at_s, _, digest = line.partition(" ")
                    if int(at_s) + REMEMBERED_S > self._now_s:
                        yield int(at_s), bytes.fromhex(digest)


async def probe_all(
    sources: Iterable[Source],
    ask: Callable[[str], Awaitable[Probe]],
    tell: Callable[[Source, Probe], None],
) -> None:
    """Try every source, a few at a time; `tell` gets each result as it comes."""
    stream = iter(sources)

    async def work() -> None:
        for source in stream:
            tell(source, await ask(source.url))

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


def list_sources(planned: Iterable[Planned], models: Mapping[str, Model]) -> Iterator[Source]:
    """Yield each address that would be sent, once, with the first job that sends it.

    Pictures to upload are left out: they are on this machine and were checked there.
    """
    seen = Distinct()
    for one in planned:
        if one.action is not Action.SUBMIT:
            continue
        job = one.job
        uploads = {file.url for file in job.files}
        for name in models[job.model].image_properties:
            value = job.input.get(name, ())
            for url in [value] if isinstance(value, str) else value:
                # If a new address looks seen by mistake, it is just not tried.
                if _ADDRESS.match(url) and url not in uploads and seen.add(url):
                    yield Source(url, job.key, job.row)


def _digest(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()[:16]


def _verdict(url: str, target: URL, answer: _Answer) -> Probe:
    verdict, detail = _judged(answer)
    return Probe(
        url=url,
        verdict=verdict,
        detail=detail,
        status=answer.status,
        media_type=answer.media_type or None,
        size_bytes=answer.size_bytes,
        redirected_to=None if answer.url == target else redact_url(str(answer.url)),
    )


def _judged(answer: _Answer) -> tuple[Verdict, str]:
    """Return the verdict about an answer, and its reason."""
    status = answer.status
    if status in (401, 403, 407):
        return Verdict.NEEDS_LOGIN, f"HTTP {status}"
    if status in (404, 410):
        return Verdict.MISSING, f"HTTP {status}"
    if status == 429:
        return Verdict.LIMITED, "HTTP 429"
    if status >= 500:
        return Verdict.FAILING, f"HTTP {status}"
    if status not in (200, 206):
        return Verdict.UNREACHABLE, f"HTTP {status}"
    if answer.head is not None:
        found = recognise(answer.head)
        if found is None or not found[0].startswith("image/"):
            return Verdict.NO_PICTURE, _what_came(answer, answer.head, found)
    if answer.size_bytes is not None and answer.size_bytes > SIZE_LIMIT_BYTES:
        return Verdict.TOO_LARGE, f"{answer.size_bytes / 1000**2:.0f} MB"
    if answer.size_bytes == 0:
        return Verdict.NO_PICTURE, "an empty file"
    return Verdict.OK, ""


def _what_came(answer: _Answer, head: bytes, found: tuple[str, str] | None) -> str:
    if not head:
        return "an empty file"
    if found is not None:
        return found[0]
    if answer.media_type == "image/svg+xml" or b"<svg" in head:
        return "SVG"
    if answer.media_type == "text/html" or head.lstrip()[:1] == b"<":
        return "a web page, perhaps a login"
    return f"it starts with {head[:8]!r}, and its type is {answer.media_type or 'missing'}"


def _size(response: aiohttp.ClientResponse) -> int | None:
    """Return the size of the whole file, from the headers."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isascii() and total.isdigit() else None
    return response.content_length


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES:
        chunk = await response.content.read(HEAD_BYTES - len(head))
        if not chunk:
            break
        head += chunk
    if not response.content.at_eof():
        # Without this, a server that ignores ranges would send the whole file.
        response.close()
    return head


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"host not found: {error.host}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return "its certificate is not valid"
    return "no answer in time" if isinstance(error, TimeoutError) else describe(error)[:200]
