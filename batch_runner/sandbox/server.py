"""The sandbox's server: it listens, records every call, and connects the other modules.

Hides aiohttp's server and the way of a call: recorded on arrival, checked by the gate, handled, and
every error turned into the service's error body.

Always holds: `calls` has every call in order of arrival, also those without an answer.
It listens on this machine only, because any client can make it open local pictures.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from batch_runner.sandbox import answers
from batch_runner.sandbox.api import Api
from batch_runner.sandbox.catalog import Catalog
from batch_runner.sandbox.faults import FaultPlan, parse_faults
from batch_runner.sandbox.files import OutputFiles
from batch_runner.sandbox.gate import Gate
from batch_runner.sandbox.options import SandboxOptions
from batch_runner.sandbox.requests import Request, RequestBook

_HOST = "127.0.0.1"
_CALLS_KEPT = 100_000
_LARGEST_BODY_BYTES = 64 * 2**20
_SHUTDOWN_S = 0.5

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Call:
    """One call as it arrived; `status` is None as long as it has no answer."""

    at_s: float
    method: str
    path: str
    status: int | None
    headers_authorization_present: bool


class Sandbox:
    """The stand-in service. `async with Sandbox(folder) as sandbox:` listens until the block ends.

    `folder` keeps the requests; a later sandbox on the same folder resumes them. `url`, set while
    it listens, is the origin (no trailing slash). Raises BlockingIOError if another process uses
    the folder, OSError if the port is taken.
    """

    def __init__(
        self,
        folder: Path,
        options: SandboxOptions | None = None,
        *,
        port: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.url = ""
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self._folder = folder
        self._options = options or SandboxOptions()
        self._port = port
        self._now = now
        self._book: RequestBook | None = None
        self._files: OutputFiles | None = None
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"Sandbox({str(self._folder)!r}, url={self.url!r}, {len(self.calls)} calls)"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def accepted(self) -> list[Request]:
        """Return every POST that was ever accepted in this folder, oldest first."""
        if self._book is None:
            raise RuntimeError("the sandbox has not been started")
        return self._book.list_accepted()

    async def _start(self) -> None:
        self._book = RequestBook(self._folder, self._options, self._now)
        faults = FaultPlan(parse_faults(self._options.faults), self._options.seed)
        models = Catalog(self._options.price_usd, self._options.schemas)
        small = not self._options.pictures
        self._files = OutputFiles(self._book, models, faults, small=small)
        api = Api(self._book, models, faults, self._files.render)
        self._gate = Gate(self._options, faults)
        application = web.Application(
            client_max_size=_LARGEST_BODY_BYTES, middlewares=[self._record, self._guard]
        )
        application.add_routes(api.list_routes())
        application.add_routes(self._files.list_routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, self._port).start()
        api.origin = self.url = f"http://{_HOST}:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._files is not None:
            self._files.close()
        if self._book is not None:
            self._book.close()

    @web.middleware
    async def _record(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        call = Call(
            at_s=time.monotonic(),
            method=request.method,
            path=request.path,
            status=None,
            headers_authorization_present="Authorization" in request.headers,
        )
        self.calls.append(call)
        try:
            response = await handler(request)
        except answers.ConnectionDroppedError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # nobody is left to read it
        call.status = response.status
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/outputs/"):
                return await handler(request)
            self._gate.check(request)
            page = self._gate.find_web_page()
            response = page if page is not None else await handler(request)
            await self._gate.delay()
        except answers.ServiceError as error:
            return error.build_response()
        except web.HTTPException as error:
            # A call that the web framework refuses by itself.
            if error.status == 404:
                return answers.resource_not_found(
                    "there is nothing at this address"
                ).build_response()
            return answers.ServiceError(error.status, error.text or error.reason).build_response()
        return response
