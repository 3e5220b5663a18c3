"""Every client behind a proxy, with a certificate nobody trusts, in a process that stood still."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from bench import Bench
from conftest import FakeClock
from loopback import listening, read_request, serving
from yarl import URL

from batch_runner.commands import check_urls, environment
from batch_runner.errors import ExitCode, ServiceUnavailableError, UsageError
from batch_runner.files.download import DownloadError, Downloads
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.service.answer import Meaning, Verdict
from batch_runner.service.call import Service
from batch_runner.service.network import Proxies
from batch_runner.service.transport import Deadlines
from batch_runner.service.web import Client

# Made for these tests, and good for nothing else.
PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPxxRKCxpTW73JgNh
9v4J8FaFzIbjEjtZ5jR93ynxY/uhRANCAARNJW5H9+BmrhIKgS30LVCCAdu8iVkD
rZHI/bMz9wbAkbhFe0Si/b/HAbApAbhdE1WA6/puG3bib0MqTZ957RJz
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUE1ZptgDD/EhJGfdQwRVW7BSPHi4wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDIzMzMxNFoYDzIxMjYxMTA2
MjMzMzE0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARNJW5H9+BmrhIKgS30LVCCAdu8iVkDrZHI/bMz9wbAkbhFe0Si/b/H
AbApAbhdE1WA6/puG3bib0MqTZ957RJzo28wbTAdBgNVHQ4EFgQUJyGJeHlKfEx3
H1IU5GPovTiZSrgwHwYDVR0jBBgwFoAUJyGJeHlKfEx3H1IU5GPovTiZSrgwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgdymQ61ZzZcycLiExzCYtv+bt+u4l+m3OUrN95rkSCgoCICsr
nJ/t4IsuSEVbA7lnWkDu2KKJRIS06TVWqTiGpq2u
-----END CERTIFICATE-----
"""
SECRET = "hunter2"


# Which proxy


@pytest.mark.parametrize(
    ("url", "exempt", "proxied"),
    [
        ("https://model-api.runcomfy.net/x", "", True),
        ("http://hooks.example/x", "", False),
        ("https://127.0.0.1:80/x", "", False),
        ("https://localhost/x", "", False),
        ("https://[::1]/x", "", False),
        ("https://a.example/x", "*", False),
        ("https://a.example/x", "a.example", False),
        ("https://A.Example./x", "a.example", False),
        ("https://b.a.example/x", "a.example", False),
        ("https://b.a.example/x", ".a.example", False),
        ("https://b.a.example/x", "*.a.example", False),
        ("https://ba.example/x", "a.example", True),
        ("https://a.example/x", "a.example:443", False),
        ("https://a.example/x", "a.example:8443", True),
        ("https://10.1.2.3/x", "10.1.2.3", False),
        ("https://a.example/x", "c.example b.example", True),
        ("https://a.example/x", ". :", True),
    ],
)
def test_the_proxy_is_used_except_for_this_machine_and_exempt_hosts(
    url: str, exempt: str, proxied: bool
) -> None:
    proxies = Proxies(https="http://proxy:3128", exempt=tuple(exempt.split()))
    assert (proxies.url_for(URL(url)) is not None) is proxied


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_the_environment_names_the_proxies(setting: Callable[..., None]) -> None:
    assert environment.proxies() == Proxies()
    setting(HTTPS_PROXY="proxy.example:3128", HTTP_PROXY=" ", NO_PROXY="a.example, .b.example,")
    found = environment.proxies()
    assert found == Proxies(https="http://proxy.example:3128", exempt=("a.example", ".b.example"))
    setting(https_proxy=f"http://u:{SECRET}@other.example:80")
    assert environment.proxies().https == f"http://u:{SECRET}@other.example:80"
    assert SECRET not in repr(environment.proxies())


@pytest.mark.parametrize(
    "text", ["socks5://u:hunter2@a", "http://", "http://a:b:hunter2", "ftp://a"]
)
def test_a_proxy_of_another_kind_is_an_error_that_shows_no_password(
    setting: Callable[..., None], text: str
) -> None:
    setting(HTTPS_PROXY=text)
    with pytest.raises(UsageError) as caught:
        environment.proxies()
    assert "HTTPS_PROXY" in caught.value.message
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"


# Behind a proxy


@asynccontextmanager
async def proxying(answer: bytes) -> AsyncIterator[tuple[Proxies, list[bytes]]]:
    """A proxy that gives every call the same answer; yields what it was asked, too."""
    asked: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read_request(reader))
        writer.write(answer)
        await writer.drain()

    async with listening(connected) as origin:
        url = origin.replace("//", f"//user:{SECRET}@")
        yield Proxies(http=url, https=url), asked


BARRED = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
AWAY = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
NOTHING = b""
NO_TLS = b"HTTP/1.1 200 OK\r\n\r\nnot TLS at all"


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (BARRED, Meaning.BARRED),
        (AWAY, Meaning.TRANSIENT),
        (NOTHING, Meaning.TRANSIENT),
        (NO_TLS, Meaning.TRANSIENT),
    ],
)
async def test_a_post_that_a_proxy_does_not_let_through_was_not_sent(
    answer: bytes, meaning: Meaning
) -> None:
    async with (
        proxying(answer) as (proxies, asked),
        Service("https://model-api.example", "token", proxies) as service,
    ):
        verdict = await service.submit("a/b", {"prompt": "x"})
    assert (verdict.meaning, verdict.reason) == (meaning, "not reachable")
    assert SECRET not in repr(verdict)
    (call,) = asked
    assert call.startswith(b"CONNECT model-api.example:443 ")
    assert base64.b64encode(f"user:{SECRET}".encode()) in call
    assert b"token" not in call


async def test_every_other_client_asks_the_proxy_too(tmp_path: Path, clock: FakeClock) -> None:
    async with proxying(BARRED) as (proxies, asked):
        async with Service("https://model-api.example", "token", proxies) as service:
            with pytest.raises(ServiceUnavailableError) as caught:
                await service.model("a/b")
        assert "HTTPS_PROXY" in str(caught.value.hint)
        storage = FolderStorage(tmp_path)
        async with Downloads(storage, hosts=["files.example"], proxies=proxies) as downloads:
            with pytest.raises(DownloadError, match="the proxy answered HTTP 407"):
                await downloads.fetch("https://files.example/a.png", "a")
        client = Client(proxies, timeout={"total": 30})
        asking = check_urls.ask(client, "https://shop.example/a.png", allow_loopback=False)
        assert (await asking)[0] is check_urls.Verdict.UNREACHABLE
        await client.close()
    hosts = [call.split()[1] for call in asked]
    assert hosts == [
        b"model-api.example:443",
        b"files.example:443",
        b"shop.example:443",
    ]


async def test_this_machine_is_never_called_through_a_proxy() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"request_id": "r1"})

    async with (
        proxying(BARRED) as (proxies, asked),
        serving(answer) as origin,
        Service(origin, "token", proxies) as service,
    ):
        assert (await service.submit("a/b", {})).meaning is Meaning.ACCEPTED
    assert asked == []


# Certificates


@asynccontextmanager
async def serving_tls(folder: Path) -> AsyncIterator[str]:
    path = folder / "server.pem"
    path.write_text(PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_an_untrusted_certificate_ends_a_run_at_once(
    tmp_path: Path, bench: Bench, clock: FakeClock
) -> None:
    text = "prompts: {white: On white.}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    async with serving_tls(tmp_path) as origin:
        with pytest.raises(ServiceUnavailableError, match="certificate") as caught:
            await bench.run(text, origin, clock=clock)
        async with Service(origin, "token") as service:
            verdict = await service.submit("a/b", {})
    assert "SSL_CERT_FILE" in str(caught.value.hint)
    assert clock.elapsed_s == 0
    assert verdict.meaning is Meaning.BARRED


async def test_a_submit_that_nothing_lets_through_is_refused_and_ends_the_run(
    bench: Bench, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def barred(*_: object) -> Verdict:
        return Verdict(meaning=Meaning.BARRED, reason="not reachable", message="its certificate")

    monkeypatch.setattr(Service, "submit", barred)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({}, status=404)

    text = "prompts: {white: On white.}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    async with serving(answer) as origin:
        summary = await bench.run(text, origin, clock=clock)
    assert (summary.exit_code, summary.pending) == (ExitCode.UNAVAILABLE, 1)
    assert "SSL_CERT_FILE" in str(summary.error.hint if summary.error else None)


# A process that stood still


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the loop's clock: for a loop, a jump is what a stop of its process is."""
    offset_s = 0.0

    def move(seconds: float) -> None:
        nonlocal offset_s
        loop = asyncio.get_running_loop()
        if not offset_s:
            time = loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + offset_s)
        offset_s += seconds

    return move


async def test_what_a_socket_holds_is_read_before_a_deadline_is_judged(
    jump: Callable[[float], None],
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        deadlines = Deadlines(5)
        async with deadlines.begin():
            reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 1))
            await asyncio.sleep(0)
            theirs.send(b"x")
            jump(1000)
            assert await reading == b"x"


async def test_a_deadline_counts_the_time_in_which_the_process_ran(
    jump: Callable[[float], None],
) -> None:
    turns, deadlines = 0, Deadlines(3)
    ended = deadlines.begin()
    async with ended:
        deadlines.end(ended)
    with pytest.raises(TimeoutError):
        async with deadlines.begin():
            for turns in range(50):
                jump(1 if turns % 5 else 1000)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
    assert 3 <= turns < 20
    assert not ended.expired()


async def test_a_post_under_way_while_the_process_stood_still_is_not_lost(
    jump: Callable[[float], None],
) -> None:
    arrived, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        arrived.set()
        await may_answer.wait()
        return web.json_response({"request_id": "r1"})

    async with serving(answer) as origin, Service(origin, "token") as service:
        posting = asyncio.ensure_future(service.submit("a/b", {}))
        await arrived.wait()
        jump(3600)
        await asyncio.sleep(0)
        may_answer.set()
        assert (await posting).meaning is Meaning.ACCEPTED
