"""Names of output files: legal everywhere, inside their folder always."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch_runner.text.path import (
    SEGMENT_LIMIT_BYTES,
    UnsafePathError,
    collision_key,
    safe_stem,
    sieve_value,
    superseded_path,
    superseded_stem,
    value_text,
)

DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
FORBIDDEN = set('<>:"|?*\\') | {chr(code) for code in range(32)} | {"\x7f"}


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("mug/white", "mug/white"),
        ("mug/white-1:1", "mug/white-1x1"),
        ("16:9/4:5", "16x9/4x5"),
        ("a:b", "a-b"),
        ("./a//b/", "a/b"),
        (" a / b ", "a/b"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("aux .png", "_aux .png"),
        ("com¹", "_com¹"),
        ("console", "console"),
        ("conversation", "conversation"),
        (".hidden", "_hidden"),
        ("...", "_"),
        ("a. .", "a"),
        ("~/x", "~/x"),
        ("a\\b", "a-b"),
        ("C:/x", "C-/x"),
        ('a<b>|"?*', "a-b-----"),
        ("a\x00\x1f\x7fb", "a---b"),
        ("right\u202eleft", "right-left"),
        ("e\u0301", "é"),
        ("bouclé", "bouclé"),
        ("雪/мир", "雪/мир"),
    ],
)
def test_a_path_is_made_safe_and_stays_readable(text: str, stem: str) -> None:
    assert safe_stem(text) == stem


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/etc/passwd", "is absolute"),
        ("//x", "is absolute"),
        ("../x", "leads out of output.dir"),
        ("a/../../x", "leads out of output.dir"),
        ("a/ .. /x", "leads out of output.dir"),
        ("", "is empty"),
        (" / ", "is empty"),
        ("./.", "is empty"),
        ("a/" * 13, "has more than 12 folders"),
    ],
)
def test_a_path_that_cannot_be_made_safe_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnsafePathError, match=why):
        safe_stem(text)


def test_a_long_segment_is_cut_to_the_limit_and_still_tells_two_apart() -> None:
    first, second = safe_stem("é" * 200 + "1"), safe_stem("é" * 200 + "2")
    assert first != second
    assert len(first.encode()) <= SEGMENT_LIMIT_BYTES
    assert len(safe_stem("x" * 180)) == 180
    assert len(safe_stem("x" * 181)) == 180


PIECES = ("a", "B", "1", " ", ".", "..", "/", "\\", ":", "*", "?", '"', "|", "~", "_", "-", "\x00")
MORE = ("\x1f", "\x7f", "\u202e", "é", "\u0301", "ß", "雪", "con", "NUL", "com1", "conin$", "lpt²")
ODD = st.lists(st.sampled_from(PIECES + MORE)).map("".join)


@given(st.one_of(st.text(), ODD, st.text(min_size=100)))
@example("com1 /nul.")
@example("a" * 170 + ". . . . . . . . . . .")
def test_a_safe_path_is_legal_everywhere_and_never_leaves_its_folder(text: str) -> None:
    try:
        stem = safe_stem(text)
    except UnsafePathError:
        return
    assert not PurePosixPath(stem).is_absolute()
    assert not PureWindowsPath(stem).is_absolute()
    assert not PureWindowsPath(stem).drive
    for segment in stem.split("/"):
        assert segment not in ("", ".", "..")
        assert not FORBIDDEN & set(segment)
        assert DEVICE.fullmatch(segment) is None
        assert len(segment.encode()) <= 200
        assert segment == segment.strip(" ").rstrip(".")
        assert not segment.startswith(".")
        assert segment == unicodedata.normalize("NFC", segment) or len(segment.encode()) > 170
    folder = Path("/output")
    assert Path.absolute(folder / stem).is_relative_to(folder)
    assert safe_stem(text) == stem


@given(st.text())
def test_a_value_cannot_make_folders_of_its_own(value: str) -> None:
    assert "/" not in sieve_value(value)
    assert "\\" not in sieve_value(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mug", "mug"),
        ("É", "é"),
        ("e\u0301", "é"),
        ("Straße", "STRASSE"),
        ("\u03aa\u0301", "\u0390"),
    ],
)
def test_names_that_some_file_system_takes_for_one_share_their_collision_key(
    one: str, other: str
) -> None:
    assert collision_key(one) == collision_key(other)


def test_names_that_differ_everywhere_have_different_collision_keys() -> None:
    assert len({collision_key(name) for name in ("mug", "mug-2", "müg", "mug/2", "μug")}) == 5


@given(st.text())
def test_a_collision_key_does_not_depend_on_how_accents_are_written(text: str) -> None:
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    for form in forms:
        assert collision_key(unicodedata.normalize(form, text)) == collision_key(text)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (1, "1"), (0.5, "0.5"), ("4:5", "4:5")]
)
def test_a_matrix_value_is_written_as_in_the_manifest(value: object, text: str) -> None:
    assert value_text(value) == text


def test_what_lost_its_name_is_kept_under_its_hash() -> None:
    assert superseded_path("mug/white.png", "0123456789abcdef") == (
        "superseded/mug/white-0123456789ab.png"
    )
    assert superseded_path("white", "0123456789abcdef") == "superseded/white-0123456789ab"
    assert superseded_stem("mug/white", "0123456789abcdef") == "superseded/mug/white-0123456789ab"
