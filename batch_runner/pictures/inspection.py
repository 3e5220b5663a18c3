"""The saved pictures of a batch: what is required of each, what is measured, what follows.

Hides how pictures, jobs and rules come together. What always holds: each result is about a file's
content; a result that the verdicts have already is not recorded again; nothing is measured here;
a prediction names the pictures that it follows from, and is made only if all of them fail.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from batch_runner.ledger.verdict import Checked, Result, Verdicts
from batch_runner.manifest.form import Manifest
from batch_runner.models.model import Model
from batch_runner.pictures.judge import RATIO, Around, Judged, judge
from batch_runner.pictures.kept import Order
from batch_runner.pictures.likeness import Shown, twins
from batch_runner.pictures.measure import Measured, distance
from batch_runner.pictures.rules import VERSIONS, Rules, checks_for, rules_for
from batch_runner.records import Job, SavedFile, utc_now
from batch_runner.report.details import JobDetails
from batch_runner.text.address import unsigned_url
from batch_runner.text.quantity import counted

_PREDICTABLE = ("size", "aspect", "format", "provenance")
"""The checks whose results follow from a job's inputs."""
_LOOKED_AT = 5
_RATIO_INPUTS = ("aspect_ratio", "ratio", "image_size", "size")


Inputs = tuple[tuple[str, str], ...]


class Source(msgspec.Struct, frozen=True):
    """A picture in: what it is, and its path on this machine, or else its URL."""

    what: str
    path: str | None = None
    url: str | None = None

    def name_for(self, shape: float) -> str:
        """Return the name of its measurement, for results of one shape."""
        return f"{hashlib.sha256(self.what.encode()).hexdigest()}@{shape:.2f}"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A saved picture, its job, what is required of it, and the command that is asked about it."""

    job: str
    fingerprint: str
    product: str
    file: SavedFile
    rules: Rules
    command: tuple[str, ...]
    ratio: str | None
    sources: tuple[Source, ...]


Found = tuple[Subject, Judged]

_UNSEEN = Measured(why_not="is not on this machine")
_BADNESS = {Result.PASS: 0, Result.UNMEASURABLE: 1, Result.FAIL: 2}


def subjects(manifest: Manifest, details: Iterable[JobDetails]) -> Iterator[Subject]:
    """Yield the saved pictures.

    Films and sounds are left out. Raises ManifestError if a condition fails.
    """
    for one in details:
        for number, file in enumerate(one.files, start=1):
            if file.media_type.startswith("image/"):
                parts = checks_for(manifest, one.job, one.cells, number)
                yield Subject(
                    job=one.job.key,
                    fingerprint=one.job.fingerprint,
                    product=one.job.image_id or one.job.key,
                    file=file,
                    rules=rules_for(parts),
                    command=next((part.command for part in reversed(parts) if part.command), ()),
                    ratio=requested_ratio(one.job),
                    sources=tuple(_sources(one)),
                )


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
    chosen: Iterable[Subject], known: Mapping[str, Measured]
) -> list[tuple[Order, SavedFile]]:
    """Return the results that nobody has measured, each content once."""
    files = {one.file.sha256: one.file for one in chosen}
    return [
        (Order(of=sha256, sha256=sha256), file)
        for sha256, file in files.items()
        if sha256 not in known
    ]


def sources_to_measure(
    chosen: Iterable[Subject], known: Mapping[str, Measured]
) -> list[tuple[Order, Source]]:
    """Return the pictures in that results are to be compared with, each once for a shape."""
    orders = {
        name: (Order(of=name, original=source.path, shape=shape), source)
        for one in chosen
        if "edited" in one.rules and (shape := _shape(known.get(one.file.sha256, _UNSEEN)))
        for source in one.sources
        if (name := source.name_for(shape)) not in known
    }
    return list(orders.values())


def _shape(measured: Measured) -> float:
    """Return width by height, rounded as in the names of pictures in; 0 if it is not known."""
    return max(round(measured.width / measured.height, 2), 0.01) if measured.height else 0.0


def judged(chosen: Sequence[Subject], known: Mapping[str, Measured]) -> Iterator[Found]:
    """Yield the result of each check of each picture."""
    measured = [known.get(one.file.sha256, _UNSEEN) for one in chosen]
    sent = [
        [
            found
            for source in one.sources
            if (found := known.get(source.name_for(_shape(seen)), _UNSEEN)).cells
        ]
        for one, seen in zip(chosen, measured, strict=True)
    ]
    shown = [
        Shown(
            job=one.job,
            product=one.product,
            cells=seen.cells if "edited" in one.rules else b"",
            sources=tuple(source.cells for source in sources),
        )
        for one, seen, sources in zip(chosen, measured, sent, strict=True)
    ]
    twin = twins(shown)
    for at, one in enumerate(chosen):
        cells = measured[at].cells
        unlike = [
            distance(cells, grid) for sent_ in sent[at] for grid in (sent_.cells, sent_.fitted)
        ]
        around = Around(
            path=one.file.path,
            ratio=one.ratio,
            unlike_sources=min(unlike, default=None),
            twin=twin.get(at),
        )
        for result in judge(measured[at], one.rules, around):
            yield one, result


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
        new = Checked(
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
        if before is None or new != msgspec.structs.replace(
            before, at=new.at, job=new.job, fingerprint=new.fingerprint
        ):
            yield new


def predictions(
    manifest: Manifest,
    models: Mapping[str, Model],
    jobs: Iterable[tuple[Job, bool, tuple[SavedFile, ...]]],
    look: Callable[[SavedFile], Measured | None],
) -> Iterator[str]:
    """Yield a notice for each kind of job that would fail.

    `jobs` are all jobs of the batch, each with whether it is to be bought, and its saved files.
    Raises ManifestError if a condition fails.
    """
    if not manifest.checks:
        return
    saved: dict[Inputs, dict[str, SavedFile]] = defaultdict(dict)
    to_buy: Counter[tuple[Inputs, str | None, bytes]] = Counter()
    for job, is_to_buy, files in jobs:
        inputs = _inputs(job, models[job.model])
        if is_to_buy:
            rules = rules_for(checks_for(manifest, job, job.cells))
            kept = {name: rules[name] for name in _PREDICTABLE if name in rules}
            to_buy[inputs, requested_ratio(job), msgspec.json.encode(kept)] += 1
        elif len(saved[inputs]) < _LOOKED_AT:
            for file in files:
                if file.media_type.startswith("image/"):
                    saved[inputs][file.sha256] = file
    for (inputs, ratio, wanted), count in to_buy.items():
        looked = ((file, look(file)) for file in saved.get(inputs, {}).values())
        seen = [
            judge(measured, msgspec.json.decode(wanted), Around(path=file.path, ratio=ratio))
            for file, measured in looked
            if measured is not None
        ]
        with_ = ", ".join(f"{name}: {value}" for name, value in inputs[1:])
        # The same rules give the same checks, in the same order.
        for of_one_check in zip(*seen, strict=True):
            if all(one.result is Result.FAIL for one in of_one_check):
                yield (
                    f"{counted(count, 'job')} would fail the check '{of_one_check[0].check}': each"
                    f" of {counted(len(seen), 'saved picture')}"
                    f"{f' with {with_}' if with_ else ' like theirs'} {of_one_check[0].why}"
                )


def _inputs(job: Job, model: Model) -> Inputs:
    """Return what tells a job from those that would give another kind of picture."""
    left_out = {model.prompt_property, *model.image_properties, "seed"}
    kept = ((name, str(value)) for name, value in job.input.items() if name not in left_out)
    return (("model", job.model), *sorted(kept))
