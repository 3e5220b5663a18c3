"""Addresses that have expired: the service could not fetch their pictures.

What always holds: only jobs that would be submitted count; what is bought needs no address.
"""

from __future__ import annotations

from datetime import datetime

from batch_runner.errors import Problem
from batch_runner.jobs.images import table_of
from batch_runner.manifest.form import Manifest
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.records import Job, redact_url
from batch_runner.text.address import expires_at

_HINT = "export the table again, which gives fresh addresses, and run at once"


def expired(manifest: Manifest, model: Model, job: Job, now: datetime) -> Problem | None:
    """Return the problem of a job that would be submitted, if an address of it has expired."""
    for name in model.image_properties:
        value = job.input.get(name, ())
        for url in [value] if isinstance(value, str) else value:
            end = expires_at(url)
            if end is None or end > now:
                continue
            what = f"{show(redact_url(url), 100)} expired on {end:%Y-%m-%d at %H:%M} UTC"
            table = table_of(manifest)
            if table is not None and job.row is not None:
                return Problem(str(table), None, f"row {job.row}: {what}", _HINT)
            location = ("images", job.image_id or "")
            return manifest.document.problem(location, f"job '{job.key}': {what}", _HINT)
    return None
