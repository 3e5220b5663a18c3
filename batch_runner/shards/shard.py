"""Which part of a batch is a shard's, and where the ledgers of its shards are.

Hides how jobs are dealt: by their fingerprint alone, so that inserting, moving or renaming one
moves no other, and jobs that are the same are in the same shard. What always holds: one folder's
ledgers are dealt one way at a time, plain or into n shards, or nobody may run there; as long as a
run is at work, nothing deals them anew. Indices begin at 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from batch_runner.errors import UsageError
from batch_runner.ledger.lock import hold
from batch_runner.ledger.reading import ledger_path

SHARDS_FOLDER = "shards"
DEALT_PREFIX = ".dealt-"
"""A folder of this name holds ledgers that are dealt, and not yet all in their places."""

_LOCK_NAME = ".lock"
_FOLDER_NAME = re.compile(r"(\d{1,5})-of-(\d{1,5})")


class Shard(msgspec.Struct, frozen=True):
    """One of `count` parts of a batch; `index` is 0 to count - 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, fingerprint: str) -> bool:
        """Tell whether a job is this shard's."""
        return part_of(fingerprint, self.count) == self.index

    def ledger_dir(self, output_folder: Path) -> Path:
        """Return the folder of this shard's ledger."""
        return output_folder / SHARDS_FOLDER / f"{self.index}-of-{self.count}"


def shard_of(ledger_folder: Path) -> Shard | None:
    """Return whose ledger a folder is for, by its name; None: it is that of a whole batch."""
    found = _FOLDER_NAME.fullmatch(ledger_folder.name)
    if found is None or ledger_folder.parent.name != SHARDS_FOLDER:
        return None
    return Shard(int(found[1]), int(found[2]))


def part_name(shard: str | None) -> str:
    """Return what people call the part of a batch that a ledger's header names."""
    return "a whole batch" if shard is None else f"shard {shard}"


def part_of(fingerprint: str, count: int) -> int:
    """Return the index of the shard that a fingerprint belongs to."""
    # A SHA-256 is evenly spread already; 64 bits of it make no remainder likelier than another.
    return int(fingerprint[:16], 16) % count


def dealt_into(output_folder: Path) -> int | None:
    """Return into how many shards a folder's ledgers are dealt; None where they are not.

    Raises UsageError where that is not clear.
    """
    folder = output_folder / SHARDS_FOLDER
    counts = set()
    try:
        names = [one.name for one in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    for name in names:
        found = _FOLDER_NAME.fullmatch(name)
        if found is not None and ledger_path(folder / name).exists():
            counts.add(int(found[2]))
        elif name.startswith(DEALT_PREFIX):
            raise UsageError(
                f"{folder}: a reshard was interrupted here",
                hint="run the same batch-runner reshard again: it goes on where it was",
            )
    plain = ledger_path(output_folder)
    if len(counts) > 1 or (counts and plain.exists()):
        ways = [f"{count} shards" for count in sorted(counts)]
        ways += ["one ledger"] if plain.exists() else []
        raise UsageError(
            f"{output_folder} holds a batch that is dealt in more than one way: {', '.join(ways)}",
            hint="keep the ledgers that were used last, and move the others away",
        )
    return counts.pop() if counts else None


def ledger_dirs(output_folder: Path) -> list[Path]:
    """Return the folders of a batch's ledgers, in order, whether or not each was begun."""
    count = dealt_into(output_folder)
    if count is None:
        return [output_folder]
    return [Shard(index, count).ledger_dir(output_folder) for index in range(count)]


def check_dealing(output_folder: Path, shard: Shard | None) -> None:
    """Refuse to run a batch dealt otherwise than its ledgers are: raises UsageError.

    Otherwise a job could be bought in two ledgers that do not know of each other.
    """
    count = dealt_into(output_folder)
    if shard is None and count is not None:
        raise UsageError(
            f"{output_folder} is a batch in {count} shards",
            hint=f"run each with --shard I/{count}, or put them together with"
            " batch-runner reshard MANIFEST --shards 1",
        )
    if shard is None:
        return
    if count is None and ledger_path(output_folder).exists():
        raise UsageError(
            f"{output_folder} is a batch that was run without shards",
            hint=f"deal it first: batch-runner reshard MANIFEST --shards {shard.count}",
        )
    if count not in (None, shard.count):
        raise UsageError(
            f"{output_folder} is a batch in {count} shards, not in {shard.count}",
            hint=f"use --shard I/{count}, or deal it anew with"
            f" batch-runner reshard MANIFEST --shards {shard.count}",
        )


@contextmanager
def entered(output_folder: Path, shard: Shard) -> Iterator[None]:
    """Keep the dealing of a folder as it is, as long as the block lasts.

    Raises UsageError where it is dealt otherwise, LedgerLockedError, StorageError.
    """
    with hold(output_folder, shared=True):
        check_dealing(output_folder, shard)
        yield


@contextmanager
def beginning(output_folder: Path, shard: Shard) -> Iterator[None]:
    """Let one shard at a time begin its ledger, so that no two begin different dealings."""
    if ledger_path(shard.ledger_dir(output_folder)).exists():
        yield
        return
    with hold(output_folder / SHARDS_FOLDER, name=_LOCK_NAME, patience_s=10.0):
        check_dealing(output_folder, shard)
        yield
