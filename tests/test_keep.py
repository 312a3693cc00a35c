"""``keep``: the rounds of a daemon on one log, and of several; a store that it keeps stays small."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import pytest

from logstore import KeepSettings, Log, Unavailable
from logstore.keys import EntryKey, ManifestKey, SegmentKey, parse_key
from projections import KeepRound, View, keep
from tests.scene import Scene, directed, refuse
from tests.test_keeper import age, named_thing, opened
from tests.test_snapshots import Things, named

SETTINGS: Final = KeepSettings(chapter_age_ms=20_000)


async def rounds(
    log: Log, count: int, *, snapshot_ms: int = 10_000, settings: KeepSettings = SETTINGS
) -> list[KeepRound]:
    """The first rounds of keeping a log."""
    done: list[KeepRound] = []
    keeping = keep(log, [Things()], settings=settings, snapshot_ms=snapshot_ms, pause_ms=5_000)
    async with aclosing(keeping) as kept:
        async for one in kept:
            done.append(one)
            if len(done) == count:
                break
    return done


@directed
async def test_a_kept_store_holds_a_bounded_number_of_objects(scene: Scene) -> None:
    """P13: written to for long, with two keepers: chapters come and go, snapshots too; a new view is right at once."""
    sizes: list[int] = []
    async with opened(scene.machine("keeper1")) as one, opened(scene.machine("keeper2")) as two:
        keepers = [asyncio.create_task(rounds(log, 10_000)) for log in (one, two)]
        for number in range(300):
            async with opened(scene.machine(f"web{number}")) as log, log.writer("web") as writer:
                await writer.append_many([named_thing(number % 7, number)])
            await asyncio.sleep(2)
            sizes.append(len(scene.store.contents()))
        for keeper in keepers:
            assert not keeper.done()
            keeper.cancel()
        await asyncio.wait(keepers)
    names = map(parse_key, scene.store.contents())
    chapters = {key.chapter for key in names if isinstance(key, EntryKey | SegmentKey)}
    assert max(chapters) > 15
    assert len(chapters) < 10
    assert max(sizes[200:]) <= 1.3 * max(sizes[100:200])
    async with opened(scene.machine("reader")) as log, View.open(log, Things()) as view:
        assert view.damage == []
        assert len(view) == 7
        assert view.get("t-0005") == {"n": 5, "id": "5/299"}


@directed
async def test_an_idle_log_is_left_alone(scene: Scene) -> None:
    """Nothing is appended: after the snapshots that retention waits for, rounds write nothing more."""
    async with opened(scene.machine("web")) as log:
        async with log.writer("web") as writer:
            await writer.append(named_thing(1, 1))
        await rounds(log, 60)
        before = scene.store.contents().keys()
        await rounds(log, 20)
        assert scene.store.contents().keys() <= before


@directed
async def test_two_keepers_share_the_snapshots(scene: Scene) -> None:
    """Whoever is first spares the other: about as many snapshots as one keeper writes."""
    async with (
        opened(scene.machine("one")) as one,
        opened(scene.machine("two")) as two,
        one.writer("web") as writer,
    ):
        keepers = [asyncio.create_task(rounds(log, 40, snapshot_ms=40_000)) for log in (one, two)]
        while not all(keeper.done() for keeper in keepers):
            await writer.append(named_thing(1, round(scene.loop.time())))
            await asyncio.sleep(3)
        done = [await keeper for keeper in keepers]
    written = [len([manifest for one in each for manifest in one.snapshots]) for each in done]
    assert sum(written) <= 200 / 40 + 6, written
    assert len({name for name in scene.store.ever() if isinstance(parse_key(name), ManifestKey)}) <= 11


@directed
async def test_a_round_goes_on_after_a_problem(scene: Scene) -> None:
    """The roster cannot be written for a while: said, and the next rounds do what is due."""
    web = scene.machine("web")
    async with opened(web) as log:
        async with log.writer("web") as writer:
            await writer.append(named_thing(1, 1))
        rule = web.script.on("create", "roster/", refuse, times=10**6)
        keeping = asyncio.create_task(rounds(log, 12))
        await asyncio.sleep(20)
        web.script.clear()
        done = await keeping
    assert rule is not None
    assert isinstance(done[0].problems[0], Unavailable)
    assert done[-1].problems == []
    assert [one for one in done if one.snapshots]


@directed
async def test_who_may_not_write_is_told_at_once(scene: Scene) -> None:
    """Without permission to write it is no daemon that fails for ever: Unavailable, before anything else is asked."""
    web = scene.machine("web")
    async with opened(web) as log:
        web.script.on("create", "probe/", refuse, times=10**6)
        with pytest.raises(Unavailable):
            await rounds(log, 1)


@directed
async def test_a_view_that_failed_is_opened_again(scene: Scene) -> None:
    """The keeper slept through a retirement: its view is told Trimmed, and the next round keeps on."""
    sleeper = scene.machine("sleeper")
    async with opened(sleeper) as log:
        async with log.writer("web") as writer:
            await writer.append(named_thing(1, 1))
        keeping = asyncio.create_task(rounds(log, 30))
        await asyncio.sleep(30)
        sleeper.process.pause()
        async with opened(scene.machine("other")) as other:
            async with other.writer("web") as writer:
                await writer.append(named_thing(2, 1))
            await rounds(other, 40)
        sleeper.process.resume()
        await age()
        done = await keeping
    assert done[-1].problems == []
    assert len(named(scene, ManifestKey)) >= 2


@directed
async def test_a_damaged_newest_snapshot_is_replaced_though_no_row_has_changed(scene: Scene) -> None:
    """Regression: a keeper counted the changes since the older one that it began at, and there were none."""
    async with opened(scene.machine("web")) as log:
        async with log.writer("web") as writer:
            await writer.append(named_thing(1, 1))
        await rounds(log, 60)
    newest = max(name for name in scene.store.contents() if isinstance(parse_key(name), ManifestKey))
    data = scene.store.contents()[newest]
    scene.forget(newest)
    await scene.world.create(newest, data[:-1] + bytes([data[-1] ^ 1]))
    async with opened(scene.machine("keeper")) as log:
        done = await rounds(log, 20)
        assert [manifest for one in done for manifest in one.snapshots]
    async with opened(scene.machine("reader")) as log, View.open(log, Things()) as view:
        assert view.damage == []


@directed
async def test_a_keeper_does_not_write_again_what_another_has_written(scene: Scene) -> None:
    """Regression: one that had written none counted the changes since it began, though a snapshot holds them."""
    async with opened(scene.machine("web")) as log:
        async with log.writer("web") as writer:
            await writer.append(named_thing(1, 1))
        await rounds(log, 60)
    async with opened(scene.machine("one")) as one, opened(scene.machine("two")) as two:
        keepers = [
            asyncio.create_task(rounds(log, 60, snapshot_ms=snapshot_ms, settings=KeepSettings()))
            for log, snapshot_ms in ((one, 10_000), (two, 60_000))
        ]
        await asyncio.sleep(10)
        async with one.writer("web") as writer:
            await writer.append(named_thing(2, 2))
        done = [await keeper for keeper in keepers]
    assert sum(len(one.snapshots) for each in done for one in each) == 1
