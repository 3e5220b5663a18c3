"""JSON Schema checks whose findings a tired person understands.

Hides jsonschema-rs and the shape of its errors. What always holds: each finding names the place
inside the checked value, says what is wrong in one sentence, and gives a hint where one helps.
What is not promised: the order of the findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from batch_runner.errors import did_you_mean

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
            self._compiled = jsonschema_rs.validator_for(dict(schema))
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
        alternatives = getattr(error.kind, "context", None)
        if alternatives:
            branch = _likeliest(alternatives, len(error.instance_path))
            if branch is not None:
                for cause in branch:
                    yield from self._explain(cause)
                return
        yield self._phrase(error)

    def _phrase(self, error: jsonschema_rs.ValidationError) -> Finding:
        location = tuple(error.instance_path)
        name = str(location[-1]) if location else "this"
        parent = self._schema_at(error.schema_path[:-1])
        value: Any = error.instance
        limit: Any = error.kind.value
        told = parent.get("x-problem")
        match error.kind.name:
            case "additionalProperties" | "unevaluatedProperties":
                unknown = limit[0]
                hint = did_you_mean(unknown, parent.get("properties", {}))
                return Finding((*location, unknown), f"unknown key '{unknown}'", hint)
            case "required":
                return Finding(location, f"the key '{limit}' is missing", _about(parent, limit))
            case "type":
                wanted = " or ".join(_TYPES.get(kind, kind) for kind in limit)
                return Finding(location, f"'{name}' is {show(value)}, not {wanted}", told)
            case "enum" | "const":
                options = list(limit) if error.kind.name == "enum" else [limit]
                return Finding(
                    location,
                    f"'{name}' is {show(value)}, which is not one of its values",
                    told or _suggest(value, options),
                )
            case "minimum" | "exclusiveMinimum":
                return Finding(location, f"'{name}' is {show(value)}, less than {show(limit)}")
            case "maximum" | "exclusiveMaximum":
                return Finding(location, f"'{name}' is {show(value)}, more than {show(limit)}")
            case "propertyNames":
                key = str(limit.instance)
                return Finding((*location, key), f"the key {show(key)} cannot be used", told)
            case "minItems" | "minProperties":
                return Finding(location, f"'{name}' has {len(value)} of at least {limit} entries")
            case "maxItems" | "maxProperties":
                return Finding(location, f"'{name}' has {len(value)} entries, more than {limit}")
            case "minLength":
                return Finding(location, f"'{name}' is empty")
            case "maxLength":
                return Finding(location, f"'{name}' is longer than {limit} characters")
            case "pattern":
                return Finding(location, f"'{name}' is {show(value)}", told or f"write {limit}")
            case _:
                return Finding(location, f"'{name}': {error.message[:200]}", told)

    def _schema_at(self, path: Sequence[str | int]) -> Mapping[str, Any]:
        node: Any = self._schema
        for step in path:
            try:
                node = node[step]
            except (KeyError, IndexError, TypeError):
                return {}
            if isinstance(node, dict) and str(node.get("$ref", "")).startswith("#/"):
                node = self._schema_at(node["$ref"][2:].split("/"))
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
    description = schema.get("properties", {}).get(key, {}).get("description")
    return f"{key}: {description}" if description else None


def _likeliest(
    branches: Sequence[Sequence[jsonschema_rs.ValidationError]], depth: int
) -> Sequence[jsonschema_rs.ValidationError] | None:
    """Pick the alternative the writer meant: the one whose type fits; None where none does."""
    for branch in branches:
        if not any(
            error.kind.name == "type" and len(error.instance_path) == depth for error in branch
        ):
            return branch
    return None
