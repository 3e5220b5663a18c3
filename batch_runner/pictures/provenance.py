"""Where a picture says that a model made it: its XMP packet, and its C2PA manifest.

What always holds: a packet is kept as it is, except for one added line if it does not name the
picture's digital source type; a C2PA manifest is broken if its boxes cannot be read.
Not promised: that a manifest is this file's, or that its signature is valid. That takes a verifier.

Sources: IPTC Photo Metadata 2023.2 (DigitalSourceType); C2PA 2.1, appendix A (embedding); Google
Merchant Center (generated pictures must keep trainedAlgorithmicMedia). Read in November 2026.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_LEAST_DEPTH = 4
"""A store holds a manifest, which holds assertions, which hold their boxes."""

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


def c2pa_state(content: bytes) -> str:
    """Return "none", "present" or "broken", for a JPEG, PNG or WebP."""
    store = _manifest_store(content)
    if not store:
        return "none"
    try:
        is_whole = b"c2pa\0" in store[:64] and _depth(store) >= _LEAST_DEPTH
    except (ValueError, RecursionError):
        return "broken"
    return "present" if is_whole else "broken"


def _manifest_store(content: bytes) -> bytes:
    """Return the JUMBF boxes of the manifests; empty if there are none."""
    if content.startswith(b"\xff\xd8"):
        # Each segment: "JP", a number for the box, one for the segment, then the box. A box that
        # needs several segments has its head in each.
        found = [
            body
            for marker, body in _jpeg_segments(content)
            if marker == 0xEB and body.startswith(b"JP") and body[12:16] == b"jumb"
        ]
        if not any(b"c2pa" in body for body in found):
            return b""
        return b"".join(body[8 if at == 0 else 16 :] for at, body in enumerate(found))
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return next((body for kind, body in _png_chunks(content) if kind == b"caBX"), b"")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return next((body for kind, body in _riff_chunks(content) if kind == b"C2PA"), b"")
    return b""


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the segments before the pixels: marker and body."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        size = int.from_bytes(content[place + 2 : place + 4], "big")
        yield content[place + 1], content[place + 4 : place + 2 + size]
        place += 2 + size


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each chunk; the body is one zero byte if its checksum is wrong."""
    place = 8
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        kind, body = content[place + 4 : place + 8], content[place + 8 : end]
        is_sound = zlib.crc32(kind + body) == int.from_bytes(content[end : end + 4], "big")
        yield kind, body if is_sound else b"\0"
        place = end + 4


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        yield content[place : place + 4], content[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _depth(data: bytes) -> int:
    """Return how deep boxes are in boxes; raises ValueError if they do not fit into each other."""
    inner, place = 0, 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if length < 8 or place + length > len(data):
            raise ValueError("a box reaches beyond its end")
        if data[place + 4 : place + 8] == b"jumb":
            inner = max(inner, _depth(data[place + 8 : place + length]))
        place += length
    return inner + 1
