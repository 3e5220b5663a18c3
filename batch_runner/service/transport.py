"""The connections to the service: send one call, and read its answer or find out how it was lost.

Hides HTTP. Always holds: a call is LOST once it may have left, and NOT_SENT or BARRED only if no
byte of it has. Nothing is retried here.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from yarl import URL

from batch_runner.service.answer import Answer, Loss, parse_retry_after
from batch_runner.service.network import Proxies
from batch_runner.service.web import Client, describe, is_barred

if TYPE_CHECKING:
    from aiohttp.connector import Connection

_CONNECT_TIMEOUT_S = 10.0
_TICK_S = 1.0
_CALL_TIMEOUT_S = 100.0 + _TICK_S
"""The vendor's own tools wait 100 s for the answer to a POST."""
_SUBMIT_KEEPALIVE_S = 0.25
_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
"""Results may contain pictures as data: URLs."""


class Deadlines:
    """Ends calls after so many seconds, not counting time in which this process was stopped.

    After a stop (Ctrl-Z, a paused container), an answer may be waiting in the socket and must be
    read before the call is given up. One timer serves all calls, to the second.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ends_s: dict[asyncio.Timeout, float] = {}
        self._ran_s = self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Timeout:
        """Return the scope of a call; it must be given back to `end`."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._last = loop.time()
            self._timer = loop.call_later(_TICK_S, self._tick, loop)
        scope = asyncio.timeout(None)
        self._ends_s[scope] = self._ran_s + self._limit_s
        return scope

    def end(self, scope: asyncio.Timeout) -> None:
        """Forget a call that has ended."""
        self._ends_s.pop(scope, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        # More than a tick late: the loop did not run and has not read its sockets yet.
        self._ran_s += now - self._last if now - self._last <= 2 * _TICK_S else 0.0
        self._last = now
        for scope in [one for one, ends_s in self._ends_s.items() if ends_s <= self._ran_s]:
            self.end(scope)
            scope.reschedule(now)
        self._timer = loop.call_later(_TICK_S, self._tick, loop) if self._ends_s else None


class Transport:
    """The connections to one service; needs a running event loop, and `close` at the end."""

    def __init__(self, token: str | None, proxies: Proxies) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._polls = _open_client(proxies, headers, keepalive_timeout=10)
        headers = {**headers, "Content-Type": "application/json"}
        # A server may close a kept connection at the very moment a POST uses it, and then nobody
        # knows whether the POST arrived. Servers close connections that were idle for seconds, so a
        # POST reuses a connection only within a moment.
        self._submits = _open_client(proxies, headers, keepalive_timeout=_SUBMIT_KEEPALIVE_S)
        # Once a service has hung up on a POST, every later POST takes a new connection.
        self._single_use = _open_client(proxies, headers, force_close=True)
        self._clients = (self._polls, self._submits, self._single_use)
        self._deadlines = Deadlines(_CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.close()

    async def call(self, method: str, url: str, body: bytes | None = None) -> Answer:
        """Make a call. Never raises for the network: a paid POST's outcome must be recorded."""
        client = self._polls if body is None else self._submits
        departure = _Departure()
        _departure.set(departure)
        scope = self._deadlines.begin()
        # Every part is encoded already, and checking again would take time.
        address = URL(url, encoded=True)
        try:
            async with scope:
                return await _read(await client.request(method, address, data=body))
        except _StaleConnectionError:
            # Nothing was sent, and that connection is closed now: use another.
            return await self.call(method, url, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            hung_up = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
            if hung_up and departure.has_left and client is self._submits:
                self._submits = self._single_use
            loss = Loss.BARRED if is_barred(error) else Loss.NOT_SENT
            return Answer(loss=Loss.LOST if departure.has_left else loss, detail=describe(error))
        finally:
            self._deadlines.end(scope)


def _open_client(proxies: Proxies, headers: dict[str, str], **connector: Any) -> Client:
    # No limit of connections: pacing bounds the calls, and a POST that waits for a free connection
    # would look as if it might have left. The timeout for connecting includes the name lookup, so
    # that a slow resolver ends as "not sent" too.
    return Client(
        proxies,
        timeout={"total": None, "connect": _CONNECT_TIMEOUT_S},
        connector={"limit": 0, **connector},
        headers=headers,
        request_class=_Request,
    )


class _Departure:
    """Whether a call has begun to leave; before that, it only connects."""

    has_left = False


_departure: ContextVar[_Departure] = ContextVar("departure")


class _StaleConnectionError(Exception):
    """A kept connection has received an answer to no request."""


class _Request(aiohttp.ClientRequest):
    """A request that leaves only if the next answer on its connection will be its own.

    A proxy may send a surplus answer (408 to an idle connection, or a late one after its 504). It
    would be taken for the answer to this call, and the real one for that of the next job: after a
    stray 429, an accepted job would be submitted again.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request; raises _StaleConnectionError before its first byte."""
        if conn.protocol is None or conn.protocol.should_close:
            raise _StaleConnectionError
        _departure.get().has_left = True
        return await super().send(conn)


async def _read(response: aiohttp.ClientResponse) -> Answer:
    retry_after = response.headers.get("Retry-After")
    retry_after_s = parse_retry_after(retry_after) if retry_after else None
    raw = bytearray()
    try:
        while chunk := await response.content.readany():
            raw += chunk
            if len(raw) > _ANSWER_LIMIT_BYTES:
                response.close()
                return Answer(status=response.status, retry_after_s=retry_after_s)
    except BaseException:
        response.close()
        raise
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    return Answer(status=response.status, body=body, retry_after_s=retry_after_s)
