"""`models`: lists the service's models and prices; prints and keeps their input schemas."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

from batch_runner.commands.arguments import BatchArguments, add_service_options
from batch_runner.commands.console import say, show
from batch_runner.commands.context import open_service
from batch_runner.commands.environment import schemas_dir, settings_folder
from batch_runner.commands.output import print_lines
from batch_runner.errors import (
    BatchRunnerError,
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    ServiceUnavailableError,
    UsageError,
    did_you_mean,
)
from batch_runner.manifest.loading import is_model_id
from batch_runner.models.catalog import (
    ListedModel,
    keep_own_schema,
    own_models,
    own_schema,
    read_listed,
    shipped_models,
    shipped_schema,
)
from batch_runner.report.text import models_text
from batch_runner.service.answer import Meaning
from batch_runner.service.network import token_refused


class Arguments(BatchArguments):
    """The options of `models`."""

    json: bool
    search: str
    category: str
    schema_of: str | None
    add: Path | None
    model: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "List the service's models with their prices, or print or add a model's input schema."
    )
    parser.add_argument(
        "search", nargs="?", default="", metavar="SEARCH", help="only models that match these words"
    )
    parser.add_argument(
        "--category",
        default="",
        metavar="NAME",
        help="only models of this category, such as image-edit or image-to-video",
    )
    add_service_options(parser)
    parser.add_argument(
        "--schema",
        dest="schema_of",
        metavar="ID",
        help="print the input schema of this model, if the program has one or you added it",
    )
    parser.add_argument(
        "--add",
        type=Path,
        metavar="FILE",
        help="add the input schema in FILE, for a model whose schema the service does not publish",
    )
    parser.add_argument(
        "--model", metavar="ID", help="with --add: the schema's model, if FILE does not name it"
    )


def execute(arguments: Arguments) -> int:
    """List the service's models, or print or add the input schema of one."""
    if arguments.add is not None:
        return _add(arguments.add, arguments.model)
    if arguments.model is not None:
        raise UsageError("--model needs --add FILE", hint="to list models, leave it out")
    if arguments.schema_of is not None:
        print(json.dumps(_find(arguments.schema_of), indent=2, ensure_ascii=False))
        return ExitCode.DONE
    models = asyncio.run(_ask(arguments))
    if arguments.json:
        print_lines(models)
    elif models:
        show(models_text(models))
    if models:
        say(f"{len(models)} {'model' if len(models) == 1 else 'models'}")
    else:
        words = ["batch-runner", "models", *(["--sandbox"] if arguments.sandbox else [])]
        words += ["--api-base", arguments.api_base] if arguments.api_base else []
        say("the service has no such model")
        say(f"hint: search for a shorter part of the name, or list all: {shlex.join(words)}")
    return ExitCode.DONE


async def _ask(arguments: Arguments) -> list[ListedModel]:
    async with open_service(arguments) as service:
        verdict, entries = await service.models(arguments.search, arguments.category)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(verdict.message)
    if verdict.meaning is not Meaning.OK:
        raise ServiceUnavailableError(
            f"the service did not list its models ({verdict.reason}: {verdict.message})",
            hint="try again later; batch-runner models --schema ID needs no service",
        )
    listed = (read_listed(entry) for entry in entries)
    models = [model for model in listed if model is not None]
    # Cheapest first, models without a price last.
    return sorted(models, key=lambda one: (one.price_usd is None, one.price_usd or 0, one.model_id))


def _find(name: str) -> dict[str, Any]:
    folder = schemas_dir()
    schema = shipped_schema(name) or (own_schema(folder, name) if folder else None)
    if schema is None:
        raise InputMissingError(
            f"no schema of the model '{name}' is known",
            hint=did_you_mean(name, [*shipped_models(), *(own_models(folder) if folder else [])]),
        )
    return schema


def _add(file: Path, named: str | None) -> int:
    model_id, schema = _read(file, named)
    folder = settings_folder() / "batch-runner" / "schemas"
    was_there = own_schema(folder, model_id) is not None
    try:
        path = keep_own_schema(folder, model_id, schema)
    except ValueError as error:
        raise _invalid(file, f"not an input schema: {error}") from error
    say(f"{model_id}: {'replaced' if was_there else 'added'}: {path}")
    if shipped_schema(model_id) is not None:
        say("the program has its own schema of this model, and uses that one")
    else:
        say("used if the service publishes none; to remove it, delete the file")
    return ExitCode.DONE


def _read(path: Path, model_id: str | None) -> tuple[str, dict[str, Any]]:
    """Read a schema, bare or inside the service's answer about its model, which names the model."""
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputMissingError(
            f"{path}: no such file", hint="name the file with the schema"
        ) from error
    except OSError as error:
        raise InputMissingError(
            f"{path}: cannot read it: {error.strerror}", hint="check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"not JSON: {error}") from error
    if not isinstance(read, dict):
        raise _invalid(path, "not an input schema: it is not a mapping")
    model_id = model_id or read.get("model_id")
    if model_id is None:
        raise UsageError(
            f"{path} does not name its model",
            hint="add --model ID, such as --model google/nano-banana-2/edit",
        )
    if not (isinstance(model_id, str) and is_model_id(model_id)):
        raise UsageError(
            f"'{model_id}' is not a model_id", hint="write it as in google/nano-banana-2/edit"
        )
    schema = read.get("input_schema", read)
    if not isinstance(schema, dict):
        raise _invalid(path, "not an input schema: it is not a mapping")
    return model_id, schema


def _invalid(path: Path, what: str) -> BatchRunnerError:
    hint = 'it must be JSON such as {"properties": {"prompt": {"type": "string"}}}'
    return ManifestError([Problem(str(path), None, what, hint)])
