"""Painted backgrounds: a beach, a forest, a studio … that a product can stand in.

Hides the painting. A scene is drawn from gradients, soft shapes and blur, as a photograph with its
background out of focus. The same name, size and random state always give the same pixels.

Always holds: a scene fills the size it was asked for, and `ground` (share of the height) is where a
product's base stands in it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Size = tuple[int, int]

_PAINTED_SIDE_PX = 768


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How a scene is painted; `light` is the colour it throws on what stands in it."""

    paint: Callable[[Size, random.Random], Image.Image]
    light: Colour = (255, 255, 255)
    ground: float = 0.86


def paint_scene(name: str, size: Size, draw: random.Random) -> Image.Image:
    """Paint a scene of `SCENES`; larger sizes are painted smaller and enlarged, all is soft."""
    scale = min(1.0, _PAINTED_SIDE_PX / max(size))
    painted_size = (max(16, round(size[0] * scale)), max(16, round(size[1] * scale)))
    painted = SCENES[name].paint(painted_size, draw)
    return painted.resize(size, Image.Resampling.BICUBIC)


def paint_backdrop(colour: Colour, size: Size) -> Image.Image:
    """Paint a seamless backdrop of one colour. White and black stay pure; others are softly lit."""
    if colour == (255, 255, 255) or max(colour) < 40:
        return Image.new("RGB", size, colour)
    lit = paint_gradient(size, [(0.0, mix(colour, (255, 255, 255), 0.1)), (1.0, colour)])
    edge = Image.new("RGB", size, mix(colour, (0, 0, 0), 0.14))
    return Image.composite(edge, lit, _radial_mask(size))


def paint_gradient(size: Size, stops: Sequence[tuple[float, Colour]]) -> Image.Image:
    """Paint a vertical gradient through colours at shares of the height, from 0.0 to 1.0."""
    column = Image.new("RGB", (1, 256))
    for row in range(256):
        column.putpixel((0, row), _interpolate(stops, row / 255))
    return column.resize(size, Image.Resampling.BILINEAR)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour with a share of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _interpolate(stops: Sequence[tuple[float, Colour]], position: float) -> Colour:
    for (start, first), (end, second) in itertools.pairwise(stops):
        if position <= end:
            return mix(first, second, max(0.0, (position - start) / max(1e-6, end - start)))
    return stops[-1][1]


def _radial_mask(size: Size) -> Image.Image:
    """Black in the middle, white in the corners."""
    return Image.radial_gradient("L").resize(size, Image.Resampling.BILINEAR)


class _Painting:
    """A picture under work, with coordinates as shares of its width and height."""

    def __init__(self, size: Size, stops: Sequence[tuple[float, Colour]]) -> None:
        self.picture = paint_gradient(size, stops)
        self.width, self.height = size
        self.short = min(size)

    def glow(
        self, x: float, y: float, radius: float, colour: Colour, strength: float, *, flat: float = 1
    ) -> None:
        """Add soft light; the radius is a share of the shorter side, `flat` squashes it."""
        reach_x = max(1, round(radius * self.short))
        reach_y = max(1, round(radius * self.short * flat))
        light = ImageChops.invert(Image.radial_gradient("L")).point(
            # Pillow's gradient is 180 at the middle of each edge: a glow has to end before that.
            [round(255 * strength * (max(0, step - 76) / 179) ** 1.5) for step in range(256)]
        )
        light = light.resize((2 * reach_x, 2 * reach_y), Image.Resampling.BILINEAR)
        corner = (round(x * self.width) - reach_x, round(y * self.height) - reach_y)
        self.picture.paste(Image.new("RGB", light.size, colour), corner, light)

    def spot(self, x: float, y: float, radius: float, colour: Colour, opacity: float) -> None:
        """Add an out-of-focus highlight: an even disc."""
        reach = max(2, round(radius * self.short))
        disc = Image.new("L", (2 * reach * 2, 2 * reach * 2), 0)
        inner = reach * 4 - 3
        ImageDraw.Draw(disc).ellipse((2, 2, inner, inner), fill=round(255 * opacity))
        disc = disc.resize((2 * reach, 2 * reach), Image.Resampling.BOX)
        corner = (round(x * self.width) - reach, round(y * self.height) - reach)
        self.picture.paste(Image.new("RGB", disc.size, colour), corner, disc)

    def ridge(self, points: Sequence[tuple[float, float]], colour: Colour, blur: float) -> None:
        """Fill everything below a line, with an edge as soft as `blur` (share of the side)."""
        mask = Image.new("L", self.picture.size, 0)
        line = [(x * self.width, y * self.height) for x, y in points]
        corners = [(line[-1][0], self.height + 9), (line[0][0], self.height + 9)]
        ImageDraw.Draw(mask).polygon([*line, *corners], fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(blur * self.short))
        self.picture.paste(Image.new("RGB", mask.size, colour), (0, 0), mask)

    def lower(self, top: float, stops: Sequence[tuple[float, Colour]], blur: float) -> None:
        """Paint a floor, sea or table from `top` down, with a gradient of its own."""
        start = round(top * self.height)
        floor = Image.new("RGB", self.picture.size)
        floor.paste(paint_gradient((self.width, self.height - start), stops), (0, start))
        mask = Image.new("L", self.picture.size, 0)
        mask.paste(255, (0, start, self.width, self.height))
        mask = mask.filter(ImageFilter.GaussianBlur(blur * self.short))
        self.picture.paste(floor, (0, 0), mask)

    def soften(self, share: float) -> None:
        self.picture = self.picture.filter(ImageFilter.GaussianBlur(share * self.short))

    def streaks(
        self, top: float, count: int, colours: tuple[Colour, Colour], draw: random.Random
    ) -> None:
        """Add faint horizontal streaks below `top`, as on sand, water or a table."""
        layer = self.picture.copy()
        brush = ImageDraw.Draw(layer)
        for _ in range(count):
            y = (top + (1 - top) * draw.random() ** 0.8) * self.height
            x = draw.uniform(-0.2, 1.0) * self.width
            length = draw.uniform(0.08, 0.5) * self.width
            line = (x, y, x + length, y + draw.uniform(-0.004, 0.004) * self.height)
            brush.line(line, fill=draw.choice(colours), width=draw.choice((1, 1, 2)))
        self.picture = Image.blend(self.picture, layer.filter(ImageFilter.GaussianBlur(1.2)), 0.4)


def _wave(
    draw: random.Random, level: float, height: float, *, steps: int = 40, bumps: float = 3.0
) -> list[tuple[float, float]]:
    """Draw a hilly line across the picture around a level."""
    phases = [draw.uniform(0, math.tau) for _ in range(3)]
    points = []
    for step in range(steps + 1):
        x = step / steps
        swing = sum(
            math.sin(x * bumps * (index + 1) * 2.1 + phase) / (index + 1)
            for index, phase in enumerate(phases)
        )
        points.append((x, level - height * swing / 1.8))
    return points


def _peaks(draw: random.Random, level: float, height: float) -> list[tuple[float, float]]:
    """Draw a jagged line across the picture: summits and saddles by turns."""
    points, x, up = [(-0.05, level)], -0.05, True
    while x < 1.05:
        x += draw.uniform(0.07, 0.16)
        reach = draw.uniform(0.5, 1.0) if up else draw.uniform(-0.1, 0.3)
        points.append((x, level - height * reach))
        up = not up
    return points


def _paint_studio(size: Size, draw: random.Random) -> Image.Image:
    wall, floor = (206, 208, 212), (236, 236, 238)
    painting = _Painting(size, [(0.0, (188, 190, 196)), (0.62, wall), (0.74, floor), (1.0, floor)])
    painting.glow(draw.uniform(0.35, 0.65), 0.42, 0.62, (252, 252, 252), 0.9)
    painting.glow(0.5, 0.9, 0.7, (255, 255, 255), 0.7, flat=0.3)
    painting.soften(0.01)
    return painting.picture


def _paint_pastel(size: Size, draw: random.Random) -> Image.Image:
    pairs: tuple[tuple[Colour, Colour, Colour], ...] = (
        ((252, 221, 226), (214, 226, 250), (255, 240, 214)),
        ((214, 240, 230), (250, 236, 214), (232, 220, 248)),
        ((226, 218, 250), (252, 226, 214), (214, 240, 244)),
        ((255, 232, 204), (248, 208, 214), (222, 240, 220)),
    )
    top, bottom, accent = draw.choice(pairs)
    painting = _Painting(size, [(0.0, top), (0.68, mix(top, bottom, 0.5)), (1.0, bottom)])
    painting.spot(draw.uniform(0.4, 0.6), 0.44, 0.33, accent, 0.95)
    painting.lower(0.76, [(0.0, mix(bottom, (255, 255, 255), 0.25)), (1.0, bottom)], 0.002)
    base = mix(accent, bottom, 0.5)
    for level, colour in ((0.9, mix(base, (90, 70, 90), 0.22)), (0.865, mix(base, top, 0.5))):
        podium = Image.new("L", size, 0)
        reach_x, reach_y = 0.36 * painting.short, 0.06 * painting.short
        x, y = size[0] / 2, level * size[1]
        oval = (x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        ImageDraw.Draw(podium).ellipse(oval, fill=255)
        podium = podium.filter(ImageFilter.GaussianBlur(1.2))
        painting.picture.paste(Image.new("RGB", size, colour), (0, 0), podium)
    return painting.picture


def _paint_beach(size: Size, draw: random.Random) -> Image.Image:
    horizon = draw.uniform(0.42, 0.5)
    painting = _Painting(
        size, [(0.0, (86, 168, 226)), (horizon, (222, 242, 250)), (1.0, (0, 0, 0))]
    )
    painting.glow(draw.choice((0.18, 0.82)), 0.12, 0.55, (255, 250, 226), 0.85)
    for _ in range(7):
        x, y = draw.random(), draw.uniform(0.08, horizon - 0.12)
        for puff in range(4):
            painting.glow(
                x + 0.05 * puff, y + draw.uniform(-0.01, 0.01), 0.11, (255, 255, 255), 0.5, flat=0.4
            )
    painting.lower(
        horizon, [(0.0, (24, 128, 172)), (0.28, (62, 186, 200)), (1.0, (150, 226, 220))], 0.002
    )
    painting.streaks(horizon + 0.01, 60, ((190, 238, 240), (40, 150, 184)), draw)
    painting.soften(0.005)
    shore = horizon + 0.18
    painting.ridge(_wave(draw, shore, 0.018), (246, 252, 250), 0.006)
    painting.ridge(_wave(draw, shore + 0.022, 0.016), (206, 180, 140), 0.006)
    painting.ridge(_wave(draw, shore + 0.06, 0.014), (240, 220, 180), 0.02)
    painting.glow(0.5, 1.02, 0.9, (228, 200, 152), 0.8, flat=0.3)
    painting.streaks(shore + 0.09, 140, ((250, 236, 206), (214, 186, 142)), draw)
    return painting.picture


def _paint_sunset(size: Size, draw: random.Random) -> Image.Image:
    horizon, sun = draw.uniform(0.54, 0.6), draw.uniform(0.25, 0.75)
    sky = [(0.0, (62, 58, 122)), (0.28, (170, 92, 142)), (0.45, (246, 146, 104))]
    painting = _Painting(size, [*sky, (horizon, (255, 214, 140)), (1.0, (0, 0, 0))])
    painting.glow(sun, horizon - 0.06, 0.6, (255, 226, 150), 0.9)
    painting.spot(sun, horizon - 0.07, 0.075, (255, 246, 214), 1.0)
    for _ in range(9):
        painting.glow(draw.random(), draw.uniform(0.12, 0.4), 0.24, (255, 176, 150), 0.4, flat=0.12)
    painting.lower(
        horizon, [(0.0, (240, 164, 112)), (0.35, (140, 84, 118)), (1.0, (58, 48, 88))], 0.002
    )
    painting.glow(sun, horizon + 0.1, 0.34, (255, 222, 160), 0.8, flat=0.6)
    painting.streaks(horizon + 0.01, 130, ((255, 206, 150), (84, 60, 104)), draw)
    painting.soften(0.006)
    painting.lower(0.76, [(0.0, (116, 82, 76)), (1.0, (56, 42, 48))], 0.004)
    painting.streaks(0.77, 70, ((160, 116, 96), (60, 44, 46)), draw)
    painting.glow(sun, 0.8, 0.5, (255, 190, 130), 0.35, flat=0.2)
    return painting.picture


def _paint_forest(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size,
        [(0.0, (84, 132, 82)), (0.45, (206, 226, 158)), (0.7, (112, 148, 84)), (1.0, (52, 74, 42))],
    )
    painting.glow(draw.uniform(0.35, 0.65), 0.34, 0.6, (250, 252, 214), 0.9)
    for depth, (count, colour) in enumerate(
        ((14, (142, 166, 118)), (9, (92, 112, 76)), (5, (58, 62, 46)))
    ):
        trunks = Image.new("L", size, 0)
        brush = ImageDraw.Draw(trunks)
        for _ in range(count):
            x = draw.uniform(-0.05, 1.05) * size[0]
            wide = draw.uniform(0.5, 1.0) * (0.018 + 0.018 * depth) * painting.short
            foot = (0.66 + 0.05 * depth + draw.uniform(0, 0.03)) * size[1]
            lean = draw.uniform(-0.02, 0.02) * size[0]
            brush.polygon(
                [
                    (x + lean - wide / 3, 0),
                    (x + lean + wide / 3, 0),
                    (x + wide, foot),
                    (x - wide, foot),
                ],
                fill=255,
            )
        trunks = trunks.filter(ImageFilter.GaussianBlur((0.011 - 0.002 * depth) * painting.short))
        painting.picture.paste(Image.new("RGB", size, colour), (0, 0), trunks)
        painting.glow(0.5, 0.36, 0.5, (244, 250, 206), 0.32)
    for _ in range(34):
        leaf = draw.choice(((190, 220, 120), (236, 244, 170), (120, 168, 88)))
        painting.spot(draw.random(), draw.uniform(0, 0.42), draw.uniform(0.012, 0.045), leaf, 0.3)
    painting.ridge(_wave(draw, 0.71, 0.014), (104, 122, 62), 0.014)
    painting.ridge(_wave(draw, 0.78, 0.014), (88, 98, 54), 0.02)
    painting.glow(0.5, 0.88, 0.6, (176, 178, 104), 0.6, flat=0.22)
    painting.streaks(0.76, 160, ((150, 158, 86), (62, 66, 38)), draw)
    return painting.picture


def _paint_meadow(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size, [(0.0, (112, 182, 236)), (0.5, (232, 244, 246)), (1.0, (150, 190, 90))]
    )
    painting.glow(draw.choice((0.15, 0.85)), 0.1, 0.6, (255, 252, 224), 0.8)
    painting.ridge(_wave(draw, 0.5, 0.05), (150, 190, 152), 0.012)
    painting.ridge(_wave(draw, 0.57, 0.04), (122, 176, 98), 0.012)
    for _ in range(12):
        painting.glow(
            draw.random(), draw.uniform(0.5, 0.57), draw.uniform(0.05, 0.11), (82, 136, 78), 0.8
        )
    painting.ridge(_wave(draw, 0.66, 0.02), (138, 190, 84), 0.01)
    painting.glow(0.5, 1.0, 0.8, (84, 146, 62), 0.8, flat=0.4)
    blooms = ((255, 255, 255), (250, 214, 92), (240, 132, 150), (196, 160, 230))
    for _ in range(80):
        depth = draw.random()
        painting.spot(
            draw.random(), 0.66 + 0.33 * depth, 0.004 + 0.012 * depth, draw.choice(blooms), 0.8
        )
    painting.soften(0.004)
    return painting.picture


def _paint_mountains(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size, [(0.0, (92, 148, 208)), (0.5, (236, 238, 236)), (1.0, (90, 100, 96))]
    )
    painting.glow(draw.uniform(0.2, 0.8), 0.2, 0.5, (255, 246, 228), 0.7)
    layers: tuple[tuple[float, float, Colour], ...] = (
        (0.52, 0.3, (164, 184, 206)),
        (0.6, 0.24, (118, 146, 172)),
        (0.68, 0.16, (78, 108, 122)),
    )
    for level, height, colour in layers:
        painting.ridge(_peaks(draw, level, height), colour, 0.003)
        painting.glow(0.5, level + 0.03, 0.9, (226, 234, 238), 0.5, flat=0.16)
    painting.ridge(_wave(draw, 0.72, 0.02), (70, 92, 74), 0.008)
    painting.soften(0.004)
    painting.lower(0.78, [(0.0, (150, 146, 138)), (1.0, (104, 98, 92))], 0.005)
    painting.streaks(0.79, 130, ((182, 178, 170), (96, 90, 84)), draw)
    return painting.picture


def _paint_snow(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size, [(0.0, (166, 194, 224)), (0.6, (236, 242, 250)), (1.0, (246, 249, 253))]
    )
    painting.ridge(_wave(draw, 0.58, 0.04), (206, 220, 236), 0.012)
    for depth, colour in enumerate(((150, 174, 194), (98, 128, 146))):
        trees = Image.new("L", size, 0)
        brush = ImageDraw.Draw(trees)
        for _ in range(13 - 4 * depth):
            x, tall = draw.random() * size[0], draw.uniform(0.14, 0.26) * (1 + depth * 0.5)
            foot = (0.64 + 0.04 * depth) * size[1]
            for tier in range(3):
                wide = (0.035 + 0.02 * tier) * (1 + 0.5 * depth) * painting.short
                top = foot - tall * size[1] * (1 - tier * 0.25)
                low = foot - tall * size[1] * (0.55 - tier * 0.27)
                brush.polygon([(x, top), (x + wide, low), (x - wide, low)], fill=235)
        trees = trees.filter(ImageFilter.GaussianBlur(0.006 * painting.short))
        painting.picture.paste(Image.new("RGB", size, colour), (0, 0), trees)
    painting.ridge(_wave(draw, 0.68, 0.012), (232, 240, 249), 0.01)
    painting.ridge(_wave(draw, 0.78, 0.016), (247, 250, 254), 0.015)
    for _ in range(110):
        reach = draw.choice((0.002, 0.003, 0.005, 0.009))
        painting.spot(draw.random(), draw.random(), reach, (255, 255, 255), 0.75)
    return painting.picture


def _paint_city(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(size, [(0.0, (66, 84, 132)), (0.55, (246, 186, 150)), (1.0, (70, 66, 82))])
    for colour, tallest in (((150, 130, 150), 0.42), ((96, 90, 122), 0.3), ((62, 62, 92), 0.2)):
        brush = ImageDraw.Draw(painting.picture)
        x = -0.02
        while x < 1:
            wide, top = draw.uniform(0.06, 0.13), 0.72 - draw.uniform(0.35, 1.0) * tallest
            left, right = x * size[0], (x + wide) * size[0]
            brush.rectangle((left, top * size[1], right, size[1]), fill=colour)
            x += wide + draw.uniform(0, 0.02)
        painting.soften(0.004)
    lamps = ((255, 214, 140), (255, 176, 104), (255, 240, 214), (236, 110, 104), (150, 200, 250))
    for _ in range(60):
        y = draw.uniform(0.45, 0.76)
        painting.spot(draw.random(), y, draw.uniform(0.008, 0.034), draw.choice(lamps), 0.5)
    painting.lower(0.75, [(0.0, (118, 106, 116)), (1.0, (66, 62, 76))], 0.006)
    for _ in range(22):
        x, y = draw.random(), draw.uniform(0.77, 0.95)
        painting.glow(x, y, 0.09, draw.choice(lamps), 0.3, flat=0.3)
    return painting.picture


def _paint_night(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size,
        [(0.0, (12, 16, 44)), (0.5, (36, 48, 102)), (0.72, (88, 88, 146)), (1.0, (30, 30, 60))],
    )
    for _ in range(4):
        x, y = draw.random(), draw.uniform(0.1, 0.5)
        painting.glow(x, y, 0.5, (92, 76, 160), 0.35, flat=0.5)
    for _ in range(170):
        reach, opacity = draw.choice((0.0015, 0.0015, 0.002, 0.004)), draw.uniform(0.4, 1)
        painting.spot(draw.random(), draw.random() ** 1.3 * 0.7, reach, (240, 244, 255), opacity)
    moon = draw.choice((0.2, 0.78))
    painting.glow(moon, 0.19, 0.4, (190, 204, 250), 0.6)
    painting.spot(moon, 0.19, 0.07, (250, 248, 232), 1.0)
    painting.ridge(_wave(draw, 0.69, 0.04), (34, 38, 78), 0.006)
    painting.ridge(_wave(draw, 0.75, 0.02), (24, 26, 56), 0.006)
    painting.lower(0.78, [(0.0, (48, 50, 92)), (1.0, (22, 22, 46))], 0.01)
    painting.glow(0.5, 0.86, 0.6, (136, 144, 206), 0.6, flat=0.24)
    return painting.picture


def _paint_room_wall(painting: _Painting, draw: random.Random) -> None:
    """Window light on a wall, and something green out of focus."""
    light = Image.new("L", painting.picture.size, 0)
    brush = ImageDraw.Draw(light)
    left = draw.uniform(0.08, 0.5)
    for column in range(2):
        for row in range(2):
            x, y = left + 0.17 * column + 0.05 * row, 0.08 + 0.25 * row
            corners = [(x, y), (x + 0.15, y + 0.03), (x + 0.19, y + 0.25), (x + 0.04, y + 0.22)]
            brush.polygon([(a * painting.width, b * painting.height) for a, b in corners], fill=120)
    light = light.filter(ImageFilter.GaussianBlur(0.012 * painting.short))
    painting.picture.paste(Image.new("RGB", light.size, (255, 248, 230)), (0, 0), light)
    side = draw.choice((0.04, 0.96))
    for _ in range(16):
        leaf = draw.choice(((96, 132, 96), (122, 152, 110), (76, 110, 82)))
        x, y = side + draw.uniform(-0.12, 0.12), draw.uniform(0.3, 0.68)
        painting.glow(x, y, draw.uniform(0.05, 0.12), leaf, 0.75, flat=1.5)


def _paint_planks(
    painting: _Painting, top: float, colours: Sequence[Colour], draw: random.Random
) -> None:
    """Paint a table of planks that run towards the viewer, with grain."""
    wide, high = painting.picture.size
    table = Image.new("RGB", (wide, high), colours[0])
    brush = ImageDraw.Draw(table)
    planks, middle = 7, draw.uniform(0.42, 0.58)
    level = top * high
    for plank in range(-planks, 2 * planks):
        near = (middle + (plank - planks / 2) * 0.3) * wide
        far = (middle + (plank - planks / 2) * 0.17) * wide
        tone = mix(draw.choice(colours), (90, 56, 30), draw.uniform(0, 0.16))
        edges = [(far, level), (far + 0.17 * wide, level), (near + 0.3 * wide, high), (near, high)]
        brush.polygon(edges, fill=tone)
        for _ in range(13):
            share = draw.random()
            start = (far + 0.17 * wide * share, level)
            end = (near + 0.3 * wide * share, high)
            brush.line((start, end), fill=mix(tone, (70, 42, 24), draw.uniform(0.05, 0.22)))
        brush.line((edges[0], edges[3]), fill=mix(tone, (40, 24, 14), 0.6), width=2)
    mask = Image.new("L", table.size, 0)
    mask.paste(255, (0, round(level), wide, high))
    mask = mask.filter(ImageFilter.GaussianBlur(0.003 * painting.short))
    softened = table.filter(ImageFilter.GaussianBlur(0.0016 * painting.short))
    painting.picture.paste(softened, (0, 0), mask)
    painting.glow(0.5, top, 0.9, (255, 244, 224), 0.28, flat=0.14)


def _paint_wood(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size, [(0.0, (196, 186, 172)), (0.7, (226, 216, 200)), (1.0, (150, 110, 80))]
    )
    _paint_room_wall(painting, draw)
    painting.soften(0.012)
    _paint_planks(painting, 0.7, [(186, 132, 86), (172, 118, 74), (198, 146, 98)], draw)
    return painting.picture


def _paint_marble(size: Size, draw: random.Random) -> Image.Image:
    painting = _Painting(
        size, [(0.0, (206, 212, 212)), (0.7, (232, 234, 232)), (1.0, (240, 240, 240))]
    )
    painting.glow(draw.uniform(0.3, 0.7), 0.3, 0.6, (252, 252, 250), 0.8)
    painting.lower(0.72, [(0.0, (250, 250, 250)), (1.0, (232, 232, 236))], 0.002)
    veins = painting.picture.copy()
    brush = ImageDraw.Draw(veins)
    for _ in range(16):
        x, y = draw.uniform(-0.1, 1.0), draw.uniform(0.73, 0.95)
        points = [(x * size[0], y * size[1])]
        for _ in range(9):
            x, y = x + draw.uniform(0.02, 0.08), max(0.73, y + draw.uniform(-0.025, 0.03))
            points.append((x * size[0], y * size[1]))
        brush.line(points, fill=(166, 168, 178), width=draw.choice((1, 2, 4)), joint="curve")
    softened = veins.filter(ImageFilter.GaussianBlur(0.003 * painting.short))
    painting.picture = Image.blend(painting.picture, softened, 0.7)
    return painting.picture


def _paint_room(size: Size, draw: random.Random) -> Image.Image:
    wall = draw.choice(((226, 212, 194), (208, 216, 208), (222, 206, 200)))
    painting = _Painting(size, [(0.0, mix(wall, (120, 100, 90), 0.12)), (0.72, wall), (1.0, wall)])
    shelf = ImageDraw.Draw(painting.picture)
    left = draw.uniform(0.45, 0.62)
    shelf.rectangle((left * size[0], 0.3 * size[1], size[0], 0.325 * size[1]), fill=(168, 130, 96))
    for _ in range(5):
        x, tall = draw.uniform(left, 0.96), draw.uniform(0.06, 0.16)
        tone = draw.choice(((236, 226, 210), (152, 172, 160), (204, 142, 112), (110, 120, 140)))
        box = (x * size[0], (0.3 - tall) * size[1], (x + 0.06) * size[0], 0.3 * size[1])
        shelf.rounded_rectangle(box, 0.01 * painting.short, fill=tone)
    _paint_room_wall(painting, draw)
    painting.soften(0.014)
    _paint_planks(painting, 0.74, [(222, 190, 152), (214, 180, 142), (228, 198, 162)], draw)
    return painting.picture


SCENES: dict[str, Scene] = {
    "beach": Scene(paint=_paint_beach, light=(255, 250, 238)),
    "city": Scene(paint=_paint_city, light=(240, 226, 226)),
    "forest": Scene(paint=_paint_forest, light=(240, 246, 220)),
    "marble": Scene(paint=_paint_marble),
    "meadow": Scene(paint=_paint_meadow, light=(252, 252, 240)),
    "mountains": Scene(paint=_paint_mountains, light=(240, 244, 250)),
    "night": Scene(paint=_paint_night, light=(176, 182, 226)),
    "pastel": Scene(paint=_paint_pastel, ground=0.885),
    "room": Scene(paint=_paint_room, light=(255, 246, 232)),
    "snow": Scene(paint=_paint_snow, light=(240, 246, 255)),
    "studio": Scene(paint=_paint_studio),
    "sunset": Scene(paint=_paint_sunset, light=(255, 214, 184)),
    "wood": Scene(paint=_paint_wood, light=(255, 244, 228)),
}
