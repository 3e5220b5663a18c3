"""The hours in which submits may leave.

Hides time zones and nights that cross midnight. Always holds: the wall clock of the window's time
zone counts, also on the nights when clocks change.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo

from batch_runner.manifest.form import Window


def is_open(window: Window | None, now: datetime) -> bool:
    """Return whether the window is open at an aware moment; without a window, always."""
    if window is None:
        return True
    wall = now.astimezone(_zone(window.timezone)).time()
    if window.opens < window.closes:
        return window.opens <= wall < window.closes
    return wall >= window.opens or wall < window.closes


def opening_text(window: Window, now: datetime) -> str:
    """Return when a closed window opens next, with its time zone."""
    opening = next_time(window.opens, window.timezone, now)
    return f"{opening:%Y-%m-%d %H:%M} {window.timezone or f'{opening:%Z}, the time here'}"


def window_text(window: Window, now: datetime) -> str:
    """Return a window for people to read, and whether it is open."""
    zone = window.timezone or f"{now.astimezone():%Z}, the time here"
    state = "open now" if is_open(window, now) else f"closed until {opening_text(window, now)}"
    return f"{window.opens:%H:%M}-{window.closes:%H:%M} {zone}, {state}"


def next_time(at: time, timezone: str | None, now: datetime) -> datetime:
    """Return the next moment after `now` (aware) at which the wall clock shows `at`.

    If clocks skip that time in spring, the moment is as long after midnight as usual; if it comes
    twice in autumn, the first counts.
    """
    zone = _zone(timezone)
    wall = now.astimezone(zone)
    for days in (0, 1, 2):
        day = wall.date() + timedelta(days=days)
        naive = datetime.combine(day, at)
        # Without a zone it is the machine's: astimezone() reads a naive time as local.
        moment = naive.astimezone() if zone is None else naive.replace(tzinfo=zone)
        # The detour through UTC turns a skipped time into the one that clocks show instead.
        moment = moment.astimezone(UTC).astimezone(zone)
        if moment > now:
            return moment
    raise AssertionError("a day has passed, and the clock has not shown the time")


def night_of(moment: datetime, window: Window | None) -> datetime:
    """Return when the night of a moment began: when the window opened, or at noon without one."""
    opens, timezone = (window.opens, window.timezone) if window else (time(12), None)
    began = next_time(opens, timezone, moment - timedelta(hours=26))
    while (following := next_time(opens, timezone, began)) <= moment:
        began = following
    return began


def _zone(name: str | None) -> tzinfo | None:
    """Return a time zone by its name; None is this machine's."""
    if name is None:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most batches have no window

    return ZoneInfo(name)
