"""A clock that stands still until told otherwise."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """Both physical clocks of a machine, moved by hand.

    >>> clock = ManualClock(wall_ms=1_000)
    >>> clock.advance(5); clock.step(-100)
    >>> clock.wall_ms(), clock.elapsed_ms()
    (905, 5)
    """

    def __init__(self, *, wall_ms: int = 1_700_000_000_000, elapsed_ms: int = 0) -> None:
        self._wall_ms = wall_ms
        self._elapsed_ms = elapsed_ms

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._wall_ms

    def elapsed_ms(self) -> int:
        """Milliseconds that have passed."""
        return self._elapsed_ms

    def advance(self, ms: int) -> None:
        """Let ``ms`` milliseconds pass on both clocks."""
        assert ms >= 0
        self._wall_ms += ms
        self._elapsed_ms += ms

    def step(self, ms: int) -> None:
        """Set the wall clock ``ms`` milliseconds forward (or back); nothing passes."""
        self._wall_ms += ms
