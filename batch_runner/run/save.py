"""From results to files: downloaded, or copied from an equal job.

Hides retries and fresh addresses. What always holds: files are in place before the record that
says so.
"""

from __future__ import annotations

import asyncio
import itertools

from batch_runner.files.download import UnusableError
from batch_runner.files.storage import NotSavedError
from batch_runner.records import Failed, Job, Saved, SavedFile, redact
from batch_runner.run.collect import OUTPUTS_LIMIT, Results
from batch_runner.run.control import Control
from batch_runner.run.plan import Planned, numbered, reusable, wanted_paths
from batch_runner.service.answer import Result

UNUSABLE = "unusable output"


class Saving:
    """Saves the files of jobs."""

    def __init__(self, control: Control, results: Results) -> None:
        self._control = control
        self._setting = control.setting
        self._storage = control.setting.batch.storage
        self._results = results
        self._reusing = asyncio.Lock()
        self._twins: list[Job] = []

    async def download(self, job: Job, request_id: str, result: Result) -> None:
        """Download every output, then record that all of them are in place.

        An output that stands in the answer itself, and makes no file, is left out; a job fails if
        it has no other.
        """
        files: list[SavedFile] = []
        unusable: UnusableError | None = None
        for number, _ in enumerate(result.outputs[:OUTPUTS_LIMIT]):
            if unusable is not None and not files and number >= result.main:
                break
            for attempt in itertools.count(1):
                try:
                    url = result.outputs[number]
                    stem = numbered(job.path, len(files) + 1)
                    files.append(await self._setting.downloads.fetch(url, stem))
                    break
                except (NotSavedError, IndexError) as error:
                    if isinstance(error, IndexError):
                        error = NotSavedError("the service names fewer outputs than before")
                    if files and number >= result.main and error.is_lasting:
                        # A preview or the like; what was asked for is there.
                        self._control.notice(f"{job.key}: left out an extra output: {error}")
                        break
                    is_leaving = self._control.leaving.is_set()
                    is_last = attempt >= self._setting.batch.manifest.retry.attempts
                    if is_last and not is_leaving and isinstance(error, UnusableError):
                        unusable = error
                        self._control.notice(f"{job.key}: left out an output: {error}")
                        break
                    if is_last or is_leaving:
                        # Downloads are free: the next run tries again, with fresh URLs.
                        self._control.leave_unsaved(job, error)
                        return
                    wait_s = self._control.pacer.backoff_s(attempt)
                    await self._setting.clock.wait(self._control.leaving, wait_s)
                    result = await self._results.fresh(job, request_id) or result
        about = self._control.about(job)
        if unusable is not None and not files:
            message = str(unusable)
            failed = Failed(**about, request_id=request_id, reason=UNUSABLE, message=message)
            self._control.fail(job, failed)
            return
        self._control.saved(job, Saved(**about, files=files))

    async def reuse(self, planned: Planned) -> None:
        """Give the job the files that were bought for the same fingerprint."""
        job, known = planned.job, planned.state
        # One at a time: if two jobs swap names, each moves aside the file that the other needs.
        async with self._reusing:
            sources = None
            if known is not None:
                # In a thread: this may ask a bucket over the network, or read whole files.
                sources = await asyncio.to_thread(reusable, known, self._storage.is_in_place)
            if known is None or not sources:
                # Its twin is under way in this run: look again when that one has ended.
                self._twins.append(job)
                return
            try:
                # In a thread: a disk that cannot link copies whole videos.
                files = [
                    await asyncio.to_thread(self._storage.reuse, source, path)
                    for source, path in zip(sources, wanted_paths(job, sources), strict=True)
                ]
            except NotSavedError as error:
                self._control.notice(f"{job.key}: {error}; left for the next run")
                self._control.leave_for_next_run(job)
                return
        self._control.record(
            Saved(
                **self._control.about(job),
                files=files,
                reused_from=known.key,
                model=job.model if planned.is_of_another else None,
                input=redact(job.input) if planned.is_of_another else None,
                named=planned.is_of_another and job.is_named,
            )
        )
        self._control.count(job, "saved")

    def take_twins(self) -> list[Job]:
        """Return the jobs whose twin had not ended when their turn came, once."""
        twins, self._twins = self._twins, []
        return twins
