from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiofiles.threadpool.binary
import pytest
from aiohttp import web
from loopback import Connected, listening, read_request, serving
from PIL import Image

from batch_runner.errors import StorageError
from batch_runner.files import disk
from batch_runner.files import download as download_module
from batch_runner.files.download import DownloadError, Downloads
from batch_runner.files.folder_storage import FolderStorage, file_sha256
from batch_runner.files.media import is_whole, is_whole_file, recognise
from batch_runner.files.storage import NotSavedError, Whole
from batch_runner.records import SavedFile
from batch_runner.text.path import superseded_path

FORMATS = {
    "PNG": ("image/png", ".png"),
    "JPEG": ("image/jpeg", ".jpg"),
    "WEBP": ("image/webp", ".webp"),
    "GIF": ("image/gif", ".gif"),
    "TIFF": ("image/tiff", ".tif"),
    "AVIF": ("image/avif", ".avif"),
}


def picture(kind: str = "PNG", side_px: int = 40, **options: Any) -> bytes:
    """Draw a picture that does not compress well."""
    file = io.BytesIO()
    noise = Image.effect_noise((side_px, side_px), 100).convert("RGB")
    noise.save(file, kind, **options)
    return file.getvalue()


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


SMALL = picture()
LARGE = picture(side_px=800)
assert len(LARGE) > 1024 * 1024
BOTH = pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def storage(folder: Path) -> FolderStorage:
    return FolderStorage(folder)


@pytest.fixture
async def downloads(storage: FolderStorage) -> AsyncIterator[Downloads]:
    async with Downloads(storage, allow_loopback=True) as opened:
        yield opened


@asynccontextmanager
async def sending(body: bytes, status: int = 200, **headers: str) -> AsyncIterator[str]:
    async def handler(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers=named)

    async with serving(handler) as origin:
        yield f"{origin}/a"


# Whole files


@BOTH
async def test_a_file_is_saved_under_its_name_with_the_extension_of_its_content(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    async with sending(body, Content_Type="text/plain") as url:
        saved = await downloads.fetch(url, "sku/white")
    assert saved == SavedFile(
        path="sku/white.png", size_bytes=len(body), sha256=digest(body), media_type="image/png"
    )
    assert (folder / "sku/white.png").read_bytes() == body
    assert names_in(folder) == ["sku/white.png"]
    assert FolderStorage(folder).is_in_place(saved.path, saved, thorough=True)


@pytest.mark.parametrize("kind", FORMATS)
async def test_every_format_is_recognised_and_whole(
    downloads: Downloads, folder: Path, kind: str
) -> None:
    async with sending(picture(kind)) as url:
        saved = await downloads.fetch(url, "a")
    assert (saved.media_type, saved.path) == (FORMATS[kind][0], f"a{FORMATS[kind][1]}")


@BOTH
async def test_a_chunked_body_without_a_length_is_saved(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for place in range(0, len(body), 100_000):
            await response.write(body[place : place + 100_000])
        return response

    async with serving(handler) as origin:
        await downloads.fetch(origin, "a")
    assert (folder / "a.png").read_bytes() == body


@BOTH
async def test_nothing_stands_under_the_final_name_before_the_file_is_whole(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    seen: list[list[str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for place in range(0, len(body), len(body) // 4):
            await response.write(body[place : place + len(body) // 4])
            seen.append(names_in(folder))
        return response

    async with serving(handler) as origin:
        await downloads.fetch(origin, "a")
    assert {name for names in seen for name in names} <= {".a.png.part"}
    assert names_in(folder) == ["a.png"]


@BOTH
async def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(
    downloads: Downloads, folder: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[str]]] = []

    def note(descriptor: int) -> None:
        here = os.fstat(descriptor)
        (place,) = [
            path for path in (folder, *folder.iterdir()) if os.path.samestat(path.stat(), here)
        ]
        synced.append((place.name, names_in(folder)))

    monkeypatch.setattr(disk, "sync_data", note)
    monkeypatch.setattr(os, "fsync", note)
    async with sending(body) as url:
        await downloads.fetch(url, "a")
    assert synced == [(".a.png.part", [".a.png.part"]), ("out", ["a.png"])]


# What is refused


@pytest.mark.parametrize("status", [204, 206, 400, 403, 404, 410, 429, 500, 503])
async def test_any_other_status_is_no_file(downloads: Downloads, folder: Path, status: int) -> None:
    async with sending(SMALL, status) as url:
        with pytest.raises(DownloadError, match=f"HTTP {status}"):
            await downloads.fetch(url, "a")
    assert names_in(folder.parent) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Sign in</title>",
        b'{"error": "expired"}',
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>" + b" " * 2_000_000,
        b"\x89PNG",
    ],
    ids=["empty", "page", "JSON", "SVG", "large page", "beginning"],
)
async def test_what_is_no_picture_is_refused_whatever_it_is_called(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    async with sending(body, Content_Type="image/png") as url:
        with pytest.raises(DownloadError, match="neither a picture nor a video"):
            await downloads.fetch(f"{url}.png", "a")
    assert names_in(folder.parent) == []


@pytest.mark.parametrize(
    ("body", "media_type", "name", "saved_as"),
    [
        (b"glTF\2\0\0\0\x0c\0\0\0", "model/gltf-binary", "a", (".glb", "model/gltf-binary")),
        (b"glTF\2\0\0\0\x0c\0\0\0", "", "a.GLB", (".glb", "model/gltf-binary")),
        (b"<svg></svg>", "image/svg+xml; charset=utf-8", "a", (".svg", "image/svg+xml")),
        (b"BM\0\0", "image/bmp", "a.bmp", (".bmp", "image/bmp")),
        (b"MThd", "audio/midi", "a.mid", (".mid", "audio/midi")),
        (b"PK\x03\x04 PK\x05\x06", "application/zip", "a", (".zip", "application/zip")),
        (b"glTF\2\0\0\0\x0d\0\0\0", "model/gltf-binary", "a", None),
        (b"PK\x03\x04", "application/zip", "a", None),
        (b"BM\0\0", "image/bmp", "a", None),
        (b"BM\0\0", "image/x-ms-bmp", "a.png", None),
        (b"\0\0\0\0", "audio/mpeg", "a.mp3", None),
        (b"<html>", "text/html", "a.svg", None),
        (b"{}", "application/json", "a.glb", None),
    ],
)
async def test_a_kind_that_content_does_not_show_goes_by_its_name(
    downloads: Downloads,
    folder: Path,
    body: bytes,
    media_type: str,
    name: str,
    saved_as: tuple[str, str] | None,
) -> None:
    named: dict[str, Any] = {"Content_Type": media_type} if media_type else {}
    async with sending(body, **named) as url:
        address = url.removesuffix("a") + name
        if saved_as is None:
            with pytest.raises(DownloadError):
                await downloads.fetch(address, "x")
            assert names_in(folder) == []
            return
        saved = await downloads.fetch(address, "x")
    assert (saved.path, saved.media_type) == (f"x{saved_as[0]}", saved_as[1])


# Inline


def inline(body: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(body).decode()}"


@pytest.mark.parametrize(
    "url",
    [
        inline(SMALL),
        inline(SMALL).rstrip("="),
        inline(SMALL, "").replace("+", "-").replace("/", "_"),
        inline(SMALL, "text/plain;charset=utf-8"),
        inline(SMALL).upper().replace(inline(SMALL)[22:].upper(), inline(SMALL)[22:]),
        inline(SMALL)[:40] + "\n" + inline(SMALL)[40:],
        f"data:image/png;base64,{quote(base64.b64encode(SMALL))}",
        f"data:image/png,{quote(SMALL)}",
    ],
    ids=["plain", "unpadded", "URL-safe", "misnamed", "upper", "wrapped", "quoted", "percent"],
)
async def test_a_file_inside_its_address_is_saved_like_any_other(
    downloads: Downloads, folder: Path, url: str
) -> None:
    saved = await downloads.fetch(url, "a")
    assert (saved.path, saved.sha256) == ("a.png", digest(SMALL))
    assert (folder / "a.png").read_bytes() == SMALL


@pytest.mark.parametrize(
    "url",
    [
        inline(SMALL[:-20]),
        inline(b"<html>"),
        inline(b""),
        "data:image/png;base64,a",
        "data:image/png;base64,!!!!",
        "data:image/png",
        "data:,",
    ],
)
async def test_a_file_inside_its_address_is_checked_like_any_other(
    downloads: Downloads, folder: Path, url: str
) -> None:
    with pytest.raises(DownloadError) as caught:
        await downloads.fetch(url, "a")
    assert len(str(caught.value)) < 300
    assert names_in(folder) == []


async def test_a_file_inside_its_address_obeys_the_limit_of_size(
    storage: FolderStorage, folder: Path
) -> None:
    async with Downloads(storage, size_limit_bytes=len(SMALL) - 1) as opened:
        with pytest.raises(DownloadError, match="more than"):
            await opened.fetch(inline(SMALL), "a")
    assert names_in(folder) == []


async def test_a_host_that_is_not_trusted_is_named_with_the_key_that_trusts_it(
    downloads: Downloads,
) -> None:
    with pytest.raises(DownloadError) as caught:
        await downloads.fetch("https://files.example.org/a.png?token=1", "a")
    assert caught.value.hint is not None
    assert "add files.example.org to output.hosts" in caught.value.hint
    assert "token=1" not in str(caught.value)


async def test_a_compressed_body_is_not_unpacked(downloads: Downloads, folder: Path) -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Accept-Encoding"))
        response = web.Response(body=SMALL)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serving(handler) as origin:
        with pytest.raises(DownloadError, match="neither a picture"):
            await downloads.fetch(origin, "a")
    assert seen == ["identity"]
    assert names_in(folder.parent) == []


def sent_raw(head: bytes, body: bytes) -> Connected:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
        await writer.drain()

    return connected


@BOTH
@pytest.mark.parametrize("cut", ["in the middle", "one byte short"])
async def test_a_body_shorter_than_its_length_is_refused(
    downloads: Downloads, folder: Path, body: bytes, cut: str
) -> None:
    part = body[: len(body) - 1 if cut == "one byte short" else len(body) * 2 // 3]
    head = b"Content-Length: %d\r\n" % len(body)
    async with listening(sent_raw(head, part)) as origin:
        with pytest.raises(DownloadError):
            await downloads.fetch(origin, "a")
    assert names_in(folder.parent) == []


@BOTH
async def test_a_chunked_body_that_is_broken_off_is_refused(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    head = b"Transfer-Encoding: chunked\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    async with listening(sent_raw(head, chunk)) as origin:
        with pytest.raises(DownloadError):
            await downloads.fetch(origin, "a")
    assert names_in(folder.parent) == []


@pytest.mark.parametrize("length", [b"-1", b"many", b"1, 2"])
async def test_a_length_that_is_none_is_refused(
    downloads: Downloads, folder: Path, length: bytes
) -> None:
    async with listening(sent_raw(b"Content-Length: " + length + b"\r\n", SMALL)) as origin:
        with pytest.raises(DownloadError):
            await downloads.fetch(origin, "a")
    assert names_in(folder.parent) == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("side_px", [40, 1600])
async def test_a_picture_that_was_cut_off_before_it_was_served_is_refused(
    downloads: Downloads, folder: Path, kind: str, side_px: int
) -> None:
    body = picture(kind, side_px)
    for part in (body[: len(body) * 9 // 10], body[:-2]):
        async with sending(part) as url:
            with pytest.raises(DownloadError, match="cut off"):
                await downloads.fetch(url, "a")
    assert names_in(folder.parent) == []


async def test_a_length_beyond_the_limit_is_refused_before_anything_is_read(
    downloads: Downloads, folder: Path
) -> None:
    head = b"Content-Length: %d\r\n" % (2 * 1024**3 + 1)
    async with listening(sent_raw(head, SMALL)) as origin:
        with pytest.raises(DownloadError, match="more than 2,048 MiB"):
            await downloads.fetch(origin, "a")
    assert names_in(folder.parent) == []


async def test_an_endless_body_is_cut_off_at_the_limit(
    downloads: Downloads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "SIZE_LIMIT_BYTES", 3_000_000)
    cut_off = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(LARGE)
        except ConnectionError:
            cut_off.set()
        return response

    async with serving(handler) as origin:
        with pytest.raises(DownloadError, match="more than 3 MiB"):
            await downloads.fetch(origin, "a")
        await asyncio.wait_for(cut_off.wait(), timeout=120)
    assert names_in(folder.parent) == []


async def test_a_host_that_falls_silent_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_SILENCE_LIMIT_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + SMALL[:50])
        await reader.read()

    async with (
        listening(silent) as origin,
        Downloads(FolderStorage(folder), allow_loopback=True) as opened,
    ):
        with pytest.raises(DownloadError):
            await opened.fetch(origin, "a")


async def test_a_host_that_is_away_is_a_failed_download(downloads: Downloads) -> None:
    async with sending(SMALL) as url:
        pass
    with pytest.raises(DownloadError, match="Cannot connect"):
        await downloads.fetch(url, "a")


@pytest.mark.parametrize("count", [1, 3, 20])
async def test_leaving_while_files_wait_for_a_writer_is_no_error(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    begun, may_end, save = threading.Semaphore(0), threading.Event(), storage.save_whole

    def stall(files: Sequence[Whole]) -> list[SavedFile | Exception]:
        begun.release()
        may_end.wait(10)
        return save(files)

    monkeypatch.setattr(storage, "save_whole", stall)
    async with sending(SMALL) as url, Downloads(storage, allow_loopback=True) as downloads:
        fetching = [asyncio.create_task(downloads.fetch(url, f"a{n}")) for n in range(count)]
        for _ in range(min(count, storage.threads)):
            await asyncio.to_thread(begun.acquire)
        while len(downloads._waiting) < count - storage.threads:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        for one in fetching:
            one.cancel()
        await asyncio.wait(fetching)
        shutdown = downloads._writers.shutdown

        def end(*, wait: bool) -> None:
            # The writers end no sooner than when nothing new may begin.
            may_end.set()
            shutdown(wait=wait)

        monkeypatch.setattr(downloads._writers, "shutdown", end)
    for _ in range(3):
        await asyncio.sleep(0)
    assert errors == []


@BOTH
async def test_a_cancelled_download_leaves_nothing(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(body[:-9])
        sent.set()
        await go_on.wait()
        return response

    async with serving(handler) as origin:
        fetching = asyncio.create_task(downloads.fetch(origin, "a"))
        await sent.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        go_on.set()
    assert names_in(folder.parent) == []


async def test_outside_its_block_nothing_is_fetched(folder: Path) -> None:
    closed = Downloads(FolderStorage(folder))
    with pytest.raises(RuntimeError, match="async with"):
        await closed.fetch("https://cdn.runcomfy.net/a", "a")
    await closed.__aexit__(None, None, None)


# Trust

HOSTILE = [
    "https://127.0.0.1\\@cdn.runcomfy.net/x",
    "https://cdn.runcomfy.net\\@evil.example/x",
    "https://cdn.runcomfy.net\\.evil.example/x",
    "https://cdn.runcomfy.net@evil.example/x",
    "https://cdn.runcomfy.net:443@evil.example/x",
    "https://user:pw@cdn.runcomfy.net/x",
    "https://:pw@cdn.runcomfy.net/x",
    "https://runcomfy.net.evil.example/x",
    "https://cdn.runcomfy.net.evil.example/x",
    "https://evilruncomfy.net/x",
    "https://evil-runcomfy.net/x",
    "https://runcomfy.net/x",
    "https://.runcomfy.net/x",
    "https://a..runcomfy.net/x",
    "https://cdn.runcomfy.net./x",
    "https://cdn.runcomfy.org/x",
    "https://cdn.runcomfy.net%2eevil.example/x",
    "https://evil.example%2f.runcomfy.net/x",
    "https://evil.example%5c.runcomfy.net/x",
    "https://cdn.runcomfy.net%00.evil.example/x",
    "https://evil.example;.runcomfy.net/x",
    "https://evil.example&.runcomfy.net/x",
    "https://evil.example\uff0f.runcomfy.net/x",
    "https://evil.example\uff03.runcomfy.net/x",
    "https://cdn.runc\u043emfy.net/x",
    "https://evil.example#.runcomfy.net",
    "https://evil.example?.runcomfy.net",
    "https://evil.example/.runcomfy.net",
    "https://ev\til.example/x",
    "https://cdn.runcomfy.net/x y",
    "https://cdn.runcomfy.net/x\r\nHost: evil.example",
    " https://cdn.runcomfy.net/x",
    "http://cdn.runcomfy.net/x",
    "ftp://cdn.runcomfy.net/x",
    "file:///etc/passwd",
    "file://cdn.runcomfy.net/etc/passwd",
    "javascript:alert(1)",
    "//cdn.runcomfy.net/x",
    "https:///cdn.runcomfy.net/x",
    "https:cdn.runcomfy.net/x",
    "cdn.runcomfy.net/x",
    "https://cdn.runcomfy.net:99999/x",
    "https://cdn.runcomfy.net:port/x",
    "https://[::1",
    "https://[::1?token=hunter2",
    "https://",
    "",
    "http://10.0.0.1/x",
    "http://169.254.169.254/latest/meta-data",
    "https://0.0.0.0/x",
]
LOOPBACK = [
    "http://localhost/x",
    "http://127.0.0.1/x",
    "http://127.1.2.3:8080/x",
    "http://[::1]/x",
    "https://127.0.0.1/x",
]
NEARLY_LOOPBACK = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.evil.example/",
    "http://127.0.0.1.evil.example/",
    "http://localhost.evil.example/",
    "http://0/",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1/x",
]


@pytest.mark.parametrize("url", HOSTILE + LOOPBACK + NEARLY_LOOPBACK)
async def test_a_url_that_leads_elsewhere_is_refused_before_anybody_is_asked(
    folder: Path, url: str
) -> None:
    async with Downloads(FolderStorage(folder)) as strict:
        with pytest.raises(DownloadError) as caught:
            await strict.fetch(url, "a")
    assert "hunter2" not in str(caught.value)
    assert "trusted" in str(caught.value) or "is not a URL" in str(caught.value)


@pytest.mark.parametrize("url", HOSTILE + NEARLY_LOOPBACK)
async def test_nor_is_it_followed_where_this_machine_is_trusted(
    downloads: Downloads, url: str
) -> None:
    with pytest.raises(DownloadError, match=r"trusted|is not a URL"):
        await downloads.fetch(url, "a")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://cdn.runcomfy.net/x", "cdn.runcomfy.net"),
        ("https://CDN.RunComfy.NET/x", "cdn.runcomfy.net"),
        ("https://a.b.runcomfy.com/x?sig=%2F#y", "a.b.runcomfy.com"),
        ("https://cdn.runcomfy.net:8443/x", "cdn.runcomfy.net"),
        ("https://cdn.runcomfy.net/x@y", "cdn.runcomfy.net"),
        ("https://cdn.runcomfy.net#@evil.example/", "cdn.runcomfy.net"),
        ("https://cdn.runcomfy.net?@evil.example/", "cdn.runcomfy.net"),
        ("https://cdn\u3002runcomfy\u3002net/x", "cdn.runcomfy.net"),
        ("https://b\u00fccher.runcomfy.net/x", "xn--bcher-kva.runcomfy.net"),
        ("https://Files.example/x", "files.example"),
        ("https://a.shop.example/x", "a.shop.example"),
    ],
)
def test_the_services_own_hosts_and_the_named_ones_are_trusted(
    folder: Path, url: str, host: str
) -> None:
    opened = Downloads(FolderStorage(folder), hosts=["FILES.example", "*.Shop.example"])
    assert opened._trusted(url).raw_host == host


@pytest.mark.parametrize("url", ["https://shop.example/x", "https://a.files.example/x"])
def test_a_named_host_means_itself_and_a_star_what_is_below(folder: Path, url: str) -> None:
    opened = Downloads(FolderStorage(folder), hosts=["files.example", "*.shop.example"])
    with pytest.raises(DownloadError, match="not a trusted host"):
        opened._trusted(url)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/x",
        "//evil.example/x",
        "http://cdn.runcomfy.net/x",
        "https://user:pw@cdn.runcomfy.net/x",
        "/\\evil.example/x",
        "http://[",
        "http://127.evil.example/x",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_another_host_is_refused(
    downloads: Downloads, folder: Path, location: str
) -> None:
    async with sending(b"", 302, Location=location) as url:
        with pytest.raises(DownloadError, match=r"trusted|is not a URL"):
            await downloads.fetch(url, "a")
    assert names_in(folder.parent) == []


@asynccontextmanager
async def redirecting(times: int) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.Response:
        number = int(request.path.rpartition("/")[2])
        if number == times:
            return web.Response(body=SMALL)
        target = f"{number + 1}" if number % 2 else f"{request.url.origin()}/a/{number + 1}"
        return web.Response(
            status=(301, 302, 303, 307, 308)[number % 5], headers={"Location": target}
        )

    async with serving(handler) as origin:
        yield f"{origin}/a/0"


@pytest.mark.parametrize("times", [1, 5])
async def test_redirects_within_the_trusted_hosts_are_followed(
    downloads: Downloads, times: int
) -> None:
    async with redirecting(times) as url:
        assert (await downloads.fetch(url, "a")).size_bytes == len(SMALL)


async def test_redirects_have_an_end(downloads: Downloads) -> None:
    async with redirecting(6) as url:
        with pytest.raises(DownloadError, match="HTTP 30"):
            await downloads.fetch(url, "a")
    async with sending(b"", 302) as url:  # without a Location it leads to itself
        with pytest.raises(DownloadError, match="HTTP 302"):
            await downloads.fetch(url, "a")


async def test_neither_the_token_nor_a_cookie_is_ever_sent(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "hunter2")
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(str(request.headers).lower())
        return web.Response(body=SMALL, headers={"Set-Cookie": "session=1"})

    async with serving(handler) as origin:
        await downloads.fetch(origin, "a")
        await downloads.fetch(origin, "b")
    for headers in seen:
        assert "authorization" not in headers
        assert "cookie" not in headers
        assert "hunter2" not in headers


async def test_a_message_shows_no_signature(downloads: Downloads) -> None:
    async with sending(b"no picture") as url:
        with pytest.raises(DownloadError) as caught:
            await downloads.fetch(f"{url}?X-Amz-Signature=hunter2&token=hunter2", "a")
    assert "hunter2" not in str(caught.value)


# Files that stand in the way


@BOTH
async def test_another_file_under_the_name_is_moved_aside_and_never_overwritten(
    downloads: Downloads, folder: Path, body: bytes
) -> None:
    for old in (b"a person's own", b"and another"):
        (folder / "a.png").write_bytes(old)
        async with sending(body) as url:
            await downloads.fetch(url, "a")
        assert (folder / "a.png").read_bytes() == body
        assert (folder / superseded_path("a.png", digest(old))).read_bytes() == old
    assert len(names_in(folder)) == 3


async def test_the_same_content_is_kept_as_it_is(downloads: Downloads, folder: Path) -> None:
    async with sending(SMALL) as url:
        await downloads.fetch(url, "x/a")
        await downloads.fetch(url, "x/a")
    assert names_in(folder) == ["x/a.png"]


async def test_what_a_crash_left_unfinished_is_made_anew(
    downloads: Downloads, folder: Path
) -> None:
    (folder / ".a.png.part").write_bytes(b"x" * 10_000_000)
    async with sending(SMALL) as url:
        await downloads.fetch(url, "a")
    assert names_in(folder) == ["a.png"]
    assert (folder / "a.png").read_bytes() == SMALL


# A disk that fails


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def no_space_later(*_: Any) -> Any:
    no_space()


@pytest.mark.parametrize("step", ["batch_runner.files.disk.sync_data", "os.replace"])
@BOTH
async def test_a_disk_that_fails_is_a_storage_error_and_leaves_nothing(
    downloads: Downloads, folder: Path, body: bytes, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(body) as url:
        monkeypatch.setattr(step, no_space)
        with pytest.raises(StorageError, match="No space left") as caught:
            await downloads.fetch(url, "a")
    assert "nothing is lost" in (caught.value.hint or "")
    assert names_in(folder) == []


async def test_a_full_disk_is_a_storage_error_for_a_small_file(
    downloads: Downloads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(SMALL) as url:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", no_space)
            with pytest.raises(StorageError, match="No space left"):
                await downloads.fetch(url, "a")
    assert names_in(folder) == []


async def test_a_full_disk_is_a_storage_error_for_a_large_file(
    downloads: Downloads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiofiles.threadpool.binary.AsyncBufferedIOBase, "write", no_space_later)
    async with sending(LARGE) as url:
        with pytest.raises(StorageError, match="No space left"):
            await downloads.fetch(url, "a")
    assert names_in(folder) == []


async def test_short_writes_are_gone_on_with(
    downloads: Downloads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, sizes = os.write, []

    def write_little(descriptor: int, data: bytes) -> int:
        sizes.append(write(descriptor, data[:100]))
        return sizes[-1]

    async with sending(SMALL) as url:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write_little)
            await downloads.fetch(url, "a")
    assert (folder / "a.png").read_bytes() == SMALL
    assert sum(sizes) == len(SMALL)
    assert max(sizes) == 100


async def test_a_file_where_a_folder_should_be_holds_up_that_job_only(
    downloads: Downloads, folder: Path
) -> None:
    (folder / "x").write_text("in the way")
    for body in (SMALL, LARGE):
        async with sending(body) as url:
            with pytest.raises(NotSavedError):
                await downloads.fetch(url, "x/a")


@BOTH
async def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path, body: bytes) -> None:
    async with (
        sending(body) as url,
        Downloads(FolderStorage(tmp_path / "gone"), allow_loopback=True) as opened,
    ):
        with pytest.raises(StorageError, match="the folder is gone"):
            await opened.fetch(url, "a")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing blocks here


# Reuse


@pytest.fixture
async def bought(downloads: Downloads) -> SavedFile:
    async with sending(SMALL) as url:
        return await downloads.fetch(url, "a")


@pytest.mark.parametrize("can_link", [True, False])
async def test_a_saved_file_gets_a_second_name_by_link_or_by_copy(
    storage: FolderStorage,
    folder: Path,
    bought: SavedFile,
    can_link: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not can_link:
        monkeypatch.setattr(os, "link", no_space)
    again = storage.reuse(bought, "x/b.png")
    assert again.path == "x/b.png"
    assert (again.sha256, again.size_bytes) == (bought.sha256, bought.size_bytes)
    assert (folder / "x/b.png").read_bytes() == SMALL
    assert (folder / "a.png").samefile(folder / "x/b.png") is can_link
    assert storage.reuse(bought, "x/b.png") == again
    assert names_in(folder) == ["a.png", "x/b.png"]


async def test_reusing_moves_another_file_aside(
    storage: FolderStorage, folder: Path, bought: SavedFile
) -> None:
    (folder / "b.png").write_bytes(b"a person's own")
    (folder / ".b.png.part").write_bytes(b"what a crash left")
    storage.reuse(bought, "b.png")
    aside = superseded_path("b.png", digest(b"a person's own"))
    assert names_in(folder) == ["a.png", "b.png", aside]


async def test_reusing_what_is_gone_fails_for_that_job_and_leaves_nothing(
    storage: FolderStorage, folder: Path, bought: SavedFile
) -> None:
    (folder / "a.png").unlink()
    with pytest.raises(NotSavedError, match=r"b\.png: No such file"):
        storage.reuse(bought, "b.png")
    assert names_in(folder) == []


async def test_reusing_what_has_become_another_file_is_refused(
    storage: FolderStorage, folder: Path, bought: SavedFile
) -> None:
    (folder / "a.png").write_bytes(b"another")
    with pytest.raises(NotSavedError, match="has changed since it was saved"):
        storage.reuse(bought, "b.png")
    assert names_in(folder) == ["a.png"]


async def test_an_unfinished_second_name_that_a_kill_left_never_harms_the_first(
    downloads: Downloads, folder: Path, bought: SavedFile
) -> None:
    whole = (folder / "a.png").read_bytes()
    os.link(folder / "a.png", folder / ".b.png.part")
    async with sending(SMALL + b"other") as url:
        await downloads.fetch(url, "b")
    assert (folder / "a.png").read_bytes() == whole


async def test_a_file_is_in_place_by_its_size_or_thoroughly_by_its_hash(
    storage: FolderStorage, folder: Path, bought: SavedFile
) -> None:
    def found(path: str, *, thorough: bool) -> bool:
        return storage.is_in_place(path, bought, thorough=thorough)

    assert found("a.png", thorough=False)
    assert found("a.png", thorough=True)
    assert not found("b.png", thorough=False)
    (folder / "a.png").write_bytes(b"x" * len(SMALL))
    assert found("a.png", thorough=False)
    assert not found("a.png", thorough=True)
    (folder / "a.png").write_bytes(SMALL[:-1])
    assert not found("a.png", thorough=False)
    assert file_sha256(folder / "gone.png") is None


# Whole pictures


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side_px", [1, 7, 300])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\r\n", b"trailing " * 1000])
def test_no_valid_picture_is_taken_for_one_that_was_cut_off(
    kind: str, side_px: int, tail: bytes
) -> None:
    data = picture(kind, side_px) + (tail[:2].strip(b"tr") if kind == "GIF" else tail)
    found = recognise(data)
    assert found == FORMATS[kind]
    assert is_whole(FORMATS[kind][0], data)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"quality": 100, "subsampling": 0, "comment": b"\xff\xda \xff\xd9"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + b"x" * 31}),
        ("PNG", {"compress_level": 0}),
        ("PNG", {"save_all": True, "append_images": [Image.new("RGB", (40, 40))]}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (40, 40))]}),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (40, 40))], "loop": 0}),
        ("GIF", {"comment": b"; \x3b \x2c \x21" * 200, "interlace": 1}),
        ("AVIF", {"save_all": True, "append_images": [Image.new("RGB", (40, 40))]}),
    ],
)
def test_nor_is_one_that_was_saved_in_an_unusual_way(kind: str, options: dict[str, Any]) -> None:
    assert is_whole(FORMATS[kind][0], picture(kind, **options))


@pytest.mark.parametrize(
    ("kind", "by_chance"), [*dict.fromkeys(["PNG", "JPEG", "WEBP", "AVIF"], 0).items(), ("GIF", 1)]
)
def test_a_picture_cut_off_anywhere_is_not_whole(kind: str, by_chance: int) -> None:
    data = picture(kind)
    cut = [length for length in range(12, len(data)) if is_whole(FORMATS[kind][0], data[:length])]
    assert len(cut) <= by_chance


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_on_the_disk_and_in_memory_the_same_files_are_whole(kind: str, tmp_path: Path) -> None:
    data, media_type = picture(kind, side_px=20), FORMATS[kind][0]
    path = tmp_path / "picture"
    for body in (data, data + b"tail" * 40, data[:-1], data[:-2] + b"\0\0", data[: len(data) // 2]):
        path.write_bytes(body)
        assert is_whole_file(str(path), media_type) == is_whole(media_type, body)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\0\0\0\x20ftypisom", ("video/mp4", ".mp4")),
        (b"\0\0\0\x20ftypqt  ", ("video/quicktime", ".mov")),
        (b"\0\0\0\x20ftypheic", ("image/heic", ".heic")),
        (b"\x1aE\xdf\xa3", ("video/webm", ".webm")),
        (b"GIF87a", ("image/gif", ".gif")),
        (b"MM\0*", ("image/tiff", ".tif")),
        (b"RIFF\n\0\0\0WEBP", ("image/webp", ".webp")),
        (b"RIFF\n\0\0\0WAVE", ("audio/wav", ".wav")),
        (b"RIFF\n\0\0\0AVI ", None),
        (b"ID3\x04\0", ("audio/mpeg", ".mp3")),
        (b"\xff\xfb\x90\x64", ("audio/mpeg", ".mp3")),
        (b"\xff\xfe<\0h\0", None),
        (b"OggS\0", ("audio/ogg", ".ogg")),
        (b"fLaC\0", ("audio/flac", ".flac")),
        (b"\0\0\0\x20ftypM4A ", ("audio/mp4", ".m4a")),
        (b"PK\x03\x04", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_a_file_is_recognised_by_its_first_bytes(
    head: bytes, found: tuple[str, str] | None
) -> None:
    assert recognise(head) == found
