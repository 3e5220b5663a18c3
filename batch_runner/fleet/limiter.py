"""What the server of `exchange` does, in Python: for an actor of Ray, which knows no Lua.

Hides the arithmetic of trading parts of the limits. What always holds, as there: all shards
together never hold more than the limit, because what one takes others gave before; what was given
back of a rate is usable by others only after its window; and a limiter that is new, or was started
again without what it knew, lends nothing until every shard has told it what it gave and took.

The two must say the same to the same questions; a test asks both.
"""

from __future__ import annotations

import math
from typing import Any

_WISH_MS = 5000
"""A wish that is not repeated for so long counts no longer."""


class Limiter:
    """The sums of what all shards gave and took; one of them speaks at a time."""

    def __init__(self) -> None:
        self._epoch = 0
        self._said: dict[int, dict[str, Any]] = {}
        self._begin("")

    def __repr__(self) -> str:
        return f"Limiter(epoch {self._epoch}, {self._heard} shards heard)"

    def trade(self, me: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """Take in what a shard gave and took in all its life, and give it what it may take more."""
        if self._server != me["server"]:
            self._begin(me["server"])
        before = self._said.get(me["index"])
        if before and before["life"] == me["life"] and before["sequence"] >= me["sequence"]:
            return {"stale": True, "heard": self._heard, "got": {}, "owed": {}}
        if before and before["life"] == me["life"] and before["sequence"] > me["known"]:
            # Its disk is older than what it said last: it gets its own words back.
            said = {"given": before["given"], "taken": before["taken"]}
            return {"stale": True, "heard": self._heard, "got": {}, "owed": {}, "said": said}
        before = self._of_this_epoch(before, me)
        hungry = self._count_wishes(me, now_ms)
        got: dict[str, int] = {}
        owed: dict[str, int] = {}
        for name in me["given"]:
            self._count(name, me, before, now_ms)
            self._lend(name, me, hungry, got, owed)
        self._said[me["index"]] = {
            "epoch": self._epoch,
            "life": me["life"],
            "sequence": me["sequence"],
            "given": dict(me["given"]),
            "taken": {name: me["taken"][name] + got.get(name, 0) for name in me["given"]},
        }
        return {"stale": False, "heard": self._heard, "got": got, "owed": owed}

    def _begin(self, server: str) -> None:
        self._epoch += 1
        self._server = server
        self._heard = 0
        self._given: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._settling: dict[str, list[tuple[int, int]]] = {}
        self._wishes: dict[int, tuple[int, dict[str, int]]] = {}

    def _of_this_epoch(
        self, before: dict[str, Any] | None, me: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return what the shard said before, where that is in the sums; else count it as heard."""
        if before and before["epoch"] != self._epoch:
            before = None
        elif before and before["life"] != me["life"]:
            # Another ledger: what else was heard may be of another batch.
            self._begin(self._server)
            before = None
        if before is None:
            self._heard += 1
        return before

    def _count_wishes(self, me: dict[str, Any], now_ms: int) -> int:
        self._wishes.pop(me["index"], None)
        self._wishes = {
            index: wish for index, wish in self._wishes.items() if now_ms - wish[0] <= _WISH_MS
        }
        if me["want"]:
            self._wishes[me["index"]] = (now_ms, dict(me["short"]))
        return len(self._wishes)

    def _count(
        self, name: str, me: dict[str, Any], before: dict[str, Any] | None, now_ms: int
    ) -> None:
        """Bring the sums of one limit up to what the shard says."""
        given = me["given"][name] - (before["given"].get(name, 0) if before else 0)
        taken = me["taken"][name] - (before["taken"].get(name, 0) if before else 0)
        self._given[name] = self._given.get(name, 0) + given
        self._taken[name] = self._taken.get(name, 0) + taken
        settling = [one for one in self._settling.get(name, ()) if one[0] > now_ms]
        if given > taken and me["settle_ms"][name] > 0:
            settling.append((now_ms + me["settle_ms"][name], given - taken))
        self._settling[name] = settling

    def _lend(
        self,
        name: str,
        me: dict[str, Any],
        hungry: int,
        got: dict[str, int],
        owed: dict[str, int],
    ) -> None:
        """Give what is free and settled, to those first who have less than their part."""
        others = (wish for index, (_, wish) in self._wishes.items() if index != me["index"])
        short = sum(wish.get(name, 0) for wish in others)
        free, taken = self._given[name] - self._taken[name], me["taken"][name]
        ready = free - sum(amount for _, amount in self._settling[name])
        if not me["short"].get(name, 0):
            ready -= short
        want, least = me["want"].get(name, 0), me["least"].get(name, 1)
        all_are_heard = self._heard == me["count"]
        if all_are_heard and want > 0 and ready > 0:
            amount = min(want, max(math.ceil(ready / hungry), least), ready)
            if amount >= least:
                got[name] = amount
                self._taken[name] += amount
                free -= amount
                taken += amount
        if all_are_heard and short > free and taken > 0:
            owed[name] = min(taken, short - free)
