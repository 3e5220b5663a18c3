"""A text file as text: its compression and its encoding.

Hides byte order marks, gzip, and how to tell a person which encoding a file probably has. What
always holds: a file is decoded strictly, as its own mark says, else as the manifest says, else as
UTF-8. Nothing is guessed: a wrong guess would turn `Bouclé` into `BouclĂ©` in prompts that are paid
for. Only the hint guesses, and shows what it would read.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from batch_runner.table.row import TableError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARKED = {"utf-8-sig": "utf-8", "utf-16": "utf-16"}
_FOREIGN = (
    (b"PK\x03\x04", "is a spreadsheet or a zip archive", "give it its right suffix, such as .xlsx"),
    (b"\xd0\xcf\x11\xe0", "is an old spreadsheet", "save it as .xlsx, or as 'CSV UTF-8'"),
    (b"\x1f\x8b", "is compressed with gzip", "give it the suffix .gz as well"),
    (b"PAR1", "is a Parquet file", "give it the suffix .parquet"),
)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_PROBABLE = ("cp1252", "cp1250", "cp1251", "mac_roman", "shift_jis", "gb18030")
"""What spreadsheet programs write if they do not write UTF-8, the likeliest first."""

USUAL_ENCODINGS = ("utf-8", "utf-16", "latin-1", "ascii", *_PROBABLE)
"""Suggestions for a misspelled encoding; Python's other encodings work as well."""

_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
_WORD_BYTES = re.compile(rb'[^\s,;|"]+')


def is_encoding(name: str) -> bool:
    """Tell whether a name is that of a text encoding."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


@contextlib.contextmanager
def opened(
    path: Path, encoding: str | None, *, is_compressed: bool, newline: str | None
) -> Iterator[IO[str]]:
    """Give the file as text; raises TableError, inside of the `with` too."""
    with _opened_bytes(path, is_compressed=is_compressed) as raw:
        try:
            head = raw.peek(_HEAD_BYTES)
            used = _encoding(path, head, encoding, is_compressed=is_compressed)
            with io.TextIOWrapper(raw, used, newline=newline) as text:
                yield text
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TableError(
                f"'{path.name}' is damaged: {error}", hint="copy or export it again"
            ) from error
        except UnicodeDecodeError as error:
            raise _undecodable(path, error, used, is_compressed=is_compressed) from error
        except UnicodeError as error:
            raise TableError(
                f"'{path.name}' is not {used}: {error}", hint="correct encoding: under images"
            ) from error


def _opened_bytes(path: Path, *, is_compressed: bool) -> io.BufferedReader:
    # A buffer as large as the head that is looked at before anything is decoded.
    raw = gzip.open(path, "rb") if is_compressed else path.open("rb", buffering=0)  # noqa: SIM115 - the caller closes the buffer
    return io.BufferedReader(cast("io.RawIOBase", raw), _HEAD_BYTES)


def _encoding(path: Path, head: bytes, declared: str | None, *, is_compressed: bool) -> str:
    """Decide for an encoding by the beginning of a file; raises TableError."""
    for mark, what, hint in _FOREIGN:
        if head.startswith(mark):
            raise TableError(f"'{path.name}' {what}, not text", hint=hint)
    if _HTML.match(head):
        raise TableError(
            f"'{path.name}' is an HTML page, not a table",
            hint="open it in a browser: it may ask for a login; then download the table again",
        )
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if declared is None:
        if marked is None and b"\0" in head:
            big = head[:1] == b"\0"
            raise TableError(
                f"'{path.name}' is not UTF-8: it holds zero bytes",
                hint=f"if it is UTF-16, write encoding: utf-16-{'be' if big else 'le'}"
                " under images",
            )
        return marked or "utf-8"
    canonical = codecs.lookup(declared).name
    found = _MARKED[marked] if marked else "utf-8"
    if canonical.startswith(found if marked else "utf-"):
        return marked or declared
    if marked is None and not _is_utf8(path, is_compressed=is_compressed):
        return declared
    raise TableError(f"'{path.name}' is {found}, not {declared}", hint="remove encoding:")


def _is_utf8(path: Path, *, is_compressed: bool) -> bool:
    """Tell whether a text is UTF-8 beyond ASCII; hardly any other text is by chance.

    It reads the whole file: the first letter beyond ASCII may be far down.
    """
    decoder, is_ascii = codecs.getincrementaldecoder("utf-8")(), True
    with _opened_bytes(path, is_compressed=is_compressed) as raw:
        try:
            while chunk := raw.read(_CHUNK_BYTES):
                is_ascii = is_ascii and chunk.isascii()
                decoder.decode(chunk)
        except UnicodeDecodeError:
            return False
    return not is_ascii


def _undecodable(
    path: Path, error: UnicodeDecodeError, used: str, *, is_compressed: bool
) -> TableError:
    """Say where, and what it would read in another encoding."""
    name = "UTF-8" if used.startswith("utf-8") else used
    what = f"is not {name} (byte 0x{error.object[error.start]:02x})"
    # Text is decoded in blocks, far ahead of the row that is read: find the line again.
    number, written = 0, b""
    with _opened_bytes(path, is_compressed=is_compressed) as raw:
        for written in raw:
            number += 1
            try:
                written.decode(used)
            except UnicodeError:
                break
    word = next(filter(lambda one: not _decodes(one, used), _WORD_BYTES.findall(written)), b"")
    hint = "export the table again as 'CSV UTF-8'"
    for encoding in _PROBABLE:
        if word and encoding != used and _decodes(word, encoding):
            shown = word.decode(encoding)[:40]
            hint = f"if '{shown}' is right, write encoding: {encoding} under images; else {hint}"
            break
    return TableError(what, line=number, hint=hint)


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        return text.decode(encoding).isprintable()
    except UnicodeError:
        return False
