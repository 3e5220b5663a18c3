"""`schema`: the form of a manifest, the models' inputs that are known here, and the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batch_runner.arguments import Arguments
from batch_runner.catalog import (
    keep_own_schema,
    own_models,
    own_schema,
    shipped_models,
    shipped_schema,
)
from batch_runner.commands.console import say
from batch_runner.commands.environment import needed_folder, schemas_dir
from batch_runner.errors import (
    BatchRunnerError,
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    UsageError,
    did_you_mean,
)
from batch_runner.manifest.form import manifest_schema
from batch_runner.manifest.loading import is_model_id

_ADD = "add"


def execute(arguments: Arguments) -> int:
    """Print a schema, or keep one."""
    if arguments.name == _ADD and not arguments.list_models:
        return _add(arguments)
    if arguments.file is not None or arguments.model is not None:
        raise UsageError(
            "FILE and --model stand after the word add",
            hint="batch-runner schema add FILE --model ID",
        )
    if arguments.list_models:
        print("\n".join(sorted({*shipped_models(), *_own_models()})))
        return ExitCode.DONE
    print(json.dumps(_find(arguments.name), indent=2, ensure_ascii=False))
    return ExitCode.DONE


def _find(name: str | None) -> dict[str, Any]:
    if name is None:
        return manifest_schema()
    folder = schemas_dir()
    schema = shipped_schema(name) or (own_schema(folder, name) if folder else None)
    if schema is None:
        raise InputMissingError(
            f"no schema ships for the model '{name}', and you added none",
            hint=did_you_mean(name, [*shipped_models(), *_own_models()]),
        )
    return schema


def _own_models() -> list[str]:
    folder = schemas_dir()
    return [] if folder is None else own_models(folder)


def _add(arguments: Arguments) -> int:
    if arguments.file is None:
        raise UsageError(
            "schema add needs the file to keep", hint="batch-runner schema add FILE --model ID"
        )
    model_id, schema = _read(arguments.file, arguments.model)
    folder = needed_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "schemas"
    was_there = own_schema(folder, model_id) is not None
    try:
        path = keep_own_schema(folder, model_id, schema)
    except ValueError as error:
        raise _invalid(arguments.file, f"is no input schema: {error}") from error
    say(f"{model_id}: {'replaced' if was_there else 'kept'} in {path}")
    if shipped_schema(model_id) is not None:
        say("a schema of this model ships, and is used before yours")
    else:
        say("used where the service publishes none; to forget it, remove the file")
    return ExitCode.DONE


def _read(path: Path, model_id: str | None) -> tuple[str, dict[str, Any]]:
    """Read a schema, bare or in the service's answer about its model, which names it."""
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputMissingError(
            f"{path}: no such file", hint="name the file that holds the schema"
        ) from error
    except OSError as error:
        raise InputMissingError(
            f"{path}: cannot be read: {error.strerror}", hint="look at its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise _invalid(path, "is no input schema: it is not a mapping")
    model_id = model_id or read.get("model_id")
    if model_id is None:
        raise UsageError(
            f"{path} does not say whose schema it is",
            hint="add --model ID, such as --model google/nano-banana-2/edit",
        )
    if not (isinstance(model_id, str) and is_model_id(model_id)):
        raise UsageError(f"'{model_id}' is no model_id", hint="such as google/nano-banana-2/edit")
    schema = read.get("input_schema", read)
    if not isinstance(schema, dict):
        raise _invalid(path, "is no input schema: it is not a mapping")
    return model_id, schema


def _invalid(path: Path, what: str) -> BatchRunnerError:
    hint = 'it has to be JSON such as {"properties": {"prompt": {"type": "string"}}}'
    return ManifestError([Problem(str(path), None, what, hint)])
