"""Writing the files that the machine's scheduler reads.

Always holds: files that others wrote are never replaced; a file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from batch_runner.commands.timer import MARK, TOKEN_VARIABLE, File, Timer
from batch_runner.errors import StorageError, UsageError
from batch_runner.files.disk import replacing

_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


def write_files(files: Sequence[File], *, force: bool) -> list[tuple[Path, bool]]:
    """Write all files or none; returns each path and whether it changed.

    Raises UsageError if somebody else wrote one of them, or if one of ours differs and `force` is
    not set; StorageError if the disk fails.
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
    """Create the file for secrets, readable by the user only; False if there is one already."""
    path = timer.environment_file
    text = (
        "# For runs of batch-runner that this machine starts. NAME=value; put the value in single\n"
        "# quotes if it contains anything but letters, digits, dots, dashes and underscores.\n"
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
    """Return the variables of the manifest that the file for secrets does not set."""
    try:
        text = timer.environment_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = dict(_ASSIGNMENT.findall(text))
    return [name for name in timer.variables if not found.get(name, "").strip("'\"")]


def make_log_folder(timer: Timer) -> None:
    """Create the folder of the log; raises StorageError."""
    if timer.log_file is not None:
        with _storage_errors("cannot create the log folder"):
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
            f"cannot read {file.path}: {error.strerror}", hint="check its permissions"
        ) from error
    if text == file.text.encode():
        return False
    if MARK.encode() not in text.partition(b"\n")[0]:
        raise UsageError(
            f"{file.path} exists, and batch-runner did not write it",
            hint="move it away, or give the manifest another 'name:'",
        )
    if not force:
        raise UsageError(
            f"{file.path} already exists, and differs",
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
            hint="check the disk and the folder's permissions",
        ) from error
