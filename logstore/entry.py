"""Roster entries to bytes and back, and what follows from one entry for the next. Pure.

docs/FORMAT.md §4. An entry is a head that all share (where it lies, its stamp, the digest of the
entry before it, the exclusive scopes in force) and one of four bodies.

Invariants:
- ``require_follows`` accepts what ``next_entry`` makes, and no entry that FORMAT does not let stand there.
- ``scopes`` of an entry is a function of the entry before it and its own body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from logstore.errors import Corrupt
from logstore.frame import DIGEST_BYTES, Fields, ObjectType, decode_fields, encode_fields
from logstore.keys import FINGERPRINT_BYTES, NUMBER_MAX, Fold, ManifestKey, entry_key, is_name

__all__ = [
    "Address",
    "Begin",
    "Body",
    "Closed",
    "Entry",
    "Exclusive",
    "Open",
    "Scope",
    "Tick",
    "decode_entry",
    "decode_scopes",
    "encode_entry",
    "encode_scopes",
    "next_entry",
    "require_follows",
]

NONCE_BYTES: Final = 16
FLIGHTS_MAX: Final = 64
Address = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Begin:
    """The first entry of a chapter."""


@dataclass(frozen=True, slots=True)
class Exclusive:
    """What an exclusive session claims: these kinds, after ``predecessor`` (chapter, number)."""

    kinds: tuple[str, ...]
    predecessor: Address | None


@dataclass(frozen=True, slots=True)
class Open:
    """A session exists: this entry's number is its number."""

    writer: str
    idle_ms: int
    seal_ms: int
    flights: int
    exclusive: Exclusive | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """A stamp, and which slots its poster had read: rows of (chapter, session, slots).

    ``point``: not None makes it a snapshot point; the manifests that snapshots at it build on.
    """

    slots: tuple[tuple[int, int, int], ...] = ()
    point: tuple[ManifestKey, ...] | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """The last entry of a chapter."""


Body = Begin | Open | Tick | Closed
_KINDS: Final[tuple[type, ...]] = (Begin, Open, Tick, Closed)  # the index is on disk: never reorder


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """The last valid exclusive entry of a set of kinds."""

    kinds: tuple[str, ...]
    chapter: int
    number: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the roster. ``digest`` is that of its object, set by encoding and decoding."""

    chapter: int
    number: int
    stamp: int
    previous: bytes
    nonce: bytes
    scopes: tuple[Scope, ...]
    body: Body
    digest: bytes = b""

    @property
    def address(self) -> Address:
        """Where it lies: (chapter, number)."""
        return (self.chapter, self.number)

    @property
    def successor(self) -> Address:
        """Where the entry after it lies."""
        return (self.chapter + 1, 0) if isinstance(self.body, Closed) else (self.chapter, self.number + 1)

    @property
    def valid(self) -> bool:
        """Whether an open entry's session counts: an exclusive one must stand among the scopes it led to."""
        exclusive = self.body.exclusive if isinstance(self.body, Open) else None
        return exclusive is None or Scope(exclusive.kinds, *self.address) in self.scopes


def next_entry(previous: Entry | None, store_digest: bytes, body: Body, stamp: int, nonce: bytes) -> Entry:
    """Return the entry with ``body`` that may follow ``previous`` (None: it is the first of all)."""
    if previous is None:
        return Entry(0, 0, stamp, store_digest, nonce, (), body)
    assert stamp > previous.stamp, "stamps increase along the roster"
    assert isinstance(body, Begin) == isinstance(previous.body, Closed), (
        "a begin follows a closed, and nothing else does"
    )
    address = previous.successor
    return Entry(*address, stamp, previous.digest, nonce, _scopes_after(previous.scopes, body, address), body)


def _scopes_after(scopes: Sequence[Scope], body: Body, address: Address) -> tuple[Scope, ...]:
    if not isinstance(body, Open) or body.exclusive is None:
        return tuple(scopes)
    kinds = body.exclusive.kinds
    overlapping = [scope for scope in scopes if not set(kinds).isdisjoint(scope.kinds)]
    match overlapping:
        case []:
            valid = body.exclusive.predecessor is None
        case [scope]:
            valid = scope.kinds == kinds and body.exclusive.predecessor == (scope.chapter, scope.number)
        case _:
            valid = False
    if not valid:
        return tuple(scopes)
    return tuple(sorted([*(scope for scope in scopes if scope.kinds != kinds), Scope(kinds, *address)]))


def encode_entry(entry: Entry) -> tuple[bytes, Entry]:
    """Return the entry's bytes, and the entry with its digest."""
    data = encode_fields(
        ObjectType.ENTRY,
        {
            "kind": _KINDS.index(type(entry.body)),
            "chapter": entry.chapter,
            "number": entry.number,
            "stamp": entry.stamp,
            "previous": entry.previous,
            "nonce": entry.nonce,
            "scopes": encode_scopes(entry.scopes),
            **_body_fields(entry.body),
        },
    )
    return data, replace(entry, digest=data[-DIGEST_BYTES:])


def _body_fields(body: Body) -> dict[str, Any]:
    match body:
        case Open(writer, idle_ms, seal_ms, flights, exclusive):
            claimed = None if exclusive is None else {"kinds": exclusive.kinds, "predecessor": exclusive.predecessor}
            return {"writer": writer, "idle_ms": idle_ms, "seal_ms": seal_ms, "flights": flights, "exclusive": claimed}
        case Tick(slots, point):
            return {"slots": slots} | ({} if point is None else {"point": [_manifest_row(key) for key in point]})
        case _:
            return {}


def decode_entry(chapter: int, number: int, data: bytes) -> Entry:
    """Decode the object found at ``chapter``, ``number``; Corrupt, naming it, when it is anything but that entry."""
    key = entry_key(chapter, number)
    fields = decode_fields(key, data, ObjectType.ENTRY)
    address = (fields.number("chapter", NUMBER_MAX), fields.number("number", NUMBER_MAX))
    if address != (chapter, number):
        raise Corrupt(f"entry lies under another's name key={key} is={address}; restore the object")
    kind = _KINDS[fields.number("kind", len(_KINDS) - 1)]
    if (kind is Begin) != (number == 0):
        raise fields.damaged("kind")
    return Entry(
        chapter=chapter,
        number=number,
        stamp=fields.number("stamp"),
        previous=fields.binary("previous", DIGEST_BYTES),
        nonce=fields.binary("nonce", NONCE_BYTES),
        scopes=decode_scopes(fields),
        body=_decode_body(fields, kind),
        digest=fields.digest,
    )


def encode_scopes(scopes: Sequence[Scope]) -> list[list[Any]]:
    """Return scopes as they lie in an object."""
    return [[scope.kinds, scope.chapter, scope.number] for scope in scopes]


def decode_scopes(fields: Fields) -> tuple[Scope, ...]:
    """Return the ``scopes`` field of an entry or a retirement record."""
    scopes = []
    for kinds, chapter, number in fields.rows("scopes", list, int, int):
        if not kinds or not set(map(type, kinds)) <= {str} or kinds != sorted(set(kinds)):
            raise fields.damaged("scopes")
        scopes.append(Scope(tuple(kinds), chapter, number))
    if scopes != sorted(set(scopes)):
        raise fields.damaged("scopes")
    return tuple(scopes)


def _decode_body(fields: Fields, kind: type) -> Body:
    if kind is Open:
        flights = fields.number("flights", FLIGHTS_MAX)
        writer = fields.text("writer")
        if flights < 1:
            raise fields.damaged("flights")
        if not is_name(writer):
            raise fields.damaged("writer")
        exclusive = _decode_exclusive(fields.nested("exclusive")) if fields.given("exclusive") else None
        return Open(writer, fields.number("idle_ms"), fields.number("seal_ms"), flights, exclusive)
    if kind is Tick:
        return Tick(fields.rows("slots", int, int, int), _decode_point(fields) if fields.has("point") else None)
    return Begin() if kind is Begin else Closed()


def _manifest_row(key: ManifestKey) -> tuple[str, int, bytes, int, int]:
    return (key.fold.projection, key.fold.version, key.fold.fingerprint, key.chapter, key.number)


def _decode_point(fields: Fields) -> tuple[ManifestKey, ...]:
    rows = fields.rows("point", str, int, bytes, int, int)
    for projection, version, fingerprint, chapter, number in rows:
        if (
            not is_name(projection)
            or not version
            or len(fingerprint) != FINGERPRINT_BYTES
            or max(version, chapter, number) > NUMBER_MAX
        ):
            raise fields.damaged("point")
    one_each = len({row[:3] for row in rows}) == len(rows)
    if not one_each or list(rows) != sorted(rows, key=lambda row: (row[0].encode(), *row[1:])):
        raise fields.damaged("point")
    return tuple(ManifestKey(Fold(*row[:3]), *row[3:]) for row in rows)


def _decode_exclusive(fields: Fields) -> Exclusive:
    kinds = fields.texts("kinds")
    if not kinds or kinds != tuple(sorted(set(kinds))):
        raise fields.damaged("kinds")
    if not fields.given("predecessor"):
        return Exclusive(kinds, None)
    chapter, number = fields.numbers("predecessor", 2)
    return Exclusive(kinds, (chapter, number))


def require_follows(entry: Entry, previous: Entry | None, store_digest: bytes) -> None:
    """Raise Corrupt, naming ``entry``, unless it may stand after ``previous`` (None: it is the first of all)."""
    assert entry.address == ((0, 0) if previous is None else previous.successor), "entries are read one by one"
    key = entry_key(*entry.address)
    before = store_digest if previous is None else previous.digest
    if entry.previous != before:
        raise Corrupt(
            f"entry does not follow the one before it key={key}"
            f" want={before.hex()[:16]} got={entry.previous.hex()[:16]}; run `logstore check`"
        )
    if previous is not None and entry.stamp <= previous.stamp:
        raise Corrupt(
            f"entry's stamp does not exceed that before it key={key} stamp={entry.stamp}; run `logstore check`"
        )
    if entry.scopes != _scopes_after(previous.scopes if previous else (), entry.body, entry.address):
        raise Corrupt(f"entry's scopes do not follow from those before it key={key}; run `logstore check`")
