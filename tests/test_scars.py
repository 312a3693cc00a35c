"""Scars: mistakes that this design, or a peer of it, has made once, each a test named after it.

DESIGN lists them, so that nobody makes one again who finds the code longer than it need be. A docstring is the rule
that the mistake broke.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from logstore import (
    Event,
    LogSettings,
    LogStoreError,
    Missing,
    NotStored,
    Receipt,
    RetrySettings,
    Trimmed,
    Unavailable,
    Unknown,
    WriterSettings,
)
from logstore.entry import Tick
from logstore.keys import entry_key
from logstore.snapshots import Snapshots
from logstore.testing.process import current_process
from projections import View
from tests.scene import Gate, Scene, die, directed, event, hang, hang_after, lose, quick, read, take, until
from tests.test_keeper import GRACE_MS, age, keep, live_a_day, of_chapter
from tests.test_keeper import opened as opened_dropping
from tests.test_looks import at_the_end, close_and_collect, note, opened, read_after, write
from tests.test_retention_faults import big, dangling, until_paused
from tests.test_seal import finals
from tests.test_snapshots import Diary, Things, thing
from tests.test_unsettled import ATTEMPTS, become_unknown

ALWAYS = 10**9
PATIENT = replace(quick(), retry=RetrySettings(attempt_timeout_ms=3_600_000, deadline_ms=3_600_000))


@directed
async def test_scar_silence_measured_from_the_end_or_from_the_last_attempt(scene: Scene) -> None:
    """Others may have seen the last segment since its first attempt; so the owner counts from there as well."""
    web = scene.machine("web")
    async with web.open(LogSettings(writer=WriterSettings(idle_ms=8_000))) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", lose, times=1)
        web.script.on("create", "log/", hang, times=1)
        began_s = scene.loop.time()
        await writer.append(event("b"))
        assert scene.loop.time() - began_s > 5
        await asyncio.sleep(4)
        assert writer.statistics().session is None
        final = next(r for r in scene.store.requests if r.key == scene.slot("web", 1, 2))
        assert final.sent_s - began_s < 8.1


@directed
async def test_scar_a_number_used_again_after_deletion(scene: Scene) -> None:
    """Its tail, and the absence behind it, are of a retired chapter: it starts over, and posts nothing there."""
    web = scene.machine("web")
    async with opened(web) as log:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        await close_and_collect(scene)
        await write(scene, "other", "b")
        assert await log.close_chapter()
        assert not scene.store.keys("roster/0000000000/")
        assert entry_key(2, 0) in scene.store.contents()


@directed
async def test_scar_a_name_used_again_after_deletion(scene: Scene) -> None:
    """The name is free again and a late creation wins it: its poster starts over, and nobody reads what lies there."""
    await write(scene, "other", "x")
    web = scene.machine("web")
    gate = Gate()

    async def life() -> Receipt:
        async with opened(web) as log, log.writer("web") as writer:
            web.script.on("create", "roster/", gate.late_silent)
            try:
                return await writer.append(event("a"))
            except NotStored:
                return await writer.append(event("a"))

    living = web.start(life())
    await gate.met()
    web.process.pause()
    position = await at_the_end(scene)
    number = scene.roster()[-1].number + 1
    await close_and_collect(scene)
    await gate.landed()
    assert entry_key(0, number) in scene.store.contents()
    web.process.resume()
    assert (await living).chapter == 1
    assert await read_after(scene, position) == ["a"]


@pytest.mark.parametrize("resolves", [False, True], ids=["found", "made by resolve"])
@directed
async def test_scar_a_zombies_final_in_a_collected_prefix(scene: Scene, resolves: bool) -> None:
    """A final under a deleted name, even one made by this very process, ends nothing: Trimmed, not a short log."""
    machine, web = scene.machine("reader"), scene.machine("web")
    seen: list[str] = []
    unknowns: list[Unknown] = []

    async def follow() -> None:
        async with opened(machine, follow_ms=30_000 if resolves else 100) as log:
            following = asyncio.create_task(note(log.follow(), seen))
            await asyncio.sleep(0.4)
            machine.process.pause()
            await asyncio.sleep(0.0001)
            if resolves:
                await log.resolve(unknowns[0])
            await following

    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        following = machine.start(follow())
        await asyncio.sleep(0.5)
        assert seen == ["a"]
        tip = scene.session("web", 1)
        for key in "bcd":
            await writer.append(event(key))
        web.script.on("create", "log/", hang_after, times=ALWAYS)
        with pytest.raises(Unknown) as raised:
            await writer.append(event("e"))
        unknowns.append(raised.value)
        web.script.clear()
    await scene.seal("web", 1)
    await close_and_collect(scene)
    if not resolves:
        await scene.put_segment(*tip, final=True)
    machine.process.resume()
    with pytest.raises(Trimmed):
        await following
    assert seen == ["a"]


@pytest.mark.parametrize("settled", [False, True])
@directed
async def test_scar_a_slow_reader_polls_a_deleted_tail_for_ever(scene: Scene, settled: bool) -> None:
    """It wakes, and what it would read next is gone: Trimmed, and not Missing, StaleStore or an endless loop."""
    machine, web = scene.machine("reader"), scene.machine("web")
    seen: list[str] = []

    async def follow() -> None:
        async with opened(machine) as log:
            await note(log.follow(settled=settled), seen)

    async with opened(web) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        following = machine.start(follow())
        await asyncio.sleep(0.5)
        machine.process.pause()
        for key in "bcd":
            await writer.append(event(key))
    await close_and_collect(scene)
    await write(scene, "web", "e")
    machine.process.resume()
    with pytest.raises(Trimmed):
        await following
    assert seen in ([], ["a"])


@directed
async def test_scar_a_slot_count_that_includes_the_final(scene: Scene) -> None:
    """The record counts slots below the first final: what lost its slot to one was not stored, and is sent again."""
    web, gate = scene.machine("web"), Gate()

    async def life() -> Receipt:
        async with opened_dropping(web) as log, log.writer("web") as writer:
            await writer.append(thing(1, id="stored"))
            web.script.on("create", "log/web/", gate.late_silent)
            return await writer.append(thing(2, id="lost its slot"))

    living = web.start(life())
    await gate.met()
    web.process.pause()
    await live_a_day(scene, 5, snapshots=2)
    assert (1, 1, True) in finals(scene)
    await age()
    await keep(scene)
    await age()
    await keep(scene)
    assert of_chapter(scene, 0) == []
    web.process.resume()
    assert (await living).chapter > 0
    async with opened_dropping(scene.machine("reader")) as log, View.open(log, Things()) as view:
        assert view.get("t-0002") is not None


@directed
async def test_scar_a_404_taken_as_not_stored_by_its_writer(scene: Scene) -> None:
    """Who gives up on a slot ends its own session there, so that what lands later is void: NotStored is for ever."""
    web = scene.machine("web")
    gate = Gate()
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        rule = web.script.on("create", scene.slot("web", 1, 1), gate.late, times=ATTEMPTS)
        with pytest.raises(NotStored):
            await writer.append(event("lost"))
        assert rule.met == ATTEMPTS
        final = scene.segments()[-1]
        assert (final.key.slot, final.final, final.sealed) == (1, True, False)
        again = await writer.append(event("b"))
        assert (again.session, again.slot) == (2 if again.session == 2 else again.session, 0)
        assert again.session > 1
        await gate.landed()
        assert await read(log) == ["a", "b"]
        assert writer.statistics().events_not_stored == 1


@directed
async def test_scar_a_404_taken_as_not_stored_by_who_resolves(scene: Scene) -> None:
    """It had not landed: resolve ends the session there, and what lands afterwards is never read by anybody."""
    web, other = scene.machine("web"), scene.machine("other")
    gate = Gate()
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        (unknown,) = await become_unknown(web, log, writer, gate.late_silent, "b")
    async with other.open() as log:
        with pytest.raises(NotStored):
            await log.resolve(unknown)
        await gate.landed()
        with pytest.raises(NotStored):
            await log.resolve(unknown)
        assert await read(log) == ["a"]


async def lost(scene: Scene, slot: int, *keys: str, flights: int = 2) -> str:
    """A dead session of which one object is gone; return its name."""
    settings = quick(writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000, flights=flights))
    await die(scene.machine("web"), *keys, settings=settings)
    name = scene.slot("web", 1, slot)
    scene.store.lose(name)
    return name


@directed
async def test_scar_a_seal_over_a_lost_object(scene: Scene) -> None:
    """The next slots witness that the lost one was stored: Missing, naming it, and no seal."""
    name = await lost(scene, 2, *"abcdef")
    async with scene.machine("other").open(quick()) as log:
        with pytest.raises(Missing, match=name):
            await take(log.follow(settled=True), 6)
    assert finals(scene) == []


@directed
async def test_scar_a_lost_slot_that_a_tick_had_named(scene: Scene) -> None:
    """The last slot is lost, nothing follows it, but a tick says that it was read: Missing, and no seal."""
    web = scene.machine("web")
    other = scene.machine("other")

    async def live() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            await writer.append(event("b"))
            await asyncio.sleep(0.8)
            web.process.crash()
            await asyncio.sleep(0.001)

    living = web.start(live())
    await asyncio.sleep(0.2)
    async with other.open(quick()) as log, log.writer("other") as writer:
        following = asyncio.create_task(take(log.follow(), 100))
        receipt = await writer.append(event("c"))
        await asyncio.sleep(0.25)
        settling = asyncio.create_task(log.settled(receipt, timeout=60))
        await asyncio.sleep(0.5)
        settling.cancel()
        following.cancel()
    assert (0, 1, 2) in next(entry.body.slots for entry in scene.roster() if isinstance(entry.body, Tick))
    name = scene.slot("web", 1, 1)
    assert not living.done()
    scene.store.lose(name)
    async with scene.machine("third").open(quick()) as log:
        with pytest.raises(Missing, match=name):
            await take(log.follow(settled=True), 3)
    assert not [final for final in finals(scene) if final[0] == 1]


@pytest.mark.parametrize("stalled", ["before its point", "before its manifest"])
@directed
async def test_scar_a_snapshot_reuses_a_condemned_chunk(scene: Scene, stalled: str) -> None:
    """RFC 0006 §3: a snapshot whose re-used chunks were collected under it is not given out; the next one is whole."""
    sleeper, gate = scene.machine("sleeper"), Gate()
    async with (
        opened_dropping(scene.machine("web")) as log,
        log.writer("web") as writer,
        sleeper.open(PATIENT, grace_ms=GRACE_MS) as sleeper_log,
        View.open(sleeper_log, Things()) as sleeping,
    ):
        for number in range(3):
            await writer.append_many([big(number, 0)])
        first = await sleeping.snapshot()
        await writer.append(thing(3))
        if stalled == "before its point":
            sleeper.script.on("get", "registration", gate.after)
        else:
            sleeper.script.on("create", "/manifest/", gate.before)
        second = asyncio.create_task(sleeping.snapshot())
        await gate.met()
        async with View.open(log, Things()) as view:
            for version in range(1, 4):
                await writer.append_many([big(number, version % 3) for number in range(2)])  # in the end as they were
                await view.snapshot()
                await age()
            for _ in range(2):  # manifests first
                _ = [garbage async for garbage in log.keeper().collect()]
        assert len(dangling(scene, first)) == 2
        gate.open()
        with pytest.raises(Unavailable):
            await second
        assert dangling(scene, await sleeping.snapshot()) == []


@directed
async def test_scar_a_snapshot_whose_own_chunks_were_collected(scene: Scene) -> None:
    """DESIGN §7: published more than half the grace after its point, *all* its chunks are verified, its own too."""
    sleeper = scene.machine("sleeper")
    manifests: list[Any] = []
    create = Snapshots.create_manifest

    async def create_manifest(self: Snapshots, manifest: Any) -> Any:
        if not manifests and current_process() is sleeper.process:  # stopped between the chunks and the manifest
            sleeper.process.pause()
            await asyncio.sleep(0)
        return await create(self, manifest)

    async def live() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Snapshots, "create_manifest", create_manifest)
            async with opened_dropping(sleeper) as log, View.open(log, Diary()) as view:
                for _ in range(3):
                    try:
                        manifests.append(await view.snapshot())
                    except LogStoreError as error:
                        manifests.append(error)

    async with opened_dropping(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
        living = sleeper.start(live())
        await until_paused(sleeper)
        async with View.open(log, Things()) as view:
            for version in range(4):
                await writer.append(Event("Thing", "t-0005", "changed", {"n": version}))
                await view.snapshot()
                await age()
            _ = [garbage async for garbage in log.keeper().collect()]
    sleeper.process.resume()
    await asyncio.wait([living])
    living.result()
    silent = [one.point for one in manifests if not isinstance(one, LogStoreError) and dangling(scene, one)]
    assert silent == [], manifests


@directed
async def test_scar_a_settled_reader_meets_a_late_lower_stamp(scene: Scene) -> None:
    """A settled reader passes no stamp below which a session may still land something; what lands has its place."""
    web, gate = scene.machine("web"), Gate()
    async with (
        web.open() as log,
        log.writer("web") as writer,
        scene.machine("other").open() as other_log,
        other_log.writer("other") as other,
        scene.machine("reader").open() as reading,
    ):
        seen: list[str] = []
        following = asyncio.create_task(note(reading.follow(settled=True), seen))
        await writer.append(event("a"))
        web.script.on("create", "log/web/", gate.before)
        late = asyncio.create_task(writer.append(event("late")))
        await gate.met()
        await asyncio.sleep(0.1)
        receipts = [await other.append(event(key)) for key in ("b", "c")]
        assert await other_log.tick(receipts[-1].stamp)
        await asyncio.sleep(3)
        assert seen == await read(reading, settled=True) == ["a"]
        assert await read(reading) == ["a", "b", "c"]
        gate.open()
        assert (await late).stamp < receipts[0].stamp
        await other_log.settled(receipts[-1], timeout=60)
        await until(lambda: len(seen) == 4, timeout=60)
        assert seen == ["a", "late", "b", "c"]
        following.cancel()


@directed
async def test_scar_a_false_yes_after_a_pause(scene: Scene) -> None:
    """Its creation succeeds in a collected prefix, but the record holds no such slot: it goes to a new session."""
    web = scene.machine("web")

    async def life() -> tuple[Receipt, Receipt]:
        async with opened(web) as log, log.writer("web") as writer:
            first = await writer.append(event("a"))
            web.process.pause()
            await asyncio.sleep(0.001)
            return first, await writer.append(event("b"))

    living = web.start(life())
    await asyncio.sleep(5)
    await scene.seal("web", 1)
    position = await at_the_end(scene)
    await close_and_collect(scene)
    web.process.resume()
    first, second = await living
    assert (first.chapter, first.slot) == (0, 0)
    assert second.chapter == 1
    assert await read_after(scene, position) == ["b"]


@directed
async def test_scar_a_false_no_after_a_pause(scene: Scene) -> None:
    """Landed before the seal, answered after the collection: stored, not sent again; its successor was not, and is."""
    web = scene.machine("web")
    gate = Gate()

    async def life() -> list[Receipt]:
        async with opened(web) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            web.script.on("create", scene.slot("web", 1, 1), gate.after)
            web.script.on("create", scene.slot("web", 1, 2), gate.before)
            one = asyncio.create_task(writer.append(event("b")))
            await asyncio.sleep(0.02)
            two = asyncio.create_task(writer.append(event("c")))
            await asyncio.sleep(0.02)
            web.process.pause()
            return [await one, await two]

    living = web.start(life())
    await asyncio.sleep(5)
    assert gate.held == 2
    position = await at_the_end(scene)
    await scene.seal("web", 1)
    await close_and_collect(scene)
    gate.open()
    web.process.resume()
    one, two = await living
    assert (one.chapter, one.session, one.slot) == (0, 1, 1)
    assert two.chapter == 1
    assert await read_after(scene, position) == ["c"]


@pytest.mark.parametrize("held", ["/manifest/", "chunks/", "roster/"])
@directed
async def test_scar_a_view_opened_during_collection(scene: Scene, held: str) -> None:
    """What is deleted while a view begins with it is no damage: it lists again, and begins with what is there."""
    await live_a_day(scene, 1, snapshots=2)
    late, gate = scene.machine("late"), Gate()
    async with late.open(PATIENT, read_only=True) as log:
        late.script.on("get", held, gate.before)
        view = View.open(log, Things())
        entering = asyncio.create_task(view.__aenter__())
        await gate.met()
        digest = ""
        for number in range(2, 5):
            digest = await live_a_day(scene, number, snapshots=2)
            await age()
            await keep(scene)
        assert of_chapter(scene, 0) == of_chapter(scene, 1) == []
        gate.open()
        await entering
        assert (view.digest(), view.damage) == (digest, [])
        await view.__aexit__()
