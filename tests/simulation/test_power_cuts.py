"""What simulated power cuts have found, each as a plain case on the simulated disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from simulation.disk import Crash, Disk, Operation
from simulation.service import picture

from batch_runner.files.disk import make_folder
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import Whole
from batch_runner.ledger.verdict import Reviewed, Word
from batch_runner.ledger.verdict_book import Book

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PICTURE = picture("a mug")


def save_small(storage: FolderStorage) -> None:
    (saved,) = storage.save_whole([Whole("mugs/blue/white.png", "image/png", PICTURE)])
    assert not isinstance(saved, Exception)


def save_large(storage: FolderStorage) -> None:
    file = Whole("mugs/blue/white.png", "image/png", PICTURE)
    with storage.unfinished(file.path) as unfinished:
        Path(unfinished).write_bytes(PICTURE)
        storage.put_in_place(unfinished, file.described())


@pytest.mark.parametrize("save", [save_small, save_large])
@pytest.mark.parametrize("was_killed_after_making", [None, "mugs", "mugs/blue"])
def test_a_saved_picture_keeps_its_folders_in_a_power_cut(
    save: Callable[[FolderStorage], None], was_killed_after_making: str | None, tmp_path: Path
) -> None:
    disk = Disk(tmp_path)
    with disk.mount():
        if was_killed_after_making is not None:
            (tmp_path / was_killed_after_making).mkdir(parents=True)
        save(FolderStorage(tmp_path))
        states = disk.legal_states(1000)
        assert states.is_all
        assert all("mugs/blue/white.png" in state.tree for state in states.states)


def test_a_picture_that_is_moved_aside_keeps_its_folder_in_a_power_cut(tmp_path: Path) -> None:
    (tmp_path / "mugs" / "blue").mkdir(parents=True)
    (tmp_path / "mugs" / "blue" / "white.png").write_bytes(picture("an earlier mug"))
    disk = Disk(tmp_path)
    with disk.mount():
        save_small(FolderStorage(tmp_path))
        states = disk.legal_states(1000)
        assert states.is_all
        for state in states.states:
            assert picture("an earlier mug") in [content for _, content in state.tree.values()]


def keep_folder(root: Path) -> None:
    make_folder(root / "a" / "b")


def keep_verdict(root: Path) -> None:
    said = Reviewed(at=NOW, job="mug", fingerprint="f", sha256="s", word=Word.ACCEPTED)
    Book(root).append([said])


@pytest.mark.parametrize(
    ("keep", "path", "content"),
    [(keep_folder, "a/b", b""), (keep_verdict, "verdicts.jsonl", b'"mug"')],
)
def test_what_is_made_is_kept_even_if_whoever_began_it_was_killed(
    keep: Callable[[Path], None], path: str, content: bytes, tmp_path: Path
) -> None:
    for number in itertools.count(1):
        root = tmp_path / str(number)
        root.mkdir()
        disk = Disk(root)
        with disk.mount():
            disk.on_operation(at(Crash, nth_from_now(disk, number)))
            try:
                keep(root)
                break
            except Crash:
                disk.on_operation(None)
                disk.kill()
            keep(root)
            for state in disk.legal_states(100).states:
                assert content in (state.tree[path][1] or b""), (number, state.story)
    assert number > 2


def at(error: type[Crash], wanted: Callable[[Operation], bool]) -> Callable[[Operation], None]:
    """Return what raises an error at the first operation that is wanted."""

    def happen(operation: Operation) -> None:
        if wanted(operation):
            raise error

    return happen


def nth_from_now(disk: Disk, number: int) -> Callable[[Operation], bool]:
    last = disk.ordinal + number
    return lambda operation: operation.ordinal == last
