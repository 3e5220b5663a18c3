"""Tables of products: as people export them, row by row."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from batch_runner.table import Row, TableError, read_rows
from batch_runner.table.separated import CELL_LIMIT_CHARACTERS

ENCODING = "export the table again as 'CSV UTF-8'"
OBJECT = 'one {"column": value} a line'
QUOTE = "look for a quote that is not closed"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(folder: Path, name: str, content: str | bytes) -> list[tuple[int, dict[str, Any]]]:
    return [(row.number, dict(row.cells)) for row in read_rows(write(folder, name, content))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("t.csv", "sku,title\nA,mug\nB,lamp\n", id="comma"),
        pytest.param("t.CSV", "sku;title\nA;mug\nB;lamp\n", id="semicolon, suffix in capitals"),
        pytest.param("t.csv", "sku|title\nA|mug\nB|lamp\n", id="bar"),
        pytest.param("t.csv", "sku\ttitle\nA\tmug\nB\tlamp\n", id="tab in a .csv"),
        pytest.param("t.tsv", "sku\ttitle\nA\tmug\nB\tlamp\n", id="tab"),
        pytest.param("t.csv", "sku,title\r\nA,mug\r\nB,lamp", id="lines of Windows, no last one"),
        pytest.param("t.csv", b"\xef\xbb\xbfsku,title\nA,mug\nB,lamp\n", id="byte order mark"),
        pytest.param("t.csv", " sku , title \n A , mug \nB,lamp\n", id="blanks around cells"),
        pytest.param("t.csv", '"sku",title\n"A","mug"\nB,lamp\n', id="quotes"),
        pytest.param("t.csv", "sku,title,,\nA,mug,,x\nB,lamp,,\n", id="columns without names"),
        pytest.param(
            "t.jsonl", '{"sku":"A","title":" mug "}\n{"sku":"B","title":"lamp"}\n', id="jsonl"
        ),
    ],
)
def test_every_usual_way_to_write_a_table_gives_the_same_cells(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    found = rows(tmp_path, name, content)
    assert [cells for _, cells in found] == [
        {"sku": "A", "title": "mug"},
        {"sku": "B", "title": "lamp"},
    ]


def test_rows_are_counted_as_a_spreadsheet_counts_them(tmp_path: Path) -> None:
    content = 'sku,text\nA,"two\nlines"\n\n,\nB,x\n'
    assert rows(tmp_path, "t.csv", content) == [
        (2, {"sku": "A", "text": "two\nlines"}),
        (3, {}),
        (4, {}),
        (5, {"sku": "B", "text": "x"}),
    ]


def test_lines_of_jsonl_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    assert rows(tmp_path, "t.jsonl", '\n{"a": 1}\n\n{"a": null, "b": [1, "x"]}') == [
        (1, {}),
        (2, {"a": 1}),
        (3, {}),
        (4, {"a": "", "b": [1, "x"]}),
    ]


def test_a_separator_inside_a_quoted_column_name_does_not_mislead(tmp_path: Path) -> None:
    content = '"price; net; in EUR",sku\n9,A\n'
    assert rows(tmp_path, "t.csv", content) == [(2, {"price; net; in EUR": "9", "sku": "A"})]


def test_a_short_row_is_filled_up_with_empty_cells(tmp_path: Path) -> None:
    assert rows(tmp_path, "t.csv", "a,b,c\n1\n") == [(2, {"a": "1", "b": "", "c": ""})]


@pytest.mark.parametrize(
    ("name", "content", "row", "message", "hint"),
    [
        (
            "t.csv",
            "a,b\n1,2\n1,2,3\n",
            3,
            "has 3 cells, but the header has 2",
            'quote a cell that holds the separator: "a, b"',
        ),
        ("t.csv", 'a,b\n1,"2\n3,4\n', 2, "cannot be read: unexpected end of data", QUOTE),
        ("t.csv", 'a,b\n1,2\n"1"x,2\n', 3, "cannot be read: ',' expected after '\"'", QUOTE),
        ("t.csv", '"a,b\n', 1, "cannot be read: unexpected end of data", QUOTE),
        (
            "t.csv",
            'a,b\n1,"' + "x" * (CELL_LIMIT_CHARACTERS + 1),
            2,
            "cannot be read: field larger than field limit (1048576)",
            QUOTE,
        ),
        ("t.csv", "a,b, a\n1,2,3\n", 1, "two columns are called 'a'", "rename one of them"),
        ("t.csv", "", None, "the table is empty", "its first row must name the columns"),
        ("t.csv", ",,\n", None, "the table is empty", "its first row must name the columns"),
        (
            "t.csv",
            b"a\nx\ncaf\xe9\n",
            None,
            "is not UTF-8 (byte 0xe9)",
            f"if 'café' is right, write encoding: cp1252 under images; else {ENCODING}",
        ),
        (
            "t.csv",
            "a\nx\n".encode("utf-16-le"),
            None,
            "'t.csv' is not UTF-8: it holds zero bytes",
            "if it is UTF-16, write encoding: utf-16-le under images",
        ),
        (
            "t.jsonl",
            '{"a": 1}\n[1]\n',
            2,
            "is not a JSON object: Expected `object`, got `array`",
            OBJECT,
        ),
        ("t.jsonl", '{"a": \n', 1, "is not a JSON object: Input data was truncated", OBJECT),
        (
            "t.jsonl",
            '{"a": "\\ud800"}\n',
            1,
            "is not a JSON object: Input data was truncated",
            OBJECT,
        ),
        (
            "t.pdf",
            "",
            None,
            "'t.pdf' is not a table this program reads",
            "save it as one of .csv, .tsv, .txt, .jsonl, .xlsx, .parquet",
        ),
    ],
)
def test_what_cannot_be_read_names_the_row_and_the_way_out(
    tmp_path: Path, name: str, content: str | bytes, row: int | None, message: str, hint: str
) -> None:
    with pytest.raises(TableError) as caught:
        rows(tmp_path, name, content)
    assert (caught.value.row, caught.value.message, caught.value.hint) == (row, message, hint)


def test_json_nested_without_end_is_an_error_of_its_row(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is not a JSON object") as caught:
        rows(tmp_path, "t.jsonl", '{"a":' + "[" * 100_000)
    assert caught.value.row == 1


def test_a_table_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        list(read_rows(tmp_path / "none.csv"))
    assert (
        caught.value.message
        == f"cannot read table '{tmp_path}/none.csv': No such file or directory"
    )
    assert caught.value.hint == "its path is relative to the manifest"
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match="Is a directory") as caught:
        list(read_rows(tmp_path / "folder.csv"))
    assert caught.value.hint is None


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_rows_come_as_a_stream_in_constant_memory(tmp_path: Path, name: str) -> None:
    line = '{"sku": "x", "title": "y"}' if name == "t.jsonl" else "x,y"
    path = write(tmp_path, name, "sku,title\n" * (name == "t.csv") + f"{line}\n" * 50_000)
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 50_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_a_broken_row_far_below_does_not_keep_the_first_ones_back(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a\n" + "x\n" * 10_000 + "1,2\n")
    assert list(itertools.islice(read_rows(path), 2)) == [
        Row(2, {"a": "x"}, 2),
        Row(3, {"a": "x"}, 3),
    ]
