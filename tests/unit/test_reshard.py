"""Dealing ledgers anew: nothing lost, nothing twice, whenever it is killed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batch_runner.errors import (
    InputMissingError,
    LedgerDamagedError,
    LedgerLockedError,
    StorageError,
    UsageError,
)
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import ledger_path, read_ledgers, replay, replay_all
from batch_runner.records import (
    JobRecord,
    LedgerHeader,
    Refused,
    RunFinished,
    RunStarted,
    Saved,
    Submitted,
    Submitting,
    Succeeded,
    fingerprint,
)
from batch_runner.shards.quota import budget_share
from batch_runner.shards.reshard import reshard
from batch_runner.shards.shard import Shard, index_of, ledger_dirs, split_into

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
JOBS = 24


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


class Executioner:
    """Kills the program at its nth operation on a folder's files."""

    def __init__(self) -> None:
        self.folder = ""
        self.left: int | None = None
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None or not event.startswith(("open", "os.", "shutil.")):
            return
        if not any(str(one).startswith(self.folder) for one in arguments):
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise Killed


@pytest.fixture(scope="module")
def executioner() -> Iterator[Executioner]:
    # An audit hook stays for good; without an order it does nothing.
    one = Executioner()
    yield one
    one.left = None


def begin(output: Path, shard: Shard | None, jobs: range) -> None:
    """Write a ledger of jobs in several states, as a run of that shard would."""
    folder = output if shard is None else shard.ledger_dir(output)
    header = LedgerHeader(
        version=1,
        at=NOW,
        program="p",
        service="local",
        shard=None if shard is None else str(shard),
    )
    ledger = Ledger.open(folder, header)
    run = f"run{0 if shard is None else shard.index}"
    ledger.append(
        RunStarted(
            at=NOW, run=run, pid=1, host="h", program="p", manifest_sha256="", jobs=JOBS, plan={}
        )
    )
    for number in jobs:
        print_ = fingerprint("m", {"n": number}, 1)
        if shard is not None and not shard.holds(print_):
            continue
        about: dict[str, Any] = {
            "at": NOW + timedelta(seconds=number),
            "job": f"job-{number}",
            "fingerprint": print_,
        }
        ledger.append(
            Submitting(
                **about,
                model="m",
                input={"prompt": "ü" * number},
                path=f"p{number}",
                attempt=1,
                reserved_usd=Decimal("0.04"),
            )
        )
        if number % 4 == 1:
            ledger.append(Refused(**about, reason="r", message="m", again=True))
        if number % 4 > 1:
            ledger.append(Submitted(**about, request_id=f"r{number}"))
        if number % 4 > 2:
            ledger.append(
                Succeeded(**about, request_id=f"r{number}", outputs=[], cost_usd=Decimal("0.03"))
            )
    ledger.append(
        RunFinished(
            at=NOW + timedelta(hours=1),
            run=run,
            submitted=1,
            saved=1,
            failed=0,
            unknown=0,
            cost_usd=Decimal(0),
            elapsed_s=1.0,
        )
    )
    ledger.close()


def batch_in(output: Path, count: int) -> Path:
    for index in range(count):
        begin(output, None if count == 1 else Shard(index, count), range(JOBS))
    return output


def paths_of(output: Path) -> list[Path]:
    return [ledger_path(folder) for folder in ledger_dirs(output)]


def told(output: Path) -> list[str]:
    """Return all that the ledgers tell but their headers, in an order of its own."""
    records = list(read_ledgers(paths_of(output)))[1:]
    return sorted(
        repr(msgspec.structs.replace(one, order=None) if isinstance(one, JobRecord) else one)
        for one in records
    )


def contents(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.jsonl"))
    }


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (4, 3), (2, 8), (1, 2)])
def test_a_dealing_keeps_every_record_and_every_cent(
    tmp_path: Path, before: int, after: int
) -> None:
    output = batch_in(tmp_path / "out", before)
    had = told(output)
    state = replay_all([ledger_path(folder) for folder in ledger_dirs(output)])
    dealt = reshard(output, after, NOW)
    assert dealt == (before, after, JOBS)
    assert split_into(output) == (None if after == 1 else after)
    paths = [ledger_path(folder) for folder in ledger_dirs(output)]
    assert told(output) == had
    again = replay_all(paths)
    assert (again.spent_usd, again.reserved_usd) == (state.spent_usd, state.reserved_usd)
    assert again.jobs.keys() == state.jobs.keys()
    for index, path in enumerate(paths):
        known = replay(path).state
        assert known.header is not None
        assert known.header.shard == (None if after == 1 else f"{index}/{after}")
        assert all(Shard(index, after).holds(one) for one in known.jobs)


def test_what_is_left_of_the_budget_is_dealt_and_what_was_spent_stays_counted(
    tmp_path: Path,
) -> None:
    output = batch_in(tmp_path / "out", 1)
    committed = Decimal("0.9")  # 18 reserved at 0.04, of which 6 then cost 0.03
    reshard(output, 4, NOW)
    parts = []
    for index in range(4):
        state = replay(ledger_path(Shard(index, 4).ledger_dir(output))).state
        assert state.header is not None
        # Some submits were never answered: they may have left until the run ended.
        assert state.header.last_submit_at == NOW + timedelta(hours=1)
        part = budget_share(Decimal(2), Shard(index, 4), state.header)
        assert part is not None
        parts.append((part, state.spent_usd + state.reserved_usd))
    assert sum(spent for _, spent in parts) == Decimal("0.66")
    assert committed > Decimal("0.66")
    left = [part - spent for part, spent in parts]
    assert len(set(left)) == 1
    assert Decimal("1.30") <= sum(left) <= Decimal("1.34")


def test_dealing_back_and_forth_and_into_the_same_number_changes_nothing_that_is_told(
    tmp_path: Path,
) -> None:
    output = batch_in(tmp_path / "out", 1)
    had = told(output)
    for number, count in enumerate((3, 5, 2, 1, 4)):
        reshard(output, count, NOW + timedelta(minutes=number))
        before = contents(output)
        reshard(output, count, NOW)
        assert contents(output) == before
    assert told(output) == had
    assert len(list((output / "shards").glob(".before-*"))) == 5


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (3, 1)])
def test_killed_at_any_operation_and_run_again_it_ends_the_same(
    tmp_path: Path, executioner: Executioner, before: int, after: int
) -> None:
    calm = batch_in(tmp_path / "calm", before)
    former = contents(calm)
    reshard(calm, after, NOW)
    wanted = contents(calm)
    kills = 0
    while True:
        output = batch_in(tmp_path / f"out-{kills}", before)
        executioner.folder, executioner.left = str(output), kills
        try:
            reshard(output, after, NOW)
        except Killed:
            kills += 1
        else:
            executioner.left = None
            break
        # In between, readers see the former ledgers or the new ones whole, or are told to wait.
        try:
            assert len(told(output)) == len(told(calm))
        except UsageError as error:
            assert "interrupted" in error.message  # noqa: PT017 - either may be
        reshard(output, after, NOW)
        assert contents(output) == wanted
    kept = {path.name for path in (calm / "shards").glob(".before-*/before/**/*.jsonl")}
    assert len(kept) == 1
    assert len(former) == before
    assert kills > 20


def test_nothing_is_dealt_while_anybody_runs(tmp_path: Path) -> None:
    output = batch_in(tmp_path / "out", 2)
    with hold(output, shared=True), pytest.raises(LedgerLockedError):
        reshard(output, 3, NOW)
    assert split_into(output) == 2


def test_nothing_to_deal_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="nothing was run here"):
        reshard(tmp_path / "none", 2, NOW)
    with pytest.raises(InputMissingError, match="nothing was run here"):
        reshard(tmp_path, 2, NOW)


def test_a_job_that_stands_in_two_ledgers_is_not_dealt(tmp_path: Path) -> None:
    output = batch_in(tmp_path / "out", 2)
    path = ledger_path(Shard(0, 2).ledger_dir(output))
    other = ledger_path(Shard(1, 2).ledger_dir(output))
    strange = next(line for line in other.read_bytes().splitlines(True) if b"submitting" in line)
    path.write_bytes(path.read_bytes() + strange)
    before = contents(output)
    with pytest.raises(LedgerDamagedError, match="do not add up"):
        reshard(output, 3, NOW)
    assert split_into(output) == 2
    assert {name: text for name, text in contents(output).items() if ".dealing" not in name} == (
        before
    )


def test_a_torn_last_line_is_left_behind(tmp_path: Path) -> None:
    output = batch_in(tmp_path / "out", 2)
    had = told(output)
    path = ledger_path(Shard(0, 2).ledger_dir(output))
    path.write_bytes(path.read_bytes() + b'{"record":"submi')
    reshard(output, 3, NOW)
    assert told(output) == had


def test_ledgers_of_two_services_do_not_go_together(tmp_path: Path) -> None:
    output = batch_in(tmp_path / "out", 2)
    path = ledger_path(Shard(1, 2).ledger_dir(output))
    path.write_bytes(path.read_bytes().replace(b'"local"', b'"https://x"', 1))
    with pytest.raises(UsageError, match="different services: https://x, local"):
        reshard(output, 3, NOW)


def test_a_disk_that_fails_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = batch_in(tmp_path / "out", 1)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batch_runner.shards.reshard.sync_file", fail)
    with pytest.raises(StorageError, match="No space left"):
        reshard(output, 2, NOW)
    assert split_into(output) is None


def take_name(output: Path, number: int, minute: int) -> str:
    """Have the nth job of one key take its name, in whichever ledger the job belongs to."""
    print_, count = fingerprint("m", {"n": number}, 1), split_into(output)
    shard = None if count is None else Shard(index_of(print_, count), count)
    header = LedgerHeader(
        # Later than anything in it, as earlier releases wrote it into ledgers that they dealt.
        version=1,
        at=NOW + timedelta(days=1),
        program="p",
        service="local",
        shard=None if shard is None else str(shard),
    )
    about: dict[str, Any] = {
        "at": NOW + timedelta(minutes=minute),
        "job": "key",
        "fingerprint": print_,
    }
    ledger = Ledger.open(output if shard is None else shard.ledger_dir(output), header)
    ledger.append(Submitting(**about, model="m", input={}, path="key", attempt=1))
    ledger.append(Saved(**about, files=[]))
    ledger.close()
    return print_


ONWARDS = range(16)
SET_BACK = [0, 0, 30, 20, 1, *range(2, 13)]


@pytest.mark.parametrize("minutes", [ONWARDS, SET_BACK], ids=["onwards", "set back"])
@pytest.mark.parametrize("counts", [(2,), (3, 1), (5, 2, 4)], ids=str)
def test_the_order_in_which_jobs_took_a_name_survives(
    tmp_path: Path, minutes: list[int], counts: tuple[int, ...]
) -> None:
    wanted: list[str] = []
    dealings = iter(counts)
    for number, minute in enumerate(minutes):
        wanted.append(take_name(tmp_path, number, minute))
        if number % 5 == 4:
            reshard(tmp_path, next(dealings, counts[-1]), NOW + timedelta(days=1))
            saved = [one for one in read_ledgers(paths_of(tmp_path)) if isinstance(one, Saved)]
            assert [one.fingerprint for one in saved] == wanted
            assert replay_all(paths_of(tmp_path)).last_fingerprint("key") == wanted[-1]


def test_ledgers_of_shards_are_put_in_order_by_what_they_hold(tmp_path: Path) -> None:
    for index in range(3):
        Shard(index, 3).ledger_dir(tmp_path).mkdir(parents=True)
        ledger_path(Shard(index, 3).ledger_dir(tmp_path)).touch()
    wanted = [take_name(tmp_path, number, number) for number in range(12)]
    saved = [one for one in read_ledgers(paths_of(tmp_path)) if isinstance(one, Saved)]
    assert [one.fingerprint for one in saved] == wanted


def test_dealt_twice_within_a_second_both_former_ledgers_are_kept(
    tmp_path: Path, executioner: Executioner
) -> None:
    for kills in range(30, 60):
        output = batch_in(tmp_path / f"out-{kills}", 1)
        had = told(output)
        executioner.folder, executioner.left = str(output), kills
        with contextlib.suppress(Killed):
            reshard(output, 3, NOW)
        executioner.left = None
        reshard(output, 2, NOW)
        reshard(output, 4, NOW)
        assert told(output) == had
        kept = list((output / "shards").glob(".before-*"))
        ledgers = [list((one / "before").rglob("*.jsonl")) for one in kept]
        assert all(ledgers), ledgers
        assert len(kept) in (2, 3)
