"""Addresses that a purchase could not use, or not recognise later: expired, or new in each export.

Pure: jobs in, problems and notes out. What always holds: only jobs that would be submitted count;
what is bought needs no address any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from batch_runner.errors import PROBLEM_LIMIT, Problem
from batch_runner.jobs.images import table_of
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.validation import show
from batch_runner.models.model import Model
from batch_runner.records import Job, redact_url
from batch_runner.text.address import changes_with_every_export, expires_at

_HINT = "export the table again, which gives fresh addresses, and run at once"


class Expiry:
    """Counts the addresses that have expired by `now`, and those that change with every export."""

    def __init__(self, manifest: Manifest, models: Mapping[str, Model], now: datetime) -> None:
        self._manifest = manifest
        self._models = models
        self._now = now
        self._expired = 0
        self._changing = 0
        self._found: dict[tuple[int | None, str], Problem] = {}

    def add(self, job: Job) -> None:
        """Look at the addresses of a job that would be submitted."""
        for name in self._models[job.model].image_properties:
            value = job.input.get(name, ())
            for url in [value] if isinstance(value, str) else value:
                end = expires_at(url)
                self._changing += changes_with_every_export(url)
                if end is not None and end <= self._now:
                    self._expired += 1
                    if len(self._found) < PROBLEM_LIMIT:
                        self._found.setdefault((job.row, url), self._problem(job, url, end))

    def _problem(self, job: Job, url: str, end: datetime) -> Problem:
        what = f"{show(redact_url(url), 100)} expired on {end:%Y-%m-%d at %H:%M} UTC"
        table = table_of(self._manifest)
        if table is None or job.row is None:
            place = self._manifest.document
            return place.problem(("images", job.image_id or ""), f"job '{job.key}': {what}", _HINT)
        return Problem(str(table), None, f"row {job.row}: {what}", _HINT)

    @property
    def problems(self) -> list[Problem]:
        """Return the addresses that have expired, each once, up to the limit."""
        return list(self._found.values())

    def notes(self) -> Iterator[str]:
        """Yield warnings; they stop neither a rehearsal nor this run."""
        first = next(iter(self._found.values()), None)
        if first is not None:
            are = "1 address has" if self._expired == 1 else f"{self._expired:,} addresses have"
            yield f"{are} expired, and the service could not fetch them: {first}"
        images = self._manifest.images
        if self._changing and not (isinstance(images, TableImages) and images.identity):
            change = (
                "1 address changes"
                if self._changing == 1
                else f"{self._changing:,} addresses change"
            )
            yield (
                f"{change} completely with every export: after the next one, finished pictures"
                " would not be recognised\n"
                'hint: say what a picture is, as in images: {identity: "{{ sku }}"}'
            )
