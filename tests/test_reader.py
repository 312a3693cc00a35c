"""Reading: total order, exact settled flags, positions that resume exactly, damage that is named, never passed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import groupby, pairwise

import pytest

from logstore import (
    Corrupt,
    InvalidArgument,
    Log,
    LogSettings,
    Missing,
    Position,
    Reader,
    StaleStore,
    StoredEvent,
    Writer,
    WriterSettings,
)
from logstore.entry import Open, encode_entry, next_entry
from logstore.entry import Tick as TickBody
from logstore.filestore.base import Blob
from logstore.identity import Identity, encode_identity
from logstore.keys import entry_key
from tests.scene import Carry, Gate, Scene, directed, event, events, keys_of, lose, moved_by, quick, read, take


async def collect(reader: Reader) -> list[StoredEvent]:
    return [each async for each in reader]


async def write_interleaved(scene: Scene, writers: int = 4, rounds: int = 12, seed: int = 1) -> None:
    """Several processes that append at once, some events in one segment, some sessions ending in between."""
    rng = random.Random(seed)

    async def work(name: str) -> None:
        machine = scene.machine(name, skew_ms=rng.randint(-900, 900))
        settings = quick(writer=WriterSettings(idle_ms=300, idle_ms_max=300))
        async with machine.open(settings) as log, log.writer(name) as writer:
            for i in range(rounds):
                await writer.append_many(events(*(f"{name}.{i}.{j}" for j in range(rng.choice([1, 1, 3])))))
                await asyncio.sleep(rng.choice([0, 0.02, 0.5]))

    await asyncio.gather(*(work(f"w{i}") for i in range(writers)))


def watermark(scene: Scene) -> int:
    """W of somebody who has read everything, from DESIGN's definition."""
    truth = scene.truth()
    seen = [truth.entries[-1].stamp]
    for session, true in truth.sessions.items():
        if not true.final:
            stamps = [each.order[0] for each in truth.events if each.order[1:3] == session[:2]]
            seen.append(max(stamps, default=true.opened.stamp))
    return min(seen)


# Order ----------------------------------------------------------------------------------------


@directed
async def test_reading_is_in_total_order_over_all_writers(scene: Scene) -> None:
    """(stamp, chapter, session, sequence), whatever was written where; and it is what the bucket holds."""
    await write_interleaved(scene)
    async with scene.machine("reader").open() as log:
        stored = await collect(log.read())
    assert [each.order for each in stored] == sorted(each.order for each in stored)
    assert keys_of(stored) == scene.ids()
    assert len({each.session for each in stored}) > 4


@directed
async def test_events_of_equal_stamp_are_ordered_by_session(scene: Scene) -> None:
    """Two writers in one process never have equal stamps; two processes may: then the session decides."""
    async with scene.machine("a").open() as one, scene.machine("b").open() as two:
        first, second = one.writer("a"), two.writer("b")
        await first.append(event("a0"))
        await second.append(event("b0"))
        a, b = scene.session("a", 1), scene.session("b", 2)
        stamp = max(a[1].stamp, b[1].stamp) + 1_000
        await scene.put_segment(b[0], b[1]._replace(stamp=stamp), "b1", "b2")
        await scene.put_segment(a[0], a[1]._replace(stamp=stamp), "a1", "a2", "a3")
        stored = await collect(two.read())
    assert keys_of(stored) == ["a0", "b0", "a1", "a2", "a3", "b1", "b2"]
    assert stored[2].stamp == stored[-1].stamp


@directed
async def test_no_event_is_ordered_within_anothers_append(scene: Scene) -> None:
    """P2: the events of one ``append_many`` have one stamp and follow one another, whoever writes beside them."""
    await write_interleaved(scene, seed=5)
    async with scene.machine("reader").open() as log:
        stored = await collect(log.read())
    appends = [each.key.rpartition(".")[0] for each in stored]
    assert len([name for name, _ in groupby(appends)]) == len(set(appends)) < len(appends)
    assert len({(each.stamp, each.session, each.chapter) for each in stored}) == len(set(appends))


@directed
async def test_what_a_tick_names_after_its_turn_is_left_to_the_next_reading(scene: Scene) -> None:
    """One reading is in order, also where a slot that was absent in its turn came meanwhile, and a tick names it."""
    reader = scene.machine("reader")
    async with (
        scene.machine("a").open() as one,
        one.writer("a") as first,
        scene.machine("b", skew_ms=900).open() as two,
        two.writer("b") as second,
        reader.open() as log,
    ):
        await first.append(event("a0"))
        await second.append(event("b0"))
        later = await second.append(event("b1"))
        gate = Gate()
        reader.script.on("get", entry_key(0, 3), gate.before)
        whole = log.read()
        reading = asyncio.create_task(collect(whole))
        await gate.met()
        assert (await first.append(event("a1"))).stamp < later.stamp
        one._stamps.merge(later.stamp)
        await one._post_tick(later.stamp)
        gate.open()
        assert keys_of(await reading) == ["a0", "b0", "b1"]
        assert await read(log, after=whole.position) == ["a1"]
        assert await read(log) == ["a0", "a1", "b0", "b1"]


@directed
async def test_no_number_is_asked_for_behind_a_closed_entry_that_is_remembered(scene: Scene) -> None:
    """P9: where its own process ended the chapter, a reading waits for no entry that cannot be."""
    async with scene.machine("web").open() as log, log.writer("a") as first, log.writer("b") as second:
        await first.append(event("1"))
        await second.append(event("2"))
        await log.close_chapter()
        closed = next(entry for entry in scene.truth().entries if entry.successor == (1, 0))
        sent = len(scene.store.requests)
        assert await read(log) == ["1", "2"]
        asked = {request.key for request in scene.store.requests[sent:]}
        assert not asked & {entry_key(0, closed.number + beyond) for beyond in range(1, 40)}


@directed
async def test_a_reading_stays_in_order_over_a_retirement(scene: Scene) -> None:
    """It plans anew when a chapter is retired meanwhile, and yields nothing below what it has yielded."""
    reader = scene.machine("reader")
    async with (
        scene.machine("old", skew_ms=1_900).open(quick(), grace_ms=60_000) as one,
        scene.machine("a").open(quick()) as two,
        two.writer("a") as writer,
        reader.open(quick()) as log,
    ):
        old = one.writer("old")
        await old.append(event("o0"))
        await one.close_chapter()
        await writer.append(event("a0"))
        late = await old.append(event("o1"))
        seen = []
        async for each in log.read():
            seen.append(each)
            if each.key == "o1":
                assert (await writer.append(event("a1"))).stamp < late.stamp
                await old.aclose()
                await scene.retire(0)
                reader.clock.suspend(31_000)
    assert [each.order for each in seen] == sorted(each.order for each in seen)


@directed
async def test_what_was_left_damaged_is_met_again_by_who_goes_on(scene: Scene) -> None:
    """A position after skipped damage says so: restored, it is read; it holds the watermark; others are not misled."""
    async with (
        scene.machine("a").open() as one,
        one.writer("a") as first,
        scene.machine("b", skew_ms=1_900).open() as two,
        two.writer("b") as second,
    ):
        await first.append(event("a0"))
        await second.append(event("b0"))
        damaged = scene.slot("a", 1, 0)
        scene.store.flip(damaged, 200)
        async with scene.machine("skipper").open() as log:
            reader = log.read(on_damage="skip")
            assert keys_of(await collect(reader)) == ["b0"]
            position = reader.position
            again = log.read(after=position, on_damage="skip")
            assert (await collect(again), len(again.damage)) == ([], 1)
        scene.store.flip(damaged, 200)
        async with scene.machine("reader").open() as log:
            following = asyncio.create_task(take(log.follow(after=position), 2))
            await asyncio.sleep(0.5)
            assert await take(log.follow(), 2) == ["a0", "b0"]
            last = await second.append(event("b1"))
            with pytest.raises(TimeoutError):
                await log.settled(last, timeout=2)
            assert await following == ["a0", "b1"]


@directed
async def test_two_readings_yield_the_same(scene: Scene) -> None:
    """Once all is settled the order is the same for every reader, cold or warm, at once or in pieces."""
    await write_interleaved(scene, seed=2)
    async with scene.machine("one").open() as one, scene.machine("two").open(LogSettings(memory_bytes_max=1)) as two:
        first = keys_of(await collect(one.read()))
        assert keys_of(await collect(one.read())) == first
        assert keys_of(await collect(two.read(settled=True))) == first
        assert await take(two.follow(settled=True), len(first)) == first


@directed
async def test_kinds_filter_events_and_not_positions(scene: Scene) -> None:
    """Only the kinds asked for are yielded; resuming with others goes on exactly there."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        for i in range(6):
            await writer.append_many([event(f"a{i}", "A"), event(f"b{i}", "B"), event(f"c{i}", "C")])
        assert await read(log, kinds=["B"]) == [f"b{i}" for i in range(6)]
        assert await read(log, kinds={"A", "C"}) == [f"{kind}{i}" for i in range(6) for kind in "ac"]
        assert await read(log, kinds=[]) == []
        assert await read(log, kinds=["None such"]) == []
        reader = log.read(kinds=["B"])
        assert (await anext(aiter(reader))).key == "b0"
        assert (await read(log, after=reader.position))[:3] == ["c0", "a1", "b1"]
        whole = log.read(kinds=["None such"])
        assert await collect(whole) == []
        assert await read(log, after=whole.position) == []


# What is settled ------------------------------------------------------------------------------


@directed
async def test_the_settled_flag_is_exact(scene: Scene) -> None:
    """An event is settled if and only if it is at or below the watermark of what is stored, at any moment."""
    rng = random.Random(3)
    writing = asyncio.create_task(write_interleaved(scene, seed=3))
    async with scene.machine("reader").open() as log:
        for _ in range(25):
            await asyncio.sleep(rng.uniform(0, 0.3))
            frozen = scene.store.contents()
            stored = await collect(log.read())
            if frozen == scene.store.contents():  # else the reading and the bucket may differ
                limit = watermark(scene)
                assert [each.settled for each in stored] == [each.stamp <= limit for each in stored]
        await writing
        await asyncio.sleep(1)
        stored = await collect(log.read())
        assert [each.settled for each in stored] == [each.stamp <= watermark(scene) for each in stored]
        assert all(each.settled for each in stored)


@directed
async def test_the_settled_flag_is_exact_at_every_moment_of_a_session(scene: Scene) -> None:
    """Step by step: an open entry, a segment, a second session, a tick, a final: W moves exactly as it is defined."""
    async with scene.machine("reader").open() as log:

        async def agree() -> list[bool]:
            stored = await collect(log.read())
            limit = watermark(scene)
            assert [each.settled for each in stored] == [each.stamp <= limit for each in stored]
            settled = await read(log, settled=True)
            assert settled == [each.key for each in stored if each.stamp <= limit]
            return [each.settled for each in stored]

        async with scene.machine("a").open() as one, scene.machine("b").open() as two:
            first, second = one.writer("a"), two.writer("b")
            await first.append_many(events("a0", "a1"))
            assert await agree() == [False, False]
            await second.append(event("b0"))
            assert await agree() == [True, True, False]
            await first.append(event("a2"))
            assert await agree() == [True, True, False, False]
            await second.aclose()
            assert await agree() == [True, True, True, True]  # the closing tick lies above a2
            await first.append(event("a3"))
            assert await agree() == [True, True, True, True, False]
            await first.aclose()
            assert await agree() == [True] * 5


@directed
async def test_a_settled_reading_is_a_prefix(scene: Scene) -> None:
    """Whatever is settled now is the beginning of what will be: nothing ever appears before it."""
    writing = asyncio.create_task(write_interleaved(scene, seed=4))
    prefixes = []
    async with scene.machine("reader").open() as log:
        for _ in range(40):
            await asyncio.sleep(0.1)
            prefixes.append(await read(log, settled=True))
        await writing
        await asyncio.sleep(1)
        whole = await read(log, settled=True)
    assert whole == scene.ids()
    for earlier, later in pairwise([*prefixes, whole]):
        assert later[: len(earlier)] == earlier
    assert any(prefixes)


# Positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settled", [False, True])
@directed
async def test_the_position_after_every_single_event_resumes_exactly(scene: Scene, settled: bool) -> None:
    """In the middle of a segment too, by another process, from text: what follows is what was not yet yielded."""
    await write_interleaved(scene, writers=3, rounds=5, seed=5)
    async with scene.machine("reader").open() as log, scene.machine("other").open() as other:
        reader = log.read(settled=settled)
        assert reader.position is None
        positions = []
        keys = []
        async for each in reader:
            keys.append(each.key)
            positions.append(moved_by(reader.position))
        for i, position in enumerate(positions):
            assert await read(other, after=position, settled=settled) == keys[i + 1 :], f"after {i}"
            assert await read(other, after=Position.parse(position), settled=settled) == keys[i + 1 :]
            assert str(Position.parse(position)) == position
        assert await read(log, after=moved_by(reader.position)) == []


@directed
async def test_an_unsettled_position_misses_no_late_lower_stamp(scene: Scene) -> None:
    """An event that appears later with a lower stamp than what was read is read next, not skipped."""
    slow = scene.machine("slow")
    async with slow.open() as one, scene.machine("fast").open() as two:
        first, second = one.writer("slow"), two.writer("fast")
        await first.append(event("a"))
        gate = Gate()
        slow.script.on("create", "log/", gate.before)
        call = asyncio.create_task(first.append(event("late")))
        await gate.met()
        await second.append(event("b"))
        reader = two.read()
        assert keys_of(await collect(reader)) == ["a", "b"]
        gate.open()
        late = await call
        rest = await collect(two.read(after=reader.position))
        assert keys_of(rest) == ["late"]
        assert late.stamp < (await collect(two.read()))[-1].stamp


@directed
async def test_positions_are_bounded(scene: Scene) -> None:
    """A position grows with the sessions open at that moment, not with those that ever were."""
    web = scene.machine("web")
    sizes = []
    async with web.open() as log:
        for i in range(60):
            async with log.writer(f"w{i}") as writer:
                await writer.append(event(f"e{i}"))
            reader = log.read()
            await collect(reader)
            sizes.append(len(moved_by(reader.position)))
        assert max(sizes) < 200
        writers = [log.writer(f"open{i}") for i in range(50)]
        for writer in writers:
            await writer.append(event(writer.name))
        reader = log.read()
        await collect(reader)
        assert len(moved_by(reader.position)) < 200 + 50 * 100


@directed
async def test_a_position_of_before_the_first_event_reads_everything(scene: Scene) -> None:
    """Reading an empty log yields a position too; what comes later comes after it."""
    async with scene.machine("web").open() as log:
        reader = log.read()
        assert await collect(reader) == []
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        assert await read(log, after=moved_by(reader.position)) == ["a"]


@directed
async def test_what_is_no_position_is_refused(scene: Scene) -> None:
    """Cut, altered or foreign text is an argument error, never a wrong place."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        receipt = await writer.append(event("a"))
        reader = log.read()
        await collect(reader)
        text = moved_by(reader.position)
        for wrong in ("", "position-", text[:-2], text[:20] + "A" + text[21:], str(receipt), text + "A"):
            with pytest.raises(InvalidArgument):
                await read(log, after=wrong)
        with pytest.raises(InvalidArgument):
            log.read(on_damage="ignore")  # type: ignore[arg-type]


# Another store --------------------------------------------------------------------------------


@directed
async def test_a_position_of_another_store_is_stale(scene: Scene) -> None:
    """A restored copy has an id of its own: its readers start again, they do not go on somewhere."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        reader = log.read()
        await collect(reader)
        position = moved_by(reader.position)
        identity = log.identity
    for name in scene.store.contents():
        scene.store.lose(name)
    scene.store._ever.clear()  # from here on it is another store
    copied = Identity(bytes(16), identity.created_ms, identity.grace_ms, "full", identity.id)
    await scene.world.create("store", encode_identity(copied))
    async with scene.machine("other").open() as log:
        with pytest.raises(StaleStore):
            await read(log, after=position)
        with pytest.raises(StaleStore):
            await take(log.follow(after=position), 1)


async def set_back(scene: Scene) -> tuple[str, list[str]]:
    """A store of which a backup was taken in the middle; return the position at the end and the names since."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
    backup = set(scene.store.contents())
    async with scene.machine("web2").open() as log:
        async with log.writer("web") as writer:
            await writer.append(event("b"))
        reader = log.read()
        await collect(reader)
    return moved_by(reader.position), sorted(set(scene.store.contents()) - backup)


@directed
async def test_a_position_beyond_a_store_that_was_set_back_is_stale(scene: Scene) -> None:
    """The entry that it names is gone: the history that it belongs to is not this one."""
    position, since = await set_back(scene)
    for name in since:
        scene.store.lose(name)
    async with scene.machine("other").open() as log:
        with pytest.raises(StaleStore):
            await read(log, after=position)
        assert await read(log) == ["a"]


@directed
async def test_a_position_whose_entry_has_another_digest_is_stale(scene: Scene) -> None:
    """Set back and written on: another entry stands under the number, and that is noticed."""
    position, since = await set_back(scene)
    for name in since:
        scene.forget(name)
    async with scene.machine("other").open() as log, log.writer("other") as writer:
        for key in "xyz":
            await writer.append(event(key))
            await writer.aclose()
            writer = log.writer("other")  # noqa: PLW2901  one session after the other
    async with scene.machine("third").open() as log:
        with pytest.raises(StaleStore):
            await read(log, after=position)


# Damage ---------------------------------------------------------------------------------------


async def two_writers(scene: Scene) -> None:
    """Session 1 of `a` with a0..a9, session 2 of `b` with b0..b9, one segment per event; both still open."""
    async with scene.machine("a").open() as one, scene.machine("b").open() as two:
        first, second = one.writer("a"), two.writer("b")
        for i in range(10):
            await first.append(event(f"a{i}"))
            await second.append(event(f"b{i}"))
        await first.aclose()
        await second.aclose()


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("damage", ["lost", "flipped"])
@directed
async def test_damage_is_named_and_what_lies_before_it_is_read(scene: Scene, damage: str, settled: bool) -> None:
    """Corrupt or Missing, with the key; the events before it are yielded, none after it, of any session."""
    await two_writers(scene)
    name = scene.slot("a", 1, 4)
    if damage == "lost":
        scene.store.lose(name)
    else:
        scene.store._ever.pop(name)
        scene.store.flip(name, 777)
    seen: list[str] = []

    async def read_on(log: Log) -> None:
        async for each in log.read(settled=settled):
            seen.append(each.key)  # noqa: PERF401  up to the error

    async with scene.machine("reader").open() as log:
        with pytest.raises(Missing if damage == "lost" else Corrupt, match=name):
            await read_on(log)
    assert [key for key in seen if key[0] == "a"] == ["a0", "a1", "a2", "a3"]
    assert set(seen) <= {f"{name}{i}" for name in "ab" for i in range(5)}


@pytest.mark.parametrize("damage", ["lost", "flipped"])
@directed
async def test_skipping_damage_keeps_other_sessions_readable(scene: Scene, damage: str) -> None:
    """``on_damage="skip"``: the damaged session is left there, the others are read whole; the damage is noted."""
    await two_writers(scene)
    name = scene.slot("a", 1, 4)
    if damage == "lost":
        scene.store.lose(name)
    else:
        scene.store._ever.pop(name)
        scene.store.flip(name, 777)
    async with scene.machine("reader").open() as log:
        reader = log.read(on_damage="skip")
        seen = keys_of(await collect(reader))
        assert [key for key in seen if key[0] == "b"] == [f"b{i}" for i in range(10)]
        assert [key for key in seen if key[0] == "a"] == ["a0", "a1", "a2", "a3"]
        (noted,) = reader.damage
        assert name in str(noted)
        assert isinstance(noted, Missing if damage == "lost" else Corrupt)


@directed
async def test_a_foreign_object_under_a_slots_name_is_corrupt(scene: Scene) -> None:
    """A whole, valid segment that is another one is not read in its place."""
    await two_writers(scene)
    name = scene.slot("a", 1, 4)
    other = scene.store.contents()[scene.slot("a", 1, 5)]
    scene.forget(name)
    await scene.world.create(name, other)
    async with scene.machine("reader").open() as log:
        with pytest.raises(Corrupt, match=name):
            await read(log)


@directed
async def test_a_segment_of_another_history_is_corrupt(scene: Scene) -> None:
    """Right name, right numbers, but it does not follow the digest before it: a fork is noticed."""
    async with scene.machine("a").open() as log, log.writer("a") as writer:
        for key in ("a0", "a1", "a2"):
            await writer.append(event(key))
        session, tip = scene.session("a", 1)
        await scene.put_segment(session, tip._replace(digest=bytes(32)), "forged")
        with pytest.raises(Corrupt, match=scene.slot("a", 1, 3)):
            await read(log)


@directed
async def test_a_forged_roster_entry_is_corrupt(scene: Scene) -> None:
    """An entry that does not hold the digest of the one before it is no entry of this list."""
    await two_writers(scene)
    last = scene.roster()[-1]
    forged, _ = encode_entry(next_entry(last, b"", TickBody(), last.stamp + 1, bytes(16)))
    broken = bytearray(forged)
    broken[60] ^= 1
    await scene.world.create(entry_key(0, last.number + 1), bytes(broken))
    async with scene.machine("reader").open() as log:
        with pytest.raises(Corrupt, match=entry_key(0, last.number + 1)):
            await read(log)
    assert isinstance(last.body, TickBody | Open)


@directed
async def test_a_slot_that_a_tick_names_is_missing(scene: Scene) -> None:
    """The last object of a session is gone and nothing lies above it, but a tick says that it was: Missing."""
    async with scene.machine("a").open() as log:
        writer = log.writer("a")
        receipts = [await writer.append(event(key)) for key in ("a0", "a1", "a2")]
        await log.settled(receipts[-1], timeout=20)
        name = scene.slot("a", 1, 2)
        ticks = [entry.body for entry in scene.roster() if isinstance(entry.body, TickBody)]
        assert (0, 1, 3) in ticks[-1].slots
        for gone in (name, scene.slot("a", 1, 3)):
            scene.store.lose(gone)
        async with scene.machine("reader").open() as reader_log:
            with pytest.raises(Missing, match=name):
                await read(reader_log)
            with pytest.raises(Missing, match=name):
                await take(reader_log.follow(), 3)


@directed
async def test_a_reader_never_passes_an_absent_slot(scene: Scene) -> None:
    """A later slot that landed first is not seen before the earlier one: no gaps (P3)."""
    web = scene.machine("web")
    async with web.open(LogSettings(writer=WriterSettings(flights=4))) as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", scene.slot("web", 1, 1), gate.before)
        calls = []
        for key in ("1", "2", "3"):
            calls.append(asyncio.create_task(writer.append(event(key))))
            await asyncio.sleep(0.05)
        assert scene.slot("web", 1, 3) in scene.store.contents()
        async with scene.machine("other").open() as other:
            assert await read(other) == ["0"]
            following = asyncio.create_task(take(other.follow(), 4))
            await asyncio.sleep(2)
            assert await read(other) == ["0"]
            gate.open()
            assert await following == ["0", "1", "2", "3"]
        await asyncio.gather(*calls)


@directed
async def test_the_last_objects_of_a_session_may_vanish_unnoticed(scene: Scene) -> None:
    """What nothing names cannot be missed (P12's exception), until a later object names it."""
    async with scene.machine("a").open() as log:
        writer = log.writer("a")
        for i in range(10):
            await writer.append(event(f"a{i}"))
        for slot in (8, 9):
            scene.store.lose(scene.slot("a", 1, slot))
        async with scene.machine("reader").open() as other:
            assert await read(other) == [f"a{i}" for i in range(8)]
        await writer.append(event("a10"))  # its header says that all before it were stored
        async with scene.machine("reader2").open() as other:
            with pytest.raises(Missing, match=scene.slot("a", 1, 8)):
                await read(other)


# Reading while others write -------------------------------------------------------------------


async def write_for_ever(writer: Writer, stop: asyncio.Event, payload: int = 10) -> int:
    count = 0
    while not stop.is_set():
        await writer.append_many([event(f"e{count:06}.{i}") for i in range(payload)])
        count += 1
    return count


@pytest.mark.parametrize("skew_ms", [-1_500, 0, 1_500, 3 * 3_600_000])
@directed
async def test_catching_up_ends_while_a_fast_writer_goes_on(scene: Scene, skew_ms: int) -> None:
    """``read`` goes to what is stored when it starts, or a moment later: a fast writer cannot keep it for ever."""
    web, reader = scene.machine("web"), scene.machine("reader", skew_ms=skew_ms)
    stop = asyncio.Event()
    async with web.open(LogSettings(writer=WriterSettings(flights=8))) as log, log.writer("web") as writer:
        writing = asyncio.create_task(write_for_ever(writer, stop))
        await asyncio.sleep(1)
        before = len(scene.ids())
        async with reader.open() as other:
            began_s = scene.loop.time()
            async with asyncio.timeout(60):
                stored = await read(other)
            assert scene.loop.time() - began_s < 20
        assert len(stored) >= before
        stop.set()
        assert stored == scene.ids()[: len(stored)]
        await writing


@directed
async def test_many_sessions_written_at_once_are_all_fetched_ahead(scene: Scene) -> None:
    """Regression: some used up what may be fetched ahead, and the others were read one GET after another."""
    sessions, rounds, get_s = 40, 8, 0.1

    async def slow(carry: Carry) -> Blob:
        await asyncio.sleep(get_s)
        blob: Blob = await carry()
        return blob

    async with scene.machine("web").open() as log, AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(log.writer(f"w{n:02}")) for n in range(sessions)]
        for number in range(rounds):
            for writer in writers:
                await writer.append(event(f"{number}"))
    reader = scene.machine("reader")
    async with reader.open() as log:
        reader.script.on("get", "log/", slow, times=10**9)
        began_s = scene.loop.time()
        assert len(await read(log)) == sessions * rounds
        assert scene.loop.time() - began_s < sessions * rounds * get_s / 4


@directed
async def test_a_read_holds_everything_acknowledged_before_it(scene: Scene) -> None:
    """Whatever any writer was told before the call is in the reading, settled or not."""
    acknowledged: list[str] = []
    rng = random.Random(6)

    async def work(name: str) -> None:
        async with scene.machine(name).open(quick()) as log, log.writer(name) as writer:
            for i in range(30):
                await writer.append(event(f"{name}.{i}"))
                acknowledged.append(f"{name}.{i}")
                await asyncio.sleep(rng.choice([0, 0.01, 0.1]))

    working = [asyncio.create_task(work(f"w{i}")) for i in range(4)]
    async with scene.machine("reader").open(quick()) as log:
        while not all(each.done() for each in working):
            await asyncio.sleep(rng.uniform(0, 0.2))
            known = set(acknowledged)
            assert known <= set(await read(log))
    await asyncio.gather(*working)


@directed
async def test_lost_answers_to_reads_are_tried_again(scene: Scene) -> None:
    """A reader heeds no single refusal: it asks again, and yields everything."""
    await two_writers(scene)
    reader = scene.machine("reader")
    async with reader.open() as log:
        for part in ("roster/", "log/a", "log/b", "retired/"):
            reader.script.on("get", part, lose, times=3)
        assert await read(log) == scene.ids()


@directed
async def test_events_are_read_only_and_say_where_they_are(scene: Scene) -> None:
    """Data is decoded on access and cannot be changed; meta, writer, session and sequence are those of the log."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        first = event("a")._replace(meta={"actor": "me"}, data={"id": "a", "deep": {"list": [1, {"x": 2}]}})
        receipt = await writer.append_many([first, event("b")._replace(data=None)])
        one, two = await collect(log.read())
        assert (one.kind, one.key, one.type) == ("Thing", "a", "changed")
        assert one.data is not None
        assert one.data["deep"]["list"][1]["x"] == 2
        with pytest.raises(TypeError):
            one.data["deep"]["new"] = 1
        assert isinstance(one.data["deep"]["list"], tuple)
        assert (one.meta, two.meta, two.data) == ({"actor": "me"}, None, None)
        assert (one.writer, one.chapter, one.session, one.seq, two.seq) == ("web", 0, receipt.session, 0, 1)


# What was found ------------------------------------------------------------------------------


@directed
async def test_an_event_below_an_entry_taken_before_is_settled_without_another_entry(scene: Scene) -> None:
    """A slot that was absent when a later tick was taken in is settled once it is there: the tick counts still."""
    web, other = scene.machine("web"), scene.machine("other")
    async with web.open() as log, log.writer("web") as writer, other.open() as other_log:
        first = await writer.append(event("a"))
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        call = asyncio.create_task(writer.append(event("b")))
        await gate.met()
        await other_log.settled(first, timeout=5)
        reader = other_log.read(settled=True)
        assert [each.key async for each in reader] == ["a"]
        position = moved_by(reader.position)
        gate.open()
        tick = scene.roster()[-1]
        assert (await call).stamp < tick.stamp
        assert await read(other_log, after=position, settled=True) == ["b"]
        assert [each.settled async for each in other_log.read()] == [True, True]
