"""A bug for each oracle: the product, patched so that it breaks one promise.

What always holds: a patch is undone at the end of its block, and nothing in the product knows of
it. A line in `BUGS` is all it takes to add one.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
from simulation.universe import Act, Script

from batch_runner.commands import status as status_command
from batch_runner.errors import ExitCode
from batch_runner.files import folder_storage
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.ledger import file as ledger_file
from batch_runner.ledger import verdict_book
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Standing, standing_of
from batch_runner.records import Record, Succeeded, encode
from batch_runner.report import status as status_report
from batch_runner.report.status import Status, status
from batch_runner.run import plan
from batch_runner.run.batch import Batch
from batch_runner.run.plan import Action
from batch_runner.run.submit import Submission
from batch_runner.run.summary import Summary
from batch_runner.service import transport
from batch_runner.service.answer import Meaning


class Bug(NamedTuple):
    """What is wrong, the oracle that sees it, and what is put in whose place.

    `acts`: what must happen for the bug to show; None: anything may happen.
    """

    name: str
    oracle: str
    owner: Any
    attribute: str
    stand_in: Any
    acts: tuple[str, ...] | None = None

    def script(self, drawn: Script) -> Script:
        """Return a script in which only these acts happen, in turn."""
        names = itertools.cycle(self.acts or [one.name for one in drawn.acts])
        acts = tuple(Act(name, one.seed) for name, one in zip(names, drawn.acts, strict=False))
        return msgspec.structs.replace(drawn, acts=acts)

    def planted(self) -> Any:
        """Plant it for a block."""
        return patch.object(self.owner, self.attribute, self.stand_in)


async def _not_durable(_: Ledger) -> None:
    pass


def _unknown_again(known: JobState, _: Any) -> tuple[Action, str]:
    return Action.COLLECT if known.request_id else Action.SUBMIT, "it may be lost"


def _refused_if_unknown(submission: Submission, job: Any, verdict: Any) -> Any:
    if verdict.meaning is Meaning.UNKNOWN:
        verdict = msgspec.structs.replace(verdict, meaning=Meaning.PERMANENT)
    return _record_answer(submission, job, verdict)


def _closed_without_sync(whole: Any) -> Any:
    os.close(whole.descriptor)
    return whole


def _unknown_is_pending(known: JobState | None, *, running: bool) -> Standing:
    standing = standing_of(known, running=running)
    return Standing.PENDING if standing is Standing.UNKNOWN else standing


def _status_with_a_trace(batch: Batch) -> Status:
    (batch.ledgers.folder / ".looked-at").touch()
    return status(batch)


def _without_cost(record: Record) -> bytes:
    if isinstance(record, Succeeded):
        record = msgspec.structs.replace(record, cost_usd=None)
    return encode(record)


_record_answer = Submission._record_answer

BUGS = (
    Bug(
        "intents are not synced",
        "nothing-is-paid-twice",
        Ledger,
        "durable",
        _not_durable,
        ("a-run",),
    ),
    Bug("unknown is sent again", "nothing-is-paid-twice", plan, "_decide_open", _unknown_again),
    Bug(
        "no budget is looked at",
        "the-budget-holds",
        Submission,
        "_over_budget",
        lambda *_: None,
    ),
    Bug(
        "a lost answer is a refusal",
        "what-was-accepted-is-saved-or-reported",
        Submission,
        "_record_answer",
        _refused_if_unknown,
    ),
    Bug(
        "pictures are not synced",
        "final-names-are-whole-and-their-own",
        folder_storage,
        "_sync_and_close",
        _closed_without_sync,
    ),
    Bug(
        "records are not synced",
        "what-was-done-stays-done",
        ledger_file,
        "sync_data",
        lambda _: True,
    ),
    Bug(
        "verdicts are not synced",
        "what-a-person-asked-for-is-kept",
        verdict_book,
        "sync_data",
        lambda _: True,
        ("a-run", "redo"),
    ),
    Bug(
        "a file is overwritten",
        "no-file-is-lost",
        FolderStorage,
        "_move_aside",
        lambda *_: None,
        ("a-run", "edit-a-prompt"),
    ),
    Bug(
        "status takes unknown for pending",
        "counts-agree",
        status_report,
        "standing_of",
        _unknown_is_pending,
    ),
    Bug(
        "status leaves a trace",
        "reading-writes-nothing",
        status_command,
        "status",
        _status_with_a_trace,
    ),
    Bug(
        "a run is content with anything",
        "exit-codes-are-as-documented",
        Summary,
        "exit_code",
        ExitCode.DONE,
    ),
    Bug(
        "a cost is not written",
        "replay-equals-live-state",
        ledger_file,
        "encode",
        _without_cost,
    ),
    Bug(
        "a call has no time limit",
        "every-command-ends",
        transport,
        "_CALL_TIMEOUT_S",
        math.inf,
    ),
)
