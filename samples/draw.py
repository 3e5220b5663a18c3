"""Draw the product pictures of the example catalog, `samples/photos/*.jpg`.

Run it from anywhere; it needs nothing but Pillow, and draws the same pictures every time:

    python samples/draw.py                  # all of them
    python samples/draw.py --only mug       # one; may be given several times

Every product stands on a plain, smooth backdrop whose colour it does not share, lit from the
upper left, so that an edit can cut it out by flood-filling from the corners.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont

PHOTOS = Path(__file__).resolve().parent / "photos"
SUPERSAMPLING = 3  # drawn this much larger and scaled down, since ImageDraw does not antialias
BLEED = 40  # drawn beyond the frame: things just outside a close-up cast their shadows into it
QUALITIES = (94, 91, 88, 84, 80, 75)  # of the JPEG files: the first that keeps them small enough
LARGEST_FILE = 98_000  # bytes
SQUARE = (1024, 1024)
PORTRAIT = (1024, 1280)

LIGHT = "#fffaf0"  # highlights are warm and shadows cool: richer than plain white and black
DARK = "#140f2b"
STEEL = "#bcc3cb"

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
Mask: TypeAlias = Image.Image  # mode L, as large as the drawing: 255 inside the shape
Leaf: TypeAlias = tuple[Point, Point, Point, float]  # its base, middle and tip, and half its width
Stops: TypeAlias = Sequence[tuple[float, str]]  # (place from 0 to 1, colour), in rising order


# Colours ------------------------------------------------------------------------------------------


def mix(color: str, other: str, share: float) -> str:
    """Return `color` with a `share` (0 to 1) of `other` in it."""
    pairs = zip(ImageColor.getrgb(color)[:3], ImageColor.getrgb(other)[:3], strict=True)
    return "#" + "".join(f"{round(one + (two - one) * share):02x}" for one, two in pairs)


def lighter(color: str, share: float) -> str:
    """Return `color` nearer to the light."""
    return mix(color, LIGHT, share)


def darker(color: str, share: float) -> str:
    """Return `color` further in the shade."""
    return mix(color, DARK, share)


@dataclass(frozen=True)
class Linear:
    """A gradient along the line from `start` to `end`."""

    start: Point
    end: Point
    stops: Stops


@dataclass(frozen=True)
class Radial:
    """A gradient from `center` outwards, up to `radius`."""

    center: Point
    radius: float
    stops: Stops


Fill: TypeAlias = str | Linear | Radial


def cylinder(left: Point, right: Point, color: str, *, gloss: float = 0.35) -> Linear:
    """Return the shading of an upright round body lit from the left, with light bounced back."""
    stops = (
        (0.0, darker(color, 0.22)),
        (0.1, color),
        (0.24, lighter(color, gloss)),
        (0.42, color),
        (0.86, darker(color, 0.42)),
        (1.0, darker(color, 0.28)),
    )
    return Linear(left, right, stops)


def plane(start: Point, end: Point, color: str, *, contrast: float = 0.2) -> Linear:
    """Return the shading of a nearly flat face, lighter at `start` than at `end`."""
    return Linear(start, end, ((0.0, lighter(color, contrast)), (1.0, darker(color, contrast))))


def dice(seed: str) -> random.Random:
    """Return dice that fall the same way in every run."""
    return random.Random(seed)  # noqa: S311 - for scattering speckles, not for secrets


# Points -------------------------------------------------------------------------------------------


def smooth(points: Sequence[Point], *, closed: bool = False) -> list[Point]:
    """Return a Catmull-Rom spline: a curve that passes through all `points`."""
    steps = 20
    count = len(points)

    def at(index: int) -> Point:
        return points[index % count] if closed else points[min(max(index, 0), count - 1)]

    def blend(values: Sequence[float], share: float) -> float:
        before, start, end, after = values
        return 0.5 * (
            2 * start
            + (end - before) * share
            + (2 * before - 5 * start + 4 * end - after) * share**2
            + (3 * start - before - 3 * end + after) * share**3
        )

    curve: list[Point] = []
    for index in range(count if closed else count - 1):
        near = [at(index + offset) for offset in (-1, 0, 1, 2)]
        for step in range(steps):
            share = step / steps
            curve.append((blend([x for x, _ in near], share), blend([y for _, y in near], share)))
    if not closed:
        curve.append(points[-1])
    return curve


def circle_point(center: Point, radius: float, degrees: float) -> Point:
    """Return the point of a circle at an angle counted clockwise from twelve o'clock."""
    angle = math.radians(degrees)
    return center[0] + radius * math.sin(angle), center[1] - radius * math.cos(angle)


def around(center: Point, radius: float) -> Box:
    """Return the box of a circle."""
    return center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius


def mirrored(points: Iterable[Point], axis: float) -> list[Point]:
    """Return `points` reflected in the upright line at x = `axis`."""
    return [(2 * axis - x, y) for x, y in points]


def symmetric(half: Sequence[Point], axis: float) -> list[Point]:
    """Return an outline of which `half` is given: from one end on the axis to the other."""
    return [*half, *mirrored(half[-2:0:-1], axis)]


def paced(points: Sequence[Point]) -> list[Point]:
    """Return points along a line that are about one unit apart."""
    result: list[Point] = []
    for (x, y), (next_x, next_y) in pairwise(points):
        count = max(1, round(math.dist((x, y), (next_x, next_y))))
        steps = (step / count for step in range(count))
        result += [(x + (next_x - x) * step, y + (next_y - y) * step) for step in steps]
    return result


def ribbon(center_line: Sequence[Point], half_widths: Sequence[float]) -> list[Point]:
    """Return the outline of a band that follows a line and has its own width at each point."""
    left: list[Point] = []
    right: list[Point] = []
    last = len(center_line) - 1
    for index, ((x, y), half_width) in enumerate(zip(center_line, half_widths, strict=True)):
        before, after = center_line[max(index - 1, 0)], center_line[min(index + 1, last)]
        run, rise = after[0] - before[0], after[1] - before[1]
        length = math.hypot(run, rise) or 1.0
        across = (-rise / length * half_width, run / length * half_width)
        left.append((x - across[0], y - across[1]))
        right.append((x + across[0], y + across[1]))
    return left + right[::-1]


# Drawing ------------------------------------------------------------------------------------------


def union(*masks: Mask) -> Mask:
    """Return what is in any of the masks."""
    result = masks[0]
    for mask in masks[1:]:
        result = ImageChops.lighter(result, mask)
    return result


def within(mask: Mask, limit: Mask) -> Mask:
    """Return the part of `mask` that lies inside `limit`."""
    return ImageChops.multiply(mask, limit)


def without(mask: Mask, hole: Mask) -> Mask:
    """Return `mask` with `hole` taken out."""
    return ImageChops.multiply(mask, ImageChops.invert(hole))


@dataclass(frozen=True)
class View:
    """The part of the scene that a picture shows: its upper left corner and how much larger."""

    corner: Point = (0.0, 0.0)
    zoom: float = 1.0


class Picture:
    """A drawing in the making; all its coordinates and lengths are those of the scene."""

    def __init__(self, size: tuple[int, int], backdrop: str, view: View) -> None:
        """Start with the empty backdrop."""
        self.view = view
        self.scale = SUPERSAMPLING * view.zoom
        self.bleed = round(BLEED * view.zoom) * SUPERSAMPLING
        self.size = (
            size[0] * SUPERSAMPLING + 2 * self.bleed,
            size[1] * SUPERSAMPLING + 2 * self.bleed,
        )
        self.shadow_color = darker(backdrop, 0.8)
        self.image = Image.new("RGB", self.size)
        frame = self._unplace((0.0, 0.0)), self._unplace(self.size)
        # The backdrop belongs to the picture, not to the scene, so it is the same in close-ups.
        # Its range is small: a flood fill with a modest tolerance has to cross all of it.
        light = (frame[0][0] * 0.68 + frame[1][0] * 0.32, frame[0][1] * 0.7 + frame[1][1] * 0.3)
        reach = math.dist(*frame) * 0.78
        stops = (
            (0.0, mix(backdrop, "#ffffff", 0.34)),
            (0.5, backdrop),
            (1.0, darker(backdrop, 0.06)),
        )
        self.paint(Image.new("L", self.size, 255), Radial(light, reach, stops))

    def _place(self, point: Point) -> Point:
        left, top = self.view.corner
        return (
            (point[0] - left) * self.scale + self.bleed,
            (point[1] - top) * self.scale + self.bleed,
        )

    def _unplace(self, pixel: Point) -> Point:
        left, top = self.view.corner
        return (
            (pixel[0] - self.bleed) / self.scale + left,
            (pixel[1] - self.bleed) / self.scale + top,
        )

    def _place_box(self, box: Box) -> Box:
        return (*self._place(box[:2]), *self._place(box[2:]))

    def _canvas(self) -> tuple[Mask, ImageDraw.ImageDraw]:
        mask = Image.new("L", self.size, 0)
        return mask, ImageDraw.Draw(mask)

    # Shapes

    def ellipse(self, box: Box) -> Mask:
        """Return the ellipse that fills `box`."""
        mask, draw = self._canvas()
        draw.ellipse(self._place_box(box), fill=255)
        return mask

    def circle(self, center: Point, radius: float) -> Mask:
        """Return a disc."""
        return self.ellipse(around(center, radius))

    def ring(self, center: Point, outer: float, inner: float) -> Mask:
        """Return a disc with a round hole."""
        return without(self.circle(center, outer), self.circle(center, inner))

    def rounded(self, box: Box, radius: float) -> Mask:
        """Return a rectangle with rounded corners."""
        mask, draw = self._canvas()
        draw.rounded_rectangle(self._place_box(box), radius * self.scale, fill=255)
        return mask

    def polygon(self, points: Sequence[Point]) -> Mask:
        """Return the shape that `points` go around."""
        mask, draw = self._canvas()
        draw.polygon([self._place(point) for point in points], fill=255)
        return mask

    def stroke(self, points: Sequence[Point], width: float) -> Mask:
        """Return a line with round ends."""
        mask = self.polygon(ribbon(points, [width / 2] * len(points)))
        ends = self.spots((end, width / 2) for end in (points[0], points[-1]))
        return union(mask, ends)

    def spots(self, spots: Iterable[tuple[Point, float]]) -> Mask:
        """Return many small discs, each given by its centre and radius."""
        mask, draw = self._canvas()
        for center, radius in spots:
            draw.ellipse(around(self._place(center), radius * self.scale), fill=255)
        return mask

    def arcs(self, arcs: Iterable[tuple[Point, float, float]], width: float) -> Mask:
        """Return many short arcs, each given by its centre, radius and starting angle."""
        mask, draw = self._canvas()
        for center, radius, start in arcs:
            box = self._place_box(around(center, radius))
            draw.arc(box, start, start + 150, fill=255, width=round(width * self.scale))
        return mask

    def text(self, center: Point, text: str, size: float) -> Mask:
        """Return a line of text, in the font that comes with Pillow."""
        mask, draw = self._canvas()
        font = ImageFont.load_default(size * self.scale)
        draw.text(self._place(center), text, fill=255, font=font, anchor="mm")
        return mask

    def soften(self, mask: Mask, radius: float) -> Mask:
        """Return `mask` blurred."""
        box = mask.getbbox()
        if box is None:
            return mask
        blur = radius * self.scale
        margin = math.ceil(3 * blur)  # beyond that a blur is invisible, and costs time
        left, top, right, bottom = box
        wide = (left - margin, top - margin, right + margin, bottom + margin)
        result = Image.new("L", self.size, 0)
        result.paste(mask.crop(wide).filter(ImageFilter.GaussianBlur(blur)), wide[:2])
        return result

    def move(self, mask: Mask, offset: Point) -> Mask:
        """Return `mask` shifted; what enters at the border is empty."""
        result = Image.new("L", self.size, 0)
        result.paste(mask, (round(offset[0] * self.scale), round(offset[1] * self.scale)))
        return result

    # Paint

    def _render(self, fill: Fill, box: tuple[int, int, int, int]) -> Image.Image:
        """Return `fill` for a box of pixels."""
        size = (box[2] - box[0], box[3] - box[1])
        if isinstance(fill, str):
            return Image.new("RGB", size, fill)
        # A gradient is a ramp from 0 to 255, laid out by an affine map from pixels to the ramp,
        # and then one lookup table for each channel.
        if isinstance(fill, Linear):
            start, end = self._place(fill.start), self._place(fill.end)
            run, rise = end[0] - start[0], end[1] - start[1]
            pace = 256 / (run**2 + rise**2)
            first = ((box[0] - start[0]) * run + (box[1] - start[1]) * rise) * pace
            # Outside the ramp comes 255, which is wrong before its start: rows of 0 go there.
            lowest = first + min(0.0, size[0] * run * pace) + min(0.0, size[1] * rise * pace)
            rows = max(0, 2 - math.floor(lowest))
            ramp = Image.new("L", (3, rows + 256), 0)
            ramp.paste(Image.linear_gradient("L").resize((3, 256)), (0, rows))
            matrix = (0.0, 0.0, 1.5, run * pace, rise * pace, rows + first)
        else:
            ramp = Image.radial_gradient("L")
            center, pace = self._place(fill.center), 127.5 / (fill.radius * self.scale)
            across = 128 + (box[0] - center[0]) * pace
            matrix = (pace, 0.0, across, 0.0, pace, 128 + (box[1] - center[1]) * pace)
        ramp = ramp.transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=255
        )
        return Image.merge("RGB", [ramp.point(table) for table in _lookup_tables(fill.stops)])

    def paint(self, mask: Mask, fill: Fill, opacity: float = 1.0) -> None:
        """Lay `fill` over the drawing where `mask` is."""
        box = mask.getbbox()
        if box is None:
            return
        part = mask.crop(box)
        if opacity < 1:
            part = part.point([round(value * opacity) for value in range(256)])
        self.image.paste(self._render(fill, box), box, part)

    def round_edges(self, mask: Mask, depth: float, light: float = 0.4, dark: float = 0.4) -> None:
        """Make a painted shape look thick: light on its upper left edges, shade on the others."""
        soft = self.soften(mask, depth)
        shift = depth * 0.7
        self.paint(without(mask, self.move(soft, (-shift, -shift))), DARK, dark)
        self.paint(without(mask, self.move(soft, (shift, shift))), LIGHT, light)

    def tube(self, points: Sequence[Point], width: float, color: str) -> Mask:
        """Draw a round bar along a line, and return its mask."""
        mask = self.stroke(points, width)
        self.paint(mask, color)
        shift = width * 0.2
        lit = self.soften(self.stroke(points, width * 0.62), width * 0.14)
        self.paint(without(mask, self.move(lit, (-shift, -shift))), DARK, 0.45)
        gleam = self.soften(self.stroke(points, width * 0.16), width * 0.09)
        self.paint(within(self.move(gleam, (-shift, -shift)), mask), LIGHT, 0.65)
        return mask

    def glint(self, points: Sequence[Point], width: float, opacity: float) -> None:
        """Draw the reflection of a light along a line, thinning out towards both ends."""
        last = len(points) - 1
        swell = [width / 2 * math.sin(math.pi * step / last) for step in range(last + 1)]
        glint = self.polygon(ribbon(points, swell))
        self.paint(self.soften(glint, width * 0.22), LIGHT, opacity)

    def stitches(self, points: Sequence[Point], color: str, *, length: int = 9) -> None:
        """Sew a dashed seam along a line."""
        mask, draw = self._canvas()
        steps = [self._place(point) for point in paced(points)]
        for start in range(0, len(steps), round(length * 1.7)):
            draw.line(steps[start : start + length], fill=255, width=round(2.6 * self.scale))
        self.paint(self.move(mask, (1.5, 2)), DARK, 0.35)
        self.paint(mask, color, 0.9)

    def floor_shadow(self, box: Box) -> None:
        """Let a thing that stands on `box` (its footprint, seen from the front) cast a shadow."""
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        far = (left + width * 0.06, top - height * 0.1, right + width * 0.3, bottom + height * 0.35)
        self.paint(self.soften(self.ellipse(far), 26), self.shadow_color, 0.22)
        near = (left, top, right + width * 0.05, bottom + height * 0.1)
        self.paint(self.soften(self.ellipse(near), 13), self.shadow_color, 0.4)

    def cast_shadow(self, mask: Mask, distance: float, opacity: float, ground: Mask) -> None:
        """Let a shape cast a shadow on the thing closely behind it."""
        shadow = self.move(self.soften(mask, distance * 0.8), (distance * 0.7, distance))
        self.paint(within(shadow, ground), DARK, opacity)

    def table_shadow(self, mask: Mask) -> None:
        """Let a thing that is seen from above cast a shadow on the backdrop below it."""
        for softness, opacity in ((22.0, 0.34), (7.0, 0.3)):
            shadow = self.move(self.soften(mask, softness), (softness, softness * 1.4))
            self.paint(shadow, self.shadow_color, opacity)

    def finished(self) -> Image.Image:
        """Return the drawing in its final size."""
        width, height = self.size
        bleed = self.bleed
        return self.image.crop((bleed, bleed, width - bleed, height - bleed)).reduce(SUPERSAMPLING)


def _lookup_tables(stops: Stops) -> list[list[int]]:
    """Return, for red, green and blue, the value at each of 256 places of a gradient."""
    places = [place for place, _ in stops]
    tables: list[list[int]] = []
    for channel in range(3):
        values = [ImageColor.getrgb(color)[channel] for _, color in stops]
        table: list[int] = []
        for index in range(256):
            place = min(max(index / 255, places[0]), places[-1])
            after = next(number for number, stop in enumerate(places) if stop >= place) or 1
            share = (place - places[after - 1]) / (places[after] - places[after - 1])
            table.append(round(values[after - 1] + (values[after] - values[after - 1]) * share))
        tables.append(table)
    return tables


# Products -----------------------------------------------------------------------------------------


def draw_mug(picture: Picture) -> None:
    """Draw a speckled blue enamel mug with a dark rim."""
    blue, navy = "#2f6f9f", "#16293f"
    picture.floor_shadow((280, 720, 665, 800))
    handle = smooth(
        [(640, 445), (735, 418), (808, 455), (828, 535), (798, 612), (730, 652), (640, 668)]
    )
    picture.tube(handle, 44, blue)

    body = union(
        picture.polygon([(255, 330), (685, 330), (662, 740), (278, 740)]),
        picture.ellipse((278, 690, 662, 790)),
    )
    picture.paint(body, cylinder((258, 0), (682, 0), blue))
    picture.paint(
        within(picture.soften(picture.ellipse((250, 735, 690, 850)), 22), body), DARK, 0.4
    )
    chance = dice("enamel")
    speckles = picture.spots(
        # The sine crowds them towards the sides, as on any cylinder.
        (
            (470 + 200 * math.sin(chance.uniform(-1.5, 1.5)), chance.uniform(395, 775)),
            chance.choice((1.2, 1.6, 2.2, 3.4)),
        )
        for _ in range(150)
    )
    picture.paint(within(speckles, body), LIGHT, 0.7)
    window = smooth([(338, 425), (331, 520), (336, 640)])
    picture.paint(picture.soften(picture.stroke(window, 20), 7), LIGHT, 0.5)

    picture.cast_shadow(picture.ellipse((255, 284, 685, 394)), 10, 0.3, body)
    rim = picture.ellipse((251, 274, 689, 390))
    picture.paint(rim, cylinder((251, 0), (689, 0), navy, gloss=0.08))
    gleam = smooth([(262, 346), (290, 361), (330, 373), (380, 381), (440, 384)])
    picture.glint(gleam, 6.4, 0.75)
    inside = picture.ellipse((267, 285, 673, 378))
    shades = ((0.0, "#a9b4bd"), (0.45, "#e6e8e6"), (0.8, "#ffffff"), (1.0, "#eceeec"))
    picture.paint(inside, Linear((270, 320), (670, 345), shades))
    depth = without(inside, picture.soften(picture.ellipse((262, 312, 690, 440)), 14))
    picture.paint(depth, DARK, 0.22)
    floor = within(picture.soften(picture.ellipse((300, 352, 640, 430)), 9), inside)
    picture.paint(floor, "#8f9aa6", 0.5)


def draw_mug_from_above(picture: Picture) -> None:
    """Draw the same mug, full of coffee, looking down into it."""
    blue, navy, coffee = "#2f6f9f", "#16293f", "#4a2a1a"
    center = (462.0, 512.0)
    handle = [(720.0, 512.0), (858.0, 512.0)]
    outside = picture.circle(center, 300)
    picture.table_shadow(union(outside, picture.stroke(handle, 62)))
    picture.tube(handle, 62, blue)
    picture.cast_shadow(outside, 10, 0.4, picture.stroke(handle, 62))
    picture.paint(outside, navy)
    picture.glint([circle_point(center, 290, degrees) for degrees in range(-125, 36, 2)], 13, 0.8)

    # The wall that is nearer to the light lies in its own shade.
    wall = picture.circle(center, 278)
    shades = ((0.0, "#98a4af"), (0.5, "#e2e6e6"), (1.0, "#ffffff"))
    picture.paint(wall, Linear((270, 310), (650, 710), shades))
    surface = picture.circle(center, 238)
    stops = ((0.0, lighter(coffee, 0.12)), (0.8, coffee), (1.0, darker(coffee, 0.3)))
    picture.paint(surface, Radial(center, 238, stops))
    picture.paint(picture.soften(picture.ring(center, 239, 229), 3), "#b98a55", 0.8)
    shaded = without(surface, picture.soften(picture.circle((494, 552), 238), 16))
    picture.paint(shaded, DARK, 0.5)
    picture.glint([circle_point(center, 198, degrees) for degrees in range(92, 160, 2)], 22, 0.5)
    chance = dice("coffee")
    for degrees in (205, 216, 224, 240, 252):
        bubble = circle_point(center, chance.uniform(206, 220), degrees)
        radius = chance.uniform(5, 10)
        picture.paint(picture.circle(bubble, radius), "#b98a55", 0.75)
        picture.paint(picture.circle((bubble[0] - 2, bubble[1] - 2), radius * 0.4), LIGHT, 0.6)


def draw_lamp(picture: Picture) -> None:
    """Draw a mustard desk lamp with two arms and a bell shade."""
    mustard, brass, iron = "#e0a11f", "#b98a3c", "#33343d"
    picture.floor_shadow((415, 1085, 800, 1175))
    foot = union(
        picture.ellipse((420, 1078, 790, 1172)),
        picture.polygon([(420, 1098), (790, 1098), (790, 1125), (420, 1125)]),
        picture.ellipse((420, 1050, 790, 1144)),
    )
    picture.paint(foot, cylinder((420, 0), (790, 0), darker(mustard, 0.12)))
    top = picture.ellipse((420, 1050, 790, 1144))
    picture.paint(top, plane((450, 1050), (760, 1150), mustard, contrast=0.25))
    picture.round_edges(top, 4, light=0.6, dark=0.15)
    picture.paint(picture.soften(picture.ellipse((580, 1078, 720, 1124)), 9), DARK, 0.3)
    picture.tube([(605, 1094), (605, 1060)], 50, iron)

    elbow, neck = (750, 720), (450, 432)
    for start, end in (((605, 1060), elbow), (elbow, neck)):
        picture.tube([start, end], 30, mustard)
    for joint, radius in ((elbow, 36.0), (neck, 30.0), ((605, 1060), 27.0)):
        knob = picture.circle(joint, radius)
        light = (joint[0] - radius * 0.4, joint[1] - radius * 0.4)
        stops = ((0.0, lighter(iron, 0.45)), (0.5, iron), (1.0, darker(iron, 0.5)))
        picture.paint(knob, Radial(light, radius * 1.6, stops))
        picture.paint(picture.circle(joint, radius * 0.38), brass)
        picture.round_edges(picture.circle(joint, radius * 0.38), 3)

    _draw_lampshade(picture, mustard, iron)


def _draw_lampshade(picture: Picture, color: str, cap_color: str) -> None:
    """Draw the lamp's bell with the bulb in it, along its axis, which points down to the left."""
    tilt = math.radians(33)
    axis, across = (-math.sin(tilt), math.cos(tilt)), (math.cos(tilt), math.sin(tilt))

    def at(along: float, aside: float) -> Point:
        return (
            432 + axis[0] * along + across[0] * aside,
            416 + axis[1] * along + across[1] * aside,
        )

    def opening(radius: float, along: float) -> Mask:
        turns = [math.radians(10 * step) for step in range(36)]
        return picture.polygon(
            smooth(
                [at(along + 0.3 * radius * math.sin(a), radius * math.cos(a)) for a in turns],
                closed=True,
            )
        )

    cap_line = [at(-40, -48), at(-112, -42), at(-126, -30), at(-130, 0)]
    cap_line += [at(-126, 30), at(-112, 42), at(-40, 48)]
    cap = picture.polygon(smooth(cap_line))
    picture.paint(cap, cylinder(at(0, -44), at(0, 44), cap_color, gloss=0.45))
    profile = [(-64, 48), (-40, 66), (0, 84), (60, 106), (120, 138), (168, 178), (196, 204)]
    side = smooth([at(along, -radius) for along, radius in profile])
    other_side = smooth([at(along, radius) for along, radius in profile])
    bell = union(picture.polygon(side + other_side[::-1]), opening(204, 196))
    picture.paint(bell, cylinder(at(60, -170), at(60, 170), color, gloss=0.5))
    picture.round_edges(bell, 6, light=0.35, dark=0.3)
    picture.paint(opening(204, 196), darker(color, 0.25))
    inside = opening(194, 197)
    stops = ((0.0, "#fff4cf"), (0.35, "#fbdc94"), (1.0, "#c98a2c"))
    picture.paint(inside, Radial(at(180, 0), 215, stops))
    bulb = union(picture.circle(at(196, 0), 44), picture.stroke([at(150, 0), at(190, 0)], 46))
    bulb = within(bulb, inside)
    picture.paint(within(picture.soften(bulb, 18), inside), "#fffbe6", 0.9)
    picture.paint(
        bulb, Radial(at(186, -12), 64, ((0.0, "#ffffff"), (0.6, "#fffdf0"), (1, "#f7d98c")))
    )


def draw_armchair(picture: Picture) -> None:
    """Draw a green bouclé armchair on wooden legs."""
    green, wood = "#4f7a5b", "#9c6236"
    picture.floor_shadow((240, 892, 780, 936))
    for color, inset, foot_inset, floor in (
        (darker(wood, 0.5), 182, 190, 895),
        (wood, 254, 274, 928),
    ):
        for side in (-1, 1):
            top = 512 + side * inset
            leg = picture.polygon(ribbon([(top, 820), (512 + side * foot_inset, floor)], [22, 12]))
            picture.paint(leg, cylinder((top - 24, 0), (top + 20, 0), color))

    back_half = [(512, 190), (350, 210), (262, 300), (238, 520), (250, 760), (512, 790)]
    back = picture.polygon(smooth(symmetric(back_half, 512), closed=True))
    seat = picture.rounded((225, 690, 799, 850), 46)
    cushion_half = [(512, 584), (400, 588), (318, 606), (300, 660), (308, 716), (384, 734)]
    cushion = picture.polygon(smooth(symmetric([*cushion_half, (512, 738)], 512), closed=True))
    left_line: list[Point] = [(196, 640), (202, 540), (250, 490), (306, 520), (326, 620)]
    left_line += [(326, 760), (316, 838), (262, 850), (208, 836), (194, 740)]
    arms = [
        picture.polygon(smooth(left_line, closed=True)),
        picture.polygon(smooth(mirrored(left_line, 512), closed=True)),
    ]
    for part, height, shade in (
        (back, 190, 0.0),
        (seat, 690, 0.14),
        (cushion, 584, 0.0),
        (arms[0], 490, 0.0),
        (arms[1], 490, 0.06),
    ):
        color = darker(green, shade)
        if part is not back:
            picture.paint(within(picture.soften(part, 16), back), DARK, 0.35)
        stops = ((0.0, lighter(color, 0.24)), (0.5, color), (1.0, darker(color, 0.3)))
        picture.paint(part, Linear((240, height), (520, height + 420), stops))
        picture.round_edges(part, 24, light=0.3, dark=0.5)

    # Bouclé is made of small loops: each is lit on its upper left and dark on the other side.
    fabric = union(back, seat, cushion, *arms)
    chance = dice("bouclé")
    loops = [
        (
            (chance.uniform(190, 834), chance.uniform(186, 854)),
            chance.uniform(2.5, 4.5),
            chance.uniform(-30, 30),
        )
        for _ in range(7000)
    ]
    shaded = picture.arcs(((center, radius, turn - 30) for center, radius, turn in loops), 1.6)
    picture.paint(within(shaded, fabric), darker(green, 0.7), 0.2)
    lit = picture.arcs(((center, radius, turn + 150) for center, radius, turn in loops), 1.4)
    picture.paint(within(lit, fabric), lighter(green, 0.5), 0.24)


def draw_plant(picture: Picture) -> None:
    """Draw a snake plant in a terracotta pot."""
    clay = "#c4633c"
    picture.floor_shadow((380, 1105, 650, 1175))
    soil = picture.ellipse((322, 800, 702, 880))
    rim_back = picture.ellipse((306, 790, 718, 886))
    picture.paint(rim_back, darker(clay, 0.25))
    picture.paint(soil, Linear((330, 0), (700, 0), ((0.0, "#2a1a16"), (1.0, "#4a3026"))))

    leaves: Sequence[Leaf] = (
        ((470, 850), (400, 500), (372, 250), 40),
        ((560, 850), (600, 480), (640, 215), 42),
        ((512, 850), (500, 450), (520, 130), 46),
        ((430, 855), (330, 610), (262, 400), 38),
        ((600, 855), (690, 620), (768, 395), 40),
        ((480, 862), (440, 600), (452, 350), 44),
        ((552, 862), (560, 640), (588, 390), 44),
        ((430, 866), (388, 740), (330, 620), 32),
        ((610, 866), (640, 760), (690, 650), 32),
        ((520, 872), (512, 740), (505, 540), 38),
    )
    foliage = soil
    for number, leaf in enumerate(leaves):
        # The leaves behind are in the others' shade.
        green = darker("#1f7a45", 0.3 * (1 - number / len(leaves)))
        foliage = union(foliage, _draw_leaf(picture, leaf, green, foliage))

    pot = union(
        picture.polygon([(330, 880), (694, 880), (650, 1140), (374, 1140)]),
        picture.ellipse((374, 1105, 650, 1172)),
    )
    picture.paint(pot, cylinder((335, 0), (690, 0), clay, gloss=0.25))
    rim_front = without(
        union(
            picture.polygon([(306, 838), (718, 838), (710, 920), (314, 920)]),
            picture.ellipse((314, 876, 710, 966)),
        ),
        picture.ellipse((306, 790, 718, 886)),
    )
    picture.paint(within(picture.soften(picture.move(rim_front, (6, 18)), 9), pot), DARK, 0.4)
    picture.paint(rim_front, cylinder((306, 0), (718, 0), lighter(clay, 0.06), gloss=0.28))
    picture.round_edges(rim_front, 5, light=0.35, dark=0.25)


def _draw_leaf(picture: Picture, leaf: Leaf, green: str, ground: Mask) -> Mask:
    """Draw one sword-shaped leaf with a yellow margin and pale bands, and return its mask."""
    base, middle, tip, width = leaf
    margin = "#e0cc55"
    line = smooth([base, middle, tip])
    last = len(line) - 1
    # Slender at the soil, widest below the middle, pointed at the tip.
    shape = [
        width
        * (0.62 + 0.38 * math.sin(min(1.0, step / last / 0.45) * math.pi / 2))
        * (1 - max(0.0, step / last - 0.4) ** 2 / 0.36)
        for step in range(last + 1)
    ]
    blade = picture.polygon(ribbon(line, shape))
    heart = picture.polygon(ribbon(line, [0.76 * half for half in shape]))
    picture.cast_shadow(blade, 10, 0.4, ground)
    picture.paint(blade, plane((base[0] - width, 0), (base[0] + width, 0), margin))
    stops = ((0.0, lighter(green, 0.25)), (0.55, green), (1.0, darker(green, 0.5)))
    picture.paint(heart, Linear(tip, base, stops))
    chance = dice(f"leaf {tip}")
    for step in range(3, last - 2):
        x, y = line[step]
        half = shape[step] * 0.74
        rise = chance.uniform(-10, 4)
        wave = zip((-1, -0.4, 0, 0.5, 1), (rise, -7, 4, -6, rise), strict=True)
        band = smooth([(x + half * across, y + along) for across, along in wave])
        streak = within(picture.stroke(band, chance.uniform(3, 7)), heart)
        picture.paint(streak, mix(green, "#b5dca0", 0.6), 0.36)
    fold = picture.polygon(ribbon(line, shape)[: last + 1] + line[::-1])
    picture.paint(within(fold, blade), LIGHT, 0.13)
    picture.round_edges(blade, 5, light=0.25, dark=0.35)
    return blade


def draw_headphones(picture: Picture) -> None:
    """Draw wireless over-ear headphones, turned a little to the right."""
    shell, leather, metal = "#28346b", "#cf8a52", "#c9ccd6"
    picture.floor_shadow((262, 806, 400, 850))
    picture.floor_shadow((590, 812, 780, 862))

    def arch(half_width: float, height: float, start: int, end: int) -> list[Point]:
        turns = [math.radians(degrees) for degrees in range(start, end + 1)]
        return [(508 + half_width * math.sin(a), 478 - height * math.cos(a)) for a in turns]

    picture.tube([arch(196, 306, -87, -87)[0], (320, 560)], 20, metal)
    picture.tube([arch(196, 306, 81, 81)[0], (704, 560)], 20, metal)
    picture.tube(arch(160, 268, -63, 63), 46, leather)
    hoop = picture.tube(arch(196, 306, -84, 78), 58, shell)
    picture.round_edges(hoop, 6, light=0.2, dark=0.2)

    # The far cup shows its cushion.
    far = picture.ellipse((206, 500, 400, 830))
    picture.paint(far, cylinder((206, 0), (400, 0), shell))
    cushion = picture.ellipse((226, 494, 440, 836))
    picture.paint(cushion, plane((240, 500), (430, 830), leather))
    picture.round_edges(cushion, 16, light=0.45, dark=0.5)
    hollow = picture.ellipse((282, 574, 392, 756))
    picture.paint(hollow, Linear((285, 580), (390, 750), ((0.0, "#14131d"), (1.0, "#3b3a48"))))
    picture.round_edges(hollow, 6, light=0.0, dark=0.4)

    # The near one shows its back.
    near_cushion = picture.ellipse((520, 496, 780, 846))
    picture.paint(near_cushion, plane((540, 500), (760, 840), leather))
    picture.round_edges(near_cushion, 14, light=0.4, dark=0.5)
    back = picture.ellipse((566, 500, 826, 842))
    picture.paint(picture.soften(picture.ellipse((548, 500, 800, 842)), 7), DARK, 0.35)
    picture.paint(back, plane((580, 520), (820, 840), shell, contrast=0.16))
    picture.round_edges(back, 14, light=0.28, dark=0.5)
    plate = picture.ellipse((610, 556, 786, 786))
    stops = ((0.0, lighter(metal, 0.7)), (0.5, metal), (1.0, darker(metal, 0.35)))
    picture.paint(plate, Linear((630, 570), (770, 780), stops))
    inlay = picture.ellipse((622, 570, 774, 772))
    picture.paint(inlay, plane((640, 570), (760, 780), shell, contrast=0.3))
    sheen = picture.soften(picture.ellipse((636, 580, 704, 660)), 16)
    picture.paint(within(sheen, inlay), LIGHT, 0.32)


def draw_watch(picture: Picture) -> None:
    """Draw a wrist watch with a blue dial and a leather strap, seen from above."""
    center = (512.0, 640.0)
    upper: list[Point] = [(420, 470), (428, 300), (436, 132), (588, 132), (596, 300), (604, 470)]
    tip: list[Point] = [(428, 980), (440, 1120), (462, 1170), (512, 1192)]
    lower = [(420, 810), *smooth([*tip, *mirrored(tip[-2::-1], 512)]), (604, 810)]
    straps = (picture.polygon(upper), picture.polygon(lower))
    buckle = picture.rounded((412, 76, 612, 160), 26)
    crown = picture.rounded((738, 612, 784, 668), 10)
    case = picture.circle(center, 236)
    lugs = [
        (x, picture.rounded((x, y, x + 40, y + 80), 16))
        for x, y in ((382, 392), (602, 392), (382, 808), (602, 808))
    ]
    picture.table_shadow(union(*straps, buckle, crown, case, *(lug for _, lug in lugs)))

    frame = without(buckle, picture.rounded((440, 98, 584, 150), 12))
    picture.paint(frame, cylinder((412, 0), (612, 0), STEEL, gloss=0.4))
    picture.round_edges(frame, 5, light=0.25, dark=0.5)
    _draw_strap(picture, straps)
    prong = picture.rounded((505, 84, 519, 176), 7)
    picture.paint(prong, cylinder((505, 0), (519, 0), STEEL, gloss=0.8))

    for x, lug in lugs:
        picture.paint(lug, cylinder((x, 0), (x + 40, 0), STEEL, gloss=0.6))
        picture.round_edges(lug, 5, light=0.25)
    picture.paint(crown, Linear((0, 612), (0, 668), ((0, "#c4cad1"), (0.4, STEEL), (1, "#5d6672"))))
    for y in range(620, 664, 8):
        picture.paint(picture.rounded((744, y, 782, y + 3), 1), DARK, 0.4)
    picture.cast_shadow(case, 8, 0.3, union(*straps, crown))
    turn = ((0.0, "#f7f9fa"), (0.35, STEEL), (0.6, "#8d96a1"), (0.8, "#dfe4e8"), (1.0, "#6d7681"))
    picture.paint(case, Linear((340, 470), (690, 810), turn))
    # A dark rim: polished steel in full light is nearly as bright as the backdrop.
    picture.paint(picture.ring(center, 236, 231), "#6b7683", 0.85)
    picture.paint(picture.ring(center, 222, 198), Linear((690, 810), (350, 470), turn))
    _draw_dial(picture, center)


def _draw_strap(picture: Picture, straps: Sequence[Mask]) -> None:
    """Draw the two leather halves of the watch's strap, and the loops on the upper one."""
    leather, thread = "#8a4b2a", "#e8c79a"
    for strap in straps:
        picture.paint(strap, cylinder((415, 0), (612, 0), leather, gloss=0.18))
        picture.round_edges(strap, 9, light=0.35, dark=0.45)
    for x, lean in ((438, 12), (586, -12)):
        picture.stitches([(x, 400), (x + lean, 170)], thread)
        picture.stitches([(x, 880), (x + lean, 1110)], thread)
    for y in (985, 1025, 1065, 1105):
        hole = picture.ellipse((505, y - 9, 519, y + 9))
        picture.paint(hole, darker(leather, 0.75))
        picture.paint(without(hole, picture.move(hole, (-2, -3))), LIGHT, 0.25)
    for y in (196, 250):
        loop = picture.rounded((418, y, 606, y + 34), 8)
        picture.cast_shadow(loop, 5, 0.35, straps[0])
        picture.paint(loop, cylinder((418, 0), (606, 0), darker(leather, 0.15), gloss=0.2))
        picture.round_edges(loop, 5)


def _draw_dial(picture: Picture, center: Point) -> None:
    """Draw the watch's face: markers, a small dial for the seconds, hands and glass."""
    blue, ivory, orange = "#1d3a63", "#f3f1e8", "#ff6a3d"
    dial = picture.circle(center, 198)
    rays = ((0.0, lighter(blue, 0.3)), (0.55, blue), (1.0, darker(blue, 0.45)))
    picture.paint(dial, Radial((470, 590), 260, rays))

    for minute in range(60):
        degrees = minute * 6
        if minute % 5:
            ends = [circle_point(center, radius, degrees) for radius in (176, 182)]
            picture.paint(picture.stroke(ends, 2.4), "#a9b8cc")
        else:
            inner = 158 if minute % 15 else 146
            ends = [circle_point(center, radius, degrees) for radius in (inner, 182)]
            marker = picture.stroke(ends, 9)
            picture.cast_shadow(marker, 3, 0.5, dial)
            picture.paint(marker, ivory)

    small = (512.0, 724.0)
    picture.paint(picture.circle(small, 56), darker(blue, 0.3))
    picture.paint(picture.ring(small, 56, 53), "#8fa3bd")
    for degrees in range(0, 360, 30):
        ends = [circle_point(small, radius, degrees) for radius in (42, 49)]
        picture.paint(picture.stroke(ends, 2.4), "#c9d4e2")
    picture.paint(
        picture.stroke([circle_point(small, 12, 35), circle_point(small, 44, 215)], 4), orange
    )
    picture.paint(picture.circle(small, 6), orange)

    # Ten past ten, as every shop shows it: the hands frame the upper half of the dial.
    for degrees, length, width in ((305, 104, 15), (60, 140, 11)):
        tail = circle_point(center, 26, degrees + 180)
        hand = picture.stroke([tail, circle_point(center, length, degrees)], width)
        picture.cast_shadow(hand, 6, 0.5, dial)
        picture.paint(hand, ivory)
        picture.round_edges(hand, 2.5, light=0.0, dark=0.3)
    pin = picture.circle(center, 13)
    picture.paint(pin, Radial((508, 636), 18, ((0.0, "#ffffff"), (1.0, "#8d96a1"))))

    below_bezel = without(dial, picture.move(picture.soften(dial, 7), (7, 9)))
    picture.paint(below_bezel, DARK, 0.55)
    glare = within(picture.polygon([(330, 560), (560, 420), (640, 420), (330, 640)]), dial)
    picture.paint(picture.soften(glare, 2), LIGHT, 0.1)


def draw_backpack(picture: Picture) -> None:
    """Draw a canvas backpack with a flap, a front pocket and leather straps."""
    canvas, leather, thread = "#c4513a", "#7a4a2b", "#f0c9a8"
    picture.floor_shadow((265, 1085, 770, 1165))
    grip = smooth([(440, 250), (446, 168), (512, 144), (578, 168), (584, 250)])
    picture.tube(grip, 30, leather)
    sling = smooth([(300, 400), (232, 520), (214, 740), (246, 940), (310, 1040)])
    picture.tube(sling, 44, leather)
    picture.tube(mirrored(sling, 512), 44, leather)

    def shade(start: Point, end: Point, share: float = 0.0) -> Linear:
        color = darker(canvas, share)
        stops = ((0.0, lighter(color, 0.2)), (0.4, color), (1.0, darker(color, 0.36)))
        return Linear(start, end, stops)

    for box in ((236, 760, 330, 1090), (694, 760, 788, 1090)):
        pocket = picture.rounded(box, 40)
        picture.paint(pocket, shade((236, 760), (800, 1100), 0.18))
        picture.round_edges(pocket, 14, light=0.3, dark=0.5)
    body_half: list[Point] = [(512, 1136), (340, 1130), (284, 1090), (272, 980), (274, 700)]
    body_half += [(284, 440), (330, 290), (420, 232), (512, 224)]
    body = picture.polygon(smooth(symmetric(body_half, 512), closed=True))
    picture.paint(body, shade((280, 240), (800, 1180)))
    picture.round_edges(body, 26, light=0.25, dark=0.5)

    front = picture.rounded((326, 770, 698, 1086), 48)
    picture.cast_shadow(front, 12, 0.3, body)
    picture.paint(front, shade((330, 760), (740, 1130)))
    picture.round_edges(front, 14, light=0.35, dark=0.45)
    seam = [(346, 800), (346, 1040), (376, 1066), (648, 1066), (678, 1040), (678, 800)]
    picture.stitches(seam, thread)
    zip_line = [(350, 846), (674, 846)]
    picture.paint(picture.stroke(zip_line, 20), darker(canvas, 0.55))
    picture.stitches(zip_line, "#d8b25c", length=4)

    flap_half: list[Point] = [(512, 716), (360, 708), (296, 668), (288, 560), (290, 430)]
    flap_half += [(332, 292), (420, 234), (512, 226)]
    flap = picture.polygon(smooth(symmetric(flap_half, 512), closed=True))
    picture.paint(within(picture.soften(picture.move(flap, (8, 22)), 14), body), DARK, 0.45)
    picture.paint(flap, shade((300, 230), (780, 800)))
    picture.round_edges(flap, 16, light=0.4, dark=0.4)
    hem = smooth([(308, 470), (308, 570), (318, 656), (368, 686), (440, 693), (512, 694)])
    picture.stitches(hem, thread)
    picture.stitches(mirrored(hem, 512), thread)

    for x in (408, 616):
        _draw_belt(picture, x, leather, body)
    patch = picture.rounded((462, 350, 562, 416), 12)
    picture.cast_shadow(patch, 4, 0.3, body)
    picture.paint(patch, plane((462, 350), (562, 416), leather))
    picture.round_edges(patch, 4)
    border = [(470, 358), (554, 358), (554, 408), (470, 408), (470, 358)]
    picture.stitches(border, "#d9b48a", length=6)


def _draw_belt(picture: Picture, x: float, leather: str, ground: Mask) -> None:
    """Draw one of the belts that close the backpack's flap, with its buckle."""
    brass = "#d8b25c"
    belt = picture.rounded((x - 22, 470, x + 22, 830), 20)
    picture.cast_shadow(belt, 7, 0.35, ground)
    picture.paint(belt, cylinder((x - 26, 0), (x + 24, 0), leather, gloss=0.3))
    picture.round_edges(belt, 5, light=0.35, dark=0.4)
    for side in (x - 14, x + 14):
        picture.stitches([(side, 482), (side, 812)], "#d9b48a", length=7)
    buckle = without(
        picture.rounded((x - 36, 700, x + 36, 762), 14),
        picture.rounded((x - 23, 713, x + 23, 749), 6),
    )
    picture.cast_shadow(buckle, 4, 0.4, ground)
    picture.paint(buckle, plane((x - 36, 700), (x + 36, 762), brass, contrast=0.45))
    picture.round_edges(buckle, 3)
    picture.tube([(x, 712), (x, 752)], 8, brass)


def draw_dispenser(picture: Picture) -> None:
    """Draw a soap dispenser of amber glass with a black pump."""
    amber, black, paper = "#a8561a", "#26262c", "#f6efdf"
    picture.floor_shadow((345, 1095, 690, 1175))
    # Glass lets light through: the shadow on its far side has a warm core.
    picture.paint(picture.soften(picture.ellipse((600, 1110, 790, 1160)), 22), "#e08a3c", 0.3)

    picture.tube([(512, 240), (512, 420)], 30, "#3a3a42")
    spout = smooth([(520, 222), (430, 216), (350, 222), (318, 262)])
    picture.tube(spout, 34, black)
    head = picture.rounded((446, 190, 578, 262), 26)
    picture.paint(head, cylinder((446, 0), (578, 0), black, gloss=0.4))
    picture.round_edges(head, 8, light=0.35, dark=0.4)
    collar = picture.rounded((430, 372, 594, 470), 18)

    outline = smooth([(512, 1152), (424, 1149), (362, 1132), (341, 1086), (340, 1020)])
    outline += smooth([(340, 660), (346, 604), (378, 550), (430, 512), (446, 460)])
    bottle = picture.polygon([*outline, *mirrored(outline[::-1], 512)])
    glass = (
        (0.0, "#5e2708"),
        (0.07, "#b9651f"),
        (0.16, "#e09a48"),
        (0.3, amber),
        (0.62, "#7c360c"),
        (0.86, "#a9591c"),
        (0.95, "#c9792e"),
        (1.0, "#4c1e06"),
    )
    picture.paint(bottle, Linear((340, 0), (684, 0), glass))
    empty = within(picture.polygon([(300, 440), (720, 440), (720, 640), (300, 640)]), bottle)
    picture.paint(empty, "#f0b25e", 0.28)  # above the soap the glass is brighter
    surface = picture.ellipse((348, 628, 676, 652))
    picture.paint(within(surface, bottle), "#f3c37c", 0.5)
    base = within(picture.soften(picture.rounded((330, 1092, 694, 1200), 30), 12), bottle)
    picture.paint(base, "#3a1503", 0.6)
    picture.round_edges(bottle, 9, light=0.25, dark=0.35)
    for line, width, opacity in (
        (smooth([(440, 536), (396, 570), (372, 628), (368, 700), (368, 1070)]), 13, 0.75),
        (smooth([(600, 544), (634, 580), (652, 628), (658, 700), (658, 1070)]), 6, 0.4),
    ):
        picture.paint(picture.soften(picture.stroke(line, width), 3), LIGHT, opacity)

    picture.paint(collar, cylinder((430, 0), (594, 0), black, gloss=0.45))
    for x in range(440, 590, 12):
        picture.paint(picture.rounded((x, 384, x + 3, 458), 1), "#000000", 0.45)
    picture.round_edges(collar, 6, light=0.25, dark=0.4)

    label = picture.rounded((384, 738, 640, 1010), 10)
    picture.cast_shadow(label, 3, 0.3, bottle)
    stops = ((0.0, darker(paper, 0.06)), (0.25, lighter(paper, 0.6)), (1.0, darker(paper, 0.24)))
    picture.paint(label, Linear((384, 0), (640, 0), stops))
    ink = "#3b2a20"
    picture.paint(picture.text((512, 832), "hand soap", 42), ink)
    picture.paint(picture.stroke([(472, 876), (552, 876)], 2.5), ink)
    picture.paint(picture.text((512, 910), "cedar & orange", 24), ink, 0.85)
    picture.paint(picture.text((512, 972), "500 ml", 20), ink, 0.7)


# Pictures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """One picture: what it shows, how large, before which backdrop."""

    draw: Callable[[Picture], None]
    size: tuple[int, int]
    backdrop: str
    view: View = View()


SHOTS = {
    "mug": Shot(draw_mug, SQUARE, "#eedcc6", View((102, 90), 1.14)),
    "mug-detail": Shot(draw_mug_from_above, SQUARE, "#eedcc6"),
    "lamp": Shot(draw_lamp, PORTRAIT, "#cfdde8"),
    "armchair": Shot(draw_armchair, SQUARE, "#f1d8cb"),
    "plant": Shot(draw_plant, PORTRAIT, "#e6e0f0"),
    "headphones": Shot(draw_headphones, SQUARE, "#d9e6dc"),
    "watch": Shot(draw_watch, PORTRAIT, "#d3e6df"),
    "watch-detail": Shot(draw_watch, SQUARE, "#d3e6df", View((330, 430), 2.2)),
    "backpack": Shot(draw_backpack, PORTRAIT, "#d5e4ef"),
    "backpack-detail": Shot(draw_backpack, SQUARE, "#d5e4ef", View((182, 96), 1.55)),
    "dispenser": Shot(draw_dispenser, PORTRAIT, "#dbe6d6"),
}


def save(image: Image.Image, path: Path) -> None:
    """Write `image` in the best quality that keeps the file small."""
    for quality in QUALITIES:
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST_FILE:
            return


def main() -> None:
    """Draw the pictures named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description="Draw the example catalog's product pictures.")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=sorted(SHOTS), help="draw this one"
    )
    names: list[str] = parser.parse_args().only or list(SHOTS)
    PHOTOS.mkdir(exist_ok=True)
    for name in names:
        shot = SHOTS[name]
        picture = Picture(shot.size, shot.backdrop, shot.view)
        shot.draw(picture)
        path = PHOTOS / f"{name}.jpg"
        save(picture.finished(), path)
        width, height = shot.size
        print(f"{path.name:<20} {width} x {height}  {path.stat().st_size / 1024:5.1f} KB")


if __name__ == "__main__":
    main()
