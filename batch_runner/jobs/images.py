"""A manifest's images: as a stream of image sets, the pictures of one job each.

Hides where pictures come from: written out, or a table's rows. What always holds: sets come in the
order of the manifest or table, in constant memory; one whose pictures cannot all be sent is a
problem that names its row, and no set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.files.bucket import BucketUrl
from batch_runner.jobs.picture import NAMED, Picture, PictureError, find_picture, of_another_job
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
)
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import InlineImages, Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import Template
from batch_runner.table import Row, TableError

_OF_TABLE: Location = ("images", "urls")


class ImageSet(msgspec.Struct, frozen=True, gc=False):
    """The pictures of one job, with the row they came from.

    `cells` are the row's, without the empty ones: in ids, prompts and paths those are undefined
    variables.
    """

    id: str | None
    location: Location
    pictures: Sequence[Picture] = ()
    row: Row | None = None
    cells: Mapping[str, Any] = {}


def table_of(manifest: Manifest) -> Path | None:
    """Return the table that a manifest's images come from, or None."""
    source = manifest.images
    return source.path if isinstance(source, TableImages) else None


class Images:
    """The image sets of a manifest; what is wrong with them goes to `problems`.

    `local_pictures` says whether the service can read files of this machine (the sandbox can), and
    `uploads` where they go otherwise; `tally` counts what became of a table's rows.
    """

    def __init__(
        self,
        manifest: Manifest,
        problems: Problems,
        tally: Tally,
        *,
        local_pictures: bool,
        uploads: BucketUrl | None = None,
    ) -> None:
        self._manifest = manifest
        self.problems = problems
        self._local_pictures = local_pictures
        self._uploads = uploads
        self._tally = tally
        source = manifest.images
        self._folder = source.base if isinstance(source, TableImages) else manifest.path.parent

    def sets(self, check_columns: Callable[[Row, Collection[str]], None]) -> Iterator[ImageSet]:
        """Yield the image sets that prompts and matrix are combined with.

        `check_columns` gets a row of the table, and the names of its columns once they are known.
        """
        images = self._manifest.images
        if images is None:
            # A model that makes pictures from text alone has one empty set.
            yield ImageSet(None, ("prompts",))
        elif isinstance(images, InlineImages):
            for id_, urls in images.sets.items():
                image_set = self.written_out(id_, ("images", id_), urls)
                if image_set is not None:
                    yield image_set
        else:
            name, problems = self._manifest.name, self.problems
            try:
                for product in Products(images, name, problems, self._tally, check_columns):
                    self._tally.taken += 1
                    pictures = self._pictures(images, product)
                    if pictures and not images.each_picture:
                        yield ImageSet(product.id, _OF_TABLE, pictures, product.row, product.cells)
                    elif pictures is not None:
                        yield from self._other_sets(images, product, pictures)
                    if problems.are_enough:
                        return
            except TableError as problem:
                problems.add_table(problem)

    def _other_sets(
        self, source: TableImages, product: Product, pictures: list[Picture]
    ) -> Iterator[ImageSet]:
        """Yield one set for each picture of a product; the empty one if it is to have none."""
        if source.urls and not pictures:
            what = f"{columns_text(source.urls)}no picture for '{product.id}'"
            hint = "fill one in, or leave such rows out with images.where"
            self.problems.add_row(product.row, what, hint)
        elif not source.urls:
            yield ImageSet(product.id, _OF_TABLE, (), product.row, product.cells)
        for number, picture in enumerate(pictures, start=1):
            cells = RowCells({"picture": number, **product.cells})
            cells.number = product.row.number
            yield ImageSet(f"{product.id}-{number}", _OF_TABLE, [picture], product.row, cells)

    def _pictures(self, source: TableImages, product: Product) -> list[Picture] | None:
        """Return the pictures that the table names for a product.

        Those of one column come together, in the order of the rows. An empty place is left out: a
        product with one picture has an empty second column. Several rows of one product tend to
        name the same picture, which is taken once. None if one cannot be sent: a problem was added.
        """
        found: list[Picture | None] = []
        seen: set[str | None] = set()
        times: dict[str, int] = {}
        for template in source.urls:
            for row in product.rows:
                for text in self._texts(source, template, row):
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
            return of_another_job(row.picture)
        try:
            return self._find(text)
        except PictureError as problem:
            what = f"{columns_text([template])}{problem.what}"
            self.problems.add_row(row, what, problem.hint)
            return None

    def _identified(
        self, identity: Template, picture: Picture, row: Row, times: dict[str, int]
    ) -> Picture | None:
        """Give a picture of the web the identity that the manifest says; None without one.

        Several of one product with one identity are numbered: each is a picture of its own.
        """
        if not picture.url.startswith("http"):
            return picture
        cells = filled_cells(row)
        variables = {"name": self._manifest.name, **cells, "row": cells}
        text = self.problems.render(identity, ("images", "identity"), variables, row)
        if text is None:
            return None
        if not text.strip():
            what = f"{columns_text([identity])}the picture's identity is empty"
            self.problems.add_row(row, what, "choose other columns for images.identity")
            return None
        times[text] = times.get(text, 0) + 1
        name = f"{NAMED}{times[text]}:{text.strip()}"
        return msgspec.structs.replace(picture, identity=name, is_plain=False)

    def _texts(self, source: TableImages, template: Template, row: Row) -> Sequence[str | None]:
        text = row.cells.get(template.lone_variable or "")
        if isinstance(text, list | dict):
            return listed_pictures(text)
        if not isinstance(text, str):
            cells = all_cells(self._manifest.name, row)
            text = self.problems.render(template, ("images", "urls"), cells, row)
        return [None] if text is None else split_cell(text, source.split)

    def _find(self, written: str) -> Picture:
        return find_picture(
            written,
            self._folder,
            local_pictures=self._local_pictures,
            uploads=self._uploads,
            inline=self._manifest.uploads_inline,
        )

    def written_out(self, id_: str, location: Location, written: list[str]) -> ImageSet | None:
        """Return an image set of the manifest; None if one of its pictures cannot be sent."""
        pictures = []
        for position, url in enumerate(written):
            try:
                pictures.append(self._find(url))
            except PictureError as problem:
                self.problems.add((*location, position), problem.what, problem.hint)
        return ImageSet(id_, location, pictures) if len(pictures) == len(written) else None
