"""Text with `{{ variables }}`: Jinja2 in its sandbox, where a variable that is missing is an error.

Hides Jinja2, and the shortcut that renders plain substitutions (nearly all templates) without it.
What always holds: a template reaches nothing but the variables it is given, and cannot change them;
rendering either gives text, the same for the same variables, or raises TemplateError (a prompt that
came out different on every run would be paid for on every run). Not promised: a bound on the time a
loop in a template takes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from batch_runner.text.shown import plain

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = re.compile(
    "image|model|name|picture|prompt|repeat|row"
    "|and|[Ff]alse|elif|else|if|in|is|[Nn]one|not|or|self|[Tt]rue"
)
"""What a template knows by itself, so that a column of that name has to be asked of `row`."""

_FALSE = frozenset(("", "0", "false", "no", "none"))


class TemplateError(Exception):
    """A template that cannot be rendered; `variable` is the missing one, where one is."""

    def __init__(self, message: str, variable: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.variable = variable


_Part = tuple[str, str | None, bool]
"""A text, or else a variable's name, and whether that is a column taken out of `row`."""


class _Missing(jinja2.UndefinedError):
    def __init__(self, variable: str | None, message: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


class _Strict(jinja2.StrictUndefined):
    """Raises with the name that was missing, so that the message can offer the closest one."""

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = jinja2.utils.missing,
        name: str | None = None,
        exc: type[jinja2.TemplateRuntimeError] = jinja2.UndefinedError,  # noqa: ARG002 - Jinja2's signature
    ) -> None:
        is_variable = obj is jinja2.utils.missing or isinstance(obj, Mapping)
        raising: Any = functools.partial(_Missing, name if is_variable else None)
        super().__init__(hint, obj, name, raising)


def _only_text(value: Any) -> Any:
    """Refuse what prints as an address in memory: a function not called, a generator."""
    if isinstance(value, str | int | float | list | tuple | dict | jinja2.Undefined | None):
        return value
    raise TypeError(f"a {type(value).__name__} is not text")


_environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=_Strict,
    autoescape=False,
    keep_trailing_newline=True,
    finalize=_only_text,
)
# What is left without these is the same on every run; lipsum, for one, is not.
_environment.globals.clear()
del _environment.filters["random"]
_environment.filters["plain"] = plain


class Template:
    """A compiled template; raises TemplateError where its syntax is wrong.

    `sieve`, where given, is applied to the text of each substituted value (not to the literal text
    around it): that is how a value is kept from forming a path of its own.

    `variables` are the names it uses, `columns` the same with those it takes out of `row`, and
    `lone_variable` is its variable or column if it holds nothing else, or None.
    """

    def __init__(self, source: str, *, sieve: Callable[[str], str] | None = None) -> None:
        self.source = source
        try:
            tree = _environment.parse(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
            self.columns = (self.variables - {"row"}) | _columns_of_row(tree)
            parts = _plain_parts(tree)
            self._compiled = None if parts is not None else _compile(source, sieve)
        except (jinja2.TemplateError, RecursionError, MemoryError) as error:
            reason = getattr(error, "message", None) or str(error) or "it is too large"
            raise TemplateError(f"is not a valid template: {reason.rstrip('.')}") from error
        parts = parts or []
        self._sieve = sieve
        self._form = "".join(
            text.replace("%", "%%") if name is None else "%s" for text, name, _ in parts
        )
        self._places = [(name, is_of_row) for _, name, is_of_row in parts if name is not None]
        lone = [name for _, name, is_of_row in parts if is_of_row or name != "row"]
        self.lone_variable = lone[0] if len(parts) == 1 and lone else None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text; raises TemplateError."""
        if self._compiled is None:
            return self._substitute(variables)
        try:
            text = self._compiled.render(variables)
            text.encode()  # text that cannot be sent, such as half of a surrogate pair
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            reason = str(error) or "its text is too long"
            missing = getattr(error, "variable", None)
            raise TemplateError(f"cannot be rendered: {reason}", missing) from error
        return text

    def _substitute(self, variables: Mapping[str, Any]) -> str:
        try:
            values = [
                variables["row"][name] if is_of_row else variables[name]
                for name, is_of_row in self._places
            ]
        except (KeyError, TypeError) as error:
            missing = error.args[0] if isinstance(error, KeyError) else "row"
            raise TemplateError(f"cannot be rendered: '{missing}' is undefined", missing) from None
        if self._sieve is not None:
            values = [self._sieve(str(value)) for value in values]
        return self._form % tuple(values)


def column_expression(name: str) -> str:
    """Return a column as templates name it: by itself, or taken out of `row`."""
    if _WORD.fullmatch(name) and not _TAKEN.fullmatch(name):
        return name
    return f"row[{json.dumps(name, ensure_ascii=False)}]"


def is_true(text: str) -> bool:
    """Tell whether a rendered condition stands for true."""
    return text.strip().lower() not in _FALSE


def _compile(source: str, sieve: Callable[[str], str] | None) -> jinja2.Template:
    if sieve is None:
        return _environment.from_string(source)
    sieving = _environment.overlay(finalize=lambda value: sieve(str(_only_text(value))))
    return sieving.from_string(source)


def _columns_of_row(tree: jinja2.nodes.Template) -> frozenset[str]:
    """Return the names that are taken out of `row`: row["Image Src"] and row.sku."""
    names = {
        node.attr
        for node in tree.find_all(jinja2.nodes.Getattr)
        if isinstance(node.node, jinja2.nodes.Name) and node.node.name == "row"
    }
    found = map(_column_of_row, tree.find_all(jinja2.nodes.Getitem))
    return frozenset(names.union(name for name in found if name is not None))


def _column_of_row(node: jinja2.nodes.Getitem) -> str | None:
    """Return the name in row["name"], or None where something else is written."""
    is_row = isinstance(node.node, jinja2.nodes.Name) and node.node.name == "row"
    if is_row and isinstance(node.arg, jinja2.nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def _plain_parts(tree: jinja2.nodes.Template) -> list[_Part] | None:
    """Return the parts of a template that only substitutes, or None where it does more."""
    parts: list[_Part] = []
    for output in tree.body:
        if not isinstance(output, jinja2.nodes.Output):
            return None
        for node in output.nodes:
            column = _column_of_row(node) if isinstance(node, jinja2.nodes.Getitem) else None
            if isinstance(node, jinja2.nodes.TemplateData):
                parts.append((node.data, None, False))
            elif isinstance(node, jinja2.nodes.Name):
                parts.append(("", node.name, False))
            elif column is not None:
                parts.append(("", column, True))
            else:
                return None
    return parts
