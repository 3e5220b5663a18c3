"""The page of a batch that is being looked at, and what has changed since it was written.

Hides when the page is written again. What always holds: a reader who opens the page, or returns to
it, ends up with what the ledgers say; whatever a reader missed is sent again, or the page is loaded
again; nothing is read while something else reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from batch_runner.errors import UsageError
from batch_runner.ledger.tail import Replaced
from batch_runner.ledger.verdict import Word
from batch_runner.records import Job
from batch_runner.report.details import JobDetails
from batch_runner.report.live import Live, Moment, stop_runs
from batch_runner.report.page import Card, card_of, write_page
from batch_runner.report.pictures import Copies, Pictures
from batch_runner.report.text import About
from batch_runner.run.batch import Batch
from batch_runner.run.redo import record_words, word_on


class Judgement(msgspec.Struct, frozen=True):
    """What a person says on the page about a file of a job, which is named by its number."""

    job: int
    sha256: str
    word: Word
    reason: str | None = None
    note: str | None = None
    start: Literal["source", "result"] = "source"


class Feed:
    """Follows a batch. `open_batch` reads the manifest; `folder` is for the page's own files.

    A `revision` rises with everything new; readers name the last one that they know.
    """

    def __init__(
        self, open_batch: Callable[[], Batch], about: About, folder: Path, copies: Copies
    ) -> None:
        self._open_batch = open_batch
        self._about = about
        self._folder = folder
        self.copies = copies
        self.news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._revision = 1
        self._written = 0
        self._cards: dict[int, tuple[int, Card]] = {}
        self._moment = self._begin()

    def _begin(self) -> Moment:
        """Read everything, as if the page was opened now."""
        self._live = Live(self._open_batch())
        batch = self._live.batch
        self.output_folder = batch.output_dir
        self.pictures = Pictures(batch.output_dir, bucket=batch.bucket, with_remote=True)
        self._jobs: list[Job] = []
        self._numbers: dict[str, list[int]] = {}
        self._written = 0
        moment = self._live.look()
        self._live.has_other_jobs = False
        return moment

    async def renew(self) -> None:
        """Write the page, if it is out of date; raises StorageError, ManifestError."""
        async with self._turn:
            if self._written < self._revision:
                await asyncio.to_thread(self._write)
                self._written = self._revision
                self._cards.clear()

    async def look(self) -> None:
        """Take in what was written since the last look, and tell all readers."""
        async with self._turn:
            moment, cards = await asyncio.to_thread(self._look)
            if cards or moment != self._moment:
                self._revision += 1
            self._moment = moment
            for number, card in cards.items():
                self._cards[number] = self._revision, card
        self.wake()

    async def judge(self, wanted: Sequence[Judgement], by: str) -> None:
        """Record what a person says; it is on the disk when this returns.

        Raises UsageError for a picture that is no longer shown, or a redo that is not allowed.
        """
        async with self._turn:
            await asyncio.to_thread(self._judge, wanted, by)

    def _judge(self, wanted: Sequence[Judgement], by: str) -> None:
        said = []
        for one in wanted:
            job = self._jobs[one.job] if 0 <= one.job < len(self._jobs) else None
            fingerprint = job and self._live.fingerprint_of(job, one.sha256, one.word)
            if job is None or fingerprint is None:
                raise UsageError(
                    "this picture is no longer the job's", hint="load the page again to see the new"
                )
            about = {"fingerprint": fingerprint, "reason": one.reason, "note": one.note}
            said.append((job, word_on(job, one.sha256, one.word, **about, start=one.start, by=by)))
        record_words(self._live.batch, said)

    def stop_runs(self) -> int:
        """Ask the runs at work to drain; returns how many there are."""
        return stop_runs(self._live.batch.ledgers.paths())

    def wake(self) -> None:
        """Let the readers look for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    def page_file(self, name: str) -> Path | None:
        """Return the path of a part of the page itself."""
        path = self._folder / name
        is_inside = path.parent in (self._folder, self._folder / "data") and ".." not in path.parts
        return path if is_inside and path.is_file() else None

    def events_since(self, told: int) -> tuple[int, list[bytes]]:
        """Return the revision, and the events that bring a reader of an earlier one up to it."""
        if told < self._written or self._written == 0 or told > self._revision:
            return self._revision, [_event("reload", {}, self._revision)]
        events = []
        cards = [[number, card] for number, (at, card) in self._cards.items() if at > told]
        if cards:
            events.append(_event("jobs", cards, self._revision))
        if self._revision > told:
            events.append(_event("moment", self._moment, self._revision))
        return self._revision, events

    def _write(self) -> None:
        self._jobs, self._numbers = [], {}
        write_page(
            self._folder,
            self._live,
            self._numbered(self._live.details()),
            moment=self._moment,
            pictures=self.pictures,
            about=self._about,
            revision=self._revision,
        )

    def _numbered(self, jobs: Iterable[JobDetails]) -> Iterator[JobDetails]:
        for details in jobs:
            self._add_job(details.job)
            yield details

    def _add_job(self, job: Job) -> None:
        self._numbers.setdefault(job.fingerprint, []).append(len(self._jobs))
        self._jobs.append(job)

    def _look(self) -> tuple[Moment, dict[int, Card]]:
        """Return how the batch stands, and the cards that have changed, by the jobs' numbers."""
        live = self._live
        live.changed.clear()
        try:
            moment = live.look()
        except Replaced:
            return self._begin(), {}
        changed = set(live.changed)
        if moment.at_work != self._moment.at_work:
            # No record says that a run died: what it was submitting is unknown now.
            changed |= set(live.state.jobs.open)
        if live.has_other_jobs:
            live.has_other_jobs = False
            changed |= self._take_other_jobs()
        cards: dict[int, Card] = {}
        running = live.batch.ledgers.running()
        for fingerprint in changed & self._numbers.keys():
            for number in self._numbers[fingerprint]:
                is_first = number == self._numbers[fingerprint][0]
                details = live.detail(self._jobs[number], running, with_cost=is_first)
                cards[number] = card_of(details, self.pictures, self._about.advice)
        return moment, cards

    def _take_other_jobs(self) -> set[str]:
        """Put redos in the places of the jobs that they replace; return the new fingerprints."""
        before = {job.fingerprint for job in self._jobs}
        self._jobs, self._numbers = [], {}
        for job in self._live.batch.jobs():
            self._add_job(job)
        return self._numbers.keys() - before


def _event(name: str, data: object, revision: int) -> bytes:
    # JSON has no line breaks, so it can't end an event early.
    head = f"id: {revision}\nevent: {name}\ndata: "
    return head.encode() + msgspec.json.encode(data) + b"\n\n"
