"""Retention: what is retired, when, and what is deleted then. docs/rfcs/0006-retention.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from logstore import Event, KeepSettings, Log, Reader, Trimmed
from logstore.errors import InvalidArgument, Missing
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    EntryKey,
    ManifestKey,
    PinKey,
    RetiredKey,
    SegmentKey,
    entry_key,
    parse_key,
    pin_key,
)
from logstore.pin import PinRecord, encode_pin
from logstore.retired import decode_retired
from projections import View, drop
from tests.scene import Gate, Machine, Scene, directed, quick
from tests.test_snapshots import Diary, Things, named, thing

GRACE_MS: Final = 40_000
GRACE_S: Final = GRACE_MS / 1000


@asynccontextmanager
async def opened(machine: Machine, history: str = "drop") -> AsyncIterator[Log]:
    async with machine.open(quick(), grace_ms=GRACE_MS, history=history) as log:
        yield log


async def live_a_day(scene: Scene, number: int, *, history: str = "drop", snapshots: int = 1) -> str:
    """A process that writes, snapshots and closes a chapter: what happens in a day. Returns the view's digest."""
    async with opened(scene.machine(f"day{number}"), history) as log, View.open(log, Things()) as view:
        async with log.writer("web") as writer:
            for i in range(3):
                await writer.append_many([named_thing(number, i), named_thing(100 * number + i, i)])
        await log.close_chapter()
        async with log.writer("web") as writer:
            await writer.append(named_thing(number + 50, 0))
        for _ in range(snapshots):
            await view.snapshot()
        return view.digest()


def named_thing(number: int, version: int) -> Event:
    return thing(number, id=f"{number}/{version}")


async def age(graces: float = 1) -> None:
    """Time passes."""
    await asyncio.sleep(graces * GRACE_S + 3)


async def keep(scene: Scene, name: str = "keeper", history: str = "drop") -> tuple[list[str], list[str]]:
    """One round: why chapters were retired, or not; and what was deleted."""
    async with opened(scene.machine(f"{name} at {scene.loop.time()}"), history) as log:
        keeper = log.keeper()
        retired = [f"{one.chapter} {'yes' if one.retired else 'no'}: {one.why}" for one in await keeper.retire()]
        return retired, [garbage.key async for garbage in keeper.collect()]


def of_chapter(scene: Scene, chapter: int) -> list[str]:
    """The names in the bucket that belong to a chapter."""
    keys = [(name, parse_key(name)) for name in scene.store.contents()]
    return [name for name, key in keys if isinstance(key, EntryKey | SegmentKey) and key.chapter == chapter]


@directed
async def test_a_chapter_goes_a_grace_after_it_was_retired(scene: Scene) -> None:
    """P11: covered by two snapshots a grace old it is retired; a grace later it is gone, and views are right."""
    digest = await live_a_day(scene, 1, snapshots=2)
    retired, collected = await keep(scene)
    assert retired == ["0 no: " + retired[0].split(": ", 1)[1]]
    assert "too few whole snapshots that are a grace old" in retired[0]
    await age()
    retired, collected = await keep(scene)
    assert retired[0].startswith("0 yes")
    assert "the newest" in retired[1]
    assert of_chapter(scene, 0), collected
    await age()
    _, collected = await keep(scene)
    assert of_chapter(scene, 0) == []
    assert sorted(name for name in collected if name.startswith(("log/", "roster/"))) == sorted(
        name for name in scene.store.ever() if getattr(parse_key(name), "chapter", None) == 0 and "retired" not in name
    )
    async with opened(scene.machine("reader")) as log:
        async with View.open(log, Things()) as view:
            assert (view.digest(), view.damage) == (digest, [])
        with pytest.raises(Trimmed, match="oldest"):
            _ = [event async for event in log.read()]


@directed
async def test_the_record_says_what_the_chapter_held(scene: Scene) -> None:
    """It is the record that the truth makes: slots below the first final, last stamps, the closed entry."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    await keep(scene)
    (name,) = named(scene, RetiredKey)
    made = decode_retired(0, scene.store.contents()[name])
    scene.forget(name)
    assert await scene.retire(0) == made


@pytest.mark.parametrize("history", ["full", "drop"])
def test_a_store_that_keeps_all_retires_nothing(history: str) -> None:
    """Only a store that says so at its making loses history; its snapshots are collected all the same."""

    @directed
    async def play(scene: Scene) -> None:
        for number in range(1, 5):
            await live_a_day(scene, number, history=history)
            await age()
        retired, _ = await keep(scene, history=history)
        assert (len(named(scene, RetiredKey)) > 0) == (history == "drop")
        assert ("history=full" in retired[-1]) == (history == "full")
        assert len(named(scene, ManifestKey)) == 2

    play()


@directed
async def test_what_keeps_a_chapter_is_said(scene: Scene) -> None:
    """No projection, one without snapshots, a pin, a session that has not ended: each holds it, and is named."""
    async with opened(scene.machine("web")) as log:
        assert "the newest" in (await log.keeper().retire())[-1].why
        async with log.writer("web") as writer:
            await writer.append(thing(1))
            await log.close_chapter()
            assert "no projection is registered" in (await log.keeper().retire())[-1].why
            async with View.open(log, Things()) as view:
                assert "projection=things" in (await log.keeper().retire())[-1].why
                for _ in range(2):
                    await view.snapshot()
            await age()
            async with log.pin("the auditor") as pin:
                assert pin.chapter == 0
                assert "owner='the auditor'" in (await log.keeper().retire())[-1].why
            (outcome, _) = await log.keeper().retire()
            assert outcome.retired


@directed
async def test_a_session_that_runs_on_keeps_its_chapter(scene: Scene) -> None:
    """A chapter is closed, and one of its sessions has not ended: it stays, and the session is named."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
        await log.close_chapter()
        async with opened(scene.machine("other")) as other_log, View.open(other_log, Things()) as view:
            running = asyncio.create_task(_write_on(writer, 130))
            for _ in range(2):
                await view.snapshot()
            await age()
            why = (await other_log.keeper().retire())[-1].why
            assert "a session has not ended writer=web session=0/1" in why or "does not hold all of it" in why
            running.cancel()
            await asyncio.wait([running])


async def _write_on(writer: Any, seconds: int) -> None:
    for number in range(seconds * 2):
        await writer.append(thing(number))
        await asyncio.sleep(0.5)


@directed
async def test_a_new_projection_holds_what_it_has_not_read(scene: Scene) -> None:
    """Opening a projection registers it; until two of its snapshots cover a chapter, or it is dropped, that stays."""
    await live_a_day(scene, 1, snapshots=2)
    async with opened(scene.machine("two")) as log, View.open(log, Diary()):
        pass
    await age()
    assert "projection=diary" in (await keep(scene))[0][-1]
    async with opened(scene.machine("three")) as log:
        await drop(log, Diary())
    assert (await keep(scene))[0][0].startswith("0 yes")


@directed
async def test_snapshots_nobody_needs_go_and_their_chunks_after_them(scene: Scene) -> None:
    """Two whole ones that are a grace old stay, and all newer ones; chunks go when no manifest left lists them."""
    digest = ""
    for number in range(1, 6):
        digest = await live_a_day(scene, number)
        await age()
    _, collected = await keep(scene)
    assert [name for name in collected if isinstance(parse_key(name), ManifestKey)]
    assert not [name for name in collected if isinstance(parse_key(name), ChunkKey)]
    _, collected = await keep(scene)
    assert [name for name in collected if isinstance(parse_key(name), ChunkKey)]
    assert len(named(scene, ManifestKey)) == 2
    async with opened(scene.machine("reader")) as log:
        manifests = [await log.snapshots.manifest(key) for key in manifests_of(scene)]
        listed = [chunk.key for manifest in manifests for chunk in manifest.chunks]
        assert {parse_key(name) for name in named(scene, ChunkKey)} == set(listed)
        async with View.open(log, Things()) as view:
            assert (view.digest(), view.damage) == (digest, [])


def manifests_of(scene: Scene) -> list[ManifestKey]:
    """The snapshots in the bucket, in order."""
    return [key for name in named(scene, ManifestKey) if isinstance(key := parse_key(name), ManifestKey)]


@pytest.mark.parametrize("damage", ["flipped", "lost"])
def test_a_damaged_snapshot_does_not_count(damage: str) -> None:
    """With a chunk flipped or gone a snapshot is no floor: the older ones and the history that they need stay."""

    @directed
    async def play(scene: Scene) -> None:
        await live_a_day(scene, 1, snapshots=2)
        await age()
        (name, *_) = named(scene, ChunkKey)
        if damage == "flipped":
            scene.store.flip(name, 999)
        else:
            scene.store.lose(name)
        retired, collected = await keep(scene)
        assert "too few whole snapshots" in retired[-1]
        assert [name for name in collected if isinstance(parse_key(name), ManifestKey | ChunkKey)] == []

    play()


@directed
async def test_a_dry_run_says_what_a_run_would_do(scene: Scene) -> None:
    """It deletes and creates nothing, and names the objects that the run after it deletes."""
    for number in range(1, 5):
        await live_a_day(scene, number)
        await age()
    await keep(scene)
    await age()
    before = scene.store.contents()
    async with opened(scene.machine("dry")) as log:
        keeper = log.keeper()
        planned = [garbage.key async for garbage in keeper.collect(dry_run=True)]
        assert scene.store.contents() == before
        await keeper.retire(dry_run=True)
        assert scene.store.contents() == before
        assert planned == [garbage.key async for garbage in keeper.collect()]
        assert set(planned) == before.keys() - scene.store.contents().keys()


@directed
async def test_what_lands_in_a_collected_chapter_is_collected(scene: Scene) -> None:
    """A zombie's object appears under a deleted name: nobody reads it, and the next round removes it."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    await keep(scene)
    await age()
    await keep(scene)
    zombie = next(name for name in scene.store.ever() if isinstance(parse_key(name), SegmentKey))
    scene.store.restore(zombie, b"late")
    _, collected = await keep(scene)
    assert collected == [zombie]


@directed
async def test_archived_history_reads_as_it_did(scene: Scene) -> None:
    """history=archive: collected, the log reads from the beginning the same events, and from any position in it."""
    events: list[Any] = []
    for number in range(1, 4):
        await live_a_day(scene, number, history="archive", snapshots=2)
        await age()
    async with opened(scene.machine("before"), "archive") as log:
        reader = log.read()
        positions = []
        async for event in reader:
            events.append(_shown(event))
            positions.append(str(reader.position))
    for _ in range(3):
        await keep(scene, history="archive")
        await age()
    await keep(scene, history="archive")
    assert len(named(scene, RetiredKey)) == 3
    assert len(named(scene, ArchiveKey)) == 3
    assert of_chapter(scene, 0) + of_chapter(scene, 1) + of_chapter(scene, 2) == []
    async with opened(scene.machine("after"), "archive") as log:
        for settled in (False, True):
            assert [_shown(event) async for event in log.read(settled=settled)][: len(events)] == events
        for at, position in enumerate(positions):
            assert [_shown(event) async for event in log.read(position)] == events[at + 1 :], at
        async with View.open(log, Diary()) as view:  # a new fold: from the beginning
            assert len(view) > 3
            assert view.damage == []
            digest = view.digest()
    async with opened(scene.machine("another"), "archive") as log, View.open(log, Diary()) as view:
        assert view.digest() == digest


def _shown(event: Any) -> Any:
    return (*event.order, event.kind, event.key, event.type, event.payload, event.meta, event.writer)


@directed
async def test_an_archive_without_a_record_goes_when_the_record_names_another(scene: Scene) -> None:
    """A keeper that died while archiving leaves parts behind; a grace after the retirement they are deleted."""
    await live_a_day(scene, 1, history="archive", snapshots=2)
    await age()
    await scene.world.create(f"archive/{0:010d}/{'ab' * 8}/{0:010d}", b"half of it")
    await keep(scene, history="archive")
    assert len(named(scene, ArchiveKey)) == 2
    await age()
    _, collected = await keep(scene, history="archive")
    assert f"archive/{0:010d}/{'ab' * 8}/{0:010d}" in collected
    assert len(named(scene, ArchiveKey)) == 1


@directed
async def test_pins_expire_and_go(scene: Scene) -> None:
    """One that its owner left behind holds chapters until it expires; a grace later it is deleted; renewals as well."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    async with opened(scene.machine("slow")) as log:
        pin = log.pin("slow", for_ms=3 * GRACE_MS)
        await pin.__aenter__()
        await pin.renew()
        assert "owner='slow'" in (await keep(scene))[0][-1]
        assert len(named(scene, PinKey)) == 1
    await age(3)
    assert (await keep(scene))[0][0].startswith("0 yes")
    await age()
    for _ in range(2):  # older numbers before the newest
        await keep(scene)
    assert named(scene, PinKey) == []


@directed
async def test_no_pin_lasts_longer_than_any_may(scene: Scene) -> None:
    """A writer's key is enough to make one that says it never expires: it counts for seven days."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    async with opened(scene.machine("thief")) as log:
        endless = PinRecord(PinKey(bytes(8), 0), "thief", 0, 1 << 62)
        await log._objects.create(pin_key(endless.key), encode_pin(endless))
        made_ms = log.now_ms()
    retired, _ = await keep(scene)
    held = re.fullmatch(r"0 no: a pin needs it owner='thief' pin=0{16} expires_ms=(\d+)", retired[0])
    assert held is not None
    assert int(held[1]) - made_ms <= 7 * 86_400_000 + 4_000  # as precise as the store tells times


@directed
async def test_a_pin_moves_on_with_its_reader(scene: Scene) -> None:
    """Renewed with a position it lets go of the chapters before; taken behind one that is gone it raises Trimmed."""
    async with opened(scene.machine("reader")) as log:
        async with log.writer("w") as writer:
            await writer.append(thing(0))
        start = log.read()
        first = await anext(aiter(start))
        assert first.key == "t-0000"
        early = start.position
        await live_a_day(scene, 1, snapshots=2)
        await age()
        reader = log.read()
        async with log.pin("reader", early) as pin:
            assert pin.chapter == 0
            _ = [event async for event in reader]
            await pin.renew(reader.position)
            assert pin.chapter == 1
            assert (await keep(scene))[0][0].startswith("0 yes")
    await age()
    await keep(scene)
    async with opened(scene.machine("late")) as log:
        with pytest.raises(Trimmed):
            await log.pin("late", early).__aenter__()
        for for_ms in (0, 8 * 86_400_000):
            with pytest.raises(InvalidArgument, match="for_ms"):
                await log.pin("late", for_ms=for_ms).__aenter__()


@directed
async def test_a_chapter_ends_by_age_or_length_and_not_without_a_session(scene: Scene) -> None:
    """Not before its time; then once, and the next one not until something is written into it."""
    async with opened(scene.machine("web")) as log:
        keeper = log.keeper(KeepSettings(chapter_age_ms=60_000))
        assert not await keeper.close_chapter()
        async with log.writer("web") as writer:
            await writer.append(thing(1))
        assert not await keeper.close_chapter()
        await asyncio.sleep(61)
        assert await keeper.close_chapter()
        await asyncio.sleep(61)
        assert not await keeper.close_chapter()
        async with log.writer("web") as writer:
            await writer.append(thing(2))
        assert await log.keeper(KeepSettings(chapter_entries_max=2)).close_chapter()
        with pytest.raises(InvalidArgument, match="snapshots_kept"):
            log.keeper(KeepSettings(snapshots_kept=1))


@directed
async def test_two_keepers_do_no_harm(scene: Scene) -> None:
    """They retire and collect at the same time: one record, the same view."""
    digest = ""
    for number in range(1, 4):
        digest = await live_a_day(scene, number, history="archive", snapshots=2)
        await age()
    for _ in range(3):
        await asyncio.gather(keep(scene, "one", "archive"), keep(scene, "two", "archive"))
        await age()
    assert len(named(scene, RetiredKey)) == 3
    async with opened(scene.machine("reader"), "archive") as log, View.open(log, Things()) as view:
        assert view.digest() == digest
        assert len([event async for event in log.read()]) == 3 * 7


@directed
async def test_a_lost_record_below_a_retired_chapter_is_missing(scene: Scene) -> None:
    """Regression (seed 75): who read on from a chapter whose record is lost was told Trimmed by the next, for ever."""
    for number in range(1, 4):
        await live_a_day(scene, number, snapshots=2)
    await age()
    await keep(scene)
    records = named(scene, RetiredKey)
    assert len(records) == 3
    scene.store.lose(records[1])
    async with opened(scene.machine("reader")) as log:
        with pytest.raises(Missing, match=records[1]):
            _ = [event async for event in log.read(await log.oldest())]


@directed
async def test_a_chapter_that_another_reader_shelves_meanwhile_is_read_anew(scene: Scene) -> None:
    """Regression: what was absent before another reader of the log took to the archive is no StaleStore after it."""
    await live_a_day(scene, 1, history="archive", snapshots=2)
    async with opened(scene.machine("early"), "archive") as log:
        events = log.read()
        first = await anext(aiter(events))
        position = events.position
    await age()
    for _ in range(2):
        await keep(scene, history="archive")
        await age()
    assert of_chapter(scene, 0) == []
    assert position is not None
    assert position.last is not None
    reader, gate = scene.machine("reader"), Gate()
    async with opened(reader, "archive") as log:
        reader.script.on("get", entry_key(*position.last), gate.after)
        resumed = asyncio.create_task(_keys(log.read(position)))
        await gate.met()
        whole = await _keys(log.read())
        gate.open()
        assert [first.key, *await resumed] == whole


async def _keys(reader: Reader) -> list[str]:
    return [event.key async for event in reader]
