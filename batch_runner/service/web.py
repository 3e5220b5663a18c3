"""The one set-up of HTTP clients: redirects, and messages for errors.

Hides aiohttp's settings and errors. Always holds: no client keeps cookies or follows a redirect by
itself; a proxy's password is in no message.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import aiohttp

from batch_runner.service.network import Proxies

if TYPE_CHECKING:
    from yarl import URL

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECT_LIMIT = 5

_MESSAGE_LIMIT_CHARACTERS = 300


class Client:
    """One HTTP client; its opener closes it."""

    def __init__(self, session: aiohttp.ClientSession, proxies: Proxies) -> None:
        self._session = session
        self._proxies = proxies

    async def request(self, method: str, url: URL, **options: Any) -> aiohttp.ClientResponse:
        """Make one call; no redirect is followed. An answer read to its end is closed."""
        proxy = self._proxies.url_for(url)
        return await self._session.request(
            method, url, allow_redirects=False, proxy=proxy, **options
        )

    async def follow(
        self, method: str, url: URL, step: Callable[[URL, str], URL], **options: Any
    ) -> tuple[aiohttp.ClientResponse, URL]:
        """Make a call and follow its redirects; returns the last answer and its address.

        `step` gets an address and the `Location` it answered with, and returns the next address or
        raises. After `REDIRECT_LIMIT` redirects, the last answer is a redirect itself.
        """
        for tried in itertools.count():
            response = await self.request(method, url, **options)
            location = response.headers.get("Location", "")
            if response.status not in REDIRECTS or tried == REDIRECT_LIMIT or not location:
                break
            response.close()
            url = step(url, location)
        return response, url

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
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**connector),
        timeout=aiohttp.ClientTimeout(**timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        **options,
    )
    return Client(session, proxies)


def is_certificate_error(error: BaseException) -> bool:
    """Return whether this machine does not trust a server's certificate."""
    return isinstance(error, aiohttp.ClientConnectorCertificateError)


def is_barred_by_proxy(error: BaseException) -> bool:
    """Return whether a proxy refused a call, and would refuse it again."""
    return isinstance(error, aiohttp.ClientHttpProxyError) and 400 <= error.status < 500


def describe(error: BaseException) -> str:
    """Return why a call failed, without secrets."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        what = f"the proxy answered HTTP {error.status} ({error.message})"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        what = f"the proxy {error.host}:{error.port} cannot be reached"
    elif is_certificate_error(error):
        what = "this machine does not trust its certificate"
    else:
        what = str(error) or type(error).__name__
    return what[:_MESSAGE_LIMIT_CHARACTERS]
