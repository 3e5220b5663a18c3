"""The vendor's dialect of JSON Schema: what an input is for, by its schema.

Hides the vendor's habits (`float`, formats of pictures, validations) and the words by which inputs
that say how many outputs are wanted are found: `num_images`, `n`, `max_images`, `batch_size`, or a
description such as "number of images". Not promised: to find one whose schema says nothing of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

_IMAGE_FORMATS = ("image_uri", "image_uris")

_WHAT = r"(?:image|picture|output|result|video|sample|batch|generation|variation|variant)s?"
_NUMBER = r"(?:n|num|number|count|amount|quantity)s?"
_COUNT_NAME = re.compile(
    rf"(?:{_NUMBER}|max|maximum|total)(?:of)?(?:output)?{_WHAT}(?:per\w+|togenerate)?"
    rf"|{_WHAT}(?:{_NUMBER}|togenerate)|{_NUMBER}|batchsize"
)
_COUNT_TOLD = re.compile(
    r"number of (?:\w+ )?(?:images|pictures|outputs|results|videos|samples|variations|generations)",
    re.IGNORECASE,
)
_NOT_MADE = re.compile(r"\b(?:input|reference|source|upload)", re.IGNORECASE)


def standard(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the vendor's dialect: `float` is a number; unknown inputs are typing errors.

    The service ignores an input that it does not know, and charges. So a schema that does not say
    whether it allows further inputs is taken to forbid them.
    """
    translated: dict[str, Any] = _standard_node(schema)
    if "properties" in translated:
        translated.setdefault("additionalProperties", False)
    return translated


def _standard_node(node: Any, key: str = "") -> Any:
    if isinstance(node, list):
        return [_standard_node(one, key) for one in node]
    if isinstance(node, dict):
        return {name: _standard_node(value, name) for name, value in node.items()}
    return "number" if key == "type" and node == "float" else node


def properties_of(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of each input; `true`, which allows everything, becomes an empty one."""
    properties = schema.get("properties", {})
    return {name: node if isinstance(node, dict) else {} for name, node in properties.items()}


def takes_image(schema: Mapping[str, Any]) -> bool:
    """Tell whether an input takes a picture or several."""
    forms = list(_forms(schema))
    items = [form["items"] for form in forms if isinstance(form.get("items"), dict)]
    return any(form.get("format") in _IMAGE_FORMATS for form in (*forms, *items))


def takes_one(schema: Mapping[str, Any]) -> bool:
    """Tell whether an input takes one text, not a list; if it says neither, by its format."""
    forms = list(_forms(schema))
    kinds = _kinds(forms)
    if "array" in kinds or any("items" in form for form in forms):
        return False
    return "string" in kinds or any(form.get("format") == _IMAGE_FORMATS[0] for form in forms)


def is_count(name: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether an input says how many outputs are wanted."""
    forms = list(_forms(schema))
    kinds = _kinds(forms) - {None, "null"}
    # A choice of texts may be one of numbers: "1", "2", "4".
    choices = [choice for form in forms for choice in form.get("enum") or ()]
    is_number = bool(
        kinds & {"integer", "number", "float"} or (choices and all(map(whole_number, choices)))
    )
    if kinds and not is_number:
        return False
    text = f"{schema.get('title', '')}. {schema.get('description', '')}"
    is_described = bool(is_number and _COUNT_TOLD.search(text) and not _NOT_MADE.search(text))
    return is_described or names_count(name, is_number=is_number)


@functools.cache
def names_count(name: str, *, is_number: bool) -> bool:
    """Tell whether an input of that name says how many outputs are wanted."""
    name = name.replace("_", "").replace("-", "").lower()
    # Without a number, "images" may as well be pictures.
    return bool(_COUNT_NAME.fullmatch(name) or (is_number and re.fullmatch(_WHAT, name)))


def whole_number(value: object) -> int | None:
    """Return a positive whole number; None if the value is not one."""
    if type(value) is int and value > 0:
        return value  # nearly always
    try:
        # Not by its type: 4.0 is an integer to JSON Schema, and a table's cell is text.
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    is_count = number.is_finite() and number == number.to_integral_value() and number > 0
    return int(number) if is_count else None


def _forms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the alternatives of an input that may have several forms, such as text or nothing."""
    yield schema
    for name in ("anyOf", "oneOf", "allOf"):
        forms = schema.get(name)
        for form in forms if isinstance(forms, list) else ():
            if isinstance(form, dict):
                yield form


def _kinds(forms: Iterable[Mapping[str, Any]]) -> set[Any]:
    types = [form.get("type") for form in forms]
    return {kind for one in types for kind in (one if isinstance(one, list) else [one])}
