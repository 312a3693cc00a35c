"""Which indices are stored, as ranges. Pure.

A process usually writes one block after the other, so that all the indices of a stage log are a range or a few. What
lies below ``known_from`` a set may leave open: who begins at the end of a stage log knows its last range, and reads
back only if somebody asks for what lies before it.

Invariants:
- Ranges are ascending, not empty, and neither overlap nor touch.
- At and above ``known_from`` the set is exact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

__all__ = ["Indices"]


class Indices:
    """A set of integers of at least 0.

    >>> stored = Indices()
    >>> stored.add([4, 5, 6, 9])
    >>> 5 in stored, 7 in stored, stored.last
    (True, False, (9, 10))
    """

    def __init__(self, known_from: int = 0) -> None:
        self.known_from = known_from
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __repr__(self) -> str:
        return f"<Indices ranges={len(self._starts)} last={self.last} known_from={self.known_from}>"

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self._starts, index)
        return at > 0 and index < self._stops[at - 1]

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    @property
    def last(self) -> tuple[int, int]:
        """The last range: its first index, and the one behind it; (0, 0) where there is none."""
        return (self._starts[-1], self._stops[-1]) if self._starts else (0, 0)

    def copy(self) -> Indices:
        """Another with the same in it. Cost: O(ranges)."""
        copied = Indices(self.known_from)
        copied._starts, copied._stops = self._starts[:], self._stops[:]
        return copied

    def add(self, indices: Iterable[int]) -> None:
        """Take in ascending indices. Cost: O(indices); for each range O(log ranges), and moving references."""
        start = stop = -1
        for index in indices:
            if index != stop:
                self._add_range(start, stop)
                start = index
            stop = index + 1
        self._add_range(start, stop)

    def add_last(self, first: int, stop: int) -> None:
        """Take in that the last range is from ``first`` to ``stop`` - 1; that much is known then. Cost: as ``add``."""
        self._add_range(first, stop)
        self.known_from = min(self.known_from, first)

    def _add_range(self, start: int, stop: int) -> None:
        if start == stop:
            return
        first, behind = bisect_left(self._stops, start), bisect_right(self._starts, stop)  # those that it touches
        if first < behind:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[behind - 1])
        self._starts[first:behind], self._stops[first:behind] = [start], [stop]

    def forget(self, ranges_max: int) -> None:
        """Keep the last ranges only; nothing is known of the others any more."""
        excess = len(self._starts) - ranges_max
        if excess > 0:
            del self._starts[:excess], self._stops[:excess]
            self.known_from = max(self.known_from, self._starts[0])

    def _check(self) -> None:
        assert len(self._starts) == len(self._stops)
        ends = [end for both in zip(self._starts, self._stops, strict=True) for end in both]
        assert all(before < after for before, after in pairwise(ends)), "ascending, none touch"
