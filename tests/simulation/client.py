"""The HTTP client of a simulated process: what it sends reaches the simulated service.

Stands in for `aiohttp.ClientSession`. Hides how a call travels: it connects, it leaves, it arrives,
and its answer comes back, each at a moment of its own. What has left arrives, even if the process
dies meanwhile.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Protocol, Self

import aiohttp
from simulation.world import Process, World, current, require_life
from yarl import URL

from batch_runner.service import transport


class Reply:
    """An answer and its journey. `ends`: None, or "refused", "reset" or "hung" instead of an end.

    A reply that is cut ends after so many bytes of its body.
    """

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        delay_s: float = 0.0,
        ends: str | None = None,
        cut: int | None = None,
    ) -> None:
        self.status, self.body, self.headers = status, body, headers or {}
        self.delay_s, self.ends, self.cut = delay_s, ends, cut


class Call:
    """A call as it arrives at the service."""

    def __init__(self, method: str, url: URL, body: bytes | None, token: str | None) -> None:
        self.method, self.url, self.body, self.token = method, url, body, token
        self.kind, self.label = "", ""
        self.sent_s, self.sent_by = 0.0, ""


class Server(Protocol):
    """What answers the calls."""

    def is_refusing(self, call: Call) -> bool:
        """Tell whether no connection is made."""

    def answer(self, call: Call) -> Reply:
        """Answer a call that has arrived."""


class Session:
    """One client of one process."""

    server: Server  # set by the universe
    world: World

    def __init__(
        self, *, timeout: Any = None, request_class: Any = None, headers: Any = None, **_: Any
    ) -> None:
        self._token = (headers or {}).get("Authorization")
        self._silence_s: float = getattr(timeout, "sock_read", None) or math.inf
        self._tells_departure = request_class is not None

    async def request(self, method: str, url: Any, **options: Any) -> _Response:
        """Make a call, and return its answer."""
        call = Call(method, URL(url), options.get("data"), self._token)
        return _Response(await self.exchange(call))

    async def close(self) -> None:
        """Close it."""

    async def exchange(self, call: Call) -> Reply:
        """Send a call, and return its reply."""
        world, process = self.world, current()
        assert process is not None
        require_life()
        await asyncio.sleep(world.dice.choice((0.0, 0.001, 0.05)))
        require_life()
        if self.server.is_refusing(call):
            raise aiohttp.ClientConnectionError("connection refused")
        if self._tells_departure:
            transport._departure.get().has_left = True
        call.sent_s, call.sent_by = world.now_s, process.name
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            given = self.server.answer(call)
            if given.ends != "hung":
                way_s = given.delay_s + world.dice.choice((0.0005, 0.02, 0.2))
                world.after(way_s, lambda: _deliver(process, reply, given))

        world.after(world.dice.choice((0.0005, 0.02, 0.2)), arrive)
        async with asyncio.timeout(None if self._silence_s == math.inf else self._silence_s):
            return await reply


def _deliver(process: Process, reply: asyncio.Future[Reply], given: Reply) -> None:
    loop = reply.get_loop()
    if process.is_killed or process.has_ended or loop.is_closed():
        return

    def take() -> None:
        if reply.done():
            return
        if given.ends == "reset":
            reply.set_exception(aiohttp.ServerDisconnectedError())
        else:
            reply.set_result(given)

    loop.call_soon(take)
    process.wake()


class _Response:
    """The reply as the program reads it."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.headers = reply.status, reply.headers
        length = reply.headers.get("Content-Length")
        self.content_length = None if length is None else int(length)
        self.content = _Content(reply)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        """Close it."""

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.content.iter_chunked(700)])


class _Content:
    """The body as a stream."""

    def __init__(self, reply: Reply) -> None:
        self._reply, self._at = reply, 0

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes; none at the end."""
        require_life()
        reply, limit = self._reply, len(self._reply.body)
        end = limit if size < 0 else min(limit, self._at + size)
        if reply.cut is not None and end > reply.cut:
            raise aiohttp.ClientPayloadError("the connection was closed before the end")
        chunk, self._at = reply.body[self._at : end], end
        return chunk

    async def readany(self) -> bytes:
        """Return the next piece; none at the end."""
        return await self.read(700)

    async def iter_chunked(self, _: int) -> Any:
        """Yield the body in pieces."""
        while chunk := await self.readany():
            yield chunk
