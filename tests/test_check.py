"""The check: a clean log has no findings; every kind of damage has one, and one does not hide another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import logstore
from logstore import Event, Finding, Log, LogSettings, NotFound, Progress, RetrySettings, WriterSettings
from logstore.check import check
from logstore.clock import StampClock
from logstore.entry import (
    Begin,
    Body,
    Closed,
    Entry,
    Exclusive,
    Open,
    Tick,
    decode_entry,
    encode_entry,
    next_entry,
)
from logstore.event import EventEncoder
from logstore.filestore import FileStore, MemoryStore
from logstore.identity import decode_identity
from logstore.keys import STORE, entry_key, retired_key, segment_key
from logstore.retired import Retired, RetiredSession, encode_retired
from logstore.segment import SegmentEncoder
from logstore.session import SessionId, Tip
from logstore.testing import ManualClock

SETTINGS = LogSettings(
    writer=WriterSettings(idle_ms=60_000, flights=4), retry=RetrySettings(attempt_timeout_ms=500, deadline_ms=500)
)


def log_in(store: FileStore) -> Log:
    return logstore.open(store, settings=SETTINGS)


def event(key: str) -> Event:
    return Event("Deployment", key, "planned", {"status": 1, "blob": b"\x00\xff"}, {"actor": "piped-1"})


async def fill(store: FileStore, *, chapters: int = 1) -> None:
    """Chapters of two writers, a session each, of three segments and a final."""
    for chapter in range(chapters):
        async with log_in(store) as log:
            for name in ("piped-1", "piped/2"):
                async with log.writer(name) as writer:
                    for n in range(3):
                        await writer.append(event(f"d-{n}"))
            if chapter < chapters - 1:
                assert await log.close_chapter()


async def keys(store: FileStore, prefix: str = "") -> list[str]:
    return [listed.key async for listed in store.list(prefix)]


async def put(store: FileStore, key: str, data: bytes) -> None:
    await store.delete(key)
    await store.create(key, data)


async def found(store: FileStore, progress: Progress | None = None) -> list[Finding]:
    return [finding async for finding in check(store, progress)]


async def damage(store: FileStore) -> dict[str, str]:
    return {finding.key: finding.what for finding in await found(store) if finding.severity == "damage"}


def slot(n: int, session: int = 1, writer: str = "piped-1", chapter: int = 0) -> str:
    return segment_key(writer, chapter, session, n)


async def test_a_clean_log_has_no_findings() -> None:
    """What the writers of this library leave, in several chapters, is as it should be; everything is looked at."""
    store, progress = MemoryStore(), Progress()
    await fill(store, chapters=3)
    assert await found(store, progress) == []
    assert progress.objects == len(await keys(store))
    assert (progress.segments, progress.events) == (3 * 2 * 4, 3 * 2 * 3)


async def test_a_log_in_use_has_no_findings() -> None:
    """Open sessions, and a roster that ends anywhere, are no damage."""
    store = MemoryStore()
    async with log_in(store) as log, log.writer("w") as writer:
        assert [finding async for finding in log.check()] == []
        receipt = await writer.append(event("d"))
        await log.settled(receipt)
        await writer.append(event("e"))
        assert [finding async for finding in log.check()] == []


async def test_an_empty_store_is_no_log() -> None:
    """A wrong address is told apart from a damaged log."""
    with pytest.raises(NotFound, match="no log in this store"):
        await found(MemoryStore())


@pytest.mark.parametrize("key", ["store", entry_key(0, 0), entry_key(0, 1), entry_key(0, 3), slot(0), slot(3)])
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda data: b"", "empty"),
        (lambda data: bytes(len(data)), ""),
        (lambda data: data[:-1], ""),
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], ""),
        (lambda data: b"#!/bin/sh", "not an object of ours|cut short"),
    ],
    ids=["zero-length", "zero-filled", "truncated", "flipped", "foreign"],
)
async def test_a_damaged_object_is_found_and_named(key: str, spoil: Callable[[bytes], bytes], what: str) -> None:
    """Wherever one object is damaged there is exactly one finding, which names it."""
    store = MemoryStore()
    await fill(store)
    await put(store, key, spoil((await store.get(key)).data))
    findings = await found(store)
    assert [(finding.severity, finding.key) for finding in findings] == [("damage", key)]


@pytest.mark.parametrize("key", ["store", entry_key(0, 0), entry_key(0, 2), slot(0), slot(1), slot(2)])
async def test_a_lost_object_is_found_and_named(key: str) -> None:
    """What something later needs is missed by its name, once."""
    store = MemoryStore()
    await fill(store)
    await store.delete(key)
    assert list(await damage(store)) == [key]


async def test_all_damage_is_listed_not_only_the_first() -> None:
    """Damage in several places of one session, of the other and of the roster has a finding each."""
    store = MemoryStore()
    await fill(store, chapters=3)
    last = (await keys(store, "roster/0000000001/"))[-1]
    for key in (slot(0), slot(2), slot(1, 3, "piped/2")):
        await put(store, key, b"")
    for key in (entry_key(0, 1), last, retired_key(0)):
        await store.delete(key)
    await store.create("log/readme", b"hello")
    expected = {slot(0), slot(2), slot(1, 3, "piped/2"), entry_key(0, 1), last, "log/readme"}
    assert set(await damage(store)) == expected


async def test_a_lost_end_of_the_roster_leaves_sessions_that_nobody_opened() -> None:
    """The last entries of the roster may vanish unnoticed, but not when their sessions hold anything."""
    store = MemoryStore()
    await fill(store)
    for key in (await keys(store, "roster/"))[3:]:
        await store.delete(key)
    assert list(await damage(store)) == ["log/piped%2F2/0000000000/0000000003/"]


async def test_names_of_nobody_are_told_apart_by_where_they_lie() -> None:
    """Under our own prefixes a strange name is damage; elsewhere it is a note, one for each prefix."""
    store = MemoryStore()
    await fill(store)
    for key in ("roster/0/7", "log/web/1/2/3", "photos/1", "photos/2", "snapshots/p/1", "probe/x/1"):
        await store.create(key, b"?")
    findings = await found(store)
    assert {f.key for f in findings if f.severity == "damage"} == {"roster/0/7", "log/web/1/2/3", "snapshots/p/1"}
    assert {f.key for f in findings if f.severity == "note"} == {"photos/1", "probe/x/1"}


# Sessions that did not end well -----------------------------------------------------------------


class Hand:
    """Writes a roster and segments by hand, so that they can be what no writer of ours would leave."""

    def __init__(self, store: FileStore, tail: Entry, store_digest: bytes) -> None:
        self.store = store
        self.tail = tail
        self.store_digest = store_digest
        self.stamps = StampClock(ManualClock(wall_ms=1_000_000))
        self.stamps.merge(tail.stamp)

    async def post(self, body: Body) -> SessionId:
        data, self.tail = encode_entry(next_entry(self.tail, self.store_digest, body, self.stamps.next(), bytes(16)))
        await self.store.create(entry_key(*self.tail.address), data)
        return SessionId(*self.tail.address, "hand")

    async def slots(self, session: SessionId, acknowledged: list[int], leave_out: int | None = None) -> Tip:
        """Store a segment of one event for each of ``acknowledged``, but for one."""
        tip = Tip.of(self.tail)
        for number, through in enumerate(acknowledged):
            data, segment = SegmentEncoder().encode(
                session.segment_key(number),
                [EventEncoder().encode(event("d"))],
                first_sequence=tip.sequence,
                stamp=self.stamps.next(),
                acknowledged=through,
                previous=tip.digest,
            )
            tip = tip.after(segment)
            if number != leave_out:
                await self.store.create(_name(session, number), data)
        return tip

    async def final(self, session: SessionId, tip: Tip) -> None:
        data, _ = SegmentEncoder().encode(
            session.segment_key(tip.slot),
            (),
            first_sequence=tip.sequence,
            stamp=self.stamps.next(),
            acknowledged=tip.slot,
            previous=tip.digest,
            final=True,
            sealed=True,
        )
        await self.store.create(_name(session, tip.slot), data)


OPEN = Open("hand", 1_000, 5_000, 4)


def _name(session: SessionId, number: int) -> str:
    return segment_key(session.writer, session.chapter, session.number, number)


@pytest.fixture
async def hand() -> Hand:
    """A hand on a log that holds one clean session."""
    store = MemoryStore()
    async with log_in(store) as log, log.writer("first") as writer:
        await writer.append(event("d"))
    last = (await keys(store, "roster/"))[-1]
    chapter, number = map(int, last.split("/")[1:])
    tail = decode_entry(chapter, number, (await store.get(last)).data)
    return Hand(store, tail, decode_identity((await store.get(STORE)).data).digest)


async def test_slots_in_flight_are_a_note(hand: Hand) -> None:
    """A writer that died left slots behind a gap that nothing says was stored."""
    session = await hand.post(OPEN)
    await hand.slots(session, [0, 0, 1, 1], leave_out=1)
    [finding] = await found(hand.store)
    assert (finding.severity, finding.key) == ("note", "log/hand/0000000000/0000000003/")
    assert "2 segments lie behind" in finding.what


async def test_a_gap_that_a_later_slot_acknowledged_is_damage(hand: Hand) -> None:
    """What a later slot says was stored, and is absent, is lost."""
    session = await hand.post(OPEN)
    await hand.slots(session, [0, 0, 1, 2], leave_out=1)
    assert list(await damage(hand.store)) == [_name(session, 1)]


async def test_a_slot_that_a_tick_names_is_damage_when_absent(hand: Hand) -> None:
    """The last slots of a session may vanish unnoticed, but not when a tick names them."""
    session = await hand.post(OPEN)
    await hand.slots(session, [0, 1], leave_out=1)
    assert await found(hand.store) == []
    await hand.post(Tick(((*session[:2], 2),)))
    assert list(await damage(hand.store)) == [_name(session, 1)]


async def test_a_whole_session_that_a_tick_names_is_damage_when_absent(hand: Hand) -> None:
    """Nothing of the session is listed; the tick remembers it."""
    session = await hand.post(OPEN)
    await hand.post(Tick(((*session[:2], 1),)))
    assert list(await damage(hand.store)) == [_name(session, 0)]


async def test_a_void_slot_that_says_the_final_stands_over_a_stored_one_is_damage(hand: Hand) -> None:
    """The store lost a slot, a sealer's final took its place, and what the owner stored above it is void: say so."""
    session = await hand.post(OPEN)
    tip = Tip.of(hand.tail)
    await hand.slots(session, [0, 1], leave_out=0)
    await hand.final(session, tip)
    assert list(await damage(hand.store)) == [_name(session, 0)]


async def test_a_final_over_a_lost_slot_is_damage(hand: Hand) -> None:
    """A tick says that the slot in which the final stands was a segment."""
    session = await hand.post(OPEN)
    tip = await hand.slots(session, [0])
    await hand.post(Tick(((*session[:2], 2),)))
    await hand.final(session, tip)
    assert "a final stands where" in (await damage(hand.store))[_name(session, 1)]


async def test_slots_above_a_final_are_void_and_a_note(hand: Hand) -> None:
    """Whatever landed after a seal is void: no damage, whatever it holds."""
    session = await hand.post(OPEN)
    await hand.final(session, await hand.slots(session, [0]))
    await hand.store.create(_name(session, 2), b"whatever")
    [finding] = await found(hand.store)
    assert (finding.severity, finding.what.split(":")[0]) == ("note", "1 segments are void")


async def test_an_entry_after_closed_is_damage(hand: Hand) -> None:
    """After its closed entry no number of a roster is ever used."""
    await hand.post(Closed())
    _, used = encode_entry(hand.tail)
    await hand.post(Begin())
    data, late = encode_entry(replace(used, number=used.number + 1, body=Tick()))
    await hand.store.create(entry_key(*late.address), data)
    assert list(await damage(hand.store)) == [entry_key(*late.address)]


async def test_a_lost_closed_entry_is_damage(hand: Hand) -> None:
    """The list goes on in the next chapter: the entry before it must have been a closed one."""
    await hand.post(Closed())
    closed = entry_key(*hand.tail.address)
    await hand.post(Begin())
    await hand.store.delete(closed)
    assert list(await damage(hand.store)) == [closed]


async def test_a_tick_that_names_nobodys_session_is_damage(hand: Hand) -> None:
    """A tick's sessions were opened before it."""
    await hand.post(Tick(((0, 77, 1),)))
    assert list(await damage(hand.store)) == [entry_key(*hand.tail.address)]


async def test_the_session_of_an_invalid_exclusive_entry_is_void(hand: Hand) -> None:
    """Who loses the race for a scope has no slots; what it wrote all the same is void."""
    await hand.post(Open("hand", 1_000, 5_000, 4, Exclusive(("K",), None)))
    session = await hand.post(Open("hand", 1_000, 5_000, 4, Exclusive(("K",), None)))
    await hand.slots(session, [0, 1])
    [finding] = await found(hand.store)
    assert (finding.severity, finding.key) == ("note", "log/hand/0000000000/0000000004/")


async def test_an_event_whose_data_is_no_map_is_damage(hand: Hand) -> None:
    """Readers decode an event's data when somebody looks; a check looks at all of them."""
    session = await hand.post(OPEN)
    tip = Tip.of(hand.tail)
    encoded = ("K", "k", "t", b"\xc3", None)
    data, _ = SegmentEncoder().encode(
        session.segment_key(0),
        [encoded],
        first_sequence=0,
        stamp=hand.stamps.next(),
        acknowledged=0,
        previous=tip.digest,
    )
    await hand.store.create(_name(session, 0), data)
    assert "not a map" in (await damage(hand.store))[_name(session, 0)]


# Retired chapters -------------------------------------------------------------------------------


async def retire(store: FileStore, chapter: int) -> None:
    last = (await keys(store, f"roster/{chapter:010d}/"))[-1]
    closed = decode_entry(chapter, int(last[-10:]), (await store.get(last)).data)
    record = Retired(chapter, closed.number, closed.digest, closed.stamp, (), {1: RetiredSession(3, closed.stamp)})
    await store.create(retired_key(chapter), encode_retired(record))


async def test_left_overs_of_a_retired_chapter_are_one_note() -> None:
    """In a retired chapter anything may be there, gone or damaged."""
    store = MemoryStore()
    await fill(store, chapters=3)
    await retire(store, 0)
    await store.delete(slot(0))
    await put(store, slot(1), b"")
    [finding] = await found(store)
    assert (finding.severity, finding.key) == ("note", retired_key(0))


async def test_a_retired_chapter_that_is_gone_leaves_a_clean_log() -> None:
    """The record carries the chain on to the next chapter."""
    store = MemoryStore()
    await fill(store, chapters=3)
    for chapter in (0, 1):
        await retire(store, chapter)
        for prefix in ("roster", "log/piped-1", "log/piped%2F2"):
            for key in await keys(store, f"{prefix}/{chapter:010d}/"):
                await store.delete(key)
    assert await found(store) == []
    await store.delete(retired_key(0))
    assert list(await damage(store)) == [retired_key(0)]
    for key in await keys(store, "roster/"):
        await store.delete(key)
    assert entry_key(2, 0) in await damage(store)
