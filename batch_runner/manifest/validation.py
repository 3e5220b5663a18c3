"""JSON Schema checks whose findings a tired person understands.

Hides jsonschema-rs and the shape of its errors. What always holds: each finding names the place
inside the checked value, says what is wrong in one sentence, and gives a hint where one helps; a
value that is not accepted has at least one; a schema is read as it is, nothing is fetched for it.
What is not promised: the order of the findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from batch_runner.errors import did_you_mean
from batch_runner.text.quantity import counted
from batch_runner.text.shown import visible

_Branch = Sequence[jsonschema_rs.ValidationError]
"""Why one alternative of an anyOf or oneOf does not fit."""

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true/false",
    "array": "a list",
    "object": "a mapping (key: value)",
    "null": "empty",
}
_SAID = {
    "enum": "{name} is {value}, which is not one of its values",
    "const": "{name} is {value}, not {limit}",
    "minimum": "{name} is {value}, less than {limit}",
    "maximum": "{name} is {value}, more than {limit}",
    "exclusiveMinimum": "{name} is {value}, but must be more than {limit}",
    "exclusiveMaximum": "{name} is {value}, but must be less than {limit}",
    "multipleOf": "{name} is {value}, which is not a multiple of {limit}",
    **dict.fromkeys(("minItems", "minProperties"), "{name} has {count}, fewer than {limit}"),
    **dict.fromkeys(("maxItems", "maxProperties"), "{name} has {count}, more than {limit}"),
    "minLength": "{name} has {count}, fewer than {limit}",
    "maxLength": "{name} has {count}, more than {limit}",
    **dict.fromkeys(("contains", "maxContains"), "{name} has two values of one kind"),
    "pattern": "{name} cannot be {value}",
}
_EMPTY = ("minItems", "minProperties", "minLength")
_OPTIONS_LISTED = 15
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


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
        errors = list(self._compiled.iter_errors(value))
        mistyped = [error.instance_path for error in errors if error.kind.name == "type"]
        for error in errors:
            # What else is wrong with a value of the wrong type is no news.
            if error.kind.name == "type" or error.instance_path not in mistyped:
                yield from self._explain(error)

    def _explain(self, error: jsonschema_rs.ValidationError) -> Iterator[Finding]:
        alternatives = getattr(error.kind, "context", None) or ()
        branch = _likeliest(alternatives, len(error.instance_path))
        if branch:
            for cause in branch:
                yield from self._explain(cause)
        elif error.kind.name in ("additionalProperties", "unevaluatedProperties"):
            schema = self._schema_at(error.schema_path[:-1])
            known, removed = schema.get("properties", {}), schema.get("x-removed", {})
            for name in error.kind.value:
                location = (*error.instance_path, name)
                if name in removed:
                    yield Finding(location, f"'{name}' is no longer a key", removed[name])
                else:
                    yield Finding(location, f"unknown key '{name}'", did_you_mean(name, known))
        else:
            yield self._phrase(error, alternatives)

    def _phrase(
        self, error: jsonschema_rs.ValidationError, alternatives: Sequence[_Branch]
    ) -> Finding:
        location, kind = tuple(error.instance_path), error.kind.name
        parent = self._schema_at(error.schema_path[:-1])
        value: Any = error.instance
        limit: Any = getattr(error.kind, "value", None)
        advice = parent.get("x-problem")
        name = _name(location)
        is_misfit = kind in ("anyOf", "oneOf") and all(alternatives)
        if kind == "required":
            return Finding(location, f"the key '{limit}' is missing", _about(parent, limit))
        if kind == "type" or is_misfit:
            kinds = [one for branch in alternatives for one in _wanted(branch)] or limit
            what = f"{name} is {_kind(value)}, not {_types(kinds)}"
            return Finding(location, what, advice or _form(parent, value, kinds))
        if kind == "propertyNames":
            key = str(limit.instance)
            what = f"the key {show(key, 30)} cannot be used" if key else "a key is empty"
            hint = self._schema_at(limit.schema_path[:-1]).get("x-problem")
            return Finding((*location, key), what, hint)
        if kind not in _SAID:
            return Finding(location, f"{name}: {error.message[:200]}", advice)
        if kind in _EMPTY and not value:
            return Finding(location, f"{name} is empty")
        noun = "character" if isinstance(value, str) else "value"
        count = counted(len(value), noun) if isinstance(value, str | list | dict) else ""
        what = _SAID[kind].format(name=name, value=show(value), limit=show(limit), count=count)
        hint = None
        if kind == "enum":
            hint = _suggest(value, limit)
        elif "minimum" in parent and "maximum" in parent:
            hint = f"from {show(parent['minimum'])} to {show(parent['maximum'])}"
        elif kind == "pattern":
            hint = f"it has to match {limit}"
        return Finding(location, what, advice or hint)

    def _schema_at(self, path: Sequence[str | int]) -> Mapping[str, Any]:
        node: Any = self._schema
        for step in path:
            node = node[step]
        return node if isinstance(node, dict) else {}


def show(value: Any, most: int = 60) -> str:
    r"""Return a value as a manifest would have it, shortened, with \u200b for what is not seen."""
    if isinstance(value, str):
        value = value[: most + 1]
    text = msgspec.json.encode(value).decode()
    if len(text) > most:
        end = '"' if isinstance(value, str) else ""
        text = f"{text[: most - 1 - len(end)]}…{end}"
    return visible(text)


def _suggest(value: Any, options: Sequence[Any]) -> str:
    """List the values; of many only the closest: to guess among `16:9` and `1:1` helps nobody."""
    if isinstance(value, str) and len(options) > _OPTIONS_LISTED:
        return did_you_mean(value, [option for option in options if isinstance(option, str)])
    return "one of " + ", ".join(map(show, options))


def _form(schema: Mapping[str, Any], value: Any, wanted: Sequence[str]) -> str | None:
    """Return how to write a value of the wanted kind; None if that is not clear."""
    if isinstance(value, str) and _NUMBER.fullmatch(value) and {"integer", "number"} & {*wanted}:
        return f"write it without quotes: {value}"
    if isinstance(value, bool | int | float) and "string" in wanted:
        return f'write it in quotes: "{show(value)}"'
    if isinstance(value, dict) and "array" in wanted:
        return "begin each entry with '- '"
    return schema.get("description") if "object" in wanted or "array" in wanted else None


def _about(schema: Mapping[str, Any], key: str) -> str:
    entry = schema.get("properties", {}).get(key)
    about = entry.get("description", "") if isinstance(entry, dict) else ""
    return f"add '{key}'" + f": {about}" * bool(about)


def _likeliest(alternatives: Sequence[_Branch], depth: int) -> _Branch | None:
    """Pick the alternative the writer meant: the one whose type fits; None where none does."""
    for branch in alternatives:
        if all(one.kind.name != "type" or len(one.instance_path) > depth for one in branch):
            return branch
    return None


def _wanted(branch: _Branch) -> list[str]:
    return [kind for error in branch if error.kind.name == "type" for kind in error.kind.value]


def _types(kinds: Sequence[str]) -> str:
    names = [name for kind, name in _TYPES.items() if kind in kinds]
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _kind(value: Any) -> str:
    """Return a value as a message names it: containers by their kind, all else as written."""
    kinds = {list: "array", dict: "object", type(None): "null"}
    return _TYPES[kinds[type(value)]] if type(value) in kinds else show(value)


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
