"""The sandbox's films: real files, of the size, shape and length that were asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from batch_runner.files.media import recognise
from batch_runner.sandbox.film import FRAMES_PER_S, encode_film, render_film, render_film_swatch
from batch_runner.sandbox.h264 import Bits, write_scene

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk an MP4 file: every box must end where the next begins."""
    place = 0
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + length]
        assert len(body) == length - 8, kind
        yield kind, body
        if kind in CONTAINERS:
            yield from boxes(body)
        place += length


def film_of(**options: Any) -> dict[bytes, bytes]:
    return dict(boxes(render_film({"prompt": "a boat on a lake", **options}, 1).data))


def size_of(film: dict[bytes, bytes]) -> tuple[int, int]:
    width, height = struct.unpack(">2I", film[b"tkhd"][-8:])
    return width >> 16, height >> 16


def duration_s(film: dict[bytes, bytes]) -> float:
    _, _, scale, count = struct.unpack_from(">4I", film[b"mvhd"], 4)
    return float(count / scale)


@pytest.mark.parametrize(
    ("options", "size", "seconds"),
    [
        ({}, (320, 320), 5),
        ({"aspect_ratio": "16:9"}, (320, 180), 5),
        ({"aspect_ratio": "9:16", "resolution": "480p"}, (120, 214), 5),
        ({"aspect_ratio": "21:9", "resolution": "1080p", "duration": 30}, (480, 206), 30),
        ({"duration": "12"}, (320, 320), 12),
        ({"duration": "auto"}, (320, 320), 5),
        ({"duration": 2.5}, (320, 320), 2.5),
        ({"duration": -1}, (320, 320), 5),
    ],
)
def test_a_film_has_the_shape_size_and_length_that_were_asked_for(
    options: dict[str, Any], size: tuple[int, int], seconds: float
) -> None:
    film = film_of(**options)
    assert (size_of(film), duration_s(film)) == (size, seconds)
    count = struct.unpack_from(">I", film[b"stsz"], 8)[0]
    assert count == seconds * FRAMES_PER_S


def test_every_frame_is_where_the_index_says() -> None:
    data = render_film({"prompt": "a boat", "duration": 2}, 1).data
    film = dict(boxes(data))
    place = struct.unpack_from(">I", film[b"stco"], 8)[0]
    _, count, *sizes = struct.unpack(f">{len(film[b'stsz']) // 4 - 1}I", film[b"stsz"][4:])
    assert len(sizes) == count == 20
    kinds = []
    for size in sizes:
        (length,) = struct.unpack_from(">I", data, place)
        assert length == size - 4
        kinds.append(data[place + 4])
        place += size
    assert place == len(data)
    assert kinds == [0x65] + [0x01] * 19
    assert b"\0\0\1" not in film[b"mdat"][4:]


def test_the_same_request_gives_the_same_film_and_another_seed_another() -> None:
    first = render_film({"prompt": "a boat", "duration": 2}, 1)
    assert render_film({"prompt": "a boat", "duration": 2}, 1) == first
    assert render_film({"prompt": "a boat", "duration": 2, "seed": 1}, 1) != first
    assert recognise(first.data[:64]) == ("video/mp4", ".mp4")


def test_a_film_that_ends_with_another_picture_has_two_scenes() -> None:
    pictures = {"image_url": "https://x.example/mug.png", "end_image_url": "https://x.example/bag"}
    film = film_of(duration=2, **pictures)
    assert struct.unpack(">4I", film[b"stss"]) == (0, 2, 1, 11)


def test_a_swatch_is_a_small_film() -> None:
    rendered = render_film_swatch({"prompt": "x", "duration": 4}, 1)
    assert (rendered.media_type, size_of(dict(boxes(rendered.data)))) == ("video/mp4", (48, 48))
    assert len(rendered.data) < 8_000


def test_the_shortest_film_still_shows_every_scene() -> None:
    film = dict(boxes(encode_film([Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))], 0.0)))
    assert struct.unpack(">4I", film[b"stss"]) == (0, 2, 1, 3)


def test_numbers_are_written_in_the_codes_of_the_standard() -> None:
    bits = Bits()
    assert bits.align() == b""
    bits.add_code(0, 1, 2, 3)  # 1 010 011 00100
    bits.add_signed(0, 1, -1, 2)  # 1 010 011 00100
    bits.add(5, 4)
    assert bits.align() == bytes((0b10100110, 0b01001010, 0b01100100, 0b01010000))
    assert bits.end()[-1] == 0b01011000


def test_a_moved_frame_costs_a_hundredth_of_its_picture() -> None:
    key, moved = write_scene(Image.new("RGB", (480, 270), "red"), [(3, -2)])
    assert key.is_key
    assert not moved.is_key
    assert len(moved.data) * 100 < len(key.data)
