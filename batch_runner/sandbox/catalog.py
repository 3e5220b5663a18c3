"""The models the sandbox serves: what they are called, take and cost.

Hides where models (`models.json`) and their input schemas (`batch_runner/schema/models`) come from,
and how the vendor's dialect of JSON Schema is checked. Names, categories and prices are plausible,
but not the vendor's.

Always holds: an input without a problem can be rendered and priced; every model whose
schema ships is here.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.resources import files
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from batch_runner.sandbox.pictures import Output

AnswerStyle = Literal["fields", "plural", "text", "list"]

_FLOOR_NOTE = "A base price: resolution, web search and others can cost more."
_MODELS = files("batch_runner.sandbox").joinpath("models.json")
_DEFAULT_SECONDS = 5
_PRICE_OF_UNKNOWN_USD = Decimal("0.05")
_COUNTS = ("num_images", "number_of_images", "max_images", "num_outputs", "batch_size", "n")


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `answer_style` is one of the four forms of `output` in the service's contract.

    `resolution` is set if it is part of the name and not of the input, `own_schema` if no schema
    ships for the model. `price_usd` is None for a model that the sandbox's user has added.
    """

    model_id: str
    display_name: str
    categories: tuple[str, ...]
    price_usd: Decimal | None = None
    description: str = ""
    kind: Literal["model", "workflow", "inference"] = "model"
    price_unit: Literal["output", "second"] = "output"
    is_floor: bool = False
    answer_style: AnswerStyle = "fields"
    resolution: str | None = None
    own_schema: dict[str, Any] | None = None

    @property
    def input_schema(self) -> dict[str, Any]:
        """The schema of the model's input, in the vendor's dialect."""
        return load_input_schema(self.model_id) if self.own_schema is None else self.own_schema

    @property
    def output(self) -> Output:
        """What the model makes, by its name."""
        known = re.search("video|audio", self.model_id)
        return "image" if known is None else cast("Output", known[0])


# Multiplies a floor price. The sandbox charges it, so that people notice that a floor is no price.
_DEARER: Mapping[str, Mapping[object, Decimal]] = {
    "resolution": {"2K": Decimal(2), "4K": Decimal(3), "1080p": Decimal(2)},
    "enable_web_search": {True: Decimal("1.5")},
}


class Catalog:
    """The models by model_id, in the order of the list."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        added = [
            Model(model_id=name, display_name=name, categories=(), own_schema=dict(schema))
            for name, schema in schemas.items()
        ]
        known = msgspec.json.decode(_MODELS.read_bytes(), type=list[Model])
        self._models = {model.model_id: model for model in (*added, *known)}
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def find(self, model_id: str) -> Model | None:
        """Find a model by its exact model_id."""
        return self._models.get(model_id)

    def search(self, text: str = "", category: str = "", kind: str = "") -> Iterator[Model]:
        """List models with the text in their names or description; an empty text matches any."""
        for model in self._models.values():
            words = f"{model.model_id} {model.display_name} {model.description}".casefold()
            fits = kind in ("", model.kind) and category in ("", *model.categories)
            if fits and text.casefold() in words:
                yield model

    def list_categories(self) -> list[str]:
        """List every category once, in alphabetical order."""
        return sorted({name for model in self._models.values() for name in model.categories})

    def describe(self, model: Model, *, with_schema: bool) -> dict[str, Any]:
        """Build the document the service publishes about a model."""
        properties = model.input_schema.get("properties", {})
        document: dict[str, Any] = {
            "model_id": model.model_id,
            "display_name": model.display_name,
            "description": model.description or f"{model.display_name}, imitated by the sandbox.",
            "model_url": f"https://www.runcomfy.com/models/{model.model_id}",
            "kind": model.kind,
            "categories": model.categories,
            "inputs": list(properties),
            "required_inputs": model.input_schema.get("required", []),
            "base_price_usd": model.price_usd,
            "price_unit": model.price_unit,
            "pricing_note": _FLOOR_NOTE if model.is_floor else f"Fixed per {model.price_unit}.",
        }
        if model.price_usd is None:
            del document["base_price_usd"], document["pricing_note"]
        return document | {"input_schema": model.input_schema} if with_schema else document

    def price(self, model: Model, model_input: Mapping[str, Any]) -> Decimal:
        """Compute what a request with this input takes from the balance."""
        whole = complete_input(model, model_input)
        price_usd = (model.price_usd or _PRICE_OF_UNKNOWN_USD) * count_outputs(model_input)
        if model.price_unit == "second":
            price_usd *= Decimal(str(whole.get("duration", _DEFAULT_SECONDS)))
        if model.is_floor:
            for name, factors in _DEARER.items():
                price_usd *= factors.get(whole.get(name), 1)
        return price_usd

    def find_problem(
        self, model: Model, model_input: Mapping[str, Any]
    ) -> jsonschema_rs.ValidationError | None:
        """Find why the service would refuse this input, if so."""
        if model.model_id not in self._validators:
            self._validators[model.model_id] = _build_validator(model.input_schema)
        return next(self._validators[model.model_id].iter_errors(model_input), None)


def complete_input(model: Model, model_input: Mapping[str, Any]) -> dict[str, Any]:
    """Add the schema's defaults for options that were not sent, as the model would."""
    rules = model.input_schema.get("properties", {}).items()
    defaults = {
        name: rule["default"]
        for name, rule in rules
        if isinstance(rule, dict) and "default" in rule
    }
    fixed = {} if model.resolution is None else {"resolution": model.resolution}
    return defaults | dict(model_input) | fixed


def count_outputs(model_input: Mapping[str, Any]) -> int:
    """Return how many outputs an input asks for, under any of the usual names."""
    return math.prod(int(model_input.get(name) or 1) for name in _COUNTS)


def name_extension(model: Model, model_input: Mapping[str, Any]) -> str:
    """Return the extension of a request's output files."""
    picture = str(model_input.get("output_format", "png")).replace("jpeg", "jpg")
    return {"video": "mp4", "audio": "wav", "image": picture}[model.output]


@functools.cache
def load_input_schema(model_id: str) -> dict[str, Any]:
    """Load the input schema that ships for a model, in the vendor's dialect."""
    name = model_id.replace("/", "__") + ".json"
    shipped = files("batch_runner").joinpath("schema", "models", name).read_bytes()
    schema: dict[str, Any] = msgspec.json.decode(shipped)["input_schema"]
    return schema


def _build_validator(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    # The vendor's dialect has "float" for "number".
    standard = msgspec.json.encode(schema).replace(b'"float"', b'"number"')
    kinds = ("image_uri", "video_uri", "audio_uri")
    return jsonschema_rs.Draft202012Validator(
        msgspec.json.decode(standard),
        validate_formats=True,
        formats=dict.fromkeys(kinds, _is_reachable),
    )


def _is_reachable(address: str) -> bool:
    """Accept public addresses and `data:`, and in the sandbox also local files."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    is_web = parts.scheme in ("https", "http") and bool(parts.netloc)
    return is_web or parts.scheme in ("file", "data")
