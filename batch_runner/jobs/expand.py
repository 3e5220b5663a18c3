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
from batch_runner.manifest.template import Template, is_true
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.models.placing import ONE_PICTURE_EACH, ModelInputError
from batch_runner.records import Job
from batch_runner.table import has_fixed_columns
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import UnsafePathError, safe_stem, sieve_value, value_text

_ONE_PICTURE_A_ROW = "under images, pictures: 1 takes one, each: picture makes a job of each"


class _Recipe(msgspec.Struct, frozen=True):
    """All of a job that is the same for every image set: a prompt at one point of the matrix.

    An entry of `include` has one for its own pictures. `variables` are what templates know beside
    the cells of the row; `words` follow the image id in keys, and `name` in paths. `owner` is where
    inputs of its own are written, `written_at` the prompt.
    """

    text: Template
    model: Model
    inputs: dict[str, Any]
    variables: dict[str, Any]
    words: str
    name: str
    written_at: Location
    owner: Location
    outputs: int
    holds_url: bool
    columns: list[str]
    prompt: Prompt | None = None
    point: dict[str, Any] = {}


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
    return _Expansion(
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
        self._are_columns_fixed = False
        # Clashes compare keys and paths only, so their fingerprints need no second look.
        self._clashes = Clashes(self.blame, lambda: self._again(Fingerprints(Distinct)))
        self._cells = PromptCells(self.problems, self.tally)
        self._fingerprints = fingerprints or Fingerprints(self._find_shared)
        self._recipes = [
            self._recipe(prompt, dict(zip(manifest.matrix, values, strict=True)))
            for prompt in manifest.prompts
            for values in itertools.product(*manifest.matrix.values())
        ]

    def jobs(self) -> Iterator[Job]:
        for position, job in enumerate(self._candidates()):
            if job is not None and not self._clashes.add(position, job):
                yield job
            elif len(self.problems) + len(self._clashes) >= PROBLEM_LIMIT:
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
            if images.row is not None and not self._are_columns_fixed:
                self._note_columns(images)
            for recipe in self._recipes:
                if manifest.exclude and self.exclusions.leave_out(
                    images, self._facts(images, recipe)
                ):
                    continue
                if recipe.prompt is not None and recipe.prompt.where is not None:
                    is_for = self._is_for(images, recipe, recipe.prompt.where)
                    if is_for is None:
                        yield None
                    if not is_for:
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
            location: Location = ("include", position)
            images = self.images.written_out(include.id, (*location, "image_urls"), include.urls)
            recipe = self._included(include, location)
            for repeat in range(1, manifest.repeat + 1):
                yield None if images is None else self._job(images, recipe, repeat)

    # Columns

    def _note_columns(self, images: ImageSet) -> None:
        """Remember the columns; if all rows have the same ones, check them at once."""
        table = table_of(self.manifest)
        self._columns.update({} if images.row is None else images.row.cells)
        self._are_columns_fixed = table is not None and has_fixed_columns(table)
        if self._are_columns_fixed:
            self._check_columns(images)

    def _check_columns(self, images: ImageSet) -> None:
        """Find columns that prompts and paths use and no row has, even behind a default()."""
        facts = self._facts(images, self._recipes[0])
        self.exclusions.check_columns(self._columns, facts)
        if images.row is None:
            return
        templates: list[tuple[Location, Template | None]] = [
            (("output", "path"), self.manifest.output.path)
        ]
        for prompt in self.manifest.prompts:
            templates.append((prompt.location, prompt.text))
            templates.append(((*prompt.location[:2], "where"), prompt.where))
        known = self._variables(images, self._recipes[0], 1)
        for location, template in templates:
            if template is not None:
                self.problems.check_columns(template, location, images.row, self._columns, known)

    # Jobs

    def _recipe(self, prompt: Prompt, point: dict[str, Any]) -> _Recipe:
        values = dict(point)
        model = self.models[values.pop(MODEL_AXIS, prompt.model or self.manifest.model)]
        # The nearer wins: a prompt's own inputs over the matrix, that over the model's, and those
        # over the manifest's.
        inputs = self._usual_inputs(model) | values | prompt.inputs
        axes = ",".join(f"{name}={value_text(value)}" for name, value in point.items())
        return _Recipe(
            text=prompt.text,
            model=model,
            inputs=inputs,
            variables={**point, "prompt": prompt.id},
            words="/".join(filter(None, (prompt.id, axes))),
            name="-".join([prompt.id, *map(value_text, point.values())]),
            written_at=prompt.location,
            owner=prompt.location[:2],
            outputs=model.outputs(inputs),
            holds_url=holds_url(inputs),
            columns=sorted(prompt.text.columns),
            prompt=prompt,
            point=point,
        )

    def _included(self, include: Include, location: Location) -> _Recipe:
        model = self.models[include.model or self.manifest.model or ""]
        inputs = self._usual_inputs(model) | include.inputs
        return _Recipe(
            text=include.prompt,
            model=model,
            inputs=inputs,
            variables={"prompt": include.id, **include.inputs},
            words="",
            name="",
            written_at=include.location,
            owner=location,
            outputs=model.outputs(inputs),
            holds_url=holds_url(inputs),
            columns=[],
        )

    def _usual_inputs(self, model: Model) -> dict[str, Any]:
        return self.manifest.inputs | self.manifest.notes_on(model.model_id).inputs

    def _facts(self, images: ImageSet, recipe: _Recipe) -> dict[str, Any]:
        """Return what `exclude` may ask of a job besides the columns of its row."""
        return {MODEL_AXIS: recipe.model.model_id, **recipe.variables, "image": images.id}

    def _variables(self, images: ImageSet, recipe: _Recipe, repeat: int) -> dict[str, Any]:
        return {
            "name": self.manifest.name,
            "repeat": repeat,
            "model": recipe.model.model_id,
            **images.cells,
            **recipe.variables,
            "row": images.cells,
            "image": images.id or "",
        }

    def _is_for(self, images: ImageSet, recipe: _Recipe, where: Template) -> bool | None:
        """Tell whether a prompt is meant for these pictures; None if its `where` has a problem."""
        row = images.row
        cells = {} if row is None else all_cells(self.manifest.name, row)
        variables = {**cells, **self._variables(images, recipe, 1), "row": cells.get("row", {})}
        text = self.problems.render(where, (*recipe.owner, "where"), variables, row)
        return None if text is None else is_true(text)

    def _job(self, images: ImageSet, recipe: _Recipe, repeat: int) -> Job | None:
        row, model = images.row, recipe.model
        variables = self._variables(images, recipe, repeat)
        text = self.problems.render(recipe.text, recipe.written_at, variables, row)
        if text is None or (
            row is not None
            and not self._cells.are_usable(recipe.owner[1], recipe.columns, text, row)
        ):
            return None
        job_sent = self._input(recipe, text, images)
        path = self._path(images, recipe, repeat, variables)
        if job_sent is None or path is None:
            return None
        key = "/".join([part for part in (images.id, recipe.words) if part])
        key = key if repeat == 1 else f"{key}#{repeat}"
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self.problems.add(("output", "path"), what, "write it like {{ image }}/{{ prompt }}")
            return None
        number, aliases = self._fingerprints.of(model.model_id, job_sent, repeat)
        return Job(
            key=key,
            fingerprint=number,
            aliases=aliases,
            is_named=job_sent.is_named,
            model=model.model_id,
            input=job_sent.input,
            path=stem,
            outputs=recipe.outputs,
            repeat=repeat,
            prompt_id=None if recipe.prompt is None else recipe.prompt.id,
            image_id=images.id,
            point=recipe.point,
            files=images.files,
            row=None if row is None else row.number,
            cells={} if row is None else row.cells,
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

    def _input(self, recipe: _Recipe, text: str, images: ImageSet) -> Sent | None:
        """Return what will be sent, once the model takes it."""
        model = recipe.model
        if not text.strip():
            self.blame.empty_prompt(images.row, recipe.written_at)
            return None
        try:
            placed = model.place(text, [picture.url for picture in images.pictures])
        except ModelInputError as error:
            hint = error.hint
            if images.row is not None and len(images.pictures) > 1 and hint is not None:
                # One problem for the whole table: one for each such row would hide all others.
                hint = hint.replace(ONE_PICTURE_EACH, _ONE_PICTURE_A_ROW)
                hint = f"first in row {images.row.number}; {hint}"
            self.problems.add(images.location, self.blame.named(model, error.message), hint)
            return None
        input_ = recipe.inputs | placed
        if not model.accepts(input_):
            for finding in model.findings(input_):
                self.blame.refused_input(
                    model,
                    finding,
                    input_,
                    images,
                    written_at=recipe.written_at,
                    owner=recipe.owner,
                )
            return None
        if not recipe.holds_url and all(picture.is_plain for picture in images.pictures):
            return Sent(input_)
        place = functools.partial(model.place, text)
        return sent(input_, recipe.inputs, images.pictures, place, may_hold_url=recipe.holds_url)

    def _path(
        self, images: ImageSet, recipe: _Recipe, repeat: int, variables: Mapping[str, Any]
    ) -> str | None:
        template = self.manifest.output.path
        if template is not None and recipe.prompt is not None:
            return self.problems.render(template, ("output", "path"), variables, images.row)
        parts = [part for part in (images.id, recipe.name) if part]
        if repeat > 1:
            # Never the name of the first job's further outputs, -2 and -3.
            parts[-1] += f"-repeat-{repeat}"
        if recipe.prompt is None:
            return parts[-1]
        return "/".join(map(sieve_value, parts))
