"""Seals: how a dead session is ended by others, and what its owner does if it was not dead.

A seal wins or loses against the owner's object by create-if-absent alone. What the owner had not acknowledged it
appends again, first and in order, in a new session; what the store has lost is never sealed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from logstore import LogSettings, Missing, Receipt, WriterSettings
from logstore.clock import stamp_ms
from logstore.entry import Open
from logstore.frontier import OpenSession
from logstore.seal import seal_silent
from tests.scene import (
    Gate,
    Machine,
    Scene,
    die,
    directed,
    event,
    events,
    hang,
    hang_after,
    opened_by,
    quick,
    read,
    refuse,
    take,
    until,
)

DEADLINE_S = 1
SEAL_S = 1 + 4 * DEADLINE_S  # of sessions opened with quick()


def finals(scene: Scene) -> list[tuple[int, int, bool]]:
    """(session, slot, sealed) of every final."""
    return [(s.key.session, s.key.slot, s.sealed) for s in scene.segments() if s.final]


# The owner meets a seal -----------------------------------------------------------------------


@directed
async def test_what_meets_a_seal_is_appended_again_in_order_with_new_stamps(scene: Scene) -> None:
    """Everything unacknowledged goes into a new session, first and in order; nothing twice, nothing lost."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        seal = await scene.seal("web", 1)
        receipts = await asyncio.gather(*(writer.append(event(key)) for key in "bcd"))
        assert {(receipt.session > 1, receipt.slot) for receipt in receipts} == {(True, 0)}
        assert receipts[0].stamp > seal.stamp
        assert (await writer.append(event("e"))).slot == 1
        assert await read(log) == ["a", "b", "c", "d", "e"]
        assert writer.statistics().events_sent_again == 3


@directed
async def test_several_flights_sealed_at_the_middle_one(scene: Scene) -> None:
    """The seal beats the second of four flights: the first is stored, what landed behind it is void and sent again."""
    web = scene.machine("web")
    async with web.open(LogSettings(writer=WriterSettings(flights=4))) as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", scene.slot("web", 1, 2), gate.before)
        calls = []
        for key in ("1", "2", "3", "4"):
            calls.append(asyncio.create_task(writer.append(event(key))))
            await asyncio.sleep(0.05)
        later = asyncio.create_task(writer.append(event("5")))
        assert scene.slot("web", 1, 3) in scene.store.contents()
        await scene.seal("web", 1)
        gate.open()
        receipts = [await call for call in [*calls, later]]
        assert [(receipt.session, receipt.slot) for receipt in receipts[:1]] == [(1, 1)]
        assert all(receipt.session > 1 for receipt in receipts[1:])
        assert await read(log) == ["0", "1", "2", "3", "4", "5"]
    assert scene.ids() == ["0", "1", "2", "3", "4", "5"]


@directed
async def test_a_writer_stopped_until_it_was_sealed_goes_on(scene: Scene) -> None:
    """SIGSTOP until another has sealed the session, then SIGCONT: nothing lost, nothing twice."""
    web, other = scene.machine("web"), scene.machine("other")

    async def write() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            for i in range(40):
                await writer.append(event(f"e{i:02}"))
                await asyncio.sleep(0.1)

    writing = web.start(write())
    async with other.open(quick()) as log:
        following = asyncio.create_task(take(log.follow(settled=True), 40, timeout=600))
        await asyncio.sleep(1.5)
        web.process.pause()
        await asyncio.sleep(3 * SEAL_S)
        assert [sealed for _, _, sealed in finals(scene)] == [True]
        web.process.resume()
        await writing
        assert await following == [f"e{i:02}" for i in range(40)]
    assert scene.ids() == [f"e{i:02}" for i in range(40)]


async def sleep_above_a_loss(
    scene: Scene, web: Machine, slot: int, before_waking: Callable[[], Awaitable[None]]
) -> list[str]:
    """While the writer sleeps the store loses a slot, others seal it; once it woke up, return what is read."""
    scene.forget(scene.slot("web", 1, slot))
    async with scene.machine("other").open(quick()) as log:
        following = asyncio.create_task(take(log.follow(settled=True), slot + 1, timeout=600))
        await asyncio.sleep(3 * SEAL_S)
        assert finals(scene) == [(1, slot, True)]
        await before_waking()
        web.process.resume()
        return await following


@directed
async def test_a_writer_that_slept_looks_as_far_below_as_it_has_flights(scene: Scene) -> None:
    """A lost slot that none in flight with it can witness is sealed; who wakes up above that seal appends anew."""
    web, woken = scene.machine("web"), asyncio.Event()

    async def write() -> Receipt:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("first"))
            gate = Gate()
            web.script.on("create", scene.slot("web", 1, 1), gate.before)
            calls = []
            for key in ("lost", "void", "void too"):
                calls.append(asyncio.create_task(writer.append(event(key))))
                await asyncio.sleep(0.05)
            gate.open()
            await asyncio.gather(*calls)
            web.process.pause()
            await woken.wait()
            return await writer.append(event("later"))

    async def wake() -> None:
        woken.set()

    writing = web.start(write())
    await asyncio.sleep(1)
    assert await sleep_above_a_loss(scene, web, 1, wake) == ["first", "later"]
    assert (await writing).session > 1


@directed
async def test_a_writer_that_slept_and_had_no_answer_looks_below(scene: Scene) -> None:
    """It gives up, finds its own object in its slot, and still asks whether others sealed a lost slot below."""
    web, woken = scene.machine("web"), asyncio.Event()

    async def write() -> Receipt:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("lost"))
            web.process.pause()
            await woken.wait()
            web.script.on("create", scene.slot("web", 1, 1), hang_after)
            web.script.on("create", scene.slot("web", 1, 1), hang)
            return await writer.append(event("later"))

    async def wake() -> None:
        woken.set()

    writing = web.start(write())
    await asyncio.sleep(0.3)
    assert await sleep_above_a_loss(scene, web, 0, wake) == ["later"]
    assert (await writing).session > 1


@directed
async def test_a_writer_that_slept_while_sending_looks_below(scene: Scene) -> None:
    """Others count the silence until its object lands, however early it was built."""
    web, gate = scene.machine("web"), Gate()

    async def write() -> Receipt:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("lost"))
            web.script.on("create", scene.slot("web", 1, 1), gate.late_silent)
            return await writer.append(event("later"))

    writing = web.start(write())
    await gate.met()
    web.process.pause()
    assert await sleep_above_a_loss(scene, web, 0, gate.landed) == ["later"]
    assert (await writing).session > 1


@directed
async def test_a_fork_in_our_slot_ends_the_session(scene: Scene) -> None:
    """Another's segment in our slot (a cloned machine): ours are appended again elsewhere, and the session is left."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await scene.put_segment(*scene.session("web", 1), "forked")
        receipts = [await writer.append(event(key)) for key in "bc"]
        assert all(receipt.session > 1 for receipt in receipts)
        assert await read(log) == ["a", "forked", "b", "c"]


@directed
async def test_an_unreadable_object_in_our_slot_is_not_taken_for_ours(scene: Scene) -> None:
    """What cannot be judged is not stored for certain; the caller is not told that it is."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await scene.world.create(scene.slot("web", 1, 1), b"not one of ours")
        with pytest.raises(Exception, match=r"may be stored or not|nothing was stored|sealed"):
            await writer.append(event("b"))
        assert (await writer.append(event("c"))).session > 1


@directed
async def test_a_final_that_met_a_seal_is_no_matter(scene: Scene) -> None:
    """Closing a session that others have sealed is quiet: it has ended."""
    web = scene.machine("web")
    async with web.open() as log:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
            await scene.seal("web", 1)
        assert await read(log) == ["a"]
    assert finals(scene) == [(1, 1, True)]


@directed
async def test_cancelled_events_that_met_a_seal_block_nobody(scene: Scene) -> None:
    """Events of a cancelled call may be sent again or not; the others' are, and the writer goes on."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await scene.seal("web", 1)
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        doomed = asyncio.create_task(writer.append(event("doomed")))
        other = asyncio.create_task(writer.append(event("b")))
        await gate.met()
        doomed.cancel()
        gate.open()
        await other
        await writer.append(event("c"))
        assert [key for key in await read(log) if key != "doomed"] == ["a", "b", "c"]
        assert writer.statistics().buffered_events == 0


@directed
async def test_a_seal_met_when_no_session_can_be_opened_is_not_stored(scene: Scene) -> None:
    """What met a seal and could not be appended again is certainly not stored."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await scene.seal("web", 1)
        web.script.on("create", "roster/", refuse, times=10**9)
        with pytest.raises(Exception, match="nothing was stored"):
            await writer.append(event("b"))
        web.script.clear()
        await writer.append(event("c"))
        assert await read(log) == ["a", "c"]


# Sealing the dead -----------------------------------------------------------------------------


@directed
async def test_a_dead_session_is_sealed_by_who_needs_the_watermark(scene: Scene) -> None:
    """Silent for its seal time and a random while, it gets a final from others; then all is settled."""
    await die(scene.machine("web"), "a", "b")
    began_s = scene.loop.time()
    async with scene.machine("other").open(quick()) as log:
        assert await take(log.follow(settled=True), 2) == ["a", "b"]
        took_s = scene.loop.time() - began_s
    assert SEAL_S <= took_s <= 1.25 * SEAL_S + 2
    assert finals(scene) == [(1, 2, True)]


@directed
async def test_a_dead_session_is_sealed_however_busy_the_others_are(scene: Scene) -> None:
    """Regression: only a round that found nothing was followed by sealing, so that busy writers kept the dead alive."""
    await die(scene.machine("web"), "a")
    ended = asyncio.Event()

    async def write(machine: Machine) -> None:
        async with machine.open(quick()) as log, log.writer(machine.name) as writer:
            while not ended.is_set():
                await writer.append(event(machine.name))
                await asyncio.sleep(0.01)

    writing = [machine.start(write(machine)) for machine in map(scene.machine, "bcdefghijk")]
    async with scene.machine("other").open(quick()) as log:
        following = asyncio.create_task(take(log.follow(settled=True), 10**9))
        await until(lambda: (1, 1, True) in finals(scene), timeout=1.25 * SEAL_S + 2)
        following.cancel()
    ended.set()
    await asyncio.gather(*writing)


@directed
async def test_nobody_seals_who_does_not_need_the_watermark(scene: Scene) -> None:
    """An unsettled follower leaves the dead alone; and so does one that may not write."""
    await die(scene.machine("web"), "a")
    async with (
        scene.machine("unsettled").open(quick()) as one,
        scene.machine("read-only").open(quick(), read_only=True) as two,
        scene.machine("shy").open(quick(seal=False)) as three,
    ):
        following = [
            asyncio.create_task(take(one.follow(), 2)),
            asyncio.create_task(take(two.follow(settled=True), 2)),
            asyncio.create_task(take(three.follow(settled=True), 2)),
        ]
        await asyncio.sleep(60)
        assert finals(scene) == []
        for each in following:
            each.cancel()


@directed
async def test_a_live_session_is_not_sealed(scene: Scene) -> None:
    """An owner whose answers are lost now and then, and who is idle for long, keeps its session."""
    web = scene.machine("web")
    settings = quick(writer=WriterSettings(idle_ms=2_000, idle_ms_max=2_000))
    async with web.open(settings) as log, log.writer("web") as writer, scene.machine("other").open(quick()) as other:
        following = asyncio.create_task(take(other.follow(settled=True), 1_000))
        for i in range(40):
            web.script.on("create", "log/", hang, times=i % 2)
            await writer.append(event(f"e{i}"))
            await asyncio.sleep(1.4)
        following.cancel()
    assert [sealed for _, _, sealed in finals(scene)] == [False] * len(finals(scene))
    assert len(opened_by(scene.roster(), "web")) == 1


@directed
async def test_sealers_that_race_agree(scene: Scene) -> None:
    """Several processes seal the same session: one final, and all go on behind it."""
    await die(scene.machine("web"), "a", "b")

    async def follow(name: str) -> list[str]:
        async with scene.machine(name).open(quick()) as log:
            return await take(log.follow(settled=True), 2)

    assert await asyncio.gather(*(follow(f"other{i}") for i in range(5))) == [["a", "b"]] * 5
    assert finals(scene) == [(1, 2, True)]


@directed
async def test_a_sealer_with_a_wrong_clock_moves_nobodys_stamps(scene: Scene) -> None:
    """Regression: a machine 30 days ahead could open no session, but its seal put all who read it 30 days ahead."""
    await die(scene.machine("web"), "a")
    await asyncio.sleep(2 * SEAL_S)
    ahead = scene.machine("ahead", skew_ms=30 * 86_400_000)
    async with ahead.open(quick()) as log:
        assert [sealing.sealed for sealing in await log.seal()] == [True]
    async with scene.machine("other").open(quick()) as log, log.writer("other") as writer:
        assert await read(log) == ["a"]
        receipt = await writer.append(event("b"))
        assert abs(stamp_ms(receipt.stamp) - log.now_ms()) < 5_000


@directed
async def test_a_seal_that_loses_to_its_owner_leaves_the_session_alive(scene: Scene) -> None:
    """The owner wakes up and creates its slot first: the sealer reads it and goes on."""
    web, other = scene.machine("web"), scene.machine("other")

    async def live() -> Receipt:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            web.process.pause()
            await asyncio.sleep(0.001)
            return await writer.append(event("b"))

    living = web.start(live())
    gate = Gate()
    other.script.on("create", "log/web/", gate.before)
    async with other.open(quick()) as log:
        following = asyncio.create_task(take(log.follow(settled=True), 2))
        await gate.met()
        web.process.resume()
        receipt = await living
        gate.open()
        assert await following == ["a", "b"]
    assert (receipt.session, receipt.slot) == (1, 1)
    assert [sealed for _, _, sealed in finals(scene)] == [False]


@directed
async def test_a_session_that_never_wrote_anything_is_sealed_at_its_first_slot(scene: Scene) -> None:
    """An opener that died holds the watermark at its open entry until somebody ends it with no slots."""
    web = scene.machine("web")

    async def live() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            web.script.on("create", "log/", hang, times=10**9)
            await writer.append(event("never"))

    living = web.start(live())
    await asyncio.sleep(0.3)
    web.process.crash()
    async with scene.machine("other").open(quick()) as log, log.writer("other") as writer:
        receipt = await writer.append(event("a"))
        await log.settled(receipt, timeout=20)
        assert await read(log, settled=True) == ["a"]
    assert not living.done()
    assert sorted(finals(scene)) == [(1, 0, True), (2, 1, False)]


@directed
async def test_after_a_seal_the_events_are_settled_without_further_ado(scene: Scene) -> None:
    """A seal that leaves events above the newest entry is followed by a tick of the sealer."""
    await die(scene.machine("web"), "a", "b")
    assert scene.bodies() == ["Begin", "Open"]
    async with scene.machine("other").open(quick()) as log:
        await take(log.follow(settled=True), 2)
    assert scene.bodies() == ["Begin", "Open", "Tick"]


# What was lost is not sealed ------------------------------------------------------------------


@directed
async def test_a_gap_that_the_sealer_itself_has_read_is_not_sealed(scene: Scene) -> None:
    """Half of the segment was read before it vanished: Missing, whatever the store says now."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        await writer.append_many(events("a", "b"))
        reader = log.read()
        assert (await anext(aiter(reader))).key == "a"
        position = reader.position
    name = scene.slot("web", 1, 0)
    for slot in (0, 1):
        scene.store.lose(scene.slot("web", 1, slot))
    async with scene.machine("other").open(quick()) as log:
        with pytest.raises(Missing, match=name):
            await take(log.follow(after=position, settled=True), 1)
    assert finals(scene) == []


@directed
async def test_a_gap_within_the_flights_may_be_sealed(scene: Scene) -> None:
    """An unacknowledged slot that never landed below one that did is no loss: the seal makes the later one void."""
    web = scene.machine("web")

    async def live() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(event("a"))
            web.script.on("create", scene.slot("web", 1, 1), hang, times=10**9)
            calls = [asyncio.create_task(writer.append(event("b")))]
            await asyncio.sleep(0.05)
            calls.append(asyncio.create_task(writer.append(event("c"))))
            await asyncio.sleep(0.05)
            web.process.crash()
            await asyncio.sleep(0.001)

    living = web.start(live())
    await asyncio.sleep(1)
    assert scene.slot("web", 1, 2) in scene.store.contents()
    async with scene.machine("other").open(quick()) as log:
        assert await take(log.follow(settled=True), 1) == ["a"]
        await asyncio.sleep(1)
        assert await read(log) == ["a"]
    assert finals(scene) == [(1, 1, True)]
    assert not living.done()


@directed
async def test_slots_above_a_final_are_void_and_no_damage(scene: Scene) -> None:
    """What lies above a seal is never an event, for no reader, nor an error."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        session, tip = scene.session("web", 1)
        final = await scene.put_segment(session, tip, final=True)
        await scene.put_segment(session, tip.after(final), "void")
    async with scene.machine("other").open(quick()) as log:
        assert await read(log) == ["a"]
        assert await read(log, settled=True) == ["a"]
        following = asyncio.create_task(take(log.follow(), 2))
        await asyncio.sleep(5)
        assert not following.done()
        following.cancel()


def test_seal_times_are_what_this_file_believes() -> None:
    """A session opened with quick() may be sealed after its idle time and four deadlines."""
    settings = quick()
    assert settings.writer.idle_ms + 4 * settings.retry.deadline_ms == SEAL_S * 1_000


@pytest.mark.parametrize(("named", "taken", "refused"), [(0, 0, False), (1, 0, False), (2, 0, True), (1, 1, True)])
@directed
async def test_a_sealer_heeds_what_it_was_told_and_what_it_read(
    scene: Scene, named: int, taken: int, refused: bool
) -> None:
    """The gap is slot 1: a tick that names two slots, or one event read of it, forbids the seal."""
    await die(scene.machine("web"), "a")
    session, tip = scene.session("web", 1)
    opened = opened_by(scene.roster(), "web")[0].body
    assert isinstance(opened, Open)
    silent = OpenSession(session, opened, tip, taken, named)
    async with scene.machine("other").open(quick()) as log:
        if refused:
            with pytest.raises(Missing, match=scene.slot("web", 1, 1)):
                await seal_silent(silent, log._objects, log._looks, log._stamps)
        else:
            assert await seal_silent(silent, log._objects, log._looks, log._stamps) is not None
    assert finals(scene) == ([] if refused else [(1, 1, True)])


# A session that says that nobody may seal it -------------------------------------------------


@directed
async def test_no_seal_time_is_longer_than_a_quarter_of_the_grace(scene: Scene) -> None:
    """A writer's key is enough to say one that never ends, for which watermark, snapshots and retention would wait."""
    grace_s = 40
    async with scene.machine("web").open(quick(), grace_ms=grace_s * 1000) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        endless = Open("thief", idle_ms=1 << 62, seal_ms=1 << 62, flights=1)
        assert await log._roster.post(lambda _: endless) is not None
        receipt = await writer.append(event("b"))
        (held,) = [session for session in (await log.survey()).open_sessions if session.writer == "thief"]
        assert held.seal_ms == grace_s * 1000 // 4
        await log.settled(receipt, timeout=grace_s)
        assert ("thief", True) in {(s.key.writer, s.sealed) for s in scene.segments()}
