"""Tables that earlier releases read in another way: what they bought is not bought again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_runner.jobs.expand import expand
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.model import Model

CDN = "https://cdn.example.com"
GIF = (
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0"
    b"\x02\x01D\0;"
)
UNSEEN = "\u200b"
MADE = datetime(2026, 3, 1)  # noqa: DTZ001 - what spreadsheets hold has no time zone


def _sheet(folder: Path, lines: list[list[Any]], formats: list[str], hidden: int | None) -> None:
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)  # type: ignore[union-attr]
    for row in book.active.iter_rows(min_row=2):  # type: ignore[union-attr]
        for cell, code in zip(row, formats, strict=True):
            cell.number_format = code or "General"
    if hidden is not None:
        book.active.row_dimensions[hidden].hidden = True  # type: ignore[union-attr]
    book.save(folder / "t.xlsx")


def _formatted(folder: Path) -> None:
    lines: list[list[Any]] = [
        ["sku", "title", "price", "made", "url"],
        [7, "mug", 19.9, MADE, f"{CDN}/1.png"],
    ]
    _sheet(folder, lines, ['"SKU-"0', "", "0.00", "d mmm yyyy", ""], None)


def _formatted_address(folder: Path) -> None:
    lines: list[list[Any]] = [["sku", "title", "price", "made", "url"], ["A", "mug", 5, 7, 12]]
    _sheet(folder, lines, ["", "", "", "", '"0000"0'], None)


def _hidden(folder: Path) -> None:
    lines: list[list[Any]] = [["sku", "title", "price", "made", "url"]]
    lines += [[sku, "mug", 1, 2, f"{CDN}/{n}.png"] for n, sku in enumerate("AABBC")]
    _sheet(folder, lines, [""] * 5, 4)


def _text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content, encoding="utf-8")

    return write


def _parquet(folder: Path) -> None:
    urls = [f"{CDN}/1.png?v=1{UNSEEN}", f"{CDN}/2.png"]
    table = {"sku": ["A"], "title": [f"mug{UNSEEN}"], "url": [urls]}
    pq.write_table(pa.table(table), folder / "t.parquet")


def _photos(folder: Path) -> None:
    (folder / "photos" / "A").mkdir(parents=True)
    for name in ("1.gif", "2.picture"):
        (folder / "photos" / "A" / name).write_bytes(GIF)


TITLE = "prompts: {white: '{{ title }} on white.'}\n"
PRICE = "prompts: {white: '{{ title }}, {{ price }}, {{ made }}, {{ image }}.'}\n"
IMAGES = 'images: {from: NAME, id: "{{ sku }}", urls: ["{{ url }}"]}\n'
SPLIT = IMAGES.replace("]}", "], split: ','}")
GROUPED = IMAGES.replace("id:", 'group: "{{ sku }}", id:')

# With the fingerprint that earlier releases gave a job of the table.
CASES: list[Any] = [
    pytest.param(
        _formatted,
        PRICE + IMAGES.replace("NAME", "t.xlsx"),
        "3ff703db6e466911185d728f3c1c0926e6a50ebaf18f245fba43c23d0f7f1eb6",
        id="formats",
    ),
    pytest.param(
        _formatted_address,
        TITLE + IMAGES.replace("NAME", "t.xlsx").replace("{{ url }}", CDN + "/{{ url }}.png"),
        "75aa172983af23dd23b9344673cc8df560214dc5ba1d373539efd676445b324c",
        id="a format in an address",
    ),
    pytest.param(
        _hidden,
        TITLE + GROUPED.replace("NAME", "t.xlsx"),
        "c9ee5d0f15a225d6b671a402a6d107bcadf74ef4893664559f2d3575ee36ac31",
        id="a hidden row of a product",
    ),
    pytest.param(
        _text("t.csv", f'sku,title,url\nA,="00123",{CDN}/1.png\n'),
        TITLE + IMAGES.replace("NAME", "t.csv"),
        "6cbe2a8430f1de5d3e2be41039b25ca7c9f43c33c129967844bca7b42aebc2fe",
        id="written as text",
    ),
    pytest.param(
        _text("t.csv", f"sku,title,url\nA,mug{UNSEEN},{CDN}/1.png?v=1{UNSEEN}\n"),
        TITLE + IMAGES.replace("NAME", "t.csv"),
        "1a0c628f36df1563e7eee38c8602868500942a8d8501fbc5805be467a132a474",
        id="unseen at the ends of cells",
    ),
    pytest.param(
        _text("t.csv", f'sku,title,url\nA,mug,"{CDN}/1.png?v=1{UNSEEN}, {CDN}/2.png"\n'),
        TITLE + SPLIT.replace("NAME", "t.csv"),
        "0dd01047bf1a6e5d79b670a01aa87de6d120a293d9b3078b3c718a78a75aaede",
        id="unseen at the end of an address among several",
    ),
    pytest.param(
        _text("t.jsonl", f'{{"sku": "A", "title": "\\u200bmug", "url": "{CDN}/1.png"}}\n'),
        TITLE + IMAGES.replace("NAME", "t.jsonl"),
        "2997dfaf42edaaf8211016c0e76f429fd327171140039b424cbcb2238aacb7ed",
        id="escaped in JSON",
    ),
    pytest.param(
        _parquet,
        TITLE + IMAGES.replace("NAME", "t.parquet"),
        "e56e37c1db8cd9a7f7d5b21618207623437df75f78d33628af587d54e1aac490",
        id="parquet",
    ),
    pytest.param(
        _photos,
        "prompts: {white: On white.}\n"
        'images: {from: "photos/**", group: "{{ folder }}", id: "{{ folder }}"}\n',
        "ad5a9e2f603ce611ba3f393cdc202f3839de42b7904613840fc1f0d88701381c",
        id="a picture of another suffix",
    ),
]


@pytest.mark.parametrize(("write_table", "text", "former"), CASES)
def test_a_job_is_known_by_what_earlier_releases_read(
    tmp_path: Path,
    write_manifest: Callable[..., Path],
    model: Model,
    write_table: Callable[[Path], None],
    text: str,
    former: str,
) -> None:
    write_table(tmp_path)
    manifest = load_manifest(write_manifest(text))
    jobs = list(expand(manifest, {model.model_id: model}, local_pictures=True))
    assert sum(former in job.aliases for job in jobs) == 1
    assert all(job.fingerprint not in job.aliases for job in jobs)


def test_a_table_that_is_read_as_before_has_no_aliases(
    tmp_path: Path, write_manifest: Callable[..., Path], model: Model
) -> None:
    lines: list[list[Any]] = [
        ["sku", "title", "price", "made", "url"],
        [7, "Émail", 1.5, MADE, f"{CDN}/1.png"],
    ]
    _sheet(tmp_path, lines, ["000", "@", "", "yyyy-mm-dd", ""], None)
    manifest = load_manifest(write_manifest(PRICE + IMAGES.replace("NAME", "t.xlsx")))
    (job,) = expand(manifest, {model.model_id: model}, local_pictures=True)
    assert job.aliases == ()


def test_a_hidden_row_without_a_group_above_is_no_problem(
    tmp_path: Path, write_manifest: Callable[..., Path], model: Model
) -> None:
    lines: list[list[Any]] = [["sku", "title", "price", "made", "url"]]
    lines += [["", "mug", 1, 2, f"{CDN}/0.png"], ["A", "mug", 1, 2, f"{CDN}/1.png"]]
    _sheet(tmp_path, lines, [""] * 5, 2)
    manifest = load_manifest(write_manifest(TITLE + GROUPED.replace("NAME", "t.xlsx")))
    (job,) = expand(manifest, {model.model_id: model}, local_pictures=True)
    assert (job.key, job.aliases) == ("A/white", ())
