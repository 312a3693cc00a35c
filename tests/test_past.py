"""Views of the past: the rows as they were, wherever one starts, and no answer before it is certain."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from logstore import Event, InvalidArgument, Log, Position, StaleStore
from logstore.clock import stamp_ms
from logstore.keys import ManifestKey
from projections import Change, Rejected, View, diff
from tests.scene import Scene, directed, quick
from tests.test_snapshots import Diary, Things, named, thing


class Twin(Diary):
    """The same fold, of which there are no snapshots."""

    tag = "from the beginning"


async def rows_at(log: Log, stamp: int) -> dict[str, Any]:
    """The fold of Diary over what is stamped at or below, as plainly as possible."""
    rows: dict[str, Any] = {}
    fold = Diary()
    async for event in log.read(kinds=Diary.kinds, settled=True):
        if event.stamp <= stamp:
            try:
                after = fold.apply(rows.get(event.key), event)
            except Rejected:
                continue
            if after is None:
                rows.pop(event.key, None)
            else:
                rows[event.key] = after
    return rows


def shown(view: Any) -> dict[str, Any]:
    return {key: {"seen": list(view.get(key)["seen"]), "count": view.get(key)["count"]} for key in list(view.keys())}


@directed
async def test_the_past_is_what_was_settled_then(scene: Scene) -> None:
    """At every stamp of the log and between them, from a snapshot or from the beginning: the fold's rows."""
    rng = random.Random(0)
    async with (
        scene.machine("a").open(quick()) as one,
        scene.machine("b", skew_ms=300).open(quick()) as two,
        one.writer("a") as first,
        two.writer("b") as second,
        View.open(one, Diary()) as view,
    ):
        for step in range(40):
            writer = rng.choice([first, second])
            data = None if rng.random() < 0.1 else {"n": rng.randint(0, 30)}
            await writer.append_many([Event(rng.choice(["Thing", "Other"]), f"k-{step % 5}", "done", data)] * 2)
            if step % 10 == 5:
                await view.snapshot()
            await asyncio.sleep(rng.choice([0, 0.3]))
    assert len(named(scene, ManifestKey)) == 4
    async with scene.machine("reader").open(read_only=True) as log:
        stamps = sorted({event.stamp async for event in log.read(settled=True)} | {e.stamp for e in scene.roster()})
        for stamp in [0, *stamps, *(stamp + 1 for stamp in stamps[:-1])]:
            true = await rows_at(log, stamp)
            async with View.open(log, Diary(), at=stamp) as past, View.open(log, Twin(), at=stamp) as whole:
                assert shown(past) == shown(whole) == true
                assert past.digest() == whole.digest() == past.digest(pending=True)
                assert past.watermark == stamp
                assert past.find(order_by=["-count"]).keys == whole.find(order_by=["-count"]).keys


@directed
async def test_moments_are_times_stamps_or_settled_positions(scene: Scene) -> None:
    """A time counts whole milliseconds; a position the last event yielded."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        first = await writer.append(thing(1))
        await asyncio.sleep(5)
        await log.settled(await writer.append(thing(2)))
        reader = log.read(settled=True)
        event = await anext(aiter(reader))
        position = reader.position
        assert isinstance(position, Position)
        at = datetime.fromtimestamp(stamp_ms(first.stamp) / 1000, UTC)
        for moment in (first.stamp, at, at + timedelta(seconds=1), position, event.stamp):
            async with View.open(log, Things(), at=moment) as past:
                assert list(past.keys()) == ["t-0001"]
        async with View.open(log, Things(), at=at - timedelta(milliseconds=1)) as past:
            assert len(past) == 0


@directed
async def test_a_diff_is_what_differs(scene: Scene) -> None:
    """Between any two moments: the keys whose rows are not the same at both, as they were and as they are, sorted."""
    rng = random.Random(1)
    async with (
        scene.machine("a").open(quick()) as log,
        log.writer("a") as writer,
        View.open(log, Diary()) as view,
    ):
        for step in range(30):
            data = None if rng.random() < 0.2 else {"n": rng.randint(0, 30)}
            await writer.append(Event("Thing", f"k-{rng.randint(0, 6)}", "done", data))
            if step == 12:
                await view.snapshot()
        await view.settled(await writer.append(Event("Thing", "k-0", "done", {"n": 1})))
        stamps = sorted({event.stamp async for event in log.read(settled=True)})
        for _ in range(12):
            before, after = sorted(rng.choices(stamps, k=2))
            async with View.open(log, Diary(), at=before) as one, View.open(log, Diary(), at=after) as other:
                wanted = [
                    Change(key, one.get(key), other.get(key))
                    for key in sorted({*one.keys(), *other.keys()})
                    if one.get(key) != other.get(key)
                ]
            assert await diff(log, Diary(), before, after) == wanted
        with pytest.raises(InvalidArgument, match="swap them"):
            await diff(log, Diary(), stamps[1], stamps[0])
        with pytest.raises(InvalidArgument, match="not settled yet"):
            await diff(log, Diary(), stamps[0], stamps[-1] + (1 << 40))


@directed
async def test_a_diff_is_whole_however_much_differs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a diff forgot what had changed when most rows had, as a view that snapshots may, and broke."""
    monkeypatch.setattr("projections.state.SINCE_ROWS_MIN", 0)
    async with scene.machine("a").open(quick()) as log, log.writer("a") as writer:
        await log.settled(await writer.append_many([thing(number) for number in range(20)]))
        newest = max([event.stamp async for event in log.read()])
        assert [change.key for change in await diff(log, Things(), 0, newest)] == [f"t-{n:04d}" for n in range(20)]


@directed
async def test_a_diff_takes_no_position_of_another_store(scene: Scene) -> None:
    """As a view of the past: either moment, StaleStore."""
    async with scene.machine("a").open(quick()) as log, log.writer("a") as writer:
        await log.settled(await writer.append(thing(1)))
        foreign = Position(bytes(16), (0, 1), bytes(32), (), (1, 0, 1, 0))
        for moments in ((foreign, 1), (0, foreign)):
            with pytest.raises(StaleStore):
                await diff(log, Things(), *moments)


@directed
async def test_what_is_not_settled_is_not_past(scene: Scene) -> None:
    """An earlier event may still come: refused, with the watermark; once it cannot, the same question is answered."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        receipt = await writer.append(thing(1))
        with pytest.raises(InvalidArgument, match="not settled yet"):
            async with View.open(log, Things(), at=receipt.stamp + 1):
                pass
        await log.settled(await writer.append(thing(2)))
        async with View.open(log, Things(), at=receipt.stamp + 1) as past:
            assert list(past.keys()) == ["t-0001"]


@pytest.mark.parametrize(
    "at",
    [-1, 1 << 64, True, "yesterday", 1.5, datetime(2026, 1, 1), Position(bytes(16), None, b"")],  # noqa: DTZ001
)
def test_what_is_no_moment_is_refused(at: Any) -> None:
    """Before anything is asked of the store, by a line that says what would do."""
    scene = Scene()

    async def play() -> None:
        async with scene.machine("web").open() as log:
            with pytest.raises(InvalidArgument, match="not a moment"):
                View.open(log, Things(), at=at)
            with pytest.raises(InvalidArgument, match="does not follow"):
                View.open(log, Things(), at=1, follow=True)  # type: ignore[call-overload]
            with pytest.raises(InvalidArgument, match="nor write snapshots=True"):
                View.open(log, Things(), at=1, snapshots=True)  # type: ignore[call-overload]

    scene.loop.run_until_complete(play())
    scene.loop.close()


@directed
async def test_a_view_of_the_past_registers_nothing(scene: Scene) -> None:
    """Looking back changes nothing in the store."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        await log.settled(await writer.append(thing(1)))
        before = set(scene.store.contents())
        async with View.open(log, Things(), at=0) as past:
            assert len(past) == 0
        assert {name for name in set(scene.store.contents()) - before if name.startswith("snapshots/")} == set()
