"""What must hold in every universe, by the service's own book, the ledgers, the files, the outputs.

An oracle is a function: it gets the universe (and, `after_each` command, that command) and yields
what is wrong. A function is all it takes to add one; `planted` has a bug for each, to show that it
is caught.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simulation.service import PRICE_USD, Request
from simulation.universe import Command, Universe

from batch_runner.errors import ExitCode
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.reading import replay
from batch_runner.ledger.state import State

AfterEach = Callable[["Oracles", Universe, Command], Iterator[str]]
AtEnd = Callable[["Oracles", Universe], Iterator[str]]

AFTER_EACH: dict[str, AfterEach] = {}
AT_END: dict[str, AtEnd] = {}

READING = ("plan", "status", "export", "resolve")
WRITING_OPTIONS = ("--stop", "--all", "--attach", "--match", "--cancel")


class Oracles:
    """The judge of one universe; `only` one of the oracles, or all.

    `is_mixed`: a picture may stand under a name that its request does not tell.
    """

    def __init__(self, only: str | None = None, *, is_mixed: bool = False) -> None:
        self._only = only
        self.is_mixed = is_mixed
        self.done: dict[str, set[tuple[str, str]]] = {}
        """The saved files of each fingerprint, at the ends of runs."""

    def after_command(self, universe: Universe, command: Command) -> Iterator[str]:
        """Yield what is wrong after a command."""
        if command.name == "run" and command.code in (0, 3):
            for fingerprint, files in _saved(universe).items():
                self.done.setdefault(fingerprint, set()).update(files)
        for name, oracle in AFTER_EACH.items():
            if self._only in (None, name):
                yield from (f"{name}: {what}" for what in oracle(self, universe, command))

    def at_end(self, universe: Universe) -> Iterator[str]:
        """Yield what is wrong at the end."""
        for name, oracle in AT_END.items():
            if self._only in (None, name):
                yield from (f"{name}: {what}" for what in oracle(self, universe))


def after_each(oracle: AfterEach) -> AfterEach:
    """Add an oracle that is asked after each command, under the name of its function."""
    AFTER_EACH[oracle.__name__.replace("_", "-")] = oracle
    return oracle


def at_end(oracle: AtEnd) -> AtEnd:
    """Add an oracle that is asked when everything is over."""
    AT_END[oracle.__name__.replace("_", "-")] = oracle
    return oracle


# Money


@after_each
def nothing_is_paid_twice(oracles: Oracles, universe: Universe, command: Command) -> Iterator[str]:
    """A job is bought once, and once more for each word of a person."""
    bought = Counter(request.job for request in universe.service.accepted.values())
    for job, count in bought.items():
        if count > 1 + universe.allowed[job]:
            yield f"{count} times: {job}"


@after_each
def the_budget_holds(oracles: Oracles, universe: Universe, command: Command) -> Iterator[str]:
    """What was bought during a run fits its budget, at the prices that could be known."""
    budget = _option(command, "--max-cost") or universe.scenario.budget_usd
    if budget is None or universe.allowed or universe.damaged or universe.is_put_back:
        return
    before, during = Decimal(0), Decimal(0)
    for request in universe.service.accepted.values():
        if universe.service.cost_usd(request):
            price_usd = PRICE_USD * len(request.files())
            before += price_usd * (request.sent_s < command.process.began_s)
            during += price_usd * (request.sent_s >= command.process.began_s)
    if during and before + during > Decimal(budget):
        yield f"{before + during} USD of {budget} USD"


# Requests and files


@at_end
def what_was_accepted_is_saved_or_reported(oracles: Oracles, universe: Universe) -> Iterator[str]:
    """A request is saved, or its job is unknown, or it came to nothing, or a person decided."""
    if universe.is_put_back:
        return
    standing = universe.standing()
    for job, requests in _by_job(universe).items():
        record, key = standing.get(job, ("not on record", job))
        came_to_nothing = any(_came_to_nothing(universe, one) for one in requests)
        came_to_nothing |= "forgotten" in universe.script.weather
        if record in ("saved", "unknown", "submitting", "resolvedabandoned"):
            continue
        if record in ("failed", "cancelled") and came_to_nothing:
            continue
        if not universe.allowed[job]:
            yield f"{key}: {record}, although {[one.request_id for one in requests]} was accepted"


def _came_to_nothing(universe: Universe, request: Request) -> bool:
    is_gone = universe.world.now_s > request.ends_s + request.kept_s
    return request.fails or request.is_cancelled or is_gone or bool(request.shown)


@after_each
def final_names_are_whole_and_their_own(
    oracles: Oracles, universe: Universe, command: Command
) -> Iterator[str]:
    """A file under its final name is one that the service made for this very job."""
    requests = universe.service.accepted.values()
    made = {place for request in requests for place in universe.places(request)}
    contents = {content for _, content in made}
    is_mixed = oracles.is_mixed or any(
        "--attach" in one.words or "--match" in one.words for one in universe.commands
    )
    for path, content in _pictures(universe.folder):
        is_set_aside = path.startswith("superseded/")
        if path in universe.damaged or (is_set_aside and universe.damaged):
            continue
        stem = path.partition(".")[0]
        if content not in contents:
            yield f"{path} holds {content[-20:]!r}"
        elif not (is_mixed or is_set_aside or (stem, content) in made):
            yield f"{path} is of another job"


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*.png")):
        if not path.name.startswith("."):
            yield str(path.relative_to(folder)), path.read_bytes()


@at_end
def what_was_done_stays_done(oracles: Oracles, universe: Universe) -> Iterator[str]:
    """What a run that ended had saved is on record for ever."""
    saved = _saved(universe)
    if not universe.is_put_back:
        for fingerprint, files in oracles.done.items():
            if not files <= saved.get(fingerprint, set()):
                yield f"no longer on record: {files}"


def _saved(universe: Universe) -> dict[str, set[tuple[str, str]]]:
    """Return the files that are on record, by fingerprint: path and hash."""
    saved: dict[str, set[tuple[str, str]]] = {}
    for record in universe.records():
        if record["record"] == "saved":
            files = {(file["path"], file["sha256"]) for file in record["files"]}
            saved.setdefault(record["fingerprint"], set()).update(files)
    return saved


@at_end
def no_file_is_lost(oracles: Oracles, universe: Universe) -> Iterator[str]:
    """Each content that was saved is still under some name, unless a person took it away."""
    there = {content for _, content in _pictures(universe.folder)}
    damaged = {path.partition(".")[0] for path in universe.damaged}
    standing = universe.standing()
    for request in universe.service.accepted.values():
        if standing.get(request.job, ("",))[0] != "saved" or universe.allowed[request.job]:
            continue
        # Equal jobs share a content: whoever damages it for one takes it from all.
        names: dict[bytes, set[str]] = {}
        for place, content in universe.places(request):
            names.setdefault(content, set()).add(place)
        for content, places in names.items():
            if content not in there and not places & damaged:
                yield ", ".join(sorted(places))


@at_end
def what_a_person_asked_for_is_kept(oracles: Oracles, universe: Universe) -> Iterator[str]:
    """A redo that was confirmed is in the book of verdicts."""
    book = universe.folder / "verdicts.jsonl"
    lines = book.read_bytes().split(b"\n")[:-1] if book.exists() else []
    words = [json.loads(line) for line in lines if b'"word":"redo"' in line and b"\0" not in line]
    kept = Counter(word["job"] for word in words)
    done = (one for one in universe.commands if one.name == "redo" and one.code == 0)
    yield from (f"redo {key}" for key in Counter(one.words[1] for one in done) - kept)


# What commands tell


@at_end
def counts_agree(oracles: Oracles, universe: Universe) -> Iterator[str]:
    """The six counts add up, and `plan`, `status` and `export` know the same jobs."""
    words = (("status", "--json"), ("plan", "--json"), ("export", "--format", "csv"))
    commands = [universe.do(*one) for one in words]
    if any(one.code != 0 for one in commands):
        yield f"exit codes {[one.code for one in commands]}: {commands[0].err}"
        return
    status, plan, table = (one.out for one in commands)
    counts = json.loads(status)
    six = ("done", "failed", "unknown", "in_flight", "pending", "cancelled")
    exported = Counter(
        {row["job"]: row["state"] for row in csv.DictReader(io.StringIO(table))}.values()
    )
    planned = [json.loads(line) for line in plan.splitlines()]
    if sum(counts[name] for name in six) != counts["jobs"]:
        yield f"{counts} do not add up"
    if {name: counts[name] for name in six if counts[name]} != dict(exported):
        yield f"status counts {counts}, and export {dict(exported)}"
    bought = sum(one["action"] == "submit" for one in planned)
    if len(planned) != counts["jobs"] or bought != counts["pending"]:
        yield f"status counts {counts}, and plan would buy {bought} of {len(planned)}"


@after_each
def reading_writes_nothing(oracles: Oracles, universe: Universe, command: Command) -> Iterator[str]:
    """A command that only reads makes no change in the folder."""
    if command.name in READING and not set(command.words) & set(WRITING_OPTIONS):
        changes = [one for one in universe.world.trace if f"  {command.process}: " in one]
        if changes:
            yield f"{command.words}: {changes}"


@after_each
def exit_codes_are_as_documented(
    oracles: Oracles, universe: Universe, command: Command
) -> Iterator[str]:
    """The code says how it ended, and an error has a hint."""
    code = command.code
    if code is None:
        return
    if code not in tuple(ExitCode) or code == ExitCode.BUG or "Traceback" in command.err:
        yield f"{command.words}: exit code {code}: {command.err}"
    elif code not in _NO_ERRORS and "hint: " not in command.err:
        yield f"{command.words}: exit code {code} without a hint: {command.err}"
    elif command.name == "run" and code == ExitCode.DONE:
        open_jobs = {key: how for how, key in universe.standing().values() if how == "unknown"}
        is_of_all = not {"--only", "--limit", "--shard"} & set(command.words)
        if open_jobs and is_of_all and not universe.edit and not universe.is_put_back:
            yield f"{command.words}: exit code 0 with {open_jobs}"


# They say that people got what they asked for: a run that was told to stop has stopped.
_NO_ERRORS = (ExitCode.DONE, ExitCode.SOME_FAILED, ExitCode.STOPPED_EARLY, ExitCode.INTERRUPTED)


def _option(command: Command, name: str) -> str | None:
    words = command.words
    return words[words.index(name) + 1] if name in words else None


def _by_job(universe: Universe) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = {}
    for request in universe.service.accepted.values():
        found.setdefault(request.job, []).append(request)
    return found


# The ledger


@after_each
def replay_equals_live_state(
    oracles: Oracles, universe: Universe, command: Command
) -> Iterator[str]:
    """Reading a ledger gives the state that its writer had when it closed it."""
    yield from _DIFFERENCES
    _DIFFERENCES.clear()


_DIFFERENCES: list[str] = []
_close = Ledger.close


def _close_and_compare(ledger: Ledger) -> None:
    live, is_whole = _digest(ledger.state), ledger._failure is None
    # Somebody may have put another file in its place.
    is_whole &= ledger.path.exists() and os.path.samestat(
        ledger.path.stat(), os.fstat(ledger._descriptor)
    )
    _close(ledger)
    if is_whole and ledger.path.exists():
        state = replay(ledger.path).state
        read = _digest(state)
        # What was bought without a price is counted by a price that was learned later.
        if read != live and not state.money.unpriced:
            _DIFFERENCES.append(f"{live} was written as {read}")


def _digest(state: State) -> tuple[Any, ...]:
    jobs = sorted(
        (job.fingerprint, job.key, job.phase, job.request_id, job.files, job.spent_usd)
        for job in state.jobs.open.values()
    )
    return state.spent_usd, state.reserved_usd, state.jobs.finished, jobs


def watching_ledgers() -> Any:
    """Compare each ledger with its writer's state, from now on."""
    _DIFFERENCES.clear()
    return patch.object(Ledger, "close", _close_and_compare)


def names() -> Iterable[str]:
    """Return the names of all oracles."""
    return (*AFTER_EACH, *AT_END)
