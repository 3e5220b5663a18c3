"""A file that is replaced as a whole, or not at all.

Hides the unfinished file beside it. What always holds: whoever reads the name sees all of the new
content or all of the old; what was interrupted leaves nothing behind but, after a kill, one hidden
file whose name ends in `.part`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batch_runner.errors import StorageError


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write to, and put it in place at the end; raises StorageError.

    `durable` makes it survive a power cut; what can be made again at any time does not need it.
    """
    target = Path(os.path.realpath(path))
    # Without its suffix, so that nobody takes it for the file.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            raise StorageError(
                f"cannot write {path}: it is not a regular file", hint="name another --output"
            )
        with part.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", hint="look at the disk and the path"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
