"""The models the sandbox serves: what they are called, take and cost.

Hides where the input schemas come from (the files shipped in `batch_runner/schema/models`) and how
the vendor's dialect of JSON Schema is checked. Names, categories and prices are the sandbox's own:
plausible, not the vendor's price list.

Always holds: an input that `check_input` passes can be rendered and priced; every model whose
schema ships is here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from batch_runner.sandbox import answers

AnswerStyle = Literal["fields", "plural", "text", "list"]
Output = Literal["image", "video", "audio"]
Kind = Literal["model", "workflow", "inference"]

_SECONDS_WHERE_THE_MODEL_CHOOSES = 5
_PRICE_OF_UNKNOWN_USD = Decimal("0.05")
_COUNTS = ("num_images", "number_of_images", "max_images", "num_outputs", "batch_size", "n")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model. `answer_style` is the form of `output`: the contract knows four of them.

    `resolution` is that of a model whose name says it, and whose input does not; `own_schema` is
    that of a model whose schema does not ship; without a price, only the sandbox's user knows it.
    """

    model_id: str
    display_name: str
    categories: tuple[str, ...]
    price_usd: Decimal | None
    description: str = ""
    kind: Kind = "model"
    price_unit: Literal["output", "second"] = "output"
    is_floor: bool = False
    answer_style: AnswerStyle = "fields"
    resolution: str | None = None
    own_schema: Mapping[str, Any] | None = None

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """Return what the model takes, in the vendor's dialect."""
        return load_input_schema(self.model_id) if self.own_schema is None else self.own_schema

    @property
    def output(self) -> Output:
        """Say what the model makes; of one that is not known, by its name."""
        known = _load_facts(self.model_id).get("output")
        if known == "video" or "video" in self.model_id:
            return "video"
        return "audio" if "audio" in self.model_id else "image"

    @property
    def pricing_note(self) -> str:
        """Return what the price list says beside the price."""
        if self.is_floor:
            return "A base price: resolution, web search and others can cost more."
        return f"Fixed price per {self.price_unit}."


_SEEDANCE: tuple[tuple[str, str, str, str, bool, AnswerStyle], ...] = (
    ("image-to-video", "Image to Video", "1080p", "0.18", False, "fields"),
    ("image-to-video", "Image to Video", "4k", "0.40", False, "fields"),
    ("text-to-video", "Text to Video", "1080p", "0.18", False, "plural"),
    ("text-to-video", "Text to Video", "4k", "0.40", False, "plural"),
    ("reference-to-video", "Reference to Video", "1080p", "0.20", True, "fields"),
)
_EDIT = ("image-to-image", "image-edit")
# What multiplies a base price: whoever takes that for the whole price shall notice.
_DEARER: Mapping[str, Mapping[object, Decimal]] = {
    "resolution": {"2K": Decimal(2), "4K": Decimal(3), "1080p": Decimal(2)},
    "enable_web_search": {True: Decimal("1.5")},
}
_TEXT: Mapping[str, Any] = {"type": "string"}
_SEED: Mapping[str, Any] = {"type": "integer", "minimum": 0, "default": 0}
_MODELS = (
    Model(
        model_id="google/nano-banana-2/edit",
        display_name="Nano Banana 2 Edit",
        categories=_EDIT,
        price_usd=Decimal("0.05"),
        is_floor=True,
    ),
    Model(
        model_id="google/nano-banana-2-lite/edit",
        display_name="Nano Banana 2 Lite Edit",
        categories=_EDIT,
        price_usd=Decimal("0.02"),
    ),
    Model(
        model_id="google/nano-banana-2-lite/text-to-image",
        display_name="Nano Banana 2 Lite",
        categories=("text-to-image",),
        price_usd=Decimal("0.02"),
    ),
    Model(
        model_id="bytedance/seedream-5.0-pro/image-to-image",
        display_name="Seedream 5.0 Pro",
        categories=_EDIT,
        price_usd=Decimal("0.04"),
        is_floor=True,
    ),
    Model(
        model_id="bytedance/seedream-4-0/edit",
        display_name="Seedream 4.0 Edit",
        categories=_EDIT,
        price_usd=Decimal("0.03"),
        answer_style="list",
    ),
    Model(
        model_id="bytedance/seedream-4-5/edit",
        display_name="Seedream 4.5 Edit",
        categories=_EDIT,
        price_usd=Decimal("0.04"),
    ),
    Model(
        model_id="blackforestlabs/flux-1-kontext/pro/edit",
        display_name="FLUX.1 Kontext Pro Edit",
        categories=_EDIT,
        price_usd=Decimal("0.04"),
        answer_style="text",
    ),
    Model(
        model_id="wan-ai/wan-3.0/image-to-video",
        display_name="Wan 3.0",
        categories=("image-to-video",),
        price_usd=Decimal("0.08"),
        price_unit="second",
        is_floor=True,
    ),
    Model(
        model_id="wan-ai/wan-3.0-prime/image-to-video",
        display_name="Wan 3.0 Prime",
        categories=("image-to-video",),
        price_usd=Decimal("0.12"),
        price_unit="second",
        is_floor=True,
        answer_style="list",
    ),
    *(
        Model(
            model_id=f"bytedance/seedance-2.5/{category}/{resolution}",
            display_name=f"Seedance 2.5 {title}, {resolution}",
            categories=(category,),
            price_usd=Decimal(price_usd),
            price_unit="second",
            is_floor=is_floor,
            answer_style=style,
            resolution=resolution,
        )
        for category, title, resolution, price_usd, is_floor, style in _SEEDANCE
    ),
    Model(
        model_id="blackforestlabs/flux-3/text-to-video",
        display_name="FLUX.3 Video",
        categories=("text-to-video",),
        price_usd=Decimal("0.60"),
        is_floor=True,
        answer_style="text",
    ),
    Model(
        model_id="sandbox/speech/text-to-audio",
        display_name="Sandbox Speech",
        description="A sound for a text; not a model of the service.",
        categories=("text-to-audio",),
        price_usd=Decimal("0.01"),
        own_schema={
            "properties": {"prompt": _TEXT, "seed": _SEED, "voice_url": _TEXT},
            "required": ["prompt"],
        },
    ),
    Model(
        model_id="sandbox/lora/text-to-image",
        display_name="Sandbox LoRA",
        description="A picture in a style that was trained; not a model of the service.",
        kind="inference",
        categories=("text-to-image",),
        price_usd=Decimal("0.03"),
        own_schema={
            "properties": {
                "prompt": _TEXT,
                "seed": _SEED,
                "lora": {"type": "object", "properties": {"path": _TEXT}, "required": ["path"]},
            },
            "required": ["prompt", "lora"],
        },
    ),
    Model(
        model_id="sandbox/product-shots",
        display_name="Sandbox Product Shots",
        description="Several edits in one go; not a model of the service.",
        kind="workflow",
        categories=("image-to-image",),
        price_usd=Decimal("0.10"),
        answer_style="plural",
        own_schema={
            "properties": {
                "prompt": _TEXT,
                "image_url": {"type": "string", "format": "image_uri"},
                "seed": _SEED,
            },
            "required": ["prompt", "image_url"],
        },
    ),
)


class Catalog:
    """The models by model_id, in the order in which they are listed."""

    def __init__(
        self,
        price_usd: Decimal | None = None,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        further = (_make_unknown(*entry) for entry in (schemas or {}).items())
        self._models = {model.model_id: model for model in (*further, *_MODELS)}
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}
        self._price_usd = price_usd

    def find(self, model_id: str) -> Model | None:
        """Find a model by its exact model_id."""
        return self._models.get(model_id)

    def search(self, text: str = "", category: str = "", kind: str = "") -> Iterator[Model]:
        """List the models whose names or description hold the text; an empty text means any."""
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
            "description": model.description or f"{model.display_name}, as the sandbox plays it.",
            "model_url": f"https://www.runcomfy.com/models/{model.model_id}",
            "kind": model.kind,
            "categories": model.categories,
            "inputs": list(properties),
            "required_inputs": model.input_schema.get("required", []),
            "base_price_usd": self._find_price(model),
            "price_unit": model.price_unit,
            "pricing_note": model.pricing_note,
        }
        if model.price_usd is None:
            del document["base_price_usd"], document["pricing_note"]
        return document | {"input_schema": model.input_schema} if with_schema else document

    def price(self, model: Model, model_input: Mapping[str, Any]) -> Decimal:
        """Compute what a request with this input takes from the balance."""
        whole = complete_input(model, model_input)
        price_usd = self._find_price(model) * count_outputs(model_input)
        if model.price_unit == "second":
            price_usd *= _count_seconds(whole)
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
        raise answers.invalid_input(message, list(problem.instance_path))

    def _find_price(self, model: Model) -> Decimal:
        return self._price_usd or model.price_usd or _PRICE_OF_UNKNOWN_USD


def _make_unknown(model_id: str, schema: Mapping[str, Any]) -> Model:
    """Make up the rest of a model of which only the schema is known."""
    return Model(
        model_id=model_id,
        display_name=model_id,
        categories=(),
        price_usd=None,
        own_schema=schema,
    )


def complete_input(model: Model, model_input: Mapping[str, Any]) -> dict[str, Any]:
    """Add the schema's defaults for options that were not sent, as the model would.

    Prompt and pictures of a model with names of its own for them come under the usual ones too.
    """
    properties = model.input_schema.get("properties", {})
    rules = {name: rule for name, rule in properties.items() if isinstance(rule, dict)}
    defaults = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    fixed = {} if model.resolution is None else {"resolution": model.resolution}
    whole = defaults | dict(model_input) | fixed
    if model.own_schema is not None:
        asked = {name: value for name, value in model_input.items() if name in rules}
        pictures = [
            asked[name] for name, rule in rules.items() if name in asked and _is_image(rule)
        ]
        texts = [value for name, value in asked.items() if _is_text(rules[name], value)]
        whole.setdefault("prompt", texts[0] if texts else "")
        flat = (one if isinstance(one, list) else [one] for one in pictures)
        whole |= {"image_urls": [url for urls in flat for url in urls]}
    return whole


def _is_image(rule: Mapping[str, Any]) -> bool:
    """Tell whether an input takes pictures."""
    forms = (rule, rule.get("items"))
    return any(isinstance(form, dict) and "image" in str(form.get("format")) for form in forms)


def _is_text(rule: Mapping[str, Any], value: object) -> bool:
    """Tell whether an input was sent free text."""
    return isinstance(value, str) and not {"format", "enum"} & rule.keys()


def count_outputs(model_input: Mapping[str, Any]) -> int:
    """How many outputs an input asks for, by whichever of the usual names."""
    return math.prod(int(model_input.get(name) or 1) for name in _COUNTS)


def _count_seconds(model_input: Mapping[str, Any]) -> Decimal:
    """How long a film an input asks for."""
    try:
        return Decimal(str(model_input["duration"]))
    except (KeyError, InvalidOperation):
        return Decimal(_SECONDS_WHERE_THE_MODEL_CHOOSES)


def name_extension(model: Model, model_input: Mapping[str, Any]) -> str:
    """How the names of a request's output files end."""
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
    kinds = ("image_uri", "video_uri", "audio_uri")
    return jsonschema_rs.Draft202012Validator(
        _translate(schema), validate_formats=True, formats=dict.fromkeys(kinds, _is_reachable)
    )


def _translate(schema: Any) -> Any:
    """Rewrite the vendor's dialect as plain JSON Schema: it writes "float" for "number"."""
    if isinstance(schema, dict):
        standard = {name: _translate(value) for name, value in schema.items()}
        kinds = standard.get("type")
        if isinstance(kinds, list):
            standard["type"] = ["number" if kind == "float" else kind for kind in kinds]
        elif kinds == "float":
            standard["type"] = "number"
        return standard
    return [_translate(part) for part in schema] if isinstance(schema, list) else schema


def _is_reachable(address: str) -> bool:
    """Public HTTPS, or inline as `data:`; the sandbox also takes files of this machine."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return (
        bool(parts.netloc)
        if parts.scheme in ("https", "http")
        else parts.scheme in ("file", "data")
    )
