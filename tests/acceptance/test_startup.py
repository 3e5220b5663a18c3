"""What a command imports: whoever starts the program waits for it, every time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import write

from batch_runner.commands.arguments import COMMANDS
from batch_runner.errors import ExitCode

EXTRAS = {"obstore", "openpyxl"}
FOR_FEW = {
    *EXTRAS,
    "PIL",
    *{"configparser", "importlib.metadata", "zoneinfo"},
    *{"batch_runner.commands.probe", "batch_runner.report.live", "batch_runner.sandbox"},
}
"""What most batches do without: extras, rehearsals, windows, profiles, checks of addresses."""


def modules_after(code: str) -> set[str]:
    """Return what is imported at the end of a program that ends well."""
    tell = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}\n{code}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.rpartition("\n")[0].rpartition("\n")[2].split())


def imports_of(*words: str) -> set[str]:
    """Return what a command line imports beside what every Python program has."""
    run = f"from batch_runner.commands.cli import main\nsys.exit(main({words!r}))"
    return modules_after(run) - modules_after("")


def test_help_imports_no_command_and_no_library() -> None:
    loaded = imports_of("--help")
    assert not {name for name in loaded if name.removeprefix("batch_runner.commands.") in COMMANDS}
    libraries = {name.partition(".")[0] for name in loaded} - {"batch_runner"}
    assert libraries <= sys.stdlib_module_names


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_that_command_alone_and_no_extra(command: str) -> None:
    loaded = imports_of(command, "--help")
    names = {name.removeprefix("batch_runner.commands.") for name in loaded}
    assert names & {*COMMANDS} == {command}
    assert not loaded & EXTRAS


def test_status_imports_nothing_that_waits_asks_the_service_or_draws(tmp_path: Path) -> None:
    loaded = imports_of("status", str(write(tmp_path, images=1)))
    assert "batch_runner.report.status" in loaded
    assert not loaded & {
        *EXTRAS,
        "PIL",
        "batch_runner.sandbox",
        "aiohttp",
        "aiofiles",
        "ctypes",
        "tqdm",
    }


def test_a_plan_that_asks_nobody_imports_nothing_that_asks(tmp_path: Path) -> None:
    loaded = imports_of("plan", str(write(tmp_path, images=1)))
    assert "batch_runner.run.plan" in loaded
    assert not loaded & {*FOR_FEW, "aiohttp", "aiofiles", "ctypes", "tqdm"}


def test_a_run_that_nobody_watches_imports_no_progress_bar_and_nothing_that_few_batches_need(
    tmp_path: Path, sandbox: str
) -> None:
    loaded = imports_of("run", str(write(tmp_path, images=1)), "--api-base", sandbox)
    assert "aiohttp" in loaded
    assert not loaded & {*FOR_FEW, "batch_runner.commands.plan", "multiprocessing", "tqdm"}


INTERRUPTING = """
import atexit, os, signal, sys
from batch_runner.__main__ import run

def interrupt(*_):
    os.kill(os.getpid(), {number})

def see(event, arguments):
    if event == "import" and arguments[0] == {moment!r}:
        interrupt()

sys.addaudithook(see)
if {moment!r} == "exit":
    atexit.register(interrupt)
sys.argv = ["batch-runner", "status", "none.yaml"]
sys.exit(run())
"""


@pytest.mark.parametrize(
    "moment",
    ["batch_runner.commands.cli", "argparse", "batch_runner.run.batch", "msgspec", "exit"],
)
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED, "interrupted\n"),
        (signal.SIGTERM, ExitCode.STOPPED_EARLY, "ended by SIGTERM\n"),
    ],
)
def test_a_signal_ends_the_program_quietly_while_it_is_loaded_or_ends(
    moment: str, number: int, code: int, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING.format(moment=moment, number=int(number))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == code
    assert done.stderr.endswith(said)
    assert "Traceback" not in done.stderr
