"""What views promise their readers: what docs/consistency.md says and no other test proves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from logstore import Corrupt, Event, StoredEvent, WriterSettings
from logstore.event import EventEncoder
from logstore.reader import resume
from logstore.segment import SegmentEncoder
from projections import FoldFailed, Index, Projection, Rejected, View
from tests.scene import Gate, Scene, directed, hang, quick, refuse, until

FAST = WriterSettings(idle_ms=500, idle_ms_max=1_000)


class Journal(Projection):
    """Order-sensitive on purpose: all that happened to a key, in order."""

    name, kinds = "journal", frozenset({"Thing"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        return {"seen": [*(state["seen"] if state else ()), event.data["n"]]}


class Stock(Projection):
    """Never sells what is not there."""

    name, kinds = "stock", frozenset({"Thing"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        left = (state["left"] if state else 0) + event.data["n"]
        if left < 0:
            raise Rejected("sold out")
        return {"left": left}


def thing(number: int, key: str = "x") -> Event:
    return Event("Thing", key, "changed", {"n": number, "id": str(number)})


def seen(view: View, *, settled: bool = False) -> list[int]:
    row = view.get("x", settled=settled)
    return [] if row is None else list(row["seen"])


@directed
async def test_a_view_only_gains_events_and_settled_rows_only_go_on(scene: Scene) -> None:
    """P9: nothing seen is unseen again, late events come in where they belong; what is settled is never rewritten."""
    async with (
        scene.machine("a", skew_ms=900).open(quick(writer=FAST)) as one,
        scene.machine("b", skew_ms=-900).open(quick(writer=FAST)) as two,
        scene.machine("reader").open(quick(writer=FAST)) as three,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(three, Journal(), follow=True) as view,
    ):
        visible: set[int] = set()
        final: list[int] = []
        reordered = False
        for number in range(0, 60, 2):
            receipts = await asyncio.gather(first.append(thing(number)), second.append(thing(number + 1)))
            for receipt in receipts:
                await view.wait_for(receipt, timeout=60)
                now = seen(view)
                assert visible <= set(now)
                reordered |= now[: len(visible)] != sorted(now)[: len(visible)]
                visible = set(now)
                assert seen(view, settled=True)[: len(final)] == final
                final = seen(view, settled=True)
            if number % 10 == 0:
                await view.settled(receipts[0], timeout=600)
        assert reordered
        assert len(final) > 10


@directed
async def test_views_of_several_processes_converge_for_a_fold_that_minds_the_order(scene: Scene) -> None:
    """P8: fed at different times, restarted, opened at the end: equal watermarks have equal digests, row for row."""
    async with (
        scene.machine("a", skew_ms=700).open(quick(writer=FAST)) as one,
        scene.machine("b", skew_ms=-700).open(quick(writer=FAST, follow_ms=5_000)) as two,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(one, Journal(), follow=True) as near,
        View.open(two, Journal(), follow=True) as far,
    ):
        digests: dict[int, set[str]] = {}
        for number in range(0, 40, 2):
            receipts = await asyncio.gather(first.append(thing(number)), second.append(thing(number + 1)))
            if number % 8 == 0:
                for view in (near, far):
                    await view.settled(receipts[1], timeout=600)
            async with scene.machine(f"new-{number}").open(quick()) as log, View.open(log, Journal()) as fresh:
                for view in (near, far, fresh):
                    digests.setdefault(view.watermark, set()).add(view.digest())
        assert all(len(found) == 1 for found in digests.values())
        assert len(digests) > 3


@directed
async def test_what_a_process_has_read_comes_before_what_it_appends(scene: Scene) -> None:
    """P7: a slow clock does not put an answer before its question, if the question was read from the log."""
    async with (
        scene.machine("fast", skew_ms=1_500).open(quick(writer=FAST)) as one,
        scene.machine("slow", skew_ms=-1_500).open(quick(writer=FAST)) as two,
        one.writer("fast") as first,
        two.writer("slow") as second,
        View.open(two, Journal()) as view,
    ):
        for number in range(0, 20, 2):
            await view.wait_for(await first.append(thing(number)))
            await second.append(thing(number + 1))
        await view.refresh()
        assert seen(view) == list(range(20))


@directed
async def test_what_a_process_was_told_outside_the_log_is_not_ordered(scene: Scene) -> None:
    """Not promised: an answer to what came by telephone may stand before it, when clocks differ."""
    async with (
        scene.machine("slow", skew_ms=-1_500).open(quick(writer=FAST)) as two,
        two.writer("slow") as second,
    ):
        await second.append(thing(0))
        async with scene.machine("fast", skew_ms=1_500).open(quick(writer=FAST)) as one, one.writer("fast") as first:
            await first.append(thing(1))
            await second.append(thing(2))
            async with View.open(one, Journal()) as view:
                assert seen(view) == [0, 2, 1]


@directed
async def test_guards_keep_an_invariant_that_no_writer_could_check(scene: Scene) -> None:
    """Two sell the last one at once; every view rejects the same one, and tells who asks."""
    async with (
        scene.machine("a").open(quick(writer=FAST)) as one,
        scene.machine("b").open(quick(writer=FAST)) as two,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(one, Stock(), follow=True) as near,
        View.open(two, Stock(), follow=True) as far,
    ):
        await far.wait_for(await first.append(thing(1)), timeout=60)
        sold = await asyncio.gather(first.append(thing(-1)), second.append(thing(-1)))
        verdicts = [[bool(await view.settled(receipt, timeout=600)) for receipt in sold] for view in (near, far)]
        assert sorted(verdicts[0]) == [False, True]
        assert verdicts[0] == verdicts[1]
        assert near.get("x", settled=True) == far.get("x", settled=True) == {"left": 0}


@directed
async def test_before_it_is_settled_an_event_can_be_rejected_later(scene: Scene) -> None:
    """What is visible is a forecast: a sale that a view shows is taken back when an earlier one arrives late."""
    slow = scene.machine("slow", skew_ms=-1_500)
    async with (
        scene.machine("fast", skew_ms=1_500).open(quick(writer=FAST)) as one,
        slow.open(quick(writer=FAST)) as two,
        one.writer("fast") as first,
        two.writer("slow") as second,
        View.open(one, Stock(), follow=True) as view,
    ):
        await second.append(thing(2))
        late = await first.append(thing(-2))
        await view.wait_for(late, timeout=60)
        assert view.get("x") == {"left": 0}
        await view.wait_for(await second.append(thing(-1)), timeout=60)
        assert view.get("x") == {"left": 1}
        verdicts = await view.settled(late, timeout=600)
        assert [verdict.reason for verdict in verdicts.values()] == ["sold out"]


@directed
async def test_the_events_of_one_append_become_visible_together(scene: Scene) -> None:
    """P2: whoever looks while a view takes in what came sees all events of an ``append_many``, or none."""
    encode = EventEncoder().encode
    async with (
        scene.machine("reader").open(quick()) as log,
        View.open(log, Journal()) as view,
        scene.machine("a").open(quick()) as one,
        one.writer("a") as first,
        scene.machine("b").open(quick()) as two,
        two.writer("b") as second,
    ):
        await first.append(thing(100))
        await second.append(thing(200))
        tips = [scene.session("a", 1), scene.session("b", 2)]
        start = max(tip.stamp for _, tip in tips) + 1
        for session, tip in tips:
            data, _ = SegmentEncoder().encode(
                session.segment_key(tip.slot),
                [encode(thing(session.number)) for _ in range(3)],
                first_sequence=tip.sequence,
                stamp=start,
                acknowledged=tip.slot,
                previous=tip.digest,
            )
            await scene.world.create(scene.slot(session.writer, session.number, tip.slot), data)
        refreshing = asyncio.ensure_future(view.refresh())
        counts = set()
        while not refreshing.done():
            await asyncio.sleep(0.000_1)
            counts.add(tuple(seen(view).count(number) for number in (1, 2)))
        await refreshing
        assert seen(view)[-6:] == [1, 1, 1, 2, 2, 2]
        assert counts <= {(0, 0), (3, 0), (3, 3)}


@directed
async def test_a_view_entered_beside_a_slow_follower_is_at_the_tail(scene: Scene) -> None:
    """Entered, it holds all that was acknowledged before, also where its log's follower has not come to it yet."""
    async with scene.machine("a").open(quick()) as other, other.writer("a") as writer:
        await writer.append(thing(1))
        async with scene.machine("reader").open(quick(follow_ms=60_000)) as log, View.open(log, Journal(), follow=True):
            await asyncio.sleep(1)
            await writer.append(thing(2))
            async with View.open(log, Journal()) as view:
                assert seen(view) == [1, 2]


@directed
async def test_a_follower_that_is_started_meanwhile_holds_no_refresh_back(scene: Scene) -> None:
    """A refresh that began without a follower reaches the tail, though one starts behind it while it waits its turn."""
    async with (
        scene.machine("a").open(quick()) as other,
        other.writer("a") as writer,
        scene.machine("reader").open(quick(follow_ms=60_000)) as log,
    ):
        await writer.append(thing(1))
        reader = log.read()
        assert [event.key async for event in reader] == ["x"]
        assert reader.position is not None
        behind = await resume(reader.position, log.identity, log._objects, log._looks)
        async with View.open(log, Journal()) as view:
            await writer.append(thing(2))
            async with view._taking:  # as another refresh does
                refreshing = asyncio.create_task(view.refresh())
                await asyncio.sleep(0)
                log.follower_from(behind)
            await refreshing
            assert seen(view) == [1, 2]


@directed
async def test_an_interrupted_batch_leaves_settled_rows_at_the_watermark(scene: Scene) -> None:
    """P8: whatever stopped the taking in, settled rows are the fold of what is at or below the watermark."""
    reader = scene.machine("reader")
    async with reader.open(quick()) as log, View.open(log, Journal()) as view:
        async with scene.machine("a").open(quick()) as other, other.writer("a") as writer:
            receipts = [await writer.append(thing(number)) for number in range(5)]
        reader.script.on("get", scene.slot("a", 1, 3), hang, times=10**9)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await view.refresh()
        below = [number for number, receipt in enumerate(receipts) if receipt.stamp <= view.watermark]
        assert seen(view, settled=True) == below == [0, 1, 2]
        assert view.statistics().pending_events == 0


class Strict(Projection):
    """Fails on one event."""

    name, kinds = "strict", frozenset({"Thing"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        if event.data["n"] == 2:
            raise ValueError("not two")
        return event.data


@pytest.mark.parametrize("settled", [False, True])
@directed
async def test_a_fold_that_fails_within_an_append_leaves_all_of_it_out(scene: Scene, settled: bool) -> None:
    """P2, P8: a halted view shows the whole append or nothing, visible and at the watermark."""
    async with (
        scene.machine("r").open(quick()) as log,
        View.open(log, Strict()) as view,
        scene.machine("a").open(quick()) as other,
    ):
        writer = other.writer("a")
        receipt = await writer.append_many([thing(1, "one"), thing(2, "two"), thing(3, "three")])
        if settled:
            await writer.aclose()
        with pytest.raises(FoldFailed):
            await view.refresh()
        assert list(view.keys()) == []
        assert view.get("one", settled=True) is None
        assert view.watermark < receipt.stamp
        await writer.aclose()


class Numbered(Projection):
    """Events' data as it comes, by number."""

    name, kinds, fold, indexes = "numbered", frozenset({"Thing"}), "put", (Index("n"),)


@directed
async def test_data_that_nobody_can_decode_ends_a_view_with_its_key(scene: Scene) -> None:
    """A foreign writer's nonsense within a good segment: Corrupt, each time; never another answer in its place."""
    async with (
        scene.machine("a").open(quick()) as one,
        one.writer("a") as writer,
        scene.machine("r").open(quick()) as two,
    ):
        await writer.append(thing(1, "k1"))
        async with View.open(two, Numbered()) as view:
            assert view.find([("n", "==", 1)]).keys == ["k1"]
            session, tip = scene.session("a", 1)
            encode = EventEncoder().encode
            data, _ = SegmentEncoder().encode(
                session.segment_key(tip.slot),
                [(*encode(thing(2, "k2"))[:3], b"\xc1", None), encode(thing(3, "k3"))],
                first_sequence=tip.sequence,
                stamp=tip.stamp + 1,
                acknowledged=tip.slot,
                previous=tip.digest,
            )
            await scene.world.create(scene.slot("a", 1, tip.slot), data)
            for _ in range(2):
                with pytest.raises(Corrupt, match="k2"):
                    await view.refresh()
                with pytest.raises(Corrupt, match="k2"):
                    view.find([("n", "==", 3)])
            assert dict(view.get("k1") or {})["n"] == 1


@directed
async def test_a_damaged_log_is_told_and_rows_stay_readable(scene: Scene) -> None:
    """P12: moving on raises Corrupt, in every way of moving on; what was read before still answers."""
    reader, gate, name = scene.machine("reader"), Gate(), scene.slot("a", 1, 2)
    async with (
        scene.machine("a").open(quick()) as one,
        reader.open(quick(follow_ms=100)) as two,
        one.writer("a") as writer,
        View.open(two, Journal()) as still,
        View.open(two, Journal(), follow=True) as following,
    ):
        await still.wait_for(await writer.append(thing(1)), timeout=60)
        await following.wait_for(await writer.append(thing(2)), timeout=60)
        async with aclosing(following.changes()) as changes:
            reader.script.on("get", name, gate.before)  # nobody reads it before it is damaged
            receipt = await writer.append(thing(3))
            scene.store.flip(name, 700)
            gate.open()
            with pytest.raises(Corrupt, match=name):
                await anext(changes)
        for view in (still, following):
            with pytest.raises(Corrupt, match=name):
                await view.refresh()
            with pytest.raises(Corrupt, match=name):
                await view.wait_for(receipt)
            with pytest.raises(Corrupt, match=name):
                await view.settled(receipt, timeout=600)
        assert (seen(still), seen(following)) == ([1, 2], [1, 2])
        assert "Corrupt" in repr(following)
        scene.store.flip(name, 700)
        await still.refresh()
        assert seen(still) == [1, 2, 3]
        with pytest.raises(Corrupt, match=name):
            await following.refresh()


@directed
async def test_a_following_view_waits_out_an_outage(scene: Scene) -> None:
    """A store that does not answer for a while ends no view: it goes on where it was."""
    reader = scene.machine("reader")
    async with (
        scene.machine("a").open(quick()) as one,
        reader.open(quick(follow_ms=100, memory_bytes_max=1)) as two,
        one.writer("a") as writer,
        View.open(two, Journal(), follow=True) as view,
    ):
        await view.wait_for(await writer.append(thing(1)), timeout=60)
        outage = reader.script.on("get", "log/", refuse, times=100, skip=1)
        receipt = await writer.append(thing(2))
        await until(lambda: outage.met > 20)
        assert "failure=None" in repr(view)
        reader.script.clear()
        await until(lambda: seen(view) == [1, 2])
        await view.wait_for(receipt, timeout=60)
