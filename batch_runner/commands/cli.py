"""argv in, exit code out.

Hides how a command is found and how it may end. What always holds: stdout is data, stderr is for
people; every way to end has its exit code (`errors`); no traceback reaches a user unless it is a
bug of this program; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

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
    stderr = sys.stderr
    sys.stderr = SteadyStream(stderr)
    try:
        return _main(arguments)
    finally:
        sys.stderr = stderr


def _main(arguments: Sequence[str] | None) -> int:
    try:
        command, parsed = parse(arguments)
        require_utf8_names()
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
        # Files have their errors where they are used: without a name, what is left is the output.
        what = "the output cannot be written" if error.filename is None else error.filename
        say(f"{what}: {error.strerror or error}")
        say("hint: look at the disk and at where the output goes; what is on record stays so")
        return ExitCode.STORAGE
    except Exception:  # noqa: BLE001 - the edge: a bug ends here, and is told as one
        traceback.print_exc()
        say(f"this is a bug of {PROGRAM}; please report it with the lines above")
        say("hint: what was bought is on record: running the same command again collects it")
        return ExitCode.BUG
    return code
