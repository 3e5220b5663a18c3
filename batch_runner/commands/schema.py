"""`schema`: the form of a manifest, and the models' inputs that ship."""

from __future__ import annotations

import json

from batch_runner.arguments import Arguments
from batch_runner.catalog import shipped_models, shipped_schema
from batch_runner.errors import ExitCode, InputMissingError, did_you_mean
from batch_runner.manifest import manifest_schema


def execute(arguments: Arguments) -> int:
    """Print a schema."""
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
