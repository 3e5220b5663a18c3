"""Plays many universes with fresh seeds, and prints what they were made of.

    python tests/simulation/run.py --universes 10000
    python tests/simulation/run.py --first 4711 --universes 1 --trace

If an oracle fails, it prints the seed, the shortest script that still fails and its trace, and
ends with 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import msgspec
from simulation.oracles import Oracles, watching_ledgers
from simulation.play import play
from simulation.scenarios import SCENARIOS, draw
from simulation.shrink import shrink
from simulation.universe import Trace
from tqdm import tqdm

PATIENCE_S = 120
_SHOWN = (
    *("universes", "commands", "of them killed", "power cuts", "purchases"),
    *("faults of the service", "operations of the disk"),
)
SHOWN_LINES = 400


class Played(msgspec.Struct):
    """What became of one universe."""

    seed: int
    counts: dict[str, int]
    violations: list[str]


def main() -> int:
    """Play the universes; return the exit code."""
    parser = argparse.ArgumentParser(description="Plays simulated universes.")
    parser.add_argument("--universes", type=int, default=1000, metavar="N", help="how many")
    parser.add_argument("--first", type=int, metavar="SEED", help="their first seed")
    parser.add_argument("--trace", action="store_true", help="print each trace")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(10**9) if arguments.first is None else arguments.first
    seeds = range(first, first + arguments.universes)
    if arguments.trace:
        for seed in seeds:
            show(play_one(seed))
        return 0
    began, counts, failed = time.perf_counter(), Counter[str](), list[Played]()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for played in tqdm(pool.map(play_seed, seeds, chunksize=20), total=len(seeds)):
            counts.update(played.counts)
            if played.violations:
                failed.append(played)
                tqdm.write(f"seed {played.seed}: {played.violations[0]}", file=sys.stderr)
    print(table(counts, first, time.perf_counter() - began, len(failed)))
    for played in failed[:1]:
        show(shrink(play_one(played.seed), Oracles))
    return 1 if failed else 0


def play_one(seed: int) -> Trace:
    """Play the universe of a seed."""
    scenarios = list(SCENARIOS.values())
    with watching_ledgers():
        return play(draw(scenarios[seed % len(scenarios)], seed), Oracles())


def play_seed(seed: int) -> Played:
    """Play it in a process of its own, and return its figures."""
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    trace = play_one(seed)
    faulthandler.cancel_dump_traceback_later()
    return Played(seed, figures(trace), trace.violations)


def figures(trace: Trace) -> dict[str, int]:
    """Return what there was in a universe, counted."""
    return {
        "universes": 1,
        "commands": len(trace.commands),
        "of them killed": sum(one.process.is_killed for one in trace.commands),
        "power cuts": sum("the power is back" in line for line in trace.lines),
        "purchases": len(trace.requests),
        "faults of the service": len(trace.script.strikes or ()),
        "operations of the disk": trace.operations,
        **{f"fault {one.fault}": 1 for one in trace.script.strikes or ()},
        **{f"act {one.name}": 1 for one in trace.script.acts},
    }


def table(counts: Counter[str], first: int, took_s: float, failed: int) -> str:
    """Return the table for README."""
    rows = [f"| {name} | {count:,} |" for name, count in counts.items() if name in _SHOWN]
    for kind in ("act", "fault"):
        met = {name: count for name, count in counts.items() if name.startswith(f"{kind} ")}
        rarest = min(met, key=lambda name: met[name], default="none")
        rows.append(f"| kinds of {kind}s | {len(met)}, each in {met.get(rarest, 0):,} or more |")
    last = first + counts["universes"] - 1
    each_s = took_s / max(1, counts["universes"]) * (os.cpu_count() or 1)
    return "\n".join(
        (
            "| simulated | |",
            "|---|---|",
            *rows,
            f"| universes that broke a promise | {failed:,} |",
            f"\nseeds {first} to {last}; {took_s:.0f} s, {each_s:.3f} s a universe on one core",
        )
    )


def show(trace: Trace) -> None:
    """Print everything that it takes to understand a universe."""
    if len(trace.lines) > SHOWN_LINES:
        print(f"({len(trace.lines) - SHOWN_LINES} lines before)")
    print("\n".join(trace.lines[-SHOWN_LINES:]))
    for violation in trace.violations:
        print(f"VIOLATION {violation}")
    print(msgspec.json.encode(trace.script).decode())


if __name__ == "__main__":
    sys.exit(main())
