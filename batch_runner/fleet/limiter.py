"""What the server of `exchange` does, in Python: for an actor of Ray, which knows no Lua.

Hides the arithmetic of trading parts of the limits. What always holds, as there: all shards
together never hold more than the limit, because what one takes others gave before; what was given
back of a rate is usable by others only after its window; and a limiter lends what was handed to it
since it was started, and what was handed to another before only once every shard has told what it
gave and took.

The two must say the same to the same questions; a test asks both.
"""

from __future__ import annotations

import math
import uuid
from typing import Any

_WISH_MS = 5000
"""A wish that is not repeated for so long counts no longer."""


_COUNTED = ("given", "taken", "out", "into")


class Limiter:
    """The sums of what all shards gave and took; one of them speaks at a time."""

    def __init__(self) -> None:
        self._said: dict[int, dict[str, Any]] = {}
        self._begin("")

    def __repr__(self) -> str:
        return f"Limiter({self._here}, {self._heard} shards heard)"

    def trade(self, me: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """Take in what a shard gave and took, and give it what it may take more."""
        if self._server != me["server"]:
            self._begin(me["server"])
        before = self._said.get(me["index"])
        nothing: dict[str, Any] = {"stale": True, "here": self._here, "got": {}, "owed": {}}
        if before and before["life"] == me["life"] and before["sequence"] >= me["sequence"]:
            return nothing
        if before and before["life"] == me["life"] and before["sequence"] > me["known"]:
            # Its disk is older than what it said last: it gets its own words back.
            return nothing | {"said": dict(before)}
        before = self._of_this_life(before, me)
        if me["here"] != self._here:
            me = me | {"out": {}, "into": {}}
        me = me | {what: dict(me[what]) for what in _COUNTED}
        hungry = self._count_wishes(me, now_ms)
        got: dict[str, int] = {}
        owed: dict[str, int] = {}
        for name in me["given"]:
            self._count(name, me, before, now_ms)
            self._lend(name, me, hungry, got, owed)
        kept = ("life", "sequence", *_COUNTED)
        self._said[me["index"]] = {"here": self._here} | {name: me[name] for name in kept}
        return {"stale": False, "here": self._here, "got": got, "owed": owed}

    def _begin(self, server: str) -> None:
        self._here = uuid.uuid4().hex
        self._server = server
        self._heard = 0
        self._sums: dict[str, dict[str, int]] = {what: {} for what in _COUNTED}
        self._settling: dict[str, list[tuple[int, int]]] = {}
        self._wishes: dict[int, tuple[int, dict[str, int]]] = {}

    def _of_this_life(self, before: dict[str, Any] | None, me: dict[str, Any]) -> dict[str, Any]:
        """Return what the shard said before, where that is in the sums; else count it as heard."""
        if before and before["here"] != self._here:
            before = None
        elif before and before["life"] != me["life"]:
            # Another ledger: what else was heard may be of another batch.
            self._begin(self._server)
            before = None
        if before is None:
            self._heard += 1
            return {what: {} for what in _COUNTED}
        return before

    def _count_wishes(self, me: dict[str, Any], now_ms: int) -> int:
        self._wishes.pop(me["index"], None)
        self._wishes = {
            index: wish for index, wish in self._wishes.items() if now_ms - wish[0] <= _WISH_MS
        }
        if me["want"]:
            self._wishes[me["index"]] = (now_ms, dict(me["short"]))
        return len(self._wishes)

    def _count(self, name: str, me: dict[str, Any], before: dict[str, Any], now_ms: int) -> None:
        """Bring the sums of one limit up to what the shard says."""
        moved = {}
        for what in _COUNTED:
            me[what].setdefault(name, 0)
            moved[what] = me[what][name] - before[what].get(name, 0)
            self._sums[what][name] = self._sums[what].get(name, 0) + moved[what]
        settling = [one for one in self._settling.get(name, ()) if one[0] > now_ms]
        freed = moved["given"] - moved["taken"]
        if freed > 0 and me["settle_ms"][name] > 0:
            settling.append((now_ms + me["settle_ms"][name], freed))
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
        sums = self._sums
        if self._heard == me["count"]:
            free = sums["given"][name] - sums["taken"][name]
        else:
            free = sums["out"][name] - sums["into"][name]
        ready = free - sum(amount for _, amount in self._settling[name])
        if not me["short"].get(name, 0):
            ready -= short
        want, least = me["want"].get(name, 0), me["least"].get(name, 1)
        if want > 0 and ready > 0:
            amount = min(want, max(math.ceil(ready / hungry), least), ready)
            if amount >= least:
                got[name] = amount
                free -= amount
                for what in ("taken", "into"):
                    sums[what][name] += amount
                    me[what][name] += amount
        if short > free and me["taken"][name] > 0:
            owed[name] = min(me["taken"][name], short - max(0, free))
