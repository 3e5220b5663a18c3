"""The environment: the token, the API's origin, where a user's own files go."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from batch_runner.errors import UsageError

TOKEN_VARIABLES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
BASE_VARIABLES = ("RUNCOMFY_API_BASE", "RUNCOMFY_MODEL_API_BASE")

INDEX_VARIABLES = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX")


def shard_index(count: int) -> int:
    """Return which of `count` shards the scheduler that started this process means.

    How many there are never comes from the environment: a scheduler that repeats some indices of an
    array calls those few the array. Raises UsageError.
    """
    found = {name: os.environ[name].strip() for name in INDEX_VARIABLES if os.environ.get(name)}
    if not found:
        raise UsageError(
            f"--shard /{count} does not say which, and none of {', '.join(INDEX_VARIABLES)} is set",
            hint=f"name it, as in --shard 0/{count}",
        )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {value}" for name, value in found.items())
        raise UsageError(
            f"which shard this is, is told in different ways: {told}",
            hint=f"name it, as in --shard 0/{count}",
        )
    name, text = next(iter(found.items()))
    if not (text.isascii() and text.isdigit() and int(text) < count):
        raise UsageError(
            f"{name} is {text}, but the shards are 0 to {count - 1}",
            hint=f"let the array's indices begin at 0, as in sbatch --array=0-{count - 1}",
        )
    return int(text)


def find_token() -> str | None:
    """Find the token where the vendor's own tools keep it."""
    token = from_environment(TOKEN_VARIABLES)
    if token is not None:
        return token
    saved = Path.home() / ".config" / "runcomfy" / "token.json"
    try:
        token = json.loads(saved.read_text(encoding="utf-8"))["access_token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return token if isinstance(token, str) and token.strip() else None


def from_environment(names: Sequence[str]) -> str | None:
    """Return the first of the variables that is set to something."""
    return next(
        (os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), None
    )


def environment_of_others() -> dict[str, str]:
    """Return the environment as notifications may see it: without the service's token."""
    token = find_token()
    return {
        name: value
        for name, value in os.environ.items()
        if name not in TOKEN_VARIABLES and value.strip() != token
    }


def own_folder(variable: str, usual: str) -> Path:
    """Return where a user's files of a kind go, by the XDG rules: relative paths do not count."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / usual
