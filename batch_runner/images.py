"""A manifest's images: as a stream of image sets, the pictures of one job each.

Hides where pictures come from: written out, or a table's rows. What always holds: sets come in the
order of the manifest or table, in constant memory; one whose pictures cannot all be sent is a
problem that names its row, and no set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.document import Location
from batch_runner.manifest import InlineImages, Manifest, TableImages
from batch_runner.picture import Picture, PictureError, find_picture
from batch_runner.problems import Problems
from batch_runner.table import Row, TableError, read_rows
from batch_runner.template import Template, is_true
from batch_runner.validation import show

_ID_FORBIDDEN = re.compile(r"[/\\\x00-\x1f]")
_ID_LIMIT_CHARACTERS = 200


class ImageSet(msgspec.Struct, frozen=True):
    """The pictures of one job, with the row they came from.

    `cells` are the row's, without the empty ones: in ids, prompts and paths those are undefined
    variables.
    """

    id: str | None
    location: Location
    pictures: list[Picture] = []
    row: Row | None = None
    cells: Mapping[str, Any] = {}


def table_of(manifest: Manifest) -> Path | None:
    """Return the table that a manifest's images come from, or None."""
    source = manifest.images
    return source.path if isinstance(source, TableImages) else None


class Images:
    """The image sets of a manifest; what is wrong with them goes to `problems`.

    `local_pictures` says whether the service can read files of this machine (the sandbox can).
    """

    def __init__(self, manifest: Manifest, problems: Problems, *, local_pictures: bool) -> None:
        self._manifest = manifest
        self._problems = problems
        self._local_pictures = local_pictures
        self._table = table_of(manifest) or manifest.path

    def sets(self) -> Iterator[ImageSet]:
        """Yield the image sets that prompts and matrix are combined with."""
        images = self._manifest.images
        if images is None:
            # A manifest whose jobs are all written out under include needs no images; a model
            # that makes pictures from text alone has one empty set.
            if not self._manifest.include:
                yield ImageSet(None, ("prompts",))
        elif isinstance(images, InlineImages):
            for id_, urls in images.sets.items():
                image_set = self.written_out(id_, ("images", id_), urls)
                if image_set is not None:
                    yield image_set
        else:
            yield from self._rows(images)

    def _rows(self, images: TableImages) -> Iterator[ImageSet]:
        row = None
        try:
            for row in read_rows(images.path):
                image_set = self._row(images, row)
                if image_set is not None:
                    yield image_set
                if self._problems.are_enough:
                    return
            if row is None:
                raise TableError(
                    f"table '{images.path}' has no rows", hint="export it again with its rows"
                )
        except TableError as problem:
            self._problems.add_table(problem)

    def _row(self, images: TableImages, row: Row) -> ImageSet | None:
        cells = {"name": self._manifest.name, **row.cells, "row": row.cells}
        if images.where is not None:
            keep = self._problems.render(images.where, ("images", "where"), cells, row)
            if keep is None or not is_true(keep):
                return None
        filled = {name: value for name, value in row.cells.items() if value != ""}
        variables = {"name": self._manifest.name, **filled, "row": filled}
        id_ = self._problems.render(images.id, ("images", "id"), variables, row)
        urls = [self._problems.render(url, ("images", "urls"), cells, row) for url in images.urls]
        if id_ is None or None in urls:
            return None
        written = [(url or "").strip() for url in urls]
        id_ = id_.strip()
        if not id_ or len(id_) > _ID_LIMIT_CHARACTERS or _ID_FORBIDDEN.search(id_):
            what = f"{_columns([images.id])}{show(id_)} cannot be an image id"
            hint = "an id is a short text without slashes; choose another column for images.id"
            self._problems.add_row(row, what, hint)
            return None
        if not any(written):
            what = f"{_columns(images.urls)}no picture for '{id_}'"
            hint = "fill one in, or leave such rows out with images.where"
            self._problems.add_row(row, what, hint)
            return None
        return self.written_out(id_, ("images", "urls"), written, row, filled)

    def written_out(
        self,
        id_: str,
        location: Location,
        written: list[str],
        row: Row | None = None,
        cells: Mapping[str, Any] | None = None,
    ) -> ImageSet | None:
        """Return an image set; None where one of its pictures cannot be sent.

        An empty place is left out: a product with one picture has an empty second column.
        """
        base = self._manifest.path if row is None else self._table
        pictures = []
        for position, url in enumerate(written):
            if not url:
                continue
            try:
                picture = find_picture(url, base.parent, local_pictures=self._local_pictures)
            except PictureError as problem:
                self._picture_problem(location, row, position, problem)
            else:
                pictures.append(picture)
        if len(pictures) + written.count("") < len(written):
            return None
        return ImageSet(id_, location, pictures, row, cells or {})

    def _picture_problem(
        self, location: Location, row: Row | None, position: int, problem: PictureError
    ) -> None:
        source = self._manifest.images
        if row is not None and isinstance(source, TableImages):
            what = f"{_columns([source.urls[position]])}{problem.what}"
            self._problems.add_row(row, what, problem.hint)
        else:
            self._problems.add((*location, position), problem.what, problem.hint)


def _columns(templates: list[Template]) -> str:
    """Name the columns that templates take their text from, to stand before a problem."""
    names = sorted({name for template in templates for name in template.variables} - {"row"})
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"column {quoted}: " if names else ""
