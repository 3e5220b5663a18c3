"""Manifest in, a stream of jobs out.

Hides tables, templates, the matrix with its exclusions, and how keys, fingerprints and paths are
made. What always holds: the same manifest and table give the same jobs in the same order; a job
comes out only if the model takes its input; memory does not grow with the number of jobs, but for
the hash of each key and path (see `distinct`; that is how two jobs with one name are found).
Problems are collected while the stream goes on, and raised together at its end.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.distinct import Distinct
from batch_runner.document import Location
from batch_runner.errors import PROBLEM_LIMIT, ManifestError, Problem, did_you_mean
from batch_runner.manifest import Include, InlineImages, Manifest, Prompt, TableImages
from batch_runner.model import Model, ModelInputError
from batch_runner.path import (
    UnsafePathError,
    collision_key,
    safe_stem,
    sieve_value,
    value_text,
)
from batch_runner.records import Job, fingerprint, unsigned_url
from batch_runner.table import Row, TableError, read_rows
from batch_runner.template import Template, TemplateError, is_true
from batch_runner.validation import Finding, show

_ID_FORBIDDEN = re.compile(r"[/\\\x00-\x1f]")
_ID_LIMIT_CHARACTERS = 200
_OUTPUTS_COMPARED = 100
"""Of as many outputs a job the paths are compared; models make a handful."""

_HTTPS_URL = re.compile(
    r"https://(?:[^\s/?#@]*@)?(?:[^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?:[/?#]\S*)?",
    re.IGNORECASE,
)

Point = tuple[tuple[str, Any], ...]


class ImageSet(msgspec.Struct, frozen=True):
    """The pictures of one job, with the row they came from.

    `urls` are what is sent; `identities` what each picture is, however it is reached. `cells` are
    the row's, without the empty ones: in ids, prompts and paths those are undefined variables.
    """

    id: str | None
    location: Location
    urls: list[str] = []
    identities: list[str] = []
    row: Row | None = None
    cells: Mapping[str, Any] = {}


class _Sent(msgspec.Struct, frozen=True):
    """What is sent, and the same with each picture named by what it is."""

    input: dict[str, Any]
    identity: dict[str, Any]


class _PictureError(Exception):
    """A picture that cannot be sent."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def expand(manifest: Manifest, model: Model, *, local_pictures: bool) -> Iterator[Job]:
    """Yield the jobs; raises ManifestError, at the latest when the stream ends.

    `local_pictures` says whether the service can read files of this machine (the sandbox can).
    """
    yield from _Expansion(manifest, model, local_pictures=local_pictures).jobs()


class _Expansion:
    def __init__(self, manifest: Manifest, model: Model, *, local_pictures: bool) -> None:
        self.manifest = manifest
        self.model = model
        self.local_pictures = local_pictures
        self.problems: list[Problem] = []
        self._told: set[tuple[Location, str]] = set()
        self._keys = Distinct()
        self._paths = Distinct()
        self._clashes: list[tuple[int, Job]] = []
        self._points: list[Point] = [
            tuple(zip(manifest.matrix, values, strict=True))
            for values in itertools.product(*manifest.matrix.values())
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
        if self.problems:
            manifest = self.manifest.document.shown_as
            raise ManifestError(
                sorted(self.problems, key=lambda found: (found.file != manifest, found.line or 0))
            )

    def _candidates(self) -> Iterator[Job | None]:
        """Yield every job, and None for each that has a problem."""
        manifest = self.manifest
        for images in self._image_sets():
            for prompt, point in itertools.product(manifest.prompts, self._points):
                if self._is_excluded(images, prompt, point):
                    continue
                for repeat in range(1, manifest.repeat + 1):
                    yield self._job(images, prompt, point, repeat)
        for position, include in enumerate(manifest.include):
            for repeat in range(1, manifest.repeat + 1):
                yield self._included_job(position, include, repeat)

    # Image sets

    def _image_sets(self) -> Iterator[ImageSet]:
        images = self.manifest.images
        if images is None:
            # A manifest whose jobs are all written out under include needs no images; a model
            # that makes pictures from text alone has one empty set.
            if not self.manifest.include:
                yield ImageSet(None, ("prompts",))
        elif isinstance(images, InlineImages):
            for id_, urls in images.sets.items():
                image_set = self._image_set(id_, ("images", id_), urls)
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
                if len(self.problems) >= PROBLEM_LIMIT:
                    return
            if row is None:
                raise TableError(
                    f"table '{images.path}' has no rows", hint="export it again with its rows"
                )
        except TableError as problem:
            if problem.row is None:
                self._add(("images", "from"), problem.message, problem.hint)
            else:
                what = f"row {problem.row}: {problem.message}"
                self.problems.append(Problem(str(images.path), problem.row, what, problem.hint))

    def _row(self, images: TableImages, row: Row) -> ImageSet | None:
        cells = {"name": self.manifest.name, **row.cells, "row": row.cells}
        if images.where is not None:
            keep = self._render(images.where, ("images", "where"), cells, row)
            if keep is None or not is_true(keep):
                return None
        filled = {name: value for name, value in row.cells.items() if value != ""}
        variables = {"name": self.manifest.name, **filled, "row": filled}
        id_ = self._render(images.id, ("images", "id"), variables, row)
        urls = [self._render(url, ("images", "urls"), cells, row) for url in images.urls]
        if id_ is None or None in urls:
            return None
        written = [(url or "").strip() for url in urls]
        id_ = id_.strip()
        if not id_ or len(id_) > _ID_LIMIT_CHARACTERS or _ID_FORBIDDEN.search(id_):
            what = f"{_columns([images.id])}{show(id_)} cannot be an image id"
            hint = "an id is a short text without slashes; choose another column for images.id"
            self._add_row(row, what, hint)
            return None
        if not any(written):
            what = f"{_columns(images.urls)}no picture for '{id_}'"
            hint = "fill one in, or leave such rows out with images.where"
            self._add_row(row, what, hint)
            return None
        return self._image_set(id_, ("images", "urls"), written, row, filled)

    def _image_set(
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
        urls, identities = [], []
        for position, url in enumerate(written):
            if not url:
                continue
            try:
                sent, identity = self._picture(url, row)
            except _PictureError as problem:
                self._picture_problem(location, row, position, problem)
            else:
                urls.append(sent)
                identities.append(identity)
        if len(urls) + written.count("") < len(written):
            return None
        return ImageSet(id_, location, urls, identities, row, cells or {})

    # Jobs

    def _is_excluded(self, images: ImageSet, prompt: Prompt, point: Point) -> bool:
        if not self.manifest.exclude:
            return False
        facts = {**dict(point), "prompt": prompt.id, "image": images.id}
        return any(
            all(facts.get(name) == value for name, value in rule.items())
            for rule in self.manifest.exclude
        )

    def _job(self, images: ImageSet, prompt: Prompt, point: Point, repeat: int) -> Job | None:
        manifest = self.manifest
        variables = self._variables(images, prompt, point, repeat)
        text = self._render(prompt.text, prompt.location, variables, images.row)
        if text is None:
            return None
        # The nearer wins: a prompt's own inputs over the matrix, and that over the manifest's.
        inputs = {**manifest.inputs, **dict(point), **prompt.inputs}
        sent = self._input(text, images, inputs, prompt.location, prompt.location[:2])
        path = self._path(images, prompt, point, repeat, variables)
        if sent is None or path is None:
            return None
        values = ",".join(f"{name}={value_text(value)}" for name, value in point)
        key = "/".join(part for part in (images.id, prompt.id, values) if part)
        return self._finished(
            key if repeat == 1 else f"{key}#{repeat}",
            sent,
            path,
            prompt_id=prompt.id,
            image_id=images.id,
            point=dict(point),
            repeat=repeat,
            row=None if images.row is None else images.row.number,
        )

    def _included_job(self, position: int, include: Include, repeat: int) -> Job | None:
        location: Location = ("include", position)
        images = self._image_set(include.id, (*location, "image_urls"), include.urls)
        variables = {
            "name": self.manifest.name,
            "model": self.model.model_id,
            "image": include.id,
            "prompt": include.id,
            "repeat": repeat,
            **include.inputs,
        }
        text = self._render(include.prompt, include.location, variables, None)
        if images is None or text is None:
            return None
        inputs = {**self.manifest.inputs, **include.inputs}
        sent = self._input(text, images, inputs, include.location, location)
        if sent is None:
            return None
        return self._finished(
            include.id if repeat == 1 else f"{include.id}#{repeat}",
            sent,
            _repeated(include.id, repeat),
            image_id=include.id,
            repeat=repeat,
        )

    def _finished(
        self, key: str, sent: _Sent, path: str, *, repeat: int, **origin: Any
    ) -> Job | None:
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self._add_once(("output", "path"), what, "write it like {{ image }}/{{ prompt }}")
            return None
        return Job(
            key=key,
            fingerprint=fingerprint(self.model.model_id, sent.identity, repeat),
            model=self.model.model_id,
            input=sent.input,
            path=stem,
            outputs=self.model.outputs(sent.input),
            repeat=repeat,
            **origin,
        )

    def _variables(
        self, images: ImageSet, prompt: Prompt, point: Point, repeat: int
    ) -> dict[str, Any]:
        return {
            "name": self.manifest.name,
            "repeat": repeat,
            "model": self.model.model_id,
            **images.cells,
            **dict(point),
            "row": images.cells,
            "image": images.id or "",
            "prompt": prompt.id,
        }

    def _input(
        self,
        text: str,
        images: ImageSet,
        inputs: Mapping[str, Any],
        prompt_location: Location,
        owner: Location,
    ) -> _Sent | None:
        """Return what will be sent, once the model takes it; `owner` may have inputs of its own."""
        if not text.strip():
            self._empty_prompt(images.row, prompt_location)
            return None
        try:
            placed = self.model.place(text, images.urls)
        except ModelInputError as error:
            self._add_once(images.location, error.message, error.hint)
            return None
        input_ = {**inputs, **placed}
        if not self.model.accepts(input_):
            for finding in self.model.findings(input_):
                self._refused_input(finding, input_, images, prompt_location, owner)
            return None
        identity = _unsigned(inputs) | self.model.place(text, images.identities)
        return _Sent(input_, identity)

    def _empty_prompt(self, row: Row | None, location: Location) -> None:
        what, hint = f"the prompt '{location[1]}' is empty", "write what to do with the pictures"
        if row is not None:
            self._add_row(row, what, hint)
        else:
            self._add_once(location, "the prompt is empty", hint)

    def _refused_input(
        self,
        finding: Finding,
        input_: Mapping[str, Any],
        images: ImageSet,
        prompt_location: Location,
        owner: Location,
    ) -> None:
        """Point at the nearest place that set the input which the model does not take."""
        manifest, what, hint = self.manifest, finding.what, finding.hint
        if not finding.location:
            place = ("inputs",) if manifest.inputs else ("model",)
            self._add_once(place, f"inputs: {what}", hint)
            return
        name = str(finding.location[0])
        own = (*owner, "inputs", *finding.location)
        if name == self.model.prompt_property:
            known = self.model.has_input(name)
            self._add_once(prompt_location if known else ("prompt_as",), what, hint)
        elif name in self.model.image_properties:
            if not self.model.has_input(name):
                self._add_once(("images_as", name), what, hint)
            elif images.row is not None:
                self._add_row(images.row, what, hint)
            else:
                hint = hint or "all pictures of an image id go into one job: use several ids"
                self._add_once(images.location, f"pictures of '{images.id}': {what}", hint)
        elif own[:4] in manifest.document.lines:
            self._add_once(own, what, hint)
        elif name in manifest.matrix:
            position = manifest.matrix[name].index(input_[name])
            self._add_once(("matrix", name, position), what, hint)
        else:
            self._add_once(("inputs", *finding.location), what, hint)

    def _picture(self, url: str, row: Row | None) -> tuple[str, str]:
        """Return how a picture is sent, and what it is; raises _PictureError."""
        if _HTTPS_URL.fullmatch(url):
            sent = "https" + url[5:]
            return sent, unsigned_url(sent)
        scheme, separator, _ = url.partition("://")
        if scheme.lower() == "https":
            raise _PictureError(
                f"{show(url)} is not a valid URL", "write https://host/path without blanks"
            )
        if separator:
            what = f"{show(url)} is {scheme}; the service fetches only https URLs"
            raise _PictureError(what, "give the https URL of the picture")
        return self._local_picture(url, row)

    def _local_picture(self, url: str, row: Row | None) -> tuple[str, str]:
        if not self.local_pictures:
            what = f"{show(url)} is not an https URL, and the service cannot read local files"
            hint = "put the picture on a web server, or try the batch with --sandbox"
            raise _PictureError(what, hint)
        base = self.manifest.path if row is None else self._table
        path = Path(os.path.normpath(base.parent.absolute() / url))
        try:
            found = path.stat()
            return path.as_uri(), _file_identity(path, found.st_mtime_ns, found.st_size)
        except (OSError, ValueError) as error:
            raise _PictureError(f"there is no picture {show(url)}", f"looked for {path}") from error

    def _picture_problem(
        self, location: Location, row: Row | None, position: int, problem: _PictureError
    ) -> None:
        source = self.manifest.images
        if row is not None and isinstance(source, TableImages):
            what = f"{_columns([source.urls[position]])}{problem.what}"
            self._add_row(row, what, problem.hint)
        else:
            self._add_once((*location, position), problem.what, problem.hint)

    @property
    def _table(self) -> Path:
        source = self.manifest.images
        return source.path if isinstance(source, TableImages) else self.manifest.path

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
            return self._render(template, ("output", "path"), variables, images.row)
        words = "-".join([prompt.id, *(value_text(value) for _, value in point)])
        parts = (images.id, _repeated(words, repeat))
        return "/".join(sieve_value(part) for part in parts if part)

    # Problems

    def _seems_distinct(self, job: Job) -> bool:
        new_key = self._keys.add(job.key)
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
        claims: dict[str, tuple[int, Job]] = {}
        for entry in self._clashes:
            keys.setdefault(entry[1].key, entry)
            for claim in _claims(entry[1]):
                claims.setdefault(claim, entry)
        guilty: set[str] = set()
        again = _Expansion(self.manifest, self.model, local_pictures=self.local_pictures)
        before_the_last = itertools.islice(again._candidates(), self._clashes[-1][0])
        for position, first in enumerate(before_the_last):
            if first is None:
                continue
            later_position, later = keys.get(first.key, (-1, first))
            if position < later_position:
                guilty.add(later.key)
                self._same_key(first, later)
                continue
            for claim in _claims(first):
                later_position, later = claims.get(claim, (-1, first))
                if position < later_position and later.key not in guilty:
                    guilty.add(later.key)
                    self._same_path(first, later, claim)
        innocent = [job for _, job in self._clashes if job.key not in guilty]
        self._clashes.clear()
        yield from innocent

    def _same_key(self, first: Job, second: Job) -> None:
        if first.row is not None and second.row is not None:
            location: Location = ("images", "id")
            what = f"two jobs are called '{second.key}' (rows {first.row} and {second.row})"
            hint = "choose a column whose values are unique, or leave one of the rows out"
        else:
            ids = [include.id for include in self.manifest.include]
            # From the end: where two are written out with one id, the later is the one too many.
            location = ("include", len(ids) - 1 - ids[::-1].index(second.image_id or ""), "id")
            what = f"two jobs are called '{second.key}'"
            hint = "give this one another id"
        self._add_once(location, what, hint)

    def _same_path(self, first: Job, second: Job, claim: str) -> None:
        self._add_once(
            ("output", "path"),
            f"the jobs '{first.key}' and '{second.key}' would both write '{claim}'",
            _difference(first, second),
        )

    def _render(
        self,
        template: Template,
        location: Location,
        variables: Mapping[str, Any],
        row: Row | None,
    ) -> str | None:
        try:
            return template.render(variables)
        except TemplateError as problem:
            self._template_problem(location, problem, variables, row)
            return None

    def _template_problem(
        self,
        location: Location,
        problem: TemplateError,
        variables: Mapping[str, Any],
        row: Row | None,
    ) -> None:
        name = problem.variable
        if name is None:
            self._add_once(location, f"the template {problem.message}")
        elif row is not None and name in row.cells:
            place = f"{self.manifest.document.shown_as}:{self.manifest.document.line(location)}"
            hint = f'fill it in, or write {{{{ {name} | default("…") }}}} at {place}'
            self._add_row(row, f"the column '{name}' is empty", hint)
        elif row is not None and self._table.suffix.lower() == ".jsonl":
            # Each of its rows has columns of its own.
            self._add_row(row, f"there is no '{name}'", did_you_mean(name, row.cells))
        elif row is not None and location[0] == "images":
            what = f"the table has no column '{name}'"
            self._add_once(location, what, did_you_mean(name, row.cells))
        else:
            known = set(variables) - {"row"}
            self._add_once(
                location, f"the variable '{name}' is undefined", did_you_mean(name, known)
            )

    def _add_row(self, row: Row, what: str, hint: str | None) -> None:
        problem = Problem(str(self._table), row.number, f"row {row.number}: {what}", hint)
        if problem not in self.problems and len(self.problems) < PROBLEM_LIMIT:
            self.problems.append(problem)

    def _add_once(self, location: Location, what: str, hint: str | None = None) -> None:
        """Add a problem that many jobs share only once."""
        if (location, what) not in self._told and len(self.problems) < PROBLEM_LIMIT:
            self._told.add((location, what))
            self._add(location, what, hint)

    def _add(self, location: Location, what: str, hint: str | None = None) -> None:
        self.problems.append(self.manifest.document.problem(location, what, hint))


def _columns(templates: list[Template]) -> str:
    """Name the columns that templates take their text from, to stand before a problem."""
    names = sorted({name for template in templates for name in template.variables} - {"row"})
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"column {quoted}: " if names else ""


def _repeated(stem: str, repeat: int) -> str:
    """Name a repeat so that it never meets the first job's further outputs, -2 and -3."""
    return stem if repeat == 1 else f"{stem}-repeat-{repeat}"


def _difference(first: Job, second: Job) -> str:
    """Say what would tell the paths of two jobs apart."""
    differing = [axis for axis, value in first.point.items() if second.point.get(axis) != value]
    differing += ["repeat"] if first.repeat != second.repeat else []
    differing += ["prompt"] if first.prompt_id != second.prompt_id else []
    differing += ["image"] if first.image_id != second.image_id else []
    return f"put {{{{ {differing[-1]} }}}} into output.path"


def _claims(job: Job) -> list[str]:
    """Return every path that the job's outputs will take, as collisions are compared."""
    first = collision_key(job.path)
    outputs = min(job.outputs, _OUTPUTS_COMPARED)
    return [first, *(f"{first}-{number}" for number in range(2, outputs + 1))]


def _unsigned(value: Any) -> Any:
    """Return inputs with every URL in them as it is without its signature."""
    if isinstance(value, str):
        return unsigned_url(value) if value.startswith("https://") else value
    if isinstance(value, list):
        return [_unsigned(item) for item in value]
    if isinstance(value, dict):
        return {name: _unsigned(item) for name, item in value.items()}
    return value


@lru_cache(maxsize=4096)
def _file_identity(path: Path, mtime_ns: int, size_bytes: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
