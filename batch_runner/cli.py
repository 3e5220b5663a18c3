"""argv in, exit code out.

Hides the environment, signals and everything that is printed. What always holds: stdout
is data, stderr is for people; every way to end has its exit code (`errors`); no traceback reaches a
user unless it is a bug of this program; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_runner.arguments import Arguments, parse
from batch_runner.errors import (
    AccessRefusedError,
    BatchRunnerError,
    ExitCode,
    InputMissingError,
    UsageError,
    did_you_mean,
)

if TYPE_CHECKING:
    from batch_runner.batch import Batch, Run, RunOptions
    from batch_runner.manifest import Manifest
    from batch_runner.runner import Stop

TOKEN_VARIABLES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
BASE_VARIABLES = ("RUNCOMFY_API_BASE", "RUNCOMFY_MODEL_API_BASE")
SANDBOX_TOKEN = "sandbox"  # noqa: S105 - opens nothing but the sandbox


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        parsed = parse(arguments)
        return COMMANDS[parsed.command](parsed)
    except BatchRunnerError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); what is left to print has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


# Commands


def _run(arguments: Arguments) -> int:
    if arguments.dry_run:
        return _plan(arguments)
    return asyncio.run(_run_batch(arguments))


async def _run_batch(arguments: Arguments) -> int:
    from batch_runner.batch import Run  # noqa: PLC0415 - heavy, and only needed here
    from batch_runner.records import encode  # noqa: PLC0415
    from batch_runner.report.progress import Progress  # noqa: PLC0415
    from batch_runner.report.text import summary_text  # noqa: PLC0415

    async with _opened(arguments) as batch:
        _require_token(batch)
        with Progress(batch.manifest.name, sys.stderr, quiet=arguments.quiet) as progress:

            def listen(record: Any) -> None:
                progress(record)
                if arguments.json:
                    sys.stdout.buffer.write(encode(record))
                    sys.stdout.flush()

            run = Run(batch, listener=listen, notice=progress.say, on_survey=progress.begin)
            with _signals(run, progress.say, arguments.grace_s, arguments.on_interrupt):
                summary = await run.execute()
    text = summary_text(
        summary,
        run_again=_command_again(arguments, "run"),
        resolve=_command_again(arguments, "resolve"),
        is_sandbox=arguments.sandbox,
    )
    print(text, file=sys.stderr if arguments.json else sys.stdout)
    if summary.error is not None:
        _complain(summary.error)
    return summary.exit_code


def _plan(arguments: Arguments) -> int:
    return asyncio.run(_plan_batch(arguments))


async def _plan_batch(arguments: Arguments) -> int:
    from batch_runner.report.text import plan_text  # noqa: PLC0415 - heavy

    async with _opened(arguments, for_run=False) as batch:
        balance_usd = None
        if batch.options.token is not None:
            async with batch.service:
                await batch.learn_model(keep=False)
                balance_usd = await batch.service.balance_usd()
        state = batch.replay()
        survey = batch.survey(state)
        for note in batch.notes:
            _say(note)
        if batch.options.token is None and batch.model.price_usd is None:
            _say("the price was not asked for: there is no token")
        if arguments.json:
            for planned in batch.planned(state):
                print(_plan_line(batch, planned))
            return ExitCode.DONE
        print(plan_text(batch, survey, state, balance_usd))
    return ExitCode.DONE


def _plan_line(batch: Batch, planned: Any) -> str:
    job = planned.job
    cost_usd = batch.estimate_usd(job) if planned.action == "submit" else None
    line = {
        "job": job.key,
        "fingerprint": job.fingerprint,
        "action": str(planned.action),
        "reason": planned.reason,
        "path": job.path,
        "estimate_usd": None if cost_usd is None else str(cost_usd),
    }
    return json.dumps(line, ensure_ascii=False)


def _status(arguments: Arguments) -> int:
    from batch_runner.batch import Batch, status  # noqa: PLC0415 - heavy
    from batch_runner.report.text import status_text  # noqa: PLC0415

    manifest = _load(arguments)
    batch = Batch(manifest, _options(arguments, manifest))
    found = status(batch)
    if arguments.json:
        _print_lines([found])
    else:
        print(status_text(batch, found))
    return ExitCode.DONE


def _verify(arguments: Arguments) -> int:
    return asyncio.run(_verify_batch(arguments))


async def _verify_batch(arguments: Arguments) -> int:
    from batch_runner.batch import Run  # noqa: PLC0415 - heavy, and only needed here
    from batch_runner.verification import verify  # noqa: PLC0415

    async with _opened(arguments) as batch:
        batch.replay()
        checked = list(verify(batch.output_dir))
        wrong = [one for one in checked if one is not None]
        if wrong and arguments.fix:
            _require_token(batch)
            await Run(batch, notice=_say).mend(wrong)
            left = {one.path for one in verify(batch.output_dir) if one is not None}
            _say(f"{len(wrong) - len(left)} of {len(wrong)} files put back")
            wrong = [one for one in wrong if one.path in left]
    for one in wrong:
        line = {"path": one.path, "finding": one.finding.name.lower(), "job": one.job}
        shown = (
            json.dumps(line, ensure_ascii=False) if arguments.json else f"{one.finding} {one.path}"
        )
        print(shown)
    _say(f"{len(checked) - len(wrong)} of {len(checked)} files are whole")
    if not wrong:
        return ExitCode.DONE
    if not arguments.fix:
        _say("hint: verify --fix puts them back without paying")
    return ExitCode.SOME_FAILED


def _resolve(arguments: Arguments) -> int:
    return asyncio.run(_resolve_batch(arguments))


async def _resolve_batch(arguments: Arguments) -> int:
    from batch_runner.batch import Run  # noqa: PLC0415 - heavy, and only needed here
    from batch_runner.pacing import Clock  # noqa: PLC0415
    from batch_runner.report.text import unknown_text  # noqa: PLC0415
    from batch_runner.settlement import attach, choose, settle, unknown_jobs  # noqa: PLC0415

    async with _opened(arguments) as batch:
        found = unknown_jobs(batch.output_dir, batch.replay())
        if not (arguments.attach or arguments.resubmit or arguments.abandon):
            found = choose(found, arguments.jobs) if arguments.jobs else found
            if arguments.json:
                _print_lines(found)
            else:
                print(unknown_text(found, _command_again(arguments, "resolve")))
            return ExitCode.SOME_FAILED if found else ExitCode.DONE
        if not found:
            print(unknown_text(found, ""))
            return ExitCode.DONE
        if bool(arguments.jobs) == arguments.all_jobs:
            raise UsageError("say which jobs", hint="name keys or globs, or give --all")
        chosen = found if arguments.all_jobs else choose(found, arguments.jobs)
        if arguments.attach and len(chosen) != 1:
            raise UsageError(
                f"--attach settles one job, here are {len(chosen)}", hint="name its whole key"
            )
        if arguments.attach:
            _require_token(batch)
        async with Run(batch, notice=_say).opened() as ledger:
            if arguments.attach:
                job = chosen[0]
                state = await attach(batch.service, ledger, job, arguments.attach, Clock())
                print(f"{job.job}: attached to {arguments.attach}, which is {state}")
            else:
                settle(ledger, chosen, "resubmit" if arguments.resubmit else "abandoned", Clock())
                print(f"{len(chosen)} settled")
    _say(f"next: {_command_again(arguments, 'run')}")
    return ExitCode.DONE


def _cancel(arguments: Arguments) -> int:
    return asyncio.run(_cancel_batch(arguments))


async def _cancel_batch(arguments: Arguments) -> int:
    from batch_runner.batch import Run  # noqa: PLC0415 - heavy, and only needed here
    from batch_runner.pacing import Clock  # noqa: PLC0415
    from batch_runner.report.text import cancel_text  # noqa: PLC0415
    from batch_runner.settlement import cancel  # noqa: PLC0415

    async with _opened(arguments) as batch:
        _require_token(batch)
        batch.replay()
        async with Run(batch, notice=_say).opened() as ledger:
            outcomes = await cancel(batch.service, ledger, arguments.jobs, Clock())
    if arguments.json:
        _print_lines(outcomes)
    else:
        print(cancel_text(outcomes))
    return ExitCode.DONE if all(one.cancelled for one in outcomes) else ExitCode.SOME_FAILED


def _print_lines(values: Sequence[Any]) -> None:
    import msgspec  # noqa: PLC0415 - heavy

    for value in values:
        print(msgspec.json.encode(value).decode())


def _schema(arguments: Arguments) -> int:
    from batch_runner.manifest import manifest_schema  # noqa: PLC0415 - heavy
    from batch_runner.model import shipped_models, shipped_schema  # noqa: PLC0415

    if arguments.list_models:
        print("\n".join(shipped_models()))
        return ExitCode.DONE
    schema = manifest_schema() if arguments.name is None else shipped_schema(arguments.name)
    if schema is None:
        raise InputMissingError(
            f"no schema ships for the model '{arguments.name}'",
            hint=did_you_mean(str(arguments.name), shipped_models()),
        )
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return ExitCode.DONE


def _sandbox(arguments: Arguments) -> int:
    if arguments.faults == "list":
        from batch_runner.sandbox import FAULTS  # noqa: PLC0415 - heavy

        width = max(map(len, FAULTS))
        print("\n".join(f"{name:<{width}}  {what}" for name, what in FAULTS.items()))
        return ExitCode.DONE
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(_serve_sandbox(arguments))
    return ExitCode.DONE


async def _serve_sandbox(arguments: Arguments) -> None:
    from batch_runner.sandbox import Sandbox, SandboxOptions  # noqa: PLC0415 - heavy

    try:
        options = SandboxOptions(
            capacity=arguments.capacity,
            run_s=arguments.run_s,
            seed=arguments.seed,
            faults=arguments.faults,
        )
    except ValueError as error:
        raise UsageError(str(error), hint="see batch-runner sandbox --faults list") from error
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with Sandbox(arguments.folder, options, port=arguments.port) as sandbox:
            print(sandbox.url, flush=True)
            _say(f"in another terminal: batch-runner run MANIFEST --api-base {sandbox.url}")
            await stopped.wait()
    except OSError as error:
        raise UsageError(
            f"the sandbox cannot start: {error.strerror or error}",
            hint="choose another --port or --folder",
        ) from error


# What commands share


def _load(arguments: Arguments) -> Manifest:
    from batch_runner.manifest import load_manifest  # noqa: PLC0415 - heavy

    return load_manifest(arguments.manifest)


def _options(arguments: Arguments, manifest: Manifest) -> RunOptions:
    from batch_runner.batch import RunOptions  # noqa: PLC0415 - heavy
    from batch_runner.service import API_BASE, is_loopback, parse_origin  # noqa: PLC0415

    if arguments.sandbox and arguments.api_base is not None:
        raise UsageError("--sandbox and --api-base exclude each other", hint="leave one out")
    api_base = arguments.api_base or _from_environment(BASE_VARIABLES) or API_BASE
    token: str | None
    output_dir: Path | None = None
    if arguments.sandbox:
        # A rehearsal has a folder of its own: its pictures must never pass for bought ones.
        api_base, token = "http://127.0.0.1", SANDBOX_TOKEN
        output_dir = manifest.output.dir.with_name(f"{manifest.output.dir.name}-sandbox")
    else:
        token = _find_token()
        if token is None and is_loopback(parse_origin(api_base)):
            token = SANDBOX_TOKEN
    return RunOptions(
        api_base=api_base,
        token=token,
        limit=arguments.limit,
        only=arguments.only,
        retry=tuple(getattr(arguments, "retry", ())),
        max_cost_usd=arguments.max_cost,
        until=arguments.until,
        wait=arguments.wait,
        output_dir=output_dir,
    )


@contextlib.asynccontextmanager
async def _opened(arguments: Arguments, *, for_run: bool = True) -> AsyncIterator[Batch]:
    """Give the batch that was asked for, with the sandbox running where that was asked for."""
    import msgspec  # noqa: PLC0415 - heavy

    from batch_runner.batch import Batch  # noqa: PLC0415

    if arguments.faults and not arguments.sandbox:
        raise UsageError("--faults are for rehearsals", hint="add --sandbox")
    manifest = _load(arguments)
    options = _options(arguments, manifest)
    if not arguments.sandbox:
        yield Batch(manifest, options)
        return
    from batch_runner.sandbox import Sandbox, SandboxOptions  # noqa: PLC0415

    try:
        sandbox_options = SandboxOptions(faults=arguments.faults)
    except ValueError as error:
        raise UsageError(str(error), hint="see batch-runner sandbox --faults list") from error
    with contextlib.ExitStack() as stack:
        # A plan leaves no traces, so its sandbox lives in a folder that goes with it.
        folder = (
            (options.output_dir or manifest.output.dir) / ".sandbox"
            if for_run
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        async with Sandbox(folder, sandbox_options) as sandbox:
            yield Batch(manifest, msgspec.structs.replace(options, api_base=sandbox.url))


def _require_token(batch: Batch) -> None:
    if batch.options.token is None:
        raise AccessRefusedError(
            "there is no token for the service",
            hint=f"set {TOKEN_VARIABLES[0]}, or try the batch with --sandbox",
        )


def _find_token() -> str | None:
    """Find the token where the vendor's own tools keep it."""
    token = _from_environment(TOKEN_VARIABLES)
    if token is not None:
        return token
    saved = Path.home() / ".config" / "runcomfy" / "token.json"
    try:
        token = json.loads(saved.read_text(encoding="utf-8"))["access_token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return token if isinstance(token, str) and token.strip() else None


def _from_environment(names: Sequence[str]) -> str | None:
    return next(
        (os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), None
    )


@contextlib.contextmanager
def _signals(
    run: Run, say: Callable[[str], None], grace_s: float, on_interrupt: str
) -> Iterator[None]:
    """Once: stop submitting, collect what is paid for. Twice: leave; all requests are on disk."""
    from batch_runner.runner import Stop  # noqa: PLC0415 - heavy

    loop = asyncio.get_running_loop()
    pressed: list[int] = []
    under_way: list[asyncio.Future[None]] = []

    def leave(stop: Stop) -> None:
        say("leaving now; the next run collects what is paid for")
        under_way.append(asyncio.ensure_future(run.leave(stop)))

    def on_signal(number: int) -> None:
        pressed.append(number)
        if number == signal.SIGINT:
            stop = Stop("interrupted", "interrupted by Ctrl-C")
        else:
            stop = Stop("terminated", f"ended by {signal.Signals(number).name}")
        if len(pressed) > 1 or on_interrupt == "detach":
            leave(stop)
            return
        run.drain(stop)
        say("stopping: nothing more is submitted, what is paid for is collected; again to leave")
        if on_interrupt == "cancel":
            say("what the service has not begun yet is cancelled")
            under_way.append(asyncio.ensure_future(run.cancel_queued()))
        if number != signal.SIGINT:
            loop.call_later(grace_s, leave, stop)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _command_again(arguments: Arguments, command: str) -> str:
    """Return the command line that goes on with this batch."""
    words = ["batch-runner", command]
    words += ["--sandbox"] if arguments.sandbox else []
    words += ["--api-base", arguments.api_base] if arguments.api_base else []
    return shlex.join([*words, str(arguments.manifest)])


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _complain(error: BatchRunnerError) -> None:
    _say(error.message)
    if error.hint is not None:
        _say(f"hint: {error.hint}")


COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "run": _run,
    "plan": _plan,
    "status": _status,
    "verify": _verify,
    "resolve": _resolve,
    "cancel": _cancel,
    "schema": _schema,
    "sandbox": _sandbox,
}
