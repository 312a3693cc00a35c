"""DESIGN's promises, each in its own words, held against several processes at once.

The corners of each are in the files named after the parts; here is what a user relies on. P8 (convergence) is held
over a plain fold here; views have tests of their own. Random histories for P10 are in test_snapshots.py; what P11 asks
of a sleeper is in test_looks.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import pytest

from logstore import (
    Corrupt,
    Event,
    Log,
    LogSettings,
    Missing,
    NotStored,
    Receipt,
    StoredEvent,
    Trimmed,
    Unavailable,
    Unknown,
    Writer,
    WriterSettings,
)
from logstore.keys import EntryKey, ManifestKey, SegmentKey, parse_key, retired_key
from logstore.testing.simulation import Weather
from projections import Projection, View
from tests.scene import Gate, Machine, Scene, directed, event, events, hang, moved_by, quick, read, refuse, take
from tests.test_keeper import age, keep, opened
from tests.test_looks import note
from tests.test_snapshots import Diary, DiaryAgain, named

FAST = WriterSettings(idle_ms=500, idle_ms_max=1_000, flights=3)
STORMY = Weather(
    slow=0.05, throttled=0.08, conflict=0.05, unsent=0.05, lost=0.1, late=0.08, silent=0.05, late_ms=20_000
)


class Ledger:
    """What callers were told."""

    def __init__(self) -> None:
        self.stored: dict[str, Receipt] = {}
        self.refused: set[str] = set()
        self.unknown: dict[str, Unknown] = {}
        self.pending: set[str] = set()

    def note(self, key: str, result: Receipt | BaseException) -> None:
        self.pending.discard(key)
        match result:
            case Receipt():
                self.stored[key] = result
            case Unknown():
                self.unknown[key] = result
            case NotStored():
                self.refused.add(key)
            case _:
                raise result

    async def settle(self, log: Log) -> None:
        """Resolve what is unknown."""
        for key, unknown in list(self.unknown.items()):
            try:
                self.stored[key] = await log.resolve(unknown)
            except NotStored:
                self.refused.add(key)
            del self.unknown[key]


async def live(machine: Machine, ledger: Ledger, name: str, count: int, rng: random.Random) -> None:
    """A process that appends in bursts until it is done, or dead."""
    machine.face.weather = Weather()
    async with machine.open(quick(writer=FAST)) as log, log.writer(name) as writer:
        machine.face.weather = machine.scene.weather

        async def append(key: str) -> None:
            ledger.pending.add(key)
            try:
                ledger.note(key, await writer.append(event(key)))
            except (NotStored, Unknown) as error:
                ledger.note(key, error)

        number = 0
        while number < count:
            burst = min(rng.choice([1, 1, 2, 5]), count - number)
            await asyncio.gather(*(append(f"{machine.name}.{number + i:03}") for i in range(burst)))
            number += burst
            await asyncio.sleep(rng.choice([0, 0, 0.01, 0.2, 1.2]))
        machine.face.weather = Weather()


async def world(scene: Scene, ledger: Ledger, seed: int, *, kill: bool = True) -> None:
    """Five processes, two of one name; some are killed and start again, one is stopped for long."""
    rng = random.Random(seed)

    async def fate(i: int) -> None:
        name = "web" if i < 2 else f"w{i}"
        for life in range(3):
            machine = scene.machine(f"{i}.{life}", skew_ms=rng.randint(-900, 900))
            living = machine.start(live(machine, ledger, name, 25, rng))
            if i % 2 == 0 and kill:
                await asyncio.sleep(rng.uniform(0.1, 2))
                machine.process.crash()
            elif i == 3:
                await asyncio.sleep(rng.uniform(0.1, 1))
                machine.process.pause()
                await asyncio.sleep(rng.uniform(1, 15))
                machine.process.resume()
                await living
            else:
                await living

    await asyncio.gather(*(fate(i) for i in range(5)))
    await asyncio.sleep(30)


async def events_of(log: Log, *, settled: bool = False) -> list[StoredEvent]:
    return [each async for each in log.read(settled=settled)]


@pytest.mark.parametrize("seed", range(4))
@directed
async def test_p1_what_was_acknowledged_survives_the_death_of_any_process(scene: Scene, seed: int) -> None:
    """P1 Durable: after kills and pauses at random every acknowledged event is there, where its receipt says."""
    ledger = Ledger()
    await world(scene, ledger, seed)
    async with scene.machine("reader").open() as log:
        await ledger.settle(log)
        found = {each.key: each for each in await events_of(log)}
    assert len(ledger.stored) > 50
    for key, receipt in ledger.stored.items():
        assert key in found, f"seed {seed}"
        place = (found[key].writer, found[key].chapter, found[key].session, found[key].seq)
        assert place == (receipt.writer, receipt.chapter, receipt.session, receipt.first_seq), f"seed {seed}"


@directed
async def test_p2_a_batch_is_visible_whole_or_not_at_all(scene: Scene) -> None:
    """P2 Atomic: no reader, at whatever moment, with whatever death in between, sees a part of a batch."""
    rng = random.Random(2)

    async def write(machine: Machine) -> None:
        async with machine.open(quick(writer=FAST)) as log, log.writer("web") as writer:
            for i in range(60):
                await writer.append_many([event(f"{machine.name}.{i}") for _ in range(7)])

    async with scene.machine("reader").open() as log:
        for life in range(4):
            machine = scene.machine(f"m{life}")
            living = machine.start(write(machine))
            for _ in range(8):
                await asyncio.sleep(rng.uniform(0, 0.1))
                stored = await read(log)
                assert all(stored.count(key) == 7 for key in set(stored))
            machine.process.crash()
            assert not living.done() or life >= 0


@directed
async def test_p3_who_has_seen_an_event_has_seen_all_before_it(scene: Scene) -> None:
    """P3 No gaps: each session is yielded in order, from its first event, whatever order its slots landed in."""
    ledger = Ledger()
    scene.weather = Weather(slow=0.3, slow_ms=200)
    seen: list[StoredEvent] = []

    async def follow() -> None:
        async with scene.machine("reader").open(quick()) as log:
            async for each in log.follow():
                seen.append(each)  # noqa: PERF401  until it is cancelled

    following = asyncio.create_task(follow())
    await world(scene, ledger, 3)
    following.cancel()
    sessions: dict[tuple[int, int], list[int]] = {}
    for each in seen:
        sessions.setdefault((each.chapter, each.session), []).append(each.seq)
    assert len(sessions) > 5
    assert all(seqs == list(range(len(seqs))) for seqs in sessions.values())


@directed
async def test_p4_no_name_is_ever_used_for_two_contents(scene: Scene) -> None:
    """P4 Never overwritten: nothing is deleted, and no object ever changes, in bad weather too."""
    scene.weather = STORMY
    ledger = Ledger()
    living = asyncio.create_task(world(scene, ledger, 4))
    before: dict[str, bytes] = {}
    while not living.done():
        await asyncio.sleep(0.5)
        now = scene.store.contents()
        lasting = {name: data for name, data in before.items() if not name.startswith("probe/")}
        assert lasting.items() <= now.items()
        before = now
    await living


@directed
async def test_p5_writers_do_not_contend(scene: Scene) -> None:
    """P5 No contention: with 30 writers at full speed each append is one creation under its own prefix."""

    async def write(i: int) -> list[tuple[str, str]]:
        machine = scene.machine(f"m{i}")
        async with machine.open() as log, log.writer("web") as writer:
            await writer.append(event(f"{i}.first"))
            asked = len(machine.script.asked)
            for j in range(20):
                await writer.append(event(f"{i}.{j}"))
            return machine.script.asked[asked:]

    prefixes = []
    for asked in await asyncio.gather(*(write(i) for i in range(30))):
        assert len(asked) == 20
        assert {verb for verb, _ in asked} == {"create"}
        prefixes += list({key.rsplit("/", 1)[0] for _, key in asked})
    assert len(set(prefixes)) == len(prefixes) == 30


@pytest.mark.parametrize("seed", range(4))
@directed
async def test_p6_one_copy_or_none_and_the_caller_learns_which(scene: Scene, seed: int) -> None:
    """P6 Exactly one copy: returned = there once; NotStored = never there; Unknown = resolved to one of both."""
    scene.weather = STORMY
    ledger = Ledger()
    await world(scene, ledger, seed, kill=False)
    scene.weather = Weather()
    async with scene.machine("reader").open() as log:
        await ledger.settle(log)
        stored = await read(log)
    assert ledger.pending == set(), f"seed {seed}"
    assert sorted(stored) == sorted(ledger.stored), f"seed {seed}"
    assert ledger.refused.isdisjoint(stored)


@directed
async def test_p7_one_order_for_all_that_respects_writers_and_causality(scene: Scene) -> None:
    """P7 One order: settled readers agree for ever; each writer's order holds; what was read before comes before."""
    async with (
        scene.machine("a", skew_ms=900).open(quick()) as one,
        scene.machine("b", skew_ms=-900).open(quick()) as two,
        one.writer("a") as first,
        two.writer("b") as second,
        scene.machine("reader").open(quick()) as third,
    ):
        ping, pong = two.follow(), one.follow()
        settled: list[list[str]] = []
        for i in range(20):
            await first.append(event(f"{i}.ping"))
            while (await take(ping, 1)) != [f"{i}.ping"]:
                pass
            await second.append(event(f"{i}.pong"))
            while (await take(pong, 1)) != [f"{i}.pong"]:
                pass
            settled.append(await read(third, settled=True))
        await first.aclose()
        await second.aclose()
        order = await read(third, settled=True)
    assert order == [f"{i}.{what}" for i in range(20) for what in ("ping", "pong")]
    assert all(order[: len(earlier)] == earlier for earlier in settled)


@directed
async def test_p8_folds_converge_whatever_the_way_they_were_fed(scene: Scene) -> None:
    """P8 Convergent: read at once, in pieces, followed through restarts: the same order, so the same digest."""
    ledger = Ledger()
    following: list[str] = []

    async def restart_again_and_again() -> None:
        position = None
        for i in range(10_000):
            async with scene.machine(f"f{i}").open(quick()) as log:
                reader = log.follow(after=position, settled=True)
                try:
                    following.extend(await take(reader, 17, timeout=40))
                except TimeoutError:
                    return
                position = moved_by(reader.position)

    restarting = asyncio.create_task(restart_again_and_again())
    await world(scene, ledger, 8)
    await restarting
    wholes = []
    for bytes_max in (1, 100_000, 10**8):
        async with scene.machine(f"r{bytes_max}").open(LogSettings(memory_bytes_max=bytes_max)) as log:
            wholes.append(await read(log, settled=True))
    assert len({hashlib.sha256("\n".join(whole).encode()).hexdigest() for whole in wholes}) == 1
    assert len(following) > 17
    assert wholes[0][: len(following)] == following


@directed
async def test_p9_read_your_writes_and_never_go_back(scene: Scene) -> None:
    """P9: after an append the own process reads it at once; a reader restarted from its position never sees less."""
    async with scene.machine("web").open(quick(follow_ms=60_000)) as log, log.writer("web") as writer:
        reader = log.follow()
        await writer.append(event("first"))
        assert await take(reader, 1) == ["first"]
        with pytest.raises(TimeoutError):
            await take(reader, 1, timeout=1)  # from here on it follows
        for i in range(50):
            await writer.append(event(f"e{i}"))
            began_s = scene.loop.time()
            assert await take(reader, 1) == [f"e{i}"]
            assert scene.loop.time() - began_s < 0.001


@directed
async def test_p10_a_snapshot_and_the_rest_is_the_whole_at_every_cut(scene: Scene) -> None:
    """P10 Snapshot = replay: from any snapshot, and at any moment, a view equals one folded from the beginning.

    The fold minds the order, writers go on while snapshots are taken, and one event comes late around a cut.
    """
    rng, stamps = random.Random(10), set[int]()
    slow, refusing = scene.machine("slow"), scene.machine("two")
    async with (
        slow.open(quick(deadline_ms=20_000)) as slow_log,
        slow_log.writer("slow") as late,
        scene.machine("one").open(quick()) as one,
        refusing.open(quick()) as two,
        one.writer("one") as first,
        two.writer("two") as second,
        View.open(one, Diary(), follow=True) as early,
        View.open(two, Diary(), follow=True) as later,
    ):
        for turn in range(10):
            for _ in range(rng.randint(1, 4)):
                batch = [note_of(rng) for _ in range(rng.randint(1, 2))]
                stamps.add((await rng.choice([first, second]).append_many(batch)).stamp)
            if turn == 4:
                assert await one.close_chapter()
            if turn == 6:  # one snapshot comes to nothing, after its cut
                await later.snapshot()
                stamps.add((await first.append_many([note_of(rng) for _ in range(5)])).stamp)
                rule = refusing.script.on("create", "/manifest/", refuse, times=10**9)
                with pytest.raises(Unavailable):
                    await later.snapshot()
                rule.times = 0
            elif turn % 3 == 1:
                gate = Gate()
                slow.script.on("create", "log/slow/", gate.before)
                overdue = asyncio.create_task(late.append(note_of(rng)))
                await gate.met()
                snapshot = asyncio.create_task((early, later)[turn % 2].snapshot())
                await asyncio.sleep(0.3)
                stamps.add((await second.append(note_of(rng))).stamp)  # above the point, and seen before it is settled
                await asyncio.sleep(0.2)
                gate.open()
                receipt, manifest = await overdue, await snapshot
                assert receipt.stamp < manifest.stamp
                stamps.add(receipt.stamp)
            elif turn % 2 == 0:
                await (early, later)[turn % 4 // 2].snapshot()
        await one.settled(await first.append(note_of(rng)), timeout=60)
    async with scene.machine("replay").open(quick()) as log, View.open(log, DiaryAgain()) as whole:
        digest = whole.digest()
        for stamp in sorted(stamps):
            async with View.open(log, Diary(), at=stamp) as past, View.open(log, DiaryAgain(), at=stamp) as replayed:
                assert past.digest() == replayed.digest()
    manifests = named(scene, ManifestKey)
    assert len(manifests) >= 6
    while manifests:
        reader = scene.machine(f"from {manifests[-1]}")
        async with reader.open(quick(), read_only=True) as log, View.open(log, Diary()) as view:
            assert (view.digest(pending=True), view.damage) == (digest, [])
            assert reader.script.count("get", manifests[-1]) == 1, "it began there"
        scene.store.lose(manifests.pop())


def note_of(rng: random.Random) -> Event:
    return Event("Thing", f"k-{rng.randrange(5)}", "done", {"n": rng.randrange(30), "id": f"{rng.random()}"})


class Counted(Projection):
    """How often each event was folded in."""

    name, kinds = "counted", frozenset({"Thing"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"times": (state["times"] if state else 0) + 1}


@directed
async def test_p11_retention_is_safe_for_all_who_live_with_it(scene: Scene) -> None:
    """P11: only whole chapters go, views stay right, the slow is Trimmed and then right, the sleeper told the truth."""
    stored: list[str] = []
    sleeper, slow = scene.machine("sleeper"), scene.machine("slow")
    seen: list[str] = []

    async def sleep_through_it() -> Receipt:
        async with opened(sleeper) as log, log.writer("sleeper") as writer:
            await writer.append(event("before its sleep"))
            sleeper.process.pause()
            await asyncio.sleep(0.001)
            return await writer.append(event("after its sleep"))

    async def follow_slowly() -> list[str]:
        async with opened(slow) as log:
            with pytest.raises(Trimmed):
                await note(log.follow(), seen)
            async with View.open(log, Counted()) as view:
                return counted(view)

    async def open_now_and_then(name: str) -> None:
        for turn in range(3):
            before = list(stored)
            async with opened(scene.machine(f"{name} {turn}")) as log, View.open(log, Counted()) as view:
                assert view.damage == []
                assert set(before) <= set(counted(view))
            await asyncio.sleep(random.Random(f"{name} {turn}").uniform(0, 8))

    sleeping, following = sleeper.start(sleep_through_it()), slow.start(follow_slowly())
    await asyncio.sleep(1)
    stored.append("before its sleep")
    async with opened(scene.machine("witness")) as log, View.open(log, Counted(), follow=True) as witness:
        for day in range(3):
            async with log.writer("web") as writer:
                for number in range(4):
                    await writer.append(event(f"{day}.{number}"))
                    stored.append(f"{day}.{number}")
                slow.process.pause()
                await log.close_chapter()
                running_on = asyncio.create_task(run_on(writer, f"{day}.night", stored))
                await keep(scene)  # nothing covers it yet
                for _ in range(2):
                    await witness.snapshot()
                await running_on
            for _ in range(2):
                await age()
                await asyncio.gather(keep(scene), open_now_and_then(f"day {day}"))
                only_whole_chapters_went(scene)
            for _ in range(2):
                await witness.snapshot()
        for _ in range(2):
            await age()
            await keep(scene)
        only_whole_chapters_went(scene)
        assert retired_key(2) in scene.store.contents()
        assert not [name for name in scene.store.contents() if name.startswith(("log/sleeper", "roster/0000000000/"))]
        sleeper.process.resume()
        slow.process.resume()
        receipt = await sleeping
        assert receipt.chapter > 2
        stored.append("after its sleep")
        await witness.wait_for(receipt, timeout=60)
        assert counted(witness) == sorted(stored)
        async with asyncio.timeout(300):
            assert set(await following) >= set(stored[:-1])
        assert seen == ["before its sleep", *(f"0.{number}" for number in range(4))][: len(seen)]


async def run_on(writer: Writer, name: str, stored: list[str]) -> None:
    """A session of a closed chapter that goes on for a while."""
    for number in range(24):
        await writer.append(event(f"{name}.{number}"))
        stored.append(f"{name}.{number}")
        await asyncio.sleep(0.3)


def counted(view: View) -> list[str]:
    """The keys that a view of ``Counted`` holds; each was folded in once."""
    assert all(view.get(key) == {"times": 1} for key in view.keys())  # noqa: SIM118  a view is no dict
    return sorted(view.keys())


def only_whole_chapters_went(scene: Scene) -> None:
    """Of each chapter all that was ever stored is there, or nothing, and a record that says so."""
    there, chapters = scene.store.contents(), dict[int, list[str]]()
    for name in scene.store.ever():
        if isinstance(key := parse_key(name), EntryKey | SegmentKey):
            chapters.setdefault(key.chapter, []).append(name)
    for chapter, names in chapters.items():
        left = [name for name in names if name in there]
        assert left == names or (left == [] and retired_key(chapter) in there), chapter


@pytest.mark.parametrize("bit", [3, 700, 2_500])
@directed
async def test_p12_damage_to_any_object_is_found(scene: Scene, bit: int) -> None:
    """P12: a flipped bit in, or the loss of, any object but the last few is Corrupt or Missing, naming the object."""
    async with scene.machine("a").open(quick()) as log:
        for name in ("a", "b"):
            async with log.writer(name) as writer:
                for i in range(6):
                    await writer.append(event(f"{name}{i}"))
    contents = scene.store.contents()
    last_entry = max(name for name in contents if name.startswith("roster/"))
    for name, data in contents.items():
        if name.startswith("probe/"):
            continue
        key = parse_key(name)
        foreign = bytes(each ^ 1 for each in data[:1]) + data[1:]
        for damage in (None, data[: bit // 8 % len(data)], b"", bytes(len(data)), foreign):
            scene.forget(name)
            if damage is not None:
                await scene.world.create(name, damage)
            error = await reading(scene)
            unnoticed = damage is None and (name == last_entry or (isinstance(key, SegmentKey) and key.slot >= 3))
            if error is None:
                assert unnoticed, f"{name} {damage!r:.20}"
            else:
                assert name in str(error), f"{name} {damage!r:.20} {error!r}"
            scene.forget(name)
            await scene.world.create(name, data)


async def reading(scene: Scene) -> Corrupt | Missing | None:
    """What a new process meets when it reads everything."""
    try:
        async with scene.machine("reader").open(quick(), create=False) as log:
            await read(log)
    except (Corrupt, Missing) as error:
        return error
    return None


@directed
async def test_p13_everything_ends_though_nothing_answers(scene: Scene) -> None:
    """P13 Bounded: with a store that went silent appends, reads, settling and closing all end in bounded time."""
    web = scene.machine("web")
    async with web.open(quick()) as log:
        writer = log.writer("web")
        receipt = await writer.append(event("a"))
        following = asyncio.create_task(take(log.follow(), 9, timeout=10**6))
        await asyncio.sleep(1)
        for verb in ("create", "get", "list", "delete"):
            web.script.on(verb, "", hang, times=10**9)
        began_s = scene.loop.time()
        calls = [writer.append_many(events(*(f"{i}.{j}" for j in range(100)))) for i in range(100)]
        results = await asyncio.gather(
            *calls,
            read(log, after=None),
            log.close_chapter(),
            log.settled(receipt, timeout=20),
            return_exceptions=True,
        )
        assert all(isinstance(result, Exception) for result in results[:100])
        assert {type(result) for result in results[:100]} <= {Unknown, NotStored, Unavailable}
    assert scene.loop.time() - began_s < 120
    following.cancel()


@directed
async def test_p14_an_idle_system_is_cheap(scene: Scene) -> None:
    """P14 Cheap: three processes, 20 minutes of nothing: no creation, no LIST, about a GET per poll each."""
    logs: list[Log] = []

    async def idle(i: int) -> tuple[int, int, int]:
        machine = scene.machine(f"m{i}")
        settings = LogSettings(follow=None)
        scene.store.remote = True
        machine.script.remote = True
        async with machine.open(settings) as log, log.writer(f"w{i}") as writer:
            logs.append(log)
            await writer.append(event(f"e{i}"))
            following = asyncio.create_task(take(log.follow(settled=True), 99, timeout=10**6))
            await asyncio.sleep(300)
            before = log.requests()
            await asyncio.sleep(1_200)
            cost = log.requests() - before
            following.cancel()
            return cost.create.requests, cost.list.requests, cost.get.requests

    for creates, lists, gets in await asyncio.gather(*(idle(i) for i in range(3))):
        assert (creates, lists) == (0, 0)
        assert gets <= 1_200 / 1.6 + 2 * 21 + 5
