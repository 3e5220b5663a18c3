"""The pictures that an input names: finding, checking and opening them.

Always holds: nothing is fetched from other machines. The sandbox opens local files, inline pictures
and signed URLs of a store on this machine.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener, url2pathname

from PIL import Image, ImageOps

_LARGEST_SIDE_PX = 1600
_LARGEST_BODY_BYTES = 50 * 1000**2
_FETCH_TIMEOUT_S = 10.0
_SIGNATURE = re.compile(r"(?:^|&)(?:X-Amz-Signature|X-Goog-Signature|sig)=", re.IGNORECASE)
_FIELDS = ("image_urls", "images", "image", "image_url")


def list_source_urls(model_input: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the pictures in an input, under any of the usual names."""
    value: Any = next((model_input[name] for name in _FIELDS if model_input.get(name)), [])
    urls = value if isinstance(value, list) else [value]
    return [str(url) for url in (*urls, model_input.get("end_image_url")) if url]


def find_source_problem(urls: Iterable[str]) -> str | None:
    """Return why the service could not use one of these pictures, if so."""
    for url in filter(is_here, urls):
        path = _find_path(url)
        place = path or ("the inline picture" if url.startswith("data:") else urlsplit(url).path)
        try:
            with Image.open(path or _fetch(url)):
                pass
        except FileNotFoundError:
            return f"the picture {path} does not exist"
        except HTTPError as error:
            return f"{place} cannot be fetched: HTTP {error.code}"
        except (OSError, ValueError, http.client.HTTPException, Image.DecompressionBombError):
            return f"{place} cannot be read as a picture"
    return None


def is_here(url: str) -> bool:
    """Return whether a picture is a local file, inline, or signed by a store on this machine."""
    parts = urlsplit(url)
    is_of_store = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return parts.scheme in ("file", "data") or (
        is_of_store and _SIGNATURE.search(parts.query) is not None
    )


def open_source(url: str) -> Image.Image | None:
    """Open a picture, upright and on white; None if it is on another machine or unusable."""
    if not is_here(url) or find_source_problem([url]) is not None:
        return None
    with Image.open(_find_path(url) or _fetch(url)) as opened:
        opened.draft("RGB", (_LARGEST_SIDE_PX, _LARGEST_SIDE_PX))
        upright = ImageOps.exif_transpose(opened)
        upright.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
        layered = upright.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _fetch(url: str) -> IO[bytes]:
    with build_opener(ProxyHandler({})).open(url, timeout=_FETCH_TIMEOUT_S) as response:
        return io.BytesIO(response.read(_LARGEST_BODY_BYTES + 1))


def _find_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
