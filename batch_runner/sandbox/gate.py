"""The checks before every call of the API: token, rate limits, general faults.

Always holds: a refused call has changed nothing, and no request was accepted for it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from batch_runner.sandbox import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from batch_runner.sandbox.faults import FaultPlan
    from batch_runner.sandbox.options import SandboxOptions

# A little less than a second, because the network bunches calls by a few milliseconds.
_WINDOW_S = 0.98


class RateLimit:
    """At most `limit` calls in any window of a second; None lets everything through."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._passed_at_s: deque[float] = deque()

    def compute_wait(self, now_s: float) -> float:
        """Let a call pass (0.0), or return the seconds until the next may pass."""
        if self._limit is None:
            return 0.0
        while self._passed_at_s and self._passed_at_s[0] <= now_s - _WINDOW_S:
            self._passed_at_s.popleft()
        if len(self._passed_at_s) >= self._limit:
            return self._passed_at_s[0] + _WINDOW_S - now_s
        self._passed_at_s.append(now_s)
        return 0.0


class Gate:
    """The checks, the token first, as at the service."""

    def __init__(
        self, options: SandboxOptions, faults: FaultPlan, monotonic: Callable[[], float]
    ) -> None:
        self._token = options.token
        self._slow_answer_s = options.slow_answer_s
        self._faults = faults
        self._monotonic = monotonic
        self._submits = RateLimit(options.submits_per_s)
        self._calls = RateLimit(options.calls_per_s)

    def check(self, request: web.Request) -> None:
        """Refuse a call with ServiceError or ConnectionDroppedError, or let it pass."""
        self._check_token(request.headers.get("Authorization", ""))
        if self._faults.strikes_call("token-revoked"):
            raise answers.account_error("the token has expired")
        if self._is_submit(request) and self._faults.strikes_call("dropped-submit"):
            raise answers.ConnectionDroppedError
        self._check_rates(request)
        if request.method == "GET" and self._faults.strikes_call("error-500-get"):
            raise answers.ServiceError(500, "something went wrong on our side")

    def find_web_page(self) -> web.Response | None:
        """Return the page of a broken proxy if that fault strikes."""
        if self._faults.strikes_call("html-answer"):
            return answers.build_web_page("502 Bad Gateway", status=502)
        return None

    async def delay(self) -> None:
        """Delay an answer if that fault strikes."""
        if self._faults.strikes_call("slow-answer"):
            await asyncio.sleep(self._slow_answer_s)

    def _check_token(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.casefold() != "bearer" or not token:
            raise answers.account_error("the header 'Authorization: Bearer TOKEN' is missing")
        if self._token is not None and token != self._token:
            raise answers.account_error("the token is unknown or revoked")

    def _check_rates(self, request: web.Request) -> None:
        if self._faults.strikes_call("rate-limit"):
            raise answers.rate_limited("1")
        if self._faults.strikes_call("rate-limit-date"):
            # Dates have whole seconds, so one second ahead could already be over.
            moment = datetime.now(UTC) + timedelta(seconds=2)
            raise answers.rate_limited(format_datetime(moment, usegmt=True))
        if request.method in ("GET", "HEAD"):
            wait_s = self._calls.compute_wait(self._monotonic())
        elif self._is_submit(request):
            wait_s = self._submits.compute_wait(self._monotonic())
        else:
            wait_s = 0.0
        if wait_s > 0:
            raise answers.rate_limited(str(math.ceil(wait_s)))

    @staticmethod
    def _is_submit(request: web.Request) -> bool:
        return request.method == "POST" and request.path.startswith("/v1/models/")
