"""Processes measured as wholes: seconds, CPU, memory; alternating rounds, medians, tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROUNDS = 7
CORE = 0
"""The core that what is measured runs on."""


class Measured(NamedTuple):
    """One process from start to end, its children included."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int
    user_s: float = 0.0


def measure(
    words: Sequence[str], *, core: int | None = CORE, quiet: bool = True, **environment: str
) -> Measured:
    """Run a command to its end, on one core where one is given.

    As it is where it was installed: with the compiled modules that Python keeps. Where a shell
    forbids to write them, each start would compile the whole program, which takes 70 ms.
    """
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    began = time.perf_counter()
    with subprocess.Popen(
        [*pinned, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment},
    ) as process:
        with _watched_memory(process.pid) as peaks_mb:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = used.ru_utime + used.ru_stime
    return Measured(wall_s, cpu_s, peaks_mb[-1], process.returncode, used.ru_utime)


@contextlib.contextmanager
def _watched_memory(pid: int) -> Iterator[list[float]]:
    """Note the peak of a process as the kernel keeps it, until it ends.

    What `wait4` says will not do: there a process begins with the memory of the one that started
    it.
    """
    peaks_mb, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                peaks_mb.append(int(status.partition("VmHWM:")[2].split()[0]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks_mb
    finally:
        ended.set()
        watcher.join()


def alternate(
    contenders: Mapping[str, Callable[[int], Measured]], rounds: int = ROUNDS
) -> dict[str, list[Measured]]:
    """Let each contender run once a round, in turns: a machine that drifts drifts for all."""
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            found[name].append(run(number))
            progress(f"round {number + 1} of {rounds}: {name} {found[name][-1].wall_s:.2f} s")
    return found


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def progress(message: str) -> None:
    """Say how far it is, on stderr."""
    sys.stderr.write(f"{message}\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table in Markdown."""
    names = list(rows[0])
    cells = [[str(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in [names, *cells]) for at in range(len(names))]
    lines = [names, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def report(name: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Print the table, and write it as JSON with what it was measured on."""
    sys.stdout.write(f"\n{name}\n\n{table(rows)}\n")
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "rows": list(rows),
    }
    (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
