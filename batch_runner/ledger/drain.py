"""How one process asks the run of another to submit nothing more and to collect what is paid for.

Hides the means: an empty file beside the ledger, named by the run it is meant for. What always
holds: a request stops no other run, now or later, and it kills nobody. Asking twice is asking once;
it needs no process number, which by then may be a stranger's, and it works for a run under another
user, in a container or on another host, as long as the folder is the same.
Not promised: that the run is still there to read it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from batch_runner.errors import StorageError

_PREFIX = ".drain-"


def ask_to_drain(folder: Path, run: str) -> None:
    """Ask the run whose ledger is in the folder; raises StorageError."""
    path = _request_path(folder, run)
    try:
        path.touch(mode=0o644)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}",
            hint="whoever may write into this folder can stop the run so; SIGTERM to its process"
            " does it too",
        ) from error


def is_asked_to_drain(folder: Path, run: str) -> bool:
    """Tell whether somebody asked this run to drain."""
    return _request_path(folder, run).exists()


def forget_request(folder: Path, run: str) -> None:
    """Remove the request, if there is one: the run is over."""
    with contextlib.suppress(OSError):
        _request_path(folder, run).unlink(missing_ok=True)


def _request_path(folder: Path, run: str) -> Path:
    if not run.isalnum():
        # It was read from a file that anybody may have edited.
        raise StorageError(f"{folder}: '{run}' cannot be a run's name")
    return folder / f"{_PREFIX}{run}"
