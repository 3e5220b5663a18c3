"""The environment: the token, the API's origin, proxies.

Hides the names of variables and files, the vendor's included. What always holds: no
secret is in a message. Only this module reads `os.environ`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from batch_runner.errors import UsageError
from batch_runner.files.bucket import SETTING_PREFIXES
from batch_runner.service.network import Proxies

TOKEN_VARIABLES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY")
BASE_VARIABLES = ("RUNCOMFY_API_BASE", "RUNCOMFY_MODEL_API_BASE")

# The host may be an IPv6 address in brackets.
_PROXY = re.compile(r"https?://([^/\s]*@)?(\[[^]/@\s]+\]|[^][:/@\s]+)(:[1-9]\d{0,4})?/?")


def find_token() -> str | None:
    """Return the token, from the variables and the file that the vendor's own tools use."""
    token = from_environment(TOKEN_VARIABLES)
    if token is not None:
        return token
    try:
        # RuntimeError: no home, as for a bare user id in a container.
        saved = Path.home() / ".config" / "runcomfy" / "token.json"
        token = json.loads(saved.read_text(encoding="utf-8"))["access_token"]
    except (RuntimeError, OSError, ValueError, KeyError, TypeError):
        return None
    return token if isinstance(token, str) and token.strip() else None


def from_environment(names: Sequence[str]) -> str | None:
    """Return the first of these variables that is set and not empty."""
    return next(
        (os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), None
    )


def proxies() -> Proxies:
    """Return the proxies that the environment names; raises UsageError for any but HTTP proxies."""
    return Proxies(
        http=_proxy("http_proxy"),
        https=_proxy("https_proxy"),
        exempt=tuple((from_environment(("no_proxy", "NO_PROXY")) or "").replace(",", " ").split()),
    )


def _proxy(variable: str) -> str | None:
    # Lower case first, as curl does.
    text = from_environment((variable, variable.upper()))
    if text is None:
        return None
    url = text if "://" in text else f"http://{text}"
    if not _PROXY.fullmatch(url):
        # Not shown, because it may contain a password.
        raise UsageError(
            f"{variable.upper()} is not the address of an HTTP proxy",
            hint=f"set {variable.upper()}=http://HOST:PORT; other kinds of proxy are not supported",
        )
    return url


def bucket_settings() -> dict[str, str]:
    """Return the settings of object stores."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(SETTING_PREFIXES) and value.strip()
    }


def environment_of_others() -> dict[str, str]:
    """Return the environment for commands of the user: without the service's token."""
    token = find_token()
    return {
        name: value
        for name, value in os.environ.items()
        if name not in TOKEN_VARIABLES and value.strip() != token
    }
