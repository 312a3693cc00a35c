"""`copy --accept-loss`: whatever is gone, the copy opens, reads, seals and checks clean, and says what it has not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore
from logstore import (
    AlreadyExists,
    Corrupt,
    Event,
    Finding,
    InvalidArgument,
    LimitExceeded,
    LogSettings,
    NotFound,
    Trimmed,
    Unavailable,
    WriterSettings,
    copy_store,
)
from logstore.check import check
from logstore.entry import Begin, Body, Entry, Exclusive, Open, Tick, encode_entry, next_entry
from logstore.event import EventEncoder
from logstore.filestore import MemoryStore
from logstore.identity import Identity, encode_identity
from logstore.keys import (
    EntryKey,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    entry_key,
    parse_key,
    registration_key,
    segment_key,
)
from logstore.named import decode_named
from logstore.registration import Registration, encode_registration
from logstore.segment import SegmentEncoder, decode_segment
from projections import Projection, View
from tests.scene import Scene, die, directed, quick
from tests.simulation.views import Chain
from tests.simulation.world import World
from tests.test_backup import contents
from tests.test_snapshots import Things

Contents = Mapping[str, bytes]
Place = tuple[int, int, int, int, str]
THINGS = Things()


# Logs to damage ----------------------------------------------------------------------------------


def thing(number: int) -> Event:
    return Event("Thing", f"t-{number:04d}", "changed", {"id": str(number)})


async def live(scene: Scene, name: str, first: int) -> None:
    """A process that appends, takes a snapshot, and ends a chapter."""
    async with scene.machine(name).open(quick()) as log, log.writer(name) as writer, View.open(log, Things()) as view:
        for number in range(first, first + 4):
            await writer.append_many([thing(number), thing(number % 3)])
        await view.snapshot()
        await log.close_chapter()
        await writer.append(thing(first + 100))


def whole_log(retired: int = 0) -> Contents:
    """What `play_log` leaves."""
    return play_log(retired)


@cache
def play_log(retired: int) -> Contents:
    """Three chapters, four writers, snapshots in two of them, ticks that name slots, a session left open."""
    found: dict[str, bytes] = {}

    @directed
    async def play(scene: Scene) -> None:
        for name, first in (("web", 0), ("api", 20)):
            await live(scene, name, first)
        await die(scene.machine("dead"), "x", "y", "z")
        async with scene.machine("other").open(quick()) as log, log.writer("other") as writer:
            for number in range(40, 44):
                await writer.append(thing(number))
            await log.settled(await writer.append(thing(44)), timeout=600)
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


async def rescued(objects: Contents, projection: Projection = THINGS) -> tuple[MemoryStore, list[Finding]]:
    """A copy without what is lost, which keeps all that it promises, and what was said."""
    target, said = MemoryStore(), list[Finding]()
    before = dict(objects)
    source = await store_of(objects)
    await copy_store(source, target, accept_loss=True, on_loss=said.append, rng=random.Random(0))
    assert await contents(source) == before
    await require_sound(target, said, projection)
    return target, said


async def require_sound(store: MemoryStore, said: list[Finding], projection: Projection) -> None:
    """It checks clean; a view from a snapshot is one from the beginning; it can be sealed, written to and read on."""
    assert [str(finding) async for finding in check(store) if finding.severity == "damage"] == []
    objects = await contents(store)
    if [finding for finding in said if "cannot be opened" in finding.next_step]:
        async with logstore.open(store, read_only=True) as log:
            with pytest.raises(Trimmed):
                await View.open(log, projection).__aenter__()
        return
    async with logstore.open(store, read_only=True) as log:
        if names(RetiredKey, objects):
            with pytest.raises(Trimmed):
                await anext(aiter(log.read()))
        else:
            assert [(*event.order, event.key) async for event in log.read()] == places(await contents(store))
        async with View.open(log, projection) as view:
            assert view.damage == []
            digest, rows = view.digest(pending=True), {key: dict(view.get(key) or {}) for key in view.find().keys}
    bare = MemoryStore()
    for key, data in objects.items():
        if not key.startswith(("snapshots/", "chunks/")):
            await bare.create(key, data)
    if not names(RetiredKey, objects):
        async with logstore.open(bare, read_only=True) as log, View.open(log, projection) as view:
            assert {key: dict(view.get(key) or {}) for key in view.find().keys} == rows
            assert view.digest(pending=True) == digest
    settings = LogSettings(writer=WriterSettings(linger_ms=0))
    async with (
        logstore.open(store, settings=settings) as log,
        log.writer("web") as writer,
        View.open(log, projection) as view,
    ):
        await view.wait_for(await writer.append(thing(7_000)))
    assert places(await contents(store))[-1][4] == "t-7000"


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


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 60))])
def test_worlds_may_lose_anything(seed: int) -> None:
    """Whole systems, with crashes, seals and snapshots: undamaged they lose nothing; damaged they stay sound."""
    world, rng = World(seed), random.Random(seed)
    try:
        with patch.multiple("projections.layout", CHUNK_BYTES_MAX=30, SMALL_BYTES=10, FREE_ROWS=1):
            assert world.live() == []
        objects = world.store.contents()
    finally:
        world.close()
    before = places(objects)
    for damages in (0, 1, 1, 2, 3, 8, 20):
        damaged = dict(objects)
        for name in rng.sample(sorted(objects), min(damages, len(objects))):
            if rng.random() < 0.5:
                del damaged[name]
            else:
                where = rng.randrange(len(damaged[name]))
                damaged[name] = damaged[name][:where] + bytes([damaged[name][where] ^ 8]) + damaged[name][where + 1 :]
        store, said = asyncio.run(rescued(damaged, Chain()))
        kept = [place for place in places(asyncio.run(contents(store))) if place[4] != "t-7000"]
        assert kept == [place for place in before if place in set(kept)]
        if not damages:
            assert (kept, said) == (before, [])


# Case by case ------------------------------------------------------------------------------------


def slot_names(writer: str, chapter: int, session: int) -> list[str]:
    """A session's slots that are there."""
    prefix = segment_key(writer, chapter, session, 0).rpartition("/")[0] + "/"
    return [name for name in names(SegmentKey, whole_log()) if name.startswith(prefix)]


async def test_a_session_ends_below_its_damage(subtests: pytest.Subtests) -> None:
    """It keeps what was below, gets the final that a sealer would make, and one finding counts what lay above."""
    web = slot_names("web", 0, 1)
    for lost in (1, 2):
        with subtests.test(lost=lost):
            objects = {name: data for name, data in whole_log().items() if name != web[lost]}
            store, said = await rescued(objects)
            (finding,) = [finding for finding in said if finding.key == web[lost]]
            slots, events = len(web) - lost, 2 * (4 - lost)
            assert f"{slots} slots, {events} events; kept: {lost} slots, {2 * lost} events" in finding.what
            key = parse_key(web[lost])
            assert isinstance(key, SegmentKey)
            final = decode_segment(key, (await contents(store))[web[lost]])
            assert (final.final, final.sealed, final.acknowledged) == (True, True, lost)
            assert web[lost + 1] not in await contents(store)


async def test_a_tick_names_no_more_than_is_kept() -> None:
    """One that witnessed the lost slot is written anew, and with it what follows; events keep their places."""
    objects = dict(whole_log())
    ticks = {name: decode_entry_named(name, objects) for name in names(EntryKey, objects)}
    name, tick = next((name, each) for name, each in ticks.items() if isinstance(each.body, Tick) and each.body.slots)
    assert isinstance(tick.body, Tick)
    chapter, number, named = tick.body.slots[0]
    opened = ticks[entry_key(chapter, number)].body
    assert isinstance(opened, Open)
    del objects[segment_key(opened.writer, chapter, number, named - 1)]
    copied = await contents((await rescued(objects))[0])
    made = decode_entry_named(name, copied)
    assert isinstance(made.body, Tick)
    assert (chapter, number, named) not in made.body.slots
    assert (made.stamp, made.nonce) == (tick.stamp, tick.nonce)


def decode_entry_named(name: str, objects: Contents) -> Entry:
    entry = decode_named(name, objects[name])
    assert isinstance(entry, Entry)
    return entry


async def test_an_entry_of_another_list_is_none(subtests: pytest.Subtests) -> None:
    """It decodes, and attaches to neither neighbour: it is put in place anew, and no session is lost with it."""
    objects = whole_log()
    for name in names(EntryKey, objects)[1:]:
        with subtests.test(name):
            entry = decode_entry_named(name, objects)
            data, _ = encode_entry(replace(entry, previous=bytes(32), body=Tick() if entry.number else entry.body))
            store, said = await rescued({**objects, name: data})
            assert [finding.key for finding in said if finding.key == name]
            assert places(await contents(store))[:-1] == places(objects)


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
@pytest.mark.parametrize("with_segments", [True, False])
async def test_exclusive_sessions_stay_exclusive(lost: int, with_segments: bool) -> None:
    """One whose entry is lost is known by those behind it, or has left nothing; its successors stay valid."""
    made = encode_identity(Identity(bytes(16), 0, 86_400_000, "full", None))
    objects, previous, kinds = {"store": made}, None, ("Lock",)
    bodies: list[Body] = [Begin()]
    bodies += [Open(f"leader-{n}", 1_000, 2_000, 4, Exclusive(kinds, (0, n - 1) if n > 1 else None)) for n in (1, 2, 3)]
    for stamp, body in enumerate([*bodies, Tick()], start=1):
        data, previous = encode_entry(next_entry(previous, made[-32:], body, stamp * 1_000, bytes(16)))
        objects[entry_key(*previous.address)] = data
        if isinstance(body, Open) and (with_segments or previous.number != lost):
            segment, _ = SegmentEncoder().encode(
                SegmentKey(body.writer, *previous.address, 0),
                [EventEncoder().encode(thing(stamp))],
                first_sequence=0,
                stamp=previous.stamp + 1,
                acknowledged=0,
                previous=previous.digest,
            )
            objects[segment_key(body.writer, *previous.address, 0)] = segment
    del objects[entry_key(0, lost)]
    store, _ = await rescued(objects)
    copied = await contents(store)
    expected: int | None = None
    for number in (1, 2, 3):
        entry = decode_entry_named(entry_key(0, number), copied)
        if number != lost or with_segments:
            assert isinstance(entry.body, Open)
            assert entry.body.exclusive == Exclusive(kinds, None if expected is None else (0, expected))
            assert entry.valid
            expected = number
        else:
            assert isinstance(entry.body, Tick)
    held = [place for place in places(copied) if place[4] != "t-7000"]
    assert [place[2] for place in held] == [number for number in (1, 2, 3) if with_segments or number != lost]


async def test_a_session_of_which_only_a_snapshot_knows_spoils_it(subtests: pytest.Subtests) -> None:
    """All its slots are gone, its entry too or not: the snapshots that hold its rows are left out, and said."""
    objects = whole_log()
    for entries in ([], [entry_key(1, 1)]):
        with subtests.test(entries=entries):
            gone = {*slot_names("web", 1, 1), *entries}
            store, said = await rescued({name: data for name, data in objects.items() if name not in gone})
            later = [name for name in names(ManifestKey, objects) if "/manifest/0000000001-" in name]
            assert later
            assert {finding.key for finding in said} == {*later, *entries}
            assert not set(later) & set(await contents(store))


async def test_a_snapshot_within_a_chapter_of_which_nothing_is_left_leads_nowhere() -> None:
    """Its record and the later snapshot are gone: whether all of it was read nobody knows, so no view starts there."""
    objects = whole_log(1)
    gone = {"retired/0000000000", *(name for name in objects if name.startswith("chunks/0000000001-"))}
    _, said = await rescued({name: data for name, data in objects.items() if name not in gone})
    assert [finding.key for finding in said if finding.next_step == "its views cannot be opened: Trimmed"]


async def test_a_final_over_what_was_stored_is_a_loss() -> None:
    """A sealer was told that a slot was absent, which was lost: the rows of a snapshot may have it."""
    web, objects = slot_names("web", 0, 1), dict(whole_log())
    key = parse_key(web[2])
    assert isinstance(key, SegmentKey)
    before = decode_segment(replace(key, slot=1), objects[web[1]])
    objects[web[2]], _ = SegmentEncoder().encode(
        key,
        (),
        first_sequence=before.first_sequence + before.count,
        stamp=before.stamp + 1,
        acknowledged=2,
        previous=before.digest,
        final=True,
        sealed=True,
    )
    store, said = await rescued(objects)
    (finding,) = [finding for finding in said if finding.key == web[2]]
    assert "a final stands there, and" in finding.what
    assert names(ManifestKey, await contents(store)) == []


async def test_what_has_lost_something_is_no_copy_to_go_on_with() -> None:
    """Neither by an ordinary copy nor by another rescue; from it an ordinary copy can be made."""
    objects = dict(whole_log())
    del objects[slot_names("web", 0, 1)[1]]
    source, target = await store_of(objects), MemoryStore()
    await copy_store(source, target, accept_loss=True, rng=random.Random(0))
    before = await contents(target)
    with pytest.raises(InvalidArgument, match="no copy of this source"):
        await copy_store(await store_of(whole_log()), target, rng=random.Random(1))
    with pytest.raises(InvalidArgument, match=r"empty place only key=.*; name another"):
        await copy_store(source, target, accept_loss=True, rng=random.Random(1))
    assert await contents(target) == before
    await copy_store(target, MemoryStore(), rng=random.Random(2))


async def test_there_must_be_something_left() -> None:
    """An empty place is no log to rescue, and nothing is written then; one with `store` alone is an empty log."""
    target = MemoryStore()
    with pytest.raises(NotFound, match="no log"):
        await copy_store(MemoryStore(), target, accept_loss=True)
    assert await contents(target) == {}
    _, said = await rescued({"store": whole_log()["store"]})
    assert said == []


async def test_a_foreign_number_far_away_is_refused() -> None:
    """What would have millions of entries made anew is no loss but a foreign object; it is named."""
    name = slot_names("web", 0, 1)[0]
    far = segment_key("web", 2, 9_999_999, 0)
    objects = {**whole_log(), far: whole_log()[name]}
    with pytest.raises(LimitExceeded, match=f"key={entry_key(2, 9_999_999)}"):
        await copy_store(await store_of(objects), MemoryStore(), accept_loss=True)


async def test_a_chapter_retired_meanwhile_is_no_loss() -> None:
    """The collector was faster than the copy: it has no `store`, and is to be made again."""
    source = await store_of(whole_log())

    class Collecting(MemoryStore):
        async def create(self, key: str, data: bytes) -> int | None:
            if key.startswith("log/"):
                with suppress(AlreadyExists):
                    await source.create("retired/0000000000", whole_log(1)["retired/0000000000"])
            return await super().create(key, data)

    target = Collecting()
    with pytest.raises(Unavailable, match="retired while"):
        await copy_store(source, target, accept_loss=True)
    assert "store" not in await contents(target)


@pytest.mark.parametrize("accept_loss", [False, True])
async def test_a_copy_may_have_another_history(accept_loss: bool) -> None:
    """As asked for; one that is continued keeps its own, and says so to who wants another."""
    source, target = await store_of(whole_log()), MemoryStore()
    await copy_store(source, target, history="drop", accept_loss=accept_loss)
    async with logstore.open(target, read_only=True) as log:
        assert log.identity.history == "drop"
    await copy_store(source, target, history="drop")
    await copy_store(source, target)
    with pytest.raises(InvalidArgument, match="history=drop wanted=archive"):
        await copy_store(source, target, history="archive")
    with pytest.raises(InvalidArgument, match="no such history policy history='some'"):
        await copy_store(source, MemoryStore(), history="some")


async def test_damaged_snapshots_end_an_ordinary_copy_and_no_rescue() -> None:
    """Ordinary: Corrupt, with the name. With loss accepted the log is whole, and a damaged manifest left out."""
    name = names(ManifestKey, whole_log())[0]
    objects = {**whole_log(), name: b"nonsense"}
    with pytest.raises(Corrupt, match=name):
        await copy_store(await store_of(objects), MemoryStore())
    store, said = await rescued(objects)
    assert [finding.key for finding in said] == [name]
    assert name not in await contents(store)
    assert places(await contents(store))[:-1] == places(objects)


async def test_registrations_are_numbered_anew() -> None:
    """One in the middle is lost: the newest still counts, and the rest is dense."""
    objects = dict(whole_log())
    (first,) = names(RegistrationKey, objects)
    key = parse_key(first)
    assert isinstance(key, RegistrationKey)
    registration = decode_named(first, objects[first])
    assert isinstance(registration, Registration)
    for number in (1, 2):
        name = registration_key(RegistrationKey(key.fold, number))
        objects[name] = encode_registration(number, replace(registration, registered=number == 2))
    del objects[registration_key(RegistrationKey(key.fold, 1))]
    copied = await contents((await rescued(objects))[0])
    last = names(RegistrationKey, copied)[-1]
    assert last == registration_key(RegistrationKey(key.fold, 1))
    newest = decode_named(last, copied[last])
    assert isinstance(newest, Registration)
    assert newest.registered
