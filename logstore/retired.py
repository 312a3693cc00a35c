"""The record that a chapter may be gone, and what its sessions held. docs/FORMAT.md §7. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from logstore.entry import Scope, decode_scopes, encode_scopes
from logstore.errors import Corrupt, LimitExceeded
from logstore.frame import DIGEST_BYTES, ObjectType, decode_fields, encode_fields
from logstore.keys import NUMBER_MAX, retired_key

__all__ = ["Retired", "RetiredSession", "decode_retired", "encode_retired"]

SESSIONS_MAX: Final = 1_000_000  # each is an array, and readers take no more than 1,048,576 of these


class RetiredSession(NamedTuple):
    """What a session held: its slots below its first final, and the greatest stamp in them (else its open entry's)."""

    slots: int
    last_stamp: int


@dataclass(frozen=True, slots=True)
class Retired:
    """The retirement of ``chapter``, whose list ended with entry number ``closed`` of this digest, stamp and scopes."""

    chapter: int
    closed: int
    digest: bytes
    stamp: int
    scopes: tuple[Scope, ...]
    sessions: Mapping[int, RetiredSession]
    archives: tuple[str, ...] = ()


def encode_retired(retired: Retired) -> bytes:
    """Return the bytes of a retirement record. Raises LimitExceeded for a chapter of too many sessions."""
    if len(retired.sessions) > SESSIONS_MAX:
        raise LimitExceeded(
            f"a chapter holds too many sessions to be retired chapter={retired.chapter}"
            f" sessions={len(retired.sessions)} max={SESSIONS_MAX}; end chapters sooner"
        )
    return encode_fields(
        ObjectType.RETIRED,
        {
            "chapter": retired.chapter,
            "closed": retired.closed,
            "digest": retired.digest,
            "stamp": retired.stamp,
            "scopes": encode_scopes(retired.scopes),
            "sessions": [[session, *held] for session, held in sorted(retired.sessions.items())],
            "archives": retired.archives,
        },
    )


def decode_retired(chapter: int, data: bytes) -> Retired:
    """Decode the retirement record of ``chapter``; Corrupt, naming it, when it is anything else."""
    key = retired_key(chapter)
    fields = decode_fields(key, data, ObjectType.RETIRED)
    if fields.number("chapter", NUMBER_MAX) != chapter:
        raise Corrupt(f"record lies under another's name key={key}; restore the object")
    rows = fields.rows("sessions", int, int, int)
    if any(row[0] >= following[0] for row, following in pairwise(rows)):
        raise fields.damaged("sessions")
    return Retired(
        chapter=chapter,
        closed=fields.number("closed", NUMBER_MAX),
        digest=fields.binary("digest", DIGEST_BYTES),
        stamp=fields.number("stamp"),
        scopes=decode_scopes(fields),
        sessions={session: RetiredSession(slots, last) for session, slots, last in rows},
        archives=fields.texts("archives"),
    )
