"""P12 in a world at rest: lose or flip an object behind everybody's back, and read.

A reading must give exactly what was there, or say by a typed error that something is wrong; never
other events, never a part in silence. The one exception: the last few objects of a session (as many as it has
flights), or the last of the roster, may be lost unnoticed, as long as nothing names them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from logstore import Corrupt, Log, Missing, Position
from logstore.entry import Open
from logstore.keys import ArchiveKey, EntryKey, RetiredKey, SegmentKey, StoreKey, parse_key
from logstore.session import SessionId
from tests.simulation.history import name_of
from tests.simulation.truth import TrueEvent, Truth

__all__ = ["judge", "pick", "read_through"]

Event = tuple[tuple[int, int, int, int], str]


def pick(rng: random.Random, keys: Sequence[str]) -> str:
    """Choose what to damage: any object of the log, each kind as likely as the other."""
    kinds: dict[type, list[str]] = {}
    for key in keys:
        if (parsed := parse_key(key)) is not None:
            kinds.setdefault(type(parsed), []).append(key)
    return rng.choice(kinds[rng.choice(sorted(kinds, key=lambda kind: kind.__name__))])


async def read_through(log: Log, oldest: Position | None, *, skip: bool) -> tuple[list[Event], str]:
    """Everything that a reading from ``oldest`` on yields, and the error that ended it, if any."""
    events: list[Event] = []
    try:
        async for event in log.read(oldest, on_damage="skip" if skip else "raise"):
            events.append((event.order, name_of(event)))  # noqa: PERF401  what came before an error counts
    except (Corrupt, Missing) as error:
        return events, str(error)
    return events, ""


def judge(
    key: str, lost: bool, truth: Truth, events: list[Event], error: str, *, skip: bool, first_chapter: int
) -> Iterator[str]:
    """What is wrong with a reading after the damage; it began at ``first_chapter``."""
    kept = truth.since(first_chapter)
    story = f"{'lost' if lost else 'flipped'} {key}{' skip' if skip else ''}"
    true = [(event.order, event.id) for event in kept]
    if not set(events) <= set(true):
        yield f"P12 {story}: read what was never stored: {sorted(set(events) - set(true))[:3]}"
    if events != sorted(events):
        yield f"P12 {story}: read out of order"
    hurt = [event for event in kept if _hurts(key, event)]
    if skip and not error:
        unhurt = [(event.order, event.id) for event in kept if event not in hurt]
        if not set(unhurt) <= set(events):
            yield f"P12 {story}: sessions without damage are not readable"
    elif not error and events != true:
        if not (lost and _may_vanish(key, truth)):
            yield f"P12 {story}: read {len(events)} of {len(true)} events in silence"
        elif events != [(event.order, event.id) for event in kept if event not in hurt]:
            yield f"P12 {story}: read too little"


def _hurts(key: str, event: TrueEvent) -> bool:
    """Whether an event lies at or behind the damage."""
    _, chapter, session, _ = event.order
    match parse_key(key):
        case SegmentKey(_, damaged_chapter, damaged_session, _):
            return (chapter, session) == (damaged_chapter, damaged_session) and event.key >= key
        case EntryKey(damaged_chapter, number):
            return (chapter, session) >= (damaged_chapter, number)
        case _:
            return True


def _may_vanish(key: str, truth: Truth) -> bool:
    """Whether nothing that is left names the object."""
    match parse_key(key):
        case StoreKey() | RetiredKey() | ArchiveKey():
            return False
        case EntryKey(chapter, number):
            return truth.entries[-1].address == (chapter, number)
        case SegmentKey(writer, chapter, number, slot):
            session = truth.sessions[SessionId(chapter, number, writer)]
            assert isinstance(session.opened.body, Open)
            return slot >= session.slots - session.opened.body.flights
        case _:
            return True
