"""What a command imports: whoever starts the program waits for it, every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batch_runner.arguments import COMMANDS

LEAST = {
    "batch_runner",
    "batch_runner.arguments",
    "batch_runner.cli",
    "batch_runner.commands",
    "batch_runner.commands.console",
    "batch_runner.errors",
    "batch_runner.report",
    "batch_runner.report.stream",
}


def modules_after(code: str) -> set[str]:
    """Return what is imported at the end of a program that ends well."""
    tell = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}\n{code}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def modules_of(*words: str) -> set[str]:
    """Return what a command line imports."""
    return modules_after(f"from batch_runner.cli import main\nsys.exit(main({words!r}))")


def libraries(modules: set[str]) -> set[str]:
    """Return what is neither Python's own nor there before the program begins."""
    names = {name.partition(".")[0] for name in modules - modules_after("")}
    return names - sys.stdlib_module_names - {"batch_runner"}


def test_help_imports_argparse_and_the_least_of_the_program() -> None:
    argparse_alone = modules_after(
        "import __future__, argparse, importlib, typing\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_subparsers().add_parser('run', help='run')\n"
        "parser.parse_args(['--help'])"
    )
    assert modules_of("--help") - argparse_alone == LEAST


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_its_options_and_no_library(command: str) -> None:
    loaded = modules_of(command, "--help")
    own = {name for name in loaded if name.partition(".")[0] == "batch_runner"}
    assert own == {*LEAST, "batch_runner.options"}
    assert libraries(loaded) == set()


def test_the_status_of_a_batch_imports_nothing_that_asks_the_service_or_draws(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batch.yaml"
    text = "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {white: white}\n"
    path.write_text(text + "images: {mug: https://cdn.example.com/mug.png}\n", encoding="utf-8")
    loaded = modules_of("status", str(path))
    assert not loaded & {"aiohttp", "aiofiles", "tqdm", "PIL", "ctypes", "obstore", "openpyxl"}
