"""One picture as the manifest or a table names it: how it is sent, and what it is.

Hides which addresses the service can fetch, and what a picture is beyond its address. What always
holds: what is sent is an https URL, an object's URL (which is signed just before it is sent), or a
file's URL where the service reads files of this machine; the identity is the same however often the
address is signed anew, and for a file it is the hash of its content, wherever that is uploaded to.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from batch_runner.files.bucket import BucketUrl, is_bucket_url, parse_bucket_url
from batch_runner.files.local_picture import NotPictureError, examine
from batch_runner.jobs.mistakes import find_missing_part, find_mistake
from batch_runner.manifest.validation import show
from batch_runner.records import LocalFile, former_identity
from batch_runner.text.address import may_be_signed, unsigned_url
from batch_runner.text.shown import has_unseen, visible

_HTTPS_URL = re.compile(
    r"https://(?:[^\s/?#@]*@)?(?:[^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?:[/?#]\S*)?",
    re.IGNORECASE,
)
# No mistake fits into such a text, and no signature: nearly all addresses need no closer look.
_PLAIN_URL = re.compile(
    r"https://(?!(?:www\.)?(?:drive\.|photos\.app|1drv|dropbox))"
    r"[a-z0-9.-]+/[A-Za-z0-9._~/-]*(?:\?v=[0-9]+)?"
)
_HERE_URL = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]+)?/\S*\Z")


CONTENT = "sha256:"
"""Begins the name of a picture by its content."""

INLINE_LIMIT_BYTES = 6 * 2**20
"""The most that the vendor's own clients send inside a request for one picture."""

NAMED = "identity:"
"""Begins an identity that the manifest says."""


class Picture(msgspec.Struct, frozen=True, gc=False):
    """One picture: `url` is what is sent, `identity` what it is, however it is reached.

    `is_plain`: it is known by its whole address and nothing else.
    """

    url: str
    identity: str
    file: LocalFile | None = None
    is_plain: bool = False

    @property
    def is_named(self) -> bool:
        """Tell whether the manifest says what the picture is."""
        return self.identity.startswith(NAMED)

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Return what the picture is by its identity, address, former address, and as written.

        The last three are how a ledger may know it from before: see `former_identity`.
        """
        if self.file is not None:
            return (self.identity,) * 4
        url = self.url
        return (self.identity, unsigned_url(url), former_identity(url), url)


class PictureError(Exception):
    """A picture that cannot be sent."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def find_picture(
    written: str,
    folder: Path,
    *,
    local_pictures: bool,
    uploads: BucketUrl | None = None,
    inline: bool = False,
) -> Picture:
    """Return the picture that is written so, files being relative to `folder`.

    `uploads` is where files are uploaded to, `inline` sends them inside the request, and
    `local_pictures` says whether the service can read files of this machine otherwise. Raises
    PictureError.
    """
    if _PLAIN_URL.fullmatch(written):
        return Picture(written, written, is_plain=True)
    mistake = find_mistake(written)
    if mistake is not None:
        raise PictureError(*mistake)
    if _HTTPS_URL.fullmatch(written) and not has_unseen(written):
        url = "https" + written[5:]
        is_signed = may_be_signed(url)
        return Picture(url, unsigned_url(url) if is_signed else url, is_plain=not is_signed)
    if local_pictures and _HERE_URL.match(written):
        # A service on this machine reaches what this machine serves.
        return Picture(written, unsigned_url(written))
    scheme, separator, _ = written.partition("://")
    if scheme.lower() == "https":
        raise PictureError(
            f"{show(written)} is not a valid URL",
            "write https://host/path without blanks and invisible characters",
        )
    if is_bucket_url(written):
        return _in_bucket(written)
    if separator:
        what = f"{show(written)} is {show(scheme)[1:-1]}; the service fetches only https URLs"
        raise PictureError(what, "give the https URL of the picture; most hosts have one")
    if uploads is None and not inline and not local_pictures:
        missing = find_missing_part(written) or (
            f"{show(written)} is not an https URL, and the service cannot read local files",
            "name a bucket with uploads: s3://bucket/prefix, or try the batch with --sandbox",
        )
        raise PictureError(*missing)
    return _on_this_machine(written, folder, uploads, inline=inline)


def _in_bucket(written: str) -> Picture:
    try:
        url = parse_bucket_url(written)
    except ValueError as error:
        raise PictureError(f"{show(written)} {error}", "as in s3://bucket/mug.png") from error
    if not url.key or written.endswith("/"):
        raise PictureError(f"{show(written)} names no object", "as in s3://bucket/mug.png")
    return Picture(str(url), str(url), is_plain=not may_be_signed(str(url)))


def by_content(sha256: str) -> str:
    """Return the name under which a picture stands in an input until it is sent."""
    return f"{CONTENT}{sha256}"


def _on_this_machine(
    written: str, folder: Path, uploads: BucketUrl | None, *, inline: bool
) -> Picture:
    path = Path(os.path.normpath(folder.absolute() / written))
    try:
        photo = examine(path)
        if inline:
            url = by_content(photo.sha256)
        elif uploads is None:
            url = path.as_uri()
        else:
            # By its content: the same picture is uploaded only once.
            url = str(uploads.join(photo.sha256 + photo.extension))
    except NotPictureError as error:
        hint = "look at the file, or leave it out"
        raise PictureError(f"the picture {show(written)} {error}", hint) from error
    except (OSError, ValueError) as error:
        missing = f"there is no picture {show(written)}", f"looked for {visible(str(path), 200)}"
        raise PictureError(*(find_missing_part(written) or missing)) from error
    if inline and photo.size_bytes > INLINE_LIMIT_BYTES:
        what = f"the picture {show(written)} has {photo.size_bytes / 2**20:.1f} MiB"
        hint = f"at most {INLINE_LIMIT_BYTES >> 20} MiB go inline: name a bucket under uploads:"
        raise PictureError(what, hint)
    return Picture(url, by_content(photo.sha256), LocalFile(url, str(path), photo.size_bytes))
