"""Films that reach their own end, and films that were cut off: by content alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from batch_runner.files.media import is_whole, recognise
from batch_runner.sandbox.pictures import render

MP4 = "video/mp4"
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg is not installed (apt-get install ffmpeg)"
)


def box(kind: bytes, body: bytes = b"") -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


HEAD = box(b"ftyp", b"isom") + box(b"moov", bytes(20))
BIG = (1).to_bytes(4, "big") + b"mdat" + (16 + 5).to_bytes(8, "big") + bytes(5)
ENDLESS = (0).to_bytes(4, "big") + b"mdat" + bytes(5)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + box(b"mdat", bytes(9)),
        box(b"ftyp", b"isom") + box(b"mdat", bytes(9)) + box(b"moov", bytes(20)),
        HEAD + box(b"moof") + box(b"mdat") + box(b"mfra"),
        HEAD + BIG,
        HEAD + ENDLESS,
        HEAD + BIG + b"\0\0\0",
        HEAD + BIG + bytes(40),
        HEAD + BIG + b"trailing words",
    ],
)
def test_a_film_that_says_its_end_and_reaches_it_is_whole(data: bytes) -> None:
    assert is_whole(MP4, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + box(b"mdat", bytes(9))[:-1],
        HEAD + BIG[:-1],
        box(b"ftyp", b"isom") + ENDLESS,
        HEAD + box(b"mdat") + box(b"moof", bytes(9))[:-1],
    ],
)
def test_a_film_that_ends_before_its_end_is_not_whole(data: bytes) -> None:
    assert not is_whole(MP4, data)


def test_a_film_cut_off_anywhere_is_not_whole() -> None:
    data = render("video", {"prompt": "x", "duration": 2}, 1, is_small=True).data
    assert is_whole(MP4, data)
    assert [length for length in range(len(data)) if is_whole(MP4, data[:length])] == []


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", []),
        ("faststart.mp4", ["-movflags", "+faststart"]),
        ("fragmented.mp4", ["-movflags", "+frag_keyframe+empty_moov", "-g", "2"]),
        ("film.mov", []),
        ("film.webm", ["-c:v", "libvpx", "-b:v", "50k"]),
        ("live.webm", ["-c:v", "libvpx", "-b:v", "50k", "-live", "1"]),
        ("film.gif", []),
        ("film.avif", ["-frames:v", "1"]),
    ],
)
def test_what_others_write_is_whole_and_cut_off_is_not(
    name: str, options: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=2", "-pix_fmt", "yuv420p"]
    words = ["ffmpeg", "-v", "error", *source, *options, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this ffmpeg does not write it: {done.stderr[-200:]}")
    data = path.read_bytes()
    found = recognise(data[:64])
    assert found is not None
    assert is_whole(found[0], data)
    if not name.endswith(".webm"):  # whose end is not looked for
        assert not is_whole(found[0], data[: len(data) // 2])
        assert not is_whole(found[0], data[:-1])
