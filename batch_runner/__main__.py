"""The start of the program, as `batch-runner` and as `python -m batch_runner`.

Hides Ctrl-C while Python loads the program or shuts down: exit code 130, no traceback. Hides
SIGTERM before a command handles it: exit code 75.
Not promised: the same while Python itself starts.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED, _TERMINATED = 130, 75  # as in ExitCode, before it is imported


def run() -> int:
    """Run one command and return its exit code."""
    _on(signal.SIGTERM, _leave)
    _on(signal.SIGINT, _leave)
    from batch_runner.commands.cli import main  # noqa: PLC0415 - takes a moment, and Ctrl-C may come then

    try:
        _on(signal.SIGINT, signal.default_int_handler)
        code = main()
        _on(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        _leave()
    return code


def _on(number: signal.Signals, act: Callable[..., object]) -> None:
    # A signal that is ignored (nohup) stays ignored.
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, act)


def _leave(number: int = signal.SIGINT, *_: object) -> None:
    is_interrupt = number == signal.SIGINT
    try:
        os.write(2, b"interrupted\n" if is_interrupt else b"ended by SIGTERM\n")
    finally:
        os._exit(_INTERRUPTED if is_interrupt else _TERMINATED)


if __name__ == "__main__":
    sys.exit(run())
