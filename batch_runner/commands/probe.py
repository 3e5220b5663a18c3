"""Tries whether the service can fetch a picture from an address, before money is spent.

Hides HTTP, and what the answers of the world's servers mean. What always holds: only the first
bytes of a file are read; the token is never sent; a host gets few requests at a time; no answer is
an error of this program. Not promised: that the service can reach the address as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum
from ipaddress import ip_address

import aiohttp
import msgspec
from yarl import URL

from batch_runner import __version__
from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, BatchRunnerError
from batch_runner.files.bucket import Buckets, parse_bucket_url
from batch_runner.files.local_picture import SIZE_LIMIT_BYTES
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.records import redact_url
from batch_runner.service.network import NO_PROXIES, Proxies, is_loopback_host
from batch_runner.service.web import Client, describe, open_client

AT_ONCE = 16
_PER_HOST = 4
_TIMEOUT = {"total": 30, "sock_connect": 10}
_PAUSES_S = (1.0, 10.0)
"""How long to wait before an address is tried again, if its server failed."""
_FINAL = (
    *(aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError),
    *(aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError),
)
_PRIVATE_ENDINGS = (".local", ".internal", ".lan", ".home", ".localhost")
_HEADERS = {
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Range": f"bytes=0-{HEAD_BYTES - 1}",
    # Hosts of pictures refuse clients that look like a library.
    "User-Agent": f"Mozilla/5.0 (compatible; batch-runner/{__version__})",
}


class Verdict(StrEnum):
    """The result for an address; with all but OK, the service cannot get the picture."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    PRIVATE = "not public"
    NEEDS_LOGIN = "needs login"
    MISSING = "not there"
    NO_PICTURE = "not a picture"
    TOO_LARGE = "too large"
    FAILING = "server error"


HINTS = {
    Verdict.UNREACHABLE: "open the address in a browser; check its host for a typing error",
    Verdict.PRIVATE: "the service is on the internet: move the picture to a public host",
    Verdict.NEEDS_LOGIN: "the service cannot log in: use public or pre-signed URLs",
    Verdict.MISSING: "correct the address, or leave such rows out with images.where",
    Verdict.NO_PICTURE: "use the address of the picture itself, not of a page that shows it",
    Verdict.TOO_LARGE: "the service takes at most 50 MB: use a smaller version",
    Verdict.FAILING: "try again later; if that does not help, ask the owner of the host",
}
_BY_STATUS = {401: Verdict.NEEDS_LOGIN, 403: Verdict.NEEDS_LOGIN, 407: Verdict.NEEDS_LOGIN}
_BY_STATUS |= {404: Verdict.MISSING, 410: Verdict.MISSING, 429: Verdict.FAILING}


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one address; `redirected_to` is the address after redirects."""

    url: str
    verdict: Verdict
    detail: str = ""
    status: int | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    redirected_to: str | None = None


class Prober:
    """Tries addresses.

    `allow_loopback` is for a service on this machine: it makes addresses of this machine public,
    plain http included.
    """

    def __init__(self, client: Client, clock: Clock, *, allow_loopback: bool) -> None:
        self._client = client
        self._clock = clock
        self._allow_loopback = allow_loopback

    async def ask(self, url: str) -> Probe:
        """Try one address; raises nothing, whatever the address or its server does."""
        probe = await self._ask(url)
        for pause_s in _PAUSES_S:
            if probe.verdict is not Verdict.FAILING:
                break
            await self._clock.sleep(pause_s)
            probe = await self._ask(url)
        return probe

    async def ask_bucket(self, url: str, buckets: Buckets) -> Probe:
        """Try an object in a bucket; raises nothing either."""
        try:
            facts = await asyncio.to_thread(buckets.facts, parse_bucket_url(url))
        except BatchRunnerError as error:
            is_refused = isinstance(error, AccessRefusedError)
            verdict = Verdict.NEEDS_LOGIN if is_refused else Verdict.UNREACHABLE
            return Probe(url=url, verdict=verdict, detail=error.message)
        if facts is None:
            return Probe(url=url, verdict=Verdict.MISSING)
        verdict, detail = _of_size(facts.size_bytes)
        return Probe(url=url, verdict=verdict, detail=detail, size_bytes=facts.size_bytes)

    async def _ask(self, url: str) -> Probe:
        try:
            target = URL(url)
            if self._is_private(target):
                host = target.host or "it"
                return Probe(url=url, verdict=Verdict.PRIVATE, detail=f"{host} is a private name")
            response, end = await self._client.follow("GET", target, self._joined)
            async with response:
                verdict, detail = await _judge(response)
                return Probe(
                    url=url,
                    verdict=verdict,
                    detail=detail,
                    status=response.status,
                    media_type=_media_type(response) or None,
                    size_bytes=_size(response),
                    redirected_to=None if end == target else redact_url(str(end)),
                )
        except (*_FINAL, ValueError, IndexError) as error:
            # Parsers of odd addresses raise ValueError or IndexError.
            return Probe(url=url, verdict=Verdict.UNREACHABLE, detail=describe(error)[:200])
        except (aiohttp.ClientError, OSError) as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else describe(error)[:200]
            return Probe(url=url, verdict=Verdict.FAILING, detail=what)

    def _joined(self, base: URL, location: str) -> URL:
        target = base.join(URL(location))
        if self._is_private(target):
            shown = redact_url(str(target))[:100]
            raise ValueError(f"it redirects to {shown}, which is not public")
        return target

    def _is_private(self, url: URL) -> bool:
        host = (url.host or "").lower().rstrip(".")
        if is_loopback_host(host):
            return not self._allow_loopback
        try:
            return not ip_address(host).is_global
        except ValueError:
            return "." not in host or host.endswith(_PRIVATE_ENDINGS)


@contextlib.asynccontextmanager
async def open_prober(
    clock: Clock, *, allow_loopback: bool = False, proxies: Proxies = NO_PROXIES
) -> AsyncIterator[Prober]:
    """Open a prober, and close its connections at the end."""
    client = open_client(
        proxies,
        connector={"limit": AT_ONCE, "limit_per_host": _PER_HOST},
        timeout=_TIMEOUT,
        auto_decompress=False,
        headers=_HEADERS,
    )
    try:
        yield Prober(client, clock, allow_loopback=allow_loopback)
    finally:
        await client.close()


async def _judge(response: aiohttp.ClientResponse) -> tuple[Verdict, str]:
    """Return the verdict about an answer, and its reason."""
    status = response.status
    if status == 416:  # not even the first byte is there
        return Verdict.NO_PICTURE, "an empty file"
    if status not in (200, 206):
        usual = Verdict.FAILING if status >= 500 else Verdict.UNREACHABLE
        return _BY_STATUS.get(status, usual), f"HTTP {status}"
    try:
        head = await response.content.readexactly(HEAD_BYTES)
    except asyncio.IncompleteReadError as error:
        head = error.partial
    if not response.content.at_eof():
        # Without this, a server that ignores ranges would send the whole file.
        response.close()
    found = recognise(head)
    if found is not None and found[0].startswith("image/"):
        return _of_size(_size(response))
    if not head:
        return Verdict.NO_PICTURE, "an empty file"
    return Verdict.NO_PICTURE, found[0] if found else _media_type(response) or "of unknown type"


def _of_size(size_bytes: int | None) -> tuple[Verdict, str]:
    if size_bytes is not None and size_bytes > SIZE_LIMIT_BYTES:
        return Verdict.TOO_LARGE, f"{size_bytes / 1000**2:.0f} MB"
    return Verdict.OK, ""


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.content_type.lower() if "Content-Type" in response.headers else ""


def _size(response: aiohttp.ClientResponse) -> int | None:
    """Return the size of the whole file, from the headers."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isascii() and total.isdigit() else None
    return response.content_length
