"""What is known of the service's models: what ships, what the service said and was kept."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batch_runner.errors import StorageError
from batch_runner.models.catalog import (
    SHIPPED_FOLDER,
    file_name,
    keep_published,
    kept_entry,
    read_published,
    shipped_facts,
    shipped_models,
)
from batch_runner.models.model import Model


def test_nothing_ships_about_an_unknown_model() -> None:
    assert shipped_facts("nobody/nothing") == {}
    assert shipped_facts("../../pyproject") == {}
    assert "google/nano-banana-2/edit" in shipped_models()


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        (0.05, Decimal("0.05")),
        ("0.10", Decimal("0.10")),
        (0, Decimal(0)),
        (-1, None),
        ("nan", None),
        (float("inf"), None),
        ("free", None),
        (None, None),
        (True, None),
        ([1], None),
    ],
)
def test_a_price_that_is_missing_or_odd_is_unknown_and_never_free(
    price: object, usd: Decimal | None
) -> None:
    assert read_published({"base_price_usd": price})[1] == usd


@pytest.mark.parametrize("schema", [None, [], "x", {}, {"properties": {}}])
def test_a_published_schema_without_inputs_is_none(schema: object) -> None:
    assert read_published({"input_schema": schema}) == (None, None, "output")


def test_what_the_service_publishes_is_read() -> None:
    schema: dict[str, Any] = {"properties": {"prompt": {}}}
    entry = {"input_schema": schema, "base_price_usd": 1, "price_unit": "second"}
    assert read_published(entry) == (schema, Decimal(1), "second")
    assert read_published({"price_unit": 7})[2] == "output"


def test_what_the_service_told_is_kept_beside_the_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert kept_entry(folder, "a/b") is None
    keep_published(folder, "a/b", {"input_schema": {"properties": {}}})
    assert kept_entry(folder, "a/b") == {"input_schema": {"properties": {}}}
    assert (
        [path.name for path in (folder / "models").iterdir()] == [file_name("a/b")] == ["a__b.json"]
    )


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a":' + "[" * 100_000])
def test_a_kept_answer_that_is_damaged_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file_name("a/b")).write_text(content, encoding="utf-8")
    assert kept_entry(tmp_path, "a/b") is None


def test_where_nothing_can_be_kept_it_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file stands where the folder should", encoding="utf-8")
    with pytest.raises(StorageError, match="models: "):
        keep_published(tmp_path, "a/b", {})


def test_an_answer_that_cannot_be_kept_leaves_nothing_unfinished_behind(tmp_path: Path) -> None:
    in_its_way = tmp_path / "models" / file_name("a/b")
    in_its_way.mkdir(parents=True)
    with pytest.raises(StorageError):
        keep_published(tmp_path, "a/b", {})
    assert list(in_its_way.parent.iterdir()) == [in_its_way]


FACTS = {
    "google/nano-banana-2/edit": ("image", ["image_urls"], "fixed"),
    "google/nano-banana-2-lite/edit": ("image", ["image_urls"], "fixed"),
    "google/nano-banana-2-lite/text-to-image": ("image", [], "fixed"),
    "bytedance/seedream-5.0-pro/image-to-image": ("image", ["image"], "floor"),
    "bytedance/seedream-4-0/edit": ("image", ["images"], None),
    "bytedance/seedream-4-5/edit": ("image", ["images"], None),
    "blackforestlabs/flux-1-kontext/pro/edit": ("image", ["image_url"], None),
    "wan-ai/wan-3.0/image-to-video": ("video", ["image_url"], "floor"),
    "wan-ai/wan-3.0-prime/image-to-video": ("video", ["image_url"], "floor"),
    "bytedance/seedance-2.5/image-to-video/1080p": ("video", ["image"], "fixed"),
    "bytedance/seedance-2.5/image-to-video/4k": ("video", ["image"], "fixed"),
    "bytedance/seedance-2.5/text-to-video/1080p": ("video", [], "fixed"),
    "bytedance/seedance-2.5/text-to-video/4k": ("video", [], "fixed"),
    "bytedance/seedance-2.5/reference-to-video/1080p": ("video", ["images"], "floor"),
    "blackforestlabs/flux-3/text-to-video": ("video", [], "floor"),
}
"""What the vendor's pages say: what comes out, where the pictures go, what the price is."""


def test_the_models_that_ship_are_those_that_are_known() -> None:
    assert shipped_models() == sorted(FACTS)


@pytest.mark.parametrize("model_id", FACTS)
def test_what_ships_of_a_model_names_its_source_and_date_and_agrees_with_it(model_id: str) -> None:
    facts = msgspec.json.decode((SHIPPED_FOLDER / file_name(model_id)).read_bytes())
    assert facts["model_id"] == model_id
    assert facts["source"].startswith("the model's public ")
    assert facts["as_of"] == "2026-09"
    output, pictures, price = FACTS[model_id]
    assert facts["output"] == output
    assert facts.get("price", {}).get("kind") == price
    model = Model(model_id, schema=facts["input_schema"])
    assert model.image_properties == pictures
    url = "https://cdn.example.com/a.png"
    assert model.accepts(model.place("x", [url] if pictures else []))
    assert not model.accepts({})
