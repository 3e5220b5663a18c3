"""Thumbnails of every kind of picture that shops and models have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate
from PIL import Image

from batch_runner.report.details import BatchDetails, JobDetails
from batch_runner.report.thumbnail import (
    SOURCES_FOLDER,
    THUMBS_FOLDER,
    Picture,
    Thumbnails,
    _Order,
    make_pictures,
)

LINK = "../mug/white.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (SOURCES_FOLDER, THUMBS_FOLDER):
        (tmp_path / name).mkdir()
    return tmp_path


def _make(folder: Path, path: Path, link: str | None = LINK) -> Picture:
    return make_pictures(str(folder), [_Order(str(path), "hash", path.name, link)])[0]


def _noise(mode: str, size: tuple[int, int] = (1400, 900)) -> Image.Image:
    noise = Image.effect_noise(size, 90)
    return (
        noise.convert(mode)
        if mode in ("L", "P", "1", "I;16")
        else noise.convert("RGB").convert(mode)
    )


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
def test_a_large_picture_gets_a_thumbnail_that_browsers_show(
    folder: Path, tmp_path: Path, name: str, mode: str, options: dict[str, Any]
) -> None:
    _noise(mode).save(tmp_path / name, **options)
    made = _make(folder, tmp_path / name)
    assert (made.kind, made.full, made.width, made.height) == ("picture", LINK, 1400, 900)
    assert made.thumb is not None
    with Image.open(folder / made.thumb) as thumb:
        assert thumb.format == ("WEBP" if name.startswith("clear") else "JPEG")
        assert max(thumb.size) == 512
        assert thumb.size[0] / thumb.size[1] == pytest.approx(1400 / 900, rel=0.01)


def test_a_picture_on_its_side_is_shown_upright(folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _noise("RGB").save(tmp_path / "side.jpg", exif=exif)
    made = _make(folder, tmp_path / "side.jpg")
    assert (made.width, made.height) == (900, 1400)
    with Image.open(folder / str(made.thumb)) as thumb:
        assert thumb.size[1] == 512


def test_a_small_result_shows_itself_and_a_small_source_is_copied(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.png"
    Image.new("RGB", (300, 200), "red").save(path)
    assert _make(folder, path).thumb == LINK
    source = _make(folder, path, link=None)
    assert source.thumb == source.full == "sources/hash.png"
    assert (folder / "sources/hash.png").read_bytes() == path.read_bytes()
    assert list((folder / THUMBS_FOLDER).iterdir()) == []


def test_a_large_source_is_kept_at_a_size_to_look_at(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    _noise("RGB", (4000, 3000)).save(path, quality=95)
    source = _make(folder, path, link=None)
    assert (source.width, source.height) == (4000, 3000)
    with Image.open(folder / str(source.full)) as view:
        assert view.size == (1600, 1200)


def test_what_browsers_cannot_show_has_a_view(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    _noise("RGB").save(path)
    made = _make(folder, path, link="../scan.tif")
    assert (made.full, made.view) == ("../scan.tif", "sources/hash.jpg")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_said(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    made = _make(folder, path)
    assert (made.kind, made.full, made.thumb) == ("other", LINK, None)


def test_a_picture_that_breaks_off_leaves_nothing_half_made(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    _noise("RGB").save(path)
    path.write_bytes(path.read_bytes()[:20_000])
    assert _make(folder, path).kind == "other"
    assert list((folder / THUMBS_FOLDER).iterdir()) == []
    assert _make(folder, tmp_path / "nowhere.jpg").kind == "missing"


def test_a_worker_that_dies_costs_no_picture(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    lines = "".join(f"  p{n}: https://cdn.example.com/{n}.png\n" for n in range(100))
    path.write_text(
        "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {w: white}\n"
        f"images:\n{lines}output: {{dir: out}}\n",
        encoding="utf-8",
    )
    batch = fabricate(path)

    def killing(thumbnails: Thumbnails) -> Iterator[JobDetails]:
        for number, details in enumerate(BatchDetails(batch)):
            yield details
            if number == 50:
                for process in thumbnails._pool._processes.values():
                    process.kill()

    with Thumbnails(tmp_path / "report", tmp_path / "out", {}) as thumbnails:
        shown = list(thumbnails.show(killing(thumbnails)))
    assert [one.outputs[0].kind for one in shown] == ["picture"] * 100
