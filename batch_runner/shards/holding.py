"""What a shard holds of the limits: its part, less what it gave back, and what it took of others'.

Hides the arithmetic and the file. What always holds: the file is the truth, written before what it
says is used or told; whatever a shard gave away it does not use again, also after a kill, without
the exchange or when the manifest no longer names one; of each limit but the budget it keeps at
least one. Amounts are whole numbers; money is in millionths of a dollar.
"""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import msgspec

from batch_runner.errors import StorageError
from batch_runner.ledger.disk import sync_file, sync_folder
from batch_runner.manifest.form import Limits

FILE_NAME = "holding.json"

SUBMITS = "submits"
POLLS = "polls"
IN_FLIGHT = "in_flight"
COST = "cost"

_MICRO_USD = Decimal(1_000_000)

Amounts = dict[str, int]


class Holding(msgspec.Struct, kw_only=True):
    """How far a shard is from its part of each limit: it gave so much of it, or took so much more.

    `out` and `into` are all that it handed to the server and got from it in one life of the server,
    which `here` names. `sequence` numbers what it says there. `spent_before` is what it had taken
    of a budget that is another one now: it is spent perhaps, and counts no more. A holding
    `in_doubt` is one whose file is gone: as little as possible is held until the server has said
    what it knows.
    """

    part: Amounts = {}
    given: Amounts = {}
    taken: Amounts = {}
    out: Amounts = {}
    into: Amounts = {}
    here: str = ""
    spent_before: Amounts = {}
    sequence: int = 0
    in_doubt: bool = False

    def settle_in(self, part: Amounts) -> None:
        """Take in what this shard's part is now; what was traded of another limit is void.

        Where every shard has begun anew with the new limit, all together hold no more than it.
        """
        for name, amount in part.items():
            before = self.part.get(name)
            if before == amount or not self.part:
                continue
            if name == COST:
                self.spent_before[name] = self.taken.get(name, 0)
            elif before is not None:
                self.taken[name] = 0
                self.given[name] = min(self.given.get(name, 0), amount - 1)
        self.part = part

    def amount(self, name: str) -> int:
        """Return how much this shard may use now."""
        if self.in_doubt:
            return 0 if name == COST else 1
        free = self.taken.get(name, 0) - self.spent_before.get(name, 0)
        return max(0, self.part[name] - self.given.get(name, 0) + free)

    def give(self, name: str, amount: int) -> None:
        """Use so much less from now on: of what was taken first."""
        back = min(amount, self.taken.get(name, 0) - self.spent_before.get(name, 0))
        self.taken[name] = self.taken.get(name, 0) - back
        self.given[name] = self.given.get(name, 0) + amount - back
        self.out[name] = self.out.get(name, 0) + amount

    def take(self, name: str, amount: int) -> None:
        """Use so much more from now on: of what was given first."""
        back = min(amount, self.given.get(name, 0))
        self.given[name] = self.given.get(name, 0) - back
        self.taken[name] = self.taken.get(name, 0) + amount - back
        self.into[name] = self.into.get(name, 0) + amount

    def may_exceed(self, cost_usd: Decimal) -> bool:
        """Tell whether this shard was ever at work with another part of the budget than this."""
        return COST in self.spent_before or self.part.get(COST) != micro_usd(cost_usd)

    @property
    def traded_usd(self) -> Decimal:
        """Return how much more of any budget it took than it gave."""
        return (self.taken.get(COST, 0) - self.given.get(COST, 0)) / _MICRO_USD

    def meet(self, here: str) -> bool:
        """Take in which life of the server this is; tells whether it is another one."""
        if here == self.here:
            return False
        self.here, self.out, self.into = here, {}, {}
        return True

    def limits(self, dealt: Limits) -> Limits:
        """Return a shard's part of the limits as it stands after all trades."""
        cost_usd = None if dealt.cost_usd is None else self.amount(COST) / _MICRO_USD
        return msgspec.structs.replace(
            dealt,
            submits=msgspec.structs.replace(dealt.submits, count=self.amount(SUBMITS)),
            polls=msgspec.structs.replace(dealt.polls, count=self.amount(POLLS)),
            in_flight=self.amount(IN_FLIGHT),
            cost_usd=cost_usd,
        )

    def save(self, folder: Path) -> None:
        """Make it durable; raises StorageError."""
        path = folder / FILE_NAME
        unfinished = folder / f".{FILE_NAME}.part"
        try:
            unfinished.write_bytes(msgspec.json.encode(self) + b"\n")
            sync_file(unfinished)
            unfinished.replace(path)
            sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"{path}: {error.strerror or error}",
                hint="look at the disk, then run the same command again: nothing is lost",
            ) from error


def parts_of(dealt: Limits) -> Amounts:
    """Return a shard's part of the limits in whole numbers, without the budget where none is."""
    part = {
        SUBMITS: dealt.submits.count,
        POLLS: dealt.polls.count,
        IN_FLIGHT: dealt.in_flight,
    }
    if dealt.cost_usd is not None:
        part[COST] = micro_usd(dealt.cost_usd)
    return part


def micro_usd(amount: Decimal) -> int:
    """Return millionths of a dollar, rounded down."""
    return int((amount * _MICRO_USD).to_integral_value(ROUND_FLOOR))


def open_holding(folder: Path, dealt: Limits, *, must_exist: bool = False) -> Holding:
    """Return what a shard holds by its file, its part being what was dealt; raises StorageError.

    A file that `must_exist` and does not (its ledger was brought from elsewhere) leaves it in doubt
    what this shard gave away.
    """
    holding = read_holding(folder) or Holding(in_doubt=must_exist)
    part = parts_of(dealt)
    was = holding.part
    holding.settle_in(part)
    if was and was != part:
        # What is void now must stay so, whatever the manifest says the next time.
        holding.save(folder)
    return holding


def read_holding(folder: Path) -> Holding | None:
    """Return what a shard's file says, None where there is none; raises StorageError."""
    path = folder / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holding)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(
            f"{path}: cannot be read: {error}",
            hint="it says which part of the limits this shard gave away: restore it from a backup",
        ) from error
