"""The one set-up of HTTP clients: proxies, redirects, deadlines, and names for errors.

Hides aiohttp, proxies and NO_PROXY. Always holds: no client keeps cookies or follows a redirect by
itself; this machine is never called through a proxy; a proxy's password is in no repr and no
message; a deadline counts only the time in which this process ran.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECT_LIMIT = 5

CERTIFICATE_HINT = (
    "behind a proxy or firewall with its own certificate, set SSL_CERT_FILE to a file with that"
    " certificate and the usual ones; otherwise set this machine's clock or update its certificates"
)
PROXY_HINT = (
    "check HTTPS_PROXY and NO_PROXY: the proxy needs a user and a password, as in"
    " http://USER:PASSWORD@HOST:PORT, or blocks this host"
)

_TICK_S = 1.0
_MESSAGE_LIMIT_CHARACTERS = 300


@lru_cache(maxsize=64)
def is_loopback_host(host: str) -> bool:
    """Return whether a host (a name, or an address without brackets) is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Proxies(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy for each scheme, and the hosts called without one, as in NO_PROXY."""

    http: str | None = None
    https: str | None = None
    exempt: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Proxies(http {bool(self.http)}, https {bool(self.https)}, {self.exempt})"

    def url_for(self, url: URL) -> str | None:
        """Return the proxy for an address; None: call it directly."""
        proxy = self.https if url.scheme == "https" else self.http
        host = (url.raw_host or "").lower().rstrip(".")
        if proxy is None or is_loopback_host(host):
            return None
        return None if any(_exempts(rule, host, url.port) for rule in self.exempt) else proxy


NO_PROXIES = Proxies()


def _exempts(rule: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY matches a host."""
    rule = rule.strip().lower()
    if rule == "*":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host) in ip_network(rule.strip("[]"), strict=False)
    name, colon, number = rule.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]").removeprefix("*").strip(".")
    return bool(rule) and (host == rule or host.endswith(f".{rule}"))


class Client:
    """One HTTP client; its opener closes it."""

    def __init__(self, session: aiohttp.ClientSession, proxies: Proxies) -> None:
        self._session = session
        self._proxies = proxies

    @property
    def connector(self) -> aiohttp.BaseConnector | None:
        """The pool of its connections."""
        return self._session.connector

    def request(
        self, method: str, url: URL, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Make one call; no redirect is followed."""
        proxy = self._proxies.url_for(url)
        return self._session.request(method, url, allow_redirects=False, proxy=proxy, **options)

    @contextlib.asynccontextmanager
    async def follow(
        self, method: str, url: URL, step: Callable[[URL, str], URL], **options: Any
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, URL]]:
        """Make a call and follow its redirects; yields the last answer and its address.

        `step` gets an address and the `Location` it answered with, and returns the next address or
        raises. After `REDIRECT_LIMIT` redirects, the last answer is a redirect itself.
        """
        for tried in range(REDIRECT_LIMIT + 1):
            async with self.request(method, url, **options) as response:
                location = response.headers.get("Location", "")
                is_last = tried == REDIRECT_LIMIT or not location
                if response.status not in REDIRECTS or is_last:
                    yield response, url
                    return
            url = step(url, location)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def open_client(
    proxies: Proxies,
    *,
    timeout: Mapping[str, Any],
    connector: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Client:
    """Return a client; `timeout`, `connector` and `options` are aiohttp's own settings."""
    import aiohttp  # noqa: PLC0415 - heavy, and some commands call nobody

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**connector),
        timeout=aiohttp.ClientTimeout(**timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        **options,
    )
    return Client(session, proxies)


@contextlib.asynccontextmanager
async def running_for(limit_s: float) -> AsyncIterator[None]:
    """Raise TimeoutError after so much time, not counting time in which this process was stopped.

    After a stop (Ctrl-Z, a paused container), an answer may be waiting in the socket and must be
    read before the call is given up.
    """
    import asyncio  # noqa: PLC0415 - reading commands wait for nothing

    loop = asyncio.get_running_loop()
    left_s, last = limit_s, loop.time()
    timer = None

    def tick() -> None:
        nonlocal left_s, last, timer
        now = loop.time()
        # More than a tick late: the loop did not run and has not read its sockets yet.
        left_s -= now - last if now - last <= 2 * _TICK_S else 0.0
        last = now
        if left_s <= 0:
            scope.reschedule(now)
        else:
            timer = loop.call_later(min(_TICK_S, left_s), tick)

    async with asyncio.timeout(None) as scope:
        timer = loop.call_later(min(_TICK_S, left_s), tick)
        try:
            yield
        finally:
            timer.cancel()


def is_certificate_error(error: BaseException) -> bool:
    """Return whether this machine does not trust a server's certificate."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(error))


def is_barred_by_proxy(error: BaseException) -> bool:
    """Return whether a proxy refused a call, and would refuse it again."""
    import aiohttp  # noqa: PLC0415 - likewise

    return isinstance(error, aiohttp.ClientHttpProxyError) and 400 <= error.status < 500


def describe(error: BaseException) -> str:
    """Return why a call failed, without secrets."""
    import aiohttp  # noqa: PLC0415 - likewise

    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered HTTP {error.status} ({error.message})"[
            :_MESSAGE_LIMIT_CHARACTERS
        ]
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy {error.host}:{error.port} cannot be reached"
    if is_certificate_error(error):
        return "this machine does not trust its certificate"
    return (str(error) or type(error).__name__)[:_MESSAGE_LIMIT_CHARACTERS]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    current: BaseException | None = error
    while current is not None:
        yield current
        inner = getattr(current, "certificate_error", None) or getattr(current, "os_error", None)
        current = inner or current.__cause__
