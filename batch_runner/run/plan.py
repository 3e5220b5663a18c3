"""What to do with each job, and why: jobs x what the ledger knows.

Hides the rules of resuming. What always holds: deciding is pure (a function that is passed in looks
for files); every job gets exactly one action; a job that was bought, or may have been, is submitted
again only if a person asked for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from posixpath import splitext
from typing import Any

import msgspec

from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.state import State
from batch_runner.records import (
    Job,
    SavedFile,
    Submitting,
    is_address,
    redact,
    redact_url,
    texts_in,
    urls_in,
    with_texts,
)
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import superseded_path


class Action(StrEnum):
    """What a run does with a job."""

    __hash__ = str.__hash__  # an enum's own is slow, and tables of a million rows need it

    SUBMIT = "submit"
    COLLECT = "collect"
    DOWNLOAD = "download"
    REUSE = "reuse"
    SKIP = "skip"
    HOLD = "hold"


class Planned(msgspec.Struct, frozen=True):
    """One job, its action and the reason; `state` is what the ledger knew.

    - `is_twin`: an earlier job of the same manifest has the same fingerprint.
    - `is_moved`: the ledger knows the job by another key, or its files by other paths.
    - `readdressed`: the address of a picture, before and now, if that is all that has changed since
      the job was paid for.
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
        """Tell whether `state` is that of another job, whose files this one gets."""
        is_other = self.state is not None and self.state.fingerprint != self.job.fingerprint
        return is_other and self.action is Action.REUSE


FileCheck = Callable[..., bool]
"""Tells whether a saved file is at a path: `(path, saved, thorough=…)`; thorough: by its hash."""

ANOTHER_ADDRESS = "same picture, new address"
SAME_PICTURES = "same-pictures"
"""The word by which a person says that pictures are the same if only their addresses differ."""


def plan(
    jobs: Iterable[Job],
    state: State,
    in_place: FileCheck,
    *,
    retry: Collection[str] = (),
    earlier: Callable[[JobState], Submitting | None] = lambda _: None,
    before: Callable[[str], JobState | None] | None = None,
    same_pictures: bool = False,
) -> Iterator[Planned]:
    """Yield one Planned for each job, in the order of the jobs.

    - `retry`: what a person allowed to submit again: "failed", "unknown" or "all".
    - `earlier`: returns what a changed job sent before, to show what has changed.
    - `before`: returns the job that a key stood for; by default the one that `state` knows.
    - `same_pictures`: a person says that pictures are the same if only their addresses differ.
    """
    # Seen fingerprints are kept as hashes. A false hit only makes a job reuse a twin's files, and
    # those are looked for before they are trusted.
    seen = Distinct()
    for job in jobs:
        is_new = seen.add(job.fingerprint)
        known = state.job(job.fingerprint)
        if not is_new:
            yield _decide_twin(job, known, state, in_place, retry)
        elif known is not None:
            yield _decide_known(job, known, state, in_place, retry)
        elif job.redo:
            yield Planned(job, Action.SUBMIT, f"redo {job.redo}")
        else:
            last = (before or state.last_job)(job.key)
            intent = None if last is None else earlier(last)
            yield _decide_new(job, last, intent, in_place, same_pictures=same_pictures)


def decide(job: Job, state: State, in_place: FileCheck, *, retry: Collection[str] = ()) -> Planned:
    """Return what to do with one job."""
    (planned,) = plan((job,), state, in_place, retry=retry)
    return planned


def _decide_twin(
    job: Job,
    known: JobState | None,
    state: State,
    in_place: FileCheck,
    retry: Collection[str],
) -> Planned:
    """Return what to do with a job that is equal to an earlier one.

    Never buy it again, and never poll or download the same request twice.
    """
    if known is not None and known.phase is not Phase.SUBMITTING:
        # One that is being sent may still end well in this run: decide then.
        planned = _decide_known(job, known, state, in_place, retry)
        if planned.action in (Action.SKIP, Action.REUSE, Action.HOLD):
            return msgspec.structs.replace(planned, is_twin=True)
    return Planned(job, Action.REUSE, "same as another job", known, is_twin=True)


def _decide_known(
    job: Job, known: JobState, state: State, in_place: FileCheck, retry: Collection[str]
) -> Planned:
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
            # It may have been bought, so it needs the same word as an unknown one.
            if {"unknown", "all"} & set(retry):
                return Action.SUBMIT, "retry of an abandoned one"
            return Action.HOLD, "abandoned"
        case Phase.FAILED | Phase.CANCELLED | Phase.REFUSED:
            if {"failed", "all"} & set(retry):
                return Action.SUBMIT, "retry of a failed one"
            return Action.HOLD, known.reason or str(known.phase)
        case _:  # succeeded
            return Action.DOWNLOAD, "file missing"


def _decide_new(
    job: Job,
    before: JobState | None,
    intent: Submitting | None,
    in_place: FileCheck,
    *,
    same_pictures: bool,
) -> Planned:
    """Return what to do with a job whose key stood for another one: it is changed, or the same.

    If it differs from a job that may be paid for in nothing but an address, note both addresses.
    """
    if before is None:
        return Planned(job, Action.SUBMIT, "new")
    if intent is None:
        return Planned(job, Action.SUBMIT, "changed")
    pair = None
    if before.is_paid_for:
        pairs = changed_addresses(intent, job)
        if pairs:
            pair = pairs[0]
        elif pairs is not None and not job.files:
            # Only the secret parts of an address differ.
            address = redact_url(min(urls_in(job.input), default=""))
            pair = (address, address)
        # A person says that it is the same; or it was bought under its address, and the manifest
        # names its pictures now. From now on the ledger knows it by that name.
        is_same = pair is not None and (same_pictures or (job.is_named and not intent.named))
        if is_same and before.phase is not Phase.DONE:
            # Its pictures come first: the next run reuses them.
            return Planned(job, Action.HOLD, "bought under another address, and not saved yet")
        if is_same and reusable(before, in_place) is not None:
            return Planned(job, Action.REUSE, ANOTHER_ADDRESS, before, is_moved=True)
    reason = f"changed ({', '.join(changed_fields(intent, job))})"
    return Planned(job, Action.SUBMIT, reason, readdressed=pair)


def changed_fields(intent: Submitting, job: Job) -> list[str]:
    """Return what differs between what was sent for a key and what would be sent now."""
    now = redact(job.input)
    names = ["model"] if intent.model != job.model else []
    names += [name for name in {**intent.input, **now} if intent.input.get(name) != now.get(name)]
    # All names and addresses are the same, so the content of a file on this machine differs.
    return names or ["picture"]


def changed_addresses(intent: Submitting, job: Job) -> list[tuple[str, str]] | None:
    """Return the addresses that differ between what was sent and what would be: (before, now).

    None if anything else differs, including a file on this machine. Signatures are left out, so an
    empty list means that only they differ.
    """
    sent, now = redact(intent.input), redact(job.input)
    if intent.model != job.model or _without_addresses(sent) != _without_addresses(now):
        return None
    uploads = {file.url for file in job.files}
    texts = ((texts_in(sent[name]), texts_in(now[name])) for name in now)
    pairs = [pair for both in texts for pair in zip(*both, strict=True) if pair[0] != pair[1]]
    return None if any(new in uploads for _, new in pairs) else pairs


def _without_addresses(value: Any) -> Any:
    return with_texts(value, lambda text: "\0" if is_address(text) else text)


def _decide_done(job: Job, known: JobState, in_place: FileCheck, *, is_moved: bool) -> Planned:
    """Look for the files: where they belong, where they were saved, or set aside.

    For a file under its own name, its size is enough. If another job may have taken the name, or
    the file belongs elsewhere now, its hash is compared.
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
    """Return a job's files where they are whole now, from any copy; None if nowhere."""
    for files in (known.files, *known.copies):
        found = _found(files, in_place)
        if found:
            return found
    return None


def _found(files: Iterable[SavedFile], in_place: FileCheck) -> list[SavedFile] | None:
    """Return the files with their present paths, set aside or not; None if one is gone."""
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
    """Return the paths that a job wants for files that were saved for its fingerprint."""
    return [
        f"{numbered(job.path, number)}{splitext(file.path)[1]}"
        for number, file in enumerate(files, start=1)
    ]


def numbered(stem: str, number: int) -> str:
    """Return the path of a job's nth file without extension: with -2, -3, … after the first."""
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
