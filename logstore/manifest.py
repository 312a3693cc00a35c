"""Manifests: what a snapshot consists of, and where to go on reading. docs/FORMAT.md §8. Pure.

Invariants:
- What is decoded keeps FORMAT's rules among its own parts: no chunk is listed twice or wholly dead, the counts agree.
- A manifest is a function of the log and of the manifest built on: no clock and no process's identity enters it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from logstore.clock import COUNTER_BITS
from logstore.entry import Address
from logstore.errors import Corrupt
from logstore.frame import DIGEST_BYTES, Fields, ObjectType, decode_fields, encode_fields
from logstore.frontier import Position, SessionPosition
from logstore.keys import FINGERPRINT_BYTES, NUMBER_MAX, ChunkKey, ManifestKey, manifest_key
from logstore.session import Tip

__all__ = [
    "VERDICTS_MAX",
    "VERDICT_STAMPS",
    "Manifest",
    "ManifestChunk",
    "ManifestVerdict",
    "alive_mask",
    "decode_manifest",
    "encode_manifest",
]

VERDICTS_MAX: Final = 10_000
VERDICT_STAMPS: Final = 600_000 << COUNTER_BITS  # ten minutes, between stamps
VerdictKind = Literal["rejected", "parked"]
_VERDICT_KINDS: Final[tuple[VerdictKind, ...]] = ("rejected", "parked")  # the index is on disk: never reorder


class ManifestVerdict(NamedTuple):
    """That an event changed nothing."""

    chapter: int
    session: int
    seq: int
    stamp: int
    kind: VerdictKind

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The event's place in the total order."""
        return (self.stamp, self.chapter, self.session, self.seq)


@dataclass(frozen=True, slots=True)
class ManifestChunk:
    """A chunk, its columns' size, and which rows count: ``dead`` has a bit for each, the first lowest in byte 0."""

    key: ChunkKey
    rows: int
    size: int
    dead: bytes | None = None

    @property
    def alive(self) -> int:
        """How many of its rows count."""
        return self.rows - (int.from_bytes(self.dead, "little").bit_count() if self.dead else 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The snapshot of ``key.fold`` at a point: the tick at ``key.chapter``, ``key.number``, of this stamp and digest.

    ``rows_digest``: the sum of the hashes of its rows. ``digest``: that of the manifest, set by encoding and decoding.
    """

    key: ManifestKey
    stamp: int
    entry_digest: bytes
    sessions: tuple[SessionPosition, ...]
    rows: int
    rows_digest: int
    chunks: tuple[ManifestChunk, ...]
    verdicts: tuple[ManifestVerdict, ...] = ()
    digest: bytes = b""

    @property
    def point(self) -> Address:
        """Where its point lies in the roster."""
        return self.key.point

    def position(self, store_id: bytes) -> Position:
        """Where a reader goes on that has loaded it."""
        return Position(store_id, self.point, self.entry_digest, self.sessions)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    assert manifest.rows == sum(chunk.alive for chunk in manifest.chunks), "rows and chunks agree"
    key = manifest.key
    return encode_fields(
        ObjectType.MANIFEST,
        {
            "projection": key.fold.projection,
            "version": key.fold.version,
            "fingerprint": key.fold.fingerprint,
            "chapter": key.chapter,
            "number": key.number,
            "stamp": manifest.stamp,
            "entry": manifest.entry_digest,
            "sessions": [[session.chapter, session.number, *session.tip] for session in manifest.sessions],
            "rows": manifest.rows,
            "digest": manifest.rows_digest.to_bytes(DIGEST_BYTES, "big"),
            "chunks": [
                [each.key.chapter, each.key.number, each.key.hash, each.rows, each.size, each.dead]
                for each in manifest.chunks
            ],
            "verdicts": [[*verdict[:-1], _VERDICT_KINDS.index(verdict.kind)] for verdict in manifest.verdicts],
        },
    )


def decode_manifest(key: ManifestKey, data: bytes) -> Manifest:
    """Decode the manifest found under ``key``; Corrupt, naming it, when it is anything else."""
    name = manifest_key(key)
    fields = decode_fields(name, data, ObjectType.MANIFEST)
    found = (
        fields.text("projection"),
        fields.number("version", NUMBER_MAX),
        fields.binary("fingerprint", FINGERPRINT_BYTES),
        fields.number("chapter", NUMBER_MAX),
        fields.number("number", NUMBER_MAX),
    )
    if found != (key.fold.projection, key.fold.version, key.fold.fingerprint, key.chapter, key.number):
        raise Corrupt(f"manifest lies under another's name key={name}; restore the object")
    manifest = Manifest(
        key=key,
        stamp=fields.number("stamp"),
        entry_digest=fields.binary("entry", DIGEST_BYTES),
        sessions=_decode_sessions(fields),
        rows=fields.number("rows"),
        rows_digest=int.from_bytes(fields.binary("digest", DIGEST_BYTES), "big"),
        chunks=_decode_chunks(fields),
        verdicts=_decode_verdicts(fields),
        digest=fields.digest,
    )
    if manifest.rows != sum(chunk.alive for chunk in manifest.chunks):
        raise fields.damaged("rows")
    if any(verdict.stamp > manifest.stamp for verdict in manifest.verdicts):
        raise fields.damaged("verdicts")
    return manifest


def _decode_sessions(fields: Fields) -> tuple[SessionPosition, ...]:
    sessions = []
    for chapter, number, slot, sequence, stamp, digest in fields.rows("sessions", int, int, int, int, int, bytes):
        if max(chapter, number, slot) > NUMBER_MAX or len(digest) != DIGEST_BYTES:
            raise fields.damaged("sessions")
        sessions.append(SessionPosition(chapter, number, Tip(slot, sequence, stamp, digest), 0))
    _require_ascending(fields, "sessions", [(session.chapter, session.number) for session in sessions])
    return tuple(sessions)


def _decode_chunks(fields: Fields) -> tuple[ManifestChunk, ...]:
    chunks = []
    for chapter, number, hash_, rows, size, dead in fields.rows(
        "chunks", int, int, bytes, int, int, (bytes, type(None))
    ):
        if max(chapter, number) > NUMBER_MAX or len(hash_) != DIGEST_BYTES:
            raise fields.damaged("chunks")
        if dead is not None and (len(dead) != (rows + 7) // 8 or int.from_bytes(dead, "little").bit_length() > rows):
            raise fields.damaged("chunks")
        chunk = ManifestChunk(ChunkKey(chapter, number, hash_), rows, size, dead)
        if not chunk.alive or (dead is not None and not any(dead)):
            raise fields.damaged("chunks")
        chunks.append(chunk)
    if len({chunk.key for chunk in chunks}) != len(chunks):
        raise fields.damaged("chunks")
    return tuple(chunks)


def _decode_verdicts(fields: Fields) -> tuple[ManifestVerdict, ...]:
    rows = fields.rows("verdicts", int, int, int, int, int)
    if len(rows) > VERDICTS_MAX or any(kind >= len(_VERDICT_KINDS) for *_, kind in rows):
        raise fields.damaged("verdicts")
    verdicts = [ManifestVerdict(a, b, seq, stamp, _VERDICT_KINDS[kind]) for a, b, seq, stamp, kind in rows]
    _require_ascending(fields, "verdicts", [verdict.order for verdict in verdicts])
    return tuple(verdicts)


def _require_ascending(fields: Fields, name: str, places: list[Any]) -> None:
    if any(place >= following for place, following in pairwise(places)):
        raise fields.damaged(name)


def alive_mask(dead: bytes, rows: int) -> list[bool]:
    """Which of a chunk's rows count, as booleans."""
    return [not dead[row >> 3] >> (row & 7) & 1 for row in range(rows)]
