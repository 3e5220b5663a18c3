"""Statistics about a column of a table, in constant memory.

Hides how pictures are recognised among other texts. What always holds: only a hash of each value
and a few examples are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from batch_runner.jobs.product import (
    ID_LIMIT_CHARACTERS,
    SHORTENED_NUMBER,
    listed_pictures,
    split_cell,
)
from batch_runner.manifest.template import column_expression
from batch_runner.table.distinct import Distinct

_IDS = (
    "sku",
    "handle",
    "urlhandle",
    "articlenumber",
    "artikelnummer",
    "itemnumber",
    "productid",
    "id",
)
_IDS_TOO = ("asin", "code", "ean", "gtin", "slug", "reference", "ref", "item", "article", "key")
_SOUNDS_LIKE_AN_ID = 99
_PICTURES = re.compile(r"image|img|photo|picture|bild|foto|imag[ei]n|thumb", re.IGNORECASE)
_PICTURE_NAME = re.compile(
    r"[^\s<>]+\.(?:jpe?g|png|webp|gif|avif|tiff?|bmp)(?:[?#]\S*)?", re.IGNORECASE
)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_NO_ID = re.compile(r"[\\\x00-\x1f]|://|//|^/|/$")
_OF_MANY_PRODUCTS = re.compile(
    r"categor|kategor|brand|marke|vendor|supplier|lieferant|manufacturer|hersteller|collection"
    r"|warehouse|store|shop|currency|tax"
)
_SEPARATORS = (",", "|", ";", "\n", " ")
_VALUES_KEPT = 6
_EXAMPLES_KEPT = 5


class Column:
    """A column. `repeated` counts values that an earlier row has, and `examples` has some of them.

    `returned` is the first value that comes again after others: a column with repeated and without
    returned values groups neighbouring rows. `shortened` has numbers that a spreadsheet program cut
    to the form 8.80E+12.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.filled = 0
        self.pictures = 0
        self.plain_http = 0
        self.files = 0
        self.is_text = True
        self.most_in_a_cell = 0
        self.separators: Counter[str] = Counter()
        self.can_be_id = True
        self.has_slash = False
        self.repeated = 0
        self.examples: list[str] = []
        self.shortened: list[str] = []
        self.returned: str | None = None
        self.values: Counter[str] | None = Counter()
        self._seen = Distinct()
        self._last: str | None = None

    def add(self, value: Any) -> None:
        """Add the value of a row."""
        if value == "":
            return
        self.filled += 1
        self.is_text = self.is_text and isinstance(value, str)
        is_list = isinstance(value, list | dict)
        texts = listed_pictures(value) if is_list else [str(value)]
        text = texts[0] if texts else ""
        if is_list or len(text) > ID_LIMIT_CHARACTERS or _NO_ID.search(text):
            self.can_be_id = False
        self.has_slash = self.has_slash or "/" in text
        self._look_for_pictures(texts, is_list=is_list)
        if self.values is not None:
            self.values[text[:50]] += 1
            self.values = self.values if len(self.values) <= _VALUES_KEPT else None
        if self.can_be_id:
            self._look_for_repeats(text)

    def _look_for_repeats(self, text: str) -> None:
        if SHORTENED_NUMBER.fullmatch(text):
            _keep(text, self.shortened)
        if not self._seen.add(text):
            self.repeated += 1
            _keep(text, self.examples)
            if text != self._last and self.returned is None:
                self.returned = text
        self._last = text

    def _look_for_pictures(self, texts: list[str], *, is_list: bool) -> None:
        found = texts
        if not is_list and len(texts) == 1:
            found, separator = split_pictures(texts[0])
            if len(found) > 1:
                self.separators[separator] += 1
        by_name = bool(_PICTURES.search(self.name))
        pictures = [text for text in found if _is_picture(text, named_so=by_name)]
        if pictures and len(pictures) == len(found):
            self.pictures += 1
            self.most_in_a_cell = max(self.most_in_a_cell, len(pictures))
            self.plain_http += any(text.lower().startswith("http://") for text in pictures)
            self.files += any("://" not in text for text in pictures)

    @property
    def word(self) -> str:
        """Return the name in lower case, without blanks and signs, for comparison."""
        folded = self.name.lower().replace("ö", "o")
        return re.sub(r"[^a-z0-9]", "", folded)

    @property
    def rank(self) -> int:
        """Return the rank of the name among names of ids, from 1; 0 if it is no such name."""
        word = self.word
        for rank, name in enumerate((*_IDS, *_IDS_TOO), start=1):
            if word == name:
                return rank
        sounds_so = word.endswith(("sku", "handle", "id", "number", "nummer"))
        return _SOUNDS_LIKE_AN_ID if sounds_so else 0

    @property
    def is_of_many_products(self) -> bool:
        """Return whether many products share a value, by the name, such as Category ID."""
        return _OF_MANY_PRODUCTS.search(self.word) is not None

    @property
    def expression(self) -> str:
        """Return the column as an expression in a template."""
        return column_expression(self.name)

    @property
    def text_expression(self) -> str:
        """Return the expression for the column as text."""
        return self.expression if self.is_text else f"{self.expression} | string"


def split_pictures(text: str) -> tuple[list[str], str]:
    """Return the pictures in a cell, and their separator."""
    for separator in _SEPARATORS:
        parts = split_cell(text, separator)
        if len(parts) > 1 and all(_is_picture(part, named_so=True) for part in parts):
            return parts, separator
    return ([text] if text.strip() else []), ","


def _is_picture(text: str, *, named_so: bool) -> bool:
    """Return whether a text is a picture's address or file, by its ending or its column's name."""
    if _PICTURE_NAME.fullmatch(text):
        return True
    return named_so and _ADDRESS.fullmatch(text) is not None


def _keep(text: str, examples: list[str]) -> None:
    if len(examples) < _EXAMPLES_KEPT and text not in examples:
        examples.append(text)
