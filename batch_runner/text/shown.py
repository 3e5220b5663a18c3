"""Texts that come from tables and websites: trimmed, shown in messages, freed of HTML.

Hides which characters nobody sees, and the codes of HTML. What always holds: nothing here fails,
whatever the text; what is shown in a message is short and has no character that is not seen.
"""

from __future__ import annotations

import re

MESSAGE_LIMIT = 700
"""As many characters of a message are shown; a cell may hold a megabyte."""

# Marks of byte order and of direction, joiners and spaces without width, soft hyphens. Python's
# own strip() takes the other blanks.
_UNSEEN = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
_INVISIBLE = re.compile(
    rf"[\x00-\x1f\x7f-\xa0{_UNSEEN}\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]"
)
_UNSEEN_ONE = re.compile(f"[{_UNSEEN}]")
_ENDS = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$")

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[A-Za-z][^<>]*>", re.DOTALL)


def trimmed(text: str) -> str:
    """Return the text without blanks and invisible characters at its ends."""
    text = text.strip()
    return _ENDS.sub("", text) if has_unseen(text) else text


def has_unseen(text: str) -> bool:
    """Tell whether a text holds a character without width."""
    return not text.isascii() and _UNSEEN_ONE.search(text) is not None


def visible(text: str, most: int = MESSAGE_LIMIT) -> str:
    r"""Return a text as a message shows it: short, and invisible characters as \u200b."""
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    return _INVISIBLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    letter = found.group()
    return letter if letter == " " else f"\\u{ord(letter):04x}"


def has_markup(text: str) -> bool:
    """Tell whether a text holds codes or tags of HTML."""
    if "&" in text and any(_is_known(code) for code in _ENTITY.findall(text)):
        return True
    return "<" in text and _TAG.search(text) is not None


def _is_known(code: str) -> bool:
    from html.entities import html5  # noqa: PLC0415 - every command imports this module

    return code.startswith("&#") or code[1:] in html5


def plain(value: object) -> str:
    """Return a text without the codes and tags of HTML, and without the blanks they leave."""
    text = str(value)
    if not has_markup(text):
        return text
    from html import unescape  # noqa: PLC0415 - likewise

    # Shops export what was encoded twice.
    for _ in range(3):
        text = _ENTITY.sub(lambda found: unescape(found.group()), _TAG.sub(" ", text))
        if not has_markup(text):
            break
    return " ".join(text.split())
