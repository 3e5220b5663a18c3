"""The served page: what it gives, to whom, and what it never gives."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fabricated import NOBODY, START, Content, fabricate, picture
from yarl import URL

from batch_runner.errors import StorageError
from batch_runner.ledger.reading import ledger_path
from batch_runner.ledger.verdict import Checked, Result
from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Failed, Job, LedgerHeader, Saved, SavedFile, Submitting, encode
from batch_runner.report.feed import Feed
from batch_runner.report.pictures import Copies
from batch_runner.report.remote import Remote
from batch_runner.report.server import Server, is_own_host
from batch_runner.report.text import About, Advice
from batch_runner.run.batch import Batch, RunOptions

TEXT = """\
version: 1
model: google/nano-banana-2/edit
prompts: {white: white, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
output: {dir: out}
"""
LARGE = picture("large", (1400, 900), "PNG") + bytes(30_000)


ABOUT = About(
    manifest="batch.yaml",
    program="p",
    only=None,
    advice=Advice(run="run", resolve="resolve", view="view", export="export", is_sandbox=False),
)


class Opened:
    """A batch whose page is served on loopback, and a browser's bare means to ask for it."""

    server: Server
    feed: Feed

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.path = folder / "batch.yaml"
        self.output = folder / "out"
        self.session = session

    def batch(self) -> Batch:
        return Batch(load_manifest(self.path), RunOptions(api_base=NOBODY, token="any"))

    def job(self, key: str) -> Job:
        return next(job for job in self.batch().jobs() if job.key == key)

    def append(self, *records: Any) -> None:
        with ledger_path(self.output).open("ab") as file:
            file.writelines(encode(record) for record in records)

    def save(self, key: str, path: str, data: bytes = LARGE, **changes: Any) -> None:
        """Record a saved file, whether it is there or not."""
        job = self.job(key)
        values: dict[str, Any] = {
            "path": path,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(path.encode()).hexdigest(),
            "media_type": "image/png",
        }
        file = SavedFile(**{**values, **changes})
        self.append(Saved(at=START, job=key, fingerprint=job.fingerprint, files=[file]))

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, Any]:
        url = URL(self.server.url.removesuffix("report/") + path, encoded=True)
        async with self.session.get(url, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.read(), answer.headers

    async def post(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.post(f"{self.server.url}{path}", headers=headers) as answer:
            return answer.status, await answer.text()

    async def page(self) -> dict[str, Any]:
        """Load the page, and return the data of its index."""
        html = (await self.get("report/"))[1].decode()
        script = html.partition('src="data/')[2].partition('"')[0]
        data = (await self.get(f"report/data/{script}"))[1].decode()
        found: dict[str, Any] = json.loads(data.removeprefix("batchReport.index(")[:-3])
        return found

    @asynccontextmanager
    async def events(self, since: int, **headers: str) -> AsyncIterator[Events]:
        url = f"{self.server.url}events?since={since}"
        async with self.session.get(url, headers=headers) as answer:
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
                return fields["event"], json.loads(fields["data"]), fields["id"]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    """One job is done, three are pending; the lamp's file is larger than any copy."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        opened = Opened(tmp_path, session)
        opened.path.write_text(TEXT, encoding="utf-8")
        fabricate(
            opened.path, lambda job: "done" if job.key == "mug/white" else "pending", large_png
        )
        await serve(opened, stack)
        yield opened


def large_png(_: Job, __: int) -> Content:
    return LARGE, ".png", "image/png"


async def serve(opened: Opened, stack: AsyncExitStack) -> None:
    remote = Remote(opened.batch(), print)
    folder = opened.path.parent / "page"
    folder.mkdir()
    opened.feed = Feed(opened.batch, ABOUT, folder, Copies(opened.output / "report", remote))
    await opened.feed.look()
    opened.server = Server(opened.feed, host="127.0.0.1", port=0)
    await stack.enter_async_context(opened.server)


async def test_the_page_and_its_parts_have_strict_headers(opened: Opened) -> None:
    data = await opened.page()
    parts = [
        "",
        "base.js",
        "head.js",
        "gallery.js",
        "large.js",
        "review.js",
        "report.css",
        "icon.svg",
    ]
    for name in [*parts, f"data/{data['chunks'][0]}"]:
        status, body, headers = await opened.get(f"report/{name}")
        assert (status, bool(body)) == (200, True), name
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        for word in (b"<script>", b" onclick=", b" style=", b"innerHTML"):
            assert word not in body


async def test_without_the_secret_every_address_gives_the_same(opened: Opened) -> None:
    await opened.page()
    origin = URL(opened.server.url).origin()
    seen = set()
    for path in ("", "base.js", "x/", "x/report/", "x/report/events", "x/mug/white.png"):
        async with opened.session.get(f"{origin}/{path}", allow_redirects=False) as answer:
            seen.add((answer.status, await answer.text()))
    async with opened.session.post(f"{origin}/x/report/drain") as answer:
        seen.add((answer.status, await answer.text()))
    assert seen == {(404, "404: Not Found\n")}


async def test_another_name_for_this_machine_is_refused_even_with_the_secret(
    opened: Opened,
) -> None:
    for host in ("evil.example", "localhost.evil.example", "192.168.1.5"):
        assert (await opened.get("report/", Host=host))[0] == 421
    for host in ("localhost", "localhost:9999", "127.0.0.1"):
        assert (await opened.get("report/", Host=host))[0] == 200


async def test_only_the_page_itself_can_stop_the_run(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def stop() -> int:
        asked.append(1)
        if len(asked) == 3:
            raise StorageError("/out: Read-only file system")
        return 2 - len(asked)

    monkeypatch.setattr(opened.feed, "stop_runs", stop)
    origin = str(URL(opened.server.url).origin())
    for wrong in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert (await opened.post("drain", Origin=wrong))[0] == 403
    assert (await opened.get("report/drain"))[0] == 404
    assert not asked
    status, text = await opened.post("drain", Origin=origin)
    assert (status, len(asked)) == (200, 1)
    assert "collects what is paid for" in text
    assert await opened.post("drain") == (409, '{"message": "No run is at work."}')
    status, text = await opened.post("drain")
    assert status == 500
    assert "Read-only file system" in text


async def test_files_are_given_whole_small_and_in_parts(opened: Opened) -> None:
    await opened.page()
    status, body, headers = await opened.get("mug/white.png")
    assert (status, body, headers["Content-Type"]) == (200, LARGE, "image/png")
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    digest = hashlib.sha256(LARGE).hexdigest()
    small = (await opened.get(f"report/thumbs/{digest[:32]}.webp"))[1]
    assert len(small) < len(LARGE)
    assert (opened.output / f"report/thumbs/{digest[:32]}.webp").read_bytes() == small
    # A video is played in parts.
    assert (await opened.get("mug/white.png", Range="bytes=0-3"))[:2] == (206, LARGE[:4])


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/pdf"])
async def test_what_is_no_picture_or_video_is_never_shown(opened: Opened, media_type: str) -> None:
    (opened.output / "a.png").write_bytes(b"<script>alert(1)</script>")
    opened.save("lamp/white", "a.png", b"<script>alert(1)</script>", media_type=media_type)
    await opened.feed.look()
    await opened.page()
    _, _, headers = await opened.get("a.png")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "link.png", "linked/secret.png", "gone.png", "."]
)
async def test_nothing_outside_the_output_folder_is_given_whatever_the_ledger_says(
    opened: Opened, path: str
) -> None:
    secret = opened.output.parent / "secret.png"
    secret.write_bytes(b"abc")
    (opened.output / "link.png").symlink_to(secret)
    (opened.output / "linked").symlink_to(opened.output.parent)
    size = os.stat(path).st_size if path == "/etc/passwd" else 3  # noqa: PTH116
    opened.save("lamp/white", path, size_bytes=size)
    await opened.feed.look()
    await opened.page()
    for asked in (path, path.replace("/", "%2f"), path.replace("..", "%2e%2e")):
        assert (await opened.get(asked))[0] in (404, 421)


async def test_what_the_ledger_does_not_name_is_not_there(opened: Opened) -> None:
    (opened.output / "b.png").write_bytes(LARGE)
    await opened.page()
    for path in (
        "b.png",
        "ledger.jsonl",
        "report/../ledger.jsonl",
        "report/..%2fledger.jsonl",
        "report/data/..%2f..%2fbatch.yaml",
        "report/%2fetc%2fpasswd",
        "report/thumbs/x.jpg",
        "report/server.py",
    ):
        assert (await opened.get(path))[0] == 404, path


async def test_a_reader_gets_what_changed_since_its_page_was_written(opened: Opened) -> None:
    data = await opened.page()
    assert data["head"]["moment"]["done"] == 1
    since = data["head"]["revision"]
    async with opened.events(since) as events:
        opened.save("lamp/white", "a.png")
        await opened.feed.look()
        name, cards, number = await events.next()
        assert (name, [job for job, _ in cards]) == ("jobs", [2])
        assert cards[0][1]["state"] == "done"
        name, moment, _ = await events.next()
        assert (name, moment["done"]) == ("moment", 2)
        await opened.feed.look()  # nothing changed, so nothing is sent
        opened.append(*failed(opened.job("lamp/sepia")))
        await opened.feed.look()
        name, cards, number = await events.next()
        assert (name, cards[0][1]["reason"]) == ("jobs", "content refused")
    async with opened.events(since, **{"Last-Event-ID": number}) as events:
        await events_are(opened, events, "lamp/white", done=2)
    # Whoever was away from the start is sent both; a page that is older must load again.
    async with opened.events(since) as events:
        assert [job for job, _ in (await events.next())[1]] == [2, 3]
    assert (await opened.page())["head"]["moment"]["failed"] == 1
    async with opened.events(since) as events:
        assert (await events.next())[0] == "reload"


async def events_are(opened: Opened, events: Events, key: str, *, done: int) -> None:
    """After a reader has seen all, only a new record is news."""
    opened.save(key, "b.png")
    await opened.feed.look()
    assert (await events.next())[0] == "jobs"
    assert opened.feed.events_since(10**6)[1][0].startswith(b"id: ")


def failed(job: Job) -> tuple[Submitting, Failed]:
    about: dict[str, Any] = {"at": START, "job": job.key, "fingerprint": job.fingerprint}
    message = "</script>\n\nevent: x"
    return (
        Submitting(
            **about,
            model=job.model,
            input=job.input,
            path=job.path,
            attempt=1,
            reserved_usd=Decimal(1),
        ),
        Failed(**about, request_id="r", reason="content refused", message=message),
    )


async def judge(opened: Opened, **said: Any) -> tuple[int, str]:
    url = f"{opened.server.url}verdicts"
    async with opened.session.post(url, json=[said]) as answer:
        return answer.status, (await answer.json())["message"]


async def test_a_verdict_is_on_the_disk_when_it_is_answered_and_reaches_other_readers(
    opened: Opened,
) -> None:
    since = (await opened.page())["head"]["revision"]
    sha256 = hashlib.sha256(LARGE).hexdigest()
    async with opened.events(since) as events:
        said = {"job": 0, "sha256": sha256, "word": "rejected", "reason": "colour"}
        assert await judge(opened, **said) == (200, "")
        (found,) = Book(opened.output).verdicts().people.values()
        assert (found.job, found.word, found.reason) == ("mug/white", "rejected", "colour")
        await opened.feed.look()
        name, cards, _ = await events.next()
        assert (name, cards[0][0], cards[0][1]["said"][0]["word"]) == ("jobs", 0, "rejected")
    for wrong, status in (
        ({"job": 0, "sha256": "0" * 64, "word": "accepted"}, 409),
        ({"job": 99, "sha256": sha256, "word": "accepted"}, 409),
        ({"job": 0, "sha256": sha256, "word": "lovely"}, 400),
    ):
        assert (await judge(opened, **wrong))[0] == status
    assert len(list(Book(opened.output).read())) == 2


async def test_a_redo_keeps_the_old_picture_until_there_is_a_new_one_and_then_shows_both(
    opened: Opened,
) -> None:
    since = (await opened.page())["head"]["revision"]
    sha256 = hashlib.sha256(LARGE).hexdigest()
    async with opened.events(since) as events:
        said = {"job": 0, "sha256": sha256, "word": "redo", "note": "lighter"}
        assert await judge(opened, **said) == (200, "")
        await opened.feed.look()
        _, cards, _ = await events.next()
        assert cards[0][1]["state"] == "pending"
        assert cards[0][1]["said"][0]["word"] == "redo"
        assert [one["sha256"] for one in cards[0][1]["outputs"]] == [sha256]
        (opened.output / "new.png").write_bytes(LARGE)
        opened.save("mug/white", "new.png")
        await opened.feed.look()
        card: dict[str, Any] = {"state": ""}
        while card["state"] != "done":
            name, cards, _ = await events.next()
            card = cards[0][1] if name == "jobs" else card
        assert card["outputs"][0]["full"] == "../new.png"
        assert [one["sha256"] for one in card["previous"]] == [sha256]
        assert (card["said"], card["redone"]) == ([None], 1)
    data = await opened.page()
    assert (data["redone"][0], data["word"][0]) == (1, [""])


async def test_failed_checks_are_counted_for_each_job(opened: Opened) -> None:
    job, sha256 = opened.job("mug/white"), hashlib.sha256(LARGE).hexdigest()
    about: dict[str, Any] = {"at": START, "job": job.key, "fingerprint": job.fingerprint}
    checks = [("white", Result.FAIL), ("size", Result.PASS), ("fill", Result.UNMEASURABLE)]
    Book(opened.output).append(
        [
            Checked(**about, sha256=sha256, check=name, version=1, result=result, measured=254)
            for name, result in checks
        ]
    )
    await opened.feed.look()
    data = await opened.page()
    assert data["failing"] == [1, 0, 0, 0]
    chunk = (await opened.get(f"report/data/{data['chunks'][0]}"))[1].decode()
    cards = json.loads(chunk.removeprefix("batchReport.jobs(0,")[:-3])
    assert [(one["check"], one["result"]) for one in cards[0]["checks"]] == [
        ("white", "fail"),
        ("fill", "unmeasurable"),
    ]


async def test_a_ledger_that_was_replaced_loads_the_page_again(opened: Opened) -> None:
    since = (await opened.page())["head"]["revision"]
    ledger = ledger_path(opened.output)
    ledger.unlink()
    ledger.write_bytes(encode(LedgerHeader(version=1, at=START, program="p", service="local")))
    await opened.feed.look()
    async with opened.events(since) as events:
        assert (await events.next())[0] == "reload"
    assert (await opened.page())["head"]["moment"]["done"] == 0


async def test_readers_do_not_hold_up_the_end(opened: Opened) -> None:
    since = (await opened.page())["head"]["revision"]
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(opened.events(since))
        await opened.server.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "header",
    ["127.0.0.1:8643", "127.0.0.1", "localhost:8643", "LOCALHOST", "[::1]:8643", "127.1.2.3:1"],
)
def test_this_machine_by_number_or_as_localhost_is_itself_whatever_the_port(header: str) -> None:
    assert is_own_host(header, (), loopback_only=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "evil.example",
        "evil.example:8643",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example/127.0.0.1",
        "evil.example\\@localhost",
        "[::1",
        "192.168.1.5:8643",
        "night:8643",
        "2130706433",
    ],
)
def test_any_other_name_is_not_this_machine(header: str | None) -> None:
    assert not is_own_host(header, (), loopback_only=True)


def test_a_page_for_others_goes_by_its_numbers_and_its_own_names() -> None:
    names = ("night", "night.local")
    for header in ("192.168.1.5:8643", "[fe80::1]:8643", "night:1", "Night.Local", "localhost"):
        assert is_own_host(header, names, loopback_only=False)
    assert not is_own_host("evil.example", names, loopback_only=False)
