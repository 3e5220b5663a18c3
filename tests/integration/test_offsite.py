"""A ledger's copy in a real store: two owners, lost answers, other machines, damage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest
from aiohttp import web
from loopback import serving
from weed import Store, serving_store

from batch_runner.errors import (
    LedgerDamagedError,
    LedgerLockedError,
    ServiceUnavailableError,
    StorageError,
    UsageError,
)
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.ledger.bucket_copy import SIGN_KEY, BucketCopy
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.reading import read_ledger
from batch_runner.records import LEDGER_VERSION, LedgerHeader, Submitting
from batch_runner.shards.copy_split import check_copy_split

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HEADER = LedgerHeader(version=LEDGER_VERSION, at=NOW, program="tests", service="local")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving_store(tmp_path_factory.mktemp("weed")) as served:
        yield served


@pytest.fixture
def root(store: Store, request: pytest.FixtureRequest) -> BucketUrl:
    store.asked.clear()
    name: str = request.node.name
    return store.root(name.replace("[", "-").replace("]", ""))


class Machine:
    """A machine with a folder of its own, which opens the one ledger of a test."""

    def __init__(self, store: Store, root: BucketUrl, folder: Path) -> None:
        self.buckets = store.buckets
        self.root = root
        self.folder = folder
        self.told: list[str] = []

    @property
    def path(self) -> Path:
        return self.folder / "ledger.jsonl"

    def open(self) -> Ledger:
        return Ledger.open(self.folder, HEADER, take_copy=self.take)

    def take(self, path: Path) -> BucketCopy:
        return BucketCopy.take(self.buckets, self.root, path, self.told.append)

    def jobs(self) -> list[str]:
        return [one.job for one in read_ledger(self.path) if isinstance(one, Submitting)]


@pytest.fixture
def here(store: Store, root: BucketUrl, tmp_path: Path) -> Machine:
    return Machine(store, root, tmp_path / "here")


@pytest.fixture
def elsewhere(store: Store, root: BucketUrl, tmp_path: Path) -> Machine:
    return Machine(store, root, tmp_path / "elsewhere")


def intent(job: str) -> Submitting:
    return Submitting(at=NOW, job=job, fingerprint=job, model="m", input={}, path=job, attempt=1)


async def write(ledger: Ledger, *jobs: str) -> None:
    for job in jobs:
        ledger.append(intent(job))
    await ledger.durable()


def fall_silent(machine: Machine) -> None:
    """Let its sign of life be gone, as after a minute without one."""
    obstore.delete(machine.buckets._store(machine.root), machine.root.join(SIGN_KEY).key)


def lose(machine: Machine, ledger: Ledger) -> None:
    """Let a machine vanish: its process, and everything on its disk."""
    assert ledger._copy is not None
    ledger._copy.close(release=False)
    ledger._copy = None
    ledger.close()
    machine.path.unlink()
    fall_silent(machine)


async def test_another_machine_finds_the_ledger_byte_for_byte(
    here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a", "b")
    await write(ledger, "c")
    ledger.close()
    elsewhere.open().close()
    assert elsewhere.path.read_bytes() == here.path.read_bytes()
    assert "restored from s3://" in elsewhere.told[0]


async def test_what_is_durable_is_in_the_copy_when_the_machine_is_lost(
    here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    ledger.append(intent("not yet durable"))
    lose(here, ledger)
    elsewhere.open().close()
    assert elsewhere.jobs() == ["a"]


async def test_one_put_carries_everything_that_was_appended_while_the_last_one_ran(
    store: Store, root: BucketUrl, here: Machine
) -> None:
    ledger = here.open()
    segments = f"{root.key}/segments"  # a sign of life may be given meanwhile
    before = len(store.puts(segments))
    await write(ledger, *(f"job-{number}" for number in range(1000)))
    assert len(store.puts(segments)) == before + 1
    ledger.close()


async def test_an_owner_that_gives_signs_of_life_is_left_alone(
    here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    assert ledger._copy is not None
    with pytest.raises(LedgerLockedError, match="another run is at work") as refused:
        elsewhere.open()
    assert refused.value.hint is not None
    assert "run this again in" in refused.value.hint
    assert not elsewhere.path.exists()
    await write(ledger, "b")
    ledger.close()


async def test_two_owners_at_once_are_one_too_many_the_first_can_make_nothing_durable_any_more(
    here: Machine, elsewhere: Machine
) -> None:
    first = here.open()
    await write(first, "a")
    fall_silent(here)
    second = elsewhere.open()
    first.append(intent("b"))
    with pytest.raises(LedgerLockedError, match="took this ledger over"):
        await first.durable()
    # What is learned of what had left before is still written down here, for people to read.
    first.append(intent("c"))
    with pytest.raises(LedgerLockedError):
        await first.durable()
    await write(second, "d")
    first.close()
    second.close()
    assert elsewhere.jobs() == ["a", "d"]
    assert here.jobs() == ["a", "b", "c"]
    # Back here, what went another way is kept aside, and the copy's word holds.
    here.open().close()
    assert here.jobs() == ["a", "d"]
    (aside,) = here.folder.glob("ledger-*-aside.jsonl")
    assert [one.job for one in read_ledger(aside) if isinstance(one, Submitting)] == [*"abc"]
    assert "kept as" in here.told[0]


async def test_two_ledgers_set_aside_within_a_second_are_both_kept(
    here: Machine, elsewhere: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_runner.ledger.bucket_copy.utc_now", lambda: NOW)
    for job in "ab":
        first = here.open()
        await write(first, f"{job}1")
        fall_silent(here)
        second = elsewhere.open()
        first.append(intent(f"{job}2"))
        await write(second, f"{job}3")
        second.close()
        with pytest.raises(LedgerLockedError, match="took this ledger over"):
            first.close()
        here.open().close()
    kept = [read_ledger(aside) for aside in here.folder.glob("ledger-*aside*.jsonl")]
    last = sorted([one.job for one in ledger if isinstance(one, Submitting)][-1] for ledger in kept)
    assert last == ["a2", "b2"]


async def test_only_one_of_two_machines_gets_the_ledger_of_a_lost_one(
    here: Machine, elsewhere: Machine, store: Store, root: BucketUrl, tmp_path: Path
) -> None:
    lost = here.open()
    await write(lost, "a")
    lose(here, lost)
    third = Machine(store, root, tmp_path / "third")
    outcomes: list[str] = []

    def race(machine: Machine) -> None:
        try:
            ledgers.append(machine.open())
            outcomes.append("owner")
        except LedgerLockedError:
            outcomes.append("refused")

    ledgers: list[Ledger] = []
    threads = [threading.Thread(target=race, args=(one,)) for one in (elsewhere, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One may come when the other has given its first sign already, or while both take over; it may
    # also get the ledger after the other. Then the first finds out before anything leaves.
    assert "owner" in outcomes
    alive = []
    for ledger in ledgers:
        try:
            await write(ledger, "b")
            alive.append(ledger)
        except LedgerLockedError:
            pass
    assert len(alive) == 1
    for ledger in ledgers:
        ledger.close()


async def test_the_same_machine_goes_on_at_once_and_ships_what_was_left(
    here: Machine, elsewhere: Machine
) -> None:
    killed = here.open()
    await write(killed, "a")
    copy = killed._copy
    assert copy is not None
    copy.close(release=False)
    # Written here, and killed before it was shipped.
    killed._copy = None
    killed.append(intent("b"))
    killed.close()
    here.open().close()
    assert here.told == []
    elsewhere.open().close()
    assert elsewhere.jobs() == ["a", "b"]


async def test_a_torn_last_line_here_is_cut_and_the_copy_never_had_it(
    here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    ledger.close()
    with here.path.open("ab") as file:
        file.write(b'{"record":"submitting","at"')
    again = here.open()
    assert again.cut_bytes > 0
    await write(again, "b")
    again.close()
    elsewhere.open().close()
    assert elsewhere.path.read_bytes() == here.path.read_bytes()


async def test_an_answer_of_the_store_that_is_lost_is_found_out_to_have_been_a_yes(
    store: Store, root: BucketUrl, here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    # The put is kept, and its caller is told that the store is away.
    store.holds_answers = True
    store.hold = lambda method, path: method == "PUT" and "/segments/" in path

    def let_go() -> None:
        store.held.wait(30)
        store.release()

    released = threading.Thread(target=let_go)
    released.start()
    await write(ledger, "a")
    released.join()
    store.holds_answers = False
    await write(ledger, "b")
    ledger.close()
    elsewhere.open().close()
    assert elsewhere.jobs() == ["a", "b"]


async def test_a_store_that_stays_away_makes_nothing_durable_and_all_stays_on_record_here(
    store: Store, here: Machine
) -> None:
    ledger = here.open()
    copy = ledger._copy
    assert copy is not None
    # A store that is not there at all; a run that ends waits for it no longer.
    copy._buckets = copy._segments._buckets = Buckets(
        store.settings | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    copy.hurry()
    ledger.append(intent("a"))
    with pytest.raises(ServiceUnavailableError, match="copy cannot be written"):
        await ledger.durable()
    ledger.append(intent("b"))
    ledger.close()
    assert here.jobs() == ["a", "b"]


async def test_a_copy_that_falls_behind_while_nobody_waits_is_told_at_the_end(
    store: Store, here: Machine
) -> None:
    ledger = here.open()
    copy = ledger._copy
    assert copy is not None
    copy._buckets = copy._segments._buckets = Buckets(
        store.settings | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    copy.hurry()
    ledger.append(intent("a"))
    ledger._begin_sync()  # as it is soon after sync_soon()
    assert ledger._syncing is not None
    await asyncio.wait([ledger._syncing])
    with pytest.raises(ServiceUnavailableError, match="copy cannot be written"):
        ledger.close()
    assert here.jobs() == ["a"]


async def test_a_put_that_was_given_up_and_had_arrived_counts_for_what_it_holds(
    store: Store, root: BucketUrl, here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    copy = ledger._copy
    assert copy is not None
    create = copy._buckets.create

    def keep_and_say_nothing(url: BucketUrl, content: bytes) -> bool:
        create(url, content)
        raise StorageError("the answer is lost")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(copy._buckets, "create", keep_and_say_nothing)
        copy.hurry()
        ledger.append(intent("a"))
        with pytest.raises(ServiceUnavailableError):
            copy.ship(ledger.path.read_bytes()[copy.size_bytes :])
    # More was appended since; the end of the run ships it under the number that is taken.
    ledger.append(intent("b"))
    ledger.close()
    elsewhere.open().close()
    assert elsewhere.jobs() == ["a", "b"]


async def test_a_ledger_that_was_written_to_without_the_copy_is_never_set_aside_for_it(
    here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    ledger.close()
    # Bought without a copy, here or by a machine that once owned it.
    alone = Ledger.open(elsewhere.folder, HEADER)
    await write(alone, "b")
    alone.close()
    for _ in range(2):
        with pytest.raises(UsageError, match="records purchases that the copy lacks"):
            elsewhere.open()
    assert elsewhere.jobs() == ["b"]
    elsewhere.path.unlink()
    elsewhere.open().close()
    with_copy = elsewhere.open()
    await write(with_copy, "c")
    with_copy.close()
    off = Ledger.open(here.folder, HEADER)
    await write(off, "d")
    off.close()
    with pytest.raises(UsageError, match="records purchases that the copy lacks"):
        here.open()
    assert here.jobs() == ["a", "d"]


async def test_an_end_that_cannot_be_told_to_the_store_is_an_end_all_the_same(
    store: Store, here: Machine, elsewhere: Machine
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    copy = ledger._copy
    assert copy is not None
    copy._buckets = copy._segments._buckets = Buckets(
        store.settings | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    ledger.close()
    # Only that whoever comes next waits for silence.
    with pytest.raises(LedgerLockedError, match="another run is at work"):
        elsewhere.open()
    fall_silent(here)
    elsewhere.open().close()
    assert elsewhere.jobs() == ["a"]


async def test_damage_to_the_copy_is_told_with_its_segment_and_nothing_is_restored(
    here: Machine, elsewhere: Machine, store: Store, root: BucketUrl
) -> None:
    ledger = here.open()
    await write(ledger, "a")
    await write(ledger, "b")
    ledger.close()
    second = root.join("segments/000000003")
    body = b"".join(store.buckets.chunks(second))
    store.buckets.put(second, body.replace(b'"job":"a"', b'"job":"x"'))
    with pytest.raises(
        LedgerDamagedError, match=r"segments/000000003: .* do not match its checksum"
    ):
        elsewhere.open()
    assert not elsewhere.path.exists()
    obstore.delete(here.buckets._store(root), second.key)
    with pytest.raises(LedgerDamagedError, match=r"000000003: .* this segment is missing"):
        elsewhere.open()


def test_machines_without_a_common_folder_agree_on_how_a_batch_is_dealt(
    store: Store, root: BucketUrl
) -> None:
    check_copy_split(store.buckets, root, 4)
    check_copy_split(store.buckets, root, 4)
    with pytest.raises(UsageError, match="in 4 shards, not in 3 shards"):
        check_copy_split(store.buckets, root, 3)
    with pytest.raises(UsageError, match="in 4 shards, not in one ledger"):
        check_copy_split(store.buckets, root, None)


async def test_a_store_that_gives_one_name_away_twice_is_refused(store: Store) -> None:
    async def careless(_: web.Request) -> web.Response:
        return web.Response(headers={"ETag": '"1"'})

    async with serving(careless) as url:
        buckets = Buckets(store.settings | {"AWS_ENDPOINT_URL": url})
        with pytest.raises(UsageError, match="two writers create one object"):
            await asyncio.to_thread(check_copy_split, buckets, BucketUrl("s3", "careless", "x"), 2)
