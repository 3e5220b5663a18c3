"""Tables of products: as people export them, row by row."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import random
import sys
import tracemalloc
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.table import Row, TableError, TableForm, is_encoding, read_rows
from batch_runner.table.separated import CELL_LIMIT_CHARACTERS
from batch_runner.text.shown import trimmed

ENCODING = (
    "export the table again as 'CSV UTF-8', or write encoding: cp1252 under images if it comes"
    " from an older program for Windows"
)
SUFFIX = "give it the suffix of what it is, or export it again as 'CSV UTF-8'"
FORMATS = "save it as one of .csv, .tsv, .txt, .jsonl, .xlsx"
ENCODINGS = ("cp1252", "latin-1", "utf-16", "shift_jis", "utf-16-le", "utf-7")
OBJECT = 'one {"column": value} a line'
UNCLOSED = (
    "has a quote that is not closed where its cell ends (separated by ','), or a cell of more than"
    " 1 MB"
)
CELLS = (
    'quote a cell that holds the separator: "a, b"; or say delimiter: or header: (the row that'
    " names the columns) under images"
)
QUOTE = (
    "look for a quote that is not closed; a quote inside a quoted cell is written twice, not as"
    ' \\"; a cell cannot hold a picture itself, only its address'
)

MADE = datetime(2026, 3, 1, 8, 30)  # noqa: DTZ001 - what spreadsheets hold has no time zone


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(
    folder: Path, name: str, content: str | bytes, **form: Any
) -> list[tuple[int, dict[str, Any]]]:
    path = write(folder, name, content)
    return [(row.number, dict(row.cells)) for row in read_rows(path, TableForm(**form))]


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
        pytest.param(
            "t.csv", "sku,title\nA,mug\nB,lamp\n".encode("utf-16"), id="UTF-16 with its mark"
        ),
        pytest.param(
            "t.csv",
            b"\xfe\xff" + "sku,title\nA,mug\nB,lamp\n".encode("utf-16-be"),
            id="UTF-16, the other way round",
        ),
        pytest.param("t.txt", "sku\ttitle\nA\tmug\nB\tlamp\n".encode("utf-16"), id="Unicode Text"),
        pytest.param("t.csv", "sku,title\nA,mug,,\nB,lamp\n", id="empty cells beyond the header"),
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
            "has 3 cells, but the header has 2 (separated by ',')",
            CELLS,
        ),
        (
            "t.csv",
            "Autumn\n\nsku,title\n1,mug\n",
            3,
            "has 2 cells, but the header has 1 (separated by ',')",
            CELLS,
        ),
        ("t.csv", 'a,b\n1,"2\n3,4\n', 2, UNCLOSED, QUOTE),
        ("t.csv", 'a,b\n1,2\n"1"x,2\n', 3, UNCLOSED, QUOTE),
        ("t.csv", '"a,b\n', 1, UNCLOSED, QUOTE),
        (
            "t.csv",
            'a,b\n1,"' + "x" * (CELL_LIMIT_CHARACTERS + 1),
            2,
            UNCLOSED,
            QUOTE,
        ),
        (
            "t.csv",
            "a,b, a\n1,2,3\n",
            1,
            "two columns are called 'a'",
            "rename one of them; if another row names the columns, say header:",
        ),
        (
            "t.csv",
            "",
            None,
            "the table is empty",
            "row 1 must name the columns; header: says another row",
        ),
        (
            "t.csv",
            ",,\n",
            None,
            "the table is empty",
            "row 1 must name the columns; header: says another row",
        ),
        (
            "t.csv",
            b"a\nx\ncaf\xe9\n",
            None,
            "is not utf-8",
            ENCODING,
        ),
        (
            "t.csv",
            "sep=;\na;b\n",
            None,
            "the first line, sep=;, names the separator and no columns",
            "delete that line",
        ),
        (
            "t.csv",
            "a,b;c\n1,2;3\n",
            None,
            "',' or ';' may separate the cells",
            "write which it is as delimiter: under images",
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
            "is not a JSON object: ",
            OBJECT,
        ),
        ("t.jsonl", '{"a": \n', 1, "is not a JSON object: ", OBJECT),
        (
            "t.jsonl",
            '{"a": "\\ud800"}\n',
            1,
            "is not a JSON object: ",
            OBJECT,
        ),
        (
            "t.pdf",
            "",
            None,
            "'t.pdf' is not a table this program reads",
            FORMATS,
        ),
        (
            "t.csv",
            gzip.compress(b"a\n", mtime=0),
            None,
            "'t.csv' is compressed with gzip, not a table of text",
            SUFFIX,
        ),
        *(
            (
                "t.csv",
                page,
                None,
                "'t.csv' is a page of a website, not a table of text",
                SUFFIX,
            )
            for page in ("\ufeff\n <!-- x -->\n<!DOCTYPE html>\n<p>", "<html lang=en>")
        ),
        (
            "t.csv",
            b"PK\x03\x04x",
            None,
            "'t.csv' is a spreadsheet or an archive, not a table of text",
            SUFFIX,
        ),
        (
            "t.csv.gz",
            "",
            None,
            "'t.csv.gz' is not a table this program reads",
            "unpack it with gunzip first",
        ),
    ],
)
def test_what_cannot_be_read_names_the_row_and_the_way_out(
    tmp_path: Path, name: str, content: str | bytes, row: int | None, message: str, hint: str
) -> None:
    with pytest.raises(TableError) as caught:
        rows(tmp_path, name, content)
    assert (caught.value.row, caught.value.hint) == (row, hint)
    # What follows a colon at the end is a library's own wording.
    said = caught.value.message
    assert said.startswith(message) if message.endswith(": ") else said == message


def test_json_nested_without_end_is_an_error_of_its_row(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is not a JSON object") as caught:
        rows(tmp_path, "t.jsonl", '{"a":' + "[" * 30_000)
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


# Encodings


def test_a_declared_encoding_is_used_and_umlauts_arrive(tmp_path: Path) -> None:
    content = "titel;preis\nKännchen „Blau“;9 €\n".encode("cp1252")
    found = [(2, {"titel": "Kännchen „Blau“", "preis": "9 €"})]
    assert rows(tmp_path, "t.csv", content, encoding="cp1252") == found


def test_a_declared_encoding_may_be_that_of_the_files_own_mark(tmp_path: Path) -> None:
    for encoding, text in (("utf-8", "utf-8-sig"), ("UTF-16", "utf-16"), ("utf-16-le", "utf-16")):
        assert rows(tmp_path, "t.csv", "a\né\n".encode(text), encoding=encoding) == [
            (2, {"a": "é"})
        ]


@pytest.mark.parametrize(
    ("content", "declared", "message", "hint"),
    [
        ("a\né\n".encode(), "cp1252", "'t.csv' is utf-8, not cp1252", "remove encoding:"),
        ("a\né\n".encode(), "latin-1", "'t.csv' is utf-8, not latin-1", "remove encoding:"),
        (
            "a\nx\n".encode("utf-8-sig"),
            "cp1252",
            "'t.csv' is utf-8, not cp1252",
            "remove encoding:",
        ),
        (
            "a\nx\n".encode("utf-16"),
            "cp1252",
            "'t.csv' is utf-16, not cp1252",
            "remove encoding:",
        ),
    ],
)
def test_a_declared_encoding_that_would_spoil_the_text_is_refused(
    tmp_path: Path, content: bytes, declared: str, message: str, hint: str
) -> None:
    with pytest.raises(TableError) as caught:
        rows(tmp_path, "t.csv", content, encoding=declared)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_first_umlaut_far_down_still_tells_that_the_declared_encoding_is_wrong(
    tmp_path: Path,
) -> None:
    content = b"a\n" + b"x\n" * 1_000_000 + "é\n".encode()
    with pytest.raises(TableError, match="is utf-8, not cp1252"):
        rows(tmp_path, "t.csv", content, encoding="cp1252")


def test_text_that_is_not_what_was_declared_names_the_line(tmp_path: Path) -> None:
    content = b"a\n" + b"x\n" * 30_000 + "Ж\n".encode("cp1251") + b"\x98\n"
    with pytest.raises(TableError, match="is not cp1251") as caught:
        rows(tmp_path, "t.csv", content, encoding="cp1251")
    assert (caught.value.row, caught.value.line) == (None, 30_003)


def test_only_encodings_of_text_count_as_such() -> None:
    assert all(map(is_encoding, ("cp1252", "Shift_JIS", "UTF-8", "latin-1")))
    assert not any(map(is_encoding, ("cp9999", "hex", "")))


# Separated text


def test_a_separator_can_be_said_where_the_header_misleads(tmp_path: Path) -> None:
    content = "size, in cm;a, b\n1;2\n"
    assert rows(tmp_path, "t.csv", content, delimiter=";") == [
        (2, {"size, in cm": "1", "a, b": "2"})
    ]


def test_a_column_name_may_go_over_several_lines(tmp_path: Path) -> None:
    content = '"price\n(EUR, net)";sku\n9;A\n'
    assert rows(tmp_path, "t.csv", content) == [(2, {"price\n(EUR, net)": "9", "sku": "A"})]


def test_rows_with_lines_inside_know_the_line_they_begin_on(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", 'a,b\n1,"x\ny\nz"\n2,"x\ny"\n3,4\n5,6,7\n')
    found: list[tuple[int, int]] = []
    with pytest.raises(TableError) as caught:
        found.extend((row.number, row.line) for row in read_rows(path))
    assert (caught.value.row, caught.value.line) == (5, 8)


@given(
    table=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8),
            min_size=3,
            max_size=3,
        ),
        max_size=6,
    ),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
)
def test_what_a_csv_writer_writes_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], delimiter: str, encoding: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["a", "b", "c"], *table])
    content = text.getvalue().encode(encoding)
    stripped = [[trimmed(cell) for cell in row] for row in table]
    assert rows(tmp_path_factory.mktemp("t"), "t.csv", content) == [
        (number, dict(zip("abc", row, strict=True)) if any(row) else {})
        for number, row in enumerate(stripped, start=2)
    ]


def test_what_stands_above_the_header_is_left_out_and_counts(tmp_path: Path) -> None:
    content = 'Price list 2026;;\n"as of\n1 March";;\nsku;title\nA;mug\n'
    assert rows(tmp_path, "t.csv", content, header=3) == [(4, {"sku": "A", "title": "mug"})]
    (row,) = read_rows(tmp_path / "t.csv", TableForm(header=3))
    assert row.line == 5
    with pytest.raises(TableError, match="row 9 is empty") as caught:
        rows(tmp_path, "t.csv", content, header=9, delimiter=";")
    assert caught.value.hint == "row 9 must name the columns; header: says another row"


# Spreadsheets


def sheet(folder: Path, *lines: list[Any], title: str = "Products") -> Path:
    book = openpyxl.Workbook()
    book.active.title = title  # type: ignore[union-attr]
    for line in lines:
        book.active.append(line)  # type: ignore[union-attr]
    book.save(folder / "t.xlsx")
    return folder / "t.xlsx"


def test_a_spreadsheet_gives_what_its_export_to_csv_would(tmp_path: Path) -> None:
    path = sheet(
        tmp_path,
        ["sku", "price", "active", "since", "made", None, "note"],
        [1001, 14.5, True, date(2026, 3, 1), MADE, "unnamed", "#N/A"],
        [],
        ["  A-2 ", 79.0, False, None, None, None, "=1+1"],
    )
    assert [(row.number, dict(row.cells)) for row in read_rows(path)] == [
        (
            2,
            {
                "sku": "1001",
                "price": "14.5",
                "active": "TRUE",
                "since": "2026-03-01",
                "made": "2026-03-01 08:30:00",
                "note": "",
            },
        ),
        (3, {}),
        # A formula that no spreadsheet program has calculated yet has no result.
        (
            4,
            {"sku": "A-2", "price": "79", "active": "FALSE", "since": "", "made": "", "note": ""},
        ),
    ]


def test_a_spreadsheets_header_may_stand_further_down(tmp_path: Path) -> None:
    path = sheet(tmp_path, ["Price list"], [], ["sku"], ["A"])
    assert list(read_rows(path, TableForm(header=3))) == [Row(4, {"sku": "A"}, 4)]
    with pytest.raises(TableError, match="row 7 is empty"):
        list(read_rows(path, TableForm(header=7)))


def test_leading_zeros_that_a_format_shows_are_part_of_an_id(tmp_path: Path) -> None:
    path = sheet(tmp_path, ["sku"], [123])
    book = openpyxl.load_workbook(path)
    book.active["A2"].number_format = "00000"  # type: ignore[index]
    book.save(path)
    assert [dict(row.cells) for row in read_rows(path)] == [{"sku": "00123"}]


def test_a_sheet_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = sheet(tmp_path, ["a"], ["first"])
    book = openpyxl.load_workbook(path)
    for line in (["a"], ["second"]):
        if "Prices" not in book.sheetnames:
            book.create_sheet("Prices")
        book["Prices"].append(line)
    book.save(path)
    assert [dict(row.cells) for row in read_rows(path)] == [{"a": "first"}]
    assert [dict(row.cells) for row in read_rows(path, TableForm(sheet="Prices"))] == [
        {"a": "second"}
    ]
    with pytest.raises(TableError, match=r"'t\.xlsx' has no sheet 'Price'") as caught:
        list(read_rows(path, TableForm(sheet="Price")))
    assert caught.value.hint == "did you mean 'Prices'?"


@pytest.mark.parametrize("lines", [(), ([None],)], ids=["nothing", "a row of nothing"])
def test_an_empty_sheet_is_told(tmp_path: Path, lines: tuple[list[Any], ...]) -> None:
    with pytest.raises(TableError, match="the table is empty"):
        list(read_rows(sheet(tmp_path, *lines)))


def test_a_file_that_only_says_it_is_a_spreadsheet_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"'t\.xlsx' cannot be read: File is not a zip file"
    ) as told:
        rows(tmp_path, "t.xlsx", "sku,title\n")
    assert told.value.hint == (
        "open it in the spreadsheet program and save it again as .xlsx, without a password"
    )


def test_without_its_extra_a_format_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(TableError, match=r"reading 't\.xlsx' needs an extra") as caught:
        rows(tmp_path, "t.xlsx", "")
    assert "pip install 'batch-runner[xlsx]'" in str(caught.value.hint)


def test_a_spreadsheet_with_a_password_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read") as caught:
        rows(tmp_path, "t.xlsx", b"\xd0\xcf\x11\xe0" + bytes(100))
    assert str(caught.value.hint).endswith("without a password")


# Damage


def damaged(content: bytes, seed: int) -> bytes:
    """Change some bytes, and sometimes cut the end off."""
    dice = random.Random(seed)
    changed = bytearray(content)
    for _ in range(dice.choice((1, 3, 20))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(1, len(changed))] if dice.random() < 0.3 else changed)


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.xlsx"])
def test_whatever_is_wrong_with_a_file_it_is_a_problem_of_the_table(
    tmp_path: Path, name: str
) -> None:
    text = 'a;b\n1;"é\nx"\n'.encode() * 20
    whole = {
        "t.csv": text,
        "t.jsonl": b'{"a": 1, "b": "x"}\n' * 20,
        "t.xlsx": sheet(tmp_path, ["a", "b"], *([n, f"t{n}"] for n in range(20))).read_bytes(),
    }[name]
    members: dict[str, bytes] = {}
    if name == "t.xlsx":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = {part: archive.read(part) for part in archive.namelist()}
    parts = sorted(members)
    for seed in range(120):
        content = damaged(whole, seed)
        if members and seed % 2:
            # A whole archive with one damaged part: then the parts themselves are read.
            part = parts[seed // 2 % len(parts)]
            content = packed({**members, part: damaged(members[part], seed)})
        form = {"encoding": ENCODINGS[seed % len(ENCODINGS)]} if seed % 3 == 0 else {}
        with contextlib.suppress(TableError):
            rows(tmp_path, name, content, **form)


def _with_hidden_rows(folder: Path) -> Path:
    path = sheet(folder, ["sku"], ["A"], ["B"], ["C"], ["D"])
    book = openpyxl.load_workbook(path)
    for number in (3, 5):
        book.active.row_dimensions[number].hidden = True  # type: ignore[union-attr]
    book.save(path)
    return path


def test_rows_that_are_hidden_are_left_out_and_counted(tmp_path: Path) -> None:
    notes: list[str] = []
    found = list(read_rows(_with_hidden_rows(tmp_path), notes=notes))
    assert [row.cells["sku"] for row in found if row.cells] == ["A", "C"]
    assert notes == ["t.xlsx: 2 hidden rows left out, first row 3"]


def test_the_first_visible_sheet_is_read_and_named(tmp_path: Path) -> None:
    path = sheet(tmp_path, ["read me"], ["first"], title="Notes")
    book = openpyxl.load_workbook(path)
    book.create_sheet("Very hidden").sheet_state = "veryHidden"
    for line in (["sku"], ["A"]):
        if "Items" not in book.sheetnames:
            book.create_sheet("Items")
        book["Items"].append(line)
    book["Notes"].sheet_state = "hidden"
    book.active = 2
    book.save(path)
    notes: list[str] = []
    assert [dict(row.cells) for row in read_rows(path, notes=notes)] == [{"sku": "A"}]
    assert len(notes) == 1
    assert "reading the sheet 'Items', the first that is visible" in notes[0]
    assert list(read_rows(path, TableForm(sheet="Notes"))) == [Row(2, {"read me": "first"}, 2)]


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("Type(a|b|c|d),sku\nx,1\ny,2\n", {"Type(a|b|c|d)": "x", "sku": "1"}),
        ("sku, or code, or none;title\n1;mug\n2;lamp, red\n", {"sku, or code, or none": "1"}),
        ("price; net; EUR\tsku\n1;2\tA\n3\tB\n", {"price; net; EUR": "1;2", "sku": "A"}),
        ('a;b|c|d\n"1\n|2|3";x\n', {"a": "1\n|2|3", "b|c|d": "x"}),
        ("sku;price, EUR\nA;1,50\nB;2,00\n", {"sku": "A", "price, EUR": "1,50"}),
    ],
)
def test_the_separator_gives_rows_as_many_cells_as_the_header(
    tmp_path: Path, content: str, cells: dict[str, str]
) -> None:
    found = next(read_rows(write(tmp_path, "t.csv", content)))
    assert found.cells == {**found.cells, **cells}


@pytest.mark.parametrize("content", ['sku,a\n="007",1\n', 'sku,a\n"=""007""",1\n'])
def test_what_is_written_as_text_for_spreadsheets_is_that_text(
    tmp_path: Path, content: str
) -> None:
    path = write(tmp_path, "t.csv", content)
    assert [row.cells for row in read_rows(path)] == [{"sku": "007", "a": "1"}]


def test_what_nobody_sees_is_no_part_of_names_and_cells(tmp_path: Path) -> None:
    content = "\ufeff\ufeffsku,ti\u200btle\u00a0\nA\u200b,\u2060mug\ufeff\n"
    expected = [(2, {"sku": "A", "ti\u200btle": "mug"})]
    assert rows(tmp_path, "t.csv", content) == expected
    line = json.dumps({"\ufeffsku": "A\u200b", "ti\u200btle": "\u2060mug"}, ensure_ascii=False)
    assert rows(tmp_path, "t.jsonl", line) == [(1, expected[0][1])]
