"""Where shards give back what they do not need of the limits, and take what others gave.

Hides Valkey (or Redis) and the talk with it. What always holds: all shards together never hold more
than the limit, for what one takes, others gave before; what a shard holds is on its own disk, so
that nothing depends on the server: while it is away, each goes on with what it holds, and nobody's
part falls to others because he is not heard of. A rate that was given back is usable by others only
after a window of that length, by the server's clock. A server lends what was handed to it since it
was started; what others may have lent before, it lends once every shard has told what it gave and
took.
Not promised: that the part of a shard which was not begun, or was killed, is lent to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import UsageError
from batch_runner.manifest.form import Limits
from batch_runner.records import usd
from batch_runner.shards.holding import (
    COST,
    FILE_NAME,
    IN_FLIGHT,
    POLLS,
    SUBMITS,
    Amounts,
    Holding,
    micro_usd,
)
from batch_runner.shards.quota import rate_text
from batch_runner.shards.shard import Shard

if TYPE_CHECKING:
    from batch_runner.runner.terms import Needs

_PAUSE_S = 1.0
_TIMEOUT_S = 2.0
# What leaves just before it is given back arrives a moment later; and windows are kept longer here
# than the service measures them.
_SETTLING_S = 0.5
# Several jobs' worth at a time: a question for each would be slow, and hoarding unfair.
_JOBS_AT_A_TIME = 10

_TRADE = """
-- One shard tells what it gave and took, and asks for more.
-- KEYS[1]: a hash; 'all' holds the sums, each shard's index what it said last.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me = cjson.decode(ARGV[1])

local function fresh()
  return {here = me.server .. ':' .. clock[1] .. '.' .. clock[2], server = me.server, heard = 0,
          given = {}, taken = {}, out = {}, into = {}, settling = {}, wants = {}}
end
local text = redis.call('HGET', KEYS[1], 'all')
local all = text and cjson.decode(text) or fresh()
if all.server ~= me.server then
  all = fresh()  -- restarted: it may have an older state than was told before
end
text = redis.call('HGET', KEYS[1], me.index)
local before = text and cjson.decode(text)
if before and before.life == me.life and before.sequence >= me.sequence then
  return cjson.encode({stale = true, here = all.here, got = {}, owed = {}})
end
if before and before.life == me.life and before.sequence > me.known then
  -- Its disk is older than what it said last: it gets its own words back, and begins from there.
  return cjson.encode({stale = true, here = all.here, got = {}, owed = {}, said = before})
end
if before and before.here ~= all.here then
  before = nil
elseif before and before.life ~= me.life then
  all = fresh()  -- another ledger: what else was heard may be of another batch
  before = nil
end
if not before then
  all.heard = all.heard + 1
  before = {given = {}, taken = {}, out = {}, into = {}}
end
if me.here ~= all.here then
  me.out, me.into = {}, {}
end

local hungry = 0
all.wants[tostring(me.index)] = nil
for index, wish in pairs(all.wants) do
  if now - wish.at > 5000 then
    all.wants[index] = nil
  else
    hungry = hungry + 1
  end
end
if next(me.want) then
  all.wants[tostring(me.index)] = {at = now, short = me.short}
  hungry = hungry + 1
end

local got, owed = {}, {}
for name in pairs(me.given) do
  for _, what in ipairs({'given', 'taken', 'out', 'into'}) do
    me[what][name] = me[what][name] or 0
    all[what][name] = (all[what][name] or 0) + me[what][name] - (before[what][name] or 0)
  end
  local freed = (me.given[name] - (before.given[name] or 0))
    - (me.taken[name] - (before.taken[name] or 0))
  local settling, waiting = {}, 0
  for _, one in ipairs(all.settling[name] or {}) do
    if one[1] > now then
      settling[#settling + 1] = one
      waiting = waiting + one[2]
    end
  end
  if freed > 0 and me.settle_ms[name] > 0 then
    settling[#settling + 1] = {now + me.settle_ms[name], freed}
    waiting = waiting + freed
  end
  all.settling[name] = settling
  local short = 0
  for index, wish in pairs(all.wants) do
    if index ~= tostring(me.index) then
      short = short + (wish.short[name] or 0)
    end
  end
  local free = all.out[name] - all.into[name]
  if all.heard == me.count then
    free = all.given[name] - all.taken[name]
  end
  local ready = free - waiting
  if (me.short[name] or 0) == 0 then
    ready = ready - short  -- first those who have less than their part
  end
  local want = me.want[name] or 0
  if want > 0 and ready > 0 then
    local least = me.least[name] or 1
    local amount = math.min(want, math.max(math.ceil(ready / hungry), least), ready)
    if amount >= least then
      got[name] = amount
      free = free - amount
      for _, what in ipairs({'taken', 'into'}) do
        all[what][name] = all[what][name] + amount
        me[what][name] = me[what][name] + amount
      end
    end
  end
  if short > free and me.taken[name] > 0 then
    owed[name] = math.min(me.taken[name], short - math.max(0, free))
  end
end

redis.call('HSET', KEYS[1], 'all', cjson.encode(all), me.index, cjson.encode({
  here = all.here, life = me.life, sequence = me.sequence,
  given = me.given, taken = me.taken, out = me.out, into = me.into}))
redis.call('PEXPIRE', KEYS[1], 2592000000)
return cjson.encode({stale = false, here = all.here, got = got, owed = owed})
"""


class Trader(Protocol):
    """A run, as far as it trades."""

    def needs(self) -> Needs:
        """Return what it could use more of now, and what it needs no longer."""

    def change(self, limits: Limits) -> None:
        """Keep to other limits from now on."""


class _Said(msgspec.Struct):
    """What a shard had given and taken when it was heard last."""

    here: str
    given: Amounts
    taken: Amounts
    out: Amounts
    into: Amounts


class Answer(msgspec.Struct):
    """What the server says; Lua writes an empty table as an object."""

    stale: bool
    here: str
    got: Amounts = {}
    owed: Amounts = {}
    said: _Said | None = None


class AwayError(Exception):
    """The server gave no usable answer."""


class Server(Protocol):
    """Who hears all shards of a batch; `place` is what people are told."""

    place: str

    async def ask(self, key: str, told: dict[str, Any]) -> Answer:
        """Tell what a shard gave and took, and what it wants; raises AwayError."""

    async def close(self) -> None:
        """Be done with it."""


class Exchange:
    """One shard's dealings with the others, through a server: Valkey at a URL, or another.

    `limits` are the whole batch's, `dealt` this shard's part; `batch` names the batch on the
    server, `life` the ledger whose holding this is.
    """

    def __init__(
        self,
        server: str | Server,
        *,
        batch: str,
        shard: Shard,
        life: str,
        folder: Path,
        holding: Holding,
        limits: Limits,
        dealt: Limits,
        clock: Clock,
        notice: Callable[[str], None],
    ) -> None:
        self._server: Any = _Valkey(server) if isinstance(server, str) else server
        self._key = f"batch-runner:{batch}"
        self._shard = shard
        self._life = life
        self._folder = folder
        self._holding = holding
        self._limits = limits
        self._dealt = dealt
        self._clock = clock
        self._notice = notice
        self._trading = asyncio.Lock()
        self._ending = asyncio.Event()
        self._known = holding.sequence
        self._is_away: bool | None = None
        self._owed: Amounts = {}
        self.trader: Trader | None = None

    def __repr__(self) -> str:
        return f"Exchange({self._server.place}, shard {self._shard})"

    async def keep_trading(self) -> None:
        """Trade about once a second, until `end`; a trade that has begun is not broken off."""
        while not self._ending.is_set():
            async with self._trading:
                await self._trade()
            await self._clock.wait(self._ending, _PAUSE_S)

    def end(self) -> None:
        """Let `keep_trading` return."""
        self._ending.set()

    async def more_budget(self, cost_usd: Decimal) -> bool:
        """Ask for enough of the budget for a job of that cost; tells whether it came."""
        least = max(1, -micro_usd(-cost_usd))
        before = self._holding.amount(COST)
        async with self._trading:
            # Whoever asked first asked for all who wait here.
            if self._holding.amount(COST) == before:
                await self._trade({COST: least * _JOBS_AT_A_TIME}, {COST: least})
        return self._holding.amount(COST) > before

    async def close(self, *, is_done: bool, is_out_of_budget: bool) -> None:
        """Give back at the end what is of no use to this shard until its jobs change."""
        if self.trader is not None and not self._is_away and (is_done or is_out_of_budget):
            needs = self.trader.needs()
            back = {COST: self._unspent(needs)}
            if is_done:
                back |= {name: self._holding.amount(name) - 1 for name in (SUBMITS, POLLS)}
                back[IN_FLIGHT] = self._holding.amount(IN_FLIGHT) - max(1, needs.in_flight)
            async with self._trading:
                await self._trade(back=back)
        await self._server.close()

    async def _trade(
        self,
        want: Mapping[str, int] | None = None,
        least: Mapping[str, int] | None = None,
        back: Amounts | None = None,
    ) -> None:
        """Give back, tell, ask, and take what came; the order is the promise."""
        if self.trader is None:
            return
        holding, needs = self._holding, self.trader.needs()
        if back is None:
            # What nobody hears of would be of no use to anybody.
            back = {} if self._is_away is not False else self._to_give_back(needs)
        if holding.in_doubt:
            back, want = {}, {}
        back = {name: amount for name, amount in back.items() if amount > 0}
        for name, amount in back.items():
            holding.give(name, amount)
        if back:
            # What is given back is used no more, and that is on the disk, before anybody hears it.
            self._apply()
        wanted = self._wanted(needs) if want is None else want
        answer = await self._tell(dict(wanted), dict(least or {}))
        if answer is None:
            return
        said = answer.said
        if said is not None:
            holding.given, holding.taken, holding.here = said.given, said.taken, said.here
            holding.out, holding.into = said.out, said.into
        if holding.meet(answer.here) or holding.in_doubt or said is not None:
            holding.in_doubt = False
            self._apply()
        self._owed = answer.owed
        for name, amount in answer.got.items():
            holding.take(name, amount)
        if answer.got:
            # What is taken is on the disk before it is used: whoever took it is known.
            self._apply()

    def _apply(self) -> None:
        self._holding.save(self._folder)
        if self.trader is not None:
            self.trader.change(self._holding.limits(self._dealt))

    def _to_give_back(self, needs: Needs) -> Amounts:
        holding = self._holding
        back = {name: min(amount, holding.amount(name) - 1) for name, amount in self._owed.items()}
        if needs.submits_are_over:
            back |= {name: holding.amount(name) - 1 for name in (SUBMITS, IN_FLIGHT)}
            back[COST] = self._unspent(needs)
        # A place at the service is free when its request has ended, and money when it is not spent.
        free = {
            IN_FLIGHT: holding.amount(IN_FLIGHT) - max(1, needs.in_flight),
            COST: self._unspent(needs),
        }
        return {name: min(amount, free.get(name, amount)) for name, amount in back.items()}

    def _unspent(self, needs: Needs) -> int:
        if COST not in self._holding.part:
            return 0
        return self._holding.amount(COST) + micro_usd(-needs.committed_usd)

    def _wanted(self, needs: Needs) -> Amounts:
        whole = {
            SUBMITS: self._limits.submits.count,
            POLLS: self._limits.polls.count,
            IN_FLIGHT: self._limits.in_flight,
        }
        wanted = {name: whole[name] - self._holding.amount(name) for name in needs.waits_for}
        return {name: amount for name, amount in wanted.items() if amount > 0}

    async def _tell(self, want: Amounts, least: Amounts) -> Answer | None:
        holding = self._holding
        holding.sequence = max(holding.sequence + 1, self._milliseconds())
        told = {
            "index": self._shard.index,
            "count": self._shard.count,
            "life": self._life,
            "sequence": holding.sequence,
            "known": self._known,
            "given": {name: holding.given.get(name, 0) for name in holding.part},
            "taken": {name: holding.taken.get(name, 0) for name in holding.part},
            "out": holding.out,
            "into": holding.into,
            "here": holding.here,
            "want": want,
            "least": least,
            "short": {name: max(0, holding.part[name] - holding.amount(name)) for name in want},
            "settle_ms": self._settle_ms(),
        }
        # Whatever it remembers of this process from now on is no news.
        self._known = holding.sequence
        try:
            answer: Answer = await self._server.ask(self._key, told)
        except AwayError as error:
            if self._is_away is not True:
                self._notice(self._away_text(error))
            self._is_away = True
            return None
        if self._is_away:
            self._notice(f"limits.shared: the server at {self._server.place} is back")
        self._is_away = False
        return answer

    def _away_text(self, error: AwayError) -> str:
        held = _text(self._holding.limits(self._dealt))
        said = f"limits.shared: the server at {self._server.place} is away ({error})"
        if self._holding.in_doubt:
            why = f"and {FILE_NAME} is missing, which says what this shard gave away"
            return f"{said}, {why}; until the server is back, it uses as little as can be: {held}"
        return f"{said}; going on with what this shard holds: {held}"

    def _settle_ms(self) -> Amounts:
        windows_s = {SUBMITS: self._limits.submits.window_s, POLLS: self._limits.polls.window_s}
        return {
            name: round((windows_s[name] + _SETTLING_S) * 1000) if name in windows_s else 0
            for name in self._holding.part
        }

    def _milliseconds(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class _Valkey:
    """The connection: one at a time, and never again used after a failure."""

    def __init__(self, url: str) -> None:
        try:
            from valkey import asyncio as valkey  # noqa: PLC0415 - an extra, and slow to import
            from valkey.exceptions import ValkeyError  # noqa: PLC0415 - likewise
        except ImportError as error:
            raise UsageError(
                "limits.shared needs a package that is not installed",
                hint="pip install 'batch-runner[shared]'",
            ) from error
        self._error = ValkeyError
        self._valkey = valkey.Valkey
        self._url = url
        self._client: Any = None
        self._identity = ""
        # The URL may hold a password: people are shown where, and no more.
        try:
            self._valkey.from_url(url)
            parts = urlsplit(url)
            self.place = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        except ValueError as error:
            raise UsageError(
                "limits.shared is not the URL of a Valkey or Redis",
                hint="such as redis://10.0.0.5:6379",
            ) from error

    async def ask(self, key: str, told: dict[str, Any]) -> Answer:
        """Run the script; raises AwayError."""
        is_whole = False
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if self._client is None:
                    await self._connect()
                text = msgspec.json.encode(told | {"server": self._identity}).decode()
                answer = await self._client.eval(_TRADE, 1, key, text)
            found = msgspec.json.decode(answer, type=Answer)
        except (self._error, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise AwayError(_reason(error)) from error
        else:
            is_whole = True
            return found
        finally:
            if not is_whole:
                # An answer that comes after all must find nobody: it would be taken for another's.
                await self.close()

    async def _connect(self) -> None:
        self._client = self._valkey.from_url(
            self._url,
            single_connection_client=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        # Through the one connection there is: who answers here is who answers next.
        self._identity = (await self._client.info("server"))["run_id"]

    async def close(self) -> None:
        """Give the connection up."""
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await client.aclose()
            except (self._error, OSError, TimeoutError):
                return


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _text(limits: Limits) -> str:
    parts = [
        f"submits {rate_text(limits.submits)}",
        f"polls {rate_text(limits.polls)}",
        f"{limits.in_flight} in flight",
    ]
    if limits.cost_usd is not None:
        parts.append(usd(limits.cost_usd))
    return ", ".join(parts)
