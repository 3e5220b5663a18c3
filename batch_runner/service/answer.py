"""What an answer of the service means.

Hides the shapes of its answers, its codes and its states. What always holds: `classify` is a pure
function of what came back and never looks at the wording of a message; about a POST it says "not
accepted" only if that is certain, and everything else is UNKNOWN.
Facts are from the service's published documentation and its vendor's own clients.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import msgspec

from batch_runner.records import is_request_id, redact_text
from batch_runner.service.error_body import (
    MESSAGE_LIMIT_CHARACTERS,
    failure_reason,
    read_error,
    read_whole,
)
from batch_runner.service.output import output_urls

_COST_LIMIT_USD = Decimal(1_000_000)

NO_SUCH_MODEL = 400001
NO_BALANCE = 400002
TOKEN_REFUSED = 400004
NOT_READY = 400005
OTHER_ACCOUNT = frozenset((403001, 403003))
NOT_FOUND = 404001

NO_OUTPUT = "no output"
UNKNOWN_STATE = "unknown state"
SERVICE_ERROR = "service error"

_REFUSALS = frozenset((400, 401, 402, 403, 404, 422))
"""HTTP statuses after which it is certain that a POST was not accepted; so is 429."""

_SURE_OF_400 = frozenset((NO_SUCH_MODEL, NO_BALANCE, TOKEN_REFUSED))
"""The codes of a bad request that are certain even in an answer with HTTP 200."""

_WAITING_STATES = frozenset(("in_queue", "queued", "pending", "waiting"))
_RUNNING_STATES = frozenset(("in_progress", "running", "starting", "processing"))
_SUCCEEDED_STATES = frozenset(("succeeded", "completed"))
_FAILED_STATES = frozenset(("failed", "error"))
# With a code of its own, "error" may be the state of the call rather than of the request.
_CALL_STATES = frozenset(("", "error"))
_CANCELLED_STATES = frozenset(("cancelled", "canceled"))


class Call(StrEnum):
    """What was asked of the service; POST is the only one that costs money."""

    SUBMIT = "submit"
    RESULT = "result"
    OTHER = "other"


class Loss(StrEnum):
    """How a call ended without an answer; BARRED: not sent, nor any other before a change here."""

    NOT_SENT = "not sent"
    BARRED = "barred"
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
    ODD = "odd"
    OK = "ok"
    PERMANENT = "permanent"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    BARRED = "barred"
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
    """What the service made: output URLs as it gave them, cost and times.

    The first `main` outputs are what was asked for; any after them come along, such as a preview.
    `model_id` and `input` repeat what was sent, if the service does.
    """

    outputs: list[str] = []
    main: int = 0
    cost_usd: Decimal | None = None
    created_at: str | None = None
    finished_at: str | None = None
    queue_position: int | None = None
    model_id: str | None = None
    input: dict[str, Any] | None = None


def classify(call: Call, answer: Answer, sent: Collection[str] = ()) -> Verdict:
    """Return what an answer means; the whole table of the service's errors and states.

    `sent` holds the URLs of the request's input, unsigned: an answer that repeats them has not made
    them.
    """
    try:
        return _classify(call, answer, sent)
    except RecursionError:
        # Brackets within brackets within brackets: as good as no JSON.
        return _classify(call, msgspec.structs.replace(answer, body=None), sent)


def _classify(call: Call, answer: Answer, sent: Collection[str]) -> Verdict:
    if answer.loss is not None:
        return _classify_loss(call, answer)
    status = answer.status or 0
    if 200 <= status < 300:
        return _classify_success(call, answer, status, sent)
    code, message = read_error(answer.body)
    kind = _kind_of(code) if status in _REFUSALS else None
    return _classify_error(
        call, kind if kind in _REFUSALS or kind == 429 else status, answer, (code, message)
    )


def _kind_of(code: int | None) -> int | None:
    """Return the HTTP status that a code stands for: its first three digits."""
    return code // 1000 if code is not None and 100_000 <= code < 600_000 else None


def _classify_error(
    call: Call, kind: int, answer: Answer, error: tuple[int | None, str]
) -> Verdict:
    """Return what an error means; `kind` is its HTTP status, or the one that its code stands for.

    Inside HTTP 200 a code may mean anything but what is documented.
    """
    code, message = error
    facts: dict[str, Any] = {
        "status": answer.status,
        "code": code,
        "message": message or f"HTTP {answer.status}",
    }
    is_refusal = kind in _REFUSALS
    if kind == 429:
        wait_s = answer.retry_after_s
        return Verdict(
            meaning=Meaning.THROTTLED, reason="rate limited", retry_after_s=wait_s, **facts
        )
    if kind == 402 or (is_refusal and code == NO_BALANCE):
        return Verdict(meaning=Meaning.NO_BALANCE, reason="no balance", **facts)
    if kind in (401, 403) or (is_refusal and code == TOKEN_REFUSED):
        # On a GET it may be another account's request: paid for, and there for its own token.
        reason = "another account's request" if code in OTHER_ACCOUNT else "token refused"
        return Verdict(meaning=Meaning.TOKEN_REFUSED, reason=reason, **facts)
    if call is Call.SUBMIT:
        return _classify_submit_refusal(kind, facts)
    if call is Call.RESULT and is_refusal and code == NOT_READY:
        return Verdict(meaning=Meaning.WAITING, **facts)
    if kind == 404 and code == NOT_FOUND:
        # A 404 without the service's own code may come from a proxy or a wrong address: a request
        # that is paid for is not given up for that.
        return Verdict(meaning=Meaning.GONE, reason="expired", **facts)
    # A free call is repeated after any other error: the request may be paid for.
    return Verdict(meaning=Meaning.TRANSIENT, reason=SERVICE_ERROR, **facts)


def _classify_loss(call: Call, answer: Answer) -> Verdict:
    if answer.loss is Loss.BARRED:
        return Verdict(meaning=Meaning.BARRED, reason="not reachable", message=answer.detail)
    if call is Call.SUBMIT and answer.loss is Loss.LOST:
        return Verdict(meaning=Meaning.UNKNOWN, reason="answer lost", message=answer.detail)
    reason = "not reachable" if answer.loss is Loss.NOT_SENT else "answer lost"
    return Verdict(meaning=Meaning.TRANSIENT, reason=reason, message=answer.detail)


def _classify_submit_refusal(kind: int, facts: dict[str, Any]) -> Verdict:
    if kind == 404 or (kind == 400 and facts["code"] == NO_SUCH_MODEL):
        return Verdict(meaning=Meaning.PERMANENT, reason="no such model", **facts)
    if kind in (400, 422):
        return Verdict(meaning=Meaning.PERMANENT, reason="input refused", **facts)
    return Verdict(meaning=Meaning.UNKNOWN, reason=f"HTTP {facts['status']}", **facts)


def _classify_success(call: Call, answer: Answer, status: int, sent: Collection[str]) -> Verdict:
    body = answer.body
    if call is Call.SUBMIT:
        return _classify_submitted(answer, status)
    if not isinstance(body, dict):
        message = "the answer is not JSON"
        return Verdict(meaning=Meaning.TRANSIENT, reason="unusable answer", message=message)
    if call is Call.RESULT:
        return _classify_state(answer, body, status, sent)
    if _has_error(body):
        return _classify_inner_error(call, answer, body)
    return Verdict(meaning=Meaning.OK, status=status)


def _classify_submitted(answer: Answer, status: int) -> Verdict:
    """Return what HTTP 2xx means about a POST: accepted, refused inside it, or nobody knows."""
    body = answer.body if isinstance(answer.body, dict) else {}
    request_id = body.get("request_id")
    is_usable = is_request_id(request_id)
    # With a request_id, a code anywhere but at the top may be about the request, not the call.
    code, message = read_error({**body, "error": None} if is_usable else body)
    kind = _kind_of(code) or 0
    is_sure = kind in _REFUSALS or kind == 429
    if kind == 400:
        is_sure = code in _SURE_OF_400
    if is_sure and not (is_usable and not _has_error(body)):
        return _classify_error(Call.SUBMIT, kind, answer, (code, message))
    if is_usable:
        return Verdict(meaning=Meaning.ACCEPTED, request_id=request_id, status=status)
    if _has_error(body):
        return Verdict(
            meaning=Meaning.UNKNOWN,
            reason=SERVICE_ERROR,
            message=message or "the service gave no reason",
            code=code,
            status=status,
        )
    message = "the answer holds no usable request_id"
    return Verdict(meaning=Meaning.UNKNOWN, reason="unusable answer", message=message)


def _model_of(body: dict[str, Any]) -> str | None:
    """Return the model that an answer says it is about."""
    return read_text(body.get("model_id")) or read_text(body.get("model"))


def _is_input(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _has_error(body: dict[str, Any]) -> bool:
    """Tell whether an answer with HTTP 200 is an error all the same."""
    return bool(body.get("error_code") or body.get("error_message"))


def _classify_inner_error(call: Call, answer: Answer, body: dict[str, Any]) -> Verdict:
    code, message = read_error(body)
    return _classify_error(call, _kind_of(code) or 0, answer, (code, message))


def _classify_state(
    answer: Answer, body: dict[str, Any], status: int, sent: Collection[str]
) -> Verdict:
    state = body.get("status")
    state = state.lower() if isinstance(state, str) else ""
    outputs, main = output_urls(body.get("output"), sent)
    result = Result(
        cost_usd=read_cost_usd(body.get("cost")),
        created_at=read_text(body.get("created_at")),
        finished_at=read_text(body.get("finished_at")),
        queue_position=read_whole(body.get("queue_position")),
        model_id=_model_of(body),
        input=next(
            (one for one in (body.get("input"), body.get("inputs")) if _is_input(one)), None
        ),
    )
    if state in _SUCCEEDED_STATES and outputs:
        result = msgspec.structs.replace(result, outputs=outputs, main=main)
        return Verdict(meaning=Meaning.SUCCEEDED, result=result, status=status)
    # Without a request_id, an answer may come from anything between here and the service.
    is_its_own = is_request_id(body.get("request_id"))
    if _has_error(body):
        about_call = _classify_inner_error(Call.RESULT, answer, body)
        is_known = about_call.meaning is not Meaning.TRANSIENT
        if state in _CALL_STATES and not is_known and _is_about_request(about_call, is_its_own):
            return msgspec.structs.replace(about_call, meaning=Meaning.ODD, result=result)
        if state in _CALL_STATES:
            return about_call
        if state in _SUCCEEDED_STATES and is_known:
            return about_call
    if state in _SUCCEEDED_STATES and (_has_error(body) or body.get("error")):
        state = "failed"
    meaning = _meaning_of_state(state)
    facts: dict[str, Any] = {"status": status, "result": result}
    if meaning is Meaning.SUCCEEDED:
        return Verdict(
            meaning=Meaning.ODD, reason=NO_OUTPUT, message=_words_for_no_output(body), **facts
        )
    if meaning is Meaning.FAILED:
        code, message = read_error(body)
        message = message or "the service gave no reason"
        reason = failure_reason(body)
        return Verdict(meaning=meaning, reason=reason, message=message, code=code, **facts)
    if meaning is Meaning.ODD:
        words = read_error({**body, "output": None})[1]
        named = f"the unknown state {state[:40]!r}" if state else "no state"
        message = f"the service gave {named}" + (words and f": {words}")
        message = message[:MESSAGE_LIMIT_CHARACTERS]
        meaning = Meaning.ODD if is_its_own else Meaning.TRANSIENT
        return Verdict(meaning=meaning, reason=UNKNOWN_STATE, message=message, **facts)
    reason = "cancelled" if meaning is Meaning.CANCELLED else ""
    return Verdict(meaning=meaning, reason=reason, **facts)


def _is_about_request(verdict: Verdict, is_its_own: bool) -> bool:
    """Tell whether an error is about one request, and no outage of the service."""
    kind = _kind_of(verdict.code)
    return is_its_own if kind is None else kind < 500


def _meaning_of_state(state: str) -> Meaning:
    if state in _SUCCEEDED_STATES:
        return Meaning.SUCCEEDED
    if state in _FAILED_STATES:
        return Meaning.FAILED
    if state in _CANCELLED_STATES:
        return Meaning.CANCELLED
    if state in _WAITING_STATES:
        return Meaning.WAITING
    return Meaning.RUNNING if state in _RUNNING_STATES else Meaning.ODD


def _words_for_no_output(body: dict[str, Any]) -> str:
    """Return what a service answered in place of an output, in its own words."""
    words = read_error({**body, "output": None})[1]
    output = body.get("output")
    if not words and output:
        try:
            words = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        except RecursionError:
            words = ""
    ended = "the request ended without an output"
    return f"{ended}: {redact_text(words)}"[:MESSAGE_LIMIT_CHARACTERS] if words else ended


def read_cost_usd(value: Any) -> Decimal | None:
    """Read an amount of USD; None unless it is a finite number, 0 or more, and a sane one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() and 0 <= cost <= _COST_LIMIT_USD else None


def read_balance_usd(body: Any) -> Decimal | None:
    """Return the account's balance, which may be negative; None if an answer has none."""
    fields = body if isinstance(body, dict) else {}
    for name, unit in (("balance_usd", 1), ("balance_microdollars", 1_000_000)):
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            balance = Decimal(str(value))
        except InvalidOperation:
            continue
        if balance.is_finite() and abs(balance) <= _COST_LIMIT_USD * unit:
            return balance / unit
    return None


def read_text(value: Any) -> str | None:
    """Read a short text; None where there is none."""
    return value[:100] if isinstance(value, str) else None


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
