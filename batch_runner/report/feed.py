"""The page of a batch that is being looked at, and what has changed since it was written.

Hides when the page is written again. What always holds: a reader who opens the page, or returns to
it, ends up with what the ledgers say; whatever a reader missed is sent again, or the page is loaded
again; nothing is read while something else reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from batch_runner.errors import UsageError
from batch_runner.ledger.verdict import Reviewed, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.records import Job, utc_now
from batch_runner.report.live import Live, stop_runs
from batch_runner.report.moment import Moment
from batch_runner.report.page import Card, Head, card_of, write_page
from batch_runner.report.pictures import Copies, Pictures
from batch_runner.run.redo import ask_again

_NO_TIME = datetime.min.replace(tzinfo=UTC)


class _News(msgspec.Struct):
    """What one look found: how the batch stands, and the cards that have changed."""

    moment: Moment
    cards: dict[int, Card]


class Judgement(msgspec.Struct, frozen=True):
    """What a person says on the page about a file of a job, which is named by its number."""

    job: int
    sha256: str
    word: Word
    reason: str | None = None
    note: str | None = None
    start: Literal["source", "result"] = "source"


class Feed:
    """Follows a batch. `folder` is for the page's own files; `head_of` says what is above it.

    A `revision` rises with everything new; readers name the last one that they know.
    """

    def __init__(
        self,
        live: Live,
        head_of: Callable[[Moment, int, int], Head],
        folder: Path,
        copies: Copies,
    ) -> None:
        batch = live.batch
        self._live = live
        self._head_of = head_of
        self._folder = folder
        self.output_folder = batch.output_dir
        self.pictures = Pictures(batch.output_dir, bucket=batch.bucket, with_remote=True)
        self.copies = copies
        self.news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._moment = live.look()
        live.has_other_jobs = False
        self._owners: list[bool] = []
        self._jobs: list[Job] = []
        self._numbers: dict[str, list[int]] = {}
        self._revision = 1
        self._written = 0
        self._cards: dict[int, tuple[int, Card]] = {}
        self._moment_revision = 1

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
            news = await asyncio.to_thread(self._look)
            if news.cards or self._is_new(news.moment):
                self._revision += 1
                self._moment_revision = self._revision
            if news.moment.generation != self._moment.generation:
                self._written = 0
            self._moment = news.moment
            for number, card in news.cards.items():
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
            fingerprint = None if job is None else self._live.fingerprint_of(job, one.sha256)
            if job is None or fingerprint is None:
                raise UsageError(
                    "this picture is no longer the job's", hint="load the page again to see the new"
                )
            if one.word is Word.REDO:
                ask_again(
                    self._live.batch,
                    [(job, one.sha256)],
                    note=one.note,
                    start=one.start,
                    by=by,
                    reason=one.reason,
                )
                continue
            said.append(
                Reviewed(
                    at=utc_now(),
                    job=job.key,
                    fingerprint=fingerprint,
                    sha256=one.sha256,
                    word=one.word,
                    reason=one.reason,
                    note=one.note,
                    by=by,
                )
            )
        Book(self._live.batch.ledgers.folder).append(said)

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
        if self._moment_revision > told:
            events.append(_event("moment", self._moment, self._revision))
        return self._revision, events

    def _is_new(self, moment: Moment) -> bool:
        """Tell whether a moment is news. The time of day is news only during a run."""
        if moment.is_at_work:
            return True
        old, new = (
            msgspec.structs.replace(one, at=_NO_TIME, failures=()) for one in (self._moment, moment)
        )
        return old != new

    def _write(self) -> None:
        head = lambda: self._head_of(self._moment, self._live.beyond, self._revision)  # noqa: E731
        self._jobs, self._numbers = [], {}
        write_page(self._folder, self._all_cards(), head)

    def _all_cards(self) -> Iterator[Card]:
        advice = self._head_of(self._moment, 0, 0).advice
        for details in self._live.details():
            self._numbers.setdefault(details.job.fingerprint, []).append(len(self._jobs))
            self._jobs.append(details.job)
            yield card_of(details, self.pictures, advice)

    def _look(self) -> _News:
        self._live.changed.clear()
        moment = self._live.look()
        changed = set(self._live.changed)
        owners = [run.is_at_work for run in moment.runs]
        if owners != self._owners:
            # No record says that a run died: what it was submitting is unknown now.
            self._owners = owners
            changed |= set(self._live.state.jobs.open)
        if self._live.has_other_jobs:
            self._live.has_other_jobs = False
            changed |= self._take_other_jobs()
        cards: dict[int, Card] = {}
        advice = self._head_of(moment, 0, 0).advice
        running = self._live.batch.ledgers.running()
        for fingerprint in changed & self._numbers.keys():
            for number in self._numbers[fingerprint]:
                is_first = number == self._numbers[fingerprint][0]
                details = self._live.detail(self._jobs[number], running, with_cost=is_first)
                cards[number] = card_of(details, self.pictures, advice)
        return _News(moment, cards)

    def _take_other_jobs(self) -> set[str]:
        """Put redos in the places of the jobs that they replace; return the new fingerprints."""
        jobs = list(self._live.batch.jobs())
        before = {job.fingerprint for job in self._jobs}
        self._jobs, self._numbers = jobs, {}
        for number, job in enumerate(jobs):
            self._numbers.setdefault(job.fingerprint, []).append(number)
        return self._numbers.keys() - before


def _event(name: str, data: object, revision: int) -> bytes:
    # JSON has no line breaks, so it can't end an event early.
    head = f"id: {revision}\nevent: {name}\ndata: "
    return head.encode() + msgspec.json.encode(data) + b"\n\n"
