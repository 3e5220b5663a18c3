"""The output films: a request's input in, the bytes of an MP4 file out.

Hides the boxes of the file and the movement. Like the pictures, nobody pays for these films and no
model makes them; they are small, and real: every player plays them. They show the picture that the
prompt, the sources and the seed give, moving gently; with a picture to end with, two.

Always holds: the file says its own length in every box; its duration is the one asked for, to a
frame; its shape follows from aspect_ratio, its size from resolution (a quarter of the real one);
the index stands before the frames, so that a browser begins at once. There is no sound.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

from batch_runner.sandbox.h264 import Frame, Motion, write_scene, write_sequence
from batch_runner.sandbox.pictures import RenderedFile, compose_picture, compose_swatch
from batch_runner.sandbox.source import split_into_scenes

FRAMES_PER_S = 10
_LONG_SIDES_PX = {"480p": 214, "720p": 320, "1080p": 480, "4k": 960}
_USUAL_RESOLUTION = "720p"
_USUAL_DURATION_S = 5.0
_LONGEST_S = 60.0
_PAN_QUARTERS = 24
_PAN_S = 4.0
_UPRIGHT = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def render_film(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Make output `number` (from 1) of a request with this input."""
    options = {"resolution": _USUAL_RESOLUTION, **model_input}
    scenes = [
        compose_picture(scene, number, long_sides_px=_LONG_SIDES_PX)
        for scene in split_into_scenes(options)
    ]
    size = (scenes[0].width // 2 * 2, scenes[0].height // 2 * 2)
    scenes = [ImageOps.fit(scene, size) for scene in scenes]
    return _finish(encode_film(scenes, _choose_duration_s(model_input)))


def render_film_swatch(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Make a small film of the patch that only this input and number have."""
    patch = compose_swatch(model_input, number)
    return _finish(encode_film([patch], _choose_duration_s(model_input)))


def _finish(data: bytes) -> RenderedFile:
    return RenderedFile(data=data, media_type="video/mp4")


def _choose_duration_s(model_input: Mapping[str, Any]) -> float:
    """Return the duration that was asked for; where the model chooses, the usual one."""
    try:
        duration_s = float(model_input.get("duration", _USUAL_DURATION_S))
    except (TypeError, ValueError):
        return _USUAL_DURATION_S
    return min(duration_s, _LONGEST_S) if duration_s > 0 else _USUAL_DURATION_S


def encode_film(scenes: Sequence[Image.Image], duration_s: float) -> bytes:
    """Encode a film that shows each picture for its share of the duration, gently moving.

    All pictures must have the size of the first, with even sides.
    """
    count = max(2 * len(scenes), round(duration_s * FRAMES_PER_S))
    edges = [count * number // len(scenes) for number in range(len(scenes) + 1)]
    frames: list[Frame] = []
    for number, scene in enumerate(scenes):
        first, last = edges[number], edges[number + 1]
        frames += write_scene(scene, [_pan(at - first) for at in range(first + 1, last)])
    size = scenes[0].size
    index = _movie(size, frames, 0)
    # The index says where the frames begin, which is behind the index itself.
    kind = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")
    begin = len(kind) + len(index) + 8
    body = b"".join(_sample(frame) for frame in frames)
    return kind + _movie(size, frames, begin) + _box(b"mdat", body)


def _pan(frame: int) -> Motion:
    turn = 2 * math.pi * frame / (_PAN_S * FRAMES_PER_S)
    return round(_PAN_QUARTERS * math.sin(turn)), round(_PAN_QUARTERS / 2 * math.sin(2 * turn))


def _sample(frame: Frame) -> bytes:
    return struct.pack(">I", len(frame.data)) + frame.data


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full_box(kind: bytes, *parts: bytes, version_and_flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version_and_flags), *parts)


def _movie(size: tuple[int, int], frames: list[Frame], begin: int) -> bytes:
    """Build the index: one track of frames, one after the other from byte `begin`."""
    count = len(frames)
    header = struct.pack(">4I", 0, 0, FRAMES_PER_S, count)
    movie = _full_box(
        b"mvhd", header, struct.pack(">IHHII", 0x10000, 0x100, 0, 0, 0), _UPRIGHT, bytes(24),
        struct.pack(">I", 2),
    )  # fmt: skip
    track = _full_box(
        b"tkhd",
        struct.pack(">5I", 0, 0, 1, 0, count),
        bytes(16),
        _UPRIGHT,
        struct.pack(">2I", size[0] << 16, size[1] << 16),
        version_and_flags=3,
    )
    media = _box(
        b"mdia",
        _full_box(b"mdhd", header, struct.pack(">HH", 0x55C4, 0)),
        _full_box(b"hdlr", bytes(4), b"vide", bytes(12), b"sandbox\0"),
        _box(
            b"minf",
            _full_box(b"vmhd", bytes(8), version_and_flags=1),
            _box(
                b"dinf",
                _full_box(b"dref", struct.pack(">I", 1), _full_box(b"url ", version_and_flags=1)),
            ),
            _sample_table(size, frames, begin),
        ),
    )
    return _box(b"moov", movie, _box(b"trak", track, media))


def _sample_table(size: tuple[int, int], frames: list[Frame], begin: int) -> bytes:
    sequence, picture = write_sequence(size)
    configuration = _box(
        b"avcC",
        bytes((1, sequence[1], sequence[2], sequence[3], 0xFF, 0xE1)),
        struct.pack(">H", len(sequence)),
        sequence,
        struct.pack(">BH", 1, len(picture)),
        picture,
    )
    entry = _box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, *size),
        struct.pack(">3IH32xHh", 0x480000, 0x480000, 0, 1, 24, -1),
        configuration,
    )
    keys = [number for number, frame in enumerate(frames, start=1) if frame.is_key]
    sizes = [len(frame.data) + 4 for frame in frames]
    count = len(frames)
    return _box(
        b"stbl",
        _full_box(b"stsd", struct.pack(">I", 1), entry),
        _full_box(b"stts", struct.pack(">3I", 1, count, 1)),
        _full_box(b"stss", struct.pack(f">{len(keys) + 1}I", len(keys), *keys)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full_box(b"stsz", struct.pack(f">{count + 2}I", 0, count, *sizes)),
        _full_box(b"stco", struct.pack(">2I", 1, begin)),
    )
