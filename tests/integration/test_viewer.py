"""The live page's server: what it gives, to whom, and what it never gives."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from PIL import Image
from yarl import URL

from batch_runner.errors import StorageError
from batch_runner.ledger.job import Standing
from batch_runner.report.moment import Failure, Moment, Picture, RunSeen
from batch_runner.report.viewer import Copies, Viewer
from batch_runner.report.viewer import copies as copies_module

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
AT_WORK = RunSeen(
    run="4f1",
    pid=1,
    host="night",
    began_at=NOW,
    ended_at=None,
    stopped=None,
    is_at_work=True,
    is_draining=False,
    folder="/out",
)


class Opened:
    """A viewer on loopback with a folder of pictures, and a browser's bare means to ask it."""

    viewer: Viewer

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.session = session
        self.asked = 0
        self.runs_at_work = 1

    def on_stop(self) -> int:
        self.asked += 1
        return self.runs_at_work

    def moment(self, **changes: Any) -> Moment:
        folder = str(self.folder)
        values = {"at": NOW, "name": "spring", "model": "m", "output": folder}
        values["output_dir"] = folder
        return Moment(**{**values, **changes})

    def show(self, *pictures: Picture, **changes: Any) -> None:
        self.viewer.show(self.moment(**changes), pictures)

    def picture(self, number: int, path: str, **changes: Any) -> Picture:
        file = self.folder / path
        values = {
            "number": number,
            "at": NOW,
            "job": f"job {number}",
            "path": path,
            "media_type": "image/png",
            "size_bytes": file.stat().st_size if file.exists() else 3,
            "sha256": f"{number:064x}",
        }
        return Picture(**{**values, **changes})

    def draw(self, name: str, size: tuple[int, int] = (900, 600)) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(path)

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, Any]:
        url = URL(self.viewer.url + path, encoded=True)
        async with self.session.get(url, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.read(), answer.headers

    async def drain(self, **headers: str) -> tuple[int, str]:
        async with self.session.post(f"{self.viewer.url}drain", headers=headers) as answer:
            return answer.status, await answer.text()

    @asynccontextmanager
    async def events(self, **headers: str) -> AsyncIterator[Events]:
        async with self.session.get(f"{self.viewer.url}events", headers=headers) as answer:
            assert answer.content_type == "text/event-stream"
            yield Events(answer.content)


class Events:
    """Server-sent events, one after the other."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    async def next(self) -> tuple[str, Any, str]:
        while True:
            raw = await self._stream.readuntil(b"\n\n")
            fields = dict(line.split(": ", 1) for line in raw.decode().strip().split("\n"))
            if "event" in fields:
                return fields["event"], json.loads(fields["data"]), fields.get("id", "")

    async def until(self, name: str) -> tuple[Any, str]:
        while True:
            event, data, number = await self.next()
            if event == name:
                return data, number


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    folder = tmp_path / "out"
    folder.mkdir()
    async with aiohttp.ClientSession() as session:
        opened = Opened(folder, session)
        async with Viewer(opened.on_stop, host="127.0.0.1", port=0) as opened.viewer:
            yield opened


async def test_the_page_and_its_parts_are_there_with_strict_headers(opened: Opened) -> None:
    for name, media_type in (
        ("", "text/html"),
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        status, body, headers = await opened.get(name)
        assert status == 200
        assert body
        assert headers["Content-Type"].startswith(media_type)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    for word in (b"<script>", b"onclick", b"style=", b"innerHTML"):
        for name in ("", "page.js"):
            assert word not in (await opened.get(name))[1]


async def test_without_the_secret_there_is_nothing_and_every_wrong_address_looks_alike(
    opened: Opened,
) -> None:
    opened.draw("a.png")
    opened.show(opened.picture(1, "a.png"))
    origin = URL(opened.viewer.url).origin()
    seen = set()
    for path in ("", "page.js", "x/", "x/page.js", "x/events", "x/picture/1", "x/drain"):
        async with opened.session.get(f"{origin}/{path}") as answer:
            seen.add((answer.status, await answer.text()))
    async with opened.session.post(f"{origin}/x/drain") as answer:
        seen.add((answer.status, await answer.text()))
    assert seen == {(404, "404: Not Found\n")}
    assert opened.asked == 0


async def test_another_name_for_this_machine_is_refused_even_with_the_secret(
    opened: Opened,
) -> None:
    for host in ("evil.example", "localhost.evil.example", "192.168.1.5"):
        assert (await opened.get("", Host=host))[0] == 421
    for host in ("localhost", "localhost:9999", "127.0.0.1"):
        assert (await opened.get("", Host=host))[0] == 200


async def test_the_run_is_asked_to_stop_by_the_page_alone(opened: Opened) -> None:
    origin = str(URL(opened.viewer.url).origin())
    for wrong in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert (await opened.drain(Origin=wrong))[0] == 403
    assert (await opened.get("drain"))[0] == 404
    assert opened.asked == 0
    status, text = await opened.drain(Origin=origin)
    assert (status, opened.asked) == (200, 1)
    assert "collects what is paid for" in text
    opened.runs_at_work = 0
    assert await opened.drain() == (409, '{"message": "No run is at work."}')


async def test_a_request_that_cannot_be_left_is_said(tmp_path: Path) -> None:
    def on_stop() -> int:
        raise StorageError("/out: Read-only file system")

    async with (
        aiohttp.ClientSession() as session,
        Viewer(on_stop, host="127.0.0.1", port=0) as viewer,
        session.post(f"{viewer.url}drain") as answer,
    ):
        assert answer.status == 500
        assert "Read-only file system" in await answer.text()


async def test_saved_pictures_are_given_whole_small_and_in_parts(opened: Opened) -> None:
    opened.draw("sku-1/<b>.png")
    opened.show(opened.picture(7, "sku-1/<b>.png"))
    whole = (opened.folder / "sku-1/<b>.png").read_bytes()
    status, body, headers = await opened.get("picture/7")
    assert (status, body) == (200, whole)
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    status, body, headers = await opened.get("small/7")
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    assert len(body) < len(whole)
    assert (await opened.get("small/7"))[1] == body
    # A video is played in parts.
    assert (await opened.get("picture/7", Range="bytes=0-3"))[:2] == (206, whole[:4])


async def test_what_cannot_be_made_small_is_given_as_it_is(opened: Opened) -> None:
    (opened.folder / "clip.mp4").write_bytes(b"....ftypisom")
    opened.show(opened.picture(1, "clip.mp4", media_type="video/mp4"))
    status, body, headers = await opened.get("small/1")
    assert (status, body, headers["Content-Type"]) == (200, b"....ftypisom", "video/mp4")


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/pdf"])
async def test_what_is_no_picture_or_video_is_never_shown(opened: Opened, media_type: str) -> None:
    (opened.folder / "a.png").write_bytes(b"<script>alert(1)</script>")
    opened.show(opened.picture(1, "a.png", media_type=media_type))
    _, _, headers = await opened.get("picture/1")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "link.png", "linked/secret.png", "gone.png", "."]
)
async def test_nothing_outside_the_output_folder_is_given_whatever_the_ledger_says(
    opened: Opened, path: str
) -> None:
    secret = opened.folder.parent / "secret.png"
    secret.write_bytes(b"abc")
    (opened.folder / "link.png").symlink_to(secret)
    (opened.folder / "linked").symlink_to(opened.folder.parent)
    size = os.stat(path).st_size if path == "/etc/passwd" else 3  # noqa: PTH116
    opened.show(opened.picture(1, path, size_bytes=size))
    for kind in ("picture", "small"):
        assert (await opened.get(f"{kind}/1"))[0] == 404


async def test_what_is_in_a_bucket_is_given_as_it_was_saved_and_read_once(tmp_path: Path) -> None:
    read: list[str] = []
    told: list[str] = []

    def chunks(path: str) -> Iterator[bytes]:
        read.append(path)
        body = (tmp_path / path).read_bytes()
        yield body[:100]
        yield body[100:]

    async with AsyncExitStack() as stack:
        copies = stack.enter_context(Copies(chunks, told.append))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        opened = Opened(tmp_path, session)
        viewer = Viewer(opened.on_stop, host="127.0.0.1", port=0, copies=copies)
        opened.viewer = await stack.enter_async_context(viewer)
        for name in ("a.png", "other.png", "cut.png"):
            opened.draw(name)
        body = (tmp_path / "a.png").read_bytes()
        saved = {"sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}
        opened.show(
            opened.picture(1, "a.png", **saved),
            opened.picture(2, "other.png"),  # another one than was saved
            opened.picture(3, "gone.png"),
            opened.picture(4, "cut.png", sha256="a" * 64, size_bytes=99),
            opened.picture(5, "../a.png", sha256="b" * 64, size_bytes=len(body)),
            opened.picture(6, "a.png", sha256="../../a", size_bytes=len(body)),
            opened.picture(7, "a.png", sha256="c" * 64, size_bytes=10**9),
            output="s3://shop/out",
            output_dir=None,
        )
        asked = await asyncio.gather(*(opened.get(path) for path in ("picture/1", "small/1") * 3))
        assert {status for status, *_ in asked} == {200}
        assert asked[0][1] == body
        assert asked[1][2]["Content-Type"] == "image/webp"
        assert read == ["a.png"]
        assert (await opened.get("picture/1", Range="bytes=2-4"))[:2] == (206, body[2:5])
        for number in range(2, 8):
            assert (await opened.get(f"picture/{number}"))[0] == 404
        assert read == ["a.png", "other.png", "gone.png", "cut.png"]
        assert len(told) == 1
        assert told[0].startswith("cannot show pictures of the bucket: gone.png: ")
        folder = copies._folder.name
        assert os.listdir(folder) == [saved["sha256"]]  # noqa: PTH208 - no path of asyncio's
        assert os.stat(folder).st_mode & 0o77 == 0  # noqa: PTH116 - likewise
    with pytest.raises(FileNotFoundError):
        os.listdir(folder)  # noqa: PTH208 - likewise


async def test_copies_take_a_bounded_space_and_the_last_one_asked_for_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies_module, "_SPACE_LIMIT_BYTES", 25)
    bodies = {name: name.encode() * 10 for name in "abc"}
    pictures = {
        name: Picture(
            number=1,
            at=NOW,
            job=name,
            path=name,
            media_type="image/png",
            size_bytes=10,
            sha256=hashlib.sha256(body).hexdigest(),
        )
        for name, body in bodies.items()
    }
    with Copies(lambda path: iter([bodies[path]]), print) as copies:
        first, second = [await copies.find(pictures[name]) for name in "ab"]
        assert await copies.find(pictures["a"]) == first
        third = await copies.find(pictures["c"])
        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
        assert (await copies.find(pictures["b"])) == second


async def test_what_the_ledger_does_not_name_is_not_there(opened: Opened) -> None:
    opened.draw("a.png")
    opened.draw("b.png")
    opened.show(opened.picture(1, "a.png"), opened.picture(3, "b.png", size_bytes=1))
    for path in (
        "picture/2",
        "picture/3",
        "picture/a.png",
        "picture/..%2fb.png",
        "picture/../b.png",
        "a.png",
        "out/a.png",
        "ledger.jsonl",
        "server.py",
        "..%2fserver.py",
        "picture/%31%00",
    ):
        assert (await opened.get(path))[0] == 404, path


async def test_a_reader_is_told_everything_once_and_then_what_is_new(opened: Opened) -> None:
    opened.draw("a.png")
    pictures = [opened.picture(number, "a.png") for number in range(1, 4)]
    failure = Failure(at=NOW, job="<b>", state=Standing.FAILED, what="</script>\n\nevent: x")
    opened.show(*pictures[:2], failures=(failure,), jobs=9, runs=(AT_WORK,))
    async with opened.events() as events:
        told = [await events.next() for _ in range(5)]
        assert [name for name, _, _ in told] == [
            "reset",
            "picture",
            "picture",
            "failures",
            "moment",
        ]
        assert told[3][1][0]["what"] == failure.what
        assert told[4][1]["jobs"] == 9
        opened.show(*pictures, failures=(failure,), jobs=9, runs=(AT_WORK,))
        name, data, number = await events.next()
        assert (name, data["number"]) == ("picture", 3)
    async with opened.events(**{"Last-Event-ID": told[1][2]}) as events:
        # It was away after the first: it is told of the second and third, and not to begin anew.
        again = [await events.next() for _ in range(2)]
        assert [(name, data["number"]) for name, data, _ in again] == [
            ("picture", 2),
            ("picture", 3),
        ]
    async with opened.events(**{"Last-Event-ID": number}) as events:
        assert (await events.next())[0] == "failures"


async def test_a_ledger_that_was_replaced_begins_the_page_anew(opened: Opened) -> None:
    opened.draw("a.png")
    opened.show(opened.picture(1, "a.png"))
    async with opened.events() as events:
        await events.until("moment")
        opened.show(opened.picture(2, "a.png"), generation=1)
        assert (await events.next())[0] == "reset"
        data, number = await events.until("picture")
        assert data["number"] == 2
    for stale in ("x.0.9", "9", "", number.replace(".1.", ".0.")):
        async with opened.events(**{"Last-Event-ID": stale}) as events:
            assert (await events.next())[0] == "reset"


async def test_of_a_long_night_the_page_begins_with_the_last_pictures(opened: Opened) -> None:
    opened.show(*(opened.picture(number, "a.png") for number in range(1, 301)))
    async with opened.events() as events:
        assert (await events.until("picture"))[0]["number"] == 241


async def test_when_nothing_changes_nothing_is_said(opened: Opened) -> None:
    opened.show()
    async with opened.events() as events:
        await events.until("moment")
        later = msgspec.structs.replace(opened.moment(), at=NOW.replace(hour=13))
        opened.viewer.show(later, ())
        opened.show(done=1)
        assert (await events.next())[1]["done"] == 1


async def test_more_readers_than_a_page_has_are_turned_away(opened: Opened) -> None:
    opened.show()
    async with AsyncExitStack() as stack:
        for _ in range(32):
            events = await stack.enter_async_context(opened.events())
            await events.until("moment")
        assert (await opened.get("events"))[0] == 503


async def test_a_reader_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with Viewer(lambda: 0, host="127.0.0.1", port=0) as viewer:
            answer = await session.get(f"{viewer.url}events")
            viewer.show(Opened(tmp_path, session).moment(), ())
            await Events(answer.content).until("moment")
        assert await answer.content.read() == b""  # it was told that this is the end
