"""What to do with each job, and why: jobs x what the ledger knows.

Hides the rules of resuming. What always holds: deciding is pure (whether a file is in place is
asked through a function that is passed in); every job gets exactly one action; a fingerprint that
was bought, or may have been, is never planned to be submitted unless a person asked for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from batch_runner.files.bucket import is_bucket_url
from batch_runner.jobs.product import Tally
from batch_runner.ledger.job import JobState, Phase, Standing, Standings, standing_of
from batch_runner.ledger.state import State
from batch_runner.records import (
    Job,
    LocalFile,
    SavedFile,
    Submitting,
    is_address,
    redact,
    redact_url,
    urls_in,
)
from batch_runner.run.prices import Basis
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import NO_LIMITS, Destinations, NameLimits, superseded_path


class Action(StrEnum):
    """What a run does with a job."""

    SUBMIT = "submit"
    COLLECT = "collect"
    DOWNLOAD = "download"
    REUSE = "reuse"
    SKIP = "skip"
    HOLD = "hold"


class Planned(msgspec.Struct, frozen=True):
    """One job, its action and the reason; `state` is what the ledger knew.

    `is_twin` tells that an earlier job of the same manifest has the same fingerprint, `is_moved`
    that the ledger knows the job by another key, or its files by other paths. `readdressed` is the
    address of a picture, before and now, if a job was paid for and has changed in nothing else.
    """

    job: Job
    action: Action
    reason: str
    state: JobState | None = None
    is_twin: bool = False
    is_moved: bool = False
    readdressed: tuple[str, str] | None = None

    @property
    def is_of_another(self) -> bool:
        """Tell whether `state` is that of another job, whose files this one is given."""
        is_other = self.state is not None and self.state.fingerprint != self.job.fingerprint
        return is_other and self.action is Action.REUSE


class FileCheck(Protocol):
    """Tells whether a saved file stands under a path; thoroughly means by its hash."""

    def __call__(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Look at `path`, relative to the output folder."""


EarlierIntent = Callable[[JobState], Submitting | None]
"""Returns what was last sent for a job."""

Before = Callable[[str], JobState | None]
"""Returns the job that a key stood for last, whichever ledger of the batch it is in."""


def _no_earlier_intent(_: JobState) -> None:
    return None


RETRY_CHOICES = ("failed", "unknown", "all")


def plan(
    jobs: Iterable[Job],
    state: State,
    in_place: FileCheck,
    *,
    retry: Collection[str] = (),
    earlier: EarlierIntent = _no_earlier_intent,
    before: Before | None = None,
    same_pictures: bool = False,
) -> Iterator[Planned]:
    """Yield one Planned a job, in the order of the jobs.

    `retry` holds what a person allowed to be submitted again: "failed", "unknown" or "all".
    `earlier` is asked what a changed job sent before, to say what has changed; `before` which job
    its key stood for, by default the one that `state` knows. With `same_pictures` a person said
    that pictures are the same if nothing but their addresses differs.
    """
    before = before or _by(state)
    # Seen fingerprints are kept as hashes: a "perhaps" only turns a job into a reuse of a twin,
    # which looks for the twin's files before it trusts them.
    seen = Distinct()
    for job in jobs:
        is_new = seen.add(job.fingerprint)
        known = state.job(job.fingerprint)
        if is_new:
            planned = _decide(job, known, state, in_place, retry=retry)
            if known is None:
                planned = _decide_new(
                    job, before(job.key), earlier, in_place, same_pictures=same_pictures
                )
            yield planned
        else:
            yield _decide_twin(job, known, state, in_place, retry=retry)


def _decide_twin(
    job: Job,
    known: JobState | None,
    state: State,
    in_place: FileCheck,
    *,
    retry: Collection[str],
) -> Planned:
    """Return what to do with a job that is equal to an earlier one.

    Never a second purchase, nor a second poll or download of the one request.
    """
    if known is not None and known.phase is not Phase.SUBMITTING:
        # One that is being sent may end well in this run: see then.
        planned = _decide(job, known, state, in_place, retry=retry)
        if planned.action in (Action.SKIP, Action.REUSE, Action.HOLD):
            return msgspec.structs.replace(planned, is_twin=True)
    return Planned(job, Action.REUSE, "same as another job", known, is_twin=True)


def decide(
    job: Job,
    state: State,
    in_place: FileCheck,
    *,
    retry: Collection[str] = (),
    earlier: EarlierIntent = _no_earlier_intent,
) -> Planned:
    """Return what to do with one job."""
    (planned,) = plan((job,), state, in_place, retry=retry, earlier=earlier)
    return planned


def _decide(
    job: Job,
    known: JobState | None,
    state: State,
    in_place: FileCheck,
    *,
    retry: Collection[str],
) -> Planned:
    if known is None:
        return Planned(job, Action.SUBMIT, "new")
    is_moved = state.last_fingerprint(job.key) != known.fingerprint
    if known.phase is Phase.DONE:
        return _decide_done(job, known, in_place, is_moved=is_moved)
    action, reason = _decide_open(known, retry)
    return Planned(job, action, reason, known, is_moved=is_moved)


def _decide_open(known: JobState, retry: Collection[str]) -> tuple[Action, str]:
    """Return what to do with a job that is not done, and why."""
    match known.phase:
        case Phase.IN_FLIGHT:
            return Action.COLLECT, "a request is waiting"
        case Phase.REFUSED if known.again:
            return Action.SUBMIT, "refused earlier"
        case Phase.RELEASED:
            return Action.SUBMIT, "resolved"
        case Phase.UNKNOWN | Phase.SUBMITTING:
            if {"unknown", "all"} & set(retry):
                return Action.SUBMIT, "retry of an unknown one"
            return Action.HOLD, "unknown"
        case Phase.CANCELLED if known.was_abandoned:
            # A person gave it up, but it may have been bought: the word for an unknown one counts.
            if {"unknown", "all"} & set(retry):
                return Action.SUBMIT, "retry of an abandoned one"
            return Action.HOLD, "abandoned"
        case Phase.FAILED | Phase.CANCELLED | Phase.REFUSED:
            if {"failed", "all"} & set(retry):
                return Action.SUBMIT, "retry of a failed one"
            return Action.HOLD, known.reason or str(known.phase)
        case _:  # succeeded
            return Action.DOWNLOAD, "file missing"


ANOTHER_ADDRESS = "same picture, new address"
_PAID_FOR = (Phase.SUBMITTING, Phase.UNKNOWN, Phase.IN_FLIGHT, Phase.SUCCEEDED, Phase.DONE)


def _by(state: State) -> Before:
    def before(key: str) -> JobState | None:
        fingerprint = state.last_fingerprint(key)
        return None if fingerprint is None else state.job(fingerprint)

    return before


def _decide_new(
    job: Job,
    before: JobState | None,
    earlier: EarlierIntent,
    in_place: FileCheck,
    *,
    same_pictures: bool,
) -> Planned:
    """Tell a new job from one that has changed, and from one that a person says is the same.

    If what may have been paid for differs in an address alone, that is noted: before and now.
    """
    if before is None:
        return Planned(job, Action.SUBMIT, "new")
    intent = earlier(before)
    if intent is None:
        return Planned(job, Action.SUBMIT, "changed")
    pair = None
    if before.phase in _PAID_FOR:
        pairs = changed_addresses(intent, job)
        if pairs:
            pair = pairs[0]
        elif pairs is not None and not job.files:
            # Nothing differs but what is secret in an address.
            address = redact_url(min(urls_in(job.input), default=""))
            pair = (address, address)
        # Either this run was told so; or it was bought by its address, and since then the manifest
        # says what a picture is. From now on the ledger knows it by that.
        is_same = pair is not None and (same_pictures or (job.is_named and not intent.named))
        if is_same and before.phase is Phase.DONE and reusable(before, in_place) is not None:
            return Planned(job, Action.REUSE, ANOTHER_ADDRESS, before, is_moved=True)
    reason = f"changed ({', '.join(changed_fields(intent, job))})"
    return Planned(job, Action.SUBMIT, reason, readdressed=pair)


def changed_fields(intent: Submitting, job: Job) -> list[str]:
    """Name what differs between what was sent for a key and what would be sent now."""
    now = redact(job.input)
    names = ["model"] if intent.model != job.model else []
    names += [name for name in {**intent.input, **now} if intent.input.get(name) != now.get(name)]
    # The same words and the same addresses: then a file of this machine has another content.
    return names or ["picture"]


def changed_addresses(intent: Submitting, job: Job) -> list[tuple[str, str]] | None:
    """Return the addresses that differ between what was sent and what would be: (before, now).

    None if anything else differs too, or a file of this machine. Signatures are not shown, so an
    empty list means that nothing but them differs.
    """
    pairs: list[tuple[str, str]] = []
    uploads = {file.url for file in job.files}
    now = redact(job.input)
    if intent.model != job.model or not _are_alike(redact(intent.input), now, pairs):
        return None
    return None if any(new in uploads for _, new in pairs) else pairs


def _are_alike(before: Any, now: Any, pairs: list[tuple[str, str]]) -> bool:
    """Tell whether two values differ in addresses at most, which go to `pairs`."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(
            _are_alike(before[name], now[name], pairs) for name in now
        )
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(
            _are_alike(one, other, pairs) for one, other in zip(before, now, strict=True)
        )
    if before != now and is_address(before) and is_address(now):
        pairs.append((before, now))
        return True
    return bool(before == now)


def _decide_done(job: Job, known: JobState, in_place: FileCheck, *, is_moved: bool) -> Planned:
    """Look for the files: at their place, at the place they were saved to, or set aside.

    Size is enough for a file under its own name. Where another job may have taken the name since,
    or the file should stand elsewhere, only its hash tells.
    """
    wanted = wanted_paths(job, known.files)
    is_there = all(
        in_place(path, file, thorough=is_moved or path != file.path)
        for path, file in zip(wanted, known.files, strict=True)
    )
    is_moved = is_moved or wanted != [file.path for file in known.files]
    if is_there:
        action, reason = Action.SKIP, "done"
    elif reusable(known, in_place) is not None:
        action, reason = Action.REUSE, f"same as {known.key}"
    else:
        action, reason = Action.DOWNLOAD, "file missing or damaged"
    return Planned(job, action, reason, known, is_moved=is_moved)


def reusable(known: JobState, in_place: FileCheck) -> list[SavedFile] | None:
    """Return a job's files where they stand whole now, in any copy of them; None if nowhere."""
    for files in (known.files, *known.copies):
        found = _found(files, in_place)
        if found:
            return found
    return None


def _found(files: Iterable[SavedFile], in_place: FileCheck) -> list[SavedFile] | None:
    """Return each file where it stands now, by its own name or set aside; None if one is gone."""
    found = []
    for file in files:
        for path in (file.path, superseded_path(file.path, file.sha256)):
            if in_place(path, file, thorough=True):
                found.append(msgspec.structs.replace(file, path=path))
                break
        else:
            return None
    return found


def wanted_paths(job: Job, files: Iterable[SavedFile]) -> list[str]:
    """Return where a job wants files that were saved for its fingerprint."""
    return [
        f"{numbered(job.path, number)}{_extension(file.path)}"
        for number, file in enumerate(files, start=1)
    ]


def _extension(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return dot + extension if stem else ""


def numbered(stem: str, number: int) -> str:
    """Return the path of a job's nth output, without extension: -2, -3 after the first."""
    return stem if number == 1 else f"{stem}-{number}"


def orphan_job(known: JobState, path: str) -> Job:
    """Return a job for a request whose job is no longer in the manifest: enough to collect it."""
    return Job(key=known.key, fingerprint=known.fingerprint, model=known.model, input={}, path=path)


def sent_job(intent: Submitting) -> Job:
    """Return a job as it was sent."""
    return Job(
        key=intent.job,
        fingerprint=intent.fingerprint,
        model=intent.model,
        input=intent.input,
        path=intent.path,
    )


class ModelShare(msgspec.Struct):
    """One model's part in a plan."""

    jobs: int = 0
    submits: int = 0
    cost_usd: Decimal | None = Decimal(0)
    least_usd: Decimal | None = Decimal(0)


class PriceShare(msgspec.Struct):
    """The submits of one kind: its model and inputs, and what its price is known from."""

    model: str
    inputs: dict[str, Any]
    basis: Basis
    price_usd: Decimal | None = None
    jobs: int = 0


class FileSurvey:
    """The pictures of this machine that submits need, each counted once."""

    EXAMPLES = 3

    def __init__(self) -> None:
        self.uploads = 0
        self.uploads_bytes = 0
        self._seen = Distinct()
        self._odd: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, files: Iterable[LocalFile]) -> None:
        """Count those that no earlier job needs."""
        for file in files:
            if not self._seen.add(file.url):
                continue
            if is_bucket_url(file.url):
                self.uploads += 1
                self.uploads_bytes += file.size_bytes
            for oddity in file.oddities:
                self._odd[oddity] = self._odd.get(oddity, 0) + 1
                examples = self._examples.setdefault(oddity, [])
                if len(examples) < self.EXAMPLES:
                    examples.append(file.path)

    def notes(self) -> Iterator[str]:
        """Say which may come out unlike they look."""
        for oddity, count in self._odd.items():
            shown = ", ".join(self._examples[oddity]) + (", …" if count > self.EXAMPLES else "")
            which = "1 picture is" if count == 1 else f"{count:,} pictures are"
            yield f"{which} {oddity} and sent unchanged: {shown}"


class Survey:
    """The plan in figures: counts by action and reason, examples, and what it would cost.

    `standings` counts how the jobs stand by the ledger; a run keeps it up to date. `known` counts
    the fingerprints of the manifest that the ledger knows; what it knows beyond them has left the
    manifest. `twins` counts, by fingerprint, the jobs that are equal to an earlier one; `moved`
    those that the ledger knows by another key or path, `with_files` those with pictures of this
    machine. `models` holds each model's share; `tally` counts what became of a table's rows.

    `readdressed` counts the submits of what was paid for under another address, `strays` the files
    that stand where submits would write and that no ledger knows; `stray` is the first of them.
    `prices` holds the kinds of submits whose price is not simply the published one; `unaffordable`
    is the first submit that a budget cannot be kept with. `priced_usd` is what the submits of known
    price cost, and `unpriced` counts the others by their kind. `committed_usd` is what was spent
    and reserved before, `left_usd` what is left of the budget, if there is one, and `covered` how
    many of the submits that pays for, in their order.

    What it keeps does not grow with the number of jobs, except for equal jobs and for those whose
    outputs are waiting to be collected or downloaded: what an interrupted run had open. Of those
    that are to be submitted or reused it keeps a few thousand, so that they need not be made again.
    """

    EXAMPLES = 3
    KEPT = 10_000

    def __init__(self, limits: NameLimits = NO_LIMITS) -> None:
        self.jobs = 0
        self.counts: dict[Action, int] = dict.fromkeys(Action, 0)
        self.reasons: dict[tuple[Action, str], int] = {}
        self.examples: dict[tuple[Action, str], list[str]] = {}
        self.cost_usd: Decimal | None = Decimal(0)
        self.least_usd: Decimal | None = Decimal(0)
        self.models: dict[str, ModelShare] = {}
        self.prompts: dict[str, Job] = {}
        self.standings = Standings()
        self.known = 0
        self.twins: dict[str, int] = {}
        self.moved = 0
        self.with_files = 0
        self.waiting: dict[str, Planned] = {}
        self._kept: list[Planned] | None = []
        self.tally = Tally()
        self.files = FileSurvey()
        self.destinations = Destinations(limits)
        self.readdressed = 0
        self.address_pair = ("", "")
        self.strays = 0
        self.stray = ""
        self.prices: dict[str, PriceShare] = {}
        self.unaffordable: Job | None = None
        self.unpriced: dict[str, int] = {}
        self.priced_usd = Decimal(0)
        self.committed_usd = Decimal(0)
        self.left_usd: Decimal | None = None
        self.covered = 0
        self._covers_all = True

    @classmethod
    def of_finished(cls, jobs: int) -> Survey:
        """Return the figures of so many jobs that are all done, where nobody asks for examples."""
        survey = cls()
        survey.jobs = survey.known = survey.counts[Action.SKIP] = jobs
        survey.reasons[Action.SKIP, "done"] = jobs
        survey.standings.add(Standing.DONE, jobs)
        return survey

    def add(
        self, planned: Planned, estimate_usd: Decimal | None, least_usd: Decimal | None = None
    ) -> None:
        """Count one job; `estimate_usd` is what submitting it would cost, None where unknown.

        `least_usd` is what it costs at the least, where no more than that is known.
        """
        self.jobs += 1
        action, reason = planned.action, planned.reason
        known = None if planned.is_of_another else planned.state
        self.known += known is not None and not planned.is_twin
        self.standings.add(standing_of(known, running=False))
        if planned.is_twin:
            fingerprint = planned.job.fingerprint
            self.twins[fingerprint] = self.twins.get(fingerprint, 0) + 1
        self.moved += planned.is_moved
        self.with_files += bool(planned.job.files)
        if action is Action.REUSE and not planned.is_twin and reason != ANOTHER_ADDRESS:
            reason = "bought under another name"
        kind = (action, reason)
        self.counts[action] += 1
        count = self.reasons[kind] = self.reasons.get(kind, 0) + 1
        if count <= self.EXAMPLES:
            self.examples.setdefault(kind, []).append(planned.job.key)
        share = self.models.get(planned.job.model)
        if share is None:
            share = self.models[planned.job.model] = ModelShare()
        share.jobs += 1
        self.prompts.setdefault(planned.job.prompt_id or planned.job.key, planned.job)
        if action in (Action.COLLECT, Action.DOWNLOAD):
            self.waiting.setdefault(planned.job.fingerprint, planned)
        elif action in (Action.SUBMIT, Action.REUSE) and self._kept is not None:
            self._kept.append(planned)
            if len(self._kept) > self.KEPT:
                self._kept = None
        if action is Action.SUBMIT:
            if planned.readdressed is not None:
                self.readdressed += 1
                if self.readdressed == 1:
                    self.address_pair = planned.readdressed
            self.files.add(planned.job.files)
            self.destinations.add(planned.job.key, planned.job.path)
            least_usd = least_usd if estimate_usd is None else estimate_usd
            self.cost_usd = _sum(self.cost_usd, estimate_usd)
            self.priced_usd += estimate_usd or 0
            self.least_usd = _sum(self.least_usd, least_usd)
            share.submits += 1
            share.cost_usd = _sum(share.cost_usd, estimate_usd)
            share.least_usd = _sum(share.least_usd, least_usd)
            if self.left_usd is not None and self._covers_all:
                self._covers_all = self.cost_usd is not None and self.cost_usd <= self.left_usd
                self.covered += self._covers_all

    @property
    def fresh(self) -> list[Planned] | None:
        """Return what is to be submitted or reused, in order.

        None where it must be seen when its turn comes: where that is more than can be kept, where
        jobs are equal (what to do with one depends on what will have become of the other), and
        where pictures of this machine are sent, which may change meanwhile.
        """
        return None if self.twins or self.with_files else self._kept


def _sum(one_usd: Decimal | None, other_usd: Decimal | None) -> Decimal | None:
    """Add two amounts; unknown if one of them is."""
    return None if one_usd is None or other_usd is None else one_usd + other_usd
