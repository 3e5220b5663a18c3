"""`view`: serves the page of a batch on this machine, with pictures as they are saved."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from functools import partial
from pathlib import Path

from batch_runner.clock import Clock
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import read_batch
from batch_runner.commands.output import about, require_ledger
from batch_runner.commands.process import on_signals
from batch_runner.errors import ExitCode, UsageError
from batch_runner.report.feed import Feed
from batch_runner.report.pictures import Copies
from batch_runner.report.remote import FOLDER, Remote
from batch_runner.report.server import Server

LOOK_INTERVAL_S = 0.5
DEFAULT_PORT = 8643


class Arguments(BatchArguments):
    host: str
    serve_port: int | None


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a page to look at a batch: every job with its pictures, before and after, as they"
        " are saved, and a button that drains the run. Anyone who has the page's secret address"
        " can see the batch and stop the run. Other machines need a tunnel: ssh -L"
        " 8643:127.0.0.1:8643 HOST. Ctrl-C ends the page; a run continues."
    )
    add_batch_options(parser, json=False)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port",
        dest="serve_port",
        type=int,
        metavar="PORT",
        help="listen on this port (default: 8643, or any free one)",
    )


def execute(arguments: Arguments) -> int:
    """Serve the page until a signal comes."""
    batch = read_batch(arguments)
    require_ledger(arguments, batch, is_needed=False)
    copies = Copies(batch.output_dir / FOLDER, Remote(batch, say))
    with tempfile.TemporaryDirectory(prefix="batch-runner-") as page:
        read = partial(read_batch, arguments)
        feed = Feed(read, about(arguments, batch), Path(page), copies)
        asyncio.run(_serve(arguments, feed))
    return ExitCode.DONE


async def _serve(arguments: Arguments, feed: Feed) -> None:
    left = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(on_signals(lambda _: left.set()))
        await feed.renew()
        server = await _open(arguments, feed, stack)
        print(server.url, flush=True)
        say(
            "open this address in a browser; anyone who knows it can see the batch and stop the run"
        )
        if not server.is_for_this_machine:
            say("warning: the page is sent unencrypted; a tunnel (ssh -L) is safer")
        say("Ctrl-C closes the page; a run continues")
        while not left.is_set():
            await feed.look()
            await Clock().wait(left, LOOK_INTERVAL_S)


async def _open(arguments: Arguments, feed: Feed, stack: contextlib.AsyncExitStack) -> Server:
    host, port = arguments.host, arguments.serve_port
    for number in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            server = Server(feed, host=host, port=number)
            return await stack.enter_async_context(server)
        except (OSError, OverflowError) as error:
            trouble = error
    raise UsageError(
        f"cannot listen on {host}: {getattr(trouble, 'strerror', None) or trouble}",
        hint="choose another --host or --port",
    ) from trouble
