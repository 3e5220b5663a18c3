"""What a JSON Schema does not allow, in words a tired person understands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.manifest.validation import Finding, Validator, show


def findings(schema: dict[str, Any], value: Any) -> list[Finding]:
    return list(Validator(schema).findings(value))


def said(schema: dict[str, Any], value: Any) -> tuple[str, str | None]:
    """Return what the one finding about a property `key` says, and its hint."""
    (finding,) = findings({"properties": {"key": schema}}, {"key": value})
    return finding.what, finding.hint


@pytest.mark.parametrize(
    ("schema", "value", "what", "hint"),
    [
        (
            {"type": "integer"},
            "7",
            "'key' is \"7\", not a whole number",
            "write it without quotes: 7",
        ),
        ({"type": "number"}, "many", "'key' is \"many\", not a number", None),
        ({"type": "string"}, 5, "'key' is 5, not text", 'write it in quotes: "5"'),
        ({"type": "string"}, True, "'key' is true, not text", 'write it in quotes: "true"'),
        ({"type": "boolean"}, "yes", "'key' is \"yes\", not true/false", None),
        ({"type": "string"}, None, "'key' is empty, not text", None),
        ({"type": "null"}, [], "'key' is a list, not empty", None),
        (
            {"type": "array"},
            {},
            "'key' is a mapping (key: value), not a list",
            "begin each entry with '- '",
        ),
        (
            {"type": "object", "description": "name: value"},
            [],
            "'key' is a list, not a mapping (key: value)",
            "name: value",
        ),
        (
            {"type": ["integer", "string", "boolean"]},
            [],
            "'key' is a list, not text, a whole number or true/false",
            None,
        ),
        (
            {"type": "integer", "x-problem": "count"},
            "x",
            "'key' is \"x\", not a whole number",
            "count",
        ),
        (
            {"enum": ["a", "b"]},
            "c",
            "'key' is \"c\", which is not one of its values",
            'one of "a", "b"',
        ),
        (
            {"enum": [f"size-{n}" for n in range(20)]},
            "siz-7",
            "'key' is \"siz-7\", which is not one of its values",
            "did you mean 'size-7'?",
        ),
        (
            {"enum": list(range(20))},
            99,
            "'key' is 99, which is not one of its values",
            "one of " + ", ".join(map(str, range(20))),
        ),
        ({"const": 1, "x-problem": "write 1"}, 2, "'key' is 2, not 1", "write 1"),
        ({"minimum": 1}, 0, "'key' is 0, less than 1", None),
        ({"minimum": 1, "maximum": 4}, 0, "'key' is 0, less than 1", "from 1 to 4"),
        ({"minimum": 1, "maximum": 4}, 9, "'key' is 9, more than 4", "from 1 to 4"),
        ({"exclusiveMinimum": 0}, 0, "'key' is 0, but must be more than 0", None),
        ({"exclusiveMaximum": 1}, 1, "'key' is 1, but must be less than 1", None),
        ({"multipleOf": 16}, 1001, "'key' is 1001, which is not a multiple of 16", None),
        ({"minItems": 1}, [], "'key' is empty", None),
        ({"minItems": 3}, [1], "'key' has 1 value, fewer than 3", None),
        ({"minProperties": 1}, {}, "'key' is empty", None),
        ({"maxItems": 1}, [1, 2], "'key' has 2 values, more than 1", None),
        ({"minLength": 1}, "", "'key' is empty", None),
        ({"minLength": 3}, "ab", "'key' has 2 characters, fewer than 3", None),
        ({"maxLength": 3}, "abcd", "'key' has 4 characters, more than 3", None),
        ({"pattern": "^x"}, "y", "'key' cannot be \"y\"", "it has to match ^x"),
        (
            {"pattern": "^x", "x-problem": "begin with x"},
            "y",
            "'key' cannot be \"y\"",
            "begin with x",
        ),
        ({"uniqueItems": True}, [1, 1], "'key': [1,1] has non-unique elements", None),
        ({"not": {}}, 1, "'key': {} is not allowed for 1", None),
        ({"required": ["a"]}, {}, "the key 'a' is missing", "add 'a'"),
        (
            {"required": ["a"], "properties": {"a": {"description": "an A"}}},
            {},
            "the key 'a' is missing",
            "add 'a': an A",
        ),
        ({"required": ["a"], "properties": {"a": True}}, {}, "the key 'a' is missing", "add 'a'"),
    ],
)
def test_each_kind_of_finding_reads_as_a_sentence(
    schema: dict[str, Any], value: Any, what: str, hint: str | None
) -> None:
    assert said(schema, value) == (what, hint)


def test_a_place_in_a_list_is_named_by_its_key_and_its_number() -> None:
    schema = {"properties": {"key": {"items": {"items": {"type": "string"}}}}}
    assert findings(schema, {"key": [["a"], ["b", 1]]}) == [
        Finding(
            ("key", 1, 1), "entry 2 of entry 2 of 'key' is 1, not text", 'write it in quotes: "1"'
        )
    ]
    assert findings({"type": "string"}, []) == [Finding((), "this is a list, not text")]


def test_every_unknown_key_is_told_with_the_closest_known_one() -> None:
    schema = {"properties": {"output": {}, "inputs": {}}, "additionalProperties": False}
    assert findings(schema, {"ouput": 1, "zzz": 2}) == [
        Finding(("ouput",), "unknown key 'ouput'", "did you mean 'output'?"),
        Finding(("zzz",), "unknown key 'zzz'", "known here: inputs, output"),
    ]


@pytest.mark.parametrize(
    ("key", "what", "hint"),
    [
        ("a/b", 'the key "a/b" cannot be used', "no slashes"),
        ("", "a key is empty", "no slashes"),
        ("x" * 40, 'the key "xxxxxxxxxxxxxxxxxxxxxxxxxxx…" cannot be used', "no slashes"),
    ],
)
def test_a_key_that_cannot_be_one_is_told_with_the_reason(
    key: str, what: str, hint: str | None
) -> None:
    rule = {"minLength": 1, "maxLength": 30, "pattern": "^[^/]*$", "x-problem": "no slashes"}
    schema = {"propertyNames": {"$ref": "#/$defs/id"}, "$defs": {"id": rule}}
    assert findings(schema, {key: 1}) == [Finding((key,), what, hint)]


URLS = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]
}


@pytest.mark.parametrize(
    ("value", "what", "hint"),
    [
        (5, "'key' is 5, not text or a list", 'write it in quotes: "5"'),
        ("", "'key' is empty", None),
        (["a", None], "entry 2 of 'key' is empty, not text", None),
    ],
)
def test_of_alternatives_the_one_that_was_meant_is_explained(
    value: Any, what: str, hint: str | None
) -> None:
    assert said(URLS, value) == (what, hint)


def test_a_value_that_fits_two_exclusive_alternatives_has_a_finding_too() -> None:
    schema = {"oneOf": [{"type": "integer"}, {"type": "number"}]}
    assert said(schema, 5)[0].startswith("'key': 5 is valid under more than one")


def test_what_else_is_wrong_with_a_value_of_the_wrong_type_is_not_told() -> None:
    assert said({"type": ["string", "integer"], "minimum": 1}, 0.2)[0] == (
        "'key' is 0.2, not text or a whole number"
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "floaty"},
        {"properties": 5},
        {"pattern": "("},
        {"$ref": "#/$defs/nothing"},
        {"$schema": "https://example.com/unknown"},
    ],
)
def test_a_schema_that_is_none_is_refused_in_one_line(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        Validator(schema)


@pytest.mark.parametrize("uri", ["https://127.0.0.1:9/schema.json", "file:///etc/hostname"])
def test_nothing_is_fetched_for_a_schema(uri: str) -> None:
    with pytest.raises(ValueError, match=r"it refers to .*, which is outside of it"):
        Validator({"$ref": uri})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": "^[^/]*$"},
    "required": ["a"],
    "properties": {"a": URLS, "b": {"oneOf": [{"minimum": 0}, {"type": "string"}]}},
    "additionalProperties": {"anyOf": [{"enum": [1, "x"]}, {"minItems": 2}, False]},
}


@given(JSON | st.dictionaries(st.sampled_from(["a", "b", "c", "d/"]), JSON))
def test_a_value_has_findings_exactly_where_it_is_not_accepted(value: Any) -> None:
    validator = Validator(SCHEMA)
    found = list(validator.findings(value))
    assert bool(found) is not validator.accepts(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (None, "null"),
        ("é", '"é"'),
        ([1, "a"], '[1,"a"]'),
        ("x" * 99, '"' + "x" * 57 + '…"'),
        ([10] * 99, "[" + "10," * 19 + "1…"),
    ],
)
def test_a_value_is_shown_as_a_manifest_writes_it_but_never_at_length(
    value: Any, shown: str
) -> None:
    assert show(value) == shown
    assert len(shown) <= 60
