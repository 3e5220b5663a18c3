"""A job that is done again: what is sent this time, and the fingerprint that it is bought under.

What always holds: a redo follows from the verdicts alone, so every command and every run makes the
same job of it, and it is bought once; a redo may be done again in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Redo
from batch_runner.models.model import Model
from batch_runner.records import Job

_SEED = "seed"
_SEEDS = 2**31
"""Models take seeds below this, as far as is known."""


def redone(job: Job, redos: Mapping[str, Redo], models: Mapping[str, Model]) -> Job:
    """Return the job that stands for this one now: itself, or its last redo."""
    while (redo := redos.get(job.fingerprint)) is not None:
        job = msgspec.structs.replace(
            job,
            fingerprint=redo.fingerprint,
            input=redo_input(job.input, redo, models[job.model]),
            aliases=(),
            redo=redo.count,
        )
    return job


def redo_input(input_: Mapping[str, Any], redo: Redo, model: Model) -> dict[str, Any]:
    """Return what a redo sends: the note after the prompt, and another seed if the model has one.

    Without another seed or note some models would return the same picture.
    """
    changed = dict(input_)
    if redo.note:
        prompt = str(changed.get(model.prompt_property, ""))
        changed[model.prompt_property] = f"{prompt}\n\n{redo.note}".strip()
    if redo.seed is not None:
        changed[_SEED] = redo.seed
    elif model.schema_source is not None and model.has_input(_SEED):
        changed[_SEED] = int(redo.fingerprint[:8], 16) % _SEEDS
    return changed
