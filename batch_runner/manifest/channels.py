"""The `deliver` part of a manifest: what each channel takes.

What always holds: a channel's folder is not inside the batch's own, where every file has a record;
no two channels share a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batch_runner.files.bucket import is_bucket_url
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Channel, Recipe, ShopTable
from batch_runner.manifest.reader import Reader


def read_channels(
    reader: Reader, data: Mapping[str, Mapping[str, Any]], output_dir: Path
) -> Iterator[Channel]:
    """Yield the channels."""
    owners: dict[str, str] = {}
    for name, value in data.items():
        here: Location = ("deliver", name)
        written = value["dir"]
        bucket = reader.bucket(written, (*here, "dir")) if is_bucket_url(written) else None
        folder = reader.folder / written
        if bucket is None and folder.resolve().is_relative_to(output_dir.resolve()):
            what = "is inside output.dir, where every file belongs to a job"
            hint = f"choose a folder beside it, such as out/{name}"
            reader.problems.add((*here, "dir"), what, hint)
        other = owners.setdefault(str(bucket or folder), name)
        if other != name:
            what = f"is also the folder of the channel '{other}'"
            reader.problems.add((*here, "dir"), what, "give each channel a folder of its own")
        yield Channel(
            name=name,
            folder=folder,
            bucket=bucket,
            path=reader.optional(value, here, "path", path=True),
            accepted_only=value.get("pictures", "accepted") == "accepted",
            where=reader.optional(value, here, "where"),
            recipe=_recipe(value),
            profile=value.get("profile"),
            table=_table(reader, value.get("table"), (*here, "table")),
        )


def _table(reader: Reader, value: Mapping[str, Any] | None, here: Location) -> ShopTable | None:
    if value is None:
        return None
    texts = {"handle": "{{ image }}", "title": "", "alt": "", "replaces": "", **value}
    return ShopTable(
        kind=value["kind"],
        base_url=value["base_url"],
        **{
            key: reader.template(texts[key], (*here, key))
            for key in ("handle", "title", "alt", "replaces")
        },
    )


def _recipe(value: Mapping[str, Any]) -> Recipe:
    names = ("fit", "background", "format", "quality", "max_bytes", "enlarge")
    width, _, height = str(value.get("size", "")).partition("x")
    return Recipe(
        size=(int(width), int(height or width)) if width else None,
        **{name: value[name] for name in names if name in value},
    )
