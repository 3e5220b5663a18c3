"""Small pictures for the live page: made on demand, the last ones remembered.

Hides Pillow. What always holds: at most two are made at a time, and never on the event loop; a
picture that can't be made small is None, and the caller serves the file itself.
"""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

MEDIA_TYPE = "image/webp"

_EDGE_PIXELS = 420
_REMEMBERED = 400


class Thumbnails:
    """Makes and remembers small pictures, by the hash of the whole ones."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, bytes | None] = OrderedDict()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="thumbnail")

    async def small(self, path: Path, sha256: str) -> bytes | None:
        """Return the small picture, or None."""
        if sha256 in self._made:
            self._made.move_to_end(sha256)
            return self._made[sha256]
        loop = asyncio.get_running_loop()
        made = self._made[sha256] = await loop.run_in_executor(self._pool, make_small, path)
        while len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return made

    def close(self) -> None:
        """Stop making pictures."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_small(path: Path) -> bytes | None:
    """Return a small WebP of a picture, or None if Pillow can't read it."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (_EDGE_PIXELS, _EDGE_PIXELS))
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((_EDGE_PIXELS, _EDGE_PIXELS))
            if upright.mode not in ("RGB", "RGBA"):
                upright = upright.convert("RGBA")
            buffer = io.BytesIO()
            upright.save(buffer, "WEBP", quality=80, method=2)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return buffer.getvalue()
