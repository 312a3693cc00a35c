"""`copy --accept-loss`: whatever is gone, the copy opens, reads, seals and checks clean, and says what it has not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore
from logstore import Event, Finding, InvalidArgument, LogSettings, NotFound, Trimmed, WriterSettings, copy_store
from logstore.check import check
from logstore.entry import Exclusive, Open, encode_entry, next_entry
from logstore.filestore import MemoryStore
from logstore.keys import (
    EntryKey,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    entry_key,
    parse_key,
    segment_key,
)
from logstore.manifest import decode_manifest
from logstore.named import decode_named
from logstore.segment import Segment, SegmentEncoder, decode_segment
from projections import View
from tests.scene import Scene, die, directed, quick
from tests.test_backup import contents
from tests.test_snapshots import Things

Contents = Mapping[str, bytes]
Place = tuple[int, int, int, int, str]


# Logs to damage ----------------------------------------------------------------------------------


def thing(number: int) -> Event:
    return Event("Thing", f"t-{number:04d}", "changed", {"id": number})


async def live(scene: Scene, name: str, first: int) -> None:
    """A process that appends, takes a snapshot, and ends a chapter."""
    async with scene.machine(name).open(quick()) as log, log.writer(name) as writer, View.open(log, Things()) as view:
        for number in range(first, first + 4):
            await writer.append_many([thing(number), thing(number % 3)])
        await view.snapshot()
        await log.close_chapter()
        await writer.append(thing(first + 100))


@cache
def whole_log(retired: int = 0) -> Contents:
    """Three chapters, four writers, snapshots in two of them, ticks that name slots, a session left open."""
    found: dict[str, bytes] = {}

    @directed
    async def play(scene: Scene) -> None:
        for name, first in (("web", 0), ("api", 20)):
            await live(scene, name, first)
        await die(scene.machine("dead"), "x", "y", "z")
        async with scene.machine("other").open(quick()) as log, log.writer("other") as writer:
            for number in range(40, 44):
                receipt = await writer.append(thing(number))
            await log.settled(receipt, timeout=600)
            await writer.append(thing(90))
        for chapter in range(retired):
            await scene.retire(chapter)
            scene.collect(chapter)
        found.update(scene.store.contents())

    play()
    return found


@pytest.fixture(autouse=True, scope="module")
def played() -> None:
    """Both logs, made before any other event loop runs."""
    assert whole_log(0).keys() > whole_log(1).keys() - {"retired/0000000000"}


async def store_of(objects: Contents) -> MemoryStore:
    store = MemoryStore()
    for key, data in objects.items():
        await store.create(key, data)
    return store


def names(kind: type, objects: Contents) -> list[str]:
    return [name for name in sorted(objects) if isinstance(parse_key(name), kind)]


def places(objects: Contents) -> list[Place]:
    """Where each event stands that readers of a log see, and its key; by FORMAT alone, retired chapters left out."""
    found: list[Place] = []
    ended: set[tuple[int, int]] = set()
    held: Counter[tuple[int, int]] = Counter()
    for name in names(SegmentKey, objects):
        key = parse_key(name)
        assert isinstance(key, SegmentKey)
        session = (key.chapter, key.session)
        if session not in ended and key.slot == held[session] and entry_key(*session) in objects:
            segment = decode_segment(key, objects[name])
            held[session] += 1
            ended |= {session} if segment.final else set()
            keys = segment.columns.keys if segment.columns else []
            found += [(segment.stamp, *session, segment.first_sequence + i, of) for i, of in enumerate(keys)]
    return sorted(found)


async def rescued(objects: Contents, **arguments: object) -> tuple[MemoryStore, list[Finding]]:
    """A copy without what is lost, which keeps all that it promises, and what was said."""
    target, said = MemoryStore(), list[Finding]()
    before = dict(objects)
    source = await store_of(objects)
    await copy_store(source, target, accept_loss=True, on_loss=said.append, rng=random.Random(0), **arguments)  # type: ignore[arg-type]
    assert await contents(source) == before
    await require_sound(target, said)
    return target, said


async def require_sound(store: MemoryStore, said: list[Finding]) -> None:
    """It checks clean; a view from a snapshot is one from the beginning; it can be sealed, written to and read on."""
    assert [str(finding) async for finding in check(store) if finding.severity == "damage"] == []
    objects = await contents(store)
    if [finding for finding in said if "cannot be opened" in finding.next_step]:
        async with logstore.open(store, read_only=True) as log:
            with pytest.raises(Trimmed):
                await View.open(log, Things()).__aenter__()
        return
    async with logstore.open(store, read_only=True) as log:
        if names(RetiredKey, objects):
            with pytest.raises(Trimmed):
                await anext(aiter(log.read()))
        else:
            assert [(*event.order, event.key) async for event in log.read()] == places(await contents(store))
        async with View.open(log, Things()) as view:
            assert view.damage == []
            digest, rows = view.digest(pending=True), {key: dict(view.get(key) or {}) for key in view.find().keys}
    bare = MemoryStore()
    for key, data in objects.items():
        if not key.startswith(("snapshots/", "chunks/")):
            await bare.create(key, data)
    if not names(RetiredKey, objects):
        async with logstore.open(bare, read_only=True) as log, View.open(log, Things()) as view:
            assert {key: dict(view.get(key) or {}) for key in view.find().keys} == rows
            assert view.digest(pending=True) == digest
    settings = LogSettings(writer=WriterSettings(linger_ms=0))
    async with logstore.open(store, settings=settings) as log, log.writer("web") as writer:
        async with View.open(log, Things()) as view:
            await view.wait_for(await writer.append(thing(7_000)))
            assert view.get("t-7000") == {"id": 7_000}


# Anything may be gone ----------------------------------------------------------------------------


@pytest.mark.parametrize("retired", [0, 1])
async def test_without_damage_it_is_a_copy_like_any_other(retired: int) -> None:
    """Byte for byte, names its ancestor, says nothing, and an ordinary copy goes on with it."""
    objects = whole_log(retired)
    source, target, said = await store_of(objects), MemoryStore(), list[Finding]()
    await copy_store(source, target, accept_loss=True, on_loss=said.append, rng=random.Random(0))
    assert said == []
    copied = await contents(target)
    assert {name for name in objects if objects[name] != copied.get(name)} == {"store"}
    await copy_store(source, target, rng=random.Random(1))


@pytest.mark.parametrize("retired", [0, 1])
@pytest.mark.parametrize("how", ["lost", "flipped"])
async def test_any_single_object_may_be_gone(how: str, retired: int) -> None:
    """Each object in turn: all events but those of one session from there on are kept, in the order that they had."""
    objects = whole_log(retired)
    before = places(objects)
    for name in objects:
        damaged = dict(objects)
        if how == "lost":
            del damaged[name]
        else:
            damaged[name] = damaged[name][:60] + bytes([damaged[name][60] ^ 1]) + damaged[name][61:]
        store, said = await rescued(damaged)
        kept = [place for place in places(await contents(store)) if place[4] != "t-7000"]
        assert kept == [place for place in before if place in set(kept)], name
        missing = [place for place in before if place not in set(kept)]
        key = parse_key(name)
        if isinstance(key, SegmentKey):
            assert {place[1:3] for place in missing} <= {(key.chapter, key.session)}, name
            if key.slot and how == "flipped":
                assert any(finding.key == name for finding in said), name
        else:
            assert missing == [], name
        assert said or how == "lost", name


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_objects_may_be_gone(data: st.DataObject) -> None:
    """Some lost, some flipped: what is kept is a beginning of each session, in the order that it had."""
    objects = dict(whole_log(data.draw(st.integers(0, 1))))
    before = places(objects)
    for name in data.draw(st.lists(st.sampled_from(sorted(objects)), max_size=8, unique=True)):
        where = data.draw(st.none() | st.integers(0, len(objects[name]) - 1))
        if where is None:
            del objects[name]
        else:
            objects[name] = objects[name][:where] + bytes([objects[name][where] ^ 4]) + objects[name][where + 1 :]
    store, _ = asyncio.run(rescued(objects))
    kept = [place for place in places(asyncio.run(contents(store))) if place[4] != "t-7000"]
    assert kept == [place for place in before if place in set(kept)]
    for session in {place[1:3] for place in kept}:
        sequences = [place[3] for place in kept if place[1:3] == session]
        assert sequences == list(range(len(sequences)))
