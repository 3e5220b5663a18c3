"""`fleet`: hand the batch to an engine of many machines."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch_runner.arguments import Arguments, parse
from batch_runner.commands import run
from batch_runner.commands.console import complain, say
from batch_runner.commands.environment import own_folder
from batch_runner.commands.opening import check_jobs, find_service, load
from batch_runner.errors import BatchRunnerError, ExitCode, UsageError
from batch_runner.fleet import job_file
from batch_runner.manifest.form import Manifest
from batch_runner.records import LEDGER_VERSION, LedgerHeader
from batch_runner.schedule.timer import absolute, program_source, program_words, timer_name
from batch_runner.service import is_loopback, parse_origin
from batch_runner.shards.quota import deal_limits
from batch_runner.shards.shard import Shard
from batch_runner.version import PROGRAM


def execute(arguments: Arguments) -> int:
    """Print a job file, or run the shards on Ray."""
    manifest = load(arguments)
    _check(arguments, manifest)
    if arguments.engine == "ray":
        return _run_on_ray(arguments, manifest)
    fleet = job_file.Fleet(
        name=timer_name(manifest.name),
        manifest=manifest,
        manifest_path=absolute(arguments.manifest),
        shards=arguments.shards,
        grace_s=int(arguments.grace_s),
        program=program_words(Path(sys.executable)),
        environment_file=own_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "env",
        image=arguments.image or job_file.UNKNOWN_IMAGE,
        source=program_source(arguments.manifest.parent),
    )
    text = job_file.job_file(arguments.engine, fleet)
    print(text, end="")
    name = text.splitlines()[1 if text.startswith("#!") else 0].strip("# ").partition(",")[0]
    say(f"save it as {name} and read it; next:")
    for step in job_file.next_steps(arguments.engine, fleet, name):
        say(f"  {step}")
    return ExitCode.DONE


def _check(arguments: Arguments, manifest: Manifest) -> None:
    """Refuse here what each shard would refuse, or what would be obeyed by nobody."""
    if arguments.address is not None and arguments.engine != "ray":
        raise UsageError("--address is for ray", hint="leave it out")
    if arguments.image is not None and arguments.engine not in ("kubernetes", "aws-batch"):
        raise UsageError("--image is for kubernetes and aws-batch", hint="leave it out")
    header = LedgerHeader(
        version=LEDGER_VERSION, at=datetime.now(tz=UTC), program=PROGRAM, service=""
    )
    deal_limits(manifest.limits, Shard(0, arguments.shards), header)
    api_base, _ = find_service(arguments)
    if manifest.uploads is None and not is_loopback(parse_origin(api_base)):
        check_jobs(arguments, manifest)


def _run_on_ray(arguments: Arguments, manifest: Manifest) -> int:
    if importlib.util.find_spec("ray") is None:
        raise UsageError("Ray is not installed here", hint="pip install 'batch-runner[ray]'")
    # Ray tells its makers about its use unless somebody says otherwise; a user still can.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    from batch_runner.fleet import cluster  # noqa: PLC0415 - it takes a second to import Ray

    path = str(absolute(arguments.manifest))
    words = ["run", path, "--grace", f"{arguments.grace_s:g}", "--quiet"]
    if manifest.window is not None:
        words.append("--wait")
    shards = arguments.shards
    commands = [[*words, "--shard", f"{shard}/{shards}"] for shard in range(shards)]
    say(f"{shards} shards, on Ray {f'at {where}' if (where := arguments.address) else 'here'}")
    cluster.start_ray(arguments.address, shards)
    # What shards trade is on their own disks: not where their ledgers are to outlive those.
    trades = manifest.limits.shared is None and manifest.output.ledger_copy is None
    limiter = cluster.start_limiter() if trades else None
    work = run_trading_shard if trades else run_shard
    tasks = cluster.ShardTasks(work, commands, say)
    # Ray makes SIGTERM end everything at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tasks.start()
        code = tasks.wait()
    except KeyboardInterrupt:
        say("stopping: the shards submit nothing more and collect what is paid for; again to leave")
        tasks.stop()
        code = tasks.wait()
    del limiter  # it lives as long as somebody here knows it
    say(f"the whole batch: batch-runner status {shlex.quote(str(arguments.manifest))}")
    return code


def run_trading_shard(words: list[str]) -> int:
    """Run one shard, which trades its part of the limits with the others: its exit code."""
    from batch_runner.fleet.cluster import ActorServer  # noqa: PLC0415 - see above

    return run_shard(words, ActorServer())


def run_shard(words: list[str], shared_through: Any = None) -> int:
    """Run one shard's command line in this process, a worker of Ray: its exit code."""
    try:
        arguments = parse(words)
        arguments.shared_through = shared_through
        return run.execute(arguments)
    except BatchRunnerError as error:
        complain(error)
        return error.exit_code
