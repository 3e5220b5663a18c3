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

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_BUCKET = re.compile(r"(?:s3|gs|az)://[^/]+/", re.IGNORECASE)
_SERVICE_HOST = re.compile(r"(?:.*\.)?runcomfy\.(?:net|com)")
_SHOWN_CHARACTERS = 60
MODEL = "model"


class Comparison(NamedTuple):
    """How what an answer repeats compares with what was sent.

    `difference` names the input that rules the job out, or "model". `is_proven` means that the
    answer repeats the prompt and all pictures as they were sent.
    """

    difference: str | None
    is_proven: bool


def compare(model: str, sent: Mapping[str, Any], result: Result) -> Comparison:
    """Compare what was sent (redacted, as in the ledger) with what an answer repeats."""
    if result.model_id is not None and result.model_id != model:
        return Comparison(MODEL, False)
    echoed, distinctive = result.input or {}, []
    for name, value in sent.items():
        alike = _alike(value, echoed[name]) if name in echoed else None
        if alike is False:
            return Comparison(name, False)
        if _is_distinctive(name, value):
            distinctive.append(alike is True)
    return Comparison(None, bool(distinctive) and all(distinctive))


def difference_text(name: str, model: str, sent: Mapping[str, Any], result: Result) -> str:
    """Describe the difference that `compare` found."""
    if name == MODEL:
        return f"its model is {_shown(result.model_id)}, not {_shown(model)}"
    return f"its {name} is {_shown((result.input or {})[name])}, not {_shown(sent[name])}"


def _alike(sent: Any, echoed: Any) -> bool | None:
    """Return whether two values are the same; None if they cannot be compared."""
    if isinstance(sent, str) and isinstance(echoed, str):
        return _alike_texts(sent, echoed)
    if isinstance(sent, list) and isinstance(echoed, list):
        if len(sent) != len(echoed):
            return False
        found = [_alike(one, other) for one, other in zip(sent, echoed, strict=True)]
        return False if False in found else None if None in found else True
    numbers = (int, float)
    if isinstance(sent, numbers) and isinstance(echoed, numbers):
        return sent == echoed
    return None


def _alike_texts(sent: str, echoed: str) -> bool | None:
    if not (_ADDRESS.match(sent) and _ADDRESS.match(echoed)):
        return " ".join(sent.split()) == " ".join(echoed.split())
    if "data:" in (sent[:5].lower(), echoed[:5].lower()):
        return None  # the ledger does not keep content
    if _is_same_address(sent, echoed):
        return True
    bucket = _BUCKET.match(sent)
    if bucket is not None and not _BUCKET.match(echoed):
        # An object in a bucket is sent as a signed address that ends in its name.
        return unquote(urlsplit(echoed).path).endswith("/" + unquote(sent[bucket.end() :]))
    if _is_services(echoed) and not _is_services(sent):
        return None  # the service's own copy of the picture
    return False


def _is_same_address(sent: str, echoed: str) -> bool:
    """Return whether an address is the sent one, except for what the ledger leaves out."""
    address, kept = _parts(redact_url(sent))
    other, all_ = _parts(echoed)
    return address in (other, _parts(redact_url(echoed))[0]) and kept <= all_


def _parts(url: str) -> tuple[str, set[str]]:
    """Return an address without its query, and the query's parameters."""
    address, _, query = url.partition("#")[0].partition("?")
    scheme, colon, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    pairs = {unquote(pair) for pair in query.split("&") if pair}
    return f"{scheme.lower()}{colon}{host.lower()}{slash}{unquote(path)}", pairs


def _is_services(url: str) -> bool:
    try:
        return _SERVICE_HOST.fullmatch(urlsplit(url).hostname or "") is not None
    except ValueError:
        return False


def _is_distinctive(name: str, sent: Any) -> bool:
    """Return whether an input is a prompt or a picture. Many jobs share a format or a size."""
    return "prompt" in name or name == "text" or any(map(_ADDRESS.match, texts_in(sent)))


def _shown(value: Any) -> str:
    """Return a value for a message: short and without secrets."""
    text = ", ".join(map(str, value)) if isinstance(value := redact(value), list) else str(value)
    text = " ".join(text.split())
    return f"'{text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + '…'}'"
