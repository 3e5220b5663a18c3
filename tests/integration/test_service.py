from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from loopback import Connected, listening, read_request, serving

from batch_runner.service import transport
from batch_runner.service.answer import Meaning
from batch_runner.service.call import Service

TOKEN = "hunter2-hunter2-hunter2"


@asynccontextmanager
async def answering(status: int, body: Any, **headers: str) -> AsyncIterator[Service]:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        yield service


# What is sent


async def test_calls_go_to_their_paths_with_the_token_and_the_body() -> None:
    seen: list[tuple[str, str, str | None, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        seen.append((request.method, request.raw_path, request.headers.get("Authorization"), body))
        return web.json_response({"request_id": "r1", "status": "in_queue", "outcome": "cancelled"})

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        assert service.is_local
        assert (await service.submit("a/b", {"prompt": "é"})).request_id == "r1"
        assert (await service.result("r1")).meaning is Meaning.WAITING
        verdict, outcome = await service.cancel("r1")
        assert (verdict.meaning, outcome) == (Meaning.OK, "cancelled")
        verdict, entry = await service.model("a/b")
        assert entry is not None
        assert await service.balance_usd() is None
    bearer = f"Bearer {TOKEN}"
    assert seen == [
        ("POST", "/v1/models/a/b", bearer, {"prompt": "é"}),
        ("GET", "/v1/requests/r1/result?include_cost=true", bearer, None),
        ("POST", "/v1/requests/r1/cancel", bearer, None),
        ("GET", "/v1/models/a/b", bearer, None),
        ("GET", "/prod/v2/balance", bearer, None),
    ]


async def test_a_service_without_a_token_is_called_without_one() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"balance_usd": 1.5, "headers": list(request.headers)})

    async with serving(handler) as origin, Service(origin, None) as service:
        _, entry = await service.model("m")
        assert entry is not None
        assert "Authorization" not in entry["headers"]
        assert await service.balance_usd() == Decimal("1.5")


@pytest.mark.parametrize(
    "model_id", ["a/b c", "a/b?c=d", "a/b#c", "a/%2e%2e/b", "a/ü", "a/b&c", "a\\b", "a/b;c"]
)
async def test_a_model_id_with_odd_characters_stays_one_path(model_id: str) -> None:
    seen: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, request.query_string))
        return web.json_response({"request_id": "r1"})

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        await service.submit(model_id, {})
        await service.model(model_id)
    assert seen == [(f"/v1/models/{model_id}", "")] * 2


@pytest.mark.parametrize("request_id", ["../balance", "a/b", "", "a?b", "x" * 129])
async def test_nothing_but_a_request_id_goes_into_a_path(request_id: str) -> None:
    async with answering(200, {}) as service:
        with pytest.raises(ValueError, match="not a request_id"):
            await service.result(request_id)
        with pytest.raises(ValueError, match="not a request_id"):
            await service.cancel(request_id)


async def test_outside_its_block_the_service_is_not_called() -> None:
    service = Service("http://127.0.0.1", TOKEN)
    for call in (service.submit("m", {}), service.result("r1")):
        with pytest.raises(RuntimeError, match="async with"):
            await call
    await service.__aexit__(None, None, None)


# Answers


async def test_an_answer_is_read_with_its_status_code_and_retry_after() -> None:
    async with answering(429, {"code": 429001}, **{"Retry-After": "7"}) as service:
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.retry_after_s) == (Meaning.THROTTLED, 7.0)


async def test_an_unknown_model_has_no_entry() -> None:
    async with answering(404, {"code": 404001, "message": "no such model"}) as service:
        verdict, entry = await service.model("m")
    assert (verdict.meaning, entry) == (Meaning.GONE, None)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"\xff\xfe", b"[" * 200_000, b'"\\ud800"', b'{"request_id":"r1"']
)
async def test_a_body_that_is_not_json_leaves_a_post_unknown(body: bytes) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        assert (await service.submit("m", {})).meaning is Meaning.UNKNOWN
        assert (await service.result("r1")).meaning is Meaning.TRANSIENT
        assert await service.balance_usd() is None
        verdict, outcome = await service.cancel("r1")
        assert (verdict.meaning, outcome) == (Meaning.TRANSIENT, None)


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_an_endless_body_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, is_compressed: bool
) -> None:
    monkeypatch.setattr(transport, "_ANSWER_LIMIT_BYTES", 100_000)
    cut_off = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if is_compressed:
            response.headers["Content-Encoding"] = "gzip"
        response.enable_chunked_encoding()
        await response.prepare(request)
        chunk = gzip.compress(b" " * 5_000_000) if is_compressed else b" " * 50_000
        try:
            while True:
                await response.write(chunk)
        except ConnectionError:
            cut_off.set()
        return response

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        assert (await service.submit("m", {})).meaning is Meaning.UNKNOWN
        await asyncio.wait_for(cut_off.wait(), timeout=120)


# Not sent


async def test_a_refused_connection_means_not_sent() -> None:
    async with listening(lambda _, __: asyncio.sleep(0)) as origin:
        pass  # now nobody listens there
    async with Service(origin, TOKEN) as service:
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "not reachable")


async def test_a_name_that_does_not_resolve_means_not_sent() -> None:
    async with Service("https://does-not-exist.invalid", TOKEN) as service:
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "not reachable")


async def test_a_name_that_takes_too_long_to_resolve_means_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(transport, "_CONNECT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(transport, "_CALL_TIMEOUT_S", 5.0)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    async with Service("https://slow.example", TOKEN) as service:
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "not reachable")


async def test_tls_that_fails_means_not_sent() -> None:
    async with (
        answering(200, {"request_id": "r1"}) as plain,
        Service(plain.origin.replace("http:", "https:"), TOKEN) as service,
    ):
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "not reachable")


async def test_a_connection_that_takes_too_long_means_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_CONNECT_TIMEOUT_S", 0.05)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()  # never a word of TLS

    async with (
        listening(silent) as origin,
        Service(origin.replace("http:", "https:"), TOKEN) as service,
    ):
        verdict = await service.submit("m", {})
    assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "not reachable")


# Lost


async def close_at_once(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def close_midway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"request_id":"r1"}')
    await writer.drain()


async def close_in_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"220 smtp.example ready\r\n\r\n")
    await writer.drain()


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


async def stop_talking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
    await reader.read()


@pytest.mark.parametrize(
    "connected",
    [
        close_at_once,
        close_midway,
        close_in_the_head,
        reset,
        talk_nonsense,
        say_nothing,
        stop_talking,
    ],
)
async def test_an_answer_that_does_not_come_whole_leaves_a_post_unknown(
    monkeypatch: pytest.MonkeyPatch, connected: Connected
) -> None:
    monkeypatch.setattr(transport, "_CALL_TIMEOUT_S", 0.3)
    posts: list[int] = []

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        posts.append(1)
        await connected(reader, writer)

    async with listening(counted) as origin, Service(origin, TOKEN) as service:
        verdict = await service.submit("m", {})
        assert (verdict.meaning, verdict.reason) == (Meaning.UNKNOWN, "answer lost")
        assert len(posts) == 1, "nobody sent it a second time"
        verdict = await service.result("r1")
        assert (verdict.meaning, verdict.reason) == (Meaning.TRANSIENT, "answer lost")


async def hang_up_when_used_again(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Promise to keep the connection, and close it when it is used again."""
    await read_request(reader)
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"request_id":"r1"}')
    await writer.drain()
    await read_request(reader)


async def test_a_post_uses_no_connection_that_was_idle_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_SUBMIT_KEEPALIVE_S", 0.0)
    async with listening(hang_up_when_used_again) as origin, Service(origin, TOKEN) as service:
        await service.result("r1")
        for _ in range(3):
            assert (await service.submit("m", {})).meaning is Meaning.ACCEPTED


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "408 Too Slow", "429 Wait"])
async def test_a_surplus_answer_is_never_taken_for_that_of_the_next_post(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_SUBMIT_KEEPALIVE_S", 60.0)
    posts, may_stray = 0, asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        while True:
            await read_request(reader)
            posts += 1
            body = b'{"request_id":"r%d"}' % posts
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            if posts == 1:
                await may_stray.wait()
                stray = b'{"request_id":"stray"}'
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(stray)}\r\n\r\n".encode())
                writer.write(stray)

    async with listening(connected) as origin, Service(origin, TOKEN) as service:
        assert (await service.submit("a/b", {})).request_id == "r1"
        assert service._transport is not None
        assert service._transport._submits._session.connector is not None
        ((kept, _),) = next(iter(service._transport._submits._session.connector._conns.values()))
        may_stray.set()
        while not kept.should_close:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0)
        assert [(await service.submit("a/b", {})).request_id for _ in range(2)] == ["r2", "r3"]
    assert posts == 3


async def test_after_a_service_has_hung_up_on_one_post_each_takes_a_new_connection() -> None:
    async with listening(hang_up_when_used_again) as origin, Service(origin, TOKEN) as service:
        meanings = [(await service.submit("m", {})).meaning for _ in range(6)]
    assert meanings == [Meaning.ACCEPTED, Meaning.UNKNOWN, *[Meaning.ACCEPTED] * 4]


# Trust


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed_and_the_token_is_not_sent_on(status: int) -> None:
    elsewhere_seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        elsewhere_seen.append(str(request.headers))
        return web.json_response({"request_id": "r1", "balance_usd": 1})

    async with (
        serving(elsewhere) as evil,
        answering(status, {}, Location=f"{evil}/x") as service,
    ):
        assert (await service.submit("m", {})).meaning is Meaning.UNKNOWN
        assert (await service.result("r1")).meaning is Meaning.TRANSIENT
        assert await service.balance_usd() is None
    assert not elsewhere_seen


async def test_the_token_is_in_no_log_no_message_and_no_representation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    async def echo(request: web.Request) -> web.Response:
        message = f"this token is not valid: {request.headers['Authorization']}"
        return web.json_response({"code": 400004, "message": message}, status=401)

    async with serving(echo) as origin, Service(origin, TOKEN) as service:
        refused = await service.submit("m", {})
        assert refused.message == "this token is not valid: Bearer (token)"
        shown += [repr(refused), repr(await service.result("r1")), repr(await service.model("m"))]
    for connected in (close_at_once, talk_nonsense, close_midway):
        async with listening(connected) as origin, Service(origin, f" {TOKEN}\n") as service:
            shown += [repr(await service.submit("m", {})), repr(service), str(vars(service).keys())]
    async with Service(origin, TOKEN) as service:
        shown.append(repr(await service.submit("m", {})))
    assert TOKEN not in json.dumps(shown)
    assert TOKEN not in caplog.text


async def test_cookies_are_not_kept() -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.json_response({}, headers={"Set-Cookie": "session=1"})

    async with serving(handler) as origin, Service(origin, TOKEN) as service:
        await service.model("m")
        await service.model("m")
    assert seen == [None, None]
