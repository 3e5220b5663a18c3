"""The calls of the API: models, balance, and submit, status, result and cancel of requests.

Hides the documents of the API contract. Faults of one call or one request are made here, after the
gate, beside the code that they disturb.

Always holds: a POST is answered only after its request is on disk.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Container
from typing import Any

import msgspec
from aiohttp import web

from batch_runner.sandbox import answers, catalog
from batch_runner.sandbox.answers import ServiceError
from batch_runner.sandbox.faults import GONE, NOT_READY, CodedFault, FaultPlan
from batch_runner.sandbox.pictures import RenderedFile
from batch_runner.sandbox.requests import Life, Request, RequestBook, RequestError
from batch_runner.sandbox.sources import find_source_problem, is_here, list_source_urls

_REFUSED_WORDS = ("forbidden", "nsfw")
_DEFAULT_PAGE, _LARGEST_PAGE = 100, 500

_STRANGE_STATE = "under_review"
# They resemble the service's own addresses, but another host would be contacted.
_HOSTILE_URLS = [
    "https://127.0.0.1\\@cdn.runcomfy.net/x.png",
    "https://cdn.runcomfy.net@evil.example/x.png",
    "https://runcomfy.net.evil.example/x.png",
]
_FOREIGN_URL = "https://pictures.example.org/1.png"

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
            web.get("/v1/models", self.search_models),
            web.get("/v1/models/categories", self.list_categories),
            web.get("/v1/models/{model_id:.+}", self.describe_model),
            web.post("/v1/models/{model_id:.+}", self.submit),
            web.get("/prod/v2/balance", self.show_balance),
            web.get("/v1/requests/{request_id}/status", self.show_status),
            web.get("/v1/requests/{request_id}/result", self.show_result),
            web.post("/v1/requests/{request_id}/cancel", self.cancel),
        ]

    async def search_models(self, call: web.Request) -> web.Response:
        """`GET /v1/models`: a page of the catalog."""
        query = call.query
        found = list(
            self._models.search(
                query.get("search", ""), query.get("category", ""), query.get("kind", "")
            )
        )
        offset = _read_count(call, "offset", default=0)
        limit = _read_count(call, "limit", default=_DEFAULT_PAGE)
        if not 1 <= limit <= _LARGEST_PAGE:
            raise ServiceError(422001, f"limit must be 1 to {_LARGEST_PAGE}", field=["limit"])
        with_schema = query.get("include_schema") == "true"
        page = [
            self._models.describe(model, with_schema=with_schema)
            for model in found[offset : offset + limit]
        ]
        total = len(found)
        return answers.build_json(
            {"models": page, "total": total, "limit": limit, "offset": offset}
        )

    async def list_categories(self, _call: web.Request) -> web.Response:
        """`GET /v1/models/categories`: the name of every category."""
        return answers.build_json({"categories": self._models.list_categories()})

    async def describe_model(self, call: web.Request) -> web.Response:
        """`GET /v1/models/{model_id}`: one model, with its schema."""
        self._fail("model")
        document = self._models.describe(self._find_model(call), with_schema=True)
        if self._faults.strikes_call("no-price"):
            document.pop("base_price_usd", None)
        if self._faults.strikes_call("unit-image"):
            document["price_unit"] = "image"
        if self._faults.strikes_call("bare-model"):
            document = {"model_id": document["model_id"]}
        return answers.build_json(document)

    async def show_balance(self, _call: web.Request) -> web.Response:
        """`GET /prod/v2/balance`: the money that is left."""
        self._fail("balance")
        balance_usd = self._book.compute_balance()
        document = {
            "balance_usd": balance_usd,
            "balance_microdollars": int(balance_usd * 1_000_000),
            "currency": "USD",
        }
        return answers.build_json(document)

    async def submit(self, call: web.Request) -> web.Response:
        """`POST /v1/models/{model_id}`: accept a request if it is valid and covered."""
        coded = self._faults.find_coded("post")
        if coded is not None and not (coded.is_unclear and self._faults.flip_coin(coded.name)):
            raise _build_error(coded)
        model = self._find_model(call)
        model_input = _decode_input(await call.read())
        self._models.check_input(model, model_input)
        whole = catalog.complete_input(model, model_input)
        here = [url for url in list_source_urls(whole) if is_here(url)]
        if any(url.startswith("data:") for url in here) and self._faults.strikes_call(
            "no-data-uri"
        ):
            raise ServiceError(422001, "pictures must be public HTTPS addresses", field=[])
        # The last await: nothing may come between the check of the balance and `accept`.
        source_problem = await asyncio.to_thread(find_source_problem, here) if here else None
        cost_usd = self._models.price(model, model_input)
        if self._book.compute_balance() < cost_usd:
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
            raise answers.ConnectionDroppedError
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
            return answers.build_json(short, status=202)
        return answers.build_json(document)

    async def show_status(self, call: web.Request) -> web.Response:
        """`GET …/status`: the state, as coarse as the service reports it here."""
        request, life = self._find_request(call)
        return answers.build_json(self._describe_state(request, life))

    async def show_result(self, call: web.Request) -> web.Response:
        """`GET …/result`: the result, or the state while there is none."""
        request, life = self._find_request(call)
        if life.finished_at is None:
            return answers.build_json(self._describe_state(request, life))
        oddly = self._faults.strikes_call("odd-times")
        document: dict[str, Any] = {
            "request_id": request.request_id,
            "status": self._blur_state(request, life.state),
            "created_at": answers.format_time(request.accepted_at_s, oddly=oddly),
            "finished_at": answers.format_time(life.finished_at, oddly=oddly),
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
        return answers.build_json(document)

    async def cancel(self, call: web.Request) -> web.Response:
        """`POST …/cancel`: cancel a queued request; a no-op for others."""
        request, _ = self._find_request(call)
        outcome = "cancelled" if self._book.cancel(request) else "not_cancellable"
        state = self._book.observe(request).state
        document = {
            "request_id": request.request_id,
            "status": _name_status(state),
            "outcome": outcome,
        }
        return answers.build_json(document, status=202)

    def _fail(self, call: str, request_id: str = "", but: Container[int] = ()) -> None:
        """Raise the coded fault of a call, if any."""
        coded = self._faults.find_coded(call, request_id, but=but)
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
        ended = life.finished_at is not None
        is_early = not ended and call.path.endswith("/result")
        excepted = {NOT_READY} if not is_early else set()
        excepted |= {GONE} if not ended else set()
        self._fail("get", request_id, excepted)
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
        prompt = str(model_input.get("prompt", "")).casefold()
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
        fault = self._faults.find_output(request.request_id)
        if fault == "output-missing":
            return {}
        if fault == "output-data-uri":
            file = await self._render(request, model, 1)
            inline = base64.b64encode(file.data).decode()
            return {"output": {model.output: f"data:{file.media_type};base64,{inline}"}}
        if fault is not None:
            return {"output": _distort(fault, model, urls, f"{address}/1.wav")}
        style = model.answer_style
        if style == "list":
            return {"output": urls}
        if style == "text" and count == 1:
            return {"output": urls[0]}
        if count == 1 and style != "plural":
            return {"output": {model.output: urls[0]}}
        return {"output": {f"{model.output}s": urls}}


def _distort(fault: str, model: catalog.Model, urls: list[str], sound: str) -> Any:
    """Return the odd output of a fault of `OUTPUTS`."""
    name, first = model.output, urls[0]
    forms: dict[str, Any] = {
        "evil-url": {"images": _HOSTILE_URLS},
        "many-outputs": {"images": [f"{first}?copy={number}" for number in range(10_000)]},
        "output-null": None,
        "output-empty-list": {f"{name}s": []},
        "output-empty-text": {name: ""},
        "output-text": {"text": "A mug on a table, in the morning."},
        "output-bare-text": "A mug on a table, in the morning.",
        "output-unknown-key": {"render": first},
        "output-objects": {f"{name}s": [{"url": url, "width": 1, "height": 1} for url in urls]},
        "output-url": {"url": first},
        "output-path": {"path": first},
        "output-preview": {"preview": {"url": first}},
        "output-and-preview": {name: first, "preview": {"url": f"{first}?preview=1"}},
        "output-audio": {"audio": sound},
        "output-audios": {"audios": [sound]},
        "output-elsewhere": {name: _FOREIGN_URL},
    }
    return forms[fault]


def _build_error(fault: CodedFault) -> ServiceError:
    """Build the answer of a coded fault."""
    field = ["prompt"] if fault.code == 422001 else None
    return ServiceError(fault.code, fault.message, status=fault.status, field=field)


def _name_status(state: str) -> str:
    """Translate a state for `/status`, where 'completed' means only that the request ended."""
    return "completed" if state in ("succeeded", "failed") else state


def _decode_input(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the body is not a JSON object: {error}"
        raise ServiceError(400, message) from error


def _read_count(call: web.Request, name: str, *, default: int) -> int:
    text = call.query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ServiceError(422001, f"{name}: '{text}' is not a whole number", field=[name])
    return int(text)
