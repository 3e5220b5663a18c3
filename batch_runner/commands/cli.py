"""argv in, exit code out.

Hides how a command is found, and how it ends. What always holds: data goes to stdout, messages to
stderr; every way to end has an exit code (`errors`); users see a traceback only for a bug of this
program; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence

from batch_runner import PROGRAM
from batch_runner.commands.arguments import parse
from batch_runner.commands.console import (
    complain,
    open_missing_streams,
    print_any_name,
    say,
    silence_stdout,
)
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.files.disk import require_utf8_names
from batch_runner.report.terminal import SteadyStream


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_missing_streams()
    print_any_name()
    with contextlib.redirect_stderr(SteadyStream(sys.stderr)):
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        command, parsed = parse(arguments)
        require_utf8_names()
        code: int = command.execute(parsed)
        # Not later, when Python ends: then it is too late for a message or an exit code.
        sys.stdout.flush()
    except BatchRunnerError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Nobody reads stdout any more (`| head`), so the rest is not printed.
        silence_stdout()
        return ExitCode.DONE
    except OSError as error:
        silence_stdout()
        # Errors about files have their names; the only other file is the output.
        what = "cannot write the output" if error.filename is None else error.filename
        say(f"{what}: {error.strerror or error}")
        say("hint: check the disk, and where the output goes; all records are safe")
        return ExitCode.STORAGE
    except Exception:  # noqa: BLE001 - the edge: a bug ends here
        traceback.print_exc()
        say(f"this is a bug in {PROGRAM}; please report it with the lines above")
        say("hint: nothing paid for is lost: run the same command again to collect it")
        return ExitCode.BUG
    return code
