"""Small real pictures, as a camera or a shop's own program would write them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def photo(number: int = 0, *, mode: str = "RGB", kind: str = "JPEG", side_px: int = 16) -> bytes:
    """Draw a picture; another number is another picture."""
    picture = Image.new("RGB", (side_px, side_px), (number * 40 % 256, number * 7 % 256, 99))
    return _saved(picture.convert(mode), kind)


def turned_photo(number: int = 0, orientation: int = 6) -> bytes:
    """Draw a picture that its EXIF data say is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.new("RGB", (16, 9), (number % 256, 40, 40)), "JPEG", exif=exif)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
