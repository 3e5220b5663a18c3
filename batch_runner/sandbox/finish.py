"""The last touches on a picture: tones, letters, frames, and the sandbox's own mark.

Hides the arithmetic of each effect. The functions named apply, shift and tint return a new picture;
those named draw paint into the one they are given, except `draw_frame`, which needs the room.
"""

from __future__ import annotations

import bisect
import functools
import random
from collections.abc import Callable

from PIL import (
    Image,
    ImageChops,
    ImageDraw,
    ImageEnhance,
    ImageFilter,
    ImageFont,
    ImageOps,
    ImageStat,
)

Colour = tuple[int, int, int]

_SAMPLE_LETTERS_PX = 40
_LONGEST_CAPTION = 300


def apply_tones(picture: Image.Image, tones: tuple[str, ...], draw: random.Random) -> Image.Image:
    """Apply effects of `TONES` in order; a slight change of exposure tells the seeds apart."""
    for name in tones:
        picture = TONES[name](picture)
    if tones and "grayscale" not in tones:
        return ImageEnhance.Brightness(picture).enhance(draw.uniform(0.96, 1.05))
    return picture


def tint_picture(picture: Image.Image, colour: Colour) -> Image.Image:
    """Dye a picture: its light and shade stay, its colours become one."""
    shade = tuple(channel // 4 for channel in colour)
    glare = tuple(channel + (255 - channel) * 3 // 4 for channel in colour)
    return ImageOps.colorize(ImageOps.grayscale(picture), shade, glare, mid=colour, midpoint=140)


def shift_hue(picture: Image.Image, prompt: str, draw: random.Random) -> Image.Image:
    """Tint a picture by its prompt and seed, gently enough that it stays recognisable."""
    hues = random.Random(prompt)
    turn = hues.randrange(256) + draw.randrange(-24, 25)
    colour = Image.new("HSV", (1, 1), (turn % 256, 120, 255)).convert("RGB").getpixel((0, 0))
    layer = Image.new("RGB", picture.size, colour)
    return Image.blend(picture, ImageChops.multiply(picture, layer), 0.65)


def draw_frame(picture: Image.Image, colour: Colour) -> Image.Image:
    """Put the picture inside a frame with a bright inner edge, as large as before."""
    width, height = picture.size
    edge = max(6, round(min(width, height) * 0.045))
    mat = max(2, edge // 5)
    inner = picture.resize((width - 2 * edge, height - 2 * edge), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", picture.size, colour)
    is_light = sum(colour) > 600
    line = (150, 150, 150) if is_light else (252, 250, 244)
    framed.paste(line, (edge - mat, edge - mat, width - edge + mat, height - edge + mat))
    framed.paste(inner, (edge, edge))
    return framed


def draw_lettering(picture: Image.Image, text: str, draw: random.Random) -> None:
    """Write words across the picture, on a band that keeps them readable."""
    width, height = picture.size
    letters = _fit_font(text, width * 0.7, height * 0.12)
    left, top, right, bottom = letters.getbbox(text)
    pad = (bottom - top) * 0.55
    x = (width - (right - left)) / 2
    y = height * draw.choice((0.07, 0.08, 0.09)) + pad
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    brush = ImageDraw.Draw(layer)
    band = (x - pad * 1.6, y - pad, x + (right - left) + pad * 1.6, y + (bottom - top) + pad)
    brush.rounded_rectangle(band, pad * 0.8, fill=(200, 40, 52, 236))
    brush.text((x - left, y - top), text, fill=(255, 255, 255, 255), font=letters)
    picture.paste(layer, (0, 0), layer)


def draw_caption(picture: Image.Image, prompt: str) -> None:
    """Write the prompt small along the bottom, cut where it does not fit."""
    width, height = picture.size
    size_px = max(9, round(min(width, height) * 0.028))
    letters = _load_font(size_px)
    words = " ".join(prompt[:_LONGEST_CAPTION].split())
    room = width * 0.9 - size_px * 5
    if letters.getlength(words) > room:
        fitting = bisect.bisect(
            range(len(words)), room, key=lambda end: letters.getlength(words[:end] + "…")
        )
        words = words[: max(0, fitting - 1)].rstrip() + "…"
    band = round(size_px * 2.1)
    layer = Image.new("RGBA", (width, band), (18, 18, 24, 150))
    place = (size_px * 0.9, band / 2)
    ImageDraw.Draw(layer).text(place, words, fill=(255, 255, 255, 235), font=letters, anchor="lm")
    picture.paste(layer.convert("RGB"), (0, height - band), layer.getchannel("A"))


def draw_mark(picture: Image.Image, labels: list[str]) -> None:
    """Mark a picture as the sandbox's, and name what its stand-ins stand for.

    The mark stays off the outermost pixels, so that a white background is white to the corners.
    """
    width, height = picture.size
    size_px = max(8, round(min(width, height) * 0.022))
    letters = _load_font(size_px)
    layer = Image.new("L", picture.size, 0)
    brush = ImageDraw.Draw(layer)
    margin = size_px * 0.9
    brush.text((width - margin, height - margin), "sandbox", fill=120, font=letters, anchor="rs")
    if labels:
        text = "stand-in for " + ", ".join(labels[:3]) + (" …" if len(labels) > 3 else "")
        if letters.getlength(text) < width * 0.75:
            brush.text((margin, margin), text, fill=120, font=letters, anchor="lt")
    brightness = ImageStat.Stat(picture.convert("L")).mean[0]
    colour = (70, 70, 78) if brightness > 110 else (236, 236, 242)
    picture.paste(Image.new("RGB", picture.size, colour), (0, 0), layer)


@functools.lru_cache(maxsize=64)
def _load_font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font


def _fit_font(text: str, width_px: float, height_px: float) -> ImageFont.FreeTypeFont:
    """Choose the largest font with which the text fits."""
    sample = _load_font(_SAMPLE_LETTERS_PX).getlength(text) or 1
    return _load_font(max(10, round(min(_SAMPLE_LETTERS_PX * width_px / sample, height_px))))


def _make_gray(picture: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(ImageOps.grayscale(picture), cutoff=0.5).convert("RGB")


def _make_sepia(picture: Image.Image) -> Image.Image:
    return ImageOps.colorize(
        ImageOps.grayscale(picture), (38, 22, 10), (255, 242, 214), mid=(160, 118, 78)
    )


def _make_vintage(picture: Image.Image) -> Image.Image:
    faded = ImageEnhance.Color(picture).enhance(0.62)
    lifted = faded.point([round(34 + step * 0.82) for step in range(256)] * 3)
    warmed = ImageChops.multiply(lifted, Image.new("RGB", picture.size, (255, 238, 204)))
    return _darken_corners(warmed)


def _make_sketch(picture: Image.Image) -> Image.Image:
    gray = ImageOps.grayscale(picture)
    radius = max(2.0, max(picture.size) * 0.006)
    smooth = ImageOps.invert(gray).filter(ImageFilter.GaussianBlur(radius))
    # Dodging a picture with its own blurred negative leaves the lines.
    inverse = ImageOps.invert(smooth)
    divided = Image.merge("L", [ImageChops.subtract(inverse, gray, scale=0.22)])
    lines = ImageOps.invert(divided)
    shaded = Image.blend(lines, gray.point([170 + step // 3 for step in range(256)]), 0.3)
    return ImageOps.colorize(shaded, (52, 50, 58), (252, 249, 242))


def _make_painting(picture: Image.Image) -> Image.Image:
    small = picture.resize((max(8, picture.width // 2), max(8, picture.height // 2)))
    daubed = small.filter(ImageFilter.ModeFilter(9)).filter(ImageFilter.MedianFilter(5))
    daubed = daubed.resize(picture.size, Image.Resampling.BICUBIC)
    return ImageEnhance.Color(daubed.filter(ImageFilter.EDGE_ENHANCE)).enhance(1.25)


def _make_poster(picture: Image.Image) -> Image.Image:
    flat = ImageOps.posterize(picture.filter(ImageFilter.MedianFilter(5)), 3)
    edges = ImageOps.grayscale(picture).filter(ImageFilter.GaussianBlur(1.4))
    edges = edges.filter(ImageFilter.FIND_EDGES).point([min(255, step * 6) for step in range(256)])
    return Image.composite(
        Image.new("RGB", picture.size, (30, 26, 40)), ImageEnhance.Color(flat).enhance(1.5), edges
    )


def _make_pixelated(picture: Image.Image) -> Image.Image:
    step = max(6, max(picture.size) // 64)
    size = (max(2, picture.width // step), max(2, picture.height // step))
    small = picture.resize(size, Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.NEAREST)


def _darken_corners(picture: Image.Image) -> Image.Image:
    ramp = Image.radial_gradient("L").point([max(0, step - 110) for step in range(256)])
    dark = ImageEnhance.Brightness(picture).enhance(0.25)
    return Image.composite(dark, picture, ramp.resize(picture.size, Image.Resampling.BILINEAR))


def _filter_light(picture: Image.Image, red: float, green: float, blue: float) -> Image.Image:
    tables = [min(255, round(step * gain)) for gain in (red, green, blue) for step in range(256)]
    return picture.point(tables)


def _curve(picture: Image.Image, power: float) -> Image.Image:
    """Lighten (power below 1) or darken the middle tones; black and white stay."""
    return picture.point([round(255 * (step / 255) ** power) for step in range(256)] * 3)


TONES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "grayscale": _make_gray,
    "sepia": _make_sepia,
    "vintage": _make_vintage,
    "sketch": _make_sketch,
    "painting": _make_painting,
    "poster": _make_poster,
    "pixelated": _make_pixelated,
    "brighter": lambda picture: _curve(picture, 0.62),
    "darker": lambda picture: _curve(picture, 1.7),
    "warm": lambda picture: _filter_light(picture, 1.08, 0.98, 0.8),
    "cool": lambda picture: _filter_light(picture, 0.82, 0.97, 1.1),
    "vivid": lambda picture: ImageEnhance.Color(
        ImageEnhance.Contrast(picture).enhance(1.08)
    ).enhance(1.7),
    "muted": lambda picture: ImageEnhance.Color(picture).enhance(0.45),
    "sharp": lambda picture: picture.filter(ImageFilter.UnsharpMask(3, 160, 2)),
    "vignette": _darken_corners,
    "inverted": ImageOps.invert,
}
