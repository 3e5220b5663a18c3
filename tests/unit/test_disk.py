"""What a disk can do and cannot: replaced files, syncs, locks, folders tried beforehand."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_runner.errors import LedgerLockedError, StorageError
from batch_runner.files import disk
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.ledger.lock import hold, owner_of
from batch_runner.text.path import ADDED_BYTES, Destinations

UNSUPPORTED = [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY]
FAILING = [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE]


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("number", UNSUPPORTED)
def test_a_file_system_that_cannot_sync_is_no_failure(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert disk.sync_file(file)
    assert disk.sync_folder(file.parent)
    assert disk.try_folder(file.parent)
    monkeypatch.setattr(os, "fdatasync", raising(number))
    monkeypatch.setattr(os, "fsync", raising(number))
    assert not disk.sync_file(file)
    assert not disk.sync_folder(file.parent)
    assert not disk.try_folder(file.parent)


@pytest.mark.parametrize("number", FAILING)
def test_a_disk_that_fails_to_sync_is_an_error(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fdatasync", raising(number))
    monkeypatch.setattr(os, "fsync", raising(number))
    for sync in (disk.sync_file, disk.sync_folder):
        with pytest.raises(OSError, match=os.strerror(number)):
            sync(file)
    with pytest.raises(OSError, match=os.strerror(number)):
        disk.try_folder(file.parent)
    assert list(file.parent.iterdir()) == [file]


def test_macos_flushes_the_drive_too_where_it_can(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append(-1))
    assert disk.sync_file(file)
    assert asked == [51]
    # A share of another machine has no such command, and is synced as well as it can be.
    monkeypatch.setattr(fcntl, "fcntl", raising(errno.ENOTSUP))
    assert disk.sync_file(file)
    assert asked == [51, -1]


@pytest.mark.parametrize("stem", ["a", "x" * 220, "ü" * 100, "マグ" * 30])
def test_trying_a_folder_takes_a_name_as_long_as_the_longest_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    names: list[str] = []
    replace = Path.replace

    def note(part: Path, target: Path) -> Path:
        names.extend((part.name, target.name))
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", note)
    assert disk.try_folder(tmp_path, stem)
    assert [len(name.encode()) for name in names] == [len(stem.encode()) + ADDED_BYTES] * 2
    assert all(name.startswith(f".{stem}") for name in names)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_while_a_folder_was_tried_is_removed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for step in ("replace", "unlink"):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Path, step, kill)
            patched.setattr(Path, "unlink", kill)
            disk.try_folder(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        assert disk.try_folder(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_such_name_is_an_error_and_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        disk.try_folder(tmp_path, "x" * 240)
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        disk.try_folder(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk.replacing(file, durable=True) as new:
        new.write(b"new")
        new.flush()
        assert file.read_bytes() == b"content"
    assert file.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), disk.replacing(file) as new:
        new.write(b"half")
        raise ZeroDivisionError
    monkeypatch.setattr(disk, "sync_data", raising(errno.EIO))
    with pytest.raises(StorageError), disk.replacing(file, durable=True) as new:
        new.write(b"never on the disk")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("number", [*UNSUPPORTED, errno.ENOLCK])
def test_a_file_system_without_locks_names_output_ledger_and_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with hold(tmp_path):
        pass
    monkeypatch.setattr(fcntl, "flock", raising(number))
    assert owner_of(tmp_path) is None
    with pytest.raises(StorageError, match=r"\.ledger\.lock: .*cannot lock") as caught:
        hold(tmp_path).__enter__()
    assert "output.ledger" in (caught.value.hint or "")
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(StorageError) as caught:
        hold(tmp_path).__enter__()
    assert "output.ledger" not in (caught.value.hint or "")
    monkeypatch.setattr(fcntl, "flock", raising(errno.EAGAIN))
    with pytest.raises(LedgerLockedError):
        hold(tmp_path).__enter__()


# Folders that refuse, before anything is bought


def test_each_folder_that_exists_is_tried_with_its_longest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[str, int] = {}
    syncs: list[bool] = []
    try_folder = disk.try_folder

    def note(folder: Path, stem: str, *, sync: bool) -> bool:
        tried[str(folder.relative_to(tmp_path))] = len(stem.encode())
        syncs.append(sync)
        return try_folder(folder, stem, sync=sync)

    monkeypatch.setattr(disk, "try_folder", note)
    (tmp_path / "out" / "a" / "b").mkdir(parents=True)
    (tmp_path / "out" / "superseded").mkdir()
    stems = ["name", "a/" + "n" * 30, "a/b/c/short", f"new/{'ü' * 40}"]
    FolderStorage(tmp_path / "out").prepare(stems)
    assert tried == {
        "out": 80,
        "out/a": 30,
        "out/a/b": len("short"),
        "out/superseded": len("batch-runner"),
    }
    assert syncs == [True, False, False, False]  # all on one disk


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "output.path"),
    ],
)
def test_a_folder_that_refuses_is_a_storage_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    (tmp_path / "a").mkdir()
    replace = Path.replace

    def refuse(part: Path, target: Path) -> Path:
        if target.parent == tmp_path / "a":
            raising(number)()
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", refuse)
    storage = FolderStorage(tmp_path)
    assert storage.prepare(["name", "b/name"])
    with pytest.raises(StorageError) as caught:
        storage.prepare(["b/name", "a/name"])
    assert f"{tmp_path}/a: " in caught.value.message
    assert hint in (caught.value.hint or "")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_file_where_a_folder_has_to_be_is_a_storage_error(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "a")
    with pytest.raises(StorageError, match="/a: Not a directory"):
        FolderStorage(tmp_path).prepare(["a/name"])


def test_the_longest_names_and_the_longest_path_are_tried() -> None:
    destinations = Destinations()
    for number in range(100):
        destinations.add(f"f{number}/{'n' * number}")
    assert destinations.stems == {f"f99/{'n' * 99}"}
    destinations.add("ü" * 30)
    deep = "/".join(["folder"] * 20)
    destinations.add(deep)
    assert destinations.stems == {f"f99/{'n' * 99}", "ü" * 30, deep}
