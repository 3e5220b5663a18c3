"""Benchmarks, by name or all of them: `python tests/benchmarks/run.py throughput`, `… run.py all`.

Each prints a table and writes JSON into out/benchmarks. None is part of the tests.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from measure import progress

FOLDER = Path(__file__).parents[2] / "out" / "benchmarks"

# With the minutes that each takes on the machine the README's figures are from.
NAMES = {
    "startup": "how long --help and status take",
    "throughput": "the whole product against a bare aiohttp loop",
    "byhand": "the whole product against a loop that makes the same promises by hand",
    "slots": "slots, polls and delays in simulated services, in virtual time",
    "downloads": "large files in little memory, many small ones at a steady rate",
    "scale": "a million jobs: plan, resume, status",
    "shards": "one batch in 1, 2 and 4 shards on this machine's cores",
    "checks": "how many planted defects the checks find, false alarms, and their speed",
    "peers": "the same work done by other tools",
}


def main() -> int:
    """Run what was asked for; what cannot be reported is said, and the rest goes on."""
    listed = "\n".join(f"  {name:12}{what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(
        description="Measures batch_runner; needs Linux, nginx, and for peers parallel, curl, jq.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", choices=[*NAMES, "all"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds: a rehearsal")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for results and scratch files")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = list(NAMES) if "all" in arguments.names else arguments.names
    failed = 0
    for name in names:
        began = time.monotonic()
        progress(f"== {name}: {NAMES[name]}")
        try:
            importlib.import_module(name).main(folder, quick=arguments.quick)
        except SystemExit as error:
            failed += 1
            progress(f"{name}: {error}")
        progress(f"== {name} took {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
