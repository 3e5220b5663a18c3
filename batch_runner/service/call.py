"""One HTTP call to the service: send it, read the answer, and classify it.

Hides HTTP and the token. Always holds: the token goes only to the API's own origin, never with a
redirect, and is in no message and no repr; a call is LOST once it may have left, and NOT_SENT or
BARRED only if no byte of it has. Nothing is retried here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from batch_runner.errors import ServiceUnavailableError, UsageError
from batch_runner.records import is_request_id
from batch_runner.service.answer import (
    Answer,
    Call,
    Loss,
    Meaning,
    Verdict,
    classify,
    parse_retry_after,
    read_balance_usd,
    read_text,
)
from batch_runner.service.error_body import read_whole
from batch_runner.service.web import (
    CERTIFICATE_HINT,
    NO_PROXIES,
    PROXY_HINT,
    Client,
    Proxies,
    describe,
    is_barred_by_proxy,
    is_certificate_error,
    is_loopback_host,
    open_client,
    running_for,
)

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.connector import Connection

API_BASE = "https://model-api.runcomfy.net"
BALANCE_BASE = "https://api.runcomfy.net"

_CONNECT_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 100.0
"""The vendor's own tools wait as long for the answer to a POST."""
_SUBMIT_KEEPALIVE_S = 0.25
_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
"""Results may contain pictures as data: URLs."""
_MODELS_A_PAGE = 100
_MODELS_LIMIT = 10_000
"""No catalog is larger, whatever total the service claims."""

_TOKEN = re.compile(r"[!-~]+")


class Service:
    """The service at one origin, with one token. `async with` opens and closes its connections.

    `token` None is for a service that needs none. The token goes only to the `api_base` origin, and
    to the vendor's own origin for balances.
    """

    def __init__(self, api_base: str, token: str | None, proxies: Proxies = NO_PROXIES) -> None:
        self.origin = parse_origin(api_base)
        self._proxies = proxies
        self._token = token if token is None else token.strip()
        if self._token is not None and not _TOKEN.fullmatch(self._token):
            raise UsageError("the token contains invalid characters", hint="copy it again")
        self._sessions: list[Client] = []
        self._session: Client | None = None
        self._submit_session: Client | None = None
        self._single_use_session: Client | None = None

    def __repr__(self) -> str:
        return f"Service({self.origin!r}, token {'set' if self._token else 'missing'})"

    async def __aenter__(self) -> Self:
        self._session = self._open_client(keepalive_timeout=10)
        # A server may close a kept connection at the very moment a POST uses it, and then nobody
        # knows whether the POST arrived. Servers close connections that were idle for seconds, so a
        # POST reuses a connection only within a moment.
        self._submit_session = self._open_client(keepalive_timeout=_SUBMIT_KEEPALIVE_S)
        # Once a service has hung up on a POST, every later POST takes a new connection.
        self._single_use_session = self._open_client(force_close=True)
        self._sessions = [self._session, self._submit_session, self._single_use_session]
        return self

    def _open_client(self, **connector: Any) -> Client:
        # No limit of connections: pacing bounds the calls, and a POST that waits for a free
        # connection would look as if it might have left. The timeout for connecting includes the
        # name lookup, so that a slow resolver ends as "not sent" too.
        return open_client(
            self._proxies,
            timeout={"total": None, "connect": _CONNECT_TIMEOUT_S},
            connector={"limit": 0, **connector},
            request_class=_request_class(),
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._sessions:
            await client.close()

    @property
    def host(self) -> str:
        """The host of the API."""
        return urlsplit(self.origin).hostname or ""

    @property
    def is_local(self) -> bool:
        """Whether the service runs on this machine and can read its files."""
        return is_loopback(self.origin)

    async def submit(self, model_id: str, input_: dict[str, Any]) -> Verdict:
        """Send one job: the one call that costs money."""
        url = f"{self.origin}/v1/models/{quote(model_id)}"
        return self._classify(Call.SUBMIT, await self._call("POST", url, body=input_))

    async def result(self, request_id: str, sent: Collection[str] = ()) -> Verdict:
        """Poll a request: its state, and once it has ended, its outputs and cost.

        `sent`: the unsigned URLs of its input. They are no outputs if the answer repeats them.
        """
        url = f"{self.origin}/v1/requests/{_safe(request_id)}/result?include_cost=true"
        answer = await self._call("GET", url)
        named = answer.body.get("request_id") if isinstance(answer.body, dict) else None
        if answer.status == 200 and named is not None and named != request_id:
            message = "the answer is about another request"
            return Verdict(meaning=Meaning.TRANSIENT, reason="unusable answer", message=message)
        return self._classify(Call.RESULT, answer, sent)

    async def cancel(self, request_id: str) -> tuple[Verdict, str | None]:
        """Cancel a request if it is still queued; returns the service's outcome too."""
        answer = await self._call("POST", f"{self.origin}/v1/requests/{_safe(request_id)}/cancel")
        outcome = answer.body.get("outcome") if isinstance(answer.body, dict) else None
        return self._classify(Call.OTHER, answer), read_text(outcome)

    async def model(self, model_id: str) -> tuple[Verdict, dict[str, Any] | None]:
        """Get what the service publishes about a model, such as schema and price."""
        answer = await self._call("GET", f"{self.origin}/v1/models/{quote(model_id)}")
        verdict = self._classify(Call.OTHER, answer)
        return verdict, answer.body if verdict.meaning is Meaning.OK else None

    async def models(
        self, search: str = "", category: str = ""
    ) -> tuple[Verdict, list[dict[str, Any]]]:
        """Get the service's catalog, page by page, without schemas."""
        entries: list[dict[str, Any]] = []
        filters = {"search": search, "category": category}
        query = {name: text for name, text in filters.items() if text}
        while True:
            query |= {"limit": str(_MODELS_A_PAGE), "offset": str(len(entries))}
            answer = await self._call("GET", f"{self.origin}/v1/models?{urlencode(query)}")
            verdict = self._classify(Call.OTHER, answer)
            body = answer.body if isinstance(answer.body, dict) else {}
            page = body.get("models")
            listed = page if isinstance(page, list) else []
            new = [entry for entry in listed if isinstance(entry, dict)]
            # A service that ignores the offset sends the same page again.
            if verdict.meaning is not Meaning.OK or not new or new[0] in entries:
                return verdict, entries
            entries += new
            total = read_whole(body.get("total"))
            if len(entries) >= (_MODELS_LIMIT if total is None else min(total, _MODELS_LIMIT)):
                return verdict, entries

    async def balance_usd(self) -> Decimal | None:
        """Get the account's balance; None if the service does not report it."""
        base = BALANCE_BASE if self.origin == API_BASE else self.origin
        answer = await self._call("GET", f"{base}/prod/v2/balance")
        return read_balance_usd(answer.body)

    def _classify(self, call: Call, answer: Answer, sent: Collection[str] = ()) -> Verdict:
        verdict = classify(call, answer, sent)
        if self._token and self._token in verdict.message:
            # Some services repeat a token that they refuse, and messages are recorded.
            message = verdict.message.replace(self._token, "(token)")
            return msgspec.structs.replace(verdict, message=message)
        return verdict

    async def _call(self, method: str, url: str, body: Any = None) -> Answer:
        """Make a call. Raises ServiceUnavailableError if no call gets through from this machine.

        A POST with a body, which costs money, never raises: its outcome must be recorded first.
        """
        from yarl import URL  # noqa: PLC0415 - heavy, and some commands call nobody

        client = self._session if body is None else self._submit_session
        if client is None:
            raise RuntimeError("a call outside of `async with service`")
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        departure = _Departure()
        _departure.set(departure)
        try:
            # Every part is encoded already, and checking again would take time.
            address = URL(url, encoded=True)
            async with (
                running_for(_CALL_TIMEOUT_S),
                client.request(method, address, data=data, headers=headers) as response,
            ):
                return await _read(response)
        except _StaleConnectionError:
            # Nothing was sent, and that connection is closed now: use another.
            return await self._call(method, url, body)
        except _network_errors() as error:
            answer = _answer_of_error(error, has_left=departure.has_left)
            if answer.loss is Loss.LOST and client is self._submit_session and _hung_up(error):
                self._submit_session = self._single_use_session
        if answer.loss is Loss.BARRED and body is None:
            raise unavailable(answer.detail)
        return answer


class _Departure:
    """Whether a call has begun to leave; before that, it only connects."""

    has_left = False


_departure: ContextVar[_Departure] = ContextVar("departure")


class _StaleConnectionError(Exception):
    """A kept connection has received an answer to no request."""


def _request_class() -> type[aiohttp.ClientRequest]:
    import aiohttp  # noqa: PLC0415 - likewise

    class Request(aiohttp.ClientRequest):
        """A request that leaves only if the next answer on its connection will be its own.

        A proxy may send a surplus answer (408 to an idle connection, or a late one after its 504).
        It would be taken for the answer to this call, and the real one for that of the next job:
        after a stray 429, an accepted job would be submitted again.
        """

        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if conn.protocol is None or conn.protocol.should_close:
                raise _StaleConnectionError
            _departure.get().has_left = True
            return await super().send(conn)

    return Request


def _network_errors() -> tuple[type[BaseException], ...]:
    import aiohttp  # noqa: PLC0415 - likewise

    return aiohttp.ClientError, TimeoutError, OSError


def _hung_up(error: BaseException) -> bool:
    import aiohttp  # noqa: PLC0415 - likewise

    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def _answer_of_error(error: BaseException, *, has_left: bool) -> Answer:
    if has_left:
        return Answer(loss=Loss.LOST, detail=describe(error))
    if is_certificate_error(error) or is_barred_by_proxy(error):
        return Answer(loss=Loss.BARRED, detail=describe(error))
    return Answer(loss=Loss.NOT_SENT, detail=describe(error))


def unavailable(detail: str) -> ServiceUnavailableError:
    """Return the error for a service that is unreachable until something here is changed."""
    hint = PROXY_HINT if detail.startswith("the proxy") else CERTIFICATE_HINT
    return ServiceUnavailableError(f"the service cannot be reached: {detail}", hint=hint)


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
    """Return the origin of an API base; raises UsageError unless it is https or loopback."""
    try:
        parts = urlsplit(api_base if "://" in api_base else f"https://{api_base}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise UsageError(
            f"'{api_base}' is not the address of a service", hint=f"write it like {API_BASE}"
        )
    shown = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")
    if parts.scheme == "http" and not is_loopback(origin):
        raise UsageError(
            f"'{api_base}' is not https: the token would be sent unencrypted",
            hint="write https://; http works only for a service on this machine",
        )
    return origin


def is_loopback(origin: str) -> bool:
    """Return whether an origin is on this machine."""
    return is_loopback_host(urlsplit(origin).hostname or "")


def _safe(request_id: str) -> str:
    if not is_request_id(request_id):
        raise ValueError(f"not a request_id: {request_id[:40]!r}")
    return request_id
