"""The disk that loses power: what is counted, what may be lost, what may not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulation.disk import Crash, Disk, Operation, PowerCut, process
from simulation.disk_model import PAGE_BYTES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    with disk.mount():
        yield disk


def left(disk: Disk) -> set[tuple[tuple[str, bytes], ...]]:
    """Return the files that each legal state holds, or fail if there are too many."""
    states = disk.legal_states(1000)
    assert states.is_all
    return {
        tuple(sorted((path, data) for path, (_, data) in state.tree.items() if "." in path))
        for state in states.states
    }


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_every_change_is_an_operation_and_reading_is_none(disk: Disk) -> None:
    seen: list[Operation] = []
    disk.on_operation(seen.append)
    folder = disk.root / "a"
    folder.mkdir()
    (folder / "one.txt").write_text("text")
    assert (folder / "one.txt").read_text() == "text"
    (folder / "one.txt").replace(folder / "two.txt")
    (folder / "three.txt").hardlink_to(folder / "two.txt")
    shutil.copyfile(folder / "two.txt", folder / "four.txt")
    sync(folder)
    os.truncate(folder / "four.txt", 1)
    (folder / "one.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (disk.root / "none" / "a").touch()
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder)
    assert [(one.kind, Path(one.path).name) for one in seen if one.kind != "unlink"] == [
        ("mkdir", "a"),
        ("create", "one.txt"),
        ("write", "one.txt"),
        ("rename", "two.txt"),
        ("link", "three.txt"),
        ("create", "four.txt"),
        ("write", "four.txt"),
        ("sync folder", "a"),
        ("truncate", "four.txt"),
        ("rmdir", "a"),
    ]
    assert len(seen) == 13
    assert [one.ordinal for one in seen] == list(range(1, 14))


def test_what_was_not_synced_may_be_lost_or_torn_and_its_name_too(disk: Disk) -> None:
    (disk.root / "a.txt").write_bytes(b"1234")
    some = {(), *((("a.txt", data),) for data in (b"", b"12", b"1234", bytes(4)))}
    assert left(disk) == some
    sync(disk.root / "a.txt")
    assert left(disk) == {(), (("a.txt", b"1234"),)}
    sync(disk.root)
    assert left(disk) == {(("a.txt", b"1234"),)}


def test_a_page_may_be_lost_although_a_later_one_is_kept(disk: Disk) -> None:
    path = disk.root / "a.txt"
    path.write_bytes(b"1" * (PAGE_BYTES - 1))
    sync(path)
    sync(disk.root)
    with path.open("ab", buffering=0) as file:
        file.write(b"22")
    hole = b"1" * (PAGE_BYTES - 1) + b"\0" + b"2"
    assert (("a.txt", hole),) in left(disk)
    assert len(left(disk)) == 5


def test_a_rename_is_lost_or_done_and_never_both(disk: Disk) -> None:
    for name, text in (("old.txt", "old"), ("part.txt", "new")):
        (disk.root / name).write_text(text)
    disk.settle()
    (disk.root / "part.txt").replace(disk.root / "old.txt")
    assert left(disk) == {
        (("old.txt", b"old"), ("part.txt", b"new")),
        (("old.txt", b"new"),),
    }


def test_a_later_change_of_names_may_arrive_without_an_earlier_one(disk: Disk) -> None:
    (disk.root / "a.txt").touch()
    (disk.root / "b.txt").touch()
    assert len(left(disk)) == 4
    (disk.root / "sub").mkdir()
    (disk.root / "sub" / "c.txt").touch()
    sync(disk.root / "sub")
    # Its folder may be lost, and it with it.
    assert len(left(disk)) == 8


def test_a_synced_change_is_never_undone_by_an_earlier_one(disk: Disk) -> None:
    (disk.root / "sub").mkdir()
    disk.settle()
    (disk.root / "a.txt").touch()
    (disk.root / "a.txt").replace(disk.root / "sub" / "a.txt")
    sync(disk.root / "sub")
    assert left(disk) == {(("sub/a.txt", b""),)}


def test_a_cut_leaves_the_state_that_was_chosen_with_links_and_locks_of_nobody(disk: Disk) -> None:
    (disk.root / "a.txt").write_text("first")
    (disk.root / "b.txt").hardlink_to(disk.root / "a.txt")
    (disk.root / "c.txt").symlink_to("a.txt")
    disk.settle()
    descriptor = os.open(disk.root / "a.txt", os.O_WRONLY | os.O_APPEND)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, b"second")
    none_lost = disk.legal_states().states[1]
    assert none_lost.story == "nothing was lost"
    disk.crash(disk.legal_states().states[0])
    assert (disk.root / "c.txt").read_text() == "first"
    assert (disk.root / "a.txt").samefile(disk.root / "b.txt")
    fcntl.flock(again := os.open(disk.root / "a.txt", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.close(descriptor)


def test_the_same_dice_leave_the_same(tmp_path: Path) -> None:
    stories = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        disk, dice = Disk(folder), random.Random(7)
        with disk.mount():
            for number in range(20):
                (folder / f"{number}.txt").write_bytes(b"x" * 100)
            stories.append([disk.crash(dice).story for _ in range(3)])
    assert stories[0] == stories[1]
    assert len(set(stories[0])) > 1


def test_a_crash_ends_its_process_and_no_other(disk: Disk) -> None:
    def strike(operation: Operation) -> None:
        if operation.path == "bad.txt":
            raise Crash

    disk.on_operation(strike)
    with (disk.root / "open.txt").open("wb", buffering=0) as file:
        with pytest.raises(Crash):
            (disk.root / "bad.txt").touch()
        with pytest.raises(Crash):
            file.write(b"after death")
        token = process.set("other")
        (disk.root / "fine.txt").touch()
        process.reset(token)
    with pytest.raises(Crash):
        (disk.root / "fine.txt").unlink()
    disk.kill("run")
    assert (disk.root / "open.txt").read_bytes() == b""
    (disk.root / "fine.txt").unlink()


def test_no_power_no_process(disk: Disk) -> None:
    def strike(_: Operation) -> None:
        raise PowerCut

    disk.on_operation(strike)
    with pytest.raises(PowerCut):
        (disk.root / "a.txt").touch()
    disk.on_operation(None)
    process_of_another = process.set("other")
    with pytest.raises(PowerCut):
        (disk.root / "a.txt").touch()
    process.reset(process_of_another)
    disk.crash(random.Random(1))
    (disk.root / "a.txt").touch()


def test_a_call_may_fail_or_write_less(disk: Disk) -> None:
    def strike(operation: Operation) -> int | None:
        if operation.kind == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 2 if operation.kind == "write" else None

    disk.on_operation(strike)
    with (disk.root / "a.txt").open("wb", buffering=0) as file:
        assert file.write(b"1234") == 2
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(disk.root / "a.txt")
    sync(disk.root)
    assert left(disk) == {(("a.txt", data),) for data in (b"", b"1", b"12", bytes(2))}


def test_what_is_elsewhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    disk = Disk(tmp_path / "in")
    with disk.mount():
        (tmp_path / "out.txt").write_text("elsewhere")
        assert disk.ordinal == 0
        (tmp_path / "out.txt").rename(disk.root / "in.txt")
        (disk.root / "in.txt").rename(tmp_path / "out.txt")
        assert disk.ordinal == 2
        with contextlib.chdir(disk.root):
            Path("here.txt").touch()
        assert disk.ordinal == 3
    (disk.root / "after.txt").touch()
    assert disk.ordinal == 3
