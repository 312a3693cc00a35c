"""The claims of a log: found and taken. What they decide is in ``projections/claims.py``.

Invariants:
- Of all who take a number of a key exactly one has it, for ever: claims are never deleted.
"""

from __future__ import annotations

import random

from logstore.claim import Claim, decode_claim, encode_claim
from logstore.clock import COUNTER_BITS, StampClock
from logstore.errors import AlreadyExists, Missing
from logstore.event import Event
from logstore.keys import NONCE_BYTES, ClaimKey, claim_key
from logstore.objects import Objects
from logstore.roster import gallop

__all__ = ["Claims"]


class Claims:
    """Where the processes that use one log agree who creates what."""

    def __init__(self, objects: Objects, stamps: StampClock, rng: random.Random, grace_ms: int) -> None:
        self._objects = objects
        self._stamps = stamps
        self._rng = rng
        self._lasts = grace_ms // 2 << COUNTER_BITS

    def last_stamp(self) -> int:
        """Up to which stamp the event of a claim counts that is decided now. Cost: none. Raises ClockSkew."""
        return self._stamps.next() + self._lasts

    def may_count(self, claim: Claim) -> bool:
        """Whether an event appended from now on may be stamped low enough for the claim. Cost: none."""
        return max(self._stamps.last, self._stamps.physical_ms() << COUNTER_BITS) < claim.last_stamp

    async def find(self, key: ClaimKey) -> Claim | None:
        """The claim that has a number, or None. Cost: one GET. Raises Corrupt, Unavailable."""
        blob = await self._objects.get(claim_key(key))
        return None if blob is None else decode_claim(key, blob.data)

    async def newest(self, kind: str, key: str, first: int) -> Claim | None:
        """The claim with the highest number, from ``first`` on; None: there is none. Cost: 1 GET + 2·log2 of them."""
        found = await gallop(lambda number: self.find(ClaimKey(kind, key, number)), first)
        return None if found is None else found[1]

    async def take(self, key: ClaimKey, claimant: str, event: Event, last_stamp: int) -> Claim | None:
        """Claim a number for an event; None: another has it. Cost: one PUT; one GET where the answer was unclear.

        Raises Unavailable: it may be ours, or become so, which ``newest`` tells; InvalidArgument.
        """
        id_ = self._rng.randbytes(NONCE_BYTES)
        claim = Claim(key, id_, claimant, last_stamp, event.type, event.data or {}, event.meta or {})
        try:
            await self._objects.create(claim_key(key), encode_claim(claim))
        except AlreadyExists:
            there = await self.find(key)
            if there is None:
                raise Missing(f"a claim is gone right after its creation key={claim_key(key)}; restore it") from None
            return claim if there.id == claim.id else None
        return claim
