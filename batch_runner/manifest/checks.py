"""The `checks` part of a manifest: what is required of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Checks
from batch_runner.manifest.reader import Reader

_NOT_CHECKS = ("profile", "advice", "where", "command")


def read_checks(
    reader: Reader, data: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
) -> Iterator[Checks]:
    """Yield what each part requires; a mapping alone is one part."""
    is_one = isinstance(data, Mapping)
    for position, part in enumerate([data] if isinstance(data, Mapping) else data or ()):
        here: Location = ("checks",) if is_one else ("checks", position)
        profiles = part.get("profile", [])
        yield Checks(
            profiles=(profiles,) if isinstance(profiles, str) else tuple(profiles),
            advice=part.get("advice", True),
            where=reader.choice(part, here, "where"),
            required={name: value for name, value in part.items() if name not in _NOT_CHECKS},
            command=reader.words(part.get("command"), (*here, "command")),
        )
