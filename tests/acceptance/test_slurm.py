"""Real engines run the shards: nodes and workers die, and nothing is bought twice.

Everything happens in a network namespace that reaches only itself. The sandbox, a process of its
own in there, is the judge: its book has every request that it ever accepted.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cluster
import pytest
from cluster import Namespace, Slurm
from command import COMMAND, PROJECT, accepted, records_of, write

SHARDS = 4

pytestmark = pytest.mark.timeout(300)

why_no_slurm = cluster.missing()
needs_slurm = pytest.mark.skipif(why_no_slurm is not None, reason=str(why_no_slurm))


class Judge:
    """A sandbox inside a namespace: its address, and afterwards what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: dict[str, float] = {}


@contextlib.contextmanager
def judge(inside: Namespace, folder: Path) -> Iterator[Judge]:
    """Serve a sandbox inside a namespace."""
    words = ["sandbox", "--port", "0", "--folder", str(folder / "sandbox"), "--json"]
    words += ["--capacity", "64", "--run-s", "0.1,0.4", "--swatches"]
    # Before all others: a judge that is kept waiting counts late what arrived in time.
    process = inside.start("nice", "-n", "-15", *COMMAND, *words, output=subprocess.PIPE)
    try:
        assert process.stdout is not None
        found = Judge(process.stdout.readline().strip())
        yield found
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    found.asked = json.loads(output)


def ledger(folder: Path, shard: int, shards: int = SHARDS) -> Path:
    return folder / "out" / "shards" / f"{shard}-of-{shards}" / "ledger.jsonl"


def wait_for_submits(ledgers: list[Path], count: int) -> None:
    """Wait until every shard has so many requests on record (an event, not a time)."""
    deadline = time.monotonic() + 60
    while any(records_of(ledger, "submitted") < count for ledger in ledgers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_that_all_were_bought_once(
    inside: Namespace, folder: Path, manifest: Path, api_base: str, jobs: int
) -> None:
    bought = accepted(folder)
    status = inside.run(*COMMAND, "status", manifest, "--api-base", api_base, "--json").stdout
    counts = json.loads(status)
    assert set(bought.values()) == {1}, "a job was paid for twice"
    # A kill may come between a POST and its answer: such a job is unknown, and says so.
    assert counts["done"] + counts["unknown"] == counts["jobs"] == jobs
    assert counts["done"] <= len(bought) <= counts["done"] + counts["unknown"]
    assert counts["done"] > jobs * 0.9
    assert len(list((folder / "out").rglob("p*/*.png"))) == counts["done"]


def check_that_the_rate_held(book: Judge, submits_per_s: int) -> None:
    # Counted as they arrive: on a busy machine calls are late by different times, so that more seem
    # to fall into one second than left in one. The average shows no such thing, and shards that did
    # not share the rate would double it.
    assert book.asked["submits_per_s"] <= submits_per_s
    assert book.asked["most_submits_in_a_second"] <= submits_per_s * 1.5


def submit(slurm: Slurm, folder: Path, manifest: Path, api_base: str) -> None:
    """Do what a user does: copy the script, change it, put the token in place, submit."""
    environment_file = folder / "env"
    environment_file.write_text(f"RUNCOMFY_API_TOKEN=any\nRUNCOMFY_API_BASE={api_base}\n")
    environment_file.chmod(0o600)
    script = (PROJECT / "jobs" / "slurm.sh").read_text(encoding="utf-8")
    changes = {
        "program": Path(sys.executable).with_name("batch-runner"),
        "manifest": manifest.name,
        "environment_file": environment_file,
    }
    for name, value in changes.items():
        script, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", script)
        assert count == 1
    (folder / "slurm.sh").write_text(script, encoding="utf-8")
    slurm.inside.run("sbatch", f"--chdir={folder}", folder / "slurm.sh")


@needs_slurm
def test_slurm_moves_the_shards_of_a_lost_node_and_everything_is_bought_once(
    tmp_path: Path,
) -> None:
    manifest = write(tmp_path, images=60, submits="40/s")
    with cluster.slurm(tmp_path / "slurm") as slurm, judge(slurm.inside, tmp_path) as book:
        submit(slurm, tmp_path, manifest, book.url)
        wait_for_submits([ledger(tmp_path, shard) for shard in range(SHARDS)], 10)
        nodes = slurm.inside.run("squeue", "-h", "-r", "-o", "%K %N").stdout.split()
        where = dict(zip(map(int, nodes[::2]), nodes[1::2], strict=True))
        assert sorted(where.values()) == ["one", "one", "two", "two"]
        # One shard is told to stop, as at the end of its time; the node of two others is lost.
        told = next(shard for shard, node in where.items() if node == "one")
        slurm.inside.run("scancel", "--batch", "--signal=TERM", f"1_{told}")
        slurm.kill_node("two")
        slurm.wait_until("squeue", "-h", "-o", "%T", says="")
        check_that_all_were_bought_once(slurm.inside, tmp_path, manifest, book.url, jobs=360)
    lost = [shard for shard, node in where.items() if node == "two"]
    for shard in range(SHARDS):
        runs = records_of(ledger(tmp_path, shard), "run_started")
        assert runs == (2 if shard in (*lost, told) else 1), (shard, lost, told)
    log = (tmp_path / f"batch-runner-1_{told}.log").read_text()
    assert "stopping: nothing more is submitted" in log
    check_that_the_rate_held(book, 40)
