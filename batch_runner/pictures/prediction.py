"""Which jobs would fail a check, by what pictures of the same batch turned out to be.

What always holds: a prediction names the pictures that it follows from; it is about size, shape,
format and provenance only, which follow from a job's inputs, and is made only if every picture that
was looked at fails. Nothing is kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Result
from batch_runner.manifest.form import Manifest
from batch_runner.models.model import Model
from batch_runner.pictures.inspection import requested_ratio
from batch_runner.pictures.judge import Around, judge
from batch_runner.pictures.measure import Measured
from batch_runner.pictures.rules import checks_for, rules_for
from batch_runner.records import Job, SavedFile
from batch_runner.text.quantity import counted

_PREDICTABLE = ("size", "aspect", "format", "provenance")
_LOOKED_AT = 5

Inputs = tuple[tuple[str, str], ...]


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
    seen: dict[Inputs, list[tuple[SavedFile, Measured]]] = {}
    for (inputs, ratio, wanted), count in to_buy.items():
        if inputs not in seen:
            looked = [(file, look(file)) for file in saved.get(inputs, {}).values()]
            seen[inputs] = [(file, found) for file, found in looked if found is not None]
        for check, why in _failing(seen[inputs], msgspec.json.decode(wanted), ratio).items():
            pictures = counted(len(seen[inputs]), "saved picture")
            with_ = ", ".join(f"{name}: {value}" for name, value in inputs[1:])
            yield (
                f"{counted(count, 'job')} would fail the check '{check}': each of {pictures}"
                f"{f' with {with_}' if with_ else ' like theirs'} {why}"
            )


def _failing(
    seen: list[tuple[SavedFile, Measured]], rules: Mapping[str, Any], ratio: str | None
) -> dict[str, str]:
    """Return the checks that every picture fails, with what is wrong with the first of them."""
    failing: dict[str, list[str]] = defaultdict(list)
    for file, measured in seen:
        for one in judge(measured, dict(rules), Around(path=file.path, ratio=ratio)):
            if one.result is Result.FAIL:
                failing[one.check].append(one.why)
    return {check: whys[0] for check, whys in failing.items() if len(whys) == len(seen)}


def _inputs(job: Job, model: Model) -> Inputs:
    """Return what tells a job from those that would give another kind of picture."""
    left_out = {model.prompt_property, *model.image_properties, "seed"}
    kept = ((name, str(value)) for name, value in job.input.items() if name not in left_out)
    return (("model", job.model), *sorted(kept))
