"""Names of output files: safe on every platform, never outside the output folder.

Hides the rules of three file systems. What always holds: `safe_stem` returns a relative path whose
every segment is a legal name on Linux, macOS and Windows, short enough to take an extension and a
number; the same text gives the same path. Not promised: that two texts give two paths;
callers compare them by `collision_key`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

SEGMENT_LIMIT_BYTES = 180
DEPTH_LIMIT = 12
OWN_NAMES = frozenset(("ledger.jsonl", "models", "report", "shards", "superseded"))
"""What the program itself keeps at the top of an output folder; no picture goes there."""
SUPERSEDED_FOLDER = "superseded"
"""Holds what was paid for and has lost its place: replaced files, jobs that left the manifest."""

ADDED_BYTES = 27
"""The most that is added to a planned name while its picture is written: `.`, `-` and 12 digits of
a hash, `-10`, `.webp` and `.part`. The hash marks a picture whose job has left the manifest."""

_RATIO = re.compile(r"(?<=\d):(?=\d)")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE
)
# Nothing in such a path needs care: no name in it is a device's, and the first is not taken.
_PLAIN_PATH = re.compile(
    rf"(?!(?:{'|'.join(map(re.escape, OWN_NAMES))})(?:/|$))"
    r"(?:(?!(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:/|$))[a-z0-9_-]{1,180}(?:/(?=.)|$)){1,12}",
    re.IGNORECASE | re.ASCII,
)


class UnsafePathError(ValueError):
    """A path that cannot be made safe: empty, absolute, or leading out of its folder."""


class NameLimits(NamedTuple):
    """The most bytes that a file name, and a path below the output folder, may have.

    None if unknown. Both include what the program adds to a planned name.
    """

    name_bytes: int | None = None
    path_bytes: int | None = None


NO_LIMITS = NameLimits()


class Destinations:
    """Where the pictures of new jobs will go.

    `too_long` is the key of the first job whose file could not be saved because a name or the path
    is longer than `limits`, `excess` says how long it is, and `refused` counts such jobs.
    """

    def __init__(self, limits: NameLimits = NO_LIMITS) -> None:
        self._limits = limits
        self._shortest = min((one for one in limits if one is not None), default=None)
        # Some disks refuse names that are not ASCII: the longest of them is tried as well.
        self._longest: dict[bool, tuple[int, str]] = {}
        self.too_long: str | None = None
        self.excess = ""
        self.refused = 0

    def add(self, key: str, path: str) -> None:
        """Take in a new job's key, and its path without extension."""
        is_ascii = path.isascii()
        size = _size(path[path.rfind("/") + 1 :])
        if size > self._longest.get(is_ascii, (-1, ""))[0]:
            self._longest[is_ascii] = size, path
        excess = self._excess(path)
        if excess:
            self.refused += 1
            if self.too_long is None:
                self.too_long, self.excess = key, excess

    @property
    def stems(self) -> list[str]:
        """Return paths to try: those with the longest names."""
        return [path for _, path in self._longest.values()]

    def _excess(self, path: str) -> str:
        # A character has at most four bytes, so most paths need no closer look.
        if self._shortest is None or 4 * len(path) + ADDED_BYTES <= self._shortest:
            return ""
        *folders, name = path.split("/")
        name_bytes = max(_size(name) + ADDED_BYTES, *map(_size, folders), 0)
        path_bytes = _size(path) + ADDED_BYTES
        for what, size, limit in (
            ("a name", name_bytes, self._limits.name_bytes),
            ("a path", path_bytes, self._limits.path_bytes),
        ):
            if limit is not None and size > limit:
                return f"{what} of up to {size} bytes, but {limit} is the most"
        return ""


def _size(name: str) -> int:
    return len(name.encode(errors="surrogateescape"))


def value_text(value: Any) -> str:
    """Return a matrix value as keys and paths show it: as the manifest writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_matches(wanted: Any, value: Any) -> bool:
    """Tell whether a value of a rule is that of a job; a text may be a glob."""
    if isinstance(value, list):
        return any(value_matches(wanted, one) for one in value)
    if wanted == value and isinstance(wanted, bool) == isinstance(value, bool):
        return True
    if isinstance(wanted, str):
        return fnmatchcase(value_text(value), wanted)
    text = value_text(value)
    return value_text(wanted) == (text.lower() if isinstance(wanted, bool) else text)


def sieve_value(value: str) -> str:
    """Return a value that is safe inside a path: it cannot make folders of its own."""
    return value.replace("/", "-").replace("\\", "-")


def safe_stem(text: str) -> str:
    """Return the path (`/` between folders, no extension); raises UnsafePathError."""
    if _PLAIN_PATH.fullmatch(text):
        return text
    if text.startswith("/"):
        raise UnsafePathError("is absolute")
    segments = [segment for segment in text.split("/") if segment.strip() not in ("", ".")]
    if ".." in map(str.strip, segments):
        raise UnsafePathError("leads out of output.dir")
    if not segments:
        raise UnsafePathError("is empty")
    if len(segments) > DEPTH_LIMIT:
        raise UnsafePathError(f"has more than {DEPTH_LIMIT} folders")
    names = [_made_safe(segment) for segment in segments]
    if names[0].casefold() in OWN_NAMES:
        names[0] = f"_{names[0]}"
    return "/".join(names)


def collision_key(stem: str) -> str:
    """Return a key that two stems share if some file system treats them as one."""
    if stem.isascii():
        return stem.lower()
    folded = unicodedata.normalize("NFD", stem).casefold()
    return unicodedata.normalize("NFC", folded)


def superseded_path(path: str, sha256: str) -> str:
    """Return the path for a file whose name another file took (see `files.storage`)."""
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    kept = f"{stem}-{sha256[:12]}{dot}{extension}" if dot else f"{name}-{sha256[:12]}"
    return "/".join(part for part in (SUPERSEDED_FOLDER, folder, kept) if part)


def superseded_stem(stem: str, fingerprint: str) -> str:
    """Return the path for outputs of a job that is no longer in the manifest."""
    return f"{SUPERSEDED_FOLDER}/{stem}-{fingerprint[:12]}"


@lru_cache(maxsize=256)
def _made_safe(segment: str) -> str:
    name = _RATIO.sub("x", unicodedata.normalize("NFC", segment))
    name = _FORBIDDEN.sub("-", name).strip(" ").rstrip(". ")
    # A leading dot hides a file, and the program's own unfinished files begin with one.
    name = re.sub(r"^\.+", "_", name) or "_"
    if _DEVICE.match(name):
        name = f"_{name}"
    encoded = name.encode()
    if len(encoded) > SEGMENT_LIMIT_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:8]
        head = encoded[: SEGMENT_LIMIT_BYTES - 9].decode(errors="ignore").rstrip(". ")
        name = f"{head}-{digest}"
    return name
