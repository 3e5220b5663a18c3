"""The pictures an input refers to: local files are opened, everything else is drawn in its place.

Hides where pictures come from. The sandbox never fetches anything: a web address becomes a stand-in
product, drawn from the address, always the same. Local files are turned upright and made smaller
where they are larger than any output needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from PIL import Image, ImageOps, UnidentifiedImageError

from batch_runner.sandbox.cutout import find_subject
from batch_runner.sandbox.standin import draw_standin

_LARGEST_SIDE_PX = 1600
_PICTURE_FIELDS = ("image_urls", "images", "image", "image_url")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source picture. `label` names what a stand-in stands for; None for a real picture."""

    picture: Image.Image
    subject: Image.Image | None
    label: str | None = None


def list_source_urls(model_input: Mapping[str, Any]) -> list[str]:
    """List the addresses of the pictures in an input, whatever the field is called."""
    for name in _PICTURE_FIELDS:
        value = model_input.get(name)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and value:
            return [str(url) for url in value]
    return []


def split_into_scenes(model_input: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the input of each scene of a film: two where it names a picture to end with."""
    end = model_input.get("end_image_url")
    return [model_input, {**model_input, "image_url": end}] if end else [model_input]


def find_source_problem(url: str) -> str | None:
    """Why a picture cannot be used, as the service would find when it fetches it."""
    path = _parse_local_path(url)
    if path is None:
        return None
    try:
        with Image.open(path):
            return None
    except FileNotFoundError:
        return f"the picture {path} does not exist"
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return f"{path} cannot be read as a picture"


def open_source(url: str) -> Source:
    """Open or draw the picture behind an address."""
    path = _parse_local_path(url)
    if path is not None and find_source_problem(url) is None:
        picture = _open_upright(path)
        return Source(picture=picture, subject=find_subject(picture))
    name = unquote(PurePosixPath(urlsplit(url).path).name) or urlsplit(url).netloc
    picture, subject = draw_standin(url, hint=name)
    return Source(picture=picture, subject=subject, label=name)


def imagine_source(prompt: str) -> Source:
    """Draw what a text-to-image prompt is about: a product drawn from its words."""
    picture, subject = draw_standin(prompt, hint=prompt)
    return Source(picture=picture, subject=subject)


def _parse_local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _open_upright(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        opened.draft("RGB", (_LARGEST_SIDE_PX, _LARGEST_SIDE_PX))
        upright = ImageOps.exif_transpose(opened)
        upright.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
        if "A" in upright.getbands() or "transparency" in upright.info:
            layered = upright.convert("RGBA")
            white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, layered).convert("RGB")
        return upright.convert("RGB")
