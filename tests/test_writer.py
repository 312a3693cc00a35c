"""The writer and its callers: one segment for many, answers in order, limits that make wait, sessions that end.

What becomes of creations whose fate is unclear is in test_unsettled.py and test_seal.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from logstore import (
    Event,
    InvalidArgument,
    LimitExceeded,
    Log,
    LogSettings,
    NotStored,
    Receipt,
    RetrySettings,
    Writer,
    WriterSettings,
)
from logstore.entry import Open, Tick
from tests.scene import Gate, Scene, directed, event, events, hang, opened_by, read, refuse, take, until

MINUTE_S = 60
HOUR_S = 3_600


def settings(**writer: int) -> LogSettings:
    return LogSettings(writer=WriterSettings(**writer))


# Group commit ---------------------------------------------------------------------------------


@directed
async def test_concurrent_appends_share_a_segment(scene: Scene) -> None:
    """Calls made at the same time travel in one segment, in the order of the calls."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        receipts = await asyncio.gather(*(writer.append(event(f"e{i}")) for i in range(50)))
        assert {receipt.slot for receipt in receipts} == {0}
        assert [receipt.first_seq for receipt in receipts] == list(range(50))
        assert [receipt.count for receipt in receipts] == [1] * 50
        assert await read(log) == [f"e{i}" for i in range(50)]


@directed
async def test_a_receipt_is_the_address_of_its_events(scene: Scene) -> None:
    """Receipts name the session, slot, sequence numbers and stamp under which readers find the events."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        calls = (writer.append_many(events("a", "b")), writer.append(event("c")), writer.append_many(events("d", "e")))
        receipts = await asyncio.gather(*calls)
        later = await writer.append(event("f"))
        stored = {each.seq: each async for each in log.read()}
        for receipt, keys in zip([*receipts, later], ["ab", "c", "de", "f"], strict=True):
            found = [stored[receipt.first_seq + i] for i in range(receipt.count)]
            assert [each.key for each in found] == list(keys)
            assert {each.stamp for each in found} == {receipt.stamp}
            assert (found[0].writer, found[0].chapter, found[0].session) == ("web", receipt.chapter, receipt.session)
        assert (receipts[2].slot, later.slot) == (0, 1)


@directed
async def test_append_many_is_one_segment_even_among_others(scene: Scene) -> None:
    """A batch is never cut, not by the segment's limit either: the limit ends the segment before it."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        batches = [[event(f"{name}{i}") for i in range(6_000)] for name in "abc"]
        receipts = await asyncio.gather(*(writer.append_many(batch) for batch in batches))
        assert [receipt.slot for receipt in receipts] == [0, 1, 2]
        assert [receipt.count for receipt in receipts] == [6_000] * 3
    assert [segment.count for segment in scene.segments()] == [6_000, 6_000, 6_000, 0]


@directed
async def test_a_segment_holds_at_most_its_limit(scene: Scene) -> None:
    """However many callers wait, a segment has at most 10,000 events and about 8 MiB."""
    blob = b"x" * (1 << 20)
    async with scene.machine("web").open(settings(flights=1)) as log, log.writer("web") as writer:
        await asyncio.gather(*(writer.append(event(f"e{i}")) for i in range(25_000)))
        many = [Event("Blob", f"b{i}", "stored", {"id": f"b{i}", "blob": blob}) for i in range(20)]
        await asyncio.gather(*(writer.append(each) for each in many))
    counts = [segment.count for segment in scene.segments() if segment.count]
    assert max(counts) <= 10_000
    assert counts[:3] == [10_000, 10_000, 5_000]
    assert all(segment.columns_bytes <= 8 << 20 for segment in scene.segments() if segment.count < 100)
    assert sum(counts) == 25_020


@directed
async def test_too_much_at_once_is_refused_before_anything_is_sent(scene: Scene) -> None:
    """10,000 events or 8 MiB are accepted; more is LimitExceeded, nothing is stored, and the writer is whole."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        with pytest.raises(LimitExceeded):
            await writer.append_many([event(f"e{i}") for i in range(10_001)])
        with pytest.raises(LimitExceeded):
            await writer.append(Event("Blob", "b", "stored", {"id": "b", "blob": b"x" * (8 << 20)}))
        with pytest.raises(InvalidArgument):
            await writer.append_many([])
        assert web.script.count("create", "log/") == 0
        assert (await writer.append_many([event(f"e{i}") for i in range(10_000)])).count == 10_000


@directed
async def test_one_bad_event_spoils_its_own_call_only(scene: Scene) -> None:
    """A batch with an event that cannot be stored is refused whole; the calls beside it are not touched."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        bad = writer.append_many([event("bad"), Event("Thing", "", "changed")])
        results = await asyncio.gather(
            writer.append(event("a")), bad, writer.append(event("b")), return_exceptions=True
        )
        assert [type(result) for result in results] == [Receipt, InvalidArgument, Receipt]
        assert await read(log) == ["a", "b"]


@directed
async def test_the_first_event_of_a_segment_lingers_for_company(scene: Scene) -> None:
    """With a linger, what comes within it shares the segment; the first event never waits longer than that."""
    async with scene.machine("web").open(settings(linger_ms=50)) as log, log.writer("web") as writer:
        await writer.append(event("opens the session"))
        began_s = scene.loop.time()
        calls = []
        for i in range(10):
            calls.append(asyncio.create_task(writer.append(event(f"e{i}"))))
            await asyncio.sleep(0.010)
        receipts = await asyncio.gather(*calls)
        assert {receipt.slot for receipt in receipts[:5]} == {1}
        assert {receipt.slot for receipt in receipts[6:]} == {2}
        sent_s = [request.sent_s for request in scene.store.requests if request.verb == "create"][-2:]
        assert 0.049 <= sent_s[0] - began_s <= 0.055


@directed
async def test_a_full_segment_does_not_linger(scene: Scene) -> None:
    """The linger ends when the segment is full."""
    async with scene.machine("web").open(settings(linger_ms=60_000)) as log, log.writer("web") as writer:
        began_s = scene.loop.time()
        await asyncio.gather(*(writer.append(event(f"e{i}")) for i in range(10_000)))
        assert scene.loop.time() - began_s < 1


# Flights --------------------------------------------------------------------------------------


@directed
async def test_acknowledgement_is_in_slot_order_whatever_order_creations_complete_in(scene: Scene) -> None:
    """An append is answered only when every earlier slot of its session is stored as well."""
    web = scene.machine("web")
    async with web.open(settings(flights=4)) as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gates = [Gate() for _ in range(4)]
        for i, gate in enumerate(gates):
            web.script.on("create", scene.slot("web", 1, i + 1), gate.before)
        calls = []
        for i, gate in enumerate(gates):
            calls.append(asyncio.create_task(writer.append(event(str(i + 1)))))
            await gate.met()
        assert writer.statistics().flights == 4
        for i in (3, 2, 1):
            gates[i].open()
            await asyncio.sleep(0.1)
            assert not any(call.done() for call in calls)
        gates[0].open()
        receipts = await asyncio.gather(*calls)
        assert [receipt.slot for receipt in receipts] == [1, 2, 3, 4]


@directed
async def test_no_more_flights_than_allowed(scene: Scene) -> None:
    """At most ``flights`` creations are in the air; what comes meanwhile shares the next segment."""
    web = scene.machine("web")
    async with web.open(settings(flights=2)) as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", "log/", gate.before, times=2)
        calls = []
        for i in range(20):
            calls.append(asyncio.create_task(writer.append(event(f"e{i}"))))
            await asyncio.sleep(0.010)
        assert (gate.held, writer.statistics().flights, writer.statistics().buffered_events) == (2, 2, 20)
        gate.open()
        await asyncio.gather(*calls)
    assert [segment.count for segment in scene.segments()] == [1, 1, 1, 18, 0]


@directed
async def test_a_segment_says_how_far_its_session_was_acknowledged(scene: Scene) -> None:
    """``acknowledged`` never names a slot that was not stored when the segment was built."""
    web = scene.machine("web")
    async with web.open(settings(flights=3)) as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", scene.slot("web", 1, 1), gate.before)
        calls = []
        for i in range(1, 4):
            calls.append(asyncio.create_task(writer.append(event(str(i)))))
            await asyncio.sleep(0.1)
        gate.open()
        await asyncio.gather(*calls)
        await writer.append(event("4"))
    assert [segment.acknowledged for segment in scene.segments()] == [0, 1, 1, 1, 4, 5]


# Back-pressure --------------------------------------------------------------------------------


@directed
async def test_callers_wait_while_the_buffer_is_full_and_get_through_in_order(scene: Scene) -> None:
    """Beyond the limit an append waits; what is held never exceeds it; everybody gets through, first come first."""
    web = scene.machine("web")
    gate = Gate()
    async with web.open(settings(buffer_events_max=5, flights=2)) as log, log.writer("web") as writer:
        web.script.on("create", "log/", gate.before, times=2)
        calls = [asyncio.create_task(writer.append(event(f"e{i:02}"))) for i in range(30)]
        await asyncio.sleep(1)
        assert writer.statistics().buffered_events == 5
        gate.open()
        for _ in range(1_000):
            await asyncio.sleep(0.001)
            assert writer.statistics().buffered_events <= 5
        await asyncio.gather(*calls)
        assert await read(log) == [f"e{i:02}" for i in range(30)]


@directed
async def test_the_buffer_is_limited_in_bytes_as_well(scene: Scene) -> None:
    """Bytes count like events; one call that exceeds the limit by itself gets through alone."""
    web = scene.machine("web")
    big = [Event("Blob", f"b{i}", "stored", {"id": f"b{i}", "blob": bytes(50_000)}) for i in range(8)]
    huge = Event("Blob", "huge", "stored", {"id": "huge", "blob": bytes(500_000)})
    async with web.open(settings(buffer_bytes_max=120_000)) as log, log.writer("web") as writer:
        calls = [asyncio.create_task(writer.append(each)) for each in big]
        alone = asyncio.create_task(writer.append(huge))
        while not alone.done():
            await asyncio.sleep(0.0005)
            assert writer.statistics().buffered_bytes <= 120_000 or writer.statistics().buffered_events == 1
        await asyncio.gather(*calls)
        assert await read(log) == [*(f"b{i}" for i in range(8)), "huge"]


@directed
async def test_cancelling_a_caller_who_waits_for_room_loses_no_wake_up(scene: Scene) -> None:
    """Whoever waits behind a cancelled caller gets the room instead, at whatever moment the cancelling happens."""
    web = scene.machine("web")
    for steps in range(12):
        async with web.open(settings(buffer_events_max=1)) as log, log.writer("web") as writer:
            first = asyncio.create_task(writer.append(event(f"{steps} first")))
            await asyncio.sleep(0)
            waiting = [asyncio.create_task(writer.append(event(f"{steps} waiting {i}"))) for i in range(3)]
            await asyncio.sleep(0)
            await first
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting[0].cancel()
            async with asyncio.timeout(60):
                await asyncio.gather(*waiting, return_exceptions=True)
            assert not any(call.cancelled() for call in waiting[1:])
            assert writer.statistics().buffered_events == 0


@directed
async def test_closing_leaves_nobody_waiting_for_room(scene: Scene) -> None:
    """Callers who still wait for room when the writer closes are stored or refused, every one of them."""
    web = scene.machine("web")
    async with web.open(settings(buffer_events_max=1)) as log:
        writer = log.writer("web")
        calls = [asyncio.create_task(writer.append(event(f"e{i}"))) for i in range(10)]
        await asyncio.sleep(0.001)
        await writer.aclose()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} <= {Receipt, InvalidArgument}
        acknowledged = [f"e{i}" for i, result in enumerate(results) if isinstance(result, Receipt)]
        assert await read(log) == acknowledged
        assert acknowledged


@directed
async def test_the_buffer_is_bounded_while_the_store_is_out_of_reach(scene: Scene) -> None:
    """With no store a caller gets an error within the retry deadline; nothing piles up behind it."""
    web = scene.machine("web")
    async with web.open(settings(buffer_events_max=10)) as log, log.writer("web") as writer:
        await writer.append(event("before"))
        web.script.on("create", "", hang, times=10**9)
        calls = [asyncio.create_task(writer.append(event(f"e{i}"))) for i in range(40)]
        await asyncio.sleep(1)
        assert writer.statistics().buffered_events <= 10
        async with asyncio.timeout(10 * MINUTE_S):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert not any(isinstance(result, Receipt) for result in results)
        web.script.clear()
        await writer.append(event("after"))
        assert (await read(log))[-1] == "after"


# The life of a session ------------------------------------------------------------------------


@directed
async def test_nothing_happens_before_the_first_append(scene: Scene) -> None:
    """A writer that never appends costs nothing: no session, no tick."""
    web = scene.machine("web")
    async with web.open() as log:
        asked = len(web.script.asked)
        async with log.writer("web"):
            await asyncio.sleep(HOUR_S)
        assert len(web.script.asked) == asked
    assert scene.store.keys("roster/") == []


@directed
async def test_a_quiet_session_is_closed_after_the_idle_time(scene: Scene) -> None:
    """30 s after its last creation a quiet session ends by an empty final; the next append opens another, unseen."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        first = await writer.append(event("a"))
        await asyncio.sleep(29)
        assert writer.statistics().session == (0, first.session)
        await asyncio.sleep(2)
        assert writer.statistics().session is None
        final = scene.segments()[-1]
        assert (final.final, final.sealed, final.count, final.key.slot) == (True, False, 0, 1)
        second = await writer.append(event("b"))
        assert second.session > first.session
        assert await read(log) == ["a", "b"]


@directed
async def test_the_idle_time_doubles_while_the_session_is_soon_reopened(scene: Scene) -> None:
    """30 s, doubled each time the session is opened again within it, up to 10 min; a long silence resets it."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        for _ in range(8):
            await writer.append(event("x"))
            await until(lambda: writer.statistics().session is None)
            await asyncio.sleep(5)
        idle_s = [entry.body.idle_ms // 1000 for entry in scene.roster() if isinstance(entry.body, Open)]
        assert idle_s == [30, 60, 120, 240, 480, 600, 600, 600]
        await asyncio.sleep(601)
        await writer.append(event("x"))
        assert [entry.body.idle_ms for entry in opened_by(scene.roster(), "web") if isinstance(entry.body, Open)][
            -1
        ] == 30_000


@directed
async def test_the_seal_time_leaves_room_for_lost_answers(scene: Scene) -> None:
    """An open entry announces a seal time of at least its idle time and four creation deadlines."""
    retry = RetrySettings(deadline_ms=7_000)
    async with scene.machine("web").open(LogSettings(retry=retry)) as log, log.writer("web") as writer:
        await writer.append(event("a"))
    opened = next(entry.body for entry in scene.roster() if isinstance(entry.body, Open))
    assert opened.seal_ms >= opened.idle_ms + 4 * 7_000
    assert opened.flights == WriterSettings().flights


@directed
async def test_a_busy_session_rolls_over_at_its_age(scene: Scene) -> None:
    """After an hour a session ends even if it is never quiet; callers do not notice, and nothing is lost or twice."""
    async with scene.machine("web").open(settings(session_age_ms_max=10_000)) as log, log.writer("web") as writer:
        for i in range(300):
            await writer.append(event(f"e{i:03}"))
            await asyncio.sleep(0.1)
        assert await read(log) == [f"e{i:03}" for i in range(300)]
    assert 3 <= len(opened_by(scene.roster(), "web")) <= 5


@directed
async def test_a_session_rolls_over_under_concurrent_load(scene: Scene) -> None:
    """With several flights in the air all the time, a session that is too old still ends, after them."""
    settings_ = settings(session_age_ms_max=500, flights=4)
    async with scene.machine("web").open(settings_) as log, log.writer("web") as writer:

        async def caller(name: str) -> None:
            for i in range(100):
                await writer.append(event(f"{name}{i:03}"))

        await asyncio.gather(*(caller(name) for name in "abcdefgh"))
        stored = await read(log)
        for name in "abcdefgh":
            assert [key for key in stored if key.startswith(name)] == [f"{name}{i:03}" for i in range(100)]
    assert len(opened_by(scene.roster(), "web")) >= 2


@directed
async def test_a_session_rolls_over_at_its_size(scene: Scene) -> None:
    """A session ends when it has stored so many bytes."""
    async with scene.machine("web").open(settings(session_bytes_max=2_000)) as log, log.writer("web") as writer:
        for i in range(30):
            await writer.append(event(f"e{i:02}"))
        assert await read(log) == [f"e{i:02}" for i in range(30)]
    assert len(opened_by(scene.roster(), "web")) >= 3


@directed
async def test_closing_flushes_and_ends_the_session(scene: Scene) -> None:
    """What was appended before closing is stored and answered; the session ends by its owner's final."""
    web = scene.machine("web")
    async with web.open(settings(linger_ms=500)) as log:
        async with log.writer("web") as writer:
            calls = [asyncio.create_task(writer.append(event(f"e{i}"))) for i in range(5)]
            await asyncio.sleep(0.001)
        assert all(call.done() for call in calls)
        assert len({(await call).first_seq for call in calls}) == 5
        assert scene.segments()[-1].final
        await writer.aclose()


@directed
async def test_appending_after_closing_is_an_argument_error(scene: Scene) -> None:
    """A closed writer takes nothing, says so, and stays closed."""
    async with scene.machine("web").open() as log:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        with pytest.raises(InvalidArgument, match="closed"):
            await writer.append(event("b"))
        async with log.writer("web") as unused:
            pass
        with pytest.raises(InvalidArgument, match="closed"):
            await unused.append(event("c"))
    assert scene.ids() == ["a"]


@directed
async def test_leaving_the_log_closes_its_writers(scene: Scene) -> None:
    """A log that is left flushes its writers, so that nothing that was called is left in the dark."""
    async with scene.machine("web").open() as log:
        writer = log.writer("web")
        call = asyncio.create_task(writer.append(event("a")))
        await asyncio.sleep(0)
    assert (await call).slot == 0
    assert scene.segments()[-1].final


@directed
async def test_two_writers_of_one_name_in_one_process(scene: Scene) -> None:
    """Each has a session of its own: both keep all they acknowledged."""
    async with scene.machine("web").open() as log, log.writer("web") as one, log.writer("web") as two:

        async def write(writer: Writer, name: str) -> None:
            for i in range(50):
                await writer.append(event(f"{name}{i:02}"))

        await asyncio.gather(write(one, "a"), write(two, "b"))
        stored = await read(log)
        assert [key for key in stored if key[0] == "a"] == [f"a{i:02}" for i in range(50)]
        assert [key for key in stored if key[0] == "b"] == [f"b{i:02}" for i in range(50)]
    assert len(opened_by(scene.roster(), "web")) == 2


@directed
async def test_closed_writers_are_forgotten_by_their_log(scene: Scene) -> None:
    """A process that makes a writer per request does not grow: the log keeps only those that are open (P13)."""
    async with scene.machine("web").open() as log:
        for i in range(20):
            async with log.writer(f"w{i}") as writer:
                await writer.append(event(f"e{i:02}"))
        assert "writers=0" in repr(log) or "writers=1" in repr(log)


# Ticks ----------------------------------------------------------------------------------------


def ticks(scene: Scene) -> list[float]:
    """When the ticks of the roster arrived, in virtual seconds."""
    numbers = {f"/{entry.number:010}" for entry in scene.roster() if isinstance(entry.body, Tick)}
    created = [request for request in scene.store.requests if request.landed and request.key.startswith("roster/")]
    return [request.arrived_s or 0.0 for request in created if request.key[-11:] in numbers]


@directed
async def test_a_busy_writer_posts_a_tick_when_the_newest_entry_is_a_minute_old(scene: Scene) -> None:
    """With events above it, an entry older than 60 s (jittered) is followed by one tick, and then again."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        for i in range(300):
            await writer.append(event(f"e{i}"))
            await asyncio.sleep(1)
        ticked_s = ticks(scene)
        assert 3 <= len(ticked_s) <= 7
        gaps_s = [later - earlier for earlier, later in zip([0.0, *ticked_s], ticked_s, strict=False)]
        assert all(44 <= gap <= 80 for gap in gaps_s)


@directed
async def test_a_writer_that_went_quiet_still_posts_its_tick(scene: Scene) -> None:
    """A session with a long idle time that falls silent does not hold the watermark until it ends."""
    async with scene.machine("web").open(settings(idle_ms=600_000)) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await asyncio.sleep(90)
        assert len(ticks(scene)) == 1
        reader = log.read(settled=True)
        assert [each.key async for each in reader] == ["a"]


@directed
async def test_a_tick_that_could_not_be_posted_is_tried_again(scene: Scene) -> None:
    """The store was away when it was due: the quiet writer posts it after another such time."""
    web = scene.machine("web")
    async with web.open(settings(idle_ms=600_000)) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        rule = web.script.on("create", "roster/", refuse, times=8)
        await asyncio.sleep(90)
        assert (rule.met, ticks(scene)) == (8, [])
        await asyncio.sleep(80)
        assert len(ticks(scene)) == 1


@directed
async def test_a_clean_close_leaves_a_tick_above_its_events(scene: Scene) -> None:
    """Whoever closes with events above the newest entry posts one tick, so that they are settled at once."""
    async with scene.machine("web").open() as log:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        assert scene.bodies() == ["Begin", "Open", "Tick"]
        assert await read(log, settled=True) == ["a"]


@directed
async def test_a_close_while_a_tick_is_under_way_leaves_no_event_above_the_newest_entry(scene: Scene) -> None:
    """A tick already under way may be stamped below the last events: then the close owes another one."""
    web = scene.machine("web")
    async with web.open(settings(tick_ms=1_000)) as log:
        async with log.writer("web") as writer:
            await writer.append(event("a"))
            gate = Gate()
            web.script.on("create", "roster/", gate.before)
            await asyncio.sleep(2)
            await writer.append(event("b"))
            await gate.met()
            await writer.append(event("c"))
            closing = asyncio.create_task(writer.aclose())
            await asyncio.sleep(0.5)
            gate.open()
            await closing
        assert await read(log, settled=True) == ["a", "b", "c"]


@directed
async def test_nobody_ticks_when_nothing_was_appended(scene: Scene) -> None:
    """An idle system posts no entries, whoever is there: writers, readers, followers."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        await asyncio.sleep(HOUR_S)
        entries = len(scene.roster())
        async with scene.machine("other").open() as other, other.writer("other"):
            following = asyncio.create_task(take(other.follow(settled=True), 2, timeout=10 * HOUR_S))
            await asyncio.sleep(10 * MINUTE_S)
            assert len(scene.roster()) == entries
            following.cancel()


@directed
async def test_losing_to_another_entry_is_as_good_as_a_tick(scene: Scene) -> None:
    """When an entry at or above one's last event stands there already, no tick is posted."""
    async with (
        scene.machine("web").open() as log,
        scene.machine("other").open() as other_log,
        log.writer("web") as writer,
        other_log.writer("other") as other,
    ):
        await writer.append(event("a"))
        await asyncio.sleep(1)
        await other.append(event("b"))
        await writer.aclose()
        assert ticks(scene) == []


@directed
async def test_reading_a_tick_closes_a_quiet_session_within_a_second(scene: Scene) -> None:
    """Who reads a tick while its own session is quiet ends it, so that the tick's poster need not wait for idleness."""
    async with scene.machine("quiet").open() as quiet_log, scene.machine("web").open() as web_log:
        following = asyncio.create_task(take(quiet_log.follow(), 10))
        async with quiet_log.writer("quiet") as quiet, web_log.writer("web") as web:
            await quiet.append(event("a"))
            await asyncio.sleep(5)
            receipt = await web.append(event("b"))
            began_s = scene.loop.time()
            await web_log.settled(receipt, timeout=20)
            assert scene.loop.time() - began_s < 2.5
            assert quiet.statistics().session is None
        following.cancel()


@directed
async def test_a_busy_session_is_not_closed_by_a_tick(scene: Scene) -> None:
    """A tick ends quiet sessions only: one that goes on appending keeps its session."""
    async with scene.machine("busy").open() as busy_log, scene.machine("web").open() as web_log:
        following = asyncio.create_task(take(busy_log.follow(), 100_000, timeout=1_000))
        async with busy_log.writer("busy") as busy, web_log.writer("web") as web:

            async def append_on() -> None:
                for i in range(400):
                    await busy.append(event(f"busy{i}"))
                    await asyncio.sleep(0.05)

            appending = asyncio.create_task(append_on())
            await asyncio.sleep(5)
            receipt = await web.append(event("b"))
            await web_log.settled(receipt, timeout=20)
            await appending
        following.cancel()
    assert len(opened_by(scene.roster(), "busy")) == 1


# Cancelling -----------------------------------------------------------------------------------


async def whole(writer: Writer, log: Log, after: str) -> list[str]:
    """The writer still works, and holds nothing back; return what is stored."""
    async with asyncio.timeout(120):
        await writer.append(event(after))
    assert writer.statistics().buffered_events == 0
    return await read(log)


@directed
async def test_cancelling_an_append_at_any_await_leaves_the_writer_whole(scene: Scene) -> None:
    """Wherever the cancelling strikes, before sending, in flight, while opening: writer and other calls live."""
    for steps in range(0, 60, 2):
        web = scene.machine(f"web{steps}")
        async with web.open() as log, log.writer(f"web{steps}") as writer:
            doomed = asyncio.create_task(writer.append(event(f"doomed{steps}")))
            other = asyncio.create_task(writer.append(event(f"other{steps}")))
            for _ in range(steps):
                await asyncio.sleep(0.0007)
            doomed.cancel()
            await asyncio.wait([doomed])
            async with asyncio.timeout(60):
                await other
            stored = await whole(writer, log, f"after{steps}")
            mine = [key for key in stored if key.endswith(f"r{steps}") or key == f"doomed{steps}"]
            assert mine in ([f"other{steps}", f"after{steps}"], [f"doomed{steps}", f"other{steps}", f"after{steps}"])
            assert (f"doomed{steps}" in stored) or doomed.cancelled()


@directed
async def test_an_append_cancelled_before_it_was_sent_stores_nothing(scene: Scene) -> None:
    """Cancelling what still lingers in the buffer takes it back."""
    async with scene.machine("web").open(settings(linger_ms=100)) as log, log.writer("web") as writer:
        doomed = asyncio.create_task(writer.append(event("doomed")))
        await asyncio.sleep(0.01)
        doomed.cancel()
        await asyncio.sleep(5)
        assert await whole(writer, log, "after") == ["after"]


@directed
async def test_cancelling_everybody_in_flight_still_acknowledges_the_slot(scene: Scene) -> None:
    """A flight whose callers are all gone is landed and counted; the next slot follows it."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        doomed = asyncio.create_task(writer.append(event("doomed")))
        await gate.met()
        doomed.cancel()
        await asyncio.wait([doomed])
        gate.open()
        assert await whole(writer, log, "after") == ["0", "doomed", "after"]
        assert writer.statistics().events_stored == 3


@directed
async def test_closing_can_be_cancelled_and_done_again(scene: Scene) -> None:
    """A cancelled close goes on in the background; closing again waits for it."""
    web = scene.machine("web")
    async with web.open() as log:
        writer = log.writer("web")
        await writer.append(event("0"))
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        call = asyncio.create_task(writer.append(event("a")))
        await gate.met()
        closing = asyncio.create_task(writer.aclose())
        await asyncio.sleep(0.1)
        closing.cancel()
        await asyncio.wait([closing])
        gate.open()
        await writer.aclose()
        assert (await call).slot == 1
    assert scene.segments()[-1].final


# What it says of itself -----------------------------------------------------------------------


@directed
async def test_repr_and_statistics_tell_the_truth(scene: Scene) -> None:
    """Both agree with what is in the bucket and in the air, at every stage of a session's life."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        assert "no session" in repr(writer)
        assert replace(writer.statistics(), session=None) == writer.statistics()
        await writer.append_many(events("a", "b"))
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        call = asyncio.create_task(writer.append(event("c")))
        await gate.met()
        now = writer.statistics()
        assert (now.session, now.slots_acknowledged, now.flights, now.buffered_events) == ((0, 1), 1, 1, 1)
        assert (now.events_stored, now.segments_stored, now.sessions_opened) == (2, 1, 1)
        assert "session=(0, 1)" in repr(writer)
        assert "flights=1" in repr(writer)
        gate.open()
        await call
        now = writer.statistics()
        data = sum(len(data) for name, data in scene.store.contents().items() if name.startswith("log/"))
        assert (now.flights, now.buffered_events, now.buffered_bytes, now.bytes_stored) == (0, 0, 0, data)
        await asyncio.sleep(40)
        assert (writer.statistics().session, writer.statistics().events_stored) == (None, 3)
        assert "no session" in repr(writer)


@directed
async def test_statistics_count_what_was_not_stored(scene: Scene) -> None:
    """Events that could not be sent are counted as such, and hold no room."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        web.script.on("create", "roster/", refuse, times=10**9)
        with pytest.raises(NotStored):
            await writer.append_many(events("a", "b", "c"))
        now = writer.statistics()
        assert (now.events_not_stored, now.events_stored, now.buffered_events) == (3, 0, 0)


@directed
async def test_a_writer_needs_a_name(scene: Scene) -> None:
    """Names are checked when the writer is made: empty, too long, not text."""
    async with scene.machine("web").open() as log:
        for name in ("", "x" * 201, "\ud800", "ü" * 101):
            with pytest.raises(InvalidArgument):
                log.writer(name)
        async with log.writer("../ü/%2F*") as writer:
            assert (await writer.append(event("a"))).writer == "../ü/%2F*"
        assert await read(log) == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"flights": 65},
        {"flights": 0},
        {"idle_ms": 1_000.0},
        {"idle_ms": -50_000},
        {"idle_ms": True},
        {"tick_ms": None},
        {"linger_ms": -1},
    ],
    ids=str,
)
def test_settings_that_an_open_entry_cannot_hold_are_refused(wrong: dict[str, Any]) -> None:
    """Regression: 65 flights, or a fraction of a millisecond, were posted and stopped every reader for ever."""
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        WriterSettings(**wrong)


def test_a_deadline_that_an_open_entry_cannot_hold_is_refused() -> None:
    """Regression: seal times are made of the creation deadline; a fraction in it stopped every reader for ever."""
    with pytest.raises(InvalidArgument, match="deadline_ms"):
        RetrySettings(deadline_ms=10_000.5)  # type: ignore[arg-type]


@directed
async def test_the_first_idle_time_is_held_to_the_grace_too(scene: Scene) -> None:
    """Regression: only ``idle_ms_max`` was, though a session starts with ``idle_ms``, whichever is longer."""
    async with scene.machine("web").open() as log:
        with pytest.raises(InvalidArgument, match="grace"):
            log.writer("web", WriterSettings(idle_ms=48 * HOUR_S * 1_000))
