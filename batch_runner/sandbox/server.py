"""The sandbox's server: it listens, records every call, and connects the other modules.

Hides aiohttp's server and the way of a call: recorded on arrival, checked (the token first, as at
the service), handled, and every error turned into the service's error body.

Always holds: `calls` has every call in order of arrival, also those without an answer; a call that
the check refuses has changed nothing.
It listens on this machine only, because any client can make it open local pictures.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Self

from aiohttp import web

from batch_runner.sandbox.api import Api, ConnectionDroppedError, ServiceError, build_web_page
from batch_runner.sandbox.catalog import Catalog
from batch_runner.sandbox.faults import FaultPlan, parse_faults
from batch_runner.sandbox.files import OutputFiles
from batch_runner.sandbox.requests import Request, RequestBook, SandboxOptions

_HOST = "127.0.0.1"
_CALLS_KEPT = 100_000
_LARGEST_BODY_BYTES = 64 * 2**20
_SHUTDOWN_S = 0.5
SLOW_ANSWER_S = 2.0
# A little less than a second, because the network bunches calls by a few milliseconds.
_WINDOW_S = 0.98

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
        self._faults = FaultPlan(parse_faults(self._options.faults), self._options.seed)
        self._submitted_at_s: deque[float] = deque()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            book = RequestBook(self._folder, self._options, self._now)
            stack.callback(book.close)
            models = Catalog(self._options.schemas)
            small = not self._options.pictures
            files = OutputFiles(book, models, self._faults, small=small)
            stack.callback(files.close)
            api = Api(book, models, self._faults, files.render)
            application = web.Application(
                client_max_size=_LARGEST_BODY_BYTES, middlewares=[self._answer]
            )
            application.add_routes([*api.list_routes(), *files.list_routes()])
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, _HOST, self._port).start()
            api.origin = self.url = f"http://{_HOST}:{runner.addresses[0][1]}"
            self._book, self._stack = book, stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def accepted(self) -> list[Request]:
        """Return every POST that was ever accepted in this folder, oldest first."""
        if self._book is None:
            raise RuntimeError("the sandbox has not been started")
        return self._book.list_accepted()

    @web.middleware
    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        has_token = "Authorization" in request.headers
        call = Call(time.monotonic(), request.method, request.path, None, has_token)
        self.calls.append(call)
        is_of_api = not request.path.startswith("/outputs/")
        response: web.StreamResponse
        try:
            if is_of_api:
                self._check(request)
            if is_of_api and self._faults.strikes_call("html-answer"):
                response = build_web_page("502 Bad Gateway", 502)
            else:
                response = await handler(request)
            if is_of_api and self._faults.strikes_call("slow-answer"):
                await asyncio.sleep(SLOW_ANSWER_S)
        except ConnectionDroppedError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # nobody is left to read it
        except ServiceError as error:
            response = error.build_response()
        except web.HTTPException as error:  # a call that the web framework refuses by itself
            code = 404001 if error.status == 404 else error.status
            response = ServiceError(code, error.text or error.reason).build_response()
        call.status = response.status
        return response

    def _check(self, request: web.Request) -> None:
        """Refuse a call with ServiceError or ConnectionDroppedError, or let it pass."""
        strikes = self._faults.strikes_call
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not token.strip():
            message = "the header 'Authorization: Bearer TOKEN' is missing"
            raise ServiceError(400004, message, status=401)
        if self._options.token not in (None, token.strip()):
            raise ServiceError(400004, "the token is unknown or revoked", status=401)
        if strikes("token-revoked"):
            raise ServiceError(400004, "the token has expired", status=401)
        is_submit = request.method == "POST" and request.path.startswith("/v1/models/")
        if is_submit and strikes("dropped-submit"):
            raise ConnectionDroppedError
        retry_after = "1" if strikes("rate-limit") else None
        if strikes("rate-limit-date"):
            # Dates have whole seconds, so one second ahead could already be over.
            retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        if retry_after is None and is_submit and self._options.submits_per_s is not None:
            retry_after = self._find_wait(time.monotonic(), self._options.submits_per_s)
        if retry_after is not None:
            raise ServiceError(429, "too many calls; wait", retry_after=retry_after)
        if request.method == "GET" and strikes("error-500-get"):
            raise ServiceError(500, "something went wrong on our side")

    def _find_wait(self, now_s: float, limit: int) -> str | None:
        """Let a submit pass, or return the seconds to wait: at most `limit` in any second."""
        passed = self._submitted_at_s
        while passed and passed[0] <= now_s - _WINDOW_S:
            passed.popleft()
        if len(passed) >= limit:
            return str(math.ceil(passed[0] + _WINDOW_S - now_s))
        passed.append(now_s)
        return None
