"""The errors that end a run: exit code, message and hint of each.

Hides nothing: this is the one table from failure to exit code (sysexits, like the vendor's own
command line). What always holds: these exceptions are about the *run*; a job that failed is data (a
record), never an exception. A message is one sentence without a full stop; the hint is what the
reader can do next.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from batch_runner.text.shown import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PROBLEM_LIMIT = 20
"""At most this many problems of a manifest are listed at once."""


class ExitCode(IntEnum):
    """The program's exit codes; the numbers are part of the interface."""

    DONE = 0
    BUG = 1
    SOME_FAILED = 3
    USAGE = 64
    INVALID = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    STORAGE = 74
    STOPPED_EARLY = 75
    REFUSED = 77
    INTERRUPTED = 130


class BatchRunnerError(Exception):
    """Base of all errors that end a run; `hint` says what to do about it."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BatchRunnerError):
    """The command line asks for something impossible."""

    exit_code = ExitCode.USAGE


class InputMissingError(BatchRunnerError):
    """A file named on the command line does not exist."""

    exit_code = ExitCode.NO_INPUT


class ServiceUnavailableError(BatchRunnerError):
    """The service was unreachable, or gave no usable answer, for too long."""

    exit_code = ExitCode.UNAVAILABLE


class StorageError(BatchRunnerError):
    """The disk failed, is full or read-only; nothing more may be submitted."""

    exit_code = ExitCode.STORAGE


class LedgerDamagedError(StorageError):
    """The ledger contains something impossible; the message names the line."""


class LedgerLockedError(BatchRunnerError):
    """Another run owns the ledger."""

    exit_code = ExitCode.STOPPED_EARLY


class AccessRefusedError(BatchRunnerError):
    """The token was refused, or the account has no balance."""

    exit_code = ExitCode.REFUSED


class Problem(NamedTuple):
    """One thing wrong with a manifest or a table: where, what, and what to do."""

    file: str
    line: int | None
    what: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return `file:line: what`, then the hint on a line of its own; both short and visible."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {visible(self.what)}"
        return text if self.hint is None else f"{text}\nhint: {visible(self.hint)}"


class ManifestError(BatchRunnerError):
    """A manifest or its table is not valid; has every problem found, up to the limit."""

    exit_code = ExitCode.INVALID

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:PROBLEM_LIMIT])
        lines = list(_listed(self.problems))
        if len(problems) >= PROBLEM_LIMIT:
            lines.append(f"(stopped after {PROBLEM_LIMIT} problems)")
        super().__init__("\n".join(lines))


def _listed(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield the problems as lines; neighbours with the same hint share it, after the last one."""
    for problem, following in zip_longest(problems, problems[1:]):
        is_hint_later = following is not None and following.hint == problem.hint
        yield str(problem._replace(hint=None) if is_hint_later else problem)


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word that `word` was probably meant to be, or None.

    `cutoff` is how similar they must be: 1 means equal.
    """
    import difflib  # noqa: PLC0415 - imported for a typing error only

    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint: the closest known word, or all known words."""
    known = sorted(known)
    match = closest(word, known)
    if match is not None:
        return f"did you mean '{match}'?"
    return f"known here: {', '.join(known)}" if known else "there is nothing to choose from"
