"""One picture as the manifest or a table names it: how it is sent, and what it is.

Hides which addresses the service can fetch, and what a picture is beyond its address. What always
holds: what is sent is an https URL, or a file's URL where the service reads files of this machine;
the identity is the same however often the address is signed anew, and for a file it is the hash of
its content.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

import msgspec

from batch_runner.records import unsigned_url
from batch_runner.validation import show

_HTTPS_URL = re.compile(
    r"https://(?:[^\s/?#@]*@)?(?:[^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?:[/?#]\S*)?",
    re.IGNORECASE,
)


class Picture(msgspec.Struct, frozen=True):
    """One picture: `url` is what is sent, `identity` what it is, however it is reached."""

    url: str
    identity: str


class PictureError(Exception):
    """A picture that cannot be sent."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def find_picture(written: str, folder: Path, *, local_pictures: bool) -> Picture:
    """Return the picture that is written so, files being relative to `folder`.

    `local_pictures` says whether the service can read files of this machine. Raises PictureError.
    """
    if _HTTPS_URL.fullmatch(written):
        url = "https" + written[5:]
        return Picture(url, unsigned_url(url))
    scheme, separator, _ = written.partition("://")
    if scheme.lower() == "https":
        raise PictureError(
            f"{show(written)} is not a valid URL", "write https://host/path without blanks"
        )
    if separator:
        what = f"{show(written)} is {scheme}; the service fetches only https URLs"
        raise PictureError(what, "give the https URL of the picture")
    if not local_pictures:
        what = f"{show(written)} is not an https URL, and the service cannot read local files"
        hint = "put the picture on a web server, or try the batch with --sandbox"
        raise PictureError(what, hint)
    path = Path(os.path.normpath(folder.absolute() / written))
    try:
        found = path.stat()
        identity = _file_identity(path, found.st_mtime_ns, found.st_size)
        return Picture(path.as_uri(), identity)
    except (OSError, ValueError) as error:
        raise PictureError(f"there is no picture {show(written)}", f"looked for {path}") from error


@lru_cache(maxsize=4096)
def _file_identity(path: Path, mtime_ns: int, size_bytes: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
