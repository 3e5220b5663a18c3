"""The installed command as a user runs it: processes, signals, kills, README, samples."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND, PROJECT, accepted, run, wait_for, write
from PIL import Image


def test_240_jobs_are_accepted_once_each_saved_whole_from_its_own_input_and_never_again(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=40)
    first = run("run", str(manifest), "--api-base", sandbox)
    assert first.returncode == 0, first.stderr
    assert "240 of 240 jobs done" in first.stdout
    bought = accepted(tmp_path)
    assert len(bought) == 240
    assert set(bought.values()) == {1}
    pictures = list((tmp_path / "out").rglob("*.jpg"))
    assert len(pictures) == 240
    for path in pictures:
        with Image.open(path) as image:
            image.load()
    # Forty stand-in products in three edits and two seeds: no two pictures are the same.
    assert len({path.read_bytes() for path in pictures}) == 240
    second = run("run", str(manifest), "--api-base", sandbox)
    assert second.returncode == 0
    assert accepted(tmp_path) == bought


def test_a_run_that_is_killed_again_and_again_pays_once_and_loses_nothing(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=20)
    ledger = tmp_path / "out" / "ledger.jsonl"
    for saved in (5, 30, 60):
        process = subprocess.Popen(
            [*COMMAND, "run", str(manifest), "--api-base", sandbox],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(ledger, "saved", saved, process)
        process.kill()
        process.wait()
    last = run("run", str(manifest), "--api-base", sandbox)
    status = json.loads(run("status", str(manifest), "--api-base", sandbox, "--json").stdout)
    assert status["done"] + status["unknown"] == 120
    assert last.returncode == (3 if status["unknown"] else 0)
    assert set(accepted(tmp_path).values()) == {1}
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == status["done"]
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "interrupted by Ctrl-C"), (signal.SIGTERM, 75, "ended by SIGTERM")],
)
def test_a_signal_stops_submits_and_collects_what_is_paid_for(
    tmp_path: Path, sandbox: str, number: signal.Signals, code: int, words: str
) -> None:
    manifest = write(tmp_path, images=20)
    process = subprocess.Popen(
        [*COMMAND, "run", str(manifest), "--api-base", sandbox],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "out" / "ledger.jsonl", "submitted", 10, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    assert words in out
    assert "Traceback" not in err
    status = json.loads(run("status", str(manifest), "--api-base", sandbox, "--json").stdout)
    assert status["in_flight"] == status["unknown"] == 0
    assert status["done"] == sum(accepted(tmp_path).values())
    assert status["pending"] > 0


def test_ctrl_c_twice_leaves_at_once_and_the_next_run_collects(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=20)
    process = subprocess.Popen(
        [*COMMAND, "run", str(manifest), "--api-base", sandbox],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "out" / "ledger.jsonl", "submitted", 10, process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "stopping: nothing more is submitted" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    last = run("run", str(manifest), "--api-base", sandbox)
    assert last.returncode == 0, last.stdout
    assert set(accepted(tmp_path).values()) == {1}


def test_the_quickstart_makes_sixteen_pictures_that_differ_from_their_sources(
    tmp_path: Path,
) -> None:
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    done = run("run", str(tmp_path / "jobs" / "quickstart.yaml"), "--sandbox")
    assert done.returncode == 0, done.stderr
    assert "16 of 16 jobs done" in done.stdout
    pictures = list((tmp_path / "out" / "quickstart-sandbox").rglob("*.png"))
    assert len(pictures) == 16
    for path in pictures:
        if path.stem == "white":
            with Image.open(path) as image:
                assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("path", sorted((PROJECT / "jobs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_manifest_that_ships_can_be_planned(path: Path, tmp_path: Path) -> None:
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    if path.stem == "chain":  # its table is another batch
        assert run("run", str(tmp_path / "jobs" / "deliver.yaml"), "--sandbox").returncode == 0
    planned = run("plan", str(tmp_path / "jobs" / path.name), "--sandbox")
    assert planned.returncode == 0, planned.stderr
    assert "submit" in planned.stdout


def test_the_readmes_first_two_blocks_are_the_whole_set_up_one_line_each() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    first, second = blocks[0], blocks[1]
    assert first.count("\n") == second.count("\n") == 1
    assert "jobs/quickstart.yaml --sandbox" in first
    assert "pytest" in second
    for name in ("ruff format --check", "ruff check", "mypy"):
        assert name in second


@pytest.mark.parametrize("page", ["README.md", "jobs/README.md"])
def test_every_command_and_option_that_a_page_shows_exists(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    helps = {"": run("--help").stdout}
    for command in re.findall(r"^  ([a-z]+) ", helps[""], re.MULTILINE):
        helps[command] = run(command, "--help").stdout
    for line in re.findall(r"batch-runner ([a-z]+[^`\n]*)", text):
        command, *words = line.split()
        assert command in helps, line
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in helps[command], line


def test_the_library_example_runs_as_printed(tmp_path: Path) -> None:
    text = (PROJECT / "batch_runner" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    assert last == "21 of 21 jobs done for 1.05 USD"
    rows = told[21:]  # after the files as they were saved
    assert len(rows) == 21
    assert rows[0].startswith("HL-1001,enamel mug,studio,HL-1001/studio-1x1.j")


def test_a_reader_of_the_records_who_leaves_ends_the_run_and_breaks_no_job(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=10)
    command = shlex.join([*COMMAND, "run", str(manifest), "--api-base", sandbox, "--json"])
    piped = subprocess.run(
        ["bash", "-c", f"{command} | head -n 3; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert piped.returncode == 75, piped.stderr
    assert "Traceback" not in piped.stderr
    status = json.loads(run("status", str(manifest), "--api-base", sandbox, "--json").stdout)
    assert status["unknown"] == status["in_flight"] == 0
    assert status["done"] == sum(accepted(tmp_path).values())


def test_with_nobody_left_on_stderr_a_run_still_works_stops_and_says_how_by_its_exit_code(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=2)
    command = shlex.join([*COMMAND, "run", str(manifest), "--api-base", sandbox])
    piped = subprocess.run(
        ["bash", "-c", f"{command} 2> >(true); exit $?"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert piped.returncode == 0
    assert "12 of 12 jobs done" in piped.stdout
