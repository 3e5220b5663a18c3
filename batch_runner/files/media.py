"""Recognising pictures, videos and sounds by their content; names and headers may be wrong.

Hides the formats: how each begins, and where it ends. What always holds: nothing is decoded, and no
content raises an error here.
Not promised: that a whole picture can be shown.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import TypeAlias, Union, overload

HEAD_BYTES = 64
"""Enough of a file to recognise it."""

_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (r"\x89PNG\r\n\x1a\n", "image/png", ".png"),
    (r"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (r"RIFF....WEBP", "image/webp", ".webp"),
    (r"GIF8[79]a", "image/gif", ".gif"),
    (r"....ftyp(?:avif|avis)", "image/avif", ".avif"),
    (r"....ftyp(?:heic|heix|mif1)", "image/heic", ".heic"),
    (r"....ftypM4[AB] ", "audio/mp4", ".m4a"),
    (r"....ftypqt  ", "video/quicktime", ".mov"),
    (r"....ftyp", "video/mp4", ".mp4"),
    (r"\x1aE\xdf\xa3", "video/webm", ".webm"),
    (r"RIFF....WAVE", "audio/wav", ".wav"),
    (r"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg", ".mp3"),
    (r"\xff[\xf0\xf1\xf8\xf9]", "audio/aac", ".aac"),
    (r"OggS", "audio/ogg", ".ogg"),
    (r"fLaC", "audio/flac", ".flac"),
    (r"(?:II\*\x00|MM\x00\*)", "image/tiff", ".tif"),
)

_RECOGNISED = frozenset(
    (*(name for signature in _SIGNATURES for name in signature[1:]), ".jpeg", ".tiff", ".m4v")
)
_BY_NAME = (
    ("model/gltf-binary", ".glb"),
    ("model/obj", ".obj"),
    ("model/stl", ".stl"),
    ("image/svg+xml", ".svg"),
    ("image/x-exr", ".exr"),
    ("application/pdf", ".pdf"),
    ("application/zip", ".zip"),
)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}$")

_Bytes: TypeAlias = Union[bytes, mmap.mmap, "_OnDisk"]
_STREAMED = 0x7FFFFF00
_BLOCK_BYTES = 64 * 1024

_RECOGNISERS = tuple(
    (re.compile(pattern.encode("latin-1"), re.DOTALL), media_type, extension)
    for pattern, media_type, extension in _SIGNATURES
)


def recognise(head: bytes) -> tuple[str, str] | None:
    """Return (media type, extension) of a file that begins like this, or None."""
    for pattern, media_type, extension in _RECOGNISERS:
        if pattern.match(head):
            return media_type, extension
    return None


def kind_by_name(media_type: str, path: str) -> tuple[str, str] | None:
    """Return (media type, extension) of a file whose content is not recognised, by its names.

    None for kinds that are always recognised when they are whole, and for what servers send in
    place of a file: pages, errors, text.
    """
    suffix = _SUFFIX.search(path)
    if media_type in ("", "application/octet-stream", "binary/octet-stream"):
        media_type = next(
            (kind for kind, end in _BY_NAME if suffix and end == suffix[0].lower()), ""
        )
    for kind, extension in _BY_NAME:
        if kind == media_type:
            return kind, extension
    is_file = media_type.partition("/")[0] in ("image", "video", "audio", "model", "font")
    if suffix is None or not is_file or {media_type, suffix[0].lower()} & _RECOGNISED:
        return None
    return media_type, suffix[0].lower()


def is_whole(media_type: str, data: _Bytes) -> bool:
    """Return whether a file reaches its own end; what follows the end does not matter.

    An HTTP length proves little: a file that was cut off before it was served has the right one.
    Formats without an end count as whole.
    """
    match media_type:
        case "image/png":
            return data.rfind(b"IEND\xaeB`\x82") >= 0
        case "image/jpeg":
            return _jpeg_is_whole(data)
        case "image/webp" | "audio/wav":
            length = int.from_bytes(data[4:8], "little")
            # A sound that was streamed has no length.
            return len(data) >= 8 + length or (data[8:12] == b"WAVE" and length >= _STREAMED)
        case "image/gif":
            return _gif_is_whole(data)
        case "video/mp4" | "video/quicktime" | "audio/mp4":
            return _boxes_are_whole(data, {b"moov", b"mdat"})
        case "image/avif" | "image/heic":
            # Small pictures may be inside the description, as "idat".
            has_own = b"idat" in data[: 1 << 16]
            return _boxes_are_whole(data, {b"meta"} if has_own else {b"meta", b"mdat"})
        case "model/gltf-binary":
            return len(data) >= 12 and len(data) >= int.from_bytes(data[8:12], "little")
        case "image/svg+xml":
            return data.rfind(b"</svg") >= 0
        case "application/pdf":
            return data.rfind(b"%%EOF") >= 0
        case "application/zip":
            return data.rfind(b"PK\x05\x06") >= 0
        case "video/webm":
            return _webm_is_whole(data)
    return True


_BOXES = frozenset(
    b"ftyp moov mdat moof mfra meta free skip wide uuid udta pdin sidx ssix styp emsg prft".split()
)
"""The boxes that may be at the top of a file; anything else is not part of it."""


def _boxes_are_whole(data: _Bytes, needed: set[bytes]) -> bool:
    """Walk the boxes at the top by their lengths; the needed ones must be there."""
    place, missing = 0, set(needed)
    while len(data) >= place + 8:
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length == 0 and kind in _BOXES:  # it reaches to the end of the file
            return missing <= {kind}
        if length < 8 or kind not in _BOXES:
            break
        place += length
        if place > len(data):
            return False
        missing.discard(kind)
    return not missing


def _gif_is_whole(data: _Bytes) -> bool:
    """Walk the blocks to the trailer, the end of the picture."""
    place = _after_colours(data, 10, 13)
    while len(data) > place:
        match data[place]:
            case 0x3B:
                return True
            case 0x21:
                place += 2
            case 0x2C:
                place = _after_colours(data, place + 9, place + 10) + 1
            case _:
                return False
        while len(data) > place and data[place]:
            place += 1 + data[place]
        place += 1
    return False


def _after_colours(data: _Bytes, flags_at: int, place: int) -> int:
    """Return where the table of colours at `place` ends, if there is one."""
    flags = data[flags_at] if len(data) > flags_at else 0
    return place + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _webm_is_whole(data: _Bytes) -> bool:
    """Compare with the length of the segment; one that was streamed has none."""
    header = _read_length(data, 4)
    if header is None:
        return False
    segment = header[1] + header[0]
    length = _read_length(data, segment + 4)
    if length is None or data[segment : segment + 4] != b"\x18S\x80g":
        return False
    is_unknown = length[0] == (1 << 7 * (length[1] - segment - 4)) - 1
    return is_unknown or len(data) >= length[1] + length[0]


def _read_length(data: _Bytes, place: int) -> tuple[int, int] | None:
    """Return a length, whose first byte says how long it is, and where its content begins."""
    if len(data) <= place or data[place] == 0:
        return None
    size = 9 - data[place].bit_length()
    if len(data) < place + size:
        return None
    return int.from_bytes(data[place : place + size], "big") & ((1 << 7 * size) - 1), place + size


def _jpeg_is_whole(data: _Bytes) -> bool:
    """Walk the segments to the scan: a thumbnail inside one has a scan and an end of its own."""
    place = 2
    while len(data) >= place + 4 and data[place] == 0xFF:
        if data[place + 1] == 0xDA:
            return data.rfind(b"\xff\xd9") > place
        if data[place + 1] == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


class _OnDisk:
    """The bytes of a file, read where they are needed: a mapping would count as memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> bytes: ...

    def __getitem__(self, place: int | slice) -> int | bytes:
        if isinstance(place, int):
            return os.pread(self._descriptor, 1, place)[0]
        start, stop, _ = place.indices(self._size)
        return os.pread(self._descriptor, max(0, stop - start), start)

    def rfind(self, sub: bytes) -> int:
        """Return its last place, or -1."""
        end = self._size
        while end > 0:
            # Neighbouring blocks overlap, because it may cross their border.
            start = max(0, end - _BLOCK_BYTES)
            found = self[start : end + len(sub) - 1].rfind(sub)
            if found >= 0:
                return start + found
            end = start
        return -1


def is_whole_file(path: str, media_type: str) -> bool:
    """Return whether a file on the disk reaches its own end."""
    with open(path, "rb") as file:
        return is_whole(media_type, _OnDisk(file.fileno()))
