"""The question that ``Unknown`` leaves open, and how it is answered later.

A writer that could neither store a segment nor seal its session there does not know whether the segment
landed or will. The question names the slot and what we wrote to it. Anyone may answer it, in any process: walk
the session from what was acknowledged; in the first gap seal; what stands in the slot then is the truth.
"""

from __future__ import annotations

from typing import NamedTuple

from logstore.clock import StampClock
from logstore.entry import Open
from logstore.errors import Corrupt, InvalidArgument, Missing, NotStored
from logstore.frame import DIGEST_BYTES
from logstore.frontier import OpenSession
from logstore.keys import entry_key
from logstore.looks import Looks
from logstore.objects import Objects
from logstore.receipt import Receipt
from logstore.retired import Retired
from logstore.seal import create_final, may_seal
from logstore.session import SessionId, Tip
from logstore.token import decode_token, encode_token

__all__ = ["Question", "settle"]


class Question(NamedTuple):
    """Is the object of this digest what stands in this slot? If so, ``receipt`` is the answer."""

    receipt: Receipt
    digest: bytes

    def token(self) -> str:
        """The question as one line of text."""
        return encode_token("unknown", [list(self.receipt), self.digest])

    @classmethod
    def parse(cls, token: str) -> Question:
        """Return the question that ``token()`` wrote; InvalidArgument for any other text."""
        values = decode_token("unknown", token)
        match values:
            case [list(receipt), bytes(digest)] if len(digest) == DIGEST_BYTES:
                return cls(Receipt.from_values(receipt, token), digest)
            case _:
                raise InvalidArgument(f"not an unknown of this library unknown={token!r:.60}")


async def settle(question: Question, objects: Objects, stamps: StampClock, looks: Looks) -> Receipt:
    """Return the receipt if the events are stored; raise NotStored if they are not and never will be.

    Ends the session if a slot up to the one in question is absent. Cost: one GET per slot up to there; to end it as
    many GETs as it has flights, and one PUT. Raises Unavailable, Missing, Corrupt when the store cannot say.
    """
    receipt = question.receipt
    session = SessionId(receipt.chapter, receipt.session, receipt.writer)
    try:
        stored = await _is_stored(question, session, objects, stamps, looks)
    except (Corrupt, Missing):
        if await looks.look(session.chapter) is None:
            raise
        stored = None  # what lies in a retired chapter proves nothing, its damage neither
    if (record := await looks.retired(session.chapter)) is not None:
        stored = _was_stored(record, receipt)
    if stored is None:
        name = entry_key(session.chapter, session.number)
        raise Missing(f"cannot be settled: the session's open entry is gone key={name}; restore it")
    if not stored:
        raise NotStored(
            f"the events were never stored writer={receipt.writer} session={session[:2]} slot={receipt.slot}"
        )
    return receipt


def _was_stored(record: Retired, receipt: Receipt) -> bool:
    held = record.sessions.get(receipt.session)
    return held is not None and receipt.slot < held.slots


async def _is_stored(
    question: Question, session: SessionId, objects: Objects, stamps: StampClock, looks: Looks
) -> bool | None:
    opened = await objects.entry(session.chapter, session.number)
    if opened is None:
        return None
    if not isinstance(opened.body, Open) or opened.body.writer != session.writer:
        return False
    tip = Tip.of(opened)
    while tip.slot <= question.receipt.slot:
        segment = await objects.segment(session.segment_key(tip.slot))
        if segment is None:
            if not await may_seal(OpenSession(session, opened.body, tip), objects, looks):
                if await looks.retired(session.chapter) is not None:
                    return None
                continue
            sealed = await create_final(objects, stamps, session, tip, sealed=True)
            if sealed is None:
                return None
            segment, _ = sealed
        if segment.final:
            return False
        if tip.slot == question.receipt.slot:
            return segment.digest == question.digest
        tip = tip.after(segment)
    return False
