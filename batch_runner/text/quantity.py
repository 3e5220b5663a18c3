"""Numbers as people read them: counts with their noun, durations, rates. Pure."""

from __future__ import annotations

_DURATIONS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, as in "1,200 jobs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration_text(seconds: float) -> str:
    """Return a duration in its two greatest units, as in "1 h 05 min"."""
    whole = round(seconds)
    for unit, size_s, lesser, lesser_s in _DURATIONS:
        if whole >= size_s:
            rest = whole % size_s // lesser_s
            return f"{whole // size_s} {unit}" + (f" {rest:02d} {lesser}" if rest else "")
    return f"{whole} s"


def rate_text(rate_per_s: float) -> str:
    """Return a rate in the unit in which it is at least 1, as in "12/min"."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate_per_s * seconds >= 1:
            return f"{rate_per_s * seconds:.3g}/{unit}"
    return f"{rate_per_s * 3600:.3g}/h"
