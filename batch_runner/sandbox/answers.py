"""The format of the sandbox's answers: JSON documents, error bodies, web pages.

Always holds: every error of the API is a JSON object with `error_code` and `error_message`. The
code is the service's own if it has one, otherwise the HTTP status. `detail`, a list of
`{loc, msg}`, points to the refused field of an input.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self._document: dict[str, Any] = {"error_code": code, "error_message": message}
        if field is not None:
            self._document["detail"] = [{"loc": ["body", *field], "msg": message}]
        self._status = status or int(str(code)[:3])
        self._retry_after = retry_after

    def build_response(self) -> web.Response:
        """Build the response."""
        response = build_json(self._document, self._status)
        if self._retry_after is not None:
            response.headers["Retry-After"] = self._retry_after
        return response


class ConnectionDroppedError(Exception):
    """No answer: the server drops the connection."""


def build_json(document: Any, status: int = 200) -> web.Response:
    """Build a JSON answer."""
    return web.Response(
        body=_encoder.encode(document),
        status=status,
        content_type="application/json",
        charset="utf-8",
    )


def build_web_page(title: str, status: int = 200) -> web.Response:
    """Build a page like that of a proxy or a login."""
    return web.Response(text=WEB_PAGE.format(title), status=status, content_type="text/html")
