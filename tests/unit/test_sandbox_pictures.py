from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from batch_runner.files.media import is_whole, recognise
from batch_runner.sandbox.pictures import (
    _SCENES,
    Output,
    RenderedFile,
    choose_background,
    cut_out,
    find_source_problem,
    list_source_urls,
    render,
)

WEB_PICTURE = "https://cdn.example.com/mug.png"


@pytest.fixture
def photo(tmp_path: Path) -> str:
    picture = Image.new("RGB", (400, 300), (232, 214, 196))
    ImageDraw.Draw(picture).ellipse((140, 80, 260, 240), fill=(180, 30, 40))
    picture.save(tmp_path / "photo.png")
    return (tmp_path / "photo.png").as_uri()


def edit(prompt: str, *urls: str, number: int = 1, **options: Any) -> RenderedFile:
    model_input = {"prompt": prompt, "image_urls": list(urls), "resolution": "0.5K", **options}
    return render("image", model_input, number)


def open_picture(rendered: RenderedFile) -> Image.Image:
    return Image.open(io.BytesIO(rendered.data)).convert("RGB")


def measure_difference(first: RenderedFile, second: RenderedFile) -> float:
    difference = ImageChops.difference(open_picture(first), open_picture(second))
    return sum(ImageStat.Stat(difference).mean) / 3


@pytest.mark.parametrize("url", [WEB_PICTURE, "photo"])
def test_a_white_background_is_white_to_the_corners(url: str, photo: str) -> None:
    picture = open_picture(edit("Pure white background", photo if url == "photo" else url))
    right, bottom = picture.width - 1, picture.height - 1
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    assert {picture.getpixel(corner) for corner in corners} == {(255, 255, 255)}
    assert min(ImageStat.Stat(picture).mean) < 250  # and something stands before it


def test_a_red_background_is_red(photo: str) -> None:
    red, green, blue = ImageStat.Stat(
        open_picture(edit("on a red background", photo)).crop((0, 0, 40, 40))
    ).mean
    assert red > 2 * max(green, blue)


@pytest.mark.parametrize(
    "prompt",
    ["remove the cream background", "navy background", *_SCENES],
)
def test_every_edit_changes_the_picture_and_is_repeatable(prompt: str, photo: str) -> None:
    edited = edit(prompt, photo)
    assert measure_difference(edit("something else", photo), edited) > 0.5
    assert edited == edit(prompt, photo)


@pytest.mark.parametrize("prompt", ["on a beach", "vivid", "white background", "surprise me"])
def test_another_seed_and_another_number_are_another_picture(prompt: str) -> None:
    first = edit(prompt, WEB_PICTURE, seed=1)
    assert measure_difference(first, edit(prompt, WEB_PICTURE, seed=2)) > 0.5
    assert measure_difference(first, edit(prompt, WEB_PICTURE, seed=1, number=2)) > 0.5


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
    assert open_picture(edit("vivid", photo, **options)).size == size


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_the_format_follows_output_format(output_format: str) -> None:
    rendered = edit("on a beach", WEB_PICTURE, output_format=output_format, resolution="1K")
    assert rendered.media_type == f"image/{output_format}"
    assert Image.open(io.BytesIO(rendered.data)).format == output_format.upper()
    assert len(rendered.data) < 1_000_000


@pytest.mark.parametrize("prompt", ["side by side", "in the snow", "white background"])
@pytest.mark.parametrize("count", [2, 7, 20])
def test_several_pictures_are_shown_together(prompt: str, count: int) -> None:
    urls = [f"https://cdn.example.com/{number}.png" for number in range(count)]
    picture = edit(prompt, *urls)
    assert open_picture(picture).size == (512, 512)
    assert measure_difference(picture, edit(prompt, *urls[:-1], WEB_PICTURE)) > 0.05


def test_text_to_image_draws_something_of_its_own() -> None:
    first = render("image", {"prompt": "a mug", "aspect_ratio": "1:1"}, 1)
    second = render("image", {"prompt": "a lamp on the beach", "aspect_ratio": "1:1"}, 1)
    assert measure_difference(first, second) > 5


def test_a_busy_picture_becomes_a_card_before_the_new_background(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "busy.jpg")
    picture = open_picture(edit("white background", (tmp_path / "busy.jpg").as_uri()))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    middle = picture.crop((200, 200, 300, 300)).convert("L")
    assert ImageStat.Stat(middle).stddev[0] > 10


def test_a_busy_picture_stays_whole_in_another_shape(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "busy.jpg")
    url = (tmp_path / "busy.jpg").as_uri()
    assert open_picture(edit("vivid", url, aspect_ratio="21:9")).size == (512, 219)
    assert cut_out(Image.open(tmp_path / "busy.jpg")).size == (300, 300)


def test_transparent_pictures_stand_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((60, 60, 140, 140), fill=(20, 90, 200, 255))
    picture.save(tmp_path / "cut.png")
    drawn = open_picture(edit("side by side", (tmp_path / "cut.png").as_uri()))
    assert drawn.getpixel((2, 2)) == (255, 255, 255)


def test_local_pictures_that_cannot_be_used_are_found_out(tmp_path: Path, photo: str) -> None:
    page = tmp_path / "page.png"
    page.write_text("<html>")
    assert find_source_problem([photo]) is None
    assert find_source_problem([WEB_PICTURE]) is None
    assert "cannot be read" in (find_source_problem([page.as_uri()]) or "")
    assert "does not exist" in (find_source_problem([(tmp_path / "no.png").as_uri()]) or "")
    edit("vivid", page.as_uri())  # gone bad since it was accepted: a stand-in, not a crash


def test_pictures_are_found_whatever_the_field_is_called() -> None:
    a, b = "https://x.example/a.png", "file:///b.png"
    assert list_source_urls({"image": a}) == [a]
    assert list_source_urls({"images": [a, b], "audios": [a]}) == [a, b]
    assert list_source_urls({"prompt": f"as in {a}"}) == []
    assert list_source_urls({"image_url": a, "end_image_url": b}) == [a, b]


@pytest.mark.parametrize(
    ("prompt", "background"),
    [
        ("Put it on a pure white background", "white"),
        ("put the red mug on a white background", "white"),
        ("make the background a deep navy", "navy"),
        ("remove the background", "white"),
        ("on a beach at sunset", "sunset"),
        ("a red mug on a table", "wood"),
        ("make the mug red", None),
        ("", None),
    ],
)
def test_words_choose_the_background(prompt: str, background: str | None) -> None:
    assert choose_background(prompt) == background


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
        red, green, blue = open_picture(edit(prompt, photo)).split()
        surplus = ImageChops.subtract(red, ImageChops.lighter(green, blue))
        assert sum(surplus.histogram()[60:]) > 0.03 * red.width * red.height, prompt


@pytest.mark.parametrize("output", ["image", "video", "audio"])
@pytest.mark.parametrize("is_small", [True, False])
def test_every_output_of_every_job_is_a_file_of_its_own(output: Output, is_small: bool) -> None:
    inputs: list[dict[str, Any]] = [
        {"prompt": "a boat", "seed": 1},
        {"prompt": "a boat", "seed": 2},
        {"prompt": "a box"},
    ]
    found = [render(output, one, n, is_small=is_small) for one in inputs for n in (1, 2)]
    assert len({file.data for file in found}) == 6
    assert found[0] == render(output, inputs[0], 1, is_small=is_small)
    recognised = recognise(found[0].data[:64])
    if recognised is not None:
        assert recognised[0] == found[0].media_type
        assert is_whole(found[0].media_type, found[0].data)


def test_a_film_follows_the_aspect_ratio() -> None:
    def size(**options: Any) -> tuple[int, int]:
        data = render("video", {"prompt": "a boat", **options}, 1).data
        place = data.index(b"tkhd") + 80
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (place, place + 4))
        return width >> 16, height >> 16

    assert size() == size(aspect_ratio="auto") == size(aspect_ratio="1:1") == (640, 360)
    assert size(aspect_ratio="9:16") == (360, 640)


def test_the_ready_files_are_small() -> None:
    folder = files("batch_runner.sandbox").joinpath("media")
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < 600_000


def test_an_empty_prompt_and_a_very_long_one_are_drawn() -> None:
    edit("", WEB_PICTURE)
    edit("words " * 2000, WEB_PICTURE)
    edit("x" * 60, WEB_PICTURE, aspect_ratio="9:16")
