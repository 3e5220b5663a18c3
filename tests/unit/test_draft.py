"""A first manifest, drafted from a table: what is chosen, and that it runs as it is."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_runner.commands.cli import main
from batch_runner.jobs.expand import expand
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import shipped_facts
from batch_runner.models.model import Model
from batch_runner.records import Job
from batch_runner.text.shown import trimmed

CDN = "https://cdn.example.com/"


def write(folder: Path, rows: list[dict[str, Any]], name: str = "t.csv") -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def drafted(table: Path) -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of the manifest that is drafted, and its keys under images."""
    manifest = table.parent / "drafted.yaml"
    assert main(["init", "--from", str(table), str(manifest)]) == 0
    images = manifest.read_text(encoding="utf-8").partition("\nimages:\n")[2].partition("\n\n")[0]
    found = dict(re.findall(r"^  (\w+): (.*)$", images, re.MULTILINE))
    loaded = load_manifest(manifest)
    model = Model(loaded.model or "", schema=shipped_facts(loaded.model or "").get("input_schema"))
    jobs = list(expand(loaded, {model.model_id: model}, local_pictures=True))
    return jobs, {key: value.partition(" # ")[0] for key, value in found.items()}


@pytest.mark.parametrize(
    ("columns", "id_", "group"),
    [
        (["titel", "Artikelnummer"], "Artikelnummer", False),
        (["Title", "SKU", "URL handle"], 'row["URL handle"]', True),
        (["Name", "Category ID"], None, False),
    ],
)
def test_products_are_named_and_grouped_by_the_names_of_the_columns(
    tmp_path: Path, columns: list[str], id_: str | None, group: bool
) -> None:
    rows = [{**dict.fromkeys(columns, f"v{n}"), "Bild": f"{CDN}{n}.jpg"} for n in range(2)]
    jobs, found = drafted(write(tmp_path, rows))
    assert len(jobs) == 2
    assert "Put the v0 on" in jobs[0].input["prompt"]
    assert found["id"] == (f"'{{{{ {id_} }}}}'" if id_ else "'row-{{ row }}'")
    assert ("group" in found) is group


@pytest.mark.parametrize(
    ("cells", "urls", "split"),
    [
        ({"bild": f"{CDN}1.jpg", "page": "https://shop.example.com/a"}, "['{{ bild }}']", None),
        ({"a": f"{CDN}1.jpg, {CDN}w_80,h_80.jpg", "b": "x"}, "['{{ a }}']", "','"),
        ({"photo": f"{CDN}1 {CDN}2"}, "['{{ photo }}']", "' '"),
    ],
)
def test_a_column_of_addresses_has_the_pictures(
    tmp_path: Path, cells: dict[str, str], urls: str, split: str | None
) -> None:
    jobs, found = drafted(write(tmp_path, [{"sku": "a", **cells}]))
    assert (found["urls"], found.get("split")) == (urls, split)
    assert [len(job.input["image_urls"]) for job in jobs] == [1]


def test_pictures_may_be_objects_in_lines_of_json(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sku": "a", "images": [{"id": 7, "src": f"{CDN}1.jpg", "alt": "x"}]},
        {"sku": "b", "images": [{"alt": "x", "src": f"{CDN}2.jpg"}, {"url": f"{CDN}3.jpg"}]},
        {"sku": "c", "images": {"url": f"{CDN}4.jpg", "thumb": f"{CDN}5.jpg"}},
    ]
    jobs, found = drafted(write(tmp_path, rows, "t.jsonl"))
    assert found["urls"] == "['{{ images }}']"
    assert [job.input["image_urls"] for job in jobs] == [[f"{CDN}{n}.jpg"] for n in (1, 2, 4)]


def test_products_without_pictures_are_left_out_and_missing_titles_stood_in_for(
    tmp_path: Path,
) -> None:
    rows = [
        {"sku": "a", "title": "", "image": f"{CDN}1.jpg", "photo 2": ""},
        {"sku": "b", "title": "Mug", "image": "", "photo 2": ""},
        {"sku": "c", "title": "Lamp", "image": "", "photo 2": f"{CDN}2.jpg"},
    ]
    jobs, found = drafted(write(tmp_path, rows))
    assert found["where"] == """'{{ row["image"] or row["photo 2"] }}'"""
    prompts = [job.input["prompt"].split(" on ")[0] for job in jobs]
    assert prompts == ["Put the product", "Put the Lamp"]


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@example(names=["\xad0", "0 \xad1", "00"])
@example(names=["sku", "title", "Handle"])
@given(names=st.lists(NAME.filter(trimmed), min_size=3, max_size=3, unique_by=trimmed))
def test_whatever_the_columns_are_called_the_manifest_runs(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    id_, title, picture = names
    title += " x"  # so it names no ids: equal ids are one product
    rows = [
        {id_: f"p{n}", title: "a 'quoted' \"title\" {{ x }}", picture: f"{CDN}{n}.jpg"}
        for n in range(2)
    ]
    jobs, _ = drafted(write(tmp_path_factory.mktemp("t"), rows))
    assert len(jobs) == 2


def test_a_table_without_pictures_says_which_columns_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, [{"sku": "a", "page": "https://shop.example.com/a"}])
    assert main(["init", "--from", str(table), str(tmp_path / "x.yaml")]) == 65
    assert "no column has pictures; the columns are: sku, page\n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [table]
