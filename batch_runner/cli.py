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
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from batch_runner.arguments import Arguments, parse
from batch_runner.errors import (
    AccessRefusedError,
    BatchRunnerError,
    ExitCode,
    InputMissingError,
    LedgerLockedError,
    StorageError,
    UsageError,
    did_you_mean,
)
from batch_runner.report.stream import SteadyStream

if TYPE_CHECKING:
    from batch_runner.batch import Batch, Run, RunOptions, Summary
    from batch_runner.manifest import Manifest
    from batch_runner.notice import Means
    from batch_runner.report.ending import Ending, Wording
    from batch_runner.report.log import Log
    from batch_runner.runner import Stop
    from batch_runner.sandbox import Sandbox
    from batch_runner.timer import File, Timer

TOKEN_VARIABLES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
BASE_VARIABLES = ("RUNCOMFY_API_BASE", "RUNCOMFY_MODEL_API_BASE")
SANDBOX_TOKEN = "sandbox"  # noqa: S105 - opens nothing but the sandbox

_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    stderr = sys.stderr
    sys.stderr = cast("TextIO", SteadyStream(stderr))
    try:
        return _main(arguments)
    finally:
        sys.stderr = stderr


def _main(arguments: Sequence[str] | None) -> int:
    try:
        parsed = parse(arguments)
        code = COMMANDS[parsed.command](parsed)
        # Here, and not when Python ends: then nobody could tell people or the shell any more.
        sys.stdout.flush()
    except BatchRunnerError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); what is left to print has no reader.
        _silence_stdout()
        return ExitCode.DONE
    except OSError as error:
        _silence_stdout()
        _say(f"cannot write: {error.strerror or error}")
        return ExitCode.STORAGE
    return code


def _silence_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Commands


def _run(arguments: Arguments) -> int:
    if arguments.dry_run:
        return _plan(arguments)
    return asyncio.run(_run_batch(arguments))


async def _run_batch(arguments: Arguments) -> int:
    from batch_runner.notice import Means, announce_start  # noqa: PLC0415 - heavy
    from batch_runner.pacing import Clock  # noqa: PLC0415
    from batch_runner.report.ending import Ending  # noqa: PLC0415
    from batch_runner.report.log import Log  # noqa: PLC0415

    async with _opened(arguments) as batch:
        name, clock = batch.manifest.name, Clock()
        with Log(arguments.log_file, name, complain=_say, clock=clock) as log:
            means = Means(
                environment=_environment_of_others(),
                folder=batch.manifest.path.parent,
                say=_both(_say, log.say),
                clock=clock,
            )
            log.say(f"run of {arguments.manifest} begins")
            await announce_start(batch.manifest.notify, means)
            began = clock.monotonic()
            # Whoever was told that it starts is told how it ends, whatever ends it.
            try:
                summary = await _execute(arguments, batch, log)
            except Exception as error:
                ending = Ending.of_error(
                    batch, error, clock.monotonic() - began, is_sandbox=arguments.sandbox
                )
                log.say(ending.text)
                await _tell(arguments, batch, ending, means, log)
                raise
            try:
                _show(arguments, summary, log)
            finally:
                ending = Ending.of_summary(name, summary, **_wording(arguments))
                await _tell(arguments, batch, ending, means, log)
    return summary.exit_code


async def _execute(arguments: Arguments, batch: Batch, log: Log) -> Summary:
    from batch_runner.batch import Run  # noqa: PLC0415 - heavy, and only needed here
    from batch_runner.records import encode  # noqa: PLC0415
    from batch_runner.report.progress import Progress  # noqa: PLC0415
    from batch_runner.runner import Stop  # noqa: PLC0415

    _require_token(batch)
    with Progress(batch.manifest.name, sys.stderr, quiet=arguments.quiet) as progress:

        def listen(record: Any) -> None:
            progress(record)
            log(record)
            if arguments.json:
                put(encode(record))

        def put(line: bytes) -> None:
            """Print a record; a reader that goes away ends the run, and never breaks a job."""
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
            except OSError as error:
                _silence_stdout()
                why = f"the records cannot be printed any more: {error.strerror}"
                run.drain(Stop("output", why))

        say, begin = _both(progress.say, log.say), _both(progress.begin, log.begin)
        run = Run(batch, listener=listen, notice=say, on_survey=begin)
        with _signals(run, say, arguments.grace_s, arguments.on_interrupt):
            return await run.execute()


def _show(arguments: Arguments, summary: Summary, log: Log) -> None:
    from batch_runner.report.text import summary_text  # noqa: PLC0415 - heavy

    text = summary_text(summary, **_wording(arguments))
    log.say(text)
    if summary.error is not None:
        log.say(summary.error.message)
    # How the run ended is said by its exit code, whether or not anybody reads the text.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    if summary.error is not None:
        _complain(summary.error)


async def _tell(arguments: Arguments, batch: Batch, ending: Ending, means: Means, log: Log) -> None:
    """Tell machines and people elsewhere; what fails here is said, and changes nothing."""
    from batch_runner.notice import announce_end  # noqa: PLC0415 - heavy
    from batch_runner.report.metrics import write_metrics  # noqa: PLC0415

    if arguments.metrics is not None:
        try:
            write_metrics(arguments.metrics, ending, means.clock.now())
        except BatchRunnerError as error:
            means.say(error.message)
    await announce_end(batch.manifest.notify, ending, means)
    log.say(f"run ended with exit code {ending.exit_code:d}")


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
    from batch_runner.records import redact  # noqa: PLC0415 - heavy

    job = planned.job
    cost_usd = batch.estimate_usd(job) if planned.action == "submit" else None
    line = {
        "job": job.key,
        "fingerprint": job.fingerprint,
        "action": str(planned.action),
        "reason": planned.reason,
        "path": job.path,
        "input": redact(job.input),
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
        if arguments.attach:
            _require_token(batch)
        async with Run(batch, notice=_say).opened() as ledger:
            # Looked up again under the lock: a run may have ended since, and saved what it awaited.
            found = unknown_jobs(batch.output_dir, ledger.state, is_owner=True)
            chosen = found if arguments.all_jobs else choose(found, arguments.jobs)
            if arguments.attach and len(chosen) != 1:
                raise UsageError(
                    f"--attach settles one job, here are {len(chosen)}", hint="name its whole key"
                )
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


def _schedule(arguments: Arguments) -> int:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    manifest = _load(arguments)
    now = datetime.now(tz=UTC)
    kind = arguments.kind or ("systemd" if shutil.which("systemctl") else "cron")
    timer = _schedule_timer(arguments, manifest, kind)
    warnings = [
        timers.clock_warning(timer, now.year),
        timers.window_warning(timer, manifest.window, now),
        timers.cron_zone_warning(timer, now.year) if kind == "cron" else None,
    ]
    if kind == "github":
        _schedule_workflow(arguments, timer, manifest.output.dir, now.year)
    elif kind == "cron":
        _schedule_crontab(arguments, timer)
    else:
        _schedule_units(arguments, timer)
    for warning in filter(None, warnings):
        _say(f"warning: {warning}")
    return ExitCode.DONE


def _schedule_timer(arguments: Arguments, manifest: Manifest, kind: str) -> Timer:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    window = manifest.window
    at = arguments.at or (window.opens if window is not None else None)
    if at is None:
        raise UsageError(
            "the manifest has no window, so it does not say when to start",
            hint="add --at 22:00, or a window to the manifest",
        )
    timezone = arguments.timezone or (window.timezone if window is not None else None)
    if timezone is not None:
        timers.require_zone(timezone)
    name = timers.timer_name(manifest.name)
    log_file = arguments.log_file
    if log_file is not None and kind == "github":
        raise UsageError("GitHub keeps the log itself", hint="leave out --log-file")
    if log_file is None and kind == "cron":
        state = _own_folder("XDG_STATE_HOME", ".local/state")
        log_file = state / "batch-runner" / f"{name}.log"
    return timers.Timer(
        name=name,
        program=timers.program_words(Path(sys.executable)),
        manifest=timers.absolute(arguments.manifest),
        at=at,
        days=timers.parse_days(arguments.days),
        timezone=timezone,
        environment_file=_own_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "env",
        log_file=None if log_file is None else timers.absolute(log_file),
    )


def _schedule_units(arguments: Arguments, timer: Timer) -> None:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    folder = _own_folder("XDG_CONFIG_HOME", ".config") / "systemd" / "user"
    files = timers.systemd_files(timer, folder)
    if arguments.install:
        _schedule_written(timers.write_files(files, force=arguments.force))
        _schedule_environment(timer)
    else:
        _schedule_print(files)
    _schedule_next(timers.systemd_steps(timer, folder, installed=arguments.install))


def _schedule_crontab(arguments: Arguments, timer: Timer) -> None:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    block = timers.crontab_block(timer)
    if arguments.install:
        written = timers.install_crontab(block, timer.name, force=arguments.force)
        _say("the crontab has the line now" if written else "the crontab has the line already")
        _schedule_environment(timer)
    else:
        print(block, end="")
        _say("these lines go into your crontab: add --install, or crontab -e")
    _schedule_next(timers.cron_steps(timer, installed=arguments.install))


def _schedule_workflow(
    arguments: Arguments, timer: Timer, output_dir: Path, this_year: int
) -> None:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    folder = timers.find_repository(timer.manifest)
    source = timers.program_source(folder)
    place = timers.Repository(folder=folder, output_dir=output_dir, source=source)
    workflow = timers.workflow_file(timer, place, this_year)
    if arguments.install:
        _schedule_written(timers.write_files([workflow], force=arguments.force))
    else:
        _schedule_print([workflow])
    if source == timers.UNKNOWN_SOURCE:
        _say("warning: in the step 'Install', write from where GitHub can install batch-runner")
    _say(
        "warning: GitHub's cache may lose the ledger of a run, and the next run then buys its"
        " pictures again: set limits.cost_usd, or use a machine of your own"
    )
    _schedule_next(timers.github_steps(workflow.path))


def _schedule_print(files: Sequence[File]) -> None:
    print("\n".join(file.text for file in files), end="")
    _say(f"add --install to write: {', '.join(str(file.path) for file in files)}")


def _schedule_written(outcomes: Sequence[tuple[Path, bool]]) -> None:
    for path, is_new in outcomes:
        _say(f"{'written' if is_new else 'there already'}: {path}")


def _schedule_environment(timer: Timer) -> None:
    from batch_runner import timer as timers  # noqa: PLC0415 - heavy

    timers.make_log_folder(timer)
    if timers.write_environment_file(timer.environment_file):
        _say(f"written, for you alone: {timer.environment_file}")


def _schedule_next(steps: Sequence[str]) -> None:
    _say("next:")
    for step in steps:
        _say(f"  {step}")


def _own_folder(variable: str, usual: str) -> Path:
    """Return where a user's files of a kind go, by the XDG rules: relative paths do not count."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / usual


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
        async with contextlib.AsyncExitStack() as running:
            sandbox = await _start_sandbox(Sandbox(folder, sandbox_options), folder)
            running.push_async_exit(sandbox)
            yield Batch(manifest, msgspec.structs.replace(options, api_base=sandbox.url))


async def _start_sandbox(sandbox: Sandbox, folder: Path) -> Sandbox:
    try:
        return await sandbox.__aenter__()
    except BlockingIOError as error:
        raise LedgerLockedError(
            f"{folder.parent}: another run is at work here, in the sandbox",
            hint="wait for it to end, or stop it; this command can be run again at any time",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror or error}", hint="choose another output.dir"
        ) from error


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


def _environment_of_others() -> dict[str, str]:
    """Return the environment as notifications may see it: without the service's token."""
    token = _find_token()
    return {
        name: value
        for name, value in os.environ.items()
        if name not in TOKEN_VARIABLES and value.strip() != token
    }


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
        under_way.append(asyncio.ensure_future(run.leave(stop)))
        say("leaving now; the next run collects what is paid for")

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
        if number != signal.SIGINT:
            loop.call_later(grace_s, leave, stop)
        say("stopping: nothing more is submitted, what is paid for is collected; again to leave")
        if on_interrupt == "cancel":
            say("what the service has not begun yet is cancelled")
            under_way.append(asyncio.ensure_future(run.cancel_queued()))

    # What whoever started the program wants ignored (nohup) stays ignored.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _wording(arguments: Arguments) -> Wording:
    return {
        "run_again": _command_again(arguments, "run"),
        "resolve": _command_again(arguments, "resolve"),
        "is_sandbox": arguments.sandbox,
    }


def _command_again(arguments: Arguments, command: str) -> str:
    """Return the command line that goes on with this batch."""
    words = ["batch-runner", command]
    words += ["--sandbox"] if arguments.sandbox else []
    words += ["--api-base", arguments.api_base] if arguments.api_base else []
    if command == "run":
        # What kept this run small keeps the next one small: pasted advice must not buy more.
        words += ["--only", arguments.only] if arguments.only else []
        words += ["--limit", str(arguments.limit)] if arguments.limit else []
        words += ["--max-cost", str(arguments.max_cost)] if arguments.max_cost is not None else []
    return shlex.join([*words, str(arguments.manifest)])


def _both(first: Callable[[_T], None], second: Callable[[_T], None]) -> Callable[[_T], None]:
    def call(what: _T) -> None:
        first(what)
        second(what)

    return call


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
    "schedule": _schedule,
    "sandbox": _sandbox,
}
