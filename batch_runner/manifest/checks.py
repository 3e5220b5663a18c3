"""The `checks` part of a manifest: what is required of pictures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Checks
from batch_runner.manifest.template import Template

_NOT_CHECKS = ("profile", "advice", "where", "command")


def read_checks(
    data: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    template: Callable[[str, Location], Template],
    report: Callable[[Location, str, str], None],
) -> Iterator[Checks]:
    """Yield what each part requires; a mapping alone is one part."""
    is_one = isinstance(data, Mapping)
    for position, part in enumerate([data] if isinstance(data, Mapping) else data or ()):
        here: Location = ("checks",) if is_one else ("checks", position)
        where = template(part["where"], (*here, "where")) if "where" in part else None
        if where is not None and where.source and not where.variables:
            what = "'where' is the same for every picture: it names no column"
            report((*here, "where"), what, "such as \"{{ prompt == 'white' }}\"")
        profiles = part.get("profile", [])
        yield Checks(
            profiles=(profiles,) if isinstance(profiles, str) else tuple(profiles),
            advice=part.get("advice", True),
            where=where,
            required={name: value for name, value in part.items() if name not in _NOT_CHECKS},
            command=tuple(_words(part.get("command"), (*here, "command"), report)),
        )


def _words(
    text: str | None, location: Location, report: Callable[[Location, str, str], None]
) -> list[str]:
    try:
        words = shlex.split(text or "")
    except ValueError:
        report(location, "'command' has a quote that is not closed", "close it")
        return []
    if text is not None and not words:
        report(location, "'command' names no command", "such as ./same-product.py")
    return words
