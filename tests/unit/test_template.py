"""Templates: strict, in a sandbox, the same on every run; with or without the shortcut."""

from __future__ import annotations

import keyword
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.manifest.template import Template, TemplateError, column_expression, is_true

VARIABLES: dict[str, Any] = {
    "title": "mug",
    "count": 3,
    "sizes": [1, 2],
    "row": {"title": "mug", "Image Src": "https://cdn.example.com/mug.png"},
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a {{ title }} of {{ count }}", "a mug of 3"),
        ("{{title}}\n", "mug\n"),
        ("{# a note #}{{ title }}", "mug"),
        ("{% raw %}{{ title }}{% endraw %}", "{{ title }}"),
        ('{{ row["Image Src"] }}', "https://cdn.example.com/mug.png"),
        ('{{ nothing | default("noon") }}', "noon"),
        ('{{ row.nothing | default("noon") }}', "noon"),
        ("{{ title | upper }}{{ sizes[1] }}", "MUG2"),
        ("{% if count > 2 %}many{% endif %}", "many"),
        ("{% for size in sizes %}{{ size }};{% endfor %}", "1;2;"),
        ("<{{ title }}>", "<mug>"),
    ],
)
def test_a_template_renders_its_variables(source: str, text: str) -> None:
    assert Template(source).render(VARIABLES) == text


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("{{ titel }}", "titel"),
        ("{{ titel | upper }}", "titel"),
        ('{{ row["Image Sorc"] }}', "Image Sorc"),
        ("{% for x in titles %}{% endfor %}", "titles"),
        ("{{ titel == 'mug' }}", "titel"),
        ("{{ range(3) }}", "range"),
        ("{{ lipsum() }}", "lipsum"),
        ("{{ self }}", "self"),
    ],
)
def test_an_undefined_variable_is_an_error_that_names_it(source: str, variable: str) -> None:
    with pytest.raises(TemplateError, match="cannot be rendered") as caught:
        Template(source).render(VARIABLES)
    assert caught.value.variable == variable


@pytest.mark.parametrize(
    "source",
    [
        "{{ title.nothing }}",
        "{{ title.__class__ }}",
        '{{ title | attr("__class__") }}',
        "{{ sizes[9] }}",
        "{{ sizes.pop() }}",
        "{{ sizes.append(3) }}",
        "{{ 1 / 0 }}",
        "{{ count + title }}",
        "{{ title() }}",
        "{{ title.upper }}",
        '{{ sizes | map("string") }}',
        "{{ title | center(10 ** 12) }}",
        '{{ "\\ud800" }}',
        '{% include "/etc/passwd" %}',
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        '{{ "%d" | format(title) }}',
    ],
)
def test_what_cannot_become_text_is_an_error_in_one_line(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^cannot be rendered: [^\n]+$") as caught:
        Template(source).render(VARIABLES)
    assert caught.value.variable is None
    assert VARIABLES["sizes"] == [1, 2]


@pytest.mark.parametrize(
    "source",
    ["{{ title", "{% if %}", "{{ Image Src }}", "{{ title | nothing }}", "{{ " + "(" * 9999],
)
def test_wrong_syntax_is_told_before_anything_is_rendered(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^is not a valid template: [^\n]*[^\n.]$"):
        Template(source)


def test_a_template_comes_out_the_same_on_every_run() -> None:
    with pytest.raises(TemplateError, match="is not a valid template"):
        Template("{{ sizes | random }}")


def test_a_sieve_is_applied_to_values_and_not_to_the_text_around_them() -> None:
    plain = "a/{{ name }}/b"
    more = '{{ "a" }}/{{ name | default("x") }}/{% if 1 %}b{% endif %}'
    for source in (plain, more):
        template = Template(source, sieve=lambda value: value.replace("/", "-"))
        assert template.render({"name": "../x/y"}) == "a/..-x-y/b"


def test_a_template_knows_its_variables() -> None:
    template = Template("{{ b }}{{ a | default(c) }}{% set d = 1 %}{{ d }}")
    assert template.variables == {"a", "b", "c"}


@pytest.mark.parametrize("text", ["", " ", "0", "False", "no", "None\n"])
def test_a_condition_that_says_no_is_false(text: str) -> None:
    assert not is_true(text)


@pytest.mark.parametrize("text", ["True", "1", "active", " x "])
def test_a_condition_that_says_anything_else_is_true(text: str) -> None:
    assert is_true(text)


@given(
    st.lists(st.one_of(st.sampled_from(["{{ a }}", "{{b}}", "{{- a }}", "\r\n", " "]), st.text())),
    st.text(),
    st.integers() | st.none() | st.lists(st.booleans()),
)
def test_the_shortcut_gives_what_jinja_gives(parts: list[str], a: str, b: object) -> None:
    source = "".join(parts)
    try:
        template = Template(source)
    except TemplateError:
        return
    plain = jinja2.Environment(keep_trailing_newline=True, autoescape=False)
    try:
        text = template.render({"a": a, "b": b})
    except TemplateError:
        return
    assert text == plain.from_string(source).render({"a": a, "b": b})


@given(st.text(alphabet="{}%#abc .|()[]'\"~+*/-0\n"))
def test_any_source_gives_text_or_a_template_error(source: str) -> None:
    try:
        text = Template("{{" + source + "}}").render({"a": "x", "b": [1], "c": {"a": 1}})
    except TemplateError:
        return
    assert isinstance(text, str)


@pytest.mark.parametrize("form", ['{{ row["a b"] }}', '{{ row["a b"] | string }}'])
def test_a_column_taken_out_of_row_is_the_same_with_and_without_a_filter(form: str) -> None:
    template = Template(f"<{form}>")
    assert template.render({"row": {"a b": 7}}) == "<7>"
    cases: list[tuple[dict[str, Any], str]] = [({"row": {}}, "a b"), ({}, "row")]
    for variables, missing in cases:
        with pytest.raises(TemplateError) as caught:
            template.render(variables)
        assert caught.value.variable == missing
    with pytest.raises(TemplateError):
        template.render({"row": 5})


def test_what_a_template_uses_is_known_without_rendering_it() -> None:
    template = Template('{{ a }} {{ row["b c"] | default("x") }} {{ row.d }} {{ row[a] }}')
    assert template.variables == {"a", "row"}
    assert template.columns == {"a", "b c", "d"}
    assert Template('{{ row["b c"] }}').lone_variable == "b c"
    assert Template("{{ a }}").lone_variable == "a"
    assert Template("{{ a }} ").lone_variable is None


@pytest.mark.parametrize(
    "name",
    [
        *keyword.kwlist,
        *("self", "loop", "caller", "varargs", "super", "block", "set", "call", "filter"),
        *("true", "none", "name", "row", "a b", 'a"b', "a}}b", "ä", "1a", "a-b", "items", "keys"),
    ],
)
def test_a_column_of_any_name_can_be_named(name: str) -> None:
    template = Template(f"{{{{ {column_expression(name)} }}}}")
    # What every template knows by itself stands beside the columns.
    assert template.render({name: "x", "row": {name: "x"}}) == "x"
    assert template.columns == {name}
