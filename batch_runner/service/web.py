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
    """One HTTP client, which must be closed; all settings but `proxies` are aiohttp's own."""

    def __init__(
        self,
        proxies: Proxies,
        *,
        timeout: Mapping[str, Any],
        connector: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        self._proxies = proxies
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**connector),
            timeout=aiohttp.ClientTimeout(**timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            **options,
        )

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


def is_barred(error: BaseException) -> bool:
    """Return whether a call failed in a way in which it would fail again until something changes.

    This machine does not trust the server's certificate, or a proxy refused the call.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return 400 <= error.status < 500
    return isinstance(error, aiohttp.ClientConnectorCertificateError)


def describe(error: BaseException) -> str:
    """Return why a call failed, without secrets."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        what = f"the proxy answered HTTP {error.status} ({error.message})"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        what = f"the proxy {error.host}:{error.port} cannot be reached"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        what = "this machine does not trust its certificate"
    else:
        what = str(error) or type(error).__name__
    return what[:_MESSAGE_LIMIT_CHARACTERS]
