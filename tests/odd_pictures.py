"""Seeded pictures of every kind that a service may return: modes, profiles, shapes, damage."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">{inside}</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16")


def odd_picture(seed: int) -> bytes:
    """Return one picture, always the same for a seed; about one in 20 is broken."""
    chance = random.Random(seed)
    width, height = chance.choice(
        ((1, 5000), (5000, 1), (1, 1), (640, 480), (300, 900), (1024, 1024), (17, 33))
    )
    mode = chance.choice(MODES)
    image = _drawn(chance, (width, height), mode)
    form = chance.choice(_forms(mode))
    options: dict[str, Any] = {}
    if chance.random() < 0.5:
        inside = f"<Iptc4xmpExt:DigitalSourceType>{TYPE}</Iptc4xmpExt:DigitalSourceType>"
        xmp = XMP.format(inside=inside if chance.random() < 0.5 else "").encode()
        if form == "PNG":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
        elif form in ("JPEG", "WEBP"):
            options["xmp"] = xmp
    if form in ("JPEG", "WEBP", "PNG") and chance.random() < 0.4:
        exif = Image.Exif()
        exif[0x0112] = chance.randint(1, 8)
        exif[0x010F] = "Camera"
        options["exif"] = exif.tobytes()
    if mode in ("RGB", "RGBA") and chance.random() < 0.4:
        options["icc_profile"] = _profile(chance)
    written = io.BytesIO()
    image.save(written, form, **options)
    content = written.getvalue()
    if form == "PNG" and chance.random() < 0.2:
        content = with_chunk(content, b"caBX", b"jumb c2pa")
    if chance.random() < 0.05:
        return content[: chance.randint(0, max(1, len(content) // 2))]
    return content


def with_chunk(content: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a PNG with one more chunk after its header."""
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return content[:33] + struct.pack(">I", len(body)) + kind + body + crc + content[33:]


def _drawn(chance: random.Random, size: tuple[int, int], mode: str) -> Image.Image:
    base = Image.new("RGBA", size, (chance.randrange(256), 90, 200, 255))
    draw = ImageDraw.Draw(base)
    for _ in range(6):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        colour = tuple(chance.randrange(256) for _ in range(4))
        draw.rectangle((x, y, x + size[0] // 3, y + size[1] // 3), fill=colour)
    if mode == "I;16":
        return base.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    return base.convert("RGB").convert(mode) if mode in ("CMYK", "P", "1") else base.convert(mode)


def _forms(mode: str) -> tuple[str, ...]:
    if mode in ("RGB", "L"):
        return ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
    if mode == "CMYK":
        return ("JPEG", "TIFF")
    if mode == "RGBA":
        return ("PNG", "WEBP", "TIFF")
    return ("PNG",)


def _profile(chance: random.Random) -> bytes:
    kind = chance.choice(("sRGB", "LAB", "damaged", "wide"))
    if kind == "damaged":
        return b"not a profile" * 20
    if kind == "LAB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "sRGB":
        return profile
    # Swap red and green: a profile of another colour space, whose effect can be seen.
    swapped = profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    return swapped.replace(b"s\0R\0G\0B", b"w\0i\0d\0e")
