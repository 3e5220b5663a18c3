"""The code and message of an error, in any of the shapes that the service uses.

Hides those shapes. Always holds: pure; messages are short, without signatures and tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_runner.records import redact_text

MESSAGE_LIMIT_CHARACTERS = 300

_CODES = ("code", "errorCode", "error_code")
_MESSAGES = ("message", "error_message", "msg", "error", "detail")


def read_error(body: Any) -> tuple[int | None, str]:
    """Return the code and the message of an error body."""
    places = _places(body)
    # A code can also be a word ("invalid_input"), with the number elsewhere in the body.
    codes = (read_whole(place.get(name)) for place in places for name in _CODES)
    code = next((code for code in codes if code is not None), None)
    texts = (place.get(name) for place in reversed(places) for name in _MESSAGES)
    message = next((text for text in texts if isinstance(text, str) and text), "")
    details = next(filter(None, map(_details, reversed(places))), "")
    words = ": ".join(filter(None, (message, details)))
    return code, redact_text(words)[:MESSAGE_LIMIT_CHARACTERS]


def failure_reason(body: dict[str, Any]) -> str:
    """Return the service's word for a failure, or "failed"."""
    codes = (place.get(name) for place in reversed(_places(body)) for name in _CODES)
    words = (code for code in codes if isinstance(code, str) and code and read_whole(code) is None)
    return next(words, "failed").replace("_", " ")[:60]


def _places(body: Any) -> list[dict[str, Any]]:
    """Return the objects that may describe the error: the body, and what is inside it."""
    if not isinstance(body, dict):
        return []
    inner = [body.get("error"), body.get("detail")]
    first = [one[0] if isinstance(one, list) and one else one for one in inner]
    return [body, *(one for one in first if isinstance(one, dict) and "loc" not in one)]


def _details(place: dict[str, Any]) -> str:
    """Return the messages about single fields: `[{loc, msg}]`, or any other list."""
    lists = (place.get(name) for name in ("detail", "details", "errors"))
    details: list[Any] = next((one for one in lists if isinstance(one, list)), [])
    return "; ".join(_detail(detail) for detail in details)


def _detail(detail: Any) -> str:
    words = detail.get("msg") if isinstance(detail, dict) else detail
    if not isinstance(words, str):
        return msgspec.json.encode(detail).decode()
    where = detail.get("loc") if isinstance(detail, dict) else None
    names = where if isinstance(where, list) else []
    named = ".".join(str(name) for name in names if isinstance(name, str | int))
    return f"{named}: {words}" if named else words


def read_whole(value: Any) -> int | None:
    """Return a whole number, also from text, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
