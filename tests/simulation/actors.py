"""Who does what to a batch: runs, crashes, a person.

An act is a function that gets the universe and dice of its own; `chance` says how often it is
drawn. A function is all it takes to add one.
"""

from __future__ import annotations

import errno
import functools
import random
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from simulation.disk import Crash, Operation, PowerCut
from simulation.universe import Command, Universe

_Do: TypeAlias = Callable[[Universe, random.Random], object]


class _Known(NamedTuple):
    do: _Do
    chance: int


ACTS: dict[str, _Known] = {}


def act(chance: int) -> Callable[[_Do], _Do]:
    """Add an act, under the name of its function."""

    def add(function: _Do) -> _Do:
        ACTS[function.__name__.replace("_", "-")] = _Known(function, chance)
        return function

    return add


# What disturbs a command


def _calm(universe: Universe, dice: random.Random) -> None:
    pass


def _crash(universe: Universe, dice: random.Random) -> None:
    _at_operation(universe, dice, Crash())


def _power_cut(universe: Universe, dice: random.Random) -> None:
    _at_operation(universe, dice, PowerCut())


def _kill(universe: Universe, dice: random.Random) -> None:
    for process in universe.world.processes[:1]:
        universe.later(_soon(dice), process.kill)


def _power_cut_at_some_time(universe: Universe, dice: random.Random) -> None:
    universe.later(_soon(dice), universe.cut_power)


def _failing_disk(universe: Universe, dice: random.Random) -> None:
    kinds = ("write", "sync", "create", "rename", "mkdir", "sync folder", "truncate")
    error = OSError(dice.choice((errno.ENOSPC, errno.EIO)), "the disk fails")
    kind = dice.choice(kinds)
    _at_operation(universe, dice, error, kind=kind, times=dice.choice((1, 1, 3, 10**6)))


def _short_write(universe: Universe, dice: random.Random) -> None:
    _at_operation(universe, dice, None, kind="write")


def _signal(universe: Universe, dice: random.Random) -> None:
    number = dice.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM))
    at_s = _soon(dice)
    for process in universe.world.processes[:1]:
        for _ in range(dice.choice((1, 2))):
            universe.later(at_s, functools.partial(process.signal, number))
            at_s += dice.choice((0.0, 0.1, 5.0))


def _pause(universe: Universe, dice: random.Random) -> None:
    for process in universe.world.processes[:1]:
        long_s = dice.choice((1.0, 90.0, 400.0, 90_000.0))
        universe.later(_soon(dice), functools.partial(process.pause, long_s))


def _clock_jump(universe: Universe, dice: random.Random) -> None:
    def jump() -> None:
        universe.world.jumped += timedelta(hours=dice.choice((-30, -1, 1, 30)))
        universe.world.note(f"the clock shows {universe.world.clock()}")

    universe.later(_soon(dice), jump)


DISTURBANCES = {
    _calm: 6,
    _crash: 5,
    _power_cut: 5,
    _kill: 2,
    _power_cut_at_some_time: 2,
    _failing_disk: 3,
    _short_write: 1,
    _signal: 4,
    _pause: 2,
    _clock_jump: 1,
}


def disturb(universe: Universe, dice: random.Random) -> None:
    """Draw what happens to the commands that have begun."""
    (drawn,) = dice.choices(list(DISTURBANCES), list(DISTURBANCES.values()))
    drawn(universe, dice)


def _soon(dice: random.Random) -> float:
    return dice.choice((0.01, 1, 10, 60, 400)) * dice.random()


def _at_operation(
    universe: Universe,
    dice: random.Random,
    error: BaseException | None,
    *,
    kind: str | None = None,
    times: int = 1,
) -> None:
    """Raise an error at one of the next operations, or from then on; or write only a part."""
    left, struck = dice.randrange(dice.choice((3, 30, 120))), 0

    def happen(operation: Operation) -> int | None:
        nonlocal left, struck
        if kind not in (None, operation.kind):
            return None
        left -= 1
        if left >= 0 or struck >= times:
            return None
        struck += 1
        universe.world.note(f"  {error!r}")
        if isinstance(error, PowerCut):
            universe.cut_power()
        if error is not None:
            raise error
        return operation.size_bytes // 2

    universe.at_operation = happen


# Runs


def _do(universe: Universe, dice: random.Random, *words: str) -> Command:
    """Do a command, and let something happen meanwhile."""
    command = universe.start(*words)
    disturb(universe, dice)
    universe.wait()
    return command


@act(20)
def a_run(universe: Universe, dice: random.Random) -> None:
    options = ((), (), (), ("--limit", "2"), ("--only", "mug/*"), ("--max-cost", "0.30"))
    universe.start_runs(*dice.choice(options))
    disturb(universe, dice)
    universe.wait()


@act(3)
def two_runs(universe: Universe, dice: random.Random) -> None:
    universe.start_runs()
    disturb(universe, dice)
    _during(universe, dice, "run", "--quiet")
    universe.wait()


@act(2)
def a_takeover_from_a_stopped_run(universe: Universe, dice: random.Random) -> None:
    """A person moves the ledger while a run is stopped, and starts another; the first wakes up."""
    process, ledger = universe.start_runs()[0].process, universe.folder / "ledger.jsonl"

    def take_over() -> None:
        process.pause(dice.choice((20.0, 500.0)))
        if ledger.exists():
            content = ledger.read_bytes()
            ledger.unlink()
            ledger.write_bytes(content)
            (universe.folder / ".ledger.lock").unlink(missing_ok=True)
            universe.disk.settle()
            universe.start("run", "--quiet")

    universe.later(_soon(dice), take_over)
    universe.wait()


@act(2)
def a_drain(universe: Universe, dice: random.Random) -> None:
    universe.start_runs()
    _during(universe, dice, "status", "--stop")
    disturb(universe, dice)
    universe.wait()


@act(2)
def a_look_at_a_run(universe: Universe, dice: random.Random) -> None:
    universe.start_runs()
    for words in (("status", "--json"), ("plan", "--json"), ("export",), ("check",), ("resolve",)):
        _during(universe, dice, *words)
    universe.wait()


def _during(universe: Universe, dice: random.Random, *words: str) -> None:
    """Start another command a little later, if the first is still at work then."""

    universe.later(_soon(dice), lambda: universe.start(*words))


# A person


@act(2)
def time_passes(universe: Universe, dice: random.Random) -> None:
    universe.world.pass_time(dice.choice((60, 3600, 24 * 3600, 8 * 24 * 3600)))


@act(3)
def a_retry(universe: Universe, dice: random.Random) -> None:
    word = dice.choice(("failed", "unknown", "all"))
    if word != "unknown":
        universe.allow("failed", "refused", "cancelled")
    if word != "failed":
        universe.allow("unknown", "submitting", "resolvedabandoned")
    universe.start_runs("--retry", word)
    disturb(universe, dice)
    universe.wait()


@act(3)
def buy_unknown_jobs_again(universe: Universe, dice: random.Random) -> None:
    universe.allow("unknown", "submitting")
    _do(universe, dice, "resolve", "--all", "--resubmit")


@act(2)
def give_unknown_jobs_up(universe: Universe, dice: random.Random) -> None:
    _do(universe, dice, "resolve", "--all", "--abandon")


@act(4)
def attach_a_request(universe: Universe, dice: random.Random) -> None:
    unknown = [
        (job, key)
        for job, (record, key) in universe.standing().items()
        if record in ("unknown", "submitting")
    ]
    if unknown and universe.service.accepted:
        job, key = dice.choice(unknown)
        requests = list(universe.service.accepted.values())
        right = [one for one in requests if one.job == job]
        request = dice.choice(right if right and dice.random() < 0.8 else requests)
        if (
            request.job != job
        ):  # the person is wrong, and the picture of the right one is not missed
            name, _, prompt = key.partition("/")
            images = universe.scenario.images
            equal = [one for one in images if images[one] == images[name]]
            universe.damaged.update(
                f"{one}/{prompt}{end}.png" for one in equal for end in ("", "-2")
            )
        _do(universe, dice, "resolve", key, "--attach", request.request_id)


@act(2)
def paste_the_requests(universe: Universe, dice: random.Random) -> None:
    listed = universe.root / "listed.txt"
    listed.write_text("\n".join(universe.service.accepted))
    _do(universe, dice, "resolve", "--match", str(listed))


@act(2)
def edit_a_prompt(universe: Universe, dice: random.Random) -> None:
    universe.edit = dice.choice(("", " Make it oak.", " Make it pine."))
    universe.write_manifest()


@act(3)
def damage_a_file(universe: Universe, dice: random.Random) -> None:
    saved = sorted(one for one in universe.folder.glob("*/*.png") if not one.name.startswith("."))
    if saved:
        path = dice.choice(saved)
        universe.world.note(f"a person damages {path.relative_to(universe.folder)}")
        # Equal jobs share a file: it has several names.
        names = [one for one in saved if one.samefile(path)]
        universe.damaged.update(str(one.relative_to(universe.folder)) for one in names)
        match dice.randrange(4):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(path.read_bytes()[:-9])
            case 2:
                path.write_bytes(bytes(path.stat().st_size))
            case 3:
                path.rename(path.with_suffix(".bak"))


@act(3)
def mend(universe: Universe, dice: random.Random) -> None:
    _do(universe, dice, "check", "--fix")


@act(2)
def cancel(universe: Universe, dice: random.Random) -> None:
    """A run dies, and what it left in the queue is cancelled."""
    for run in universe.start_runs():
        universe.later(3 * dice.random(), run.process.kill)
    universe.wait()
    _do(universe, dice, "resolve", "--cancel")


@act(2)
def redo(universe: Universe, dice: random.Random) -> None:
    done = sorted(key for record, key in universe.standing().values() if record == "saved")
    if done:
        _do(universe, dice, "redo", dice.choice(done))


@act(1)
def keep_a_copy(universe: Universe, dice: random.Random) -> None:
    path = universe.folder / "ledger.jsonl"
    if universe.shards == 1 and path.exists():
        universe.kept_ledger = path.read_bytes()


@act(1)
def put_an_older_ledger_back(universe: Universe, dice: random.Random) -> None:
    if universe.shards == 1 and universe.kept_ledger is not None:
        universe.allowed.update(one.job for one in universe.service.accepted.values())
        universe.is_put_back = True
        (universe.folder / "ledger.jsonl").write_bytes(universe.kept_ledger)
        universe.disk.settle()
