"""What a job's input is, however its pictures are reached: the names that fingerprints are made of.

Hides how addresses are named without their signatures, and by earlier releases. What always holds:
inputs that differ in their addresses share no fingerprint within one batch, though what tells them
apart looks like a signature. Not promised: the same between two versions of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from batch_runner.jobs.picture import Picture
from batch_runner.records import fingerprint, former_identity
from batch_runner.table.distinct import Distinct
from batch_runner.text.address import unsigned_url


class Sent(msgspec.Struct, frozen=True):
    """What is sent, and the same under each of the pictures' names (see `Picture.names`).

    Without `names` nothing in it is signed, and no picture is a file; `is_named` tells that the
    manifest says what a picture is.
    """

    input: dict[str, Any]
    names: tuple[dict[str, Any], ...] = ()
    is_named: bool = False


class Fingerprints:
    """Gives jobs their fingerprints; `find_shared` returns those that no job may have."""

    def __init__(self, find_shared: Callable[[], Distinct]) -> None:
        self._find_shared = find_shared
        self._shared: Distinct | None = None

    def of(self, model_id: str, sent: Sent, repeat: int) -> tuple[str, tuple[str, ...]]:
        """Return a job's fingerprint, and others by which a ledger may know it.

        No fingerprint counts that jobs with different addresses would share: what looks like a
        signature tells their pictures apart. Then the addresses count as they are written.
        """
        if not sent.names:
            return fingerprint(model_id, sent.input, repeat), ()
        own, *others = _numbers(model_id, sent, repeat)
        if not others:
            return own, ()
        if self._shared is None:
            self._shared = self._find_shared()
        if own in self._shared:
            own = others[-1]
        return own, tuple(one for one in others if one != own and one not in self._shared)


class Merging(Fingerprints):
    """Finds the fingerprints that jobs with different addresses would share.

    It keeps hashes only, so that memory hardly grows with the jobs.
    """

    def __init__(self) -> None:
        super().__init__(Distinct)
        self.shared = Distinct()
        self._seen = Distinct()
        self._pairs = Distinct()

    def of(self, model_id: str, sent: Sent, repeat: int) -> tuple[str, tuple[str, ...]]:
        """Note all fingerprints of a job."""
        numbers = _numbers(model_id, sent, repeat)
        of = numbers[0] if sent.is_named else numbers[-1]
        for number in numbers:
            is_new_pair = self._pairs.add(number + of)
            if not self._seen.add(number) and is_new_pair:
                self.shared.add(number)
        return numbers[0], ()


def _numbers(model_id: str, sent: Sent, repeat: int) -> list[str]:
    names = sent.names or (sent.input,)
    return list(dict.fromkeys([fingerprint(model_id, name, repeat) for name in names]))


def sent(
    input_: dict[str, Any],
    inputs: Mapping[str, Any],
    pictures: Sequence[Picture],
    place: Callable[[list[str]], dict[str, Any]],
    *,
    may_hold_url: bool,
) -> Sent:
    """Return what is sent with its names; `place` puts prompt and pictures beside `inputs`.

    `may_hold_url` is what `holds_url` says of the inputs.
    """
    columns = tuple(zip(*(picture.names for picture in pictures), strict=True))
    # Without pictures the names are those of the inputs alone. Equal ones are made once.
    made: dict[object, dict[str, Any]] = {}
    for renamed, column in zip(_RENAMED, columns or [()] * 4, strict=True):
        key = (column, renamed) if may_hold_url else column
        if key not in made:
            made[key] = _with_addresses(inputs, renamed) | place(list(column))
    return Sent(input_, tuple(made.values()), any(picture.is_named for picture in pictures))


def holds_url(inputs: Mapping[str, Any]) -> bool:
    """Tell whether inputs may hold a URL: any that is more than a word or a number may."""
    return any(
        "://" in value if isinstance(value, str) else isinstance(value, list | dict)
        for value in inputs.values()
    )


def _with_addresses(value: Any, renamed: Callable[[str], str]) -> Any:
    """Return inputs with every address in them renamed."""
    if isinstance(value, str):
        return renamed(value) if value[:8].lower() == "https://" else value
    if isinstance(value, list):
        return [_with_addresses(item, renamed) for item in value]
    if isinstance(value, dict):
        return {name: _with_addresses(item, renamed) for name, item in value.items()}
    return value


_RENAMED: tuple[Callable[[str], str], ...] = (unsigned_url, unsigned_url, former_identity, str)
"""How addresses among the inputs are named if pictures have the names of `Picture.names`."""
