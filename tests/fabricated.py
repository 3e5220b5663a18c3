"""Batches that were never run: a ledger and pictures as a run would have left them, in no time."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from batch_runner.ledger.file import Ledger
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import (
    Failed,
    Job,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    redact,
)
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.plan import numbered

START = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)
NOBODY = "http://127.0.0.1:1"
"""A service of this machine at which nobody listens."""

Content = tuple[bytes, str, str]
"""The bytes of a file, its extension and its media type."""


def picture(text: str, size: tuple[int, int] = (320, 240), kind: str = "JPEG") -> bytes:
    """Draw a picture that differs from every other by its colour and its text."""
    dice = random.Random(text)
    image = Image.new("RGB", size, (dice.randrange(256), dice.randrange(256), dice.randrange(256)))
    ImageDraw.Draw(image).text((8, 8), text.encode("ascii", "replace").decode(), fill="white")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def jpeg_of(job: Job, number: int) -> Content:
    return picture(f"{job.key} {number}"), ".jpg", "image/jpeg"


def fabricate(
    path: Path,
    outcome: Callable[[Job], str] = lambda job: "done",
    content: Callable[[Job, int], Content] = jpeg_of,
) -> Batch:
    """Write ledger and files for a manifest, each job with the outcome it is given.

    Outcomes: done, failed, unknown, in_flight, pending.
    """
    batch = Batch(load_manifest(path), RunOptions(api_base=NOBODY, token="any"))
    at = START
    with batch.ledgers.opened(at) as ledger:
        for number, job in enumerate(batch.jobs()):
            at += timedelta(seconds=2)
            if (what := outcome(job)) != "pending":
                _append(ledger, batch.output_dir, job, number, at, what, content)
    return batch


def _append(
    ledger: Ledger,
    folder: Path,
    job: Job,
    number: int,
    at: datetime,
    what: str,
    content: Callable[[Job, int], Content],
) -> None:
    about: dict[str, Any] = {"job": job.key, "fingerprint": job.fingerprint}
    request: dict[str, Any] = {**about, "request_id": f"request-{number}"}
    price = Decimal("0.05") * job.outputs
    ledger.append(
        Submitting(
            at=at,
            **about,
            model=job.model,
            input=redact(job.input),
            path=job.path,
            attempt=1,
            reserved_usd=price,
        )
    )
    if what == "unknown":
        ledger.append(Unknown(at=at, **about, why="the connection was closed without an answer"))
        return
    ledger.append(Submitted(at=at, **request))
    ended = at + timedelta(seconds=5 + number % 7)
    if what == "failed":
        ledger.append(
            Failed(
                at=ended,
                **request,
                reason="content refused",
                message="the model <b>refuses</b> this",
                cost_usd=Decimal(0),
            )
        )
    if what != "done":
        return
    files = [content(job, position) for position in range(1, job.outputs + 1)]
    host = "https://cdn.runcomfy.net"
    ledger.append(
        Succeeded(
            at=ended,
            **request,
            outputs=[f"{host}/{number}/{n}{file[1]}" for n, file in enumerate(files, start=1)],
            cost_usd=price,
            created_at=at.isoformat(),
            finished_at=ended.isoformat(),
        )
    )
    saved = [_save(folder, numbered(job.path, n), *one) for n, one in enumerate(files, start=1)]
    ledger.append(Saved(at=ended, **about, files=saved))


def _save(folder: Path, stem: str, data: bytes, extension: str, media_type: str) -> SavedFile:
    path = folder / (stem + extension)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return SavedFile(
        path=stem + extension,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        media_type=media_type,
    )
