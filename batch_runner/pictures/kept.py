"""Measurements that are kept, so that no picture is measured twice.

Hides the file, `.measured.jsonl`. What always holds: a measurement is found by the content that it
is of; those of another version, and lines that can't be read, count as missing. The file saves work
and nothing else: it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Self

import msgspec

from batch_runner.files.disk import storage_error
from batch_runner.pictures.measure import VERSION, Measured, measure

FILE_NAME = ".measured.jsonl"

_LINES = 200


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to measure: under which name the result is kept, where the picture is.

    `original` is a path, or the content. `sha256` is what a saved file must have. `shape` is set
    for a picture in: the width of its result divided by the height.
    """

    of: str
    original: str | bytes | None = None
    sha256: str | None = None
    shape: float | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the file."""

    of: str
    measured: Measured
    version: int = 0


class NotAsSavedError(Exception):
    """A picture cannot be read as it was saved; its text says why."""


def read_original(original: str | bytes | None, sha256: str | None) -> bytes:
    """Return a picture's content, from where it is; raises NotAsSavedError."""
    if isinstance(original, str):
        try:
            original = Path(original).read_bytes()
        except OSError:
            original = None
    if original is None:
        raise NotAsSavedError("is not on this machine")
    if sha256 not in (None, hashlib.sha256(original).hexdigest()):
        raise NotAsSavedError("has changed since it was saved")
    return original


def look(order: Order) -> Kept:
    """Measure one picture, in a worker process; never raises."""
    try:
        content = read_original(order.original, order.sha256)
    except NotAsSavedError as error:
        return unmeasured(order, str(error))
    return Kept(of=order.of, measured=measure(content, order.shape), version=VERSION)


def unmeasured(order: Order, why: str) -> Kept:
    """Return what is known of a picture that could not be looked at."""
    return Kept(of=order.of, measured=Measured(why_not=why))


class Measurements:
    """The file, during the block. `known` is what is known, by name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.known: dict[str, Measured] = {}
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        decode = msgspec.json.Decoder(Kept).decode
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    kept = decode(line)
                    if kept.version == VERSION:
                        self.known[kept.of] = kept.measured
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, kept: Kept) -> None:
        """Take a measurement, and keep it unless the picture could not be looked at."""
        self.known[kept.of] = kept.measured
        if kept.version:
            self._lines.append(msgspec.json.encode(kept) + b"\n")
        if len(self._lines) >= _LINES:
            self._write()

    def _write(self) -> None:
        """Append the lines in one write: two commands may measure at the same time."""
        lines, self._lines = b"\n" * bool(self._lines) + b"".join(self._lines), []
        if not lines:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(lines)
        except OSError as error:
            raise storage_error(self.path, error) from error
