"""Pins: that somebody still needs chapters, for a while. docs/FORMAT.md §10. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from logstore.errors import Corrupt
from logstore.frame import ObjectType, decode_fields, encode_fields
from logstore.keys import NONCE_BYTES, NUMBER_MAX, PinKey, pin_key

__all__ = ["PinRecord", "decode_pin", "encode_pin"]


@dataclass(frozen=True, slots=True)
class PinRecord:
    """That ``owner`` needs ``chapter`` and those after it until ``expires_ms``, Unix milliseconds by the store."""

    key: PinKey
    owner: str
    chapter: int
    expires_ms: int


def encode_pin(pin: PinRecord) -> bytes:
    """Return the bytes of a pin."""
    return encode_fields(
        ObjectType.PIN,
        {
            "id": pin.key.id,
            "number": pin.key.number,
            "owner": pin.owner,
            "chapter": pin.chapter,
            "expires_ms": pin.expires_ms,
        },
    )


def decode_pin(key: PinKey, data: bytes) -> PinRecord:
    """Decode the pin found under ``key``; Corrupt, naming it, when it is anything else."""
    name = pin_key(key)
    fields = decode_fields(name, data, ObjectType.PIN)
    if (fields.binary("id", NONCE_BYTES), fields.number("number", NUMBER_MAX)) != (key.id, key.number):
        raise Corrupt(f"pin lies under another's name key={name}; restore the object")
    return PinRecord(key, fields.text("owner"), fields.number("chapter", NUMBER_MAX), fields.number("expires_ms"))
