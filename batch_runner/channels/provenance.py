"""Where a picture says that a model made it: its XMP packet, and its C2PA signature.

What always holds: a packet is kept as it is, except for one added line if it does not name the
picture's digital source type; nothing is removed silently.

Sources: IPTC Photo Metadata 2023.2 (DigitalSourceType); C2PA 2.1, appendix A (embedding); Google
Merchant Center (generated pictures must keep trainedAlgorithmicMedia). Read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_TYPE = re.compile(rb"DigitalSourceType\b[^<>\"']*(?:=\s*[\"']|>|resource=[\"'])\s*([^\"'<>\s]+)")
_END = re.compile(rb"</\s*[\w.-]+:RDF\s*>")
_LINE = (
    b'<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" rdf:about=""'
    b' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    b' Iptc4xmpExt:DigitalSourceType="%b"/>' % GENERATED.encode()
)
_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%b</rdf:RDF>'
    b'</x:xmpmeta><?xpacket end="w"?>' % _LINE
)


def source_type(xmp: bytes | None) -> str | None:
    """Return the digital source type that an XMP packet names, or None."""
    found = _TYPE.search(xmp or b"")
    return found[1].decode(errors="replace") if found else None


def with_source_type(xmp: bytes | None) -> bytes:
    """Return the packet, with a digital source type if it had none.

    A packet that cannot be extended is replaced: one that says nothing is worth less than the type.
    """
    if xmp is None:
        return _PACKET
    if source_type(xmp) is not None:
        return xmp
    ends = [found.start() for found in _END.finditer(xmp)]
    if not ends:
        return _PACKET
    return xmp[: ends[-1]] + _LINE + xmp[ends[-1] :]


def has_c2pa(content: bytes) -> bool:
    """Tell whether a JPEG, PNG or WebP carries a C2PA manifest, valid or not."""
    if content.startswith(b"\xff\xd8"):
        return any(marker == 0xEB and b"c2pa" in body for marker, body in _jpeg_segments(content))
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return any(kind == b"caBX" for kind in _chunks(content, 8, ">", 12))
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return any(kind == b"C2PA" for kind in _chunks(content, 12, "<", 8))
    return False


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the segments before the pixels: marker and body."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        size = int.from_bytes(content[place + 2 : place + 4], "big")
        yield content[place + 1], content[place + 4 : place + 2 + size]
        place += 2 + size


def _chunks(content: bytes, start: int, order: str, around: int) -> Iterator[bytes]:
    """Yield the kinds of a file's chunks: size and kind as in PNG, or kind and size as in RIFF."""
    place = start
    while place + 8 <= len(content):
        first, second = content[place : place + 4], content[place + 4 : place + 8]
        size, kind = (first, second) if order == ">" else (second, first)
        length = int.from_bytes(size, "big" if order == ">" else "little")
        yield kind
        place += around + length + (length % 2 if order == "<" else 0)
