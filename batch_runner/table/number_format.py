"""What a spreadsheet program shows for a number, a date or a text: codes such as `00-00` and `0%`.

What always holds: None means that the code is not understood, or that what it shows depends on the
reader's country; then the caller shows the value itself. Separators of thousands depend on the
country too and are left out.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|[_*].|\[\$(?P<currency>[^\]-]*)[^\]]*\]'
    r"|(?P<bracket>\[[^\]]*\])|(?P<digit>[0#?])"
    r"|(?P<word>AM/PM|A/P|General|y+|m+|d+|h+|s+|[Ee][+-])|(?P<sign>.)",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\[[<>=]")
_SYSTEM = re.compile(r"\[\$-[fx]", re.IGNORECASE)
_NAMES_ELSEWHERE = re.compile(r"\[\$[^\]]*-(?!0*409\]).*(?:mmm|ddd)", re.IGNORECASE)
_OF_THE_COUNTRY = ("mm-dd-yy", "m/d/yy h:mm", "m/d/yyyy h:mm")

_DATE_PARTS = {
    "yyyy": "{0:%Y}",
    "yy": "{0:%y}",
    "mmmm": "{0:%B}",
    "mmm": "{0:%b}",
    "mm": "{0:%m}",
    "m": "{0.month}",
    "dddd": "{0:%A}",
    "ddd": "{0:%a}",
    "dd": "{0:%d}",
    "d": "{0.day}",
    "hh": "{0:%H}",
    "h": "{0.hour}",
    "ss": "{0:%S}",
    "s": "{0.second}",
    "am/pm": "{0:%p}",
}
_MINUTES = {"mm": "{0:%M}", "m": "{0.minute}"}
_HOURS_OF_TWELVE = {"hh": "{0:%I}", "h": "{1}"}

_Tokens = list["re.Match[str]"]


def shown_number(value: float, code: str) -> str | None:
    """Return what is shown for a number; None if that is the number itself."""
    sections = _sections(code)
    if _CONDITION.search(code):
        return None
    section, sign = sections[0], "-" if value < 0 else ""
    if value < 0 and len(sections) > 1:
        section, sign = sections[1], ""
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    shown = _number(abs(value), section)
    # A number that is rounded to nothing has no sign.
    return f"{sign}{shown}" if shown and re.search("[1-9]", shown) else shown


def shown_text(value: str, code: str) -> str:
    """Return what is shown for a text: `"SKU-"@` puts something before it."""
    section = _sections(code)[-1] if "@" in code else []
    if not any(token["sign"] == "@" for token in section):
        return value
    return "".join(value if token["sign"] == "@" else _literal(token) for token in section)


def shown_date(value: date | time, code: str) -> str | None:
    """Return what is shown for a date or a time of day."""
    section = _sections(code)[0]
    words = [token["word"].lower() if token["word"] else "" for token in section]
    is_of_the_country = code in _OF_THE_COUNTRY or _SYSTEM.match(code)
    if is_of_the_country or _NAMES_ELSEWHERE.search(code) or not any(words):
        return None
    if isinstance(value, time):
        moment = datetime.combine(date.min, value)
    else:
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    parts = _DATE_PARTS | (_HOURS_OF_TWELVE if "am/pm" in words else {})
    shown = []
    for place, (token, word) in enumerate(zip(section, words, strict=True)):
        around = [next(filter(None, words[place + 1 :]), ""), *filter(None, words[:place])]
        is_minute = word in _MINUTES and (around[0][:1] == "s" or around[-1][:1] == "h")
        form = (_MINUTES if is_minute else parts).get(word)
        if token["bracket"] or (word and form is None):
            return None
        shown.append(form.format(moment, moment.hour % 12 or 12) if form else _literal(token))
    return "".join(shown).strip()


@lru_cache(maxsize=256)
def _sections(code: str) -> list[_Tokens]:
    sections: list[_Tokens] = [[]]
    for token in _TOKEN.finditer(code):
        if token["sign"] == ";":
            sections.append([])
        else:
            sections[-1].append(token)
    return sections


def _literal(token: re.Match[str]) -> str:
    return token["quoted"] or token["escaped"] or token["currency"] or token["sign"] or ""


def _number(value: float, section: _Tokens) -> str | None:
    signs = "".join("0" if token["digit"] else token["sign"] or "" for token in section)
    # Powers of ten and fractions: the number itself says more.
    if any(token["word"] for token in section) or re.search("@|0 */", signs):
        return None
    point = next((n for n, token in enumerate(section) if token["sign"] == "."), len(section))
    whole_places = [n for n, token in enumerate(section[:point]) if token["digit"]]
    places = [n for n, token in enumerate(section) if token["digit"] and n > point]
    number = Decimal(repr(value)).scaleb(2 * signs.count("%"))
    scaled = re.search(r"0(,+)[^0,]*$", signs)
    number = number.scaleb(-3 * len(scaled[1])) if scaled else number
    try:
        text = f"{number.quantize(Decimal(1).scaleb(-len(places)), ROUND_HALF_UP):f}"
    except ArithmeticError:
        return None
    whole, _, fraction = text.partition(".")
    shown = dict(zip(reversed(whole_places), reversed(whole.lstrip("0")), strict=False))
    if whole_places:
        shown[whole_places[0]] = whole[: -len(whole_places) + 1 or None].lstrip("0")
    shown |= dict(zip(places, fraction, strict=True))
    for place in reversed(places):
        if section[place]["digit"] == "0" or shown[place] != "0":
            break
        shown[place] = ""
    parts = []
    for n, token in enumerate(section):
        if token["digit"]:
            parts.append(shown.get(n) or ("0" if token["digit"] == "0" else ""))
        elif token["sign"] != ",":
            is_bare_point = n == point and not any(shown[place] for place in places)
            parts.append("" if is_bare_point else _literal(token))
    return "".join(parts).strip() or None
