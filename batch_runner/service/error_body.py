"""The code and message of an error, in any of the shapes that the service uses.

Hides those shapes. Always holds: pure; messages are short, without signatures and tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_runner.records import redact_text

MESSAGE_LIMIT_CHARACTERS = 300


def read_error(body: Any) -> tuple[int | None, str]:
    """Return the code and the message of an error body."""
    if not isinstance(body, dict):
        return None, ""
    places = [body]
    for inner in (body.get("error"), body.get("detail")):
        listed = inner[:1] if isinstance(inner, list) else [inner]
        places += [place for place in listed if isinstance(place, dict) and "loc" not in place]
    # A code can also be a word ("invalid_input"), with the number elsewhere in the body.
    names = ("code", "error_code", "errorCode")
    codes = (read_whole(place.get(name)) for place in places for name in names)
    code = next((code for code in codes if code is not None), None)
    message = ""
    for place in reversed(places):
        texts = (place.get(name) for name in ("message", "error_message", "msg", "error", "detail"))
        message = message or next((text for text in texts if isinstance(text, str) and text), "")
    details = next((_details(place) for place in reversed(places) if _details(place)), "")
    if message and details:
        message = f"{message}: {details}"
    return code, redact_text(message or details)[:MESSAGE_LIMIT_CHARACTERS]


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


def failure_reason(body: dict[str, Any]) -> str:
    """Return the service's word for a failure, or "failed"."""
    error = body.get("error")
    error = error[0] if isinstance(error, list) and error else error
    places = [error, body] if isinstance(error, dict) else [body]
    for place in places:
        for name in ("code", "errorCode", "error_code"):
            code = place.get(name)
            if isinstance(code, str) and code and read_whole(code) is None:
                return code.replace("_", " ")[:60]
    return "failed"


def read_whole(value: Any) -> int | None:
    """Return a whole number, also from text, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
