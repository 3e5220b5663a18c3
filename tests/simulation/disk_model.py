"""What a disk holds, what of it has been synced, and what a power cut may leave of the rest.

What may be left, and no more:

- of a file, its content as of any moment since its last sync. The write after that moment may be
  there by half, the size may be that of the end (zeros then stand for what is missing), and any
  page of 4 KiB may be missing although a later one is there;
- of the folders, any subset of the pending changes of names. A rename is one change, even between
  two folders: every journaling file system promises that, and nothing more.

Not modelled: pages that the kernel forgets after a failed sync.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

PAGE_BYTES = 4096


@dataclass(eq=False)
class File:
    """A file: what is on the disk, and what was done since (data at an offset, or a new size)."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        """Bring everything to the disk."""
        for one in self.pending:
            _do(self.durable, *one)
        self.pending.clear()

    def contents(self, *, reorders_pages: bool) -> list[tuple[bytes, str]]:
        """Return each content that a power cut may leave: all lost first, all kept last."""
        moments = [bytes(self.durable)]
        found = {moments[0]: f"none of {len(self.pending)} writes"}
        for number, (offset, data) in enumerate(self.pending, start=1):
            half, whole = bytearray(moments[-1]), bytearray(moments[-1])
            if data is not None and len(data) > 1:
                _do(half, offset, data[: len(data) // 2])
                found.setdefault(bytes(half), f"half of write {number} of {len(self.pending)}")
            _do(whole, offset, data)
            moments.append(bytes(whole))
            found.setdefault(moments[-1], f"{number} of {len(self.pending)} writes")
        last = moments[-1]
        for number, content in enumerate(moments[:-1]):
            zeros = content.ljust(len(last), b"\0")
            found.setdefault(zeros, f"{number} of {len(self.pending)} writes, then zeros")
        dirty = [
            at for at in range(0, len(last), PAGE_BYTES) if _page(moments[0], at) != _page(last, at)
        ]
        for at in dirty[:-1] if reorders_pages else ():
            page = _page(moments[0], at).ljust(PAGE_BYTES, b"\0")
            lost = last[:at] + page + last[at + PAGE_BYTES :]
            found.setdefault(lost, f"all writes but the page at {at}")
        found[last] = found.pop(last)
        return list(found.items())


def _page(content: bytes, at: int) -> bytes:
    return content[at : at + PAGE_BYTES]


def _do(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    if data is not None:
        content[offset : offset + len(data)] = data


@dataclass(eq=False)
class Folder:
    """A folder: the names in it that programs see, and those that are on the disk."""

    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


@dataclass(eq=False)
class Link:
    """A symbolic link."""

    target: str


Node: TypeAlias = File | Folder | Link


@dataclass(eq=False)
class _Change:
    """Names that appear or vanish together."""

    label: str
    names: dict[tuple[Folder, str], Node | None]


class State(NamedTuple):
    """What a power cut leaves: each path with its node and content; `story` says what was lost."""

    tree: dict[str, tuple[Node, bytes]]
    story: str


class States(NamedTuple):
    """Some legal states, each once; `is_all` says that there are no others.

    `choices`: how many ways there are to keep or lose what is pending; many lead to one state.
    """

    states: list[State]
    is_all: bool
    choices: int


class DiskModel:
    """One folder and everything below it. Paths are relative to it, without symbolic links."""

    def __init__(self, root: Folder, *, reorders_pages: bool, careless: frozenset[str]) -> None:
        self.root = root
        self._reorders_pages = reorders_pages
        self._careless = careless
        self._changes: list[_Change] = []

    def on_the_way(self, path: str) -> Iterator[Node]:
        """Yield what stands at each folder of a path, as far as there is something."""
        node: Node | None = self.root
        for part in path.split("/")[:-1]:
            node = node.names.get(part) if isinstance(node, Folder) else None
            if node is None:
                return
            yield node

    def folder_of(self, path: str) -> Folder | None:
        """Return the folder that a path is in; None if there is none."""
        ways = [self.root, *self.on_the_way(path)]
        return (
            ways[-1] if len(ways) == path.count("/") + 1 and isinstance(ways[-1], Folder) else None
        )

    def node(self, path: str | None) -> Node | None:
        """Return what programs see at a path."""
        if path is None:
            return None
        folder = self.folder_of(path)
        return None if folder is None else folder.names.get(os.path.basename(path))

    def change(self, kind: str, names: dict[str, Node | None]) -> None:
        """Let names appear or vanish together; pending until one of their folders is synced."""
        change = _Change(f"{kind} {' -> '.join(names)}", {})
        for path, node in names.items():
            folder, name = self.folder_of(path), os.path.basename(path)
            assert folder is not None, path
            _set(folder.names, name, node)
            change.names[folder, name] = node
        self._changes.append(change)

    def sync(self, node: Node) -> None:
        """Bring a file's content, or a folder's names, to the disk."""
        if isinstance(node, File):
            node.sync()
        for change in [one for one in self._changes if any(node is at for at, _ in one.names)]:
            for (folder, name), target in change.names.items():
                _set(folder.durable, name, target)
            # An earlier change of the same name is past: it cannot come after this one.
            for earlier in self._changes[: self._changes.index(change)]:
                for key in change.names:
                    earlier.names.pop(key, None)
            self._changes.remove(change)

    def states(self, bound: int) -> States:
        """Return up to `bound` legal states: those nearest to all lost and to all kept."""
        files, found = self._files(), dict[int, State]()
        sizes = [*map(len, files.values()), *([2] * len(self._changes))]
        choices = math.prod(sizes)
        for picks in _picks(sizes):
            state = self._state(files, picks)
            content = sorted((path, id(node), data) for path, (node, data) in state.tree.items())
            found.setdefault(hash(tuple(content)), state)
            if len(found) > bound:
                return States(list(found.values())[:bound], is_all=False, choices=choices)
        return States(list(found.values()), is_all=True, choices=choices)

    def random_state(self, dice: random.Random) -> State:
        """Return one: often all lost or all kept, else anything between."""
        files = self._files()
        sizes = [*map(len, files.values()), *([2] * len(self._changes))]
        mood = dice.randrange(4)
        if mood < 2:
            return self._state(files, [mood * (size - 1) for size in sizes])
        return self._state(files, [dice.randrange(size) for size in sizes])

    def _files(self) -> dict[File, list[tuple[bytes, str]]]:
        """Return each file with something pending, and what may be left of it."""
        found: dict[File, list[tuple[bytes, str]]] = {}
        for name, node in self._durable_or_pending(self.root):
            if isinstance(node, File) and node.pending and node not in found:
                contents = node.contents(reorders_pages=self._reorders_pages)
                found[node] = contents[-1:] if name in self._careless else contents
        return found

    def _durable_or_pending(self, folder: Folder) -> Iterator[tuple[str, Node]]:
        pending = (
            (name, node)
            for change in self._changes
            for (at, name), node in change.names.items()
            if at is folder and node is not None
        )
        for name, node in (*folder.durable.items(), *pending):
            yield name, node
            if isinstance(node, Folder):
                yield from self._durable_or_pending(node)

    def _state(self, files: dict[File, list[tuple[bytes, str]]], picks: Sequence[int]) -> State:
        left, story = dict[File, bytes](), list[str]()
        for (file, contents), pick in zip(files.items(), picks, strict=False):
            left[file], label = contents[pick]
            if pick < len(contents) - 1:
                story.append(f"{_path_of(self.root, file)}: {label}")
        kept: dict[Folder, dict[str, Node]] = {}
        for change, pick in zip(self._changes, picks[len(files) :], strict=True):
            if not pick:
                story.append(f"lost: {change.label}")
                continue
            for (folder, name), node in change.names.items():
                _set(kept.setdefault(folder, dict(folder.durable)), name, node)
        tree: dict[str, tuple[Node, bytes]] = {}

        def walk(folder: Folder, prefix: str) -> None:
            for name, node in kept.get(folder, folder.durable).items():
                data = left.get(node, bytes(node.durable)) if isinstance(node, File) else b""
                tree[prefix + name] = node, data
                if isinstance(node, Folder):
                    walk(node, f"{prefix}{name}/")

        walk(self.root, "")
        return State(tree, "; ".join(story) or "nothing was lost")


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _path_of(folder: Folder, wanted: Node, prefix: str = "") -> str:
    for name, node in folder.names.items():
        if node is wanted:
            return prefix + name
        found = _path_of(node, wanted, f"{prefix}{name}/") if isinstance(node, Folder) else ""
        if found:
            return found
    return ""


def _picks(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield every choice of one index each: all first, all last, then those that differ in few."""
    lost, kept = tuple(0 for _ in sizes), tuple(size - 1 for size in sizes)
    if math.prod(sizes) <= 4096:
        yield lost
        yield kept
        yield from itertools.product(*map(range, sizes))
        return
    for distance in range(len(sizes) + 1):
        for places in itertools.combinations(range(len(sizes)), distance):
            for values in itertools.product(*(range(sizes[place]) for place in places)):
                for base in (lost, kept):
                    changed = dict(zip(places, values, strict=True))
                    yield tuple(changed.get(at, one) for at, one in enumerate(base))
