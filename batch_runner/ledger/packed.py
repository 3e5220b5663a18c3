"""What is known of every job, the finished ones packed: 200 bytes each instead of 1,000.

Hides that a finished job is kept as MessagePack in one long buffer, found through two tables of
hashes: by its fingerprint, and by its key where that stands for it. What always holds: whoever
looks sees a plain JobState, equal to the one that was packed; a hash alone never decides, what is
found is compared with what was asked for; of several jobs that were packed while one key stood for
them, it stands for the last. Only `take` gives an object whose changes are kept: what
`get`, `[]`, and the iterators give of a finished job is a copy. Not promised: any order.
"""

from __future__ import annotations

from array import array
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from batch_runner.ledger.job import JobState, Phase
from batch_runner.records import SavedFile

_LENGTH_BYTES = 4
_DEAD = 1 << 31
_DONE = Phase.DONE

_Hex = Any
"""Text, or its bytes where it is hexadecimal; msgspec knows no type for either of the two."""

_File = tuple[int, str, int, _Hex, int]
"""How much of its path is the job's, the rest of it, size, SHA-256, media type."""


class _PackedFiles(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What of a finished job tells where its files are; the first fields, read without the rest."""

    path: str
    files: tuple[_File, ...]


class _Packed(_PackedFiles, array_like=True, frozen=True, gc=False):
    """A finished job's fields; what is the same in all of them is left out."""

    fingerprint: _Hex
    key: str
    model: int
    request_id: _Hex
    spent_usd: Decimal
    again: bool
    intent_offset_bytes: int
    copies: tuple[tuple[_File, ...], ...]


_encode = msgspec.msgpack.Encoder(decimal_format="string").encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_decode_files = msgspec.msgpack.Decoder(_PackedFiles).decode


class Jobs(Mapping[str, JobState]):
    """Every job of a ledger by its fingerprint, and which of them each key stood for last."""

    def __init__(self) -> None:
        self.open: dict[str, JobState] = {}
        self.names: dict[str, str] = {}  # what a key stands for, where the packed do not say it
        self._buffer = bytearray(1)  # nothing stands at 0: that marks what is not there
        self._by_fingerprint = _Table()
        self._by_key = _Table()
        self._packed = 0
        self._numbers = _Words()

    def __len__(self) -> int:
        return len(self.open) + self._packed

    def __contains__(self, fingerprint: object) -> bool:
        return fingerprint in self.open or self._find(str(fingerprint))[1] is not None

    def __iter__(self) -> Iterator[str]:
        for job in self.each():
            yield job.fingerprint

    def __getitem__(self, fingerprint: str) -> JobState:
        job = self.get(fingerprint)
        if job is None:
            raise KeyError(fingerprint)
        return job

    def __setitem__(self, fingerprint: str, job: JobState) -> None:
        self.take(fingerprint)
        self.open[fingerprint] = job

    def get(self, fingerprint: str) -> JobState | None:  # type: ignore[override]  # no default
        """Return what is known of a fingerprint, or None."""
        job = self.open.get(fingerprint)
        if job is None and self._packed:
            _, packed = self._find(fingerprint)
            return None if packed is None else self._unpacked(packed)
        return job

    def each(self) -> Iterator[JobState]:
        """Yield every job; the ledger must not change meanwhile."""
        yield from self.open.values()
        for line in self._lines():
            yield self._unpacked(_decode(line))

    def finished_files(self) -> Iterator[list[SavedFile]]:
        """Yield the files of each finished job; the ledger must not change meanwhile."""
        for line in self._lines():
            packed = _decode_files(line)
            yield [self._unpacked_file(packed.path, file) for file in packed.files]

    @property
    def finished(self) -> int:
        """Return how many jobs are packed: all of them are done."""
        return self._packed

    @property
    def buffer_bytes(self) -> int:
        """Return how much the packed ones take, without the tables by which they are found."""
        return len(self._buffer)

    def last_fingerprint(self, key: str) -> str | None:
        """Return the fingerprint that a key stood for last, or None."""
        found = self.names.get(key)
        if found is None and self._packed:
            # Of several, the one that was packed last: that is when the key stood for it.
            for offset in sorted(self._by_key.find(key), reverse=True):
                packed = self._read(offset)
                if packed.key == key:
                    return _text(packed.fingerprint)
        return found

    def is_last(self, job: JobState) -> bool:
        """Tell whether one of these jobs is what its key stood for last."""
        key, fingerprint = job.key, job.fingerprint
        if key not in self.names and fingerprint not in self.open:
            # It is packed; where both lead to one place and no other, it stands there.
            places = self._by_key.find(key)
            if len(places) == 1 and places == self._by_fingerprint.find(fingerprint):
                return True
        return self.last_fingerprint(key) == fingerprint

    def take(self, fingerprint: str) -> JobState | None:
        """Return a job to be changed, or None; `settle` puts it back once it is finished."""
        job = self.open.get(fingerprint)
        if job is not None or not self._packed:
            return job
        offset, packed = self._find(fingerprint)
        if packed is None:
            return None
        job = self.open[fingerprint] = self._unpacked(packed)
        if job.key not in self.names and self.last_fingerprint(job.key) == fingerprint:
            self.names[job.key] = fingerprint
        self._by_fingerprint.remove(fingerprint, offset)
        self._by_key.remove(job.key, offset)
        self._mark_dead(offset)
        self._packed -= 1
        return job

    def settle(self, job: JobState) -> None:
        """Pack a job of the open ones, if it is finished."""
        if (
            job.phase is not _DONE
            or job.reserved_usd is not None
            or job.reason is not None
            or job.message is not None
        ):
            return
        fingerprint, key, path, request_id = job.fingerprint, job.key, job.path, job.request_id
        pack = self._packed_files
        line = _encode(
            (
                path,
                pack(path, job.files),
                _hex(fingerprint),
                key,
                self._numbers[job.model],
                request_id and _hex(request_id),
                job.spent_usd,
                job.again,
                job.intent_offset_bytes,
                [pack(path, files) for files in job.copies] if job.copies else (),
            )
        )
        buffer = self._buffer
        offset = len(buffer)
        buffer += len(line).to_bytes(_LENGTH_BYTES, "little") + line
        self._by_fingerprint.add(fingerprint, offset)
        self._packed += 1
        del self.open[fingerprint]
        if self.names.get(key) == fingerprint:
            self._by_key.add_later(key, offset)
            del self.names[key]

    def _find(self, fingerprint: str) -> tuple[int, _Packed | None]:
        """Return a fingerprint's packed job, and where it stands."""
        for offset in self._by_fingerprint.find(fingerprint):
            packed = self._read(offset)
            if _text(packed.fingerprint) == fingerprint:
                return offset, packed
        return 0, None

    def _read(self, offset: int) -> _Packed:
        begin = offset + _LENGTH_BYTES
        length = int.from_bytes(self._buffer[offset:begin], "little")
        return _decode(self._buffer[begin : begin + length])

    def _lines(self) -> Iterator[bytearray]:
        buffer, end = self._buffer, 1
        while end < len(buffer):
            begin = end + _LENGTH_BYTES
            length = int.from_bytes(buffer[end:begin], "little")
            end = begin + (length & ~_DEAD)
            if not length & _DEAD:
                yield buffer[begin:end]

    def _mark_dead(self, offset: int) -> None:
        begin = offset + _LENGTH_BYTES
        length = int.from_bytes(self._buffer[offset:begin], "little")
        self._buffer[offset:begin] = (length | _DEAD).to_bytes(_LENGTH_BYTES, "little")

    def _unpacked(self, packed: _Packed) -> JobState:
        path, request_id = packed.path, packed.request_id
        return JobState(
            packed.key,
            _text(packed.fingerprint),
            phase=_DONE,
            path=path,
            model=self._numbers.words[packed.model],
            request_id=None if request_id is None else _text(request_id),
            spent_usd=packed.spent_usd,
            again=packed.again,
            intent_offset_bytes=packed.intent_offset_bytes,
            files=tuple([self._unpacked_file(path, file) for file in packed.files]),
            copies=tuple(
                [
                    tuple([self._unpacked_file(path, one) for one in files])
                    for files in packed.copies
                ]
            ),
        )

    def _packed_files(self, path: str, files: Iterable[SavedFile]) -> list[_File]:
        length, packed = len(path), []
        for file in files:
            name = file.path
            shared = length if name.startswith(path) else 0
            packed.append(
                (
                    shared,
                    name[shared:],
                    file.size_bytes,
                    _hex(file.sha256),
                    self._numbers[file.media_type],
                )
            )
        return packed

    def _unpacked_file(self, path: str, packed: _File) -> SavedFile:
        shared, rest, size_bytes, sha256, media_type = packed
        return SavedFile(
            path=path[:shared] + rest,
            size_bytes=size_bytes,
            sha256=_text(sha256),
            media_type=self._numbers.words[media_type],
        )


class _Words(dict[str, int]):
    """The numbers of the few words there are: models, media types."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self.words)
        self.words.append(word)
        return number


def _hex(text: str) -> str | bytes:
    """Return what is hexadecimal as bytes: half as long; anything else stays as it is."""
    try:
        packed = unhexlify(text)
    except ValueError:
        return text
    return packed if packed.hex() == text else text


def _text(packed: str | bytes) -> str:
    return packed if isinstance(packed, str) else packed.hex()


class _Table:
    """Offsets by the hashes of texts, open addressing: 16 bytes a place, two in five free.

    What is added later waits until somebody looks: then it is entered all at once.
    """

    def __init__(self) -> None:
        self._hashes = array("q", (0,)) * 1024
        self._offsets = array("q", (0,)) * 1024
        self._room = 1024 * 3 // 5
        self._waiting_hashes = array("q")
        self._waiting_offsets = array("q")

    def find(self, text: str) -> Sequence[int]:
        """Return the offsets under a text's hash: nearly always one, or none."""
        if self._waiting_hashes:
            self._enter_waiting()
        number = hash(text) or 1
        hashes = self._hashes
        mask = len(hashes) - 1
        place = number & mask
        offsets: Sequence[int] = ()
        while found := hashes[place]:
            if found == number and (offset := self._offsets[place]):
                offsets = (*offsets, offset)
            place = (place + 1) & mask
        return offsets

    def add(self, text: str, offset: int) -> None:
        """Add an offset under a text's hash."""
        if not self._room:
            self._make_room(1)
        self._room -= 1
        number = hash(text) or 1
        offsets = self._offsets
        mask = len(offsets) - 1
        place = number & mask
        while offsets[place]:
            place = (place + 1) & mask
        self._hashes[place] = number
        offsets[place] = offset

    def add_later(self, text: str, offset: int) -> None:
        """Add an offset under a text's hash, for less where nobody may ever look."""
        self._waiting_hashes.append(hash(text) or 1)
        self._waiting_offsets.append(offset)

    def remove(self, text: str, offset: int) -> None:
        """Remove an offset; its place stays taken until the table grows, for others pass by it."""
        if self._waiting_hashes:
            self._enter_waiting()
        number = hash(text) or 1
        mask = len(self._hashes) - 1
        place = number & mask
        while found := self._hashes[place]:
            if found == number and self._offsets[place] == offset:
                self._offsets[place] = 0
                return
            place = (place + 1) & mask

    def _enter_waiting(self) -> None:
        hashes, offsets = self._waiting_hashes, self._waiting_offsets
        self._waiting_hashes, self._waiting_offsets = array("q"), array("q")
        self._make_room(len(hashes))
        self._enter(hashes, offsets)

    def _make_room(self, count: int) -> None:
        """Grow, where there are not so many places free."""
        size = len(self._hashes)
        taken = size * 3 // 5 - self._room
        while size * 3 // 5 < taken + count:
            size *= 2
        if size > len(self._hashes):
            hashes, offsets = self._hashes, self._offsets
            self._hashes, self._offsets = array("q", (0,)) * size, array("q", (0,)) * size
            self._room = size * 3 // 5
            self._enter(hashes, offsets)

    def _enter(self, new_hashes: array[int], new_offsets: array[int]) -> None:
        # Written out, not by `add`: half of all that a table costs is its growing.
        hashes, offsets, mask = self._hashes, self._offsets, len(self._hashes) - 1
        for number, offset in zip(new_hashes, new_offsets, strict=True):
            if offset:
                place = number & mask
                while offsets[place]:
                    place = (place + 1) & mask
                hashes[place] = number
                offsets[place] = offset
                self._room -= 1
