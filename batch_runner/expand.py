"""Manifest in, a stream of jobs out.

Hides tables, templates, the matrix with its exclusions, and how keys, fingerprints and paths are
made. What always holds: the same manifest and table give the same jobs in the same order; a job
comes out only if the model takes its input; memory does not grow with the number of jobs, but for
16 bytes of hash a key and a path (that is how two jobs with one name are found). Problems are
collected while the stream goes on, and raised together at its end.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from batch_runner.distinct import Distinct
from batch_runner.document import Location
from batch_runner.errors import PROBLEM_LIMIT, ManifestError, Problem, did_you_mean
from batch_runner.manifest import Include, InlineImages, Manifest, Prompt, TableImages
from batch_runner.model import Model, ModelInputError
from batch_runner.path import UnsafePathError, collision_key, safe_stem, sieve_value
from batch_runner.records import Job, fingerprint, unsigned_url
from batch_runner.table import Row, TableError, read_columns, read_rows
from batch_runner.template import Template, TemplateError
from batch_runner.validation import show

_ID_FORBIDDEN = ("/", "\\", "\n", "\r", "\t", "\x00")
_ID_LIMIT_CHARACTERS = 200

Point = tuple[tuple[str, Any], ...]


class ImageSet(msgspec.Struct, frozen=True):
    """The pictures of one job, with the row they came from."""

    id: str | None
    urls: list[str]
    location: Location
    row: Row | None = None


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
                break
        yield from self._settle_clashes()
        if self.problems:
            raise ManifestError(sorted(self.problems, key=lambda problem: problem.line or 0))

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
                yield ImageSet(None, [], ("prompts",))
        elif isinstance(images, InlineImages):
            for id_, urls in images.sets.items():
                yield ImageSet(id_, urls, ("images", id_))
        else:
            yield from self._rows(images)

    def _rows(self, images: TableImages) -> Iterator[ImageSet]:
        try:
            self._check_columns(images)
            for row in read_rows(images.path):
                try:
                    image_set = self._row(images, row)
                except TemplateError as problem:
                    self._template_problem(("images", "id"), problem, row.cells, row)
                    continue
                if image_set is not None:
                    yield image_set
                if len(self.problems) >= PROBLEM_LIMIT:
                    return
        except TableError as problem:
            if problem.row is None:
                self._add(("images", "from"), problem.message, problem.hint)
            else:
                what = f"row {problem.row} {problem.message}"
                self.problems.append(Problem(str(images.path), problem.row, what, problem.hint))

    def _check_columns(self, images: TableImages) -> None:
        """Say once, before any row, that a template names a column which is not there."""
        columns = set(read_columns(images.path))
        if not columns:
            raise TableError(f"table '{images.path}' has no rows")
        if images.path.suffix.lower() == ".jsonl":
            return  # each of its rows has columns of its own
        templates = [(("images", "id"), images.id)]
        templates += [(("images", "urls"), url) for url in images.urls]
        if images.where is not None:
            templates.append((("images", "where"), images.where))
        for location, template in templates:
            for variable in sorted(template.variables - columns - {"row", "name"}):
                what = f"the table has no column '{variable}'"
                self._add_once(location, what, did_you_mean(variable, columns))

    def _row(self, images: TableImages, row: Row) -> ImageSet | None:
        cells = {"name": self.manifest.name, **row.cells, "row": row.cells}
        if images.where is not None and not images.where.is_true(cells):
            return None
        urls = [url for url in (template.render(cells).strip() for template in images.urls) if url]
        id_ = images.id.render(_filled(cells)).strip()
        if not id_ or len(id_) > _ID_LIMIT_CHARACTERS or any(c in id_ for c in _ID_FORBIDDEN):
            what = f"row {row.number}: {show(id_)} cannot be an image id"
            hint = "an id is a short text without slashes; choose another column for images.id"
            self._add_row(images, row, what, hint)
            return None
        if not urls:
            what = f"row {row.number}: all picture columns of '{id_}' are empty"
            hint = "fill one in, or leave such rows out with images.where"
            self._add_row(images, row, what, hint)
            return None
        return ImageSet(id_, urls, ("images", "urls"), row)

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
        places = {name: ("prompts", prompt.id, "inputs", name) for name in prompt.inputs}
        input_ = self._input(text, images, inputs, places, prompt.location)
        if input_ is None:
            return None
        values = ",".join(f"{name}={_plain(value)}" for name, value in point)
        key = "/".join(part for part in (images.id, prompt.id, values) if part)
        return self._finish(
            key if repeat == 1 else f"{key}#{repeat}",
            input_,
            self._path(images, prompt, point, repeat, variables),
            Job(
                key="",
                fingerprint="",
                model=self.model.model_id,
                input={},
                path="",
                prompt_id=prompt.id,
                image_id=images.id,
                point=dict(point),
                repeat=repeat,
                row=None if images.row is None else images.row.number,
            ),
        )

    def _included_job(self, position: int, include: Include, repeat: int) -> Job | None:
        key = include.id if repeat == 1 else f"{include.id}#{repeat}"
        variables = {
            "name": self.manifest.name,
            "image": include.id,
            "prompt": include.id,
            "repeat": repeat,
            **include.inputs,
        }
        text = self._render(include.prompt, include.location, variables, None)
        if text is None:
            return None
        images = ImageSet(include.id, include.urls, ("include", position, "image_urls"))
        inputs = {**self.manifest.inputs, **include.inputs}
        places: dict[str, Location] = {
            name: ("include", position, "inputs", name) for name in include.inputs
        }
        input_ = self._input(text, images, inputs, places, include.location)
        if input_ is None:
            return None
        job = Job(
            key="",
            fingerprint="",
            model=self.model.model_id,
            input={},
            path="",
            image_id=include.id,
            repeat=repeat,
        )
        return self._finish(key, input_, key.replace("#", "-"), job)

    def _finish(self, key: str, input_: dict[str, Any], path: str | None, job: Job) -> Job | None:
        if path is None:
            return None
        try:
            stem = safe_stem(path)
        except UnsafePathError as error:
            what = f"the output path {show(path)} of job '{key}' {error}"
            self._add_once(("output", "path"), what, "begin it with a word, such as {{ image }}")
            return None
        return msgspec.structs.replace(
            job,
            key=key,
            fingerprint=fingerprint(job.model, _identity(input_), job.repeat),
            input=input_,
            path=stem,
            outputs=self.model.outputs(input_),
        )

    def _variables(
        self, images: ImageSet, prompt: Prompt, point: Point, repeat: int
    ) -> dict[str, Any]:
        cells = {} if images.row is None else _filled(images.row.cells)
        return {
            "name": self.manifest.name,
            "repeat": repeat,
            "model": self.model.model_id,
            **cells,
            **dict(point),
            "row": cells,
            "image": images.id or "",
            "prompt": prompt.id,
        }

    def _input(
        self,
        text: str,
        images: ImageSet,
        inputs: Mapping[str, Any],
        places: Mapping[str, Location],
        prompt_location: Location,
    ) -> dict[str, Any] | None:
        """Return what will be sent, once the model takes it; places say where inputs stand."""
        urls = [self._picture(url, images) for url in images.urls]
        try:
            placed = self.model.place(text, [url for url in urls if url is not None])
        except ModelInputError as error:
            self._add_once(images.location, error.message, error.hint)
            return None
        if None in urls:
            return None
        if not text.strip():
            self._add_once(prompt_location, "the prompt is empty")
            return None
        input_ = {**inputs, **placed}
        if self.model.accepts(input_):
            return input_
        for finding in self.model.findings(input_):
            name = str(finding.location[0]) if finding.location else ""
            place = places.get(name) or self._place_of_input(name, images, placed)
            what = (
                finding.what
                if images.row is None
                else _with_row(finding.what, name, images, placed)
            )
            self._add_once(place, what, finding.hint)
        return None

    def _place_of_input(self, name: str, images: ImageSet, placed: Mapping[str, Any]) -> Location:
        if name in self.manifest.matrix:
            return ("matrix", name)
        if name in placed:
            return images.location
        return ("inputs", name)

    def _picture(self, url: str, images: ImageSet) -> str | None:
        """Return the picture as it is sent: an https URL, or a file of this machine; else None."""
        if url.startswith("https://"):
            try:
                host = urlsplit(url).hostname
            except ValueError:
                host = None
            if host and not any(character.isspace() for character in url):
                return url
            self._picture_problem(images, f"{show(url)} is not a valid URL", None)
            return None
        if "://" in url:
            scheme = url.partition("://")[0]
            what = f"{show(url)} is {scheme}; the service fetches only https URLs"
            self._picture_problem(images, what, "give the https URL of the picture")
            return None
        return self._local_picture(url, images)

    def _local_picture(self, url: str, images: ImageSet) -> str | None:
        source = self.manifest.images
        in_table = images.row is not None and isinstance(source, TableImages)
        base = source.path if in_table else self.manifest.path  # type: ignore[union-attr]  # see in_table
        path = Path(os.path.normpath(base.parent.absolute() / url))
        if not self.local_pictures:
            what = f"{show(url)} is not an https URL, and the service cannot read local files"
            hint = "put the picture on a web server, or try the batch with --sandbox"
            self._picture_problem(images, what, hint)
            return None
        if not path.is_file():
            self._picture_problem(images, f"there is no picture {show(url)}", f"looked for {path}")
            return None
        return path.as_uri()

    def _picture_problem(self, images: ImageSet, what: str, hint: str | None) -> None:
        source = self.manifest.images
        if images.row is not None and isinstance(source, TableImages):
            self._add_row(source, images.row, f"row {images.row.number}: {what}", hint)
        else:
            self._add_once(images.location, what, hint)

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
        words = [prompt.id, *(_plain(value) for _, value in point)]
        words += [str(repeat)] if repeat > 1 else []
        return "/".join(sieve_value(part) for part in (images.id, "-".join(words)) if part)

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
        keys = {job.key: (position, job) for position, job in self._clashes}
        claims = {claim: entry for entry in self._clashes for claim in _claims(entry[1])}
        guilty: set[str] = set()
        again = _Expansion(self.manifest, self.model, local_pictures=self.local_pictures)
        for position, first in enumerate(again._candidates()):
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
        yield from (job for _, job in self._clashes if job.key not in guilty)

    def _same_key(self, first: Job, second: Job) -> None:
        rows = ""
        if first.row is not None and second.row is not None:
            rows = f" (rows {first.row} and {second.row})"
        self._add_once(
            ("images", "id") if second.row is not None else ("include",),
            f"two jobs are called '{second.key}'{rows}",
            "choose a column whose values are unique, or leave one of them out",
        )

    def _same_path(self, first: Job, second: Job, claim: str) -> None:
        self._add_once(
            ("output", "path"),
            f"the jobs '{first.key}' and '{second.key}' would both write '{claim}'",
            "put into output.path what tells them apart, such as {{ image }} or {{ repeat }}",
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
        if row is not None and name is not None and name in row.cells:
            source = self.manifest.images
            if isinstance(source, TableImages):
                what = f"row {row.number}: the column '{name}' is empty"
                hint = f'fill it in, or write {{{{ {name} | default("…") }}}} at line '
                self._add_row(source, row, what, hint + str(self.manifest.document.line(location)))
            return
        if name is None:
            self._add_once(location, f"the template {problem.message}")
        else:
            what = f"the variable '{name}' is undefined"
            self._add_once(location, what, did_you_mean(name, set(variables)))

    def _add_row(self, images: TableImages, row: Row, what: str, hint: str | None) -> None:
        if len(self.problems) < PROBLEM_LIMIT:
            problem = Problem(str(images.path), row.number, what, hint)
            if problem not in self.problems:
                self.problems.append(problem)

    def _add_once(self, location: Location, what: str, hint: str | None = None) -> None:
        """Add a problem that many jobs share only once."""
        if (location, what) not in self._told and len(self.problems) < PROBLEM_LIMIT:
            self._told.add((location, what))
            self._add(location, what, hint)

    def _add(self, location: Location, what: str, hint: str | None = None) -> None:
        self.problems.append(self.manifest.document.problem(location, what, hint))


def _filled(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out empty cells: in ids, prompts and paths an empty cell is an undefined variable."""
    return {name: value for name, value in cells.items() if value != ""}


def _plain(value: Any) -> str:
    """Return a matrix value as keys and paths show it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_row(what: str, name: str, images: ImageSet, placed: Mapping[str, Any]) -> str:
    if name in placed and images.row is not None:
        return f"row {images.row.number}: {what}"
    return what


def _claims(job: Job) -> list[str]:
    """Return every path that the job's outputs will take, as collisions are compared."""
    numbered = (f"{job.path}-{number}" for number in range(2, job.outputs + 1))
    return [collision_key(stem) for stem in (job.path, *numbered)]


def _identity(value: Any) -> Any:
    """Return an input with each picture named by what it is, not by how it is reached."""
    if isinstance(value, str):
        if value.startswith("file://"):
            return f"sha256:{_file_sha256(value)}"
        return unsigned_url(value) if value.startswith("https://") else value
    if isinstance(value, list):
        return [_identity(item) for item in value]
    if isinstance(value, dict):
        return {name: _identity(item) for name, item in value.items()}
    return value


@lru_cache(maxsize=4096)
def _file_sha256(uri: str) -> str:
    from urllib.request import url2pathname  # noqa: PLC0415 - only local pictures need it

    with Path(url2pathname(urlsplit(uri).path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
