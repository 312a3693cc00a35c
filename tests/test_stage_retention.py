"""Stage logs that go: when, what is deleted then, and that nobody who slept through it gets a false answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest

import logstore
from logstore import (
    Conflict,
    Corrupt,
    InvalidArgument,
    KeepSettings,
    Log,
    LogSettings,
    LogStoreError,
    NotFound,
    RetrySettings,
    Stage,
    StageId,
    StageLogs,
    Trimmed,
    Unavailable,
)
from logstore.gone import Gone, decode_gone
from logstore.keys import StageGoneKey, StagePageKey, parse_key
from logstore.stagepage import Page, decode_page
from logstore.testing.simulation import Weather
from projections import keep
from tests.scene import Gate, Machine, Scene, directed, hang, lose, quick
from tests.test_stagelogs import GRACE_MS, ID, block, blocks, chain, fetched, followed, gone_name, name_of, stage_of

GRACE_S: Final = GRACE_MS / 1000
AGE_S: Final = 3 * GRACE_S
KEEP: Final = KeepSettings(stage_logs_age_ms=round(AGE_S * 1000))
OTHER: Final = StageId("d/1", "apply", 1)


BRAVE: Final = LogSettings(retry=RetrySettings(attempt_timeout_ms=2_000, deadline_ms=5_000))
PATIENT: Final = LogSettings(retry=RetrySettings(attempt_timeout_ms=300_000, deadline_ms=10**6))


@asynccontextmanager
async def opened(machine: Machine, settings: LogSettings | None = None) -> AsyncIterator[Log]:
    async with machine.open(settings or quick(), grace_ms=GRACE_MS) as log:
        yield log


async def write(scene: Scene, *indices: int, stage: StageId = ID, complete: bool = False) -> None:
    """A process that appends a page for each index, and ends."""
    async with opened(scene.machine(f"writer of {indices} at {scene.loop.time()}")) as log:
        for index in indices:
            await stage_of(log, stage).append(blocks(index))
        if complete:
            await stage_of(log, stage).complete()


async def age(seconds: float = AGE_S) -> None:
    """Time passes; and the error with which a store's times are known."""
    await asyncio.sleep(seconds + 3)


async def round_of(
    scene: Scene, settings: KeepSettings = KEEP, *, dry_run: bool = False
) -> tuple[list[str], list[str]]:
    """A keeper that has just started: what it drops, or keeps and why, and what it deletes."""
    async with opened(scene.machine(f"keeper at {scene.loop.time()}")) as log:
        keeper = log.keeper(settings)
        dropped = [
            f"{one.stage} {'dropped' if one.dropped else 'kept'}: {one.why}"
            async for one in keeper.drop_stage_logs(dry_run=dry_run)
        ]
        return dropped, [garbage.key async for garbage in keeper.collect(dry_run=dry_run)]


async def let_go(scene: Scene) -> None:
    """Everything is old, dropped, and deleted."""
    await age()
    dropped, _ = await round_of(scene)
    assert [line.split(" ")[1] for line in dropped] == ["dropped:"]
    await age(GRACE_S)
    _, deleted = await round_of(scene)
    assert deleted


def of_stage_logs(scene: Scene) -> list[str]:
    return scene.store.keys("stagelogs/")


async def trimmed(work: Awaitable[Any]) -> None:
    with pytest.raises(Trimmed, match=r"^retention removed this stage log stage_log=d/1/apply/0; [^\n]*$"):
        await work


async def gone_for_all(scene: Scene, stage: Stage) -> None:
    """Whoever asks, and however, is told that it is gone."""
    async with opened(scene.machine(f"asks at {scene.loop.time()}")) as log:
        for one in (stage, stage_of(log)):
            await trimmed(one.fetch())
            await trimmed(one.fetch(10**6))
            await trimmed(followed(one))
            await trimmed(one.append(blocks(0)))
            await trimmed(one.append(blocks(99)))
            await trimmed(one.complete())


# When it goes -----------------------------------------------------------------------------------


@directed
async def test_a_stage_log_goes_by_age(scene: Scene) -> None:
    """Old and complete: its record first, for ever; a grace later its pages; Trimmed for all from the record on."""
    await write(scene, 0, 1, complete=True)
    await write(scene, 0, stage=OTHER)
    await age(AGE_S / 2)
    assert await round_of(scene) == ([], [])
    await write(scene, 1, stage=OTHER)
    await age(AGE_S / 2)
    pages = of_stage_logs(scene)[:3]
    async with opened(scene.machine("holder")) as log:
        stage = stage_of(log)
        dropped, deleted = await round_of(scene)
        assert dropped == ["d/1/apply/0 dropped: nothing was added for long"]
        assert deleted == []
        record = decode_gone(ID, scene.store.contents()[gone_name()])
        assert record == Gone(ID, 3, scene.store.contents()[pages[2]][144:176])
        await gone_for_all(scene, stage)
    await age(GRACE_S / 2)
    assert await round_of(scene) == ([], [])
    await age(GRACE_S / 2)
    assert await round_of(scene) == ([], pages)
    assert of_stage_logs(scene) == [gone_name(), name_of(0, OTHER), name_of(1, OTHER)]
    async with opened(scene.machine("later")) as log:
        await gone_for_all(scene, stage_of(log))
        assert await StageLogs(log).stages("d/1") == [OTHER]
        assert await fetched(stage_of(log, OTHER)) == ([0, 1], False)


@directed
async def test_by_default_stage_logs_are_kept(scene: Scene) -> None:
    """Who sets no age drops none, however old; what another has dropped is deleted all the same."""
    await write(scene, 0, complete=True)
    await age(100 * GRACE_S)
    assert await round_of(scene, KeepSettings()) == ([], [])
    await round_of(scene)
    await age(GRACE_S)
    assert await round_of(scene, KeepSettings()) == ([], [name_of(0), name_of(1)])


@directed
async def test_a_dry_run_names_them_and_writes_nothing(scene: Scene) -> None:
    """It says which stage logs would be dropped, and which pages deleted, as the run after it does."""
    await write(scene, 0)
    await age()
    before = scene.store.contents()
    assert await round_of(scene, dry_run=True) == (
        ["d/1/apply/0 dropped: it would be dropped: nothing was added for long"],
        [],
    )
    assert scene.store.contents() == before
    await round_of(scene)
    await age(GRACE_S)
    before = scene.store.contents()
    _, named = await round_of(scene, dry_run=True)
    assert scene.store.contents() == before
    async with opened(scene.machine("one keeper")) as log:
        keeper = log.keeper(KEEP)
        for dry_run in (True, False):
            assert [one.key async for one in keeper.collect(dry_run=dry_run)] == named == [name_of(0), name_of(1)]
    assert await round_of(scene) == ([], [])


@pytest.mark.parametrize("age_ms", [0, 1, GRACE_MS - 1])
@directed
async def test_an_age_below_the_grace_is_refused(scene: Scene, age_ms: int) -> None:
    """A slip of the pen must not take what is being written."""
    async with opened(scene.machine("web")) as log:
        with pytest.raises(InvalidArgument, match="stage_logs_age_ms"):
            log.keeper(KeepSettings(stage_logs_age_ms=age_ms))


@directed
async def test_what_nobody_completed_is_completed_before_it_goes(scene: Scene) -> None:
    """Its writer, which holds a fresh look, is refused from then on: nothing is acknowledged that goes with it."""
    async with opened(scene.machine("web")) as log, opened(scene.machine("reader")) as other:
        stage, reader = stage_of(log), stage_of(other)
        await stage.append(blocks(0))
        following = asyncio.create_task(followed(reader))
        await age(AGE_S - GRACE_S / 4)
        await stage.append(blocks(0))  # nothing new, but it looks whether the stage log is gone
        await age(GRACE_S / 4)
        gate = Gate()
        keeper = scene.machine("keeper")
        keeper.script.on("create", "gone", gate.before)

        async def drop() -> list[str]:
            async with opened(keeper) as keeping:
                return [one.why async for one in keeping.keeper(KEEP).drop_stage_logs()]

        dropping = asyncio.create_task(drop())
        await gate.met()
        assert chain(scene.store.contents()) == [[0], []]
        with pytest.raises(Conflict, match="retention completed this stage log, no block can be added"):
            await stage.append(blocks(1))
        assert await following == [0]
        gate.open()
        assert await dropping == ["nothing was added for long"]
        assert decode_gone(ID, scene.store.contents()[gone_name()]).pages == 2


@directed
async def test_one_that_goes_on_meanwhile_stays(scene: Scene) -> None:
    """An append between the listing and the completion: it wins, is acknowledged, and the stage log is not dropped."""
    async with opened(scene.machine("web")) as log:
        stage, keeper, gate = stage_of(log), scene.machine("keeper"), Gate()
        await stage.append(blocks(0))
        await age()
        keeper.script.on("create", "stagelogs/", gate.before)

        async def drop() -> list[str]:
            async with opened(keeper) as keeping:
                return [one.why async for one in keeping.keeper(KEEP).drop_stage_logs()]

        dropping = asyncio.create_task(drop())
        await gate.met()
        await stage.append(blocks(1))
        gate.open()
        assert await dropping == []
        assert gone_name() not in scene.store.contents()
        await stage.append(blocks(2))
    assert chain(scene.store.contents()) == [[0], [1], [2]]


@pytest.mark.parametrize("act", [lose, hang])
@directed
async def test_a_keeper_whose_answers_are_lost_drops_it_all_the_same(scene: Scene, act: Any) -> None:
    """Its own completion, met at a second attempt, is as good as one that was answered."""
    await write(scene, 0)
    await age()
    keeper = scene.machine("keeper")
    for name in ("0000000001", "gone"):
        keeper.script.on("create", name, act)
    async with opened(keeper) as log:
        assert [one.dropped async for one in log.keeper(KEEP).drop_stage_logs()] == [True]
    assert chain(scene.store.contents()) == [[0], []]
    assert gone_name() in scene.store.contents()


@directed
async def test_a_damaged_stage_log_stays_and_is_said(scene: Scene) -> None:
    """Nobody knows where it ends: it is neither completed nor dropped, and others go all the same."""
    await write(scene, 0, 1)
    await write(scene, 0, stage=OTHER)
    scene.store.flip(name_of(1), 999)
    await age()
    dropped, _ = await round_of(scene)
    assert dropped[0].startswith("d/1/apply/0 kept: Corrupt: ")
    assert dropped[1:] == ["d/1/apply/1 dropped: nothing was added for long"]
    assert gone_name() not in scene.store.contents()


@directed
async def test_an_old_listing_drops_nothing_that_is_new(scene: Scene) -> None:
    """A keeper that slept between its listing and its completion finds the end where it is, not where it was."""
    async with opened(scene.machine("web")) as log:
        stage, keeper = stage_of(log), scene.machine("keeper")
        await stage.append(blocks(0))
        await age()
        gate = Gate()
        keeper.script.on("get", name_of(0), gate.before)

        async def drop(settings: LogSettings) -> list[str]:
            async with opened(keeper, settings) as keeping:
                return [one.why async for one in keeping.keeper(KEEP).drop_stage_logs()]

        dropping = keeper.start(drop(PATIENT))
        await gate.met()
        keeper.process.pause()
        await stage.append(blocks(1))
        await stage.complete()
        await asyncio.sleep(GRACE_S)
        keeper.process.resume()
        gate.open()
        assert await dropping == []
        assert await fetched(stage) == ([0, 1], True)


@directed
async def test_two_keepers_drop_it_once(scene: Scene) -> None:
    """Both decide, each creation has one winner, and both say that it is dropped or let the other."""
    await write(scene, 0)
    await age()
    outcomes = await asyncio.gather(round_of(scene), _another_round(scene))
    assert any(dropped for dropped, _ in outcomes)
    assert chain(scene.store.contents()) == [[0], []]
    await age(GRACE_S)
    await asyncio.gather(round_of(scene), _another_round(scene))
    assert of_stage_logs(scene) == [gone_name()]


async def _another_round(scene: Scene) -> tuple[list[str], list[str]]:
    await asyncio.sleep(0.004)
    return await round_of(scene)


@directed
async def test_a_keeper_goes_round_after_round(scene: Scene) -> None:
    """`keep` drops and collects by itself, says what it dropped, and lists stage logs four times in a grace at most."""
    await write(scene, 0)
    await write(scene, 0, stage=OTHER, complete=True)
    keeper, dropped, rounds = scene.machine("keeper"), list[str](), 0
    async with opened(keeper) as log:
        began_s = scene.loop.time()
        async for done in keep(log, settings=KEEP, pause_ms=1_000):
            assert done.problems == []
            dropped += [str(one.stage) for one in done.stage_logs]
            rounds += 1
            if not [name for name in of_stage_logs(scene) if isinstance(parse_key(name), StagePageKey)]:
                break
        passed_s = scene.loop.time() - began_s
    assert dropped == ["d/1/apply/0", "d/1/apply/1"]
    assert AGE_S + GRACE_S < passed_s < AGE_S + 2 * GRACE_S
    assert rounds > 100
    assert keeper.script.asked.count(("list", "stagelogs/")) <= 2 * (4 * passed_s / GRACE_S + 1)


# Those who slept --------------------------------------------------------------------------------


@directed
async def test_a_writer_that_slept_through_the_collection_is_told(scene: Scene) -> None:
    """The name of the next page is free again: its creation succeeds, means nothing, and is collected later."""
    web, gate = scene.machine("web"), Gate()

    async def life() -> None:
        async with opened(web, PATIENT) as log:
            stage = stage_of(log)
            await stage.append(blocks(0))
            web.script.on("create", "stagelogs/", gate.late_silent)
            await stage.append(blocks(1))

    living = web.start(life())
    await gate.met()
    web.process.pause()
    await let_go(scene)
    await gate.landed()
    web.process.resume()
    await trimmed(living)
    assert name_of(1) in of_stage_logs(scene)
    async with opened(scene.machine("later")) as log:
        await gone_for_all(scene, stage_of(log))
    await age(1)
    assert (await round_of(scene))[1] == [name_of(1)]
    assert of_stage_logs(scene) == [gone_name()]


@directed
async def test_a_writer_that_slept_before_it_sent_is_told(scene: Scene) -> None:
    """It wakes, sends what it was about to send into a collected stage log, and looks before it says anything."""
    web, gate = scene.machine("web"), Gate()

    async def life() -> None:
        async with opened(web, PATIENT) as log:
            stage = stage_of(log)
            await stage.append(blocks(0))
            web.script.on("create", "stagelogs/", gate.before)
            await stage.append(blocks(1))

    living = web.start(life())
    await gate.met()
    web.process.pause()
    await let_go(scene)
    web.process.resume()
    gate.open()
    await trimmed(living)


@directed
async def test_a_writer_whose_lid_was_closed_is_told(scene: Scene) -> None:
    """No timer has expired, and the creation is answered with success: the clock that counts says to look again."""
    web, gate = scene.machine("web"), Gate()
    async with opened(web, PATIENT) as log:
        stage = stage_of(log)
        await stage.append(blocks(0))
        web.script.on("create", "stagelogs/", gate.before)
        call = asyncio.create_task(stage.append(blocks(1)))
        await gate.met()
        scene.store.lose(name_of(0))
        await scene.world.create(gone_name(), _record())
        web.clock.suspend(GRACE_MS)
        gate.open()
        await trimmed(call)


def _record() -> bytes:
    from logstore.gone import encode_gone

    return encode_gone(Gone(ID, 1, bytes(32)))


@directed
async def test_a_writer_that_slept_makes_no_conflict_of_a_zombies_page(scene: Scene) -> None:
    """What lies under a collected name, damaged or of whomever, is no reason for anything but Trimmed."""
    web = scene.machine("web")
    for number, left in enumerate((None, b"", b"rubbish", "complete")):
        stage_id, gate = StageId("d", "s", number), Gate()

        async def life(stage_id: StageId = stage_id, gate: Gate = gate) -> None:
            async with opened(web, PATIENT) as log:
                stage = stage_of(log, stage_id)
                await stage.append(blocks(0))
                web.script.on("create", "stagelogs/", gate.before)
                await stage.append(blocks(1))

        living = web.start(life())
        await gate.met()
        if left == "complete":
            await write(scene, stage=stage_id, complete=True)
        web.process.pause()
        await age()
        await round_of(scene)
        await age(GRACE_S)
        await round_of(scene)
        if isinstance(left, bytes):
            scene.store.restore(name_of(1, stage_id), left)
        elif left == "complete":
            scene.store.restore(name_of(1, stage_id), scene.store.ever()[name_of(1, stage_id)])
        web.process.resume()
        gate.open()
        with pytest.raises(Trimmed):
            await living
        web.script.clear()


@pytest.mark.parametrize("offset", [0, 2, 10**6])
@directed
async def test_a_reader_that_slept_is_told(scene: Scene, offset: int) -> None:
    """It wakes with a 404 where the next page was to be: neither the end nor a loss."""
    async with opened(scene.machine("web")) as log:
        for index in range(6):
            await stage_of(log).append(blocks(index))
    reader = scene.machine("reader")
    for at, name in enumerate((name_of(0), name_of(1), name_of(3), name_of(6))):
        gate = Gate()
        reader.script.clear()
        rule = reader.script.on("get", name, gate.before if at % 2 else gate.after)

        async def read() -> tuple[list[int], bool]:
            async with opened(reader, PATIENT) as log:
                return await fetched(stage_of(log), offset)

        reading = reader.start(read())
        await asyncio.wait([reading], timeout=1)
        if not rule.met:
            assert (await reading)[0] == list(range(offset, 6))
            continue
        reader.process.pause()
        contents = scene.store.contents()
        for page in range(6):
            scene.store.lose(name_of(page))
        await scene.world.create(gone_name(), _record())
        await asyncio.sleep(GRACE_S)
        gate.open()
        reader.process.resume()
        await trimmed(reading)
        scene.forget(gone_name())
        for page in range(6):
            scene.store.restore(name_of(page), contents[name_of(page)])


@directed
async def test_a_follower_that_slept_is_told(scene: Scene) -> None:
    """It has yielded what it had read; what it would read next is gone."""
    reader, seen = scene.machine("reader"), list[int]()

    async def follow() -> None:
        async with opened(reader) as log:
            async for each in stage_of(log).follow():
                seen.append(each.index)

    await write(scene, 0)
    following = reader.start(follow())
    await asyncio.sleep(5)
    reader.process.pause()
    await write(scene, 1, complete=True)
    await let_go(scene)
    reader.process.resume()
    await trimmed(following)
    assert seen == [0]


@directed
async def test_a_reader_that_knows_the_end_looks_again(scene: Scene) -> None:
    """It has read a complete stage log to its end, and needs no request for that: but for whether it is gone."""
    async with opened(scene.machine("reader")) as log:
        stage = stage_of(log)
        await write(scene, 0, complete=True)
        assert await fetched(stage) == ([0], True)
        assert await fetched(stage, 1) == ([], True)
        await let_go(scene)
        await trimmed(stage.fetch(1))
        await trimmed(stage.append([block(0)]))


@directed
async def test_a_record_that_cannot_be_read_is_said(scene: Scene) -> None:
    """Neither kept nor gone: Corrupt names the record."""
    await write(scene, 0, complete=True)
    await age()
    await round_of(scene)
    scene.store.flip(gone_name(), 200)
    async with opened(scene.machine("reader")) as log:
        for work in (stage_of(log).fetch(), stage_of(log).append(blocks(1))):
            with pytest.raises(Corrupt, match=gone_name()):
                await work
    assert isinstance(parse_key(gone_name()), StageGoneKey)


# Chance -----------------------------------------------------------------------------------------

STORM: Final = Weather(
    slow=0.05, throttled=0.05, conflict=0.05, unsent=0.05, lost=0.1, late=0.1, silent=0.03, late_ms=90_000
)
SEEDS_PER_BATCH: Final = 4
EPOCH_S: Final = 4 * GRACE_S  # so long one stage log is written


@pytest.mark.parametrize("batch", [0, 1, *(pytest.param(batch, marks=pytest.mark.slow) for batch in range(2, 20))])
def test_whatever_happens_nobody_is_told_what_is_not_so(batch: int) -> None:
    """Writers, readers and keepers that sleep and are killed, in a storm, while stage logs come and go by age."""
    fates = Counter[str]()
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        world = World(seed)
        try:
            world.scene.loop.run_until_complete(world.live())
            world.judge()
        except BaseException:
            print(f"seed={seed}")
            raise
        finally:
            world.scene.loop.close()
        fates += world.fates
    assert {"stored", "Conflict", "Trimmed", "fetched", "dropped", "collected"} <= fates.keys(), fates


class World:
    """One stage log after another, those who use it, and what they were told."""

    def __init__(self, seed: int) -> None:
        self.scene = Scene(seed, weather=STORM)
        self.rng = random.Random(f"{seed} world")
        self.fates = Counter[str]()
        self.stored: dict[tuple[StageId, int], float] = {}
        self.sent: set[tuple[StageId, int]] = set()

    async def live(self) -> None:
        """Some virtual hours."""
        async with logstore.open(self.scene.world, grace_ms=GRACE_MS):
            pass
        actors = [self.scene.machine(f"{name}-{n}") for name in ("writer", "reader", "keeper") for n in range(2)]
        lives = [machine.start(self._life(machine)) for machine in actors]
        sleeping = asyncio.create_task(self._disturb(actors))
        await asyncio.sleep(6 * EPOCH_S)
        for each in (sleeping, *lives):
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each

    async def _disturb(self, actors: list[Machine]) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0, 2 * GRACE_S))
            machine = self.rng.choice(actors)
            machine.process.pause()
            try:
                await asyncio.sleep(self.rng.choice([1, GRACE_S / 3, GRACE_S, 3 * GRACE_S]))
            finally:
                machine.process.resume()

    async def _life(self, machine: Machine) -> None:
        """A process, and those that take its place when something ends it."""
        act = {"w": self._write, "r": self._read, "k": self._keep}[machine.name[0]]
        while True:
            with suppress(Unavailable):
                async with opened(machine, BRAVE) as log:
                    stages: dict[int, Stage] = {}
                    for _ in range(self.rng.randrange(1, 12)):
                        await asyncio.sleep(self.rng.choice([0.1, 1, 3, GRACE_S / 2, 2 * GRACE_S]))
                        retry = int(self.scene.loop.time() // EPOCH_S) - self.rng.choice([0, 0, 0, 1])
                        stage = stages.setdefault(retry, stage_of(log, StageId("d", "s", max(0, retry))))
                        await act(log, stage)

    async def _write(self, _: Log, stage: Stage) -> None:
        indices = self.rng.sample(range(40), self.rng.randrange(1, 4))
        completes = self.rng.random() < 0.05
        self.sent |= {(stage.id, index) for index in indices}
        call = stage.complete(blocks(*indices)) if completes else stage.append(blocks(*indices))
        try:
            await call
        except (Unavailable, Conflict, Trimmed) as error:
            self._note(stage.id, error)
            return
        self.fates["stored"] += 1
        now_s = self.scene.loop.time()
        self.stored |= {(stage.id, index): now_s for index in indices if (stage.id, index) not in self.stored}

    async def _read(self, _: Log, stage: Stage) -> None:
        began_s, offset = self.scene.loop.time(), self.rng.choice([0, 0, 9, 35])
        try:
            found, completed = await fetched(stage, offset)
        except (Unavailable, Trimmed) as error:
            self._note(stage.id, error)
            return
        except NotFound:
            found, completed = [], False
        self.fates["fetched"] += 1
        told = {index for (id_, index), at_s in self.stored.items() if id_ == stage.id and at_s < began_s}
        assert {index for index in told if index >= offset} <= set(found)
        assert {(stage.id, index) for index in found} <= self.sent
        assert found == sorted(set(found))
        assert not completed or any(self._pages(stage.id, complete=True))

    async def _keep(self, log: Log, _: Stage) -> None:
        keeper = log.keeper(KEEP)
        async for one in keeper.drop_stage_logs():
            assert one.dropped, one
            self.fates["dropped"] += 1
        async for garbage in keeper.collect():
            self.fates["collected"] += garbage.key.startswith("stagelogs/")

    def _note(self, stage: StageId, error: LogStoreError) -> None:
        """What is said of a stage log is so: it is gone, or complete."""
        self.fates[type(error).__name__] += 1
        if isinstance(error, Trimmed):
            assert gone_name(stage) in self.scene.store.ever()
        if isinstance(error, Conflict):
            assert any(self._pages(stage, complete=True))

    def _pages(self, stage: StageId, *, complete: bool = False) -> list[Page]:
        """Every page that there ever was and that counts, by the first content of its name."""
        ever, pages = self.scene.store.ever(), list[Page]()
        while (data := ever.get(name_of(len(pages), stage))) is not None:
            pages.append(decode_page(StagePageKey(stage, len(pages)), data))
            if pages[-1].head.complete:
                return pages
        return [] if complete else pages

    def judge(self) -> None:
        """What was acknowledged is in a page, and in one of those that the record counts; no block is in two."""
        for stage in {id_ for id_, _ in self.sent}:
            pages = self._pages(stage)
            if (record := self.scene.store.ever().get(gone_name(stage))) is not None:
                assert decode_gone(stage, record).pages == len(pages)
                assert pages[-1].head.complete
            indices = [each.index for page in pages for each in page.blocks]
            assert len(set(indices)) == len(indices)
            assert {index for id_, index in self.stored if id_ == stage} <= set(indices)
            if record is None:
                chain(self.scene.store.contents(), stage)
