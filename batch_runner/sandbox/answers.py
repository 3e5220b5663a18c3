"""The format of the sandbox's answers: JSON documents, error bodies, times.

Always holds: every error of the API is a JSON object with `error_code` and `error_message`. The
code is the service's own if it has one, otherwise the HTTP status. `detail`, a list of
`{loc, msg}`, points to the refused field of an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from aiohttp import web

# The service writes money as JSON numbers; encoding Decimals avoids floats.
_encoder = msgspec.json.Encoder(decimal_format="number")

WEB_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


class ServiceError(Exception):
    """An error as the answer: handlers raise it, and the server turns it into a response.

    Without a `status`, the code's first three digits are the HTTP status.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        status: int | None = None,
        field: Sequence[str | int] | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = int(str(code)[:3]) if status is None else status
        self.field = field
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}

    def build_response(self) -> web.Response:
        """Build the response."""
        document: dict[str, Any] = {"error_code": self.code, "error_message": self.message}
        if self.field is not None:
            document["detail"] = [{"loc": ["body", *self.field], "msg": self.message}]
        return build_json(document, status=self.status, headers=self.headers)


class ConnectionDroppedError(Exception):
    """No answer: the server drops the connection."""


def build_json(
    document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Build a JSON answer."""
    return web.Response(
        body=_encoder.encode(document),
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )


def build_web_page(title: str, status: int = 200) -> web.Response:
    """Build a page like that of a proxy or a login."""
    return web.Response(text=WEB_PAGE.format(title), status=status, content_type="text/html")


def format_time(epoch_s: float, *, oddly: bool = False) -> str:
    """Return RFC 3339 in UTC to the millisecond; oddly: an offset and microseconds."""
    if oddly:
        moment = datetime.fromtimestamp(epoch_s, timezone(timedelta(hours=5, minutes=45)))
        return moment.isoformat(timespec="microseconds")
    moment = datetime.fromtimestamp(epoch_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
