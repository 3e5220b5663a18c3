"""Manifest in, a stream of jobs out.

Hides templates, the matrix with its exclusions, and how keys, fingerprints and paths are
made. What always holds: the same manifest and table give the same jobs in the same order; a job
comes out only if the model takes its input; memory does not grow with the number of jobs, but for
the hash of each key and path (see `distinct`; that is how two jobs with one name are found).
Problems are collected along the way and raised together at the end of the stream.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.errors import PROBLEM_LIMIT
from batch_runner.files.bucket import BucketUrl
from batch_runner.jobs.blame import Blame
from batch_runner.jobs.cells import PromptCells
from batch_runner.jobs.clashes import Clashes
from batch_runner.jobs.exclusion import Exclusions
from batch_runner.jobs.identity import Fingerprints, Merging, Sent, holds_url, sent
from batch_runner.jobs.images import Images, ImageSet, table_of
from batch_runner.jobs.product import Tally, all_cells
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import MODEL_AXIS, Include, Manifest, Prompt
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import is_true
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.models.placing import ONE_PICTURE_EACH, ModelInputError
from batch_runner.records import Job
from batch_runner.table import has_fixed_columns
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import (
    UnsafePathError,
    safe_stem,
    sieve_value,
    value_text,
)

_ONE_PICTURE_A_ROW = "under images, pictures: 1 takes one, each: picture makes a job of each"

Point = tuple[tuple[str, Any], ...]


class _Recipe(msgspec.Struct, frozen=True):
    """A prompt at one point of the matrix: all of a job that is the same for every image set."""

    prompt: Prompt
    point: Point
    model: Model
    inputs: dict[str, Any]
    words: str
    columns: list[str]
    holds_url: bool


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
    `tally` counts what becomes of a table's rows.
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
        fingerprints: Fingerprints | None = None,
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
        # Clashes compare keys and paths only, so their fingerprints need no second look.
        self._clashes = Clashes(self.blame, lambda: self._again(Fingerprints(Distinct)))
        self._cells = PromptCells(self.problems, self.tally)
        self._fingerprints = fingerprints or Fingerprints(self._find_shared)
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
            if job is not None and not self._clashes.add(position, job):
                yield job
            if len(self.problems) + len(self._clashes) >= PROBLEM_LIMIT:
                yield from self._clashes.settle()
                if self.problems:
                    break
        yield from self._clashes.settle()
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
        self._cells.note_markup()
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
        """Remember the columns; if all rows have the same ones, check them at once."""
        if images.row is None or self._columns >= images.row.cells.keys():
            return
        is_first = not self._columns
        self._columns.update(images.row.cells)
        table = table_of(self.manifest)
        if is_first and table is not None and has_fixed_columns(table):
            self._check_columns(images)

    def _check_columns(self, images: ImageSet) -> None:
        """Find columns that prompts and paths use and no row has, even behind a default()."""
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
        columns = sorted(prompt.text.columns)
        return _Recipe(prompt, point, model, inputs, words, columns, holds_url(inputs))

    def _facts(self, images: ImageSet, recipe: _Recipe) -> dict[str, Any]:
        """Return what `exclude` may ask of a job besides the columns of its row."""
        return {
            MODEL_AXIS: recipe.prompt.model or self.manifest.model,
            **dict(recipe.point),
            "prompt": recipe.prompt.id,
            "image": images.id,
        }

    def _is_for(self, images: ImageSet, recipe: _Recipe) -> bool | None:
        """Tell whether a prompt is meant for these pictures; None if its `where` has a problem."""
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
        if text is None:
            return None
        if not self._cells.are_usable(prompt.id, recipe.columns, text, images):
            return None
        job_sent = self._input(
            model,
            text,
            images,
            recipe.inputs,
            may_hold_url=recipe.holds_url,
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
            files=images.files,
            row=None if images.row is None else images.row.number,
            cells={} if images.row is None else images.row.cells,
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
            model,
            text,
            images,
            inputs,
            may_hold_url=holds_url(inputs),
            written_at=include.location,
            owner=location,
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
        **origin: Any,
    ) -> Job | None:
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self.problems.add(("output", "path"), what, "write it like {{ image }}/{{ prompt }}")
            return None
        number, aliases = self._fingerprints.of(model.model_id, sent, repeat)
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

    def _find_shared(self) -> Distinct:
        """Return the fingerprints that different addresses would share, found in all jobs."""
        merging = Merging()
        for _ in self._again(merging):
            pass
        return merging.shared

    def _again(self, fingerprints: Fingerprints) -> Iterator[Job | None]:
        """Yield the jobs from the start, None for those that have a problem."""
        again = _Expansion(
            self.manifest,
            self.models,
            local_pictures=self.local_pictures,
            uploads=self.uploads,
            fingerprints=fingerprints,
        )
        return again._candidates()

    def _variables(self, images: ImageSet, recipe: _Recipe, repeat: int) -> dict[str, Any]:
        return {
            "name": self.manifest.name,
            "repeat": repeat,
            "model": recipe.model.model_id,
            **images.cells,
            **dict(recipe.point),
            "row": images.cells,
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
        may_hold_url: bool,
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
                # One problem for the whole table: one for each such row would hide all others.
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
        place = functools.partial(model.place, text)
        return sent(input_, inputs, images.pictures, place, may_hold_url=may_hold_url)

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


def _repeated(stem: str, repeat: int) -> str:
    """Name a repeat so that it never meets the first job's further outputs, -2 and -3."""
    return stem if repeat == 1 else f"{stem}-repeat-{repeat}"
