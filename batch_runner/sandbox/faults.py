"""What can go wrong on purpose: the faults the sandbox can be asked to make.

Hides how a fault is written down and when it strikes. A fault that belongs to one call is drawn
anew for each call, so that trying again can succeed; one that belongs to a request is derived from
the seed and the request_id, so that it stays the same however often one asks, restarts included.

Always holds: the same seed and the same order of calls give the same faults; a fault that was not
asked for never strikes. Does not promise: an exact share over few calls, or the same order of
draws when calls arrive concurrently.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Container
from dataclasses import dataclass

_PLAIN: dict[str, str] = {
    "lost-answer": "POST: accept the request, then drop the connection without an answer",
    "dropped-submit": "POST: drop the connection before anything is accepted",
    "accepted-202": "POST: answer 202 with nothing but request_id and status",
    "repeated-request-id": "POST: accept, and answer with the request_id of an earlier request",
    "no-request-id": "POST: accept, and answer 200 without a request_id",
    "bad-request-id": "POST: accept, and answer with a request_id that has a slash in it",
    "error-500-get": "GET: answer 500",
    "html-answer": "any call: a web page with status 502, nothing accepted",
    "rate-limit": "any call: 429 with 'Retry-After: 1'",
    "rate-limit-date": "any call: 429 with Retry-After as an HTTP date",
    "slow-answer": "any call: answer two seconds late (see --slow-answer-s)",
    "no-data-uri": "POST: refuse pictures that are sent inline as data: with 422",
    "token-revoked": "any call: 401 with code 400004, as for a token that has expired",
    "no-price": "GET of a model: leave its price out",
    "unit-image": "GET of a model: the price is said to be for an image, not for an output",
    "bare-model": "GET of a model: leave out everything but its name",
    "failed": "the request ends failed, and is refunded",
    "error-list": "result: the error of a failed request is a list [{errorCode, error, debugInfo}]",
    "no-cost": "result: leave the cost out",
    "echo": "result: repeat model_id and the input that was sent",
    "odd-times": "result: times with an offset and microseconds",
    "stuck": "the request runs forever",
    "unknown-state": "status and result: a state that is documented nowhere",
    "unknown-state-forever": "the request is in such a state, and never leaves it",
    "html-file": "output file: a web page instead of the picture",
    "truncated-file": "output file: the connection closes before Content-Length is reached",
    "endless-file": "output file: a picture that goes on and on (256 MiB, then the line drops)",
    "bomb-file": "output file: 110 KB that unpack to a picture of 30,000 x 30,000 dots",
    "wrong-length": "output file: Content-Length is too short and cuts the picture",
    "missing-file": "output file: 404",
    "redirect-file": "output file: 302 to another path of the same host",
    "redirect-away": "output file: 302 to a host that is none of the service's",
}

OUTPUTS: dict[str, str] = {
    "evil-url": "hostile addresses that look like the service's own",
    "many-outputs": "ten thousand outputs",
    "output-missing": "no output at all",
    "output-null": "null",
    "output-empty-list": "an empty list of images",
    "output-empty-text": "an empty text in place of the address",
    "output-text": "a text, and no file",
    "output-bare-text": "nothing but words in place of the address",
    "output-unknown-key": "the address under a key that is documented nowhere",
    "output-objects": "a list of objects with url, width and height",
    "output-url": "the address under 'url'",
    "output-path": "the address under 'path'",
    "output-preview": "the address below 'preview'",
    "output-and-preview": "the picture, and a preview of it beside it",
    "output-audio": "a sound under 'audio'",
    "output-audios": "a list of sounds under 'audios'",
    "output-data-uri": "the file itself, inline as data:",
    "output-elsewhere": "an address of a host that is none of the service's",
}
"""Odd outputs, by what the result of the request holds instead of the usual."""

# The code of an error: what it says, and which calls can get it.
_CODES: dict[int, tuple[str, tuple[str, ...]]] = {
    400001: ("there is no such model", ("post", "model")),
    400002: ("the balance does not cover this request", ("post",)),
    400004: ("the token has expired", ("post", "get", "model", "balance")),
    400005: ("the result is not ready yet", ("get",)),
    401001: ("the token is not valid", ("post", "get", "model", "balance")),
    403001: ("this request belongs to another account", ("get",)),
    403003: ("this account may not use this", ("post", "get")),
    404001: ("the results of this request are no longer kept", ("get",)),
    409001: ("a code that is documented nowhere", ("post", "get")),
    422001: ("the input does not match the schema", ("post",)),
    500001: ("something went wrong on our side", ("post", "get", "model", "balance")),
}
NOT_READY, GONE = 400005, 404001
_LASTING = (403001, GONE)
_CALLS = {
    "post": "POST",
    "get": "status, result and cancel",
    "model": "GET of a model",
    "balance": "balance",
}
_WHERE = {NOT_READY: "result"}
_WHEN = {NOT_READY: ", while it is under way", GONE: ", once it has ended"}
_UNCLEAR = (409001, 500001)


@dataclass(frozen=True, kw_only=True)
class CodedFault:
    """An error with a code of the service. `call` is a key of `_CALLS`."""

    call: str
    code: int
    status: int
    message: str

    @property
    def name(self) -> str:
        """Return how the fault is asked for."""
        return f"{self.call}-{self.code}{'-in-200' if self.status == 200 else ''}"

    @property
    def is_unclear(self) -> bool:
        """Tell whether a POST may have been accepted all the same."""
        return self.code in _UNCLEAR

    def __str__(self) -> str:
        where = _WHERE.get(self.code, _CALLS[self.call])
        is_split = self.call == "post" and self.is_unclear
        half = ", half of the time after accepting" if is_split else ""
        when = _WHEN.get(self.code, half)
        return f"{where}: HTTP {self.status} with error_code {self.code} ({self.message}){when}"


CODED: dict[str, CodedFault] = {
    fault.name: fault
    for code, (message, calls) in _CODES.items()
    for call in calls
    for status in (code // 1000, 200)
    for fault in [CodedFault(call=call, code=code, status=status, message=message)]
}
"""Errors by the code the service gives them, under the matching HTTP status and inside a 200."""

_ALIASES = {"error-500": "post-500001", "other-account": "get-403001", "result-404": "get-404001"}

FAULTS: dict[str, str] = {
    **_PLAIN,
    **{name: f"output: {what}" for name, what in OUTPUTS.items()},
    **{name: str(fault) for name, fault in CODED.items()},
    **{name: f"the same as {known}" for name, known in _ALIASES.items()},
}

_SHARE = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)(?P<percent>%?)")


def parse_faults(text: str) -> dict[str, float]:
    """Read "lost-answer=5%,error-500=0.02,stuck" as {name: share of 1}; no share means always.

    Raises ValueError, with the closest name where a name is unknown.
    """
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name not in FAULTS:
            raise ValueError(_describe_unknown(name))
        if name in shares:
            raise ValueError(f"fault '{name}' is given twice")
        shares[name] = _parse_share(name, share) if equals else 1.0
    return shares


def _describe_unknown(name: str) -> str:
    close = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.4)
    if close:
        return f"unknown fault '{name}'; did you mean '{close[0]}'?"
    return f"unknown fault '{name}'; known are: {', '.join(sorted(FAULTS))}"


def _parse_share(name: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"fault '{name}': '{text}' is no share; write 5% or 0.05")
    share = float(match["number"]) / (100 if match["percent"] else 1)
    if share > 1:
        hint = "" if match["percent"] else f"; did you mean {text}%?"
        raise ValueError(f"fault '{name}': the share {text} is more than 100%{hint}")
    return share


class FaultPlan:
    """When each fault strikes. Every fault draws from its own stream: adding one moves no other."""

    def __init__(self, shares: dict[str, float], seed: int) -> None:
        self._shares = {_ALIASES.get(name, name): share for name, share in shares.items()}
        self._seed = seed
        self._streams = {name: random.Random(f"{seed}/{name}") for name in self._shares}

    def __repr__(self) -> str:
        return f"FaultPlan({self._shares!r}, seed={self._seed})"

    def strikes_call(self, name: str) -> bool:
        """Draw for one call; the next call draws again."""
        share = self._shares.get(name, 0.0)
        return share > 0 and self._streams[name].random() < share

    def strikes_request(self, name: str, request_id: str) -> bool:
        """Say whether a request has this fault; the answer never changes."""
        share = self._shares.get(name, 0.0)
        return share > 0 and random.Random(f"{self._seed}/{name}/{request_id}").random() < share

    def find_coded(
        self, call: str, request_id: str = "", *, but: Container[int] = ()
    ) -> CodedFault | None:
        """Draw the error that one call gets, if any; an error of the request itself stays."""
        for name in self._shares:
            fault = CODED.get(name)
            if fault is None or fault.call != call or fault.code in but:
                continue
            lasts = fault.code in _LASTING
            if self.strikes_request(name, request_id) if lasts else self.strikes_call(name):
                return fault
        return None

    def find_output(self, request_id: str) -> str | None:
        """Find the odd output that a request has, if any; the answer never changes."""
        asked = (name for name in self._shares if name in OUTPUTS)
        return next((name for name in asked if self.strikes_request(name, request_id)), None)

    def flip_coin(self, name: str) -> bool:
        """Draw evenly from a fault's stream, for a fault that has two forms."""
        return self._streams[name].random() < 0.5
