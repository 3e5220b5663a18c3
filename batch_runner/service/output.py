"""The URLs in the output of an answer, under any key.

Hides the shapes of outputs. Always holds: pure; every http(s) and data: URL below an output is
found, except those that repeat the input or point to the request itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from batch_runner.text.address import unsigned_url

_NESTING_LIMIT = 8

_NAMED = ("image", "images", "video", "videos")
_NOT_MADE = frozenset(
    (
        *("input", "inputs", "request", "parameters", "webhook"),
        *("status_url", "result_url", "cancel_url", "model_url"),
    )
)
_URL = re.compile(r"https?://\S+|data:[^,\s]{0,200},.+", re.IGNORECASE | re.DOTALL)
_SHOWN = re.compile(
    r"data:(?:image|video)/.*"
    r"|[^?#]*\.(?:png|jpe?g|webp|gif|avif|heic|tiff?|mp4|mov|webm)(?:[?#].*)?",
    re.IGNORECASE | re.DOTALL,
)


def output_urls(output: Any, sent: Collection[str] = ()) -> tuple[list[str], int]:
    """Return every URL below an output, and how many of them are the main outputs.

    Pictures and films come first. If there are any, only they are main outputs. URLs of the input
    are left out.
    """
    ranks: dict[str, int] = {}
    for rank, url in _ranked_urls(output, rank=None, nesting=0):
        if unsigned_url(url) not in sent:
            ranks[url] = min(rank, ranks.get(url, rank))
    urls = sorted(ranks, key=ranks.__getitem__)
    return urls, sum(ranks[url] == ranks[urls[0]] for url in urls)


def _ranked_urls(output: Any, *, rank: int | None, nesting: int) -> Iterator[tuple[int, str]]:
    """Yield each URL with its rank: 0 by the name of its key, 1 by its own suffix, else 2."""
    if nesting > _NESTING_LIMIT:
        return
    if isinstance(output, str):
        url = output.strip()
        if _URL.fullmatch(url):
            yield (2 - bool(_SHOWN.fullmatch(url)) if rank is None else rank), url
    elif isinstance(output, list):
        for item in output:
            yield from _ranked_urls(item, rank=rank, nesting=nesting + 1)
    elif isinstance(output, dict):
        named = [name for name in _NAMED if name in output]
        for name in [*named, *(name for name in output if name not in named)]:
            if name not in _NOT_MADE:
                inner = 0 if name in named else rank
                yield from _ranked_urls(output[name], rank=inner, nesting=nesting + 1)
