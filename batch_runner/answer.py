"""What an answer of the service means.

Hides the shapes of its answers, its codes and its states. What always holds: `classify` is a pure
function of what came back, never of a message's text; about a POST it says "not accepted" only
where that is certain, and everything else is UNKNOWN.
Facts are from the service's published documentation and its vendor's own clients.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import msgspec

from batch_runner.records import is_request_id, redact_text

_MESSAGE_LIMIT_CHARACTERS = 300
_NESTING_LIMIT = 8
_COST_LIMIT_USD = Decimal(1_000_000)

NO_SUCH_MODEL = 400001
NO_BALANCE = 400002
TOKEN_REFUSED = 400004
OTHER_ACCOUNT = 403001
NOT_FOUND = 404001

_WAITING_STATES = frozenset(("in_queue", "queued", "pending", "waiting"))
_RUNNING_STATES = frozenset(("in_progress", "running", "starting", "processing"))
_SUCCEEDED_STATES = frozenset(("succeeded", "completed"))
_FAILED_STATES = frozenset(("failed", "error"))
_CANCELLED_STATES = frozenset(("cancelled", "canceled"))


class Call(StrEnum):
    """What was asked of the service; POST is the only one that costs money."""

    SUBMIT = "submit"
    RESULT = "result"
    OTHER = "other"


class Loss(StrEnum):
    """How a call ended without an answer."""

    NOT_SENT = "not sent"
    LOST = "lost"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: a status and a body, or the way it was lost. `body` None: not JSON."""

    status: int | None = None
    body: Any = None
    retry_after_s: float | None = None
    loss: Loss | None = None
    detail: str = ""


class Meaning(StrEnum):
    """What an answer means for the job, or for the run."""

    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    OK = "ok"
    PERMANENT = "permanent"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    NO_BALANCE = "no balance"
    TOKEN_REFUSED = "token refused"  # noqa: S105 - a meaning, not a token


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A meaning with what is worth keeping of the answer."""

    meaning: Meaning
    reason: str = ""
    message: str = ""
    status: int | None = None
    code: int | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    result: Result | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the service made: output URLs as it gave them, cost and times."""

    outputs: list[str] = []
    cost_usd: Decimal | None = None
    created_at: str | None = None
    finished_at: str | None = None
    queue_position: int | None = None


def classify(call: Call, answer: Answer) -> Verdict:
    """Say what an answer means; the whole table of the service's errors and states."""
    try:
        return _classify(call, answer)
    except RecursionError:
        # Brackets within brackets within brackets: as good as no JSON.
        return _classify(call, msgspec.structs.replace(answer, body=None))


def _classify(call: Call, answer: Answer) -> Verdict:
    if answer.loss is not None:
        return _classify_loss(call, answer)
    status = answer.status or 0
    if 200 <= status < 300:
        return _classify_success(call, answer, status)
    code, message = _error_of(answer.body)
    facts: dict[str, Any] = {"status": status, "code": code, "message": message or f"HTTP {status}"}
    if status == 429:
        return Verdict(
            meaning=Meaning.THROTTLED,
            reason="rate limited",
            retry_after_s=answer.retry_after_s,
            **facts,
        )
    if status == 402 or (status == 400 and code == NO_BALANCE):
        return Verdict(meaning=Meaning.NO_BALANCE, reason="no balance", **facts)
    if status in (401, 403) or (status == 400 and code == TOKEN_REFUSED):
        # 403001 on a GET is another account's request: paid for, and there for its own token.
        reason = "another account's request" if code == OTHER_ACCOUNT else "token refused"
        return Verdict(meaning=Meaning.TOKEN_REFUSED, reason=reason, **facts)
    if call is Call.SUBMIT:
        return _classify_submit_refusal(status, facts)
    if status == 404 and code == NOT_FOUND:
        # A 404 without the service's own code may be any proxy's, or a wrong address: a request
        # that is paid for is not given up for that.
        return Verdict(meaning=Meaning.GONE, reason="expired", **facts)
    # Whatever else a free call is told, it is asked again: the request may be paid for.
    return Verdict(meaning=Meaning.TRANSIENT, reason="service error", **facts)


def _classify_loss(call: Call, answer: Answer) -> Verdict:
    if call is Call.SUBMIT and answer.loss is Loss.LOST:
        return Verdict(meaning=Meaning.UNKNOWN, reason="answer lost", message=answer.detail)
    reason = "not reachable" if answer.loss is Loss.NOT_SENT else "answer lost"
    return Verdict(meaning=Meaning.TRANSIENT, reason=reason, message=answer.detail)


def _classify_submit_refusal(status: int, facts: dict[str, Any]) -> Verdict:
    if status == 404:
        return Verdict(meaning=Meaning.PERMANENT, reason="no such model", **facts)
    if status in (400, 422):
        return Verdict(meaning=Meaning.PERMANENT, reason="input refused", **facts)
    return Verdict(meaning=Meaning.UNKNOWN, reason=f"HTTP {status}", **facts)


def _classify_success(call: Call, answer: Answer, status: int) -> Verdict:
    body = answer.body
    if call is Call.SUBMIT:
        request_id = body.get("request_id") if isinstance(body, dict) else None
        if is_request_id(request_id):
            return Verdict(meaning=Meaning.ACCEPTED, request_id=request_id, status=status)
        message = "the answer holds no usable request_id"
        return Verdict(meaning=Meaning.UNKNOWN, reason="unusable answer", message=message)
    if not isinstance(body, dict):
        message = "the answer is not JSON"
        return Verdict(meaning=Meaning.TRANSIENT, reason="unusable answer", message=message)
    if call is Call.RESULT:
        return _classify_state(body, status)
    return Verdict(meaning=Meaning.OK, status=status)


def _classify_state(body: dict[str, Any], status: int) -> Verdict:
    state = body.get("status")
    state = state.lower() if isinstance(state, str) else ""
    result = Result(
        cost_usd=read_cost_usd(body.get("cost")),
        created_at=read_text(body.get("created_at")),
        finished_at=read_text(body.get("finished_at")),
        queue_position=read_whole(body.get("queue_position")),
    )
    outputs = _output_urls(body.get("output"))
    if state in _SUCCEEDED_STATES and body.get("error") and not outputs:
        state = "failed"
    if state in _SUCCEEDED_STATES:
        if not outputs:
            message = "the request succeeded, but its answer names no output"
            return Verdict(meaning=Meaning.TRANSIENT, reason="no output", message=message)
        result = msgspec.structs.replace(result, outputs=outputs)
        return Verdict(meaning=Meaning.SUCCEEDED, result=result, status=status)
    if state in _FAILED_STATES:
        code, message = _error_of(body)
        return Verdict(
            meaning=Meaning.FAILED,
            reason=_failure_reason(body.get("error")),
            message=message or "the service gave no reason",
            code=code,
            status=status,
            result=result,
        )
    if state in _CANCELLED_STATES:
        return Verdict(meaning=Meaning.CANCELLED, reason="cancelled", status=status, result=result)
    if state in _WAITING_STATES:
        return Verdict(meaning=Meaning.WAITING, status=status, result=result)
    if state in _RUNNING_STATES:
        return Verdict(meaning=Meaning.RUNNING, status=status, result=result)
    message = f"the service gave the unknown state {state[:40]!r}"
    return Verdict(meaning=Meaning.TRANSIENT, reason="unknown state", message=message)


def _error_of(body: Any) -> tuple[int | None, str]:
    """Return code and message of an error body, in any of the shapes seen."""
    if not isinstance(body, dict):
        return None, ""
    inner = (body.get(name) for name in ("error", "detail"))
    places = [body, *(place for place in inner if isinstance(place, dict))]
    # A code can be a word, too ("invalid_input"), with the number in another place.
    codes = (read_whole(place.get(name)) for place in places for name in ("code", "error_code"))
    code = next((code for code in codes if code is not None), None)
    for place in reversed(places):
        for name in ("message", "error_message", "detail", "msg", "error"):
            value = place.get(name)
            if isinstance(value, str) and value:
                return code, redact_text(value)[:_MESSAGE_LIMIT_CHARACTERS]
            if isinstance(value, list) and value:
                listed = redact_text(msgspec.json.encode(value).decode())
                return code, listed[:_MESSAGE_LIMIT_CHARACTERS]
    return code, ""


def _failure_reason(error: Any) -> str:
    code = error.get("code") if isinstance(error, dict) else None
    return code.replace("_", " ")[:60] if isinstance(code, str) and code else "failed"


def _output_urls(output: Any, nesting: int = 0) -> list[str]:
    """Return every URL of an output, in order: keys image, images, video, videos, or bare ones."""
    if nesting > _NESTING_LIMIT:
        return []
    if isinstance(output, str):
        return [output] if output else []
    if isinstance(output, list):
        return [url for item in output for url in _output_urls(item, nesting + 1)]
    if isinstance(output, dict):
        named = [
            output[name] for name in ("image", "images", "video", "videos") if output.get(name)
        ]
        urls = _output_urls(named or output.get("url"), nesting + 1)
        return list(dict.fromkeys(urls))
    return []


def read_cost_usd(value: Any) -> Decimal | None:
    """Read an amount of USD; None unless it is a finite number, 0 or more, and a sane one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() and 0 <= cost <= _COST_LIMIT_USD else None


def read_text(value: Any) -> str | None:
    """Read a short text; None where there is none."""
    return value[:100] if isinstance(value, str) else None


def read_whole(value: Any) -> int | None:
    """Read a whole number, also from text; None where there is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds a Retry-After header asks for (a number or an HTTP date), or None."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    # A service that asks for more than an hour is not rate limiting, it is away.
    return min(max(seconds, 0.0), 3600.0) if math.isfinite(seconds) else None
