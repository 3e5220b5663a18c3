"""The live page: a small HTTP server on this machine.

Hides aiohttp's server, server-sent events, and which files may be seen. What always holds: without
the secret in the address every request gets the same 404; only files that the ledger names, in the
output folder or bucket, are served, by number and never by name; a page of another site can't read
or do anything here, whatever its name resolves to; a slow reader delays nobody else. Not promised:
encryption. It is plain HTTP, for this machine or for a tunnel to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from batch_runner.errors import BatchRunnerError
from batch_runner.report.moment import Moment, Picture
from batch_runner.report.viewer.copies import Copies
from batch_runner.report.viewer.guard import is_own_host, is_own_origin
from batch_runner.report.viewer.thumbnail import MEDIA_TYPE, Thumbnails
from batch_runner.service.network import is_loopback_host

_HEARTBEAT_S = 15.0
_FIRST_PICTURES = 60
_READERS_LIMIT = 32
_SHUTDOWN_S = 0.5
_SHOWN_TYPES = ("image/", "video/")
_NO_TIME = datetime.min.replace(tzinfo=UTC)

_PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'"
    ),
}
_FILE_HEADERS = {
    "Cache-Control": "private, max-age=3600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Viewer:
    """Serves the live page during the block. `show` passes it how the batch stands.

    `on_stop` asks the runs at work to stop, and returns how many there are; `copies` gives files
    that are in a bucket. `url` is set while it listens. Raises OSError if it can't listen.
    """

    def __init__(
        self,
        on_stop: Callable[[], int],
        *,
        host: str,
        port: int,
        copies: Copies | None = None,
    ) -> None:
        self.url = ""
        self._on_stop = on_stop
        self._copies = copies
        self._host = host
        self._port = port
        self.is_for_this_machine = is_loopback_host(host)
        self._names = {host.lower()} if self.is_for_this_machine else {host.lower(), *_own_names()}
        self._secret = secrets.token_urlsafe(16)
        self._moment: Moment | None = None
        self._pictures: dict[int, Picture] = {}
        self._news = asyncio.Event()
        self._is_closing = False
        self._readers = 0
        self._thumbnails = Thumbnails()
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"Viewer(on {self._host}, {self._readers} readers)"

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        base = "/{secret}/"
        application.add_routes(
            [
                web.get(base + "events", self._events),
                web.get(base + r"picture/{number:\d{1,12}}", self._whole),
                web.get(base + r"small/{number:\d{1,12}}", self._small),
                web.post(base + "drain", self._drain),
                web.get(base + "{name:[a-z.]*}", self._page),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.url = f"{_origin(*self._runner.addresses[0][:2])}/{self._secret}/"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closing = True
        self._tell()
        if self._runner is not None:
            await self._runner.cleanup()
        self._thumbnails.close()

    def show(self, moment: Moment, pictures: Iterable[Picture]) -> None:
        """Show how the batch stands to everyone who has the page open."""
        self._moment = moment
        self._pictures = {picture.number: picture for picture in pictures}
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    # Who gets in

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            named = request.headers.get(hdrs.HOST)
            if not is_own_host(named, self._names, loopback_only=self.is_for_this_machine):
                raise web.HTTPMisdirectedRequest
            secret = request.match_info.get("secret", "")
            if not hmac.compare_digest(secret.encode(), self._secret.encode()):
                raise web.HTTPNotFound
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.status}: {error.reason}\n")
        if not response.prepared:
            _add_headers(response, _HEADERS)
        return response

    # What there is

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name, media_type = _PAGE.get(request.match_info["name"], ("", ""))
        if not name:
            raise web.HTTPNotFound
        body = files("batch_runner.report.viewer").joinpath("page", name).read_bytes()
        return web.Response(body=body, content_type=media_type, charset="utf-8")

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        picture = self._picture(request)
        return self._give_file(picture, await self._file(picture))

    async def _small(self, request: web.Request) -> web.StreamResponse:
        picture = self._picture(request)
        path = await self._file(picture)
        body = await self._thumbnails.small(path, picture.sha256)
        if body is None:
            return self._give_file(picture, path)
        return web.Response(body=body, content_type=MEDIA_TYPE, headers=_FILE_HEADERS)

    def _picture(self, request: web.Request) -> Picture:
        picture = self._pictures.get(int(request.match_info["number"]))
        if picture is None:
            raise web.HTTPNotFound
        return picture

    async def _file(self, picture: Picture) -> Path:
        """Return the path of a saved file, or of the copy of one in a bucket."""
        if self._moment is None or self._moment.output_dir is not None or self._copies is None:
            return await asyncio.to_thread(self._find_file, picture)
        path = await self._copies.find(picture)
        if path is None:
            raise web.HTTPNotFound
        return path

    def _find_file(self, picture: Picture) -> Path:
        """Return the path of a saved file, if it still exists in the output folder."""
        if self._moment is None or self._moment.output_dir is None:
            raise web.HTTPNotFound
        folder = Path(self._moment.output_dir).resolve()
        try:
            # Follow links before checking that the file is inside the folder.
            path = (folder / picture.path).resolve(strict=True)
            fits = path.is_relative_to(folder) and path.stat().st_size == picture.size_bytes
        except (OSError, ValueError, RuntimeError):
            fits = False
        if not fits or not path.is_file():
            raise web.HTTPNotFound
        return path

    def _give_file(self, picture: Picture, path: Path) -> web.StreamResponse:
        shown = picture.media_type.startswith(_SHOWN_TYPES) and "svg" not in picture.media_type
        disposition = "inline" if shown else "attachment"
        name = PurePosixPath(picture.path).name
        return web.FileResponse(
            path,
            headers={
                **_FILE_HEADERS,
                "Content-Type": picture.media_type if shown else "application/octet-stream",
                "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(name, '')}",
            },
        )

    async def _drain(self, request: web.Request) -> web.StreamResponse:
        if not is_own_origin(request.headers.get(hdrs.ORIGIN), request.headers.get(hdrs.HOST)):
            raise web.HTTPForbidden
        try:
            asked = await asyncio.to_thread(self._on_stop)
        except BatchRunnerError as error:
            return _say(500, f"The run could not be asked to stop: {error.message}.")
        if not asked:
            return _say(409, "No run is at work.")
        return _say(
            200, "Asked to stop: the run submits nothing more, and collects what is paid for."
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._readers >= _READERS_LIMIT:
            raise web.HTTPServiceUnavailable
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        _add_headers(response, _HEADERS)
        self._readers += 1
        try:
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                await self._tell_reader(response, request.headers.get("Last-Event-ID", ""))
        finally:
            self._readers -= 1
        return response

    async def _tell_reader(self, response: web.StreamResponse, last_id: str) -> None:
        """Send what is new to one reader, at its own pace, until the view ends."""
        reader = _Reader(self._secret, last_id)
        await response.write(b"retry: 1000\n\n")
        while not self._is_closing:
            news = self._news
            if self._moment is not None:
                for event in reader.news(self._moment, list(self._pictures.values())):
                    await response.write(event)
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await news.wait()
            except TimeoutError:
                await response.write(b": still here\n\n")


class _Reader:
    """What one reader has got, and what is new to it."""

    def __init__(self, secret: str, last_id: str) -> None:
        # An id from another server, or of a ledger that was replaced, does not count.
        self._series = secret[:6]
        series, _, number = last_id.rpartition(".")
        self._told = int(number) if number.isascii() and number.isdigit() else 0
        self._known = series
        self._failures: bytes | None = None
        self._shown: Moment | None = None

    def news(self, moment: Moment, pictures: Sequence[Picture]) -> Iterator[bytes]:
        series = f"{self._series}.{moment.generation}"
        if series != self._known:
            self._known, self._told = series, 0
            yield _event("reset", b"{}")
        if self._told == 0:
            # After a long night, the page begins with the last pictures.
            pictures = pictures[-_FIRST_PICTURES:]
        for picture in pictures:
            if picture.number > self._told:
                self._told = picture.number
                yield _event("picture", msgspec.json.encode(picture), f"{series}.{picture.number}")
        failures = msgspec.json.encode(moment.failures)
        if failures != self._failures:
            self._failures = failures
            yield _event("failures", failures)
        shown = msgspec.structs.replace(moment, failures=())
        # The time of day is news only during a run, whose age and time left depend on it.
        timeless = msgspec.structs.replace(shown, at=moment.at if moment.is_at_work else _NO_TIME)
        if timeless != self._shown:
            self._shown = timeless
            yield _event("moment", msgspec.json.encode(shown))


def _event(name: str, data: bytes, number: str = "") -> bytes:
    # JSON has no line breaks, so it can't end an event early.
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: ".encode() + data + b"\n\n"


def _say(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _add_headers(response: web.StreamResponse, headers: dict[str, str]) -> None:
    for name, value in headers.items():
        response.headers.setdefault(name, value)


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}


def _origin(host: str, port: int, *_: Any) -> str:
    reachable = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
