"""The environment: the token, the API's origin, where a user's own files go."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

TOKEN_VARIABLES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
BASE_VARIABLES = ("RUNCOMFY_API_BASE", "RUNCOMFY_MODEL_API_BASE")


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
