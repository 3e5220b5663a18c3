"""A manifest's images: as a stream of image sets, the pictures of one job each.

Hides where pictures come from: written out, or a table's rows. What always holds: sets come in the
order of the manifest or table, in constant memory; one whose pictures cannot all be sent is a
problem that names its row, and no set.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from batch_runner.records import LocalFile
from batch_runner.table import Row, TableError


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

    @property
    def files(self) -> tuple[LocalFile, ...]:
        """Return those of the pictures that are files of this machine."""
        return tuple([picture.file for picture in self.pictures if picture.file is not None])


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
        self._problems = problems
        self._local_pictures = local_pictures
        self._uploads = uploads
        source = manifest.images
        self._folder = source.base if isinstance(source, TableImages) else manifest.path.parent
        self.tally = tally

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
            yield from self._table_sets(images)

    def _table_sets(self, source: TableImages) -> Iterator[ImageSet]:
        try:
            for product in Products(source, self._manifest.name, self._problems, self.tally):
                yield from self._product_sets(source, product)
                if self._problems.are_enough:
                    return
        except TableError as problem:
            self._problems.add_table(problem)

    def _product_sets(self, source: TableImages, product: Product) -> Iterator[ImageSet]:
        """Yield the set of all pictures of a product, or one set for each picture."""
        row, cells = product.row, product.cells
        location: Location = ("images", "urls")
        pictures = self._pictures(source, product)
        if pictures is None:
            return
        if source.urls and not pictures:
            what = f"{columns_text(source.urls)}no picture for '{product.id}'"
            hint = "fill one in, or leave such rows out with images.where"
            self._problems.add_row(row, what, hint)
        elif not source.each_picture or not source.urls:
            yield ImageSet(product.id, location, pictures, row, cells)
        else:
            for number, picture in enumerate(pictures, start=1):
                numbered = RowCells({"picture": number, **cells}, row.number)
                yield ImageSet(f"{product.id}-{number}", location, [picture], row, numbered)

    def _pictures(self, source: TableImages, product: Product) -> list[Picture] | None:
        """Return the pictures of a product; None if one cannot be sent, which adds a problem."""
        pictures: list[Picture] = []
        is_broken = False
        times: Counter[str] = Counter()
        for text, template, row in itertools.islice(self._named(source, product), source.pictures):
            picture = None if text is None else self._picture(text, template, row)
            if picture is not None and source.identity is not None:
                picture = self._identified(source.identity, picture, row, times)
            if picture is None:
                is_broken = True
            else:
                pictures.append(picture)
        return None if is_broken else pictures

    def _picture(self, text: str, template: Template, row: Row) -> Picture | None:
        if row.picture is not None and text == row.picture.path:
            return of_another_job(row.picture)
        picture = self._find(text, self._folder)
        if isinstance(picture, Picture):
            return picture
        self._problems.add_row(row, f"{columns_text([template])}{picture.what}", picture.hint)
        return None

    def _identified(
        self, identity: Template, picture: Picture, row: Row, times: Counter[str]
    ) -> Picture | None:
        """Give a picture of the web the identity that the manifest says; None without one.

        Several of one product with one identity are numbered: each is a picture of its own.
        """
        if not picture.url.startswith("http"):
            return picture
        cells = filled_cells(row)
        variables = {"name": self._manifest.name, **cells, "row": cells}
        text = self._problems.render(identity, ("images", "identity"), variables, row)
        if text is None:
            return None
        if not text.strip():
            what = f"{columns_text([identity])}the picture's identity is empty"
            self._problems.add_row(row, what, "choose other columns for images.identity")
            return None
        times[text] += 1
        name = f"{NAMED}{times[text]}:{text.strip()}"
        return msgspec.structs.replace(picture, identity=name)

    def _named(
        self, source: TableImages, product: Product
    ) -> Iterator[tuple[str | None, Template, Row]]:
        """Yield the pictures that the table names for a product, None for what cannot be read.

        Those of one column come together, in the order of the rows. An empty place is left out: a
        product with one picture has an empty second column. Several rows of one product tend to
        name the same picture, which is taken once.
        """
        seen: set[str | None] = set()
        for template in source.urls:
            for row in product.rows:
                for text in self._texts(source, template, row):
                    if source.group is None or text not in seen:
                        seen.add(text)
                        yield text, template, row

    def _texts(self, source: TableImages, template: Template, row: Row) -> Sequence[str | None]:
        lone = template.lone_variable
        text = None if lone is None else row.cells.get(lone)
        if isinstance(text, list | dict):
            return listed_pictures(text)
        if not isinstance(text, str):
            cells = all_cells(self._manifest.name, row)
            text = self._problems.render(template, ("images", "urls"), cells, row)
        return [None] if text is None else split_cell(text, source.split)

    def _find(self, written: str, folder: Path) -> Picture | PictureError:
        try:
            return find_picture(
                written,
                folder,
                local_pictures=self._local_pictures,
                uploads=self._uploads,
                inline=self._manifest.uploads_inline,
            )
        except PictureError as problem:
            return problem

    def written_out(self, id_: str, location: Location, written: list[str]) -> ImageSet | None:
        """Return an image set of the manifest; None if one of its pictures cannot be sent."""
        pictures = []
        for position, url in enumerate(written):
            picture = self._find(url, self._manifest.path.parent)
            if isinstance(picture, Picture):
                pictures.append(picture)
            else:
                self._problems.add((*location, position), picture.what, picture.hint)
        return ImageSet(id_, location, pictures) if len(pictures) == len(written) else None
