"""Source addresses asked over real HTTP: what servers say of a picture, and what it means."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import sys
from pathlib import Path

import pytest
from aiohttp import web
from command import COMMAND, PROJECT
from conftest import FakeClock
from loopback import listening, serving

from batch_runner.clock import Clock
from batch_runner.commands.probe import Probe, Verdict, open_prober

JPEG = (PROJECT / "samples" / "photos" / "mug.jpg").read_bytes()


class Host:
    """A host of pictures that answers as its paths say, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[str] = []
        self.sent_bytes = 0
        self.limited = 2

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(path)
        self.headers += request.headers
        match path:
            case "/fine.jpg":
                return self._picture(request)
            case "/octets.jpg":
                return web.Response(body=JPEG, content_type="application/octet-stream")
            case "/nothing.jpg":
                return web.Response(status=416)
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
            case "/busy.jpg" if self.limited:
                self.limited -= 1
                return web.Response(status=429)
            case "/busy.jpg":
                return self._picture(request)
            case "/always-busy.jpg":
                return web.Response(status=429)
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


async def ask(url: str, clock: FakeClock | None = None) -> Probe:
    async with open_prober(clock or FakeClock(), allow_loopback=True) as prober:
        return await prober.ask(url)


@pytest.mark.parametrize(
    ("path", "verdict", "detail"),
    [
        ("/fine.jpg", Verdict.OK, ""),
        ("/octets.jpg", Verdict.OK, ""),
        ("/moved.jpg", Verdict.OK, ""),
        ("/busy.jpg", Verdict.OK, ""),
        ("/secret.jpg", Verdict.NEEDS_LOGIN, "HTTP 403"),
        ("/login.jpg", Verdict.NEEDS_LOGIN, "HTTP 401"),
        ("/gone.jpg", Verdict.MISSING, "HTTP 404"),
        ("/page.jpg", Verdict.NO_PICTURE, "text/html"),
        ("/drawing.svg", Verdict.NO_PICTURE, "image/svg+xml"),
        ("/film.mp4", Verdict.NO_PICTURE, "video/mp4"),
        ("/empty.jpg", Verdict.NO_PICTURE, "an empty file"),
        ("/nothing.jpg", Verdict.NO_PICTURE, "an empty file"),
        ("/large.jpg", Verdict.TOO_LARGE, "61 MB"),
        ("/always-busy.jpg", Verdict.FAILING, "HTTP 429"),
        ("/broken.jpg", Verdict.FAILING, "HTTP 500"),
        ("/teapot.jpg", Verdict.UNREACHABLE, "HTTP 418"),
        ("/round.jpg", Verdict.UNREACHABLE, "HTTP 302"),
        (
            "/away.jpg",
            Verdict.UNREACHABLE,
            "it redirects to http://192.168.1.7/x.jpg, which is not public",
        ),
        (
            "/inside.jpg",
            Verdict.UNREACHABLE,
            "it redirects to https://10.0.0.7/x.jpg, which is not public",
        ),
    ],
)
async def test_an_answer_is_judged(path: str, verdict: Verdict, detail: str) -> None:
    async with serving(Host().answer) as origin:
        probe = await ask(f"{origin}{path}")
    assert (probe.verdict, probe.detail) == (verdict, detail)


async def test_only_the_beginning_is_asked_for_and_without_the_token() -> None:
    host = Host()
    async with serving(host.answer) as origin:
        probe = await ask(f"{origin}/fine.jpg")
    assert host.asked == ["/fine.jpg"]
    assert (probe.status, probe.media_type, probe.size_bytes) == (206, "image/jpeg", len(JPEG))
    assert "Authorization" not in host.headers
    assert "Cookie" not in host.headers


async def test_of_a_server_that_knows_no_ranges_only_the_beginning_is_taken() -> None:
    host = Host()
    async with serving(host.answer) as origin:
        probe = await ask(f"{origin}/no-ranges.jpg")
    assert (probe.verdict, probe.size_bytes) == (Verdict.OK, 40_000_000)
    assert host.sent_bytes < 20_000_000


async def test_where_a_redirect_led_is_said_without_its_secrets() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/a.jpg":
            raise web.HTTPFound("/b.jpg?X-Amz-Signature=secret&v=2")
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as origin:
        assert (await ask(f"{origin}/a.jpg")).redirected_to == f"{origin}/b.jpg?v=2"
        assert (await ask(f"{origin}/b.jpg")).redirected_to is None


async def test_a_host_that_is_busy_gets_time(clock: FakeClock) -> None:
    host = Host()
    async with serving(host.answer) as origin:
        assert (await ask(f"{origin}/busy.jpg", clock)).verdict is Verdict.OK
    assert clock.elapsed_s == 11.0
    assert len(host.asked) == 3


async def test_a_host_that_hangs_up_or_is_not_there_fails(clock: FakeClock) -> None:
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with listening(hang_up) as origin:
        assert (await ask(f"{origin}/x.jpg", clock)).verdict is Verdict.FAILING
    # More than once: a connection that breaks says nothing about the picture.
    assert connections >= 3
    assert (await ask(f"{origin}/x.jpg", clock)).verdict is Verdict.FAILING


async def test_a_certificate_that_nobody_vouches_for_is_told_at_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl, to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    process = await asyncio.create_subprocess_exec(
        openssl, *words, "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    probe = await ask(f"https://127.0.0.1:{runner.addresses[0][1]}/x.jpg", clock)
    await runner.cleanup()
    assert (probe.verdict, probe.detail) == (
        Verdict.UNREACHABLE,
        "this machine does not trust its certificate",
    )
    assert clock.elapsed_s == 0


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
    async with open_prober(Clock()) as prober:
        assert (await prober.ask(url)).verdict is Verdict.PRIVATE


@pytest.mark.parametrize("url", ["https://", "https://[", "https://a:b/", "x", "https://\ud800.de"])
async def test_no_address_whatever_breaks_the_asking(url: str) -> None:
    async with open_prober(Clock()) as prober:
        assert (await prober.ask(url)).verdict in (Verdict.UNREACHABLE, Verdict.PRIVATE)


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
    assert out.splitlines()[-1] == "urls: 4 checked, 2 ok, 1 not there, 1 not a picture"
    assert len(host.asked) == 5  # once each, although two prompts use them; and one redirect
    row_3, row_5, *hints = err.splitlines()
    assert row_3 == f"{tmp_path}/t.csv: row 3: {origin}/gone.jpg: not there (HTTP 404)"
    assert row_5.startswith(
        f"{tmp_path}/t.csv: row 5: {origin}/page.jpg: not a picture (text/html)"
    )
    assert hints == [
        "hint: not there: correct the address, or leave such rows out with images.where",
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
    assert asked[f"{origin}/octets.jpg"]["media_type"] == "application/octet-stream"


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
