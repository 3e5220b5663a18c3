"""How long the program takes before it does anything: --help, and the status of a small batch."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import ROUNDS, Measured, alternate, measure, median, report
from scale import ORIGIN, write_ledger, write_table

JOBS = 100
TURNS = 10
"""As many starts are one round: a single one is too short to measure."""


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure starts, in turns."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        manifest = write_table(Path(name) / "small", JOBS)
        write_ledger(manifest, JOBS)
        batch_runner = [sys.executable, "-m", "batch_runner"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "batch-runner --help": [*batch_runner, "--help"],
            f"batch-runner status ({JOBS} jobs)": [
                *[*batch_runner, "status", str(manifest)],
                *["--api-base", ORIGIN],
            ],
            "python -c 'import aiohttp'": [sys.executable, "-c", "import aiohttp"],
        }
        found = alternate(
            {name: _starting(words) for name, words in commands.items()}, 3 if quick else ROUNDS
        )
    least = median([one.wall_s for one in found["python -c pass"]])
    rows = [
        {
            "what": what,
            "ms": f"{median([one.wall_s for one in rounds]) * 1000 / TURNS:.0f}",
            "x python": f"{median([one.wall_s for one in rounds]) / least:.1f}",
            "CPU ms": f"{median([one.cpu_s for one in rounds]) * 1000 / TURNS:.0f}",
        }
        for what, rounds in found.items()
    ]
    report("startup", rows, folder)


def _starting(words: list[str]) -> Callable[[int], Measured]:
    def start(_: int) -> Measured:
        turns = [measure(words) for _ in range(TURNS)]
        if any(turn.exit_code != 0 for turn in turns):
            raise SystemExit(f"{' '.join(words)} failed")
        return Measured(
            sum(turn.wall_s for turn in turns),
            sum(turn.cpu_s for turn in turns),
            max(turn.peak_mb for turn in turns),
            0,
        )

    return start
