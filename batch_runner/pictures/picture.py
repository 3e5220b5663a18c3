"""One saved picture as a channel takes it: size, colours, format, bytes, provenance.

Hides Pillow. What always holds: the same content, recipe and version of Pillow give the same bytes;
the result is in sRGB with 8 bits a channel, and upright; nothing is enlarged unless the recipe says
so; a digital source type is kept or added; what is lost is returned as notes. A picture that needs
no change keeps its bytes, and with them its signature.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import msgspec
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from batch_runner.manifest.form import Recipe
from batch_runner.pictures.measure import (
    UndecodableError,
    colour_profile,
    eight_bits,
    opaque,
    opened,
    xmp_packet,
)
from batch_runner.pictures.provenance import c2pa_state, source_type, with_source_type

SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}

_LOWEST_QUALITY = 40
_QUALITY_STEP = 5
_ORIENTATION_TAG = 0x0112
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


class CannotDeliverError(Exception):
    """A picture that cannot be made as the channel wants it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was made: its bytes, its format, and what a person should know about it."""

    content: bytes
    form: str
    notes: tuple[str, ...] = ()


def make(content: bytes, recipe: Recipe) -> Made:
    """Return the picture as the recipe wants it; raises CannotDeliverError."""
    try:
        with opened(content) as image:
            return _made(image, content, recipe)
    except UndecodableError as error:
        what = "cannot be decoded"
        raise CannotDeliverError(what, "look at it with another program") from error


def _made(image: Image.Image, content: bytes, recipe: Recipe) -> Made:
    form = recipe.format or (image.format or "").lower()
    if form not in SUFFIXES:
        what = f"is {image.format}, which is not delivered as it is"
        raise CannotDeliverError(what, "add format: jpeg, png or webp to the channel")
    image.load()  # the metadata of a PNG may follow its pixels
    if _is_as_wanted(image, content, recipe, form):
        return Made(content=content, form=form)
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("only the first of several frames is delivered")
    if c2pa_state(content) != "none":
        notes.append("its C2PA signature ends here: it does not survive a change")
    upright = ImageOps.exif_transpose(image)
    exif = upright.getexif()
    exif.pop(_ORIENTATION_TAG, None)
    metadata = {
        "exif": exif.tobytes() if exif else b"",
        "xmp": with_source_type(xmp_packet(image)),
    }
    picture = _fitted(_in_srgb(upright), recipe)
    if form == "jpeg" and picture.mode == "RGBA":
        picture = opaque(picture, recipe.background or "white")
    encoded = _encoded(picture, form, recipe, metadata)
    return Made(content=encoded, form=form, notes=tuple(notes))


def _is_as_wanted(image: Image.Image, content: bytes, recipe: Recipe, form: str) -> bool:
    """Tell whether a picture may be delivered byte for byte."""
    modes = {"jpeg": ("RGB", "L"), "png": ("RGB", "RGBA", "L", "LA"), "webp": ("RGB", "RGBA")}
    return (
        (image.format or "").lower() == form
        and image.mode in modes[form]
        and not (recipe.background is not None and image.has_transparency_data)
        and getattr(image, "n_frames", 1) == 1
        and image.getexif().get(_ORIENTATION_TAG, 1) in (0, 1)
        and colour_profile(image) in ("none", "srgb")
        and source_type(xmp_packet(image)) is not None
        and (recipe.max_bytes is None or len(content) <= recipe.max_bytes)
        and (recipe.size is None or _fits(image, recipe.size, exactly=recipe.fit != "keep"))
    )


def _fits(image: Image.Image, size: tuple[int, int], *, exactly: bool) -> bool:
    if exactly:
        return image.size == size
    return image.width <= size[0] and image.height <= size[1]


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the picture as RGB or RGBA, 8 bits a channel, in sRGB."""
    image = eight_bits(image)
    has_alpha = image.has_transparency_data or image.mode in _ALPHA_MODES
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    if image.mode not in ("RGB", "CMYK", "L", "LAB"):
        image = image.convert("RGB")
    if colour_profile(image) not in ("none", "srgb", "damaged"):
        with contextlib.suppress(ImageCms.PyCMSError):  # a profile of another colour space
            source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            image = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB") or image
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _fitted(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Return the picture at the recipe's size, on its background."""
    if recipe.background is not None and image.mode == "RGBA":
        image = opaque(image, recipe.background)
    if recipe.size is None:
        return image
    width, height = recipe.size
    ratios = (width / image.width, height / image.height)
    scale = max(ratios) if recipe.fit == "crop" else min(ratios)
    if scale > 1 and not recipe.enlarge:
        if recipe.fit == "keep":
            return image
        what = f"is {image.width} x {image.height}, too small for {width} x {height}"
        raise CannotDeliverError(what, "set enlarge: true, or a smaller size")
    if recipe.fit == "crop":
        return ImageOps.fit(image, recipe.size, Image.Resampling.LANCZOS)
    resized = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    if recipe.fit == "keep":
        return resized
    empty = "#0000" if resized.mode == "RGBA" else recipe.background or "white"
    padded = Image.new(resized.mode, (width, height), empty)
    padded.paste(resized, ((width - resized.width) // 2, (height - resized.height) // 2))
    return padded


def _encoded(image: Image.Image, form: str, recipe: Recipe, metadata: dict[str, Any]) -> bytes:
    """Encode, with less quality if the limit of bytes needs that; raises CannotDeliverError."""
    limit = recipe.max_bytes
    # A PNG is without loss, whatever its quality.
    lowest = recipe.quality if form == "png" else min(_LOWEST_QUALITY, recipe.quality)
    for quality in range(recipe.quality, lowest - 1, -_QUALITY_STEP):
        content = _encode(image, form, quality, metadata)
        if limit is None or len(content) <= limit:
            return content
    what = f"does not fit in {limit:,} bytes as {form}"
    hint = "set format: jpeg" if form == "png" else "set a smaller size or a larger max_bytes"
    raise CannotDeliverError(what, hint)


def _encode(image: Image.Image, form: str, quality: int, metadata: dict[str, Any]) -> bytes:
    options: dict[str, Any] = {"icc_profile": _SRGB_BYTES, **metadata}
    if form == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode(errors="replace"))
        options["pnginfo"] = text
    elif form == "jpeg":
        options |= {"quality": quality, "optimize": True, "subsampling": 0 if quality >= 90 else 2}
    else:
        options |= {"quality": quality, "method": 4}
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue()


def _srgb_bytes() -> bytes:
    """Return Little CMS's sRGB profile without the moment at which it was made."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


_SRGB = ImageCms.createProfile("sRGB")
_SRGB_BYTES = _srgb_bytes()
