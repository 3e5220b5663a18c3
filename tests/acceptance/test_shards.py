"""Shards as processes of their own: killed, resumed, and seen as one batch.

The service's own book, kept by a sandbox in another process, says what was bought.
"""

from __future__ import annotations

import json
import random
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, accepted, records_of, run, wait_for, write

from batch_runner.errors import ExitCode

SHARDS = 4
KILLS = 12

pytestmark = pytest.mark.timeout(300)


def start(manifest: Path, sandbox: str, shard: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--quiet", "--shard", shard],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ledger_of(folder: Path, index: int) -> Path:
    return folder / "out" / "shards" / f"{index}-of-{SHARDS}" / "ledger.jsonl"


def status(manifest: Path, sandbox: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        run("status", str(manifest), "--api-base", sandbox, "--json").stdout
    )
    return told


def test_four_shards_killed_at_random_and_resumed_buy_every_job_once(
    tmp_path: Path, sandbox: str
) -> None:
    dice = random.Random(20260302)
    # Slow enough that no machine finishes the batch before most of the kills.
    manifest = write(tmp_path, images=40, submits="16/s")
    running: dict[int, subprocess.Popen[bytes]] = {}
    killed = 0
    while killed < KILLS:
        for index in range(SHARDS):
            if index not in running:
                running[index] = start(manifest, sandbox, f"{index}/{SHARDS}")
        victim = dice.randrange(SHARDS)
        ledger, process = ledger_of(tmp_path, victim), running.pop(victim)
        wait_for(ledger, "", records_of(ledger, "") + dice.randrange(1, 30), process)
        process.kill()
        killed += process.wait() == -9
        if all(one.poll() is not None for one in running.values()):
            break
    for process in running.values():
        process.wait(timeout=240)
    assert killed > KILLS / 2
    codes = [start(manifest, sandbox, f"{index}/{SHARDS}") for index in range(SHARDS)]
    assert {one.wait(timeout=240) for one in codes} <= {ExitCode.DONE, ExitCode.SOME_FAILED}

    bought, stands = accepted(tmp_path), status(manifest, sandbox)
    assert set(bought.values()) == {1}, "a job was paid for twice"
    assert stands["jobs"] == 240
    assert stands["done"] + stands["unknown"] == 240
    assert stands["done"] <= len(bought) <= 240
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == stands["done"]
    assert run("check", str(manifest), "--api-base", sandbox).returncode == 0
    # Once more, one after another on one machine, as if the others were gone.
    for index in range(SHARDS):
        start(manifest, sandbox, f"{index}/{SHARDS}").wait(timeout=240)
    assert status(manifest, sandbox) == stands
    assert accepted(tmp_path) == bought


def test_a_budget_that_is_lowered_holds_for_what_other_shards_spent_of_the_larger_one(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=4, submits="100/s")
    # The last three ask once more: what the others overspent stays made up for.
    for index, budget in ((0, "0.60"), (1, "0.40"), (0, "0.40"), (1, "0.40"), (0, "0.40")):
        args = ("--shard", f"{index}/2", "--max-cost", budget, "--quiet")
        done = run("run", str(manifest), "--api-base", sandbox, *args)
        assert done.returncode == ExitCode.STOPPED_EARLY, done.stderr
    assert Decimal(status(manifest, sandbox)["cost_usd"]) == Decimal("0.40")


def test_shards_are_seen_and_settled_as_one_batch(tmp_path: Path, sandbox: str) -> None:
    def ledger_lines(index: int) -> list[dict[str, Any]]:
        lines = ledger_of(tmp_path, index).read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    manifest = write(tmp_path, images=6)
    for index in range(SHARDS):
        shard = f"{index}/{SHARDS}"
        done = run("run", str(manifest), "--api-base", sandbox, "--shard", shard, "--limit", "4")
        assert done.returncode in (ExitCode.STOPPED_EARLY, ExitCode.DONE)
        lines = ledger_of(tmp_path, index).read_bytes().splitlines(keepends=True)
        intent = max(at for at, line in enumerate(lines) if b'"record":"submitting"' in line)
        about = json.loads(lines[intent])["fingerprint"].encode()
        # The last job of each: as if the process had died with the answer under way.
        kept = [line for at, line in enumerate(lines) if at <= intent or about not in line]
        ledger_of(tmp_path, index).write_bytes(b"".join(kept))
    words = (str(manifest), "--api-base", sandbox)
    assert status(manifest, sandbox)["unknown"] == SHARDS

    listed = run("resolve", *words, "--json")
    unknown = [json.loads(line)["job"] for line in listed.stdout.splitlines()]
    assert len(unknown) == SHARDS
    plan = run("plan", *words)
    assert f"hold{SHARDS:>13}  unknown" in plan.stdout, plan.stdout
    assert (
        f"next: batch-runner run --api-base {sandbox} {manifest} --shard I/{SHARDS}\n"
        in plan.stderr
    )

    settled = run("resolve", *words, unknown[0], unknown[2], "--abandon")
    assert settled.stdout == "2 settled\n", settled.stderr
    taken = next(one["request_id"] for one in ledger_lines(0) if one["record"] == "submitted")
    refused = run("resolve", *words, unknown[1], "--attach", taken)
    assert refused.returncode == ExitCode.USAGE
    assert "already" in refused.stderr
    assert run("resolve", *words, "--all", "--resubmit").stdout == "2 settled\n"

    pictures = sorted((tmp_path / "out").rglob("*.jpg"))
    for picture in pictures[:: len(pictures) // 5]:
        picture.unlink()
    assert run("check", *words).returncode == ExitCode.SOME_FAILED
    mended = run("check", *words, "--fix")
    assert mended.returncode == 0, mended.stderr
    assert "6 files to restore" in mended.stderr
    assert run("resolve", "--cancel", *words).stdout == "nothing is in flight\n"
    stands = status(manifest, sandbox)
    assert (stands["cancelled"], stands["unknown"]) == (2, 0)
