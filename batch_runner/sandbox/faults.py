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

FAULTS: dict[str, str] = {
    "lost-answer": "POST: accept the request, then drop the connection without an answer",
    "dropped-submit": "POST: drop the connection before anything is accepted",
    "error-500": "POST: answer 500, half of the time after accepting the request",
    "no-request-id": "POST: accept, and answer 200 without a request_id",
    "bad-request-id": "POST: accept, and answer with a request_id that has a slash in it",
    "error-500-get": "GET: answer 500",
    "html-answer": "any call: a web page with status 502, nothing accepted",
    "rate-limit": "any call: 429 with 'Retry-After: 1'",
    "rate-limit-date": "any call: 429 with Retry-After as an HTTP date",
    "slow-answer": "any call: answer two seconds late",
    "token-revoked": "any call: 401 with code 400004, as for a token that has expired",
    "no-price": "GET of a model: leave its price out",
    "bare-model": "GET of a model: leave out everything but its name",
    "failed": "the request ends failed, and is refunded",
    "stuck": "the request runs forever",
    "unknown-state": "status and result: a state that is documented nowhere",
    "other-account": "status, result and cancel: 403 with code 403001, as for another's request",
    "result-404": "a request that has ended is gone: 404 with code 404001",
    "evil-url": "the result lists hostile addresses that look like the service's own",
    "many-outputs": "the result lists ten thousand outputs",
    "html-file": "output file: a web page instead of the picture",
    "truncated-file": "output file: the connection closes before Content-Length is reached",
    "endless-file": "output file: a picture that goes on and on (256 MiB, then the line drops)",
    "bomb-file": "output file: 110 KB that unpack to a picture of 30,000 x 30,000 dots",
    "wrong-length": "output file: Content-Length is too short and cuts the picture",
    "missing-file": "output file: 404",
    "redirect-file": "output file: 302 to another path of the same host",
    "redirect-away": "output file: 302 to a host that is none of the service's",
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
        self._shares = shares
        self._seed = seed
        self._streams = {name: random.Random(f"{seed}/{name}") for name in shares}

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

    def flip_coin(self, name: str) -> bool:
        """Draw evenly from a fault's stream, for a fault that has two forms."""
        return self._streams[name].random() < 0.5
