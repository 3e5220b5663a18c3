"""How this process uses the machine while it works on a batch.

Hides the garbage collector's and the C library's settings. They belong to the whole process, so the
command sets them, and never the library: whoever calls `Run` has settings of their own. What always
holds: nothing that a command does depends on them but its speed.
"""

from __future__ import annotations

import contextlib
import gc

# With 100 KB a file the C library gives the pages of each body back to the kernel and asks for them
# again with the next one: a quarter of a job's time goes into clearing them.
_KEPT_BYTES = 64 * 1024 * 1024
_MAPPED_FROM_BYTES = 4 * 1024 * 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# A job makes some hundred objects and leaves next to none in a cycle. By default all that is young
# is searched after every 700 objects, and all there is, whenever a quarter more has come to it.
_YOUNG_OBJECTS = 50_000


def prepare_for_many_jobs() -> None:
    """Look for garbage rarely, and never among what was imported."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


def prepare_for_many_files() -> None:
    """Keep the memory that held one file for the next one."""
    # Only glibc has `mallopt`; elsewhere the run is a little slower, and that is all.
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415 - only a run needs it

        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
