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
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.errors import PROBLEM_LIMIT
from batch_runner.files.bucket import BucketUrl
from batch_runner.jobs.blame import Blame
from batch_runner.jobs.cells import PromptCells
from batch_runner.jobs.clashes import Clashes
from batch_runner.jobs.exclusion import Exclusions
from batch_runner.jobs.identity import holds_url, names_of, shared_numbers, without_shared
from batch_runner.jobs.images import ImageSet, image_sets, table_of
from batch_runner.jobs.picture import Picture, find_picture
from batch_runner.jobs.product import Tally, all_cells
from batch_runner.manifest.form import MODEL_AXIS, Manifest, Prompt, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import Template, is_true
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.models.placing import ModelInputError
from batch_runner.records import Job, fingerprint
from batch_runner.table import Row
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import UnsafePathError, safe_stem, sieve_value, value_text


class _Recipe(msgspec.Struct, frozen=True):
    """All of a job that is the same for every image set: a prompt at one point of the matrix.

    `variables` are what templates know beside the cells of the row, `first` what they know if no
    cell has that name. `words` follow the image id in keys, and `name` in paths.
    """

    prompt: Prompt
    point: dict[str, Any]
    model: Model
    inputs: dict[str, Any]
    first: dict[str, Any]
    variables: dict[str, Any]
    words: str
    name: str
    outputs: int
    holds_url: bool
    columns: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        """Return what `exclude` may ask of a job besides its image and the columns of its row."""
        return {MODEL_AXIS: self.model.model_id, **self.variables}

    def variables_for(self, images: ImageSet, repeat: int) -> dict[str, Any]:
        """Return what templates know of a job."""
        return {
            **self.first,
            "repeat": repeat,
            **images.cells,
            **self.variables,
            "row": images.cells,
            "image": images.id or "",
        }


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
    source = manifest.images
    find = functools.partial(
        find_picture,
        folder=source.base if isinstance(source, TableImages) else manifest.path.parent,
        local_pictures=local_pictures,
        uploads=uploads,
        inline=manifest.uploads_inline,
    )
    expansion = _Expansion(manifest, models, find, tally or Tally())
    problems = expansion.problems
    clashes = Clashes(expansion.blame, expansion.again)
    for position, job in enumerate(expansion.candidates()):
        if job is not None and not clashes.add(position, job):
            yield job
        elif len(problems) + len(clashes) >= PROBLEM_LIMIT:
            yield from clashes.settle()
            if problems:
                break
    yield from clashes.settle()
    problems.raise_found()


class _Expansion:
    def __init__(
        self,
        manifest: Manifest,
        models: Mapping[str, Model],
        find: Callable[[str], Picture],
        tally: Tally,
    ) -> None:
        self.manifest = manifest
        self.models = models
        self.find = find
        self.tally = tally
        self.problems = problems = Problems(manifest.document, table_of(manifest))
        self.blame = Blame(manifest, models, problems)
        self._exclusions = Exclusions(manifest.exclude, problems)
        self._unasked = {one.id for one in manifest.prompts if one.where is not None}
        self._cells = PromptCells(problems, tally)
        self._recipes = [
            self._recipe(prompt, dict(zip(manifest.matrix, values, strict=True)))
            for prompt in manifest.prompts
            for values in itertools.product(*manifest.matrix.values())
        ]

    def again(self) -> Iterator[Job | None]:
        """Yield the candidates from the start, without a look at the fingerprints they share."""
        expansion = _Expansion(self.manifest, self.models, self.find, Tally())
        expansion.shared = Distinct()
        return expansion.candidates()

    @functools.cached_property
    def shared(self) -> Distinct:
        """The fingerprints that different addresses would share, found in all jobs."""
        return shared_numbers(self.again())

    def candidates(self) -> Iterator[Job | None]:
        """Yield every job, and None for each that has a problem."""
        manifest = self.manifest
        repeats = range(1, manifest.repeat + 1)
        images = None
        for images in image_sets(
            manifest, self.problems, self.tally, self.find, self._check_columns
        ):
            for recipe in self._recipes:
                if manifest.exclude and self._exclusions.leave_out(
                    recipe.facts | {"image": images.id},
                    {} if images.row is None else images.row.cells,
                ):
                    continue
                if recipe.prompt.where is not None:
                    text = self._where(images, recipe, recipe.prompt.where)
                    if text is None:
                        yield None
                    if text is None or not is_true(text):
                        continue
                    self._unasked.discard(recipe.prompt.id)
                for repeat in repeats:
                    yield self._job(images, recipe, repeat)
        if images is not None and not self.problems:
            self._check_end(images)

    def _check_end(self, images: ImageSet) -> None:
        """Look for rules of `exclude` and a prompt's `where` that no picture met."""
        if images.row is None:
            self._exclusions.check_names({*self._recipes[0].facts, "image"})
        # A rule may match products that a sample leaves out.
        if getattr(self.manifest.images, "sample", None) is None:
            self._exclusions.check_all_were_used()
        for prompt_id in sorted(self._unasked):
            self.tally.notes.append(f"prompt {prompt_id}: its where is true for no picture")

    def _check_columns(self, row: Row, columns: Collection[str]) -> None:
        """Find columns that templates and rules use and no row has, even behind a default()."""
        source, check = self.manifest.images, functools.partial(self.problems.check_columns, row)
        for place in ("group", "where", "id", "identity", "urls"):
            templates = getattr(source, place)
            for template in templates if isinstance(templates, list) else [templates]:
                check(columns, {"name"}, template, ("images", place))
        recipe = self._recipes[0]
        known = {"row", "image", *recipe.first, *recipe.variables}
        known |= {"picture"} if getattr(source, "each_picture", False) else set()
        self._exclusions.check_names({*recipe.facts, "image", *columns})
        check(columns, known, self.manifest.output.path, ("output", "path"))
        for prompt in self.manifest.prompts:
            check(columns, known, prompt.text, prompt.location)
            check(columns, known, prompt.where, (*prompt.location[:2], "where"))

    # Jobs

    def _recipe(self, prompt: Prompt, point: dict[str, Any]) -> _Recipe:
        values = dict(point)
        model = self.models[values.pop(MODEL_AXIS, prompt.model or self.manifest.model)]
        # The nearer wins: a prompt's own inputs over the matrix, that over the model's, and those
        # over the manifest's.
        usual = self.manifest.inputs | self.manifest.notes_on(model.model_id).inputs
        inputs = usual | values | prompt.inputs
        axes = ",".join(f"{name}={value_text(value)}" for name, value in point.items())
        return _Recipe(
            prompt=prompt,
            point=point,
            model=model,
            inputs=inputs,
            first={"name": self.manifest.name, "repeat": 1, "model": model.model_id},
            variables={**point, "prompt": prompt.id},
            words="/".join(filter(None, (prompt.id, axes))),
            name="-".join([prompt.id, *map(value_text, point.values())]),
            outputs=model.outputs(inputs),
            holds_url=holds_url(inputs),
            columns=sorted(prompt.text.columns),
        )

    def _where(self, images: ImageSet, recipe: _Recipe, where: Template) -> str | None:
        """Return what a prompt's `where`, which sees empty cells too, says of these pictures."""
        row = images.row
        cells = {"row": {}} if row is None else all_cells(self.manifest.name, row)
        variables = {**cells, **recipe.variables_for(images, 1), "row": cells["row"]}
        place = (*recipe.prompt.location[:2], "where")
        return self.problems.render(where, place, variables, row)

    def _job(self, images: ImageSet, recipe: _Recipe, repeat: int) -> Job | None:
        row, prompt, model_id = images.row, recipe.prompt, recipe.model.model_id
        variables = recipe.variables_for(images, repeat)
        text = self.problems.render(prompt.text, prompt.location, variables, row)
        if text is None or (
            row is not None and not self._cells.are_usable(prompt.id, recipe.columns, text, row)
        ):
            return None
        input_ = self._input(recipe, text, images)
        path = self._path(images, recipe, repeat, variables)
        if input_ is None or path is None:
            return None
        key = f"{images.id}/{recipe.words}" if images.id else recipe.words
        key = key if repeat == 1 else f"{key}#{repeat}"
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self.problems.add(("output", "path"), what, "write it like {{ image }}/{{ prompt }}")
            return None
        odd = [picture for picture in images.pictures if not picture.is_plain]
        aliases: tuple[str, ...] = ()
        if odd or recipe.holds_url:
            place = functools.partial(recipe.model.place, text)
            names = names_of(recipe.inputs, images.pictures, place)
            number, *others = dict.fromkeys(fingerprint(model_id, name, repeat) for name in names)
            if others:
                number, aliases = without_shared([number, *others], self.shared)
        else:
            number = fingerprint(model_id, input_, repeat)
        return Job(
            key=key,
            fingerprint=number,
            aliases=aliases,
            is_named=any(picture.is_named for picture in odd) if odd else False,
            model=model_id,
            input=input_,
            path=stem,
            outputs=recipe.outputs,
            repeat=repeat,
            prompt_id=prompt.id,
            image_id=images.id,
            point=recipe.point,
            files=tuple([one.file for one in odd if one.file is not None]) if odd else (),
            row=None if row is None else row.number,
            cells={} if row is None else row.cells,
        )

    def _input(self, recipe: _Recipe, text: str, images: ImageSet) -> dict[str, Any] | None:
        """Return what will be sent, if the model takes it."""
        model = recipe.model
        if not text.strip():
            self.blame.empty_prompt(images, recipe.prompt)
            return None
        try:
            placed = model.place(text, [picture.url for picture in images.pictures])
        except ModelInputError as error:
            self.blame.misplaced(model, images, error)
            return None
        input_ = recipe.inputs | placed
        if model.accepts(input_):
            return input_
        for finding in model.findings(input_):
            self.blame.refused_input(model, finding, input_, images, recipe.prompt)
        return None

    def _path(
        self, images: ImageSet, recipe: _Recipe, repeat: int, variables: Mapping[str, Any]
    ) -> str | None:
        template = self.manifest.output.path
        if template is not None:
            return self.problems.render(template, ("output", "path"), variables, images.row)
        parts = [part for part in (images.id, recipe.name) if part]
        if repeat > 1:
            # Never the name of the first job's further outputs, -2 and -3.
            parts[-1] += f"-repeat-{repeat}"
        return "/".join(map(sieve_value, parts))
