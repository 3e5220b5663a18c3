"""Asking the run of another process to drain: submit nothing more, and collect what is paid for.

Hides how: an empty file beside the ledger, with the run's id in its name. What always holds: it
stops this run only, now and later, and kills no process. It needs no process id, which may belong
to another program by then, and it reaches a run of another user, in a container or on another host,
if the folder is the same.
Not promised: that the run is still there to read it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from batch_runner.errors import StorageError

_PREFIX = ".drain-"


def ask_to_drain(folder: Path, run: str) -> None:
    """Ask the run whose ledger is in the folder to drain; raises StorageError."""
    path = _request_path(folder, run)
    try:
        path.touch(mode=0o644)
    except OSError as error:
        raise StorageError(
            f"cannot ask the run to stop: {path}: {error.strerror}",
            hint="run this as a user who may write to that folder, or send SIGTERM to the run's"
            " process",
        ) from error


def is_asked_to_drain(folder: Path, run: str) -> bool:
    """Return whether somebody asked this run to drain."""
    return _request_path(folder, run).exists()


def forget_request(folder: Path, run: str) -> None:
    """Remove the request to drain, if there is one: the run is over."""
    with contextlib.suppress(OSError):
        _request_path(folder, run).unlink(missing_ok=True)


def _request_path(folder: Path, run: str) -> Path:
    # Only a name: the id comes from a file that somebody may have edited.
    return folder / f"{_PREFIX}{Path(run).name}"
