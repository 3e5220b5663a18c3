"""What is known of a model: its input schema, where prompt and pictures go, its price.

Hides where the knowledge comes from (the service's own answer, kept beside the ledger; the schemas
that ship; the manifest) and the vendor's dialect of JSON Schema. What always holds: a price that is
missing, negative or not finite is unknown (None), never free; defaults in a schema are examples and
are never sent for the user. A model without any schema is usable, unchecked, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import StorageError
from batch_runner.validation import Finding, Validator

SHIPPED_FOLDER = Path(__file__).parent / "schema" / "models"

_IMAGE_FORMATS = ("image_uri", "image_uris")
_USUAL_IMAGE_NAMES = ("image_urls", "images", "image_url", "image")
_KEYS_OF_THE_DIALECT = ("validations", "format", "default", "example", "examples", "order")


class ModelInputError(ValueError):
    """Prompt or pictures cannot be placed into the model's input; says why, and a hint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Model:
    """One model of the service, as far as it is known.

    `schema_source` says where its schema came from: "service", "shipped", "manifest" or None.
    """

    def __init__(
        self,
        model_id: str,
        *,
        schema: Mapping[str, Any] | None = None,
        schema_source: str | None = None,
        price_usd: Decimal | None = None,
        price_unit: str = "output",
        prompt_as: str | None = None,
        images_as: str | Mapping[str, int] | None = None,
    ) -> None:
        self.model_id = model_id
        self.price_usd = price_usd
        self.price_unit = price_unit
        self.schema_source = schema_source if schema is not None else None
        # Compiled first: what is no schema has no properties to look into either.
        self._validator = None if schema is None else Validator(_standard(schema))
        self._properties = _properties(schema or {})
        self._required = tuple((schema or {}).get("required", ()))
        self.prompt_property = prompt_as or self._find_prompt()
        self._images_as = images_as or self._find_images()

    def __repr__(self) -> str:
        return f"Model({self.model_id!r}, schema from {self.schema_source}, {self.price_usd} USD)"

    def place(self, prompt: str, urls: list[str]) -> dict[str, Any]:
        """Return the part of the input that holds prompt and pictures; raises ModelInputError."""
        placed: dict[str, Any] = {self.prompt_property: prompt}
        if not urls:
            if any(name in self._required for name in self.image_properties):
                raise ModelInputError(
                    f"the model {self.model_id} edits pictures, and there are none",
                    "add images, such as images: {mug: https://…/mug.png}",
                )
            return placed
        if self._images_as is None:
            raise ModelInputError(*self._why_no_image_property())
        if isinstance(self._images_as, str):
            placed[self._images_as] = self._one_or_many(self._images_as, urls)
            return placed
        for name, position in self._images_as.items():
            if position <= len(urls):
                placed[name] = self._one_or_many(name, [urls[position - 1]])
        if len(urls) > len(set(self._images_as.values())):
            raise ModelInputError(
                f"there are {len(urls)} pictures, but images_as names {len(self._images_as)}",
                "name an input for each picture, or leave pictures out",
            )
        return placed

    def has_input(self, name: str) -> bool:
        """Tell whether the model takes an input of that name, as far as is known."""
        return not self._properties or name in self._properties

    @property
    def image_properties(self) -> list[str]:
        """Return the inputs that take the pictures."""
        if self._images_as is None or isinstance(self._images_as, str):
            return [] if self._images_as is None else [self._images_as]
        return list(self._images_as)

    def accepts(self, input_: Mapping[str, Any]) -> bool:
        """Tell whether an input is valid; an unchecked model takes everything."""
        return self._validator is None or self._validator.accepts(input_)

    def findings(self, input_: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield everything the model's schema does not allow in an input."""
        if self._validator is not None:
            yield from self._validator.findings(input_)

    def outputs(self, input_: Mapping[str, Any]) -> int:
        """Return how many outputs an input asks for (what the price is multiplied by)."""
        default = self._properties.get("num_images", {}).get("default", 1)
        count = input_.get("num_images", default)
        return count if isinstance(count, int) and count > 0 else 1

    def estimate_usd(self, outputs: int) -> Decimal | None:
        """Return what a job of so many outputs is expected to cost; None where unknown."""
        if self.price_usd is None or self.price_unit != "output":
            return None
        return self.price_usd * outputs

    def _find_prompt(self) -> str:
        if "prompt" not in self._properties and "text" in self._properties:
            return "text"
        return "prompt"

    def _find_images(self) -> str | None:
        candidates = [name for name, schema in self._properties.items() if _takes_image(schema)]
        if len(candidates) > 1:
            candidates = [name for name in candidates if name in self._required]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            return None
        if not self._properties:
            return "image_urls"
        named = [name for name in _USUAL_IMAGE_NAMES if name in self._properties]
        return named[0] if len(named) == 1 else None

    def _why_no_image_property(self) -> tuple[str, str]:
        if not any(_takes_image(schema) for schema in self._properties.values()):
            return (
                f"the model {self.model_id} takes no pictures",
                "remove images, or choose a model that edits pictures",
            )
        return (
            f"the model {self.model_id} has several inputs for pictures",
            "say which with images_as, such as images_as: {image_url: 1, end_image_url: 2}",
        )

    def _one_or_many(self, name: str, urls: list[str]) -> str | list[str]:
        """Send a string where the property is one, a list elsewhere."""
        if self._properties.get(name, {}).get("type") != "string":
            return urls
        if len(urls) > 1:
            raise ModelInputError(
                f"'{name}' takes one picture, here are {len(urls)}",
                "give one URL for each image id",
            )
        return urls[0]


def read_published(entry: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Decimal | None, str]:
    """Return (input schema, price in USD, price unit) of the service's answer about a model."""
    schema = entry.get("input_schema")
    unit = entry.get("price_unit")
    return (
        schema if isinstance(schema, dict) and schema.get("properties") else None,
        _price(entry.get("base_price_usd")),
        unit if isinstance(unit, str) and unit else "output",
    )


def shipped_schema(model_id: str) -> dict[str, Any] | None:
    """Return the input schema that ships for a model, or None."""
    return _read_schema(SHIPPED_FOLDER / file_name(model_id))


def shipped_models() -> list[str]:
    """Return the ids of all models whose schema ships."""
    return sorted(
        path.name.removesuffix(".json").replace("__", "/") for path in SHIPPED_FOLDER.glob("*.json")
    )


def file_name(model_id: str) -> str:
    """Return the name of the file that keeps what is known of a model."""
    return model_id.replace("/", "__") + ".json"


def keep_published(folder: Path, model_id: str, entry: Mapping[str, Any]) -> None:
    """Keep the service's answer about a model beside the ledger; raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{file_name(model_id)}.part"
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=2))
        unfinished.replace(folder / file_name(model_id))
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error


def kept_entry(folder: Path, model_id: str) -> dict[str, Any] | None:
    """Return the service's answer that an earlier run kept, or None."""
    try:
        return msgspec.json.decode((folder / file_name(model_id)).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def _read_schema(path: Path) -> dict[str, Any] | None:
    try:
        entry = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    schema = entry["input_schema"]
    return schema if isinstance(schema, dict) else None


def _price(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        return None
    return price if price.is_finite() and price >= 0 else None


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of each input; one that allows everything (`true`) says nothing."""
    properties = schema.get("properties", {})
    return {name: node if isinstance(node, dict) else {} for name, node in properties.items()}


def _takes_image(schema: Mapping[str, Any]) -> bool:
    items = schema.get("items")
    return schema.get("format") in _IMAGE_FORMATS or (
        isinstance(items, dict) and items.get("format") in _IMAGE_FORMATS
    )


def _standard(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the vendor's dialect: `float` is a number; unknown inputs are typing errors.

    The service ignores an input that it does not know, and charges. So a schema that does not say
    whether it allows further inputs is taken to forbid them.
    """
    standard = {name: _standard_node(node) for name, node in schema.items()}
    if "properties" in standard:
        standard.setdefault("additionalProperties", False)
    return standard


def _standard_node(node: Any) -> Any:
    if isinstance(node, list):
        return [_standard_node(item) for item in node]
    if not isinstance(node, dict):
        return node
    standard = {
        name: _standard_node(value)
        for name, value in node.items()
        if name not in _KEYS_OF_THE_DIALECT or isinstance(value, dict)
    }
    kinds = standard.get("type")
    if isinstance(kinds, list):
        standard["type"] = ["number" if kind == "float" else kind for kind in kinds]
    elif kinds == "float":
        standard["type"] = "number"
    return standard
