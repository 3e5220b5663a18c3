"""The models the sandbox serves: what they are called, take and cost.

Hides where models (`models.json`) and their input schemas (`batch_runner/schema/models`) come from,
and how the vendor's dialect of JSON Schema is checked. Names, categories and prices are plausible,
but not the vendor's.

Always holds: an input that passes `check_input` can be rendered and priced; every model whose
schema ships is here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from batch_runner.sandbox.answers import ServiceError
from batch_runner.sandbox.pictures import Output

AnswerStyle = Literal["fields", "plural", "text", "list"]

_FLOOR_NOTE = "A base price: resolution, web search and others can cost more."
_DEFAULT_SECONDS = 5
_PRICE_OF_UNKNOWN_USD = Decimal("0.05")
_COUNTS = ("num_images", "number_of_images", "max_images", "num_outputs", "batch_size", "n")


@dataclass(frozen=True, kw_only=True)
class Model:
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
    own_schema: Mapping[str, Any] | None = None

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """The schema of the model's input, in the vendor's dialect."""
        return load_input_schema(self.model_id) if self.own_schema is None else self.own_schema

    @property
    def output(self) -> Output:
        """What the model makes; for an unknown model, guessed from its name."""
        known = _load_facts(self.model_id).get("output")
        if known == "video" or "video" in self.model_id:
            return "video"
        return "audio" if "audio" in self.model_id else "image"


# Multiplies a floor price. The sandbox charges it, so that people notice that a floor is no price.
_DEARER: Mapping[str, Mapping[object, Decimal]] = {
    "resolution": {"2K": Decimal(2), "4K": Decimal(3), "1080p": Decimal(2)},
    "enable_web_search": {True: Decimal("1.5")},
}


@functools.cache
def _load_models() -> list[Model]:
    table = files("batch_runner.sandbox").joinpath("models.json").read_bytes()
    return msgspec.json.decode(table, type=list[Model])


class Catalog:
    """The models by model_id, in the order of the list."""

    def __init__(
        self,
        price_usd: Decimal | None = None,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        added = (
            Model(model_id=model_id, display_name=model_id, categories=(), own_schema=schema)
            for model_id, schema in (schemas or {}).items()
        )
        self._models = {model.model_id: model for model in (*added, *_load_models())}
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}
        self._price_usd = price_usd

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
            "base_price_usd": self._find_price(model),
            "price_unit": model.price_unit,
            "pricing_note": _FLOOR_NOTE if model.is_floor else f"Fixed per {model.price_unit}.",
        }
        if model.price_usd is None:
            del document["base_price_usd"], document["pricing_note"]
        return document | {"input_schema": model.input_schema} if with_schema else document

    def price(self, model: Model, model_input: Mapping[str, Any]) -> Decimal:
        """Compute what a request with this input takes from the balance."""
        whole = complete_input(model, model_input)
        price_usd = self._find_price(model) * count_outputs(model_input)
        if model.price_unit == "second":
            price_usd *= Decimal(str(whole.get("duration", _DEFAULT_SECONDS)))
        if model.is_floor:
            for name, factors in _DEARER.items():
                price_usd *= factors.get(whole.get(name), 1)
        return price_usd

    def check_input(self, model: Model, model_input: Mapping[str, Any]) -> None:
        """Raise ServiceError, pointing to the field, if the service would refuse this input."""
        if model.model_id not in self._validators:
            self._validators[model.model_id] = _build_validator(model.input_schema)
        problem = next(self._validators[model.model_id].iter_errors(model_input), None)
        if problem is None:
            return
        message = problem.message if len(problem.message) <= 300 else problem.message[:297] + "..."
        raise ServiceError(422001, message, field=list(problem.instance_path))

    def _find_price(self, model: Model) -> Decimal:
        return self._price_usd or model.price_usd or _PRICE_OF_UNKNOWN_USD


def complete_input(model: Model, model_input: Mapping[str, Any]) -> dict[str, Any]:
    """Add the schema's defaults for options that were not sent, as the model would.

    If a model has its own names for prompt and pictures, add them under the usual names too.
    """
    properties = model.input_schema.get("properties", {})
    rules = {name: rule for name, rule in properties.items() if isinstance(rule, dict)}
    defaults = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    fixed = {} if model.resolution is None else {"resolution": model.resolution}
    whole = defaults | dict(model_input) | fixed
    if model.own_schema is not None:
        sent = [(value, rules[name]) for name, value in model_input.items() if name in rules]
        texts = [
            v for v, rule in sent if isinstance(v, str) and not {"format", "enum"} & rule.keys()
        ]
        urls = [v for v, rule in sent if "image" in f"{rule.get('format')} {rule.get('items')}"]
        whole.setdefault("prompt", texts[0] if texts else "")
        whole["image_urls"] = [u for v in urls for u in (v if isinstance(v, list) else [v])]
    return whole


def count_outputs(model_input: Mapping[str, Any]) -> int:
    """Return how many outputs an input asks for, under any of the usual names."""
    return math.prod(int(model_input.get(name) or 1) for name in _COUNTS)


def name_extension(model: Model, model_input: Mapping[str, Any]) -> str:
    """Return the extension of a request's output files."""
    if model.output == "video":
        return "mp4"
    if model.output == "audio":
        return "wav"
    output_format = str(model_input.get("output_format", "png"))
    return "jpg" if output_format == "jpeg" else output_format


def load_input_schema(model_id: str) -> dict[str, Any]:
    """Load the input schema that ships for a model, in the vendor's dialect."""
    schema: dict[str, Any] = _load_facts(model_id)["input_schema"]
    return schema


@functools.cache
def _load_facts(model_id: str) -> dict[str, Any]:
    name = model_id.replace("/", "__") + ".json"
    shipped = files("batch_runner").joinpath("schema", "models", name)
    if not shipped.is_file():
        return {}
    facts: dict[str, Any] = msgspec.json.decode(shipped.read_bytes())
    return facts


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
