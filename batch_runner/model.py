"""One model: what it takes, where prompt and pictures go, what a job costs.

Hides the vendor's dialect of JSON Schema. What always holds: a cost that cannot be told is unknown
(None), never free, and a price that is only a floor tells none; defaults in a schema are examples
and are never sent for the user. A model without any schema is usable, unchecked, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from batch_runner.manifest.validation import Finding, Validator

_IMAGE_FORMATS = ("image_uri", "image_uris")
_USUAL_IMAGE_NAMES = ("image_urls", "images", "image_url", "image")
_KEYS_OF_THE_DIALECT = ("validations", "format", "default", "example", "examples", "order")


ONE_PICTURE_EACH = "give one URL for each image id"
"""What to do about too many pictures, where they are written out."""


class ModelInputError(ValueError):
    """Prompt or pictures cannot be placed into the model's input; says why, and a hint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Model:
    """One model of the service, as far as it is known.

    `schema_source` says where its schema came from, None where there is none. `price_usd` is that
    of one `price_unit` ("output" or "second"); where `price_is_floor`, a job may cost more.
    """

    def __init__(
        self,
        model_id: str,
        *,
        schema: Mapping[str, Any] | None = None,
        schema_source: str | None = None,
        price_usd: Decimal | None = None,
        price_unit: str = "output",
        price_is_floor: bool = False,
        prompt_as: str | None = None,
        images_as: str | Mapping[str, int] | None = None,
    ) -> None:
        self.model_id = model_id
        self.price_usd = price_usd
        self.price_unit = price_unit
        self.price_is_floor = price_is_floor
        self.schema_source = schema_source if schema is not None else None
        # Compiled first: what is no schema has no properties to look into either.
        self._validator = None if schema is None else Validator(_standard(schema))
        self._properties = _properties(schema or {})
        self._required = tuple((schema or {}).get("required", ()))
        self.prompt_property = prompt_as or self._find_prompt()
        self._images_as = images_as or self._find_images()
        # Asked for every job, and the same for all of them.
        self._taking_one = {name for name, schema in self._properties.items() if _takes_one(schema)}
        self._usual_outputs = self._properties.get("num_images", {}).get("default", 1)

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
        return self._count(input_) or 1

    def _count(self, input_: Mapping[str, Any]) -> int | None:
        """Return how many outputs an input asks for; None where that cannot be told."""
        count = input_.get("num_images")
        count = self._usual_outputs if count is None else count
        if type(count) is int and count > 0:
            return count  # nearly always
        try:
            # Not by its type: 4.0 is an integer to JSON Schema, and a table's cell is text.
            number = Decimal(str(count))
        except InvalidOperation:
            return None
        is_count = number.is_finite() and number == number.to_integral_value() and number > 0
        return int(number) if is_count else None

    def duration_s(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return how many seconds of film an input asks for; None where the model chooses."""
        default = self._properties.get("duration", {}).get("default")
        try:
            duration_s = Decimal(str(input_.get("duration", default)))
        except InvalidOperation:
            return None
        return duration_s if duration_s.is_finite() and duration_s > 0 else None

    def estimate_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input is expected to cost; None where unknown."""
        if self.price_is_floor or self._count(input_) is None:
            return None
        return self.least_usd(input_)

    def least_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input costs at the least; None where unknown."""
        if self.price_usd is None:
            return None
        price_usd = self.price_usd * self.outputs(input_)
        if self.price_unit == "output":
            return price_usd
        duration_s = self.duration_s(input_) if self.price_unit == "second" else None
        return None if duration_s is None else price_usd * duration_s

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
            f"say which with images_as, such as {self._images_as_example()}",
        )

    def _images_as_example(self) -> str:
        names = [name for name, schema in self._properties.items() if _takes_image(schema)]
        places = ", ".join(f"{name}: {number}" for number, name in enumerate(names, start=1))
        return f"images_as: {{{places}}}"

    def _one_or_many(self, name: str, urls: list[str]) -> str | list[str]:
        """Send a string where the property is one, a list elsewhere."""
        if name not in self._taking_one:
            return urls
        if len(urls) > 1:
            hint = ONE_PICTURE_EACH
            if sum(map(_takes_image, self._properties.values())) > 1:
                hint = f"say which goes where: {self._images_as_example()}; or {hint}"
            raise ModelInputError(f"'{name}' takes one picture, here are {len(urls)}", hint)
        return urls[0]


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of each input; one that allows everything (`true`) says nothing."""
    properties = schema.get("properties", {})
    return {name: node if isinstance(node, dict) else {} for name, node in properties.items()}


def _forms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the alternatives of an input that may have several forms, such as text or nothing."""
    yield schema
    for name in ("anyOf", "oneOf", "allOf"):
        forms = schema.get(name)
        for form in forms if isinstance(forms, list) else ():
            if isinstance(form, dict):
                yield form


def _takes_image(schema: Mapping[str, Any]) -> bool:
    for form in _forms(schema):
        items = form.get("items")
        if form.get("format") in _IMAGE_FORMATS or (
            isinstance(items, dict) and items.get("format") in _IMAGE_FORMATS
        ):
            return True
    return False


def _takes_one(schema: Mapping[str, Any]) -> bool:
    """Tell whether an input takes text and no list; where it says neither, by its format."""
    forms = list(_forms(schema))
    kinds = {kind for form in forms for kind in _kinds(form)}
    if "array" in kinds or any("items" in form for form in forms):
        return False
    return "string" in kinds or any(form.get("format") == _IMAGE_FORMATS[0] for form in forms)


def _kinds(schema: Mapping[str, Any]) -> list[Any]:
    kinds = schema.get("type")
    return kinds if isinstance(kinds, list) else [kinds]


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
