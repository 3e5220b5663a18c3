"""A first manifest, drafted from a table: what is guessed, and that it runs as it is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command import PROJECT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_runner.commands.draft import SAMPLE, write_draft, write_folder_draft, write_quickstart
from batch_runner.commands.guesses import Draft, NoGuessError, draft_from_table
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


def jobs_of(table: Path, draft: Draft) -> list[Job]:
    """Expand the manifest that is drafted, as the sandbox would take it."""
    manifest = table.parent / "drafted.yaml"
    return jobs_in(manifest, write_draft(draft, table, manifest, FORM))


def jobs_in(manifest: Path, text: str) -> list[Job]:
    manifest.write_text(text, encoding="utf-8")
    loaded = load_manifest(manifest)
    model = Model(loaded.model or "", schema=shipped_schema(loaded.model or ""))
    return list(expand(loaded, {model.model_id: model}, local_pictures=True))


def guessed(folder: Path, rows: list[dict[str, Any]], name: str = "t.csv") -> dict[str, Any]:
    """Return the guesses about a table, once its manifest has proved to run."""
    table = write(folder, rows, name)
    draft = draft_from_table(table, FORM, [])
    assert len(jobs_of(table, draft)) == min(draft.taken, SAMPLE)
    found: dict[str, Any] = {}
    for guess in draft.guesses:
        found.setdefault(guess.key, []).append(guess.taken)
    return found


@pytest.mark.parametrize(
    ("name", "expected", "jobs"),
    [
        (
            "catalog.csv",
            {
                "id": ["sku"],
                "title": ["title"],
                "urls": ["front_url", "detail_url"],
                "where": ["status == 'active'"],
            },
            7,
        ),
        (
            "shopify.csv",
            {
                "id": ["Handle"],
                "title": ["Title"],
                "urls": ["Image Src", "Variant Image"],
                "where": ["Status == 'active'"],
            },
            4,
        ),
        (
            "woocommerce.csv",
            {
                "id": ["SKU"],
                "title": ["Name"],
                "urls": ["Images"],
                "split": ["','"],
                "where": ["Published == '1' and Type != 'variation' and Images"],
            },
            3,
        ),
    ],
)
def test_the_samples_are_understood(
    tmp_path: Path, name: str, expected: dict[str, list[str]], jobs: int
) -> None:
    (tmp_path / "photos").symlink_to(PROJECT / "samples" / "photos")
    table = tmp_path / name
    table.write_bytes((PROJECT / "samples" / name).read_bytes())
    draft = draft_from_table(table, FORM, [])
    found: dict[str, list[str]] = {}
    for guess in draft.guesses:
        found.setdefault(guess.key, []).append(guess.taken)
    assert found == expected
    assert len(jobs_of(table, draft)) == jobs


def test_an_id_by_its_name_comes_before_another_column_that_differs_everywhere(
    tmp_path: Path,
) -> None:
    rows = [{"titel": f"t{n}", "Artikelnummer": n, "Bild": f"{CDN}{n}.jpg"} for n in range(3)]
    assert guessed(tmp_path, rows) == {
        "id": ["Artikelnummer"],
        "title": ["titel"],
        "urls": ["Bild"],
    }


def test_the_newer_names_of_shopifys_columns_are_understood(tmp_path: Path) -> None:
    rows = [
        {"Title": "Mug", "URL handle": "mug", "Status": "Active", "SKU": "1", "Price": "9",
         "Product image URL": f"{CDN}1.jpg?v=1", "Image position": "1", "Variant image URL": ""},
        {"Title": "", "URL handle": "mug", "Status": "", "SKU": "", "Price": "",
         "Product image URL": f"{CDN}2.jpg?v=1", "Image position": "2", "Variant image URL": ""},
        {"Title": "Lamp", "URL handle": "lamp", "Status": "Draft", "SKU": "2", "Price": "9",
         "Product image URL": f"{CDN}3.jpg?v=1", "Image position": "1", "Variant image URL": ""},
    ]  # fmt: skip
    assert guessed(tmp_path, rows) == {
        "id": ["URL handle"],
        "title": ["Title"],
        "urls": ["Product image URL"],
        "where": ["Status == 'Active'"],
    }


def test_variants_with_numbers_of_their_own_are_one_product_where_only_the_first_has_a_title(
    tmp_path: Path,
) -> None:
    rows = [
        {"Handle": f"h{n // 2}", "SKU": f"s{n}", "Title": "" if n % 2 else "Mug", "Image": ""}
        for n in range(4)
    ]
    for n, row in enumerate(rows):
        row["Image"] = f"{CDN}{n}.jpg"
    assert guessed(tmp_path, rows)["id"] == ["Handle"]
    for row in rows:
        row["Title"] = "Mug"
    assert guessed(tmp_path, rows)["id"] == ["SKU"]


def test_without_such_a_name_any_column_that_differs_everywhere_is_the_id(tmp_path: Path) -> None:
    rows = [{"color": "red", "what": f"w{n}", "photo": f"{CDN}p?id={n}"} for n in range(3)]
    assert guessed(tmp_path, rows) == {"id": ["what"], "title": ["none"], "urls": ["photo"]}


def test_rows_whose_ids_come_again_elsewhere_are_no_products(tmp_path: Path) -> None:
    rows = [{"sku": sku, "image": f"{CDN}1.jpg"} for sku in ("a", "b", "a")]
    with pytest.raises(NoGuessError) as caught:
        guessed(tmp_path, rows)
    assert caught.value.what == (
        "no column can name the products; the best is 'sku', but \"a\" is in rows 2, 4,"
        " with other rows between"
    )
    assert "sort the table by it: then init drafts group: for them" in caught.value.hint
    assert guessed(tmp_path, sorted(rows, key=str))["id"] == ["sku"]


@pytest.mark.parametrize(
    "rows",
    [
        [{"what": what} for what in ("a", "", "b", "")],
        [{"Brand ID": brand, "price": "9"} for brand in ("1", "1", "2")],
        [{"Name": "Mug", "Category ID": category} for category in ("1", "1", "1")],
    ],
)
def test_rows_that_nothing_names_are_named_by_their_numbers(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    table = write(tmp_path, [{**row, "image": f"{CDN}{n}.jpg"} for n, row in enumerate(rows)])
    jobs = jobs_of(table, draft_from_table(table, FORM, []))
    assert [job.image_id for job in jobs] == [f"row-{n + 2}" for n in range(len(rows))]


@pytest.mark.parametrize(
    ("rows", "id_"),
    [
        # One category holds many products, sorted or not.
        ([{"Title": t, "Category ID": c} for t, c in zip("abcd", "1122", strict=True)], "Title"),
        ([{"Name": t, "Store number": c} for t, c in zip("abcd", "1111", strict=True)], "Name"),
        # An id that only some products have groups nothing if their titles differ.
        ([{"Title": t, "SKU": s} for t, s in zip("abc", ["x", "", "y"], strict=True)], "Title"),
        ([{"Title": t, "Handle": h} for t, h in zip("aab", "xxy", strict=True)], "Handle"),
    ],
)
def test_rows_are_grouped_only_if_their_titles_agree(
    tmp_path: Path, rows: list[dict[str, str]], id_: str
) -> None:
    rows = [{**row, "image": f"{CDN}{n}.jpg"} for n, row in enumerate(rows)]
    assert guessed(tmp_path, rows)["id"] == [id_]


@pytest.mark.parametrize(
    ("skus", "check"),
    [
        (["a", "b", "b", "c", "d"], '"b" in rows 3, 4 should be one product'),
        (["a", "b", "c", "a", "d"], '"a" in rows 2, 5 should be one product'),
        (["a", "b", "9,8E+12", "9,8E+12"], '"9,8E+12" in rows 4, 5 is a number that'),
        (["a", "b", "8.80E+12"], '"8.80E+12" in row 4 is a number that a spreadsheet'),
    ],
)
def test_ids_that_a_person_has_to_settle_are_named_with_their_rows(
    tmp_path: Path, skus: list[str], check: str
) -> None:
    rows = [{"sku": sku, "title": f"t{n}", "image": f"{CDN}{n}.jpg"} for n, sku in enumerate(skus)]
    table = write(tmp_path, rows)
    draft = draft_from_table(table, FORM, [])
    assert [guess.taken for guess in draft.guesses if guess.key == "id"] == ["sku"]
    (why,) = [guess.why for guess in draft.guesses if guess.key == "check"]
    assert why.startswith(check)
    with pytest.raises(ManifestError):
        jobs_of(table, draft)


@pytest.mark.parametrize(
    ("kind", "product", "picture"),
    [("Item", "Product", "Image"), ("Record Type", "parent", "picture")],
)
def test_rows_of_pictures_below_each_product_are_seen(
    tmp_path: Path, kind: str, product: str, picture: str
) -> None:
    rows = [
        {kind: what, "ID": str(n), "Name": name, "Photo": f"{CDN}{n}.jpg" if not name else ""}
        for n, (what, name) in enumerate(
            [(product, "Mug"), (picture, ""), (picture, ""), (product, "Lamp"), (picture, "")]
        )
    ]
    table = write(tmp_path, rows)
    draft = draft_from_table(table, FORM, [])
    jobs = jobs_of(table, draft)
    assert [(job.image_id, job.row) for job in jobs] == [("0", 2), ("3", 5)]
    assert draft.most_pictures == 2


def test_pictures_may_be_objects_in_lines_of_json(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sku": "a", "images": [{"id": 7, "src": f"{CDN}1.jpg", "alt": "x"}]},
        {"sku": "b", "images": [{"alt": "x", "link": f"{CDN}2.jpg"}, {"url": f"{CDN}3.jpg"}]},
        {"sku": "c", "images": {"large": f"{CDN}4.jpg", "thumb": f"{CDN}5.jpg"}},
    ]
    assert guessed(tmp_path, rows, "t.jsonl")["urls"] == ["images"]
    table = tmp_path / "t.jsonl"
    jobs = jobs_of(table, draft_from_table(table, FORM, []))
    assert [job.input["image_urls"] for job in jobs] == [[f"{CDN}{n}.jpg"] for n in (1, 2, 4)]


def test_a_table_without_pictures_says_which_columns_there_are(tmp_path: Path) -> None:
    with pytest.raises(NoGuessError, match="no column has pictures; the columns are: sku, page"):
        guessed(tmp_path, [{"sku": "a", "page": "https://shop.example.com/a"}])


@pytest.mark.parametrize("sign", ["^", "~"])
def test_a_table_with_another_separator_gets_a_hint_about_it(tmp_path: Path, sign: str) -> None:
    table = tmp_path / "t.csv"
    rows = ("sku", "title", "image"), ("a", "Big mug", f"{CDN}1.jpg")
    table.write_text("\n".join(map(sign.join, rows)), encoding="utf-8")
    with pytest.raises(NoGuessError) as caught:
        draft_from_table(table, FORM, [])
    assert f"add --delimiter '{sign}'" in caught.value.hint
    assert "--header" not in caught.value.hint


def test_an_id_column_with_an_empty_cell_is_named_where_another_takes_its_place(
    tmp_path: Path,
) -> None:
    rows = [
        {"sku": "" if n == 2 else f"s{n}", "title": f"Mug {n}", "image": f"{CDN}{n}.jpg"}
        for n in range(4)
    ]
    draft = draft_from_table(write(tmp_path, rows), FORM, [])
    (guess,) = [one for one in draft.guesses if one.key == "id"]
    assert (guess.taken, guess.why) == ("title", "differs in every row; 'sku' is empty in 1 row")


def test_products_without_pictures_are_left_out_and_missing_titles_stood_in_for(
    tmp_path: Path,
) -> None:
    rows = [
        {"sku": "a", "title": "", "image": f"{CDN}1.jpg", "photo 2": ""},
        {"sku": "b", "title": "Mug", "image": "", "photo 2": ""},
        {"sku": "c", "title": "Lamp", "image": "", "photo 2": f"{CDN}2.jpg"},
    ]
    assert guessed(tmp_path, rows)["where"] == ['row["image"] or row["photo 2"]']
    draft = draft_from_table(tmp_path / "t.csv", FORM, [])
    prompts = [job.input["prompt"] for job in jobs_of(tmp_path / "t.csv", draft)]
    assert [prompt.split(" on ")[0] for prompt in prompts] == ["Put the product", "Put the Lamp"]


def test_addresses_in_plain_http_are_asked_for_by_https(tmp_path: Path) -> None:
    table = write(tmp_path, [{"sku": "a", "image": "http://cdn.example.com/1.jpg"}])
    (job,) = jobs_of(table, draft_from_table(table, FORM, []))
    assert job.input["image_urls"] == [f"{CDN}1.jpg"]


def test_lists_and_true_and_false_of_lines_of_json_are_understood(tmp_path: Path) -> None:
    rows = [
        {"id": n, "name": f"n{n}", "active": n > 1, "images": [f"{CDN}{n}.jpg", f"{CDN}x.jpg"]}
        for n in range(4)
    ]
    assert guessed(tmp_path, rows, "t.jsonl") == {
        "id": ["id"],
        "title": ["name"],
        "urls": ["images"],
        "where": ["active | string == 'True'"],
    }


def test_of_many_products_a_sample_comes_first(tmp_path: Path) -> None:
    rows = [{"sku": f"s{n}", "image": f"{CDN}{n}.jpg"} for n in range(SAMPLE + 1)]
    table = write(tmp_path, rows)
    draft = draft_from_table(table, FORM, [])
    assert f"\n  sample: {SAMPLE} #" in write_draft(draft, table, tmp_path / "m.yaml", FORM)
    assert len(jobs_of(table, draft)) == SAMPLE


def test_what_was_said_of_the_tables_form_is_written_down(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(
        "Liste\nsku;titel;bild\na;Kännchen;https://x.example/1.jpg\n".encode("cp1252")
    )
    form = TableForm(encoding="cp1252", header=2)
    text = write_draft(draft_from_table(table, form, []), table, tmp_path / "sub" / "m.yaml", form)
    assert "\n  from: '../t.csv'\n  header: 2 # the row with the column names\n" in text
    assert "\n  encoding: 'cp1252'\n" in text


def test_a_slash_in_an_id_makes_no_folder(tmp_path: Path) -> None:
    table = write(tmp_path, [{"sku": f"A/{n}", "image": f"{CDN}{n}.jpg"} for n in range(2)])
    assert [job.image_id for job in jobs_of(table, draft_from_table(table, FORM, []))] == [
        "A-0",
        "A-1",
    ]


@pytest.mark.parametrize(
    ("files", "written", "ids"),
    [
        (["b.jpg", "a.png"], "photos/", ["a", "b"]),
        (["a.jpg", "a.png"], "photos/", ["a.jpg", "a.png"]),
        (["x/a.jpg", "y/a.jpg"], "photos/**", ["x-a.jpg", "y-a.jpg"]),
    ],
)
def test_a_folder_of_pictures_is_drafted_too(
    tmp_path: Path, files: list[str], written: str, ids: list[str]
) -> None:
    picture = (PROJECT / "samples" / "photos" / "mug.jpg").read_bytes()
    for name in files:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture)
    manifest = tmp_path / "drafted.yaml"
    text, count = write_folder_draft(tmp_path / "photos", manifest, [])
    assert f"\n  from: '{written}'\n" in text
    assert count == len(files)
    assert [job.image_id for job in jobs_in(manifest, text)] == ids


def test_the_form_to_fill_in_is_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(write_quickstart(path), encoding="utf-8")
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
