"""The pictures that an input names, and the bytes of an edited picture, film or sound.

Hides every decision about looks. No model makes these files: backgrounds, stand-in products and
clips come from `media/`. They show at a glance that the prompt, the pictures and the options
arrived.

Always holds: the same input and number give the same bytes (if local pictures are unchanged), any
other input or number gives different bytes; a picture's size follows from aspect_ratio and
resolution, its format from output_format; pictures and films are marked "sandbox". Nothing is
fetched from other machines: only local files, inline pictures and signed URLs of a store on this
machine are opened.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import itertools
import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener, url2pathname

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont, ImageOps

Output = Literal["image", "video", "audio"]
Size = tuple[int, int]

_LARGEST_SIDE_PX = 1600
_LARGEST_BODY_BYTES = 50 * 1000**2
_FETCH_TIMEOUT_S = 10.0
_SIGNATURE = re.compile(r"(?:^|&)(?:X-Amz-Signature|X-Goog-Signature|sig)=", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:https?|file|data):\S+")
_OTHER_MEDIA = ("video", "audio", "voice")
_LONG_SIDES_PX = {"0.5K": 512, "1K": 1024, "2K": 2048, "4K": 4096}
# Larger pictures are composed at this size and enlarged, so that 4K stays quick.
_COMPOSED_SIDE_PX = 1536
_FORMATS: dict[str, dict[str, int]] = {
    "jpeg": {"quality": 88},
    "webp": {"quality": 86, "method": 2},
    "png": {"compress_level": 3},
}
_COMMENT = b"0" * 32
"""A placeholder in every clip of `media/`, replaced to make each output unique."""

# The backgrounds of `media/`, and the words that select each. If a prompt has words for several,
# the first in this table wins: a beach at sunset is a sunset.
_SCENES = {
    "sunset": "sunset sunrise dusk dawn",
    "night": "night midnight moonlight evening",
    "snow": "snow snowy winter ice",
    "beach": "beach sea seaside ocean coast sand",
    "forest": "forest woods jungle trees",
    "meadow": "garden meadow grass lawn park outdoors",
    "mountains": "mountain mountains alps hills",
    "city": "city street urban skyline",
    "marble": "marble stone bathroom concrete",
    "wood": "wood wooden table desk oak rustic",
    "room": "room kitchen living interior home lifestyle",
    "studio": "studio seamless",
    "pastel": "pastel gradient podium",
}
_SCENE_OF = {word: name for name, words in _SCENES.items() for word in words.split()}
_BACKGROUNDS = _SCENE_OF.keys() | ImageColor.colormap.keys()
_FLOOD, _WALL_DIFFERS = (255, 0, 255), 60
_STANDINS = ("mug", "bottle", "lamp", "vase", "bag", "chair", "box")


class RenderedFile(NamedTuple):
    """The bytes of one output file and their media type."""

    data: bytes
    media_type: str


@functools.cache
def draw_bomb() -> bytes:
    """Draw a small white PNG that takes 112 MB of memory to unpack."""
    data = io.BytesIO()
    Image.new("1", (30_000, 30_000), 1).save(data, "PNG")
    return data.getvalue()


def render(
    output: Output, model_input: Mapping[str, Any], number: int, *, is_small: bool = False
) -> RenderedFile:
    """Make output `number` of a request; `is_small`: plain and quick, for thousands of jobs."""
    text = f"{json.dumps(model_input, sort_keys=True)}#{number}"
    digest = hashlib.sha256(text.encode()).digest()
    if output == "image":
        if not is_small:
            return _render_picture(model_input, digest)
        patch = Image.frombytes("RGB", (3, 3), digest[:27])
        return _encode(patch.resize((48, 48), Image.Resampling.NEAREST), "png")
    shape = "tall" if (_read_ratio(model_input) or 1) < 1 else "wide"
    clip = "chime.wav" if output == "audio" else f"{'small' if is_small else shape}.mp4"
    data = _read(clip).replace(_COMMENT, digest.hex()[: len(_COMMENT)].encode())
    return RenderedFile(data, "audio/wav" if output == "audio" else "video/mp4")


def _render_picture(model_input: Mapping[str, Any], digest: bytes) -> RenderedFile:
    prompt = prompt_of(model_input)
    draw = random.Random(digest)
    urls = list_source_urls(model_input)
    sources = [open_source(url) or _draw_standin(url) for url in urls]
    size = _choose_size(model_input, sources)
    scale = min(1.0, _COMPOSED_SIDE_PX / max(size))
    composed = (max(16, round(size[0] * scale)), max(16, round(size[1] * scale)))
    background = choose_background(prompt)
    picture = _paint_background(background or "white", composed, draw)
    _place(picture, sources or [_draw_standin(f"{digest.hex()}/{prompt}")], draw)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    _write(picture, f"sandbox {digest.hex()[:6]}: {prompt if background is None else ''}")
    return _encode(picture, str(model_input.get("output_format", "png")))


def choose_background(prompt: str) -> str | None:
    """Return a scene of `media/` or the name of a colour; None if the prompt names neither.

    The name nearest to "background" counts: "a red mug on a white background" is white.
    """
    words = re.findall(r"\w+", prompt.casefold())
    if "background" in words:
        place = words.index("background")
        known = [at for at, word in enumerate(words) if word in _BACKGROUNDS]
        nearest = min(known, key=lambda at: abs(at - place), default=None)
        return "white" if nearest is None else _SCENE_OF.get(words[nearest], words[nearest])
    named = {_SCENE_OF.get(word) for word in words}
    return next((name for name in _SCENES if name in named), None)


@functools.cache
def _read(name: str) -> bytes:
    return files("batch_runner.sandbox").joinpath("media", name).read_bytes()


@functools.lru_cache(maxsize=32)
def _draw_standin(text: str) -> Image.Image:
    """Return a cut-out product for a picture on another machine, always the same for a text."""
    last = text.rsplit("/", 1)[-1].casefold()
    draw = random.Random(text)
    kind = next((name for name in _STANDINS if name in last), draw.choice(_STANDINS))
    product = Image.open(io.BytesIO(_read(f"{kind}.webp")))
    hue, saturation, value = product.convert("RGB").convert("HSV").split()
    turn = draw.randrange(256)
    hue = hue.point([(step + turn) % 256 for step in range(256)])
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    turned.putalpha(product.getchannel("A"))
    return turned


def _read_ratio(model_input: Mapping[str, Any]) -> float | None:
    width, _, height = str(model_input.get("aspect_ratio", "auto")).partition(":")
    if width.isdecimal() and height.isdecimal() and int(width) and int(height):
        return int(width) / int(height)
    return None


def _choose_size(model_input: Mapping[str, Any], sources: Sequence[Image.Image]) -> Size:
    """Return the size in pixels: the long side by resolution, the other by the ratio."""
    long_px = _LONG_SIDES_PX.get(str(model_input.get("resolution", "1K")), 1024)
    ratio = _read_ratio(model_input)
    if ratio is None:
        is_photo = len(sources) == 1 and sources[0].mode == "RGB"
        ratio = sources[0].width / sources[0].height if is_photo else 1.0
    return max(16, round(long_px * min(1.0, ratio))), max(16, round(long_px * min(1.0, 1 / ratio)))


def _paint_background(name: str, size: Size, draw: random.Random) -> Image.Image:
    """Cut a scene to size, or fill with a colour."""
    if name not in _SCENES:
        return Image.new("RGB", size, name)
    scene: Image.Image = Image.open(io.BytesIO(_read(f"{name}.jpg")))
    scene = ImageOps.mirror(scene) if draw.random() < 0.5 else scene
    place = (draw.uniform(0.3, 0.7), 0.75)
    return ImageOps.fit(scene, size, Image.Resampling.BICUBIC, draw.uniform(0, 0.05), place)


def _place(canvas: Image.Image, sources: Sequence[Image.Image], draw: random.Random) -> None:
    """Place the products in rows."""
    columns = math.ceil(math.sqrt(len(sources) * canvas.width / canvas.height))
    columns = min(len(sources), columns)
    rows = math.ceil(len(sources) / columns)
    room = (canvas.width * 0.9 / columns, canvas.height * 0.86 / rows)
    share, shift_px = draw.uniform(0.84, 0.95), draw.uniform(-0.04, 0.04) * canvas.width
    for index, source in enumerate(sources):
        row, column = divmod(index, columns)
        cut = cut_out(source) if source.mode == "RGB" else source
        product = ImageOps.contain(cut, (round(room[0] * share), round(room[1] * share)))
        x = round(canvas.width * 0.05 + room[0] * (column + 0.5) - product.width / 2 + shift_px)
        y = round(canvas.height * 0.05 + room[1] * (row + 1) - product.height)
        canvas.paste(product, (x, y), product)


def cut_out(picture: Image.Image) -> Image.Image:
    """Cut out an object in front of a plain wall; other pictures stay whole."""
    flooded = ImageOps.contain(picture, (200, 200))
    for corner in itertools.product((0, flooded.width - 1), (0, flooded.height - 1)):
        if flooded.getpixel(corner) != _FLOOD:
            ImageDraw.floodfill(flooded, corner, _FLOOD, thresh=_WALL_DIFFERS)
    is_wall = ImageChops.difference(flooded, Image.new("RGB", flooded.size, _FLOOD)).convert("L")
    mask = is_wall.point([0, *[255] * 255]).filter(ImageFilter.MinFilter(3))
    box, share = mask.getbbox(), sum(mask.histogram()[128:]) / (mask.width * mask.height)
    cut = picture.convert("RGBA")
    if box is None or not 0.02 < share < 0.85:
        return cut
    mask = mask.resize(picture.size, Image.Resampling.BICUBIC)
    cut.putalpha(mask.filter(ImageFilter.GaussianBlur(max(picture.size) / 240)))
    return cut.crop(mask.point([255 * (value > 40) for value in range(256)]).getbbox())


def _write(picture: Image.Image, text: str) -> None:
    """Write small letters into the lower corner, as far as there is room."""
    size_px = max(8, round(min(picture.size) * 0.022))
    letters = int(picture.width / size_px * 1.6)
    corner = (size_px, picture.height - size_px)
    font = ImageFont.load_default(size_px)
    text = " ".join(text.split())[:letters].rstrip(": ")
    ImageDraw.Draw(picture).text(corner, text, "gray", font, "ls")


def _encode(picture: Image.Image, output_format: str) -> RenderedFile:
    output_format = output_format if output_format in _FORMATS else "png"
    file = io.BytesIO()
    picture.save(file, output_format, **_FORMATS[output_format])
    return RenderedFile(file.getvalue(), f"image/{output_format}")


def prompt_of(model_input: Mapping[str, Any]) -> str:
    """Return the prompt of an input, or else its longest text."""
    texts = [value for value in model_input.values() if isinstance(value, str)]
    others = (text for text in texts if not _ADDRESS.fullmatch(text))
    return str(model_input.get("prompt") or max(others, key=len, default=""))


def list_source_urls(model_input: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the pictures in an input, under any name."""
    return [
        url
        for name, value in model_input.items()
        if not any(word in name for word in _OTHER_MEDIA)
        for url in (value if isinstance(value, list) else [value])
        if isinstance(url, str) and _ADDRESS.fullmatch(url)
    ]


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
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _fetch(url: str) -> IO[bytes]:
    with build_opener(ProxyHandler({})).open(url, timeout=_FETCH_TIMEOUT_S) as response:
        return io.BytesIO(response.read(_LARGEST_BODY_BYTES + 1))


def _find_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
