"""What can be measured of one picture.

Hides Pillow. What always holds: the same content gives the same measurements; nothing is judged
here, so that a changed threshold needs no second look at any picture; what can't be seen is None.
Not promised: that what differs from the background is the product. It may be a shadow.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import reduce

import msgspec
from PIL import Image, ImageChops, ImageCms, ImageColor, ImageOps, ImageStat

from batch_runner.pictures.provenance import c2pa_state, source_type

VERSION = 3
"""Raised when the same content would give other measurements."""

CELLS = 16
_SEEN_EDGE = 1536
_ORIENTATION = 0x0112
_STRONG = 40
_FAINT = 16
_STEP = 24
_FADING = 2
_STEP_PX = 3
_BLOCK_PX = 4
_FLAT_SHARE = 0.52
_NOISE_LIMIT = 6
_COVERED_SHARE = 0.95
_TOUCHING_SHARE = 0.01


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen in front of a flat background.

    It fills between `fill_least` and `fill_most` of the frame's width or height. `edges` is
    "clear", "cut" if it is cut off, or "unclear" if something soft or faint touches an edge.
    """

    fill_least: float
    fill_most: float
    edges: str


class Measured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured of one picture.

    `why_not` says why nothing was. Width and height are as people see them. `colour` is "none",
    "srgb", "damaged", or the name of the colour profile. `spread` is the difference between the
    lightest and the darkest part, 0 to 255. `white` is the share of the border at exactly 255, and
    `white_side` that of the side with the least; None if the border is transparent. `cells` are
    the colours of a grid over the picture, `fitted` those over what fits the shape of its result.
    """

    why_not: str = ""
    size_bytes: int = 0
    media: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    colour: str = "none"
    spread: int = 0
    white: float | None = None
    white_side: float | None = None
    ground: Ground | None = None
    c2pa: str = "none"
    source_type: str | None = None
    cells: bytes = b""
    fitted: bytes = b""


class UndecodableError(Exception):
    """What should be a picture is none."""


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """Open a picture; the block raises UndecodableError if it can't be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which is no news
            with Image.open(io.BytesIO(content)) as image:
                yield image
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        raise UndecodableError from error


def measure(content: bytes, shape: float | None = None) -> Measured:
    """Measure a saved picture; or, for one that was sent, only what its result is compared with.

    `shape` is the width of that result divided by its height.
    """
    try:
        with opened(content) as image:
            if shape is None:
                return _measured(image, content)
            image.draft("RGB", (512, 512))
            seen = opaque(ImageOps.exif_transpose(image))
            fitted = ImageOps.fit(seen, (512, max(round(512 / shape), 1)), Image.Resampling.BOX)
            return Measured(size_bytes=len(content), cells=_grid(seen), fitted=_grid(fitted))
    except UndecodableError:
        return Measured(why_not="cannot be decoded", size_bytes=len(content))


def _measured(image: Image.Image, content: bytes) -> Measured:
    image.load()  # the metadata of a PNG may follow its pixels
    orientation = image.getexif().get(_ORIENTATION, 1)
    picture = ImageOps.exif_transpose(image) if orientation not in (0, 1) else image
    alpha = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        alpha = None if alpha.getextrema()[0] == 255 else alpha
    seen = opaque(picture)
    small = seen.resize((64, 64), Image.Resampling.BOX)
    spread = max(high - low for low, high in _extrema(small))
    if alpha is not None:
        low, high = _extrema(alpha.resize((64, 64), Image.Resampling.BOX))[0]
        spread = max(spread, high - low) if high else 0
    white, white_side = _white(seen) if alpha is None else (None, None)
    return Measured(
        size_bytes=len(content),
        media=f"image/{(image.format or '').lower()}",
        mode=image.mode,
        width=picture.width,
        height=picture.height,
        orientation=orientation,
        colour=colour_profile(image),
        spread=spread,
        white=white,
        white_side=white_side,
        ground=_ground(seen) if alpha is None else None,
        c2pa=c2pa_state(content),
        source_type=source_type(xmp_packet(image)),
        cells=_grid(seen),
    )


def distance(one: bytes, other: bytes, *, leave_out: int = 2) -> int:
    """Return how much two grids differ, 0 to 255: in their most different cell but so many.

    Compression changes all cells a little, an edit some of them a lot.
    """
    if not one or not other:
        return 255
    size = (CELLS, CELLS)
    pair = (Image.frombytes("RGB", size, one), Image.frombytes("RGB", size, other))
    return sorted(_most(ImageChops.difference(*pair)).tobytes())[-1 - leave_out]


def opaque(image: Image.Image, background: str = "white") -> Image.Image:
    """Return the picture in RGB, on a background where it is transparent."""
    image = eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    flat = Image.new("RGB", image.size, ImageColor.getrgb(background)[:3])
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture with more than 8 bits in grey with 8."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def xmp_packet(image: Image.Image) -> bytes | None:
    """Return the XMP packet, if there is one."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return packet.encode() if isinstance(packet, str) else packet


def _grid(seen: Image.Image) -> bytes:
    return seen.resize((CELLS, CELLS), Image.Resampling.BOX).tobytes()


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]  # 8 bits a band


def _most(difference: Image.Image) -> Image.Image:
    """Return the largest of the channels, at each place."""
    return reduce(ImageChops.lighter, difference.split())


def _sides(image: Image.Image, inset: int) -> list[Image.Image]:
    """Return the four lines around a picture, so many pixels from its edge."""
    width, height = image.size
    right, bottom = width - inset - 1, height - inset - 1
    return [
        image.crop((inset, inset, right + 1, inset + 1)),
        image.crop((inset, bottom, right + 1, bottom + 1)),
        image.crop((inset, inset, inset + 1, bottom + 1)),
        image.crop((right, inset, right + 1, bottom + 1)),
    ]


def _white(seen: Image.Image) -> tuple[float | None, float | None]:
    """Return the white share of the border, and of its least white side.

    Another line further inside counts for the least side: a thin frame may be white itself.
    """
    counts = []
    for inset in (0, max(2, min(seen.size) // 200)):
        for side in _sides(seen, inset) if min(seen.size) > 2 * inset else ():
            darkest = reduce(ImageChops.darker, side.split())
            counts.append((darkest.histogram()[255], side.width * side.height))
    share = sum(white for white, _ in counts[:4]) / sum(pixels for _, pixels in counts[:4])
    return round(share, 4), round(min(white / pixels for white, pixels in counts), 4)


def _ground(seen: Image.Image) -> Ground | None:
    """Look at what is in front of a flat background; None if there is none."""
    seen = seen.reduce(max(1, -(-max(seen.size) // _SEEN_EDGE)))
    if min(seen.size) < 32:
        return None
    lines = _sides(seen, 2)
    border = b"".join(line.tobytes() for line in lines)
    around = Image.frombytes("RGB", (len(border) // 3, 1), border)
    colour = tuple(map(int, ImageStat.Stat(around).median))
    away = _away(around, colour)
    noise, histogram = int(ImageStat.Stat(away).median[0]), away.histogram()
    weak = 2 * noise + 3
    if noise > _NOISE_LIMIT or sum(histogram[: weak + 4]) < _FLAT_SHARE * away.width:
        return None
    differs = _away(seen, colour)
    return Ground(
        fill_least=_fill(differs, max(_STRONG, weak)),
        fill_most=_fill(differs, weak),
        edges=_edges([_away(line, colour).tobytes() for line in lines], weak),
    )


def _away(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """Return how far each place is from a colour."""
    return _most(ImageChops.difference(image, Image.new("RGB", image.size, colour)))


def _fill(differs: Image.Image, level: int) -> float:
    """Return which share of the frame's width or height is covered, the larger one.

    In blocks, so that a grain of noise does not count.
    """
    mask = differs.point([255 if value > level else 0 for value in range(256)])
    blocks = mask.reduce(_BLOCK_PX)
    box = blocks.point([255 if value >= 64 else 0 for value in range(256)]).getbbox()
    if box is None:
        return 0.0
    left, top, right, bottom = box
    return round(max((right - left) / blocks.width, (bottom - top) / blocks.height), 3)


def _edges(lines: list[bytes], weak: int) -> str:
    """Tell whether something is cut off: it begins sharply on an edge, or covers all of it.

    A shadow that reaches an edge begins softly, and a white product is hardly to be seen.
    """
    found = {_edge(line, weak) for line in lines}
    return next((state for state in ("cut", "unclear") if state in found), "clear")


def _edge(line: bytes, weak: int) -> str:
    needed = max(4, round(len(line) * _TOUCHING_SHARE))
    touching = sum(value > weak for value in line)
    if touching < needed:
        return "clear"
    clearly = sum(value > _FAINT for value in line)
    if sorted(line)[len(line) // 2] > _STRONG and clearly > _COVERED_SHARE * len(line):
        return "cut"
    level, steepest = max(weak, _FAINT), 0
    for at in range(len(line) - _STEP_PX):
        near, far = sorted((line[at], line[at + _STEP_PX]))
        steepest = max(steepest, far - near)
        if far - near >= _STEP and near <= level and clearly >= needed:
            return "cut"
    # A shadow fades along the edge; a white product ends somewhere, however faintly.
    return "clear" if steepest <= _FADING else "unclear"


def colour_profile(image: Image.Image) -> str:
    """Return "none", "damaged" or the name of the colour profile; "srgb" if it is called so."""
    profile = image.info.get("icc_profile")
    if not profile:
        return "none"
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return "damaged"
    return "srgb" if "srgb" in name.lower() else name.strip() or "without a name"
