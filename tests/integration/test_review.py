"""Verdicts on the command line: taken over from files, counted, and exported."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fabricated import NOBODY, START, fabricate

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.ledger.verdict import Header, Reviewed, Word, encode
from batch_runner.ledger.verdict_book import Book
from batch_runner.run.batch import Batch

TEXT = """\
version: 1
model: google/nano-banana-2/edit
prompts: {white: white, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
output: {dir: out}
"""
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "batch.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def batch(path: Path) -> Batch:
    return fabricate(path)


def said(batch: Batch, key: str, word: Word, **changes: Any) -> Reviewed:
    job = next(job for job in batch.jobs() if job.key == key)
    known = batch.replay().job(job.fingerprint)
    assert known is not None
    values: dict[str, Any] = {
        "at": START,
        "job": key,
        "fingerprint": job.fingerprint,
        "sha256": known.files[0].sha256,
        "word": word,
    }
    return Reviewed(**{**values, **changes})


def save(path: Path, *verdicts: Reviewed) -> Path:
    lines = [encode(Header(version=1, at=START)), *map(encode, verdicts)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def run(path: Path, command: str, *words: str) -> int:
    return main([command, str(path), "--api-base", NOBODY, *words])


def words_of(batch: Batch) -> dict[str, tuple[str, str | None]]:
    people = Book(batch.ledgers.folder).verdicts().people.values()
    return {one.job: (one.word, one.by) for one in people}


def test_the_verdicts_of_two_files_are_joined_and_conflicts_are_named(
    path: Path, batch: Batch, tmp_path: Path, capsys: Captured
) -> None:
    Book(batch.ledgers.folder).append([said(batch, "lamp/sepia", Word.ACCEPTED, by="me")])
    first = save(
        tmp_path / "anna.jsonl",
        said(batch, "mug/white", Word.REJECTED, reason="cut off"),
        said(batch, "mug/white", Word.ACCEPTED),  # her last word
        said(batch, "mug/sepia", Word.ACCEPTED),
        said(batch, "lamp/sepia", Word.REJECTED, reason="colour"),
        said(batch, "lamp/white", Word.ACCEPTED, sha256="0" * 64),
    )
    second = save(
        tmp_path / "ben.jsonl",
        said(batch, "mug/sepia", Word.REDO, note="lighter", by="Ben"),
        said(batch, "lamp/white", Word.REDO, note="lighter", by="Ben"),
    )
    words = ("--import", str(first), "--import", str(second))
    assert run(path, "review", *words) == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "took over 2 verdicts\n" in err
    assert "left out 1 verdict about pictures that this batch does not have" in err
    assert "conflict: lamp/sepia: me accepted, anna rejected (colour)\n" in err
    assert "conflict: mug/sepia: anna accepted, Ben redo\n" in err
    assert "view " in err
    assert "accepted          2" in out
    assert words_of(batch) == {
        "lamp/sepia": ("accepted", "me"),
        "mug/white": ("accepted", "anna"),
        "lamp/white": ("redo", "Ben"),
    }
    # A redo is another job in the place of the first, and waits for the next run.
    redo = next(job for job in batch.jobs() if job.key == "lamp/white")
    assert redo.redo == 1
    assert "lighter" in str(redo.input)
    before = Book(batch.ledgers.folder).path.read_bytes()
    assert run(path, "review", *words) == ExitCode.SOME_FAILED
    assert "took over 0 verdicts" in capsys.readouterr().err
    assert Book(batch.ledgers.folder).path.read_bytes() == before


def test_pictures_are_judged_from_a_terminal_by_key_or_glob(
    path: Path, batch: Batch, capsys: Captured
) -> None:
    words = ("--accept", "mug/*", "--reject", "lamp/white", "--reason", "background")
    assert run(path, "review", *words) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "accepted 2 pictures\nrejected 1 picture\n" in err
    assert "background 1" in out
    assert {word for word, _ in words_of(batch).values()} == {Word.ACCEPTED, Word.REJECTED}
    assert len(words_of(batch)) == 3
    before = words_of(batch)
    assert run(path, "review", "--accept", "mug/whit") == ExitCode.USAGE
    assert "no saved picture belongs to 'mug/whit'\nhint: write keys" in capsys.readouterr().err
    assert words_of(batch) == before


def test_a_file_that_holds_no_verdicts_is_refused_with_its_line(
    path: Path, batch: Batch, tmp_path: Path, capsys: Captured
) -> None:
    file = save(tmp_path / "a.jsonl", said(batch, "mug/white", Word.ACCEPTED))
    file.write_bytes(file.read_bytes() + b"nonsense\n")
    assert run(path, "review", "--import", str(file)) == ExitCode.USAGE
    assert "a.jsonl:3: not a verdict" in capsys.readouterr().err
    assert run(path, "review", "--import", str(tmp_path / "b.jsonl")) == ExitCode.NO_INPUT
    assert words_of(batch) == {}


def test_status_counts_verdicts_once_there_are_some(
    path: Path, batch: Batch, capsys: Captured
) -> None:
    assert run(path, "status", "--json") == ExitCode.DONE
    assert "accepted" not in capsys.readouterr().out
    Book(batch.ledgers.folder).append(
        [
            said(batch, "mug/white", Word.ACCEPTED),
            said(batch, "mug/sepia", Word.REJECTED, reason="colour"),
        ]
    )
    assert run(path, "status", "--json") == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["accepted"], found["rejected"], found["waiting"]) == (1, 1, 2)
    assert found["usd_per_accepted"] == "0.2000"
    assert run(path, "status") == ExitCode.DONE
    assert "rejected          1   colour 1" in capsys.readouterr().out


def test_export_shows_verdicts_and_can_leave_out_what_is_not_accepted(
    path: Path, batch: Batch, capsys: Captured
) -> None:
    Book(batch.ledgers.folder).append(
        [
            said(batch, "mug/white", Word.ACCEPTED, by="anna"),
            said(batch, "mug/sepia", Word.REJECTED, reason="colour", note="too red"),
        ]
    )
    columns = ("job", "verdict", "verdict_reason", "verdict_note", "verdict_by")

    def exported(*words: str) -> list[tuple[str, ...]]:
        assert run(path, "export", *words) == ExitCode.DONE
        rows = csv.DictReader(capsys.readouterr().out.splitlines())
        return [tuple(row[name] for name in columns) for row in rows]

    assert exported() == [
        ("mug/white", "accepted", "", "", "anna"),
        ("mug/sepia", "rejected", "colour", "too red", ""),
        ("lamp/white", "", "", "", ""),
        ("lamp/sepia", "", "", "", ""),
    ]
    assert exported("--accepted") == [("mug/white", "accepted", "", "", "anna")]


def test_lines_that_a_power_cut_replaced_by_zeros_are_passed_over(batch: Batch) -> None:
    book = Book(batch.ledgers.folder)
    book.append([said(batch, f"mug/{name}", Word.REJECTED) for name in ("white", "sepia")])
    lines = book.path.read_bytes().splitlines(keepends=True)
    # A page is lost, and the next one is there, with the end of a line and whole lines.
    lost = bytes(len(lines[0]) + 9) + lines[1][9:]
    book.path.write_bytes(lost + lines[2])
    assert [one.job for one, _ in book.read() if isinstance(one, Reviewed)] == ["mug/sepia"]
    book.append([said(batch, "lamp/white", Word.ACCEPTED)])
    words = [one.job for one, _ in book.read() if isinstance(one, Reviewed)]
    assert words == ["mug/sepia", "lamp/white"]
