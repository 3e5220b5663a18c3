"""One model: what it takes, where prompt and pictures go, what a job costs.

Hides the vendor's dialect of JSON Schema. What always holds: a cost that cannot be told is unknown
(None), never free, and a price that is only a floor tells none; defaults in a schema are examples
and are never sent for the user. A model without any schema is usable, unchecked, and says so.

Inputs that say how many outputs are wanted are found by the words of their names, and by their
descriptions: `num_images`, `n`, `max_images`, `batch_size`. Not promised: to find one whose schema
tells nothing of the kind.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from batch_runner.manifest.validation import Finding, Validator
from batch_runner.records import digest

_IMAGE_FORMATS = ("image_uri", "image_uris")
_USUAL_IMAGE_NAMES = ("image_urls", "images", "image_url", "image")
_KEYS_OF_THE_DIALECT = ("validations", "format", "default", "example", "examples", "order")

# Of such words, and no others, are the names made of inputs that say how many outputs are wanted.
_COUNTING = frozenset({"n", "num", "number", "count", "amount", "quantity"})
_COUNTED = frozenset({"image", "picture", "output", "result", "video", "sample", "batch"})
_COUNTED |= {"generation", "variation", "variant"}
_AROUND = frozenset({"max", "maximum", "total", "of", "per", "to", "prompt", "request", "generate"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_COUNT_TOLD = re.compile(
    r"number of (?:\w+ )?(?:images|pictures|outputs|results|videos|samples|variations|generations)",
    re.IGNORECASE,
)
_NOT_MADE = re.compile(r"\b(?:input|reference|source|upload)", re.IGNORECASE)
# Inputs that change the picture and not its price.
_SEED = "seed"
_FREE = frozenset({_SEED, "aspect_ratio", "output_format", "safety_tolerance"})
_PROBE_FACTOR = 10
"""The dearest inputs of a model cost at most so many times its published base price."""
_LIMIT = "limit_generations"
"""The seed's switch: where it is off, the prompt's words say how many outputs there are."""


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
    of one `price_unit` ("output", "image", "second" or "job"); with `price_is_floor`, a job may
    cost more. `price_holds_for` lists the values of inputs for which the price is known to be the
    whole price: with any others a job may cost more, too. None: it holds for all.
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
        price_holds_for: Mapping[str, Sequence[Any]] | None = None,
        prompt_as: str | None = None,
        images_as: str | Mapping[str, int] | None = None,
    ) -> None:
        self.model_id = model_id
        self.price_usd = price_usd
        self.price_unit = price_unit
        self.price_is_floor = price_is_floor
        self._price_holds_for = price_holds_for
        self.schema_source = schema_source if schema is not None else None
        # Compiled first: what is no schema has no properties to look into either.
        self._validator = None if schema is None else Validator(_standard(schema))
        self._properties = _properties(schema or {})
        self._required = tuple((schema or {}).get("required", ()))
        self.prompt_property = prompt_as or self._find_prompt()
        self._images_as = images_as or self._find_images()
        # Asked for every job, and the same for all of them.
        self._taking_one = {name for name, schema in self._properties.items() if _takes_one(schema)}
        self._counts = {
            name: schema.get("default")
            for name, schema in self._properties.items()
            if _is_count(name, schema)
        }
        self._is_limited = self._properties.get(_LIMIT, {}).get("default")
        further = (schema or {}).get("additionalProperties", False)
        self._takes_more = not self._properties or further is not False

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
        """Return how many outputs an input asks for at most; of what it does not tell, one."""
        return self._count(input_)[0]

    def what_is_open(self, input_: Mapping[str, Any]) -> str | None:
        """Return how the input must be for its cost to be told, where it leaves that open."""
        name = self._count(input_)[1]
        if name == _LIMIT:
            return f"{_LIMIT}: true"
        if name is None and self.price_unit == "second" and self.duration_s(input_) is None:
            name = "duration"
        return None if name is None else f"{name} as a number"

    def _count(self, input_: Mapping[str, Any]) -> tuple[int, str | None]:
        """Return how many outputs an input asks for, and which input leaves open how many more."""
        is_limited = input_.get(_LIMIT)
        is_open = (self._is_limited if is_limited is None else is_limited) is False
        outputs, open_ = 1, _LIMIT if is_open else None
        for name, default in self._counts.items():
            asked = input_.get(name)
            count = _whole_number(default if asked is None else asked)
            if count is None:
                open_ = name
            else:
                outputs *= count
        if self._takes_more:
            for name, asked in input_.items():
                is_further = asked is not None and name not in self._properties
                if is_further and _names_count(name, is_number=isinstance(asked, int | float)):
                    count = _whole_number(asked)
                    if count is None:
                        open_ = name
                    else:
                        outputs *= count
        return outputs, open_

    def duration_s(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return how many seconds of film an input asks for; None where the model chooses."""
        default = self._properties.get("duration", {}).get("default")
        try:
            duration_s = Decimal(str(input_.get("duration", default)))
        except InvalidOperation:
            return None
        return duration_s if duration_s.is_finite() and duration_s > 0 else None

    def estimate_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input is expected to cost; None if unknown."""
        if self.price_is_floor or not self._has_whole_price(input_):
            return None
        outputs, open_ = self._count(input_)
        if open_ is not None and self.price_unit != "job":
            return None
        return self._cost_usd(input_, outputs)

    def least_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input costs at the least; None if unknown."""
        return self._cost_usd(input_, self.outputs(input_))

    def most_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job certainly costs at most, if only a base price is known; None if none.

        This bounds the one job that is bought to learn the price of its kind.
        """
        is_open = self._count(input_)[1] is not None and self.price_unit != "job"
        least_usd = None if is_open else self.least_usd(input_)
        return least_usd * _PROBE_FACTOR if least_usd else None

    def price_inputs(self, input_: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs that may change the price: all but prompts, pictures and the seed.

        Pictures count by their number. Jobs that are equal in these cost the same.
        """
        found: dict[str, Any] = {}
        for name, value in input_.items():
            if name in (_SEED, self.prompt_property) or name.endswith("prompt"):
                continue
            if name in self.image_properties or _is_address(value):
                found[name] = len(value) if isinstance(value, list) else 1
            else:
                found[name] = value
        return found

    def price_class(self, input_: Mapping[str, Any]) -> str:
        """Return a digest that jobs of one price share."""
        return digest({"model": self.model_id, "inputs": self.price_inputs(input_)})

    def _has_whole_price(self, input_: Mapping[str, Any]) -> bool:
        """Tell whether the price is known to be the whole price for these inputs."""
        holds_for = self._price_holds_for
        if holds_for is None:
            return True
        priced = {*self._counts, _LIMIT, *(("duration",) if self.price_unit == "second" else ())}
        priced |= {self.prompt_property, *self.image_properties, *_FREE}
        for name in {**holds_for, **input_}:
            if name in priced:
                continue
            value = input_.get(name)
            if value is None:
                # The service takes its own default, which may be another one tomorrow.
                value = self._properties.get(name, {}).get("default")
            if value is not None and value not in holds_for.get(name, ()):
                return False
        return True

    def _cost_usd(self, input_: Mapping[str, Any], outputs: int) -> Decimal | None:
        if self.price_usd is None or self.price_unit == "job":
            return self.price_usd
        if self.price_unit in ("output", "image"):
            return self.price_usd * outputs
        duration_s = self.duration_s(input_) if self.price_unit == "second" else None
        return None if duration_s is None else self.price_usd * outputs * duration_s

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


def _is_address(value: Any) -> bool:
    """Tell whether an input is the address of a file, or a list of such."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and "://" in one for one in values)


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


def _is_count(name: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether an input says how many outputs are wanted."""
    forms = list(_forms(schema))
    kinds = {kind for form in forms for kind in _kinds(form)} - {None, "null"}
    numbers = {"integer", "number", "float"}
    # A choice of texts may be one of numbers: "1", "2", "4".
    choices = [choice for form in forms for choice in form.get("enum") or ()]
    is_number = bool(kinds & numbers or (choices and all(map(_whole_number, choices))))
    if kinds and not is_number:
        return False
    told = f"{schema.get('title', '')}. {schema.get('description', '')}"
    is_told = bool(is_number and _COUNT_TOLD.search(told) and not _NOT_MADE.search(told))
    return is_told or _names_count(name, is_number=is_number)


@functools.cache
def _names_count(name: str, *, is_number: bool) -> bool:
    """Tell whether an input of that name says how many outputs are wanted."""
    words = {word.lower().removesuffix("s") for word in _WORD.findall(name)}
    if "batch" in words:
        words = words - {"size"} | {"count"}
    # Without a number, "images" may as well be pictures.
    counts = is_number or bool(words & (_COUNTING | {"max", "maximum"}))
    is_about_outputs = bool(words & _COUNTED) or bool(words & _COUNTING and not words & _AROUND)
    return counts and is_about_outputs and words <= _COUNTING | _COUNTED | _AROUND


def _whole_number(value: object) -> int | None:
    """Return a number of outputs; None where it is none."""
    if type(value) is int and value > 0:
        return value  # nearly always
    try:
        # Not by its type: 4.0 is an integer to JSON Schema, and a table's cell is text.
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    is_count = number.is_finite() and number == number.to_integral_value() and number > 0
    return int(number) if is_count else None


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
