"""The output pictures: a request's input in, the bytes of an edited picture out.

Hides every decision about looks. Nobody pays for these pictures and no model makes them; they let a
person see at a glance that the prompt, the sources and every option arrived.

Always holds: the same input and number give the same bytes (local source files unchanged); the
size follows from aspect_ratio and resolution, the format from output_format; another seed or
another number gives a picture that is visibly another one. Does not promise beauty.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageOps

from batch_runner.sandbox.cutout import stretch_background
from batch_runner.sandbox.edits import Edit, parse_prompt
from batch_runner.sandbox.finish import (
    apply_tones,
    draw_caption,
    draw_frame,
    draw_lettering,
    draw_mark,
    shift_hue,
    tint_picture,
)
from batch_runner.sandbox.scenes import SCENES, paint_backdrop, paint_scene
from batch_runner.sandbox.source import Source, imagine_source, list_source_urls, open_source

_LONG_SIDES_PX = {"0.5K": 512, "1K": 1024, "2K": 2048, "4K": 4096}
# Above this a picture is composed smaller and enlarged: the edits are soft, and 4K stays quick.
_COMPOSED_SIDE_PX = 1536
_LARGEST_PNG_BYTES_PER_PIXEL = 0.85
_SEVERAL_PICTURES_RATIO = 3 / 2


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """The bytes of one output file and their media type."""

    data: bytes
    media_type: str


@cache
def draw_bomb() -> bytes:
    """Draw a small PNG that takes 112 MB of memory to unpack: nothing but white."""
    data = io.BytesIO()
    Image.new("1", (30_000, 30_000), 1).save(data, "PNG")
    return data.getvalue()


def render_swatch(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Draw a small patch whose colours only this input and number have."""
    data = io.BytesIO()
    compose_swatch(model_input, number).save(data, "PNG")
    return RenderedFile(data=data.getvalue(), media_type="image/png")


def compose_swatch(model_input: Mapping[str, Any], number: int) -> Image.Image:
    """Paint the patch of a request's output."""
    text = f"{json.dumps(model_input, sort_keys=True)}#{number}"
    digest = hashlib.sha256(text.encode()).digest()
    return Image.frombytes("RGB", (3, 3), digest[:27]).resize((48, 48), Image.Resampling.NEAREST)


def render_picture(model_input: Mapping[str, Any], number: int) -> RenderedFile:
    """Draw output `number` (from 1) of a request with this input."""
    picture = compose_picture(model_input, number)
    return _encode(picture, str(model_input.get("output_format", "png")))


def compose_picture(
    model_input: Mapping[str, Any], number: int, *, long_sides_px: Mapping[str, int] | None = None
) -> Image.Image:
    """Paint output `number` of a request; `long_sides_px` says how long what resolution is."""
    prompt = str(model_input.get("prompt", ""))
    edit = parse_prompt(prompt)
    # Output 1 of seed 7 is not output 2 of seed 6: both parts are in the text.
    draw = random.Random(f"{prompt}/{model_input.get('seed', 0)}/{number}")
    sources = [open_source(url) for url in list_source_urls(model_input)]
    size = choose_size(model_input, sources, long_sides_px or _LONG_SIDES_PX)
    if not sources:
        sources = [imagine_source(f"{prompt}/{model_input.get('seed', 0)}/{number}")]
        edit = edit if edit.has_new_background else _imagine_scene(edit, draw)
    picture = _compose(edit, sources, _limit_size(size), draw)
    picture = _finish(picture, edit, prompt, draw)
    picture = picture.resize(size, Image.Resampling.BICUBIC) if picture.size != size else picture
    labels = [source.label for source in sources if source.label is not None]
    draw_mark(picture, labels)
    return picture


def choose_size(
    model_input: Mapping[str, Any], sources: list[Source], long_sides_px: Mapping[str, int]
) -> tuple[int, int]:
    """Width and height in pixels: the long side by resolution, the other by the ratio."""
    long_px = long_sides_px.get(str(model_input.get("resolution", "1K")), 1024)
    ratio = _choose_ratio(str(model_input.get("aspect_ratio", "auto")), sources)
    if ratio >= 1:
        return long_px, max(16, round(long_px / ratio))
    return max(16, round(long_px * ratio)), long_px


def _choose_ratio(text: str, sources: list[Source]) -> float:
    width, colon, height = text.partition(":")
    if colon and width.isdecimal() and height.isdecimal() and int(width) and int(height):
        return min(16.0, max(1 / 16, int(width) / int(height)))
    if len(sources) > 1:
        return _SEVERAL_PICTURES_RATIO
    if not sources:
        return 1.0
    picture = sources[0].picture
    return min(4.0, max(0.25, picture.width / picture.height))


def _limit_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _COMPOSED_SIDE_PX / max(size))
    return max(16, round(size[0] * scale)), max(16, round(size[1] * scale))


def _imagine_scene(edit: Edit, draw: random.Random) -> Edit:
    scene = draw.choice(("studio", "pastel", "wood", "marble", "room"))
    return Edit(scene=scene, tones=edit.tones, lettering=edit.lettering, frame=edit.frame)


def _compose(
    edit: Edit, sources: list[Source], size: tuple[int, int], draw: random.Random
) -> Image.Image:
    """Put the sources into the picture: before a new background, or as they are."""
    if edit.tint is not None:
        sources = [_tint_source(source, edit.tint) for source in sources]
    sources = [_turn(source, edit) for source in sources]
    if edit.has_new_background:
        return _place_before_background(edit, sources, size, draw)
    if edit.is_background_blurred:
        sources = [_blur_background(source) for source in sources]
    if len(sources) > 1:
        return _arrange(sources, size, draw)
    return _reframe(sources[0], size, draw, zoom=1.5 if edit.is_close_up else 1.0)


def _tint_source(source: Source, colour: tuple[int, int, int]) -> Source:
    tinted = tint_picture(source.picture, colour)
    if source.subject is not None:
        tinted = Image.composite(tinted, source.picture, source.subject)
    return Source(picture=tinted, subject=source.subject, label=source.label)


def _turn(source: Source, edit: Edit) -> Source:
    """Mirror and rotate a source, its subject with it."""

    def turn(picture: Image.Image, fill: Any) -> Image.Image:
        if edit.is_mirrored:
            picture = ImageOps.mirror(picture)
        if edit.is_upside_down:
            picture = ImageOps.flip(picture)
        if edit.rotation_degrees:
            picture = picture.rotate(
                -edit.rotation_degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=fill
            )
        return picture

    corner = source.picture.getpixel((0, 0))
    subject = None if source.subject is None else turn(source.subject, 0)
    return Source(picture=turn(source.picture, corner), subject=subject, label=source.label)


def _blur_background(source: Source) -> Source:
    radius = max(source.picture.size) * 0.02
    blurred = source.picture.filter(ImageFilter.GaussianBlur(radius))
    mask = source.subject if source.subject is not None else _oval_mask(source.picture.size)
    picture = Image.composite(source.picture, blurred, mask)
    return Source(picture=picture, subject=source.subject, label=source.label)


def _oval_mask(size: tuple[int, int]) -> Image.Image:
    """White in the middle: where a picture's subject most likely is."""
    ramp = ImageOps.invert(Image.radial_gradient("L").resize(size, Image.Resampling.BILINEAR))
    return ramp.point([min(255, max(0, (step - 90) * 3)) for step in range(256)])


def _place_before_background(
    edit: Edit, sources: list[Source], size: tuple[int, int], draw: random.Random
) -> Image.Image:
    name = edit.scene or edit.time_of_day
    light, ground = (255, 255, 255), 0.86
    if edit.backdrop is not None or name is None:
        canvas = paint_backdrop(edit.backdrop or (255, 255, 255), size)
    else:
        canvas = paint_scene(name, size, draw)
        light, ground = SCENES[name].light, SCENES[name].ground
        if edit.scene is not None and edit.time_of_day is not None:
            light = SCENES[edit.time_of_day].light
            canvas = ImageChops.multiply(canvas, Image.new("RGB", size, light))
    rows = _split_into_rows(sources, size)
    for index, row in enumerate(rows):
        base = ground - (len(rows) - 1 - index) * (0.8 / len(rows))
        height = (0.66 if len(rows) == 1 else 0.7 / len(rows)) * (1.22 if edit.is_close_up else 1)
        _place_row(canvas, row, base, height, light, draw=draw)
    return canvas


def _split_into_rows(sources: list[Source], size: tuple[int, int]) -> list[list[Source]]:
    columns = max(1, min(len(sources), math.ceil(math.sqrt(len(sources) * size[0] / size[1]) + 1)))
    return [sources[start : start + columns] for start in range(0, len(sources), columns)]


def _place_row(
    canvas: Image.Image,
    row: list[Source],
    base: float,
    height: float,
    light: tuple[int, int, int],
    *,
    draw: random.Random,
) -> None:
    """Stand subjects side by side on the ground, each with its shadow."""
    width_each = canvas.width * 0.86 / len(row)
    scale = draw.uniform(0.86, 1.04)
    shift_px = draw.uniform(-0.06, 0.06) * canvas.width
    for index, source in enumerate(row):
        subject, mask = _cut_out(source)
        fit = (
            min(width_each * 0.92 / subject.width, canvas.height * height / subject.height) * scale
        )
        new_size = (max(2, round(subject.width * fit)), max(2, round(subject.height * fit)))
        subject = subject.resize(new_size, Image.Resampling.LANCZOS)
        mask = mask.resize(new_size, Image.Resampling.LANCZOS)
        subject = ImageChops.multiply(subject, Image.new("RGB", new_size, light))
        middle = canvas.width * 0.07 + width_each * (index + 0.5) + shift_px
        left = round(middle - new_size[0] / 2)
        top = round(canvas.height * base - new_size[1])
        _cast_shadow(canvas, mask, (left, top))
        canvas.paste(subject, (left, top), mask)


def _cut_out(source: Source) -> tuple[Image.Image, Image.Image]:
    """Crop a source's subject and mask; a picture without a subject becomes a card."""
    if source.subject is not None:
        bounds = source.subject.point([0] * 40 + [255] * 216).getbbox()
        if bounds is not None:
            return source.picture.crop(bounds), source.subject.crop(bounds)
    mask = Image.new("L", source.picture.size, 0)
    inset = max(2, min(mask.size) // 100)
    mask.paste(255, (inset, inset, mask.width - inset, mask.height - inset))
    return source.picture, mask.filter(ImageFilter.GaussianBlur(inset / 2))


def _cast_shadow(canvas: Image.Image, mask: Image.Image, corner: tuple[int, int]) -> None:
    """Cast a soft shadow: a flat one on the ground, darkest where the subject touches it."""
    width, height = mask.size
    flat_height = max(4, round(min(height * 0.16, width * 0.3)))
    margin = round(width * 0.25) + 8
    foot = mask.crop((0, height * 2 // 3, width, height)).resize((width, flat_height))
    for opacity, blur, grow in ((0.3, width * 0.07, 1.0), (0.34, width * 0.025, 0.5)):
        wide = Image.new("L", (width + 2 * margin, flat_height + 2 * margin), 0)
        shape = foot.resize((width, max(2, round(flat_height * grow))))
        wide.paste(shape, (margin, margin + (flat_height - shape.height) // 2))
        wide = wide.filter(ImageFilter.GaussianBlur(blur))
        wide = wide.point([round(step * opacity) for step in range(256)])
        place = (corner[0] - margin, corner[1] + height - round(flat_height * 0.62) - margin)
        canvas.paste(Image.new("RGB", wide.size, (24, 20, 30)), place, wide)


def _arrange(sources: list[Source], size: tuple[int, int], draw: random.Random) -> Image.Image:
    """Lay out a collage of whole pictures on a light ground."""
    canvas = paint_backdrop((240, 238, 234), size)
    count = len(sources)
    columns = max(1, min(count, round(math.sqrt(count * size[0] / size[1]))))
    rows = math.ceil(count / columns)
    gap = max(4, round(min(size) * draw.uniform(0.014, 0.03)))
    for index, source in enumerate(sources):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)
        left = gap + (size[0] - gap) * column // in_row
        right = (size[0] - gap) * (column + 1) // in_row
        top, bottom = gap + (size[1] - gap) * row // rows, (size[1] - gap) * (row + 1) // rows
        place = (max(1, right - left), max(1, bottom - top))
        canvas.paste(ImageOps.fit(source.picture, place, Image.Resampling.LANCZOS), (left, top))
    return canvas


def _reframe(
    source: Source, size: tuple[int, int], draw: random.Random, *, zoom: float
) -> Image.Image:
    """Bring one picture to another shape: cropped a little, or extended with what is around it.

    The place of the crop varies, so that another seed shows.
    """
    picture = source.picture
    ratio = (picture.width / picture.height) / (size[0] / size[1])
    zoom *= draw.uniform(1.0, 1.1)
    centering = (draw.uniform(0.35, 0.65), draw.uniform(0.35, 0.65))
    if 0.8 < ratio < 1.25:
        crop = 0.5 - 0.5 / zoom
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS, crop, centering)
    if source.subject is not None:
        canvas = stretch_background(picture, size)
    else:
        thumbnail = ImageOps.fit(picture, (64, 64), Image.Resampling.BOX)
        blurred = thumbnail.filter(ImageFilter.GaussianBlur(7))
        canvas = blurred.resize(size, Image.Resampling.BICUBIC)
    inside = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
    place = (
        round((size[0] - inside.width) * centering[0]),
        round((size[1] - inside.height) * centering[1]),
    )
    canvas.paste(inside, place, _feather(inside.size, size))
    return canvas


def _feather(inside: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Build a mask that fades towards the sides on which the canvas is larger."""
    reach = round(max(inside) * 0.06)
    mask = Image.new("L", inside, 255)
    if inside[0] < size[0]:
        mask.paste(0, (0, 0, reach, inside[1]))
        mask.paste(0, (inside[0] - reach, 0, inside[0], inside[1]))
    if inside[1] < size[1]:
        mask.paste(0, (0, 0, inside[0], reach))
        mask.paste(0, (0, inside[1] - reach, inside[0], inside[1]))
    return mask.filter(ImageFilter.BoxBlur(reach / 2)) if reach else mask


def _finish(picture: Image.Image, edit: Edit, prompt: str, draw: random.Random) -> Image.Image:
    """Tones, letters and frame, over the whole picture."""
    if edit.is_blurred:
        picture = picture.filter(ImageFilter.GaussianBlur(max(picture.size) * 0.012))
    if not edit.is_understood:
        # Nothing was understood: the picture says that it was asked something, and what.
        picture = shift_hue(picture, prompt, draw)
    picture = apply_tones(picture, edit.tones, draw)
    if edit.frame is not None:
        picture = draw_frame(picture, edit.frame)
    if edit.lettering is not None:
        draw_lettering(picture, edit.lettering, draw)
    elif not edit.is_understood and prompt.strip():
        draw_caption(picture, prompt)
    return picture


def _encode(picture: Image.Image, output_format: str) -> RenderedFile:
    """Write the file's bytes; large PNGs are reduced to 256 colours, as web shops do."""
    file = io.BytesIO()
    if output_format == "jpeg":
        picture.save(file, "JPEG", quality=88, progressive=True)
    elif output_format == "webp":
        picture.save(file, "WEBP", quality=86, method=2)
    else:
        output_format = "png"
        picture.save(file, "PNG", compress_level=5)
        if file.tell() > _LARGEST_PNG_BYTES_PER_PIXEL * picture.width * picture.height:
            file = io.BytesIO()
            _reduce_colours(picture).save(file, "PNG", compress_level=6)
    return RenderedFile(data=file.getvalue(), media_type=f"image/{output_format}")


def _reduce_colours(picture: Image.Image) -> Image.Image:
    """Reduce to 256 colours; white stays white, which averaging would make almost white."""
    reduced = picture.quantize(256, Image.Quantize.FASTOCTREE)
    palette = reduced.getpalette() or []
    reduced.putpalette([255 if channel >= 252 else channel for channel in palette])
    return reduced
