"""Finding the subject of a product picture: what stands before a plain or smoothly shaded wall.

Hides how: the background is predicted for every pixel from the left and right edges of its row, and
the subject is what differs from it. Works for plain backgrounds, for gradients and for a wall that
meets a floor. Does not promise anything for busy pictures: there it finds nothing, and says so.
"""

from __future__ import annotations

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageStat

_SMALL_PX = 144
_EDGE_SHARE = 0.02
_PLAIN_DISTANCE = 14.0
_PLAIN_SIDE_DEVIATION = 32.0


def find_subject(picture: Image.Image) -> Image.Image | None:
    """Find the subject as a soft mask (mode L, the picture's size); None: there is no telling."""
    distance = _measure_distance(picture)
    if not (_is_plain_around(distance) and _has_plain_sides(picture)):
        return None
    outside = _flood_from_edges(distance)
    # Seen through a handle, the background matches exactly; a white label on the subject does
    # not quite. So inside the outline, far less of a difference makes a pixel the subject's.
    strict = distance.point([min(255, max(0, (step - 5) * 40)) for step in range(256)])
    loose = distance.point([min(255, max(0, (step - 13) * 14)) for step in range(256)])
    mask = Image.composite(loose, strict, outside)
    mask = mask.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.GaussianBlur(0.9))
    mask = mask.point([min(255, max(0, int((step - 56) * 1.45))) for step in range(256)])
    share = ImageStat.Stat(mask).mean[0] / 255
    return mask if 0.015 < share < 0.85 else None


def stretch_background(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Fill another shape with the wall behind a subject, as the picture's edges show it."""
    return _predict_background(picture).resize(size, Image.Resampling.BILINEAR)


def _measure_distance(picture: Image.Image) -> Image.Image:
    """How far each pixel is from the background expected there, 0 to 255."""
    expected = _predict_background(picture)
    luma, blue, red = picture.convert("YCbCr").split()
    expected_luma, expected_blue, expected_red = expected.convert("YCbCr").split()
    # A shadow on the wall is darker without another hue: darkness alone counts for less.
    darker = ImageChops.subtract(expected_luma, luma, scale=2.8)
    brighter = ImageChops.subtract(luma, expected_luma, scale=0.7)
    hue = ImageChops.lighter(
        ImageChops.difference(blue, expected_blue), ImageChops.difference(red, expected_red)
    ).point([min(255, step * 2) for step in range(256)])
    return ImageChops.lighter(ImageChops.lighter(darker, brighter), hue)


def _predict_background(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    edge = max(2, round(width * _EDGE_SHARE))
    columns = Image.new("RGB", (2, height))
    left = picture.crop((0, 0, edge, height)).resize((1, height), Image.Resampling.BOX)
    right = picture.crop((width - edge, 0, width, height)).resize((1, height), Image.Resampling.BOX)
    columns.paste(left, (0, 0))
    columns.paste(right, (1, 0))
    return columns.resize((width, height), Image.Resampling.BILINEAR, box=(0.5, 0, 1.5, height))


def _is_plain_around(distance: Image.Image) -> bool:
    """Whether the top edge and the corners are what the sides make one expect."""
    width, height = distance.size
    strip = max(2, height // 25)
    corner = max(4, width // 10)
    places = [
        (0, 0, width, strip),
        (0, height - corner, corner, height),
        (width - corner, height - corner, width, height),
    ]
    return all(ImageStat.Stat(distance.crop(place)).mean[0] < _PLAIN_DISTANCE for place in places)


def _has_plain_sides(picture: Image.Image) -> bool:
    """Whether the sides show a wall, and not a subject that reaches out of the picture."""
    width, height = picture.size
    edge = max(2, round(width * _EDGE_SHARE))
    sides = ((0, 0, edge, height), (width - edge, 0, width, height))
    return all(
        max(ImageStat.Stat(picture.crop(side)).stddev) < _PLAIN_SIDE_DEVIATION for side in sides
    )


def _flood_from_edges(distance: Image.Image) -> Image.Image:
    """White where background is connected with the edge of the picture (a little beyond, too)."""
    scale = _SMALL_PX / max(distance.size)
    size = (max(8, round(distance.width * scale)), max(8, round(distance.height * scale)))
    small = distance.resize(size, Image.Resampling.BOX).point(
        [0 if step < 16 else 128 for step in range(256)]
    )
    framed = Image.new("L", (size[0] + 2, size[1] + 2), 0)
    framed.paste(small, (1, 1))
    ImageDraw.floodfill(framed, (0, 0), 255)
    flooded = framed.crop((1, 1, size[0] + 1, size[1] + 1)).point(
        [255 if step == 255 else 0 for step in range(256)]
    )
    return flooded.filter(ImageFilter.MaxFilter(5)).resize(distance.size, Image.Resampling.BILINEAR)
