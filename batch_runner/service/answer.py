"""What an answer of the service means.

Hides the service's codes, states and shapes of answers, taken from its documentation and its
vendor's clients. Always holds: `classify` is pure and never looks at the text of a message; a POST
counts as not accepted only if that is certain, otherwise it is UNKNOWN.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from decimal import Decimal
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

_AMOUNT_LIMIT_USD = Decimal(1_000_000)

NO_SUCH_MODEL = 400001
NO_BALANCE = 400002
TOKEN_REFUSED = 400004
NOT_READY = 400005
OTHER_ACCOUNT = frozenset((403001, 403003))
NOT_FOUND = 404001

NO_OUTPUT = "no output"
UNKNOWN_STATE = "unknown state"
SERVICE_ERROR = "service error"
_NO_REASON = "the service gave no reason"

_REFUSALS = frozenset((400, 401, 402, 403, 404, 422))
_CERTAIN = _REFUSALS | {429}
"""HTTP statuses that mean for certain that a POST was not accepted."""

_SURE_OF_400 = frozenset((NO_SUCH_MODEL, NO_BALANCE, TOKEN_REFUSED))
"""The codes of a bad request that are certain even inside HTTP 200."""


class Call(StrEnum):
    """The kind of call; only a submit costs money."""

    SUBMIT = "submit"
    RESULT = "result"
    OTHER = "other"


class Loss(StrEnum):
    """How a call ended without an answer. BARRED: no call will leave until something is changed."""

    NOT_SENT = "not sent"
    BARRED = "barred"
    LOST = "lost"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A status and a body, or how the answer was lost. `body` None: not JSON."""

    status: int | None = None
    body: Any = None
    retry_after_s: float | None = None
    loss: Loss | None = None
    detail: str = ""


class Meaning(StrEnum):
    """What an answer means for the job or the run."""

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


_STATES = {
    **dict.fromkeys(("in_queue", "queued", "pending", "waiting"), Meaning.WAITING),
    **dict.fromkeys(("in_progress", "running", "starting", "processing"), Meaning.RUNNING),
    **dict.fromkeys(("succeeded", "completed"), Meaning.SUCCEEDED),
    **dict.fromkeys(("failed", "error"), Meaning.FAILED),
    **dict.fromkeys(("cancelled", "canceled"), Meaning.CANCELLED),
}
# With an error code beside it, "error" may be the state of the call, not of the request.
_CALL_STATES = frozenset(("", "error"))


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A meaning, and the parts of the answer worth keeping."""

    meaning: Meaning
    reason: str = ""
    message: str = ""
    status: int | None = None
    code: int | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    result: Result | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a request with its cost and times, as the service reported them.

    The first `main` outputs are those that were bought; others, such as a preview, come after them.
    `model_id` and `input` are set if the service repeats what was sent.
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
    """Return what an answer means.

    `sent`: the unsigned URLs of the request's input, which are no outputs even if the answer
    repeats them.
    """
    try:
        return _classify(call, answer, sent)
    except RecursionError:
        # JSON nested too deeply to read is as good as none.
        return _classify(call, msgspec.structs.replace(answer, body=None), sent)


def _classify(call: Call, answer: Answer, sent: Collection[str]) -> Verdict:
    if answer.loss is not None:
        return _classify_loss(call, answer)
    status, body = answer.status or 0, answer.body
    if not 200 <= status < 300:
        code, message = read_error(body)
        kind = _kind_of(code) if status in _REFUSALS else 0
        return _classify_error(call, kind if kind in _CERTAIN else status, answer, code, message)
    if call is Call.SUBMIT:
        return _classify_submitted(answer, body if isinstance(body, dict) else {})
    if not isinstance(body, dict):
        message = "the answer is not JSON"
        return Verdict(meaning=Meaning.TRANSIENT, reason="unusable answer", message=message)
    if call is Call.RESULT:
        return _classify_state(answer, body, sent)
    return _classify_inner_error(call, answer) if _has_error(body) else Verdict(meaning=Meaning.OK)


def _kind_of(code: int | None) -> int:
    """Return the HTTP status of a code, its first three digits; 0 if it has none."""
    return code // 1000 if code is not None and 100_000 <= code < 600_000 else 0


def _classify_loss(call: Call, answer: Answer) -> Verdict:
    if answer.loss is Loss.BARRED:
        return Verdict(meaning=Meaning.BARRED, reason="not reachable", message=answer.detail)
    is_unknown = call is Call.SUBMIT and answer.loss is Loss.LOST
    return Verdict(
        meaning=Meaning.UNKNOWN if is_unknown else Meaning.TRANSIENT,
        reason="answer lost" if answer.loss is Loss.LOST else "not reachable",
        message=answer.detail,
    )


def _classify_error(
    call: Call, kind: int, answer: Answer, code: int | None, message: str
) -> Verdict:
    """Return what an error means; `kind` is its HTTP status, or that of its code."""
    status = f"HTTP {answer.status}"
    refusal_code = code if kind in _REFUSALS else None
    if kind == 429:
        meaning, reason = Meaning.THROTTLED, "rate limited"
    elif kind == 402 or refusal_code == NO_BALANCE:
        meaning, reason = Meaning.NO_BALANCE, "no balance"
    elif kind in (401, 403) or refusal_code == TOKEN_REFUSED:
        # On a GET it may be another account's request, paid for and still there for its token.
        meaning, reason = Meaning.TOKEN_REFUSED, "token refused"
        if code in OTHER_ACCOUNT:
            reason = "another account's request"
    elif call is Call.SUBMIT and (kind == 404 or refusal_code == NO_SUCH_MODEL):
        meaning, reason = Meaning.PERMANENT, "no such model"
    elif call is Call.SUBMIT and kind in (400, 422):
        meaning, reason = Meaning.PERMANENT, "input refused"
    elif call is Call.SUBMIT:
        meaning, reason, message = Meaning.UNKNOWN, status, message or _NO_REASON
    elif call is Call.RESULT and refusal_code == NOT_READY:
        meaning, reason = Meaning.WAITING, ""
    elif kind == 404 and code == NOT_FOUND:
        # Only with the service's own code: another 404 may come from a proxy or a wrong address,
        # and a paid request is not given up for that.
        meaning, reason = Meaning.GONE, "expired"
    else:
        # Polls are free and the request may be paid for, so any other error is retried.
        meaning, reason = Meaning.TRANSIENT, SERVICE_ERROR
    return Verdict(
        meaning=meaning,
        reason=reason,
        message=message or status,
        status=answer.status,
        code=code,
        retry_after_s=answer.retry_after_s,
    )


def _classify_inner_error(call: Call, answer: Answer) -> Verdict:
    """Return what an error inside HTTP 200 means; a code without a known status may mean any."""
    code, message = read_error(answer.body)
    return _classify_error(call, _kind_of(code), answer, code, message)


def _has_error(body: dict[str, Any]) -> bool:
    """Return whether an answer with HTTP 200 is an error."""
    return bool(body.get("error_code") or body.get("error_message"))


def _classify_submitted(answer: Answer, body: dict[str, Any]) -> Verdict:
    """Return what HTTP 2xx means for a POST: accepted, refused in the body, or unknown."""
    request_id, status = body.get("request_id"), answer.status
    is_usable, has_error = is_request_id(request_id), _has_error(body)
    accepted = Verdict(meaning=Meaning.ACCEPTED, request_id=request_id, status=status)
    if is_usable and not has_error:
        return accepted
    # With a request_id, only a code at the top is about the call; others are about the request.
    code, message = read_error({**body, "error": None} if is_usable else body)
    kind = _kind_of(code)
    if kind in _CERTAIN and (kind != 400 or code in _SURE_OF_400):
        return _classify_error(Call.SUBMIT, kind, answer, code, message)
    if is_usable:
        return accepted
    reason, message = SERVICE_ERROR, message or _NO_REASON
    if not has_error:
        reason, message = "unusable answer", "the answer contains no usable request_id"
    return Verdict(
        meaning=Meaning.UNKNOWN, reason=reason, message=message, code=code, status=status
    )


def _classify_state(answer: Answer, body: dict[str, Any], sent: Collection[str]) -> Verdict:
    """Return how a request stands."""
    state = body.get("status")
    state = state.lower() if isinstance(state, str) else ""
    meaning, has_error = _STATES.get(state, Meaning.ODD), _has_error(body)
    result = _read_result(body, sent if meaning is Meaning.SUCCEEDED else None)
    if result.outputs:
        return Verdict(meaning=meaning, result=result, status=answer.status)
    # Without a request_id, the answer may come from anything between here and the service.
    is_its_own = is_request_id(body.get("request_id"))
    if has_error:
        about_call = _classify_inner_error(Call.RESULT, answer)
        is_known = about_call.meaning is not Meaning.TRANSIENT
        if state in _CALL_STATES and not is_known:
            kind = _kind_of(about_call.code)
            # An error about one request is no outage of the service.
            if kind < 500 if kind else is_its_own:
                return msgspec.structs.replace(about_call, meaning=Meaning.ODD, result=result)
        if state in _CALL_STATES or (meaning is Meaning.SUCCEEDED and is_known):
            return about_call
    if meaning is Meaning.SUCCEEDED and (has_error or body.get("error")):
        meaning = Meaning.FAILED
    code, reason, message = None, "", ""
    match meaning:
        case Meaning.SUCCEEDED:
            meaning, reason, message = Meaning.ODD, NO_OUTPUT, _no_output_message(body)
        case Meaning.FAILED:
            code, message = read_error(body)
            reason, message = failure_reason(body), message or _NO_REASON
        case Meaning.CANCELLED:
            reason = "cancelled"
        case Meaning.ODD:
            meaning = Meaning.ODD if is_its_own else Meaning.TRANSIENT
            named = f"unknown state {state[:40]!r}" if state else "no state"
            reason, message = UNKNOWN_STATE, _with_words(named, _words(body))
    return Verdict(
        meaning=meaning,
        reason=reason,
        message=message,
        code=code,
        status=answer.status,
        result=result,
    )


def _read_result(body: dict[str, Any], sent: Collection[str] | None) -> Result:
    """Return what an answer reports of a request; its outputs unless `sent` is None."""
    inputs = (body.get("input"), body.get("inputs"))
    outputs, main = ([], 0) if sent is None else output_urls(body.get("output"), sent)
    return Result(
        outputs=outputs,
        main=main,
        cost_usd=read_cost_usd(body.get("cost")),
        created_at=read_text(body.get("created_at")),
        finished_at=read_text(body.get("finished_at")),
        queue_position=read_whole(body.get("queue_position")),
        model_id=read_text(body.get("model_id")) or read_text(body.get("model")),
        input=next((one for one in inputs if isinstance(one, dict) and one), None),
    )


def _no_output_message(body: dict[str, Any]) -> str:
    """Return a message with what the service answered instead of an output."""
    words, output = _words(body), body.get("output")
    if not words and output:
        try:
            words = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        except RecursionError:
            words = ""
    return _with_words("the request ended without an output", redact_text(words))


def _words(body: dict[str, Any]) -> str:
    return read_error({**body, "output": None})[1]


def _with_words(what: str, words: str) -> str:
    return f"{what}: {words}"[:MESSAGE_LIMIT_CHARACTERS] if words else what


def read_cost_usd(value: Any) -> Decimal | None:
    """Return a cost in USD; None unless it is a plausible amount."""
    cost = _read_amount(value)
    return cost if cost is not None and cost >= 0 else None


def read_balance_usd(body: Any) -> Decimal | None:
    """Return the account's balance, which may be negative; None if the answer has none."""
    fields = body if isinstance(body, dict) else {}
    balance = _read_amount(fields.get("balance_usd"))
    return _read_amount(fields.get("balance_microdollars"), 10**6) if balance is None else balance


def _read_amount(value: Any, unit: int = 1) -> Decimal | None:
    """Return an amount of money in `unit`s of a USD; None unless it is plausible."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value)) / unit
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and abs(amount) <= _AMOUNT_LIMIT_USD else None


def read_text(value: Any) -> str | None:
    """Return a short text, or None."""
    return value[:100] if isinstance(value, str) else None


def parse_retry_after(value: str) -> float | None:
    """Return the seconds a Retry-After header asks for, or None; dates are not read."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    # Nobody limits rates by more than an hour; then the service is away.
    return min(max(seconds, 0.0), 3600.0) if math.isfinite(seconds) else None
