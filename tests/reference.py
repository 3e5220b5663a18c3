"""The reference of manifest keys in jobs/README.md, made from the schema.

`python tests/reference.py` writes it anew; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
GUIDE = PROJECT / "jobs" / "README.md"
SCHEMA = PROJECT / "batch_runner" / "schema" / "manifest.json"
HEADING = "## Every key\n"

_HEAD = "| key | value | default | what it does |\n|---|---|---|---|\n"
_NAMES = {"models": "MODEL_ID", "prompts": "PROMPT_ID", "deliver": "CHANNEL"}
"""What stands for the keys that users choose."""


def reference() -> str:
    """Return the reference: a table of the top-level keys, then one for each key below them."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    defs = schema["$defs"]
    top, below = [], {}
    for key, node in schema["properties"].items():
        rows = list(_rows(key, node, defs))
        top.append(rows[0])
        if len(rows) > 1:
            below[key] = rows[1:]
    sections = [_HEAD + "".join(top)]
    sections += [f"### {key}\n\n{_HEAD}{''.join(rows)}" for key, rows in below.items()]
    return f"{HEADING}\n" + "\n".join(sections)


def _rows(path: str, node: dict[str, Any], defs: dict[str, Any]) -> Iterator[str]:
    node = _resolved(node, defs)
    default = node.get("default")
    shown = "" if default is None else f"`{default}`"
    described = node.get("description", "").replace("|", "\\|")
    yield f"| `{path}` | {_value(node, defs)} | {shown} | {described} |\n"
    for key, inner in _properties(node):
        yield from _rows(f"{path}.{key}", inner, defs)
    other = node.get("additionalProperties")
    if path in _NAMES and isinstance(other, dict):
        for branch in other.get("anyOf", [other]):
            for key, inner in _properties(branch):
                yield from _rows(f"{path}.{_NAMES[path]}.{key}", inner, defs)
    for branch in (node.get("items"), *node.get("anyOf", [])):
        if isinstance(branch, dict):
            for key, inner in _properties(_resolved(branch, defs)):
                yield from _rows(f"{path}.{key}", inner, defs)


def _properties(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from node.get("properties", {}).items()
    yield from node.get("then", {}).get("properties", {}).items()


def _resolved(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").rpartition("/")[2]
    return {**defs[name], **node} if name else node


def _value(node: dict[str, Any], defs: dict[str, Any]) -> str:
    """Return in a few words what can be written there."""
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    name = node.get("$ref", "").rpartition("/")[2]
    known = {"rate": "a rate: `5/s`, `100/min`", "money": "USD", "urls": "URL or list of URLs"}
    if name in known:
        return known[name]
    if "anyOf" in node:
        return " or ".join(
            dict.fromkeys(_value(_resolved(one, defs), defs) for one in node["anyOf"])
        )
    kinds = node.get("type", "object")
    words = {"string": "text", "integer": "whole number", "object": "mapping", "array": "list"}
    text = " or ".join(
        words.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    )
    if "minimum" in node and "maximum" in node:
        text += f", {node['minimum']} to {node['maximum']}"
    return text


def main() -> None:
    """Write the reference into the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    GUIDE.write_text(text.partition(HEADING)[0] + reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
