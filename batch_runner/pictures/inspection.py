"""The saved pictures of a batch: what is required of each, what is measured, what follows.

Hides how pictures, jobs and rules come together. What always holds: each result is about a file's
content; a result that the verdicts have already is not recorded again; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import ManifestError
from batch_runner.ledger.verdict import Checked, Result, Verdicts
from batch_runner.manifest.form import Manifest
from batch_runner.manifest.template import Template, TemplateError, is_true
from batch_runner.pictures.judge import RATIO, Around, Judged, judge
from batch_runner.pictures.kept import Measurements, Order, source_name
from batch_runner.pictures.likeness import Shown, twins
from batch_runner.pictures.measure import Measured, distance
from batch_runner.pictures.rules import VERSIONS, Rules, rules_for
from batch_runner.records import Job, SavedFile, utc_now
from batch_runner.report.details import JobDetails
from batch_runner.text.address import unsigned_url

_RATIO_INPUTS = ("aspect_ratio", "ratio", "image_size", "size")


class Source(msgspec.Struct, frozen=True):
    """A picture in: what it is, and its path on this machine, or else its URL."""

    what: str
    path: str | None = None
    url: str | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A saved picture, its job, what is required of it, and the command that is asked about it.

    `sources` are the pictures in: what each is, and its path or its URL.
    """

    job: str
    fingerprint: str
    product: str
    file: SavedFile
    rules: Rules
    command: tuple[str, ...]
    ratio: str | None
    sources: tuple[Source, ...]


Found = tuple[Subject, Judged]

_BADNESS = {Result.PASS: 0, Result.UNMEASURABLE: 1, Result.FAIL: 2}


def subjects(manifest: Manifest, details: Iterable[JobDetails]) -> Iterator[Subject]:
    """Yield the saved pictures.

    Films and sounds are left out. Raises ManifestError if a condition fails.
    """
    for one in details:
        for number, file in enumerate(one.files, start=1):
            if file.media_type.startswith("image/"):
                holds = _condition(manifest, one.job, one.cells, number)
                yield Subject(
                    job=one.job.key,
                    fingerprint=one.job.fingerprint,
                    product=one.job.image_id or one.job.key,
                    file=file,
                    rules=rules_for(manifest.checks, holds),
                    command=_command(manifest, holds),
                    ratio=requested_ratio(one.job),
                    sources=tuple(_sources(one)),
                )


def rules_of(manifest: Manifest, job: Job, cells: Mapping[str, Any], number: int) -> Rules:
    """Return what is required of a file of a job; raises ManifestError if a condition fails."""
    return rules_for(manifest.checks, _condition(manifest, job, cells, number))


def _condition(
    manifest: Manifest, job: Job, cells: Mapping[str, Any], number: int
) -> Callable[[Template], bool]:
    variables: Mapping[str, Any] = {
        "name": manifest.name,
        **cells,
        **job.point,
        "row": cells,
        "image": job.image_id,
        "prompt": job.prompt_id,
        "repeat": job.repeat,
        "number": number,
    }

    def holds(where: Template) -> bool:
        try:
            return is_true(where.render(variables))
        except TemplateError as error:
            what = f"'where' {error.message}, for job '{job.key}'"
            hint = "use a column of the table, or image, prompt, number"
            raise ManifestError([manifest.document.problem(("checks",), what, hint)]) from error

    return holds


def _command(manifest: Manifest, holds: Callable[[Template], bool]) -> tuple[str, ...]:
    """Return the last command that is meant for a picture."""
    for part in reversed(manifest.checks):
        if part.command and (part.where is None or holds(part.where)):
            return part.command
    return ()


def requested_ratio(job: Job) -> str | None:
    """Return the shape that a job asks for, as "4:5" or "1024x1536"; None if it names none."""
    texts = (str(job.input.get(name, "")) for name in _RATIO_INPUTS)
    return next((text for text in texts if RATIO.fullmatch(text)), None)


def _sources(details: JobDetails) -> Iterator[Source]:
    for shown, url in zip(details.sources, details.fetchable, strict=True):
        path = details.local.get(shown)
        if path is None:
            yield Source(unsigned_url(url), url=url)
            continue
        try:
            found = Path(path).stat()
        except OSError:
            yield Source(path)
        else:
            yield Source(f"{path}\0{found.st_mtime_ns}\0{found.st_size}", path)


def results_to_measure(
    chosen: Sequence[Subject], known: Measurements
) -> Iterator[tuple[Order, SavedFile]]:
    """Yield the results that nobody has measured, each content once."""
    asked = set(known.results)
    for one in chosen:
        sha256 = one.file.sha256
        if sha256 not in asked:
            asked.add(sha256)
            yield Order(of=sha256, sha256=sha256), one.file


def sources_to_measure(
    chosen: Sequence[Subject], known: Measurements
) -> Iterator[tuple[Order, Source]]:
    """Yield the pictures in that are needed to compare results with, each once for a shape."""
    asked = set(known.sources)
    for one in chosen:
        shape = _shape(known.results.get(one.file.sha256))
        for source in one.sources if shape and "edited" in one.rules else ():
            name = source_name(source.what, shape)
            if name not in asked:
                asked.add(name)
                yield Order(of=name, original=source.path, shape=shape), source


def _shape(measured: Measured | None) -> float:
    """Return width by height, rounded as in the names of pictures in; 0 if it is not known."""
    if measured is None or not measured.height:
        return 0.0
    return max(round(measured.width / measured.height, 2), 0.01)


def judged(chosen: Sequence[Subject], known: Measurements) -> Iterator[Found]:
    """Yield the result of each check of each picture."""
    unknown = Measured(why_not="is not on this machine")
    measured = [known.results.get(one.file.sha256, unknown) for one in chosen]
    grids = [_grids(one, seen, known) for one, seen in zip(chosen, measured, strict=True)]
    shown = [
        Shown(
            job=one.job,
            product=one.product,
            cells=seen.cells if "edited" in one.rules else b"",
            sources=tuple(whole for whole, _ in pairs),
        )
        for one, seen, pairs in zip(chosen, measured, grids, strict=True)
    ]
    twin = twins(shown)
    for at, one in enumerate(chosen):
        unlike = [distance(measured[at].cells, cells) for pair in grids[at] for cells in pair]
        around = Around(
            path=one.file.path,
            ratio=one.ratio,
            unlike_sources=min(unlike, default=None),
            twin=twin.get(at),
        )
        for result in judge(measured[at], one.rules, around):
            yield one, result


def _grids(one: Subject, measured: Measured, known: Measurements) -> list[tuple[bytes, bytes]]:
    """Return the grids of the pictures in that could be seen."""
    shape = _shape(measured)
    names = (source_name(source.what, shape) for source in one.sources)
    return [pair for name in names if (pair := known.sources.get(name, (b"", b"")))[0]]


def news(found: Iterable[Found], verdicts: Verdicts) -> Iterator[Checked]:
    """Yield what is to be recorded: the results that the verdicts do not have.

    Jobs may have files with the same content: the worst result for it counts.
    """
    worst: dict[tuple[str, str], Found] = {}
    for subject, one in found:
        other = worst.setdefault((subject.file.sha256, one.check), (subject, one))
        if _BADNESS[one.result] > _BADNESS[other[1].result]:
            worst[subject.file.sha256, one.check] = (subject, one)
    for subject, one in worst.values():
        version = VERSIONS.get(one.check, 1)
        before = verdicts.checks.get(subject.file.sha256, {}).get(one.check)
        if before is not None and (
            before.result,
            before.measured,
            before.required,
            before.version,
        ) == (one.result, one.measured, one.required, version):
            continue
        yield Checked(
            at=utc_now(),
            job=subject.job,
            fingerprint=subject.fingerprint,
            sha256=subject.file.sha256,
            check=one.check,
            version=version,
            result=one.result,
            measured=one.measured,
            required=one.required,
        )
