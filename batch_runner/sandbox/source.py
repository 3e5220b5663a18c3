"""The pictures an input refers to: local files are opened, everything else is drawn in its place.

Hides where pictures come from. The sandbox fetches nothing from elsewhere: a web address becomes a
stand-in product, drawn from the address, always the same. Local files, and what a signed URL of an
object store on this machine gives, are turned upright and made smaller where they are larger than
any output needs.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, build_opener, url2pathname

from PIL import Image, ImageOps

from batch_runner.sandbox.cutout import find_subject
from batch_runner.sandbox.standin import draw_standin

_LARGEST_SIDE_PX = 1600
_LARGEST_BODY_BYTES = 50 * 1000**2
_FETCH_TIMEOUT_S = 10.0
_SIGNATURE = re.compile(r"(?:^|&)(?:X-Amz-Signature|X-Goog-Signature|sig)=", re.IGNORECASE)
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
    if path is None and not must_be_fetched(url):
        return None
    place = path or ("the inline picture" if url.startswith("data:") else urlsplit(url).path)
    try:
        with Image.open(path or _fetch(url)):
            return None
    except FileNotFoundError:
        return f"the picture {path} does not exist"
    except HTTPError as error:
        return f"{place} cannot be fetched: HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException, Image.DecompressionBombError):
        return f"{place} cannot be read as a picture"


def must_be_fetched(url: str) -> bool:
    """Tell whether an address holds its picture, or is signed by a store on this machine."""
    if url.startswith("data:"):
        return True
    parts = urlsplit(url)
    is_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return is_here and _SIGNATURE.search(parts.query) is not None


def _fetch(url: str) -> IO[bytes]:
    with build_opener(ProxyHandler({})).open(url, timeout=_FETCH_TIMEOUT_S) as response:
        return io.BytesIO(response.read(_LARGEST_BODY_BYTES + 1))


def open_source(url: str) -> Source:
    """Open or draw the picture behind an address."""
    path = _parse_local_path(url)
    is_real = path is not None or must_be_fetched(url)
    if is_real and find_source_problem(url) is None:
        picture = _open_upright(path or _fetch(url))
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


def _open_upright(file: Path | IO[bytes]) -> Image.Image:
    with Image.open(file) as opened:
        opened.draft("RGB", (_LARGEST_SIDE_PX, _LARGEST_SIDE_PX))
        upright = ImageOps.exif_transpose(opened)
        upright.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
        if "A" in upright.getbands() or "transparency" in upright.info:
            layered = upright.convert("RGBA")
            white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, layered).convert("RGB")
        return upright.convert("RGB")
