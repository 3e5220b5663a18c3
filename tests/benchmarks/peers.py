"""The same work by other tools, each as its users really use it (see the scripts in peers/).

Those that are libraries get an environment of their own, which stays for the next time; one that
cannot be installed is said, and left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from canned import canned_service
from measure import ROUNDS, Measured, alternate, median, progress, report
from throughput import MANIFEST, Arena, write_manifest

SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(tempfile.gettempdir()) / "batch_runner-peers"
PRODUCT = "batch_runner"


class Peer(NamedTuple):
    """A way to do the work: its script, what it needs, whether it keeps a ledger."""

    script: str
    packages: tuple[str, ...] = ()
    keeps_ledger: bool = False
    jobs: int = 1000
    also: tuple[str, ...] = ()


PEERS = {
    "gather + semaphore": Peer("gather.py", ("aiohttp",)),
    "requests + 64 threads": Peer("threads.py", ("requests",)),
    "parallel + curl + jq": Peer("parallel.sh", (), keeps_ledger=True, jobs=100),
    "async-batch-llm": Peer(
        *("async_batch.py", ("async-batch-llm", "aiohttp")), keeps_ledger=True, also=("gather.py",)
    ),
    "curator": Peer(
        *("curator_llm.py", ("bespokelabs-curator",)), keeps_ledger=True, also=("gather.py",)
    ),
}


def main(folder: Path, *, quick: bool = False) -> None:
    """Install what can be had, and let each do the work in turns."""
    rounds = 3 if quick else ROUNDS
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        with canned_service(scratch / "nginx") as service:
            arenas = {PRODUCT: Arena(scratch, service, Peer("").jobs)}
            contenders: dict[str, Callable[[int], Measured]] = {PRODUCT: arenas[PRODUCT].product}
            for peer_name, peer in PEERS.items():
                words = _command(peer_name, peer)
                if words is None:
                    continue
                table_folder = scratch / Path(peer.script).stem
                write_manifest(table_folder, table_folder / "unused", peer.jobs)
                arena = arenas[peer_name] = Arena(table_folder, service, peer.jobs)
                contenders[peer_name] = partial(_run, arena, peer_name, words)
            found = alternate(contenders, rounds)
            for arena in arenas.values():
                arena.refuse_if_server_was_busy()
        report("peers", [_row(name, found[name], found[PRODUCT]) for name in found], folder)


def _command(name: str, peer: Peer) -> list[str] | None:
    """Return the command that runs a peer; None where it cannot be had here."""
    script = str(SCRIPTS / peer.script)
    if peer.script.endswith(".sh"):
        missing = [tool for tool in ("bash", "parallel", "curl", "jq") if not shutil.which(tool)]
        if missing:
            progress(f"{name}: left out, {', '.join(missing)} is not installed")
        return None if missing else ["bash", script]
    python = ENVIRONMENTS / Path(peer.script).stem / "bin" / "python"
    try:
        if not python.exists():
            progress(f"{name}: installing {' '.join(peer.packages)}")
            folder = str(python.parents[1])
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *peer.packages]
        subprocess.run(install, check=True, stderr=subprocess.DEVNULL, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        progress(f"{name}: left out, it cannot be installed ({type(error).__name__})")
        return None
    return [str(python), script]


def _run(arena: Arena, name: str, words: list[str], number: int) -> Measured:
    output = arena.folder / f"out-{number}"
    table = arena.folder / "products.csv"
    return arena.run(name, number, [*words, arena.service.url, str(output), str(table)], output)


def _row(name: str, rounds: list[Measured], product: list[Measured]) -> dict[str, Any]:
    peer = PEERS.get(name, Peer("", keeps_ledger=True))
    times = [
        (one.wall_s / peer.jobs) / (ours.wall_s / Peer("").jobs)
        for ours, one in zip(product, rounds, strict=True)
    ]
    files = [SCRIPTS / script for script in (peer.script, *peer.also) if script]
    texts = [file.read_text(encoding="utf-8") for file in files] or [MANIFEST]
    lines = [line for text in texts for line in text.splitlines() if line.strip(" \t#")]
    return {
        "tool": name,
        "ledger": "yes" if peer.keeps_ledger else "no",
        "jobs/s": f"{peer.jobs / median([one.wall_s for one in rounds]):.0f}",
        "batch_runner is": f"{median(times):.1f} x",
        "CPU ms/job": f"{median([one.cpu_s for one in rounds]) / peer.jobs * 1000:.2f}",
        "peak MB": f"{median([one.peak_mb for one in rounds]):.0f}",
        "files": len(texts),
        "lines": len(lines),
    }
