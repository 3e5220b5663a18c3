"""The faults that the sandbox can produce on purpose.

Hides the notation of faults and when they strike. A fault of a call is drawn for every call, so a
retry can succeed. A fault of a request follows from the seed and the request_id, so it stays the
same for every poll and after restarts.

Always holds: the same seed and the same order of calls give the same faults; only selected faults
strike. Not promised: exact shares over few calls, or the same faults for concurrent calls.
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
    "slow-answer": "any call: answer two seconds late",
    "no-data-uri": "POST: answer 422 to pictures sent inline as data:",
    "token-revoked": "any call: 401 with code 400004, as for a token that has expired",
    "no-price": "GET of a model: no price",
    "unit-image": "GET of a model: a price for an image instead of an output",
    "bare-model": "GET of a model: only its name",
    "failed": "the request ends failed, and is refunded",
    "error-list": "result: the error of a failed request is a list [{errorCode, error, debugInfo}]",
    "no-cost": "result: no cost",
    "echo": "result: repeat model_id and the input that was sent",
    "odd-times": "result: times with an offset and microseconds",
    "stuck": "the request runs forever",
    "unknown-state": "status and result: an undocumented state",
    "unknown-state-forever": "the request is in an undocumented state forever",
    "html-file": "output file: a web page instead of the picture",
    "truncated-file": "output file: the connection closes before Content-Length is reached",
    "endless-file": "output file: a picture without an end (the connection closes after 256 MiB)",
    "bomb-file": "output file: 110 KB that unpack to a picture of 30,000 x 30,000 pixels",
    "wrong-length": "output file: a Content-Length that cuts the picture",
    "missing-file": "output file: 404",
    "redirect-file": "output file: 302 to another path of the same host",
    "redirect-away": "output file: 302 to a foreign host",
}

OUTPUTS: dict[str, str] = {
    "evil-url": "hostile addresses that resemble the service's own",
    "many-outputs": "ten thousand outputs",
    "output-missing": "no output at all",
    "output-null": "null",
    "output-empty-list": "an empty list of images",
    "output-empty-text": "an empty text instead of the address",
    "output-text": "a text, but no file",
    "output-bare-text": "only words instead of the address",
    "output-unknown-key": "the address under an undocumented key",
    "output-objects": "a list of objects with url, width and height",
    "output-url": "the address under 'url'",
    "output-path": "the address under 'path'",
    "output-preview": "the address below 'preview'",
    "output-and-preview": "the picture and a preview",
    "output-audio": "a sound under 'audio'",
    "output-audios": "a list of sounds under 'audios'",
    "output-data-uri": "the file itself, inline as data:",
    "output-elsewhere": "an address at a foreign host",
}
"""What the result of a request contains instead of the usual output."""

SPOILS: dict[str, str] = {
    "blank": "black all over",
    "unedited": "the picture that was sent",
    "off-white": "white is a little grey (252)",
    "cropped": "the product is cut off at an edge",
    "wrong-size": "smaller, and of another shape",
    "swapped": "that of another request, with other pictures",
}
"""What is wrong with the picture of a request, although all goes well."""

# The code of an error: its message, and the calls that can get it.
_CODES: dict[int, tuple[str, tuple[str, ...]]] = {
    400001: ("there is no such model", ("post", "model")),
    400002: ("the balance does not cover this request", ("post",)),
    400004: ("the token has expired", ("post", "get", "model", "balance")),
    400005: ("the result is not ready yet", ("get",)),
    401001: ("the token is not valid", ("post", "get", "model", "balance")),
    403001: ("this request belongs to another account", ("get",)),
    403003: ("this account may not use this", ("post", "get")),
    404001: ("the results of this request are no longer kept", ("get",)),
    409001: ("an undocumented code", ("post", "get")),
    422001: ("the input does not match the schema", ("post",)),
    500001: ("something went wrong on our side", ("post", "get", "model", "balance")),
}
NOT_READY, GONE = 400005, 404001
_LASTING = (403001, GONE)
_WHEN = {NOT_READY: ", of a result while it is under way", GONE: ", once it has ended"}
_UNCLEAR = (409001, 500001)


@dataclass(frozen=True, kw_only=True)
class CodedFault:
    """An error with a code of the service; `get` is status, result and cancel."""

    call: str
    code: int
    status: int
    message: str

    @property
    def name(self) -> str:
        """The name that selects the fault."""
        return f"{self.call}-{self.code}{'-in-200' if self.status == 200 else ''}"

    @property
    def is_unclear(self) -> bool:
        """Whether a POST may have been accepted in spite of the error."""
        return self.code in _UNCLEAR

    def __str__(self) -> str:
        call = "status, result, cancel" if self.call == "get" else self.call
        when = _WHEN.get(self.code, "")
        if self.call == "post" and self.is_unclear:
            when = ", in half of the cases after accepting"
        return f"{call}: HTTP {self.status} with error_code {self.code} ({self.message}){when}"


CODED: dict[str, CodedFault] = {
    fault.name: fault
    for code, (message, calls) in _CODES.items()
    for call in calls
    for status in (code // 1000, 200)
    for fault in [CodedFault(call=call, code=code, status=status, message=message)]
}
"""The service's coded errors, each with the matching HTTP status and inside a 200."""

_ALIASES = {"error-500": "post-500001", "other-account": "get-403001", "result-404": "get-404001"}

FAULTS: dict[str, str] = {
    **_PLAIN,
    **{name: f"output: {what}" for name, what in OUTPUTS.items()},
    **{name: f"picture: {what}" for name, what in SPOILS.items()},
    **{name: str(fault) for name, fault in CODED.items()},
    **{name: f"the same as {known}" for name, known in _ALIASES.items()},
}

_SHARE = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)(?P<percent>%?)")


def parse_faults(text: str) -> dict[str, float]:
    """Read "lost-answer=5%,error-500=0.02,stuck" as {name: share of 1}; no share means always.

    Raises ValueError, with the closest name if a name is unknown.
    """
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name not in FAULTS:
            close = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.4)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"unknown fault '{name}'{hint}")
        if name in shares:
            raise ValueError(f"fault '{name}' is given twice")
        shares[name] = _parse_share(name, share) if equals else 1.0
    return shares


def _parse_share(name: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"fault '{name}': '{text}' is not a share; write 5% or 0.05")
    share = float(match["number"]) / (100 if match["percent"] else 1)
    if share > 1:
        hint = "" if match["percent"] else f"; did you mean {text}%?"
        raise ValueError(f"fault '{name}': the share {text} is more than 100%{hint}")
    return share


class FaultPlan:
    """When each fault strikes. Each draws from its own stream, so adding one changes no other."""

    def __init__(self, shares: dict[str, float], seed: int) -> None:
        self._shares = {_ALIASES.get(name, name): share for name, share in shares.items()}
        self._seed = seed
        self._streams = {name: random.Random(f"{seed}/{name}") for name in self._shares}

    def __repr__(self) -> str:
        return f"FaultPlan({self._shares!r}, seed={self._seed})"

    def strikes_call(self, name: str) -> bool:
        """Draw for one call."""
        share = self._shares.get(name, 0.0)
        return share > 0 and self._streams[name].random() < share

    def strikes_request(self, name: str, request_id: str) -> bool:
        """Return whether a request has this fault; the result never changes."""
        share = self._shares.get(name, 0.0)
        return share > 0 and random.Random(f"{self._seed}/{name}/{request_id}").random() < share

    def find_coded(
        self, call: str, request_id: str = "", *, but: Container[int] = ()
    ) -> CodedFault | None:
        """Draw the error of one call, if any; an error of the request never changes."""
        for name in self._shares:
            fault = CODED.get(name)
            if fault is None or fault.call != call or fault.code in but:
                continue
            lasts = fault.code in _LASTING
            if self.strikes_request(name, request_id) if lasts else self.strikes_call(name):
                return fault
        return None

    def find_output(self, request_id: str) -> str | None:
        """Return the odd output of a request, if any; the result never changes."""
        return self._find(OUTPUTS, request_id)

    def find_spoil(self, request_id: str) -> str | None:
        """Return what is wrong with the picture of a request, if anything; it never changes."""
        return self._find(SPOILS, request_id)

    def _find(self, names: Container[str], request_id: str) -> str | None:
        asked = (name for name in self._shares if name in names)
        return next((name for name in asked if self.strikes_request(name, request_id)), None)

    def flip_coin(self, name: str) -> bool:
        """Draw one of the two forms of a fault."""
        return self._streams[name].random() < 0.5
