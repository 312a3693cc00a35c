"""A view with a memory budget answers as one without, whatever happens; and what a full disk does to it."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Event, Log, Receipt, StoredEvent
from logstore.errors import InvalidArgument, LogStoreError, Unavailable
from logstore.filestore import MemoryStore
from logstore.keys import ManifestKey
from projections import Change, Index, PastView, Projection, Rejected, View, diff
from projections.bounded import BoundedRows
from tests.scene import Gate, Scene, directed, quick, until
from tests.test_cachefile import full_disk
from tests.test_snapshots import named

BUDGETS = (1, 4_000)
STEPS = 14
KEYS = 30
ORDERS: tuple[list[str], ...] = ([], ["-number"], ["group", "-number"], ["-text", "group"])
WHERES: tuple[Any, ...] = (
    [],
    [("group", "==", 1)],
    [("group", "in", [0, 2]), ("number", ">", 10)],
    [("text", "contains", "b")],
    [("text", "!=", "aaa"), ("number", "<=", 25)],
)


INDEXES = (Index("group", "-number"), Index("number"))


class Puts(Projection):
    name, kinds, fold, indexes = "puts", frozenset({"Thing"}), "put", INDEXES


class Patches(Projection):
    name, kinds, fold, indexes = "patches", frozenset({"Thing"}), "patch", INDEXES


class Guarded(Projection):
    """Depends on the order of its events, and says no to some."""

    name, kinds, indexes = "guarded", frozenset({"Thing"}), INDEXES

    def apply(self, state: Any, event: StoredEvent) -> Any:
        if event.data is None:
            return None
        chain = (state["chain"] if state else 0) * 31 % 1_009 + event.data["number"]
        if chain % 7 == 3:
            raise Rejected(f"{chain}")
        return {**event.data, "chain": chain}


class Unindexed(Projection):
    name, kinds, fold = "unindexed", frozenset({"Thing"}), "put"


FOLDS = (Puts(), Patches(), Guarded(), Unindexed())


def thing(rng: random.Random) -> Event:
    """About 200 bytes, or a deletion."""
    number = rng.randint(0, 30)
    text = rng.choice(["aaa", "bbb", "c" * 150])
    data = {"number": number, "group": number % 3, "text": text, "noise": str(number**40)}
    return Event("Thing", f"k-{rng.randrange(KEYS):02d}", "done", None if rng.random() < 0.15 else data)


def answers(view: View | PastView, *, settled: bool) -> list[Any]:
    """What there is to ask."""
    keys = [f"k-{number:02d}" for number in range(KEYS)]
    said: list[Any] = [view.get(key, settled=settled) for key in keys]
    for where in WHERES:
        said.append(view.count(where, settled=settled))
        for order in ORDERS:
            pages, cursor = [], None
            while True:
                page = view.find(where, order, limit=7, cursor=cursor, settled=settled)
                pages.append((page.rows, page.keys, page.examined))
                if (cursor := page.cursor) is None:
                    break
            said += [pages, view.find(where, order, settled=settled).keys, str(view.explain(where, order, 7))]
    return [*said, view.digest(pending=not settled), len(view), sorted(view.keys())]


@directed
async def test_every_answer_is_the_same(scene: Scene) -> None:
    """Two writers with clocks apart, late arrivals, deletions; asked at every step, and a snapshot now and then."""
    rng = random.Random(0)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(scene.machine("a").open(quick()))
        two = await stack.enter_async_context(scene.machine("b", skew_ms=300).open(quick()))
        writers = [await stack.enter_async_context(log.writer("w")) for log in (one, two)]
        plain = [await stack.enter_async_context(View.open(one, fold)) for fold in FOLDS]
        bounded = [
            [await stack.enter_async_context(View.open(one, fold, memory_bytes_max=budget)) for budget in BUDGETS]
            for fold in FOLDS
        ]
        compared = 0
        for step in range(STEPS):
            await rng.choice(writers).append_many([thing(rng) for _ in range(rng.randint(1, 6))])
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0.1, 3]))
            for view, others in zip(plain, bounded, strict=True):
                await view.refresh()
                visible, settled = answers(view, settled=False), answers(view, settled=True)
                for other in others:
                    await other.refresh()
                    assert answers(other, settled=False) == visible
                    if other.watermark == view.watermark:
                        assert answers(other, settled=True) == settled
                        assert other.statistics().pending_events == view.statistics().pending_events
                        compared += 1
            if step % 5 == 3:
                for view, others in zip(plain, bounded, strict=True):
                    for each in (*others, view):
                        await each.snapshot()
        assert compared > STEPS * len(FOLDS)
        assert all(isinstance(other._state.rows, BoundedRows) for others in bounded for other in others)
        for others in bounded:
            for other in others:
                other._state._check()
                other._state.rows._check()  # type: ignore[union-attr]
        assert all(others[0].statistics().cold_rows > KEYS // 3 for others in bounded)


@directed
async def test_a_budget_writes_the_same_snapshots(scene: Scene) -> None:
    """At one point, whoever writes it: the same manifest; and a view with a budget begins with it as any other does."""
    rng = random.Random(1)
    async with (
        scene.machine("slow").open(quick()) as slow_log,
        slow_log.writer("slow") as slow,
        scene.machine("one").open(quick()) as one_log,
        one_log.writer("one") as writer,
        scene.machine("two").open(quick()) as two_log,
        View.open(one_log, Guarded(), follow=True) as plain,
        View.open(two_log, Guarded(), follow=True, memory_bytes_max=1) as bounded,
    ):
        for each in range(4):
            await writer.append_many([thing(rng) for _ in range(30)])
            await slow.append(thing(rng))  # holds the watermark for a second
            snapshot = asyncio.create_task(plain.snapshot())
            points = scene.bodies().count("Tick")
            await until(lambda points=points: scene.bodies().count("Tick") > points)  # type: ignore[misc]
            manifest = await bounded.snapshot()
            assert manifest == await snapshot
            assert f"{manifest.rows_digest:064x}" == bounded.digest() == plain.digest()
            assert len(named(scene, ManifestKey)) == each + 1
        async with View.open(one_log, Guarded(), memory_bytes_max=1) as begun:
            assert not begun.damage
            await plain.refresh()
            assert answers(begun, settled=False) == answers(plain, settled=False)
            assert begun.statistics().cold_rows == len(begun) == len(plain)


@directed
async def test_a_view_with_a_budget_begins_within_it(scene: Scene) -> None:
    """Rows of a snapshot go to the file as they are loaded, not when all are there."""
    async with scene.machine("a").open(quick()) as log, log.writer("a") as writer:
        await writer.append_many([noisy(number) for number in range(20)])
        async with View.open(log, Puts()) as plain:
            await plain.snapshot()
        view = View.open(log, Puts(), memory_bytes_max=1)
        await view._start()
        assert view._state.rows.rows_in_file == 20  # type: ignore[union-attr]


@directed
async def test_a_snapshot_is_of_its_point_though_the_view_moves_on(scene: Scene) -> None:
    """While it is written rows are replaced, deleted and put in the file anew; what it holds is what was there."""
    rng, machine, gate = random.Random(4), scene.machine("a"), Gate()
    async with (
        machine.open(quick()) as log,
        log.writer("a") as writer,
        View.open(log, Puts(), memory_bytes_max=1) as view,
    ):
        await writer.append_many([thing(rng) for _ in range(100)])
        machine.script.on("create", "chunks/", gate.before)
        snapshot = asyncio.create_task(view.snapshot())
        await gate.met()
        for _ in range(10):
            await view.wait_for(await writer.append_many([thing(rng) for _ in range(20)]))
            view._state.rows._check()  # type: ignore[union-attr]
        gate.open()
        manifest = await snapshot
        async with View.open(log, Puts(), at=manifest.stamp) as then:
            assert f"{manifest.rows_digest:064x}" == then.digest() != view.digest(pending=True)
        async with View.open(log, Puts()) as begun, View.open(log, Unindexed()) as whole:
            assert begun.damage == []
            assert begun.digest(pending=True) == whole.digest(pending=True) == view.digest(pending=True)


async def test_pages_are_forgotten_with_their_rows(log: Log) -> None:
    """An index remembers no page of decoded rows for longer than rows that were looked at are remembered."""
    async with log.writer("w") as writer, View.open(log, Puts(), memory_bytes_max=400_000) as view:
        await writer.append_many([noisy(number) for number in range(200)])
        await view.refresh()
        assert view.statistics().cold_rows > 100
        index = view._built_indexes()[1]
        for _ in range(3):
            view.find([("number", "<", 2)], ["number"], limit=2)
        assert index._finds
        for number in range(100):
            view.get(f"k-{number}")
            view._decoded._seen.clear()  # else one may be taken for a row forgotten, and be remembered decoded
        view.find([("number", ">", 10**9)], ["number"], limit=2)
        view.explain()
        assert sum(map(len, index._finds.values())) <= 1


@directed
async def test_looking_back_within_a_budget(scene: Scene) -> None:
    """The rows of any moment, and how those of any two differ."""
    rng, stamps = random.Random(2), []
    async with scene.machine("a").open(quick()) as log, log.writer("a") as writer:
        async with View.open(log, Guarded(), memory_bytes_max=1) as view:
            for step in range(30):
                stamps.append((await writer.append_many([thing(rng) for _ in range(4)])).stamp)
                if step in (9, 19):
                    await view.snapshot()
            await log.settled(await writer.append(thing(rng)))
        for at in stamps[::4]:
            async with (
                View.open(log, Guarded(), at=at) as plain,
                View.open(log, Guarded(), at=at, memory_bytes_max=1) as bounded,
            ):
                assert answers(bounded, settled=False) == answers(plain, settled=False)
                assert answers(bounded, settled=True) == answers(plain, settled=True)
                assert bounded._state.rows.rows_in_file == len(bounded)  # type: ignore[union-attr]
        for start, stop in zip(stamps[::5], stamps[3::5], strict=False):
            changes: list[Change] = await diff(log, Guarded(), start, stop)
            assert await diff(log, Guarded(), start, stop, memory_bytes_max=1) == changes
            assert changes


@directed
async def test_changes_and_verdicts_within_a_budget(scene: Scene) -> None:
    """A mirror kept by the changes is the rows; what a guard said to each event is the same."""
    rng = random.Random(3)
    async with (
        scene.machine("a").open(quick()) as log,
        log.writer("a") as writer,
        View.open(log, Guarded()) as plain,
        View.open(log, Guarded(), memory_bytes_max=1) as bounded,
    ):
        mirror: dict[str, Any] = {}
        receipts: list[Receipt] = []

        async def watch() -> None:
            async for key, old, new in bounded.changes():
                assert mirror.get(key) == old
                mirror[key] = new

        watching = asyncio.create_task(watch())
        for _ in range(30):
            await asyncio.sleep(0)
            receipt = await writer.append_many([thing(rng) for _ in range(5)])
            receipts.append(receipt)
            await bounded.wait_for(receipt)
            await asyncio.sleep(0.01)
            assert {key: row for key, row in mirror.items() if row} == {
                key: bounded.get(key) for key in list(bounded.keys())
            }
        verdicts = [await bounded.settled(receipt) for receipt in receipts]
        assert verdicts == [await plain.settled(receipt) for receipt in receipts]
        assert any(verdicts)
        watching.cancel()


class Full(Puts):
    name = "full"


def noisy(number: int) -> Event:
    return Event("Thing", f"k-{number}", "done", {"number": number, "noise": random.Random(number).randbytes(3_000)})


@pytest.mark.parametrize("follow", [False, True])
async def test_a_view_waits_while_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path, follow: bool) -> None:
    """It says so to who asks it to move, answers as of the last run it took, loses nothing, and takes nothing twice."""
    async with (
        logstore.open(MemoryStore()) as log,
        log.writer("w") as writer,
        View.open(log, Full(), follow=follow, memory_bytes_max=20_000, cache_directory=tmp_path) as view,
    ):
        with full_disk():
            receipts = [await writer.append(noisy(number)) for number in range(15)]
            for _ in range(3):
                with pytest.raises(Unavailable, match=rf"cannot be written cache_directory={tmp_path}"):
                    await view.refresh()
            with pytest.raises(Unavailable, match="cache_directory"):
                await view.wait_for(receipts[-1], timeout=5)
            taken = len(view)
            assert taken < 10
            assert view.find(order_by=["-number"]).keys == [f"k-{number}" for number in reversed(range(taken))]
        await view.wait_for(receipts[-1], timeout=5)
        assert view.find(order_by=["number"]).keys == [f"k-{number}" for number in range(15)]
        assert all(view.get(f"k-{number}") == noisy(number).data for number in range(15))
        view._state._check()


async def test_a_following_view_goes_on_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not end it."""
    monkeypatch.setattr("projections.view.OUTAGE_PAUSE_S", 0.01)
    async with (
        logstore.open(MemoryStore()) as log,
        log.writer("w") as writer,
        View.open(log, Full(), follow=True, memory_bytes_max=20_000, cache_directory=tmp_path) as view,
    ):
        changes = view.changes()
        with full_disk():
            for number in range(15):
                await writer.append(noisy(number))
            with pytest.raises(Unavailable):
                await view.refresh()
        seen = {(await anext(changes)).key for _ in range(15)}
        assert seen == {f"k-{number}" for number in range(15)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"memory_bytes_max": 0}, "memory_bytes_max=0"),
        ({"memory_bytes_max": "64 MB"}, "memory_bytes_max='64 MB'"),
        ({"cache_directory": "/tmp"}, "give memory_bytes_max"),
        ({"memory_bytes_max": 10, "cache_directory": "/absent/directory"}, "cache_directory=/absent/directory"),
        ({"memory_bytes_max": 10, "cache_directory": "/proc"}, "name a directory that can be written to"),
    ],
)
async def test_a_budget_that_cannot_be_used_is_refused(log: Log, arguments: dict[str, Any], said: str) -> None:
    """Before anything is read, naming the argument, of a view of now and of the past."""
    with pytest.raises(InvalidArgument, match=said) as refusal:
        View.open(log, Puts(), **arguments)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InvalidArgument, match=said):
        View.open(log, Puts(), at=1, **arguments)
    with pytest.raises(LogStoreError, match=said):
        await diff(log, Puts(), 0, 0, **arguments)


@pytest.fixture
async def log() -> Any:
    async with logstore.open(MemoryStore()) as log:
        yield log


async def test_statistics_tell_where_rows_are(log: Log) -> None:
    """How many are in the file, how large it is, and what is in memory."""
    async with (
        log.writer("w") as writer,
        View.open(log, Full()) as plain,
        View.open(log, Full(), memory_bytes_max=20_000) as view,
    ):
        assert (view.statistics().cold_rows, view.statistics().cache_file_bytes) == (0, 0)
        await writer.append_many([noisy(number) for number in range(100)])
        await plain.refresh()
        await view.refresh()
        told, otherwise = view.statistics(), plain.statistics()
        assert 95 <= told.cold_rows < told.rows == 100
        assert told.cache_file_bytes > 250_000
        assert told.memory_bytes < 50_000
        assert (otherwise.cold_rows, otherwise.cache_file_bytes) == (0, 0)
        assert otherwise.memory_bytes > 300_000
