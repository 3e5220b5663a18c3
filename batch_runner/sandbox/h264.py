"""Pictures in, an H.264 stream out: as much of the standard as a short, plain film needs.

Hides the bits. A picture is written as it is (macroblocks of raw samples, "I_PCM"); the frames that
follow are that picture again, moved by a vector, and cost a few bytes each. So every decoder shows
exactly the picture that was given, and no codec library is needed for that; a file is larger than
an encoder would make it.

Always holds: baseline profile, one slice a frame, every key frame stands alone; the same pictures
and motion give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

_BLOCK_PX = 16
_ORDER_BITS = 16
_FRAME_NUMBER_BITS = 4
_I_PCM = 25
_LEVEL = 31

_KEY_SLICE, _SLICE, _SEQUENCE, _PICTURE = 0x65, 0x01, 0x67, 0x68

Motion = tuple[int, int]
"""How far a frame looks into its key frame, in quarters of a pixel: right, down."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame of a stream, as a file stores it: the unit behind its length."""

    data: bytes
    is_key: bool


class Bits:
    """A string of bits that grows, in the codes of the standard."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def add(self, value: int, bits: int) -> None:
        """Add a number of a fixed length: `u(n)`."""
        self._bits.append(f"{value:0{bits}b}")

    def add_code(self, *values: int) -> None:
        """Add numbers of 0 and more, the small ones short: `ue(v)`."""
        for value in values:
            digits = f"{value + 1:b}"
            self._bits.append("0" * (len(digits) - 1) + digits)

    def add_signed(self, *values: int) -> None:
        """Add numbers with a sign: `se(v)`."""
        self.add_code(*(2 * value - 1 if value > 0 else -2 * value for value in values))

    def align(self) -> bytes:
        """Return what there is so far, filled up with zeros to whole bytes."""
        text = "".join(self._bits)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""

    def end(self) -> bytes:
        """Return what there is, with the one that marks the end of a unit."""
        self.add(1, 1)
        return self.align()


def write_sequence(size: tuple[int, int]) -> tuple[bytes, bytes]:
    """Return the two parameter sets of a stream of this size; both sides must be even."""
    columns, rows = _count_blocks(size)
    bits = Bits()
    bits.add(66, 8)  # baseline
    bits.add(0b11000000, 8)
    bits.add(_LEVEL, 8)
    bits.add_code(0, _FRAME_NUMBER_BITS - 4, 0, _ORDER_BITS - 4, 1)
    bits.add(0, 1)
    bits.add_code(columns - 1, rows - 1)
    bits.add(0b11, 2)  # frames, not fields
    bits.add(1, 1)  # what lies beyond the picture's edges is cut off, two pixels a step
    bits.add_code(0, (columns * _BLOCK_PX - size[0]) // 2)
    bits.add_code(0, (rows * _BLOCK_PX - size[1]) // 2)
    bits.add(0, 1)
    sequence = _unit(_SEQUENCE, bits.end())
    bits = Bits()
    bits.add_code(0, 0)
    bits.add(0b00, 2)
    bits.add_code(0, 0, 0)
    bits.add(0b000, 3)
    bits.add_signed(0, 0, 0)
    bits.add(0b100, 3)  # each slice says whether its edges are smoothed: none are
    return sequence, _unit(_PICTURE, bits.end())


def write_scene(picture: Image.Image, motions: list[Motion]) -> Iterator[Frame]:
    """Yield a key frame, which shows the picture, and one frame for each further motion."""
    yield Frame(data=_write_key_frame(picture), is_key=True)
    columns, rows = _count_blocks(picture.size)
    for number, motion in enumerate(motions, start=1):
        yield Frame(data=_write_moved_frame(columns, rows, number, motion), is_key=False)


def _count_blocks(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // _BLOCK_PX), -(-size[1] // _BLOCK_PX)


def _write_key_frame(picture: Image.Image) -> bytes:
    bits = Bits()
    bits.add_code(0, 7, 0)
    bits.add(0, _FRAME_NUMBER_BITS)
    bits.add_code(0)
    bits.add(0, _ORDER_BITS)
    bits.add(0b00, 2)
    bits.add_signed(0)
    bits.add_code(1)
    bits.add_code(_I_PCM)
    blocks = list(_cut_into_blocks(picture))
    later = Bits()
    later.add_code(_I_PCM)
    # Raw samples begin at a whole byte, and so does what follows them.
    parts = [bits.align(), later.align().join(blocks), b"\x80"]
    return _unit(_KEY_SLICE, b"".join(parts))


def _write_moved_frame(columns: int, rows: int, number: int, motion: Motion) -> bytes:
    """Write a frame that is its key frame, seen through a window moved by `motion`.

    Each macroblock's vector is predicted from its neighbours. So only the first one says it; the
    others at the upper and left edges say that they differ by nothing; all the rest is skipped,
    which means the same, but is not allowed to mean it at those edges.
    """
    bits = Bits()
    bits.add_code(0, 5, 0)
    bits.add(1, _FRAME_NUMBER_BITS)
    bits.add(2 * number, _ORDER_BITS)
    bits.add(0b00, 2)
    bits.add_signed(0)
    bits.add_code(1)
    for row in range(rows):
        for column in range(columns if row == 0 else 1):
            is_first = row == 0 and column == 0
            bits.add_code(columns - 1 if row > 1 else 0)  # so many were skipped before this one
            bits.add_code(0)
            bits.add_signed(*(motion if is_first else (0, 0)))
            bits.add_code(0)
    if rows > 1 and columns > 1:
        bits.add_code(columns - 1)
    return _unit(_SLICE, bits.end())


def _cut_into_blocks(picture: Image.Image) -> Iterator[bytes]:
    """Yield the samples of each macroblock: 16 x 16 of light, 8 x 8 of each colour."""
    columns, rows = _count_blocks(picture.size)
    size = (columns * _BLOCK_PX, rows * _BLOCK_PX)
    whole = Image.new("RGB", size)
    whole.paste(picture.resize(size))  # what is cut off continues the picture's colours
    whole.paste(picture, (0, 0))
    light, blue, red = whole.convert("YCbCr").split()
    # Films use 16 to 235 of the 256 steps, and 16 to 240 for colour.
    light = light.point([16 + step * 219 // 255 for step in range(256)])
    half = (size[0] // 2, size[1] // 2)
    table = [16 + step * 224 // 255 for step in range(256)]
    colours = [part.resize(half, Image.Resampling.BOX).point(table) for part in (blue, red)]
    for top in range(0, size[1], _BLOCK_PX):
        for left in range(0, size[0], _BLOCK_PX):
            box = (left, top, left + _BLOCK_PX, top + _BLOCK_PX)
            small = tuple(place // 2 for place in box)
            yield light.crop(box).tobytes() + b"".join(
                part.crop((small[0], small[1], small[2], small[3])).tobytes() for part in colours
            )


def _unit(kind: int, payload: bytes) -> bytes:
    """Return a unit: its kind, and the payload with no start code in it."""
    return bytes((kind,)) + re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)
