"""Snapshots of views on real logs: P10, what is written, who agrees, what is done about damage."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from logstore import Event, StoredEvent, Trimmed
from logstore.errors import Corrupt, InvalidArgument, Missing, Unavailable
from logstore.keys import ChunkKey, ManifestKey, RegistrationKey, parse_key
from logstore.manifest import Manifest
from projections import Projection, Rejected, View, drop
from tests.scene import Gate, Scene, directed, quick, refuse, until


class Things(Projection):
    name, kinds, fold = "things", frozenset({"Thing"}), "put"


class Diary(Projection):
    """Depends on the order of its events on purpose: the last few, and how many a guard let pass."""

    name, kinds = "diary", frozenset({"Thing", "Other"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        if event.data is None:
            return None
        number = event.data["n"]
        seen = state["seen"] if state else ()
        if seen and seen[-1] % 5 == number % 5:
            raise Rejected("twice in a row")
        return {"seen": [*seen, number][-4:], "count": (state["count"] if state else 0) + 1}


class DiaryAgain(Diary):
    """The same by another name: no snapshot of one is one of the other."""

    tag = "again"


def named(scene: Scene, kind: type) -> list[str]:
    """The names of all objects of a kind."""
    return [name for name in sorted(scene.store.contents()) if isinstance(parse_key(name), kind)]


def thing(number: int, **fields: Any) -> Event:
    return Event("Thing", f"t-{number:04d}", "changed", {"n": number, **fields})


@directed
async def test_a_snapshot_spares_the_reading(scene: Scene) -> None:
    """A view opened after it fetches manifest and chunk, and no segment that the snapshot covers."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        async with View.open(log, Things()) as view:
            for number in range(5):
                await writer.append_many([thing(number), thing(number + 100)])
            manifest = await view.snapshot()
            assert manifest.rows == len(view) == 10
            digest = view.digest()
        await writer.append(thing(1_000))
    reader = scene.machine("reader")
    async with reader.open(read_only=True) as log, View.open(log, Things()) as view:
        assert len(view) == 11
        assert view.damage == []
    assert reader.script.count("get", "log/") < 5
    assert reader.script.count("get", "chunks/") == 1
    assert f"{manifest.rows_digest:064x}" == digest


@directed
async def test_a_snapshot_does_not_wait_for_the_idle_time(scene: Scene) -> None:
    """Regression: the first one of a process that did not follow took 30 s, until its own quiet session idled out."""
    async with scene.machine("web").open() as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append(thing(1))
        began_s = scene.loop.time()
        await view.snapshot()
        assert scene.loop.time() - began_s < 5


@directed
async def test_a_view_moves_on_while_its_point_is_posted(scene: Scene) -> None:
    """Regression (seed 93): P9, its own writes are seen at once, though the roster does not answer."""
    web, gate = scene.machine("web"), Gate()
    async with web.open() as log, log.writer("web") as writer, View.open(log, Things(), follow=True) as view:
        await writer.append(thing(1))
        web.script.on("create", "roster/", gate.before)
        snapshot = asyncio.create_task(view.snapshot())
        await gate.met()
        began_s = scene.loop.time()
        await view.wait_for(await writer.append(thing(2)), timeout=1)
        assert scene.loop.time() - began_s < 0.5
        gate.open()
        assert (await snapshot).rows == 1  # what was acknowledged before


@directed
async def test_an_empty_view_has_a_snapshot_too(scene: Scene) -> None:
    """Of nothing at all: a manifest without chunks, from which a reader begins."""
    async with scene.machine("web").open() as log, View.open(log, Things()) as view:
        manifest = await view.snapshot()
        assert (manifest.rows, manifest.chunks) == (0, ())
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        assert len(view) == 0
        assert view.watermark >= manifest.stamp


@directed
async def test_the_next_snapshot_writes_what_has_changed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand rows three change, one of them goes: a few rows are encoded, and the other chunks stay."""
    monkeypatch.setattr("projections.layout.CHUNK_BYTES_MAX", 2_000)
    monkeypatch.setattr("projections.layout.SMALL_BYTES", 1_000)
    monkeypatch.setattr("projections.layout.FREE_ROWS", 10)
    async with scene.machine("web").open() as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append_many([thing(number) for number in range(1_000)])
        first = await view.snapshot()
        encoded = view._snapshotter.rows_written
        assert encoded == 1_000
        gone = Event("Thing", "t-0500", "deleted", None)
        await writer.append_many([thing(1, x=1), thing(999, x=1), gone])
        second = await view.snapshot()
        assert second.rows == 999
        assert view._snapshotter.rows_written - encoded <= 2 * 3 + 10 + 200
        assert len(set(second.chunks) & set(first.chunks)) >= len(first.chunks) - 4
        assert f"{second.rows_digest:064x}" == view.digest()
        digest = view.digest()
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        assert view.digest() == digest
        assert view.get("t-0500") is None


@directed
async def test_a_view_that_is_to_write_snapshots_goes_on_from_the_one_it_began_at(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first costs what has changed: it asks for no chunk again, and writes what a view that compares all writes."""
    monkeypatch.setattr("projections.layout.CHUNK_BYTES_MAX", 2_000)
    monkeypatch.setattr("projections.layout.SMALL_BYTES", 1_000)
    monkeypatch.setattr("projections.layout.FREE_ROWS", 10)
    async with scene.machine("web").open() as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append_many([thing(number) for number in range(1_000)])
        await view.snapshot()
        await writer.append_many([thing(1, x=1), thing(999, x=1), Event("Thing", "t-0500", "deleted", None)])
    goes_on, compares = scene.machine("goes-on"), scene.machine("compares")
    async with (
        goes_on.open() as one_log,
        compares.open() as other_log,
        View.open(one_log, Things(), snapshots=True) as one,
        View.open(other_log, Things()) as other,
    ):
        assert (one.rows_changed, other.rows_changed) == (3, None)
        begun, opened = goes_on.script.count("get", "chunks/"), compares.script.count("get", "chunks/")
        assert begun == opened > 3
        written = await asyncio.gather(one.snapshot(), other.snapshot())
        assert goes_on.script.count("get", "chunks/") == begun
        assert compares.script.count("get", "chunks/") == 2 * opened
        assert one.rows_changed == 0
        assert _contents(written[0]) == _contents(written[1])
        assert f"{written[0].rows_digest:064x}" == one.digest() == other.digest()


def _contents(manifest: Manifest) -> list[tuple[bytes, int, bytes | None]]:
    """What each chunk holds, whichever point wrote it first, and which of its rows are dead."""
    return [(chunk.key.hash, chunk.rows, chunk.dead) for chunk in manifest.chunks]


@directed
async def test_p10_a_snapshot_and_the_rest_is_the_whole(scene: Scene) -> None:
    """Under random histories of several writers, with snapshots by several processes at any moment.

    Whoever starts from a snapshot, at whatever time, has the rows and the digest of one who folds from the beginning.
    """
    for seed in range(6):
        await p10(scene, random.Random(seed))


async def p10(scene: Scene, rng: random.Random) -> None:
    tag = f"{rng.random():.6f}"
    projection = type("Diary", (Diary,), {"name": f"diary-{tag}"})
    twin = type("Diary", (Diary,), {"name": f"diary-{tag}", "tag": "from the beginning"})

    async def write(name: str) -> None:
        async with scene.machine(f"{name}-{tag}", skew_ms=rng.randint(-500, 500)).open(quick()) as log:
            for _ in range(rng.randint(1, 3)):
                async with log.writer(name) as writer:
                    for _ in range(rng.randint(1, 12)):
                        number = rng.randint(0, 30)
                        data = None if rng.random() < 0.1 else {"n": number}
                        kind = rng.choice(["Thing", "Other", "Unheard"])
                        await writer.append_many([Event(kind, f"k-{number % 7}", "done", data)] * rng.randint(1, 2))
                        await asyncio.sleep(rng.choice([0, 0.01, 0.5]))

    async def snapshot(name: str) -> None:
        follow = rng.random() < 0.5
        async with (
            scene.machine(f"{name}-{tag}").open(quick()) as log,
            View.open(log, projection(), follow=follow) as view,
        ):
            for _ in range(rng.randint(1, 3)):
                await asyncio.sleep(rng.uniform(0, 2))
                await view.snapshot()

    await asyncio.gather(*(write(name) for name in "abc"), *(snapshot(name) for name in ("s", "t")))
    async with (
        scene.machine(f"last-{tag}").open(quick()) as log,
        View.open(log, twin(), follow=True) as whole,
        View.open(log, projection(), follow=True) as rest,
    ):
        assert rest.damage == []
        assert rest._state.verdicts_from > 0
        newest = scene.roster()[-1].stamp
        await until(lambda: min(whole.watermark, rest.watermark) >= newest)
        assert whole.digest() == rest.digest()
        assert list(map(whole.get, sorted(whole.keys()))) == list(map(rest.get, sorted(rest.keys())))
        snapshotted = await rest.snapshot()
        assert f"{snapshotted.rows_digest:064x}" == whole.digest()


@directed
async def test_two_processes_write_the_same_snapshot_of_one_point(scene: Scene) -> None:
    """One of them goes on from its last snapshot, the other compares with it: names and manifest are the same."""
    async with (
        scene.machine("slow").open(quick()) as slow_log,
        slow_log.writer("slow") as slow,
        scene.machine("one").open(quick()) as one_log,
        one_log.writer("one") as one_writer,
        scene.machine("two").open(quick()) as two_log,
        View.open(one_log, Diary(), follow=True) as one,
        View.open(two_log, Diary(), follow=True) as two,
    ):
        for number in range(40):
            await one_writer.append(Event("Thing", f"k-{number % 9}", "done", {"n": number * number}))
        first = await one.snapshot()
        for number in range(10):
            await one_writer.append(Event("Thing", f"k-{number % 4}", "done", {"n": number + 1}))
        await slow.append(Event("Other", "k-1", "done", {"n": 77}))  # holds the watermark for a second
        snapshot = asyncio.create_task(one.snapshot())
        points = len([body for body in scene.bodies() if body == "Tick"])
        await until(lambda: len([body for body in scene.bodies() if body == "Tick"]) > points)
        assert one.watermark < scene.roster()[-1].stamp
        second = await two.snapshot()
        assert second == await snapshot
        assert len(named(scene, ManifestKey)) == 2
        assert len(named(scene, ChunkKey)) == len({*first.chunks, *second.chunks})


@directed
async def test_a_fold_that_is_not_a_function_is_found(scene: Scene) -> None:
    """Two processes whose code differs without a new tag: who comes second with its snapshot is told."""
    async with (
        scene.machine("web").open(quick()) as log,
        log.writer("web") as writer,
        View.open(log, Things()) as view,
    ):
        await writer.append(thing(1))
        manifest = await view.snapshot()
        assert await log.snapshots.create_manifest(manifest) == manifest
        with pytest.raises(Corrupt, match="not deterministic"):
            await log.snapshots.create_manifest(replace(manifest, rows_digest=1))


async def three_snapshots(scene: Scene) -> str:
    """A store with three snapshots of Things and some events after them; return the digest at its end."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        async with View.open(log, Things()) as view:
            for number in range(3):
                await writer.append_many([thing(number), thing(number + 10)])
                await view.snapshot()
        await writer.append(thing(50))
    async with scene.machine("digester").open(quick()) as log, View.open(log, Things()) as view:
        return view.digest(pending=True)


@pytest.mark.parametrize("damage", ["flipped", "cut short", "gone", "swapped"])
def test_a_damaged_snapshot_is_passed_over(damage: str) -> None:
    """Whichever object of a snapshot is damaged, the view is right, and says which one it was."""
    scene = Scene()

    async def play() -> None:
        digest = await three_snapshots(scene)
        contents = dict(scene.store.contents())
        for name in [*named(scene, ManifestKey), *named(scene, ChunkKey)]:
            data = contents[name]
            other = next(each for each in contents if type(parse_key(each)) is type(parse_key(name)) and each != name)
            replaced = {
                "flipped": data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
                "cut short": data[:-1],
                "gone": None,
                "swapped": contents[other],
            }[damage]
            scene.forget(name)
            if replaced is not None:
                await scene.world.create(name, replaced)
            async with scene.machine(name).open(read_only=True) as log, View.open(log, Things()) as view:
                assert view.digest(pending=True) == digest
                assert all(isinstance(error, Corrupt | Missing) for error in view.damage)
                listed = name in str(view.damage)
                assert listed or name not in (named(scene, ManifestKey)[-1], named(scene, ChunkKey)[-1])
            if replaced is not None:
                scene.forget(name)
            await scene.world.create(name, data)

    scene.loop.run_until_complete(play())
    scene.loop.close()


@directed
async def test_without_any_whole_snapshot_all_is_read(scene: Scene) -> None:
    """All of them damaged: the view starts from the beginning, and names each."""
    digest = await three_snapshots(scene)
    for name in named(scene, ManifestKey):
        scene.forget(name)
        await scene.world.create(name, b"nonsense")
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        assert view.digest(pending=True) == digest
        assert len(view.damage) == 3


@directed
async def test_an_interrupted_snapshot_is_none(scene: Scene) -> None:
    """The manifest cannot be written: nothing is listed, and the next snapshot is right."""
    web = scene.machine("web")
    async with web.open(quick()) as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append_many([thing(1), thing(2)])
        web.script.on("create", "/manifest/", refuse, times=100)
        with pytest.raises(Unavailable):
            await view.snapshot()
        assert named(scene, ManifestKey) == []
        web.script.clear()
        await writer.append_many([thing(3)])
        manifest = await view.snapshot()
        assert manifest.rows == 3
        assert f"{manifest.rows_digest:064x}" == view.digest()
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        assert len(view) == 3


@directed
async def test_a_cut_that_came_to_nothing_is_not_forgotten(scene: Scene) -> None:
    """Regression (seed 20072): given up after its cut, a snapshot hid from the next one what had changed before."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append_many([thing(1), thing(2)])
        await view.snapshot()
        await view.settled(await writer.append(thing(1, changed=True)))
        assert view._state.take_since() is not None  # as a cut does
        await writer.append(thing(3))
        manifest = await view.snapshot()
        assert f"{manifest.rows_digest:064x}" == view.digest()
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        assert view.get("t-0001") == {"n": 1, "changed": True}


@directed
async def test_a_snapshot_built_on_anothers_compares_with_it(scene: Scene) -> None:
    """Two processes take turns: each builds on the other's last one, and keeps its chunks."""
    async with (
        scene.machine("one").open(quick()) as one_log,
        one_log.writer("one") as writer,
        scene.machine("two").open(quick()) as two_log,
        View.open(one_log, Things()) as one,
        View.open(two_log, Things()) as two,
    ):
        manifests = []
        for turn in range(6):
            await writer.append_many([thing(turn), thing(turn % 2 + 100, turn=turn)])
            view = (one, two)[turn % 2]
            manifests.append(await view.snapshot())
            assert f"{manifests[-1].rows_digest:064x}" == view.digest()
        assert [manifest.rows for manifest in manifests] == [2, 4, 5, 6, 7, 8]


@directed
async def test_registered_once_and_by_writers_only(scene: Scene) -> None:
    """The first opening records the projection, later ones do not, and a read-only log writes nothing."""
    async with scene.machine("reader").open(create=True) as log:
        pass
    async with scene.machine("reader-2").open(read_only=True) as log, View.open(log, Things()):
        assert named(scene, RegistrationKey) == []
    for name in ("web", "web-2"):
        async with scene.machine(name).open() as log, View.open(log, Things()), View.open(log, Diary()):
            assert len(named(scene, RegistrationKey)) == 2


class ThingsTwo(Things):
    version = 2


@directed
async def test_a_version_is_built_beside_the_old_one_which_is_then_dropped(scene: Scene) -> None:
    """Both have snapshots of their own; dropped, the old one is built on no more, until somebody opens it again."""
    async with (
        scene.machine("web").open(quick()) as log,
        log.writer("web") as writer,
        View.open(log, Things()) as old,
    ):
        await writer.append(thing(1))
        first = await old.snapshot()
        async with View.open(log, ThingsTwo()) as new:
            second = await new.snapshot()
            assert new.digest() == old.digest()
            assert {first.key, second.key} == set(await log.snapshots.newest())
            assert await drop(log, Things())
            assert not await drop(log, Things())
            assert await log.snapshots.newest() == (second.key,)
        async with View.open(log, Things()):
            assert {first.key, second.key} == set(await log.snapshots.newest())
    assert len(named(scene, RegistrationKey)) == 4
    async with scene.machine("reader").open(read_only=True) as log:
        with pytest.raises(InvalidArgument, match="read-only"):
            await drop(log, Things())


@directed
async def test_a_read_only_log_takes_no_snapshot(scene: Scene) -> None:
    """The refusal comes before anything is written, and says what to do."""
    await three_snapshots(scene)
    async with scene.machine("reader").open(read_only=True) as log, View.open(log, Things()) as view:
        with pytest.raises(InvalidArgument, match="read-only"):
            await view.snapshot()


@directed
async def test_verdicts_outlive_a_restart_for_ten_minutes(scene: Scene) -> None:
    """A view that began at a snapshot knows which events were rejected shortly before it, and admits what it forgot."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        old = await writer.append_many([Event("Thing", "k", "done", {"n": 1}), Event("Thing", "k", "done", {"n": 6})])
        await asyncio.sleep(700)
        late = await writer.append_many([Event("Thing", "k", "done", {"n": 2}), Event("Thing", "k", "done", {"n": 7})])
        async with View.open(log, Diary()) as view:
            assert [verdict.reason for verdict in (await view.settled(old)).values()] == ["twice in a row"]
            await view.snapshot()
    async with scene.machine("restarted").open(quick()) as log, View.open(log, Diary()) as view:
        verdicts = await view.settled(late)
        assert {seq: verdict.kind for seq, verdict in verdicts.items()} == {late.first_seq + 1: "rejected"}
        with pytest.raises(Trimmed, match="later snapshot"):
            await view.settled(old)


@directed
async def test_a_view_never_goes_back_by_starting_from_a_snapshot(scene: Scene) -> None:
    """P9: its watermark is the snapshot's at least, and what it waits for is there."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        async with View.open(log, Things()) as view:
            receipt = await writer.append(thing(1))
            manifest = await view.snapshot()
        after = await writer.append(thing(2))
        async with View.open(log, Things()) as view:
            assert view.watermark >= manifest.stamp
            await view.wait_for(receipt, timeout=5)
            await view.wait_for(after, timeout=5)
            assert sorted(view.keys()) == ["t-0001", "t-0002"]
