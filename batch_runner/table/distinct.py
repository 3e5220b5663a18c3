"""Which texts were seen before, at 13 to 27 bytes each (40 for a moment, while it grows).

Hides an open-addressing table of 64-bit hashes. What always holds: a text that was added is never
called new again. Not promised: the opposite. Of a million texts, one pair in thirty million runs
shares a hash, so a caller must look again before it reports a text as seen.
"""

from __future__ import annotations

from array import array


class Distinct:
    """A set of texts that keeps only their hashes."""

    def __init__(self) -> None:
        self._slots = array("q", (0,)) * 1024
        self._count = 0
        self._mask = len(self._slots) - 1
        self._room = len(self._slots) * 3 // 5

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> bool:
        """Add the text; True if it certainly is new, False if it may have been seen."""
        # Zero marks a free slot, so no hash may be zero.
        number = hash(text) or 1
        slots, mask = self._slots, self._mask
        place = number & mask
        while found := slots[place]:
            if found == number:
                return False
            place = (place + 1) & mask
        slots[place] = number
        self._count += 1
        if self._count > self._room:
            self._grow()
        return True

    def __contains__(self, text: str) -> bool:
        """Tell whether a text was added; a wrong True is as rare as two equal hashes."""
        return self._slots[self._place_of(hash(text) or 1)] != 0

    def _place_of(self, number: int) -> int:
        """Return the slot that holds a hash, or else the free one for it."""
        place = number & self._mask
        while (found := self._slots[place]) and found != number:
            place = (place + 1) & self._mask
        return place

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("q", (0,)) * (2 * len(old))
        self._mask = len(self._slots) - 1
        self._room = len(self._slots) * 3 // 5
        for number in old:
            if number:
                self._slots[self._place_of(number)] = number
