"""argv in, exit code out.

Hides argparse, the environment, signals and everything that is printed. What always holds: stdout
is data, stderr is for people; every way to end has its exit code (`errors`); no traceback reaches a
user unless it is a bug of this program; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
DEFAULT_GRACE_S = 30.0

_EPILOG = """\
exit codes:
  0 all done · 1 a bug · 3 some jobs failed or are unknown · 64 usage · 65 manifest or table invalid
  66 no such file · 69 service unavailable · 74 disk or ledger · 75 stopped early, run it again
  77 token refused or no balance · 130 interrupted
"""


class Arguments(argparse.Namespace):
    """What was asked for, typed."""

    command: Callable[[Arguments], int]
    manifest: Path
    sandbox: bool = False
    faults: str = ""
    api_base: str | None = None
    limit: int | None = None
    only: str | None = None
    retry: list[str]
    max_cost: Decimal | None = None
    dry_run: bool = False
    json: bool = False
    quiet: bool = False
    grace_s: float = DEFAULT_GRACE_S
    name: str | None = None
    list_models: bool = False
    jobs: list[str]
    all_jobs: bool = False
    attach: str | None = None
    resubmit: bool = False
    abandon: bool = False
    fix: bool = False
    port: int = 8642
    folder: Path = Path()
    seed: int = 0
    capacity: int = 8
    run_s: tuple[float, float] = (0.3, 1.2)


class _Parser(argparse.ArgumentParser):
    """Reports misuse as everything else is reported: message, hint, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        parsed = _parse(arguments)
        return parsed.command(parsed)
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


def _parse(arguments: Sequence[str] | None) -> Arguments:
    """Parse, letting keys stand behind options: argparse alone takes them only before."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments, namespace=Arguments())
    if rest and (not hasattr(parsed, "jobs") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.jobs = [*parsed.jobs, *rest]
    return parsed


def build_parser() -> argparse.ArgumentParser:
    """Declare every command and option."""
    parser = _Parser(
        prog="batch-runner",
        description="Edit pictures in bulk: never pay twice, never lose what was paid for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_plan(commands)
    _add_status(commands)
    _add_verify(commands)
    _add_resolve(commands)
    _add_cancel(commands)
    _add_schema(commands)
    _add_sandbox(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from batch_runner.version import PROGRAM  # noqa: PLC0415 - see above

        print(PROGRAM)
        parser.exit()


def _add_batch_options(parser: argparse.ArgumentParser, *, only: bool = True) -> None:
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="use the built-in stand-in for the service: no token, no cost, a folder of its own",
    )
    parser.add_argument("--api-base", metavar="URL", help="the origin of the service's API")
    if only:
        parser.add_argument("--only", metavar="GLOB", help="only the jobs whose key matches")
    parser.add_argument("--json", action="store_true", help="print JSON lines for machines")


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run or resume a batch; always safe to run again",
        description="Run a manifest, or go on with it: what is done is never bought again.",
    )
    _add_batch_options(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="submit at most N jobs this time")
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "unknown", "all"),
        help="submit these again, as a new generation that is paid for",
    )
    parser.add_argument(
        "--max-cost", type=_money, metavar="USD", help="the budget, instead of limits.cost_usd"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the summary")
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=DEFAULT_GRACE_S,
        metavar="S",
        help="after SIGTERM, seconds to collect what is paid for (default: %(default)g)",
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="with --sandbox: rehearse faults, such as lost-answer=5%%,error-500=2%%",
    )
    parser.set_defaults(command=_run)


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="print what run would do and cost; changes nothing",
        description="Print what run would do with each job, why, and what it would cost.",
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "unknown", "all"),
        help="plan as run --retry would",
    )
    parser.add_argument(
        "--max-cost", type=_money, metavar="USD", help="the budget, instead of limits.cost_usd"
    )
    parser.set_defaults(command=_plan)


def _add_status(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="count the jobs by how they stand",
        description="Count the manifest's jobs by how they stand in the ledger; needs no network.",
    )
    _add_batch_options(parser)
    parser.set_defaults(command=_status)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="compare every saved file with the ledger; --fix fetches again for free",
        description="Compare every saved file with its SHA-256. One line a difference:"
        " '-' the file is missing, '*' its content differs.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument(
        "--fix", action="store_true", help="put such files back; downloads again, buys nothing"
    )
    parser.set_defaults(command=_verify)


def _add_resolve(commands: Any) -> None:
    parser = commands.add_parser(
        "resolve",
        help="list and settle the jobs of which nobody knows whether they were bought",
        description="List the unknown jobs, or settle the ones named: each needs your word.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="a job's key, or a glob over keys")
    parser.add_argument(
        "--all", dest="all_jobs", action="store_true", help="settle all unknown jobs"
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--attach", metavar="REQUEST_ID", help="the job is this request: collect it")
    words.add_argument("--resubmit", action="store_true", help="buy it anew with the next run")
    words.add_argument("--abandon", action="store_true", help="never mind it")
    parser.set_defaults(command=_resolve)


def _add_cancel(commands: Any) -> None:
    parser = commands.add_parser(
        "cancel",
        help="cancel what is still queued at the service",
        description="Cancel the requests that have not begun; the others are collected by run.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="only these keys or globs")
    parser.set_defaults(command=_cancel)


def _add_schema(commands: Any) -> None:
    parser = commands.add_parser(
        "schema",
        help="print the manifest's JSON Schema, or a model's input schema",
        description="Print the JSON Schema of manifests, or the input schema that ships for MODEL.",
    )
    parser.add_argument("name", nargs="?", metavar="MODEL", help="a model_id")
    parser.add_argument(
        "--list",
        dest="list_models",
        action="store_true",
        help="list the models whose schema ships",
    )
    parser.set_defaults(command=_schema)


def _add_sandbox(commands: Any) -> None:
    parser = commands.add_parser(
        "sandbox",
        help="serve the stand-in for the service until stopped",
        description="Serve the stand-in for the service on this machine, until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=8642, help="default: %(default)s; 0: any")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/sandbox"),
        help="where it keeps its requests (default: %(default)s)",
    )
    parser.add_argument("--capacity", type=_count, default=8, help="requests worked on at once")
    parser.add_argument(
        "--run-s",
        type=_range,
        default=(0.3, 1.2),
        metavar="LEAST,MOST",
        help="seconds of work a request takes (default: 0.3,1.2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of durations and faults")
    parser.add_argument(
        "--faults", default="", metavar="SPEC", help="NAME=SHARE,…; '--faults list' explains them"
    )
    parser.set_defaults(command=_sandbox)


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
            with _signals(run, progress.say, arguments.grace_s):
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
def _signals(run: Run, say: Callable[[str], None], grace_s: float) -> Iterator[None]:
    """Once: stop submitting, collect what is paid for. Twice: leave; all requests are on disk."""
    from batch_runner.runner import Stop  # noqa: PLC0415 - heavy

    loop = asyncio.get_running_loop()
    pressed: list[int] = []
    leaving: list[asyncio.Future[None]] = []

    def leave(stop: Stop) -> None:
        say("leaving now; the next run collects what is paid for")
        leaving.append(asyncio.ensure_future(run.leave(stop)))

    def on_signal(number: int) -> None:
        pressed.append(number)
        if number == signal.SIGINT:
            stop = Stop("interrupted", "interrupted by Ctrl-C")
        else:
            stop = Stop("terminated", f"ended by {signal.Signals(number).name}")
        if len(pressed) > 1:
            leave(stop)
            return
        run.drain(stop)
        say(
            "stopping: nothing more is submitted, what is paid for is collected; again to leave now"
        )
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


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of USD such as 40 or 0.05")
    return amount


def _range(text: str) -> tuple[float, float]:
    least, _, most = text.partition(",")
    try:
        return float(least), float(most or least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LEAST,MOST such as 0.3,1.2") from None


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _complain(error: BatchRunnerError) -> None:
    _say(error.message)
    if error.hint is not None:
        _say(f"hint: {error.hint}")
