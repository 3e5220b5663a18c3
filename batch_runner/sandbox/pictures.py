"""The output files: a request's input in, the bytes of an edited picture, film or sound out.

Hides every decision about looks. No model makes these files: backgrounds, stand-in products and
clips come from `media/`. They show at a glance that the prompt, the pictures and the options
arrived.

Always holds: the same input and number give the same bytes (if local pictures are unchanged), any
other input or number gives different bytes; a picture's size follows from aspect_ratio and
resolution, its format from output_format; pictures and films are marked "sandbox".
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from PIL import (
    Image,
    ImageChops,
    ImageColor,
    ImageDraw,
    ImageEnhance,
    ImageFilter,
    ImageFont,
    ImageOps,
    ImageStat,
)

from batch_runner.sandbox.sources import list_source_urls, open_source

Size = tuple[int, int]
Light = tuple[int, int, int]

_LONG_SIDES_PX = {"0.5K": 512, "1K": 1024, "2K": 2048, "4K": 4096}
# Larger pictures are composed at this size and enlarged, so that 4K stays quick.
_COMPOSED_SIDE_PX = 1536
_FORMATS: dict[str, dict[str, int]] = {
    "jpeg": {"quality": 88},
    "webp": {"quality": 86, "method": 2},
    "png": {"compress_level": 3},
}
_GROUND = 0.86
_COMMENT = b"0" * 32
"""A placeholder in every clip of `media/`, replaced to make each output unique."""
_READ_CHARACTERS, _CAPTION_CHARACTERS = 4000, 120
_WHITE: Light = (255, 255, 255)

# The backgrounds of `media/`: the words that select each, and its light on a product. If a prompt
# has words for several, the first in this table wins: a beach at sunset is a sunset.
_SCENES: dict[str, tuple[str, Light]] = {
    "sunset": ("sunset sunrise dusk dawn", (255, 222, 200)),
    "night": ("night midnight starry stars moonlight moon evening", (184, 190, 230)),
    "snow": ("snow snowy winter ice icy", (240, 246, 255)),
    "beach": ("beach sea seaside ocean shore coast sand sandy tropical", (255, 250, 238)),
    "forest": ("forest woods woodland jungle trees", (240, 246, 220)),
    "meadow": ("garden meadow grass lawn park field flowers outdoor outdoors", (252, 252, 240)),
    "mountains": ("mountain mountains alps hills peak peaks", (240, 244, 250)),
    "city": ("city street urban skyline downtown town", (240, 226, 226)),
    "marble": ("marble stone granite bathroom concrete", _WHITE),
    "wood": ("wood wooden table tabletop desk oak rustic walnut", (255, 244, 228)),
    "room": ("room kitchen living interior home indoors cosy cozy lifestyle", (255, 246, 232)),
    "studio": ("studio seamless catalog catalogue", _WHITE),
    "pastel": ("pastel gradient podium playful", _WHITE),
}
_SCENE_OF = {word: name for name, (words, _) in _SCENES.items() for word in words.split()}
_PLACES = {"background", "backgrounds", "backdrop", "wall", "surface"}
_REMOVALS = {"remove", "removed", "no", "without", "transparent", "cut"}
_REACH_WORDS = 4

_TONES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "grayscale greyscale monochrome noir": lambda p: ImageOps.grayscale(p).convert("RGB"),
    "sepia vintage retro": lambda p: ImageOps.colorize(p.convert("L"), "#26160a", "#fff2d6"),
    "vivid vibrant saturated": lambda p: ImageEnhance.Color(p).enhance(1.7),
    "brighter brighten lighter": lambda p: ImageEnhance.Brightness(p).enhance(1.25),
    "darker darken moody": lambda p: ImageEnhance.Brightness(p).enhance(0.65),
    "blur blurred blurry": lambda p: p.filter(ImageFilter.GaussianBlur(max(p.size) * 0.012)),
    "mirror mirrored flip flipped": ImageOps.mirror,
    "negative invert inverted": ImageOps.invert,
}
_STANDINS = {
    "mug": "mug cup coffee tea glass",
    "bottle": "bottle wine perfume shampoo cream serum oil",
    "lamp": "lamp light",
    "vase": "vase plant flower pot",
    "bag": "bag tote backpack purse shirt",
    "chair": "chair sofa stool furniture",
    "box": "box package gift toy book",
}


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """The bytes of one output file and their media type."""

    data: bytes
    media_type: str


@functools.cache
def draw_bomb() -> bytes:
    """Draw a small white PNG that takes 112 MB of memory to unpack."""
    data = io.BytesIO()
    Image.new("1", (30_000, 30_000), 1).save(data, "PNG")
    return data.getvalue()


def render_swatch(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Draw a small patch in colours unique to this input and number."""
    data = io.BytesIO()
    patch = Image.frombytes("RGB", (3, 3), _digest(model_input, number)[:27])
    patch.resize((48, 48), Image.Resampling.NEAREST).save(data, "PNG")
    return RenderedFile(data=data.getvalue(), media_type="image/png")


def render_film(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Return the film for an aspect ratio, made unique to this output."""
    width, _, height = str(model_input.get("aspect_ratio", "16:9")).partition(":")
    is_tall = width.isdecimal() and height.isdecimal() and int(width) < int(height)
    data = _read_clip("tall.mp4" if is_tall else "wide.mp4", _digest(model_input, number))
    return RenderedFile(data=data, media_type="video/mp4")


def render_film_swatch(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Return a tiny film, to rehearse thousands of jobs."""
    data = _read_clip("small.mp4", _digest(model_input, number))
    return RenderedFile(data=data, media_type="video/mp4")


def render_sound(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Return a sound, made unique to this output."""
    data = _read_clip("chime.wav", _digest(model_input, number))
    return RenderedFile(data=data, media_type="audio/wav")


def _read_clip(name: str, digest: bytes) -> bytes:
    """Read a clip and replace its placeholder."""
    return _read(name).replace(_COMMENT, digest.hex()[: len(_COMMENT)].encode())


def render_picture(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Draw output `number` (from 1) of a request with this input."""
    prompt = str(model_input.get("prompt", ""))
    digest = _digest(model_input, number)
    draw = random.Random(digest)
    urls = list_source_urls(model_input)
    sources = [open_source(url) or _draw_standin(url) for url in urls]
    size = _choose_size(model_input, sources)
    scale = min(1.0, _COMPOSED_SIDE_PX / max(size))
    composed = (max(16, round(size[0] * scale)), max(16, round(size[1] * scale)))
    words = re.findall(r"[\w&-]+", prompt[:_READ_CHARACTERS].casefold())
    background = choose_background(words)
    if background is None and len(sources) == 1 and _is_like(sources[0], size):
        place = (draw.uniform(0.35, 0.65), draw.uniform(0.35, 0.65))
        picture = ImageOps.fit(sources[0], composed, bleed=draw.uniform(0, 0.04), centering=place)
    else:
        name = background or ("white" if sources else "studio")
        picture = _paint_background(name, composed, draw)
        light = _SCENES[name][1] if name in _SCENES else _WHITE
        _place(picture, sources or [_draw_standin(f"{digest.hex()}/{prompt}")], light, draw)
    tones = [tone for names, tone in _TONES.items() if not set(names.split()).isdisjoint(words)]
    for tone in tones:
        picture = tone(picture)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if background is None and not tones:
        _write(picture, prompt, is_left=True)
    _write(picture, f"sandbox {digest.hex()[:6]}", is_left=False)
    return _encode(picture, str(model_input.get("output_format", "png")))


def choose_background(words: Sequence[str]) -> str | None:
    """Return a scene of `media/` or the name of a colour; None if the words name neither.

    The name nearest to "background" counts: "a red mug on a white background" is white.
    """
    places = [at for at, word in enumerate(words) if word in _PLACES]
    found = [(at, _SCENE_OF.get(word, word)) for at, word in enumerate(words) if _is_name(word)]
    if places and found:
        away, name = min((min(abs(at - place) for place in places), name) for at, name in found)
        if away <= _REACH_WORDS:
            return name
    if places and not _REMOVALS.isdisjoint(words):
        return "white"
    names = [name for _, name in found]
    return next((name for name in _SCENES if name in names), None)


def _is_name(word: str) -> bool:
    return word in _SCENE_OF or word in ImageColor.colormap


def _digest(model_input: Mapping[str, Any], number: int) -> bytes:
    """Return bytes unique to this output of this input."""
    text = f"{json.dumps(model_input, sort_keys=True)}#{number}"
    return hashlib.sha256(text.encode()).digest()


@functools.cache
def _read(name: str) -> bytes:
    return files("batch_runner.sandbox").joinpath("media", name).read_bytes()


@functools.cache
def _open(name: str) -> Image.Image:
    """Open a picture of `media/`; it is shared, so it must not be changed."""
    picture = Image.open(io.BytesIO(_read(name)))
    picture.load()
    return picture


@functools.lru_cache(maxsize=32)
def _draw_standin(text: str) -> Image.Image:
    """Return a cut-out product for a picture on another machine, always the same for a text."""
    last = text.rsplit("/", 1)[-1].casefold()
    draw = random.Random(text)
    kinds = [
        kind for kind, words in _STANDINS.items() if any(word in last for word in words.split())
    ]
    product = _open(f"{(kinds or [draw.choice(list(_STANDINS))])[0]}.webp")
    hue, saturation, value = product.convert("RGB").convert("HSV").split()
    turn = draw.randrange(256)
    hue = hue.point([(step + turn) % 256 for step in range(256)])
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    turned.putalpha(product.getchannel("A"))
    return turned


def _choose_size(model_input: Mapping[str, Any], sources: Sequence[Image.Image]) -> Size:
    """Return the size in pixels: the long side by resolution, the other by the ratio."""
    long_px = _LONG_SIDES_PX.get(str(model_input.get("resolution", "1K")), 1024)
    width, _, height = str(model_input.get("aspect_ratio", "auto")).partition(":")
    ratio = 1.0 if len(sources) < 2 else 3 / 2
    if width.isdecimal() and height.isdecimal() and int(width) and int(height):
        ratio = int(width) / int(height)
    elif len(sources) == 1 and sources[0].mode == "RGB":
        ratio = sources[0].width / sources[0].height
    wide, tall = min(1.0, ratio), min(1.0, 1 / ratio)
    return max(16, round(long_px * wide)), max(16, round(long_px * tall))


def _is_like(source: Image.Image, size: Size) -> bool:
    """Return whether cropping a photo to a shape loses little."""
    ratio = (source.width / source.height) / (size[0] / size[1])
    return source.mode == "RGB" and 0.8 < ratio < 1.25


def _paint_background(name: str, size: Size, draw: random.Random) -> Image.Image:
    """Cut a scene to size, or paint a softly lit wall; white and black stay pure."""
    if name in _SCENES:
        scene = _open(f"{name}.jpg")
        scene = ImageOps.mirror(scene) if draw.random() < 0.5 else scene
        place = (draw.uniform(0.3, 0.7), 0.75)
        return ImageOps.fit(scene, size, Image.Resampling.BICUBIC, draw.uniform(0, 0.05), place)
    colour = ImageColor.getrgb(name)[:3]
    if colour in (_WHITE, (0, 0, 0)):
        return Image.new("RGB", size, colour)
    lit = Image.new("RGB", size, tuple(round(step * 0.8 + 46) for step in colour))
    shade = Image.new("RGB", size, tuple(round(step * 0.68 + 40) for step in colour))
    return Image.composite(shade, lit, Image.radial_gradient("L").resize(size))


def _place(
    canvas: Image.Image, sources: Sequence[Image.Image], light: Light, draw: random.Random
) -> None:
    """Place the products in rows, each with its shadow, in the light of the scene."""
    count, (width, height) = len(sources), canvas.size
    columns = min(count, math.ceil(math.sqrt(count * width / height)))
    rows = math.ceil(count / columns)
    scale = draw.uniform(0.9, 1.04)
    shift_px = draw.uniform(-0.05, 0.05) * width
    room = (width * 0.8 / columns * scale, height * (0.66 if rows == 1 else 0.7 / rows) * scale)
    for index, source in enumerate(sources):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)
        product = cut_out(source) if source.mode == "RGB" else source
        fit = min(room[0] / product.width, room[1] / product.height)
        new_size = (max(2, round(product.width * fit)), max(2, round(product.height * fit)))
        product = product.resize(new_size, Image.Resampling.LANCZOS)
        mask = product.getchannel("A")
        lit = ImageChops.multiply(product.convert("RGB"), Image.new("RGB", new_size, light))
        middle = width * (0.07 + 0.86 * (column + 0.5) / in_row) + shift_px
        base = height * (_GROUND - (rows - 1 - row) * 0.8 / rows)
        corner = (round(middle - new_size[0] / 2), round(base - new_size[1]))
        _cast_shadow(canvas, mask, corner)
        canvas.paste(lit, corner, mask)


def _cast_shadow(canvas: Image.Image, mask: Image.Image, corner: tuple[int, int]) -> None:
    """Paint a soft shadow on the ground below a product."""
    width, height = mask.size
    flat_px = max(4, round(min(height * 0.16, width * 0.3)))
    margin = width // 4 + 8
    foot = mask.crop((0, height * 2 // 3, width, height))
    for opacity, blur, depth in ((0.3, 0.07, flat_px), (0.34, 0.025, flat_px // 2)):
        shape = foot.resize((width, depth)).point([round(step * opacity) for step in range(256)])
        soft = ImageOps.expand(shape, margin).filter(ImageFilter.GaussianBlur(width * blur))
        top = corner[1] + height - round(flat_px * 0.12) - depth // 2 - margin
        canvas.paste((24, 20, 30), (corner[0] - margin, top), soft)


def cut_out(picture: Image.Image) -> Image.Image:
    """Cut out an object in front of a plain or shaded wall; other pictures stay whole."""
    width, height = picture.size
    sides = Image.new("RGB", (2, height))
    for at in (0, 1):
        strip = picture.crop((at * (width - 9), 0, at * (width - 9) + 9, height))
        sides.paste(strip.resize((1, height), Image.Resampling.BOX), (at, 0))
    # The wall is what the left and right edges of each row suggest.
    wall = sides.resize(picture.size, Image.Resampling.BILINEAR, box=(0.5, 0, 1.5, height))
    luma, blue, red = picture.convert("YCbCr").split()
    wall_luma, wall_blue, wall_red = wall.convert("YCbCr").split()
    differences = (
        ImageChops.subtract(wall_luma, luma, scale=4.5),  # perhaps only a shadow
        ImageChops.subtract(luma, wall_luma, scale=0.7),
        ImageChops.difference(blue, wall_blue).point(_ramp(0, 2)),
        ImageChops.difference(red, wall_red).point(_ramp(0, 2)),
    )
    distance = functools.reduce(ImageChops.lighter, differences)
    small = ImageOps.contain(distance, (144, 144), Image.Resampling.BOX).point(_ramp(15, 128))
    framed = ImageOps.expand(small, 1, 0)
    ImageDraw.floodfill(framed, (0, 0), 64)
    outside = ImageOps.crop(framed, 1).point([255 * (step == 64) for step in range(256)])
    outside = outside.filter(ImageFilter.MaxFilter(5)).resize(picture.size)
    # Inside the outline a far smaller difference counts as the object: the wall behind a handle
    # matches exactly, a white label does not quite.
    mask = Image.composite(distance.point(_ramp(13, 14)), distance.point(_ramp(5, 40)), outside)
    mask = mask.filter(ImageFilter.GaussianBlur(1.2)).point(_ramp(56, 1.45))
    is_wall = ImageStat.Stat(outside.crop((0, 0, width, 9))).mean[0] > 200
    is_smooth = max(ImageStat.Stat(sides).stddev) < 36
    cut = picture.convert("RGBA")
    if is_wall and is_smooth and 0.015 < ImageStat.Stat(mask).mean[0] / 255 < 0.85:
        cut.putalpha(mask)
    return cut.crop(cut.getchannel("A").point(_ramp(40, 255)).getbbox())


def _ramp(start: int, slope: float) -> list[int]:
    """Return a table for `point`: 0 up to a level, then rising to 255."""
    return [min(255, max(0, round((step - start) * slope))) for step in range(256)]


def _write(picture: Image.Image, text: str, *, is_left: bool) -> None:
    """Write small letters into a lower corner; text that is too long is cut."""
    width, height = picture.size
    size_px = max(8, round(min(width, height) * 0.022))
    font = ImageFont.load_default(size_px)
    text = " ".join(text[:_CAPTION_CHARACTERS].split())
    room = width * 0.6
    if (length := font.getlength(text)) > room:
        text = text[: int(len(text) * room / length) - 1] + "…"
    corner = (size_px if is_left else width - size_px, height - size_px)
    anchor = "ls" if is_left else "rs"
    canvas = ImageDraw.Draw(picture)
    box = canvas.textbbox(corner, text, font=font, anchor=anchor)
    ground = ImageStat.Stat(picture.crop(box)).mean if text else [0, 0, 0]
    ink = 40 if sum(ground) > 330 else 245
    canvas.text(corner, text, tuple((round(step) + ink) // 2 for step in ground), font, anchor)


def _encode(picture: Image.Image, output_format: str) -> RenderedFile:
    output_format = output_format if output_format in _FORMATS else "png"
    file = io.BytesIO()
    picture.save(file, output_format, **_FORMATS[output_format])
    return RenderedFile(data=file.getvalue(), media_type=f"image/{output_format}")
