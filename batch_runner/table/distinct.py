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
        self._count = 0
        self._make_room(1024)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> bool:
        """Add the text; True if it certainly is new, False if it may have been seen."""
        # As in `_place_of`, without the call: every job comes by here three times.
        number, slots, mask = hash(text) or 1, self._slots, self._mask
        place = number & mask
        while found := slots[place]:
            if found == number:
                return False
            place = (place + 1) & mask
        slots[place] = number
        self._count += 1
        if self._count > self._room:
            old = self._slots
            self._make_room(2 * len(old))
            for number in filter(None, old):
                self._slots[self._place_of(number)] = number
        return True

    def __contains__(self, text: str) -> bool:
        """Tell whether a text was added; a wrong True is as rare as two equal hashes."""
        return self._slots[self._place_of(hash(text) or 1)] != 0

    def _make_room(self, slots: int) -> None:
        # Zero marks a free slot, so no hash may be zero.
        self._slots = array("q", (0,)) * slots
        self._mask = slots - 1
        self._room = slots * 3 // 5

    def _place_of(self, number: int) -> int:
        """Return the slot that holds a hash, or else the free one for it."""
        slots, mask = self._slots, self._mask
        place = number & mask
        while (found := slots[place]) and found != number:
            place = (place + 1) & mask
        return place
