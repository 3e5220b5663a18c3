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
from bisect import bisect_left
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


@contextlib.contextmanager
def judge(inside: Namespace, folder: Path) -> Iterator[str]:
    """Serve a sandbox inside a namespace; gives its address."""
    words = ["sandbox", "--port", "0", "--folder", str(folder / "sandbox")]
    words += ["--capacity", "64", "--seconds", "0.25"]
    # Before all others: a judge that is kept waiting counts late what arrived in time.
    process = inside.start("nice", "-n", "-15", *COMMAND, *words, output=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


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
    assert len(list((folder / "out").rglob("p*/*.jpg"))) == counts["done"]


def check_that_the_rate_held(folder: Path, submits_per_s: int) -> None:
    lines = (folder / "sandbox" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    times = sorted(one["at_s"] for one in map(json.loads, lines) if one["record"] == "accepted")
    most = max(bisect_left(times, at + 1) - index for index, at in enumerate(times))
    # Counted as they arrive: on a busy machine calls are late by different times, so that more seem
    # to fall into one second than left in one. The average shows no such thing, and shards that did
    # not share the rate would double it.
    assert (len(times) - 1) / (times[-1] - times[0]) <= submits_per_s
    assert most <= submits_per_s * 1.5


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
    with cluster.slurm(tmp_path / "slurm") as slurm, judge(slurm.inside, tmp_path) as url:
        submit(slurm, tmp_path, manifest, url)
        wait_for_submits([ledger(tmp_path, shard) for shard in range(SHARDS)], 10)
        nodes = slurm.inside.run("squeue", "-h", "-r", "-o", "%K %N").stdout.split()
        where = dict(zip(map(int, nodes[::2]), nodes[1::2], strict=True))
        assert sorted(where.values()) == ["one", "one", "two", "two"]
        # One shard is told to stop, as at the end of its time; the node of two others is lost.
        told = next(shard for shard, node in where.items() if node == "one")
        slurm.inside.run("scancel", "--batch", "--signal=TERM", f"1_{told}")
        slurm.kill_node("two")
        slurm.wait_until("squeue", "-h", "-o", "%T", says="")
        check_that_all_were_bought_once(slurm.inside, tmp_path, manifest, url, jobs=360)
    lost = [shard for shard, node in where.items() if node == "two"]
    for shard in range(SHARDS):
        runs = records_of(ledger(tmp_path, shard), "run_started")
        assert runs == (2 if shard in (*lost, told) else 1), (shard, lost, told)
    log = (tmp_path / f"batch-runner-1_{told}.log").read_text()
    assert "stopping: nothing more is submitted" in log
    check_that_the_rate_held(tmp_path, 40)
