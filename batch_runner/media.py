"""Which pictures and videos there are, by content alone; names and headers may say anything.

Hides the formats: how each begins, and where it ends. What always holds: reading a few bytes or the
whole, nothing is decoded, and no content whatever is an error here. Not promised: that a picture
which is whole can be shown.
"""

from __future__ import annotations

import mmap
import re

HEAD_BYTES = 64
"""As much of a file is enough to recognise it."""

_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (r"\x89PNG\r\n\x1a\n", "image/png", ".png"),
    (r"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (r"RIFF....WEBP", "image/webp", ".webp"),
    (r"GIF8[79]a", "image/gif", ".gif"),
    (r"....ftyp(?:avif|avis)", "image/avif", ".avif"),
    (r"....ftyp(?:heic|heix|mif1)", "image/heic", ".heic"),
    (r"....ftypqt  ", "video/quicktime", ".mov"),
    (r"....ftyp", "video/mp4", ".mp4"),
    (r"\x1aE\xdf\xa3", "video/webm", ".webm"),
    (r"(?:II\*\x00|MM\x00\*)", "image/tiff", ".tif"),
)

_RECOGNISERS = tuple(
    (re.compile(pattern.encode("latin-1"), re.DOTALL), media_type, extension)
    for pattern, media_type, extension in _SIGNATURES
)


def recognise(head: bytes) -> tuple[str, str] | None:
    """Return (media type, extension) of the picture or video that begins so, or None."""
    for pattern, media_type, extension in _RECOGNISERS:
        if pattern.match(head):
            return media_type, extension
    return None


def is_whole(media_type: str, data: bytes | mmap.mmap) -> bool:
    """Tell whether a picture reaches its own end; what may come after the end is no matter.

    A length that agrees proves little: what was cut off before it was served agrees with itself.
    Formats that do not say where they end count as whole.
    """
    match media_type:
        case "image/png":
            place = 8
            while len(data) >= place + 12 and data[place + 4 : place + 8] != b"IEND":
                place += 12 + int.from_bytes(data[place : place + 4], "big")
            return len(data) >= place + 12
        case "image/jpeg":
            return _jpeg_is_whole(data)
        case "image/webp":
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


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


def is_whole_file(path: str, media_type: str) -> bool:
    """Tell whether a picture on the disk reaches its own end."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return is_whole(media_type, data)
