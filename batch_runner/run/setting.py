"""What a run works with, opened in the right order and closed again.

Hides how the pieces are put together. What always holds: whatever happens after the ledger was
opened, it is closed with everything durable that could be made so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from batch_runner.clock import Clock
from batch_runner.files.download import Downloads
from batch_runner.files.upload import Uploads
from batch_runner.ledger.file import Ledger
from batch_runner.records import Record
from batch_runner.run.batch import Batch
from batch_runner.run.stop import Ending

Notice = Callable[[str], None]


def ignore(_: object) -> None:
    """Stand in for a listener that nobody passed, or that failed."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with everything open that a run of it needs.

    `listener` gets every record, right after the ledger took it, and must not block; `notice` gets
    sentences for people; `ending` may end the run at any time. `began_s` is when it was opened.
    """

    batch: Batch
    ledger: Ledger
    downloads: Downloads
    uploads: Uploads | None
    clock: Clock
    began_s: float
    ending: Ending
    listener: Callable[[Record], None]
    notice: Notice


@asynccontextmanager
async def open_setting(
    batch: Batch,
    *,
    listener: Callable[[Record], None] = ignore,
    notice: Notice = ignore,
    ending: Ending | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Setting]:
    """Hold the service, the ledger, downloads and uploads; all are closed whatever happens."""
    clock = clock or Clock()
    began_s = clock.monotonic()
    downloads = Downloads(
        batch.storage,
        hosts=(*batch.manifest.output.hosts, batch.service.host),
        allow_loopback=batch.service.is_local,
        proxies=batch.options.proxies,
    )
    uploads = None
    async with open_ledger(batch, notice, clock) as ledger, downloads, AsyncExitStack() as stack:
        if not batch.options.rehearsal:  # which touches no bucket
            uploads = Uploads(batch.buckets, clock=clock, service_is_here=batch.service.is_local)
            # A call to a store cannot be broken off, and what was sent so far is not lost.
            stack.push_async_callback(asyncio.to_thread, uploads.close)
        yield Setting(
            batch=batch,
            ledger=ledger,
            downloads=downloads,
            uploads=uploads,
            clock=clock,
            began_s=began_s,
            ending=ending or Ending(),
            listener=listener,
            notice=notice,
        )


@asynccontextmanager
async def open_ledger(
    batch: Batch, notice: Notice = ignore, clock: Clock | None = None
) -> AsyncIterator[Ledger]:
    """Hold the connection to the service and the ledger; both are closed whatever happens."""
    async with batch.service:
        with batch.ledgers.opened((clock or Clock()).now()) as ledger:
            if ledger.cut_bytes:
                notice(f"{ledger.path}: cut a torn last line of {ledger.cut_bytes} bytes")
            yield ledger
