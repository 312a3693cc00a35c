"""Claims: that a document's creation is one process's, and what it creates. docs/FORMAT.md §16. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from logstore.errors import Corrupt
from logstore.event import NAME_BYTES_MAX, Data, Event, EventEncoder, decode_data
from logstore.frame import ObjectType, decode_fields, encode_fields
from logstore.keys import NONCE_BYTES, NUMBER_MAX, ClaimKey, claim_key

__all__ = ["Claim", "decode_claim", "encode_claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """That ``claimant``, a writer, creates a document by an event of ``type``, stamped ``last_stamp`` or lower.

    ``id``: chosen at random, tells its claimant that it is its own.
    """

    key: ClaimKey
    id: bytes
    claimant: str
    last_stamp: int
    type: str
    data: Data
    meta: Data

    def event(self) -> Event:
        """The event that whoever meets the claim appends."""
        return Event(self.key.kind, self.key.key, self.type, self.data, self.meta)


def encode_claim(claim: Claim) -> bytes:
    """Return the bytes of a claim. Raises InvalidArgument for an event that cannot be stored."""
    encoder = EventEncoder()
    *_, payload, meta = encoder.encode(claim.event())
    return encode_fields(
        ObjectType.CLAIM,
        {
            "kind": claim.key.kind,
            "document": claim.key.key,
            "number": claim.key.number,
            "id": claim.id,
            "claimant": claim.claimant,
            "last_stamp": claim.last_stamp,
            "type": claim.type,
            "data": payload,
            "meta": meta,
        },
    )


def decode_claim(key: ClaimKey, data: bytes) -> Claim:
    """Decode the claim found under ``key``; Corrupt, naming it, when it is anything else."""
    name = claim_key(key)
    fields = decode_fields(name, data, ObjectType.CLAIM)
    if (fields.text("kind"), fields.text("document"), fields.number("number", NUMBER_MAX)) != (
        key.kind,
        key.key,
        key.number,
    ):
        raise Corrupt(f"claim lies under another's name key={name}; restore the object")
    type_ = fields.text("type")
    if not 1 <= len(type_.encode()) <= NAME_BYTES_MAX:
        raise fields.damaged("type")
    return Claim(
        key,
        fields.binary("id", NONCE_BYTES),
        fields.text("claimant"),
        fields.number("last_stamp"),
        type_,
        decode_data(fields.binary("data"), name) or {},
        decode_data(fields.binary("meta"), name) or {},
    )
