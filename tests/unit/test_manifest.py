"""A manifest file in, a checked Manifest out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import time
from decimal import Decimal
from pathlib import Path

import jsonschema_rs
import pytest

from batch_runner.errors import InputMissingError, ManifestError
from batch_runner.manifest.form import (
    SCHEMA_PATH,
    FailureLimit,
    Limits,
    Rate,
    Retry,
    TableImages,
    Window,
    manifest_schema,
)
from batch_runner.manifest.loading import load_manifest

Write = Callable[..., Path]

SMALL = "prompts: {white: On white.}\nimages: {mug: https://cdn.example.com/mug.png}\n"
WHOLE = """
name: spring-catalog
inputs: {resolution: 1K}
prompts:
  white: Put the {{ title }} on white.
  beach:
    prompt: Show the {{ title }} on a beach.
    inputs: {aspect_ratio: "4:5"}
images:
  from: ../samples/catalog.csv
  id: "{{ sku }}"
  urls: ["{{ front_url }}", "{{ detail_url }}"]
  where: "{{ status == 'active' }}"
matrix:
  aspect_ratio: ["1:1", "4:5"]
  seed: [1, 2]
exclude:
  - {prompt: beach, aspect_ratio: "1:1"}
repeat: 2
output:
  dir: ../out/spring
  path: "{{ image }}/{{ prompt }}"
  hosts: [cdn.example.com]
limits:
  submits: 100/min
  in_flight: 5
  polls: 7200/h
  downloads: 4
  cost_usd: 0.05
  failures: 20%
retry: {attempts: 3, max_wait_s: 1.5, give_up: 2h, stuck: 45min}
window: {hours: 22:00-06:00, timezone: Europe/Madrid}
price_usd: "0.10"
prompt_as: prompt
images_as: {image_urls: 1}
schema: {properties: {prompt: {type: string}}}
"""


def test_every_key_of_version_1_is_read(write_manifest: Write) -> None:
    path = write_manifest(WHOLE)
    manifest = load_manifest(path)
    assert manifest.path == path
    assert (manifest.name, manifest.model) == ("spring-catalog", "google/nano-banana-2/edit")
    assert manifest.inputs == {"resolution": "1K"}
    white, beach = manifest.prompts
    assert (white.id, white.text.source, white.inputs, white.location) == (
        "white",
        "Put the {{ title }} on white.",
        {},
        ("prompts", "white"),
    )
    assert (beach.inputs, beach.location) == (
        {"aspect_ratio": "4:5"},
        ("prompts", "beach", "prompt"),
    )
    images = manifest.images
    assert isinstance(images, TableImages)
    assert images.path == path.parent / "../samples/catalog.csv"
    assert images.id.source == "{{ sku }}"
    assert [url.source for url in images.urls] == ["{{ front_url }}", "{{ detail_url }}"]
    assert images.where is not None
    assert manifest.matrix == {"aspect_ratio": ["1:1", "4:5"], "seed": [1, 2]}
    assert manifest.exclude == ({"prompt": "beach", "aspect_ratio": "1:1"},)
    assert manifest.repeat == 2
    assert manifest.output.dir == path.parent / "../out/spring"
    assert manifest.output.path is not None
    assert manifest.output.path.source == "{{ image }}/{{ prompt }}"
    assert manifest.output.hosts == ("cdn.example.com",)
    assert manifest.limits == Limits(
        submits=Rate(100, 60.0),
        in_flight=5,
        polls=Rate(7200, 3600.0),
        downloads=4,
        cost_usd=Decimal("0.05"),
        failures=FailureLimit(share=0.2),
    )
    assert manifest.retry == Retry(attempts=3, max_wait_s=1.5, give_up_s=7200.0, stuck_s=2700.0)
    assert manifest.window == Window(time(22), time(6), "Europe/Madrid")
    assert manifest.notes.price_usd == Decimal("0.10")
    assert (manifest.notes.prompt_as, manifest.notes.images_as) == ("prompt", {"image_urls": 1})
    assert manifest.notes.input_schema == {"properties": {"prompt": {"type": "string"}}}


def test_what_is_left_out_has_the_documented_default(write_manifest: Write) -> None:
    path = write_manifest(SMALL)
    manifest = load_manifest(str(path))
    assert manifest.name == "batch"
    assert manifest.images == {"mug": ["https://cdn.example.com/mug.png"]}
    assert manifest.output.dir == path.parent / "out/batch"
    assert manifest.output.path is None
    assert manifest.repeat == 1
    assert manifest.limits == Limits(
        submits=Rate(5, 1.0),
        in_flight=20,
        polls=Rate(20, 1.0),
        downloads=8,
        cost_usd=None,
        failures=FailureLimit(share=0.5),
    )
    assert manifest.retry == Retry(attempts=6, max_wait_s=60.0, give_up_s=900.0)
    assert manifest.window is None
    assert manifest.notes.price_usd is None


def test_the_schema_tells_editors_the_defaults_that_hold(write_manifest: Write) -> None:
    properties = manifest_schema()["properties"]
    limits, retry = properties["limits"]["properties"], properties["retry"]["properties"]
    stated = (
        f"limits: {json.dumps({k: v['default'] for k, v in limits.items() if 'default' in v})}\n"
    )
    stated += (
        f"retry: {json.dumps({k: v['default'] for k, v in retry.items() if 'default' in v})}\n"
    )
    stated += f"repeat: {properties['repeat']['default']}\n"
    explicit = load_manifest(write_manifest(SMALL + stated))
    assert (explicit.limits, explicit.retry, explicit.repeat) == (Limits(), Retry(), 1)


def test_the_schema_is_valid_and_describes_every_key() -> None:
    schema = manifest_schema()
    jsonschema_rs.Draft202012Validator(schema)
    assert json.loads(SCHEMA_PATH.read_bytes()) == schema
    assert all("description" in node for node in schema["properties"].values())


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "jobs").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_manifest_that_ships_is_valid(path: Path) -> None:
    assert load_manifest(path).prompts


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("20%", FailureLimit(share=0.2)),
        ("2.5%", FailureLimit(share=0.025)),
        ("10", FailureLimit(count=10)),
    ],
)
def test_failures_are_a_share_or_a_count(
    write_manifest: Write, text: str, limit: FailureLimit
) -> None:
    manifest = load_manifest(write_manifest(f"{SMALL}limits: {{failures: {text}}}\n"))
    assert manifest.limits.failures == limit


@pytest.mark.parametrize("text", ["40", "40.00", '"40"'])
def test_money_is_exact(write_manifest: Write, text: str) -> None:
    manifest = load_manifest(write_manifest(f"{SMALL}limits: {{cost_usd: {text}}}\n"))
    assert manifest.limits.cost_usd == 40


def test_a_window_without_a_time_zone_is_the_machines(write_manifest: Write) -> None:
    manifest = load_manifest(write_manifest(SMALL + "window: {hours: '00:30-23:59'}\n"))
    assert manifest.window == Window(time(0, 30), time(23, 59), None)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_schema_beside_the_manifest_is_read(
    write_manifest: Write, tmp_path: Path, wrapped: bool
) -> None:
    schema = {"properties": {"prompt": {"type": "string"}}}
    content = {"model_id": "a/b", "input_schema": schema} if wrapped else schema
    (tmp_path / "model.json").write_text(json.dumps(content), encoding="utf-8")
    assert (
        load_manifest(write_manifest(SMALL + "schema: model.json\n")).notes.input_schema == schema
    )


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a/b"])
def test_a_name_cannot_move_the_output_folder(write_manifest: Write, name: str) -> None:
    with pytest.raises(ManifestError, match="holds no slash"):
        load_manifest(write_manifest(SMALL + f"name: {name}\n"))


def test_a_manifest_that_is_not_there_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        load_manifest(tmp_path / "none.yaml")
