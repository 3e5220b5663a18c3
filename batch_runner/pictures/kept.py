"""Measurements that are kept, so that no picture is measured twice.

Hides the file, `.measured.jsonl`. What always holds: a measurement is found by the content that it
is of; those of another version, and lines that can't be read, count as missing. The file saves work
and nothing else: it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files.disk import storage_error
from batch_runner.pictures.measure import VERSION, Measured, measure, measure_source

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
    """A line of the file: the measurements of a result, or the grids of a picture in."""

    of: str
    version: int = VERSION
    measured: Measured | None = None
    grids: tuple[bytes, bytes] | None = None


def source_name(what: str, shape: float) -> str:
    """Return the name of a picture in, for results of one shape."""
    return f"{hashlib.sha256(what.encode()).hexdigest()}@{shape:.2f}"


def look(order: Order) -> Kept:
    """Measure one picture, in a worker process; never raises."""
    content = order.original
    if isinstance(content, str):
        try:
            content = Path(content).read_bytes()
        except OSError:
            content = None
    if order.shape is not None:
        grids = (b"", b"") if content is None else measure_source(content, order.shape)
        return Kept(of=order.of, grids=grids)
    if content is None:
        return unmeasured(order, "is not on this machine")
    if order.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        return unmeasured(order, "has changed since it was saved")
    return Kept(of=order.of, measured=measure(content))


def unmeasured(order: Order, why: str) -> Kept:
    """Return what is known of a picture that could not be looked at."""
    if order.shape is not None:
        return Kept(of=order.of, grids=(b"", b""))
    return Kept(of=order.of, measured=Measured(why_not=why))


class Measurements:
    """The file, during the block. `results` and `sources` are what is known, by name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.results: dict[str, Measured] = {}
        self.sources: dict[str, tuple[bytes, bytes]] = {}
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            self._read(file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write()

    def _read(self, lines: Iterable[bytes]) -> None:
        decode = msgspec.json.Decoder(Kept).decode
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                kept = decode(line)
                if kept.version == VERSION:
                    self._take(kept)

    def add(self, kept: Kept) -> None:
        """Take a measurement, and keep it unless the picture could not be looked at."""
        self._take(kept)
        if (kept.measured and kept.measured.media) or (kept.grids and kept.grids[0]):
            self._lines.append(msgspec.json.encode(kept) + b"\n")
        if len(self._lines) >= _LINES:
            self._write()

    def _take(self, kept: Kept) -> None:
        if kept.measured is not None:
            self.results[kept.of] = kept.measured
        elif kept.grids is not None:
            self.sources[kept.of] = kept.grids

    def _write(self) -> None:
        """Append the lines in one write: two commands may measure at the same time."""
        lines, self._lines = b"\n" * bool(self._lines) + b"".join(self._lines), []
        if not lines:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(lines)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StorageError:
        return storage_error(self.path, error)
