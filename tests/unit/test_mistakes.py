from __future__ import annotations

import pytest

from batch_runner.jobs.mistakes import find_missing_part, find_mistake

A, B = "https://a.example/1.jpg", "https://b.example/2.jpg?w=1"


def hint(text: str) -> str | None:
    found = find_mistake(text) or (None if "://" in text else find_missing_part(text))
    return None if found is None else found[1]


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        (f"{A},{B}", '","'),
        (f"{A} ; {B};{A}", '";"'),
        (f"{A} | {B}", '"|"'),
        (f"{A} {B}", '" "'),
        (f"{A}\n{B}", '"\\n"'),
        (f"{A}\r\n{B}", '"\\n"'),
        ("//a.example/1.jpg,//a.example/2.jpg", '","'),
        (f"s3://shop/a.png,{A}", '","'),
        ("front.jpg, back.PNG", '","'),
        (f"{A}~{B}", '"~"'),
        (f"{A} ~ {B}~{A}", '"~"'),
        (f"{A} • {B}", '"•"'),
        (f"{A}*{B}", '"*"'),
        (f"{A}::{B}", '"::"'),
        (f"{A}&&{B}", '"&&"'),
        (f"https://r.example/?u={A},https://r.example/?u={B}", '","'),
    ],
)
def test_joined_addresses_are_told_with_their_separator(text: str, separator: str) -> None:
    assert (hint(text) or "").startswith(f"write split: {separator} under images")


def test_addresses_that_nothing_separates_need_a_separator() -> None:
    assert "put a separator between them" in (hint(A + B) or "")


@pytest.mark.parametrize(
    "text",
    [
        f"https://images.example/?url={A}",
        f"https://web.example/web/2020/{A}",
        f"https://cdn.example/w_80,q_75/{A}",
        f"https://collage.example/?urls={A},{A}",
        f"https://thumbs.example/rs:fit:80/plain/{A}",
        f"https://thumbs.example/key:{A}",
        f"https://thumbs.example/?{A}&{B}",
        "https://a.example/a,b;c|d.jpg",
        "https://a.example/?a=1&copy=2&reg=3&times;x",
        "https://a.example/x&nosuch;y",
        "https://drive.google.com/uc?export=download&id=1",
        "https://www.dropbox.com/scl/fi/a/m.jpg?rlkey=k&raw=1",
        "https://onedrive.live.com/download?resid=1",
        "https://github.com/a/b/blob/main/m.png?raw=true",
        "https://i.imgur.com/aBcDeFg.jpg",
        "photos/mug, large.jpg",
        "mug.jpg",
    ],
)
def test_what_may_be_meant_as_it_is_stays(text: str) -> None:
    if "&times;" in text:
        assert hint(text) is not None
        return
    assert hint(text) is None


@pytest.mark.parametrize(
    "page",
    [
        "drive.google.com/file/d/1A_b-9/view?usp=sharing",
        "drive.google.com/open?id=1A",
        "www.dropbox.com/s/abc/mug.jpg?dl=0",
        "dropbox.com/scl/fi/a/m.jpg?rlkey=k&dl=0",
        "1drv.ms/i/s!abc",
        "photos.app.goo.gl/abc",
    ],
)
def test_a_page_that_shows_a_picture_is_told(page: str) -> None:
    what, edit = find_mistake(f"https://{page}") or ("", "")
    assert page.removeprefix("www.").partition("/")[0] + ", not a picture" in what
    assert "the picture itself" in edit


def test_html_in_an_address_is_told_with_the_address_as_it_should_be() -> None:
    found = find_mistake("https://a.example/?a=1&amp;b=2&#38;c=3")
    assert found is not None
    assert found[1].startswith('it should be "https://a.example/?a=1&b=2&c=3"; in a table, urls: ')


def test_a_picture_in_a_cell_is_told_in_few_words() -> None:
    found = find_mistake("data:image/png;base64," + "A" * 4_000_000)
    assert found is not None
    assert len(" ".join(found)) < 200


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("//cdn.example.com/a.jpg?v=1", "begin it with https:; in a table, urls: 'https:{{ … }}'"),
        ("cdn.example.com/a.jpg", "begin it with https://; in a table, urls: 'https://{{ … }}'"),
    ],
)
def test_what_lacks_its_beginning_is_told_with_the_template_to_write(text: str, edit: str) -> None:
    assert hint(text) == edit
