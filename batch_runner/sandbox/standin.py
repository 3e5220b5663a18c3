"""Stand-in products: what the sandbox shows for a picture that it cannot fetch.

Hides the drawing. The same text always gives the same product; a hint that names a thing it can
draw ("mug.png", "floor-lamp-2.jpg") gives that thing, any other one chosen by hash.
"""

from __future__ import annotations

import colorsys
import functools
import random
from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw, ImageFilter

_SIDE_PX = 720
_OVERSAMPLING = 2

Box = tuple[float, float, float, float]
_Canvas = Callable[[], ImageDraw.ImageDraw]


class _Drawing:
    """Shapes in a unit square, painted as if lit from the left; the mask grows with them."""

    def __init__(self, side_px: int) -> None:
        self._side_px = side_px
        self.picture = Image.new("RGB", (side_px, side_px), (255, 255, 255))
        self.mask = Image.new("L", (side_px, side_px), 0)

    def add_box(
        self, box: Box, colour: tuple[int, int, int], *, radius: float = 0.0, round_: bool = False
    ) -> None:
        shape, draw = self._new_shape()
        pixels = [value * self._side_px for value in box]
        if round_:
            draw.ellipse(pixels, fill=255)
        else:
            draw.rounded_rectangle(pixels, radius * self._side_px, fill=255)
        self._shade(shape, colour)

    def add_ring(self, box: Box, colour: tuple[int, int, int], thickness: float) -> None:
        shape, draw = self._new_shape()
        pixels = [value * self._side_px for value in box]
        draw.ellipse(pixels, outline=255, width=round(thickness * self._side_px))
        self._shade(shape, colour)

    def add_polygon(self, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        shape, draw = self._new_shape()
        draw.polygon([(x * self._side_px, y * self._side_px) for x, y in points], fill=255)
        self._shade(shape, colour)

    def _new_shape(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        shape = Image.new("L", self.mask.size, 0)
        return shape, ImageDraw.Draw(shape)

    def _shade(self, shape: Image.Image, colour: tuple[int, int, int]) -> None:
        """Fill a shape with its colour: a highlight on the left, darker towards the right."""
        bounds = shape.getbbox()
        if bounds is None:
            return
        ramp = Image.new("RGB", (5, 1))
        for column, light in enumerate((0.86, 1.12, 1.04, 0.9, 0.7)):
            ramp.putpixel((column, 0), scale_colour(colour, light))
        size = (bounds[2] - bounds[0], bounds[3] - bounds[1])
        shaded = ramp.resize(size, Image.Resampling.BICUBIC)
        self.picture.paste(shaded, bounds[:2], shape.crop(bounds))
        self.mask = ImageChops.lighter(self.mask, shape)


@functools.lru_cache(maxsize=32)
def draw_standin(text: str, *, hint: str) -> tuple[Image.Image, Image.Image]:
    """Draw a product on a plain, lightly shaded background; return it and its mask.

    Both are shared between callers, who must not paint into them.
    """
    draw = random.Random(text)
    drawing = _Drawing(_SIDE_PX * _OVERSAMPLING)
    hue = draw.random()
    main = _pick_colour(hue, 0.3 + 0.2 * draw.random(), 0.78)
    accent = _pick_colour(hue + draw.choice((0.08, 0.42, 0.5)), 0.22, 0.94)
    _choose_product(hint.casefold(), draw)(drawing, main, accent)
    size = (_SIDE_PX, _SIDE_PX)
    subject = drawing.mask.resize(size, Image.Resampling.LANCZOS)
    product = drawing.picture.resize(size, Image.Resampling.LANCZOS)
    picture = _paint_wall(_pick_colour(hue + 0.5, 0.05, 0.95))
    shadow = ImageChops.offset(subject, 14, 18).filter(ImageFilter.GaussianBlur(22))
    picture.paste((96, 92, 96), (0, 0), shadow.point([step // 3 for step in range(256)]))
    picture.paste(product, (0, 0), subject)
    return picture, subject


def scale_colour(colour: tuple[int, int, int], light: float) -> tuple[int, int, int]:
    """Make a colour lighter or darker."""
    red, green, blue = (min(255, max(0, round(channel * light))) for channel in colour)
    return red, green, blue


def _pick_colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _paint_wall(colour: tuple[int, int, int]) -> Image.Image:
    column = Image.new("RGB", (1, 3))
    for row, light in enumerate((1.04, 1.0, 0.93)):
        column.putpixel((0, row), scale_colour(colour, light))
    return column.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)


_Colour = tuple[int, int, int]
_Product = Callable[[_Drawing, _Colour, _Colour], None]


def _draw_mug(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    drawing.add_ring((0.56, 0.36, 0.82, 0.66), scale_colour(main, 0.9), 0.045)
    drawing.add_box((0.26, 0.28, 0.68, 0.76), main, radius=0.06)
    drawing.add_box((0.26, 0.5, 0.68, 0.58), accent)
    drawing.add_box((0.26, 0.24, 0.68, 0.33), scale_colour(main, 1.08), round_=True)
    drawing.add_box((0.29, 0.255, 0.65, 0.315), (92, 62, 48), round_=True)


def _draw_bottle(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    drawing.add_box((0.44, 0.14, 0.56, 0.36), main, radius=0.02)
    drawing.add_box((0.425, 0.1, 0.575, 0.19), scale_colour(accent, 0.7), radius=0.02)
    drawing.add_box((0.36, 0.3, 0.64, 0.86), main, radius=0.08)
    drawing.add_box((0.36, 0.5, 0.64, 0.72), accent)
    drawing.add_box((0.42, 0.56, 0.58, 0.585), scale_colour(main, 0.7), radius=0.01)
    drawing.add_box((0.42, 0.61, 0.54, 0.63), scale_colour(main, 0.85), radius=0.01)


def _draw_lamp(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    drawing.add_box((0.485, 0.4, 0.515, 0.82), (120, 108, 100))
    drawing.add_box((0.36, 0.79, 0.64, 0.87), (120, 108, 100), round_=True)
    drawing.add_box((0.27, 0.42, 0.73, 0.5), scale_colour(accent, 0.9), round_=True)
    drawing.add_polygon([(0.38, 0.16), (0.62, 0.16), (0.73, 0.46), (0.27, 0.46)], main)
    drawing.add_box((0.38, 0.14, 0.62, 0.18), scale_colour(main, 1.1), round_=True)


def _draw_vase(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    for x, y in ((0.38, 0.2), (0.5, 0.13), (0.62, 0.21)):
        drawing.add_polygon([(0.495, 0.45), (0.505, 0.45), (x + 0.01, y), (x, y)], (92, 132, 88))
        drawing.add_box((x - 0.06, y - 0.06, x + 0.07, y + 0.06), accent, round_=True)
        drawing.add_box((x - 0.02, y - 0.02, x + 0.03, y + 0.02), (232, 190, 92), round_=True)
    drawing.add_box((0.42, 0.4, 0.58, 0.58), main, radius=0.02)
    drawing.add_box((0.32, 0.5, 0.68, 0.87), main, round_=True)


def _draw_bag(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    drawing.add_ring((0.37, 0.16, 0.63, 0.56), scale_colour(main, 0.72), 0.028)
    drawing.add_polygon([(0.25, 0.38), (0.75, 0.38), (0.81, 0.83), (0.19, 0.83)], main)
    drawing.add_box((0.42, 0.52, 0.58, 0.64), accent, radius=0.02)


def _draw_box(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    drawing.add_polygon([(0.22, 0.36), (0.52, 0.26), (0.8, 0.34), (0.5, 0.46)], accent)
    drawing.add_polygon([(0.22, 0.36), (0.5, 0.46), (0.5, 0.86), (0.22, 0.74)], main)
    right = [(0.5, 0.46), (0.8, 0.34), (0.8, 0.72), (0.5, 0.86)]
    drawing.add_polygon(right, scale_colour(main, 0.78))
    drawing.add_polygon([(0.34, 0.4), (0.4, 0.425), (0.4, 0.815), (0.34, 0.79)], accent)


def _draw_chair(drawing: _Drawing, main: _Colour, accent: _Colour) -> None:
    legs = ((0.31, 0.6, 0.34, 0.88), (0.66, 0.6, 0.69, 0.88), (0.38, 0.6, 0.4, 0.82))
    for leg in (*legs, (0.6, 0.6, 0.62, 0.82)):
        drawing.add_box(leg, (150, 112, 78), radius=0.01)
    drawing.add_box((0.29, 0.14, 0.71, 0.56), main, radius=0.1)
    drawing.add_box((0.26, 0.52, 0.74, 0.65), scale_colour(main, 0.92), radius=0.05)
    drawing.add_box((0.4, 0.3, 0.6, 0.5), accent, radius=0.04)


_PRODUCTS: dict[str, _Product] = {
    "mug cup coffee tea glass": _draw_mug,
    "bottle wine perfume shampoo cream serum oil": _draw_bottle,
    "lamp light": _draw_lamp,
    "vase plant flower pot": _draw_vase,
    "bag tote backpack purse shirt": _draw_bag,
    "box package gift toy book": _draw_box,
    "chair sofa stool armchair furniture": _draw_chair,
}


def _choose_product(hint: str, draw: random.Random) -> _Product:
    for words, product in _PRODUCTS.items():
        if any(word in hint for word in words.split()):
            return product
    return draw.choice(list(_PRODUCTS.values()))
