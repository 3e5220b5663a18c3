"""The simulated service: it keeps the contract, and its own book of what it accepted.

The book is the judge: what is in it was paid for. `faults` says what may go wrong; which faults
strike which call follows from the seed, or from a list of strikes.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from simulation.client import Call, Reply
from simulation.world import BEGIN, World

PRICE_USD = Decimal("0.07")
TOKEN = "simulated"
KEPT_S = 7 * 24 * 3600.0

Answer: TypeAlias = Callable[[], Reply]
_OfCall: TypeAlias = Callable[["Service", Call, Answer], Reply]
_OfRequest: TypeAlias = Callable[["Request", random.Random], object]

OF_CALLS: dict[str, tuple[tuple[str, ...], _OfCall]] = {}
OF_REQUESTS: dict[str, _OfRequest] = {}


class Strike(NamedTuple):
    """A fault that strikes one call ("post 3" is the third POST), or one request."""

    fault: str
    label: str


@dataclass(eq=False)
class Request:
    """A request that was accepted. `job` is what was bought, as JSON: equal text, equal job."""

    request_id: str
    job: str
    input: dict[str, Any]
    sent_s: float
    at_s: float
    queue_s: float
    run_s: float
    cost_usd: Decimal = PRICE_USD
    fails: bool = False
    is_cancelled: bool = False
    is_known: bool = False
    """Whether the program has recorded it: a run polls."""
    kept_s: float = KEPT_S
    shown: dict[str, Any] = field(default_factory=dict)
    """What its result says in place of the truth."""

    @property
    def ends_s(self) -> float:
        """When it ends."""
        return self.at_s + self.queue_s + self.run_s

    def files(self) -> list[bytes]:
        """Return the pictures that it makes; each request makes others."""
        count = int(self.input.get("num_images", 1))
        return [picture(f"{self.request_id} {number}") for number in range(1, count + 1)]


class Service:
    """Answers calls; `accepted` is its book."""

    def __init__(
        self,
        world: World,
        seed: object,
        weather: Mapping[str, float],
        strikes: Collection[Strike] | None = None,
    ) -> None:
        self.world = world
        self.accepted: dict[str, Request] = {}
        self.struck: list[Strike] = []
        self.balance_usd = Decimal(1000)
        self._seed = seed
        self._weather = weather
        self._strikes = strikes
        self._calls: Counter[str] = Counter()

    def is_refusing(self, call: Call) -> bool:
        """Tell whether no connection is made to it for a call that is about to leave."""
        self._describe(call)
        return self._strikes_here("refused-connection", call.label)

    def answer(self, call: Call) -> Reply:
        """Answer a call; faults may disturb it."""
        disturbed: Callable[[], Reply] = lambda: self._answer(call)  # noqa: E731 - faults wrap it
        for name, (kinds, disturb) in OF_CALLS.items():
            if call.kind in kinds and self._strikes_here(name, call.label):
                inner = disturbed
                disturbed = lambda inner=inner, disturb=disturb: disturb(self, call, inner)  # type: ignore[misc]  # noqa: E731
        reply = disturbed()
        how = reply.ends or reply.status
        self.world.note(f"    {call.label}: {call.method} {call.url.path} -> {how}")
        return reply

    def calm(self) -> None:
        """From now on nothing goes wrong, and what goes on for ever comes to an end."""
        self._weather, self._strikes = {}, None
        for request in self.accepted.values():
            longest_s = max(0.0, self.world.now_s - request.at_s - request.queue_s)
            request.run_s = min(request.run_s, longest_s)

    @property
    def purchases_and_polls(self) -> int:
        """How many calls came that mean progress."""
        return self._calls["post"] + self._calls["poll"] + self._calls["file"]

    def spent_usd(self) -> Decimal:
        """Return what all requests cost."""
        return sum((self.cost_usd(one) for one in self.accepted.values()), Decimal(0))

    def cost_usd(self, request: Request) -> Decimal:
        """Return what a request costs: nothing if it failed or was cancelled."""
        is_free = request.is_cancelled or (request.fails and self.world.now_s >= request.ends_s)
        return Decimal(0) if is_free else request.cost_usd

    def accept(self, call: Call) -> Request:
        """Accept a POST: from now on it is paid for."""
        number = len(self.accepted) + 1
        dice = random.Random(f"{self._seed} request {number}")
        words = json.loads(call.body or b"{}")
        job = json.dumps([call.url.path, words], sort_keys=True)
        request_id = f"request-{number}-{dice.randrange(16**6):06x}"
        queue_s, run_s = dice.uniform(0, 4), dice.uniform(1, 25)
        request = Request(request_id, job, words, call.sent_s, self.world.now_s, queue_s, run_s)
        request.cost_usd = PRICE_USD * len(request.files())
        for name, change in OF_REQUESTS.items():
            if self._strikes_here(name, f"request {number}"):
                change(request, dice)
        self.accepted[request_id] = request
        self.world.note(f"    accepted {request_id}")
        return request

    def _describe(self, call: Call) -> None:
        parts = call.url.path.strip("/").split("/")
        if call.url.host == "cdn.runcomfy.net":
            call.kind = "file"
        elif parts[-1] in ("result", "cancel", "balance"):
            call.kind = {"result": "poll"}.get(parts[-1], parts[-1])
        else:
            call.kind = "post" if call.method == "POST" else "model"
        self._calls[call.kind] += 1
        call.label = f"{call.kind} {self._calls[call.kind]}"

    def _strikes_here(self, fault: str, label: str) -> bool:
        strike = Strike(fault, label)
        if self._strikes is not None:
            strikes = strike in self._strikes
        else:
            rate = self._weather.get(fault, 0.0)
            strikes = rate > 0 and random.Random(f"{self._seed} {strike}").random() < rate
        if strikes:
            self.struck.append(strike)
            self.world.note(f"    ! {fault} strikes {label}")
        return strikes

    def _answer(self, call: Call) -> Reply:
        if call.kind == "file":
            return self._send_file(call)
        if call.token != f"Bearer {TOKEN}":
            return error(401, 400004)
        match call.kind:
            case "post":
                return self._submit(call)
            case "model":
                about = {"model_id": call.url.path[11:], "kind": "model", "price_unit": "output"}
                return document({**about, "base_price_usd": float(PRICE_USD)})
            case "balance":
                left_usd = self.balance_usd - self.spent_usd()
                return document({"balance_usd": float(left_usd), "currency": "USD"})
        request = self.accepted.get(call.url.path.split("/")[3])
        if request is None:
            return error(404, 404001)
        # `resolve` polls ids that a person pasted, and may leave them alone.
        request.is_known |= call.sent_by.endswith(":run")
        return self._cancel(request) if call.kind == "cancel" else self._show(request)

    def _submit(self, call: Call) -> Reply:
        request = self.accept(call)
        return document({"request_id": request.request_id, "status_url": "", "result_url": ""})

    def _cancel(self, request: Request) -> Reply:
        if state_of(request, self.world.now_s) == "in_queue":
            request.is_cancelled = True
            return document({"request_id": request.request_id, "outcome": "cancelled"}, 202)
        return document({"request_id": request.request_id, "outcome": "not_cancellable"}, 202)

    def _show(self, request: Request) -> Reply:
        now_s, state = self.world.now_s, state_of(request, self.world.now_s)
        told: dict[str, Any] = {"request_id": request.request_id, "status": state}
        if now_s > request.ends_s + request.kept_s:
            return error(404, 404001)
        if state in ("succeeded", "failed"):
            told |= {"created_at": _date(request.at_s), "finished_at": _date(request.ends_s)}
            told["cost"] = float(self.cost_usd(request))
        if state == "succeeded":
            count = len(request.files())
            urls = [f"{FILES}/{request.request_id}/{number}.png" for number in range(count)]
            told["output"] = {"images": urls} if count > 1 else {"image": urls[0]}
        elif state == "failed":
            told["error"] = {"code": "generation_failed", "message": "it did not work"}
        return document({**told, **(request.shown if state in ("succeeded", "failed") else {})})

    def _send_file(self, call: Call) -> Reply:
        _, request_id, name = call.url.path.split("/")
        request = self.accepted.get(request_id)
        if request is None or self.world.now_s > request.ends_s + request.kept_s:
            return error(404, 404001)
        return send(request.files()[int(name.removesuffix(".png"))])


FILES = "https://cdn.runcomfy.net"


def state_of(request: Request, now_s: float) -> str:
    """Return the state of a request."""
    if request.is_cancelled:
        return "cancelled"
    if now_s < request.at_s + request.queue_s:
        return "in_queue"
    if now_s < request.ends_s:
        return "in_progress"
    return "failed" if request.fails else "succeeded"


def document(body: dict[str, Any], status: int = 200) -> Reply:
    """Return an answer with a JSON body."""
    return Reply(status, json.dumps(body).encode())


def error(status: int, code: int, **headers: str) -> Reply:
    """Return an error of the service."""
    body = {"error_code": code, "error_message": f"error {code}"}
    return Reply(
        status, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()}
    )


def send(body: bytes) -> Reply:
    """Return an answer with a file."""
    return Reply(200, body, {"Content-Length": str(len(body)), "Content-Type": "image/png"})


def picture(text: str) -> bytes:
    """Return a whole, very small PNG that says something."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"tEXt", b"Comment\0" + text.encode()),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _date(at_s: float) -> str:
    return (BEGIN + timedelta(seconds=at_s)).isoformat()


def of_call(*kinds: str) -> Callable[[_OfCall], _OfCall]:
    """Add a fault of these kinds of calls, under the name of its function."""

    def add(function: _OfCall) -> _OfCall:
        OF_CALLS[function.__name__.replace("_", "-")] = kinds, function
        return function

    return add


def of_request(function: _OfRequest) -> _OfRequest:
    """Add a fault of requests, under the name of its function."""
    OF_REQUESTS[function.__name__.replace("_", "-")] = function
    return function


def all_faults() -> tuple[str, ...]:
    """Return the names of all faults."""
    return ("refused-connection", *OF_CALLS, *OF_REQUESTS)
