"""Documents: what a collection declares, what a write is, and what the fold makes of it. Pure.

docs/rfcs/0009-documents.md.

A collection is one kind of events and one projection of that name. Each event is one write of one document, and is
judged where it stands in the order: so ``judge`` is called twice for a write, on what is visible when it is called
for, to answer at once, and in the fold, whose answer is final.

Invariants:
- A row is a document and its history's digest: equal versions mean that the same writes made the document.
- A write that is refused changes nothing, in whole; which writes are refused depends on the log alone.
- Of the creations that carry one claim, or a lower one than the row's, at most one has an effect.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

from logstore import StoredEvent
from logstore.errors import Corrupt, InvalidArgument
from logstore.event import Data
from logstore.keys import is_name
from projections.index import Index, parse_path
from projections.patch import merge_patch, touches
from projections.projection import Projection, Rejected
from projections.query import Query, Where
from projections.tombstone import Tombstone

__all__ = [
    "META",
    "OVERDUE",
    "Absent",
    "Claimed",
    "Collection",
    "CollectionFold",
    "Guard",
    "Present",
    "Upcast",
    "Version",
    "Write",
    "claim_of",
    "inside",
    "of_rows",
    "of_rows_order",
    "version_of",
]

Guard = Callable[[Data | None, Data | None], None]
Upcast = Callable[[Data, int], Data]
Do = Literal["create", "update", "delete"]

OVERDUE: Final = "its claim was over when it was appended"
META: Final = "document"  # where in an event's meta a write says what it is
_DO: Final[tuple[Do, ...]] = ("create", "update", "delete")
_DIGEST_BYTES: Final = 8
_PLACE: Final = struct.Struct(">QQQQ")


class Present(Rejected):
    """There is such a document already."""

    REASON: Final = "it exists"


class Absent(Rejected):
    """There is no such document."""

    REASON: Final = "there is no such document"


class Claimed(NamedTuple):
    """By which claim a document is created: its number, the last stamp at which it counts, and who claimed."""

    number: int
    last_stamp: int
    claimant: str


class Version(NamedTuple):
    """Which writes made a document: how many, and a digest of their places in the log.

    >>> str(Version(0, b"").after((98304001, 0, 1, 0)))
    '1-c961b9588368e71e'
    """

    writes: int
    digest: bytes

    def after(self, place: tuple[int, int, int, int]) -> Version:
        """The version that a write at ``place`` in the total order makes of this one."""
        return Version(self.writes + 1, blake2b(self.digest + _PLACE.pack(*place), digest_size=_DIGEST_BYTES).digest())

    def __str__(self) -> str:
        return f"{self.writes}-{self.digest.hex()}"


_NEW: Final = Version(0, b"")


class Write(NamedTuple):
    """What an event asks for, beside its data. ``when``: clauses as ``find`` takes them."""

    do: Do
    schema: int = 1
    if_version: str | None = None
    when: Where = ()
    claim: Claimed | None = None

    def meta(self) -> dict[str, Any]:
        """What stands in the event's meta."""
        fields: dict[str, Any] = {"do": self.do, "schema": self.schema}
        if self.if_version is not None:
            fields["if_version"] = self.if_version
        if self.when:
            fields["when"] = [list(map(_storable, clause)) for clause in self.when]
        if self.claim is not None:
            fields["claim"] = list(self.claim)
        return {META: fields}

    @classmethod
    def parse(cls, meta: Data | None) -> Write:
        """Return the write that an event with this meta is; Rejected for what is none."""
        fields: Any = (meta or {}).get(META)
        match fields:
            case {"do": str() as do, "schema": int() as schema} if do in _DO and _is_number(schema, 1):
                pass
            case _:
                raise Rejected("not written by a document store")
        if_version, when, claim = fields.get("if_version"), fields.get("when", ()), fields.get("claim")
        if if_version is not None and not isinstance(if_version, str):
            raise Rejected("not a version")
        try:
            Query.parse(when)
        except InvalidArgument as error:
            raise Rejected(f"not clauses: {error}") from error
        match claim:
            case None:
                claimed = None
            case (number, last_stamp, str() as claimant) if _is_number(number) and _is_number(last_stamp):
                claimed = Claimed(number, last_stamp, claimant)
            case _:
                raise Rejected("not a claim")
        return cls(do, schema, if_version, when, claimed)


class Collection:
    """Documents of one kind. Two processes that use a collection declare it alike.

    ``indexes``: as those of a projection. ``unique``: creation answers at once which of many callers has won, for one
    request more; keys have at most 200 bytes then, 255 as escaped in names. ``exclusive``: written by one leading
    process at a time, in transactions; a kind is exclusive or shared for ever. ``owners``: who alone may write a field,
    as a writer's name or a pattern of ``fnmatch``; ``importers``, named likewise: who may create a document whole, with
    fields that others own. ``guard(before, after)`` raises ``Rejected`` for a change that must not be; None stands for
    no document. ``version``: raise it when ``unique``, owners, the guard, or what a document looks like, change;
    ``upcast(data, version)`` then brings a document, or a patch, that was written under a lower one up to date. Make a
    collection unique when nobody writes by a lower version any more.

    >>> Collection("Deployment", indexes=[Index("project_id", "-updated_at")])
    Collection('Deployment', version=1)
    """

    def __init__(
        self,
        kind: str,
        *,
        indexes: Sequence[Index] = (),
        unique: bool = False,
        exclusive: bool = False,
        owners: Mapping[str, str] | None = None,
        importers: str | None = None,
        guard: Guard | None = None,
        version: int = 1,
        upcast: Upcast | None = None,
    ) -> None:
        if type(kind) is not str or not is_name(kind):
            raise InvalidArgument(f"a collection needs a kind, which is a name kind={kind!r:.40}")
        if type(version) is not int or version < 1:
            raise InvalidArgument(f"a version is a number from 1 collection={kind} version={version!r:.40}")
        self.kind = kind
        self.indexes = tuple(indexes)
        if unique and exclusive:
            raise InvalidArgument(f"a leader's creations are unique anyway collection={kind}; leave out unique")
        self.unique = unique
        self.exclusive = exclusive
        self.owners = dict(owners or {})
        if importers is not None and (type(importers) is not str or not importers):
            raise InvalidArgument(
                f"importers are a writer's name or a pattern collection={kind} importers={importers!r:.40}"
            )
        self.importers = importers
        self.guard = guard
        self.version = version
        self.upcast = upcast
        self._owned = tuple((parse_path(field), pattern) for field, pattern in self.owners.items())

    def __repr__(self) -> str:
        return f"Collection({self.kind!r}, version={self.version}{', unique=True' * self.unique})"

    def fold(self) -> CollectionFold:
        """The projection that its documents are rows of: for ``keep``, snapshots, and views of the past."""
        return CollectionFold(self)

    def judge(self, before: Data | None, version: str, write: Write, data: Data | None, writer: str) -> Data | None:
        """Return what a write makes of a document, None where it deletes; Rejected where it may not.

        ``before``: the document, None where there is none; ``version``: its version.
        """
        if write.do == "create":
            if before is not None:
                raise Present(Present.REASON)
        elif before is None:
            raise Absent(Absent.REASON)
        if write.if_version is not None and write.if_version != version:
            raise Rejected(f"its version is {version}, not {write.if_version}")
        if write.when and not Query.parse(write.when).matches(before or {}):
            raise Rejected(f"it does not hold that {' and '.join(map(_clause, write.when))}")
        if write.do == "delete":
            after = None
        else:
            if data is None:
                raise Rejected("nothing to write")
            if self.upcast is not None and write.schema < self.version:
                data = self.upcast(data, write.schema)
            if not (write.do == "create" and self.may_import(writer)):
                self._require_owner(data, writer)
            after = data if write.do == "create" else merge_patch(before, data)
        if self.guard is not None:
            self.guard(before, after)
        return after

    def require_mode(self, led_kinds: Set[str]) -> None:
        """Raise InvalidArgument where leaders write this kind: a shared collection would see none of its documents."""
        if self.kind in led_kinds and not self.exclusive:
            raise InvalidArgument(
                f"only leaders write this kind, and a shared collection sees nothing of it collection={self.kind};"
                " declare it exclusive=True"
            )

    def may_import(self, writer: str) -> bool:
        """Whether a writer may create documents whole, with fields that others own."""
        return self.importers is not None and fnmatchcase(writer, self.importers)

    def _require_owner(self, data: Data, writer: str) -> None:
        for path, pattern in self._owned:
            if touches(data, path) and not fnmatchcase(writer, pattern):
                raise Rejected(f"{'.'.join(path)} is written by {pattern}, not by {writer}")


class CollectionFold(Projection):
    """A collection as a projection. A row is ``{"doc": document, "at": [writes, digest, claim, last stamp]}``."""

    fold = "apply"
    on_failure = "park"

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.name = collection.kind
        self.version = collection.version
        self.kinds = frozenset({collection.kind})
        self.indexes = tuple(Index(*map(inside, map(str, index.fields))) for index in collection.indexes)
        self.tombstones = collection.unique
        self.tag = "unique" if collection.unique else "exclusive" if collection.exclusive else ""

    def apply(self, state: Data | None, event: StoredEvent) -> Data | None:
        """Judge the write that ``event`` is, and return the row that it makes."""
        if event.exclusive is not self.collection.exclusive:
            raise Rejected(f"written as {'exclusive' if event.exclusive else 'shared'}, which this kind is not")
        write, writer = Write.parse(event.meta), event.writer
        claim = _claim_of(state) if self.collection.unique else ()
        if self.collection.unique and write.do == "create":
            if write.claim is not None:
                if event.stamp > write.claim.last_stamp:
                    raise Rejected(OVERDUE)
                if claim and write.claim.number <= claim[0]:
                    return state  # a copy: somebody appended it in the owner's stead, or the owner did
                last_stamp = max([write.claim.last_stamp, *claim[1:]])  # an earlier clock may have been ahead
                claim, writer = (write.claim.number, last_stamp), write.claim.claimant
            elif write.schema >= self.collection.version:
                raise Rejected("created without a claim, in a collection that is unique")
        before = version = None
        if state is not None and not isinstance(state, Tombstone):
            before, version = state["doc"], Version(*state["at"][:2])
        after = self.collection.judge(before, str(version), write, event.data, writer)
        if after is not None:
            return {"doc": after, "at": [*(version or _NEW).after(event.order), *claim]}
        if claim and event.stamp <= claim[1]:
            return Tombstone({"at": [0, b"", *claim]}, until=claim[1])
        return None


def _claim_of(state: Data | None) -> tuple[int, int] | tuple[()]:
    """The claim by which a row was created, or its tombstone's: number, and last stamp; () where there was none."""
    return () if state is None else state["at"][2:]


def claim_of(row: Data | Tombstone | None) -> int:
    """The number of the claim by which the document in a row was created; -1: there was none."""
    claim = _claim_of(row)
    return claim[0] if claim else -1


def inside(field: str) -> str:
    """A document's field, or "-" and the field, as a field of its row. What is no field stays none."""
    if field.startswith("--"):
        return field
    return f"-doc.{field[1:]}" if field.startswith("-") else f"doc.{field}"


def of_rows(where: Where) -> Where:
    """Clauses on documents, as clauses on their rows. Nonsense is left as it is: the query says what is wrong."""
    try:
        return [(inside(field), operator, value) for field, operator, value in where]
    except (TypeError, ValueError, AttributeError):
        return where


def of_rows_order(order_by: Sequence[str]) -> Sequence[str]:
    """An order of documents, as one of their rows."""
    if not isinstance(order_by, (list, tuple)) or not all(isinstance(field, str) for field in order_by):
        return order_by
    return [inside(field) for field in order_by]


def version_of(row: Data) -> str:
    """The version of the document in a row."""
    writes, digest = row["at"][:2]
    if type(digest) is not bytes:
        raise Corrupt(f"not a document's row at={row['at']!r:.60}; run `logstore check`")
    return str(Version(writes, digest))


def _storable(part: object) -> object:
    """A part of a clause; ``in`` takes sets, the log does not."""
    return list(part) if isinstance(part, Set) else part


def _is_number(value: object, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _clause(clause: Sequence[Any]) -> str:
    return " ".join(str(part) for part in clause)
