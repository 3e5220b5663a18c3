"""The hours in which submits may leave.

Hides time zones and nights that cross midnight. What always holds: what counts is the clock on the
wall of the window's time zone, also on the nights when it is put forward or back.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from batch_runner.manifest import Window


def is_open(window: Window | None, now: datetime) -> bool:
    """Tell whether the window is open at a moment (aware); no window is always open."""
    if window is None:
        return True
    zone = None if window.timezone is None else ZoneInfo(window.timezone)
    wall = now.astimezone(zone).time()
    if window.opens < window.closes:
        return window.opens <= wall < window.closes
    return wall >= window.opens or wall < window.closes
