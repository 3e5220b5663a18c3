"""Whether a request at the service belongs to a job, judged by the input that the answer repeats.

Hides how an answer repeats an input: without secrets, signed anew, with defaults added. Pure.
Always holds: a missing or incomparable input is not a difference. Not promised: that two requests
without a difference are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from batch_runner.records import redact, redact_url, texts_in
from batch_runner.service.answer import Result
from batch_runner.text.shown import visible

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_BUCKET = re.compile(r"(?:s3|gs|az)://[^/]+/", re.IGNORECASE)
_SHOWN_CHARACTERS = 60


class Comparison(NamedTuple):
    """How what an answer repeats compares with what was sent.

    `difference` describes what rules the job out. `is_proven` means that the answer repeats the
    prompt and all pictures as they were sent.
    """

    difference: str | None
    is_proven: bool


def compare(model: str, sent: Mapping[str, Any], result: Result) -> Comparison:
    """Compare what was sent (redacted, as in the ledger) with what an answer repeats."""
    if result.model_id is not None and result.model_id != model:
        return _different("model", result.model_id, model)
    echoed, distinctive = result.input or {}, []
    for name, value in sent.items():
        alike = _alike(value, echoed[name]) if name in echoed else None
        if alike is False:
            return _different(name, echoed[name], value)
        # Many jobs share a format or a size; a prompt or a picture tells them apart.
        if "prompt" in name or name == "text" or any(map(_ADDRESS.match, texts_in(value))):
            distinctive.append(alike is True)
    return Comparison(None, bool(distinctive) and all(distinctive))


def _different(name: str, echoed: Any, sent: Any) -> Comparison:
    return Comparison(f"its {name} is {_shown(echoed)}, not {_shown(sent)}", False)


def _alike(sent: Any, echoed: Any) -> bool | None:
    """Return whether two values are the same; None if they cannot be compared."""
    if isinstance(sent, str) and isinstance(echoed, str):
        if _ADDRESS.match(sent) and _ADDRESS.match(echoed):
            return _alike_addresses(sent, echoed)
        return " ".join(sent.split()) == " ".join(echoed.split())
    if isinstance(sent, list) and isinstance(echoed, list):
        if len(sent) != len(echoed):
            return False
        found = [_alike(one, other) for one, other in zip(sent, echoed, strict=True)]
        return False if False in found else None if None in found else True
    numbers = (int, float)
    return sent == echoed if isinstance(sent, numbers) and isinstance(echoed, numbers) else None


def _alike_addresses(sent: str, echoed: str) -> bool | None:
    try:
        ours, theirs = urlsplit(redact_url(sent)), urlsplit(redact_url(echoed))
    except ValueError:
        return None
    bucket = _BUCKET.match(sent)
    if bucket is not None and theirs.scheme.startswith("http"):
        # An object in a bucket is sent as a signed address that ends in its name.
        return unquote(theirs.path).endswith("/" + unquote(sent[bucket.end() :]))
    if "data" in (ours.scheme, theirs.scheme) or ours.hostname != theirs.hostname:
        return None  # the ledger keeps no content; the service may name a copy of its own
    kept, answered = set(ours.query.split("&")), {"", *urlsplit(echoed).query.split("&")}
    return unquote(ours.path) == unquote(theirs.path) and kept <= answered


def _shown(value: Any) -> str:
    """Return a value for a message: short and without secrets."""
    text = ", ".join(map(str, value)) if isinstance(value := redact(value), list) else str(value)
    return f"'{visible(' '.join(text.split()), _SHOWN_CHARACTERS)}'"
