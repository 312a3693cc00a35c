"""What things cost in requests, counted: no LIST, one PUT per segment, one GET per idle poll, however long the past.

Each number here is a promise (P5, P13, P14, RFC 0001 §10); a test that has to be changed upwards is a regression.
"""

from __future__ import annotations

import asyncio
import math
from functools import cache

import pytest

from logstore import FollowSettings, LogSettings, Position, WriterSettings
from logstore.entry import Begin, Closed, Entry, Open, encode_entry, next_entry
from logstore.event import EventEncoder
from logstore.filestore.memory import MemoryStore
from logstore.identity import Identity, decode_identity, encode_identity
from logstore.keys import entry_key, retired_key, segment_key
from logstore.segment import SegmentEncoder
from logstore.session import SessionId, Tip
from logstore.testing.process import EPOCH_MS
from tests.scene import Gate, Scene, directed, event, events, moved_by, quick, read, take

HOUR_S = 3_600
GRACE_MS = 24 * HOUR_S * 1_000
STEADY = FollowSettings(poll_ms_min=100, poll_ms_max=100)


# A long past ----------------------------------------------------------------------------------


@cache
def past(sessions: int, per_chapter: int) -> tuple[dict[str, bytes], Position]:
    """A store with so many dead sessions of one event each, and the position at its end."""
    made = encode_identity(Identity(bytes(16), EPOCH_MS - GRACE_MS, GRACE_MS, "full", None))
    identity = decode_identity(made)
    contents = {"store": made}
    stamp = (EPOCH_MS - GRACE_MS) << 16
    tail: Entry | None = None
    segments, encoded = SegmentEncoder(), EventEncoder().encode(event("old"))

    def post(body: Begin | Open | Closed) -> Entry:
        nonlocal tail, stamp
        stamp += 100
        data, tail = encode_entry(next_entry(tail, identity.digest, body, stamp, bytes(16)))
        contents[entry_key(*tail.address)] = data
        return tail

    post(Begin())
    for number in range(sessions):
        if number and number % per_chapter == 0:
            post(Closed())
            post(Begin())
        opened = post(Open("old", 30_000, 70_000, 4))
        session, tip = SessionId.of(opened), Tip.of(opened)
        for batch in ([encoded], []):
            stamp += 10
            data, segment = segments.encode(
                session.segment_key(tip.slot),
                batch,
                first_sequence=tip.sequence,
                stamp=stamp,
                acknowledged=tip.slot,
                previous=tip.digest,
                final=not batch,
            )
            contents[segment_key("old", session.chapter, session.number, tip.slot)] = data
            tip = tip.after(segment)
    assert tail is not None
    return contents, Position(identity.id, tail.address, tail.digest)


def with_past(scene: Scene, sessions: int, per_chapter: int = 10**9) -> Position:
    """Put a long past into the bucket, without asking it anything."""
    contents, position = past(sessions, per_chapter)
    bucket = scene.store._bucket
    assert isinstance(bucket, MemoryStore)
    bucket._objects.update((key, (data, EPOCH_MS - GRACE_MS)) for key, data in contents.items())
    bucket._keys[:] = sorted(bucket._objects)
    return position


PASTS = [(1, 10**9), (2_000, 10**9), (5_000, 10**9), (5_000, 100)]


@pytest.mark.parametrize(("sessions", "per_chapter"), PASTS)
@directed
async def test_opening_a_writer_costs_a_bounded_number_of_requests(
    scene: Scene, sessions: int, per_chapter: int
) -> None:
    """Whatever the past: the identity, 2·log2 of chapters and entries, the tail, two creations; at most 45."""
    with_past(scene, sessions, per_chapter)
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("new"))
        cost = log.requests()
        chapters = math.ceil(sessions / per_chapter)
        bound = 12 + 2 * math.log2(chapters + 1) + 2 * math.log2(min(sessions, per_chapter) + 1)
        assert cost.create.requests == 2
        assert cost.list.requests == 0
        assert cost.get.requests <= min(bound, 43)


@pytest.mark.parametrize(("sessions", "per_chapter"), PASTS)
@directed
async def test_resuming_a_reader_costs_a_handful_of_requests(scene: Scene, sessions: int, per_chapter: int) -> None:
    """From a position at the end: the identity, the entry, the tail, a look; the position is as small as ever."""
    position = with_past(scene, sessions, per_chapter)
    assert len(str(position)) < 200
    async with scene.machine("web").open() as log:
        reader = log.read(after=str(position))
        assert [each.key async for each in reader] == []
        assert log.requests().requests <= 7
        assert len(moved_by(reader.position)) < 200
        async with log.writer("web") as writer:
            await writer.append(event("new"))
        before = log.requests()
        assert await read(log, after=reader.position) == ["new"]
        assert (log.requests() - before).requests <= 10


@pytest.mark.parametrize("sessions", [1, 2_000])
@directed
async def test_an_idle_follower_costs_one_get_per_poll(scene: Scene, sessions: int) -> None:
    """And a look, and a glance beyond the tail, now and then; after one past session and after 2,000."""
    position = with_past(scene, sessions)
    reader = scene.machine("reader")
    async with reader.open(LogSettings(follow=STEADY)) as log:
        following = asyncio.create_task(take(log.follow(after=position), 1, timeout=10_000))
        await asyncio.sleep(5)
        before, asked = log.requests(), len(reader.script.asked)
        await asyncio.sleep(300)
        cost = log.requests() - before
        number = (position.last or (0, 0))[1] + 1
        polls = reader.script.asked[asked:].count(("get", entry_key(0, number)))
        assert 300 / 0.11 <= polls <= 300 / 0.08
        assert cost.requests - polls <= 2 * 6
        assert (cost.create.requests, cost.list.requests) == (0, 0)
        following.cancel()


# Steady state ---------------------------------------------------------------------------------


@directed
async def test_an_append_costs_one_creation_and_nothing_else(scene: Scene) -> None:
    """No read, no list, no lock, however many other writers there are (P5)."""
    others = [scene.machine(f"other{i}") for i in range(5)]
    stop = asyncio.Event()

    async def disturb(name: str) -> None:
        machine = scene.machine(name)
        async with machine.open() as log, log.writer("web") as writer:
            while not stop.is_set():
                await writer.append(event("noise"))

    disturbing = [asyncio.create_task(disturb(machine.name)) for machine in others]
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("first"))
        before = log.requests()
        for i in range(200):
            await writer.append(event(f"e{i}"))
        cost = log.requests() - before
        stop.set()
        assert (cost.create.requests, cost.requests) == (200, 200)
    await asyncio.gather(*disturbing)


@directed
async def test_10000_events_by_64_callers_cost_no_more_than_bytes_and_linger_explain(scene: Scene) -> None:
    """A segment is sent when the linger is over or it is full: so many creations at most, and no other request."""
    linger_ms = 10
    settings = LogSettings(writer=WriterSettings(linger_ms=linger_ms))
    async with scene.machine("web").open(settings) as log, log.writer("web") as writer:
        await writer.append(event("first"))
        before, began_s = log.requests(), scene.loop.time()

        async def caller(name: int) -> None:
            for i in range(10_000 // 64 + (name < 10_000 % 64)):
                await writer.append(event(f"{name}.{i}"))

        await asyncio.gather(*(caller(name) for name in range(64)))
        cost, took_ms = log.requests() - before, (scene.loop.time() - began_s) * 1_000
        assert writer.statistics().events_stored == 10_001
        assert cost.requests == cost.create.requests
        assert cost.create.requests <= took_ms / linger_ms + cost.bytes_in / (8 << 20) + 1
        assert cost.create.requests <= 10_000 / 64 * 2


@directed
async def test_without_a_linger_flights_explain_the_creations(scene: Scene) -> None:
    """With no linger a segment goes out when a flight is free: never more than flights times round trips."""
    flights = 4
    settings = LogSettings(writer=WriterSettings(linger_ms=0, flights=flights))
    web = scene.machine("web")
    async with web.open(settings) as log, log.writer("web") as writer:
        await writer.append(event("first"))
        before = log.requests()
        await asyncio.gather(*(writer.append(event(f"e{i}")) for i in range(10_000)))
        assert (log.requests() - before).requests <= flights + 2


@directed
async def test_steady_state_needs_no_list(scene: Scene) -> None:
    """Writing, following, settling, closing sessions and chapters, resuming: never a LIST (P14)."""
    async with scene.machine("web").open() as log, scene.machine("reader").open() as other:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        lists = [log.requests().list.requests, other.requests().list.requests]
        reader = other.follow(settled=True)
        for round_ in range(3):
            async with log.writer("web") as writer:
                receipt = await writer.append(event(f"b{round_}"))
                await log.settled(receipt, timeout=60)
            await log.close_chapter()
        assert await take(reader, 4) == ["a", "b0", "b1", "b2"]
        assert await read(other, after=moved_by(reader.position)) == []
        assert [log.requests().list.requests, other.requests().list.requests] == lists


@directed
async def test_an_idle_hour_of_a_writer_costs_nothing(scene: Scene) -> None:
    """After the final and the tick there is silence."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await asyncio.sleep(120)
        before = log.requests()
        await asyncio.sleep(HOUR_S)
        assert (log.requests() - before).requests == 0


@directed
async def test_an_idle_hour_of_a_remote_follower(scene: Scene) -> None:
    """Backed off to a poll every 2 s (jittered by a fifth), one GET each, and two glances a minute at the tail."""
    scene.store.remote = True
    reader = scene.machine("reader")
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
    async with reader.open() as log:
        following = asyncio.create_task(take(log.follow(), 2, timeout=10 * HOUR_S))
        await asyncio.sleep(60)
        before = log.requests()
        await asyncio.sleep(HOUR_S)
        cost = log.requests() - before
        assert HOUR_S / 2.1 <= cost.get.requests <= HOUR_S / 1.6 + 2 * 61
        assert (cost.create.requests, cost.list.requests) == (0, 0)
        assert cost.price_usd < 0.001
        following.cancel()


@directed
async def test_the_end_of_a_session_costs_two_creations(scene: Scene) -> None:
    """Its final, and one tick above its events, with three GETs of the tail."""
    async with scene.machine("web").open() as log:
        writer = log.writer("web")
        await writer.append(event("a"))
        before = log.requests()
        await writer.aclose()
        cost = log.requests() - before
        assert cost.create.requests == 2
        assert cost.get.requests <= 3


@directed
async def test_a_session_open_and_quiet_costs_its_follower_one_get_per_poll(scene: Scene) -> None:
    """A poll asks for the next entry and for the next slot of each open session, and for nothing else."""
    settings = LogSettings(writer=WriterSettings(idle_ms=600_000))
    reader = scene.machine("reader")
    async with scene.machine("web").open(settings) as log, reader.open(LogSettings(follow=STEADY)) as other:
        writers = [log.writer(f"w{i}") for i in range(5)]
        for writer in writers:
            await writer.append(event(writer.name))
        following = asyncio.create_task(take(other.follow(), 99))
        await asyncio.sleep(2)
        before, asked = other.requests(), len(reader.script.asked)
        await asyncio.sleep(20)
        polls = sum(key.startswith("roster/") for _, key in reader.script.asked[asked:])
        assert (other.requests() - before).requests <= 6 * polls
        following.cancel()


# Reading --------------------------------------------------------------------------------------


@directed
async def test_reading_ones_own_writes_costs_no_request(scene: Scene) -> None:
    """In the process that wrote it an event is there after its acknowledgement, without asking the store (P9)."""
    slow = LogSettings(follow=FollowSettings(poll_ms_min=600_000, poll_ms_max=600_000))
    async with scene.machine("web").open(slow) as log, log.writer("web") as writer:
        await writer.append(event("first"))
        reader = log.follow()
        assert await take(reader, 1) == ["first"]
        waiting = asyncio.create_task(take(reader, 100))
        await asyncio.sleep(1)
        before = log.requests()
        for i in range(100):
            await writer.append(event(f"e{i}"))
        assert await waiting == [f"e{i}" for i in range(100)]
        cost = log.requests() - before
        assert (cost.create.requests, cost.get.requests) == (100, 0)


@directed
async def test_reading_own_writes_of_a_new_session_costs_no_request_either(scene: Scene) -> None:
    """Own entries are known as well: a session opened by this process needs no poll to be found."""
    slow = LogSettings(follow=FollowSettings(poll_ms_min=600_000, poll_ms_max=600_000))
    async with scene.machine("web").open(slow) as log:
        following = asyncio.create_task(take(log.follow(), 2, timeout=60))
        await asyncio.sleep(1)
        for key in "ab":
            async with log.writer("web") as writer:
                await writer.append(event(key))
        assert await following == ["a", "b"]


@directed
async def test_reading_costs_one_get_per_object(scene: Scene) -> None:
    """Each entry and segment once, and at most a window beyond the end of each session; again: nearly nothing."""
    async with scene.machine("web").open() as log:
        for name in "ab":
            async with log.writer(name) as writer:
                for i in range(200):
                    await writer.append(event(f"{name}{i}"))
    objects = len(scene.store.keys("log/")) + len(scene.store.keys("roster/"))
    async with scene.machine("reader").open() as log:
        before = log.requests()
        assert len(await read(log)) == 400
        cost = (log.requests() - before).requests
        assert objects <= cost <= objects + 2 * 8 + 40
        before = log.requests()
        assert len(await read(log)) == 400
        assert (log.requests() - before).requests <= 40


@directed
async def test_a_look_is_made_once_per_chapter_and_half_grace(scene: Scene) -> None:
    """The sleeper's rule costs a GET of `retired/<chapter>` each half grace, not each poll or append."""
    grace_ms = 400_000
    web = scene.machine("web")
    async with web.open(quick(follow_ms=500), grace_ms=grace_ms) as log, log.writer("web") as writer:
        following = asyncio.create_task(take(log.follow(), 10**6, timeout=10**6))
        for i in range(100):
            await writer.append(event(f"e{i}"))
            await asyncio.sleep(4)
        looks = web.script.count("get", retired_key(0))
        assert looks <= 400_000 / (grace_ms / 2) + 3
        following.cancel()


@directed
async def test_memory_is_bounded(scene: Scene) -> None:
    """What is remembered stays near its limit, whatever is read and written (P13)."""
    settings = LogSettings(memory_bytes_max=100_000)
    async with scene.machine("web").open(settings) as log, log.writer("web") as writer:
        for _ in range(60):
            await writer.append_many(events(*(f"e{i}" for i in range(100))))
        assert len(await read(log)) == 6_000
        assert "bytes=" in repr(log._objects)
        assert log._objects._bytes <= 100_000 + 20_000


@directed
async def test_flights_under_way_are_bounded(scene: Scene) -> None:
    """No more creations than flights are ever under way, whatever is appended (P13)."""
    web = scene.machine("web")
    gate = Gate()
    async with web.open(LogSettings(writer=WriterSettings(flights=3))) as log, log.writer("web") as writer:
        await writer.append(event("first"))
        web.script.on("create", "log/", gate.before, times=10**9)
        calls = [asyncio.create_task(writer.append_many(events(*(f"{i}.{j}" for j in range(400))))) for i in range(100)]
        await asyncio.sleep(0.4)
        assert gate.held == 3
        gate.open()
        await asyncio.gather(*calls)
