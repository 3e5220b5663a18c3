"""Models as the service describes them: asked before a run, and kept for when nobody answers.

Hides which answers are believed. What always holds: without an answer, or with one that makes no
sense, what is known on this machine still holds.
"""

from __future__ import annotations

from batch_runner.errors import ManifestError, closest
from batch_runner.models.catalog import keep_published, model_of, shipped_models
from batch_runner.run.batch import Batch
from batch_runner.service.answer import NO_SUCH_MODEL, Meaning
from batch_runner.service.network import token_refused


async def learn_models(batch: Batch, *, keep: bool) -> None:
    """Ask the service for the models' schemas and prices; continue without what it does not answer.

    `keep` stores the answers beside the ledger. Raises AccessRefusedError if the service refuses
    the token, and ManifestError if it has no such model.
    """
    problems, places = [], batch.manifest.model_locations
    for model_id, location in places.items():
        verdict, entry = await batch.service.model(model_id)
        if verdict.meaning is Meaning.TOKEN_REFUSED:
            raise token_refused(verdict.message)
        if verdict.code == NO_SUCH_MODEL:
            what = f"the service has no model '{model_id}'"
            match = closest(model_id, shipped_models())
            hint = (
                "see the models with batch-runner models"
                if match is None
                else f"did you mean '{match}'?"
            )
            problems.append(batch.manifest.document.problem(location, what, hint))
        elif entry is None:
            trouble = batch.unanswered[model_id] = f"{verdict.reason}: {verdict.message}"
            batch.notes.append(
                f"the service did not describe {model_id} ({trouble});"
                " continuing with what is known here"
            )
            if verdict.status is None:
                # The service is out of reach: each further model could take a minute to fail.
                unasked = list(places)[list(places).index(model_id) + 1 :]
                batch.unanswered |= dict.fromkeys(unasked, trouble)
                break
        else:
            try:
                batch.models[model_id] = model_of(batch.manifest, model_id, entry)
            except ManifestError as error:
                # The service's own description is unusable: what is known here is better.
                batch.notes.append(f"{error.problems[0].what}; continuing with what is known here")
                continue
            if keep:
                keep_published(batch.ledgers.folder, model_id, entry)
    if problems:
        raise ManifestError(problems)
