"""What a reading has taken in above its watermark, so as to tell where it stood at a stamp. Pure.

A reading may be far above a snapshot point by the time that the watermark reaches it, in some sessions and not in
others. What it has read since does not show in the position that a snapshot gives: two processes that write the
snapshot of one point must agree (docs/FORMAT.md §8, ``sessions``).

Invariants:
- ``cut`` is a function of the log and the stamp: how far the reading has got does not show.
- Kept are, beside the sessions that may go on, the entries above the last cut and the tips above what is settled.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile

from logstore.entry import Address, Entry, Open, Tick
from logstore.frontier import Position, SessionPosition
from logstore.segment import Segment
from logstore.session import Tip

__all__ = ["SettledTrail"]


class SettledTrail:
    """Told of everything that is taken in; asked where the reading stood at a stamp that the watermark has reached."""

    def __init__(self, position: Position) -> None:
        self._store_id = position.store_id
        self._last: tuple[Address, bytes] | None = None if position.last is None else (position.last, position.digest)
        self._tips = {(session.chapter, session.number): session.tip for session in position.sessions}
        self._entries: deque[Entry] = deque()  # above the last cut
        self._later: dict[Address, deque[Tip]] = {}  # of each session, after each slot that is no final
        self._settled = 0

    def __repr__(self) -> str:
        return f"<SettledTrail sessions={len(self._tips)} entries={len(self._entries)}>"

    # Being told

    def take_entry(self, entry: Entry) -> None:
        """The reading has taken in a roster entry."""
        self._entries.append(entry)

    def take_segment(self, segment: Segment, tip: Tip) -> None:
        """The reading has taken in a segment, and its session stands at ``tip``."""
        if not segment.final:
            later = self._later.setdefault((segment.key.chapter, segment.key.session), deque())
            later.append(tip)
            while len(later) > 1 and later[1].stamp <= self._settled:
                later.popleft()

    def settle(self, stamp: int) -> None:
        """Cuts to come are at or above ``stamp``: a long reading need not keep what only earlier ones would need."""
        self._settled = stamp

    # Being asked

    def points(self, stamp: int) -> list[Entry]:
        """The snapshot points above the last cut and at or below ``stamp``, in order. Cost: O(entries there)."""
        below = takewhile(lambda entry: entry.stamp <= stamp, self._entries)
        return [entry for entry in below if isinstance(entry.body, Tick) and entry.body.point is not None]

    def cut(self, stamp: int) -> Position:
        """Where the reading stood at ``stamp``, to which the reading's watermark has come. Later cuts are above it.

        Cost: O(sessions that may go on, and what lies between the cuts).
        """
        while self._entries and self._entries[0].stamp <= stamp:
            entry = self._entries.popleft()
            self._last = (entry.address, entry.digest)
            if isinstance(entry.body, Open) and entry.valid:
                self._tips[entry.address] = Tip.of(entry)
        for address, tip in list(self._tips.items()):
            later = self._later.get(address, ())
            while later and later[0].stamp <= stamp:
                tip = self._tips[address] = later.popleft()  # noqa: PLW2901
            if not later:
                self._later.pop(address, None)
                if tip.stamp < stamp:  # then it was seen to end, or it would hold the watermark below the stamp
                    del self._tips[address]
        sessions = tuple(SessionPosition(*address, tip, 0) for address, tip in sorted(self._tips.items()))
        if self._last is None:
            return Position(self._store_id, None, b"", ())
        return Position(self._store_id, *self._last, sessions)
