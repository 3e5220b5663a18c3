"""A first manifest, drafted from a table: what is guessed, and that it runs as it is."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command import PROJECT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_runner.commands.draft import SAMPLE, draft_of_form, draft_of_table
from batch_runner.errors import ManifestError
from batch_runner.jobs.expand import expand
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import shipped_schema
from batch_runner.models.model import Model
from batch_runner.records import Job
from batch_runner.table import TableForm
from batch_runner.text.shown import trimmed

FORM = TableForm()
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


def jobs_in(manifest: Path, text: str) -> list[Job]:
    manifest.write_text(text, encoding="utf-8")
    loaded = load_manifest(manifest)
    model = Model(loaded.model or "", schema=shipped_schema(loaded.model or ""))
    return list(expand(loaded, {model.model_id: model}, local_pictures=True))


def drafted(table: Path, form: TableForm = FORM) -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of the manifest that is drafted, and the guesses in it by their keys."""
    manifest = table.parent / "drafted.yaml"
    text, guesses = draft_of_table(table, manifest, form)
    found = dict(re.findall(r"^  (\w+): (.*)$", "\n".join(guesses), re.MULTILINE))
    return jobs_in(manifest, text), {key: value.partition(" # ")[0] for key, value in found.items()}


def guessed(folder: Path, rows: list[dict[str, Any]], name: str = "t.csv") -> dict[str, str]:
    """Return the guesses about a table, once its manifest has proved to run."""
    jobs, found = drafted(write(folder, rows, name))
    assert jobs
    return {key: found[key] for key in found if key not in ("from", "pictures")}


@pytest.mark.parametrize(
    ("name", "expected", "jobs"),
    [
        (
            "catalog.csv",
            {
                "id": "'{{ sku }}'",
                "urls": "['{{ front_url }}', '{{ detail_url }}']",
                "where": "\"{{ status == 'active' }}\"",
            },
            7,
        ),
        (
            "shopify.csv",
            {
                "group": "'{{ Handle }}'",
                "id": "'{{ Handle }}'",
                "urls": """['{{ row["Image Src"] }}', '{{ row["Variant Image"] }}']""",
                "where": """'{{ Status == ''active'' and (row["Image Src"]"""
                """ or row["Variant Image"]) }}'""",
                "sample": "10",
            },
            4,
        ),
        (
            "woocommerce.csv",
            {
                "id": "'{{ SKU }}'",
                "urls": "'{{ Images }}'",
                "split": "','",
                "where": "\"{{ Published == '1' and Images }}\"",
            },
            5,
        ),
    ],
)
def test_the_samples_are_understood(
    tmp_path: Path, name: str, expected: dict[str, str], jobs: int
) -> None:
    (tmp_path / "photos").symlink_to(PROJECT / "samples" / "photos")
    table = tmp_path / name
    table.write_bytes((PROJECT / "samples" / name).read_bytes())
    made, found = drafted(table)
    assert {key: found[key] for key in found if key not in ("from", "pictures")} == expected
    assert len(made) == jobs


@pytest.mark.parametrize(
    ("rows", "id_", "group"),
    [
        # By its name, before another column that differs everywhere.
        ([{"titel": f"t{n}", "Artikelnummer": n} for n in range(3)], "Artikelnummer", None),
        # Shopify's newer names: the rows below a product are its own.
        (
            [
                {"Title": t, "URL handle": h, "SKU": s}
                for t, h, s in zip(("Mug", "", "Lamp"), "mml", ("1", "", "2"), strict=True)
            ],
            'row["URL handle"]',
            'row["URL handle"]',
        ),
        # Variants with numbers of their own are one product if only the first has a title.
        (
            [{"Handle": f"h{n // 2}", "SKU": n, "Title": "" if n % 2 else "M"} for n in range(4)],
            "Handle",
            "Handle",
        ),
        ([{"Handle": f"h{n // 2}", "SKU": n, "Title": "M"} for n in range(4)], "SKU", None),
        # One category holds many products, sorted or not.
        ([{"Title": t, "Category ID": c} for t, c in zip("abcd", "1122", strict=True)], "Title", 0),
        # An id that only some products have names none.
        ([{"Title": t, "SKU": s} for t, s in zip("abc", ("x", "", "y"), strict=True)], "Title", 0),
        (
            [{"Title": t, "Handle": h} for t, h in zip("aab", "xxy", strict=True)],
            "Handle",
            "Handle",
        ),
        # Nothing names these rows.
        ([{"what": what} for what in ("a", "", "b", "")], "row", None),
        ([{"Name": "Mug", "Category ID": category} for category in "111"], "row", None),
    ],
)
def test_products_are_named_and_grouped_by_the_names_of_the_columns(
    tmp_path: Path, rows: list[dict[str, Any]], id_: str, group: str | None
) -> None:
    found = guessed(tmp_path, [{**row, "Bild": f"{CDN}{n}.jpg"} for n, row in enumerate(rows)])
    prefix = "row-" if id_ == "row" else ""
    assert found["id"] == f"'{prefix}{{{{ {id_} }}}}'"
    assert found.get("group") == (f"'{{{{ {group} }}}}'" if group else None)


@pytest.mark.parametrize(
    ("skus", "told"),
    [
        (["a", "b", "b", "c", "d"], "row 4"),
        (["a", "b", "c", "a", "d"], "row 5"),
        (["a", "b", "9,8E+12", "9,8E+12"], "rows 4, 5"),
        (["a", "b", "8.80E+12"], "row 4"),
    ],
)
def test_ids_that_a_person_has_to_settle_are_left_in_and_named_by_plan(
    tmp_path: Path, skus: list[str], told: str
) -> None:
    rows = [{"sku": sku, "title": f"t{n}", "image": f"{CDN}{n}.jpg"} for n, sku in enumerate(skus)]
    table = write(tmp_path, rows)
    _, guesses = draft_of_table(table, tmp_path / "drafted.yaml", FORM)
    (line,) = [line for line in guesses if line.startswith("  id: ")]
    assert ("check this: some rows have the same value" in line) is (len(set(skus)) < len(skus))
    with pytest.raises(ManifestError, match=told):
        drafted(table)


def test_pictures_may_be_objects_in_lines_of_json(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sku": "a", "images": [{"id": 7, "src": f"{CDN}1.jpg", "alt": "x"}]},
        {"sku": "b", "images": [{"alt": "x", "link": f"{CDN}2.jpg"}, {"url": f"{CDN}3.jpg"}]},
        {"sku": "c", "images": {"large": f"{CDN}4.jpg", "thumb": f"{CDN}5.jpg"}},
    ]
    jobs, found = drafted(write(tmp_path, rows, "t.jsonl"))
    assert found["urls"] == "'{{ images }}'"
    assert [job.input["image_urls"] for job in jobs] == [[f"{CDN}{n}.jpg"] for n in (1, 2, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "sku,page\na,https://shop.example.com/a\n",
        f"sku^title^image\na^Big mug^{CDN}1.jpg\n",
        "a,b\n",
    ],
)
def test_a_table_without_pictures_says_which_columns_there_are(tmp_path: Path, text: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        drafted(table)
    (problem,) = caught.value.problems
    assert text.partition("\n")[0].replace(",", ", ") in problem.what or text == "a,b\n"
    assert "--delimiter" in str(problem.hint)
    assert "--header" in str(problem.hint)


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


def test_of_many_products_a_sample_comes_first(tmp_path: Path) -> None:
    rows = [{"sku": f"s{n}", "image": f"{CDN}{n}.jpg"} for n in range(SAMPLE + 1)]
    jobs, found = drafted(write(tmp_path, rows))
    assert found["sample"] == str(SAMPLE) == str(len(jobs))


def test_what_was_said_of_the_tables_form_is_written_down(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(
        "Liste\nsku;titel;bild\na;Kännchen;https://x.example/1.jpg\n".encode("cp1252")
    )
    form = TableForm(encoding="cp1252", header=2)
    text, _ = draft_of_table(table, tmp_path / "sub" / "m.yaml", form)
    assert "\n  from: '../t.csv'\n  header: 2 # the row with the column names\n" in text
    assert "\n  encoding: 'cp1252'\n" in text


def test_a_slash_in_an_id_makes_no_folder(tmp_path: Path) -> None:
    table = write(tmp_path, [{"sku": f"A/{n}", "image": f"{CDN}{n}.jpg"} for n in range(2)])
    assert [job.image_id for job in drafted(table)[0]] == ["A-0", "A-1"]


def test_the_form_to_fill_in_is_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(draft_of_form(path), encoding="utf-8")
    manifest = load_manifest(path)
    assert [prompt.id for prompt in manifest.prompts] == ["white", "sunset"]


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@example(names=["\xad0", "0 \xad1", "00"])
@given(names=st.lists(NAME.filter(trimmed), min_size=3, max_size=3, unique_by=trimmed))
def test_whatever_the_columns_are_called_the_manifest_runs(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    id_, title, picture = names
    rows = [
        {id_: f"p{n}", title: "a 'quoted' \"title\" {{ x }}", picture: f"{CDN}{n}.jpg"}
        for n in range(2)
    ]
    guessed(tmp_path_factory.mktemp("t"), rows)
