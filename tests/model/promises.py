"""The promises of DESIGN §2 as predicates over one state of the world: what is stored, and what each process believes.

`History` is what the log holds by definition: walk the roster from its first entry, and every session it opens from
slot 0 to its first final, over the *first* content that each name ever had. That is what a reader who was always
quick enough has read. A belief is wrong when it differs from that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.model.protocol import NOT_STORED, STORED, Read
from tests.model.store import Body, Entry, Key, Segment, Session, Store, log, roster, show

Beliefs = Mapping[str, Any]
"""What one process has told: topic -> what it believes."""


class Broken(NamedTuple):
    """A promise, and how this state breaks it."""

    promise: str
    how: str


class History:
    """The log by definition, of one state of the store."""

    def __init__(self, store: Store) -> None:
        self.objects: dict[Key, Body] = dict(store.objects)
        self.first: dict[Key, Body] = dict(store.first)
        self.listed: set[tuple[int, int]] = set()
        self.events: set[Read] = set()
        self.finals: dict[Session, int] = {}
        self.named: set[tuple[tuple[int, int], Session, int]] = set()  # (place of the tick, session, slots)
        self._walk()
        self.names = {event for _, _, _, event in self.events}
        self.void = {
            body.event
            for key, body in self.objects.items()
            if isinstance(body, Segment) and body.event and self._is_sealed_below(key.session, key.slot)
        }
        self.retired = {key.chapter for key in self.first if key.kind == "retired"}

    def _walk(self) -> None:
        chapter, number = 0, 0
        while isinstance(entry := self.first.get(roster(chapter, number)), Entry):
            self.listed.add((chapter, number))
            self.named.update(((chapter, number), session, count) for session, count in entry.slots)
            if entry.kind == "open":
                self._read((chapter, number))
            chapter, number = (chapter + 1, 0) if entry.kind == "closed" else (chapter, number + 1)

    def _read(self, session: Session) -> None:
        slot = 0
        while isinstance(segment := self.first.get(log(session, slot)), Segment):
            if segment.event is not None:
                self.events.add((segment.stamp, session, slot, segment.event))
            if segment.final:
                self.finals[session] = slot
                return
            slot += 1

    def _is_sealed_below(self, session: Session, slot: int) -> bool:
        lower = (self.objects.get(log(session, below)) for below in range(slot))
        return any(isinstance(segment, Segment) and segment.final for segment in lower)


def store_broken(history: History, losses: bool, late_witnesses: bool) -> Iterator[Broken]:
    """What the store alone shows."""
    for event, copies in Counter(event for _, _, _, event in history.events).items():
        if copies > 1:
            yield Broken("P6 exactly one copy", f"{event} is in the log {copies} times")
    for key, body in history.objects.items():
        first = history.first[key]
        if first == body or key.chapter in history.retired:
            continue  # in a retired chapter whatever appears is garbage
        if losses and (late_witnesses or not _named_stored(history, key.session, key.slot)):
            continue  # the last objects of a session, or of the roster, may vanish unnoticed until something names them
        promise = "P12 damage is found" if losses else "P4 never overwritten"
        yield Broken(promise, f"{show(key)} was {show(first)} and became {show(body)}")


def _named_stored(history: History, session: Session, slot: int) -> bool:
    """Does an object in the store say that this slot was stored? A final does: it is only put into the first gap."""
    for key, body in history.objects.items():
        names_lower_slots = isinstance(body, Segment) and (body.final or body.acknowledged > slot)
        if names_lower_slots and key.session == session and key.slot > slot:
            return True
        if isinstance(body, Entry) and any(id == session and count > slot for id, count in body.slots):
            return True
    return False


def beliefs_broken(history: History, beliefs: Beliefs, losses: bool) -> Iterator[Broken]:
    """What one process believes, against the store."""
    for topic, what in beliefs.items():
        if topic == "read":
            yield from _reading_broken(history, what, losses)
        elif topic == "missing":
            if not losses:
                yield Broken("P12 no false alarm", f"{show(what)} is said to be missing; nothing was lost")
        elif topic.startswith("sealed "):
            if f"sealed {_session_of(history, what, topic)}" != topic and not losses:
                yield Broken("P11 retention is safe", f"{topic} at slot {what}, which is not its final")
        elif topic.startswith("opened "):
            if what not in history.listed:
                yield Broken("P11 retention is safe", f"{topic}, which is not in the roster")
        elif what == STORED and topic not in history.names:
            yield Broken("P1 durable", f"{topic} was acknowledged and is not in the log")
        elif what == NOT_STORED and topic in history.names:
            yield Broken("P6 exactly one copy", f"{topic} was said to be NotStored and is in the log")


def _session_of(history: History, slot: Hashable, topic: str) -> Session | None:
    """The session of which this slot is the final, if it is the topic's."""
    return next((id for id, final in history.finals.items() if final == slot and f"sealed {id}" == topic), None)


Reading = tuple[frozenset[Read], int, tuple[int, int], frozenset[Session], str]
"""What a reader tells: taken, watermark, next roster number, sessions not at their end, why it stopped."""


def _reading_broken(history: History, what: Reading, losses: bool) -> Iterator[Broken]:
    """What a reader has taken, its watermark, and where it stands."""
    taken, watermark, at, following, stopped = what
    for stamp, session, slot, event in sorted(taken - history.events):
        if (session, slot) > (session, history.finals.get(session, slot)):
            yield Broken("P6 exactly one copy", f"{event} was read from a void slot: {show(log(session, slot))}")
        elif any(log(session, lower) not in history.first for lower in range(slot)):
            yield Broken("P3 no gaps", f"{event} was read before an earlier slot of {session} is there")
        else:
            yield Broken("P11 retention is safe", f"{event} at {stamp} was read and is not in the log")
    slots: dict[Session, set[int]] = {}
    for _, session, slot, _ in taken:
        slots.setdefault(session, set()).add(slot)
    for stamp, session, slot, event in sorted(history.events - taken):
        if any(later > slot for later in slots.get(session, ())):
            yield Broken("P3 no gaps", f"a later event of {session} was read, {event} was not")
        if stamp <= watermark:
            yield Broken("P7 one order", f"{event} at {stamp} appears below the watermark {watermark}")
        if session < at and session not in following and not stopped:
            if losses and not _named_stored(history, session, slot):
                continue  # the last objects of a session may vanish unnoticed
            promise = "P12 damage is found" if losses else "P3 no gaps"
            promise = "P11 retention is safe" if session[0] in history.retired else promise
            yield Broken(promise, f"the reader takes {session} for finished and has not read {event}")


def _is_deleted(history: History, chapter: int) -> bool:
    """Has deletion of the chapter begun?"""
    return any(key.chapter == chapter and key not in history.objects for key in history.first)


def end_broken(history: History, beliefs: Beliefs, losses: bool) -> Iterator[Broken]:
    """What must hold when nothing can move any more: of acknowledged events, and of readers."""
    for topic, what in beliefs.items():
        if losses and what == STORED and topic in history.void:
            yield Broken(
                "P1 durable", f"{topic} was acknowledged, lies there intact, and is void: a seal lies below it"
            )
    if "read" not in beliefs:
        return
    taken, _, at, _, stopped = beliefs["read"]
    if stopped or not (missed := sorted(history.events - taken)):
        return
    if losses:
        for _, session, slot, event in missed:
            if any(place < at and count > slot for place, id, count in history.named if id == session):
                yield Broken(
                    "P12 damage is found", f"{event} is lost, a tick that was read names it, and nobody says so"
                )
    elif any(_is_deleted(history, session[0]) for _, session, _, _ in missed):
        yield Broken("P11 retention is safe", f"the reader polls a deleted chapter for {missed} for ever")
    else:
        yield Broken("P6 visible to every reader", f"the reader never gets {missed}")


def pair_broken(one: Beliefs, other: Beliefs) -> Iterator[Broken]:
    """What two readers have settled must be one order."""
    if "read" not in one or "read" not in other:
        return
    orders = []
    for taken, watermark, *_ in (one["read"], other["read"]):
        orders.append([read for read in sorted(taken) if read[0] <= watermark])
    shorter, longer = sorted(orders, key=len)
    if longer[: len(shorter)] != shorter:
        yield Broken("P7 one order", f"settled in two orders: {shorter} and {longer}")


__all__ = ["Beliefs", "Broken", "History", "beliefs_broken", "end_broken", "pair_broken", "store_broken"]
