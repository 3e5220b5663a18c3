"""Reads a batch's ledgers as they grow, also while a run in another process is at work.

Hides reading what is new, and counting. What always holds: the six counts equal those of `status`
at that moment; the service is not asked, and nothing is locked or changed.
Not promised: that the rate stays; the time left assumes the rate of the last jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from batch_runner.clock import Clock
from batch_runner.errors import LedgerLockedError
from batch_runner.ledger.drain import ask_to_drain, is_asked_to_drain
from batch_runner.ledger.job import standing_of
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import Located, damaged, replay_all
from batch_runner.ledger.state import State
from batch_runner.ledger.tail import Replaced, Tail
from batch_runner.ledger.verdict import Header, Result, Verdicts, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.records import (
    Cancelled,
    Failed,
    Job,
    JobRecord,
    LedgerHeader,
    Refused,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Unknown,
    redact,
    redact_url,
)
from batch_runner.report.details import (
    JobDetails,
    Trace,
    cost_of,
    files_of,
    follow,
    parts_of,
    reason_of,
)
from batch_runner.report.status import Status, count_jobs
from batch_runner.run.batch import Batch
from batch_runner.shards.ledgers import Running

_RATE_OF_LAST = 200


class Moment(Status, kw_only=True):
    """A status, with what changes from one look to the next; plain values.

    `at_work` names the processes of the runs at work; `is_draining`: all of them were asked to
    drain. `left_s` assumes the rate of the last jobs.
    """

    name: str
    model: str
    budget_usd: Decimal | None
    was_run: bool = False
    at_work: tuple[str, ...] = ()
    is_draining: bool = False
    rate_per_s: float | None = None
    left_s: float | None = None


def stop_runs(paths: Iterable[Path]) -> int:
    """Ask every run at work on these ledgers to drain; returns how many were asked.

    Raises LedgerLockedError if a run has not begun to submit, and so can't be asked yet;
    StorageError; LedgerDamagedError.
    """
    asked, early = 0, None
    for path in paths:
        owner = owner_of(path.parent)
        if owner is None:
            continue
        state = replay_all([path])
        last = state.run_started if state.run_finished is None else None
        if last is not None and _owner(last) == owner:
            ask_to_drain(path.parent, last.run)
            asked += 1
        else:
            early = owner
    if early is not None:
        raise LedgerLockedError(
            f"{early} is at work, and has not begun to submit",
            hint="ask again in a moment: it can be asked to stop once it has begun",
        )
    return asked


def _owner(started: RunStarted) -> str:
    """Return a run's name in the lock of its ledger."""
    return f"pid {started.pid} on {started.host}"


class Live:
    """A batch and its ledgers: each `look` reads what is new and returns how the batch stands.

    `changed` collects the fingerprints that records and verdicts were about, `has_other_jobs` that
    a redo took a job's place, until someone resets them.

    A Live ends with Replaced once the jobs are others: a run with another manifest or table has
    begun, or other ledgers took the place of these. Then read the manifest again.
    """

    def __init__(self, batch: Batch, clock: Clock | None = None) -> None:
        self.batch = batch
        self.state = State()
        self.verdicts = Verdicts()
        self.changed: set[str] = set()
        self.has_other_jobs = False
        self.beyond = 0
        self._clock = clock or Clock()
        self._traces: dict[str, Trace] = {}
        self._replaced: dict[str, str] = {}
        self._said_bytes = 0
        self._tails: dict[Path, Tail] = {}
        self._runs: dict[Path, tuple[RunStarted, RunFinished | None]] = {}
        self._ended_at: deque[datetime] = deque(maxlen=_RATE_OF_LAST)
        self._records = 0
        self._is_begun = False
        self._fingerprints: list[str] | None = None
        self._counted: tuple[object, Status] | None = None

    def look(self) -> Moment:
        """Read what was written since the last look, and return how the batch stands.

        Raises Replaced, LedgerDamagedError, StorageError, or UsageError for another service's
        ledger.
        """
        self.read()
        return self._moment()

    def read(self) -> None:
        """Read what was written since the last time."""
        paths = self.batch.ledgers.paths()
        if not self._tails.keys() <= set(paths) and self._records:
            raise Replaced  # the batch was split into other shards
        for path in paths:
            for line in self._tails.setdefault(path, Tail(path)).read():
                self._take(line)
                self._records += 1
        self._is_begun = True
        self._read_verdicts()

    def _read_verdicts(self) -> None:
        for said, end_bytes in Book(self.batch.ledgers.folder).read(self._said_bytes):
            self._said_bytes = end_bytes
            if isinstance(said, Header):
                continue
            redo = self.verdicts.redos.get(said.fingerprint)
            self.verdicts.add(said)
            self.changed.add(said.fingerprint)
            # A redo is another job in place of the one that it replaces.
            if redo != (new := self.verdicts.redos.get(said.fingerprint)):
                self._fingerprints, self._counted = None, None
                self.has_other_jobs = True
            if new is not None:
                self._replaced[new.fingerprint] = said.fingerprint
                self.changed.add(new.fingerprint)

    def _take(self, line: Located) -> None:
        record, path = line.record, line.path
        match record:
            case LedgerHeader():
                self.batch.ledgers.check(path, record)
            case RunStarted() if self._is_begun and self._has_other_jobs(record):
                raise Replaced
            case RunStarted():
                self._runs[path] = record, None
            case RunFinished() if path in self._runs:
                self._runs[path] = self._runs[path][0], record
        if not isinstance(record, JobRecord):
            return
        try:
            self.state.apply(record, line.offset_bytes)
        except ValueError as error:
            raise damaged(path, line.number, str(error)) from error
        follow(self._traces.setdefault(record.fingerprint, Trace()), record)
        self.changed.add(record.fingerprint)
        match record:
            # Copying a file that is there already took no time.
            case Saved(reused_from=None) | Refused(again=False):
                self._ended_at.append(record.at)
            case Failed() | Unknown() | Cancelled():
                self._ended_at.append(record.at)

    def _has_other_jobs(self, started: RunStarted) -> bool:
        """Tell whether a run has another manifest, or another table, than the one that was read."""
        if started.manifest_sha256 != self.batch.manifest.document.sha256:
            return True
        return self._fingerprints not in (None, [job.fingerprint for job in self.batch.jobs()])

    def details(self) -> Iterator[JobDetails]:
        """Yield every job of the manifest, as of the last read; raises ManifestError.

        Afterwards `beyond` is how many jobs of the ledger left the manifest; 0 with --only.
        """
        running, shown = self.batch.ledgers.running(), set[str]()
        for job in self.batch.jobs():
            yield self.detail(job, running, with_cost=job.fingerprint not in shown)
            if job.fingerprint in self._traces:
                shown.add(job.fingerprint)
        self.beyond = len(self._traces) - len(shown) if self.batch.options.only is None else 0

    def detail(self, job: Job, running: Running, *, with_cost: bool) -> JobDetails:
        """Return everything about a job, as of the last read.

        Its cost is shown at one of the jobs that share a purchase.
        """
        known = self.state.job(job.fingerprint)
        trace = self._traces.get(job.fingerprint) or Trace()
        standing = standing_of(known, running=running.has(job.fingerprint))
        prompt, sources, inputs = parts_of(self.batch, job)
        reason = reason_of(known, standing)
        files, previous = files_of(job, known), self._replaced_by(job)
        judged = files or previous
        checks = [self.verdicts.checks.get(file.sha256, {}).values() for file in judged]
        return JobDetails(
            job=job,
            standing=standing,
            prompt=prompt,
            sources=tuple(redact_url(url) for url in sources),
            fetchable=tuple(sources),
            local={file.url: file.path for file in job.files},
            inputs=redact(inputs),
            cells=redact(dict(job.cells)),
            reason=reason,
            message=known.message if known and reason else None,
            files=files,
            previous=previous,
            reviewed=tuple(self.verdicts.people.get(file.sha256) for file in judged),
            checked=tuple(one for of in checks for one in of if one.result is not Result.PASS),
            urls=trace.urls,
            cost_usd=cost_of(known, trace) if with_cost else None,
            request_id=known.request_id if known else None,
            attempts=trace.attempts,
            submitted_at=trace.submitted_at,
            saved_at=trace.saved_at,
            took_s=trace.took_s,
        )

    def fingerprint_of(self, job: Job, sha256: str, word: Word) -> str | None:
        """Return under which fingerprint a word on a job's file counts; None without such a file.

        A file may belong to what a redo replaces; a second redo replaces the first.
        """
        for fingerprint in (job.fingerprint, self._replaced.get(job.fingerprint)):
            known = None if fingerprint is None else self.state.job(fingerprint)
            if known is not None and sha256 in {file.sha256 for file in known.files}:
                return job.fingerprint if word is Word.REDO else fingerprint
        return None

    def _replaced_by(self, job: Job) -> tuple[SavedFile, ...]:
        """Return the files that a redo replaces, or will."""
        replaces = self._replaced.get(job.fingerprint) if job.redo else None
        known = None if replaces is None else self.state.job(replaces)
        return () if known is None else known.files

    def _status(self) -> Status:
        """Count the jobs, unless nothing was written and the same runs are at work."""
        if self._fingerprints is None:
            self._fingerprints = [job.fingerprint for job in self.batch.jobs()]
        basis = (self._records, [owner_of(path.parent) for path in self._tails])
        if self._counted is None or self._counted[0] != basis:
            running = self.batch.ledgers.running()
            self._counted = basis, count_jobs(self._fingerprints, self.state, running)
        return self._counted[1]

    def _moment(self) -> Moment:
        status = self._status()
        moment = Moment(
            name=self.batch.name,
            model=", ".join(self.batch.models),
            budget_usd=self.batch.limits.cost_usd,
            was_run=bool(self._runs),
            **{name: getattr(status, name) for name in status.__struct_fields__},
        )
        at_work = {
            path: started
            for path, (started, finished) in self._runs.items()
            if finished is None and owner_of(path.parent) == _owner(started)
        }
        moment.at_work = tuple(map(_owner, at_work.values()))
        moment.is_draining = bool(at_work) and all(
            is_asked_to_drain(path.parent, started.run) for path, started in at_work.items()
        )
        if at_work:
            moment.stopped = "running"
            moment.rate_per_s = self._rate_per_s(min(run.at for run in at_work.values()))
        elif self._runs:
            _, last = max(self._runs.values(), key=lambda run: run[0].at)
            moment.stopped = "killed" if last is None else last.stopped
        # A run that drains leaves what is pending to the next one.
        waiting = moment.in_flight + (0 if moment.is_draining else moment.pending)
        if moment.rate_per_s and waiting:
            moment.left_s = waiting / moment.rate_per_s
        return moment

    def _rate_per_s(self, began_at: datetime) -> float | None:
        """Return the rate of the last jobs, measured up to now, so that a halt shows."""
        ended_at = sorted(at for at in self._ended_at if at >= began_at)
        if not ended_at:
            return None
        # Until there are enough jobs, count from the run's start: the first job takes longest.
        since = ended_at[0] if len(ended_at) == _RATE_OF_LAST else began_at
        return len(ended_at) / max(1.0, (self._clock.now() - since).total_seconds())
