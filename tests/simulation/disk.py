"""A disk that loses power: real files below one folder, and a model of what has reached the disk.

Hides the interception. While a disk is mounted, every call of `os` and `open` that changes or syncs
something below its folder is an *operation*: it gets the next ordinal, the callback sees it first,
and the model notes it. Files are real, so that locks, links and Pillow work as they do elsewhere;
`disk_model` says what a power cut may leave of them.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]  # it has no types
import builtins
import contextlib
import fcntl
import io
import itertools
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from unittest.mock import patch

import aiofiles.threadpool
from simulation.disk_model import DiskModel, File, Folder, Link, Node, State, States

# Which of several simulated processes is at work.
process: ContextVar[str] = ContextVar("process", default="run")


class Crash(BaseException):
    """The process died in this operation; whatever it still tries ends in the same way."""


class PowerCut(Crash):
    """The machine died, with all of its processes."""


class Operation(NamedTuple):
    """Something that changes the disk, or makes it durable; `path` is relative to its folder."""

    ordinal: int
    kind: str
    path: str
    size_bytes: int
    process: str


# Called before each operation. It may raise a Crash, or an OSError for the program; of a write it
# may return how many bytes are written.
Callback: TypeAlias = Callable[[Operation], "int | None"]


class _Descriptor(NamedTuple):
    node: Node
    path: str
    process: str
    appends: bool


class Disk:
    """The disk of one folder. Nobody reads the content of `careless` files: it is never varied."""

    def __init__(
        self,
        root: Path,
        *,
        reorders_pages: bool = True,
        careless: Sequence[str] = (".ledger.reserve", ".ledger.lock"),
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self.ordinal = 0
        self._prefix = f"{self.root}/"
        self._rules: Any = {"reorders_pages": reorders_pages, "careless": frozenset(careless)}
        self._model = DiskModel(Folder(), **self._rules)
        self._callback: Callback | None = None
        self._dead: set[str] = set()
        self._has_power = True
        self._descriptors: dict[int, _Descriptor] = {}

    def on_operation(self, callback: Callback | None) -> None:
        """Have this called before each operation."""
        self._callback = callback

    @contextlib.contextmanager
    def mount(self) -> Iterator[None]:
        """Watch the folder during the block; what it holds at first is on the disk."""
        self.settle()
        with contextlib.ExitStack() as patches:
            for name in _CALLS:
                patches.enter_context(patch.object(os, name, getattr(self, f"_{name}")))
            for module, name in _OPENERS:
                patches.enter_context(patch.object(module, name, self._open_file))
            # It writes past `os.write`.
            patches.enter_context(patch.object(shutil, "_USE_CP_SENDFILE", new=False))
            try:
                yield
            finally:
                self._release(None)

    def settle(self) -> None:
        """Take everything that is in the folder as being on the disk."""
        self._model = DiskModel(_adopted_folder(str(self.root), {}), **self._rules)

    def kill(self, name: str | None = None) -> None:
        """End a process, or all: its locks are gone; what it wrote is there, and still pending."""
        self._release(name)
        self._dead = set() if name is None else self._dead - {name}

    def crash(self, choice: State | random.Random) -> State:
        """Cut the power, and come back with a legal state: the given one, or any."""
        state = choice if isinstance(choice, State) else self._model.random_state(choice)
        self._release(None)
        self._dead.clear()
        self._has_power = True
        _write_out(self.root, state)
        self.settle()
        return state

    def legal_states(self, bound: int = 64) -> States:
        """Return what a power cut may leave now: the states nearest to all lost and to all kept."""
        return self._model.states(bound)

    def _release(self, name: str | None) -> None:
        """Close what a process, or every one, has open."""
        for descriptor, known in list(self._descriptors.items()):
            if name in (None, known.process):
                self._close(descriptor)

    def _begin(self, kind: str, path: str, size_bytes: int = 0) -> int | None:
        self._require_life()
        self.ordinal += 1
        try:
            if self._callback is not None:
                name = process.get()
                return self._callback(Operation(self.ordinal, kind, path, size_bytes, name))
        except PowerCut:
            self._has_power = False
            raise
        except Crash:
            self._dead.add(process.get())
            raise
        return None

    def _require_life(self) -> None:
        if not self._has_power:
            raise PowerCut
        if process.get() in self._dead:
            raise Crash

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return a path relative to the folder; None if it leads elsewhere."""
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if dir_fd is not None:
            known = self._descriptors.get(dir_fd)
            if known is None:
                return None
            name = f"{self._prefix}{known.path}/{name}"
        if not name.startswith(self._prefix):
            name = os.path.abspath(name)
        if not name.startswith(self._prefix):
            return None
        inside = name.removeprefix(self._prefix)
        if any(isinstance(one, Link) for one in self._model.on_the_way(inside)):
            folder, last = os.path.split(name)
            return self._path(f"{os.path.realpath(folder)}/{last}")
        return os.path.normpath(inside)

    # The calls of `os`, under their names

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self._path(path, dir_fd)
        if name is None and (isinstance(path, int) or os.fsdecode(path) != str(self.root)):
            return int(_REAL["open"](path, flags, mode, dir_fd=dir_fd))
        node = self._model.root if name is None else self._model.node(name)
        if isinstance(node, Link):
            return self._open(os.path.realpath(path), flags, mode)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if writes:
            self._require_life()
        creates = node is None and flags & os.O_CREAT and self._model.folder_of(name or "")
        cuts = isinstance(node, File) and writes and flags & os.O_TRUNC
        if creates or cuts:
            self._begin("create" if creates else "truncate", name or "")
        number = _unique(_REAL["open"](path, flags, mode, dir_fd=dir_fd))
        if creates and name is not None:
            node = File()
            self._model.change("create", {name: node})
        elif isinstance(node, File) and cuts:
            node.pending.append((0, None))
        if node is not None:
            appends = bool(flags & os.O_APPEND)
            self._descriptors[number] = _Descriptor(node, name or "", process.get(), appends)
        return number

    def _close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        _REAL["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        known = self._descriptors.get(descriptor)
        if known is None or not isinstance(known.node, File):
            self._require_life()
            return int(_REAL["write"](descriptor, data))
        view = memoryview(data).cast("B")
        short = self._begin("write", known.path, len(view))
        offset = os.fstat(descriptor).st_size if known.appends else os.lseek(descriptor, 0, 1)
        written = int(_REAL["write"](descriptor, view if short is None else view[:short]))
        known.node.pending.append((offset, bytes(view[:written])))
        return written

    def _ftruncate(self, descriptor: int, length: int) -> None:
        known = self._descriptors.get(descriptor)
        if known is not None and isinstance(known.node, File):
            self._begin("truncate", known.path)
            known.node.pending.append((length, None))
        _REAL["ftruncate"](descriptor, length)

    def _truncate(self, path: Any, length: int) -> None:
        descriptor = path if isinstance(path, int) else self._open(path, os.O_WRONLY)
        try:
            self._ftruncate(descriptor, length)
        finally:
            if descriptor != path:
                self._close(descriptor)

    def _fsync(self, descriptor: int) -> None:
        known = self._descriptors.get(descriptor)
        self._require_life()
        if known is not None:
            kind = "sync folder" if isinstance(known.node, Folder) else "sync"
            self._begin(kind, known.path)
            self._model.sync(known.node)

    _fdatasync = _fsync

    def _rename(self, path: Any, target: Any, **folders: int | None) -> None:
        old = self._path(path, folders.get("src_dir_fd"))
        new = self._path(target, folders.get("dst_dir_fd"))
        node = self._model.node(old)
        if old is None and new is not None:
            node = _adopted(os.fsdecode(path), {})
        if node is not None:
            self._begin("rename", new or old or "")
        _REAL["rename"](path, target, **folders)
        # Between two names of one file, a rename does nothing.
        if node is not None and node is not self._model.node(new):
            ends: dict[str, Node | None] = {} if old is None else {old: None}
            self._model.change("rename", ends if new is None else {**ends, new: node})

    _replace = _rename

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._end("unlink", path, dir_fd)

    _remove = _unlink

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._end("rmdir", path, dir_fd)

    def _end(self, kind: str, path: Any, dir_fd: int | None) -> None:
        name = self._path(path, dir_fd)
        is_there = self._model.node(name) is not None
        if name is not None and is_there:
            self._begin(kind, name)
        _REAL[kind](path, dir_fd=dir_fd)
        if name is not None and is_there:
            self._model.change(kind, {name: None})

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = self._path(path, dir_fd)
        self._add("mkdir", name, Folder(), (path, mode), dir_fd=dir_fd)

    def _symlink(self, target: Any, path: Any, *more: Any) -> None:
        words = (target, path, *more)
        self._add("symlink", self._path(path), Link(os.fsdecode(target)), words)

    def _link(self, path: Any, target: Any, **more: Any) -> None:
        node = self._model.node(self._path(path)) or _adopted(os.fsdecode(path), {})
        self._add("link", self._path(target), node, (path, target), **more)

    def _add(
        self, kind: str, name: str | None, node: Node, words: tuple[Any, ...], **more: Any
    ) -> None:
        is_new = name is not None and self._model.node(name) is None
        if name is not None and is_new:
            self._begin(kind, name)
        _REAL[kind](*words, **more)
        if name is not None and is_new:
            self._model.change(kind, {name: node})

    def _open_file(
        self, file: Any, mode: str = "r", buffering: int = -1, *a: Any, **more: Any
    ) -> Any:
        """Open a file as `open` does; what is written to it goes through `os.write`."""
        is_ours = file in self._descriptors if isinstance(file, int) else self._path(file)
        if not is_ours or not set(mode) & set("wax+"):
            return _REAL_OPEN(file, mode, buffering, *a, **more)
        raw: Any = _pyio.FileIO(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        kind: Any = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw, *([buffering] if buffering > 1 else []))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *a, **more)


_CALLS = (
    *("open", "close", "write", "ftruncate", "truncate", "fsync", "fdatasync", "rename", "replace"),
    *("unlink", "remove", "rmdir", "mkdir", "symlink", "link"),
)
_REAL = {name: getattr(os, name) for name in _CALLS}
_REAL_OPEN = io.open
_OPENERS: tuple[tuple[Any, str], ...] = (
    (io, "open"),
    (builtins, "open"),
    (aiofiles.threadpool, "sync_open"),
)

_FOR_OTHERS = 1000
_numbers = itertools.count()


def _unique(descriptor: int) -> int:
    """Return the descriptor under a number that is not given again for a long time.

    A killed process leaves objects that close their descriptors when they are collected.
    """
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 100_000) - _FOR_OTHERS
    if limit <= _FOR_OTHERS:
        return descriptor
    least = _FOR_OTHERS + next(_numbers) % (limit - _FOR_OTHERS)
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
    _REAL["close"](descriptor)
    return number


def _adopted(path: str, known: dict[int, File]) -> Node:
    """Return what stands at a path as being on the disk; `known` are files by inode number."""
    if os.path.islink(path):
        return Link(os.readlink(path))
    if os.path.isdir(path):
        return _adopted_folder(path, known)
    number = os.stat(path).st_ino
    if number not in known:
        with _REAL_OPEN(path, "rb") as file:
            known[number] = File(bytearray(file.read()))
    return known[number]


def _adopted_folder(path: str, known: dict[int, File]) -> Folder:
    names = {name: _adopted(f"{path}/{name}", known) for name in sorted(os.listdir(path))}
    return Folder(names, dict(names))


def _write_out(root: Path, state: State) -> None:
    """Replace everything in the folder."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in files:
            _REAL["unlink"](f"{folder}/{name}")
        for name in folders:
            place = f"{folder}/{name}"
            _REAL["unlink" if os.path.islink(place) else "rmdir"](place)
    written: dict[Node, str] = {}
    for path, (node, content) in state.tree.items():
        place = f"{root}/{path}"
        if isinstance(node, Folder):
            _REAL["mkdir"](place)
        elif isinstance(node, Link):
            _REAL["symlink"](node.target, place)
        elif node in written:
            _REAL["link"](written[node], place)
        else:
            with _REAL_OPEN(place, "wb") as file:
                file.write(content)
            written[node] = place
