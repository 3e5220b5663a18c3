"""A disk that fills up between a POST and its answer: a small real file system, filled for real."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, accepted, records_of, run, wait_for, write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give the output folder a file system of one megabyte."""
    folder = tmp_path / "out"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1M", "batch_runner", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small file system")
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take every byte that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size_bytes in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size_bytes)
    return path


def test_every_request_that_was_accepted_is_on_record_although_the_disk_was_full(
    tmp_path: Path, small_disk: Path
) -> None:
    manifest = write(tmp_path, images=4, submits="40/s")
    ledger = small_disk / "ledger.jsonl"
    # Every answer comes two seconds late: in between the disk fills up.
    words = ["sandbox", "--port", "0", "--folder", str(tmp_path / "sandbox")]
    slow = [*words, "--faults", "slow-answer", "--seconds", "0"]
    with serving(slow) as url:
        process = subprocess.Popen(
            [*COMMAND, "run", str(manifest), "--api-base", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(ledger, "submitting", 5, process)
        filler = fill(small_disk)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 74, err
    assert "No space left on device" in err
    assert "hint: nothing is lost: free some space" in err
    assert records_of(ledger, "submitting") >= 5
    bought = sum(accepted(tmp_path).values())
    assert bought >= 5
    assert records_of(ledger, "submitted") == bought
    filler.unlink()
    with serving([*words, "--seconds", "0"]) as url:
        again = run("run", str(manifest), "--api-base", url)
        status = json.loads(run("status", str(manifest), "--api-base", url, "--json").stdout)
    assert again.returncode == 0, again.stderr
    assert (status["done"], status["unknown"]) == (24, 0)
    assert set(accepted(tmp_path).values()) == {1}
    assert not (small_disk / ".ledger.reserve").exists()


def test_a_run_does_not_begin_on_a_disk_that_is_full(tmp_path: Path, small_disk: Path) -> None:
    manifest = write(tmp_path, images=1)
    fill(small_disk)
    with serving(["sandbox", "--port", "0", "--folder", str(tmp_path / "sandbox")]) as url:
        done = run("run", str(manifest), "--api-base", url)
    assert done.returncode == 74
    assert "No space left on device" in done.stderr
    assert not accepted(tmp_path)


@contextlib.contextmanager
def serving(words: list[str]) -> Iterator[str]:
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)
