"""How far a reading of the log has got. Pure.

A frontier is the last roster entry taken in and, for every session opened up to it that has not
ended, where its next segment attaches and how many events of that segment are taken already. From these
alone follows the watermark. A ``Position`` is a frontier as text.

Invariants:
- Every session opened at or before ``last`` is either in ``sessions`` or wholly taken in.
- Nothing not taken in can be at or below ``watermark()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from logstore.entry import Address, Closed, Entry, Open, Tick, require_follows
from logstore.errors import InvalidArgument, Trimmed
from logstore.frame import DIGEST_BYTES
from logstore.identity import ID_BYTES
from logstore.keys import NUMBER_MAX, retired_key
from logstore.retired import Retired
from logstore.segment import Segment
from logstore.session import SessionId, Tip
from logstore.token import decode_token, encode_token

__all__ = ["Frontier", "OpenSession", "Order", "Position", "SessionPosition", "Trail", "closed_by"]

Order = tuple[int, int, int, int]
"""A place in the total order: (stamp, chapter, session, sequence)."""


@dataclass(slots=True)
class OpenSession:
    """A session that has not ended, as far as it was read.

    ``taken``: events taken of the segment that attaches at ``tip``. ``named``: a tick says that slots 0..named-1 exist.
    """

    id: SessionId
    opened: Open
    tip: Tip
    taken: int = 0
    named: int = 0

    @property
    def address(self) -> Address:
        """Its number: where its open entry lies."""
        return (self.id.chapter, self.id.number)


@dataclass(frozen=True, slots=True)
class SessionPosition:
    """One session of a position."""

    chapter: int
    number: int
    tip: Tip
    taken: int


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is; ``str()`` and ``parse`` carry it past the process's end. About 60 bytes per open session.

    ``settled`` is the place of the last event, where the reader was a settled one.

    >>> position = Position(bytes(16), (0, 3), bytes(32))
    >>> Position.parse(str(position)) == position
    True
    """

    store_id: bytes
    last: Address | None
    digest: bytes
    sessions: tuple[SessionPosition, ...] = ()
    settled: Order | None = None

    def __str__(self) -> str:
        sessions = [[s.chapter, s.number, list(s.tip), s.taken] for s in self.sessions]
        return encode_token("position", [self.store_id, self.last, self.digest, sessions, self.settled])

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that ``str()`` turned into ``text``; InvalidArgument for any other text."""
        match decode_token("position", text):
            case [bytes(store_id), last, bytes(digest), list(sessions), settled] if (
                len(store_id) == ID_BYTES
                and len(digest) in (0, DIGEST_BYTES)
                and (last is None or (_are_numbers(last, 2) and max(last) <= NUMBER_MAX))
                and (settled is None or _are_numbers(settled, 4))
            ):
                return cls(
                    store_id,
                    None if last is None else (last[0], last[1]),
                    digest,
                    tuple(map(_parse_session, sessions)),
                    None if settled is None else (settled[0], settled[1], settled[2], settled[3]),
                )
            case _:
                raise InvalidArgument(f"not a position of this library position={text!r:.60}")


def _are_numbers(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(v) is int and v >= 0 for v in values)


def _parse_session(values: object) -> SessionPosition:
    match values:
        case [int(chapter), int(number), [int(slot), int(sequence), int(stamp), bytes(digest)], int(taken)] if (
            min(chapter, number, slot, sequence, stamp, taken) >= 0
            and max(chapter, number, slot) <= NUMBER_MAX
            and len(digest) == DIGEST_BYTES
        ):
            return SessionPosition(chapter, number, Tip(slot, sequence, stamp, digest), taken)
        case _:
            raise InvalidArgument(f"not a session of a position session={values!r:.60}")


def closed_by(record: Retired) -> Entry:
    """What stands for the `closed` entry of a retired chapter."""
    address = (record.chapter, record.closed)
    return Entry(*address, record.stamp, b"", b"", record.scopes, Closed(), record.digest)


class Trail(Protocol):
    """Who wants to know what a frontier takes in."""

    def take_entry(self, entry: Entry) -> None:
        """A roster entry was taken in."""

    def take_segment(self, segment: Segment, tip: Tip) -> None:
        """A segment was taken in; its session stands at ``tip`` now."""


class Frontier:
    """A reading's state. Taking something in changes it; nothing else does."""

    def __init__(
        self, store_id: bytes, store_digest: bytes, last: Entry | None, sessions: Iterable[OpenSession] = ()
    ) -> None:
        self.trail: Trail | None = None  # told of what is taken in; a copy has none
        self.store_id = store_id
        self.store_digest = store_digest
        self.last = last
        self.sessions: dict[Address, OpenSession] = {session.address: session for session in sessions}

    def __repr__(self) -> str:
        return f"<Frontier last={self.last.address if self.last else None} sessions={sorted(self.sessions)}>"

    def copy(self) -> Frontier:
        """An independent frontier at the same place."""
        return Frontier(self.store_id, self.store_digest, self.last, map(replace, self.sessions.values()))

    @property
    def next_address(self) -> Address:
        """Where the next roster entry will lie."""
        return (0, 0) if self.last is None else self.last.successor

    @property
    def chapters(self) -> set[int]:
        """The chapters that it still reads in."""
        return {self.next_address[0], *(chapter for chapter, _ in self.sessions)}

    def watermark(self) -> int:
        """The greatest stamp at or below which nothing new can appear; 0 at the beginning."""
        if self.last is None:
            return 0
        return min(
            self.last.stamp, min((session.tip.stamp for session in self.sessions.values()), default=self.last.stamp)
        )

    def holder(self) -> OpenSession | None:
        """The session that holds the watermark back; None when the last entry's stamp is what limits it."""
        slowest = min(self.sessions.values(), key=lambda session: session.tip.stamp, default=None)
        return slowest if slowest and self.last and slowest.tip.stamp < self.last.stamp else None

    def holds(self, chapter: int, number: int, slot: int) -> bool:
        """Whether this slot of this session is taken in."""
        if session := self.sessions.get((chapter, number)):
            return session.tip.slot > slot
        return self.last is not None and (chapter, number) <= self.last.address

    def take_entry(self, entry: Entry) -> None:
        """Take in the next roster entry; Corrupt when it does not follow."""
        require_follows(entry, self.last, self.store_digest)
        self.last = entry
        if self.trail is not None:
            self.trail.take_entry(entry)
        match entry.body:
            case Open() if entry.valid:
                self.sessions[entry.address] = OpenSession(SessionId.of(entry), entry.body, Tip.of(entry))
            case Tick(slots):
                for chapter, number, named in slots:
                    if session := self.sessions.get((chapter, number)):
                        session.named = max(session.named, named)

    def take_segment(self, segment: Segment) -> None:
        """Take in a session's next segment whole; Corrupt when it does not attach."""
        address = (segment.key.chapter, segment.key.session)
        session = self.sessions[address]
        session.tip = session.tip.after(segment)
        session.taken = 0
        if self.trail is not None:
            self.trail.take_segment(segment, session.tip)
        if segment.final:
            del self.sessions[address]

    def take_events(self, segment: Segment, taken: int) -> None:
        """Take in the first ``taken`` events of a session's next segment."""
        if taken == segment.count:
            self.take_segment(segment)
        else:
            self.sessions[segment.key.chapter, segment.key.session].taken = taken

    def has_taken(self, record: Retired) -> bool:
        """Whether all that a retired chapter held is taken in."""
        return all(
            self._slots_read(record.chapter, number, held.slots) >= held.slots
            for number, held in record.sessions.items()
        )

    def take_retirement(self, record: Retired) -> None:
        """Leave a retired chapter behind; Trimmed unless all that it held is taken in."""
        for number, held in record.sessions.items():
            slots_read = self._slots_read(record.chapter, number, held.slots)
            if slots_read < held.slots:
                raise Trimmed(
                    f"history not read yet is retired record={retired_key(record.chapter)} session={number}"
                    f" slots_read={slots_read} slots={held.slots}; start from a snapshot, or `log.oldest()`"
                )
        for address in [address for address in self.sessions if address[0] == record.chapter]:
            del self.sessions[address]
        if self.next_address[0] == record.chapter:
            self.last = closed_by(record)
            if self.trail is not None:
                self.trail.take_entry(self.last)

    def _slots_read(self, chapter: int, number: int, slots: int) -> int:
        """How many of a session's ``slots`` are taken in."""
        if session := self.sessions.get((chapter, number)):
            return session.tip.slot
        opened = self.last is not None and (chapter, number) <= self.last.address
        return slots if opened else 0

    def position(self, settled: Order | None = None) -> Position:
        """The frontier as a position."""
        sessions = (
            SessionPosition(*session.address, session.tip, session.taken)
            for _, session in sorted(self.sessions.items())
        )
        last = self.last
        if last is None:
            return Position(self.store_id, None, b"", (), settled)
        return Position(self.store_id, last.address, last.digest, tuple(sessions), settled)
