"""Registrations: which folds are in use, so that retention heeds them. docs/FORMAT.md §8. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgpack

from logstore.errors import Corrupt
from logstore.frame import ObjectType, decode_fields, encode_fields
from logstore.keys import FINGERPRINT_BYTES, NUMBER_MAX, Fold, RegistrationKey, registration_key

__all__ = ["Registration", "decode_registration", "encode_registration"]


@dataclass(frozen=True, slots=True)
class Registration:
    """That a projection is in use, or, not ``registered``, that it is not any more."""

    projection: str
    version: int
    kinds: tuple[str, ...]
    fold: str
    tag: str
    registered: bool = True

    @property
    def key(self) -> Fold:
        """What names its snapshots: another fold never meets them."""
        computed = msgpack.packb(
            [self.projection, self.version, sorted(self.kinds, key=str.encode), self.fold, self.tag]
        )
        return Fold(self.projection, self.version, hashlib.sha256(computed).digest()[:FINGERPRINT_BYTES])


def encode_registration(number: int, registration: Registration) -> bytes:
    """Return the bytes of registration ``number`` of its fold."""
    return encode_fields(
        ObjectType.REGISTRATION,
        {
            "registered": registration.registered,
            "number": number,
            "projection": registration.projection,
            "version": registration.version,
            "kinds": sorted(registration.kinds, key=str.encode),
            "fold": registration.fold,
            "tag": registration.tag,
        },
    )


def decode_registration(key: RegistrationKey, data: bytes) -> Registration:
    """Decode the registration found under ``key``; Corrupt, naming it, when it is anything else."""
    name = registration_key(key)
    fields = decode_fields(name, data, ObjectType.REGISTRATION)
    registration = Registration(
        projection=fields.text("projection"),
        version=fields.number("version", NUMBER_MAX),
        kinds=fields.texts("kinds"),
        fold=fields.text("fold"),
        tag=fields.text("tag"),
        registered=fields.boolean("registered"),
    )
    if list(registration.kinds) != sorted(set(registration.kinds), key=str.encode):
        raise fields.damaged("kinds")
    if (registration.key, fields.number("number", NUMBER_MAX)) != (key.fold, key.number):
        raise Corrupt(f"registration lies under another's name key={name}; restore the object")
    return registration
