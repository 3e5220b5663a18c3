"""Writing what the machine's scheduler reads.

What always holds: nothing that others wrote is replaced; a file is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from batch_runner.errors import StorageError, UsageError
from batch_runner.files.disk import replacing
from batch_runner.schedulers.timer import MARK, TOKEN_VARIABLE, File, Timer

_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


def write_files(files: Sequence[File], *, force: bool) -> list[tuple[Path, bool]]:
    """Write all of them or none; return each path and whether it had to be written.

    A file somebody else wrote is never touched, one of ours that differs only by `force`; raises
    UsageError for both, and StorageError.
    """
    pending = [(file, _must_write(file, force=force)) for file in files]
    with _storage_errors("cannot write"):
        for file, is_new in pending:
            if is_new:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file.path) as written:
                    written.write(file.text.encode())
    return [(file.path, is_new) for file, is_new in pending]


def write_environment_file(timer: Timer) -> bool:
    """Create the file for secrets if there is none, for the user alone; tell whether it did."""
    path = timer.environment_file
    text = (
        "# For batch-runner when the machine starts it. NAME=value, in single quotes where the\n"
        "# value holds anything but letters, digits, dots, dashes and underscores.\n"
    ) + "".join(f"{name}=\n" for name in (TOKEN_VARIABLE, *timer.variables))
    with _storage_errors("cannot write"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    return True


def unset_names(timer: Timer) -> list[str]:
    """Return which variables of the manifest the file for secrets does not set."""
    try:
        text = timer.environment_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = dict(_ASSIGNMENT.findall(text))
    return [name for name in timer.variables if not found.get(name, "").strip("'\"")]


def make_log_folder(timer: Timer) -> None:
    """Make the folder the log is to be in; raises StorageError."""
    if timer.log_file is not None:
        with _storage_errors("cannot make the folder of the log"):
            timer.log_file.parent.mkdir(parents=True, exist_ok=True)


def _must_write(file: File, *, force: bool) -> bool:
    try:
        text = file.path.read_bytes()
    except FileNotFoundError:
        if not file.path.is_symlink():
            return True
        text = b""
    except OSError as error:
        raise StorageError(
            f"cannot read {file.path}: {error.strerror}", hint="look at its permissions"
        ) from error
    if text == file.text.encode():
        return False
    if MARK.encode() not in text.partition(b"\n")[0]:
        raise UsageError(
            f"{file.path} is in the way: batch-runner did not write it",
            hint="move it away, or give the manifest another 'name:'",
        )
    if not force:
        raise UsageError(
            f"{file.path} is there already, and differs",
            hint="--force replaces it; another 'name:' in the manifest keeps both",
        )
    return True


@contextlib.contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{what}: {error.filename}: {error.strerror}",
            hint="look at the disk and the folder's permissions",
        ) from error
