"""A power cut at every single operation of a command, and each state that it may leave.

    python tests/simulation/enumeration.py --bound 64

prints a table: how many operations there are, in how many ways what was not synced can be lost or
kept, how many cuts were crossed (with, at each operation, a kill, and a cut after the killed
command was run again), and at how many operations there are more states than the bound. After
each cut everything is brought to its end, and all oracles are asked. A case is a command and what
comes before it; adding one takes a function.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from simulation.disk import Crash, Disk, Operation, PowerCut
from simulation.disk_model import State, States
from simulation.oracles import Oracles, watching_ledgers
from simulation.play import finish, in_place
from simulation.scenarios import SCENARIOS
from simulation.service import Strike
from simulation.universe import Script, Universe
from simulation.world import NeverEndsError

BOUND = 64
KILLED, KILLED_THEN_CUT = -1, -2

NOT_CROSSED = """\
Not crossed here: states beyond the bound (each differs from all lost and from all kept in many
places at once; random universes draw from them); a write that is torn at another byte than its
middle (half is enough: a line has one end); results that go into a bucket
(tests/acceptance/test_buckets.py kills in the middle of them, at a real store); pages that the
kernel forgets after a failed sync (no program can tell)."""


class Case(NamedTuple):
    """A command, and what a universe has behind it by then."""

    name: str
    words: tuple[str, ...]
    before: Callable[[Universe], object] = lambda _: None
    strikes: tuple[Strike, ...] = ()
    is_mixed: bool = False
    scenario: str = "plain"


class Crossed(NamedTuple):
    """One cut: where, which state came of it (of how many), and what was violated."""

    operation: str
    story: str
    states: int
    is_all: bool
    choices: int
    violations: list[str]


def _run(universe: Universe) -> None:
    universe.run()


def _run_and_rename(universe: Universe) -> None:
    universe.run("--only", "mug/*")
    text = universe.manifest.read_text().replace("mug: https", "cup: https")
    universe.manifest.write_text(text)


def _run_and_edit(universe: Universe) -> None:
    universe.run("--only", "mug/*")
    universe.edit = " Make it oak."
    universe.write_manifest()


def _run_and_damage(universe: Universe) -> None:
    universe.run()
    (universe.folder / "mug" / "white.png").unlink()
    (universe.folder / "mug" / "wood.png").write_bytes(b"")
    universe.damaged.update(("mug/white.png", "mug/wood.png"))
    universe.disk.settle()


def _run_and_redo(universe: Universe) -> None:
    universe.run()
    universe.do("redo", "mug/white")


ONLY = ("run", "--quiet", "--only", "mug/*")
CASES = (
    Case("first run", ONLY),
    Case(
        "unknown, and failed",
        ONLY,
        strikes=(Strike("lost-answer", "post 1"), Strike("fails", "request 2")),
    ),
    Case("renamed, reused", ("run", "--quiet", "--only", "cup/*"), _run_and_rename, is_mixed=True),
    Case("edited, set aside", ONLY, _run_and_edit),
    Case("check --fix", ("check", "--fix"), _run_and_damage),
    Case("nothing to do", ("run", "--quiet"), _run),
    Case("first run of a shard", ("run", "--quiet", "--shard", "0/2"), scenario="shards"),
    Case("redo", ("redo", "mug/white"), _run),
    Case("redo bought", ONLY, _run_and_redo),
)


def cross(case: Case, number: int, pick: int, bound: int) -> Crossed | None:
    """Cut the power at the nth operation of a case; None if it has no more.

    `pick` is the number of the state that is left, or one of these two: only the process dies; or
    it dies, the command is run again, and then the power is cut, and nothing but that was synced.
    """
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="enumerated-", dir=place))
    script = Script(scenario=case.scenario, seed=1, acts=(), strikes=case.strikes)
    universe = Universe(script, SCENARIOS[case.scenario], root)
    judge = Oracles(is_mixed=case.is_mixed)
    seen: list[Operation] = []
    legal, story = States([], is_all=True, choices=1), "the process is killed"

    def happen(operation: Operation) -> None:
        if operation.ordinal == first + number:
            seen.append(operation)
            if pick in (KILLED, KILLED_THEN_CUT):
                raise Crash
            universe.cut_power()
            raise PowerCut

    def choose(disk: Disk) -> State:
        nonlocal legal, story
        legal = disk.legal_states(bound)
        chosen = legal.states[max(0, pick)]
        story = chosen.story
        return chosen

    try:
        with in_place(universe), watching_ledgers(), contextlib.suppress(NeverEndsError):
            case.before(universe)
            universe.after_command = judge.after_command
            universe.after_power_cut = choose
            first, universe.at_operation = universe.disk.ordinal, happen
            universe.do(*case.words)
            universe.at_operation = None
            if not seen:
                return None
            if pick == KILLED_THEN_CUT:
                universe.do(*case.words)
                universe.cut_power()
                universe.wait()
            finish(universe)
            universe.violations += judge.at_end(universe)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    what = f"{seen[0].ordinal - first}: {seen[0].kind} {seen[0].path}"
    count = len(legal.states)
    return Crossed(what, story, count, legal.is_all, legal.choices, universe.violations)


def cross_all(case: Case, number: int, bound: int) -> list[Crossed]:
    """Cut the power at one operation, once for each state; empty if there is no such one."""
    found: list[Crossed] = []
    for pick in itertools.count(KILLED_THEN_CUT):
        crossed = cross(case, number, pick, bound)
        if crossed is None:
            break
        found.append(crossed)
        if pick >= 0 and pick + 1 == crossed.states:
            break
    return found


def main() -> int:
    """Cross everything; return the exit code."""
    parser = argparse.ArgumentParser(description="Cuts the power at every operation.")
    parser.add_argument("--bound", type=int, default=BOUND, help="most states at one operation")
    bound = parser.parse_args().bound
    print("| command | operations | choices of what is lost | crossed | not all at | broken |")
    print("|---|---|---|---|---|---|")
    failed: list[str] = []
    with ProcessPoolExecutor() as pool:
        for number, case in enumerate(CASES):
            crossed: list[list[Crossed]] = []
            while not crossed or crossed[-1]:
                begin = len(crossed) + 1
                some = range(begin, begin + 16)
                crossed += pool.map(_cross_all, [number] * 16, some, [bound] * 16)
            print(row(case, crossed), flush=True)
            failed += [f"{case.name}, {what}" for what in broken(crossed)]
    print(f"\n{NOT_CROSSED}")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


def _cross_all(case: int, number: int, bound: int) -> list[Crossed]:
    return cross_all(CASES[case], number, bound)


def row(case: Case, crossed: list[list[Crossed]]) -> str:
    """Return a case's row of the table."""
    operations = [found for found in crossed if found]
    states = sum(len(found) for found in operations)
    choices = sum(found[-1].choices for found in operations)
    partly = sum(not found[-1].is_all for found in operations)
    cells = (len(operations), choices, states, partly, len(list(broken(crossed))))
    return f"| {case.name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |"


def broken(crossed: list[list[Crossed]]) -> Iterator[str]:
    """Yield what was violated, and where."""
    for one in (one for found in crossed for one in found if one.violations):
        yield f"{one.operation}, {one.story}: {one.violations[0]}"


if __name__ == "__main__":
    sys.exit(main())
