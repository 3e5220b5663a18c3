"""The calls of the API: models, balance, and submit, status, result and cancel of requests.

Hides the documents of the API contract. Faults of one call or one request are made here, after the
gate, beside the code that they disturb.

Always holds: a POST is answered only after its request is on disk. Every error is a JSON object
with `error_code` and `error_message`. The code is the service's own if it has one, otherwise the
HTTP status. `detail`, a list of `{loc, msg}`, points to the refused field of an input.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from aiohttp import web

from batch_runner.sandbox import catalog
from batch_runner.sandbox.faults import GONE, NOT_READY, OUTPUTS, CodedFault, FaultPlan
from batch_runner.sandbox.pictures import (
    RenderedFile,
    find_source_problem,
    is_here,
    list_source_urls,
    prompt_of,
)
from batch_runner.sandbox.requests import Life, Request, RequestBook, RequestError

_REFUSED_WORDS = ("forbidden", "nsfw")
_DEFAULT_PAGE, _LARGEST_PAGE = 100, 500
_STRANGE_STATE = "under_review"
_MANY = 10_000

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


Render = Callable[[Request, catalog.Model, int], Awaitable[RenderedFile]]
"""Makes output `number` of a request."""


class Api:
    """The handlers of the API; `origin` is set once the server listens."""

    def __init__(
        self, book: RequestBook, models: catalog.Catalog, faults: FaultPlan, render: Render
    ) -> None:
        self._book = book
        self._models = models
        self._faults = faults
        self._render = render
        self.origin = ""

    def list_routes(self) -> list[web.RouteDef]:
        """Return the routes of the API."""
        return [
            web.get("/v1/models", self._search_models),
            web.get("/v1/models/categories", self._list_categories),
            web.get("/v1/models/{model_id:.+}", self._describe_model),
            web.post("/v1/models/{model_id:.+}", self._submit),
            web.get("/prod/v2/balance", self._show_balance),
            web.get("/v1/requests/{request_id}/status", self._show_status),
            web.get("/v1/requests/{request_id}/result", self._show_result),
            web.post("/v1/requests/{request_id}/cancel", self._cancel),
        ]

    async def _search_models(self, call: web.Request) -> web.Response:
        query = call.query
        words = (query.get(name, "") for name in ("search", "category", "kind"))
        found = list(self._models.search(*words))
        try:
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", _DEFAULT_PAGE))
        except ValueError:
            offset = limit = -1
        if offset < 0 or not 1 <= limit <= _LARGEST_PAGE:
            message = f"limit must be 1 to {_LARGEST_PAGE}, offset 0 or more"
            raise ServiceError(422001, message, field=["limit"])
        with_schema = query.get("include_schema") == "true"
        page = [
            self._models.describe(model, with_schema=with_schema)
            for model in found[offset : offset + limit]
        ]
        document = {"models": page, "total": len(found), "limit": limit, "offset": offset}
        return build_json(document)

    async def _list_categories(self, _call: web.Request) -> web.Response:
        return build_json({"categories": self._models.list_categories()})

    async def _describe_model(self, call: web.Request) -> web.Response:
        self._fail("model")
        document = self._models.describe(self._find_model(call), with_schema=True)
        if self._faults.strikes_call("no-price"):
            document.pop("base_price_usd", None)
        if self._faults.strikes_call("unit-image"):
            document["price_unit"] = "image"
        if self._faults.strikes_call("bare-model"):
            document = {"model_id": document["model_id"]}
        return build_json(document)

    async def _show_balance(self, _call: web.Request) -> web.Response:
        self._fail("balance")
        balance_usd = self._book.balance_usd
        document = {
            "balance_usd": balance_usd,
            "balance_microdollars": int(balance_usd * 1_000_000),
            "currency": "USD",
        }
        return build_json(document)

    async def _submit(self, call: web.Request) -> web.Response:
        coded = self._faults.find_coded("post")
        if coded is not None and not (coded.is_unclear and self._faults.flip_coin()):
            raise _build_error(coded)
        model = self._find_model(call)
        try:
            model_input = msgspec.json.decode(await call.read(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServiceError(400, f"the body is not a JSON object: {error}") from error
        problem = self._models.find_problem(model, model_input)
        if problem is not None:
            raise ServiceError(422001, problem.message[:300], field=list(problem.instance_path))
        whole = catalog.complete_input(model, model_input)
        here = [url for url in list_source_urls(whole) if is_here(url)]
        inline = any(url.startswith("data:") for url in here)
        if inline and self._faults.strikes_call("no-data-uri"):
            raise ServiceError(422001, "pictures must be public HTTPS addresses", field=[])
        # The last await: nothing may come between the check of the balance and `accept`.
        source_problem = await asyncio.to_thread(find_source_problem, here) if here else None
        cost_usd = self._models.price(model, model_input)
        if self._book.balance_usd < cost_usd:
            message = f"the balance does not cover this request: it costs {cost_usd} USD"
            raise ServiceError(400002, message, status=402)
        earlier = self._book.last_request_id
        request = self._book.accept(
            model.model_id,
            model_input,
            cost_usd,
            error=self._foresee_error(whole, source_problem),
            stuck=self._faults.strikes_call("stuck"),
        )
        if coded is not None:
            raise _build_error(coded)
        return self._answer_submit(request, earlier)

    def _answer_submit(self, request: Request, earlier: str | None) -> web.Response:
        if self._faults.strikes_call("lost-answer"):
            raise ConnectionDroppedError
        document = self._link(request)
        document["cancel_url"] = f"{self.origin}/v1/requests/{request.request_id}/cancel"
        if self._faults.strikes_call("no-request-id"):
            del document["request_id"]
        if self._faults.strikes_call("bad-request-id"):
            document["request_id"] = f"../{request.request_id}"
        if earlier is not None and self._faults.strikes_call("repeated-request-id"):
            document["request_id"] = earlier
        if self._faults.strikes_call("accepted-202"):
            short = {"request_id": document.get("request_id"), "status": "in_queue"}
            return build_json(short, 202)
        return build_json(document)

    async def _show_status(self, call: web.Request) -> web.Response:
        request, life = self._find_request(call)
        return build_json(self._describe_state(request, life))

    async def _show_result(self, call: web.Request) -> web.Response:
        request, life = self._find_request(call)
        if life.finished_at is None:
            return build_json(self._describe_state(request, life))
        oddly = self._faults.strikes_call("odd-times")
        document: dict[str, Any] = {
            "request_id": request.request_id,
            "status": self._blur_state(request, life.state),
            "created_at": _format_time(request.accepted_at_s, oddly=oddly),
            "finished_at": _format_time(life.finished_at, oddly=oddly),
        }
        if self._faults.strikes_call("echo"):
            document |= {"model_id": request.model_id, "input": request.input}
        if life.state == "succeeded":
            document |= await self._build_output(request)
        if life.state == "failed" and request.error is not None:
            is_list = self._faults.strikes_call("error-list")
            # As the vendor's sibling API writes errors.
            listed = {"errorCode": request.error.code, "error": request.error.message}
            document["error"] = [listed | {"debugInfo": ""}] if is_list else request.error
        if call.query.get("include_cost") == "true" and not self._faults.strikes_call("no-cost"):
            document["cost"] = request.cost_usd if life.state == "succeeded" else 0
        return build_json(document)

    async def _cancel(self, call: web.Request) -> web.Response:
        request, _ = self._find_request(call)
        outcome = "cancelled" if self._book.cancel(request) else "not_cancellable"
        state = self._book.observe(request).state
        document = {
            "request_id": request.request_id,
            "status": _name_status(state),
            "outcome": outcome,
        }
        return build_json(document, 202)

    def _fail(self, call: str) -> None:
        """Raise the coded fault of a call, if any."""
        coded = self._faults.find_coded(call)
        if coded is not None:
            raise _build_error(coded)

    def _find_model(self, call: web.Request) -> catalog.Model:
        model_id = call.match_info["model_id"]
        model = self._models.find(model_id)
        if model is None:
            raise ServiceError(400001, f"there is no model '{model_id}'", status=404)
        return model

    def _find_request(self, call: web.Request) -> tuple[Request, Life]:
        request_id = call.match_info["request_id"]
        request = self._book.find(request_id)
        if request is None:
            raise ServiceError(404001, f"there is no request '{request_id}'")
        life = self._book.observe(request)
        has_ended = life.finished_at is not None
        coded = self._faults.find_coded("get", request_id)
        if coded is not None and (
            (coded.code == NOT_READY and not has_ended and call.path.endswith("/result"))
            or (coded.code == GONE and has_ended)
            or coded.code not in (NOT_READY, GONE)
        ):
            raise _build_error(coded)
        return request, life

    def _link(self, request: Request) -> dict[str, Any]:
        address = f"{self.origin}/v1/requests/{request.request_id}"
        return {
            "request_id": request.request_id,
            "status_url": f"{address}/status",
            "result_url": f"{address}/result",
        }

    def _describe_state(self, request: Request, life: Life) -> dict[str, Any]:
        document = self._link(request)
        document["status"] = self._blur_state(request, _name_status(life.state))
        if life.state == "in_queue":
            document["queue_position"] = life.queue_position
        return document

    def _blur_state(self, request: Request, status: str) -> str:
        if self._faults.strikes_request("unknown-state-forever", request.request_id):
            return _STRANGE_STATE
        return _STRANGE_STATE if self._faults.strikes_call("unknown-state") else status

    def _foresee_error(
        self, model_input: dict[str, Any], source_problem: str | None
    ) -> RequestError | None:
        """Return the error with which the request will end, if any; decided when it is accepted."""
        prompt = prompt_of(model_input).casefold()
        if any(word in prompt for word in _REFUSED_WORDS):
            return RequestError("content_refused", "the prompt was refused by the safety check")
        if source_problem is not None:
            return RequestError("image_unreachable", source_problem)
        if self._faults.strikes_call("failed"):
            return RequestError("generation_failed", "the model could not finish this request")
        return None

    async def _build_output(self, request: Request) -> dict[str, Any]:
        """Build the output of a result."""
        model = self._models.find(request.model_id)
        if model is None:
            raise ServiceError(404001, "the model of this request is no longer served")
        extension = catalog.name_extension(model, request.input)
        count = catalog.count_outputs(request.input)
        address = f"{self.origin}/outputs/{request.request_id}"
        urls = [f"{address}/{number}.{extension}" for number in range(1, count + 1)]
        fault = self._faults.find(OUTPUTS, request.request_id)
        if fault == "output-missing":
            return {}
        if fault == "many-outputs":
            return {"output": {"images": [f"{urls[0]}?copy={number}" for number in range(_MANY)]}}
        if fault is not None:
            form = OUTPUTS[fault].replace("NAME", model.output).replace("URL", urls[0])
            form = form.replace("SOUND", f"{address}/1.wav")
            if "DATA" in form:
                file = await self._render(request, model, 1)
                inline = base64.b64encode(file.data).decode()
                form = form.replace("DATA", f"data:{file.media_type};base64,{inline}")
            return {"output": json.loads(form)}
        style = model.answer_style
        if style == "list":
            return {"output": urls}
        if style == "text" and count == 1:
            return {"output": urls[0]}
        if count == 1 and style != "plural":
            return {"output": {model.output: urls[0]}}
        return {"output": {f"{model.output}s": urls}}


def _build_error(fault: CodedFault) -> ServiceError:
    """Build the answer of a coded fault."""
    field = ["prompt"] if fault.code == 422001 else None
    return ServiceError(fault.code, fault.message, status=fault.status, field=field)


def _name_status(state: str) -> str:
    """Translate a state for `/status`, where 'completed' means only that the request ended."""
    return "completed" if state in ("succeeded", "failed") else state


def _format_time(epoch_s: float, *, oddly: bool) -> str:
    """Return RFC 3339 in UTC to the millisecond; oddly: an offset and microseconds."""
    if oddly:
        moment = datetime.fromtimestamp(epoch_s, timezone(timedelta(hours=5, minutes=45)))
        return moment.isoformat(timespec="microseconds")
    moment = datetime.fromtimestamp(epoch_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
