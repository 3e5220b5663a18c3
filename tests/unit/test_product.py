"""From a table's rows to products: groups, filters, samples, and what is said about the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import batch_runner.jobs.product
from batch_runner.errors import ManifestError
from batch_runner.jobs.expand import expand
from batch_runner.jobs.product import Tally
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.model import Model
from batch_runner.records import Job

Write = Callable[..., Path]
CDN = "https://cdn.example.com/"

SHOP = """\
Handle,Title,Status,Image Src,Variant Image
mug,Enamel mug,active,CDN/1.jpg,CDN/1.jpg
mug,,,CDN/2.jpg,CDN/blue.jpg
lamp,Lamp,active,CDN/lamp.jpg,
chair,Chair,draft,CDN/chair.jpg,
""".replace("CDN/", CDN)
SHOP_IMAGES = """\
  group: "{{ Handle }}"
  id: "{{ Handle }}"
  urls: ['{{ row["Image Src"] }}', '{{ row["Variant Image"] }}']
"""


class Shop:
    """Expands a table with what a manifest says of it under images."""

    def __init__(self, write: Write, folder: Path, model: Model) -> None:
        self.write = write
        self.folder = folder
        self.model = model
        self.tally = Tally()

    def jobs(
        self,
        table: str,
        images: str,
        *,
        prompts: str = "{white: On white.}",
        name: str = "t.csv",
        more: str = "",
    ) -> list[Job]:
        (self.folder / name).write_text(table, encoding="utf-8")
        return self.jobs_of_file(name, images, prompts=prompts, more=more)

    def jobs_of_file(
        self, name: str, images: str, *, prompts: str = "{white: On white.}", more: str = ""
    ) -> list[Job]:
        text = f"prompts: {prompts}\nimages:\n  from: {name}\n{images}{more}"
        self.tally = Tally()
        manifest = load_manifest(self.write(text))
        models = {self.model.model_id: self.model}
        return list(expand(manifest, models, local_pictures=False, tally=self.tally))

    def said(self, table: str, images: str, **rest: str) -> list[str]:
        """Return what is said about a table, with its place."""
        with pytest.raises(ManifestError) as caught:
            self.jobs(table, images, **rest)
        folder = f"{self.folder}/"
        return [str(problem).replace(folder, "") for problem in caught.value.problems]


@pytest.fixture
def shop(write_manifest: Write, tmp_path: Path, model: Model) -> Shop:
    return Shop(write_manifest, tmp_path, model)


def pictures(job: Job) -> list[str]:
    return [url.removeprefix(CDN) for url in job.input["image_urls"]]


# Groups


def test_rows_of_one_product_become_one_job_with_all_of_their_pictures_once(shop: Shop) -> None:
    mug, lamp, chair = shop.jobs(SHOP, SHOP_IMAGES, prompts='{white: "A {{ Title }}."}')
    assert [mug.key, lamp.key, chair.key] == ["mug/white", "lamp/white", "chair/white"]
    # Column by column, in the order of the rows; what a variant repeats is sent once.
    assert pictures(mug) == ["1.jpg", "2.jpg", "blue.jpg"]
    assert mug.input["prompt"] == "A Enamel mug."
    assert (mug.row, lamp.row) == (2, 4)
    assert (shop.tally.rows, shop.tally.products) == (4, 3)


def test_the_first_filled_cell_of_a_product_counts(shop: Shop) -> None:
    table = f"Handle,Title,Image\nmug,,{CDN}1.jpg\nmug,Mug,\nmug,Other,\n"
    images = '  group: "{{ Handle }}"\n  id: "{{ Handle }}"\n  urls: "{{ Image }}"\n'
    (job,) = shop.jobs(table, images, prompts='{white: "A {{ Title }}."}')
    assert job.input["prompt"] == "A Mug."


def test_a_row_with_an_empty_group_belongs_to_the_product_above_it(shop: Shop) -> None:
    table = f"sku,image\nmug,{CDN}1.jpg\n,{CDN}2.jpg\n,\nlamp,{CDN}3.jpg\n"
    images = '  group: "{{ sku }}"\n  id: "{{ sku }}"\n  urls: "{{ image }}"\n'
    assert [pictures(job) for job in shop.jobs(table, images)] == [["1.jpg", "2.jpg"], ["3.jpg"]]


def test_where_asks_the_product_and_not_its_rows(shop: Shop) -> None:
    jobs = shop.jobs(SHOP, SHOP_IMAGES + "  where: \"{{ Status == 'active' }}\"\n")
    assert [job.image_id for job in jobs] == ["mug", "lamp"]
    assert (shop.tally.products, shop.tally.left_out, shop.tally.taken) == (3, 1, 2)


def test_each_picture_can_be_an_image_set_of_its_own(shop: Shop) -> None:
    jobs = shop.jobs(SHOP, SHOP_IMAGES + "  each: picture\n", prompts='{white: "{{ picture }}"}')
    assert [(job.key, pictures(job), job.input["prompt"]) for job in jobs[:4]] == [
        ("mug-1/white", ["1.jpg"], "1"),
        ("mug-2/white", ["2.jpg"], "2"),
        ("mug-3/white", ["blue.jpg"], "3"),
        ("lamp-1/white", ["lamp.jpg"], "1"),
    ]


def test_of_many_pictures_only_the_first_ones_can_be_taken(shop: Shop) -> None:
    assert pictures(shop.jobs(SHOP, SHOP_IMAGES + "  pictures: 2\n")[0]) == ["1.jpg", "2.jpg"]


def test_a_picture_that_cannot_be_sent_is_told_by_the_row_that_names_it(shop: Shop) -> None:
    table = SHOP.replace(f"{CDN}2.jpg", "http://x.example/2.jpg")
    (said,) = shop.said(table, SHOP_IMAGES)
    assert said == (
        "t.csv:3: row 3: column 'Image Src': \"http://x.example/2.jpg\" is http; the service"
        " fetches only https URLs\nhint: give the https URL of the picture; most hosts have one"
    )


def test_a_first_row_without_group_is_told(shop: Shop) -> None:
    table = f"sku,image\n,{CDN}1.jpg\nmug,{CDN}2.jpg\n"
    images = '  group: "{{ sku }}"\n  id: "{{ sku }}"\n  urls: "{{ image }}"\n'
    (said,) = shop.said(table, images)
    assert said == (
        "t.csv:2: row 2: column 'sku': empty, and no product stands above it\n"
        "hint: fill it in, or choose another images.group"
    )


def test_a_group_that_takes_in_the_whole_table_is_told_before_memory_ends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_runner.jobs.product, "GROUP_LIMIT_ROWS", 3)
    table = "sku,vendor,image\n" + f"x,Halden,{CDN}1.jpg\n" * 5
    images = '  group: "{{ vendor }}"\n  id: "{{ sku }}"\n  urls: "{{ image }}"\n'
    (said,) = shop.said(table, images)
    assert said.startswith('t.csv:5: row 5: more than 3 rows belong to one product, "Halden"\n')


def test_rows_of_one_product_that_do_not_stand_together_are_told_as_one_id_twice(
    shop: Shop,
) -> None:
    table = SHOP + f"mug,Again,active,{CDN}9.jpg,\n"
    (said,) = shop.said(table, SHOP_IMAGES, more="matrix: {seed: [1, 2]}\n")
    assert said.startswith("t.csv: row 6: the id 'mug' is that of row 2 too\nhint: ")


def test_all_rows_that_share_an_id_are_told_at_once_in_their_order(shop: Shop) -> None:
    table = "sku,image\n" + "".join(f"{sku},{CDN}{sku}.jpg\n" for sku in "abbacaaaaa")
    images = '  id: "{{ sku }}"\n  urls: "{{ image }}"\n'
    said = [text.split("\n")[0] for text in shop.said(table, images, prompts="{x: a, y: b}")]
    assert said == [
        "t.csv: row 4: the id 'b' is that of row 3 too",
        "t.csv: rows 5, 7, 8, 9, 10, …: the id 'a' is that of row 2 too",
    ]


# Several pictures in one cell


@pytest.mark.parametrize(
    ("cell", "separator", "found"),
    [
        (f"{CDN}1.jpg, {CDN}2.jpg,", ",", ["1.jpg", "2.jpg"]),
        (f"{CDN}w_800,h_800/1.jpg,{CDN}2.jpg", ",", ["w_800,h_800/1.jpg", "2.jpg"]),
        (f"{CDN}1.jpg|{CDN}2.jpg", "|", ["1.jpg", "2.jpg"]),
        (f"{CDN}1.jpg {CDN}2.jpg", " ", ["1.jpg", "2.jpg"]),
        (f"{CDN}1.jpg\n{CDN}2.jpg", "\\n", ["1.jpg", "2.jpg"]),
        (f"{CDN}1.jpg", ",", ["1.jpg"]),
    ],
)
def test_a_cell_with_several_pictures_is_split(
    shop: Shop, cell: str, separator: str, found: list[str]
) -> None:
    images = f'  id: "{{{{ sku }}}}"\n  urls: "{{{{ images }}}}"\n  split: "{separator}"\n'
    (job,) = shop.jobs(f'sku,images\nmug,"{cell}"\n', images)
    assert pictures(job) == found


def test_a_list_of_pictures_is_taken_as_it_is(shop: Shop, tmp_path: Path) -> None:
    urls = [f"{CDN}1.jpg", f"{CDN}2.jpg"]
    line = msgspec.json.encode({"sku": "mug", "images": urls})
    (tmp_path / "t.jsonl").write_bytes(line)
    (job,) = shop.jobs_of_file("t.jsonl", '  id: "{{ sku }}"\n  urls: "{{ images }}"\n')
    assert pictures(job) == ["1.jpg", "2.jpg"]


# Only some products

ROWS = "sku,status,image\n" + "".join(
    f"p{number},{'draft' if number % 3 == 0 else 'active'},{CDN}{number}.jpg\n"
    for number in range(300)
)
PLAIN = '  id: "{{ sku }}"\n  urls: "{{ image }}"\n'
ACTIVE = PLAIN + "  where: \"{{ status == 'active' }}\"\n"


def ids(jobs: list[Job]) -> list[str | None]:
    return [job.image_id for job in jobs]


def test_a_sample_is_the_same_whenever_it_is_taken_and_in_the_order_of_the_table(
    shop: Shop,
) -> None:
    first = ids(shop.jobs(ROWS, ACTIVE + "  sample: 10\n"))
    assert len(first) == 10
    assert first == sorted(first, key=lambda id_: int(str(id_)[1:]))
    assert not any(int(str(id_)[1:]) % 3 == 0 for id_ in first)
    assert (shop.tally.products, shop.tally.left_out, shop.tally.taken) == (300, 100, 10)
    lines = ROWS.splitlines(keepends=True)
    backwards = lines[0] + "".join(reversed(lines[1:]))
    assert set(ids(shop.jobs(backwards, ACTIVE + "  sample: 10\n"))) == set(first)


def test_a_row_more_moves_at_most_one_product_of_a_sample(shop: Shop) -> None:
    before = set(ids(shop.jobs(ROWS, PLAIN + "  sample: 20\n")))
    for number in range(40):
        more = ROWS + f"new{number},active,{CDN}new.jpg\n"
        assert len(before - set(ids(shop.jobs(more, PLAIN + "  sample: 20\n")))) <= 1


def test_a_sample_larger_than_the_table_is_all_of_it(shop: Shop) -> None:
    assert len(shop.jobs(ROWS, PLAIN + "  sample: 500\n")) == 300


def test_rows_outside_of_a_sample_may_be_unfinished(shop: Shop) -> None:
    sample = set(ids(shop.jobs(ROWS, PLAIN + "  sample: 5\n")))
    emptied = "".join(
        line if line.split(",")[0] in (*sample, "sku") else f"{line.split(',')[0]},,\n"
        for line in ROWS.splitlines(keepends=True)
    )
    assert set(ids(shop.jobs(emptied, PLAIN + "  sample: 5\n"))) == sample


# What is said about rows


def test_empty_rows_are_counted_with_their_numbers(shop: Shop) -> None:
    table = f"sku,image\n\nmug,{CDN}1.jpg\n,\n , \nlamp,{CDN}2.jpg\n,\n"
    assert ids(shop.jobs(table, PLAIN)) == ["mug", "lamp"]
    assert shop.tally.empty_rows == 4


def test_a_table_of_empty_rows_has_no_rows(shop: Shop) -> None:
    (said,) = shop.said("sku,image\n,\n\n", PLAIN)
    assert "t.csv' has no rows\nhint: export it again with its rows" in said


def test_a_problem_stands_at_the_line_of_its_row_and_says_the_spreadsheets_number(
    shop: Shop,
) -> None:
    table = f'sku,text,image\nmug,"a\nb\nc",{CDN}1.jpg\nlamp,x,\n'
    (said,) = shop.said(table, PLAIN)
    assert said == (
        "t.csv:5: row 3: column 'image': no picture for 'lamp'\n"
        "hint: fill one in, or leave such rows out with images.where"
    )


@pytest.mark.parametrize(
    ("prompt", "where", "line", "name"),
    [
        ("A {{ titel | default('thing') }}", "{{ sku }}", 3, "titel"),
        ("A {{ row['titel'] | default('thing') }}", "{{ sku }}", 3, "titel"),
        ("A {{ row.titel | default('thing') }}", "{{ sku }}", 3, "titel"),
        ("{% if titel is defined %}{{ titel }}{% endif %} thing", "{{ sku }}", 3, "titel"),
        ("A {{ title | default('thing') }}", "{{ statu | default('active') }}", 8, "statu"),
    ],
)
def test_a_column_that_is_misspelled_inside_of_a_default_is_told(
    shop: Shop, prompt: str, where: str, line: int, name: str
) -> None:
    table = f"sku,title,status,image\nmug,Mug,active,{CDN}1.jpg\n"
    images = f'{PLAIN}  where: "{where}"\n'
    (said,) = shop.said(table, images, prompts=f'{{white: "{prompt}"}}')
    assert said.startswith(f"batch.yaml:{line}: ")
    assert f"'{name}'" in said
    assert said.endswith(f"hint: did you mean '{'title' if name == 'titel' else 'status'}'?")


def test_in_lines_of_json_a_column_is_misspelled_that_no_row_has(shop: Shop) -> None:
    line = '{"sku": "SKU", "image": "URL", "title": "Mug"}\n'
    table = line.replace("SKU", "a").replace("URL", f"{CDN}1.jpg")
    table += '{"sku": "b", "image": "URL"}\n'.replace("URL", f"{CDN}2.jpg")
    fine = shop.jobs(
        table, PLAIN, name="t.jsonl", prompts="{white: \"{{ title | default('x') }}\"}"
    )
    assert [job.input["prompt"] for job in fine] == ["Mug", "x"]
    said = shop.said(
        table, PLAIN, name="t.jsonl", prompts="{white: \"{{ titel | default('x') }}\"}"
    )
    assert said == ["batch.yaml:3: the variable 'titel' is undefined\nhint: did you mean 'title'?"]
