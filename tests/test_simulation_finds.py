"""What simulation has found in production code, each as the shortest schedule that shows it.

A test here is named after the cause. The seed that found it is of no use any more: worlds change.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from logstore import LogSettings, Missing, WriterSettings
from logstore import open as open_log
from logstore.clock import StampClock
from logstore.entry import Tick
from logstore.filestore.base import Blob
from logstore.filestore.memory import MemoryStore
from logstore.identity import Identity, decode_identity, encode_identity
from logstore.looks import Looks, StoreTime
from logstore.objects import Objects
from logstore.roster import Roster
from logstore.testing import ManualClock
from tests.scene import Scene, directed, event, quick, read, take, until


class SteeredStore(MemoryStore):
    """A memory store in which a test may let something happen just before a request takes effect."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.before_get: dict[str, asyncio.Future[None]] = {}
        self.asked: dict[str, asyncio.Event] = {}

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        if (gate := self.before_get.pop(key, None)) is not None:
            self.asked[key].set()
            await gate
        return await super().get(key, start, stop)

    def hold(self, key: str) -> tuple[asyncio.Event, asyncio.Future[None]]:
        """Hold the next get of ``key`` until the future is done; the event says that it has come."""
        self.asked[key] = asyncio.Event()
        self.before_get[key] = asyncio.get_running_loop().create_future()
        return self.asked[key], self.before_get[key]


async def test_opening_a_store_that_another_process_makes_meanwhile_is_not_missing() -> None:
    """Finding no identity and then a roster means that somebody was faster; only if it is still absent is it lost."""
    clock = ManualClock()
    store = SteeredStore(clock)
    slow = open_log(store, clock=clock, rng=random.Random(1))
    asked, go_on = store.hold("roster/0000000000/0000000000")
    opening = asyncio.create_task(slow.__aenter__())
    await asked.wait()
    async with open_log(store, clock=clock, rng=random.Random(2)) as fast, fast.writer("fast") as writer:
        await writer.append(event("k"))
    go_on.set_result(None)
    log = await opening
    assert [stored.key async for stored in log.read()] == ["k"]
    await log.__aexit__(None, None, None)


async def test_an_entry_learnt_while_the_tail_is_sought_is_not_taken_for_its_predecessor() -> None:
    """Seeking the tail waits for answers; what others in the process learn meanwhile must not mix with them."""
    clock = ManualClock()
    store = SteeredStore(clock)
    made = Identity(bytes(16), 0, 1 << 40, "full", None)
    await store.create("store", encode_identity(made))
    identity = decode_identity((await store.get("store")).data)

    def roster(seed: int) -> Roster:
        stamps, told = StampClock(clock), StoreTime(clock)
        objects = Objects(store, clock, stamps, told, bytes_max=1 << 20)
        return Roster(identity, objects, Looks(store, told, made.grace_ms), stamps, random.Random(seed))

    other, ours = roster(1), roster(2)
    await other.post(lambda _: Tick())
    asked, go_on = store.hold("roster/0000000000/0000000001")
    seeking = asyncio.create_task(ours.find_tail())
    await asked.wait()
    second = await other.post(lambda _: Tick())
    assert second is not None
    ours.learn(second)
    go_on.set_result(None)
    tail = await seeking
    assert tail is not None
    assert tail.address == second.address == (0, 2)


async def test_small_appends_do_not_overtake_a_large_one_that_waits_for_room() -> None:
    """When the buffer is full, calls get in in their order: else a large one could wait for ever."""
    clock = ManualClock()
    settings = LogSettings(writer=WriterSettings(buffer_events_max=4))
    async with open_log(MemoryStore(clock=clock), clock=clock, settings=settings) as log:
        async with log.writer("w") as writer:
            sizes = [3, 3, 1, 3, 1, 1]
            await asyncio.gather(*(writer.append_many([event(str(i))] * size) for i, size in enumerate(sizes)))
        keys = [stored.key async for stored in log.read()]
    assert keys == [str(i) for i, size in enumerate(sizes) for _ in range(size)]


@directed
async def test_a_lost_slot_with_later_ones_behind_it_is_missing_for_who_reads(scene: Scene) -> None:
    """Reading stops at an absent slot only if it may be unwritten: later ones say that it was lost."""
    web = scene.machine("web")
    settings = quick(writer=WriterSettings(flights=2, idle_ms=1_000, idle_ms_max=2_000))
    async with web.open(settings) as log, log.writer("web") as writer:
        for key in "abcde":
            await writer.append(event(key))
    scene.store.lose(scene.slot("web", 1, 1))
    async with scene.machine("reader").open(settings) as log:
        with pytest.raises(Missing, match="0000000001/0000000001"):
            await read(log)
        assert await read(log, on_damage="skip") == ["a"]
    scene.store.lose(scene.slot("web", 1, 2))
    scene.store.lose(scene.slot("web", 1, 3))
    async with scene.machine("another reader").open(settings) as log:
        assert await read(log) == ["a"], "what a session wrote last may vanish unnoticed"


@directed
async def test_a_follower_does_not_wait_for_ever_for_a_slot_that_was_lost(scene: Scene) -> None:
    """A follower that polls an absent slot makes sure now and then that its session has not gone on behind it."""
    web, reader = scene.machine("web"), scene.machine("reader")
    settings = quick(writer=WriterSettings(flights=1, idle_ms=600_000))
    async with web.open(settings) as log, reader.open(settings) as following, log.writer("web") as writer:
        await writer.append(event("a"))
        follower = following.follow()
        assert await take(follower, 1) == ["a"]
        reader.process.pause()
        for key in "bcd":
            await writer.append(event(key))
        scene.store.lose(scene.slot("web", 1, 1))
        reader.process.resume()
        with pytest.raises(Missing, match="0000000001/0000000001"):
            await take(follower, 1)


@directed
async def test_a_tick_that_died_with_its_writer_is_posted_by_who_waits_for_it(scene: Scene) -> None:
    """A writer that crashes between its final and its tick leaves events above the roster: a settled follower ticks."""
    web, reader = scene.machine("web"), scene.machine("reader")

    async def live() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            web.process.crash()

    doomed = web.start(live())
    await until(lambda: scene.ids() == ["a"])
    assert not doomed.done()
    await scene.seal("web", 1)  # and the sealer dies too
    async with reader.open(quick()) as log:
        assert await take(log.follow(settled=True), 1) == ["a"]
    assert scene.bodies() == ["Begin", "Open", "Tick"]
