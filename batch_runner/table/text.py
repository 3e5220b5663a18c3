"""A text file as text: its encoding.

Hides byte order marks. What always holds: a file is decoded strictly, as its own mark
says, else as the manifest says, else as UTF-8. Nothing is guessed: a wrong guess would turn
`Bouclé` into `BouclĂ©` in prompts that are paid for.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from batch_runner.table.row import TableError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16"),
)
_FOREIGN = (
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "a spreadsheet or an archive"),
    (rb"\x1f\x8b", "compressed with gzip"),
    (rb"PAR1", "a Parquet file"),
    (rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|!--))", "a page of a website"),
)


def is_encoding(name: str) -> bool:
    """Tell whether a name is that of a text encoding."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


@contextlib.contextmanager
def opened(path: Path, encoding: str | None, *, newline: str | None) -> Iterator[IO[str]]:
    """Give the file as text; raises TableError, inside of the `with` too."""
    used = "UTF-8"
    try:
        with path.open("rb") as raw:
            used = _encoding(path, raw.peek(), encoding)
            with io.TextIOWrapper(raw, used, newline=newline) as text:
                yield text
    except UnicodeError as error:
        # Text is decoded in blocks, far ahead of the row that is read: find the line again.
        line = _undecodable_line(path, used)
        raise TableError(
            f"is not {used.removesuffix('-sig')}",
            line=line,
            hint="export the table again as 'CSV UTF-8', or write encoding: cp1252 under images if"
            " it comes from an older program for Windows",
        ) from error


def _encoding(path: Path, head: bytes, declared: str | None) -> str:
    """Decide for an encoding by the beginning of a file; raises TableError."""
    for pattern, what in _FOREIGN:
        if re.match(pattern, head):
            hint = "give it the suffix of what it is, or export it again as 'CSV UTF-8'"
            raise TableError(f"'{path.name}' is {what}, not a table of text", hint=hint)
    marked, found = next(((m, f) for mark, m, f in _MARKS if head.startswith(mark)), (None, None))
    if declared is None:
        if marked is None and b"\0" in head:
            hint = "if it is UTF-16, write encoding: utf-16-le under images"
            raise TableError(f"'{path.name}' is not UTF-8: it holds zero bytes", hint=hint)
        return marked or "utf-8"
    if codecs.lookup(declared).name.startswith(found or "utf-"):
        return marked or declared
    if marked is None and not _is_utf8(path):
        return declared
    raise TableError(
        f"'{path.name}' is {found or 'utf-8'}, not {declared}", hint="remove encoding:"
    )


def _is_utf8(path: Path) -> bool:
    """Tell whether a text is UTF-8 beyond ASCII; hardly any other text is by chance.

    It reads the whole file: the first letter beyond ASCII may be far down.
    """
    is_ascii = True
    with path.open("rb") as raw:
        try:
            for text in codecs.iterdecode(raw, "utf-8"):
                is_ascii = is_ascii and text.isascii()
        except UnicodeDecodeError:
            return False
    return not is_ascii


def _undecodable_line(path: Path, used: str) -> int:
    number = 0
    with path.open("rb") as raw, contextlib.suppress(UnicodeError):
        for written in raw:
            number += 1
            written.decode(used)
    return max(number, 1)
