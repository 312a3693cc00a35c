"""The `store` object: which store this is. docs/FORMAT.md §3. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from logstore.errors import InvalidArgument
from logstore.frame import DIGEST_BYTES, ObjectType, decode_fields, encode_fields
from logstore.keys import STORE

__all__ = ["HISTORIES", "Identity", "decode_identity", "encode_identity"]

HISTORIES: Final = ("full", "archive", "drop")
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What the store says about itself; ``digest`` is that of the object.

    ``origin``: in a copy, the digest of the first `store` object of all.
    """

    id: bytes
    created_ms: int
    grace_ms: int
    history: str
    ancestor: bytes | None
    digest: bytes = b""
    origin: bytes | None = None

    @property
    def root(self) -> bytes:
        """Where the roster's chain begins."""
        return self.digest if self.origin is None else self.origin

    @property
    def seal_ms_max(self) -> int:
        """The longest that anybody waits before sealing a session: none that keeps to FORMAT §3 says a longer time."""
        return self.grace_ms // 4


def encode_identity(identity: Identity) -> bytes:
    """Return the bytes of the `store` object."""
    if identity.history not in HISTORIES:
        raise InvalidArgument(f"no such history policy history={identity.history!r} known={HISTORIES}")
    return encode_fields(
        ObjectType.STORE,
        {
            "id": identity.id,
            "created_ms": identity.created_ms,
            "grace_ms": identity.grace_ms,
            "history": identity.history,
            "ancestor": identity.ancestor,
        }
        | ({} if identity.origin is None else {"root": identity.origin}),
    )


def decode_identity(data: bytes) -> Identity:
    """Decode the `store` object; Corrupt when it is damaged."""
    fields = decode_fields(STORE, data, ObjectType.STORE)
    history = fields.text("history")
    if history not in HISTORIES:
        raise fields.damaged("history")
    return Identity(
        id=fields.binary("id", ID_BYTES),
        created_ms=fields.number("created_ms"),
        grace_ms=fields.number("grace_ms"),
        history=history,
        ancestor=fields.binary("ancestor", ID_BYTES) if fields.given("ancestor") else None,
        digest=fields.digest,
        origin=fields.binary("root", DIGEST_BYTES) if fields.has("root") else None,
    )
