"""The ten nastiest failures that peers met, each as a whole schedule over the whole library.

A test is numbered as its case is in the list of these; its docstring is what must hold. The same rules have tests of
their own, one by one, beside the parts that keep them; here is what an operator would call the incident.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

import logstore
from logstore import (
    ClockSkew,
    Corrupt,
    Event,
    InvalidCursor,
    Log,
    LogSettings,
    LogStoreError,
    Missing,
    NotFound,
    NotStored,
    Position,
    Receipt,
    RetrySettings,
    StaleStore,
    StoredEvent,
    Trimmed,
    Unavailable,
    Unknown,
    UnsafeStore,
    WriterSettings,
    copy_store,
)
from logstore.check import check
from logstore.clock import stamp_ms
from logstore.filestore import Blob, FileStore, LocalStore, MemoryStore, probe
from logstore.filestore import local as local_module
from logstore.filestore.s3 import S3Store
from logstore.keys import ChunkKey, ManifestKey, parse_key
from logstore.testing import ManualClock
from logstore.testing.simulation import SimulatedStore
from logstore.unsettled import Question
from projections import Index, Projection, Rejected, View
from tests.conftest import BUCKET
from tests.contract.test_log import Shared
from tests.disk import Disk, Left, Platter
from tests.proxy import Proxy, cut, lose, opened_proxy, refuse, shorten
from tests.scene import Carry, Gate, Machine, Scene, Script, directed, hang, moved_by, quick, read, until
from tests.scene import lose as lose_answer
from tests.test_keeper import GRACE_MS, age, keep, of_chapter, opened
from tests.test_looks import at_the_end, note
from tests.test_probe import DirectoryOrderStore, OnePageStore, OverwritingStore, RacyStore, RefusingOverwritingStore
from tests.test_snapshots import named

ALWAYS: Final = 10**9
SLEEPY: Final = LogSettings(retry=RetrySettings(attempt_timeout_ms=3_600_000, deadline_ms=3_600_000))


class Book(Projection):
    """A row is the ids of its events, in the order in which they were folded: what is folded twice, or late, shows."""

    name, kinds = "book", frozenset({"Line"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        return {"ids": [*(state["ids"] if state else ()), event.data["id"]]}


def line(id_: str, **fields: Any) -> Event:
    """An event of the one row that all share: its order matters."""
    return Event("Line", "all", "written", {"id": id_, **fields})


def lines(view: Any) -> list[str]:
    """What a view of ``Book`` holds, in its order."""
    row = view.get("all")
    return list(row["ids"]) if row else []


async def lines_of(log: Log, **arguments: Any) -> list[str]:
    """What a reading of the log yields."""
    return [each.data["id"] async for each in log.read(**arguments) if each.data is not None]


async def told(call: Awaitable[Receipt], log: Log, *, lull: Callable[[], object] | None = None) -> Receipt | None:
    """What becomes of an append in the end: its receipt, or None: certainly not stored. ``lull``: before asking."""
    try:
        return await call
    except NotStored:
        return None
    except Unknown as unknown:
        if lull is not None:
            lull()
        with suppress(NotStored):
            return await log.resolve(unknown)
        return None


# 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asleep", ["before it sends", "while it is under way", "before the answer"])
@directed
async def test_nasty_01_zombie_and_collection(scene: Scene, asleep: str) -> None:
    """A writer that sleeps until its slot was sealed and collected is answered, and in every view, or in none."""
    web, gate = scene.machine("web"), Gate()

    async def live() -> Receipt | None:
        async with opened(web) as log, log.writer("web") as writer:
            await writer.append(line("before"))
            if asleep == "before it sends":
                web.process.pause()
                await asyncio.sleep(0.001)
            elif asleep == "while it is under way":
                web.script.on("create", "log/web/", gate.late_silent)
            else:
                web.script.on("create", "log/web/", gate.after)
            return await told(writer.append(line("zombie")), log)

    living = web.start(live())
    await asyncio.sleep(0.3)
    web.process.pause()
    async with opened(scene.machine("successor")) as log, View.open(log, Book(), follow=True) as witness:
        async with log.writer("web") as writer:
            for number in range(5):
                await writer.append(line(f"after {number}"))
            await log.close_chapter()
        async with log.writer("web") as writer:
            await writer.append(line("in the next chapter"))
        for _ in range(2):
            await witness.snapshot()  # who wants it seals the sleeper's session
        for _ in range(2):
            await age()
            await keep(scene)
        assert of_chapter(scene, 0) == []
        await gate.landed()
        assert (of_chapter(scene, 0) == [scene.slot("web", 1, 1)]) == (asleep == "while it is under way")
        web.process.resume()
        receipt = await living
        await witness.refresh()
        async with opened(scene.machine("fresh")) as fresh_log, View.open(fresh_log, Book()) as fresh:
            assert fresh.damage == []
            assert lines(fresh) == lines(witness)
        written = ["before", *(f"after {number}" for number in range(5)), "in the next chapter"]
        assert sorted(lines(witness)) == sorted([*written, *["zombie"] * (receipt is not None)])
        assert receipt is not None
        assert (receipt.chapter, receipt.slot) == ((0, 1) if asleep == "before the answer" else (receipt.chapter, 0))


# 2 and 3: over HTTP ---------------------------------------------------------------------------


HTTP: Final = LogSettings(
    retry=RetrySettings(attempts_max=4, attempt_timeout_ms=5_000, deadline_ms=20_000, pause_first_ms=1, pause_max_ms=2)
)


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.ceph)])
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a simulated S3, or of a real one."""
    if request.param == "moto":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    found: str = request.getfixturevalue(f"{request.param}_endpoint")
    return found


@pytest.fixture
async def proxy(endpoint: str) -> AsyncIterator[Proxy]:
    async with opened_proxy(endpoint) as proxy:
        yield proxy


@pytest.fixture
def place() -> str:
    return uuid4().hex


def s3(url: str, place: str) -> S3Store:
    return S3Store(BUCKET, prefix=place, endpoint_url=url, region="us-east-1")


async def test_nasty_02_lost_ack_and_412(proxy: Proxy, endpoint: str, place: str) -> None:
    """A creation whose answer is lost, tried again, meets its own object (412): stored, there once, nothing deleted."""
    async with logstore.open(s3(proxy.url, place), settings=HTTP) as log, log.writer("web") as writer:
        await writer.append(line("a"))
        deleted = len(proxy.statuses("DELETE", ""))
        proxy.on("PUT", "/log/web/", lose)
        receipt = await writer.append(line("b"))
        slot = f"{receipt.session:010d}/{receipt.slot:010d}"
        assert proxy.statuses("PUT", slot) == [200, 412], proxy.asked
        assert (await writer.append(line("c"))).slot == receipt.slot + 1
        assert len(proxy.statuses("DELETE", "")) == deleted
    async with logstore.open(s3(endpoint, place), read_only=True) as log:
        assert await lines_of(log) == ["a", "b", "c"]


class Once(Projection):
    """Applies an event id once, whoever sends it again."""

    name, kinds = "once", frozenset({"Line"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        ids = state["ids"] if state else []
        if event.data["id"] in ids:
            raise Rejected("was there already")
        return {"ids": [*ids, event.data["id"]]}


@pytest.mark.parametrize("remembers", [True, False], ids=["asks", "sends again"])
@directed
async def test_nasty_02_lost_ack_and_nobody_can_look(scene: Scene, remembers: bool) -> None:
    """Neither answered nor to be looked at: Unknown, nothing cleaned up; its next life has one effect, either way."""
    web = scene.machine("web")
    unknowns: list[Unknown] = []

    async def live() -> None:
        async with web.open(quick()) as log, log.writer("web") as writer:
            await writer.append(line("a"))
            web.script.on("create", "log/web/", lose_answer)
            web.script.on("get", "log/web/", hang, times=ALWAYS)
            with pytest.raises(Unknown) as raised:
                await writer.append(line("b"))
            unknowns.append(raised.value)
            web.process.crash()
            await asyncio.sleep(0.001)

    living = web.start(live())
    await until(lambda: bool(unknowns))
    assert scene.slot("web", 1, 1) in scene.store.contents()
    assert web.script.count("delete", "log/") == web.script.count("delete", "roster/") == 0
    async with scene.machine("web again").open(quick()) as log, log.writer("web") as writer:
        if remembers:
            receipt = await log.resolve(unknowns[0].token)
            assert (receipt.session, receipt.slot) == (1, 1)
        else:
            receipt = await writer.append(line("b"))
        async with View.open(log, Once()) as view, View.open(log, Book()) as book:
            verdicts = await view.settled(receipt, timeout=60)
            assert [verdict.kind for verdict in verdicts.values()] == ([] if remembers else ["rejected"])
            assert lines(view) == ["a", "b"]
            assert lines(book) == ["a", "b"] if remembers else ["a", "b", "b"]
    assert not living.done()


async def test_nasty_03_conflict_without_an_object(proxy: Proxy, endpoint: str, place: str) -> None:
    """A 409 says nothing: tried again it is stored, once, in its own session; for ever it is not, and never appears."""
    async with logstore.open(s3(proxy.url, place), settings=HTTP) as log, log.writer("web") as writer:
        proxy.on("PUT", "/log/web/", refuse(409, "ConditionalRequestConflict"), 2)
        first = await writer.append(line("a"))
        assert (first.slot, proxy.statuses("PUT", "/log/web/")) == (0, [0, 0, 200])
        proxy.on("PUT", "/log/web/", refuse(409, "ConditionalRequestConflict"), 4)
        with pytest.raises(NotStored):
            await writer.append(line("never"))
        assert (await writer.append(line("b"))).session > first.session
        assert writer.statistics().sessions_opened == 2
        proxy.on("PUT", "/log/web/", refuse(409, "ConditionalRequestConflict"), 8)
        with pytest.raises(Unknown) as raised:
            await writer.append(line("never either"))
        with pytest.raises(NotStored):
            await log.resolve(raised.value)
    async with logstore.open(s3(endpoint, place), read_only=True) as log:
        assert await lines_of(log) == ["a", "b"]


async def test_nasty_03_storm_of_503s(proxy: Proxy, place: str) -> None:
    """However many requests are refused, some of them done: what was answered is there once, and nothing else is."""
    rng = random.Random(3)

    async def storm(carry: Any) -> Any:
        match rng.choice(["calm", "503", "503 after all"]):
            case "503":
                return await refuse(503)(carry)
            case "503 after all":
                await carry()
                return await refuse(503)(carry)
            case _:
                return await carry()

    stored, store = [], Shared(s3(proxy.url, place))
    async with logstore.open(store, settings=HTTP) as log, log.writer("web") as writer:
        await writer.append(line("first"))
        proxy.on("", "/", storm, ALWAYS)
        for number in range(8):
            if await told(writer.append(line(str(number))), log, lull=proxy.rules.clear) is not None:
                stored.append(str(number))
            proxy.on("", "/", storm, ALWAYS)
        proxy.rules.clear()
    async with logstore.open(store, read_only=True) as log:
        assert await lines_of(log) == ["first", *stored]
    assert len(stored) > 4
    await store._store.aclose()


async def test_nasty_03_bodies_cut_short(proxy: Proxy, endpoint: str, place: str) -> None:
    """Half a body under a right status is never half the truth: asked for again, or Unavailable, or Corrupt."""
    async with logstore.open(s3(endpoint, place), settings=HTTP) as log, log.writer("web") as writer:
        for id_ in "abc":
            await writer.append(line(id_))
    through = Shared(s3(proxy.url, place))
    for part, act, times, error in [
        ("/log/web/", cut, 3, None),
        ("/roster/", cut, 3, None),
        ("/log/web/", cut, ALWAYS, Unavailable),
        ("/roster/", cut, ALWAYS, Unavailable),
        ("/log/web/", shorten, ALWAYS, Corrupt),
        ("/roster/", shorten, ALWAYS, Corrupt),
    ]:
        proxy.rules.clear()
        async with logstore.open(through, settings=HTTP, read_only=True) as log:
            proxy.on("GET", part, act, times)
            if error is None:
                assert await lines_of(log) == ["a", "b", "c"]
            else:
                with pytest.raises(error):
                    await lines_of(log)
    await through._store.aclose()


# 4 --------------------------------------------------------------------------------------------


class Rows(Projection):
    """The latest of each row, in pages by a number."""

    name, kinds, fold, indexes = "rows", frozenset({"Row"}), "put", (Index("n"),)


def row(number: int) -> list[Event]:
    """An append of two events: a row of its own, and a line of the one that all share."""
    id_ = f"{number:03}"
    return [Event("Row", id_, "written", {"id": f"row {id_}", "n": number}), line(id_)]


@directed
async def test_nasty_04_visibility_gap(scene: Scene) -> None:
    """What lies beyond a gap waits for it, then comes once and in order; no page meanwhile skips or repeats a row."""
    web, gate = scene.machine("web"), Gate()
    async with (
        web.open(LogSettings(writer=WriterSettings(flights=8))) as log,
        log.writer("web") as writer,
        scene.machine("other").open() as other_log,
        other_log.writer("other") as other,
        View.open(other_log, Rows(), follow=True) as rows,
        View.open(other_log, Book(), follow=True) as book,
    ):
        await writer.append_many(row(5))
        web.script.on("create", scene.slot("web", 1, 1), gate.before)
        gap = []
        for number in (1, 15, 25, 35, 45, 55):
            gap.append(asyncio.create_task(writer.append_many(row(number))))
            await asyncio.sleep(0.05)
        assert [scene.slot("web", 1, slot) in scene.store.contents() for slot in range(1, 7)] == [False, *[True] * 5]
        for number in (10, 20, 30):
            await other.append_many(row(number))
        await asyncio.sleep(2)
        assert lines(book) == ["005", "010", "020", "030"]
        assert book.watermark < min(segment.stamp for segment in scene.segments("log/web/") if segment.key.slot == 2)
        assert not any(call.done() for call in gap)
        reader = other_log.read()
        seen = [each.key async for each in reader if each.kind == "Row"]
        position = moved_by(reader.position)
        pages = [rows.find(order_by=["n"], limit=2)]
        assert pages[0].keys == ["005", "010"]
        gate.open()
        receipts = await asyncio.gather(*gap)
        await rows.wait_for(receipts[-1], timeout=30)
        await book.wait_for(receipts[-1], timeout=30)
        while pages[-1].cursor is not None:
            pages.append(rows.find(order_by=["n"], limit=2, cursor=pages[-1].cursor))
        paged = [key for page in pages for key in page.keys]
        assert paged == ["005", "010", "015", "020", "025", "030", "035", "045", "055"]
        seen += [each.key async for each in other_log.read(after=position) if each.kind == "Row"]
        assert sorted(seen) == sorted([*paged, "001"])
        truth = [id_ for id_ in scene.ids() if not id_.startswith("row")]
        assert lines(book) == truth
        assert [id_ for id_ in truth if id_[-1] != "0"] == ["005", "001", "015", "025", "035", "045", "055"]


# 5 --------------------------------------------------------------------------------------------


TEN_MINUTES_MS: Final = 600_000


@directed
async def test_nasty_05_clock_chaos(scene: Scene) -> None:
    """Wrong clocks post nothing or push no stamp: each writer's order holds, all stamps are near the store's time."""
    began_ms = scene.store.clock.wall_ms()
    await _write_lines(scene.machine("sane"), "sane 0")
    for name, skew_ms in (("ahead", TEN_MINUTES_MS), ("behind", -TEN_MINUTES_MS)):
        with pytest.raises(ClockSkew):
            await _write_lines(scene.machine(name, skew_ms=skew_ms), "never")
    steps = scene.machine("steps", skew_ms=4_000)
    async with steps.open(quick()) as log, log.writer("steps") as writer:
        for number in range(12):
            await writer.append(line(f"steps {number}"))
            steps.clock.step(random.Random(number).choice([-TEN_MINUTES_MS, TEN_MINUTES_MS, -3_000, 3_000]))
            await asyncio.sleep(0.2)
    again = scene.machine("steps again", skew_ms=-1_900)  # behind the last segment of its last life
    async with again.open(quick()) as log, log.writer("steps") as writer, View.open(log, Book()) as view:
        assert lines(view)[-1] == "steps 11"
        for number in range(12, 15):
            await writer.append(line(f"steps {number}"))
    async with scene.machine("reader").open(quick()) as log:
        assert await lines_of(log) == ["sane 0", *(f"steps {number}" for number in range(15))]
    assert [entry.stamp for entry in scene.roster()] == sorted({entry.stamp for entry in scene.roster()})
    now_ms = scene.store.clock.wall_ms()
    assert all(began_ms - 5_000 <= stamp_ms(segment.stamp) <= now_ms + 5_000 for segment in scene.segments())


async def _write_lines(machine: Machine, *ids: str) -> None:
    async with machine.open(quick()) as log, log.writer(machine.name) as writer:
        for id_ in ids:
            await writer.append(line(id_))


@pytest.mark.parametrize("skew_ms", [TEN_MINUTES_MS, -TEN_MINUTES_MS, 4_500])
@directed
async def test_nasty_05_no_clock_shortens_the_grace(scene: Scene, skew_ms: int) -> None:
    """A keeper whose clock is wrong, or is set in the middle of its work, deletes nothing before its time."""
    await _a_day(scene)
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes")
    held = of_chapter(scene, 0)
    assert held
    keeper = scene.machine("keeper", skew_ms=skew_ms)
    async with opened(keeper) as log:
        for _ in range(3):
            with suppress(ClockSkew):
                assert [garbage.key async for garbage in log.keeper().collect()] == []
            await asyncio.sleep(GRACE_MS / 4_000)
            keeper.clock.step(TEN_MINUTES_MS)
        assert of_chapter(scene, 0) == held
    await asyncio.sleep(GRACE_MS / 1_000)
    await keep(scene)
    assert of_chapter(scene, 0) == []


async def _a_day(scene: Scene, number: int = 1, *, appends: int = 3) -> None:
    """A process writes a chapter's worth of lines, ends the chapter, and takes two snapshots."""
    async with opened(scene.machine(f"day {number}")) as log, View.open(log, Book()) as view:
        async with log.writer("web") as writer:
            for i in range(appends):
                await writer.append(line(f"{number}.{i}"))
        await log.close_chapter()
        async with log.writer("web") as writer:
            await writer.append(line(f"{number}.evening"))
        for _ in range(2):
            await view.snapshot()


# 6 --------------------------------------------------------------------------------------------


@directed
async def test_nasty_06_slow_readers_and_a_snapshot_in_the_middle(scene: Scene) -> None:
    """Who is too slow is told Trimmed, soon, and is right once it begins anew; a snapshot made meanwhile is whole."""
    await _a_day(scene, 1)
    slow, opening, gate = scene.machine("slow"), scene.machine("opening"), Gate()
    async with opened(slow) as slow_log, opening.open(SLEEPY, grace_ms=GRACE_MS) as opening_log:
        exported: list[str] = []
        export = slow_log.read()
        async with slow_log.pin("export", for_ms=round(1.5 * GRACE_MS)), View.open(slow_log, Book()) as old:
            async for each in export:
                assert each.data is not None
                exported.append(each.data["id"])
                if len(exported) == 2:
                    break
            opening.script.on("get", "/manifest/", gate.before)
            entering = asyncio.create_task(_lines_when_opened(opening_log))
            await gate.met()  # it has chosen a snapshot, and stalls
            await _a_day(scene, 2)
            await age()
            retired, _ = await keep(scene)
            assert "owner='export'" in retired[-1]
            await age()
            await _keep_while_somebody_snapshots(scene)
            await age()
            await keep(scene)
            assert of_chapter(scene, 0) == of_chapter(scene, 1) == []
            asked, began_s = slow.script.count("get"), scene.loop.time()
            with pytest.raises(Trimmed):
                await old.refresh()
            with pytest.raises(Trimmed):
                await note(slow_log.read(after=export.position), exported)
            assert exported == ["1.0", "1.1"]
            assert slow.script.count("get") - asked < 40
            assert scene.loop.time() - began_s < 5
            truth = await _lines_when_opened(slow_log)
            assert truth[:4] == ["1.0", "1.1", "1.2", "1.evening"]
            gate.open()
            assert await entering == truth
            since = [id_ async for id_ in _ids(slow_log, await slow_log.oldest())]
            assert since == truth[truth.index("2.evening") :]
    assert [finding async for finding in check(scene.world) if finding.severity == "damage"] == []


async def _lines_when_opened(log: Log) -> list[str]:
    async with View.open(log, Book()) as view:
        assert view.damage == []
        return lines(view)


async def _ids(log: Log, after: Position | None) -> AsyncIterator[str]:
    async for each in log.read(after=after):
        assert each.data is not None
        yield each.data["id"]


async def _keep_while_somebody_snapshots(scene: Scene) -> None:
    """A round of keeping; between what it lists and what it deletes another process publishes a snapshot."""
    keeper, published = scene.machine("keeper"), []

    async def publish(carry: Carry) -> Any:
        async with opened(scene.machine("folder")) as log, View.open(log, Book()) as view, log.writer("web") as writer:
            await writer.append(line("published while keeping"))
            published.append(await view.snapshot())
        return await carry()

    async with keeper.open(SLEEPY, grace_ms=GRACE_MS, history="drop") as log:
        keeper.script.on("create", "retired/", publish)
        assert [one.retired for one in await log.keeper().retire()] == [True, True, False]
        keeper.script.on("get", "/manifest/", publish)
        keeper.script.on("delete", "", publish)
        _ = [garbage async for garbage in log.keeper().collect()]
    assert len(published) >= 2
    there = {parse_key(name) for name in named(scene, ChunkKey)}
    assert all(chunk.key in there for manifest in published for chunk in manifest.chunks)


# 7 --------------------------------------------------------------------------------------------


class Words(Projection):
    name, version, kinds, fold = "words", 1, frozenset({"Row"}), "put"


class WordsTwo(Projection):
    """The next version of its reducer."""

    name, version, kinds = "words", 2, frozenset({"Row"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        return {"n": event.data["n"], "times": (state["times"] if state else 0) + 1}


@pytest.mark.parametrize("damage", ["manifest", "chunk"])
@directed
async def test_nasty_07_two_versions_at_one_point_and_one_dies(scene: Scene, damage: str) -> None:
    """A reader loads whole snapshots of its own version only; past a damaged one, an older one and replay are equal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.layout.CHUNK_BYTES_MAX", 2_000)
        patch.setattr("projections.layout.SMALL_BYTES", 1_000)
        doomed = scene.machine("doomed")
        async with (
            scene.machine("slow").open(quick()) as slow_log,
            slow_log.writer("slow") as slow,
            scene.machine("one").open(quick()) as log,
            log.writer("one") as writer,
            View.open(log, Words(), follow=True) as view,
        ):
            await writer.append_many([each for number in range(400) for each in row(number)])
            older = await view.snapshot()
            await writer.append_many([each for number in range(0, 800, 2) for each in row(number)])
            await slow.append(line("holds the watermark for a second"))
            dying = doomed.start(_die_publishing(doomed))
            await until(lambda: doomed.script.count("get", "log/slow") > 0)
            newest = await view.snapshot()
            await until(lambda: doomed.process.state.value == "crashed")
            assert not dying.done()
            assert newest.point in {(key.chapter, key.number) for key in _chunks_of(scene, doomed)}
            digest = view.digest()
    assert {
        key.fold.version for name in named(scene, ManifestKey) if isinstance(key := parse_key(name), ManifestKey)
    } == {1}
    async with scene.machine("two").open(read_only=True) as log, View.open(log, WordsTwo()) as two:
        assert two.damage == []
        assert two.get("000") == {"n": 0, "times": 2}
        assert two.get("399") == {"n": 399, "times": 1}
    reader = scene.machine("reader")
    async with reader.open(read_only=True) as log, View.open(log, Words()) as one:
        assert (one.damage, one.digest(pending=True)) == ([], digest)
    chunk = next(chunk for chunk in newest.chunks if chunk not in older.chunks)
    kind = ManifestKey if damage == "manifest" else ChunkKey
    name = next(name for name in named(scene, kind) if parse_key(name) in (newest.key, chunk.key))
    scene.store.flip(name, 5_000)
    async with scene.machine("after damage").open(read_only=True) as log, View.open(log, Words()) as one:
        assert one.digest(pending=True) == digest
        assert [name in str(error) for error in one.damage] == [True]


async def _die_publishing(machine: Machine) -> None:
    """A folder of the next version, killed when it has written a few chunks of its snapshot."""
    async with machine.open(quick()) as log, View.open(log, WordsTwo(), follow=True) as view:
        machine.script.on("create", "chunks/", _crash(machine), skip=3)
        await view.snapshot()


def _crash(machine: Machine) -> Any:
    async def act(_carry: Carry) -> Any:
        machine.process.crash()
        await asyncio.sleep(0)

    return act


def _chunks_of(scene: Scene, machine: Machine) -> list[ChunkKey]:
    """The chunks that a process has written."""
    made = [r.key for r in scene.store.requests if r.process == machine.name and r.landed]
    return [key for name in made if isinstance(key := parse_key(name), ChunkKey)]


# 8 --------------------------------------------------------------------------------------------


BATCHES: Final = 4
ON_DISK: Final = LogSettings(
    retry=RetrySettings(attempts_max=2, attempt_timeout_ms=5_000, deadline_ms=5_000, pause_first_ms=1, pause_max_ms=1)
)


def batch(number: int) -> list[Event]:
    return [line(f"{number}.{i}") for i in range(3)]


def ids_of(numbers: Sequence[int]) -> list[str]:
    return [f"{number}.{i}" for number in numbers for i in range(3)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path, time.time_ns)
    monkeypatch.setattr(local_module, "os", disk)
    return disk


async def test_nasty_08_power_cut_at_every_step(tmp_path: Path, disk: Disk) -> None:
    """Cut at any step of any append, a log opens without repair, with all that was answered, and no half of a batch."""
    acknowledged_at: list[int] = []
    async with logstore.open(LocalStore(tmp_path), settings=ON_DISK) as log, log.writer("web") as writer:
        for number in range(BATCHES):
            await writer.append_many(batch(number))
            acknowledged_at.append(len(disk.calls))
    calls, rng, platter = list(disk.calls), random.Random(8), Platter()
    lefts = dict[object, tuple[Left, int]]()
    for cut_at, call in enumerate(calls, 1):
        if platter.play(call):
            acknowledged = sum(step <= cut_at for step in acknowledged_at)
            lefts |= {left.objects: (left, acknowledged) for left in platter.left_by_power_cut(rng)}
    assert len(lefts) > BATCHES
    for number, (left, count) in enumerate(lefts.values()):
        root = tmp_path / f"cut {number}"
        root.mkdir()
        left.lay(root, time.time_ns())
        async with logstore.open(LocalStore(root), settings=ON_DISK) as log, log.writer("web") as writer:
            found = await lines_of(log)
            assert found == ids_of(range(len(found) // 3))
            assert len(found) // 3 >= count
            await writer.append_many(batch(BATCHES))
            assert await lines_of(log) == [*found, *ids_of([BATCHES])]
            assert [finding async for finding in log.check() if finding.severity == "damage"] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("step", ["write", "sync file", "link"])
async def test_nasty_08_a_disk_that_refuses(tmp_path: Path, disk: Disk, step: str, code: int) -> None:
    """No space, or an I/O error, in the middle of an append: the caller learns the truth, and the log goes on."""
    answers: list[int] = []
    async with logstore.open(LocalStore(tmp_path), settings=ON_DISK) as log, log.writer("web") as writer:
        for number in range(BATCHES):
            if number % 2:
                disk.fail[step] = OSError(code, os.strerror(code))
            call = asyncio.create_task(writer.append_many(batch(number)))
            await asyncio.wait([call])
            disk.fail.clear()
            if await told(call, log) is not None:
                answers.append(number)
        assert answers == [0, 2]
    async with logstore.open(LocalStore(tmp_path), settings=ON_DISK, read_only=True) as log:
        assert await lines_of(log) == ids_of(answers)
        assert [finding async for finding in log.check() if finding.severity == "damage"] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_nasty_08_a_directory_that_was_not_synced(tmp_path: Path, disk: Disk, code: int) -> None:
    """Nobody knows what is on the disk, so this process says so, and goes on saying so; a new one settles it."""
    async with logstore.open(LocalStore(tmp_path), settings=ON_DISK) as log, log.writer("web") as writer:
        await writer.append_many(batch(0))
        disk.fail["sync directory"] = OSError(code, os.strerror(code))
        with pytest.raises(Unknown, match="may be stored") as raised:
            await writer.append_many(batch(1))
        disk.fail.clear()
        with pytest.raises(Unavailable, match="mount it anew, then restart this process"):
            await log.resolve(raised.value)
    async with logstore.open(LocalStore(tmp_path), settings=ON_DISK) as log, log.writer("web") as writer:
        await log.resolve(raised.value)  # no power was cut: it is there, and this process has synced it
        await writer.append_many(batch(2))
        assert await lines_of(log) == ids_of(range(3))
        assert [finding async for finding in log.check() if finding.severity == "damage"] == []


# 9 --------------------------------------------------------------------------------------------


@directed
async def test_nasty_09_restored_from_a_copy(scene: Scene) -> None:
    """In a restored copy positions, cursors and questions of before are refused, or answered for what is there now."""
    backup = SimulatedStore(scene.loop, random.Random(9))
    restored = backup.face(None)
    web = scene.machine("web")
    await _write_lines(web, "saved")
    positions = [await at_the_end(scene)]
    await copy_store(scene.world, restored, clock=web.clock)
    async with web.open(quick()) as log, log.writer("web") as writer, View.open(log, Rows()) as view:
        for number in range(4):
            await writer.append_many(row(number))
        await view.refresh()
        cursor = view.find(order_by=["n"], limit=2).cursor
        positions.append(await at_the_end(scene))
        web.script.on("create", "log/web/", hang, times=ALWAYS)
        with pytest.raises(Unknown) as raised:
            await writer.append(line("unknown"))
        web.script.clear()
    clock = scene.machine("restorer").clock
    async with logstore.open(restored, settings=quick(), clock=clock) as log:
        for position in positions:  # what the first one has read is in the copy, too
            for refused in (log.read(after=position), log.follow(after=position)):
                with pytest.raises(StaleStore):
                    await anext(aiter(refused))
            with pytest.raises(StaleStore):
                await log.pin("reader", position).__aenter__()
        with pytest.raises(Missing, match="open entry is gone"):
            await log.resolve(raised.value)
        async with log.writer("web") as writer:
            asked = Question.parse(raised.value.token).receipt  # of a session that is another's here
            for number in range(100, 105):
                assert (await writer.append_many(row(number))).session == asked.session
            with pytest.raises(NotStored):
                await log.resolve(raised.value)
            async with View.open(log, Rows()) as view, View.open(log, Book()) as book:
                with pytest.raises(InvalidCursor):
                    view.find(order_by=["n"], limit=2, cursor=cursor)
                assert lines(book) == ["saved", *(f"{number}" for number in range(100, 105))]
    assert [finding async for finding in check(restored) if finding.severity == "damage"] == []


@directed
async def test_nasty_09_set_back_in_place(scene: Scene) -> None:
    """A bucket set back under old readers: their positions are StaleStore, also when others have written on since."""
    await _write_lines(scene.machine("web"), "saved")
    saved = scene.store.contents()
    reader = scene.machine("reader")
    async with reader.open(quick()) as log:
        await _write_lines(scene.machine("web again"), "gone", "gone too")
        reading = log.read(settled=True)
        assert [each.data["id"] async for each in reading if each.data] == ["saved", "gone", "gone too"]
        following = asyncio.create_task(_end_of(log.follow()))
        await asyncio.sleep(1)
        for name in scene.store.contents().keys() - saved.keys():
            scene.forget(name)
        position = moved_by(reading.position)
        await _refused(scene, position)
        for life in range(3):
            await _write_lines(scene.machine(f"later {life}"), f"later {life}")
            await _refused(scene, position)
        async with asyncio.timeout(300):
            assert isinstance(await following, Corrupt | Missing | StaleStore)
    async with scene.machine("fresh").open(quick()) as log:
        assert await lines_of(log) == ["saved", "later 0", "later 1", "later 2"]


async def _end_of(reader: Any) -> LogStoreError:
    """What ended a following."""
    try:
        async for _ in reader:
            pass
    except LogStoreError as error:
        return error
    raise AssertionError


async def _refused(scene: Scene, position: str) -> None:
    async with scene.machine(f"resumed at {scene.loop.time()}").open(quick()) as log:
        with pytest.raises(StaleStore):
            await read(log, after=position)


@pytest.mark.parametrize("alive", [True, False], ids=["its writer lives", "its writer died"])
@directed
async def test_nasty_09_newest_segments_deleted(scene: Scene, alive: bool) -> None:
    """No number is used again for what the store has lost at the end: old positions go on, or meet Missing."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer, scene.machine("reader").open(quick()) as reading:
        for number in range(6):
            await writer.append(line(str(number)))
        reader = reading.read()
        async for _ in reader:
            pass
        position, lost = moved_by(reader.position), [scene.slot("web", 1, slot) for slot in (3, 4, 5)]
        if not alive:
            web.process.crash()
        for name in lost:
            scene.store.lose(name)  # a name that comes back with another content is P4 broken: the store says so
        if alive:
            receipt = await writer.append(line("6"))
            assert (receipt.session, receipt.slot, receipt.first_seq) == (1, 6, 6)
        async with scene.machine("next life").open(quick()) as next_log, next_log.writer("web") as next_writer:
            receipt = await next_writer.append(line("7"))
            assert receipt.session > 1
        assert not [name for name in lost if name in scene.store.contents()]
        assert await lines_of(reading, after=position) == (["6", "7"] if alive else ["7"])
        async with scene.machine("fresh").open(quick()) as fresh:
            if alive:
                with pytest.raises(Missing, match=lost[0]):
                    await lines_of(fresh)
            else:
                assert await lines_of(fresh) == ["0", "1", "2", "7"]


# 10 -------------------------------------------------------------------------------------------


class Kept(MemoryStore):
    """A store that outlives the logs opened in it."""

    async def aclose(self) -> None:
        """It is closed by nobody."""


@pytest.mark.parametrize("liar", [OverwritingStore, RacyStore, RefusingOverwritingStore])
async def test_nasty_10_a_store_that_overwrites(liar: type[MemoryStore]) -> None:
    """Where create-if-absent does not hold no log is made, none is copied to, nothing is left; the doctor says why."""
    store, good = liar(), Kept()
    with pytest.raises(UnsafeStore):
        async with logstore.open(store):
            pass
    async with logstore.open(good) as log, log.writer("web") as writer:
        await writer.append(line("a"))
    with pytest.raises(UnsafeStore):
        await copy_store(good, store)
    assert [listed async for listed in store.list("")] == []
    findings = await probe(store, nonce="doctor", keys=20)
    assert "one winner" in {finding.check for finding in findings if not finding.ok}


class LaterOverwritingStore(Kept, OverwritingStore):
    """Keeps the condition until the log is made."""

    lies = False

    async def create(self, key: str, data: bytes) -> int | None:
        return await (OverwritingStore if self.lies else MemoryStore).create(self, key, data)


@pytest.mark.parametrize("names", [("web", "web"), ("one", "two")], ids=["one name", "two names"])
async def test_nasty_10_a_store_that_overwrites_later(names: tuple[str, str]) -> None:
    """A log moved into a store without the condition: the doctor says so before, the check and whoever lost after."""
    store = LaterOverwritingStore()
    async with logstore.open(store) as log, log.writer("first") as writer:
        await writer.append(line("first"))
    store.lies = True
    findings = await probe(store, nonce="doctor", keys=20)
    assert {"one winner", "no overwriting"} <= {finding.check for finding in findings if not finding.ok}
    logs = [logstore.open(store, rng=random.Random(seed)) for seed in range(2)]
    async with logs[0] as one, logs[1] as two:
        async with one.writer(names[0]) as first, two.writer(names[1]) as second:
            receipts = await asyncio.gather(first.append(line("overwritten")), second.append(line("stored")))
            assert receipts[0].session == receipts[1].session, "both were told that the entry is theirs"
        with pytest.raises(Corrupt):
            await lines_of(one)
    async with logstore.open(store, read_only=True) as log:
        assert [finding async for finding in log.check() if finding.severity == "damage"] != []


SEGMENTS: Final = 2_000
SESSIONS: Final = 40


class LyingLists(OnePageStore, DirectoryOrderStore, Kept):
    """Lists a thousand keys at most, in the order of a tree walk."""


async def _fill(store: FileStore, clock: ManualClock) -> int:
    """A log of ``SEGMENTS`` segments of a line each in ``SESSIONS`` sessions; return how many objects that are."""
    settings = LogSettings(writer=WriterSettings(flights=64))
    async with logstore.open(store, clock=clock, settings=settings) as log:
        for session in range(SESSIONS):
            async with log.writer(f"web-{session % 4}") as writer:
                for number in range(SEGMENTS // SESSIONS):
                    clock.advance(1)
                    await writer.append(Event("Line", f"row {number % 10}", "written", {"id": f"{session}.{number}"}))
        return log.requests().create.requests


@pytest.mark.parametrize("kind", [Kept, LyingLists], ids=["honest", "lists lie"])
async def test_nasty_10_cold_start_over_thousands_of_small_segments(kind: type[Kept]) -> None:
    """A GET per object and a few per session, never a LIST, in bounded memory; from a snapshot a few requests."""
    clock = ManualClock(wall_ms=1_700_000_000_000)
    store = kind(clock=clock)
    objects = await _fill(store, clock)
    findings = await probe(store, nonce="doctor", clock=clock)
    assert [finding.check for finding in findings if not finding.ok] == ([] if kind is Kept else ["listing"])
    settings = LogSettings(memory_bytes_max=1 << 20)
    async with logstore.open(store, clock=clock, settings=settings, read_only=True) as log:
        keys = [each.key async for each in log.read()]
        assert len(keys) == SEGMENTS
        cost = log.requests()
        assert cost.list.requests == 0
        assert objects <= cost.get.requests + 20
        assert cost.get.requests <= objects + 8 * SESSIONS
        assert log._objects._bytes <= 1 << 20
    async with logstore.open(store, clock=clock) as log, View.open(log, Book()) as view:
        manifest = await view.snapshot()
        digest = view.digest()
    async with logstore.open(store, clock=clock, read_only=True) as log, View.open(log, Book()) as view:
        assert (manifest.rows, view.digest(pending=True)) == (10, digest)
        cost = log.requests()
        assert cost.get.requests + cost.list.requests < 20


async def meet_at_the_roster(*machines: Machine) -> None:
    """Hold the processes' next entries until all of them are about to be created, under one number."""
    gates = [Gate() for _ in machines]
    for machine, gate in zip(machines, gates, strict=True):
        machine.script.on("create", "roster/", gate.before)
    for gate in gates:
        await gate.met()
    for gate in gates:
        gate.open()


class NegativeCache:
    """What a process sees through a cache that goes on saying 404 for a while, whatever was created since."""

    def __init__(self, machine: Machine, keeps_s: float) -> None:
        self._store, self._loop, self._keeps_s = machine.face, machine.scene.loop, keeps_s
        self._absent_s: dict[str, float] = {}
        self.remote = machine.face.remote

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        since_s = self._absent_s.get(key)
        if since_s is not None and self._loop.time() - since_s < self._keeps_s:
            raise NotFound(f"cached key={key}", now_ms=self._store.store.clock.wall_ms())
        try:
            return await self._store.get(key, start, stop)
        except NotFound:
            self._absent_s[key] = self._loop.time()
            raise


@directed
async def test_nasty_10_cached_404s(scene: Scene) -> None:
    """Where a cache tells absence for seconds, the doctor says so; what is answered is true, and there in time."""
    machines = [scene.machine(name) for name in "ab"]
    for machine in machines:
        machine.script = Script(NegativeCache(machine, keeps_s=3))
    stored: list[str] = []
    readings: list[list[str]] = []
    complaints: list[LogStoreError] = []

    async def write(name: str) -> None:
        machine = machines["ab".index(name)]
        async with machine.open(quick()) as log, log.writer(name) as writer:
            for number in range(10):
                try:
                    await writer.append(line(f"{name} {number}"))
                    stored.append(f"{name} {number}")
                    readings.append(await lines_of(log))
                except LogStoreError as error:
                    complaints.append(error)
                await asyncio.sleep(random.Random(f"{name} {number}").uniform(0, 1))

    await _write_lines(scene.machine("first"), "first")
    doctor = scene.machine("doctor")
    findings = await probe(NegativeCache(doctor, keeps_s=3), nonce="doctor", keys=20, clock=doctor.clock)
    assert [finding.check for finding in findings if not finding.ok] == ["visibility"]
    await asyncio.gather(write("a"), write("b"), meet_at_the_roster(*machines))
    assert {type(error) for error in complaints} <= {NotStored, Unavailable, Missing}
    async with scene.machine("fresh").open(quick()) as log:
        found = await lines_of(log)
    assert sorted(found) == sorted(["first", *stored])
    assert len(stored) > 10
    for name in "ab":
        whole = [id_ for id_ in found if id_.startswith(name)]
        seen = [[id_ for id_ in reading if id_.startswith(name)] for reading in readings]
        assert all(part == whole[: len(part)] for part in seen)


@directed
async def test_nasty_10_two_instances_of_one_name(scene: Scene) -> None:
    """Two processes that go by one name do not disturb each other: each has its session, and keeps all it stored."""

    async def write(machine: Machine) -> None:
        async with machine.open(quick()) as log, log.writer("web") as writer:
            for number in range(20):
                await writer.append(line(f"{machine.name} {number}"))
                await asyncio.sleep(0.01)

    await _write_lines(scene.machine("first"), "first")
    machines = [scene.machine(name) for name in ("one", "two")]
    await asyncio.gather(*map(write, machines), meet_at_the_roster(*machines))
    assert len({segment.key.session for segment in scene.segments("log/web/")}) == 2
    async with scene.machine("reader").open(quick()) as log:
        found = await lines_of(log, settled=True)
    for name in ("one", "two"):
        assert [id_ for id_ in found if id_.startswith(name)] == [f"{name} {number}" for number in range(20)]
