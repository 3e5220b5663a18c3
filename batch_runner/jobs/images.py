"""A manifest's images: as a stream of image sets, the pictures of one job each.

Hides where pictures come from: written out, or a table's rows. What always holds: sets come in the
order of the manifest or table, in constant memory; one whose pictures cannot all be sent is a
problem that names its row, and no set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.jobs.picture import NAMED, Picture, PictureError
from batch_runner.jobs.product import (
    Product,
    Products,
    RowCells,
    Tally,
    all_cells,
    columns_text,
    filled_cells,
    listed_pictures,
    split_cell,
    variables_of,
)
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import Template
from batch_runner.table import Row, TableError

_OF_TABLE: Location = ("images", "urls")


class ImageSet(msgspec.Struct, frozen=True, gc=False):
    """The pictures of one job, with the row they came from and its cells that are not empty."""

    id: str | None
    location: Location
    pictures: Sequence[Picture] = ()
    row: Row | None = None
    cells: Mapping[str, Any] = {}


def table_of(manifest: Manifest) -> Path | None:
    """Return the table that a manifest's images come from, or None."""
    source = manifest.images
    return source.path if isinstance(source, TableImages) else None


def image_sets(
    manifest: Manifest,
    problems: Problems,
    tally: Tally,
    find: Callable[[str], Picture],
    check_columns: Callable[[Row, Collection[str]], None],
) -> Iterator[ImageSet]:
    """Yield the image sets that prompts and matrix are combined with.

    What is wrong with them goes to `problems`; `tally` counts what became of a table's rows.
    `find` returns the picture that a text names (see `find_picture`). `check_columns` gets a row
    of the table, and the names of its columns once they are known.
    """
    source = manifest.images
    if source is None:
        # A model that makes pictures from text alone has one empty set.
        yield ImageSet(None, ("prompts",))
    elif not isinstance(source, TableImages):
        for id_, written in source.items():
            pictures = []
            for position, text in enumerate(written):
                try:
                    pictures.append(find(text))
                except PictureError as problem:
                    problems.add(("images", id_, position), problem.what, problem.hint)
            if len(pictures) == len(written):
                yield ImageSet(id_, ("images", id_), pictures)
    else:
        products = Products(source, manifest.name, problems, tally, check_columns)
        try:
            yield from _TablePictures(source, manifest.name, problems, find).sets(products)
        except TableError as problem:
            problems.add_table(problem)


class _TablePictures:
    """The pictures that a table names."""

    def __init__(
        self,
        source: TableImages,
        name: str,
        problems: Problems,
        find: Callable[[str], Picture],
    ) -> None:
        self._source = source
        self._name = name
        self._problems = problems
        self._find = find

    def sets(self, products: Iterable[Product]) -> Iterator[ImageSet]:
        """Yield one set for each product, or one for each of its pictures."""
        source = self._source
        for product in products:
            row, pictures = product.row, self._pictures(product)
            if pictures is None:
                continue
            if source.urls and not pictures:
                what = f"{columns_text(source.urls)}no picture for '{product.id}'"
                hint = "fill one in, or leave such rows out with images.where"
                self._problems.add_row(row, what, hint)
            elif source.each_picture and pictures:
                for number, picture in enumerate(pictures, start=1):
                    cells = RowCells({"picture": number, **product.cells}, row.number)
                    yield ImageSet(f"{product.id}-{number}", _OF_TABLE, [picture], row, cells)
            else:
                yield ImageSet(product.id, _OF_TABLE, pictures, row, product.cells)

    def _pictures(self, product: Product) -> list[Picture] | None:
        """Return the pictures that the table names for a product.

        Those of one column come together, in the order of the rows. An empty place is left out: a
        product with one picture has an empty second column. Several rows of one product tend to
        name the same picture, which is taken once. None if one cannot be sent: a problem was added.
        """
        source = self._source
        found: list[Picture | None] = []
        seen: set[str | None] = set()
        times: dict[str, int] = {}
        for template in source.urls:
            for row in product.rows:
                for text in self._texts(template, row):
                    if len(found) == source.pictures or text in seen:
                        continue
                    if source.group is not None:
                        seen.add(text)
                    picture = None if text is None else self._picture(text, template, row)
                    if picture is not None and source.identity is not None:
                        picture = self._identified(source.identity, picture, row, times)
                    found.append(picture)
        pictures = [picture for picture in found if picture is not None]
        return pictures if len(pictures) == len(found) else None

    def _picture(self, text: str, template: Template, row: Row) -> Picture | None:
        if row.picture is not None and text == row.picture.path:
            # Its content names it until it is sent.
            return Picture(row.picture.url, row.picture.url, row.picture)
        try:
            return self._find(text)
        except PictureError as problem:
            what = f"{columns_text([template])}{problem.what}"
            self._problems.add_row(row, what, problem.hint)
            return None

    def _identified(
        self, identity: Template, picture: Picture, row: Row, times: dict[str, int]
    ) -> Picture | None:
        """Give a picture of the web the identity that the manifest says; None without one.

        Several of one product with one identity are numbered: each is a picture of its own.
        """
        if not picture.url.startswith("http"):
            return picture
        variables = variables_of(self._name, filled_cells(row))
        text = self._problems.render(identity, ("images", "identity"), variables, row)
        if text is None:
            return None
        if not text.strip():
            what = f"{columns_text([identity])}the picture's identity is empty"
            self._problems.add_row(row, what, "choose other columns for images.identity")
            return None
        times[text] = times.get(text, 0) + 1
        name = f"{NAMED}{times[text]}:{text.strip()}"
        return msgspec.structs.replace(picture, identity=name, is_plain=False)

    def _texts(self, template: Template, row: Row) -> Sequence[str | None]:
        text = row.cells.get(template.lone_variable or "")
        if isinstance(text, list | dict):
            return listed_pictures(text)
        if not isinstance(text, str):
            cells = all_cells(self._name, row)
            text = self._problems.render(template, ("images", "urls"), cells, row)
        return [None] if text is None else split_cell(text, self._source.split)
