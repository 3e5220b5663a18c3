"""Small files saved in one go: each fails alone, and none takes another's name."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from batch_runner.errors import StorageError
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import Whole
from batch_runner.records import SavedFile


def whole(path: str, size_bytes: int = 10_000) -> Whole:
    return Whole(path, "image/jpeg", path.encode() * (size_bytes // len(path) + 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def storage(folder: Path) -> FolderStorage:
    storage = FolderStorage(folder)
    storage.prepare()
    return storage


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def open_descriptors() -> int:
    """Count them where the system tells."""
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.is_dir() else 0


@pytest.mark.parametrize("size_bytes", [1, 4095, 4096, 4097, 200_000, 2_000_000])
def test_each_file_of_a_group_stands_whole_under_its_name(
    storage: FolderStorage, folder: Path, size_bytes: int
) -> None:
    files = [whole(path, size_bytes) for path in ("a.jpg", "b/c.jpg", "b/d.jpg", "e/f/g.jpg")]
    results = storage.save_whole(files)
    assert results == [file.described() for file in files]
    for file in files:
        assert (folder / file.path).read_bytes() == file.body
    assert names_in(folder) == ["a.jpg", "b/c.jpg", "b/d.jpg", "e/f/g.jpg"]


def test_a_file_that_cannot_be_had_fails_alone_and_leaves_nothing(
    storage: FolderStorage, folder: Path
) -> None:
    (folder / "b").write_bytes(b"a file where a folder should be")
    (folder / "taken.jpg").mkdir()
    paths = ["a.jpg", "b/c.jpg", "n" * 300 + ".jpg", "taken.jpg", "d.jpg"]
    results = storage.save_whole([whole(path) for path in paths])
    saved = [isinstance(result, SavedFile) for result in results]
    assert saved == [True, False, False, False, True]
    assert names_in(folder) == ["a.jpg", "b", "d.jpg"]


@pytest.mark.parametrize("step", ["os.write", "batch_runner.files.disk.sync_data", "os.replace"])
def test_a_step_that_fails_for_one_file_leaves_it_unsaved_and_no_descriptor_open(
    storage: FolderStorage, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def failing_second(real: Callable[..., object]) -> Callable[..., object]:
        calls = 0

        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise OSError(5, "Input/output error")
            return real(*arguments)

        return call

    before = open_descriptors()
    monkeypatch.setattr(step, failing_second(pkgutil.resolve_name(step)))
    results = storage.save_whole([whole("a.jpg"), whole("b.jpg"), whole("c.jpg")])
    monkeypatch.undo()
    assert isinstance(results[1], OSError)
    assert isinstance(results[0], SavedFile)
    assert isinstance(results[2], SavedFile)
    assert names_in(folder) == ["a.jpg", "c.jpg"]
    assert open_descriptors() == before


def test_no_file_of_a_folder_counts_as_saved_where_the_folder_cannot_be_synced(
    storage: FolderStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    real = os.fsync

    def failing_in_sub(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), (folder / "sub").stat()):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing_in_sub)
    results = storage.save_whole([whole("sub/a.jpg"), whole("b.jpg"), whole("sub/c.jpg")])
    assert [isinstance(result, SavedFile) for result in results] == [False, True, False]


def test_what_a_crash_left_is_replaced_and_never_written_into(
    storage: FolderStorage, folder: Path
) -> None:
    (folder / "kept.jpg").write_bytes(b"paid for")
    os.link(folder / "kept.jpg", folder / ".a.jpg.part")
    (saved,) = storage.save_whole([whole("a.jpg")])
    assert saved == whole("a.jpg").described()
    assert (folder / "kept.jpg").read_bytes() == b"paid for"
    assert names_in(folder) == ["a.jpg", "kept.jpg"]


def test_a_file_with_other_content_is_moved_aside(storage: FolderStorage, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"somebody's own")
    (saved,) = storage.save_whole([whole("a.jpg")])
    assert isinstance(saved, SavedFile)
    assert (folder / "a.jpg").read_bytes() == whole("a.jpg").body
    (aside,) = [folder / name for name in names_in(folder) if name != "a.jpg"]
    assert aside.read_bytes() == b"somebody's own"
    assert sha256(b"somebody's own").hexdigest()[:8] in aside.name


def test_a_folder_that_was_removed_under_the_run_is_not_made_anew(
    storage: FolderStorage, folder: Path
) -> None:
    folder.rmdir()
    (result,) = storage.save_whole([whole("a.jpg")])
    assert isinstance(result, StorageError)
    assert not folder.exists()


@pytest.mark.parametrize("link", ["../own.jpg", "nowhere.jpg", "..", "/none/own.jpg"])
def test_a_link_in_the_way_is_moved_aside_and_what_it_leads_to_stays(
    storage: FolderStorage, folder: Path, link: str
) -> None:
    (folder / "c").mkdir()
    (folder / "own.jpg").write_bytes(b"somebody's own")
    placed = folder / "c/d.jpg"
    placed.symlink_to(link)
    file = whole("c/d.jpg")
    (saved,) = storage.save_whole([file])
    assert (folder / "own.jpg").read_bytes() == b"somebody's own"
    assert saved == file.described()
    assert placed.read_bytes() == file.body
    (kept,) = (folder / "superseded/c").iterdir()
    assert str(kept.readlink()) == link


def test_a_folder_whose_links_go_round_in_a_circle_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("out")
    assert str(FolderStorage(tmp_path / "out")) == str(tmp_path / "out")
