"""Creating finals: the empty segment that ends a session, by its owner or by somebody else.

A final is created in the first gap of a session. It wins or loses against the owner's own object for
that slot by create-if-absent alone; no clock takes part in it. (RFC 0001 §3, §4.)
"""

from __future__ import annotations

from logstore.clock import StampClock
from logstore.errors import AlreadyExists
from logstore.keys import segment_key
from logstore.objects import Objects
from logstore.segment import Segment, SegmentEncoder
from logstore.session import SessionId, Tip

__all__ = ["create_final"]


async def create_final(
    objects: Objects, stamps: StampClock, session: SessionId, tip: Tip, *, sealed: bool
) -> tuple[Segment, bool] | None:
    """Create a final at ``tip``; return what stands in that slot now, and whether it is this final.

    None: somebody was there first and is gone again (the chapter was collected, or the store lost it); look again.
    Cost: one PUT; one GET more when somebody was first. Raises Unavailable (it may land yet), Corrupt.
    """
    stamps.merge(tip.stamp)
    data, final = SegmentEncoder().encode(
        session.segment_key(tip.slot),
        (),
        first_sequence=tip.sequence,
        first_stamp=stamps.next(),
        acknowledged=tip.slot,
        previous=tip.digest,
        final=True,
        sealed=sealed,
    )
    key = final.key
    try:
        await objects.create(segment_key(key.writer, key.chapter, key.session, key.slot), data)
    except AlreadyExists:
        found = await objects.segment(key)
        return None if found is None else (found, found.digest == final.digest)
    objects.remember_segment(final, len(data))
    return final, True
