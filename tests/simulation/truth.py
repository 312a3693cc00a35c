"""What the log holds, read from the bucket's objects by docs/FORMAT.md and nothing else.

A second, simple reader: it has every object at hand, so it needs no protocol. Production readers
must agree with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgpack

from logstore.entry import Entry, Open, decode_entry, require_follows
from logstore.event import Event
from logstore.identity import decode_identity
from logstore.keys import (
    STORE,
    EntryKey,
    SegmentKey,
    StagePageKey,
    entry_key,
    parse_key,
    retired_key,
    segment_key,
    stage_gone_key,
)
from logstore.segment import Columns, Segment, decode_segment
from logstore.session import SessionId, Tip
from logstore.testing.simulation import SimulatedStore
from tests.simulation.history import at_place

__all__ = ["TrueEvent", "TrueSession", "Truth", "is_garbage"]


def is_garbage(store: SimulatedStore, name: str) -> bool:
    """Whether nobody relies on what lands under this name: its chapter is retired, or its stage log gone."""
    key = parse_key(name)
    if isinstance(key, StagePageKey):
        return store.holds(stage_gone_key(key.stage))
    return isinstance(key, EntryKey | SegmentKey) and store.holds(retired_key(key.chapter))


class TrueEvent(NamedTuple):
    """An event, its place, the object that holds it, and where in its columns."""

    order: tuple[int, int, int, int]
    id: str
    writer: str
    key: str
    columns: Columns
    at: int

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.columns.kind(self.at)

    def event(self) -> Event:
        """What was appended."""
        columns, index = self.columns, self.at
        data = msgpack.unpackb(columns.payloads[index])
        return Event(columns.kind(index), columns.keys[index], columns.type(index), data, _meta(columns, index))


@dataclass(slots=True)
class TrueSession:
    """A session: how many slots count, whether it has ended, and by whose hand."""

    opened: Entry
    slots: int = 0
    final: bool = False
    sealed: bool = False
    void: list[str] = field(default_factory=list)  # names above its final


@dataclass(slots=True)
class Truth:
    """The log in total order, with its roster and sessions."""

    events: list[TrueEvent]
    entries: list[Entry]
    sessions: dict[SessionId, TrueSession]
    place: dict[str, int]  # of each id in the order

    @classmethod
    def of(cls, contents: Mapping[str, bytes], decoded: dict[str, Segment] | None = None) -> Truth:
        """Read the bucket. Raises Corrupt, or AssertionError where an object is none of the log's.

        ``decoded`` has the segments of an earlier reading of what has only grown since, and gets those of this one.
        """
        decoded = {} if decoded is None else decoded
        entries = _roster(contents)
        sessions: dict[SessionId, TrueSession] = {}
        events: list[TrueEvent] = []
        for entry in entries:
            if isinstance(entry.body, Open):
                sessions[SessionId.of(entry)] = session = TrueSession(entry)
                events += _read_session(contents, SessionId.of(entry), session, decoded)
        events.sort()
        _require_all_known(contents, entries, sessions)
        return cls(events, entries, sessions, {event.id: i for i, event in enumerate(events)})

    def of_kinds(self, kinds: Set[str]) -> Truth:
        """The same with the events of these kinds only."""
        return self._with([event for event in self.events if event.kind in kinds])

    def by_place(self) -> Truth:
        """The same with the events of documents named by id and place, as readers name them."""
        return self._with(
            [
                event._replace(id=at_place(event.id, event.order)) if event.at in event.columns.metas else event
                for event in self.events
            ]
        )

    def _with(self, events: list[TrueEvent]) -> Truth:
        return replace(self, events=events, place={event.id: i for i, event in enumerate(events)})

    @property
    def ids(self) -> list[str]:
        """All ids, in total order."""
        return [event.id for event in self.events]

    def since(self, chapter: int) -> list[TrueEvent]:
        """The events of this chapter and those after it, in total order."""
        return [event for event in self.events if event.order[1] >= chapter] if chapter else self.events

    def before(self, order: tuple[int, int, int, int]) -> int:
        """How many events come before a place in the order."""
        return bisect_left(self.events, (order,))


def _roster(contents: Mapping[str, bytes]) -> list[Entry]:
    entries: list[Entry] = []
    if STORE not in contents:
        return entries
    identity = decode_identity(contents[STORE])
    address = (0, 0)
    while (data := contents.get(entry_key(*address))) is not None:
        entry = decode_entry(*address, data)
        require_follows(entry, entries[-1] if entries else None, identity.digest)
        entries.append(entry)
        address = entry.successor
    return entries


def _read_session(
    contents: Mapping[str, bytes], session: SessionId, true: TrueSession, decoded: dict[str, Segment]
) -> list[TrueEvent]:
    events: list[TrueEvent] = []
    tip = Tip.of(true.opened)
    while not true.final:
        key = session.segment_key(tip.slot)
        name = segment_key(key.writer, key.chapter, key.session, key.slot)
        if (data := contents.get(name)) is None:
            break
        if (segment := decoded.get(name)) is None:
            segment = decoded[name] = decode_segment(key, data)
        columns = segment.columns
        for i in range(segment.count):
            assert columns is not None
            order = (segment.stamp, session.chapter, session.number, segment.first_sequence + i)
            events.append(TrueEvent(order, _id(columns, i), session.writer, name, columns, i))
        true.final, true.sealed = segment.final, segment.sealed
        tip = tip.after(segment)
        true.slots = tip.slot
    return events


def _id(columns: Columns, index: int) -> str:
    """By what its writer knows an event: the id in its meta, or else in its data."""
    meta = _meta(columns, index)
    id_: str = (meta or msgpack.unpackb(columns.payloads[index]))["id"]
    return id_


def _meta(columns: Columns, index: int) -> dict[str, Any] | None:
    meta = columns.metas.get(index)
    return None if meta is None else msgpack.unpackb(meta)


def _require_all_known(
    contents: Mapping[str, bytes], entries: list[Entry], sessions: dict[SessionId, TrueSession]
) -> None:
    """Every object is reachable, or above a final, or above a gap that is still open."""
    addresses = {entry.address for entry in entries}
    for name in contents:
        match parse_key(name):
            case EntryKey(chapter, number):
                assert (chapter, number) in addresses, f"an entry that the roster does not reach key={name}"
            case SegmentKey(writer, chapter, number, slot):
                session = sessions.get(SessionId(chapter, number, writer))
                assert session is not None, f"a segment of a session that was never opened key={name}"
                if slot >= session.slots and session.final:
                    session.void.append(name)
            case None if not name.startswith("probe/"):
                raise AssertionError(f"a name that is none of ours key={name}")
            case _:
                pass
