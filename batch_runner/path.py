"""Names of output files: safe on every platform, never outside the output folder.

Hides the rules of three file systems. What always holds: `safe_stem` returns a relative path whose
every segment is a legal name on Linux, macOS and Windows, short enough to take an extension and a
number; the same text gives the same path. Not promised: that two texts give two paths; whoever
plans the jobs compares them by `collision_key`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import Any

SEGMENT_LIMIT_BYTES = 180
DEPTH_LIMIT = 12
OWN_NAMES = frozenset(("ledger.jsonl", "models", "report", "shards", "superseded"))
"""What the program itself keeps at the top of an output folder; no picture goes there."""
SUPERSEDED_FOLDER = "superseded"
"""Holds what was paid for and has lost its place: replaced files, jobs that left the manifest."""

# Nothing in such a name needs care; it is too long for the name of a device.
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_-]{8,180}")
_RATIO = re.compile(r"(?<=\d):(?=\d)")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE
)


class UnsafePathError(ValueError):
    """A path that cannot be made safe: empty, absolute, or leading out of its folder."""


def value_text(value: Any) -> str:
    """Return a matrix value as keys and paths show it: as the manifest writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def sieve_value(value: str) -> str:
    """Return a value as it may stand inside a path: it cannot make folders of its own."""
    return value.replace("/", "-").replace("\\", "-")


def safe_stem(text: str) -> str:
    """Return the path (`/` between folders, no extension); raises UnsafePathError."""
    if text.startswith("/"):
        raise UnsafePathError("is absolute")
    segments = [segment for segment in text.split("/") if segment.strip() not in ("", ".")]
    if ".." in map(str.strip, segments):
        raise UnsafePathError("leads out of output.dir")
    if not segments:
        raise UnsafePathError("is empty")
    if len(segments) > DEPTH_LIMIT:
        raise UnsafePathError(f"has more than {DEPTH_LIMIT} folders")
    names = [_safe_segment(segment) for segment in segments]
    if names[0].casefold() in OWN_NAMES:
        names[0] = f"_{names[0]}"
    return "/".join(names)


def collision_key(stem: str) -> str:
    """Return what two stems share when a file system somewhere takes them for one."""
    if stem.isascii():
        return stem.lower()
    folded = unicodedata.normalize("NFD", stem).casefold()
    return unicodedata.normalize("NFC", folded)


def superseded_path(path: str, sha256: str) -> str:
    """Return where a file is kept that another one took the name of (see `files.storage`)."""
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    kept = f"{stem}-{sha256[:12]}{dot}{extension}" if dot else f"{name}-{sha256[:12]}"
    return "/".join(part for part in (SUPERSEDED_FOLDER, folder, kept) if part)


def superseded_stem(stem: str, fingerprint: str) -> str:
    """Return where outputs go whose job is no longer in the manifest."""
    return f"{SUPERSEDED_FOLDER}/{stem}-{fingerprint[:12]}"


def _safe_segment(segment: str) -> str:
    return segment if _PLAIN_SEGMENT.fullmatch(segment) else _made_safe(segment)


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
