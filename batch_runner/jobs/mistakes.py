"""Texts that a table holds instead of a picture's address, and what to write.

Hides how shop systems, spreadsheets and websites mangle addresses. What always holds: a mistake is
reported only if the text cannot be meant as it is; each comes with the edit that corrects it.
Pure: nothing is fetched, no file is looked at.
"""

from __future__ import annotations

import re

from batch_runner.manifest.validation import show
from batch_runner.text.shown import has_markup, plain

_ADDRESS = r"(?:https?|s3|gs|az)://"
_START = re.compile(_ADDRESS, re.IGNORECASE)
# No address has these right before another one; ':', '/', '=', '?' and '&' it may have.
_JOINT = re.compile(
    rf"\s*(?P<mark>[,;|~*+^$#•·—–]|::+|&&+|\s)\s*(?={_ADDRESS}|//[\w-]+\.)"  # noqa: RUF001 - dashes are meant
    r"|(?<=[\w)])(?=https?://)",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:https?:)?//([^/?#\s]+)", re.IGNORECASE)
_FILE = r"[^\s,;|]+\.(?:jpe?g|png|webp|gif|avif|heic|tiff?|bmp)(?:\?[^\s,;|]*)?"
_FILES = re.compile(rf"{_FILE}(?:\s*(?P<mark>[,;|\n])\s*{_FILE})+", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?/\S+", re.IGNORECASE)
_PAGE = re.compile(
    r"https://(?:www\.)?(drive\.google\.com(?=/(?:file/d/|open\?))|photos\.app\.goo\.gl|1drv\.ms"
    r"|dropbox\.com(?=/(?:s|sh|scl/fi)/(?!.*[?&](?:raw|dl)=1)))/",
    re.IGNORECASE,
)
"""Pages that show a picture."""


def find_mistake(written: str) -> tuple[str, str] | None:
    """Return what is wrong with a text that should be one picture's address, and a hint."""
    if written[:5].lower() == "data:":
        size = f"{len(written):,} characters"
        what = f"the picture itself is in the cell ({show(written, 30)}, {size}), not its address"
        return what, "put the picture on an https host, or into a file, and name that"
    if not _START.match(written) and not written.startswith("//"):
        return None
    joined = _joined(written)
    if joined is not None:
        return joined
    if has_markup(written):
        hint = f"it should be {show(plain(written), 300)}; in a table, urls: '{{{{ … | plain }}}}'"
        return f"{show(written)} holds HTML codes such as &amp;", hint
    page = _PAGE.match(written)
    what = f"{show(written)} is a page of {page[1]}, not a picture" if page else ""
    return (what, "put the picture itself on a public https host") if page else None


def find_missing_part(written: str) -> tuple[str, str] | None:
    """Return what a text that is no https address lacks to be one, and a hint."""
    files = _FILES.fullmatch(written)
    if files is not None:
        hint = f"write split: {show(files['mark'])} under images"
        return f"{show(written)} is several files in one text", hint
    if written.startswith("//") or _NO_SCHEME.fullmatch(written):
        start = "https:" if written.startswith("//") else "https://"
        hint = f"begin it with {start}; in a table, urls: '{start}{{{{ … }}}}'"
        return f"{show(written)} is an address without {start}", hint
    return None


def _joined(written: str) -> tuple[str, str] | None:
    """Return that a text is several addresses, and how to separate them; None for one."""
    joints = list(_JOINT.finditer(written))
    if not joints:
        return None
    first, second = written[: joints[0].start()], written[joints[0].end() :]
    # A service that is given addresses of pictures in its own may be given several.
    hosts = _HOST.match(first), _HOST.match(second)
    if len(_START.findall(first)) > 1 and hosts[0] and hosts[1] and hosts[0][1] != hosts[1][1]:
        return None
    separator = (joints[0]["mark"] or "").replace("\r", "\n")
    hint = f"write split: {show(separator)} under images, or list them in the manifest"
    if not separator:
        hint = "put a separator between them, such as ',', and write split: \",\" under images"
    return f"{show(written)} is {len(joints) + 1} addresses in one text", hint
