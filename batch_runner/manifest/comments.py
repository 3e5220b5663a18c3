"""Comments that cut a text off: to YAML, the unquoted text `on #F5F5DC, softly lit` is `on`.

What always holds: a `#` that touches the next letter (a colour, a number) never ends a text
unnoticed, and an unquoted prompt has no comment behind it. Ordinary comments (`4 # seconds`,
`dir: out # on the NAS`) are fine.
"""

from __future__ import annotations

import re

Found = tuple[int, str, str]
"""A line, what is wrong there, and a hint."""

_HINT = "put the whole text in quotes; if it is a comment, give it a line of its own"

_BEHIND = re.compile(r"[ \t]+(#.*)|[ \t]*(?:\r?\n[ \t]*)+(#[^\s#!].*)")
_COLOUR = re.compile(r"#(?=[0-9A-Fa-f]*\d|[0-9A-Fa-f]{6})(?:[0-9A-Fa-f]{3}){1,2}\b")
_TOUCHING = re.compile(r"#[^\s#!]")
_COLOUR_IN_A_LIST = re.compile(r"[,\[]\s*(#[0-9A-Fa-f]{3,8}\b.*)")
_IN_A_BROKEN_LINE = re.compile(r"[^\s#\"'][^\"'#]*\s(#[^\s#!].*|#.*[\]}].*)")

_FIXED_FORM = ("version", "model", "limits", "retry", "window", "uploads", "price_unit")
"""Keys whose values have a fixed form: the rest of a cut text would be refused."""

_SENT = ("prompts", "include", "inputs", "matrix", "models")


def find_cut(
    text: str,
    start: int,
    end: int,
    value: str,
    *,
    is_text: bool,
    is_block: bool,
    location: tuple[str | int, ...],
) -> Found | None:
    """Return the problem if a comment cuts off the unquoted value between two places in a text.

    A block ends at the beginning of the line after it.
    """
    found = _BEHIND.match(text, end)
    if found is None:
        return None
    comment, place = found[1] or found[2], found.start(1 if found[1] else 2)
    is_deeper = _indent(text, place) > _indent(text, start, of_key=True)
    if (found[2] or is_block) and not is_deeper and not (value and _COLOUR.match(comment)):
        return None  # a comment line that does not continue the value above it
    if not value:
        is_cut = _TOUCHING.match(comment) is not None
        what = f"the value is empty: '{_shown(comment)}' is a comment"
    else:
        is_cut = is_text and _cuts(value, comment, location)
        what = f"the text ends before the comment '{_shown(comment)}'"
    return (_line(text, place), what, _HINT) if is_cut else None


def find_lost_colour(text: str, spans: list[tuple[int, int]], start: int, end: int) -> Found | None:
    """Return the problem if a colour is missing from a list: `[red, #000000`.

    `spans` are the places of the list's values, `start` and `end` its own.
    """
    for value_start, value_end in [*spans, (end, end)]:
        found = _COLOUR_IN_A_LIST.search(text, start, value_start)
        if found is not None:
            what = f"'{_shown(found[1])}' is a comment, not a value"
            return _line(text, found.start(1)), what, _HINT
        start = value_end
    return None


def find_cut_nearby(lines: list[str], first: int, last: int) -> Found | None:
    """Return the problem if a comment cuts a text off in lines that the parser gave up on.

    Lines are counted from 0 here.
    """
    for number in range(first, min(last + 1, len(lines))):
        found = _IN_A_BROKEN_LINE.match(lines[number].strip())
        if found is not None:
            return number + 1, f"the text ends before the comment '{_shown(found[1])}'", _HINT
    return None


def _cuts(value: str, comment: str, location: tuple[str | int, ...]) -> bool:
    place, key = location[:1], location[-1:]
    if (place and place[0] in _FIXED_FORM) or key == ("model",):
        return False
    if _TOUCHING.match(comment):
        return True
    if not place or place[0] not in _SENT:
        return False
    is_prompt = (place == ("prompts",) and len(location) == 2) or key == ("prompt",)
    return is_prompt or re.search(r"\s", value) is not None


def _line(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


def _indent(text: str, index: int, *, of_key: bool = False) -> int:
    line = text[text.rfind("\n", 0, index) + 1 : index]
    return len(line) - len(line.lstrip(" -")) if of_key else len(line)


def _shown(comment: str) -> str:
    comment = comment.strip()
    return comment if len(comment) <= 40 else f"{comment[:39]}…"
