"""What is known of the service's models: what ships, what the service said and was kept."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch_runner.catalog import (
    file_name,
    keep_published,
    kept_entry,
    read_published,
    shipped_models,
    shipped_schema,
)
from batch_runner.errors import StorageError


def test_a_model_that_does_not_ship_has_no_shipped_schema() -> None:
    assert shipped_schema("nobody/nothing") is None
    assert shipped_schema("../../pyproject") is None
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
    folder = tmp_path / "out" / "models"
    assert kept_entry(folder, "a/b") is None
    keep_published(folder, "a/b", {"input_schema": {"properties": {}}})
    assert kept_entry(folder, "a/b") == {"input_schema": {"properties": {}}}
    assert [path.name for path in folder.iterdir()] == [file_name("a/b")] == ["a__b.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a":' + "[" * 100_000])
def test_a_kept_answer_that_is_damaged_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / file_name("a/b")).write_text(content, encoding="utf-8")
    assert kept_entry(tmp_path, "a/b") is None


def test_where_nothing_can_be_kept_it_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file stands where the folder should", encoding="utf-8")
    with pytest.raises(StorageError, match="models: cannot be written: "):
        keep_published(tmp_path / "models", "a/b", {})
