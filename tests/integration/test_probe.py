"""Source addresses asked over real HTTP: what servers say of a picture, and what it means."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from aiohttp import web
from command import COMMAND, PROJECT
from loopback import listening, serving

from batch_runner.commands import check_urls
from batch_runner.commands.check_urls import Verdict
from batch_runner.service.network import NO_PROXIES
from batch_runner.service.web import Client

JPEG = (PROJECT / "samples" / "photos" / "mug.jpg").read_bytes()


class Host:
    """A host of pictures that answers as its paths say, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[str] = []
        self.sent_bytes = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(path)
        self.headers += request.headers
        match path:
            case "/fine.jpg":
                return self._picture(request)
            case "/octets.jpg":
                return web.Response(body=JPEG, content_type="application/octet-stream")
            case "/no-ranges.jpg":
                return await self._endless(request)
            case "/secret.jpg":
                return web.Response(status=403)
            case "/login.jpg":
                return web.Response(status=401)
            case "/gone.jpg":
                return web.Response(status=404)
            case "/page.jpg":
                return web.Response(text="<!doctype html><h1>Log in</h1>", content_type="text/html")
            case "/drawing.svg":
                return web.Response(text="<svg/>", content_type="image/svg+xml")
            case "/film.mp4":
                return web.Response(
                    body=b"\0\0\0\x18ftypmp42" + bytes(80), content_type="video/mp4"
                )
            case "/empty.jpg":
                return web.Response(body=b"", content_type="image/jpeg")
            case "/large.jpg":
                headers = {"Content-Range": "bytes 0-63/61000000"}
                return web.Response(body=JPEG[:64], status=206, headers=headers)
            case "/moved.jpg":
                raise web.HTTPFound("/fine.jpg")
            case "/away.jpg":
                raise web.HTTPFound("http://192.168.1.7/x.jpg")
            case "/inside.jpg":
                raise web.HTTPFound("https://10.0.0.7/x.jpg")
            case "/round.jpg":
                raise web.HTTPFound("/round.jpg")
            case "/broken.jpg":
                return web.Response(status=500)
        return web.Response(status=418)

    def _picture(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "image/jpeg"}
        if request.headers.get("Range") == "bytes=0-63":
            headers["Content-Range"] = f"bytes 0-63/{len(JPEG)}"
            return web.Response(body=JPEG[:64], status=206, headers=headers)
        return web.Response(body=JPEG, headers=headers)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "40000000"})
        await response.prepare(request)
        body = JPEG + bytes(100_000)
        while True:
            await response.write(body)
            self.sent_bytes += len(body)


async def ask(url: str, *, allow_loopback: bool = True) -> tuple[Verdict, str]:
    client = Client(NO_PROXIES, timeout={"total": 30}, headers=check_urls._HEADERS)
    try:
        return await check_urls.ask(client, url, allow_loopback=allow_loopback)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("path", "verdict", "detail"),
    [
        ("/fine.jpg", Verdict.OK, ""),
        ("/octets.jpg", Verdict.OK, ""),
        ("/moved.jpg", Verdict.OK, ""),
        ("/secret.jpg", Verdict.NEEDS_LOGIN, "HTTP 403"),
        ("/login.jpg", Verdict.NEEDS_LOGIN, "HTTP 401"),
        ("/gone.jpg", Verdict.UNREACHABLE, "HTTP 404"),
        ("/page.jpg", Verdict.NO_PICTURE, "text/html"),
        ("/drawing.svg", Verdict.NO_PICTURE, "image/svg+xml"),
        ("/film.mp4", Verdict.NO_PICTURE, "video/mp4"),
        ("/empty.jpg", Verdict.NO_PICTURE, "image/jpeg"),
        ("/large.jpg", Verdict.TOO_LARGE, "61 MB"),
        ("/broken.jpg", Verdict.UNREACHABLE, "HTTP 500"),
        ("/round.jpg", Verdict.UNREACHABLE, "HTTP 302"),
        ("/away.jpg", Verdict.UNREACHABLE, "http://192.168.1.7/x.jpg is not public"),
        ("/inside.jpg", Verdict.UNREACHABLE, "https://10.0.0.7/x.jpg is not public"),
    ],
)
async def test_an_answer_is_judged(path: str, verdict: Verdict, detail: str) -> None:
    host = Host()
    async with serving(host.answer) as origin:
        assert await ask(f"{origin}{path}") == (verdict, detail)
    assert not {"Authorization", "Cookie"} & set(host.headers)


async def test_of_a_server_that_knows_no_ranges_only_the_beginning_is_taken() -> None:
    host = Host()
    async with serving(host.answer) as origin:
        assert await ask(f"{origin}/no-ranges.jpg") == (Verdict.OK, "")
    assert host.sent_bytes < 20_000_000


async def test_a_host_that_hangs_up_or_is_not_there_is_unreachable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with listening(hang_up) as origin:
        assert (await ask(f"{origin}/x.jpg"))[0] is Verdict.UNREACHABLE
    assert (await ask(f"{origin}/x.jpg"))[0] is Verdict.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/x.jpg",
        "https://127.0.0.1/x.jpg",
        "https://[::1]/x.jpg",
        "https://192.168.1.20/x.jpg",
        "https://nas/x.jpg",
        "https://nas.local/x.jpg",
        "https://files.internal./x.jpg",
        "https://169.254.169.254/latest/meta-data",
    ],
)
async def test_what_only_this_network_reaches_is_not_asked(url: str) -> None:
    verdict, detail = await ask(url, allow_loopback=False)
    assert (verdict, detail.endswith(" is not public")) == (Verdict.UNREACHABLE, True)


@pytest.mark.parametrize("url", ["https://", "https://[", "https://a:b/", "x", "https://\ud800.de"])
async def test_no_address_whatever_breaks_the_asking(url: str) -> None:
    assert (await ask(url))[0] is Verdict.UNREACHABLE


# The command


async def plan(folder: Path, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "plan",
        str(folder / "batch.yaml"),
        "--sandbox",
        "--check-urls",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": str(Path(sys.executable).parent)},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def write_shop(folder: Path, origin: str, *paths: str) -> None:
    rows = "".join(f"p{n},{origin}{path}\n" for n, path in enumerate(paths))
    (folder / "t.csv").write_text(f"sku,image\n{rows}", encoding="utf-8")
    text = "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {a: x, b: y}\n"
    text += "images:\n  from: t.csv\n  id: '{{ sku }}'\n  urls: '{{ image }}'\noutput: {dir: out}\n"
    (folder / "batch.yaml").write_text(text, encoding="utf-8")


async def test_plan_tells_by_row_what_is_wrong_before_money_is_spent(tmp_path: Path) -> None:
    host = Host()
    async with serving(host.answer) as origin:
        write_shop(tmp_path, origin, "/fine.jpg", "/gone.jpg", "/moved.jpg", "/page.jpg?key=s3cret")
        code, out, err = await plan(tmp_path)
    assert code == 65
    assert "submit          8  new" in out
    assert out.splitlines()[-1] == "urls: 4 checked, 2 ok, 1 unreachable, 1 not a picture"
    assert len(host.asked) == 5  # once each, although two prompts use them; and one redirect
    row_3, row_5, *hints = err.splitlines()
    assert row_3 == f"{tmp_path}/t.csv: row 3: {origin}/gone.jpg: unreachable (HTTP 404)"
    assert row_5.startswith(
        f"{tmp_path}/t.csv: row 5: {origin}/page.jpg: not a picture (text/html)"
    )
    assert hints == [
        "hint: unreachable: correct the address, or leave such rows out with images.where",
        "hint: not a picture: use the address of the picture itself, not of a page that shows it",
    ]
    assert not (tmp_path / "out").exists()


async def test_every_result_is_there_for_machines(tmp_path: Path) -> None:
    async with serving(Host().answer) as origin:
        write_shop(tmp_path, origin, "/fine.jpg", "/octets.jpg")
        code, out, _ = await plan(tmp_path, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    asked = {line["url"]: line for line in lines if "url" in line}
    assert len(lines) - len(asked) == 4
    fine = asked[f"{origin}/fine.jpg"]
    assert (fine["verdict"], fine["row"], fine["job"]) == ("ok", 2, "p0/a")
    assert asked[f"{origin}/octets.jpg"]["verdict"] == "ok"


async def test_many_addresses_of_one_host_are_asked_few_at_a_time(tmp_path: Path) -> None:
    active = most = 0
    four_came = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if active == 4:
            four_came.set()
        await four_came.wait()
        await asyncio.sleep(0)
        active -= 1
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as origin:
        write_shop(tmp_path, origin, *(f"/{n}.jpg" for n in range(40)))
        code, out, _ = await plan(tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "urls: 40 checked, 40 ok")
    assert most == 4
