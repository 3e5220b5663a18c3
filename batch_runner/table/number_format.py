"""What a spreadsheet program shows for a number: codes such as `00-00`, `"SKU-"0000` and `0.00%`.

What always holds: None means that the code does more than place digits and words (dates, powers of
ten, conditions, another form for negative numbers); then the caller shows the value itself.
Separators of thousands depend on the reader's country and are left out.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

_PART = re.compile(
    r'"([^"]*)"|\\(.)|\[\$([^\]-]*)[^\]]*\]|\[(?:[Rr]ed|[Bb]lue|[Bb]lack)\]|[_*].|([0#?.,%;])|(.)'
)
_DIGITS = frozenset("0#?")
_LITERAL = re.compile(r"[-+():$€£'& ]*")


def shown_number(value: float, code: str) -> str | None:
    """Return what is shown for a number; None if that is the number itself."""
    parts: list[tuple[str, str]] = []  # a sign such as 0, or else a literal text
    for quoted, escaped, currency, sign, other in _PART.findall(code):
        if sign == ";" and value > 0:
            break
        if sign == ";" or not _LITERAL.fullmatch(other):
            return None
        literal = quoted or escaped or currency or other
        parts.append(("", "%") if sign == "%" else (sign, literal))
    signs = "".join(sign or " " for sign, _ in parts)
    if not _DIGITS & set(signs) or re.search(r",[^0#?]*$|\..*\.", signs):
        return None
    point = signs.find(".") if "." in signs else len(parts)
    places = [sign for sign, _ in parts[point:] if sign in _DIGITS]
    percents = sum(literal == "%" for sign, literal in parts)
    try:
        number = abs(Decimal(repr(value)).scaleb(2 * percents))
        text = f"{number.quantize(Decimal(1).scaleb(-len(places)), ROUND_HALF_UP):f}"
    except ArithmeticError:
        return None
    whole, _, fraction = text.partition(".")
    least = places.count("0")
    fraction = fraction[:least] + fraction[least:].rstrip("0")
    shown = _whole(parts[:point], whole.lstrip("0")) + "." * bool(fraction)
    for sign, literal in parts[point + 1 :]:
        if sign in _DIGITS:
            shown, fraction = shown + fraction[:1], fraction[1:]
        else:
            shown += literal
    # A number that is rounded to nothing has no sign.
    is_negative = value < 0 and text.strip("0.") != ""
    return f"{'-' * is_negative}{shown.strip()}" or None


def _whole(parts: list[tuple[str, str]], digits: str) -> str:
    """Place the digits before the point from the right; the first place takes all that are left."""
    left = sum(sign in _DIGITS for sign, _ in parts)
    shown = ""
    for sign, literal in reversed(parts):
        if sign not in _DIGITS:
            shown = literal + shown
            continue
        left -= 1
        placed = digits[-1:] if left else digits
        digits = digits[: -len(placed) or None]
        shown = (placed or "0" * (sign == "0")) + shown
    return shown
