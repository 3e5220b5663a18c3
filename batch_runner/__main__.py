"""The start of the program, as `batch-runner` and as `python -m batch_runner`.

Hides Ctrl-C while Python loads the program or shuts down: exit code 130, no traceback.
Not promised: the same while Python itself starts.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED = 130  # ExitCode.INTERRUPTED, before it is imported


def run() -> int:
    """Run one command and return its exit code."""
    _on_interrupt(_leave)
    from batch_runner.commands.cli import main  # noqa: PLC0415 - takes a moment, and Ctrl-C may come then

    try:
        _on_interrupt(signal.default_int_handler)
        code = main()
        _on_interrupt(_leave)
    except KeyboardInterrupt:
        _leave()
    return code


def _on_interrupt(act: Callable[..., object]) -> None:
    # A signal that is ignored (nohup) stays ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, act)


def _leave(*_: object) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(run())
