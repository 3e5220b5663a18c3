"""Source addresses, asked before money is spent: whether the service can fetch a picture there.

Hides HTTP, and what the answers of the world's servers mean. What always holds: an address is asked
by HEAD, and where that does not show a picture, by GET for its first bytes: only what came decides
against it; the token is nowhere near; few questions go to one host at a time, and a host that asks
for time gets it; no answer whatever is an error of this program. Not promised: that the service,
from where it stands, is let in as well.
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
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.files.photo import SIZE_LIMIT_BYTES
from batch_runner.models.model import Model
from batch_runner.records import redact_url
from batch_runner.run.plan import Action, Planned
from batch_runner.service.answer import parse_retry_after
from batch_runner.service.network import NO_PROXIES, Proxies, is_loopback_host
from batch_runner.service.web import REDIRECT_LIMIT, REDIRECTS, Client, describe, open_client
from batch_runner.table.distinct import Distinct

REMEMBERED_S = 24 * 3600.0
"""An address that was fine is not asked again for so long."""

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
    """What became of the question; every one but OK keeps the service from the picture."""

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
    Verdict.UNREACHABLE: "open the address in a browser; look for a typing error in its host",
    Verdict.NOT_ASKED: "the proxy keeps this machine from asking: see HTTPS_PROXY and NO_PROXY",
    Verdict.PRIVATE: "the service is on the internet: put the picture on a public host",
    Verdict.NEEDS_LOGIN: "the service has no login: use public or pre-signed URLs",
    Verdict.MISSING: "correct the address, or leave such rows out with images.where",
    Verdict.NO_PICTURE: "use the address of the picture itself, not of a page that shows it",
    Verdict.TOO_LARGE: "the service takes at most 50 MB: use a smaller version",
    Verdict.LIMITED: "the host lets few requests in: the service would fail as well",
    Verdict.FAILING: "try again later; if it stays, ask whoever runs the host",
}


class Source(msgspec.Struct, frozen=True):
    """An address that is to be sent: with the first job that sends it, and the row of that."""

    url: str
    job: str
    row: int | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about one address; `redirected_to` is where its picture really was."""

    url: str
    verdict: Verdict
    detail: str = ""
    status: int | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    redirected_to: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    """What one question got: the final status, where, which headers, how the body begins.

    `head` is None where no body was asked for.
    """

    status: int
    url: URL
    media_type: str
    size_bytes: int | None
    head: bytes | None
    retry_after: str | None


class _InsecureRedirectError(Exception):
    """A redirect away from https."""


class Prober:
    """Asks addresses. `async with` opens and closes its connections.

    `allow_loopback` lets addresses of this machine count as public, plain http included: for a
    service that is on this machine too.
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
                # Hosts of pictures turn away what calls itself a library.
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
        """Ask one address; raises nothing that an address or a server could be the reason of."""
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
            # ValueError and IndexError: what parsers of odd addresses raise, some of them late.
            return Probe(url=url, verdict=Verdict.UNREACHABLE, detail=_why(error))

    async def ask_bucket(self, url: str, buckets: Buckets) -> Probe:
        """Ask for an object; raises nothing either."""
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
            # Many a server answers HEAD wrongly, and an address signed for GET must refuse it.
            answer = await self._patiently("GET", target)
        return _verdict(url, target, answer)

    async def _patiently(self, method: str, target: URL) -> _Answer:
        """Ask, and again after a pause where the answer may be another one then."""
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
        """Follow redirects: none may leave https, or the public internet."""
        headers = {"Range": f"bytes=0-{HEAD_BYTES - 1}"} if method == "GET" else {}
        answer = await self._ask(method, target, headers)
        return await self._ask(method, target, {}) if headers and answer.status == 416 else answer

    async def _ask(self, method: str, target: URL, headers: dict[str, str]) -> _Answer:
        if self._client is None:
            raise RuntimeError("a prober is used outside of its `async with`")
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
    """The addresses that were fine within the last day: hashes in a file, no address.

    A file that cannot be read or written only means that addresses are asked again. `path` None
    keeps them in memory.
    """

    def __init__(self, path: Path | None, now: datetime) -> None:
        self._path = path
        self._now_s = int(now.timestamp())
        self._known: set[bytes] = set()
        self._new: set[bytes] = set()
        for at_s, digest in self._read():
            if at_s + REMEMBERED_S > self._now_s:
                self._known.add(digest)

    def __contains__(self, url: str) -> bool:
        return _digest(url) in self._known

    def add(self, url: str) -> None:
        """Remember an address that is fine."""
        self._new.add(_digest(url))

    def save(self) -> None:
        """Write what is new behind what is there, and leave out what has grown old."""
        if self._path is None or not self._new:
            return
        kept = [(at_s, digest) for at_s, digest in self._read() if digest in self._known]
        lines = [*kept, *((self._now_s, digest) for digest in self._new)]
        with contextlib.suppress(OSError, StorageError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.writelines(f"{at_s} {digest.hex()}\n".encode() for at_s, digest in lines)

    def _read(self) -> Iterator[tuple[int, bytes]]:
        if self._path is None:
            return
        with contextlib.suppress(OSError), self._path.open(encoding="ascii", errors="replace") as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    at_s, _, digest = line.partition(" ")
                    yield int(at_s), bytes.fromhex(digest)


async def probe_all(
    sources: Iterable[Source],
    ask: Callable[[str], Awaitable[Probe]],
    tell: Callable[[Source, Probe], None],
) -> None:
    """Ask every source, a bounded number at a time; `tell` gets each answer as it comes."""
    stream = iter(sources)

    async def work() -> None:
        for source in stream:
            tell(source, await ask(source.url))

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


def list_sources(planned: Iterable[Planned], models: Mapping[str, Model]) -> Iterator[Source]:
    """Yield each address once that is to be sent, with the first job that sends it.

    Addresses of the web and of objects; what is yet to be uploaded is on this machine, and was
    looked at.
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
                # A "perhaps seen" costs one question that is not asked.
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
    """Return the verdict and what is behind it: a pure function of the answer."""
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
        return "a web page, perhaps one to log in"
    return f"it begins {head[:8]!r} and calls itself {answer.media_type or 'nothing'}"


def _size(response: aiohttp.ClientResponse) -> int | None:
    """Return the size of the whole file, as the headers tell it."""
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
        # A server that does not know ranges would send all of it.
        response.close()
    return head


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"there is no host {error.host}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return "its certificate is not valid"
    return "no answer in time" if isinstance(error, TimeoutError) else describe(error)[:200]
