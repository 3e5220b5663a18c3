"""argv in, exit code out.

Hides how a command is found and how it may end. What always holds: stdout is data, stderr is for
people; every way to end has its exit code (`errors`); no traceback reaches a user unless it is a
bug of this program; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from batch_runner.arguments import parse
from batch_runner.commands.console import complain, open_missing_streams, say, silence_stdout
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.report.stream import SteadyStream


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_missing_streams()
    stderr = sys.stderr
    sys.stderr = SteadyStream(stderr)
    try:
        return _main(arguments)
    finally:
        sys.stderr = stderr


def _main(arguments: Sequence[str] | None) -> int:
    try:
        parsed = parse(arguments)
        command = importlib.import_module(f"batch_runner.commands.{parsed.command}")
        code: int = command.execute(parsed)
        # Here, and not when Python ends: then nobody could tell people or the shell any more.
        sys.stdout.flush()
    except BatchRunnerError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); what is left to print has no reader.
        silence_stdout()
        return ExitCode.DONE
    except OSError as error:
        silence_stdout()
        say(f"cannot write: {error.strerror or error}")
        return ExitCode.STORAGE
    return code
