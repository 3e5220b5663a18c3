from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_runner.errors import (
    InputMissingError,
    LedgerDamagedError,
    LedgerLockedError,
    StorageError,
)
from batch_runner.ledger import file as ledger_module
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.lock import LOCK_NAME, owner_of
from batch_runner.ledger.reading import ledger_path, read_ledger, replay
from batch_runner.ledger.state import State
from batch_runner.ledger.tail import Tail
from batch_runner.records import (
    Cancelled,
    Failed,
    LedgerHeader,
    Record,
    Refused,
    Resolved,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    encode,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HEADER = LedgerHeader(version=1, at=NOW, program="batch_runner 1", service="local")
FILE = SavedFile(path="a.png", size_bytes=3, sha256="0" * 64, media_type="image/png")
EIGHT_CENTS = Decimal("0.08")


def about(name: str = "a") -> dict[str, Any]:
    return {"at": NOW, "job": name, "fingerprint": f"fingerprint of {name}"}


def submitting(name: str = "a", reserved_usd: Decimal | None = EIGHT_CENTS) -> Submitting:
    return Submitting(
        **about(name),
        model="m",
        input={"prompt": "x"},
        path=name,
        attempt=1,
        reserved_usd=reserved_usd,
    )


def submitted(name: str = "a", request_id: str = "r1") -> Submitted:
    return Submitted(**about(name), request_id=request_id)


def unknown(name: str = "a", why: str = "answer lost") -> Unknown:
    return Unknown(**about(name), why=why)


def refused(name: str = "a", *, again: bool = True) -> Refused:
    return Refused(**about(name), reason="rate limited", message="slow down", again=again)


def succeeded(name: str = "a", cost_usd: Decimal | None = None) -> Succeeded:
    return Succeeded(**about(name), request_id="r1", outputs=["https://x"], cost_usd=cost_usd)


def failed(name: str = "a", cost_usd: Decimal | None = None) -> Failed:
    return Failed(**about(name), request_id="r1", reason="f", message="m", cost_usd=cost_usd)


def cancelled(name: str = "a", cost_usd: Decimal | None = None) -> Cancelled:
    return Cancelled(**about(name), request_id="r1", cost_usd=cost_usd)


def saved(name: str = "a", reused_from: str | None = None) -> Saved:
    return Saved(**about(name), files=[FILE], reused_from=reused_from)


def resubmit(name: str = "a") -> Resolved:
    return Resolved(**about(name), how="resubmit")


def attached(name: str = "a") -> Resolved:
    return Resolved(**about(name), how="attached", request_id="r9")


def abandoned(name: str = "a") -> Resolved:
    return Resolved(**about(name), how="abandoned")


def known(state: State) -> dict[str, Any]:
    """Return everything a State says, in a form that can be compared."""
    jobs = {one.fingerprint: msgspec.to_builtins(one) for one in state.jobs.each()}
    keys = {one["key"] for one in jobs.values()} | set(state.jobs.names)
    stand_for = {key: state.last_fingerprint(key) for key in keys}
    return {**vars(state), "money": vars(state.money), "jobs": jobs, "keys": stand_for}


def state_of(*records: Record) -> State:
    state = State()
    for record in records:
        state.apply(record)
    return state


def phase_after(*records: Record) -> Phase:
    return state_of(*records).jobs["fingerprint of a"].phase


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def opened(folder: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(folder, HEADER)
    yield ledger
    ledger.close()


def write_ledger(folder: Path, *records: Record) -> bytes:
    content = b"".join(map(encode, (HEADER, *records)))
    folder.mkdir(parents=True, exist_ok=True)
    ledger_path(folder).write_bytes(content)
    return content


def at(record: Record, second: int) -> Record:
    return msgspec.structs.replace(record, at=NOW + timedelta(seconds=second))


RUN_STARTED = RunStarted(
    at=NOW, run="r", pid=1, host="h", program="p", manifest_sha256="", jobs=1, plan={}
)


@pytest.mark.parametrize(
    ("records", "left", "leaving"),
    [
        ([at(submitting(), 0)], [], 1),
        ([at(submitting(), 0), at(submitted(), 9)], [9], 0),
        ([at(submitting(), 0), at(refused(), 2), at(submitting(), 3), at(unknown(), 5)], [2, 5], 0),
        ([at(submitting(), 0), at(submitting("b"), 1), at(submitted("b"), 4)], [4], 1),
        ([at(submitting(), 0), at(submitting("b"), 1), at(RUN_STARTED, 7)], [7, 7], 0),
        ([at(submitting(), 0), at(attached(), 3), at(RUN_STARTED, 8)], [8], 0),
        ([at(submitting(), 0), at(RUN_STARTED, 7), at(unknown(), 8)], [7], 0),
        ([at(submitting(), 0), at(submitted(), 1), at(failed(), 2), at(RUN_STARTED, 7)], [1], 0),
    ],
)
def test_a_submit_counts_from_the_moment_that_it_had_left_at_the_latest(
    records: list[Record], left: list[int], leaving: int
) -> None:
    state = state_of(*records)
    assert [(one - NOW).total_seconds() for one in state.submit_times] == left
    assert state.leaving == leaving


# The file


def test_a_new_ledger_begins_with_its_header_and_an_existing_one_is_not_given_another(
    folder: Path,
) -> None:
    Ledger.open(folder, HEADER).close()
    assert list(read_ledger(ledger_path(folder))) == [HEADER]
    other = msgspec.structs.replace(HEADER, service="https://elsewhere")
    again = Ledger.open(folder, other)
    again.close()
    assert again.state.header == HEADER
    assert list(read_ledger(ledger_path(folder))) == [HEADER]


def test_an_append_is_one_write_of_one_line_and_is_taken_into_the_state(
    opened: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return REAL_WRITE(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    opened.append(submitting())
    assert writes == [encode(submitting())]
    assert list(read_ledger(opened.path)) == [HEADER, submitting()]
    assert opened.state.jobs["fingerprint of a"].phase is Phase.SUBMITTING


def test_a_record_that_no_replay_would_accept_is_not_written(opened: Ledger) -> None:
    before = opened.path.read_bytes()
    for record in (submitted(), HEADER):
        with pytest.raises(ValueError, match=r"never submitted|second header"):
            opened.append(record)
    assert opened.path.read_bytes() == before
    opened.append(submitting())
    assert {one.fingerprint for one in replay(opened.path).state.jobs.each()} == {
        "fingerprint of a"
    }


# Durability


class Syncs:
    """Stands in for the sync of the disk: counts, can be held up, can fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.covered: list[int] = []
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        size = os.fstat(descriptor).st_size
        self.begun.set()
        assert self.go_on.wait(timeout=120)
        if self.failure is not None:
            raise self.failure
        self.covered.append(size)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    stand_in = Syncs()
    monkeypatch.setattr(ledger_module, "sync_data", stand_in)
    return stand_in


async def begun(syncs: Syncs) -> None:
    assert await asyncio.to_thread(syncs.begun.wait, 30)
    syncs.begun.clear()


async def test_many_waiters_share_few_syncs_and_none_returns_before_its_record_was_covered(
    syncs: Syncs, opened: Ledger
) -> None:
    syncs.covered.clear()

    async def submit(number: int) -> None:
        opened.append(submitting(f"job {number}"))
        end_of_record = opened.path.stat().st_size
        await opened.durable()
        assert max(syncs.covered) >= end_of_record

    syncs.go_on.clear()
    syncs.begun.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(submit(0))
        await begun(syncs)  # the first sync is under way: these have to wait for the next one
        for number in range(1, 100):
            group.create_task(submit(number))
        await asyncio.sleep(0)
        syncs.go_on.set()
    assert len(syncs.covered) == 2


async def test_what_was_appended_while_a_sync_ran_waits_for_the_next_one(
    syncs: Syncs, opened: Ledger
) -> None:
    syncs.begun.clear()
    syncs.go_on.clear()
    opened.append(submitting("a"))
    first = asyncio.create_task(opened.durable())
    await begun(syncs)
    opened.append(submitting("b"))
    second = asyncio.create_task(opened.durable())
    syncs.go_on.set()
    await asyncio.gather(first, second)
    assert syncs.covered[-1] == opened.path.stat().st_size
    assert syncs.covered[-2] < syncs.covered[-1]


async def test_nothing_new_needs_no_sync(syncs: Syncs, opened: Ledger) -> None:
    before = len(syncs.covered)
    await opened.durable()
    assert len(syncs.covered) == before


async def test_cancelling_one_waiter_takes_nothing_from_the_others(
    syncs: Syncs, opened: Ledger
) -> None:
    syncs.begun.clear()
    syncs.go_on.clear()
    opened.append(submitting("a"))
    waiters = [asyncio.create_task(opened.durable()) for _ in range(3)]
    await begun(syncs)
    waiters[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiters[0]
    assert not waiters[1].done()
    syncs.go_on.set()
    await asyncio.gather(*waiters[1:])
    assert syncs.covered[-1] == opened.path.stat().st_size


async def test_the_event_loop_goes_on_while_the_disk_syncs(syncs: Syncs, opened: Ledger) -> None:
    syncs.begun.clear()
    syncs.go_on.clear()
    opened.append(submitting())
    waiter = asyncio.create_task(opened.durable())
    await begun(syncs)
    assert not waiter.done()
    syncs.go_on.set()
    await waiter


async def test_a_failed_sync_reaches_every_waiter_and_nothing_is_appended_after_it(
    syncs: Syncs, folder: Path
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting())
    syncs.failure = OSError(errno.EIO, "Input/output error")
    ended = await asyncio.gather(*(ledger.durable() for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in ended] == [StorageError] * 5
    size = ledger.path.stat().st_size
    syncs.failure = None
    with pytest.raises(StorageError, match="Input/output error"):
        ledger.append(submitting("b"))
    with pytest.raises(StorageError):
        await ledger.durable()
    assert ledger.path.stat().st_size == size
    assert "fingerprint of b" not in ledger.state.jobs
    before = list(syncs.covered)
    ledger.close()
    assert syncs.covered == before, "a second sync would lie"


async def test_a_sync_that_ends_by_a_bug_reaches_every_waiter_and_is_not_begun_again_and_again(
    syncs: Syncs, folder: Path
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting())
    syncs.failure = RuntimeError("a bug")
    begun_before = syncs.calls
    ended = await asyncio.gather(*(ledger.durable() for _ in range(5)), return_exceptions=True)
    assert [repr(error) for error in ended] == ["RuntimeError('a bug')"] * 5
    with pytest.raises(RuntimeError, match="a bug"):
        ledger.append(submitted())
    ledger.sync_soon()
    for _ in range(20):
        await asyncio.sleep(0)
    assert syncs.calls == begun_before + 1
    ledger.close()


async def test_a_ledger_closed_while_a_sync_runs_begins_no_other_afterwards(
    syncs: Syncs, folder: Path
) -> None:
    ledger, complaints = Ledger.open(folder, HEADER), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    syncs.begun.clear()
    syncs.go_on.clear()
    ledger.append(submitting())
    covered = asyncio.create_task(ledger.durable())
    await begun(syncs)
    ledger.append(submitted())
    late = asyncio.create_task(ledger.durable())  # has to wait for a second sync
    await asyncio.sleep(0)
    late.cancel()
    letting_go = threading.Timer(0, syncs.go_on.set)
    letting_go.start()
    ledger.close()
    letting_go.join()
    await covered
    await asyncio.sleep(0)
    assert not complaints
    assert syncs.covered[-1] == ledger.path.stat().st_size


async def test_a_write_that_fails_while_a_sync_runs_leaves_nobody_waiting_for_ever(
    syncs: Syncs, opened: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs.begun.clear()
    syncs.go_on.clear()
    opened.append(submitting("a"))
    covered = asyncio.create_task(opened.durable())
    await begun(syncs)
    opened.append(submitting("b"))
    late = asyncio.create_task(opened.durable())
    await asyncio.sleep(0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", broken)
        with pytest.raises(StorageError):
            opened.append(submitting("c"))
    syncs.go_on.set()
    await covered
    with pytest.raises(StorageError):
        await late


async def test_closing_syncs_what_is_left_and_says_when_that_fails(
    syncs: Syncs, folder: Path
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting())
    ledger.close()
    assert syncs.covered[-1] == ledger_path(folder).stat().st_size
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting("b"))
    syncs.failure = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match="No space left") as caught:
        ledger.close()
    assert "free some space" in (caught.value.hint or "")
    assert owner_of(folder) is None, "the lock is given up all the same"


def test_a_drive_with_a_cache_is_told_to_write_it_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: calls.append(command))
    Ledger.open(folder, HEADER).close()
    assert set(calls) == {51}


# A disk that fails


def half_written(descriptor: int, line: bytes) -> int:
    return REAL_WRITE(descriptor, line[: len(line) // 2])


def full(descriptor: int, line: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(descriptor: int, line: bytes) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


REAL_WRITE = os.write


@pytest.mark.parametrize("write", [half_written, full])
def test_a_write_that_falls_short_ends_the_ledger_without_leaving_half_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[int, bytes], int]
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting("a"))
    content = ledger.path.read_bytes()
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match="No space left") as caught:
        ledger.append(submitting("b"))
    assert "nothing is lost" in (caught.value.hint or "")
    monkeypatch.undo()
    with pytest.raises(StorageError):
        ledger.append(submitting("c"))
    assert ledger.path.read_bytes() == content
    assert {one.fingerprint for one in ledger.state.jobs.each()} == {"fingerprint of a"}
    ledger.close()
    again = Ledger.open(folder, HEADER)
    assert again.cut_bytes == 0
    assert known(again.state) == known(ledger.state)
    again.append(submitting("b"))
    again.close()


def test_on_a_full_disk_what_was_sent_is_still_written_and_nothing_more_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(folder, HEADER)
    reserve = folder / ".ledger.reserve"
    assert reserve.stat().st_size == 64 * 1024
    for name in ("a", "b"):
        ledger.append(submitting(name))
    room = [0]

    def write(descriptor: int, line: bytes) -> int:
        given_back = 64 * 1024 - reserve.stat().st_size
        taken = min(len(line), given_back - room[0])
        if taken <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] += taken
        return REAL_WRITE(descriptor, line[:taken])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match="No space left"):
        ledger.append(submitting("c"))
    assert reserve.stat().st_size == 64 * 1024
    # Longer than a piece of the reserve, and of no length that fits.
    ledger.append(unknown("a", why="x" * 10_000))
    ledger.append(submitted("b"))
    with pytest.raises(StorageError, match="No space left"):
        ledger.append(submitting("d"))
    assert reserve.stat().st_size == 64 * 1024 - 3 * 4096
    with pytest.raises(StorageError):
        ledger.append(unknown("b", why="x" * 64 * 1024))
    with pytest.raises(StorageError):
        ledger.append(submitted("b"))
    monkeypatch.undo()
    ledger.close()
    assert not reserve.exists()
    again = Ledger.open(folder, HEADER)
    assert again.state.jobs["fingerprint of a"].phase is Phase.UNKNOWN
    assert again.state.jobs["fingerprint of b"].phase is Phase.IN_FLIGHT
    assert {one.key for one in again.state.jobs.each()} == {"a", "b"}
    again.close()


def test_a_line_that_cannot_be_cut_off_a_full_disk_ends_the_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting("a"))
    monkeypatch.setattr(os, "write", half_written)
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(StorageError):
        ledger.append(submitting("b"))
    monkeypatch.undo()
    with pytest.raises(StorageError):
        ledger.append(submitted("a"))
    ledger.close()
    again = Ledger.open(folder, HEADER)
    assert again.cut_bytes
    again.close()


def test_a_disk_that_is_full_already_is_said_before_anything_is_bought(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, line: bytes) -> int:
        return full(descriptor, line) if len(line) > 4096 else REAL_WRITE(descriptor, line)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match="No space left"):
        Ledger.open(folder, HEADER)
    monkeypatch.undo()
    assert not (folder / ".ledger.reserve").exists()
    Ledger.open(folder, HEADER).close()


def test_half_a_line_that_could_not_be_cut_at_once_is_cut_by_the_next_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(folder, HEADER)
    content = ledger.path.read_bytes()

    def no_truncate(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", half_written)
    monkeypatch.setattr(os, "ftruncate", no_truncate)
    with pytest.raises(StorageError):
        ledger.append(submitting())
    monkeypatch.undo()
    ledger.close()
    half = len(encode(submitting())) // 2
    assert replay(ledger.path).torn_bytes == half
    again = Ledger.open(folder, HEADER)
    again.close()
    assert again.cut_bytes == half
    assert again.path.read_bytes() == content


@pytest.mark.parametrize("call", ["ftruncate", "write", "fsync"])
def test_an_open_that_fails_lets_go_of_the_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match="Read-only") as caught:
        Ledger.open(folder, HEADER)
    assert "read-only" in (caught.value.hint or "")
    monkeypatch.undo()
    Ledger.open(folder, HEADER).close()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        Ledger.open(tmp_path / "file" / "out", HEADER)


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_ledger_that_was_removed_or_replaced_under_the_run_makes_nothing_durable(
    folder: Path, is_replaced: bool
) -> None:
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitting())
    ledger.path.rename(folder / "old.jsonl")
    if is_replaced:
        write_ledger(folder)
    with pytest.raises(StorageError):
        await ledger.durable()
    with pytest.raises(StorageError):
        ledger.append(submitted())
    ledger.close()


# A torn end


def test_a_last_line_torn_at_any_byte_is_cut_exactly_once_and_the_rest_replays_the_same(
    tmp_path: Path,
) -> None:
    whole = write_ledger(tmp_path / "whole", submitting(), submitted())
    state = replay(ledger_path(tmp_path / "whole")).state
    last = encode(unknown("a")) + b""
    for length in range(1, len(last)):
        folder = tmp_path / str(length)
        folder.mkdir()
        ledger_path(folder).write_bytes(whole + last[:length])
        replayed = replay(ledger_path(folder))
        assert (replayed.size_bytes, replayed.torn_bytes) == (len(whole), length)
        assert known(replayed.state) == known(state)
        assert list(read_ledger(ledger_path(folder))) == [HEADER, submitting(), submitted()]
        for cut_bytes in (length, 0, 0):
            ledger = Ledger.open(folder, HEADER)
            ledger.close()
            assert ledger.cut_bytes == cut_bytes
            assert known(ledger.state) == known(state)
            assert ledger.path.read_bytes() == whole


def test_a_record_appended_after_a_torn_line_was_cut_stands_on_a_line_of_its_own(
    folder: Path,
) -> None:
    write_ledger(folder, submitting())
    with ledger_path(folder).open("ab") as file:
        file.write(b'{"record":"unkn')
    ledger = Ledger.open(folder, HEADER)
    ledger.append(submitted())
    ledger.close()
    assert list(read_ledger(ledger.path)) == [HEADER, submitting(), submitted()]


@pytest.mark.parametrize("length", [0, 1, 20, len(encode(HEADER)) - 1])
def test_a_header_that_was_never_finished_is_written_anew(folder: Path, length: int) -> None:
    folder.mkdir()
    ledger_path(folder).write_bytes(encode(HEADER)[:length])
    ledger = Ledger.open(folder, HEADER)
    ledger.close()
    assert ledger.cut_bytes == length
    assert ledger.path.read_bytes() == encode(HEADER)


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff\xfe", b"not json", b"\r"])
def test_whatever_stands_after_the_last_newline_is_torn(folder: Path, tail: bytes) -> None:
    write_ledger(folder, submitting())
    with ledger_path(folder).open("ab") as file:
        file.write(tail)
    assert replay(ledger_path(folder)).torn_bytes == len(tail)


@pytest.mark.parametrize("after", [[], [succeeded()], [succeeded(), submitting("b")]])
def test_lines_after_zeros_that_were_not_synced_are_torn(folder: Path, after: list[Record]) -> None:
    content = write_ledger(folder, submitting(), submitted())
    rest = bytes(300) + b'"}\n' + b"".join(map(encode, after))
    with ledger_path(folder).open("ab") as file:
        file.write(rest)
    assert list(read_ledger(ledger_path(folder))) == [HEADER, submitting(), submitted()]
    assert [line.record for line in Tail(ledger_path(folder)).read()][1:] == [
        submitting(),
        submitted(),
    ]
    ledger = Ledger.open(folder, HEADER)
    ledger.close()
    assert ledger.path.read_bytes() == content


@pytest.mark.parametrize(
    "after", [[submitting("b"), submitted("b")], [submitted("c")], [succeeded("c")]]
)
def test_zeros_in_what_was_synced_are_damage(folder: Path, after: list[Record]) -> None:
    content = write_ledger(folder, submitting())
    rest = bytes(300) + b"\n" + b"".join(map(encode, after))
    ledger_path(folder).write_bytes(content + rest)
    for read in (
        replay,
        lambda path: list(read_ledger(path)),
        lambda _: Ledger.open(folder, HEADER),
    ):
        with pytest.raises(LedgerDamagedError) as raised:
            read(ledger_path(folder))
        assert f"{ledger_path(folder)}:3:" in raised.value.message
    assert ledger_path(folder).read_bytes() == content + rest


# Damage


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "the ledger is damaged"),
        (b"not json", "the ledger is damaged"),
        (b'{"record":"paid"}', "the ledger is damaged"),
        (b'{"record":"\xff"}', "the ledger is damaged"),
        (encode(submitting())[:-9], "the ledger is damaged"),
        (b'{"record":"submitting","input":{"a":' + b"[" * 100_000, "the ledger is damaged"),
        (encode(HEADER).rstrip(), "a second header"),
        (encode(submitted("never seen")).rstrip(), "the job was never submitted"),
        (
            encode(Resolved(**about(), how="attached")).rstrip(),
            "it attaches a job but names no request",
        ),
        (encode(succeeded(cost_usd=Decimal(-1))).rstrip(), "-1 USD is not an amount"),
        (encode(succeeded(cost_usd=Decimal("NaN"))).rstrip(), "NaN USD is not an amount"),
        (encode(submitting(reserved_usd=Decimal("Infinity"))).rstrip(), "is not an amount"),
    ],
)
def test_damage_in_the_middle_is_refused_with_its_line_and_nothing_is_changed(
    folder: Path, line: bytes, why: str
) -> None:
    content = write_ledger(folder, submitting()) + line + b"\n" + encode(unknown())
    ledger_path(folder).write_bytes(content)
    for look in (replay, lambda path: Ledger.open(path.parent, HEADER)):
        with pytest.raises(LedgerDamagedError, match=rf"ledger\.jsonl:3: .*{why}") as caught:
            look(ledger_path(folder))
        assert "nothing was changed" in (caught.value.hint or "")
    assert ledger_path(folder).read_bytes() == content
    assert owner_of(folder) is None


def test_another_format_is_refused_before_anything_else_of_it_is_read(folder: Path) -> None:
    folder.mkdir()
    content = encode(HEADER).replace(b'"version":1', b'"new":true,"version":2')
    content += b'{"record":"bought"}\n'
    ledger_path(folder).write_bytes(content)
    for look in (
        replay,
        lambda path: list(read_ledger(path)),
        lambda path: Ledger.open(path.parent, HEADER),
    ):
        with pytest.raises(
            LedgerDamagedError, match=r"ledger\.jsonl:1: this ledger has format 2"
        ) as caught:
            look(ledger_path(folder))
        assert "another output.dir" in (caught.value.hint or "")
    assert ledger_path(folder).read_bytes() == content


def test_a_file_that_does_not_begin_with_a_header_is_refused(folder: Path) -> None:
    folder.mkdir()
    ledger_path(folder).write_bytes(encode(submitting()))
    with pytest.raises(LedgerDamagedError, match="first line is not a ledger's header"):
        replay(ledger_path(folder))


# The lock


def test_a_second_owner_is_refused_and_told_the_first_ones_pid_and_host(
    opened: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    owner = f"pid {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(LedgerLockedError, match=owner):
        Ledger.open(opened.path.parent, HEADER)
    assert owner_of(opened.path.parent) == owner


def test_another_process_is_refused_too(opened: Ledger) -> None:
    code = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from batch_runner.ledger.file import Ledger\n"
        "from batch_runner.records import LedgerHeader\n"
        "from batch_runner.errors import LedgerLockedError\n"
        "header = LedgerHeader(version=1, at=datetime.now(UTC), program='p', service='s')\n"
        "try: Ledger.open(Path(sys.argv[1]), header)\n"
        "except LedgerLockedError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(opened.path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"pid {os.getpid()} on {socket.gethostname()}" in done.stdout


def test_closing_gives_the_lock_up(folder: Path) -> None:
    Ledger.open(folder, HEADER).close()
    assert owner_of(folder) is None
    Ledger.open(folder, HEADER).close()


def test_a_look_at_the_owner_that_falls_into_an_opening_does_not_end_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    looking = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(looking))
    Ledger.open(folder, HEADER).close()


def test_an_owner_that_left_no_name_is_still_an_owner(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    folder.mkdir()
    nameless = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(nameless, fcntl.LOCK_EX)
    assert owner_of(folder) == "another process"
    with pytest.raises(LedgerLockedError, match="owner unknown"):
        Ledger.open(folder, HEADER)
    os.close(nameless)


# Looking


def test_looking_creates_and_changes_nothing(folder: Path) -> None:
    assert known(replay(ledger_path(folder)).state) == known(State())
    assert owner_of(folder) is None
    with pytest.raises(InputMissingError, match="no such ledger"):
        list(read_ledger(ledger_path(folder)))
    assert not folder.exists()
    content = write_ledger(folder, submitting()) + b'{"torn'
    ledger_path(folder).write_bytes(content)
    ledger_path(folder).chmod(0o444)
    before = ledger_path(folder).stat()
    replay(ledger_path(folder))
    list(read_ledger(str(ledger_path(folder))))
    assert owner_of(folder) is None
    assert [path.name for path in folder.iterdir()] == ["ledger.jsonl"]
    assert ledger_path(folder).read_bytes() == content
    assert ledger_path(folder).stat().st_mtime_ns == before.st_mtime_ns


def test_a_ledger_that_cannot_be_read_is_a_storage_error(folder: Path) -> None:
    ledger_path(folder).mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be read"):
        replay(ledger_path(folder))
    with pytest.raises(StorageError, match="cannot be read"):
        list(read_ledger(ledger_path(folder)))


# What the records say of a job


@pytest.mark.parametrize(
    ("records", "phase"),
    [
        ([submitting()], Phase.SUBMITTING),
        ([submitting(), refused()], Phase.REFUSED),
        ([submitting(), submitted()], Phase.IN_FLIGHT),
        ([submitting(), unknown()], Phase.UNKNOWN),
        ([submitting(), unknown(), resubmit()], Phase.RELEASED),
        ([submitting(), unknown(), attached()], Phase.IN_FLIGHT),
        ([submitting(), unknown(), abandoned()], Phase.CANCELLED),
        ([submitting(), submitted(), succeeded()], Phase.SUCCEEDED),
        ([submitting(), submitted(), failed()], Phase.FAILED),
        ([submitting(), submitted(), cancelled()], Phase.CANCELLED),
        ([submitting(), submitted(), succeeded(), saved()], Phase.DONE),
        ([submitting(), submitted(), succeeded(), saved(), succeeded()], Phase.SUCCEEDED),
        ([saved(reused_from="b")], Phase.DONE),
        ([attached()], Phase.IN_FLIGHT),
    ],
)
def test_a_job_is_as_far_as_its_last_record_says(records: list[Record], phase: Phase) -> None:
    assert phase_after(*records) is phase


@pytest.mark.parametrize("phase", Phase)
def test_a_post_whose_outcome_is_open_may_have_been_bought(phase: Phase) -> None:
    is_open = phase in (Phase.SUBMITTING, Phase.UNKNOWN, Phase.IN_FLIGHT)
    assert JobState("a", "f", phase=phase).may_have_been_bought is is_open


def test_what_is_known_of_a_job_is_what_its_records_hold() -> None:
    state = state_of(submitting(), submitted())
    job = state.job("fingerprint of a")
    assert job is not None
    assert (job.key, job.path, job.model, job.request_id) == ("a", "a", "m", "r1")
    state.apply(failed())
    assert (job.reason, job.message) == ("f", "m")
    state.apply(submitting())
    assert (job.reason, job.message, job.request_id) == (None, None, None)
    state.apply(refused(again=False))
    assert (job.reason, job.again) == ("rate limited", False)
    state.apply(attached())
    assert job.request_id == "r9"
    state.apply(saved())
    assert (job.files, job.reason) == ((FILE,), None)
    assert state.job("another") is None


def test_a_key_stands_for_what_was_last_asked_for_under_it() -> None:
    late: dict[str, Any] = {"at": NOW, "job": "key"}
    state = State()

    def ask(fingerprint: str) -> None:
        state.apply(
            Submitting(**late, fingerprint=fingerprint, model="m", input={}, path="a", attempt=1)
        )

    ask("first")
    ask("second")
    state.apply(Saved(**late, fingerprint="first", files=[FILE]))
    assert state.last_fingerprint("key") == "second", "a late result does not move it back"
    state.apply(Saved(**late, fingerprint="first", files=[FILE], reused_from="key"))
    assert state.last_fingerprint("key") == "first", "a reverted prompt does"
    assert state.last_fingerprint("other") is None


def test_the_last_run_is_known_by_its_start_and_its_end() -> None:
    started = RunStarted(
        at=NOW, run="r", pid=1, host="h", program="p", manifest_sha256="s", jobs=1, plan={}
    )
    finished = RunFinished(
        at=NOW,
        run="r",
        submitted=1,
        saved=1,
        failed=0,
        unknown=0,
        cost_usd=Decimal(0),
        elapsed_s=1,
    )
    state = state_of(HEADER, started, finished)
    assert (state.run_started, state.run_finished) == (started, finished)
    state.apply(started)
    assert state.run_finished is None


# Money


@pytest.mark.parametrize(
    ("records", "reserved", "spent"),
    [
        ([submitting()], "0.08", "0"),
        ([submitting(reserved_usd=None)], "0", "0"),
        ([submitting(), submitted()], "0.08", "0"),
        ([submitting(), refused()], "0", "0"),
        ([submitting(), refused(), submitting()], "0.08", "0"),
        ([submitting(), unknown()], "0.08", "0"),
        ([submitting(), unknown(), resubmit()], "0", "0.08"),
        ([submitting(), unknown(), submitting()], "0.08", "0.08"),
        ([submitting(), unknown(), resubmit(), submitting()], "0.08", "0.08"),
        ([submitting(), unknown(), submitting(), succeeded(cost_usd=Decimal(1))], "0", "1.08"),
        ([submitting(), unknown(), submitting(), cancelled()], "0", "0.08"),
        ([submitting(), succeeded(), resubmit(), submitting(), cancelled()], "0", "0.08"),
        ([submitting(), unknown(), abandoned()], "0", "0.08"),
        ([submitting(), unknown(), attached()], "0.08", "0"),
        ([submitting(), unknown(), attached(), succeeded(cost_usd=Decimal("0.05"))], "0", "0.05"),
        ([submitting(), unknown(), abandoned(), attached()], "0", "0.08"),
        (
            [submitting(), unknown(), abandoned(), attached(), succeeded(cost_usd=Decimal(1))],
            "0",
            "1",
        ),
        ([submitting(), submitting()], "0.08", "0.08"),
        ([submitting(), submitted(), succeeded()], "0", "0.08"),
        ([submitting(), submitted(), succeeded(cost_usd=Decimal("0.05"))], "0", "0.05"),
        ([submitting(), submitted(), succeeded(cost_usd=Decimal(0))], "0", "0"),
        ([submitting(reserved_usd=None), submitted(), succeeded()], "0", "0"),
        ([submitting(), submitted(), failed(cost_usd=Decimal(0))], "0", "0"),
        ([submitting(), submitted(), failed()], "0", "0.08"),
        ([submitting(), submitted(), cancelled()], "0", "0"),
        ([submitting(), submitted(), cancelled(cost_usd=Decimal("0.02"))], "0", "0.02"),
        ([submitting(), submitted(), succeeded(), saved()], "0", "0.08"),
        ([submitting(), submitted(), saved()], "0", "0.08"),
        ([saved(reused_from="b")], "0", "0"),
    ],
)
def test_money_is_reserved_until_a_better_figure_replaces_it(
    records: list[Record], reserved: str, spent: str
) -> None:
    state = state_of(*records)
    assert (state.reserved_usd, state.spent_usd) == (Decimal(reserved), Decimal(spent))


def test_a_result_that_is_read_twice_counts_once_and_the_last_figure_holds() -> None:
    state = state_of(submitting(), submitted(), succeeded(cost_usd=Decimal("0.05")))
    for _ in range(3):
        state.apply(succeeded(cost_usd=Decimal("0.05")))
        assert state.spent_usd == Decimal("0.05")
    state.apply(saved())
    state.apply(succeeded())
    assert state.spent_usd == Decimal("0.05"), "no figure is no better figure"
    state.apply(succeeded(cost_usd=Decimal("0.06")))
    assert state.spent_usd == Decimal("0.06")
    state.apply(failed())
    assert state.spent_usd == Decimal("0.06"), "what was paid for and is gone stays paid for"


COSTS = st.none() | st.decimals(0, 10, places=3)
NAMES = st.sampled_from(["a", "b", "c"])
SEQUENCES = st.lists(
    st.one_of(
        st.builds(submitting, NAMES, COSTS),
        st.builds(submitted, NAMES, st.sampled_from(["r1", "r2"])),
        st.builds(unknown, NAMES),
        st.builds(refused, NAMES, again=st.booleans()),
        st.builds(succeeded, NAMES, COSTS),
        st.builds(failed, NAMES, COSTS),
        st.builds(cancelled, NAMES, COSTS),
        st.builds(saved, NAMES, st.sampled_from([None, "b"])),
        st.builds(resubmit, NAMES),
        st.builds(attached, NAMES),
        st.builds(abandoned, NAMES),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(SEQUENCES, st.integers(0, 30))
def test_replaying_a_file_gives_the_state_that_was_live_whatever_was_written(
    records: list[Record], reopened_after: int
) -> None:
    with TemporaryDirectory() as name:
        ledger = Ledger.open(Path(name), HEADER)
        for number, record in enumerate(records):
            try:
                ledger.append(record)
            except ValueError:
                assert record.fingerprint not in ledger.state.jobs  # type: ignore[union-attr]
            assert ledger.state.reserved_usd >= 0
            assert ledger.state.spent_usd >= 0
            jobs = list(ledger.state.jobs.each())
            assert ledger.state.reserved_usd == sum(job.reserved_usd or 0 for job in jobs)
            if number == reopened_after:
                ledger.close()
                ledger = Ledger.open(Path(name), HEADER)
        live = known(ledger.state)
        assert known(replay(ledger.path).state) == live
        ledger.close()
        again = Ledger.open(Path(name), HEADER)
        assert known(again.state) == live
        again.close()
