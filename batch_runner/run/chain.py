"""A batch as a table: the saved pictures of one manifest are the rows of the next.

What always holds: a row is one saved picture, in the order of its batch; a picture is what its
content is, so a step buys again only what has changed in the step before; nothing is changed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from batch_runner.jobs.picture import by_content
from batch_runner.ledger.job import JobState
from batch_runner.ledger.state import State
from batch_runner.ledger.verdict import Verdicts
from batch_runner.records import Job, LocalFile, SavedFile
from batch_runner.table import Row
from batch_runner.text.quantity import counted


def rows_of_batch(
    jobs: Iterable[Job],
    state: State,
    verdicts: Verdicts,
    *,
    name: str,
    place: str,
    notes: list[str],
) -> Iterator[Row]:
    """Yield a row for each saved picture; what is missing goes to the notes.

    `name` is the manifest's, `place` the folder or bucket that the pictures are in.
    """
    number = missing = total = 0
    for job in jobs:
        total += 1
        known = state.job(job.fingerprint)
        if known is None or not known.files:
            missing += 1
            continue
        for position, file in enumerate(known.files, start=1):
            number += 1
            path = f"{place}/{file.path}"
            cells = {**_cells(job, file, position, verdicts), "file": path}
            yield Row(number, cells, number, picture=saved_picture(known, position, path))
    if missing:
        todo = "" if number else f"; run it first: batch-runner run {name}"
        what = f"{counted(missing, 'job')} of {total:,} have no saved picture yet"
        notes.append(f"{name}: {what}{todo}")


def saved_picture(known: JobState, number: int, path: str) -> LocalFile:
    """Return a job's nth picture, which is at a path, as a picture for another job."""
    file = known.files[number - 1]
    identity = by_content(file.sha256)
    return LocalFile(identity, path, file.size_bytes, request_id=known.request_id, number=number)


def _cells(job: Job, file: SavedFile, position: int, verdicts: Verdicts) -> dict[str, Any]:
    word = verdicts.word_on(file.sha256)
    key = job.key.replace("/", "-")
    return {
        **job.cells,
        "picture_id": key if position == 1 else f"{key}-{position}",
        "key": job.key,
        "image": job.image_id or "",
        "prompt": job.prompt_id or "",
        "number": position,
        "verdict": "" if word is None else str(word),
        "sha256": file.sha256,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
        **{
            f"check_{name}": str(checked.result)
            for name, checked in verdicts.checks.get(file.sha256, {}).items()
        },
    }
