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
from typing import Any

SEGMENT_LIMIT_BYTES = 180
DEPTH_LIMIT = 12
OWN_NAMES = frozenset(("ledger.jsonl", "models", "report", "shards", "superseded"))
"""What the program itself keeps at the top of an output folder; no picture goes there."""
SUPERSEDED_FOLDER = "superseded"
"""Holds what was paid for and has lost its place: replaced files, jobs that left the manifest."""

ADDED_BYTES = 27
"""The most that is added to a planned name while its picture is written: `.`, `-` and 12 digits of
a hash, `-10`, `.webp` and `.part`. The hash marks a picture whose job has left the manifest."""

_ALWAYS_TAKEN = 100
"""Every file system in use takes ASCII names and paths of so many bytes."""

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


class Destinations:
    """Paths to try before pictures go there: that with the longest name, and the longest path.

    Some disks refuse names that are not ASCII: the longest of them is tried as well.
    """

    def __init__(self) -> None:
        self._longest: dict[bool | None, tuple[int, str]] = {}

    def add(self, path: str) -> None:
        """Take in a new job's path without extension."""
        if self._longest and len(path) <= _ALWAYS_TAKEN and path.isascii():
            return  # nearly all, so it must be quick
        longest_name = max(map(_size, path.split("/")))
        for kind, size in ((path.isascii(), longest_name), (None, _size(path))):
            if size > self._longest.get(kind, (-1, ""))[0]:
                self._longest[kind] = size, path

    @property
    def stems(self) -> set[str]:
        """Return the paths to try."""
        return {path for _, path in self._longest.values()}


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
