"""A job that is done again: what is sent this time, and the fingerprint that it is bought under.

What always holds: a redo follows from the verdicts alone, so every command and every run makes the
same job of it, and it is bought once; a redo may be done again in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Redo
from batch_runner.models.model import Model
from batch_runner.records import Job, LocalFile

_LAST = "The last picture is an earlier result: change it as asked, and keep all else in it."
_SEED = "seed"
_SEEDS = 2**31
"""Models take seeds below this, as far as is known."""


def redone(
    job: Job,
    redos: Mapping[str, Redo],
    models: Mapping[str, Model],
    find: Callable[[Redo], LocalFile | None],
) -> Job:
    """Return the job that stands for this one now: itself, or its last redo.

    `find` returns the picture that a redo starts from.
    """
    while (redo := redos.get(job.fingerprint)) is not None:
        rejected = find(redo) if redo.start == "result" else None
        if redo.start == "result" and rejected is None:
            return job  # without its picture it would be another purchase than the one asked for
        model = models[job.model]
        input_, files = redo_input(job.input, redo, model), job.files
        if rejected is not None:
            input_ = with_result(input_, rejected.url, model)
            files = (*files, rejected)
        job = msgspec.structs.replace(
            job,
            fingerprint=redo.fingerprint,
            input=input_,
            files=files,
            aliases=(),
            redo=redo.count,
        )
    return job


def with_result(input_: Mapping[str, Any], url: str, model: Model) -> dict[str, Any]:
    """Return the input with the rejected picture after the others, as the one to edit.

    A model that takes one picture gets the rejected one in place of its source.
    """
    if not model.image_properties:
        return dict(input_)
    name = model.image_properties[0]
    value = input_.get(name)
    if not isinstance(value, list):
        return {**input_, name: url}
    return {**_with_words(input_, _LAST, model), name: [*value, url]}


def redo_input(input_: Mapping[str, Any], redo: Redo, model: Model) -> dict[str, Any]:
    """Return what a redo sends: the note after the prompt, and another seed if the model has one.

    Without another seed or note some models would return the same picture.
    """
    changed = _with_words(input_, redo.note, model) if redo.note else dict(input_)
    if redo.seed is not None:
        changed[_SEED] = redo.seed
    elif model.schema_source is not None and model.has_input(_SEED):
        changed[_SEED] = int(redo.fingerprint[:8], 16) % _SEEDS
    return changed


def _with_words(input_: Mapping[str, Any], words: str, model: Model) -> dict[str, Any]:
    """Return the input with words after its prompt."""
    prompt = input_.get(model.prompt_property, "")
    return {**input_, model.prompt_property: f"{prompt}\n\n{words}".strip()}
