"""Which jobs are a shard's, and where the ledgers of a batch's shards are.

Hides how jobs are split: by their fingerprint alone, so adding, moving or renaming a job moves no
other, and equal jobs are in the same shard. What always holds: the ledgers of one folder are split
in one way, or nobody may run there; while a run is at work, nothing changes the split. Indices
begin at 0.
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
_LOCK_NAME = ".lock"
# Release 0.1 could change the number of shards. If it was interrupted, such a folder is left over.
_MOVING_PREFIX = ".dealt-"
_FOLDER_NAME = re.compile(r"(\d{1,5})-of-(\d{1,5})")


class Shard(msgspec.Struct, frozen=True):
    """One of `count` shards of a batch; `index` is 0 to count - 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, fingerprint: str) -> bool:
        """Return whether a job is this shard's."""
        return index_of(fingerprint, self.count) == self.index

    def ledger_dir(self, output_folder: Path) -> Path:
        """Return the folder of this shard's ledger."""
        return output_folder / SHARDS_FOLDER / f"{self.index}-of-{self.count}"


def index_of(fingerprint: str, count: int) -> int:
    """Return the index of the shard that a fingerprint belongs to."""
    # A SHA-256 is spread evenly; with 64 bits of it, no remainder is likelier than another.
    return int(fingerprint[:16], 16) % count


def shard_of(ledger_folder: Path) -> Shard | None:
    """Return the shard whose ledger a folder is for, by its name; None for a whole batch."""
    found = _FOLDER_NAME.fullmatch(ledger_folder.name)
    if found is None or ledger_folder.parent.name != SHARDS_FOLDER:
        return None
    return Shard(int(found[1]), int(found[2]))


def split_into(output_folder: Path) -> int | None:
    """Return how many shards a folder's ledgers are split into; None if they are not.

    Raises UsageError if that is not clear.
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
        elif name.startswith(_MOVING_PREFIX):
            raise UsageError(
                f"{folder}: a change of the number of shards was interrupted here",
                hint="finish it with the version that began it: batch-runner reshard, in 0.1",
            )
    plain = ledger_path(output_folder)
    if len(counts) > 1 or (counts and plain.exists()):
        ways = [f"{count} shards" for count in sorted(counts)]
        ways += ["one ledger"] if plain.exists() else []
        raise UsageError(
            f"{output_folder}: this batch is split in more than one way: {', '.join(ways)}",
            hint="keep the ledgers that were used last, and move the others away",
        )
    return counts.pop() if counts else None


def ledger_dirs(output_folder: Path) -> list[Path]:
    """Return the folders of a batch's ledgers, in order, whether or not each exists yet."""
    count = split_into(output_folder)
    if count is None:
        return [output_folder]
    return [Shard(index, count).ledger_dir(output_folder) for index in range(count)]


def check_split(output_folder: Path, shard: Shard | None) -> None:
    """Raise UsageError if a batch's ledgers are split in another way than this run's.

    Otherwise a job could be bought in two ledgers that do not know each other.
    """
    there, wanted = split_into(output_folder), None if shard is None else shard.count
    is_new = there is None and not ledger_path(output_folder).exists()
    if there == wanted or is_new:
        return
    raise UsageError(
        f"{output_folder}: this batch is in {_words_of_split(there)}, not in"
        f" {_words_of_split(wanted)}",
        hint="a batch keeps its split: "
        + ("run it without --shard" if there is None else f"run each shard, with --shard I/{there}")
        + ", or set another output.dir for a new batch",
    )


def _words_of_split(count: int | None) -> str:
    return "one ledger" if count is None else f"{count} shards"


@contextmanager
def beginning(output_folder: Path, shard: Shard) -> Iterator[None]:
    """Let one shard at a time begin its ledger, so that no two shards begin different splits."""
    if ledger_path(shard.ledger_dir(output_folder)).exists():
        yield
        return
    with hold(output_folder / SHARDS_FOLDER, name=_LOCK_NAME, patience_s=10.0):
        check_split(output_folder, shard)
        yield
