"""A chain of four batches under kills: each step buys each of its jobs once."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from command import COMMAND, records_of, run

from batch_runner.errors import ExitCode

KILLS, PRODUCTS = 16, 8
STEPS = ("edit", "upscale", "scene", "film")

pytestmark = pytest.mark.timeout(500)

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {%s: %s}
images:
%s
output: {dir: out/%s}
limits: {submits: 20/s, in_flight: 8, polls: 500/s}
"""


def write_chain(folder: Path) -> list[Path]:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(PRODUCTS))
    paths = []
    for step in STEPS:
        path = folder / f"{step}.yaml"
        path.write_text(MANIFEST % (step, f"make the {step}", images, step))
        paths.append(path)
        images = f"  from: {step}.yaml"
    return paths


def bought_by_step(folder: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
    lines = (folder / "sandbox" / "requests.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        if "input" in line:
            step = line["input"]["prompt"].rpartition(" ")[2]
            found[step][json.dumps(line["input"], sort_keys=True)] += 1
    return found


def test_kills_at_random_moments_of_a_chain_never_pay_twice(tmp_path: Path, sandbox: str) -> None:
    dice = random.Random(18)
    paths = write_chain(tmp_path)
    words = [*map(str, paths), "--api-base", sandbox]
    ledgers = [tmp_path / "out" / step / "ledger.jsonl" for step in STEPS]

    def records() -> int:
        return sum(records_of(ledger, "") for ledger in ledgers)

    kills = 0
    for _ in range(KILLS):
        wanted = records() + dice.randrange(1, 10)
        process = subprocess.Popen(
            [*COMMAND, "run", *words, "--quiet"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while records() < wanted and process.poll() is None:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.wait()
    last = run("run", *words)
    assert last.returncode in (ExitCode.DONE, ExitCode.SOME_FAILED), last.stderr
    assert kills >= KILLS / 2
    missing = 0  # a picture that is unknown in one step has no successor in the next
    for path, (step, bought) in zip(paths, bought_by_step(tmp_path).items(), strict=True):
        assert set(bought.values()) <= {1}, f"{step} was paid for twice"
        counts = json.loads(run("status", str(path), "--api-base", sandbox, "--json").stdout)
        assert counts["jobs"] == PRODUCTS - missing
        assert counts["done"] + counts["unknown"] == counts["jobs"]
        assert counts["done"] <= sum(bought.values()) <= counts["jobs"]
        missing += counts["unknown"]
        assert run("check", str(path), "--api-base", sandbox).returncode == ExitCode.DONE
