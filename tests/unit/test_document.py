"""YAML in, plain values with their lines out: nothing guessed, nothing unbounded."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_runner.errors import PROBLEM_LIMIT, ExitCode, InputMissingError, ManifestError
from batch_runner.manifest.document import (
    DEPTH_LIMIT,
    SIZE_LIMIT_BYTES,
    VALUES_LIMIT,
    Document,
    read_document,
)
from batch_runner.manifest.loading import load_manifest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batch.yaml"


def read(file: Path, text: str | bytes) -> Document:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(file)


def complaints(file: Path, text: str | bytes) -> list[str]:
    """Return what is wrong with a text, without the folder it lies in."""
    try:
        problems = read(file, text).problems
    except ManifestError as error:
        problems = error.problems
    return [str(problem).replace(f"{file.parent}/", "") for problem in problems]


def peak_bytes(file: Path, text: str) -> int:
    """Return the most memory that reading the text took at any moment."""
    file.write_text(text, encoding="utf-8")
    tracemalloc.start()
    try:
        read_document(file)
    except ManifestError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", "a"),
        ("''", ""),
        ("'16:9'", "16:9"),
        ("!!str 5", "5"),
        ("=", "="),
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e5", "1e5"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("22:00-06:00", "22:00-06:00"),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_a_value_comes_out_as_it_stands_there(file: Path, text: str, value: Any) -> None:
    document = read(file, f"key: {text}\n")
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)
    assert document.problems == ()


def test_a_key_is_text_whatever_it_looks_like(file: Path) -> None:
    assert read(file, "NO: 1\n007: 2\n1.5: 3\nnull: 4\n2024-01-01: 5\n=: 6\n").data == {
        "NO": 1,
        "007": 2,
        "1.5": 3,
        "null": 4,
        "2024-01-01": 5,
        "=": 6,
    }


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("16:9", "another number"),
        ("-16:9", "another number"),
        ("NO", "false"),
        ("off", "false"),
        ("yes", "true"),
        ("On", "true"),
        ("010", "another number"),
        ("-010", "another number"),
        ("0x1F", "another number"),
        ("0b11", "another number"),
        ("1_000", "another number"),
        ("0x_", "another number"),
        ("12345678901234567890", "another number"),
        ("1_0.5", "another number"),
        ("1:30.5", "another number"),
        ("2024-01-01", "a date"),
    ],
)
def test_what_yaml_would_misread_is_a_problem_and_stays_text(
    file: Path, text: str, reading: str
) -> None:
    assert read(file, f"a: 1\nkey: {text}\n").data == {"a": 1, "key": text}
    assert complaints(file, f"a: 1\nkey: {text}\n") == [
        f'batch.yaml:2: {text} is read as {reading} by YAML\nhint: write it in quotes: "{text}"'
    ]


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1.0e+999", "!!float x"])
def test_a_number_that_is_not_finite_is_a_problem(file: Path, text: str) -> None:
    shown = text.removeprefix("!!float ")
    assert complaints(file, f"key: {text}\n") == [
        f'batch.yaml:1: {shown} is not a finite number\nhint: quote it if it is text: "{shown}"'
    ]


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("key: !!python/object/apply:os.system [x]", "!!python/object/apply:os.system"),
        ("key: !!python/name:os.system x", "!!python/name:os.system"),
        ("key: !!set {a, b}", "!!set"),
        ("key: !!omap [a: b]", "!!omap"),
        ("key: !!binary aGk=", "!!binary"),
        ("key: !important", "!important"),
        ("key: !!bool maybe", "!!bool"),
        ("key: !!null x", "!!null"),
        ("key: <<", "!!merge"),
        ("!!python/object:x key: 1", "!!python/object:x"),
    ],
)
def test_tags_are_refused_and_never_obeyed(file: Path, text: str, tag: str) -> None:
    (complaint,) = complaints(file, text)
    assert complaint == (
        f"batch.yaml:1: the tag {tag} is not allowed\n"
        "hint: remove it; quote a text that begins with !"
    )


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        (
            "a: 1\nb:\n\tc: 1\n",
            "3: a tab stands where YAML allows only spaces",
            "replace every tab by spaces",
        ),
        (
            "a:\n  b: 1\n\tc: 1\n",
            "3: a tab stands where YAML allows only spaces",
            "replace every tab by spaces",
        ),
        (
            "a: 1\nb: 2\na: 3\n",
            "3: duplicate key 'a'",
            "it is on line 1 already; remove one of them",
        ),
        (
            "a:\n  b: {{ title }} on white\n",
            "2: a template is not in quotes",
            'write it as "{{ name }} …"',
        ),
        (
            "a:\n  b: {{ title }}\n",
            "2: a key is a list or a mapping",
            'put a text that begins with { or [ in quotes: "{{ name }}"',
        ),
        (
            "a: {[b]: c}\n",
            "1: a key is a list or a mapping",
            'put a text that begins with { or [ in quotes: "{{ name }}"',
        ),
        (
            "a: &x {b: 1}\nc: {<<: *x}\n",
            "2: merge keys (<<) are not supported",
            "write the keys out",
        ),
        ("a: &x [*x]\n", "1: is nested more than 32 levels deep", None),
        (
            "a: b\nc: \x07\n",
            "2: holds the control character U+0007",
            "this is not a text file, or damaged",
        ),
        (
            "a: \ufffe\n",
            "1: holds the control character U+FFFE",
            "this is not a text file, or damaged",
        ),
        (
            b"a: b\nc: caf\xe9\n",
            "2: is not UTF-8 (byte 0xe9)",
            "save the file as UTF-8 in your editor",
        ),
        (
            "",
            "1: is empty",
            "a manifest needs at least version, model and prompts; see jobs/quickstart.yaml",
        ),
        (
            "# nothing but a comment\n",
            "1: is empty",
            "a manifest needs at least version, model and prompts; see jobs/quickstart.yaml",
        ),
    ],
)
def test_a_mistake_is_told_at_its_line_in_words(
    file: Path, text: str | bytes, complaint: str, hint: str | None
) -> None:
    whole = f"batch.yaml:{complaint}" + ("" if hint is None else f"\nhint: {hint}")
    assert complaints(file, text) == [whole]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a:\n  b: "open\nc: 1\n', 2),
        ("a: [1, 2\nb: 1\n", 1),
        ("a: {b: 1\nc: 1\n", 1),
        ("a:\n  b: Put: it\n", 2),
        ("a:\n  b: x\n c: y\n", 3),
        ("a:\n  - x\n   - y\n  b\n", 4),
        ("a:\n - - x\n  - y\n", 3),
        ("a: *b\n", 1),
        ("a: & b\n", 1),
        ("a: @b\n", 1),
        ("a: `b`\n", 1),
        ('a: "C:\\Users"\n', 1),
        ('a: "\\q"\n', 1),
        ("a: b\n---\na: b\n", 2),
        ("a: &x b\nc: &x d\n", 2),
        ("a: b\n- c", 2),
    ],
)
def test_a_syntax_error_is_told_where_it_begins(file: Path, text: str, line: int) -> None:
    (complaint,) = complaints(file, text)
    assert complaint.startswith(f"batch.yaml:{line}: is not valid YAML: ")
    assert "\nhint: indent it like its neighbours, close every quote" in complaint


def test_every_mistake_of_a_file_is_found_at_once(file: Path) -> None:
    text = "a: NO\nb: 16:9\na: 1\nc: !x y\n"
    assert [complaint.partition(": ")[0] for complaint in complaints(file, text)] == [
        "batch.yaml:1",
        "batch.yaml:2",
        "batch.yaml:3",
        "batch.yaml:4",
    ]


def test_after_twenty_problems_reading_stops(file: Path) -> None:
    file.write_text("".join(f"k{number}: [NO, yes]\n" for number in range(100)), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        load_manifest(file)
    assert len(caught.value.problems) == PROBLEM_LIMIT
    assert caught.value.message.endswith("(stopped after 20 problems)")


def test_each_value_knows_its_line_and_an_unknown_place_the_nearest_around_it(file: Path) -> None:
    document = read(file, "a:\n  - x\n  - y\n\nb:\n  c:\n    d: 1\n")
    assert document.line(("a", 1)) == 3
    assert document.line(("b", "c")) == 6
    assert document.line(("b", "c", "d")) == 7
    assert document.line(("b", "nothing", "here")) == 5
    assert document.line(("nothing",)) == 1
    assert str(document.problem(("b", "c"), "is odd")) == f"{file}:6: is odd"


def test_a_byte_order_mark_is_no_part_of_the_first_key(file: Path) -> None:
    assert read(file, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_the_hash_is_that_of_the_file_as_it_is(file: Path) -> None:
    raw = b"\xef\xbb\xbfa: 1\r\n"
    assert read(file, raw).sha256 == hashlib.sha256(raw).hexdigest()


def test_a_file_that_is_not_there_or_cannot_be_read_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no such file") as caught:
        read_document(tmp_path / "nothing.yaml")
    assert caught.value.exit_code is ExitCode.NO_INPUT
    assert caught.value.hint == "name a manifest, such as jobs/catalog.yaml"
    with pytest.raises(InputMissingError, match="is a directory"):
        read_document(tmp_path)


def test_a_file_beyond_the_size_limit_is_refused_unread(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(SIZE_LIMIT_BYTES + 1)
    with pytest.raises(ManifestError, match="is larger than 16 MiB"):
        read_document(file)


BOMB = "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a0: &a0 [ha, ha]\n" + BOMB, id="billion laughs"),
        pytest.param(f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 5_000)}]\n", id="long text"),
        pytest.param(
            f"a: &a [{'x, ' * 5_000}]\nb: [{', '.join(['*a'] * 5_000)}]\n", id="long list"
        ),
    ],
)
def test_alias_bombs_end_with_a_problem_in_little_memory(file: Path, text: str) -> None:
    assert "with those that aliases (*) repeat" in complaints(file, text)[0]
    assert peak_bytes(file, text) < 300_000_000


def test_a_few_aliases_are_welcome(file: Path) -> None:
    assert read(file, "a: &a [1, {b: 2}]\nc: *a\nd: *a\n").data["d"] == [1, {"b": 2}]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="lists"),
        pytest.param("{a: " * 100_000, id="mappings"),
        pytest.param("- " * 100_000 + "x", id="block lists"),
        pytest.param("? " * 100_000 + "x", id="keys"),
        pytest.param("".join(" " * depth + "a:\n" for depth in range(500)), id="indentation"),
        pytest.param("[" * 40 + "]" * 40, id="well-formed"),
    ],
)
def test_deep_nesting_is_refused_before_it_can_exhaust_the_stack(file: Path, text: str) -> None:
    (complaint,) = complaints(file, text)
    assert "nest" in complaint  # some versions of libyaml meet a limit of their own first
    assert peak_bytes(file, text) < 20_000_000


def test_nesting_through_aliases_is_bounded_too(file: Path) -> None:
    links = "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 60))
    found = complaints(file, "a0: &a0 x\n" + links)
    assert f"is nested more than {DEPTH_LIMIT} levels deep" in found[0]


def test_a_file_of_too_many_values_is_refused_before_they_are_built(file: Path) -> None:
    text = "- a\n" * (VALUES_LIMIT + 1)
    assert complaints(file, text)[0].startswith("batch.yaml:200001: holds more than 200,000 values")
    assert peak_bytes(file, text) < 10_000_000


WORDS = (
    *(
        "version: 1\n",
        "prompts:\n",
        "  white: ",
        "x\n",
        "&a ",
        "*a\n",
        "!!int ",
        "16:9",
        "images:\n",
    ),
    *("  from: t.csv\n", "matrix: ", "{", "}\n", "[", "]", "{{ x }}", "~\n", "model: m\n", "- "),
    *("limits: ", "window: ", "schema: ", "exclude: ", "include: ", "'", "<<: ", "? ", "|\n"),
)


def refusal(file: Path) -> ManifestError | None:
    try:
        load_manifest(file)
    except ManifestError as error:
        return error
    return None


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet="ab01 :-_[]{}&*!<|>'\"#%@`,?.xeNO\n\t\\~+="),
        st.lists(st.sampled_from(WORDS)).map("".join),
    )
)
@example("a: !!int a:b")
@example("a: 0x_")
@example("a: !!float x")
@example("? {a: {}}\n: b")
@example("!!map 5")
@example("%YAML 9.9\n---\na")
@example("a: !e!x y")
@example("\x80")
def test_no_text_whatever_raises_anything_but_a_manifest_error(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    error = refusal(file)
    for problem in error.problems if error is not None else ():
        assert "\n" not in problem.what
        assert problem.line is not None
        assert problem.line >= 1


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary())
def test_no_bytes_whatever_raise_anything_but_a_manifest_error(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    error = refusal(file)
    assert error is not None
    assert error.exit_code is ExitCode.INVALID
