"""How a batch is split into shards, and what keeps two splits apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.errors import LedgerDamagedError, LedgerLockedError, ManifestError, UsageError
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import ledger_path
from batch_runner.manifest.loading import load_manifest
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.planning import survey_jobs
from batch_runner.shards.shard import (
    Shard,
    beginning,
    check_split,
    index_of,
    ledger_dirs,
    split_into,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LOOPBACK = "http://127.0.0.1:1"

Write = Callable[[str], Path]

fingerprints = st.integers(0, 2**64).map(lambda n: hashlib.sha256(b"%d" % n).hexdigest())


def batch(path: Path, shard: Shard | None = None) -> Batch:
    return Batch(load_manifest(path), RunOptions(api_base=LOOPBACK, token="t", shard=shard))


def begin(path: Path, shard: Shard | None) -> Path:
    with batch(path, shard).ledgers.opened(NOW) as ledger:
        return ledger.path


@given(fingerprints, st.integers(1, 10_000))
def test_every_fingerprint_belongs_to_exactly_one_shard(fingerprint: str, count: int) -> None:
    assert 0 <= index_of(fingerprint, count) < count
    if count < 50:
        assert [Shard(i, count).holds(fingerprint) for i in range(count)].count(True) == 1


def test_the_parts_of_many_fingerprints_are_about_equal() -> None:
    parts = [0] * 8
    for number in range(8_000):
        parts[index_of(hashlib.sha256(b"%d" % number).hexdigest(), 8)] += 1
    assert 900 < min(parts) <= max(parts) < 1_100


@given(rows=st.lists(st.integers(0, 99), min_size=2, max_size=20, unique=True), at=st.integers(0))
def test_inserting_a_row_moves_no_job_to_another_shard(
    rows: list[int], at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    new, folder = rows.pop(), tmp_path_factory.mktemp("rows")

    def dealt(rows: list[int]) -> dict[str, set[str]]:
        lines = "\n".join(f"  p{n}: https://cdn.example.com/{n}.png" for n in rows)
        path = folder / "batch.yaml"
        head = "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {a: white}\nimages:\n"
        path.write_text(head + lines)
        parts = [batch(path, Shard(index, 3)) for index in range(3)]
        return {str(part.options.shard): {job.key for job in part.jobs()} for part in parts}

    before = dealt(rows)
    place = at % (len(rows) + 1)
    after = dealt([*rows[:place], new, *rows[place:]])
    assert sorted(key for keys in before.values() for key in keys) == sorted(
        f"p{n}/a" for n in rows
    )
    assert {name: keys - {f"p{new}/a"} for name, keys in after.items()} == before


def test_jobs_that_are_the_same_are_in_the_same_shard(write_manifest: Write) -> None:
    path = write_manifest(
        "prompts: {a: white, b: white}\nimages: {p: https://x.example.com/p.png}\n"
    )
    keys = [[job.key for job in batch(path, Shard(index, 2)).jobs()] for index in range(2)]
    assert sorted(keys) == [[], ["p/a", "p/b"]]


def test_paths_are_unique_in_the_whole_manifest_not_only_in_a_shard(write_manifest: Write) -> None:
    path = write_manifest(
        "prompts: {a: white, b: blue}\nimages: {p: https://x.example.com/p.png}\n"
        'output: {path: "{{ image }}"}\n'
    )
    for index in range(2):
        with pytest.raises(ManifestError, match="p/a"):
            list(batch(path, Shard(index, 2)).jobs())


def test_a_shard_without_jobs_is_a_batch_without_anything_to_do(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\nimages: {p: https://x.example.com/p.png}\n")
    surveys = [
        survey_jobs(one, one.replay())
        for one in (batch(path, Shard(index, 4)) for index in range(4))
    ]
    assert sorted(survey.standings.jobs for survey in surveys) == [0, 0, 0, 1]
    only = Batch(
        load_manifest(path),
        RunOptions(api_base=LOOPBACK, shard=Shard(0, 4), only=("nothing*",)),
    )
    with pytest.raises(UsageError, match="no job's key matches"):
        survey_jobs(only, only.replay())


def test_a_batch_is_run_one_way_only(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\noutput: {dir: out}\n")
    out = path.parent / "out"
    assert begin(path, Shard(1, 4)) == out / "shards" / "1-of-4" / "ledger.jsonl"
    assert split_into(out) == 4
    with pytest.raises(UsageError, match="is in 4 shards, not in one ledger"):
        begin(path, None)
    with pytest.raises(UsageError, match="in 4 shards, not in 8 shards"):
        begin(path, Shard(1, 8))
    assert ledger_dirs(out) == [out / "shards" / f"{index}-of-4" for index in range(4)]
    assert not ledger_path(out).exists()
    begin(path, Shard(1, 4))
    begin(path, Shard(0, 4))


def test_a_batch_that_was_run_whole_is_not_run_in_shards(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\noutput: {dir: out}\n")
    begin(path, None)
    with pytest.raises(UsageError, match="is in one ledger, not in 2 shards") as caught:
        begin(path, Shard(0, 2))
    assert caught.value.hint is not None
    assert "run it without --shard" in caught.value.hint
    assert not (path.parent / "out" / "shards").exists()


def test_ledgers_that_are_dealt_in_two_ways_are_refused_by_all(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\noutput: {dir: out}\n")
    begin(path, Shard(0, 2))
    ledger_path(path.parent / "out").write_bytes(b"")
    with pytest.raises(UsageError, match="more than one way: 2 shards, one ledger"):
        batch(path).replay()
    with pytest.raises(UsageError, match="more than one way"):
        begin(path, Shard(0, 2))


def test_a_whole_run_and_shards_exclude_each_other_while_they_run(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\noutput: {dir: out}\n")
    out = path.parent / "out"
    with batch(path, Shard(0, 2)).ledgers.opened(NOW):
        with batch(path, Shard(1, 2)).ledgers.opened(NOW):
            assert batch(path).ledgers.running()
        with pytest.raises(LedgerLockedError), batch(path, Shard(0, 2)).ledgers.opened(NOW):
            pass
        with pytest.raises(LedgerLockedError), hold(out):
            pass
    assert not batch(path).ledgers.running()
    with hold(out), pytest.raises(LedgerLockedError), batch(path, Shard(0, 2)).ledgers.opened(NOW):
        pass


def test_a_shard_begins_only_after_it_saw_that_nobody_began_another_dealing(tmp_path: Path) -> None:
    with beginning(tmp_path, Shard(0, 2)):
        folder = Shard(0, 2).ledger_dir(tmp_path)
        folder.mkdir()
        ledger_path(folder).write_bytes(b"")
    with pytest.raises(UsageError, match="2 shards, not in 3"), beginning(tmp_path, Shard(0, 3)):
        pass
    check_split(tmp_path, Shard(1, 2))


def test_a_ledger_in_another_shards_place_is_refused(write_manifest: Write) -> None:
    path = write_manifest("prompts: {a: white}\noutput: {dir: out}\n")
    begin(path, Shard(0, 2)).parent.rename(path.parent / "out" / "shards" / "1-of-2")
    with pytest.raises(LedgerDamagedError, match="the ledger of shard 0/2, in the wrong folder"):
        batch(path).replay()
    with pytest.raises(LedgerDamagedError, match="in the wrong folder"):
        begin(path, Shard(1, 2))
