"""The terminal: messages for people on stderr, results on stdout.

Hides broken pipes and closed streams. Imports nothing heavy, because every command uses it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from batch_runner.errors import BatchRunnerError

_SHOWN = 20


def say(message: str) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr)


def say_first(messages: Sequence[str], more: str = "") -> None:
    """Print the first messages of many, and how many more there are."""
    for message in messages[:_SHOWN]:
        say(message)
    if len(messages) > _SHOWN:
        say(f"… and {len(messages) - _SHOWN:,} more{more}")


def complain(error: BatchRunnerError) -> None:
    """Print an error and its hint."""
    say(error.message)
    if error.hint is not None:
        say(f"hint: {error.hint}")


def is_interactive() -> bool:
    """Return whether a person can answer: the program has a terminal, and is in the foreground."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        # Reading in the background would stop the program.
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return True  # a terminal that doesn't control this program can't stop it either


def silence_stdout() -> None:
    """Discard what is still to be printed, because nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_missing_streams() -> None:
    """Open /dev/null as each standard stream that the program was started without.

    Must come before any other file is opened: that file would get the number of the missing stream,
    and a library that writes to "stderr" would write into it. It could be the ledger.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open until the program ends


def print_any_name() -> None:
    """Escape characters that stdout cannot encode: names of files may contain anything."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
