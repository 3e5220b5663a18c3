"""What a command works on: the manifest, batch and service that its arguments name.

Hides where options come from (command line or environment), and starts the sandbox if `--sandbox`
is given. What always holds: the sandbox stops when the command ends.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.console import is_interactive
from batch_runner.commands.environment import (
    BASE_VARIABLES,
    TOKEN_VARIABLES,
    bucket_settings,
    find_token,
    from_environment,
    proxies,
)
from batch_runner.commands.process import prepare_for_many_jobs
from batch_runner.errors import AccessRefusedError, UsageError
from batch_runner.files.disk import storage_error
from batch_runner.jobs.selection import read_selection
from batch_runner.ledger.lock import locked, owner_of
from batch_runner.manifest.form import Manifest
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import known_only_here
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.service.call import Service
from batch_runner.service.network import API_BASE, is_loopback, parse_origin

_TABLES = (".csv", ".tsv", ".jsonl", ".xlsx")
SANDBOX_TOKEN = "sandbox"  # noqa: S105 - opens nothing but the sandbox


def load(arguments: BatchArguments) -> Manifest:
    """Load the manifest."""
    path = arguments.manifest
    if path.suffix.lower() in _TABLES and path.is_file():
        draft = shlex.join(["batch-runner", "init", "--from", str(path)])
        raise UsageError(
            f"{path}: is a table, not a manifest", hint=f"draft a manifest for it with: {draft}"
        )
    prepare_for_many_jobs()
    return load_manifest(arguments.manifest)


def find_service(arguments: BatchArguments) -> tuple[str, str | None]:
    """Return the origin of the service, and the token, if there is one."""
    if arguments.sandbox:
        return "http://127.0.0.1", SANDBOX_TOKEN
    api_base = arguments.api_base or from_environment(BASE_VARIABLES) or API_BASE
    token = find_token()
    if token is None and is_loopback(parse_origin(api_base)):
        token = SANDBOX_TOKEN
    return api_base, token


def read_batch(arguments: BatchArguments) -> Batch:
    """Return the batch for commands that read its ledger only."""
    manifest = load(arguments)
    return Batch(manifest, run_options(arguments, manifest))


def run_options(arguments: BatchArguments, manifest: Manifest) -> RunOptions:
    """Return the settings of a run that are not in its manifest."""
    api_base, token = find_service(arguments)
    output_dir: Path | None = None
    if arguments.sandbox and arguments.shard is not None:
        raise UsageError(
            "--shard does not work with --sandbox: each shard would start its own sandbox",
            hint="start batch-runner sandbox, and run each shard with its address in --api-base",
        )
    if arguments.sandbox:
        # A rehearsal has its own folder: nobody must mistake its pictures for bought ones.
        output_dir = manifest.output.dir.with_name(f"{manifest.output.dir.name}-sandbox")
    return RunOptions(
        api_base=api_base,
        token=token,
        limit=arguments.limit,
        only=read_selection(arguments.only),
        retry=tuple(arguments.retry),
        max_cost_usd=arguments.max_cost,
        wait=arguments.wait,
        ignore_window=arguments.now or is_loopback(parse_origin(api_base)),
        output_dir=output_dir,
        shard=arguments.shard,
        bucket_settings={} if arguments.sandbox else bucket_settings(),
        proxies=proxies(),
        rehearsal=arguments.sandbox,
        accept=tuple(arguments.accept),
        confirm_cost=is_interactive() and token != SANDBOX_TOKEN,
    )


@contextlib.asynccontextmanager
async def open_batch(arguments: BatchArguments, *, for_run: bool = True) -> AsyncIterator[Batch]:
    """Open the batch; with `--sandbox`, start the sandbox first."""
    if arguments.faults and not arguments.sandbox:
        raise UsageError("--faults needs --sandbox", hint="add --sandbox")
    manifest = load(arguments)
    options = run_options(arguments, manifest)
    if not arguments.sandbox:
        yield Batch(manifest, options)
        return
    # A plan leaves no traces, so its sandbox gets a temporary folder.
    folder = (options.output_dir or manifest.output.dir) / ".sandbox" if for_run else None
    schemas = known_only_here(manifest)
    async with _sandbox(folder, faults=arguments.faults, schemas=schemas) as api_base:
        yield Batch(manifest, msgspec.structs.replace(options, api_base=api_base))


@contextlib.asynccontextmanager
async def open_service(arguments: BatchArguments) -> AsyncIterator[Service]:
    """Open the service for a command without a manifest; refuses to go on without a token."""
    api_base, token = find_service(arguments)
    async with contextlib.AsyncExitStack() as stack:
        if arguments.sandbox:
            api_base = await stack.enter_async_context(_sandbox(None))
        require_token(token)
        yield await stack.enter_async_context(Service(api_base, token, proxies()))


@contextlib.asynccontextmanager
async def _sandbox(
    folder: Path | None, *, faults: str = "", schemas: Mapping[str, Mapping[str, Any]] | None = None
) -> AsyncIterator[str]:
    """Run the sandbox, in a temporary folder if there is no other, and return its origin."""
    from batch_runner.sandbox import Sandbox, SandboxOptions  # noqa: PLC0415 - only rehearsals

    options = SandboxOptions(faults=faults, schemas=schemas or {})
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            sandbox = await stack.enter_async_context(Sandbox(folder, options))
        except BlockingIOError as error:
            # A run is named in the ledger that it locks; other commands lock only the sandbox.
            owner = owner_of(folder.parent) or "another command that uses the sandbox"
            raise locked(folder.parent, owner) from error
        except OSError as error:
            raise storage_error(folder, error) from error
        yield sandbox.url


def require_token(token: str | None) -> None:
    """Raise AccessRefusedError without a token."""
    if token is None:
        raise AccessRefusedError(
            "no token for the service is set",
            hint=f"set {TOKEN_VARIABLES[0]}, or rehearse with --sandbox",
        )
