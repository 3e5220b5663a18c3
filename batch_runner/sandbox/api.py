"""The calls of the API: models, balance, and the submit, status, result and cancel of requests.

Hides how the contract's documents are put together. Faults that concern one call or one request of
the API are made here, after the gate and beside the code they disturb.

Always holds: a POST is answered only after its request is on disk.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from batch_runner.sandbox import answers, catalog
from batch_runner.sandbox.faults import FaultPlan
from batch_runner.sandbox.requests import Life, Request, RequestBook, RequestError
from batch_runner.sandbox.source import (
    find_source_problem,
    list_source_urls,
    must_be_fetched,
    split_into_scenes,
)

_REFUSED_WORDS = ("forbidden", "nsfw")
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 200

# Addresses that look like the service's own until one asks which host would be contacted.
_HOSTILE_URLS = (
    "https://127.0.0.1\\@cdn.runcomfy.net/x.png",
    "https://cdn.runcomfy.net@evil.example/x.png",
    "https://runcomfy.net.evil.example/x.png",
)


class Api:
    """The handlers of the API; `origin` is set as soon as the server listens."""

    def __init__(self, book: RequestBook, models: catalog.Catalog, faults: FaultPlan) -> None:
        self._book = book
        self._models = models
        self._faults = faults
        self.origin = ""  # known when the server listens

    def list_routes(self) -> list[web.RouteDef]:
        """List the addresses that are answered here."""
        return [
            web.get("/v1/models", self.search_models),
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
        limit = min(_read_count(call, "limit", default=_DEFAULT_PAGE), _LARGEST_PAGE)
        with_schema = query.get("include_schema") == "true"
        page = [
            self._models.describe(model, with_schema=with_schema)
            for model in found[offset : offset + limit]
        ]
        return answers.build_json({"models": page, "total": len(found)})

    async def describe_model(self, call: web.Request) -> web.Response:
        """`GET /v1/models/{model_id}`: one model, its schema included."""
        document = self._models.describe(self._find_model(call), with_schema=True)
        if self._faults.strikes_call("no-price"):
            del document["base_price_usd"]
        if self._faults.strikes_call("bare-model"):
            document = {"model_id": document["model_id"]}
        return answers.build_json(document)

    async def show_balance(self, _call: web.Request) -> web.Response:
        """`GET /prod/v2/balance`: what is left in the wallet."""
        balance_usd = self._book.compute_balance()
        return answers.build_json({"balance_usd": balance_usd, "currency": "USD"})

    async def submit(self, call: web.Request) -> web.Response:
        """`POST /v1/models/{model_id}`: accept a request, if it is valid and covered."""
        model = self._find_model(call)
        model_input = _decode_input(await call.read())
        problem = self._models.find_problem(model, model_input)
        if problem is not None:
            raise answers.ServiceError(422, "InvalidInput", problem)
        # What has to be fetched first is: from here on nothing may come between two requests.
        whole = catalog.complete_input(model, model_input)
        source_problem = await _find_source_problem(whole)
        cost_usd = self._models.price(model, model_input)
        if self._book.compute_balance() < cost_usd:
            message = f"the balance does not cover this request: it costs {cost_usd} USD"
            raise answers.ServiceError(402, "InsufficientResources", message, code=400002)
        broken = self._faults.strikes_call("error-500")
        if broken and not self._faults.flip_coin("error-500"):
            raise answers.internal_error()
        request = self._book.accept(
            model.model_id,
            model_input,
            cost_usd,
            error=self._foresee_error(whole, source_problem),
            stuck=self._faults.strikes_call("stuck"),
        )
        if broken:
            raise answers.internal_error()
        return self._answer_submit(request)

    def _answer_submit(self, request: Request) -> web.Response:
        if self._faults.strikes_call("lost-answer"):
            raise answers.ConnectionDroppedError
        document = self._link(request)
        document["cancel_url"] = f"{self.origin}/v1/requests/{request.request_id}/cancel"
        if self._faults.strikes_call("no-request-id"):
            del document["request_id"]
        if self._faults.strikes_call("bad-request-id"):
            document["request_id"] = f"../{request.request_id}"
        return answers.build_json(document)

    async def show_status(self, call: web.Request) -> web.Response:
        """`GET …/status`: the state, as coarse as the service tells it here."""
        request, life = self._find_request(call)
        return answers.build_json(self._describe_state(request, life))

    async def show_result(self, call: web.Request) -> web.Response:
        """`GET …/result`: the outcome, or the state while there is none."""
        request, life = self._find_request(call)
        if life.finished_at is None:
            return answers.build_json(self._describe_state(request, life))
        document: dict[str, Any] = {
            "request_id": request.request_id,
            "status": self._blur_state(life.state),
            "created_at": answers.format_time(life.created_at),
            "finished_at": answers.format_time(life.finished_at),
        }
        if life.state == "succeeded":
            document["output"] = self._build_output(request)
        if life.state == "failed":
            document["error"] = request.error
        if call.query.get("include_cost") == "true":
            document["cost"] = request.cost_usd if life.state == "succeeded" else 0
        return answers.build_json(document)

    async def cancel(self, call: web.Request) -> web.Response:
        """`POST …/cancel`: cancel what is still queued; a no-op for the rest."""
        request, _ = self._find_request(call)
        outcome = "cancelled" if self._book.cancel(request) else "not_cancellable"
        state = self._book.observe(request).state
        document = {
            "request_id": request.request_id,
            "status": _name_status(state),
            "outcome": outcome,
        }
        return answers.build_json(document, status=202)

    def _find_model(self, call: web.Request) -> catalog.Model:
        model_id = call.match_info["model_id"]
        model = self._models.find(model_id)
        if model is None:
            raise answers.wrong_identifier(f"there is no model '{model_id}'")
        return model

    def _find_request(self, call: web.Request) -> tuple[Request, Life]:
        request_id = call.match_info["request_id"]
        request = self._book.find(request_id)
        if request is None:
            raise answers.resource_not_found(f"there is no request '{request_id}'")
        if self._faults.strikes_request("other-account", request_id):
            message = "this request belongs to another account"
            raise answers.ServiceError(403, "PermissionDenied", message, code=403001)
        life = self._book.observe(request)
        ended = life.finished_at is not None
        if ended and self._faults.strikes_request("result-404", request_id):
            raise answers.resource_not_found("the results of this request are no longer kept")
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
        document["status"] = self._blur_state(_name_status(life.state))
        if life.state == "in_queue":
            document["queue_position"] = life.queue_position
        return document

    def _blur_state(self, status: str) -> str:
        return "under_review" if self._faults.strikes_call("unknown-state") else status

    def _foresee_error(
        self, model_input: dict[str, Any], source_problem: str | None
    ) -> RequestError | None:
        """Decide at acceptance how the request will end: it is paid for, refused or not."""
        prompt = str(model_input.get("prompt", "")).casefold()
        if any(word in prompt for word in _REFUSED_WORDS):
            return RequestError("content_refused", "the prompt was refused by the safety check")
        if source_problem is not None:
            return RequestError("image_unreachable", source_problem)
        if self._faults.strikes_call("failed"):
            return RequestError("generation_failed", "the model could not finish this request")
        return None

    def _build_output(self, request: Request) -> Any:
        if self._faults.strikes_request("evil-url", request.request_id):
            return {"images": list(_HOSTILE_URLS)}
        model = self._models.find(request.model_id)
        if model is None:
            raise answers.resource_not_found("the model of this request is not served any more")
        extension = catalog.name_extension(model, request.input)
        count = catalog.count_outputs(request.input)
        urls = [
            f"{self.origin}/outputs/{request.request_id}/{number}.{extension}"
            for number in range(1, count + 1)
        ]
        if self._faults.strikes_request("many-outputs", request.request_id):
            return {"images": [f"{urls[0]}?copy={number}" for number in range(10_000)]}
        style = model.answer_style
        if style == "list":
            return urls
        if style == "text" and count == 1:
            return urls[0]
        name = model.output
        if count == 1 and style != "plural":
            return {name: urls[0]}
        return {f"{name}s": urls}


async def _find_source_problem(model_input: dict[str, Any]) -> str | None:
    scenes = split_into_scenes(model_input)
    for url in [url for scene in scenes for url in list_source_urls(scene)]:
        if must_be_fetched(url):
            problem = await asyncio.to_thread(find_source_problem, url)
        else:
            problem = find_source_problem(url)
        if problem is not None:
            return problem
    return None


def _name_status(state: str) -> str:
    """Translate a state for `/status`, where 'completed' says only that it ended."""
    return "completed" if state in ("succeeded", "failed") else state


def _decode_input(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the body is no JSON object: {error}"
        raise answers.ServiceError(400, "InvalidInput", message) from error


def _read_count(call: web.Request, name: str, *, default: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        message = f"{name}: '{text}' is not a whole number of at least 0"
        raise answers.ServiceError(422, "InvalidInput", message)
    return int(text)
