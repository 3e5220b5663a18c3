"""The checks before every call of the API: token, rate limits, general faults.

Always holds: a refused call has changed nothing, and no request was accepted for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from batch_runner.sandbox import answers

if TYPE_CHECKING:
    from aiohttp import web

    from batch_runner.sandbox.faults import FaultPlan
    from batch_runner.sandbox.options import SandboxOptions

# A little less than a second, because the network bunches calls by a few milliseconds.
_WINDOW_S = 0.98


class Gate:
    """The checks, the token first, as at the service."""

    def __init__(self, options: SandboxOptions, faults: FaultPlan) -> None:
        self._options = options
        self._faults = faults
        self._submitted_at_s: deque[float] = deque()

    def check(self, request: web.Request) -> None:
        """Refuse a call with ServiceError or ConnectionDroppedError, or let it pass."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not token.strip():
            raise answers.account_error("the header 'Authorization: Bearer TOKEN' is missing")
        if self._options.token not in (None, token.strip()):
            raise answers.account_error("the token is unknown or revoked")
        if self._faults.strikes_call("token-revoked"):
            raise answers.account_error("the token has expired")
        is_submit = request.method == "POST" and request.path.startswith("/v1/models/")
        if is_submit and self._faults.strikes_call("dropped-submit"):
            raise answers.ConnectionDroppedError
        if self._faults.strikes_call("rate-limit"):
            raise answers.rate_limited("1")
        if self._faults.strikes_call("rate-limit-date"):
            # Dates have whole seconds, so one second ahead could already be over.
            moment = datetime.now(UTC) + timedelta(seconds=2)
            raise answers.rate_limited(format_datetime(moment, usegmt=True))
        if is_submit and self._options.submits_per_s is not None:
            self._check_rate(time.monotonic(), self._options.submits_per_s)
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
            await asyncio.sleep(self._options.slow_answer_s)

    def _check_rate(self, now_s: float, limit: int) -> None:
        """Let at most `limit` submits pass in any window of a second."""
        passed = self._submitted_at_s
        while passed and passed[0] <= now_s - _WINDOW_S:
            passed.popleft()
        if len(passed) >= limit:
            raise answers.rate_limited(str(math.ceil(passed[0] + _WINDOW_S - now_s)))
        passed.append(now_s)
