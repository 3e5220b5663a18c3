"""A ledger read as it grows: complete lines once each, and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch_runner.errors import LedgerDamagedError, StorageError
from batch_runner.ledger.drain import ask_to_drain, forget_request, is_asked_to_drain
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.tail import Replaced, Tail
from batch_runner.records import LedgerHeader, Record, Resolved, encode

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def header(second: int = 0) -> LedgerHeader:
    at = NOW.replace(second=second)
    return LedgerHeader(version=1, at=at, program="batch_runner 1", service="local")


def record(name: str) -> Resolved:
    return Resolved(at=NOW, job=name, fingerprint=f"fingerprint of {name}", how="abandoned")


def append(path: Path, *records: Record) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(encode, records)))


def keys(tail: Tail) -> list[str]:
    return [getattr(line.record, "job", "header") for line in tail.read()]


def test_each_complete_line_is_given_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    tail = Tail(path)
    assert keys(tail) == []
    append(path, header(), record("a"))
    assert keys(tail) == ["header", "a"]
    assert keys(tail) == []
    append(path, record("b"), record("c"))
    assert keys(tail) == ["b", "c"]


def test_numbers_and_offsets_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, header(), record("a"))
    tail = Tail(path)
    first = list(tail.read())
    append(path, record("b"))
    lines = [*first, *tail.read()]
    assert [line.number for line in lines] == [1, 2, 3]
    content = path.read_bytes()
    for line in lines:
        assert content[line.offset_bytes :].startswith(encode(line.record))


def test_half_a_line_is_left_until_it_is_whole_or_cut_off_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, header())
    tail = Tail(path)
    assert keys(tail) == ["header"]
    line = encode(record("a"))
    with path.open("ab") as file:
        file.write(line[:30])
    assert keys(tail) == []
    os.truncate(path, len(encode(header())))  # as the next run repairs it
    append(path, record("b"))
    assert keys(tail) == ["b"]


def test_a_reader_who_stops_in_the_middle_goes_on_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, header(), record("a"), record("b"))
    tail = Tail(path)
    reading = tail.read()
    next(reading)
    next(reading)
    del reading
    assert keys(tail) == ["b"]


@pytest.mark.parametrize("how", ["removed", "shorter", "another header"])
def test_a_ledger_that_is_another_one_is_told(tmp_path: Path, how: str) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, header(), record("a"))
    tail = Tail(path)
    assert len(keys(tail)) == 2
    match how:
        case "removed":
            path.unlink()
        case "shorter":
            os.truncate(path, len(encode(header())))
        case _:
            path.write_bytes(encode(header(1)) + encode(record("a")) + encode(record("b")))
    with pytest.raises(Replaced):
        list(tail.read())


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, header(), record("a"))
    tail = Tail(path)
    assert len(keys(tail)) == 2
    with path.open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(LedgerDamagedError, match=r"ledger\.jsonl:3: "):
        list(tail.read())


def test_reading_takes_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, header())
    try:
        ledger.append(record("a"))
        before = sorted(path.name for path in tmp_path.iterdir())
        assert keys(Tail(ledger.path)) == ["header", "a"]
        ledger.append(record("b"))
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    finally:
        ledger.close()


def test_a_request_to_drain_is_for_one_run_and_goes_with_it(tmp_path: Path) -> None:
    ask_to_drain(tmp_path, "4f1")
    ask_to_drain(tmp_path, "4f1")
    assert is_asked_to_drain(tmp_path, "4f1")
    assert not is_asked_to_drain(tmp_path, "4f2")
    forget_request(tmp_path, "4f2")
    forget_request(tmp_path, "4f1")
    assert not list(tmp_path.iterdir())


def test_a_request_that_cannot_be_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        ask_to_drain(tmp_path / "nowhere", "4f1")
    (tmp_path / "run").mkdir()
    ask_to_drain(tmp_path / "run", "../4f1")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]
