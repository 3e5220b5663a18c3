"""The output files, rendered on request and off the event loop.

A file follows from its request, so nothing is stored: a restarted server makes the same file again.

Always holds: Content-Type and Content-Length match the body, except for a fault. Like the
service's, the files need no token.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

from aiohttp import web
from PIL import Image

from batch_runner.sandbox import api, catalog
from batch_runner.sandbox.faults import SPOILS, FaultPlan
from batch_runner.sandbox.pictures import (
    Output,
    RenderedFile,
    draw_bomb,
    list_source_urls,
    open_source,
    render,
)
from batch_runner.sandbox.requests import Request, RequestBook

_OFF_WHITE, _LEFT_SHARE = 252, 0.62
_RENDER_THREADS = 2
_ENDLESS_MIB = 256
_AWAY = "https://files.runcomfy.net.evil.example/moved.png"

_APART = 1000
"""More than the outputs of any request, so that no two pictures share a number."""


class OutputFiles:
    """The handler of `/outputs/…`."""

    def __init__(
        self, book: RequestBook, models: catalog.Catalog, faults: FaultPlan, *, small: bool = False
    ) -> None:
        self._book = book
        self._models = models
        self._faults = faults
        self._is_small = small
        self._pool = ThreadPoolExecutor(_RENDER_THREADS, thread_name_prefix="sandbox-render")

    def list_routes(self) -> list[web.RouteDef]:
        """List the addresses that are answered here."""
        path = r"/outputs/{request_id}/{number:[1-9]\d{0,2}}.{extension}"
        return [web.get(path, self.send_file)]

    def close(self) -> None:
        """End the rendering threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def render(
        self, request: Request, model: catalog.Model, number: int, output: Output | None = None
    ) -> RenderedFile:
        """Return output `number` of a request."""
        spoiled = self._faults.find(SPOILS, request.request_id)
        shown = self._another(request) if spoiled == "swapped" else request

        def make() -> RenderedFile:
            model_input = catalog.complete_input(model, shown.input)
            # A model gives another picture each time, even for the same input.
            apart = number + shown.earlier * _APART
            file = render(output or model.output, model_input, apart, is_small=self._is_small)
            return file if spoiled is None else spoil(spoiled, file, model_input)

        return await asyncio.get_running_loop().run_in_executor(self._pool, make)

    def _another(self, request: Request) -> Request:
        """Return the first request with other pictures, for the same model; itself without one."""
        own = list_source_urls(request.input)
        others = (
            other
            for other in self._book.list_accepted()
            if other.model_id == request.model_id and list_source_urls(other.input) != own
        )
        return next(others, request)

    async def send_file(self, call: web.Request) -> web.StreamResponse:
        """Answer with one output file, or with what a fault makes of it."""
        request_id, number = call.match_info["request_id"], int(call.match_info["number"])
        extension = call.match_info["extension"]
        request, model = self._find_output(request_id, number, extension)
        disturbed = self._disturb_address(call)
        if disturbed is not None:
            return disturbed
        output: Output = "audio" if extension == "wav" else model.output
        picture = await self.render(request, model, number, output)
        half = picture.data[: len(picture.data) // 2]
        if self._faults.strikes_call("truncated-file"):
            return await _hang_up_after(call, picture, [half], promised=len(picture.data))
        if self._faults.strikes_call("endless-file"):
            endless = chain([picture.data[:1000]], repeat(bytes(2**20), _ENDLESS_MIB))
            return await _hang_up_after(call, picture, endless)
        if self._faults.strikes_call("bomb-file"):
            return web.Response(body=draw_bomb(), content_type="image/png")
        data = picture.data
        if self._faults.strikes_call("wrong-length"):
            data = data[: len(data) * 9 // 10]
        return web.Response(body=data, content_type=picture.media_type)

    def _find_output(
        self, request_id: str, number: int, extension: str
    ) -> tuple[Request, catalog.Model]:
        request = self._book.find(request_id)
        model = None if request is None else self._models.find(request.model_id)
        if (
            request is None
            or model is None
            or self._book.observe(request).state != "succeeded"
            or number > catalog.count_outputs(request.input)
            or extension not in (catalog.name_extension(model, request.input), "wav")
        ):
            raise api.ServiceError(404001, "there is no such file")
        return request, model

    def _disturb_address(self, call: web.Request) -> web.Response | None:
        if self._faults.strikes_call("missing-file"):
            raise api.ServiceError(404001, "there is no such file")
        if self._faults.strikes_call("html-file"):
            return api.build_web_page("Please log in")
        if "moved" not in call.query and self._faults.strikes_call("redirect-file"):
            return web.Response(status=302, headers={"Location": f"{call.path}?moved=1"})
        if self._faults.strikes_call("redirect-away"):
            return web.Response(status=302, headers={"Location": _AWAY})
        return None


async def _hang_up_after(
    call: web.Request, picture: RenderedFile, chunks: Iterable[bytes], promised: int | None = None
) -> web.StreamResponse:
    """Send some bytes, with or without the promise of a length, and close the connection."""
    response = web.StreamResponse(headers={"Content-Type": picture.media_type})
    response.content_length = promised
    await response.prepare(call)
    for chunk in chunks:
        await response.write(chunk)
    if call.transport is not None:
        call.transport.close()  # unlike abort(), once everything written has left
    return response


def spoil(name: str, file: RenderedFile, model_input: Mapping[str, Any]) -> RenderedFile:
    """Return the file with one defect; a film or a sound stays as it is."""
    if not file.media_type.startswith("image/"):
        return file
    with Image.open(io.BytesIO(file.data)) as opened:
        form, picture = opened.format, opened.convert("RGB")
    match name:
        case "blank":
            picture = Image.new("RGB", picture.size)
        case "unedited":
            sent = (open_source(url) for url in list_source_urls(model_input))
            source = next((one for one in sent if one is not None), None)
            if source is not None:
                picture = source.resize(picture.size)
        case "off-white":
            picture = picture.point([min(value, _OFF_WHITE) for value in range(256)] * 3)
        case "cropped":
            right, bottom = round(picture.width * _LEFT_SHARE), round(picture.height * _LEFT_SHARE)
            picture = picture.crop((0, 0, right, bottom)).resize(picture.size)
        case "wrong-size":
            picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height // 2)))
    data = io.BytesIO()
    picture.save(data, form)
    return RenderedFile(data.getvalue(), file.media_type)
