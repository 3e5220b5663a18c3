"""Recognising pictures, videos and sounds by their content; names and headers may be wrong.

Hides the formats: how each begins, and where it ends. What always holds: nothing is decoded, and no
content raises an error here.
Not promised: that a whole picture can be shown, or that a format without an end is whole.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

HEAD_BYTES = 64
"""Enough of a file to recognise it."""

_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), media_type, extension)
    for pattern, media_type, extension in (
        (rb"\x89PNG\r\n\x1a\n", "image/png", ".png"),
        (rb"\xff\xd8\xff", "image/jpeg", ".jpg"),
        (rb"RIFF....WEBP", "image/webp", ".webp"),
        (rb"GIF8[79]a", "image/gif", ".gif"),
        (rb"....ftyp(?:avif|avis)", "image/avif", ".avif"),
        (rb"....ftyp(?:heic|heix|mif1)", "image/heic", ".heic"),
        (rb"....ftypM4[AB] ", "audio/mp4", ".m4a"),
        (rb"....ftypqt  ", "video/quicktime", ".mov"),
        (rb"....ftyp", "video/mp4", ".mp4"),
        (rb"\x1aE\xdf\xa3", "video/webm", ".webm"),
        (rb"RIFF....WAVE", "audio/wav", ".wav"),
        (rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg", ".mp3"),
        (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac", ".aac"),
        (rb"OggS", "audio/ogg", ".ogg"),
        (rb"fLaC", "audio/flac", ".flac"),
        (rb"II\*\x00|MM\x00\*", "image/tiff", ".tif"),
    )
)
_RECOGNISED = frozenset(
    (*(name for _, *names in _SIGNATURES for name in names), ".jpeg", ".tiff", ".m4v")
)
_BY_NAME = {
    "model/gltf-binary": ".glb",
    "model/obj": ".obj",
    "model/stl": ".stl",
    "image/svg+xml": ".svg",
    "image/x-exr": ".exr",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
}
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}$")
_NAMELESS = ("", "application/octet-stream", "binary/octet-stream")

_LAST_BYTES = {
    "image/png": b"IEND\xaeB`\x82",
    "image/svg+xml": b"</svg",
    "application/pdf": b"%%EOF",
    "application/zip": b"PK\x05\x06",
}
_STREAMED = 0x7FFFFF00
_BOXES = frozenset(
    b"ftyp moov mdat moof mfra meta free skip wide uuid udta pdin sidx ssix styp emsg prft".split()
)
"""The boxes that may be at the top of a film; anything else is not part of it."""


def recognise(head: bytes) -> tuple[str, str] | None:
    """Return (media type, extension) of a file that begins like this, or None."""
    for pattern, media_type, extension in _SIGNATURES:
        if pattern.match(head):
            return media_type, extension
    return None


def kind_by_name(media_type: str, path: str) -> tuple[str, str] | None:
    """Return (media type, extension) of a file whose content is not recognised, by its names.

    None for kinds that are always recognised when they are whole, and for what servers send in
    place of a file: pages, errors, text.
    """
    found = _SUFFIX.search(path)
    suffix = found[0].lower() if found else ""
    if media_type in _NAMELESS:
        media_type = next((kind for kind, end in _BY_NAME.items() if end == suffix), "")
    if media_type in _BY_NAME:
        return media_type, _BY_NAME[media_type]
    is_file = media_type.partition("/")[0] in ("image", "video", "audio", "model", "font")
    if not suffix or not is_file or {media_type, suffix} & _RECOGNISED:
        return None
    return media_type, suffix


def is_whole(media_type: str, data: bytes | mmap.mmap) -> bool:
    """Return whether a file reaches its own end; what follows the end does not matter.

    An HTTP length proves little: a file that was cut off before it was served has the right one.
    """
    match media_type:
        case "image/jpeg":
            return _jpeg_is_whole(data)
        case "image/gif":
            # Its last two bytes may be anywhere inside of it, so they count at the end only.
            return data[-HEAD_BYTES:].rstrip(b"\0\r\n").endswith(b"\0;")
        case "image/webp" | "audio/wav":
            length = int.from_bytes(data[4:8], "little")
            # A sound that was streamed has no length.
            return len(data) >= 8 + length or (data[8:12] == b"WAVE" and length >= _STREAMED)
        case "model/gltf-binary":
            return len(data) >= 12 and len(data) >= int.from_bytes(data[8:12], "little")
        case "video/mp4" | "video/quicktime" | "audio/mp4":
            return _boxes_are_whole(data, {b"moov", b"mdat"})
        case "image/avif" | "image/heic":
            # Small pictures may be inside the description, as "idat".
            has_own = b"idat" in data[: 1 << 16]
            return _boxes_are_whole(data, {b"meta"} if has_own else {b"meta", b"mdat"})
    last = _LAST_BYTES.get(media_type)
    return last is None or data.rfind(last) >= 0


def is_whole_file(path: str, media_type: str) -> bool:
    """Return whether a file on the disk, which is not empty, reaches its own end."""
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return is_whole(media_type, data)


def _boxes_are_whole(data: bytes | mmap.mmap, needed: set[bytes]) -> bool:
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


def _jpeg_is_whole(data: bytes | mmap.mmap) -> bool:
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
