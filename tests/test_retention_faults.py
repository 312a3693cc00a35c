"""Faults of retention, found by hostile testing: each test breaks a rule of DESIGN or of an RFC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

import logstore
from logstore import (
    Event,
    KeepSettings,
    Log,
    LogSettings,
    LogStoreError,
    Missing,
    NotFound,
    RetrySettings,
    Trimmed,
    Unavailable,
    archive,
    copy_store,
    looks,
)
from logstore.filestore.base import FileStore, Listed
from logstore.keys import ArchiveKey, ChunkKey, ManifestKey, PinKey, RegistrationKey, RetiredKey, parse_key
from logstore.retired import Retired, RetiredSession, decode_retired, encode_retired
from logstore.shelf import BLOCKS_MAX
from logstore.snapshots import Snapshots
from logstore.testing.process import current_process
from logstore.testing.simulation import SimulatedStore
from logstore.writer import WriterSettings
from projections import View, drop
from projections import keep as keep_on
from projections.cli import main
from tests.scene import Carry, Machine, Scene, directed, quick, refuse, until
from tests.test_keeper import GRACE_MS, GRACE_S, age, keep, live_a_day, named_thing, of_chapter, opened
from tests.test_snapshots import Diary, Things, named, thing

PATIENT: Final = LogSettings(
    writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000),
    retry=RetrySettings(attempt_timeout_ms=30_000, deadline_ms=30_000),
)


async def until_paused(machine: Machine) -> None:
    await until(lambda: machine.process.state.value == "paused")


def big(number: int, version: int) -> Any:
    """A row that fills a chunk by itself, which later snapshots then keep."""
    return thing(number, id=f"{number}/{version}", blob="x" * 1_100_000)


def dangling(scene: Scene, manifest: Any) -> list[ChunkKey]:
    """The chunks of a manifest that are not in the bucket."""
    there = {parse_key(name) for name in named(scene, ChunkKey)}
    return [chunk.key for chunk in manifest.chunks if chunk.key not in there]


# Pins


@directed
async def test_a_pin_that_is_renewed_while_a_keeper_looks_holds(scene: Scene) -> None:
    """RFC 0006 §4: a live pin holds its chapter, though its older number is deleted between LIST and GET."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    async with opened(scene.machine("reader")) as reader_log, opened(scene.machine("other")) as other_log:
        pin = reader_log.pin("the auditor", for_ms=3 * GRACE_MS)

        async def take(carry: Carry) -> Any:
            await pin.__aenter__()
            return await carry()

        async def meanwhile(carry: Carry) -> Any:
            await pin.renew()
            _ = [garbage async for garbage in other_log.keeper().collect()]
            return await carry()

        slow = scene.machine("slow")
        async with slow.open(PATIENT, grace_ms=GRACE_MS, history="drop") as log:
            slow.script.on("get", "log/", take)  # while the chapter is read: listed the second time
            slow.script.on("get", "pins/", meanwhile)
            outcome = (await log.keeper().retire())[0]
        assert len(named(scene, PinKey)) == 1
        assert not outcome.retired, outcome


@directed
async def test_a_renewal_lasts_from_now_on(scene: Scene) -> None:
    """RFC 0006 §4: a pin renewed for a minute holds for a minute, by the store's clock, not from the last answer on."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    async with opened(scene.machine("reader")) as reader_log:
        pin = reader_log.pin("slow consumer", for_ms=60_000)
        await pin.__aenter__()
        await asyncio.sleep(50)
        await pin.renew()
        await asyncio.sleep(30)
        retired, _ = await keep(scene)
        assert "slow consumer" in retired[0], retired


@directed
async def test_a_pin_that_came_too_late_says_so_when_it_is_renewed(scene: Scene) -> None:
    """P11: renewed "as before" after its chapter was retired it raises Trimmed, and does not move on."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    async with opened(scene.machine("reader")) as reader_log:
        pin = reader_log.pin("sleeper", for_ms=10_000)
        await pin.__aenter__()
        assert pin.chapter == 0
        await asyncio.sleep(15)
        retired, _ = await keep(scene)
        assert retired[0].startswith("0 yes")
        with pytest.raises(Trimmed):
            await pin.renew()


@directed
async def test_a_released_pin_does_not_come_back(scene: Scene) -> None:
    """RFC 0006 §4: the newest number counts: a collection that fails half way leaves no older, live number behind."""
    await live_a_day(scene, 1, snapshots=2)
    async with opened(scene.machine("reader")) as reader_log, reader_log.pin("gone", for_ms=86_400_000):
        pass
    await age(2)
    keeper = scene.machine("keeper")
    keeper.script.on("delete", "pins/", refuse, times=100)
    keeper.script.rules[0].part = f"/{0:010d}"
    async with opened(keeper) as log:
        with suppress(LogStoreError):
            _ = [garbage async for garbage in log.keeper().collect()]
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes"), retired


@directed
async def test_a_record_is_created_soon_after_the_look_or_never(scene: Scene) -> None:
    """RFC 0006 §2: a keeper that sleeps between two attempts to create the record retires nothing on old news."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    slow = scene.machine("slow")

    async def sleep_then_fail(_carry: Carry) -> Any:
        asyncio.get_running_loop().call_later(0.0001, slow.process.pause)
        raise Unavailable("refused by the script")

    slow.script.on("create", "retired/", sleep_then_fail)

    async def retire() -> Any:
        async with opened(slow) as log:
            with suppress(LogStoreError):
                return await log.keeper().retire()

    retiring = slow.start(retire())
    await until_paused(slow)
    async with (
        opened(scene.machine("reader")) as reader_log,
        reader_log.pin("the auditor", for_ms=10 * GRACE_MS) as pin,
    ):
        assert pin.chapter == 0
        await age()
        slow.process.resume()
        await asyncio.sleep(5)
        await asyncio.wait([retiring])
        assert named(scene, RetiredKey) == []


# Snapshots


@directed
async def test_a_projection_registered_again_keeps_its_snapshots(scene: Scene) -> None:
    """P10, RFC 0006 §3: a snapshot that was given out is not emptied by a keeper that still thinks its fold dropped."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer, View.open(log, Diary()) as other:
        for number in range(3):
            await writer.append_many([big(number, 0)])
        async with View.open(log, Things()) as view:
            await view.snapshot()
        await drop(log, Things())
        await log.close_chapter()
        await writer.append(named_thing(9, 9))
        for _ in range(2):
            await other.snapshot()
            await age()
        await other.snapshot()
    digests: list[str] = []
    written: list[Any] = []

    async def meanwhile(carry: Carry) -> Any:
        answer = await carry()
        async with opened(scene.machine("again")) as again_log, View.open(again_log, Things()) as again:
            written.append(await again.snapshot())
            digests.append(again.digest())
        return answer

    keeper = scene.machine("keeper")
    async with keeper.open(PATIENT, grace_ms=GRACE_MS, history="drop") as log:
        assert (await log.keeper().retire())[0].retired
        newest = next(name for name in reversed(named(scene, RegistrationKey)) if "things" in name)
        keeper.script.on("get", newest, meanwhile)
        _ = [garbage async for garbage in log.keeper().collect()]
    assert digests, "the script was not met"
    async with opened(scene.machine("later")) as log, View.open(log, Things()) as view:
        assert view.digest() == digests[0]
    assert dangling(scene, written[0]) == []


@directed
async def test_who_registers_again_is_registered_whatever_was_collected(scene: Scene) -> None:
    """RFC 0004 §5: a view that opened is registered, though it slept between listing registrations and reading one."""
    sleeper = scene.machine("sleeper")
    async with opened(scene.machine("web")) as log, log.writer("web") as writer, View.open(log, Things()) as view:
        await writer.append(thing(1))
        await view.snapshot()

    done: list[Any] = []
    listed = Snapshots.records

    async def records(self: Snapshots, fold: Any) -> Any:
        found = await listed(self, fold)
        if not done and current_process() is sleeper.process:  # stopped between the LIST and what comes of it
            done.append("slept")
            sleeper.process.pause()
            await asyncio.sleep(0)
        return found

    async def live() -> None:
        async with opened(sleeper) as log:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Snapshots, "records", records)
                async with View.open(log, Things()) as view:
                    done.append(list(view.damage))

    living = sleeper.start(live())
    await until_paused(sleeper)
    async with opened(scene.machine("admin")) as log:
        await drop(log, Things())
        await age()
        _ = [garbage async for garbage in log.keeper().collect()]
    sleeper.process.resume()
    await asyncio.wait([living])
    living.result()
    async with opened(scene.machine("later")) as log:
        key = Things().registration().key
        registration = await log.snapshots.registration(key, await log.snapshots.records(key))
        assert registration is not None
        assert registration.registered, done


@directed
async def test_a_view_that_lost_the_race_with_retirement_holds_nothing(scene: Scene) -> None:
    """P13: a projection that could not be opened (Trimmed) is not left registered, keeping all history for nothing."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    machine = scene.machine("new")

    async def meanwhile(carry: Carry) -> Any:
        await keep(scene)
        await asyncio.sleep(0.6 * GRACE_S)  # slower than the sleeper's rule allows
        return await carry()

    async with machine.open(PATIENT, grace_ms=GRACE_MS, history="drop") as log:
        machine.script.on("create", "registration", meanwhile)
        with pytest.raises(Trimmed):
            async with View.open(log, Diary()):
                pass
    await live_a_day(scene, 2, snapshots=2)
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("1 yes"), retired


# Keepers


@directed
async def test_void_slots_are_collected_when_asked_for(scene: Scene) -> None:
    """DESIGN §6 Seal, RFC 0006 §6: `gc` removes slots above a session's final (void=True)."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
    (final,) = [segment for segment in scene.segments() if segment.final]
    void = scene.slot("web", final.key.session, final.key.slot + 1)
    await scene.world.create(void, b"whatever was in flight")
    await age()
    async with opened(scene.machine("gc")) as log:
        collected = [garbage.key async for garbage in log.keeper().collect(void=True)]
    assert void in collected
    assert void not in scene.store.contents()


@directed
async def test_collecting_ends_though_looking_takes_long(scene: Scene) -> None:
    """P13: whoever cannot look within a quarter of the grace is told so, and does not look for ever."""
    for number in range(1, 4):
        await live_a_day(scene, number)
        await age()
    slow = scene.machine("slow")

    async def late(carry: Carry) -> Any:
        await asyncio.sleep(4)
        return await carry()

    async with slow.open(PATIENT, grace_ms=GRACE_MS, history="drop") as log:
        slow.script.on("get", "snapshots/", late, times=10**9)

        async def collect() -> None:
            _ = [garbage async for garbage in log.keeper().collect()]

        with suppress(Unavailable):
            async with asyncio.timeout(40 * GRACE_S):
                await collect()


@directed
async def test_a_keeper_that_slept_says_nothing_false(scene: Scene) -> None:
    """P11, sleeper's rule: a 404 in a chapter that was retired and deleted meanwhile is no "session has not ended"."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    sleeper = scene.machine("sleeper")
    said: list[Any] = []

    async def live_in_reading() -> None:
        async with opened(sleeper) as log:
            keeper = log.keeper()
            standing, calls = keeper._needs.standing, 0

            async def slow_standing() -> Any:
                nonlocal calls
                calls += 1
                found = await standing()
                if calls == 1:
                    sleeper.process.pause()
                    await asyncio.sleep(0)
                return found

            keeper._needs.standing = slow_standing  # type: ignore[method-assign]
            said.extend(await keeper.retire())

    living = sleeper.start(live_in_reading())
    await until_paused(sleeper)
    await keep(scene)
    await age()
    await keep(scene)
    sleeper.process.resume()
    await asyncio.wait([living])
    living.result()
    false = [one for one in said if one.chapter == 0 and not one.retired]
    assert false == [], said


@directed
async def test_an_idle_round_costs_what_is_said(scene: Scene) -> None:
    """RFC 0006: a round with nothing to do: two GETs, LISTs; not a GET per manifest, each time."""
    async with (
        opened(scene.machine("web"), "full") as log,
        log.writer("web") as writer,
        View.open(log, Things()) as view,
    ):
        for number in range(30):
            await writer.append(thing(number))
            await view.snapshot()
    machine = scene.machine("keeper")
    async with opened(machine, "full") as log:
        keeper = log.keeper()
        gets = []
        for _ in range(3):
            before = machine.script.count("get")
            await keeper.close_chapter()
            await keeper.retire()
            _ = [garbage async for garbage in keeper.collect()]
            gets.append(machine.script.count("get") - before)
        assert gets[-1] <= 12, gets


@directed
async def test_one_wrong_date_deletes_nothing(scene: Scene) -> None:
    """RFC 0006 §2: a chapter goes a grace after its record, though the store once told a time a day ahead."""
    await live_a_day(scene, 1, snapshots=2)
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes")

    async def a_day_ahead(carry: Carry) -> Any:
        try:
            blob = await carry()
        except NotFound as absent:
            raise NotFound(str(absent), now_ms=(absent.now_ms or 0) + 86_400_000) from None
        return replace(blob, now_ms=blob.now_ms + 86_400_000)

    machine = scene.machine("keeper")
    async with opened(machine) as log:
        machine.script.on("get", "retired/", a_day_ahead)
        with suppress(LogStoreError):
            _ = [garbage async for garbage in log.keeper().collect()]
        await asyncio.sleep(3)
        with suppress(LogStoreError):
            _ = [garbage async for garbage in log.keeper().collect()]
    assert of_chapter(scene, 0)


@directed
async def test_an_idle_keeper_reads_no_record_again_and_again(scene: Scene) -> None:
    """P14: an idle round fetches no record again and again, though more chapters are retired than are remembered."""
    for number in range(1, 13):
        await live_a_day(scene, number, history="archive", snapshots=2)
        await age()
    for _ in range(2):
        await keep(scene, history="archive")
        await age()
    assert len(named(scene, RetiredKey)) == 12
    machine = scene.machine("keeper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "_CHAPTERS_REMEMBERED_MAX", 4)
        async with opened(machine, "archive") as log:
            keeper = log.keeper()
            gets = []
            for _ in range(4):
                before = machine.script.count("get", "retired/")
                await keeper.close_chapter()
                await keeper.retire()
                _ = [garbage async for garbage in keeper.collect()]
                gets.append(machine.script.count("get", "retired/") - before)
                await asyncio.sleep(2)
    assert gets[-1] <= 8, gets


# Archives


@directed
async def test_reading_many_archives_holds_few_blocks(scene: Scene) -> None:
    """P13, RFC 0006 §5: one block at a time is in memory per chapter *that is being read*, not of all ever read."""
    chapters = 8
    for number in range(1, chapters + 1):
        await live_a_day(scene, number, history="archive", snapshots=2)
        await age()
    for _ in range(3):
        await keep(scene, history="archive")
        await age()
    assert len(named(scene, ArchiveKey)) == chapters
    async with opened(scene.machine("reader"), "archive") as log:
        _ = [event async for event in log.read()]
        assert len(log._objects._shelf) == chapters
        assert len(log._objects._blocks) <= BLOCKS_MAX < chapters


async def archives_of_rounds(scene: Scene, count: int) -> list[int]:
    """How many objects of archives there are after each round of keeping."""
    counts: list[int] = []
    async with opened(scene.machine("archivist"), "archive") as log:
        settings = KeepSettings(chapter_age_ms=10**9)
        async with aclosing(keep_on(log, [Things()], settings=settings, snapshot_ms=5_000, pause_ms=10_000)) as rounds:
            async for _ in rounds:
                counts.append(len(named(scene, ArchiveKey)))
                if len(counts) == count:
                    break
    return counts


@directed
async def test_a_chapter_that_may_not_be_retired_is_not_archived_each_round(scene: Scene) -> None:
    """P13: a chapter whose last session ran on above the floor is not archived each round."""
    async with opened(scene.machine("web"), "archive") as log, log.writer("web") as writer:
        await writer.append(thing(1))
        await log.close_chapter()
        async with (
            opened(scene.machine("other"), "archive") as other,
            other.writer("other") as second,
            View.open(other, Things()) as view,
        ):
            running = asyncio.create_task(run_on(writer))  # its session goes on
            await second.append(thing(2))
            snapshots = [asyncio.create_task(view.snapshot())]
            await asyncio.wait(snapshots)
            await second.append(thing(3))
            await view.snapshot()
            await asyncio.wait([running])
            await writer.append(thing(4))
            await view.snapshot()
    last = max(segment.stamp for segment in scene.segments() if segment.key.chapter == 0)
    points = [key.number for name in named(scene, ManifestKey) if isinstance(key := parse_key(name), ManifestKey)]
    assert points, last
    await age()
    counts = await archives_of_rounds(scene, 25)
    assert max(counts) <= 2, (counts, named(scene, RetiredKey))


async def run_on(writer: Any) -> None:
    for number in range(40):
        await writer.append(thing(100 + number))
        await asyncio.sleep(0.3)


@directed
async def test_a_session_that_never_ends_does_not_fill_the_store_with_archives(scene: Scene) -> None:
    """P13: nothing is archived of a chapter with a session that has not ended."""
    async with opened(scene.machine("web"), "archive") as log, log.writer("web") as writer:
        await writer.append(thing(1))
        async with log.writer("long") as long:
            running = asyncio.create_task(hold_open(long))
            for number in range(20):
                await writer.append(thing(number, blob=random.Random(number).randbytes(300)))
            await log.close_chapter()
            async with (
                opened(scene.machine("other"), "archive") as other,
                other.writer("other") as second,
                View.open(other, Things()) as view,
            ):
                for number in range(2):
                    await second.append(thing(number))
                    await view.snapshot()
                await age()
                with pytest.MonkeyPatch.context() as patch:  # as if it held some hundred MiB
                    patch.setattr(archive, "BLOCK_BYTES_MAX", 2_000)
                    patch.setattr(archive, "PART_BYTES_MAX", 2_000)
                    counts = []
                    for _ in range(4):
                        await other.keeper().retire()
                        counts.append(len(named(scene, ArchiveKey)))
            running.cancel()
            await asyncio.wait([running])
    assert counts[-1] <= counts[0], counts


async def hold_open(writer: Any) -> None:
    while True:
        await writer.append(Event("Other", "x", "beat", {}))
        await asyncio.sleep(0.5)


@directed
async def test_reading_an_archive_fetches_each_block_about_once(scene: Scene) -> None:
    """RFC 0006 §5, P14: reading an archive of a dozen sessions fetches each block about once."""

    async def write(log: Log, number: int) -> None:
        rng, written = random.Random(number), 0.0
        async with log.writer(f"w{number}") as writer:
            while written < 30:
                pause = rng.uniform(0, (0.1, 0.3, 0.8, 1.8)[number % 4])
                written += pause
                await asyncio.sleep(pause)
                await writer.append(thing(number, blob=rng.randbytes(300)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "BLOCK_BYTES_MAX", 12_000)
        async with opened(scene.machine("web"), "archive") as log:
            await asyncio.gather(*(write(log, number) for number in range(12)))
            await log.close_chapter()
        await live_a_day(scene, 2, history="archive", snapshots=2)
        await age()
        await keep(scene, history="archive")
        await age()
        await keep(scene, history="archive")
    reader = scene.machine("reader")
    async with opened(reader, "archive") as log:
        _ = [event async for event in log.read()]
        tables = log._objects._shelf[0]._tables
        assert tables is not None
        blocks = len({place.block for places in [tables.entries, *tables.slots.values()] for place in places})
    fetched = reader.script.count("get", "archive/0000000000")
    assert fetched <= 2 * blocks + 2, (fetched, blocks)


# Copies


class Interposed:
    """A store in which something happens just before a listing."""

    def __init__(self, store: FileStore, prefix: str, act: Any) -> None:
        self._store, self._prefix, self._act, self.remote, self.skip = store, prefix, act, store.remote, 0

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        if prefix == self._prefix and self._act is not None:
            if self.skip:
                self.skip -= 1
            else:
                act, self._act = self._act, None
                await act()
        async for listed in self._store.list(prefix, after):
            yield listed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@directed
async def test_a_copy_of_a_store_that_is_collected_reports_no_damage(scene: Scene) -> None:
    """P11, RFC 0005 "both may be in use": what a keeper deleted meanwhile is not Missing, nothing is wrong with it."""
    for number in range(1, 5):
        await live_a_day(scene, number, history="full")
        await age()

    async def collect() -> None:
        await keep(scene, history="full")

    source: Any = Interposed(scene.world, "retired/", collect)  # after snapshots were listed, before they are read
    source.skip = 1
    face = SimulatedStore(scene.loop, random.Random(5)).face(None)
    clock = scene.machine("copier").clock
    await copy_store(source, face, clock=clock)


@directed
async def test_a_copier_that_slept_makes_no_copy_without_its_history(scene: Scene) -> None:
    """P11: a copy that is said to be whole holds every row, though the copier slept between two listings."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
    copier = scene.machine("copier")

    class Source:
        """The copier is stopped when it has listed the snapshots, before it lists what is retired."""

        remote = scene.world.remote

        async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
            async for listed in scene.world.list(prefix, after):
                yield listed
            if prefix == "snapshots/":
                copier.process.pause()
                await asyncio.sleep(0)

        def __getattr__(self, name: str) -> Any:
            return getattr(scene.world, name)

    face = SimulatedStore(scene.loop, random.Random(5)).face(None)
    source: Any = Source()
    copying = copier.start(copy_store(source, face, clock=copier.clock))
    await until_paused(copier)
    await live_a_day(scene, 2, snapshots=2)
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes")
    copier.process.resume()
    await asyncio.wait([copying])
    if isinstance(copying.exception(), Missing | Unavailable):
        return  # and said so
    copying.result()
    async with (
        logstore.open(face, settings=quick(), clock=copier.clock, read_only=True) as log,
        View.open(log, Things()) as view,
    ):
        assert view.get("t-0001") is not None


@directed
async def test_garbage_in_a_retired_chapter_does_not_end_a_backup(scene: Scene) -> None:
    """DESIGN §6: objects in a retired chapter are garbage whenever they appear: a copy is continued all the same."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
    face = SimulatedStore(scene.loop, random.Random(5)).face(None)
    clock = scene.machine("copier").clock
    await copy_store(scene.world, face, clock=clock)
    last = [listed.key async for listed in face.list("roster/")][-1]
    await live_a_day(scene, 2, snapshots=2)
    for _ in range(2):
        await age()
        await keep(scene)
    assert of_chapter(scene, 0) == []
    scene.store.restore(last, b"an entry that its poster had sent before it slept")
    await copy_store(scene.world, face, clock=clock)


@directed
async def test_a_copy_that_is_interrupted_is_no_worse_than_before(scene: Scene) -> None:
    """RFC 0005, P11: a continued copy has a retirement record only when it has the snapshots that cover the chapter."""
    async with opened(scene.machine("web")) as log, log.writer("web") as writer:
        await writer.append(thing(1))
    face = SimulatedStore(scene.loop, random.Random(5)).face(None)
    clock = scene.machine("copier").clock
    await copy_store(scene.world, face, clock=clock)
    await live_a_day(scene, 2, snapshots=2)
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes")

    class Failing:
        remote = face.remote

        def __getattr__(self, name: str) -> Any:
            return getattr(face, name)

        async def create(self, key: str, data: bytes) -> Any:
            if key.startswith(("chunks/", "snapshots/")):
                raise Unavailable("the backup's disk is full")
            return await face.create(key, data)

    with pytest.raises(Unavailable):
        await copy_store(scene.world, Failing(), clock=clock)
    async with (
        logstore.open(face, settings=quick(), clock=clock, read_only=True) as log,
        View.open(log, Things()) as view,
    ):
        assert view.get("t-0001") is not None


# Files


def test_what_a_keeper_records_can_be_read() -> None:
    """P13: a chapter of too many sessions is not retired by a record that nobody can read."""
    sessions = {number: RetiredSession(1, number) for number in range(1, (1 << 20) + 2)}
    record = Retired(0, len(sessions) + 1, bytes(32), 1 << 40, (), sessions)
    with suppress(LogStoreError):
        data = encode_retired(record)
        try:
            decode_retired(0, data)
        except LogStoreError as error:
            pytest.fail(f"the log cannot be opened any more: {error!r}"[:200])


@pytest.mark.parametrize("option", ["--chapter-age=nan", "--pause=nan", "--snapshot-every=inf", "--pause=-1"])
def test_keep_refuses_times_that_are_none(tmp_path: Path, option: str) -> None:
    """DESIGN §9: never a traceback for bad input, exit status 2; a pause below zero would be a loop without one."""

    async def make() -> None:
        async with logstore.open(f"file://{tmp_path}/log"):
            pass

    asyncio.run(make())
    result = CliRunner().invoke(main, ["keep", f"file://{tmp_path}/log", "--rounds", "1", option])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
