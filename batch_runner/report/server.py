"""The page, served on this machine while a batch is looked at.

Hides aiohttp's server, server-sent events, and which files may be seen. What always holds: without
the secret in the address every request gets the same 404; only the page, its copies and files out
that the ledger names are served, and none that lies outside the output folder; a page of another
site can't read or do anything here, whatever its name resolves to (DNS rebinding): its browser
sends that name in the Host header, and nobody can register the names accepted here; a slow reader
delays nobody else. Not promised: encryption. It is plain HTTP, for this machine or for a tunnel.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import quote, urlsplit

import msgspec
from aiohttp import hdrs, web

from batch_runner.errors import BatchRunnerError, UsageError
from batch_runner.records import SavedFile
from batch_runner.report.feed import Feed, Judgement
from batch_runner.report.page import INDEX
from batch_runner.report.remote import FOLDER
from batch_runner.service.network import is_loopback_host

_HEARTBEAT_S = 15.0
_SHUTDOWN_S = 0.5
_BODY_LIMIT_BYTES = 1024 * 1024
_SHOWN_TYPES = ("image/", "video/")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_FILE_HEADERS = {
    "Cache-Control": "private, max-age=3600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves a feed during the block. `url` is set while it listens.

    Raises OSError if it can't listen.
    """

    def __init__(self, feed: Feed, *, host: str, port: int) -> None:
        self.url = ""
        self._feed = feed
        self._host = host
        self._port = port
        self.is_for_this_machine = is_loopback_host(host)
        self._names = {host.lower()}
        if not self.is_for_this_machine:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local"}
        self._secret = secrets.token_urlsafe(16)
        self._is_closing = False
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._guard], client_max_size=_BODY_LIMIT_BYTES)
        page = f"/{{secret}}/{FOLDER}/"
        application.add_routes(
            [
                web.get(page + "events", self._events),
                web.post(page + "drain", self._drain),
                web.post(page + "verdicts", self._judge),
                web.get(page + "{name:.*}", self._below_page),
                web.get("/{secret}/{path:.+}", self._file_out),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.url = f"{_origin(*self._runner.addresses[0][:2])}/{self._secret}/{FOLDER}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        self._feed.wake()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            named = request.headers.get(hdrs.HOST)
            if not is_own_host(named, self._names, loopback_only=self.is_for_this_machine):
                raise web.HTTPMisdirectedRequest
            secret = request.match_info.get("secret", "")
            if not hmac.compare_digest(secret.encode(), self._secret.encode()):
                raise web.HTTPNotFound
            origin = request.headers.get(hdrs.ORIGIN)
            if request.method == "POST" and origin not in (None, f"http://{named}"):
                raise web.HTTPForbidden
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.status}: {error.reason}\n")
        except BatchRunnerError as error:
            # The manifest may have been edited, or the disk may be full.
            response = web.Response(status=500, text=f"{error.message}\n")
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    # What there is to read

    async def _below_page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"] or INDEX
        if name == INDEX:
            await self._feed.renew()
        page = self._feed.page_file(name)
        if page is not None:
            return web.FileResponse(page)
        copy = self._feed.pictures.copies.get(name)
        path = None if copy is None else await self._feed.copies.get(name, copy)
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers=_FILE_HEADERS)

    async def _file_out(self, request: web.Request) -> web.StreamResponse:
        address = f"../{request.match_info['path']}"
        file = self._feed.pictures.files.get(address)
        if file is None:
            raise web.HTTPNotFound
        path = await asyncio.to_thread(self._find_file, address.removeprefix("../"), file)
        shown = file.media_type.startswith(_SHOWN_TYPES) and "svg" not in file.media_type
        disposition = "inline" if shown else "attachment"
        name = PurePosixPath(file.path).name
        return web.FileResponse(
            path,
            headers={
                **_FILE_HEADERS,
                "Content-Type": file.media_type if shown else "application/octet-stream",
                "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(name, '')}",
            },
        )

    def _find_file(self, name: str, file: SavedFile) -> Path:
        """Return the path of a file out, if it still exists in the output folder."""
        folder = self._feed.output_folder.resolve()
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            # Follow links before checking that the file is inside the folder.
            path = (folder / name).resolve(strict=True)
            is_whole = path.is_file() and path.stat().st_size == file.size_bytes
            if is_whole and path.is_relative_to(folder):
                return path
        raise web.HTTPNotFound

    async def _events(self, request: web.Request) -> web.StreamResponse:
        told = request.headers.get("Last-Event-ID") or request.query.get("since", "")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **_HEADERS})
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await self._tell_reader(response, int(told) if told.isdecimal() else 0)
        return response

    async def _tell_reader(self, response: web.StreamResponse, told: int) -> None:
        """Send what is new to one reader, at its own pace, until the server ends."""
        await response.write(b"retry: 1000\n\n")
        while not self._is_closing:
            news = self._feed.news
            told, events = self._feed.events_since(told)
            for event in events:
                await response.write(event)
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await news.wait()
            except TimeoutError:
                await response.write(b": still here\n\n")

    # What there is to do

    async def _judge(self, request: web.Request) -> web.StreamResponse:
        try:
            wanted = msgspec.json.decode(await request.read(), type=list[Judgement])
            await self._feed.judge(wanted, getpass.getuser())
        except msgspec.ValidationError as error:
            return _answer(400, str(error))
        except BatchRunnerError as error:
            return _answer(409 if isinstance(error, UsageError) else 500, error.message)
        return _answer(200, "")

    async def _drain(self, _: web.Request) -> web.StreamResponse:
        try:
            asked = await asyncio.to_thread(self._feed.stop_runs)
            await self._feed.look()  # so that the page says at once that the run is stopping
        except BatchRunnerError as error:
            return _answer(500, f"The run could not be asked to stop: {error.message}.")
        if not asked:
            return _answer(409, "No run is at work.")
        return _answer(
            200, "Asked to stop: the run submits nothing more, and collects what is paid for."
        )


def is_own_host(header: str | None, names: Collection[str], *, loopback_only: bool) -> bool:
    """Tell whether a Host header names this machine: by number, as localhost, or by a given name.

    The port may be any: a tunnel (ssh -L) may have another one at its far end.
    """
    if not header or any(character in header for character in "/\\@?# "):
        return False
    try:
        host = (urlsplit(f"//{header}").hostname or "").lower()
        if host in ("localhost", *names):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Nobody can point a number elsewhere, as they could a name.
    return address.is_loopback or not loopback_only


def _answer(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _origin(host: str, port: int, *_: Any) -> str:
    reachable = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
