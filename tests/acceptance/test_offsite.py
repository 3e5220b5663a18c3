"""A machine is lost with everything on it, between any two steps; another one goes on.

The run is a process that is killed with -9 while the store has a write of it in hand: before the
store keeps it, or after, with the answer never given. Then its folder is deleted, and the manifest
is run from another. The service's own book tells what was bought.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from command import COMMAND, accepted, run, wait_for, write
from weed import Store, serving_store

from batch_runner.errors import ExitCode
from batch_runner.ledger.bucket_copy import SIGN_KEY
from batch_runner.manifest.loading import load_manifest
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.execution import Run
from batch_runner.run.summary import Summary

JOBS = 6

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving_store(tmp_path_factory.mktemp("weed")) as served:
        yield served


def machine(folder: Path, name: str) -> Path:
    """Give a machine of its own the manifest; all share the copy of the ledger by its name."""
    folder.mkdir()
    manifest = write(folder, images=1, name=name)
    text = manifest.read_text(encoding="utf-8")
    copy = f"output: {{dir: out, ledger_copy: s3://batch-out/{name}}}"
    text = text.replace("output: {dir: out}", copy).replace("in_flight: 40", "in_flight: 2")
    manifest.write_text(text, encoding="utf-8")
    return manifest


def start(manifest: Path, sandbox: str, store: Store) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "run", str(manifest), "--api-base", sandbox, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **store.settings},
    )


def kill_at_segment(
    number: int, manifest: Path, sandbox: str, store: Store, *, is_kept: bool
) -> bool:
    """Run, and kill -9 while the store has this segment in hand; False where none is so high."""
    store.holds_answers = is_kept
    store.hold = lambda method, path: method == "PUT" and path.endswith(f"/{number:09d}")
    process = start(manifest, sandbox, store)
    while process.poll() is None and not store.held.wait(0.01):
        pass
    was_held = store.held.is_set()
    process.kill()
    process.wait()
    store.release()
    store.holds_answers = False
    return was_held


async def go_on(manifest: Path, sandbox: str, store: Store) -> Summary:
    """Run on a machine that has nothing but the manifest."""
    options = RunOptions(api_base=sandbox, token="any", bucket_settings=store.settings)
    return await Run(Batch(load_manifest(manifest), options)).execute()


@pytest.mark.parametrize("is_kept", [False, True], ids=["before the write", "before its answer"])
async def test_a_machine_lost_between_any_two_steps_leaves_unknowns_and_no_second_purchase(
    tmp_path: Path, sandbox: str, store: Store, is_kept: bool
) -> None:
    lost, unknown = 0, 0
    for number in range(1, 40):
        name = f"lost-{number}-{is_kept}".lower()
        here = machine(tmp_path / name, name)
        if not kill_at_segment(number, here, sandbox, store, is_kept=is_kept):
            break
        lost += 1
        shutil.rmtree(here.parent)
        forget_sign_of_life(store, name)
        there = machine(tmp_path / f"{name}-elsewhere", name)
        last = await go_on(there, sandbox, store)
        assert last.done + last.unknown == JOBS
        assert len(list((there.parent / "out").rglob("*.jpg"))) == last.done
        assert last.exit_code == (ExitCode.SOME_FAILED if last.unknown else ExitCode.DONE)
        unknown += last.unknown
    assert lost > JOBS
    bought = accepted(tmp_path)
    assert set(bought.values()) == {1}, "a job was paid for twice"
    # Nothing that was bought is neither saved nor told.
    assert len(bought) <= (lost + 1) * JOBS
    assert 0 < unknown < lost * 3


def test_a_run_elsewhere_is_refused_as_long_as_this_one_is_alive_and_goes_on_after_it(
    tmp_path: Path, sandbox: str, store: Store
) -> None:
    here, there = machine(tmp_path / "here", "alive"), machine(tmp_path / "there", "alive")
    store.hold = lambda method, path: method == "PUT" and path.endswith("/000000004")
    process = start(here, sandbox, store)
    assert store.held.wait(60)
    words = ["run", str(there), "--api-base", sandbox]
    refused = run(*words, **store.settings)
    assert refused.returncode == ExitCode.STOPPED_EARLY
    assert "another run is at work (pid" in refused.stderr
    assert "hint: wait for it to end" in refused.stderr
    store.release()
    assert process.wait(60) == ExitCode.DONE
    again = run(*words, **store.settings)
    assert again.returncode == ExitCode.DONE, again.stderr
    assert "restored from s3://batch-out/alive" in again.stderr
    assert set(accepted(tmp_path).values()) == {1}
    assert len(accepted(tmp_path)) == JOBS


@pytest.mark.parametrize("moment", ["submitting", "submitted", "succeeded"])
async def test_a_process_that_wakes_up_after_another_machine_took_over_buys_nothing_more(
    tmp_path: Path, sandbox: str, store: Store, moment: str
) -> None:
    name = f"woken-{moment}"
    here, there = machine(tmp_path / "here", name), machine(tmp_path / "there", name)
    process = start(here, sandbox, store)
    wait_for(here.parent / "out" / "ledger.jsonl", moment, 1, process)
    process.send_signal(signal.SIGSTOP)
    forget_sign_of_life(store, name)
    last = await go_on(there, sandbox, store)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == ExitCode.STOPPED_EARLY
    assert last.done + last.unknown == JOBS
    bought = accepted(tmp_path)
    assert set(bought.values()) == {1}
    assert len(bought) <= JOBS


def forget_sign_of_life(store: Store, name: str) -> None:
    """Let it be as after a minute without a sign of life."""
    root = store.root(name)
    obstore.delete(store.buckets._store(root), root.join(SIGN_KEY).key)


def test_pull_shows_a_third_machine_what_the_shards_on_two_others_did(
    tmp_path: Path, sandbox: str, store: Store
) -> None:
    for index in range(2):
        manifest = machine(tmp_path / f"machine-{index}", "pulled")
        words = ["run", str(manifest), "--shard", f"{index}/2", "--api-base", sandbox]
        assert run(*words, **store.settings).returncode == ExitCode.DONE
    desk = machine(tmp_path / "desk", "pulled")
    pull = ("status", "--pull", str(desk), "--api-base", sandbox)
    assert run(*pull, **store.settings).returncode == ExitCode.DONE
    status = json.loads(run("status", str(desk), "--api-base", sandbox, "--json").stdout)
    assert status["done"] == status["jobs"] == JOBS
    # Again, and with nothing new: nothing changes.
    ledgers = sorted((tmp_path / "desk").rglob("ledger.jsonl"))
    before = [path.read_bytes() for path in ledgers]
    assert run(*pull, **store.settings).returncode == ExitCode.DONE
    assert [path.read_bytes() for path in ledgers] == before
    assert len(ledgers) == 2
    other = run("run", str(desk), "--shard", "0/3", "--api-base", sandbox, **store.settings)
    assert other.returncode == ExitCode.USAGE
    assert set(accepted(tmp_path).values()) == {1}
