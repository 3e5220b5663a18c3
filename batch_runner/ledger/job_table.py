"""What is known of every job; finished jobs are rows of a private SQLite table in memory.

Hides where a job is kept: a million finished jobs take a gigabyte as Python objects, a third of
that as rows. What always holds: callers see plain JobStates, equal to those that were put away; if
several finished jobs had the same key, the key stands for the last. Only `take` gives an object
whose changes are kept: for a finished job, `get`, `[]` and the iterators give a copy.
Not promised: any order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from batch_runner.ledger.job import JobState, Phase
from batch_runner.records import SavedFile
from batch_runner.table.distinct import Distinct

_TABLE = "CREATE TABLE done (fingerprint, key, is_named, job)"
# `is_named`: the key stands for this row's job. The indexes are made at the first look-up: by then
# a replay has filled the table, and sorting everything at once is faster.
_INDEXES = (
    "CREATE INDEX by_fingerprint ON done (fingerprint)",
    "CREATE INDEX by_name ON done (key) WHERE is_named",
)
_LAST_NAMED = "SELECT fingerprint FROM done WHERE is_named AND key = ? ORDER BY rowid DESC LIMIT 1"
_ROWS_AT_ONCE = 10_000
_DONE = Phase.DONE  # looking up an enumeration's attributes is slow

_encode = msgspec.msgpack.Encoder(decimal_format="string").encode
_decode = msgspec.msgpack.Decoder().decode


class Jobs:
    """Every job of a ledger by its fingerprint, and the job that each key stands for."""

    def __init__(self) -> None:
        self.open: dict[str, JobState] = {}
        self.names: dict[str, str] = {}  # the fingerprint of a key, unless a row has it
        self.finished = 0
        # Nothing is ever committed or rolled back: the table lives and dies with this object.
        self._table = sqlite3.connect(":memory:", check_same_thread=False)
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute(_TABLE)
        self._is_indexed = False
        self._rows: list[tuple[str | bytes, str, bool, bytes]] = []  # not in the table yet
        self._ever_finished = Distinct()

    def __len__(self) -> int:
        return len(self.open) + self.finished

    def __contains__(self, fingerprint: str) -> bool:
        return self.get(fingerprint) is not None

    def is_finished(self, fingerprint: str) -> bool:
        """Return whether a job is put away as done, without reading it."""
        return fingerprint not in self.open and fingerprint in self._ever_finished

    def __getitem__(self, fingerprint: str) -> JobState:
        job = self.get(fingerprint)
        if job is None:
            raise KeyError(fingerprint)
        return job

    def get(self, fingerprint: str) -> JobState | None:
        """Return what is known of a fingerprint, or None."""
        job = self.open.get(fingerprint)
        if job is None and self.finished and fingerprint in self._ever_finished:
            row = self._look("SELECT key, job FROM done WHERE fingerprint = ?", _blob(fingerprint))
            return None if row is None else _unpacked(fingerprint, *row)
        return job

    def each(self) -> Iterator[JobState]:
        """Yield every job; the ledger must not change meanwhile."""
        yield from self.open.values()
        self._write_rows()
        for fingerprint, *rest in self._table.execute("SELECT fingerprint, key, job FROM done"):
            yield _unpacked(_text(fingerprint), *rest)

    def finished_files(self) -> Iterator[list[SavedFile]]:
        """Yield the files of each finished job; the ledger must not change meanwhile."""
        self._write_rows()
        for (packed,) in self._table.execute("SELECT job FROM done"):
            yield _unpacked_files(_decode(packed)[_FILES])

    def last_fingerprint(self, key: str) -> str | None:
        """Return the fingerprint of the job that a key stands for, or None."""
        found = self.names.get(key)
        if found is None and self.finished:
            row = self._look(_LAST_NAMED, key)
            return None if row is None else _text(row[0])
        return found

    def take(self, fingerprint: str) -> JobState | None:
        """Return a job to be changed, or None; `put_away` puts it back once it is finished."""
        job = self.get(fingerprint)
        if job is None or fingerprint in self.open:
            return job
        if job.key not in self.names and self.last_fingerprint(job.key) == fingerprint:
            self.names[job.key] = fingerprint
        self._table.execute("DELETE FROM done WHERE fingerprint = ?", (_blob(fingerprint),))
        self.finished -= 1
        self.open[fingerprint] = job
        return job

    def put_away(self, job: JobState) -> None:
        """Turn an open job into a row, if it is finished."""
        if (
            job.phase is not _DONE
            or job.reserved_usd is not None
            or job.reason is not None
            or job.message is not None
        ):
            return
        fingerprint, key = job.fingerprint, job.key
        packed = _packed(job)
        is_named = self.names.get(key) == fingerprint
        self._rows.append((_blob(fingerprint), key, is_named, packed))
        self._ever_finished.add(fingerprint)
        self.finished += 1
        del self.open[fingerprint]
        if is_named:
            del self.names[key]
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._write_rows()

    def _look(self, query: str, value: str | bytes) -> tuple[Any, ...] | None:
        self._write_rows()
        if not self._is_indexed:
            for index in _INDEXES:
                self._table.execute(index)
            self._is_indexed = True
        row: tuple[Any, ...] | None = self._table.execute(query, (value,)).fetchone()
        return row

    def _write_rows(self) -> None:
        if self._rows:
            self._table.executemany("INSERT INTO done VALUES (?, ?, ?, ?)", self._rows)
            self._rows.clear()


# A finished job without its fingerprint and key; its other fields always have one value.
_FILES = -2


def _packed(job: JobState) -> bytes:
    head = (job.path, job.model, job.request_id, job.spent_usd, job.again, job.intent_offset_bytes)
    return _encode((*head, _packed_files(job.files), list(map(_packed_files, job.copies))))


def _unpacked(fingerprint: str, key: str, packed: bytes) -> JobState:
    path, model, request_id, spent_usd, again, intent_offset_bytes, files, copies = _decode(packed)
    return JobState(
        key,
        fingerprint,
        phase=_DONE,
        path=path,
        model=model,
        request_id=request_id,
        spent_usd=Decimal(spent_usd),
        again=again,
        intent_offset_bytes=intent_offset_bytes,
        files=tuple(_unpacked_files(files)),
        copies=tuple([tuple(_unpacked_files(one)) for one in copies]),
    )


def _packed_files(files: Iterable[SavedFile]) -> list[tuple[str, int, str | bytes, str]]:
    return [(one.path, one.size_bytes, _blob(one.sha256), one.media_type) for one in files]


def _unpacked_files(files: Iterable[tuple[str, int, str | bytes, str]]) -> list[SavedFile]:
    return [
        SavedFile(path=path, size_bytes=size_bytes, sha256=_text(sha256), media_type=media_type)
        for path, size_bytes, sha256, media_type in files
    ]


def _blob(digest: str) -> str | bytes:
    """Return a digest as bytes, which is half as long; any other text stays as it is."""
    try:
        blob = bytes.fromhex(digest)
    except ValueError:
        return digest
    return blob if blob.hex() == digest else digest


def _text(blob: str | bytes) -> str:
    return blob if isinstance(blob, str) else blob.hex()
