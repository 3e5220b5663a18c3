"""Texts that a table holds instead of a picture's address, and what to write.

Hides how shop systems, spreadsheets and websites mangle addresses. What always holds: a mistake is
reported only if the text cannot be meant as it is; each comes with the edit that corrects it.
Pure: nothing is fetched, no file is looked at.
"""

from __future__ import annotations

import re
from functools import lru_cache

from batch_runner.manifest.template import Template, column_expression
from batch_runner.manifest.validation import show
from batch_runner.text.shown import has_markup, plain, visible, without_unseen

CELL = "{{ … }}"
CELL_AS_PLAIN = "{{ … | plain }}"
CELL_WITH_HTTPS = '{{ … | replace("http://", "https://") }}'
"""Stand in a hint for the template that gave the text."""

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
_AT_WIX = re.compile(r"[0-9a-f]{6}_[0-9a-f]{6,}~mv2\S*", re.IGNORECASE)

# Pages that show a picture, by host and path: which site it is, and the picture's own address.
_PAGES = tuple(
    (re.compile(rf"https://(?:www\.)?{pattern}", re.IGNORECASE), site, direct)
    for pattern, site, direct in (
        (
            r"drive\.google\.com/(?:file/d/|open\?(?:.*&)?id=)([\w-]+).*",
            "Google Drive",
            r"https://drive.google.com/uc?export=download&id=\1",
        ),
        (r"(?:photos\.app\.goo\.gl|photos\.google\.com)/.*", "Google Photos", None),
        (
            r"(dropbox\.com/(?:s|sh|scl/fi)/[^?#]+\?)(?!(?:.*&)?(?:raw|dl)=1)(?:(.*)&)?dl=0.*",
            "Dropbox",
            r"https://www.\1\2&raw=1",
        ),
        (
            r"(dropbox\.com/(?:s|sh|scl/fi)/[^?#]+)(?!.*[?&](?:raw|dl)=)(\?[^#]+)?.*",
            "Dropbox",
            r"https://www.\1\2?raw=1",
        ),
        (r"(?:1drv\.ms|onedrive\.live\.com/(?!download)).*", "OneDrive", None),
        (
            r"([\w-]+\.sharepoint\.com/:i:/[^?#]+)(?!.*download=1).*",
            "SharePoint",
            r"https://\1?download=1",
        ),
        (
            r"github\.com/([^/]+/[^/]+)/blob/([^?#]+)(?!.*raw=(?:true|1)).*",
            "GitHub",
            r"https://raw.githubusercontent.com/\1/\2",
        ),
        (
            r"(?:app|[\w-]+\.app)\.box\.com/s/(\w+).*",
            "Box",
            r"https://app.box.com/shared/static/\1",
        ),
        (r"imgur\.com/(?:a|gallery)/.*", "Imgur", None),
        (r"imgur\.com/(\w{5,})/?", "Imgur", r"https://i.imgur.com/\1.jpg"),
        (r"(?:share\.)?icloud\.com/.*", "iCloud", None),
        (r"(?:wetransfer\.com|we\.tl)/.*", "WeTransfer", None),
        (r"flickr\.com/photos/.*", "Flickr", None),
        (
            r"(?:commons\.wikimedia|[a-z-]+\.wikipedia)\.org/wiki/File:([^?#]+).*",
            "Wikimedia",
            r"https://commons.wikimedia.org/wiki/Special:FilePath/\1",
        ),
    )
)


_SITES = frozenset(
    (
        *("google.com", "goo.gl", "dropbox.com", "1drv.ms", "live.com", "sharepoint.com", "we.tl"),
        *("github.com", "box.com", "imgur.com", "icloud.com", "wetransfer.com", "flickr.com"),
        *("wikimedia.org", "wikipedia.org"),
    )
)


def find_mistake(written: str) -> tuple[str, str] | None:
    """Return what is wrong with a text that should be one picture's address, and a hint."""
    is_one = written.isascii() and written[:8] == "https://" and written.count("//") == 1
    if is_one and not _has_pages(written[8:].partition("/")[0]) and not has_markup(written):
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
        hint = f"write split: {show(separator)} under images"
        if not separator:
            hint = "put a separator between them, such as ',', and write split: \",\" under images"
        return f"{show(written)} is {count} addresses in one text", hint
    if has_markup(written) and _START.match(written):
        meant = plain(written)
        what = f"{show(written)} holds HTML codes such as &amp;"
        return what, f"it should be {show(meant, 300)}; write urls: '{CELL_AS_PLAIN}'"
    for page, site, direct in _PAGES if _has_pages(written[8:].partition("/")[0]) else ():
        found = page.fullmatch(written)
        if found is not None:
            return f"{show(written)} is a page of {site}, not a picture", _direct(found, direct)
    return None


@lru_cache(maxsize=256)
def _has_pages(host: str) -> bool:
    """Tell whether a host is one of the sites that have pages."""
    return ".".join(host.lower().rsplit(".", 2)[-2:]) in _SITES


def _direct(found: re.Match[str], direct: str | None) -> str:
    if direct is None:
        return "it has no direct form: download the picture, and put it on a public https host"
    address = found.expand(direct)
    first, mark, rest = address.partition("?")
    return f"write {show(first + mark + rest.replace('?', '&').lstrip('&'), 200)}"


def find_missing_part(written: str) -> tuple[str, str] | None:
    """Return what a text that is no https address lacks to be one, and a hint."""
    files = _FILES.fullmatch(written)
    if files is not None and not _START.match(written):
        hint = f"write split: {show(files['mark'])} under images"
        return f"{show(written)} is several files in one text", hint
    if written.startswith("//"):
        return f"{show(written)} is an address without https:", f"write urls: 'https:{CELL}'"
    if _NO_SCHEME.fullmatch(written):
        return f"{show(written)} is an address without https://", f"write urls: 'https://{CELL}'"
    if _AT_WIX.fullmatch(written):
        what = f"{show(written)} is a picture's name at Wix, not its address"
        return what, f"write urls: 'https://static.wixstatic.com/media/{CELL}'"
    return None


def find_missing_host(written: str) -> str | None:
    """Return a hint for a path that may be one of a website."""
    if not written.startswith("/"):
        return None
    return f"if it is a path of your website, write urls: 'https://HOST{CELL}' with its host"


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


def with_cell(hint: str, template: Template) -> str:
    """Return a hint with the column of the template that gave the text, if it is a lone one."""
    column = template.lone_variable
    return hint if column is None else hint.replace("{{ …", f"{{{{ {column_expression(column)}")


def without_cell(hint: str, written: str) -> str:
    """Return a hint for a picture that is written out in the manifest."""
    if "split: " in hint:
        return "write them as a list, one address an entry"
    hint = re.sub(r"; [a-z ]*:? ?urls: '{{ … \|[^']*'", "", hint)
    return hint.replace("urls: ", "").replace(CELL, visible(written, 200))
