"""Ledger and plan against a model of the service: no interleaving of submits, answers, crashes,
power cuts and resumes pays twice without a person's word, or forgets a request that is known."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import Phase
from batch_runner.ledger.reading import ledger_path
from batch_runner.records import (
    LEDGER_VERSION,
    Failed,
    Job,
    LedgerHeader,
    Record,
    Refused,
    Resolved,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    utc_now,
)
from batch_runner.run.plan import Action, decide

JOBS = [
    Job(key=f"job-{n}", fingerprint=f"{n:064x}", model="m", input={"n": n}, path=f"job-{n}")
    for n in range(3)
]
PRICE_USD = Decimal("0.05")

jobs = st.sampled_from(JOBS)


class PromiseMachine(RuleBasedStateMachine):
    """A runner that crashes anywhere, in front of a service that counts what it accepts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.accepted: dict[str, str] = {}
        self.words: Counter[str] = Counter()
        self.known: set[str] = set()
        self.files: set[str] = set()
        self.durable_bytes = 0
        self.ledger = self.open()

    def open(self) -> Ledger:
        header = LedgerHeader(version=LEDGER_VERSION, at=utc_now(), program="test", service="local")
        ledger = Ledger.open(self.folder, header)
        self.durable_bytes = ledger_path(self.folder).stat().st_size
        return ledger

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    def append(self, record: Record) -> None:
        self.ledger.append(record)

    def action(self, job: Job) -> Action:
        def in_place(path: str, saved: SavedFile, *, thorough: bool) -> bool:
            return path in self.files

        return decide(job, self.ledger.state, in_place).action

    def about(self, job: Job) -> dict[str, object]:
        return {"at": utc_now(), "job": job.key, "fingerprint": job.fingerprint}

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    @rule(
        job=jobs,
        outcome=st.sampled_from(
            ["answered", "lost", "refused", "refused for good", "killed before", "killed after"]
        ),
    )
    def submit(self, job: Job, outcome: str) -> None:
        """Submit as the runner does, if the plan says so: intent, sync, POST, outcome."""
        if self.action(job) is not Action.SUBMIT:
            return
        intent = Submitting(
            **self.about(job),  # type: ignore[arg-type]  # the three common fields
            model="m",
            input=job.input,
            path=job.path,
            attempt=1,
            reserved_usd=PRICE_USD,
        )
        self.append(intent)
        self.durable_bytes = ledger_path(self.folder).stat().st_size
        request_id = f"r{len(self.accepted)}"
        if outcome in ("answered", "lost", "killed after"):
            self.accepted[request_id] = job.fingerprint
        if outcome == "answered":
            self.append(Submitted(**self.about(job), request_id=request_id))  # type: ignore[arg-type]
            self.known.add(request_id)
        elif outcome == "lost":
            self.append(Unknown(**self.about(job), why="answer lost"))  # type: ignore[arg-type]
        elif outcome.startswith("refused"):
            again = outcome == "refused"
            self.append(Refused(**self.about(job), reason="", message="", again=again))  # type: ignore[arg-type]
        else:
            self.restart()

    @rule(job=jobs, well=st.booleans())
    def collect(self, job: Job, well: bool) -> None:
        if self.action(job) is not Action.COLLECT:
            return
        request_id = self.ledger.state.jobs[job.fingerprint].request_id or ""
        assert self.accepted[request_id] == job.fingerprint
        self.known.discard(request_id)
        if well:
            made = Succeeded(**self.about(job), request_id=request_id, outputs=["u"])  # type: ignore[arg-type]
            self.append(made)
        else:
            failed = Failed(**self.about(job), request_id=request_id, reason="x", message="")  # type: ignore[arg-type]
            self.append(failed)

    @rule(job=jobs)
    def save(self, job: Job) -> None:
        if self.action(job) is not Action.DOWNLOAD:
            return
        path = f"{job.path}.png"
        self.files.add(path)
        file = SavedFile(path=path, size_bytes=1, sha256="0" * 64, media_type="image/png")
        self.append(Saved(**self.about(job), files=[file]))  # type: ignore[arg-type]

    @rule(job=jobs)
    def give_word(self, job: Job) -> None:
        known = self.ledger.state.job(job.fingerprint)
        if known is not None and known.phase in (Phase.UNKNOWN, Phase.SUBMITTING):
            self.words[job.fingerprint] += 1
            self.append(Resolved(**self.about(job), how="resubmit"))  # type: ignore[arg-type]

    @rule(job=jobs)
    def lose_the_file(self, job: Job) -> None:
        self.files.discard(f"{job.path}.png")

    @rule()
    def kill(self) -> None:
        """A kill loses nothing that was written."""
        self.restart()

    @precondition(lambda self: ledger_path(self.folder).stat().st_size > self.durable_bytes)
    @rule(data=st.data())
    def cut_the_power(self, data: st.DataObject) -> None:
        """A power cut loses any part of what was not yet synced, in the middle of a line too."""
        path = ledger_path(self.folder)
        self.ledger.close()
        kept = data.draw(st.integers(self.durable_bytes, path.stat().st_size))
        os.truncate(path, kept)
        self.ledger = self.open()
        waiting = {one.request_id for one in self.ledger.state.jobs.each()}
        self.known &= {request_id for request_id in waiting if request_id}

    @invariant()
    def nothing_is_paid_twice_without_a_word(self) -> None:
        for fingerprint, count in Counter(self.accepted.values()).items():
            failures_allow_none = 1 + self.words[fingerprint]
            assert count <= failures_allow_none

    @invariant()
    def every_known_request_is_still_known(self) -> None:
        waiting = {
            one.request_id for one in self.ledger.state.jobs.each() if one.phase is Phase.IN_FLIGHT
        }
        assert self.known <= waiting

    @invariant()
    def what_may_have_been_paid_is_counted(self) -> None:
        state = self.ledger.state
        assert state.spent_usd + state.reserved_usd >= PRICE_USD * len(self.accepted)
        assert state.reserved_usd >= 0


PromiseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPromise = PromiseMachine.TestCase
