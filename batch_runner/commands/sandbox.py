"""`sandbox`: serves the stand-in for the service in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments, count
from batch_runner.commands.console import say
from batch_runner.commands.process import on_signals
from batch_runner.errors import ExitCode, UsageError
from batch_runner.sandbox.faults import FAULTS
from batch_runner.sandbox.requests import SandboxOptions
from batch_runner.sandbox.server import Sandbox


class Arguments(BatchArguments):
    port: int
    folder: Path
    capacity: int
    seconds: float


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a stand-in for the service on this machine, until Ctrl-C. It draws pictures, takes"
        " play money, and can be told to fail. Use it from another terminal with --api-base."
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8642,
        help="listen on this port (default: %(default)s); 0 means any free one",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/sandbox"),
        help="where it stores its requests (default: %(default)s)",
    )
    parser.add_argument(
        "--capacity",
        type=count,
        default=8,
        metavar="N",
        help="work on this many requests at once (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.8,
        metavar="S",
        help="how long a request takes, more or less (default: %(default)s)",
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="let this share of calls fail, as in error-500=2%%; --faults list shows all",
    )


def execute(arguments: Arguments) -> int:
    """Serve the sandbox until a signal comes, or list its faults."""
    if arguments.faults == "list":
        width = max(map(len, FAULTS))
        print("\n".join(f"{name:<{width}}  {what}" for name, what in FAULTS.items()))
        return ExitCode.DONE
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_sandbox(arguments))
    return ExitCode.DONE


async def _serve_sandbox(arguments: Arguments) -> None:
    options = SandboxOptions(
        capacity=arguments.capacity,
        run_s=(arguments.seconds * 0.4, arguments.seconds * 1.6),
        faults=arguments.faults,
    )
    stopped = asyncio.Event()
    try:
        async with Sandbox(arguments.folder, options, port=arguments.port) as sandbox:
            print(sandbox.url, flush=True)
            say(f"in another terminal: batch-runner run MANIFEST --api-base {sandbox.url}")
            with on_signals(lambda _: stopped.set()):
                await stopped.wait()
        polls = sum(call.path.startswith("/v1/requests/") for call in sandbox.calls)
        accepted = len(sandbox.accepted())
        say(f"{len(sandbox.calls):,} calls, {polls:,} of them polls; {accepted:,} requests so far")
    except OSError as error:
        raise UsageError(
            f"cannot start the sandbox: {error.strerror or error}",
            hint="choose another --port or --folder",
        ) from error
