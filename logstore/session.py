"""A session as everybody sees it: where it lies, and where its next segment must attach. Pure.

Writers, readers and sealers all follow a session by its *tip*. Taking in a segment moves the tip;
a segment that does not attach to it is damage.

Invariants:
- A tip moves over slots one by one, and never past a final.
- Sequence numbers and stamps go on from segment to segment; each holds the digest of the one before.
"""

from __future__ import annotations

from typing import NamedTuple

from logstore.entry import Entry, Open
from logstore.errors import Corrupt
from logstore.keys import SegmentKey, segment_key
from logstore.segment import Segment

__all__ = ["SessionId", "Tip"]


class SessionId(NamedTuple):
    """A session's number, as its open entry's address, and its writer's name. Compares in the order of opening."""

    chapter: int
    number: int
    writer: str

    def segment_key(self, slot: int) -> SegmentKey:
        """The key of one of its slots."""
        return SegmentKey(self.writer, self.chapter, self.number, slot)

    @classmethod
    def of(cls, opened: Entry) -> SessionId:
        """The session that an open entry opens."""
        assert isinstance(opened.body, Open)
        return cls(opened.chapter, opened.number, opened.body.writer)


class Tip(NamedTuple):
    """Where the next segment attaches: its slot and first sequence number, the last stamp and digest before it."""

    slot: int
    sequence: int
    stamp: int
    digest: bytes

    @classmethod
    def of(cls, opened: Entry) -> Tip:
        """The tip of a session of which nothing but the open entry is known."""
        return cls(0, 0, opened.stamp, opened.digest)

    def after(self, segment: Segment) -> Tip:
        """The tip once ``segment`` is taken in; Corrupt, naming it, when it does not attach here."""
        key = segment.key
        assert key.slot == self.slot, "slots are taken in one by one"
        found = (segment.previous, segment.first_sequence)
        if found != (self.digest, self.sequence) or segment.stamp <= self.stamp:
            name = segment_key(key.writer, key.chapter, key.session, key.slot)
            raise Corrupt(
                f"segment does not follow the one before it key={name} sequence={segment.first_sequence}"
                f" want={self.sequence} stamp={segment.stamp} above={self.stamp}; run `logstore check`"
            )
        return Tip(self.slot + 1, self.sequence + segment.count, segment.stamp, segment.digest)
