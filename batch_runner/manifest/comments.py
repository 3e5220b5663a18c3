"""Comments that cut a text off: to YAML, the unquoted text `on #F5F5DC, softly lit` is `on`.

What always holds: a `#` that touches the next letter (a colour, a number) never ends a text
unnoticed, and an unquoted text of several words has no comment behind it. Ordinary comments
(`4 # seconds`, `dir: out # on the NAS`) are fine.
"""

from __future__ import annotations

import re
from typing import Any

from batch_runner.text.shown import visible

HINT = "put the whole text in quotes; if it is a comment, give it a line of its own"

_COMMENT = re.compile(r"(\n?)([^\S\n]*)(#.*)")
_TOUCHING = re.compile(r"#[^\s#!]")
_COLOUR = re.compile(r"#(?=[0-9A-Fa-f]*\d|[0-9A-Fa-f]{6})(?:[0-9A-Fa-f]{3}){1,2}\b")
_COLOUR_IN_A_LIST = re.compile(r"#[0-9A-Fa-f]{3,8}\b")
_NOT_TEXT = re.compile(r"[-+.\d]+|true|false|null|~", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{\{.*?\}\}")

# YAML's tokens by their names, because only `document` knows the library.
_BEFORE_A_VALUE = ("ValueToken", "BlockEntryToken")
_IN_A_LIST = ("FlowEntryToken", "FlowSequenceStartToken")
_COLLECTION = ("BlockMappingStartToken", "BlockSequenceStartToken")


def find_cut(text: str, before: Any, after: Any) -> tuple[int, str] | None:
    """Return the line of a comment that is no comment, and what is wrong; None if there is none.

    It is looked for between two tokens.
    """
    kind, following = type(before).__name__, type(after).__name__
    is_text = kind == "ScalarToken"
    if is_text and not before.plain:
        return None
    opens = following in _COLLECTION or (kind, following) == ("ValueToken", "BlockEntryToken")
    for found in _COMMENT.finditer(text, before.end_mark.index, after.start_mark.index):
        newline, blanks, comment = found.groups()
        is_touching = _TOUCHING.match(comment) is not None
        if is_text and newline:
            is_deeper = len(blanks) > _indent(text, before.start_mark.index)
            is_cut = (is_touching and is_deeper) or _COLOUR.match(comment) is not None
        elif is_text:
            words = _TEMPLATE.sub("", before.value).split()
            is_number = _NOT_TEXT.fullmatch(before.value) is not None
            is_cut = (is_touching and not is_number) or len(words) > 1
        elif kind in _IN_A_LIST:
            is_cut = _COLOUR_IN_A_LIST.match(comment) is not None
        else:
            is_cut = is_touching and kind in _BEFORE_A_VALUE and not opens
        if is_cut:
            what = f"YAML takes '{visible(comment.strip(), 40)}' for a comment"
            return text.count("\n", 0, found.start(3)) + 1, what
    return None


def _indent(text: str, index: int) -> int:
    """Return how far the line of a place is indented, the signs of lists included."""
    line = text[text.rfind("\n", 0, index) + 1 : index]
    return len(line) - len(line.lstrip(" -"))
