"""Creating finals: the empty segment that ends a session, by its owner or by somebody else.

A final is created in the first gap of a session. It wins or loses against the owner's own object for
that slot by create-if-absent alone; no clock takes part in it. (RFC 0001 §3, §4.)
"""

from __future__ import annotations

from logstore.clock import StampClock
from logstore.errors import AlreadyExists, Missing
from logstore.frontier import OpenSession
from logstore.keys import segment_key
from logstore.looks import Looks
from logstore.objects import Objects
from logstore.segment import Segment, SegmentEncoder
from logstore.session import SessionId, Tip
from logstore.witness import is_witnessed

__all__ = ["create_final", "may_seal", "seal_silent"]


async def create_final(
    objects: Objects, stamps: StampClock, session: SessionId, tip: Tip, *, sealed: bool
) -> tuple[Segment, bool] | None:
    """Create a final at ``tip``; return what stands in that slot now, and whether it is this final.

    Another's is stamped right above the session's last: whoever seals makes the same object, and a sealer whose clock
    is off, who could open no session, moves nobody's stamps.
    None: somebody was there first and is gone again (the chapter was collected, or the store lost it); look again.
    Cost: one PUT; one GET more when somebody was first. Raises Unavailable (it may land yet), Corrupt.
    """
    stamps.merge(tip.stamp)
    data, final = SegmentEncoder().encode(
        session.segment_key(tip.slot),
        (),
        first_sequence=tip.sequence,
        stamp=tip.stamp + 1 if sealed else stamps.next(),
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
    objects.remember_segment(final)
    return final, True


async def may_seal(session: OpenSession, objects: Objects, looks: Looks) -> bool:
    """Whether the slot at the session's tip, absent just now, may be sealed; False: it is there after all, or retired.

    Cost: one GET per slot that may be in flight. Raises Missing when one of these, a tick or our own reading says that
    the slot was stored: the store has lost it, and a seal would void all that was acknowledged above it.
    """
    tip = session.tip
    if session.taken or session.named > tip.slot or await is_witnessed(session, objects):
        if await objects.segment(session.id.segment_key(tip.slot)) is not None or await looks.look(session.id.chapter):
            return False
        key = session.id.segment_key(tip.slot)
        name = segment_key(key.writer, key.chapter, key.session, key.slot)
        raise Missing(
            f"a stored segment is gone, its session is not sealed key={name};"
            " restore it, or `logstore copy --accept-loss`"
        )
    return True


async def seal_silent(session: OpenSession, objects: Objects, looks: Looks, stamps: StampClock) -> Segment | None:
    """Seal another's session at its tail; return the final, or None: it is not silent, has ended, or is retired.

    The caller has seen it silent for its seal time. Cost: two GETs per slot that may be in flight, and one PUT.
    Raises Missing when a tick, a later slot or our own reading says that the gap was stored; nothing is sealed then,
    unless the witness came while we sealed (the owner stored on, the store lost the slot, and we slept in between).
    """
    if await objects.segment(session.id.segment_key(session.tip.slot)) is not None:
        return None
    if not await may_seal(session, objects, looks) or await looks.retired(session.id.chapter):
        return None
    found = await create_final(objects, stamps, session.id, session.tip, sealed=True)
    if found is None or await looks.retired(session.id.chapter):
        return None
    final, ours = found
    if ours and await is_witnessed(session, objects):
        name = segment_key(final.key.writer, final.key.chapter, final.key.session, final.key.slot)
        raise Missing(f"a stored segment is gone, and what followed it is void now key={name}; run `logstore check`")
    return final if ours else None
