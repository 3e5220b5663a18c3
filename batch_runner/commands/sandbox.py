"""`sandbox`: the stand-in service in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from batch_runner.arguments import Arguments
from batch_runner.commands.console import say
from batch_runner.commands.wording import print_lines
from batch_runner.errors import ExitCode, UsageError
from batch_runner.sandbox import FAULTS, Sandbox, SandboxOptions
from batch_runner.sandbox.traffic import measure_traffic


def execute(arguments: Arguments) -> int:
    """Serve the sandbox until a signal, or list its faults."""
    if arguments.faults == "list":
        width = max(map(len, FAULTS))
        print("\n".join(f"{name:<{width}}  {what}" for name, what in FAULTS.items()))
        return ExitCode.DONE
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(_serve_sandbox(arguments))
    return ExitCode.DONE


async def _serve_sandbox(arguments: Arguments) -> None:
    try:
        options = SandboxOptions(
            capacity=arguments.capacity,
            queue_s=arguments.queue_s,
            run_s=arguments.run_s,
            submits_per_s=arguments.submits_per_s,
            calls_per_s=arguments.calls_per_s,
            balance_usd=arguments.balance_usd,
            token=arguments.token,
            slow_answer_s=arguments.slow_answer_s,
            seed=arguments.seed,
            faults=arguments.faults,
            pictures=not arguments.swatches,
        )
    except ValueError as error:
        raise UsageError(str(error), hint="see batch-runner sandbox --faults list") from error
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with Sandbox(arguments.folder, options, port=arguments.port) as sandbox:
            earlier = len(sandbox.accepted())
            print(sandbox.url, flush=True)
            say(f"in another terminal: batch-runner run MANIFEST --api-base {sandbox.url}")
            await stopped.wait()
        traffic = measure_traffic(sandbox.calls, len(sandbox.accepted()) - earlier)
        say(str(traffic))
        if arguments.json:
            print_lines([traffic])
    except OSError as error:
        raise UsageError(
            f"the sandbox cannot start: {error.strerror or error}",
            hint="choose another --port or --folder",
        ) from error
