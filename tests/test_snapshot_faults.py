"""Regressions: what a hostile review found in snapshots and views of the past; each test gives the rule broken."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from logstore import Event, StaleStore, StoredEvent
from logstore.chunk import encode_chunk
from logstore.clock import stamp_ms
from logstore.errors import Corrupt, InvalidArgument, LogStoreError, Missing
from logstore.keys import ChunkKey, ManifestKey, RegistrationKey, parse_key
from logstore.manifest import Manifest, encode_manifest
from projections import FoldFailed, Projection, View
from projections.past import stamp_of
from tests.scene import Gate, Machine, Scene, directed, quick, until
from tests.test_looks import close_and_collect, opened, write
from tests.test_snapshots import Diary, DiaryAgain, Things, named, thing, three_snapshots


async def overwrite(scene: Scene, name: str, data: bytes) -> None:
    scene.forget(name)
    await scene.world.create(name, data)


@pytest.mark.parametrize("damage", ["manifest", "chunk"])
def test_after_a_damaged_snapshot_the_next_one_builds_on_another(damage: str) -> None:
    """`View.snapshot`: Corrupt or Missing when the one to build on is damaged, and the next call builds on another."""

    @directed
    async def play(scene: Scene) -> None:
        await three_snapshots(scene)
        kind = ManifestKey if damage == "manifest" else ChunkKey
        await overwrite(scene, named(scene, kind)[-1], b"nonsense")
        async with scene.machine("web").open(quick()) as log, View.open(log, Things()) as view:
            assert len(view.damage) >= 1
            outcomes: list[int | str] = []
            for _ in range(4):
                try:
                    outcomes.append((await view.snapshot()).rows)
                except (Corrupt, Missing) as error:
                    outcomes.append(type(error).__name__)
            assert outcomes[-1] == len(view), outcomes

    play()


@directed
async def test_a_log_opened_read_only_writes_no_snapshot_at_anothers_point_either(scene: Scene) -> None:
    """A read-only log writes nothing, though somebody else's point lies ahead that it could join."""
    async with (
        scene.machine("slow").open(quick()) as slow_log,
        slow_log.writer("slow") as slow,
        scene.machine("web").open(quick()) as log,
        View.open(log, Things()) as view,
        scene.machine("reader").open(quick(), read_only=True) as read_only,
        View.open(read_only, Things(), follow=True) as reading,
    ):
        await slow.append(thing(1))  # holds the watermark for a second
        snapshot = asyncio.create_task(view.snapshot())
        await until(lambda: any(getattr(entry.body, "point", None) is not None for entry in scene.roster()))
        snapshot.cancel()
        await asyncio.wait([snapshot])
        await reading.refresh()
        before = set(scene.store.contents())
        with suppress(InvalidArgument):
            await reading.snapshot()
        assert {name for name in set(scene.store.contents()) - before if name.startswith(("snap", "chunks"))} == set()


@pytest.mark.parametrize("falsified", ["rows of a chunk", "two chunks hold a key"])
def test_a_snapshot_that_does_not_add_up_is_passed_over(falsified: str) -> None:
    """RFC 0004 §5: opening a view verifies hashes and counts; `check` verifies what the rows add up to as well."""

    @directed
    async def play(scene: Scene) -> None:
        digest = await three_snapshots(scene)
        name = named(scene, ManifestKey)[-1]
        async with scene.machine("forger").open(quick()) as log:
            key = parse_key(name)
            assert isinstance(key, ManifestKey)
            manifest = await log.snapshots.manifest(key)
            if falsified == "rows of a chunk":  # the chunk has more rows than the manifest says
                first, *others = manifest.chunks
                shorter = replace(first, rows=first.rows - 1, dead=None)
                shorter = replace(shorter, rows=shorter.rows, dead=bytes((shorter.rows + 7) // 8 - 1) + b"\x01")
                forged = replace(manifest, chunks=(shorter, *others), rows=manifest.rows - first.alive + shorter.alive)
            else:
                data, hash_, size = encode_chunk(["t-0000"], [b"\x81\xa1n\x63"])
                extra = replace(manifest.chunks[0], key=ChunkKey(*manifest.point, hash_), rows=1, size=size, dead=None)
                await log.snapshots.create_chunk(extra.key, data)
                forged = replace(manifest, chunks=(*manifest.chunks, extra), rows=manifest.rows + 1)
        await overwrite(scene, name, encode_manifest(forged))
        async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
            assert (view.digest(pending=True), len(view.damage)) == (digest, 1)

    play()


@directed
async def test_what_a_view_has_settled_is_past(scene: Scene) -> None:
    """A moment at or below a view's watermark is settled: a view of the past shows it, and does not refuse."""
    async with (
        scene.machine("a").open() as one,
        scene.machine("b").open() as two,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(one, Things()) as view,
    ):
        await first.append(thing(1))
        await second.append(thing(2))
        await asyncio.sleep(1)
        held = await second.append(thing(3))
        await asyncio.sleep(1)
        await first.append(thing(4))
        await one.tick((await first.append(thing(5))).stamp)
        await view.refresh()
        assert view.watermark == held.stamp
        shown = {key for key in ("t-0001", "t-0002", "t-0003", "t-0004") if view.get(key, settled=True)}
        async with View.open(one, Things(), at=view.watermark) as past:
            assert set(past.keys()) == shown


@directed
async def test_a_snapshot_shows_the_past_at_its_own_stamp(scene: Scene) -> None:
    """What was settled for a snapshot is settled: a view of the past at its stamp is that snapshot's rows."""
    async with (
        scene.machine("a").open() as one,
        scene.machine("b").open() as two,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(one, Things(), follow=True) as view,
    ):
        await first.append(thing(1))
        await second.append(thing(2))
        snapshot = asyncio.create_task(view.snapshot())
        await until(lambda: any(getattr(entry.body, "point", None) is not None for entry in scene.roster()))
        await first.append(thing(3))
        await second.append(thing(4))
        manifest = await snapshot
        await second.append(thing(5))
        await first.append(thing(6))
        async with View.open(one, Things(), at=manifest.stamp) as past:
            assert len(past) == manifest.rows == 2


def test_a_time_does_not_show_what_came_after_it() -> None:
    """A view of the past at a time shows nothing stamped in a later millisecond: a time counts whole milliseconds."""
    moment = datetime(2023, 11, 14, 22, 13, 20, 999_700, tzinfo=UTC)
    assert stamp_ms(stamp_of(moment)) == 1_700_000_000_999


@directed
async def test_another_projections_damaged_registration_stops_no_snapshot(scene: Scene) -> None:
    """A damaged record of one projection is that one's trouble; nothing of the snapshot to build on is damaged."""
    async with scene.machine("other").open(quick()) as log, View.open(log, Diary()):
        name = named(scene, RegistrationKey)[-1]
    await overwrite(scene, name, b"nonsense")
    async with scene.machine("web").open(quick()) as log, View.open(log, Things()) as view:
        assert (await view.snapshot()).rows == 0


@directed
async def test_a_damaged_registration_keeps_nobody_from_reading(scene: Scene) -> None:
    """A view holds everything acknowledged, from the log if need be: what is beside the log cannot keep it shut."""
    await three_snapshots(scene)
    await overwrite(scene, named(scene, RegistrationKey)[-1], b"nonsense")
    async with scene.machine("web").open(quick()) as log, View.open(log, Things()) as view:
        assert len(view) == 7


@directed
async def test_a_cut_that_fails_ends_the_snapshot_and_not_the_view(scene: Scene) -> None:
    """A cut that fails is the snapshot's trouble: it raises why, and the view that follows goes on."""
    with pytest.MonkeyPatch.context() as patch:
        async with (
            scene.machine("other").open(quick()) as other,
            other.writer("other") as writer,
            scene.machine("web").open(quick()) as log,
            View.open(log, Things(), follow=True) as view,
        ):
            await writer.append(thing(1))

            def fail(*_: object) -> None:
                patch.undo()
                raise MemoryError("the copy of the table")

            patch.setattr("projections.state.State.final_verdicts", fail)
            with pytest.raises(MemoryError, match="the copy of the table"):
                await view.snapshot()
            receipt = await writer.append(thing(2))
            await view.wait_for(receipt, timeout=30)
            assert view.get("t-0002") is not None
            assert (await view.snapshot()).rows == 2


@directed
async def test_a_point_in_a_chapter_retired_meanwhile_is_told(scene: Scene) -> None:
    """Whoever sleeps while its point's chapter is retired gets an error that says so, or a snapshot; never a bug's."""

    async def snapshot(machine: Machine) -> Manifest:
        async with opened(machine) as log, View.open(log, Things()) as view:
            return await view.snapshot()

    await write(scene, "other", "x")
    web, slow = scene.machine("web"), scene.machine("slow")
    async with opened(slow) as log, log.writer("slow") as writer:
        await writer.append(thing(1, id="1"))  # holds the watermark
        living = web.start(snapshot(web))
        await until(lambda: any(getattr(entry.body, "point", None) is not None for entry in scene.roster()), 10)
        web.process.pause()
    await close_and_collect(scene)
    web.process.resume()
    try:
        manifest = await living
    except LogStoreError:
        return
    assert manifest.rows == 1


@directed
async def test_verdicts_in_a_manifest_do_not_depend_on_the_order_of_arrival(scene: Scene) -> None:
    """FORMAT §8: the newest verdicts, a function of the log: two processes write the same manifest of a point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.state.VERDICTS_REMEMBERED_MAX", 20)
        patch.setattr("projections.state.VERDICTS_MAX", 2)
        behind_machine, gate = scene.machine("behind"), Gate()
        async with (
            behind_machine.open(quick()) as behind_log,
            behind_log.writer("behind") as behind,
            scene.machine("ahead").open(quick()) as ahead_log,
            ahead_log.writer("ahead") as ahead,
            scene.machine("one").open(quick()) as one_log,
            View.open(one_log, Diary()) as one,
        ):
            again = Event("Thing", "k", "done", {"n": 1})
            other = again._replace(key="j")
            await behind.append(other)
            await ahead.append(again)
            behind_machine.script.on("create", "log/behind", gate.before)
            slow = asyncio.create_task(behind.append_many([other] * 25))
            await gate.met()
            await asyncio.sleep(0.1)
            newest = await ahead.append_many([again] * 2)
            await one.refresh()  # it is met early by one view
            gate.open()
            assert (await slow).stamp < newest.stamp
            manifest = await one.snapshot()
            async with scene.machine("two").open(quick()) as two_log, View.open(two_log, DiaryAgain()) as two:
                others = await two.snapshot()
            assert {verdict.stamp for verdict in others.verdicts} == {newest.stamp}
            assert manifest.verdicts == others.verdicts


class Parking(Projection):
    """Fails on some events, and goes on."""

    name, kinds, on_failure = "failing", frozenset({"Thing"}), "park"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        return {"quotient": 1 // event.data["n"]}


class Halting(Projection):
    """The same, but that it is to halt."""

    name, kinds, apply = Parking.name, Parking.kinds, Parking.apply


@directed
async def test_a_fold_that_is_to_halt_halts_wherever_it_starts(scene: Scene) -> None:
    """An `apply` that fails halts its view before the append that holds the event: from a snapshot as without one."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        await writer.append(thing(0))
        async with View.open(log, Parking()) as view:
            await view.snapshot()
        with pytest.raises(FoldFailed):
            async with View.open(log, Halting()) as view:
                assert view.damage == []


@directed
async def test_a_moment_of_another_store_is_none(scene: Scene) -> None:
    """A position belongs to its store: where a reader raises StaleStore a view of the past does not answer."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        await log.settled(await writer.append(thing(1)))
        reader = log.read(settled=True)
        await anext(aiter(reader))
        position = reader.position
        assert position is not None
        foreign = replace(position, store_id=bytes(16))
        with pytest.raises(StaleStore):
            async for _ in log.read(after=foreign):
                pass
        with pytest.raises((StaleStore, InvalidArgument)):
            async with View.open(log, Things(), at=foreign):
                pass
