"""A thousand odd pictures through the recipes of channels, read back by other means.

The independent reader is Chromium, which has decoders and a colour management of its own.
"""

from __future__ import annotations

import base64
import io
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from browser import CHROMIUM, browsing
from odd_pictures import TYPE, odd_picture, with_chunk
from PIL import Image, ImageCms, ImageStat

from batch_runner.manifest.form import Recipe
from batch_runner.pictures.picture import CannotDeliverError, Made, make
from batch_runner.pictures.provenance import GENERATED, c2pa_state, source_type, with_source_type

if TYPE_CHECKING:
    from playwright.sync_api import Page

RECIPES = (
    Recipe(),
    Recipe(size=(200, 200), fit="pad", format="jpeg", enlarge=True),
    Recipe(size=(90, 60), fit="crop", format="webp", enlarge=True, background="#f5f5f5"),
    Recipe(size=(500, 300), format="png"),
    Recipe(size=(400, 400), fit="pad", format="jpeg", max_bytes=20_000, enlarge=True),
    Recipe(format="jpeg"),
    Recipe(size=(300, 300), fit="crop"),
)
EXPECTED = ("cannot be decoded", "too small for", "does not fit in", "not delivered as it is")


def size_in_header(content: bytes) -> tuple[int, int]:
    """Read the size without Pillow, as the formats' specifications say."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack(">II", content[16:24])
    if content[:4] == b"RIFF":
        kind, body = content[12:16], content[20:]
        if kind == b"VP8X":
            return tuple(int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))  # type: ignore[return-value]
        raise AssertionError(kind)  # with metadata it is always the extended form
    place = 2
    while content[place + 1] not in (0xC0, 0xC1, 0xC2):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    height, width = struct.unpack(">HH", content[place + 5 : place + 9])
    return width, height


def xmp_of(content: bytes) -> bytes:
    """Find the packet by its own marks, wherever the format keeps it."""
    start = content.index(b"<x:xmpmeta")
    return content[start : content.index(b"</x:xmpmeta>", start)]


# Decodes each file, and returns its size and its mean colours, on white.
READ = """files => Promise.all(files.map(async text => {
  const blob = new Blob([Uint8Array.from(atob(text), one => one.charCodeAt(0))]);
  const image = await createImageBitmap(blob).catch(() => null);
  if (image === null) return null;
  const area = new OffscreenCanvas(image.width, image.height).getContext("2d");
  area.fillStyle = "white";
  area.fillRect(0, 0, image.width, image.height);
  area.drawImage(image, 0, 0);
  const data = area.getImageData(0, 0, image.width, image.height).data, sum = [0, 0, 0];
  for (let at = 0; at < data.length; at++) if (at % 4 < 3) sum[at % 4] += data[at];
  return [image.width, image.height, ...sum.map(one => one * 4 / data.length)];
}))"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page | None]:
    """A page of the browser, if there is one."""
    if CHROMIUM is None:
        yield None
        return
    with browsing() as browser:
        yield browser.new_page()


def check_with_another_reader(page: Page, contents: Sequence[bytes]) -> None:
    found = page.evaluate(READ, [base64.b64encode(one).decode() for one in contents])
    for content, seen in zip(contents, found, strict=True):
        with Image.open(io.BytesIO(content)) as image:
            white = Image.new("RGBA", image.size, "white")
            mean = ImageStat.Stat(Image.alpha_composite(white, image.convert("RGBA"))).mean[:3]
            assert seen is not None
            assert tuple(seen[:2]) == image.size
            assert seen[2:] == pytest.approx(mean, abs=2)


@pytest.mark.parametrize("first", range(0, 1000, 125))
def test_whatever_comes_in_what_goes_out_is_as_the_channel_wants_it(
    first: int, page: Page | None
) -> None:
    found: Counter[str] = Counter()
    contents = []
    for seed in range(first, first + 125):
        content, recipe = odd_picture(seed), RECIPES[seed % len(RECIPES)]
        made = made_or_refused(content, recipe)
        if isinstance(made, CannotDeliverError):
            assert any(words in str(made) for words in EXPECTED), (seed, str(made))
            assert made.hint
            found["refused"] += 1
            continue
        check(made, recipe, seed)
        if TYPE.encode() in content:
            assert source_type(xmp_of(made.content)) == TYPE
        elif b"C2PA" not in content:
            assert source_type(xmp_of(made.content)) == GENERATED
        assert ("C2PA" in " ".join(made.notes)) is (
            c2pa_state(content) != "none" and made.content != content
        )
        found["made"] += 1
        contents.append(made.content)
    if page is not None:
        check_with_another_reader(page, contents)
    assert found["made"] > 80
    assert found["refused"] > 2


def made_or_refused(content: bytes, recipe: Recipe) -> Made | CannotDeliverError:
    try:
        return make(content, recipe)
    except CannotDeliverError as error:
        return error


def check(made: Made, recipe: Recipe, seed: int) -> None:
    with Image.open(io.BytesIO(made.content)) as image:
        image.load()
        assert image.format == made.form.upper()
        assert image.getexif().get(0x0112, 1) in (0, 1), seed
        assert image.size == size_in_header(made.content)
        assert image.mode in ("RGB", "RGBA", "L", "LA")
        profile = image.info.get("icc_profile")
        if profile:
            name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
            assert "srgb" in name.lower()
        if recipe.size is not None:
            if recipe.fit == "keep":
                assert image.width <= recipe.size[0] or image.height <= recipe.size[1]
            else:
                assert image.size == recipe.size
        if recipe.background is not None:
            assert not image.has_transparency_data
    assert recipe.format in (None, made.form)
    assert recipe.max_bytes is None or len(made.content) <= recipe.max_bytes


def picture(size: tuple[int, int], colour: str, form: str = "PNG", **options: object) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, form, **options)
    return written.getvalue()


def test_the_same_picture_and_recipe_give_the_same_bytes() -> None:
    for seed in range(40):
        content, recipe = odd_picture(seed), RECIPES[seed % len(RECIPES)]
        first = made_or_refused(content, recipe)
        assert isinstance(first, CannotDeliverError) or make(content, recipe) == first


def test_a_picture_that_needs_no_change_keeps_its_bytes_and_its_signature() -> None:
    plain = picture((40, 30), "red", "JPEG", xmp=with_source_type(None))
    assert make(plain, Recipe(size=(40, 40), format="jpeg")).content == plain
    made = make(plain, Recipe(size=(20, 20), format="jpeg"))
    with Image.open(io.BytesIO(made.content)) as image:
        assert image.size == (20, 15)


def test_padding_cropping_and_enlarging_do_what_they_say() -> None:
    wide = picture((100, 50), "red")
    padded = make(wide, Recipe(size=(80, 80), fit="pad", background="#00ff00", format="png"))
    with Image.open(io.BytesIO(padded.content)) as image:
        assert [image.convert("RGB").getpixel(at) for at in ((0, 0), (40, 40), (79, 79))] == [
            (0, 255, 0),
            (255, 0, 0),
            (0, 255, 0),
        ]
    cropped = make(wide, Recipe(size=(50, 50), fit="crop", format="png"))
    with Image.open(io.BytesIO(cropped.content)) as image:
        assert image.convert("RGB").getcolors() == [(2500, (255, 0, 0))]
    with pytest.raises(CannotDeliverError, match="is 100 x 50, too small for 200 x 200"):
        make(wide, Recipe(size=(200, 200), fit="pad"))
    kept = make(wide, Recipe(size=(200, 200)))
    with Image.open(io.BytesIO(kept.content)) as image:
        assert image.size == (100, 50)


def test_colours_of_another_profile_are_converted_not_relabelled() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ")
    swapped = swapped.replace(b"tXYZ", b"gXYZ").replace(b"s\0R\0G\0B", b"w\0i\0d\0e")
    made = make(picture((4, 4), "#ff0000", icc_profile=swapped), Recipe(format="png"))
    with Image.open(io.BytesIO(made.content)) as image:
        red, green, blue = image.convert("RGB").getpixel((1, 1))  # type: ignore[misc]
    assert (red < 60, green > 200, blue < 60) == (True, True, True)


def test_sixteen_bits_become_eight_without_clipping() -> None:
    written = io.BytesIO()
    Image.new("I;16", (4, 4), 0x8080).save(written, "PNG")
    made = make(written.getvalue(), Recipe(format="png"))
    with Image.open(io.BytesIO(made.content)) as image:
        assert image.convert("L").getpixel((0, 0)) == 0x80


@pytest.mark.parametrize(
    "packet",
    [None, b"<x:xmpmeta><r:RDF></r:RDF></x:xmpmeta>", b"not a packet"],
)
def test_a_packet_gets_the_type_if_it_has_none(packet: bytes | None) -> None:
    assert source_type(with_source_type(packet)) == GENERATED


def test_a_signature_is_found_where_each_format_keeps_it() -> None:
    plain = picture((8, 8), "red")
    assert c2pa_state(plain) == "none"
    assert c2pa_state(with_chunk(plain, b"caBX", b"c2pa")) == "broken"
    jpeg = picture((8, 8), "red", "JPEG")
    body = b"JP\x00\x01\x00\x00\x00\x01" + struct.pack(">I", 12) + b"jumbc2pa"
    segment = b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body
    assert c2pa_state(jpeg) == "none"
    assert c2pa_state(jpeg[:2] + segment + jpeg[2:]) == "broken"
    webp = picture((8, 8), "red", "WEBP")
    assert c2pa_state(webp) == "none"
    assert c2pa_state(webp + b"C2PA" + struct.pack("<I", 4) + b"jumb") == "broken"
