"""Where a picture says that a model made it: its XMP packet, and its C2PA manifest.

What always holds: a packet is kept as it is, except for one added line if it does not name the
picture's digital source type; nothing is removed silently; a C2PA manifest is broken if its boxes
do not fit into each other, or if the file is not the one whose hash it holds.
Not promised: that a signature is valid or trusted. That takes certificates.

Sources: IPTC Photo Metadata 2023.2 (DigitalSourceType); C2PA 2.1, appendix A (embedding); Google
Merchant Center (generated pictures must keep trainedAlgorithmicMedia). Read in November 2026.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

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
    return bool(_manifest_store(content))


def c2pa_state(content: bytes) -> str:
    """Return "none", "present" or "broken"."""
    store = _manifest_store(content)
    if not store:
        return "none"
    try:
        return "present" if _is_intact(content, store) else "broken"
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        return "broken"


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


def _is_intact(content: bytes, store: bytes) -> bool:
    """Tell whether the boxes fit, and the file has the hash that its last manifest holds.

    Raises ValueError and others for boxes that make no sense.
    """
    (kind, outer), *rest = _boxes(store)
    label, manifests = _labelled(outer)
    if kind != b"jumb" or label != "c2pa" or rest or not manifests:
        return False
    _, parts = _labelled(manifests[-1][1])  # the last manifest is the file's own
    for _, part in parts:
        label, assertions = _labelled(part)
        if label != "c2pa.assertions":
            continue
        for _, assertion in assertions:
            label, contents = _labelled(assertion)
            if label == "c2pa.hash.data":
                return _has_hash(content, _cbor(contents[0][1], 0)[0])
    return True  # bound in another way, which is not looked at here


def _has_hash(content: bytes, binding: dict[str, Any]) -> bool:
    """Compare the file, without the parts that the manifest leaves out, with the hash in it."""
    skipped = sorted((one["start"], one["length"]) for one in binding.get("exclusions", ()))
    edges = [(0, 0), *skipped, (len(content), 0)]
    digest = hashlib.new(binding.get("alg", "sha256"))
    for (start, length), (following, _) in pairwise(edges):
        digest.update(content[start + length : following])
    return bool(digest.digest() == binding["hash"])


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split boxes: kind and body of each; raises ValueError if they do not fit."""
    found, place = [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if length < 8 or place + length > len(data):
            raise ValueError("a box reaches beyond its end")
        found.append((data[place + 4 : place + 8], data[place + 8 : place + length]))
        place += length
    return found


def _labelled(body: bytes) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return the label of a box of boxes, and what is in it."""
    (_, description), *inner = _boxes(body)
    label = description[17:].partition(b"\0")[0].decode() if description[16] & 2 else ""
    return label, inner


def _cbor(data: bytes, place: int) -> tuple[Any, int]:
    """Decode one value of CBOR, as far as manifests need it; return it and where it ends."""
    major, short = data[place] >> 5, data[place] & 31
    place += 1
    value: Any = short
    if 24 <= short <= 27:
        size = 1 << (short - 24)
        value = int.from_bytes(data[place : place + size], "big")
        place += size
    elif short > 27:
        raise ValueError("a length that is not given")
    if major in (2, 3):
        text = data[place : place + value]
        return (text if major == 2 else text.decode()), place + value
    if major in (4, 5):
        items = []
        for _ in range(value * (major - 3)):
            item, place = _cbor(data, place)
            items.append(item)
        pairs = zip(items[::2], items[1::2], strict=True)
        return (items if major == 4 else dict(pairs)), place
    if major == 6:
        return _cbor(data, place)
    return (-1 - value if major == 1 else value), place
