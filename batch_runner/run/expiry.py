"""Addresses that have expired: the service could not fetch their pictures.

What always holds: only jobs that would be submitted count; what is bought needs no address.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from batch_runner.errors import Problem
from batch_runner.jobs.images import table_of
from batch_runner.manifest.form import Manifest
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.records import Job, redact_url
from batch_runner.text.address import expires_at

_HINT = "export the table again, which gives fresh addresses, and run at once"


class Expiry:
    """Looks for addresses that have expired by `now`; `problem` is about the first."""

    def __init__(self, manifest: Manifest, models: Mapping[str, Model], now: datetime) -> None:
        self._manifest = manifest
        self._models = models
        self._now = now
        self.problem: Problem | None = None

    def add(self, job: Job) -> None:
        """Look at the addresses of a job that would be submitted."""
        if self.problem is not None:
            return
        for name in self._models[job.model].image_properties:
            value = job.input.get(name, ())
            for url in [value] if isinstance(value, str) else value:
                end = expires_at(url)
                if end is not None and end <= self._now:
                    self.problem = self._problem(job, url, end)
                    return

    def _problem(self, job: Job, url: str, end: datetime) -> Problem:
        what = f"{show(redact_url(url), 100)} expired on {end:%Y-%m-%d at %H:%M} UTC"
        table = table_of(self._manifest)
        if table is None or job.row is None:
            place = self._manifest.document
            return place.problem(("images", job.image_id or ""), f"job '{job.key}': {what}", _HINT)
        return Problem(str(table), None, f"row {job.row}: {what}", _HINT)
