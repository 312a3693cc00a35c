"""The sleeper's rule: who slept through a collection gets no false answer, yes or no.

A chapter's objects are deleted one grace after its retirement record was created, names and all. So whoever
concludes from an object or an absence with a look older than half the grace looks again first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from logstore import Corrupt, Log, NotStored, Reader, Receipt, Trimmed, Unknown
from logstore.entry import Tick, encode_entry, next_entry
from logstore.filestore.base import Blob
from logstore.filestore.memory import MemoryStore
from logstore.keys import entry_key, retired_key
from logstore.looks import Looks, StoreTime
from logstore.retired import Retired, encode_retired
from logstore.testing import ManualClock
from tests.scene import Gate, Machine, Scene, directed, event, hang, hang_after, moved_by, quick, read, take

GRACE_MS = 40_000
ALWAYS = 10**9


# The look itself ------------------------------------------------------------------------------


class Asked(MemoryStore):
    """Counts, and lets time pass while it answers."""

    def __init__(self, clock: ManualClock, *, takes_ms: int = 0) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.takes_ms = takes_ms
        self.gets = 0

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        self.gets += 1
        self.clock.advance(self.takes_ms)
        return await super().get(key, start, stop)


def looking(clock: ManualClock, **store: int) -> tuple[Looks, Asked, StoreTime]:
    store_time = StoreTime(clock)
    store_time.tell(clock.wall_ms())
    bucket = Asked(clock, **store)
    return Looks(bucket, store_time, GRACE_MS), bucket, store_time


def record(chapter: int) -> bytes:
    return encode_retired(Retired(chapter, 1, bytes(32), 1, (), {}))


async def test_a_look_is_relied_on_until_half_the_grace() -> None:
    """A look that found nothing serves for less than half the grace, then another is made."""
    clock = ManualClock()
    looks, store, _ = looking(clock)
    assert not looks.fresh(0)
    assert await looks.retired(0) is None
    clock.advance(GRACE_MS // 2 - 1)
    assert looks.fresh(0)
    assert await looks.retired(0) is None
    assert store.gets == 1
    clock.advance(1)
    assert not looks.fresh(0)
    assert await looks.retired(0) is None
    assert store.gets == 2


async def test_a_look_counts_from_its_start() -> None:
    """An answer that was long under way is as old as its question."""
    clock = ManualClock()
    looks, _, _ = looking(clock, takes_ms=GRACE_MS // 2)
    assert await looks.retired(0) is None
    assert not looks.fresh(0)


async def test_the_larger_of_the_two_times_counts() -> None:
    """Whether the local elapsed clock or the store's own time went further: the look is as old as that says."""
    clock = ManualClock()
    looks, _, store_time = looking(clock)
    await looks.look(0)
    store_time.tell(clock.wall_ms() + GRACE_MS // 2)
    assert not looks.fresh(0)
    looks, _, _ = looking(clock)
    await looks.look(0)
    clock.advance(GRACE_MS // 2)
    assert not looks.fresh(0)


async def test_a_wall_clock_that_steps_back_keeps_no_look_fresh() -> None:
    """Setting the date back does not make a look younger."""
    clock = ManualClock()
    looks, _, _ = looking(clock)
    await looks.look(0)
    clock.advance(GRACE_MS)
    clock.step(-10 * GRACE_MS)
    assert not looks.fresh(0)


async def test_a_record_found_is_final() -> None:
    """Once retired, always retired: no further request, and no fresh absence."""
    clock = ManualClock()
    looks, store, _ = looking(clock)
    await looks.look(3)
    await store.create(retired_key(3), record(3))
    assert await looks.retired(3) is None
    found = await looks.look(3)
    assert found is not None
    assert not looks.fresh(3)
    gets = store.gets
    clock.advance(10 * GRACE_MS)
    assert await looks.retired(3) == found
    assert store.gets == gets


class Overtaken(Asked):
    """The first answer is long under way; the others are not."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.arrives = asyncio.Event()

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        first = self.gets == 0
        try:
            return await super().get(key, start, stop)
        finally:
            if first:
                await self.arrives.wait()


async def test_an_answer_that_comes_late_makes_no_record_forgotten() -> None:
    """A look found nothing, and hears of it after another found the record: retired it stays."""
    clock = ManualClock()
    bucket, store_time = Overtaken(clock), StoreTime(clock)
    store_time.tell(clock.wall_ms())
    looks = Looks(bucket, store_time, GRACE_MS)
    slow = asyncio.create_task(looks.look(0))
    await asyncio.sleep(0)
    await bucket.create(retired_key(0), record(0))
    found = await looks.look(0)
    assert found is not None
    bucket.arrives.set()
    assert await slow is None
    assert not looks.fresh(0)
    assert await looks.retired(0) == found


async def test_a_damaged_record_is_said_not_guessed() -> None:
    """A record that cannot be read is neither a yes nor a no."""
    clock = ManualClock()
    looks, store, _ = looking(clock)
    await store.create(retired_key(0), record(1))
    with pytest.raises(Corrupt, match=retired_key(0)):
        await looks.retired(0)
    assert not looks.fresh(0)


# A chapter that ends --------------------------------------------------------------------------


@asynccontextmanager
async def opened(machine: Machine, *, follow_ms: int = 100) -> AsyncIterator[Log]:
    async with machine.open(quick(follow_ms=follow_ms), grace_ms=GRACE_MS) as log:
        yield log


async def close_and_collect(scene: Scene, chapter: int = 0) -> None:
    """End a chapter, retire it, let the grace pass, delete it, and let the sleepers sleep on."""
    async with opened(scene.machine(f"keeper{chapter}")) as log:
        await log.close_chapter()
    await scene.retire(chapter)
    await asyncio.sleep(GRACE_MS / 1000 + 1)
    assert scene.collect(chapter)
    await asyncio.sleep(1)


async def write(scene: Scene, name: str, *keys: str) -> None:
    """A process that appends one event after the other, and ends."""
    async with opened(scene.machine(f"{name} for {keys}")) as log, log.writer(name) as writer:
        for key in keys:
            await writer.append(event(key))


async def at_the_end(scene: Scene) -> str:
    """The position of somebody who has read everything so far."""
    async with opened(scene.machine("marker")) as log:
        reader = log.read()
        async for _ in reader:
            pass
        return moved_by(reader.position)


async def read_after(scene: Scene, position: str, name: str = "last reader") -> list[str]:
    async with opened(scene.machine(name)) as log:
        return await read(log, after=position)


async def note(reader: Reader, seen: list[str]) -> None:
    """Read on, and note the keys."""
    async for each in reader:
        seen.append(each.key)  # noqa: PERF401  one by one: others look at it meanwhile


# Writers --------------------------------------------------------------------------------------


@directed
async def test_a_writer_that_slept_while_giving_up_is_told_by_the_record(scene: Scene) -> None:
    """Its own seal succeeds in a collected prefix: that proves nothing; what was not stored is sent again."""
    web = scene.machine("web")

    async def life() -> Receipt:
        async with opened(web) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            web.script.on("create", scene.slot("web", 1, 1), hang, times=2)
            call = asyncio.create_task(writer.append(event("b")))
            await asyncio.sleep(0.8)
            web.process.pause()
            return await call

    living = web.start(life())
    await asyncio.sleep(5)
    position = await at_the_end(scene)
    await scene.seal("web", 1)
    await close_and_collect(scene)
    web.process.resume()
    assert (await living).chapter == 1
    assert await read_after(scene, position) == ["b"]


@directed
async def test_a_creation_answered_after_a_suspension_is_not_acknowledged_without_a_look(scene: Scene) -> None:
    """The lid was closed with a flight in the air: no timer has expired, the answer is a success, and it is void."""
    web = scene.machine("web")
    gate = Gate()
    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", gate.before)
        call = asyncio.create_task(writer.append(event("b")))
        await gate.met()
        await scene.seal("web", 1)
        position = await at_the_end(scene)
        async with opened(scene.machine("keeper")) as keeper:
            await keeper.close_chapter()
        await scene.retire(0)
        scene.collect(0)
        web.clock.suspend(GRACE_MS + 1_000)
        scene.store.clock.step(GRACE_MS + 1_000)
        gate.open()
        assert (await call).chapter == 1
        assert (await writer.append(event("c"))).chapter == 1
        assert await read(log, after=position) == ["b", "c"]


@directed
async def test_an_opener_that_slept_starts_over(scene: Scene) -> None:
    """Its open entry lies in a chapter that is retired by now: void; it opens in the newest chapter instead."""
    await write(scene, "other", "x")
    web = scene.machine("web")
    gate = Gate()

    async def life() -> Receipt:
        async with opened(web) as log, log.writer("web") as writer:
            web.script.on("create", "roster/", gate.after)
            call = asyncio.create_task(writer.append(event("a")))
            await gate.met()
            web.process.pause()
            return await call

    living = web.start(life())
    await asyncio.sleep(5)
    number = scene.roster()[-1].number
    await scene.seal("web", number)
    position = await at_the_end(scene)
    await close_and_collect(scene)
    gate.open()
    web.process.resume()
    receipt = await living
    assert receipt.chapter == 1
    assert not scene.store.keys("log/web/0000000000/")
    assert await read_after(scene, position) == ["a"]


# resolve --------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("zombie", [False, True], ids=["clean", "zombie"])
@directed
async def test_resolve_after_a_collection_is_answered_by_the_record(scene: Scene, landed: bool, zombie: bool) -> None:
    """When the objects are gone, or others stand under their names, the record says what was stored."""
    web = scene.machine("web")
    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", hang_after if landed else hang, times=ALWAYS)
        with pytest.raises(Unknown) as raised:
            await writer.append(event("b"))
        web.script.clear()
    entries = scene.roster()
    await scene.seal("web", 1)
    await close_and_collect(scene)
    if zombie:  # somebody who slept creates another entry under the number of our session
        _, begin = encode_entry(entries[0])
        data, _ = encode_entry(next_entry(begin, begin.digest, Tick(), begin.stamp + 1, bytes(16)))
        await scene.world.create(entry_key(0, 1), data)
    async with opened(scene.machine("other")) as log:
        if landed:
            assert (await log.resolve(raised.value)).slot == 1
        else:
            with pytest.raises(NotStored):
                await log.resolve(raised.value)


# Readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("collected", [False, True])
@directed
async def test_a_position_that_has_consumed_the_chapter_goes_on_at_the_next(scene: Scene, collected: bool) -> None:
    """Everything listed was read: that the chapter is retired, or gone, is nothing to its reader."""
    await write(scene, "web", "a", "b")
    async with opened(scene.machine("keeper")) as log:
        await log.close_chapter()
    position = await at_the_end(scene)
    await write(scene, "web", "c")
    await scene.retire(0)
    await asyncio.sleep(GRACE_MS / 1000 + 1)
    if collected:
        scene.collect(0)
    assert await read_after(scene, position) == ["c"]


@directed
async def test_a_position_before_the_end_of_a_chapter_that_was_consumed_goes_on(scene: Scene) -> None:
    """It had read all events, but neither the session's final nor the entries behind it: still nothing is missed."""
    web = scene.machine("web")
    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        position = await at_the_end(scene)
    await close_and_collect(scene)
    await write(scene, "web", "c")
    assert await read_after(scene, position) == ["c"]


@pytest.mark.parametrize("collected", [False, True])
@directed
async def test_a_position_that_has_not_consumed_the_chapter_is_trimmed(scene: Scene, collected: bool) -> None:
    """What it would have to read next is retired: Trimmed, never less than everything without a word."""
    web = scene.machine("web")
    positions = []
    async with opened(web) as log, log.writer("web") as writer:
        for key in "abc":
            await writer.append(event(key))
            positions.append(await at_the_end(scene))
    async with opened(scene.machine("keeper")) as log:
        await log.close_chapter()
    await write(scene, "web", "d")
    await scene.retire(0)
    await asyncio.sleep(GRACE_MS / 1000 + 1)
    if collected:
        scene.collect(0)
    for position in positions[:2]:
        with pytest.raises(Trimmed):
            await read_after(scene, position)
    assert await read_after(scene, positions[2]) == ["d"]
    async with opened(scene.machine("from the beginning")) as log:
        with pytest.raises(Trimmed):
            await read(log)


@directed
async def test_a_position_in_the_middle_of_a_retired_segment_is_trimmed(scene: Scene) -> None:
    """Half a segment read is not the chapter consumed."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append_many([event("a"), event("b")])
        reader = log.read()
        assert (await anext(aiter(reader))).key == "a"
        position = moved_by(reader.position)
    await close_and_collect(scene)
    with pytest.raises(Trimmed):
        await read_after(scene, position)


@pytest.mark.parametrize("settled", [False, True])
@directed
async def test_a_follower_that_slept_and_had_consumed_everything_goes_on(scene: Scene, settled: bool) -> None:
    """It wakes in a chapter that is gone, and follows in the next one."""
    machine = scene.machine("reader")

    async def follow() -> list[str]:
        async with opened(machine) as log:
            return await take(log.follow(settled=settled), 3, timeout=3_600)

    following = machine.start(follow())
    await write(scene, "web", "a", "b")
    await asyncio.sleep(10)
    machine.process.pause()
    await close_and_collect(scene)
    await write(scene, "web", "c")
    machine.process.resume()
    assert await following == ["a", "b", "c"]


@directed
async def test_after_trimmed_one_can_follow_again_from_a_better_position(scene: Scene) -> None:
    """Trimmed asks to plan again; the same open log must let one do so."""
    machine, web = scene.machine("reader"), scene.machine("web")

    async def follow() -> list[str]:
        async with opened(machine) as log:
            with pytest.raises(Trimmed):
                await take(log.follow(), 100, timeout=3_600)
            return await take(log.follow(after=positions[0]), 1)

    positions: list[str] = []
    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        following = machine.start(follow())
        await asyncio.sleep(0.5)
        machine.process.pause()
        await writer.append(event("b"))
    positions.append(await at_the_end(scene))
    await close_and_collect(scene)
    await write(scene, "web", "c")
    machine.process.resume()
    assert await following == ["c"]


@directed
async def test_a_reader_that_slept_in_the_middle_of_a_segment_is_trimmed(scene: Scene) -> None:
    """What it holds it may hand out; what it would fetch next is gone, and that is said."""
    await write(scene, "web", *(f"e{i}" for i in range(40)))
    machine = scene.machine("reader")
    seen: list[str] = []

    async def read_slowly() -> None:
        async with opened(machine) as log:
            async for each in log.read():
                seen.append(each.key)
                if len(seen) == 3:
                    machine.process.pause()
                    await asyncio.sleep(0.001)

    reading = machine.start(read_slowly())
    await asyncio.sleep(5)
    await close_and_collect(scene)
    machine.process.resume()
    with pytest.raises(Trimmed):
        await reading
    assert seen == [f"e{i}" for i in range(len(seen))]
    assert len(seen) < 40


@directed
async def test_a_hole_in_a_roster_that_is_being_deleted_is_not_missing(scene: Scene) -> None:
    """The collector deletes in any order: absent with its successor present is Missing in a live chapter only."""
    for key in "abc":
        await write(scene, key, key)
    position = await at_the_end(scene)
    machine = scene.machine("poster")
    async with opened(machine) as log:
        assert await read(log, after=position) == []
        async with opened(scene.machine("keeper")) as keeper:
            await keeper.close_chapter()
        await scene.retire(0)
        last = scene.roster()[-2].number
        await asyncio.sleep(GRACE_MS / 1000 + 1)
        scene.store.lose(entry_key(0, last))
        assert await read_after(scene, position) == []
        async with log.writer("poster") as writer:
            assert (await writer.append(event("d"))).chapter == 1


# Zombies --------------------------------------------------------------------------------------


@directed
async def test_a_zombies_segment_in_a_collected_prefix_is_never_an_event(scene: Scene) -> None:
    """What lands under deleted names is garbage whenever it appears: no reader yields it."""
    await write(scene, "web", "a")
    tip = scene.session("web", 1)
    machine = scene.machine("reader")
    seen: list[str] = []

    async def follow() -> None:
        async with opened(machine) as log:
            await note(log.follow(), seen)

    following = machine.start(follow())
    await asyncio.sleep(5)
    machine.process.pause()
    await close_and_collect(scene)
    await scene.put_segment(*tip, "zombie")
    await write(scene, "web", "b")
    machine.process.resume()
    await asyncio.sleep(60)
    following.cancel()
    assert seen == ["a", "b"]


@directed
async def test_a_sealer_that_slept_neither_seals_nor_cries(scene: Scene) -> None:
    """The silent session it was about to seal is gone with its chapter: no Missing, no seal; what waited goes on."""
    machine, web = scene.machine("sealer"), scene.machine("web")
    receipts: list[Receipt] = []

    async def wait_until_settled() -> list[str]:
        async with opened(machine) as log:
            following = asyncio.create_task(take(log.follow(), 3, timeout=3_600))
            await asyncio.sleep(1)
            settling = asyncio.create_task(log.settled(receipts[0], timeout=3_600))
            await asyncio.sleep(1)
            machine.process.pause()
            await asyncio.sleep(0.0001)
            await settling
            return await following

    async def die() -> None:
        async with opened(web) as log, log.writer("web") as writer:
            receipts.append(await writer.append(event("a")))
            web.process.pause()
            await asyncio.sleep(0.0001)

    dying = web.start(die())
    await asyncio.sleep(0.5)
    waiting = machine.start(wait_until_settled())
    await asyncio.sleep(20)
    web.process.crash()
    await scene.seal("web", 1)
    await close_and_collect(scene)
    await write(scene, "web", "b", "c")
    machine.process.resume()
    assert await waiting == ["a", "b", "c"]
    assert not dying.done()
    assert not scene.store.keys("log/web/0000000000/")


@directed
async def test_settling_needs_nothing_of_retired_chapters(scene: Scene) -> None:
    """All that a retired chapter held is settled: waiting for a receipt starts behind it, and is not Trimmed."""
    await write(scene, "web", "a", "b")
    await close_and_collect(scene)
    async with opened(scene.machine("late")) as log, log.writer("late") as writer:
        receipt = await writer.append(event("c"))
        await log.settled(receipt, timeout=30)
        assert log.watermark >= receipt.stamp
