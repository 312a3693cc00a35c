"""Time: physical clocks, and the stamps that order events.

A *stamp* is a hybrid logical clock in one integer: 48 bits of Unix milliseconds, then 16 bits
that count on when the milliseconds stand still; incremented as one integer, so that a full
counter simply borrows the next millisecond. A process owns one ``StampClock``; everything it
reads is merged into it, so what it writes afterwards is ordered afterwards (causality).

Two physical clocks feed it. The *wall* clock tells the date and may be set or step at any
time; the *elapsed* clock only ever goes on, through suspension too. Between two comparisons
with the store the date is carried on by the elapsed clock, so a stepping wall clock cannot push
stamps; at each comparison it is read anew and judged.

Invariants:
- Stamps handed out by one StampClock strictly increase and exceed every stamp merged before.
- A wall clock further than ``SKEW_MS_MAX`` from the store's never stamps a roster entry.
"""

from __future__ import annotations

import time
from typing import Protocol

from logstore.errors import ClockSkew

__all__ = ["COUNTER_BITS", "STAMP_MAX", "Clock", "StampClock", "SystemClock", "stamp_ms"]

COUNTER_BITS = 16
STAMP_MAX = (1 << 64) - 1
SKEW_MS_MAX = 5_000  # beyond this a machine's time is broken, not drifting
MEASUREMENT_ERROR_MS = 2_000  # an HTTP Date has whole seconds, and an answer takes its time


class Clock(Protocol):
    """The two physical clocks of a machine. Pass ``logstore.testing.ManualClock`` to own the time."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as this machine believes it to be."""
        ...

    def elapsed_ms(self) -> int:
        """Milliseconds since some fixed moment; never steps, and counts suspension."""
        ...


_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux: only BOOTTIME counts suspension


class SystemClock:
    """The machine's own clocks.

    >>> clock = SystemClock()
    >>> earlier = clock.elapsed_ms()
    >>> clock.elapsed_ms() >= earlier
    True
    """

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> int:
        """Milliseconds since boot, suspension included where the system can tell."""
        return time.clock_gettime_ns(_ELAPSED) // 1_000_000


def stamp_ms(stamp: int) -> int:
    """Return the Unix milliseconds in a stamp.

    >>> stamp_ms(5 << 16 | 7)
    5
    """
    return stamp >> COUNTER_BITS


class StampClock:
    """Hands out strictly increasing stamps near the store's time.

    >>> from logstore.testing import ManualClock
    >>> clock = StampClock(ManualClock(wall_ms=1_000))
    >>> clock.next() == 1_000 << 16, clock.next() == (1_000 << 16) + 1
    (True, True)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._wall_minus_elapsed_ms = clock.wall_ms() - clock.elapsed_ms()
        self._offset_ms = 0
        self._skew_ms = 0

    def __repr__(self) -> str:
        return f"<StampClock last={self._last} offset_ms={self._offset_ms} skew_ms={self._skew_ms}>"

    @property
    def last(self) -> int:
        """The greatest stamp handed out or merged so far."""
        return self._last

    @property
    def skew_ms(self) -> int:
        """How far the store's clock was ahead of the wall clock at the last comparison."""
        return self._skew_ms

    def physical_ms(self) -> int:
        """Unix milliseconds, carried on by the elapsed clock since the last comparison."""
        return self._clock.elapsed_ms() + self._wall_minus_elapsed_ms + self._offset_ms

    def compare(self, store_ms: int, took_ms: int) -> None:
        """Judge the wall clock by the store's time in an answer *just* received, ``took_ms`` after it was asked for.

        The store read its clock somewhere in between (a paused process may get its answer late), so of the
        differences that are possible the smallest counts. Within the error of measurement it is noise and ignored.
        """
        wall_ms, elapsed_ms = self._clock.wall_ms(), self._clock.elapsed_ms()
        least, most = store_ms - wall_ms, store_ms - wall_ms + took_ms
        self._skew_ms = least if least > 0 else min(most, 0)
        if abs(self._skew_ms) <= SKEW_MS_MAX:
            self._wall_minus_elapsed_ms = wall_ms - elapsed_ms
            self._offset_ms = self._skew_ms if abs(self._skew_ms) > MEASUREMENT_ERROR_MS else 0

    def require_sane(self) -> None:
        """Raise ClockSkew when the last comparison found the wall clock beyond the bound."""
        if abs(self._skew_ms) > SKEW_MS_MAX:
            raise ClockSkew(
                f"this machine's clock and the store's differ skew_ms={self._skew_ms} bound_ms={SKEW_MS_MAX};"
                " repair its time synchronisation"
            )

    def merge(self, stamp: int) -> None:
        """Never again hand out ``stamp`` or anything below it."""
        if stamp > self._last:
            self._last = stamp

    def next(self) -> int:
        """Take the next stamp. Raises ClockSkew when the log's stamps are used up."""
        stamp = max(self._last + 1, self.physical_ms() << COUNTER_BITS)
        if stamp > STAMP_MAX:
            raise ClockSkew(
                f"something read from the log is stamped at the end of time stamp={self._last}; run `logstore check`"
            )
        self._last = stamp
        return stamp
