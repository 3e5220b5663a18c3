"""JSON Schema checks whose findings a tired person understands.

Hides jsonschema-rs and the shape of its errors. What always holds: each finding names the place
inside the checked value, says what is wrong in one sentence, and gives a hint where one helps; a
value that is not accepted has at least one; a schema is read as it is, nothing is fetched for it.
What is not promised: the order of the findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from batch_runner.errors import did_you_mean

_Branch = Sequence[jsonschema_rs.ValidationError]
"""Why one alternative of an anyOf or oneOf does not fit."""

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping (key: value)",
    "null": "null",
}


class Finding(msgspec.Struct, frozen=True):
    """One thing that a schema does not allow: where, what, and what to do about it."""

    location: tuple[str | int, ...]
    what: str
    hint: str | None = None


class Validator:
    """A compiled schema; raises ValueError where the schema itself is not valid."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        try:
            self._compiled = jsonschema_rs.validator_for(dict(schema), retriever=_refuse_to_fetch)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(str(error).partition("\n")[0]) from error

    def accepts(self, value: Any) -> bool:
        """Tell whether the value is valid; a hundred times cheaper than asking for findings."""
        return self._compiled.is_valid(value)

    def findings(self, value: Any) -> Iterator[Finding]:
        """Yield everything the schema does not allow."""
        for error in self._compiled.iter_errors(value):
            yield from self._explain(error)

    def _explain(self, error: jsonschema_rs.ValidationError) -> Iterator[Finding]:
        alternatives = getattr(error.kind, "context", None) or ()
        branch = _likeliest(alternatives, len(error.instance_path))
        if branch:
            for cause in branch:
                yield from self._explain(cause)
        elif error.kind.name in ("additionalProperties", "unevaluatedProperties"):
            known = self._schema_at(error.schema_path[:-1]).get("properties", {})
            for name in error.kind.value:
                location = (*error.instance_path, name)
                yield Finding(location, f"unknown key '{name}'", did_you_mean(name, known))
        else:
            yield self._phrase(error, alternatives)

    def _phrase(
        self, error: jsonschema_rs.ValidationError, alternatives: Sequence[_Branch]
    ) -> Finding:
        location = tuple(error.instance_path)
        name = _name(location)
        parent = self._schema_at(error.schema_path[:-1])
        value: Any = error.instance
        limit: Any = getattr(error.kind, "value", None)
        told = parent.get("x-problem")
        match error.kind.name:
            case "required":
                return Finding(location, f"the key '{limit}' is missing", _about(parent, limit))
            case "type":
                return Finding(location, f"{name} is {_kind(value)}, not {_types(limit)}", told)
            case "anyOf" | "oneOf" if not any(not branch for branch in alternatives):
                kinds = [kind for branch in alternatives for kind in _wanted(branch)]
                return Finding(location, f"{name} is {_kind(value)}, not {_types(kinds)}", told)
            case "enum":
                what = f"{name} is {show(value)}, which is not one of its values"
                return Finding(location, what, told or _suggest(value, limit))
            case "const":
                return Finding(location, f"{name} is {show(value)}, not {show(limit)}", told)
            case "minimum":
                return Finding(location, f"{name} is {show(value)}, less than {show(limit)}")
            case "maximum":
                return Finding(location, f"{name} is {show(value)}, more than {show(limit)}")
            case "exclusiveMinimum":
                what = f"{name} is {show(value)}, but must be more than {show(limit)}"
                return Finding(location, what)
            case "exclusiveMaximum":
                what = f"{name} is {show(value)}, but must be less than {show(limit)}"
                return Finding(location, what)
            case "multipleOf":
                what = f"{name} is {show(value)}, which is not a multiple of {show(limit)}"
                return Finding(location, what)
            case "propertyNames":
                key = str(limit.instance)
                told = self._schema_at(limit.schema_path[:-1]).get("x-problem")
                return Finding((*location, key), f"the key {show(key)} cannot be used", told)
            case "minItems" | "minProperties" | "minLength" if not value:
                return Finding(location, f"{name} is empty")
            case "minItems" | "minProperties":
                return Finding(location, f"{name} has {len(value)} of at least {limit} entries")
            case "maxItems" | "maxProperties":
                return Finding(location, f"{name} has {len(value)} entries, more than {limit}")
            case "minLength":
                return Finding(location, f"{name} is shorter than {limit} characters")
            case "maxLength":
                return Finding(location, f"{name} is longer than {limit} characters")
            case "pattern":
                hint = told or f"it has to match {limit}"
                return Finding(location, f"{name} cannot be {show(value)}", hint)
            case _:
                return Finding(location, f"{name}: {error.message[:200]}", told)

    def _schema_at(self, path: Sequence[str | int]) -> Mapping[str, Any]:
        node: Any = self._schema
        for step in path:
            node = node[step]
        return node if isinstance(node, dict) else {}


def show(value: Any, most: int = 60) -> str:
    """Return a value as it would be written in a manifest, shortened."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def _suggest(value: Any, options: Sequence[Any]) -> str:
    if isinstance(value, str) and all(isinstance(option, str) for option in options):
        hint = did_you_mean(value, options)
        if hint.startswith("did you mean"):
            return hint
    return "one of " + ", ".join(show(option) for option in options)


def _about(schema: Mapping[str, Any], key: str) -> str | None:
    entry = schema.get("properties", {}).get(key)
    description = entry.get("description") if isinstance(entry, dict) else None
    return f"add '{key}': {description}" if description else f"add '{key}'"


def _likeliest(alternatives: Sequence[_Branch], depth: int) -> _Branch | None:
    """Pick the alternative the writer meant: the one whose type fits; None where none does."""
    for branch in alternatives:
        if not any(
            error.kind.name == "type" and len(error.instance_path) == depth for error in branch
        ):
            return branch
    return None


def _wanted(branch: _Branch) -> list[str]:
    return [kind for error in branch if error.kind.name == "type" for kind in error.kind.value]


def _types(kinds: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(_TYPES.get(kind, kind) for kind in kinds))


def _kind(value: Any) -> str:
    """Return a value as a message names it: containers by their kind, all else as written."""
    if value is None:
        return "empty"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping (key: value)"
    return show(value)


def _name(location: Sequence[str | int]) -> str:
    """Return what people call the place: its key, or which entry of its key's list."""
    entries = ""
    for step in reversed(location):
        if isinstance(step, str):
            return f"{entries}'{step}'"
        entries += f"entry {step + 1} of "
    return entries + "this"


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"it refers to {uri}, which is outside of it")
