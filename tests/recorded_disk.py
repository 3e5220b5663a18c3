"""A real disk whose writes are recorded in order, so that its power can be cut at any of them.

Linux has no log of a block device that every kernel offers. So the device is a file in a small FUSE
file system of this process, and a loop device lies on it: each write and each flush of the file
system arrives here. Needs root, /dev/fuse and loop devices.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import shutil
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SIZE_BYTES = 12 * 2**20

_NO_ANSWER = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
_IMAGE, _NAME = 2, "image"
_MAX_WRITE_BYTES = 128 * 1024
_BIG_WRITES = 1 << 5
_KEEP_CACHE = 2

needs_recording = pytest.mark.skipif(
    os.geteuid() != 0
    or not all(map(os.path.exists, ("/dev/fuse", "/dev/loop-control")))
    or shutil.which("mkfs.ext4") is None,
    reason="recording a disk needs root, FUSE, loop devices and mkfs.ext4",
)


class Write(NamedTuple):
    """Some blocks that were written."""

    offset: int
    data: bytes


class Flush(NamedTuple):
    """Everything before has reached the disk; `moment` is what was true when it was asked for."""

    moment: int


class RecordedDisk:
    """The image of a disk, and everything that has been done to it since `begin`."""

    def __init__(self, image: bytes, moment: Callable[[], int]) -> None:
        self.log: list[Write | Flush] = []
        self.start = image
        self._content = bytearray(image)
        self._moment = moment

    def flushes(self) -> list[int]:
        """Return where in the log the flushes are."""
        return [at for at, one in enumerate(self.log) if isinstance(one, Flush)]

    def image(self, until: int, dice: random.Random | None = None) -> bytes:
        """Return what a power cut leaves at the end of so much of the log.

        What was flushed is there. Of the writes since then none is, or with `dice` any of them, and
        any may be torn between two blocks.
        """
        flushed = max([0, *(at for at in self.flushes() if at < until)])
        image = bytearray(self.start)
        for at, one in enumerate(self.log[:until]):
            if isinstance(one, Flush) or (at > flushed and dice is None):
                continue
            kept = len(one.data)
            if at > flushed and dice is not None:
                kept = dice.choice((0, kept, dice.randrange(0, kept + 1, 4096)))
            image[one.offset : one.offset + kept] = one.data[:kept]
        return bytes(image)

    def serve(self, device: int) -> None:
        """Answer the kernel until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, _MAX_WRITE_BYTES + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in _NO_ANSWER:
                continue
            answer = self._answer(opcode, node, request[40:])
            code, body = (-answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(FileNotFoundError):  # nobody waits for this answer any more
                os.write(device, struct.pack("<IiQ", 16 + len(body), code, unique) + body)

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        match opcode:
            case 26:  # INIT
                readahead = struct.unpack_from("<III", body)[2]
                head = (7, 31, readahead, _BIG_WRITES, 12, 9, _MAX_WRITE_BYTES, 1, 0, 0)
                return struct.pack("<IIIIHHIIHH", *head).ljust(64, b"\0")
            case 1:  # LOOKUP
                if body.rstrip(b"\0").decode() != _NAME:
                    return errno.ENOENT
                return struct.pack("<QQQQII", _IMAGE, 0, 3600, 3600, 0, 0) + self._attributes(
                    _IMAGE
                )
            case 3 | 4:  # GETATTR, SETATTR
                return struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
            case 14:  # OPEN
                return struct.pack("<QII", 0, _KEEP_CACHE, 0)
            case 15:  # READ
                _, offset, size = struct.unpack_from("<QQI", body)
                return bytes(self._content[offset : offset + size])
            case 16:  # WRITE
                _, offset, size = struct.unpack_from("<QQI", body)
                data = body[40 : 40 + size]
                self._content[offset : offset + size] = data
                self.log.append(Write(offset, data))
                return struct.pack("<II", size, 0)
            case 20:  # FSYNC
                self.log.append(Flush(self._moment()))
                return b""
            case 17:  # STATFS
                return struct.pack("<QQQQQIIII", 0, 0, 0, 1, 1, 4096, 255, 4096, 0).ljust(80, b"\0")
            case 18 | 25 | 38:  # RELEASE, FLUSH, DESTROY
                return b""
        return errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        is_image = node == _IMAGE
        size = len(self._content) if is_image else 0
        mode = stat.S_IFREG | 0o600 if is_image else stat.S_IFDIR | 0o700
        times = (0,) * 6
        return struct.pack("<QQQ3Q3I7I", node, size, size // 512, *times, mode, 1, 0, 0, 0, 4096, 0)


@contextlib.contextmanager
def recorded_disk(
    folder: Path, mount_at: Path, moment: Callable[[], int]
) -> Iterator[RecordedDisk]:
    """Mount a new ext4 file system; `moment` is asked at each flush."""
    image = new_image(folder / "first.img")
    disk, place = RecordedDisk(image, moment), folder / "fuse"
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"recorded", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
        os.close(device)
        pytest.skip(f"FUSE cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    server = threading.Thread(target=disk.serve, args=(device,), daemon=True)
    server.start()
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(mounted(place / _NAME, mount_at))
            except subprocess.CalledProcessError as error:
                pytest.skip(f"loop devices cannot be mounted here: {error}")
            yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        server.join(10)
        os.close(device)


def new_image(path: Path) -> bytes:
    """Return an image with an empty ext4 file system."""
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
    words = ["mkfs.ext4", "-q", "-b", "4096", "-I", "256", "-E", "lazy_itable_init=0"]
    subprocess.run([*words, str(path)], check=True)
    return path.read_bytes()


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    """Mount an image during the block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
