"""Where words go: stdout is data, stderr is for people.

Hides what a broken pipe does to Python. Imports nothing heavy: every command says something.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from batch_runner.errors import BatchRunnerError
from batch_runner.report.terminal import wrapped

_T = TypeVar("_T")


def say(message: str) -> None:
    """Print something for people."""
    print(wrapped(message, sys.stderr), file=sys.stderr)


def show(text: str) -> None:
    """Print what a command found out, for people."""
    print(wrapped(text, sys.stdout), flush=True)


def complain(error: BatchRunnerError) -> None:
    """Say what went wrong, and what can be done about it."""
    say(error.message)
    if error.hint is not None:
        say(f"hint: {error.hint}")


def is_interactive() -> bool:
    """Tell whether a person can be asked: there is a terminal, and this program has it now."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        # Reading from the background would stop the program.
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return True  # a terminal that doesn't control this program can't stop it either


def silence_stdout() -> None:
    """Let what is still to be printed go nowhere: its reader went away."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_missing_streams() -> None:
    """Put something harmless where whoever started the program left no stdin, stdout or stderr.

    Before any other file is opened: the next one would get that number, and be written to by
    whatever writes to "stderr" without asking. The ledger is such a file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - a stream for as long as the program lasts


def print_any_name() -> None:
    """Escape what stdout's encoding lacks: names of files may hold anything."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def both(first: Callable[[_T], None], second: Callable[[_T], None]) -> Callable[[_T], None]:
    """Return one function that calls two."""

    def call(what: _T) -> None:
        first(what)
        second(what)

    return call
