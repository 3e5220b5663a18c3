"""Copies of every kind of picture that shops and models have."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fabricated import START, fabricate, picture
from PIL import Image

from batch_runner.files.bucket import BucketUrl
from batch_runner.records import Job
from batch_runner.report.live import Live
from batch_runner.report.pictures import Copies, Copy, Picture, Pictures, make_copy
from batch_runner.report.remote import Remote

LARGE = picture("large", (1400, 900)) + bytes(30_000)


def _noise(mode: str, size: tuple[int, int] = (1400, 900)) -> Image.Image:
    noise = Image.effect_noise(size, 90)
    if mode in ("L", "P", "1", "I;16"):
        return noise.convert(mode)
    return noise.convert("RGB").convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("rgb.jpg", "RGB", {}),
        ("gray.jpg", "L", {}),
        ("print.jpg", "CMYK", {}),
        ("palette.png", "P", {}),
        ("clear.png", "RGBA", {}),
        ("clear.gif", "P", {"transparency": 0}),
        ("deep.png", "I;16", {}),
        ("bits.png", "1", {}),
        ("lossy.webp", "RGB", {}),
        ("layered.tif", "RGB", {}),
    ],
)
@pytest.mark.parametrize("kind", [".jpg", ".webp"])
def test_a_large_picture_gets_a_copy_that_browsers_show(
    tmp_path: Path, name: str, mode: str, options: dict[str, Any], kind: str
) -> None:
    _noise(mode).save(tmp_path / name, **options)
    target = tmp_path / "thumbs" / f"x{kind}"
    assert make_copy(tmp_path / name, target, 512) == target
    with Image.open(target) as thumb:
        assert thumb.format == ("WEBP" if kind == ".webp" else "JPEG")
        assert max(thumb.size) == 512
        assert thumb.size[0] / thumb.size[1] == pytest.approx(1400 / 900, rel=0.01)


def test_a_picture_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _noise("RGB").save(tmp_path / "side.jpg", exif=exif)
    make_copy(tmp_path / "side.jpg", tmp_path / "x.jpg", 512)
    with Image.open(tmp_path / "x.jpg") as thumb:
        assert thumb.size[1] == 512


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_has_no_copy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    assert make_copy(path, tmp_path / "x.jpg", 512) is None
    _noise("RGB").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:20_000])
    assert make_copy(path, tmp_path / "x.jpg", 512) is None
    assert make_copy(tmp_path / "nowhere.jpg", tmp_path / "x.jpg", 512) is None
    assert [one.name for one in tmp_path.iterdir()] == ["broken.png"]


def test_if_the_disk_takes_no_copy_the_original_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(LARGE)
    (tmp_path / "thumbs.jpg").mkdir()
    assert make_copy(path, tmp_path / "thumbs.jpg", 512) == path


def _shown(
    tmp_path: Path, sources: dict[str, bytes], content: bytes, name: str = ".jpg"
) -> tuple[list[Picture], list[Picture], Pictures]:
    for file, data in sources.items():
        (tmp_path / file).write_bytes(data)
    path = tmp_path / "batch.yaml"
    path.write_text(
        "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {w: white}\n"
        f"images: {{mug: [{', '.join(sources)}]}}\noutput: {{dir: out}}\n",
        encoding="utf-8",
    )

    def made(_: Job, __: int) -> tuple[bytes, str, str]:
        return content, name, "image/tiff" if name == ".tif" else "image/jpeg"

    batch = fabricate(path, content=made)
    live = Live(batch)
    live.read()
    pictures = Pictures(batch.output_dir, bucket=None, with_remote=False)
    (details,) = live.details()
    assert details.submitted_at is not None
    assert details.submitted_at > START
    return *pictures.of(details), pictures


def test_files_out_are_linked_and_pictures_in_are_copied(tmp_path: Path) -> None:
    sources = {"a.jpg": LARGE, "b.png": LARGE}
    shown, outputs, pictures = _shown(tmp_path, sources, LARGE)
    (output,) = outputs
    assert (output.full, output.view) == ("../mug/w.jpg", None)
    assert output.thumb is not None
    assert output.thumb.startswith("thumbs/")
    assert pictures.files["../mug/w.jpg"].sha256 == output.sha256
    for one, kind in zip(shown, (".jpg", ".webp"), strict=True):  # a PNG may be transparent
        for address, folder, edge in ((one.full, "sources", 1600), (one.thumb, "thumbs", 512)):
            assert (str(address).partition("/")[0], str(address)[-len(kind) :]) == (folder, kind)
            assert pictures.copies[str(address)].edge == edge


def test_a_small_file_out_shows_itself_and_a_tiff_has_a_copy_to_look_at(tmp_path: Path) -> None:
    _, (output,), _ = _shown(tmp_path, {"a.jpg": LARGE}, picture("small"))
    assert output.thumb == output.full == "../mug/w.jpg"
    folder = tmp_path / "other"
    folder.mkdir()
    _, (output,), _ = _shown(folder, {"a.jpg": LARGE}, b"II*\0" + bytes(20), ".tif")
    assert str(output.view).startswith("sources/")
    assert str(output.thumb).startswith("thumbs/")


async def test_a_copy_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(LARGE)
    copies = Copies(tmp_path / "report", cast("Any", None))
    first = await copies.get("thumbs/a.jpg", Copy(path=path, edge=512))
    assert first == tmp_path / "report/thumbs/a.jpg"
    made_ns = first.stat().st_mtime_ns
    path.unlink()
    assert await copies.get("thumbs/a.jpg", Copy(path=path, edge=512)) == first
    assert first.stat().st_mtime_ns == made_ns
    assert await copies.get("thumbs/b.jpg", Copy(path=path, edge=512)) is None


class Store:
    """Objects by key, and how often each was read."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.read: list[str] = []

    def chunks(self, url: BucketUrl) -> Iterator[bytes]:
        self.read.append(url.key)
        if url.key.partition(".")[0] not in self.objects:
            raise FileNotFoundError(url.key)
        data = self.objects[url.key.partition(".")[0]]
        yield data[:100]
        yield data[100:]


async def test_a_file_in_a_bucket_is_read_once_and_shown_only_as_it_was_saved(
    tmp_path: Path,
) -> None:
    store, said = Store(good=LARGE, other=b"another"), list[str]()
    batch = cast("Any", SimpleNamespace(buckets=store, output_dir=tmp_path))
    digest = hashlib.sha256(LARGE).hexdigest()
    kept = tmp_path / "report" / "fetched"
    copies = Copies(tmp_path / "report", Remote(batch, said.append))
    full = Copy(url="s3://shop/good.jpg", sha256=digest)
    thumb = Copy(url="s3://shop/good.jpg", sha256=digest, edge=512)
    both = [("fetched/x.jpg", full), ("thumbs/x.jpg", thumb)]
    found = await asyncio.gather(*(copies.get(*one) for one in both))
    assert found[0] == kept / f"{digest[:32]}.jpg"
    assert found[0].read_bytes() == LARGE
    assert found[1] == tmp_path / "report/thumbs/x.jpg"
    for name in ("other", "gone"):
        wrong = Copy(url=f"s3://shop/{name}.jpg", sha256=name[0] * 64)
        assert await copies.get(f"fetched/{name}.jpg", wrong) is None
    assert sorted(store.read) == ["gone.jpg", "good.jpg", "other.jpg"]
    assert len(said) == 2
    assert "not the file that was saved" in "".join(said)
    assert [path.name for path in kept.iterdir()] == [f"{digest[:32]}.jpg"]
