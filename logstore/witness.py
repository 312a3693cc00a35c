"""Whether a slot that is absent was stored once: its neighbours above say so.

Each segment says which slots were stored for certain when it was built, and a writer is never more than its flights
ahead. So when a slot was lost, one of the next ``flights`` slots says that it had been there; unless those, the last of
the session, are gone too. (P12's exception.)
"""

from __future__ import annotations

import asyncio

from logstore.frontier import OpenSession
from logstore.objects import Objects

__all__ = ["is_witnessed"]


async def is_witnessed(session: OpenSession, objects: Objects) -> bool:
    """Whether one of the next slots says that the one at the session's tip, absent just now, was stored.

    A final says so of all below it. True is no proof yet: the slot may have come meanwhile, or its chapter be retired.
    Cost: one GET per flight of the session.
    """
    slot = session.tip.slot
    beyond = [session.id.segment_key(slot + ahead) for ahead in range(1, session.opened.flights + 1)]
    witnesses = await asyncio.gather(*map(objects.segment, beyond))
    return any(witness is not None and witness.acknowledged > slot for witness in witnesses)
