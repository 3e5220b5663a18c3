"""Manifest in, a stream of jobs out.

Hides templates, the matrix with its exclusions, and how keys, fingerprints and paths are
made. What always holds: the same manifest and table give the same jobs in the same order; a job
comes out only if the model takes its input; memory does not grow with the number of jobs, but for
the hash of each key and path (see `distinct`; that is how two jobs with one name are found).
Problems are collected while the stream goes on, and raised together at its end.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.errors import PROBLEM_LIMIT
from batch_runner.files.bucket import BucketUrl
from batch_runner.jobs.blame import Blame
from batch_runner.jobs.exclusion import Exclusions
from batch_runner.jobs.identity import Merging, Sent, sent
from batch_runner.jobs.images import Images, ImageSet, table_of
from batch_runner.jobs.product import RowCells, Tally, all_cells
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import MODEL_AXIS, Include, Manifest, Prompt
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import TemplateError, column_expression, is_true
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.models.placing import ONE_PICTURE_EACH, ModelInputError
from batch_runner.records import Job, fingerprint
from batch_runner.table import has_fixed_columns
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import (
    UnsafePathError,
    collision_key,
    safe_stem,
    sieve_value,
    value_text,
)
from batch_runner.text.shown import has_markup

_ROWS_NAMED = 5
_OUTPUTS_COMPARED = 100
"""Of as many outputs a job the paths are compared; models make a handful."""

_ERROR_VALUE = re.compile(
    r"#(?:N/A|N/D|NV|GETTING_DATA|[A-Z\u00c0-\u00dd/0-9]{2,12}[!?])"
    r"|nan|NaN|NaT|<NA>|null|NULL|None|undefined|\[object Object\]"
)
"""What spreadsheets and scripts write in place of a value that they do not have."""

_ONE_PICTURE_A_ROW = "under images, pictures: 1 takes one, each: picture makes a job of each"

Point = tuple[tuple[str, Any], ...]


class _Recipe(msgspec.Struct, frozen=True):
    """A prompt at one point of the matrix: all of a job that is the same for every image set."""

    prompt: Prompt
    point: Point
    model: Model
    inputs: dict[str, Any]
    words: str


def expand(
    manifest: Manifest,
    models: Mapping[str, Model],
    *,
    local_pictures: bool,
    uploads: BucketUrl | None = None,
    tally: Tally | None = None,
) -> Iterator[Job]:
    """Yield the jobs; raises ManifestError, at the latest when the stream ends.

    `models` holds every model that the manifest names, by its id. `local_pictures` says whether the
    service can read files of this machine (the sandbox can); `uploads` is where they go otherwise.
    `tally`, where given, counts what becomes of a table's rows.
    """
    yield from _Expansion(
        manifest, models, local_pictures=local_pictures, uploads=uploads, tally=tally
    ).jobs()


class _Expansion:
    def __init__(
        self,
        manifest: Manifest,
        models: Mapping[str, Model],
        *,
        local_pictures: bool,
        uploads: BucketUrl | None,
        tally: Tally | None = None,
    ) -> None:
        self.manifest = manifest
        self.models = models
        self.local_pictures = local_pictures
        self.uploads = uploads
        self.problems = Problems(manifest.document, table_of(manifest))
        self.tally = tally or Tally()
        self.images = Images(
            manifest, self.problems, self.tally, local_pictures=local_pictures, uploads=uploads
        )
        self.blame = Blame(manifest, models, self.problems)
        self.exclusions = Exclusions(manifest, self.problems)
        self._unasked = {one.id for one in manifest.prompts if one.where is not None}
        self._columns: set[str] = set()
        self._keys = Distinct()
        self._paths = Distinct()
        self._clashes: list[tuple[int, Job]] = []
        self._markup: dict[str, tuple[int, str]] = {}
        self._markup_rows = 0
        self._last_markup_row = 0
        self._merging: Merging | None = None
        self._shared: Distinct | None = None
        self._inputs = {
            model_id: {**manifest.inputs, **manifest.notes_on(model_id).inputs}
            for model_id in models
        }
        points: list[Point] = [
            tuple(zip(manifest.matrix, values, strict=True))
            for values in itertools.product(*manifest.matrix.values())
        ]
        self._recipes = [
            self._recipe(prompt, point)
            for prompt, point in itertools.product(manifest.prompts, points)
        ]

    def jobs(self) -> Iterator[Job]:
        for position, job in enumerate(self._candidates()):
            if job is not None:
                if self._seems_distinct(job):
                    yield job
                else:
                    self._clashes.append((position, job))
            if len(self.problems) + len(self._clashes) >= PROBLEM_LIMIT:
                yield from self._settle_clashes()
                if self.problems:
                    break
        yield from self._settle_clashes()
        self.problems.raise_found()

    def _candidates(self) -> Iterator[Job | None]:
        """Yield every job, and None for each that has a problem."""
        manifest = self.manifest
        images = None
        for images in self.images.sets():
            self._note_columns(images)
            for recipe in self._recipes:
                if manifest.exclude and self.exclusions.leave_out(
                    images, self._facts(images, recipe)
                ):
                    continue
                is_for = self._is_for(images, recipe)
                if not is_for:
                    if is_for is None:
                        yield None
                    continue
                self._unasked.discard(recipe.prompt.id)
                for repeat in range(1, manifest.repeat + 1):
                    yield self._job(images, recipe, repeat)
        self._note_markup()
        is_whole = images is not None and (images.row is None or self.tally.is_whole)
        if images is not None and is_whole and not self.problems:
            self._check_columns(images)
        if is_whole and not self.problems:
            self.exclusions.check_all_were_used()
            for prompt_id in sorted(self._unasked):
                self.tally.notes.append(f"prompt {prompt_id}: its where is true for no picture")
        for position, include in enumerate(manifest.include):
            for repeat in range(1, manifest.repeat + 1):
                yield self._included_job(position, include, repeat)

    # Columns

    def _note_columns(self, images: ImageSet) -> None:
        """Remember which columns there are; where all rows have the same, check them at once."""
        if images.row is None or self._columns >= images.row.cells.keys():
            return
        is_first = not self._columns
        self._columns.update(images.row.cells)
        table = table_of(self.manifest)
        if is_first and table is not None and has_fixed_columns(table):
            self._check_columns(images)

    def _check_columns(self, images: ImageSet) -> None:
        """Find what prompts and paths use and no row has, also where a default() would hide it."""
        manifest = self.manifest
        if images.row is None:
            return
        templates = [(prompt.location, prompt.text) for prompt in manifest.prompts]
        templates += [
            ((*prompt.location[:2], "where"), prompt.where)
            for prompt in manifest.prompts
            if prompt.where is not None
        ]
        if manifest.output.path is not None:
            templates.append((("output", "path"), manifest.output.path))
        known = self._variables(images, self._recipes[0], 1)
        self.exclusions.check_columns(self._columns, self._facts(images, self._recipes[0]))
        for location, template in templates:
            self.problems.check_columns(template, location, images.row, self._columns, known)

    # Jobs

    def _recipe(self, prompt: Prompt, point: Point) -> _Recipe:
        values = dict(point)
        model = self.models[values.pop(MODEL_AXIS, prompt.model or self.manifest.model)]
        # The nearer wins: a prompt's own inputs over the matrix, that over the model's, and those
        # over the manifest's.
        inputs = {**self._inputs[model.model_id], **values, **prompt.inputs}
        words = ",".join(f"{name}={value_text(value)}" for name, value in point)
        return _Recipe(prompt, point, model, inputs, words)

    def _facts(self, images: ImageSet, recipe: _Recipe) -> dict[str, Any]:
        """Return what `exclude` may ask of a job besides the columns of its row."""
        return {
            MODEL_AXIS: recipe.prompt.model or self.manifest.model,
            **dict(recipe.point),
            "prompt": recipe.prompt.id,
            "image": images.id,
        }

    def _is_for(self, images: ImageSet, recipe: _Recipe) -> bool | None:
        """Tell whether a prompt is meant for these pictures; None is a problem of its `where`."""
        where = recipe.prompt.where
        if where is None:
            return True
        row = images.row
        cells = {} if row is None else all_cells(self.manifest.name, row)
        variables = {**cells, **self._variables(images, recipe, 1), "row": cells.get("row", {})}
        location = (*recipe.prompt.location[:2], "where")
        text = self.problems.render(where, location, variables, row)
        return None if text is None else is_true(text)

    def _job(self, images: ImageSet, recipe: _Recipe, repeat: int) -> Job | None:
        prompt, point, model = recipe.prompt, recipe.point, recipe.model
        variables = self._variables(images, recipe, repeat)
        text = self.problems.render(prompt.text, prompt.location, variables, images.row)
        if text is None or not self._are_cells_usable(prompt, text, images):
            return None
        job_sent = self._input(
            model,
            text,
            images,
            recipe.inputs,
            written_at=prompt.location,
            owner=prompt.location[:2],
        )
        path = self._path(images, prompt, point, repeat, variables)
        if job_sent is None or path is None:
            return None
        key = "/".join([part for part in (images.id, prompt.id, recipe.words) if part])
        return self._finished(
            model,
            key if repeat == 1 else f"{key}#{repeat}",
            job_sent,
            path,
            prompt_id=prompt.id,
            image_id=images.id,
            point=dict(point),
            repeat=repeat,
            before=self._sent_before(images.former, recipe, repeat),
            files=images.files,
            row=None if images.row is None else images.row.number,
            cells={} if images.row is None else images.row.cells,
        )

    def _sent_before(self, images: ImageSet | None, recipe: _Recipe, repeat: int) -> Sent | None:
        """Return what earlier releases sent if they read the table in another way."""
        if images is None:
            return None
        model, inputs = recipe.model, recipe.inputs
        try:
            text = recipe.prompt.text.render(self._variables(images, recipe, repeat))
            placed = model.place(text, [picture.url for picture in images.pictures])
        except (TemplateError, ModelInputError):
            return None
        place = functools.partial(model.place, text)
        return sent({**inputs, **placed}, inputs, images.pictures, place)

    def _are_cells_usable(self, prompt: Prompt, text: str, images: ImageSet) -> bool:
        """Find cells in a prompt that hold an error of a spreadsheet; note those that hold HTML."""
        if images.row is None:
            return True
        for name in sorted(prompt.text.columns & images.cells.keys()):
            value = images.cells[name]
            if not isinstance(value, str) or value not in text:
                continue
            if _ERROR_VALUE.fullmatch(value):
                what = f"column '{name}': {show(value)} would go into the prompt '{prompt.id}'"
                hint = "fill it in, or leave such rows out with images.where"
                self.problems.add_row(images.row, what, hint)
                return False
            if has_markup(value):
                self._markup.setdefault(name, (images.row.number, value))
                if images.row.number != self._last_markup_row:
                    self._markup_rows += 1
                    self._last_markup_row = images.row.number
        return True

    def _note_markup(self) -> None:
        if not self._markup:
            return
        name, (row, value) = min(self._markup.items(), key=lambda item: item[1][0])
        rows = "1 row puts" if self._markup_rows == 1 else f"{self._markup_rows:,} rows put"
        self.tally.notes.append(
            f"{rows} codes or tags of HTML into prompts, first row {row}: column '{name}' is"
            f" {show(value)}\nhint: for the text alone, write"
            f" {{{{ {column_expression(name)} | plain }}}} in the prompt"
        )

    def _included_job(self, position: int, include: Include, repeat: int) -> Job | None:
        location: Location = ("include", position)
        images = self.images.written_out(include.id, (*location, "image_urls"), include.urls)
        model = self.models[include.model or self.manifest.model or ""]
        variables = {
            "name": self.manifest.name,
            "model": model.model_id,
            "image": include.id,
            "prompt": include.id,
            "repeat": repeat,
            **include.inputs,
        }
        text = self.problems.render(include.prompt, include.location, variables, None)
        if images is None or text is None:
            return None
        inputs = {**self._inputs[model.model_id], **include.inputs}
        job_sent = self._input(
            model, text, images, inputs, written_at=include.location, owner=location
        )
        if job_sent is None:
            return None
        return self._finished(
            model,
            include.id if repeat == 1 else f"{include.id}#{repeat}",
            job_sent,
            _repeated(include.id, repeat),
            files=images.files,
            image_id=include.id,
            repeat=repeat,
        )

    def _finished(
        self,
        model: Model,
        key: str,
        sent: Sent,
        path: str,
        *,
        repeat: int,
        before: Sent | None = None,
        **origin: Any,
    ) -> Job | None:
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self.problems.add(("output", "path"), what, "write it like {{ image }}/{{ prompt }}")
            return None
        number, aliases = self._fingerprints(model, sent, repeat)
        if before is not None:
            former = self._fingerprints(model, before, repeat)
            aliases = tuple(dict.fromkeys((*aliases, former[0], *former[1])))
            aliases = tuple(one for one in aliases if one != number)
        return Job(
            key=key,
            fingerprint=number,
            aliases=aliases,
            is_named=sent.is_named,
            model=model.model_id,
            input=sent.input,
            path=stem,
            outputs=model.outputs(sent.input),
            repeat=repeat,
            **origin,
        )

    def _fingerprints(self, model: Model, sent: Sent, repeat: int) -> tuple[str, tuple[str, ...]]:
        """Return a job's fingerprint, and those by which a ledger may know it too.

        One that jobs with different addresses would share is none: what looks like a signature is
        what tells their pictures apart. Then the addresses count as they are written.
        """
        if not sent.names:
            number = fingerprint(model.model_id, sent.input, repeat)
            if self._merging is not None:
                self._merging.add(number, number)
            return number, ()
        own, *others = dict.fromkeys(
            fingerprint(model.model_id, name, repeat) for name in sent.names
        )
        written = others[-1] if others else own
        if self._merging is not None:
            for number in (own, *others):
                self._merging.add(number, own if sent.is_named else written)
            return own, ()
        if not others:
            return own, ()
        if self._shared is None:
            self._shared = self._find_shared()
        if own in self._shared:
            own = written
        return own, tuple(one for one in others if one != own and one not in self._shared)

    def _find_shared(self) -> Distinct:
        """Expand once more, to find the fingerprints that different addresses would share."""
        again = _Expansion(
            self.manifest, self.models, local_pictures=self.local_pictures, uploads=self.uploads
        )
        again._merging = Merging()
        for _ in again._candidates():
            pass
        return again._merging.shared

    def _variables(self, images: ImageSet, recipe: _Recipe, repeat: int) -> dict[str, Any]:
        return {
            "name": self.manifest.name,
            "repeat": repeat,
            "model": recipe.model.model_id,
            **images.cells,
            **dict(recipe.point),
            "row": images.cells
            if images.row is None
            else RowCells(images.cells, images.row.number),
            "image": images.id or "",
            "prompt": recipe.prompt.id,
        }

    def _input(
        self,
        model: Model,
        text: str,
        images: ImageSet,
        inputs: Mapping[str, Any],
        *,
        written_at: Location,
        owner: Location,
    ) -> Sent | None:
        """Return what will be sent, once the model takes it; `owner` may have inputs of its own.

        The prompt is written at `written_at`.
        """
        if not text.strip():
            self.blame.empty_prompt(images.row, written_at)
            return None
        try:
            urls = [picture.url for picture in images.pictures]
            placed = model.place(text, urls)
        except ModelInputError as error:
            hint = error.hint
            if images.row is not None and len(images.pictures) > 1 and hint is not None:
                # The table has them; to tell of every row that does would tell of nothing else.
                hint = hint.replace(ONE_PICTURE_EACH, _ONE_PICTURE_A_ROW)
                hint = f"first in row {images.row.number}; {hint}"
            self.problems.add(images.location, self.blame.named(model, error.message), hint)
            return None
        input_ = {**inputs, **placed}
        if not model.accepts(input_):
            for finding in model.findings(input_):
                self.blame.refused_input(
                    model, finding, input_, images, written_at=written_at, owner=owner
                )
            return None
        return sent(input_, inputs, images.pictures, lambda urls: model.place(text, urls))

    def _path(
        self,
        images: ImageSet,
        prompt: Prompt,
        point: Point,
        repeat: int,
        variables: Mapping[str, Any],
    ) -> str | None:
        template = self.manifest.output.path
        if template is not None:
            return self.problems.render(template, ("output", "path"), variables, images.row)
        words = "-".join([prompt.id, *(value_text(value) for _, value in point)])
        parts = (images.id, _repeated(words, repeat))
        return "/".join(sieve_value(part) for part in parts if part)

    # Problems

    def _seems_distinct(self, job: Job) -> bool:
        new_key = self._keys.add(job.key)
        if job.outputs == 1:  # nearly all of them
            return self._paths.add(collision_key(job.path)) and new_key
        new_paths = [self._paths.add(claim) for claim in _claims(job)]
        return new_key and all(new_paths)

    def _settle_clashes(self) -> Iterator[Job]:
        """Find the earlier job of each pair by expanding once more: only hashes were kept of it.

        Yields the jobs whose hash clashed although nothing else did.
        """
        if not self._clashes:
            return
        # Of several clashes over one name the first is told: the one nearest to its cause.
        keys: dict[str, tuple[int, Job]] = {}
        rows: dict[str | None, list[int]] = {}
        claims: dict[str, tuple[int, Job]] = {}
        for entry in self._clashes:
            keys.setdefault(entry[1].key, entry)
            if entry[1].row is not None:
                rows.setdefault(entry[1].image_id, []).append(entry[1].row)
            for claim in _claims(entry[1]):
                claims.setdefault(claim, entry)
        guilty: set[str] = set()
        pairs: list[tuple[int, Job, Job, str | None]] = []
        again = _Expansion(
            self.manifest, self.models, local_pictures=self.local_pictures, uploads=self.uploads
        )
        again._shared = Distinct()  # fingerprints do not matter here
        before_the_last = itertools.islice(again._candidates(), self._clashes[-1][0])
        for position, first in enumerate(before_the_last):
            if first is None:
                continue
            later_position, later = keys.get(first.key, (-1, first))
            if position < later_position:
                guilty.add(later.key)
                pairs.append((later_position, first, later, None))
                continue
            for claim in _claims(first):
                later_position, later = claims.get(claim, (-1, first))
                if position < later_position and later.key not in guilty:
                    guilty.add(later.key)
                    pairs.append((later_position, first, later, claim))
        for _, first, later, shared in sorted(pairs, key=lambda pair: pair[0]):
            if shared is None:
                self.blame.same_key(first, later, rows.get(later.image_id, []))
            else:
                self.blame.same_path(first, later, shared)
        innocent = [job for _, job in self._clashes if job.key not in guilty]
        self._clashes.clear()
        yield from innocent


def _repeated(stem: str, repeat: int) -> str:
    """Name a repeat so that it never meets the first job's further outputs, -2 and -3."""
    return stem if repeat == 1 else f"{stem}-repeat-{repeat}"


def _claims(job: Job) -> list[str]:
    """Return every path that the job's outputs will take, as collisions are compared."""
    first = collision_key(job.path)
    outputs = min(job.outputs, _OUTPUTS_COMPARED)
    return [first, *(f"{first}-{number}" for number in range(2, outputs + 1))]
