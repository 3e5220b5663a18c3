"""How the program uses its process: the signals that end it, and memory.

Hides signal handlers, the garbage collector's and the C library's settings. They belong to the
whole process, so commands set them and the library never does: its caller has settings of its own.
What always holds: the memory settings change the speed of a command, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Iterator

# With 100 KB a file the C library would return the pages of each body to the kernel and ask for
# them again with the next one: a quarter of a job's time goes into clearing them.
_KEPT_BYTES = 64 * 1024 * 1024
_MAPPED_FROM_BYTES = 4 * 1024 * 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# A job makes some hundred objects and leaves next to none in a cycle. By default, Python searches
# the young objects after every 700 new ones, and all objects whenever a quarter more has come.
_YOUNG_OBJECTS = 50_000


def prepare_for_many_jobs() -> None:
    """Collect garbage rarely, and never among what was imported."""
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


@contextlib.contextmanager
def on_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the number of each signal that asks the program to end."""
    loop = asyncio.get_running_loop()
    # A signal that is ignored (nohup) stays ignored.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in numbers:
        loop.add_signal_handler(number, act, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
