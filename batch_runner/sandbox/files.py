"""The output files: rendered when they are asked for, off the event loop, and kept for a while.

Hides rendering and caching. A file is a function of its request's input, so nothing is stored:
a restarted server makes the same file again.

Always holds: Content-Type and Content-Length are those of the bytes that follow, unless a fault
says otherwise. The files need no token, as the service's do not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web

from batch_runner.sandbox import answers, catalog
from batch_runner.sandbox.faults import FaultPlan
from batch_runner.sandbox.pictures import (
    RenderedFile,
    draw_bomb,
    render_film,
    render_film_swatch,
    render_picture,
    render_sound,
    render_swatch,
)
from batch_runner.sandbox.requests import Request, RequestBook

_CACHE_BYTES = 64 * 2**20
_RENDER_THREADS = 2
_ENDLESS_MIB = 256

Draw = Callable[[dict[str, Any], int], RenderedFile]
"""Makes output `number` of a request with this input."""

PICTURES: Mapping[catalog.Output, Draw] = {
    "image": render_picture,
    "video": render_film,
    "audio": render_sound,
}
SWATCHES: Mapping[catalog.Output, Draw] = {
    "image": render_swatch,
    "video": render_film_swatch,
    "audio": render_sound,
}
_AWAY = "https://files.runcomfy.net.evil.example/moved.png"


_Key = tuple[str, int, catalog.Output]


class FileCache:
    """The files made last. One that is being made is made once, however many ask for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_RENDER_THREADS, thread_name_prefix="sandbox-render")
        self._under_way: dict[_Key, asyncio.Future[RenderedFile]] = {}
        self._kept: OrderedDict[_Key, RenderedFile] = OrderedDict()
        self._kept_bytes = 0

    async def fetch(self, key: _Key, make: Callable[[], RenderedFile]) -> RenderedFile:
        """Return a request's output of a number, made now if it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._under_way:
            loop = asyncio.get_running_loop()
            drawing = loop.run_in_executor(self._pool, make)
            drawing.add_done_callback(lambda done: self._keep(key, done))
            self._under_way[key] = drawing
        # Shielded: a client that goes away must not take the picture from the others waiting.
        return await asyncio.shield(self._under_way[key])

    def close(self) -> None:
        """Let the drawing threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _keep(self, key: _Key, done: asyncio.Future[RenderedFile]) -> None:
        del self._under_way[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._kept_bytes += len(done.result().data)
        while self._kept_bytes > _CACHE_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.data)


class OutputFiles:
    """The handler of `/outputs/…`."""

    def __init__(
        self,
        book: RequestBook,
        models: catalog.Catalog,
        faults: FaultPlan,
        draw: Mapping[catalog.Output, Draw] = PICTURES,
    ) -> None:
        self._book = book
        self._models = models
        self._faults = faults
        self._draw = draw
        self._cache = FileCache()

    def list_routes(self) -> list[web.RouteDef]:
        """List the addresses that are answered here."""
        path = r"/outputs/{request_id}/{number:[1-9]\d{0,2}}.{extension}"
        return [web.get(path, self.send_file)]

    def close(self) -> None:
        """End the drawing of pictures."""
        self._cache.close()

    async def render(self, request: Request, model: catalog.Model, number: int) -> RenderedFile:
        """Make output `number` of a request, or find the one that was made before."""
        make = self._plan(request, model, number, model.output)
        return await self._cache.fetch((request.request_id, number, model.output), make)

    async def send_file(self, call: web.Request) -> web.StreamResponse:
        """Answer with one output file, or with what a fault makes of it."""
        request_id, number = call.match_info["request_id"], int(call.match_info["number"])
        extension = call.match_info["extension"]
        make, output = self._find_output(request_id, number, extension)
        disturbed = self._disturb_address(call)
        if disturbed is not None:
            return disturbed
        picture = await self._cache.fetch((request_id, number, output), make)
        if self._faults.strikes_call("truncated-file"):
            return await _send_truncated(call, picture)
        if self._faults.strikes_call("endless-file"):
            return await _send_endless(call, picture)
        if self._faults.strikes_call("bomb-file"):
            return web.Response(body=draw_bomb(), content_type="image/png")
        data = picture.data
        if self._faults.strikes_call("wrong-length"):
            data = data[: len(data) * 9 // 10]
        return web.Response(body=data, content_type=picture.media_type)

    def _find_output(
        self, request_id: str, number: int, extension: str
    ) -> tuple[Callable[[], RenderedFile], catalog.Output]:
        request = self._book.find(request_id)
        model = None if request is None else self._models.find(request.model_id)
        if (
            request is None
            or model is None
            or self._book.observe(request).state != "succeeded"
            or number > catalog.count_outputs(request.input)
            or extension not in (catalog.name_extension(model, request.input), "wav")
        ):
            raise answers.resource_not_found("there is no such file")
        output: catalog.Output = "audio" if extension == "wav" else model.output
        return self._plan(request, model, number, output), output

    def _plan(
        self, request: Request, model: catalog.Model, number: int, output: catalog.Output
    ) -> Callable[[], RenderedFile]:
        model_input = catalog.complete_input(model, request.input)
        return partial(self._draw[output], model_input, number)

    def _disturb_address(self, call: web.Request) -> web.Response | None:
        if self._faults.strikes_call("missing-file"):
            raise answers.resource_not_found("there is no such file")
        if self._faults.strikes_call("html-file"):
            return answers.build_web_page("Please log in")
        if "moved" not in call.query and self._faults.strikes_call("redirect-file"):
            return web.Response(status=302, headers={"Location": f"{call.path}?moved=1"})
        if self._faults.strikes_call("redirect-away"):
            return web.Response(status=302, headers={"Location": _AWAY})
        return None


async def _send_endless(call: web.Request, picture: RenderedFile) -> web.StreamResponse:
    """Begin like the picture and never come to an end that a client would wait for."""
    response = web.StreamResponse(headers={"Content-Type": picture.media_type})
    await response.prepare(call)
    await response.write(picture.data[:1000])
    for _ in range(_ENDLESS_MIB):
        await response.write(bytes(2**20))
    if call.transport is not None:
        call.transport.close()
    return response


async def _send_truncated(call: web.Request, picture: RenderedFile) -> web.StreamResponse:
    """Promise the whole picture, send half of it, and hang up."""
    response = web.StreamResponse(headers={"Content-Type": picture.media_type})
    response.content_length = len(picture.data)
    await response.prepare(call)
    await response.write(picture.data[: len(picture.data) // 2])
    if call.transport is not None:
        call.transport.close()  # after what was written has left, unlike abort()
    return response
