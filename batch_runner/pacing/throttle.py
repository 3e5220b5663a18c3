"""At most so many calls in any window of a rate's length.

Hides the arithmetic of rates, and a margin because networks bunch calls. Always holds: no window of
the rate's length contains more departures than its count. Not promised: limits across several
processes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from batch_runner.manifest.form import Rate

# Calls take varying times to arrive, so the window is kept a little longer here than the service
# measures it: this costs at most two per cent of the rate.
_WINDOW_MARGIN = 0.02
_WINDOW_MARGIN_LIMIT_S = 0.1
_CATCH_UP_S = 0.25


class Throttle:
    """At most `count` calls in any window, evenly spread. Pure arithmetic on given moments.

    `share` (0 to 1) slows the pace below the limit.
    """

    def __init__(self, rate: Rate) -> None:
        margin_s = min(rate.window_s * _WINDOW_MARGIN, _WINDOW_MARGIN_LIMIT_S)
        self._window_s = rate.window_s + margin_s
        self._count = rate.count
        # Turns are spread over the whole window. If they were closer, submits would pile up between
        # their record on the disk and their departure, and a kill would make them all unknown.
        self._spacing_s = self._window_s / rate.count
        self._left: deque[float] = deque(maxlen=rate.count)
        self._next = float("-inf")
        self.share = 1.0

    def turn_in_s(self, now: float) -> float:
        """Return how long the next call must wait for its turn; 0 or less: it may start."""
        return self._next - now

    def take_turn(self, now: float) -> None:
        """Count a call that begins now; the next is due one spacing later.

        Up to a quarter of a second of delay is caught up, because timers are always a little late
        and that would add up to a lower rate. After an idle window nothing is caught up.
        """
        spacing_s = self._spacing_s / self.share
        was_idle = now - self._next > self._window_s
        catch_up_s = 0.0 if was_idle else _CATCH_UP_S
        self._next = max(self._next, now - catch_up_s) + spacing_s

    def leave_in_s(self, now: float) -> float:
        """Return how long a call that had its turn must still wait so that the limit holds."""
        if len(self._left) < self._count:
            return 0.0
        return self._left[0] + self._window_s - now

    def leave(self, now: float) -> None:
        """Count a call that leaves now."""
        self._left.append(now)

    def remember(self, left: Iterable[float]) -> None:
        """Count earlier calls, in order, so that an hourly limit outlives a restart."""
        for moment in left:
            self._left.append(moment)
            self._next = moment + self._spacing_s
