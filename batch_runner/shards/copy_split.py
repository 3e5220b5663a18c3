"""How the copies of a batch's ledgers are split, for machines that share no folder.

Hides one object beside the copies, which the first machine creates. What always holds: all machines
agree on the split, because the store lets only one of them create the object; a store that lets two
of them do so is refused.
"""

from __future__ import annotations

import msgspec

from batch_runner.errors import InputMissingError, UsageError
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.shards.shard import words_of_split

_KEY = "dealing"  # named by an earlier release, whose copies must stay readable


class _Split(msgspec.Struct):
    shards: int | None


def check_copy_split(buckets: Buckets, root: BucketUrl, shards: int | None) -> None:
    """Raise UsageError if the copies are split in another way; the first caller decides.

    Raises StorageError, too.
    """
    url, wanted = root.join(_KEY), msgspec.json.encode(_Split(shards))
    # The second call must find the object of the first, or the store keeps no promise about names.
    if buckets.create(url, wanted) and buckets.create(url, wanted):
        raise UsageError(
            f"{root}: this store lets two writers create one object, so two runs could own one"
            " ledger",
            hint="use a store that supports conditional writes (If-None-Match)",
        )
    there = read_copy_split(buckets, root)
    if there != shards:
        raise UsageError(
            f"{root} is the copy of a batch in {words_of_split(there)}, not in"
            f" {words_of_split(shards)}",
            hint="run it with the same shards, or keep the ledgers on this machine and set another"
            " output.ledger_copy",
        )


def read_copy_split(buckets: Buckets, root: BucketUrl) -> int | None:
    """Return how many shards the copies of a batch's ledgers are split into; None: one ledger.

    Raises InputMissingError if there is no copy yet, and StorageError.
    """
    try:
        found = b"".join(buckets.chunks(root.join(_KEY)))
    except FileNotFoundError as error:
        raise InputMissingError(
            f"{root}: no ledger copy there yet", hint="the first run creates it"
        ) from error
    shards: int | None = msgspec.json.decode(found, type=_Split).shards
    return shards
