from __future__ import annotations

import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from batch_runner.files.media import is_whole, recognise
from batch_runner.sandbox.pictures import (
    _SCENES,
    _TONES,
    RenderedFile,
    choose_background,
    cut_out,
    render_film,
    render_film_swatch,
    render_picture,
    render_sound,
    render_swatch,
)
from batch_runner.sandbox.sources import find_source_problem, list_source_urls

WEB_PICTURE = "https://cdn.example.com/mug.png"


@pytest.fixture
def photo(tmp_path: Path) -> str:
    picture = Image.new("RGB", (400, 300), (232, 214, 196))
    ImageDraw.Draw(picture).ellipse((140, 80, 260, 240), fill=(180, 30, 40))
    picture.save(tmp_path / "photo.png")
    return (tmp_path / "photo.png").as_uri()


def render(prompt: str, *urls: str, number: int = 1, **options: Any) -> RenderedFile:
    model_input = {"prompt": prompt, "image_urls": list(urls), "resolution": "0.5K", **options}
    return render_picture(model_input, number)


def open_picture(rendered: RenderedFile) -> Image.Image:
    return Image.open(io.BytesIO(rendered.data)).convert("RGB")


def measure_difference(first: RenderedFile, second: RenderedFile) -> float:
    difference = ImageChops.difference(open_picture(first), open_picture(second))
    return sum(ImageStat.Stat(difference).mean) / 3


def measure_chroma(rendered: RenderedFile) -> float:
    _, saturation, _ = open_picture(rendered).convert("HSV").split()
    return ImageStat.Stat(saturation).mean[0]


@pytest.mark.parametrize("url", [WEB_PICTURE, "photo"])
def test_a_white_background_is_white_to_the_corners(url: str, photo: str) -> None:
    picture = open_picture(render("Pure white background", photo if url == "photo" else url))
    right, bottom = picture.width - 1, picture.height - 1
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    assert {picture.getpixel(corner) for corner in corners} == {(255, 255, 255)}
    assert min(ImageStat.Stat(picture).mean) < 250  # and something stands before it


def test_a_red_background_is_red(photo: str) -> None:
    red, green, blue = ImageStat.Stat(
        open_picture(render("on a red background", photo)).crop((0, 0, 40, 40))
    ).mean
    assert red > 2 * max(green, blue)


def test_grayscale_has_no_colour_left(photo: str) -> None:
    assert measure_chroma(render("make it monochrome", photo, output_format="png")) < 1
    assert measure_chroma(render("as it is", photo)) > 10


@pytest.mark.parametrize(
    "prompt",
    [names.split()[0] for names in _TONES] + ["remove the background", "navy wall", *_SCENES],
)
def test_every_edit_changes_the_picture_and_is_repeatable(prompt: str, photo: str) -> None:
    edited = render(prompt, photo)
    assert measure_difference(render("something else", photo), edited) > 0.5
    assert edited == render(prompt, photo)


@pytest.mark.parametrize("prompt", ["on a beach", "vivid", "white background", "surprise me"])
def test_another_seed_and_another_number_are_another_picture(prompt: str) -> None:
    first = render(prompt, WEB_PICTURE, seed=1)
    assert measure_difference(first, render(prompt, WEB_PICTURE, seed=2)) > 0.5
    assert measure_difference(first, render(prompt, WEB_PICTURE, seed=1, number=2)) > 0.5


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (512, 384)),
        ({"aspect_ratio": "1:1"}, (512, 512)),
        ({"aspect_ratio": "16:9"}, (512, 288)),
        ({"aspect_ratio": "9:16", "resolution": "1K"}, (576, 1024)),
        ({"aspect_ratio": "8:1"}, (512, 64)),
        ({"aspect_ratio": "1:1", "resolution": "2K"}, (2048, 2048)),
        ({"aspect_ratio": "4:3", "resolution": "4K", "output_format": "jpeg"}, (4096, 3072)),
        ({"aspect_ratio": "nonsense"}, (512, 384)),
    ],
)
def test_aspect_ratio_and_resolution_give_the_size(
    options: dict[str, Any], size: tuple[int, int], photo: str
) -> None:
    assert open_picture(render("vivid", photo, **options)).size == size


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_the_format_follows_output_format(output_format: str) -> None:
    rendered = render("on a beach", WEB_PICTURE, output_format=output_format, resolution="1K")
    assert rendered.media_type == f"image/{output_format}"
    assert Image.open(io.BytesIO(rendered.data)).format == output_format.upper()
    assert len(rendered.data) < 1_000_000


@pytest.mark.parametrize("prompt", ["side by side", "in the snow", "white background"])
@pytest.mark.parametrize("count", [2, 7, 20])
def test_several_pictures_are_shown_together(prompt: str, count: int) -> None:
    urls = [f"https://cdn.example.com/{number}.png" for number in range(count)]
    picture = render(prompt, *urls)
    assert open_picture(picture).size == (512, 341)
    assert measure_difference(picture, render(prompt, *urls[:-1], WEB_PICTURE)) > 0.05


def test_text_to_image_draws_something_of_its_own() -> None:
    first = render_picture({"prompt": "a mug", "aspect_ratio": "1:1"}, 1)
    second = render_picture({"prompt": "a lamp on the beach", "aspect_ratio": "1:1"}, 1)
    assert measure_difference(first, second) > 5


def test_a_busy_picture_becomes_a_card_before_the_new_background(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "busy.jpg")
    picture = open_picture(render("white background", (tmp_path / "busy.jpg").as_uri()))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    middle = picture.crop((200, 200, 300, 300)).convert("L")
    assert ImageStat.Stat(middle).stddev[0] > 10


def test_a_busy_picture_stays_whole_in_another_shape(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "busy.jpg")
    url = (tmp_path / "busy.jpg").as_uri()
    assert open_picture(render("vivid", url, aspect_ratio="21:9")).size == (512, 219)
    assert cut_out(Image.open(tmp_path / "busy.jpg")).size == (300, 300)


def test_transparent_pictures_stand_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((60, 60, 140, 140), fill=(20, 90, 200, 255))
    picture.save(tmp_path / "cut.png")
    drawn = open_picture(render("side by side", (tmp_path / "cut.png").as_uri()))
    assert drawn.getpixel((2, 2)) == (255, 255, 255)


def test_local_pictures_that_cannot_be_used_are_found_out(tmp_path: Path, photo: str) -> None:
    page = tmp_path / "page.png"
    page.write_text("<html>")
    assert find_source_problem(photo) is None
    assert find_source_problem(WEB_PICTURE) is None
    assert "cannot be read" in (find_source_problem(page.as_uri()) or "")
    assert "does not exist" in (find_source_problem((tmp_path / "no.png").as_uri()) or "")
    render("vivid", page.as_uri())  # gone bad since it was accepted: a stand-in, not a crash


def test_pictures_are_found_whatever_the_field_is_called() -> None:
    assert list_source_urls({"image": "a"}) == ["a"]
    assert list_source_urls({"images": ["a", "b"]}) == ["a", "b"]
    assert list_source_urls({"prompt": "a"}) == []
    assert list_source_urls({"image_url": "a", "end_image_url": "b"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("prompt", "background"),
    [
        ("Put it on a pure white background", "white"),
        ("put the red mug on a white background", "white"),
        ("make the background a deep navy", "navy"),
        ("a white vase before a wooden wall", "wood"),
        ("remove the background", "white"),
        ("on a beach at sunset", "sunset"),
        ("a red mug on a table", "wood"),
        ("make the mug red", None),
        ("brighter", None),
        ("", None),
    ],
)
def test_words_choose_the_background(prompt: str, background: str | None) -> None:
    assert choose_background(prompt.casefold().split()) == background


@pytest.mark.parametrize("wall", ["#dfe6ea", "#f6f0e4", "#9fb4c0"])
def test_a_product_before_a_shaded_wall_is_cut_out(wall: str) -> None:
    picture = Image.new("RGB", (400, 300), wall)
    picture = Image.blend(
        picture, Image.linear_gradient("L").resize((400, 300)).convert("RGB"), 0.1
    )
    ImageDraw.Draw(picture).ellipse((140, 80, 260, 240), fill=(180, 30, 40))
    cut = cut_out(picture)
    assert abs(cut.width - 121) < 8
    assert abs(cut.height - 161) < 8
    assert cut.getchannel("A").getpixel((cut.width // 2, cut.height // 2)) == 255
    assert cut.getchannel("A").getpixel((0, 0)) == 0


def test_the_product_of_a_photo_can_be_recognised_in_the_edit(photo: str) -> None:
    for prompt in ("on a beach", "white background", "at night", "something else"):
        red, green, blue = open_picture(render(prompt, photo)).split()
        surplus = ImageChops.subtract(red, ImageChops.lighter(green, blue))
        assert sum(surplus.histogram()[60:]) > 0.03 * red.width * red.height, prompt


@pytest.mark.parametrize(
    "render_output", [render_picture, render_swatch, render_film, render_film_swatch, render_sound]
)
def test_every_output_of_every_job_is_a_file_of_its_own(
    render_output: Callable[[dict[str, Any], int], RenderedFile],
) -> None:
    inputs: list[dict[str, Any]] = [
        {"prompt": "a boat", "seed": 1},
        {"prompt": "a boat", "seed": 2},
        {"prompt": "a box"},
    ]
    found = [render_output(model_input, number) for model_input in inputs for number in (1, 2)]
    assert len({file.data for file in found}) == 6
    assert found[0] == render_output(inputs[0], 1)
    recognised = recognise(found[0].data[:64])
    if recognised is not None:
        assert recognised[0] == found[0].media_type
        assert is_whole(found[0].media_type, found[0].data)


def test_a_film_follows_the_aspect_ratio() -> None:
    def size(**options: Any) -> tuple[int, int]:
        data = render_film({"prompt": "a boat", **options}, 1).data
        place = data.index(b"tkhd") + 80
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (place, place + 4))
        return width >> 16, height >> 16

    assert size() == size(aspect_ratio="auto") == size(aspect_ratio="1:1") == (640, 360)
    assert size(aspect_ratio="9:16") == (360, 640)


def test_the_ready_files_are_small() -> None:
    folder = files("batch_runner.sandbox").joinpath("media")
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < 600_000


def test_an_empty_prompt_and_a_very_long_one_are_drawn() -> None:
    render("", WEB_PICTURE)
    render("words " * 2000, WEB_PICTURE)
    render("x" * 60, WEB_PICTURE, aspect_ratio="9:16")
