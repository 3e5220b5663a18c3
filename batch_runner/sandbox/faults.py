"""The faults that the sandbox can produce on purpose.

Hides the notation of faults and when they strike. A fault of a call is drawn for every call, so a
retry can succeed. A fault of a request follows from the seed and the request_id, so it stays the
same for every poll and after restarts.

Always holds: the same seed and the same order of calls give the same faults; only selected faults
strike. Not promised: exact shares over few calls, or the same faults for concurrent calls.
"""

from __future__ import annotations

import random
import re
from collections.abc import Container
from typing import NamedTuple

from batch_runner.errors import UsageError, did_you_mean

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
    "failed": "the request ends failed, and costs nothing",
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
    "evil-url": '{"images": ["https://127.0.0.1\\\\@cdn.runcomfy.net/x.png",'
    ' "https://cdn.runcomfy.net@evil.example/x.png", "https://runcomfy.net.evil.example/x.png"]}',
    "many-outputs": "ten thousand outputs",
    "output-missing": "no output at all",
    "output-null": "null",
    "output-empty-list": '{"NAMEs": []}',
    "output-empty-text": '{"NAME": ""}',
    "output-text": '{"text": "A mug on a table, in the morning."}',
    "output-bare-text": '"A mug on a table, in the morning."',
    "output-unknown-key": '{"render": "URL"}',
    "output-objects": '{"NAMEs": [{"url": "URL", "width": 1, "height": 1}]}',
    "output-url": '{"url": "URL"}',
    "output-path": '{"path": "URL"}',
    "output-preview": '{"preview": {"url": "URL"}}',
    "output-and-preview": '{"NAME": "URL", "preview": {"url": "URL?preview=1"}}',
    "output-audio": '{"audio": "SOUND"}',
    "output-audios": '{"audios": ["SOUND"]}',
    "output-data-uri": '{"NAME": "DATA"}',
    "output-elsewhere": '{"NAME": "https://pictures.example.org/1.png"}',
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
_CODES: dict[int, tuple[str, str]] = {
    400001: ("there is no such model", "post model"),
    400002: ("the balance does not cover this request", "post"),
    400004: ("the token has expired", "post get model balance"),
    400005: ("the result is not ready yet", "get"),
    401001: ("the token is not valid", "post get model balance"),
    403001: ("this request belongs to another account", "get"),
    403003: ("this account may not use this", "post get"),
    404001: ("the results of this request are no longer kept", "get"),
    409001: ("an undocumented code", "post get"),
    422001: ("the input does not match the schema", "post"),
    500001: ("something went wrong on our side", "post get model balance"),
}
NOT_READY, GONE = 400005, 404001
_LASTING = (403001, GONE)
_UNCLEAR = (409001, 500001)


class CodedFault(NamedTuple):
    """An error with a code of the service; the call `get` is status, result and cancel."""

    call: str
    code: int
    status: int
    message: str

    @property
    def is_unclear(self) -> bool:
        """Whether a POST is accepted, in half of the cases, in spite of the error."""
        return self.call == "post" and self.code in _UNCLEAR


CODED: dict[str, CodedFault] = {
    f"{call}-{code}{suffix}": CodedFault(call, code, status, message)
    for code, (message, calls) in _CODES.items()
    for call in calls.split()
    for status, suffix in ((code // 1000, ""), (200, "-in-200"))
}
"""The service's coded errors, each with the matching HTTP status and inside a 200."""

_ALIASES = {"error-500": "post-500001", "other-account": "get-403001", "result-404": "get-404001"}

FAULTS: dict[str, str] = {
    **_PLAIN,
    **{name: f"output: {what}" for name, what in OUTPUTS.items()},
    **{name: f"picture: {what}" for name, what in SPOILS.items()},
    **{
        name: f"{one.call}: HTTP {one.status} with error_code {one.code}: {one.message}"
        for name, one in CODED.items()
    },
    **{name: f"the same as {known}" for name, known in _ALIASES.items()},
}

_HINT = "see batch-runner sandbox --faults list"
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(%?)")


def parse_faults(text: str) -> dict[str, float]:
    """Read "lost-answer=5%,error-500=0.02,stuck" as {name: share of 1}; no share means always.

    Raises UsageError.
    """
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name not in FAULTS:
            raise UsageError(f"unknown fault '{name}'", hint=did_you_mean(name, FAULTS))
        if name in shares:
            raise UsageError(f"fault '{name}' is given twice", hint=_HINT)
        found = _SHARE.fullmatch(share if equals else "1")
        shares[name] = float(found[1]) / (100 if found[2] else 1) if found else 2.0
        if shares[name] > 1:
            raise UsageError(f"fault '{name}': '{share}' is not a share", hint="write 5% or 0.05")
    return shares


class FaultPlan:
    """When each fault strikes. Each draws from its own stream, so adding one changes no other."""

    def __init__(self, shares: dict[str, float], seed: int) -> None:
        self._shares = {_ALIASES.get(name, name): share for name, share in shares.items()}
        self._seed = seed
        self._coin = random.Random(seed)
        self._streams = {name: random.Random(f"{seed}/{name}") for name in self._shares}

    def strikes_call(self, name: str) -> bool:
        """Draw for one call."""
        share = self._shares.get(name, 0.0)
        return share > 0 and self._streams[name].random() < share

    def strikes_request(self, name: str, request_id: str) -> bool:
        """Return whether a request has this fault; the result never changes."""
        share = self._shares.get(name, 0.0)
        return share > 0 and random.Random(f"{self._seed}/{name}/{request_id}").random() < share

    def find_coded(self, call: str, request_id: str = "") -> CodedFault | None:
        """Draw the error of one call, if any; an error of the request never changes."""
        for name in filter(CODED.__contains__, self._shares):
            fault = CODED[name]
            lasts = fault.code in _LASTING
            if fault.call == call and (
                self.strikes_request(name, request_id) if lasts else self.strikes_call(name)
            ):
                return fault
        return None

    def find(self, names: Container[str], request_id: str) -> str | None:
        """Return which of these faults a request has, if any; the result never changes."""
        asked = (name for name in self._shares if name in names)
        return next((name for name in asked if self.strikes_request(name, request_id)), None)

    def flip_coin(self) -> bool:
        """Draw one of the two forms of a fault."""
        return self._coin.random() < 0.5
