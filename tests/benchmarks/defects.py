"""Pictures with one planted defect each, and sound ones that look alike: how good the checks are.

`python tests/benchmarks/run.py checks` prints the table of README.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

from PIL import Image, ImageCms, ImageDraw, ImageFilter

from batch_runner.ledger.verdict import Result
from batch_runner.pictures.judge import Around, Judged, judge
from batch_runner.pictures.likeness import Shown, twins
from batch_runner.pictures.measure import Measured, distance, measure

SIDE_PX = 640
RULES: dict[str, Any] = {
    "blank": True,
    "edited": 8,
    "size": {"longest": SIDE_PX, "longest_max": 4 * SIDE_PX},
    "aspect": "1:1",
    "format": {"types": ["jpeg", "png"], "colour": "embedded", "max_bytes": 2_000_000},
    "white": 0.8,
    "fill": 0.8,
    "cut_off": True,
    "provenance": "c2pa",
}
"""What every picture here must hold to; a sound one does."""

_WHITE = (255, 255, 255)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_LOOK: dict[str, Any] = {"kind": "coloured", "shadow": "contact", "fill": 0.88, "shift": 0.0}


@dataclass(frozen=True)
class Drawn:
    """A picture: what is planted in it (a check's name, or nothing), and what it was made from."""

    name: str
    content: bytes
    source: bytes
    path: str
    planted: str = ""


# Products


@lru_cache(maxsize=64)
def draw_product(seed: str, kind: str) -> Image.Image:
    """Draw a product with transparency around it, always the same one for a seed."""
    draw = random.Random(f"product {seed}")
    colour = {
        "coloured": tuple(draw.randrange(20, 225) for _ in range(3)),
        "white": (draw.randrange(244, 252),) * 3,
        "black": (draw.randrange(4, 30),) * 3,
    }[kind]
    width = draw.randrange(240, 500)
    product = Image.new("RGBA", (width, 600))
    canvas = ImageDraw.Draw(product)
    lighter = tuple(min(255, value + 3 if kind == "white" else value + 22) for value in colour)
    darker = tuple(max(0, value - (14 if kind == "white" else 34)) for value in colour)
    shape = draw.choice(("bottle", "box", "lamp"))
    if shape == "bottle":
        canvas.rounded_rectangle((0, 170, width - 1, 599), 60, colour)
        canvas.rectangle((width * 0.35, 0, width * 0.65, 180), darker)
    elif shape == "box":
        canvas.rectangle((0, 60, width - 1, 599), colour)
        canvas.polygon([(0, 60), (width * 0.2, 0), (width - 1, 0), (width - 1, 60)], darker)
    else:
        canvas.polygon([(width * 0.2, 0), (width * 0.8, 0), (width - 1, 320), (0, 320)], colour)
        canvas.rectangle((width * 0.45, 320, width * 0.55, 580), darker)
        canvas.ellipse((width * 0.2, 550, width * 0.8, 599), darker)
    canvas.rectangle((width * 0.3, 220, width * 0.38, 560), lighter)
    canvas.line([(2, 300), (width - 3, 300)], darker, 4)
    for line in range(draw.randrange(2, 5)):
        canvas.text((width * 0.25, 320 + 40 * line), f"{seed} {line}", darker, font_size=34)
    return product


def draw_photo(seed: str, kind: str) -> Image.Image:
    """Draw the picture in: the product in front of a wall with a table, slightly noisy."""
    draw = random.Random(f"photo {seed}")
    wall = tuple(draw.randrange(110, 220) for _ in range(3))
    table = tuple(draw.randrange(60, 150) for _ in range(3))
    photo = Image.new("RGB", (SIDE_PX, draw.choice((SIDE_PX, 480, 800))), wall)
    canvas = ImageDraw.Draw(photo)
    canvas.rectangle((0, photo.height * 0.72, SIDE_PX, photo.height), table)
    product = draw_product(seed, kind)
    product.thumbnail((photo.width * 0.6, photo.height * 0.6))
    photo.paste(product, (draw.randrange(60, 160), round(photo.height * 0.25)), product)
    return Image.blend(photo, _noise(photo.size), 0.06)


@cache
def _noise(size: tuple[int, int]) -> Image.Image:
    return Image.effect_noise(size, 14).convert("RGB")


def draw_result(seed: str, **changes: Any) -> Image.Image:
    """Draw what a good edit makes of it: the product on white."""
    look = {**_LOOK, "size": (SIDE_PX, SIDE_PX), "ground": _WHITE, **changes}
    draw = random.Random(f"result {seed}")
    width, height = look["size"]
    picture = Image.new("RGB", (width, height), look["ground"])
    product = draw_product(seed, look["kind"])
    scale = look["fill"] * min(width / product.width, height / product.height)
    product = product.resize((round(product.width * scale), round(product.height * scale)))
    left = (width - product.width) // 2 + round(look["shift"] * product.width)
    top = (height - product.height) // 2
    if look["shadow"] != "none":
        _cast(picture, product.size, (left, top), look["shadow"], draw)
    picture.paste(product, (left, top), product)
    return picture


def _cast(
    picture: Image.Image,
    size: tuple[int, int],
    corner: tuple[int, int],
    shadow: str,
    draw: random.Random,
) -> None:
    """Paint a soft shadow: where the product stands, or one that reaches the lower edge."""
    width, height = size
    layer = Image.new("L", picture.size, 0)
    canvas = ImageDraw.Draw(layer)
    base = corner[1] + height
    depth, dark = 14, draw.randrange(40, 110)
    if shadow == "to the edge":
        # It touches less than a fifth of the border.
        width, depth = min(width, SIDE_PX // 3), picture.height - base + 30
    middle = corner[0] + size[0] // 2
    canvas.ellipse(
        (middle - width // 2, base - depth, middle + width // 2, base + depth), fill=dark
    )
    soft = layer.reduce(4).filter(ImageFilter.GaussianBlur(2.2))
    picture.paste((30, 28, 34), mask=soft.resize(layer.size, Image.Resampling.BILINEAR))


# Files


def encode(
    picture: Image.Image, form: str, *, profile: bool = True, c2pa: bool = True, quality: int = 90
) -> bytes:
    """Encode a picture with an sRGB profile and a C2PA manifest."""
    data = io.BytesIO()
    options: dict[str, Any] = {"icc_profile": _SRGB} if profile else {}
    options |= {"quality": quality, "subsampling": 0} if form == "jpeg" else {"compress_level": 1}
    picture.save(data, form, **options)
    return with_c2pa(data.getvalue()) if c2pa else data.getvalue()


def with_c2pa(content: bytes) -> bytes:
    """Put a C2PA manifest into a JPEG or PNG, bound to its content by a hash."""
    is_png = content.startswith(b"\x89PNG")
    start = 33 if is_png else 2
    length = len(_wrapped(_store(start, 0, bytes(32)), is_png))
    length = len(_wrapped(_store(start, length, bytes(32)), is_png))
    whole = sha256(content).digest()
    return content[:start] + _wrapped(_store(start, length, whole), is_png) + content[start:]


def _wrapped(store: bytes, is_png: bool) -> bytes:
    if is_png:
        checksum = zlib.crc32(b"caBX" + store)
        return struct.pack(">I", len(store)) + b"caBX" + store + struct.pack(">I", checksum)
    body = b"JP\x00\x01\x00\x00\x00\x01" + store
    return b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body


def _store(start: int, length: int, digest: bytes) -> bytes:
    binding = {
        "exclusions": [{"start": start, "length": length + (1 << 16)}],
        "alg": "sha256",
        "hash": digest,
    }
    # The largest form of a number, so that the length does not depend on its value.
    binding["exclusions"] = [{"start": start, "length": _Wide(length)}]
    data = _superbox("c2pa.hash.data", _box(b"cbor", _cbor(binding)))
    assertions = _superbox("c2pa.assertions", data)
    return _superbox("c2pa", _superbox("urn:c2pa:1", assertions))


class _Wide(int):
    """A number that is encoded in four bytes."""


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def _superbox(label: str, *parts: bytes) -> bytes:
    description = (
        b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71\x03" + label.encode() + b"\0"
    )
    return _box(b"jumb", _box(b"jumd", description) + b"".join(parts))


def _cbor(value: Any) -> bytes:
    match value:
        case _Wide():
            return b"\x1a" + struct.pack(">I", value)
        case int():
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value)) + value.encode()
        case list():
            return _head(4, len(value)) + b"".join(map(_cbor, value))
        case _:
            pairs = (_cbor(key) + _cbor(one) for key, one in value.items())
            return _head(5, len(value)) + b"".join(pairs)


def _head(major: int, value: int) -> bytes:
    return bytes([major << 5 | value]) if value < 24 else bytes([major << 5 | 24, value])


# Sound pictures


def sound(count: int = 200) -> Iterator[Drawn]:
    """Draw sound pictures of products of their own."""
    kinds: Sequence[tuple[str, dict[str, Any]]] = (
        ("coloured", {}),
        ("white on white", {"kind": "white"}),
        ("black", {"kind": "black"}),
        ("shadow to the edge", {"shadow": "to the edge", "fill": 0.84}),
        ("transparent", {}),
        ("tight", {"fill": 0.96, "shadow": "none"}),
    )
    for number in range(count):
        name, changes = kinds[number % len(kinds)]
        seed = f"s{number}"
        form = "png" if name == "transparent" or number % 4 == 0 else "jpeg"
        picture = draw_result(seed, **changes)
        if name == "transparent":
            picture = Image.new("RGBA", picture.size)
            product = draw_product(seed, "coloured")
            product = product.resize((product.width * 550 // 600, 550))
            picture.paste(product, ((SIDE_PX - product.width) // 2, 45), product)
        source = encode(draw_photo(seed, changes.get("kind", "coloured")), "jpeg", c2pa=False)
        path = f"{seed}.{'jpg' if form == 'jpeg' else form}"
        yield Drawn(f"{name} {number}", encode(picture, form), source, path)


# Defects


def defects(each: int = 16) -> Iterator[Drawn]:
    """Draw pictures with one planted defect each."""
    for name, (check, plant) in _PLANTS.items():
        for number in range(each):
            seed = f"{name} {number}"
            draw = random.Random(seed)
            kind = draw.choice(("coloured", "coloured", "black"))
            source = draw_photo(seed, kind)
            drawn = Drawn(
                seed,
                b"",
                encode(source, "jpeg", c2pa=False),
                f"{seed}.{'jpg' if number % 2 else 'png'}",
                check,
            )
            yield plant(drawn, number, draw, {"kind": kind})


_Plant = Callable[[Drawn, int, random.Random, dict[str, Any]], Drawn]


def _filed(drawn: Drawn, picture: Image.Image, **options: Any) -> Drawn:
    form = "png" if drawn.path.endswith(".png") else "jpeg"
    return replace(drawn, content=encode(picture, form, **options))


def _off_white(drawn: Drawn, number: int, _: random.Random, look: dict[str, Any]) -> Drawn:
    level = 250 + number % 5
    return _filed(drawn, draw_result(drawn.name, ground=(level, level, level), **look))


def _border(drawn: Drawn, number: int, draw: random.Random, look: dict[str, Any]) -> Drawn:
    picture = draw_result(drawn.name, **look)
    ink = draw.choice([(0, 0, 0), (200, 200, 200), (254, 254, 254), (230, 240, 255)])
    edge = SIDE_PX - 1
    sides = [(0, 0, edge, 0), (0, 0, 0, edge), (edge, 0, edge, edge), (0, edge, edge, edge)]
    for side in sides[: 1 + number % 4]:
        ImageDraw.Draw(picture).line(side, ink)
    drawn = replace(drawn, path=drawn.path.replace(".jpg", ".png"))  # a JPEG blurs such a line
    return _filed(drawn, picture)


def _blank(drawn: Drawn, number: int, draw: random.Random, _: dict[str, Any]) -> Drawn:
    level = (0, 255, 128, 12)[number % 4]
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), (level, level, level))
    if number % 3 == 0:
        picture = Image.blend(picture, _noise(picture.size), 0.04)
    return _filed(drawn, picture, quality=draw.randrange(60, 95))


def _unedited(drawn: Drawn, number: int, draw: random.Random, _: dict[str, Any]) -> Drawn:
    with Image.open(io.BytesIO(drawn.source)) as source:
        picture = source.convert("RGB")
    if number % 3 == 0:
        picture = picture.resize((SIDE_PX, SIDE_PX))
    elif number % 3 == 1:  # cut to the shape that was asked for
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize((SIDE_PX, SIDE_PX))
    else:
        picture = picture.resize((picture.width * 5 // 4, picture.height * 5 // 4))
    drawn = replace(drawn, path=drawn.path.replace(".png", ".jpg"))
    return _filed(drawn, picture, quality=draw.randrange(35, 95))


def _swapped(drawn: Drawn, number: int, draw: random.Random, look: dict[str, Any]) -> Drawn:
    # The other product's own result is among the sound ones.
    other = f"s{6 * number}"
    del look
    return _filed(drawn, draw_result(other), quality=draw.randrange(60, 95))


def _wrong_shape(drawn: Drawn, number: int, _: random.Random, look: dict[str, Any]) -> Drawn:
    size = ((SIDE_PX, 800), (800, SIDE_PX), (SIDE_PX, 670), (1138, SIDE_PX))[number % 4]
    return _filed(drawn, draw_result(drawn.name, size=size, **look))


def _cropped(drawn: Drawn, number: int, draw: random.Random, look: dict[str, Any]) -> Drawn:
    if number % 4 == 1:
        return _filed(drawn, draw_result(drawn.name, fill=1.06, shadow="none", **look))
    if number % 4 == 3:
        picture = draw_result(drawn.name, **look)
        box = picture.convert("L").point(lambda value: 255 * (value < 128)).getbbox() or (
            0,
            0,
            1,
            1,
        )
        away = SIDE_PX - box[0] - (box[2] - box[0]) * 2 // 3
        moved = Image.new("RGB", picture.size, _WHITE)
        moved.paste(picture, (away, 0))
        return _filed(drawn, moved)
    whole = draw_result(drawn.name, fill=0.95, shadow="none", **look)
    cut = draw.randrange(50, 120)
    top = cut if number % 4 else 0
    return _filed(drawn, whole.crop((0, top, SIDE_PX, SIDE_PX - cut + top)).resize(whole.size))


def _stripped(drawn: Drawn, _: int, __: random.Random, look: dict[str, Any]) -> Drawn:
    return _filed(drawn, draw_result(drawn.name, **look), profile=False)


def _wrong_file(drawn: Drawn, number: int, _: random.Random, look: dict[str, Any]) -> Drawn:
    picture = draw_result(drawn.name, **look)
    match number % 4:
        case 0:  # a JPEG that is named .png, and the other way round
            return replace(drawn, content=encode(picture, "jpeg"))
        case 1:
            return replace(drawn, content=encode(picture, "png"))
        case 2:
            data = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(data, "png", exif=exif, icc_profile=_SRGB)
            return replace(drawn, content=with_c2pa(data.getvalue()))
        case _:
            drawn = _filed(drawn, picture)
            return replace(drawn, content=drawn.content[: len(drawn.content) // 2])


def _broken_c2pa(drawn: Drawn, number: int, _: random.Random, look: dict[str, Any]) -> Drawn:
    drawn = _filed(drawn, draw_result(drawn.name, **look))
    content = drawn.content
    is_png = content.startswith(b"\x89PNG")
    # From the length of the chunk or segment to the end of what is in it.
    start = 33 if is_png else 4
    size = int.from_bytes(content[start : start + (4 if is_png else 2)], "big")
    body = slice(41, 41 + size) if is_png else slice(14, 4 + size)
    store = content[body]
    match number % 4:
        case 0:  # a box that is longer than what it is in
            at = store.rindex(b"jumd") - 4
            store = store[:at] + b"\x00\xff\xff\xff" + store[at + 4 :]
        case 1:  # cut off by a tool that does not know it
            store = store[: len(store) * 2 // 3] + bytes(len(store) - len(store) * 2 // 3)
        case 2:  # a store without any manifest in it
            store = _superbox("c2pa", _box(b"free", bytes(len(store) - 8 - len(_superbox("c2pa")))))
        case _:  # a box that ends too early, so that the next one begins within it
            at = store.index(b"cbor") - 4
            shorter = int.from_bytes(store[at : at + 4], "big") - 9
            store = store[:at] + struct.pack(">I", shorter) + store[at + 4 :]
    assert len(store) == len(content[body])
    content = content[: body.start] + store + content[body.stop :]
    if is_png:
        checksum = zlib.crc32(content[37 : body.stop])
        content = content[: body.stop] + struct.pack(">I", checksum) + content[body.stop + 4 :]
    return replace(drawn, content=content)


def _no_provenance(drawn: Drawn, _: int, __: random.Random, look: dict[str, Any]) -> Drawn:
    return _filed(drawn, draw_result(drawn.name, **look), c2pa=False)


def _small(drawn: Drawn, number: int, _: random.Random, look: dict[str, Any]) -> Drawn:
    side = (320, 512, 639, 600)[number % 4]
    return _filed(drawn, draw_result(drawn.name, size=(side, side), **look))


def _lost(drawn: Drawn, _: int, draw: random.Random, look: dict[str, Any]) -> Drawn:
    return _filed(drawn, draw_result(drawn.name, fill=draw.uniform(0.3, 0.68), **look))


_PLANTS: dict[str, tuple[str, _Plant]] = {
    "off-white": ("white", _off_white),
    "border of one pixel": ("white", _border),
    "blank": ("blank", _blank),
    "near copy": ("edited", _unedited),
    "swapped": ("edited", _swapped),
    "wrong shape": ("aspect", _wrong_shape),
    "cropped": ("cut_off", _cropped),
    "stripped profile": ("format", _stripped),
    "wrong file": ("format", _wrong_file),
    "broken C2PA": ("provenance", _broken_c2pa),
    "no provenance": ("provenance", _no_provenance),
    "too small": ("size", _small),
    "small product": ("fill", _lost),
}


# How good the checks are


def inspect(drawn: Sequence[Drawn]) -> list[list[Judged]]:
    """Judge pictures as one batch, each of a product of its own."""
    measured = [measure(one.content) for one in drawn]
    sent = [
        measure(one.source, seen.width / seen.height) if seen.height else Measured()
        for one, seen in zip(drawn, measured, strict=True)
    ]
    shown = [
        Shown(job=one.name, product=one.name, cells=seen.cells, sources=(source.cells,))
        for one, seen, source in zip(drawn, measured, sent, strict=True)
    ]
    twin = twins(shown)
    return [
        judge(seen, RULES, _around(one, seen, source, twin.get(at)))
        for at, (one, seen, source) in enumerate(zip(drawn, measured, sent, strict=True))
    ]


def _around(one: Drawn, seen: Measured, source: Measured, twin: str | None) -> Around:
    grids = (source.cells, source.fitted)
    unlike = min((distance(seen.cells, cells) for cells in grids if cells), default=None)
    return Around(path=one.path, unlike_sources=unlike, twin=twin)


@dataclass
class Score:
    """How one check did: its own defects that it found, the sound pictures that it failed."""

    planted: int = 0
    found: int = 0
    sound: int = 0
    alarms: int = 0
    unmeasurable: int = 0
    missed: tuple[str, ...] = ()


def scores(drawn: Sequence[Drawn]) -> dict[str, Score]:
    """Return the score of each check."""
    found: dict[str, Score] = defaultdict(Score)
    for one, results in zip(drawn, inspect(drawn), strict=True):
        for judged in results:
            score = found[judged.check]
            failed = judged.result is Result.FAIL
            if one.planted == judged.check:
                score.planted += 1
                score.found += failed
            elif not one.planted:
                score.sound += 1
                score.alarms += failed
                score.unmeasurable += judged.result is Result.UNMEASURABLE
            if failed != (one.planted == judged.check) and one.planted in ("", judged.check):
                score.missed += (f"{one.name}: {judged.measured}",)
    return dict(found)
