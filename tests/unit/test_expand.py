"""Manifest and table in, a stream of jobs out: keys, fingerprints, paths, and nothing kept."""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import photo

import batch_runner.jobs.clashes
import batch_runner.jobs.product
from batch_runner.errors import ManifestError
from batch_runner.jobs.expand import expand
from batch_runner.jobs.product import Tally, listed_pictures
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.model import Model
from batch_runner.records import Job, fingerprint
from batch_runner.table import Row, TableForm, read_rows

Write = Callable[..., Path]
Expand = Callable[..., list[Job]]

PROMPT = "prompts: {white: On white.}\n"
IMAGE = "images: {mug: https://cdn.example.com/mug.png}\n"
URL = "https://cdn.example.com/1.png"
TABLE = 'images:\n  from: t.csv\n  id: "{{ sku }}"\n  urls: ["{{ front }}", "{{ detail }}"]\n'


@pytest.fixture
def jobs(write_manifest: Write, tmp_path: Path, model: Model) -> Expand:
    """Expand a manifest's text, beside the tables that are passed as name=content."""

    def jobs_of(
        text: str,
        *,
        using: Model | None = None,
        local_pictures: bool = False,
        table: str | bytes | None = None,
        name: str = "t.csv",
        tally: Tally | None = None,
    ) -> list[Job]:
        if table is not None:
            (tmp_path / name).write_bytes(table if isinstance(table, bytes) else table.encode())
        one = using or model
        manifest = load_manifest(write_manifest(text, head=f"version: 1\nmodel: {one.model_id}\n"))
        models = {one.model_id: one}
        return list(expand(manifest, models, local_pictures=local_pictures, tally=tally))

    return jobs_of


def problems(caught: pytest.ExceptionInfo[ManifestError]) -> list[str]:
    return [problem.what for problem in caught.value.problems]


# Keys, paths, inputs


def test_a_job_holds_everything_about_one_submission(jobs: Expand, model: Model) -> None:
    (job,) = jobs(PROMPT + IMAGE + "inputs: {num_images: 2}\nmatrix: {aspect_ratio: ['4:5']}\n")
    sent = {
        "prompt": "On white.",
        "image_urls": ["https://cdn.example.com/mug.png"],
        "num_images": 2,
        "aspect_ratio": "4:5",
    }
    assert job == Job(
        key="mug/white/aspect_ratio=4:5",
        fingerprint=fingerprint(model.model_id, sent, 1),
        model=model.model_id,
        input=sent,
        path="mug/white-4x5",
        outputs=2,
        prompt_id="white",
        image_id="mug",
        point={"aspect_ratio": "4:5"},
    )


def test_a_key_is_image_prompt_and_matrix_point_and_the_number_of_a_repeat(jobs: Expand) -> None:
    text = "prompts: {white: a, beach: b}\nrepeat: 2\n"
    text += "matrix: {aspect_ratio: ['1:1', '4:5'], enable_web_search: [true]}\n"
    assert [job.key for job in jobs(text + IMAGE)] == [
        "mug/white/aspect_ratio=1:1,enable_web_search=true",
        "mug/white/aspect_ratio=1:1,enable_web_search=true#2",
        "mug/white/aspect_ratio=4:5,enable_web_search=true",
        "mug/white/aspect_ratio=4:5,enable_web_search=true#2",
        "mug/beach/aspect_ratio=1:1,enable_web_search=true",
        "mug/beach/aspect_ratio=1:1,enable_web_search=true#2",
        "mug/beach/aspect_ratio=4:5,enable_web_search=true",
        "mug/beach/aspect_ratio=4:5,enable_web_search=true#2",
    ]


def test_a_repeat_is_bought_on_its_own_and_has_a_path_of_its_own(jobs: Expand) -> None:
    first, second, third = jobs(PROMPT + IMAGE + "repeat: 3\ninputs: {num_images: 4}\n")
    assert first.input == second.input == third.input
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3
    assert [job.repeat for job in (first, second, third)] == [1, 2, 3]
    # `mug/white-2` is the second output of the first job.
    assert [job.path for job in (first, second, third)] == [
        "mug/white",
        "mug/white-repeat-2",
        "mug/white-repeat-3",
    ]


def test_the_same_manifest_gives_the_same_jobs_in_the_same_order(jobs: Expand) -> None:
    text = PROMPT + TABLE + "matrix: {seed: [3, 1, 2]}\nrepeat: 2\n"
    rows = "".join(f"HL-{number},{URL}\n" for number in range(10))
    assert jobs(text, table="sku,front,detail\n" + rows) == jobs(text)


def test_images_may_be_several_urls(jobs: Expand) -> None:
    (job,) = jobs(PROMPT + f"images:\n  lamp: [{URL}, https://cdn.example.com/2.png]\n")
    assert job.input["image_urls"] == [URL, "https://cdn.example.com/2.png"]


def test_the_nearer_input_wins(jobs: Expand) -> None:
    text = """prompts:
  white: a
  beach: {prompt: b, inputs: {resolution: 4K, seed: 3}}
inputs: {resolution: 1K, seed: 1, output_format: png}
matrix: {seed: [2]}
"""
    white, beach = jobs(text + IMAGE)
    assert (white.input["resolution"], white.input["seed"]) == ("1K", 2)
    assert (beach.input["resolution"], beach.input["seed"]) == ("4K", 3)
    assert white.input["output_format"] == beach.input["output_format"] == "png"


def test_excluded_combinations_are_left_out(jobs: Expand) -> None:
    text = "prompts: {white: a, beach: b}\nmatrix: {aspect_ratio: ['1:1', '4:5']}\n"
    text += f"images: {{mug: {URL}, lamp: {URL}}}\n"
    text += "exclude:\n  - {prompt: beach, aspect_ratio: '1:1'}\n  - {image: lamp}\n"
    assert [job.key for job in jobs(text)] == [
        "mug/white/aspect_ratio=1:1",
        "mug/white/aspect_ratio=4:5",
        "mug/beach/aspect_ratio=4:5",
    ]


def test_text_to_image_needs_no_images(jobs: Expand) -> None:
    drawing = Model("a/b", schema={"properties": {"prompt": {"type": "string"}, "seed": {}}})
    found = jobs("prompts: {white: a}\nmatrix: {seed: [1, 2]}\n", using=drawing)
    assert [job.key for job in found] == ["white/seed=1", "white/seed=2"]
    assert [job.path for job in found] == ["white-1", "white-2"]
    assert found[0].input == {"prompt": "a", "seed": 1}
    assert found[0].image_id is None


def test_an_output_path_may_use_every_variable(jobs: Expand) -> None:
    text = """prompts: {white: a}
matrix: {aspect_ratio: ["16:9"]}
output:
  path: "{{ name }}/{{ category }}/{{ image }}/{{ prompt }}_{{ aspect_ratio }}_{{ repeat }}"
"""
    (job,) = jobs(text + TABLE, table=f"sku,category,front,detail\nHL-1,a/b,{URL},\n")
    # A value cannot make folders of its own.
    assert job.path == "batch/a-b/HL-1/white_16x9_1"


def test_a_model_without_schema_takes_everything(jobs: Expand) -> None:
    (job,) = jobs(PROMPT + IMAGE + "inputs: {anything: [1, {a: b}]}\n", using=Model("a/b"))
    assert job.input["anything"] == [1, {"a": "b"}]
    assert job.input["image_urls"] == ["https://cdn.example.com/mug.png"]


def test_pictures_go_where_images_as_says_and_the_prompt_where_prompt_as_says(jobs: Expand) -> None:
    text = f"images: {{mug: [{URL}, https://cdn.example.com/2.png]}}\n"
    film = Model("a/b", images_as={"first": 1, "last": 2}, prompt_as="caption")
    (job,) = jobs(PROMPT + text, using=film)
    assert job.input == {
        "caption": "On white.",
        "first": [URL],
        "last": ["https://cdn.example.com/2.png"],
    }


def test_two_pictures_for_a_model_that_takes_one_are_an_error(jobs: Expand) -> None:
    single = Model("a/b", schema={"properties": {"prompt": {}, "image": {"type": "string"}}})
    with pytest.raises(ManifestError) as caught:
        jobs(PROMPT + f"images: {{mug: [{URL}, {URL}]}}\n", using=single)
    assert problems(caught) == ["'image' takes one picture, here are 2"]


# Tables


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", f"sku,front,detail\nHL-1,{URL},\nHL-2,,{URL}\n"),
        ("t.csv", f"sku;front;detail\nHL-1;{URL};\nHL-2;;{URL}\n"),
        ("t.tsv", f"sku\tfront\tdetail\nHL-1\t{URL}\t\nHL-2\t\t{URL}\n"),
        (
            "t.jsonl",
            '{"sku":"HL-1","front":"URL","detail":null}\n{"sku":"HL-2","detail":"URL","front":""}\n',
        ),
    ],
)
def test_a_table_gives_one_image_set_a_row_without_its_empty_places(
    jobs: Expand, name: str, table: str
) -> None:
    table = table.replace("URL", URL)
    found = jobs(PROMPT + TABLE.replace("t.csv", name), table=table, name=name)
    assert [job.key for job in found] == ["HL-1/white", "HL-2/white"]
    assert [job.input["image_urls"] for job in found] == [[URL], [URL]]
    assert [job.row for job in found] == ([1, 2] if name == "t.jsonl" else [2, 3])


def test_only_rows_for_which_where_is_true_are_taken(jobs: Expand) -> None:
    text = PROMPT + TABLE + "  where: \"{{ status == 'active' and price | float > 2 }}\"\n"
    table = (
        f"sku,front,detail,status,price\nA,{URL},,active,3\nB,{URL},,gone,3\nC,{URL},,active,1\n"
    )
    assert [job.key for job in jobs(text, table=table)] == ["A/white"]


def test_a_row_that_where_leaves_out_may_be_as_broken_as_it_likes(jobs: Expand) -> None:
    text = PROMPT + TABLE + '  where: "{{ sku }}"\n'
    assert [job.key for job in jobs(text, table=f"sku,front,detail\n,,\n,x,\nA,{URL},\n")] == [
        "A/white"
    ]


def test_a_default_stands_in_for_an_empty_cell_in_ids_prompts_and_paths(jobs: Expand) -> None:
    text = """prompts: {white: 'A {{ title | default("thing") }}'}
images:
  from: t.csv
  id: '{{ sku | default("no-sku") }}'
  urls: '{{ front }}'
output: {path: '{{ category | default("misc") }}/{{ image }}'}
"""
    (job,) = jobs(text, table=f"sku,title,category,front\n,,,{URL}\n")
    assert (job.key, job.path, job.input["prompt"]) == ("no-sku/white", "misc/no-sku", "A thing")


def test_a_column_whose_name_is_no_variable_is_reached_through_row(jobs: Expand) -> None:
    text = """prompts: {white: 'A {{ row["Title (EN)"] }} at {{ row["image"] }}'}
images: {from: t.csv, id: "{{ sku }}", urls: '{{ row["Image Src"] }}'}
"""
    (job,) = jobs(text, table=f"sku,Title (EN),Image Src,image\nHL-1,mug,{URL},x\n")
    assert job.input["prompt"] == "A mug at x"
    assert job.input["image_urls"] == [URL]


def test_numbers_and_lists_of_jsonl_are_there_for_templates(jobs: Expand) -> None:
    text = "prompts: {white: '{{ sizes | join(\" and \") }}, {{ price * 2 }}'}\n"
    text += 'images: {from: t.jsonl, id: "{{ sku }}", urls: "{{ front }}"}\n'
    row = {"sku": 7, "sizes": ["S", "L"], "price": 1.5, "front": URL}
    (job,) = jobs(text, table=json.dumps(row), name="t.jsonl")
    assert (job.key, job.input["prompt"]) == ("7/white", "S and L, 3.0")


def test_a_column_may_be_called_like_what_every_template_knows(jobs: Expand) -> None:
    text = "prompts: {white: '{{ name }} {{ model }} {{ image }} {{ prompt }}'}\n" + TABLE
    table = f"sku,front,detail,name,model,image,prompt\nA,{URL},,Mia,X9,i,p\n"
    assert jobs(text, table=table)[0].input["prompt"] == "Mia X9 A white"


def test_problems_of_rows_do_not_keep_the_good_ones_from_the_stream(
    write_manifest: Write, tmp_path: Path, models: dict[str, Model]
) -> None:
    (tmp_path / "t.csv").write_text(f"sku,front,detail\nA,x,\nB,{URL},\n", encoding="utf-8")
    stream = expand(load_manifest(write_manifest(PROMPT + TABLE)), models, local_pictures=False)
    assert next(stream).key == "B/white"
    with pytest.raises(ManifestError):
        next(stream)


# What pictures are

# The fingerprints that earlier releases gave these pictures, with the prompt `On white.`
FORMER = {
    "https://b.s3.amazonaws.com/a.png?X-Amz-Algorithm=A&X-Amz-Credential=C"
    "&X-Amz-Date=20991101T000000Z&X-Amz-Expires=9&X-Amz-Signature=ab&v=2": (
        "782c96af270413f9d3053338ac695b305060a80ed8b745af92ad4f4f41044f98"
    ),
    "https://s.blob.core.windows.net/c/a.png?sv=2022-11-02&se=2099-11-01T00%3A00%3A00Z"
    "&sr=b&sp=r&sig=abc%3D": "a4fa6207499d40382574111a5dafc68a528b8f12dad598e1ab7edad3f8480f75",
    "https://d.cloudfront.net/a.png?Expires=4093491200&Signature=abc&Key-Pair-Id=K": (
        "ecdfcf02197888d890676d0c0ead19c00fbb69adb4d2dffb644f753728ba672a"
    ),
    "https://img.example.com/render?item=1&sr=front&sig=aaa": (
        "fe425c322c0450e22d0968f543cf33c84209a0a80e1a92ac121d36f7ab5d727e"
    ),
    "https://cdn.discordapp.com/attachments/1/2/a.png?ex=f6aa4106&is=66a8ef86&hm=27": (
        "81c30d25247a932da58d1a100aa6f1370e7dd2b5abd96f487d2c486523e77066"
    ),
}


@pytest.mark.parametrize(("url", "former"), FORMER.items())
def test_a_ledger_of_an_earlier_release_still_knows_the_job(
    jobs: Expand, url: str, former: str
) -> None:
    (job,) = jobs(f"prompts: {{white: On white.}}\nimages: {{mug: '{url}'}}\n")
    assert former in (job.fingerprint, *job.aliases)
    assert (former == job.fingerprint) == ("render" not in url and "discord" not in url)


SHARED = [
    "https://img.example.com/render?item=1&{0}&sv=2022-11-02&sr=b&se=2099-01-01&sig=aaa",
    "https://img.example.com/render?item=1&X-Amz-Date=1&X-Amz-Signature=ab&X-Amz-{0}",
    "https://img.example.com/render?token={0}&expires=4093491200",
    "https://img.example.com/render?item=1&expires=1&signature={0}",
]


@pytest.mark.parametrize("url", SHARED)
def test_two_addresses_of_one_batch_are_two_pictures_in_whatever_order(
    jobs: Expand, url: str
) -> None:
    front, back = (url.replace("{0}", f"sp={side}") for side in ("front", "back"))
    rows = [f"A,{front},", f"B,{back},"]
    table = "sku,front,detail\n"
    both = jobs(PROMPT + TABLE, table=table + "\n".join(rows))
    turned = jobs(PROMPT + TABLE, table=table + "\n".join(reversed(rows)))
    assert both[0].fingerprint != both[1].fingerprint
    assert [job.fingerprint for job in turned] == [job.fingerprint for job in reversed(both)]
    assert not {both[0].fingerprint, *both[0].aliases} & {both[1].fingerprint, *both[1].aliases}
    (alone,) = jobs(PROMPT + TABLE, table=table + rows[0])
    assert both[0].fingerprint in (alone.fingerprint, *alone.aliases)


def test_one_address_twice_is_one_picture(jobs: Expand) -> None:
    url = SHARED[2].replace("{0}", "a")
    first, second = jobs(PROMPT + TABLE, table=f"sku,front,detail\nA,{url},\nB,{url},\n")
    assert first.fingerprint == second.fingerprint


def test_a_manifest_may_say_what_a_picture_is_whatever_its_address(jobs: Expand) -> None:
    text = PROMPT + TABLE + '  identity: "{{ sku }}-{{ kind }}"\n'
    table = "sku,kind,front,detail\nA,mug,{0}/1,{0}/2\nB,mug,{0}/2,{0}/1\nC,mug,{0}/3,\n"
    monday = jobs(text, table=table.replace("{0}", "https://dl.example/x1"))
    tuesday = jobs(text, table=table.replace("{0}", "https://dl.example/y2"))
    assert [job.fingerprint for job in monday] == [job.fingerprint for job in tuesday]
    assert len({job.fingerprint for job in monday}) == 3
    plain = jobs(PROMPT + TABLE, table=table.replace("{0}", "https://dl.example/x1"))
    for before, now in zip(plain, monday, strict=True):
        assert before.fingerprint in now.aliases
    each = jobs(text + "  each: picture\n", table=table.replace("{0}", "https://dl.example/x1"))
    assert len({job.fingerprint for job in each}) == 5


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("{{ kind }}", "the column 'kind' is empty"),
        ("{{ kind | default('') }}", "column 'kind': the picture's identity is empty"),
        ("{{ knid }}", "the table has no column 'knid'"),
        ("mug", "'identity' is the same for every row: it names no column"),
    ],
)
def test_an_identity_that_says_nothing_is_a_problem(jobs: Expand, identity: str, said: str) -> None:
    text = PROMPT + TABLE + f'  identity: "{identity}"\n'
    with pytest.raises(ManifestError) as caught:
        jobs(text, table=f"sku,kind,front,detail\nA,,{URL},\n")
    assert said in str(caught.value)


# Cells in prompts


@pytest.mark.parametrize("value", ["#N/A", "#REF!", "#DIV/0!", "#BEZUG!", "nan", "NULL", "None"])
def test_a_value_that_a_spreadsheet_did_not_have_is_not_bought(jobs: Expand, value: str) -> None:
    text = "prompts: {white: 'The {{ title }} on white.'}\n" + TABLE
    table = f"sku,title,front,detail\nA,{value},{URL},\nB,Nan's {value} mug,{URL},\n"
    with pytest.raises(ManifestError) as caught:
        jobs(text, table=table)
    (problem,) = caught.value.problems
    assert problem.what == (f"row 2: column 'title': \"{value}\" would go into the prompt 'white'")
    assert jobs(PROMPT + TABLE, table=table)


def test_html_in_prompts_is_reported_once_and_taken_out_by_a_filter(
    jobs: Expand, model: Model
) -> None:
    table = (
        f"sku,title,front,detail\nA,Mug & lid,{URL},\nB,T&amp;C <b>mug</b>,{URL},\n"
        f"C,&#8217;,{URL},\n"
    )
    text = "prompts: {{a: '{{{{ title{0} }}}}!', b: '{{{{ title{0} }}}}?'}}\n" + TABLE.replace(
        "{", "{{"
    ).replace("}", "}}")
    tally = Tally()
    jobs(text.format(""), table=table, tally=tally)
    (note,) = tally.notes
    assert note.startswith("codes or tags of HTML in prompts, first in row 3: ")
    assert note.endswith("write {{ title | plain }} in the prompt")
    tally = Tally()
    found = jobs(text.format(" | plain"), table=table, tally=tally)
    assert tally.notes == []
    assert [job.input["prompt"] for job in found[::2]] == ["Mug & lid!", "T&C mug!", "\u2019!"]


# Pictures


def test_the_scheme_of_a_url_may_be_written_in_capitals(jobs: Expand) -> None:
    lower, upper = jobs(PROMPT + f"images: {{a: {URL}, b: {URL.replace('https', 'HTTPS')}}}\n")
    assert lower.fingerprint == upper.fingerprint


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@cdn.example.com:8443/a.png?x=1#y",
        "https://[2001:db8::1]:443/a.png",
        "https://cdn.example.com",
        "https://cdn.example.com?x",
        "https://bücher.example/é.png",
    ],
)
def test_every_https_url_is_taken_as_it_is(jobs: Expand, url: str) -> None:
    (job,) = jobs(PROMPT + f'images: {{mug: "{url}"}}\n')
    assert job.input["image_urls"] == [url]


@pytest.mark.parametrize(
    "url", ["https://", "https:///a", "https://a b/", "https://u@/", "https://:80/"]
)
def test_a_url_without_host_or_with_blanks_is_refused(jobs: Expand, url: str) -> None:
    with pytest.raises(ManifestError, match="is not a valid URL"):
        jobs(PROMPT + f'images: {{mug: "{url}"}}\n')


def test_local_pictures_are_taken_where_the_service_can_read_them(
    jobs: Expand, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mug.jpg").write_bytes(photo())
    text = PROMPT + "images: {mug: photos/../photos/mug.jpg}\n"
    (job,) = jobs(text, local_pictures=True)
    assert job.input["image_urls"] == [(tmp_path / "photos/mug.jpg").as_uri()]
    with pytest.raises(ManifestError, match="the service cannot read local files"):
        jobs(text, local_pictures=False)


def test_local_pictures_of_a_table_are_looked_for_beside_the_table(
    jobs: Expand, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mug.jpg").write_bytes(photo())
    text = PROMPT + TABLE.replace("t.csv", "data/t.csv")
    (row,) = jobs(
        text, table="sku,front,detail\nA,mug.jpg,\n", name="data/t.csv", local_pictures=True
    )
    assert row.input["image_urls"] == [(tmp_path / "data/mug.jpg").as_uri()]


@pytest.mark.parametrize("name", ["nothing.png", "a" * 9999, "a\\0b"])
def test_a_local_picture_that_is_not_there_is_a_problem(jobs: Expand, name: str) -> None:
    with pytest.raises(ManifestError, match="there is no picture"):
        jobs(PROMPT + f'images: {{mug: "{name}"}}\n', local_pictures=True)


def test_a_local_picture_is_known_by_its_content(jobs: Expand, tmp_path: Path) -> None:
    text = PROMPT + "images: {a: a.jpg, b: b.jpg}\n"
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo())
    first, moved = jobs(text, local_pictures=True)
    assert first.fingerprint == moved.fingerprint
    (tmp_path / "b.jpg").write_bytes(photo(1))
    again, edited = jobs(text, local_pictures=True)
    assert again.fingerprint == first.fingerprint
    assert edited.fingerprint != moved.fingerprint


def test_a_prompt_that_looks_like_a_file_is_only_text(jobs: Expand) -> None:
    (job,) = jobs("prompts: {white: 'file:///etc/nothing'}\n" + IMAGE)
    assert job.input["prompt"] == "file:///etc/nothing"


# Identity

SIGNED = {
    "S3": "X-Amz-Algorithm=A&X-Amz-Credential={0}&X-Amz-Date={0}&X-Amz-Signature={0}",
    "S3, version 2": "AWSAccessKeyId={0}&Expires={0}&Signature={0}",
    "Google": "X-Goog-Algorithm=A&X-Goog-Credential={0}&X-Goog-Date={0}&X-Goog-Signature={0}",
    "CloudFront": "Expires={0}&Signature={0}&Key-Pair-Id={0}",
    "CloudFront, custom policy": "Policy={0}&Signature={0}&Key-Pair-Id={0}",
    "Azure": "sv={0}&st={0}&se={0}&sr=b&sp=r&sig={0}",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_signing_a_url_again_buys_nothing_new(jobs: Expand, query: str) -> None:
    text = PROMPT + f"inputs: {{mask: {URL}?{query}, more: [{{a: {URL}?{query}}}]}}\n"
    text += f"images: {{mug: {URL}?{query}}}\n"
    (monday,) = jobs(text.replace("{0}", "20260302"), using=Model("a/b"))
    (tuesday,) = jobs(text.replace("{0}", "20260303"), using=Model("a/b"))
    assert monday.fingerprint == tuesday.fingerprint
    assert monday.input != tuesday.input
    assert "20260302" in monday.input["image_urls"][0]
    assert "20260302" in monday.input["mask"]


@pytest.mark.parametrize("query", ["v=2", "token=x", "Expires=1", "v=2&w=3", "sig"])
def test_any_other_query_tells_two_pictures_apart(jobs: Expand, query: str) -> None:
    if query == "sig":
        query = "sig=a&file=2"
    plain, other = jobs(PROMPT + f"images: {{a: {URL}, b: '{URL}?{query}'}}\n")
    assert plain.fingerprint != other.fingerprint


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def shuffled(value: Any, dice: random.Random) -> Any:
    """Return the same JSON with the keys of every mapping in another order."""
    if isinstance(value, dict):
        names = list(value)
        dice.shuffle(names)
        return {name: shuffled(value[name], dice) for name in names}
    return [shuffled(item, dice) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.randoms(use_true_random=False))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(
    input_: dict[str, Any], dice: random.Random
) -> None:
    assert fingerprint("a/b", input_, 1) == fingerprint("a/b", shuffled(input_, dice), 1)


@given(
    st.dictionaries(st.text(), VALUES, min_size=1, max_size=5),
    st.dictionaries(st.text(), VALUES, min_size=1, max_size=5),
)
def test_a_fingerprint_differs_where_any_value_differs(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint("a/b", one, 1) == fingerprint("a/b", other, 1)) is same
    assert fingerprint("a/b", one, 1) != fingerprint("a/b", one, 2)
    assert fingerprint("a/b", one, 1) != fingerprint("a/c", one, 1)
    for name, value in one.items():
        changed = {**one, name: [value]}
        assert fingerprint("a/b", changed, 1) != fingerprint("a/b", one, 1)


def test_an_edited_prompt_changes_the_fingerprint_of_its_job_and_of_no_other(jobs: Expand) -> None:
    before = jobs("prompts: {white: a, beach: b}\n" + IMAGE)
    after = jobs("prompts: {white: a!, beach: b}\n" + IMAGE)
    assert [x.fingerprint == y.fingerprint for x, y in zip(before, after, strict=True)] == [
        False,
        True,
    ]


def test_a_renamed_job_keeps_its_fingerprint(jobs: Expand) -> None:
    (before,) = jobs(PROMPT + IMAGE)
    (after,) = jobs(PROMPT.replace("white:", "plain:") + IMAGE.replace("mug:", "cup:"))
    assert before.key != after.key
    assert before.fingerprint == after.fingerprint


# Clashes


def test_of_several_jobs_with_one_path_the_first_two_are_named(jobs: Expand) -> None:
    text = "prompts: {a: x, b: y, c: z}\noutput: {path: '{{ image }}'}\n"
    with pytest.raises(ManifestError) as caught:
        jobs(text + IMAGE)
    assert problems(caught) == ["the jobs 'mug/a' and 'mug/b' would both write 'mug'"]


def test_paths_that_differ_only_in_case_or_accents_collide(jobs: Expand) -> None:
    text = f"images: {{Mug: {URL}, mug: {URL}, café: {URL}, 'cafe\u0301': {URL}}}\n"
    with pytest.raises(ManifestError) as caught:
        jobs(PROMPT + text)
    assert problems(caught) == [
        (
            "the jobs 'Mug/white' and 'mug/white' would both write 'mug/white':"
            " disks may take 'Mug/white' and 'mug/white' for one name"
        ),
        (
            "the jobs 'café/white' and 'café/white' would both write 'café/white':"
            " disks may take 'caf\\xe9/white' and 'cafe\\u0301/white' for one name"
        ),
    ]


def test_further_outputs_of_one_job_may_collide_with_another_job(jobs: Expand) -> None:
    text = "prompts: {white: a, white-2: b}\ninputs: {num_images: 2}\n"
    with pytest.raises(ManifestError) as caught:
        jobs(text + IMAGE)
    assert problems(caught) == [
        "the jobs 'mug/white' and 'mug/white-2' would both write 'mug/white-2'"
    ]


def test_an_absurd_number_of_outputs_costs_no_memory(jobs: Expand) -> None:
    (job,) = jobs(PROMPT + IMAGE + "inputs: {num_images: 1000000000000}\n", using=Model("a/b"))
    assert job.outputs == 10**12


def test_a_collision_of_every_row_stops_early_and_names_the_first_two(jobs: Expand) -> None:
    rows = "".join(f"HL-{number},{URL},\n" for number in range(100))
    text = PROMPT + TABLE + "output: {path: '{{ prompt }}'}\n"
    with pytest.raises(ManifestError) as caught:
        jobs(text, table="sku,front,detail\n" + rows)
    assert problems(caught) == ["the jobs 'HL-0/white' and 'HL-1/white' would both write 'white'"]


def test_rows_with_problems_do_not_hide_two_jobs_with_one_key(jobs: Expand) -> None:
    with pytest.raises(ManifestError) as caught:
        jobs(
            PROMPT + TABLE + "matrix: {seed: [1, x]}\n",
            table=f"sku,front,detail\nA,{URL},\nA,{URL},\n",
        )
    assert problems(caught) == [
        "'seed' is \"x\", not a whole number",
        "row 3: the id 'A' is that of row 2 too",
    ]


def test_a_row_with_more_pictures_than_the_model_takes_is_told_by_its_number(jobs: Expand) -> None:
    pictures = {"type": "array", "format": "image_uris", "maxItems": 1}
    single = Model("a/b", schema={"properties": {"prompt": {}, "images": pictures}})
    with pytest.raises(ManifestError) as caught:
        jobs(PROMPT + TABLE, using=single, table=f"sku,front,detail\nA,{URL},\nB,{URL},{URL}\n")
    assert problems(caught) == ["row 3: 'images' has 2 values, more than 1"]


def test_jobs_whose_hashes_clash_by_chance_come_out_all_the_same(
    jobs: Expand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suspicious:
        """Takes every other text for one it has seen, as a clash of hashes would."""

        def __init__(self) -> None:
            self.count = 0

        def add(self, _: str) -> bool:
            self.count += 1
            return self.count % 2 == 0

    text = (
        "prompts: {a: x, b: y, c: z, d: w, e: v}\nmatrix: {seed: [1, 2, 3, 4, 5, 6, 7, 8]}\n"
        + IMAGE
    )
    expected = jobs(text)
    monkeypatch.setattr(batch_runner.jobs.clashes, "Distinct", Suspicious)
    assert sorted(job.key for job in jobs(text)) == sorted(job.key for job in expected)


# The stream


def write_table(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("sku,title,front,detail\n")
        file.writelines(f"HL-{number},mug {number},{URL}?v={number},\n" for number in range(rows))


BULK = "prompts: {white: 'The {{ title }} on white.'}\n" + TABLE + '  where: "{{ title != sku }}"\n'


def test_the_first_job_comes_out_after_one_row(
    write_manifest: Write, tmp_path: Path, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def watched(path: Path, form: TableForm, notes: list[str]) -> Iterator[Row]:
        for row in read_rows(path, form, notes):
            read.append(row.number)
            yield row

    write_table(tmp_path / "t.csv", 1000)
    monkeypatch.setattr(batch_runner.jobs.product, "read_rows", watched)
    stream = expand(load_manifest(write_manifest(BULK)), models, local_pictures=False)
    assert read == []
    assert [job.row for job in itertools.islice(stream, 3)] == [2, 3, 4]
    assert read == [2, 3, 4]


def test_a_table_costs_no_memory_but_the_hashes_of_keys_and_paths(
    write_manifest: Write, tmp_path: Path, models: dict[str, Model]
) -> None:
    def peak_bytes(rows: int) -> int:
        write_table(tmp_path / "t.csv", rows)
        manifest = load_manifest(write_manifest(BULK))
        tracemalloc.start()
        count = sum(1 for _ in expand(manifest, models, local_pictures=False))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == rows
        return peak

    peak_bytes(4_000)  # fills what Python keeps to use again
    # At both sizes the set of hashes, which grows by doubling, is full to the same part.
    assert peak_bytes(12_000) - peak_bytes(6_000) < 70 * 6_000


CATEGORIES = f"sku,category,front_url\nA-1,lamp,{URL}\nA-2,mug,{URL}\nB-1,mug,{URL}\nB-2,,{URL}\n"
FROM_CATEGORIES = 'images: {from: t.csv, id: "{{ sku }}", urls: "{{ front_url }}"}\n'


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("{{ category in ['lamp', 'cup'] }}", ["A-1/b"]),
        ("{{ category == '' }}", ["B-2/b"]),
        ("{{ row['category'] and image.startswith('A') }}", ["A-1/b", "A-2/b"]),
    ],
)
def test_a_prompt_may_be_for_some_pictures_only(
    jobs: Expand, tmp_path: Path, where: str, keys: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(CATEGORIES, encoding="utf-8")
    prompts = f'prompts:\n  a: on white\n  b: {{prompt: in use, where: "{where}"}}\n'
    found = [job.key for job in jobs(prompts + FROM_CATEGORIES)]
    assert [key for key in found if key.endswith("/b")] == keys
    assert sum(key.endswith("/a") for key in found) == 4


@pytest.mark.parametrize(
    ("exclude", "ids"),
    [
        ("{image: 'A-*'}", ["B-1", "B-2"]),
        ("{category: mug}", ["A-1", "B-2"]),
        ("{category: 'm*', image: B-1}", ["A-1", "A-2", "B-2"]),
        ("{category: ''}", ["A-1", "A-2", "B-1"]),
    ],
)
def test_exclude_takes_globs_and_columns(
    jobs: Expand, tmp_path: Path, exclude: str, ids: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(CATEGORIES, encoding="utf-8")
    found = jobs(f"{PROMPT}{FROM_CATEGORIES}exclude: [{exclude}]\n")
    assert [job.image_id for job in found] == ids


def test_a_picture_that_is_an_object_keeps_its_address_however_many_it_has() -> None:
    # Another choice would be another address, and so another job, which would be bought again.
    found = listed_pictures([{"src": "https://x/b.png", "url": "https://x/a.png"}, {"src": "c"}])
    assert found == ["https://x/a.png", "c"]
