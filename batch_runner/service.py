"""One HTTP call to the service: send it, read the answer, say what it means.

Hides HTTP, the token and the wire's many ways to say no. What always holds: the token goes to the
API's own origin only, is in no message and no repr, and no redirect is followed with it; `classify`
is a pure function of what came back, never of a message's text; about a POST it says "not accepted"
only where that is certain, and everything else is UNKNOWN. Nothing is retried here.
Facts are from the service's published documentation and its vendor's own clients.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from batch_runner.errors import UsageError
from batch_runner.records import is_request_id, redact_text

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.connector import Connection

API_BASE = "https://model-api.runcomfy.net"
BALANCE_BASE = "https://api.runcomfy.net"

_CONNECT_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 60.0
_SUBMIT_KEEPALIVE_S = 0.25
_ANSWER_LIMIT_BYTES = 8 * 1024 * 1024
_MESSAGE_LIMIT_CHARACTERS = 300
_NESTING_LIMIT = 8
_COST_LIMIT_USD = Decimal(1_000_000)
_MODELS_A_PAGE = 100
_MODELS_LIMIT = 10_000
"""As many models of a catalog are read: no service has more, and a mad one may say that it has."""

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

_TOKEN = re.compile(r"[!-~]+")


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
        cost_usd=_cost(body.get("cost")),
        created_at=_text(body.get("created_at")),
        finished_at=_text(body.get("finished_at")),
        queue_position=_whole(body.get("queue_position")),
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


class Service:
    """The service at one origin, with one token. `async with` opens and closes its connections.

    `token` None is for a service that needs none; the token never leaves the `api_base` origin,
    but for the balance, which the vendor keeps at another origin of its own.
    """

    def __init__(self, api_base: str, token: str | None) -> None:
        self.origin = parse_origin(api_base)
        self._token = token if token is None else token.strip()
        if self._token is not None and not _TOKEN.fullmatch(self._token):
            raise UsageError("the token holds characters that no token has", hint="copy it again")
        self._sessions: list[aiohttp.ClientSession] = []
        self._session: aiohttp.ClientSession | None = None
        self._submit_session: aiohttp.ClientSession | None = None
        self._single_use_session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Service({self.origin!r}, token {'set' if self._token else 'missing'})"

    async def __aenter__(self) -> Self:
        import aiohttp  # noqa: PLC0415 - the heaviest import: `status` asks nobody anything

        self._session = _open_session(aiohttp.TCPConnector(limit=0, keepalive_timeout=10))
        # A connection that was kept may be closed by the other side at the very moment it is used
        # again, and then nobody knows whether the POST arrived. Servers close what was idle for
        # seconds; so a POST takes one that was in use a moment ago, or else a new one.
        self._submit_session = _open_session(
            aiohttp.TCPConnector(limit=0, keepalive_timeout=_SUBMIT_KEEPALIVE_S)
        )
        # And once a service has hung up on a POST, every later POST takes a new one.
        self._single_use_session = _open_session(aiohttp.TCPConnector(limit=0, force_close=True))
        self._sessions = [self._session, self._submit_session, self._single_use_session]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in self._sessions:
            await session.close()

    @property
    def host(self) -> str:
        """Return the host of the API."""
        return urlsplit(self.origin).hostname or ""

    @property
    def is_local(self) -> bool:
        """Tell whether the service runs on this machine, and so can read its files."""
        return is_loopback(self.origin)

    async def submit(self, model_id: str, input_: dict[str, Any]) -> Verdict:
        """Send one job: the one call that costs money."""
        url = f"{self.origin}/v1/models/{quote(model_id)}"
        return self._classify(Call.SUBMIT, await self._call("POST", url, body=input_))

    async def result(self, request_id: str) -> Verdict:
        """Ask how a request stands, and for its outputs and cost once it has ended."""
        url = f"{self.origin}/v1/requests/{_safe(request_id)}/result?include_cost=true"
        answer = await self._call("GET", url)
        named = answer.body.get("request_id") if isinstance(answer.body, dict) else None
        if answer.status == 200 and named is not None and named != request_id:
            message = "the answer is about another request"
            return Verdict(meaning=Meaning.TRANSIENT, reason="unusable answer", message=message)
        return self._classify(Call.RESULT, answer)

    async def cancel(self, request_id: str) -> tuple[Verdict, str | None]:
        """Ask to cancel a request that is still queued; returns the service's outcome with it."""
        answer = await self._call("POST", f"{self.origin}/v1/requests/{_safe(request_id)}/cancel")
        outcome = answer.body.get("outcome") if isinstance(answer.body, dict) else None
        return self._classify(Call.OTHER, answer), _text(outcome)

    async def model(self, model_id: str) -> tuple[Verdict, dict[str, Any] | None]:
        """Ask what the service publishes about a model: schema, price."""
        answer = await self._call("GET", f"{self.origin}/v1/models/{quote(model_id)}")
        verdict = self._classify(Call.OTHER, answer)
        return verdict, answer.body if verdict.meaning is Meaning.OK else None

    async def models(
        self, search: str = "", category: str = ""
    ) -> tuple[Verdict, list[dict[str, Any]]]:
        """Ask for the service's catalog, page by page; without schemas."""
        entries: list[dict[str, Any]] = []
        asked = {"search": search, "category": category, "limit": str(_MODELS_A_PAGE)}
        while True:
            query = {name: text for name, text in asked.items() if text}
            query["offset"] = str(len(entries))
            answer = await self._call("GET", f"{self.origin}/v1/models?{urlencode(query)}")
            verdict = self._classify(Call.OTHER, answer)
            body = answer.body if isinstance(answer.body, dict) else {}
            page = body.get("models")
            new = (
                [entry for entry in page if isinstance(entry, dict)]
                if isinstance(page, list)
                else []
            )
            # A page that says what was said before is the work of a service that knows no offset.
            if verdict.meaning is not Meaning.OK or not new or new[0] in entries:
                return verdict, entries
            entries += new
            total = _whole(body.get("total"))
            if len(entries) >= (_MODELS_LIMIT if total is None else min(total, _MODELS_LIMIT)):
                return verdict, entries

    async def balance_usd(self) -> Decimal | None:
        """Ask for the account's balance; None where the service does not tell."""
        base = BALANCE_BASE if self.origin == API_BASE else self.origin
        answer = await self._call("GET", f"{base}/prod/v2/balance")
        return _cost(answer.body.get("balance_usd")) if isinstance(answer.body, dict) else None

    def _classify(self, call: Call, answer: Answer) -> Verdict:
        verdict = classify(call, answer)
        if self._token and self._token in verdict.message:
            # Some services repeat a token that they refuse, and messages are written down.
            message = verdict.message.replace(self._token, "(token)")
            return msgspec.structs.replace(verdict, message=message)
        return verdict

    async def _call(self, method: str, url: str, body: Any = None) -> Answer:
        import aiohttp  # noqa: PLC0415 - likewise
        from yarl import URL  # noqa: PLC0415 - likewise

        session = self._session if body is None else self._submit_session
        if session is None:
            raise RuntimeError("the service is used outside its `async with`")
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        try:
            # Said to be encoded, for it is made of safe parts here: looking again takes its time.
            async with session.request(
                method, URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
            ) as response:
                return await _read(response)
        except _StaleConnectionError:
            # Nothing was sent, and that connection is closed now: there is another, or a new one.
            return await self._call(method, url, body)
        except (
            # Raised while the connection is made, before a byte of the request leaves.
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
        ) as error:
            return Answer(loss=Loss.NOT_SENT, detail=_describe(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            hung_up = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
            if session is self._submit_session and isinstance(error, hung_up):
                self._submit_session = self._single_use_session
            return Answer(loss=Loss.LOST, detail=_describe(error))


class _StaleConnectionError(Exception):
    """On a connection that was kept stands an answer that nobody asked for."""


def _open_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    import aiohttp  # noqa: PLC0415 - likewise

    class Request(aiohttp.ClientRequest):
        """A request that leaves only where the next answer must be its own.

        A proxy may answer once too often (408 for what is idle, a late answer after its own 504).
        Whatever is read next there would be taken for the answer to this call, and each answer
        after it for another job's: a stray 429 would send again what was accepted.
        """

        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if conn.protocol is None or conn.protocol.should_close:
                raise _StaleConnectionError
            return await super().send(conn)

    # Connectors have no limit: calls are bounded by the pacing, and waiting for a free connection
    # would count as time in which nobody knows whether a POST has left. Finding the name is part of
    # connecting, so that a slow resolver too ends as "not sent".
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=Request,
    )


async def _read(response: aiohttp.ClientResponse) -> Answer:
    retry_after = response.headers.get("Retry-After")
    retry_after_s = parse_retry_after(retry_after, datetime.now(UTC)) if retry_after else None
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > _ANSWER_LIMIT_BYTES:
            return Answer(status=response.status, retry_after_s=retry_after_s)
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    return Answer(status=response.status, body=body, retry_after_s=retry_after_s)


def parse_origin(api_base: str) -> str:
    """Return scheme and host of an API base; raises UsageError unless it is https or loopback."""
    try:
        parts = urlsplit(api_base if "://" in api_base else f"https://{api_base}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise UsageError(f"'{api_base}' is not the address of a service", hint=f"as in {API_BASE}")
    shown = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")
    if parts.scheme == "http" and not is_loopback(origin):
        raise UsageError(
            f"'{api_base}' is not https: the token would travel in the clear",
            hint="http is for services on this machine only",
        )
    return origin


def is_loopback(origin: str) -> bool:
    """Tell whether an origin is on this machine."""
    return is_loopback_host(urlsplit(origin).hostname or "")


@lru_cache(maxsize=64)
def is_loopback_host(host: str) -> bool:
    """Tell whether a host, a name or an address without brackets, is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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


def _safe(request_id: str) -> str:
    if not is_request_id(request_id):
        raise ValueError(f"not a request_id: {request_id[:40]!r}")
    return request_id


def _describe(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text[:_MESSAGE_LIMIT_CHARACTERS]


def _error_of(body: Any) -> tuple[int | None, str]:
    """Return code and message of an error body, in any of the shapes seen."""
    if not isinstance(body, dict):
        return None, ""
    inner = (body.get(name) for name in ("error", "detail"))
    places = [body, *(place for place in inner if isinstance(place, dict))]
    # A code can be a word, too ("invalid_input"), with the number in another place.
    codes = (_whole(place.get(name)) for place in places for name in ("code", "error_code"))
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


def _cost(value: Any) -> Decimal | None:
    """Read an amount of USD; None unless it is a finite number, 0 or more, and a sane one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() and 0 <= cost <= _COST_LIMIT_USD else None


def _text(value: Any) -> str | None:
    return value[:100] if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
