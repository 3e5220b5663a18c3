"""What is known of a model: where prompt and pictures go, what it takes, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from batch_runner.models.catalog import shipped_facts, shipped_models
from batch_runner.models.model import Model
from batch_runner.models.placing import ModelInputError

URLS = ["https://cdn.example.com/1.png", "https://cdn.example.com/2.png"]
TEXT = {"type": "string"}
PICTURE = {"type": "string", "format": "image_uri"}
PICTURES = {"type": "array", "format": "image_uris", "items": {"type": "string"}}
ITEMS = {"type": "array", "items": {"type": "string", "format": "image_uri"}}


def model_with(*required: str, **properties: Any) -> Model:
    schema = {"type": "object", "required": list(required), "properties": properties}
    return Model("a/b", schema=schema, schema_source="service")


@pytest.mark.parametrize("model_id", shipped_models())
def test_every_shipped_schema_is_usable_and_has_a_place_for_the_prompt(model_id: str) -> None:
    model = Model(
        model_id, schema=shipped_facts(model_id).get("input_schema"), schema_source="shipped"
    )
    assert model.has_input(model.prompt_property)
    assert all(model.has_input(name) for name in model.image_properties)
    assert bool(model.image_properties) is ("text-to-" not in model_id)


def test_the_seed_model_takes_one_to_twenty_pictures(model: Model) -> None:
    assert model.place("x", URLS) == {"prompt": "x", "image_urls": URLS}
    assert model.accepts({"prompt": "x", "image_urls": URLS * 10})
    assert [f.what for f in model.findings({"prompt": "x", "image_urls": URLS * 11})] == [
        "'image_urls' has 22 values, more than 20"
    ]


@pytest.mark.parametrize(
    ("properties", "required", "placed"),
    [
        ({"image_url": PICTURE}, (), {"image_url": URLS[0]}),
        ({"frames": PICTURES}, (), {"frames": URLS[:1]}),
        ({"frames": ITEMS}, (), {"frames": URLS[:1]}),
        ({"image_url": PICTURE, "mask": PICTURE}, ("image_url",), {"image_url": URLS[0]}),
        ({"image": TEXT}, (), {"image": URLS[0]}),
        ({"image": {"format": "image_uri"}}, (), {"image": URLS[0]}),
        ({"image": {"type": ["string", "null"], "format": "image_uri"}}, (), {"image": URLS[0]}),
        ({"start": {"anyOf": [PICTURE, {"type": "null"}]}}, (), {"start": URLS[0]}),
        ({"frames": {"anyOf": [ITEMS, {"type": "null"}]}}, (), {"frames": URLS[:1]}),
        ({"frames": {"anyOf": [PICTURE, PICTURES]}}, (), {"frames": URLS[:1]}),
        ({"images": {"type": "array"}}, (), {"images": URLS[:1]}),
        ({"image_urls": True}, (), {"image_urls": URLS[:1]}),
        ({}, (), {"image_urls": URLS[:1]}),
    ],
)
def test_pictures_go_into_the_models_image_property_whatever_its_name(
    properties: dict[str, Any], required: tuple[str, ...], placed: dict[str, Any]
) -> None:
    model = model_with(*required, **({"prompt": TEXT, **properties} if properties else {}))
    assert model.place("x", URLS[:1]) == {"prompt": "x", **placed}
    assert model.image_properties == list(placed)


def test_two_pictures_for_an_input_that_takes_one_are_an_error() -> None:
    with pytest.raises(ModelInputError) as caught:
        model_with(image=TEXT).place("x", URLS)
    assert caught.value.message == "'image' takes one picture, here are 2"
    assert str(caught.value.hint).startswith("give one URL for each image id; in a table, ")


def test_two_pictures_where_the_second_has_an_input_of_its_own_are_told_so() -> None:
    film = model_with("image_url", image_url=PICTURE, end_image_url=PICTURE)
    assert film.place("x", URLS[:1]) == {"prompt": "x", "image_url": URLS[0]}
    with pytest.raises(ModelInputError) as caught:
        film.place("x", URLS)
    assert str(caught.value.hint).startswith(
        "say which goes where: images_as: {image_url: 1, end_image_url: 2};"
        " or give one URL for each image id"
    )


def test_a_model_without_a_place_for_pictures_says_so() -> None:
    model = model_with(prompt=TEXT)
    assert model.place("x", []) == {"prompt": "x"}
    assert model.image_properties == []
    with pytest.raises(ModelInputError, match="the model a/b takes no pictures") as caught:
        model.place("x", URLS)
    assert caught.value.hint == "remove images, or choose a model that edits pictures"


def test_a_model_that_needs_pictures_says_so_where_there_are_none(model: Model) -> None:
    with pytest.raises(ModelInputError, match="edits pictures, and there are none") as caught:
        model.place("x", [])
    assert caught.value.hint == "add images, such as images: {mug: https://…/mug.png}"


def test_several_inputs_for_pictures_ask_for_images_as() -> None:
    with pytest.raises(ModelInputError, match="has several inputs for pictures") as caught:
        model_with(first=PICTURE, last=PICTURE, style=PICTURE).place("x", URLS)
    assert caught.value.hint == (
        "say which with images_as, such as images_as: {first: 1, last: 2, style: 3}"
    )
    with pytest.raises(ModelInputError, match="has several inputs for pictures"):
        model_with("first", "last", first=PICTURE, last=PICTURE).place("x", URLS)


def test_images_as_sends_each_picture_where_it_says() -> None:
    schema: dict[str, Any] = {"properties": {"first": PICTURE, "last": PICTURES}}
    model = Model("a/b", schema=schema, images_as={"first": 1, "last": 2})
    assert model.place("x", URLS) == {"prompt": "x", "first": URLS[0], "last": [URLS[1]]}
    assert model.place("x", URLS[:1]) == {"prompt": "x", "first": URLS[0]}
    assert model.image_properties == ["first", "last"]
    with pytest.raises(ModelInputError, match="there are 3 pictures, but images_as names 2"):
        model.place("x", [*URLS, *URLS[:1]])
    assert Model("a/b", images_as="frames").place("x", URLS) == {"prompt": "x", "frames": URLS}


@pytest.mark.parametrize(
    ("properties", "prompt_as", "name"),
    [
        ({"prompt": TEXT}, None, "prompt"),
        ({"text": TEXT}, None, "text"),
        ({"text": TEXT, "prompt": TEXT}, None, "prompt"),
        ({"caption": TEXT}, "caption", "caption"),
        ({}, None, "prompt"),
    ],
)
def test_the_prompt_goes_into_the_models_text(
    properties: dict[str, Any], prompt_as: str | None, name: str
) -> None:
    model = Model("a/b", schema={"properties": properties}, prompt_as=prompt_as)
    assert model.place("x", []) == {name: "x"}


def test_a_model_without_schema_is_usable_unchecked() -> None:
    model = Model("a/b", schema_source="service")
    assert model.schema_source is None
    assert model.accepts({"anything": object})
    assert list(model.findings({"anything": 1})) == []
    assert model.has_input("anything")
    assert model.place("x", URLS) == {"prompt": "x", "image_urls": URLS}


def test_the_vendors_dialect_is_understood() -> None:
    model = model_with(
        prompt={"type": "string", "order": 1, "example": "x"},
        strength={"type": "float", "minimum": 0, "default": "strong", "format": "slider"},
        scale={"type": ["float", "null"]},
        format={"type": "string", "enum": ["float", "png"]},
        image={
            **PICTURE,
            "validations": [{"validation_rule": "file_size_mb<", "validation_value": 50}],
        },
    )
    assert model.accepts({"prompt": "x", "strength": 0.5, "scale": None, "format": "float"})
    assert {finding.what for finding in model.findings({"strength": "x", "scale": "x"})} == {
        "'strength' is \"x\", not a number",
        "'scale' is \"x\", not a number or empty",
    }
    assert not model.accepts({"format": "jpg"})


def test_unknown_inputs_are_typing_errors_unless_the_schema_allows_them() -> None:
    assert [finding.hint for finding in model_with(seed={}).findings({"sed": 1})] == [
        "did you mean 'seed'?"
    ]
    open_schema = {"properties": {"seed": {}}, "additionalProperties": True}
    assert Model("a/b", schema=open_schema).accepts({"sed": 1})


@pytest.mark.parametrize(
    "schema",
    [{"properties": 5}, {"required": True}, {"type": "floaty"}, {"$ref": "https://x.example/y"}],
)
def test_a_schema_that_is_none_is_a_value_error(schema: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        Model("a/b", schema=schema)


@pytest.mark.parametrize(
    ("input_", "outputs"),
    [
        ({}, 1),
        ({"num_images": 3}, 3),
        ({"num_images": 4.0}, 4),
        ({"num_images": "2"}, 2),
        ({"num_images": None}, 1),
        ({"num_images": 0}, 1),
        ({"num_images": "many"}, 1),
    ],
)
def test_outputs_are_counted_from_what_is_asked_for(input_: dict[str, Any], outputs: int) -> None:
    assert Model("a/b").outputs(input_) == outputs


@pytest.mark.parametrize("count", ["many", 0, -1, 1.5, True, [4]])
def test_a_count_of_outputs_that_is_no_count_has_no_cost_that_a_budget_could_rely_on(
    count: object,
) -> None:
    model = Model("a/b", price_usd=Decimal("0.05"))
    assert model.estimate_usd({"num_images": count}) is None
    assert model.estimate_usd({"num_images": 4.0}) == Decimal("0.20")


def test_outputs_nobody_asked_for_are_counted_as_the_service_makes_them() -> None:
    assert model_with(num_images={"default": 4}).outputs({}) == 4
    assert model_with(num_images=True).outputs({}) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("n", "num_images", "number_of_images", "max_images", "num_outputs", "max_output_images"),
        *("batch_size", "n_samples", "image_count", "numberResults", "num_images_per_prompt"),
        *("videos_to_generate", "variations", "BATCH_COUNT", "quantity"),
    ],
)
def test_outputs_are_counted_whatever_their_input_is_called(name: str) -> None:
    whole = {"type": "integer", "default": 2}
    for schema in (whole, {"anyOf": [{"type": "float"}, {"type": "null"}], "default": 2}):
        model = model_with(**{name: schema})
        assert (model.outputs({name: 3}), model.outputs({})) == (3, 2)
    assert model_with(**{name: {"type": "string", "enum": ["1", "3"]}}).outputs({name: "3"}) == 3
    assert Model("a/b").outputs({name: 3}) == 3
    loose = Model("a/b", schema={"properties": {"seed": {}}, "additionalProperties": True})
    assert loose.outputs({name: 3, "seed": 7}) == 3


def test_outputs_are_counted_by_an_inputs_own_words_where_its_name_tells_nothing() -> None:
    rounds = {"type": "integer", "default": 1, "description": "The number of images to generate."}
    assert model_with(rounds=rounds).outputs({"rounds": 4}) == 4
    references = {"type": "integer", "description": "Number of images taken as a reference."}
    assert model_with(rounds=references).outputs({"rounds": 4}) == 1


@pytest.mark.parametrize(
    "input_",
    [
        {"seed": 7, "num_inference_steps": 28, "num_frames": 81, "image_size": 1024},
        {"guidance_scale": 3.5, "image_strength": 2, "max_input_images": 4, "duration": 5},
        {"images": ["https://cdn.example.com/1.png"], "image": "https://cdn.example.com/1.png"},
        {"width": 512, "safety_tolerance": 6, "prompt": "2", "output_format": "png", "sample": "x"},
    ],
)
def test_other_inputs_are_no_counts_of_outputs(input_: dict[str, Any]) -> None:
    kinds = {int: "integer", float: "float", str: "string", list: "array"}
    model = model_with(**{name: {"type": kinds[type(value)]} for name, value in input_.items()})
    assert model.outputs(input_) == Model("a/b").outputs(input_) == 1
    assert Model("a/b", price_usd=Decimal(1)).estimate_usd(input_) == 1


def test_several_counts_multiply() -> None:
    input_ = {"num_images": 2, "max_images": 3}
    assert Model("a/b").outputs(input_) == 6
    assert (
        model_with(num_images={"type": "integer"}, max_images={"default": 1}).outputs(input_) == 6
    )


def test_the_outputs_of_every_shipped_model_are_told_unless_its_limit_is_off() -> None:
    for model_id in shipped_models():
        schema = shipped_facts(model_id).get("input_schema")
        model = Model(model_id, schema=schema, price_usd=Decimal("0.05"))
        assert (model.outputs({}), model.estimate_usd({})) == (1, Decimal("0.05")), model_id
        names = [name for name in (schema or {})["properties"] if model.outputs({name: 3}) == 3]
        assert names == (["num_images"] if model_id == "google/nano-banana-2/edit" else [])


def test_a_cost_that_an_input_leaves_open_is_unknown_and_says_what_to_write(model: Model) -> None:
    model.price_usd = Decimal("0.05")
    without_limit = {"limit_generations": False, "num_images": 2}
    assert model.estimate_usd(without_limit) is None
    assert model.least_usd(without_limit) == Decimal("0.10")
    assert model.what_is_open(without_limit) == "limit_generations: true"
    assert model.estimate_usd({"limit_generations": True}) == Decimal("0.05")
    untold = model_with(n={"type": "integer"})
    untold.price_usd = Decimal("0.05")
    assert (untold.estimate_usd({}), untold.what_is_open({})) == (None, "n as a number")
    assert untold.estimate_usd({"n": 2}) == Decimal("0.10")


def test_a_price_a_job_is_that_of_a_job_whatever_comes_of_it(model: Model) -> None:
    model.price_usd, model.price_unit = Decimal("0.40"), "job"
    for input_ in ({}, {"num_images": 4}, {"limit_generations": False}):
        assert model.estimate_usd(input_) == model.least_usd(input_) == Decimal("0.40")


def test_an_estimate_is_the_price_of_every_output_or_unknown() -> None:
    three = {"num_images": 3}
    assert Model("a/b", price_usd=Decimal("0.05")).estimate_usd(three) == Decimal("0.15")
    assert Model("a/b").estimate_usd(three) is None
    floor = Model("a/b", price_usd=Decimal("0.05"), price_is_floor=True)
    assert floor.estimate_usd(three) is None
    assert floor.least_usd(three) == Decimal("0.15")


@pytest.mark.parametrize(
    ("duration", "input_", "cost_usd"),
    [
        ({"type": "integer", "default": 5}, {}, "2.50"),
        ({"type": "integer", "default": 5}, {"duration": 12}, "6.0"),
        ({"type": "string", "default": "auto"}, {"duration": "8"}, "4.0"),
        ({"type": "string", "default": "auto"}, {}, None),
        ({"type": "integer"}, {}, None),
        ({"type": "integer"}, {"duration": 4, "n": 2}, "4.0"),
        ({"type": "number"}, {"duration": 0}, None),
        ({"type": "number"}, {"duration": "nan"}, None),
    ],
)
def test_a_price_a_second_is_multiplied_by_the_duration_that_is_known(
    duration: dict[str, Any], input_: dict[str, Any], cost_usd: str | None
) -> None:
    film = Model(
        "a/b",
        schema={"properties": {"duration": duration, "n": {"default": 1}}},
        price_usd=Decimal("0.5"),
        price_unit="second",
    )
    assert film.estimate_usd(input_) == (None if cost_usd is None else Decimal(cost_usd))


def test_a_price_of_an_unknown_unit_tells_no_cost() -> None:
    assert Model("a/b", price_usd=Decimal(1), price_unit="megapixel").estimate_usd({}) is None
