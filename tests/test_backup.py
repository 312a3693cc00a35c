"""Copies: everything is in them, whenever they are broken off and continued, and nobody takes one for the original."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

import logstore
from logstore import InvalidArgument, Log, Missing, StaleStore, copy_store
from logstore.check import check
from logstore.errors import Corrupt, NotFound, Unavailable
from logstore.filestore import MemoryStore
from logstore.keys import ChunkKey, EntryKey, ManifestKey, SegmentKey, parse_key
from projections import View
from tests.scene import Scene, directed, quick, refuse
from tests.test_snapshots import Things, thing


async def digest(log: Log) -> str:
    async with View.open(log, Things()) as view:
        assert view.damage == []
        return view.digest(pending=True)


async def events(log: Log) -> list[tuple[str, int]]:
    return [(event.key, event.stamp) async for event in log.read()]


async def live(scene: Scene, name: str, first: int, *, snapshots: bool = True) -> None:
    """A process that appends, takes a snapshot, and ends a chapter."""
    async with scene.machine(name).open(quick()) as log, log.writer(name) as writer, View.open(log, Things()) as view:
        for number in range(first, first + 4):
            await writer.append_many([thing(number), thing(number % 3)])
        if snapshots:
            await view.snapshot()
        await log.close_chapter()
        await writer.append(thing(first + 100))


async def contents(store: MemoryStore) -> dict[str, bytes]:
    return {listed.key: (await store.get(listed.key)).data async for listed in store.list("")}


@directed
async def test_a_copy_holds_everything_under_the_same_names(scene: Scene) -> None:
    """Byte for byte but for who it is; it opens, checks clean, and its views have the same digest."""
    await live(scene, "web", 0)
    target = MemoryStore()
    id_ = await copy_store(scene.machine("copier").face, target, rng=random.Random(0))
    source, copied = scene.store.contents(), await contents(target)
    assert {key for key in source if source[key] != copied.get(key)} == {"store"}
    assert copied.keys() == source.keys()
    assert [finding async for finding in check(target)] == []
    async with (
        logstore.open(target, read_only=True) as two,
        scene.machine("reader").open(read_only=True) as one,
    ):
        assert (two.identity.ancestor, two.identity.id) == (one.identity.id, id_)
        assert await events(two) == await events(one)
        assert await digest(two) == await digest(one)


@directed
async def test_a_copy_is_continued(scene: Scene) -> None:
    """What was there is not fetched again; a copy of the copy goes on likewise, and is told from both."""
    first, second = MemoryStore(), MemoryStore()
    for turn in range(3):
        await live(scene, f"web-{turn}", turn * 10)
        copier = scene.machine(f"copier-{turn}")
        known = set(await contents(first))
        await copy_store(copier.script, first, rng=random.Random(turn))
        fetched = {key for verb, key in copier.script.asked if verb == "get"}
        newest = max((key for key in known if key.startswith("roster/")), default="")
        assert fetched & known <= {"store", newest}
        await copy_store(first, second, rng=random.Random(turn + 10))
    assert [finding async for finding in check(second)] == []
    async with (
        scene.machine("reader").open(read_only=True) as one,
        logstore.open(first, read_only=True) as two,
        logstore.open(second, read_only=True) as three,
    ):
        assert await digest(one) == await digest(two) == await digest(three)
        assert len({log.identity.id for log in (one, two, three)}) == 3
        assert one.identity.root == two.identity.root == three.identity.root


@directed
async def test_there_and_back_and_an_old_position_is_refused(scene: Scene) -> None:
    """Restored from a copy the log goes on; who held a position in the old one is told, and reads anew."""
    await live(scene, "web", 0)
    backup, restored = MemoryStore(), MemoryStore()
    async with scene.machine("reader").open(read_only=True) as log:
        before, reader = await digest(log), log.read()
        async for _ in reader:
            pass
        position = reader.position
    await copy_store(scene.machine("copier").face, backup, rng=random.Random(0))
    await copy_store(backup, restored, rng=random.Random(1))
    async with logstore.open(restored) as log, log.writer("web") as writer:
        assert await digest(log) == before
        with pytest.raises(StaleStore):
            async for _ in log.read(after=position):
                pass
        await writer.append(thing(500))
        assert (await events(log))[-1][0] == "t-0500"
    assert [finding async for finding in check(restored) if finding.severity == "damage"] == []


@directed
async def test_broken_off_anywhere_it_goes_on(scene: Scene) -> None:
    """After every number of creations: the target cannot be opened as a log, and the next copy makes it whole."""
    await live(scene, "web", 0)
    source = scene.store.contents()
    for creations in range(len(source)):
        target = Limited(creations)
        with pytest.raises(OSError, match="full"):
            await copy_store(scene.machine(f"copier-{creations}").face, target, rng=random.Random(0))
        with pytest.raises(Missing if creations else NotFound):
            async with logstore.open(target, create=creations > 0):
                pass
        target.left = len(source)
        await copy_store(scene.machine(f"second-{creations}").face, target, rng=random.Random(1))
        assert {key for key, data in (await contents(target)).items() if source[key] != data} == {"store"}


class Limited(MemoryStore):
    """A store that is full after so many creations, scratch not counted."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    async def create(self, key: str, data: bytes) -> int | None:
        if not key.startswith("probe/"):
            if not self.left:
                raise OSError("full")
            self.left -= 1
        return await super().create(key, data)


@directed
async def test_a_copy_is_whole_for_its_readers_while_it_is_continued(scene: Scene) -> None:
    """After every single creation a reader of the copy sees a beginning of the log, and no damage."""
    await live(scene, "web", 0)
    target = Watched()
    await copy_store(scene.machine("copier").face, target, rng=random.Random(0))
    await live(scene, "other", 50)
    async with scene.machine("reader").open(read_only=True) as log:
        whole = await events(log)
    target.on_created = lambda: look(target, whole)
    await copy_store(scene.machine("copier-2").face, target, rng=random.Random(0))
    assert target.looks > 10


class Watched(MemoryStore):
    """A store at which somebody looks after each creation."""

    def __init__(self) -> None:
        super().__init__()
        self.on_created: Callable[[], Awaitable[None]] | None = None
        self.looks = 0

    async def create(self, key: str, data: bytes) -> int | None:
        now_ms = await super().create(key, data)
        if self.on_created is not None:
            self.looks += 1
            await self.on_created()
        return now_ms


async def look(store: MemoryStore, whole: list[tuple[str, int]]) -> None:
    async with logstore.open(store, read_only=True) as log:
        seen = await events(log)
        assert seen == whole[: len(seen)]
        await digest(log)


@directed
async def test_a_copy_that_was_written_to_is_not_continued(scene: Scene) -> None:
    """By a writer, whether the source went on or not; nothing is created in it then."""
    await live(scene, "web", 0, snapshots=False)
    target = MemoryStore()
    await copy_store(scene.machine("copier").face, target, rng=random.Random(0))
    async with logstore.open(target) as log, log.writer("stranger") as writer:
        await writer.append(thing(1))
    before = await contents(target)
    with pytest.raises(InvalidArgument, match="written to"):
        await copy_store(scene.machine("copier-2").face, target, rng=random.Random(0))
    await live(scene, "other", 50)
    with pytest.raises(InvalidArgument, match="written to"):
        await copy_store(scene.machine("copier-3").face, target, rng=random.Random(0))
    assert await contents(target) == before


@directed
async def test_another_store_is_no_target(scene: Scene) -> None:
    """A log of its own, the source itself, a copy of another: refused before anything is created."""
    await live(scene, "web", 0)
    another = MemoryStore()
    async with logstore.open(another) as log, log.writer("web") as writer:
        await writer.append(thing(1))
    before = await contents(another)
    source = scene.machine("copier").face
    for target in (another, source):
        with pytest.raises(InvalidArgument, match="no copy of this source"):
            await copy_store(source, target, rng=random.Random(0))
    assert await contents(another) == before
    with pytest.raises(Missing, match="key=store"):
        await copy_store(MemoryStore(), MemoryStore(), rng=random.Random(0))


@directed
async def test_damage_of_the_source_is_not_copied(scene: Scene) -> None:
    """Any kind of object, flipped: Corrupt with its name, and it is not in the target."""
    await live(scene, "web", 0)
    for kind in (EntryKey, SegmentKey, ChunkKey, ManifestKey):
        name = next(name for name in scene.store.contents() if isinstance(parse_key(name), kind))
        scene.store.flip(name, 300)
        target = MemoryStore()
        with pytest.raises(Corrupt, match=name):
            await copy_store(scene.machine(f"copier of {kind.__name__}").face, target, rng=random.Random(0))
        assert name not in await contents(target)
        scene.store.flip(name, 300)


@directed
async def test_a_source_in_use_is_copied_as_it_was_at_some_moment(scene: Scene) -> None:
    """Writers go on while it is listed and fetched: the copy has a beginning of each session, no damage."""
    target, copier = MemoryStore(), scene.machine("copier")
    await live(scene, "web", 0)
    writing = [asyncio.create_task(live(scene, name, 50)) for name in ("a", "b", "c")]
    for turn in range(8):
        await copy_store(copier.script, target, rng=random.Random(turn))
        assert [finding for finding in [f async for f in check(target)] if finding.severity == "damage"] == []
        await asyncio.sleep(0.2)
    await asyncio.gather(*writing)
    await copy_store(copier.script, target, rng=random.Random(99))
    async with logstore.open(target, read_only=True) as two, scene.machine("reader").open(read_only=True) as one:
        assert await events(two) == await events(one)
        assert await digest(two) == await digest(one)


@directed
async def test_lost_answers_and_refusals_are_overcome(scene: Scene) -> None:
    """A creation whose answer is lost is not done twice, and what cannot be reached is said, not skipped."""
    await live(scene, "web", 0)
    source = scene.machine("copier")
    async with source.open(read_only=True) as log:
        before = await events(log)
    source.script.on("get", "log/", refuse, times=3)
    memory = Lossy(lose_every=3)
    await copy_store(source.script, memory, rng=random.Random(0))
    async with logstore.open(memory, read_only=True) as log:
        assert await events(log) == before
    source.script.on("get", "log/", refuse, times=10_000)
    with pytest.raises(Unavailable):
        await copy_store(source.script, MemoryStore(), rng=random.Random(0))


class Lossy(MemoryStore):
    """A store that loses the answers to some creations."""

    def __init__(self, lose_every: int) -> None:
        super().__init__()
        self._every = lose_every
        self._count = 0

    async def create(self, key: str, data: bytes) -> int | None:
        now_ms = await super().create(key, data)
        self._count += 1
        if self._count % self._every == 0 and not key.startswith("probe/"):
            raise Unavailable("the answer is lost")
        return now_ms
