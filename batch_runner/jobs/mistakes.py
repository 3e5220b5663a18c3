"""Texts that a table holds instead of a picture's address, and what to write.

Hides how shop systems, spreadsheets and websites mangle addresses. What always holds: a mistake is
reported only if the text cannot be meant as it is; each comes with the edit that corrects it.
Pure: nothing is fetched, no file is looked at.
"""

from __future__ import annotations

import re
from functools import lru_cache

from batch_runner.manifest.validation import show
from batch_runner.text.shown import has_markup, plain, without_unseen

_ADDRESS = r"(?:https?|s3|gs|az)://"
_START = re.compile(_ADDRESS, re.IGNORECASE)
# No address has these right before another one; ':', '/', '=', '?' and '&' it may have.
_ODD_MARK = r"(?:[~*+^$#•·—–]|::+|&&+)"  # noqa: RUF001 - dashes are meant
_JOINT = re.compile(
    rf"\s*(?P<mark>[,;|]|\s|{_ODD_MARK}(?=\s*https?://))\s*(?={_ADDRESS}|//[\w-]+\.)"
    r"|(?<=[\w)])(?=https?://)",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:https?:)?//([^/?#\s]+)", re.IGNORECASE)
_FILE = r"[^\s,;|]+\.(?:jpe?g|png|webp|gif|avif|heic|tiff?|bmp)(?:\?[^\s,;|]*)?"
_FILES = re.compile(rf"{_FILE}(?:\s*(?P<mark>[,;|\n])\s*{_FILE})+", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?/\S+", re.IGNORECASE)
_DOWNLOAD = "download the picture, or take its direct link, and put that on a public https host"
_PAGE = re.compile(
    r"https://(?:www\.)?((?:drive\.google\.com(?=/(?:file/d/|open\?))"
    r"|photos\.(?:app\.goo\.gl|google\.com)(?=/)"
    r"|dropbox\.com(?=/(?:s|sh|scl/fi)/(?!.*[?&](?:raw|dl)=1))"
    r"|1drv\.ms|onedrive\.live\.com(?=/(?!download))"
    r"|[\w-]+\.sharepoint\.com(?=/:i:/(?!.*download=1))"
    r"|github\.com(?=/[^/]+/[^/]+/blob/(?!.*raw=(?:true|1)))"
    r"|(?:app|[\w-]+\.app)\.box\.com(?=/s/)"
    r"|imgur\.com(?=/(?:a/|gallery/|\w{5,}/?\Z))"
    r"|(?:share\.)?icloud\.com|wetransfer\.com|we\.tl|flickr\.com(?=/photos/)"
    r"|(?:commons\.wikimedia|[a-z-]+\.wikipedia)\.org(?=/wiki/File:)))/",
    re.IGNORECASE,
)
"""Pages that show a picture: the site, if the path is one of its pages."""


def find_mistake(written: str) -> tuple[str, str] | None:
    """Return what is wrong with a text that should be one picture's address, and a hint."""
    is_one = written.isascii() and written[:8] == "https://" and written.count("//") == 1
    if is_one and not _may_be_page(written[8:].partition("/")[0]) and not has_markup(written):
        return None  # nearly all addresses
    if written[:5].lower() == "data:":
        size = f"{len(written):,} characters"
        what = f"the picture itself is in the cell ({show(written, 30)}, {size}), not its address"
        return what, "put the picture on an https host, or into a file, and name that"
    seen = without_unseen(written)
    if seen != written and _START.match(written):
        hint = f"write it again: {show(seen, 300)}"
        return f"{show(written)} holds a character that is not seen", hint
    joined = _joined(written) if written.count("//") > 1 else None
    if joined is not None:
        count, separator = joined
        hint = f"write split: {show(separator)} under images, or list them in the manifest"
        if not separator:
            hint = "put a separator between them, such as ',', and write split: \",\" under images"
        return f"{show(written)} is {count} addresses in one text", hint
    if has_markup(written) and _START.match(written):
        hint = f"it should be {show(plain(written), 300)}; in a table, urls: '{{{{ … | plain }}}}'"
        return f"{show(written)} holds HTML codes such as &amp;", hint
    host = written[8:].partition("/")[0]
    page = _PAGE.match(written) if _may_be_page(host) else None
    return page and (f"{show(written)} is a page of {page[1]}, not a picture", _DOWNLOAD)


@lru_cache(maxsize=256)
def _may_be_page(host: str) -> bool:
    """Tell whether a host may be one of the sites that have pages: nearly all have none."""
    return host.lower().rpartition(".")[0].rpartition(".")[2] in _PAGE.pattern


def find_missing_part(written: str) -> tuple[str, str] | None:
    """Return what a text that is no https address lacks to be one, and a hint."""
    files = _FILES.fullmatch(written)
    if files is not None and not _START.match(written):
        hint = f"write split: {show(files['mark'])} under images"
        return f"{show(written)} is several files in one text", hint
    if written.startswith("//") or _NO_SCHEME.fullmatch(written):
        start = "https:" if written.startswith("//") else "https://"
        return f"{show(written)} is an address without {start}", _begin_with(start)
    return None


def find_missing_host(written: str) -> str | None:
    """Return a hint for a path that may be one of a website."""
    if not written.startswith("/"):
        return None
    return f"if it is a path of your website: {_begin_with('https://HOST')}"


def _begin_with(start: str) -> str:
    return f"begin it with {start}; in a table, urls: '{start}{{{{ … }}}}'"


def _joined(written: str) -> tuple[int, str] | None:
    """Return how many addresses are in a text, and what separates them; None for one."""
    if not (_START.match(written) or written.startswith("//")):
        return None
    joints = list(_JOINT.finditer(written))
    if not joints:
        return None
    first, second = written[: joints[0].start()], written[joints[0].end() :]
    # A service that is given addresses of pictures in its own may be given several.
    has_inner = len(_START.findall(first)) > 1
    hosts = _HOST.match(first), _HOST.match(second)
    if has_inner and hosts[0] and hosts[1] and hosts[0][1] != hosts[1][1]:
        return None
    return len(joints) + 1, (joints[0]["mark"] or "").replace("\r", "\n")
