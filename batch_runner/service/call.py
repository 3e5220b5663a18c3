"""The calls of the service's API, one method each.

Hides URLs and the token. Always holds: the token goes only to the service's own origins, never with
a redirect, and is in no message and no repr. Nothing is retried here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from batch_runner.errors import UsageError
from batch_runner.records import is_request_id
from batch_runner.service.answer import (
    Answer,
    Call,
    Loss,
    Meaning,
    Verdict,
    classify,
    read_balance_usd,
    read_text,
)
from batch_runner.service.network import (
    API_BASE,
    BALANCE_BASE,
    NO_PROXIES,
    Proxies,
    is_loopback,
    parse_origin,
    unavailable,
)

if TYPE_CHECKING:
    from batch_runner.service.transport import Transport

_MODELS_A_PAGE = 100
_MODELS_LIMIT = 10_000
"""No catalog is larger."""

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
        self._transport: Transport | None = None

    def __repr__(self) -> str:
        return f"Service({self.origin!r}, token {'set' if self._token else 'missing'})"

    async def __aenter__(self) -> Self:
        from batch_runner.service.transport import (  # noqa: PLC0415 - a plan loads no HTTP client
            Transport,
        )

        self._transport = Transport(self._token, self._proxies)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            await self._transport.close()

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

    async def models(self, search: str = "") -> tuple[Verdict, list[dict[str, Any]]]:
        """Get the service's catalog, page by page, without schemas."""
        entries: list[dict[str, Any]] = []
        query = {"search": search} if search else {}
        while True:
            query |= {"limit": str(_MODELS_A_PAGE), "offset": str(len(entries))}
            answer = await self._call("GET", f"{self.origin}/v1/models?{urlencode(query)}")
            verdict = self._classify(Call.OTHER, answer)
            page = answer.body.get("models") if isinstance(answer.body, dict) else None
            listed = page if isinstance(page, list) else []
            new = [entry for entry in listed if isinstance(entry, dict)]
            # A service that ignores the offset sends the same page again.
            if verdict.meaning is not Meaning.OK or not new or new[0] in entries:
                return verdict, entries
            entries += new
            if len(entries) >= _MODELS_LIMIT:
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
        if self._transport is None:
            raise RuntimeError("a call outside of `async with service`")
        content = None if body is None else msgspec.json.encode(body)
        answer = await self._transport.call(method, url, content)
        if answer.loss is Loss.BARRED and body is None:
            raise unavailable(answer.detail)
        return answer


def _safe(request_id: str) -> str:
    if not is_request_id(request_id):
        raise ValueError(f"not a request_id: {request_id[:40]!r}")
    return request_id
