"""Those who live in the world: processes that write, read, look at views, close chapters, or several of these at once.

An actor is a program on a machine. Each time it starts it is a new process, with a new log, that
remembers only what it saved. It does its work until told to stop, writes into the history what the
library tells it, and starts again when the store was out of reach.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import logstore
from logstore import (
    ClockSkew,
    Event,
    KeepSettings,
    Log,
    LogSettings,
    LogStoreError,
    NotStored,
    Position,
    Trimmed,
    Unavailable,
    Unknown,
    Writer,
)
from logstore.testing.process import Process, ProcessState
from logstore.testing.simulation import SimulatedLoop, SimulatedStore, StoreFace, Weather
from projections import Projection, View
from tests.simulation.history import Append, History, Outcome, Stream
from tests.simulation.views import THING, Chain, Glass, thing_of

__all__ = [
    "Actor",
    "Closer",
    "Consumer",
    "Job",
    "Keeping",
    "Pinning",
    "Reading",
    "Stage",
    "Viewing",
    "Writing",
    "first_chapter_after",
    "read_all",
    "resolve",
]

BUDGETS: Final = (None, 1, 300)
Forgivable = (Unavailable, ClockSkew)  # the world's fault, not the library's: try again later


@dataclass(slots=True)
class Stage:
    """What all actors share."""

    loop: SimulatedLoop
    store: SimulatedStore
    history: History
    log_settings: LogSettings
    weather: Weather
    policy: str = "full"
    grace_ms: int = 86_400_000
    unknowns: list[tuple[Append, Unknown]] = field(default_factory=list)


class Job(Protocol):
    """One thing that a process does with its log, until ``actor.stopping`` is set.

    ``writes``: whether it appends. ``endures``: whether in calm weather it starts again, to see the end.
    """

    @property
    def writes(self) -> bool: ...
    @property
    def endures(self) -> bool: ...

    async def work(self, actor: Actor, log: Log) -> None:
        """Do it. Raising something forgivable ends the process, which starts again."""
        ...


class Actor:
    """A program, its machine, and the process that runs it now."""

    def __init__(self, stage: Stage, name: str, rng: random.Random, jobs: Sequence[Job], *, drift: float) -> None:
        self.stage = stage
        self.name = name
        self.rng = rng
        self.jobs = jobs
        self.drift = drift
        self.skew_ms = 0
        self.stopping = asyncio.Event()
        self.starts = 0
        self.process: Process | None = None
        self.face: StoreFace | None = None
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Actor {self.process.name if self.process else self.name}>"

    @property
    def writes(self) -> bool:
        """Whether it appends."""
        return any(job.writes for job in self.jobs)

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not, and has not ended by itself."""
        alive = self.process is not None and self.process.state is not ProcessState.CRASHED
        return alive and self.task is not None and not self.task.done()

    def start(self) -> None:
        """Begin a new process."""
        assert not self.running
        self.starts += 1
        name = f"{self.name}.{self.starts}"
        self.process = self.stage.loop.process(name, skew_ms=self.skew_ms, drift=self.drift)
        self.face = self.stage.store.face(self.process, weather=self.stage.weather)
        self.stage.history.note(name, "starts")
        self.task = self.process.start(self._live(), name=name)

    def crash(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.stage.history.note(self.process.name, "crashes")
        self.process.crash()

    def step_clock(self, ms: int) -> None:
        """Set the machine's wall clock."""
        self.skew_ms += ms
        if self.process is not None:
            self.process.clock.step(ms)

    async def _live(self) -> None:
        assert self.process is not None
        assert self.face is not None
        me, history = self.process.name, self.stage.history
        try:
            async with (
                logstore.open(
                    self.face,
                    clock=self.process.clock,
                    rng=random.Random(self.rng.random()),
                    settings=self.stage.log_settings,
                    history=self.stage.policy,
                    grace_ms=self.stage.grace_ms,
                ) as log,
                asyncio.TaskGroup() as group,
            ):
                for job in self.jobs:
                    group.create_task(job.work(self, log))
        except* Forgivable as errors:
            history.note(me, f"fails: {errors.exceptions[0]}")
            self.stage.loop.call_later(self.rng.uniform(0, 1), self.revive, context=self.stage.loop.nowhere)
        except* LogStoreError as errors:
            history.problem(f"{me} was told {errors.exceptions[0]!r}")
        history.note(me, "ends")

    def revive(self) -> None:
        """Start again, unless somebody did or nobody wants it."""
        if not self.running and not self.stopping.is_set():
            self.start()

    async def sleep(self, mean_s: float) -> None:
        """Do nothing for a while, or until told to stop."""
        try:
            async with asyncio.timeout(self.rng.expovariate(1 / mean_s)):
                await self.stopping.wait()
        except TimeoutError:
            pass


class Writing:
    """Appends under a name, which other processes may use as well; looks for its events in its process's view."""

    writes = True
    endures = False

    def __init__(self, writer_name: str, *, pause_s: float, viewing: Viewing | None = None) -> None:
        self._writer_name = writer_name
        self._pause_s = pause_s
        self._viewing = viewing

    async def work(self, actor: Actor, log: Log) -> None:
        """Append, alone or several at once, with pauses that are sometimes long."""
        rng, stage = actor.rng, actor.stage
        while not actor.stopping.is_set():
            async with log.writer(self._writer_name) as writer:
                name = f"{actor.name}.{actor.starts}/{len(stage.history.appends)}"
                for _ in range(rng.randrange(5, 30)):
                    after_s = sorted(rng.uniform(0, 0.1) for _ in range(rng.choice([1, 1, 2, 6])))
                    await asyncio.gather(*(self._append(actor, log, writer, name, after) for after in after_s))
                    await actor.sleep(self._pause_s * rng.choice([0.1, 0.1, 1, 1, 5]))
                    if actor.stopping.is_set():
                        break

    async def _append(self, actor: Actor, log: Log, writer: Writer, writer_name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        rng, history = actor.rng, actor.stage.history
        assert actor.process is not None
        me = actor.process.name
        count = rng.choice([1, 1, 2, 5])
        number = len(history.appends)
        ids = tuple(f"{me}-{number}.{i}" for i in range(count))
        append = Append(me, writer_name, ids, actor.stage.loop.time(), len(history.heard.get(me, ())))
        patience_s = rng.expovariate(1 / 2) if rng.random() < 0.05 else None
        history.call(append)
        events = [Event(THING, thing_of(id_), "changed", {"id": id_}) for id_ in ids]
        try:
            async with asyncio.timeout(patience_s):
                append.receipt = await (writer.append_many(events) if count > 1 else writer.append(events[0]))
            history.end(append, Outcome.STORED)
        except NotStored as error:
            history.end(append, Outcome.NOT_STORED, str(error))
        except Unknown as error:
            history.end(append, Outcome.UNKNOWN, str(error))
            actor.stage.unknowns.append((append, error))
            if rng.random() < 0.7:
                await actor.sleep(rng.choice([0.1, 3]))
                await resolve(actor.stage, me, log, append, error)
        except Forgivable as error:
            history.end(append, Outcome.REFUSED, str(error))
        except TimeoutError:
            history.note(me, f"loses patience with {ids[0]}")
        glass = self._viewing.glass if self._viewing else None
        if append.receipt is not None and glass is not None and rng.random() < 0.5:
            with suppress(TimeoutError, Trimmed, *Forgivable):
                await glass.wait_for(append)
        if append.receipt is not None and rng.random() < 0.15 and not actor.stopping.is_set():
            await self._wait_until_settled(actor, log, append, glass)

    async def _wait_until_settled(self, actor: Actor, log: Log, append: Append, glass: Glass | None) -> None:
        assert append.receipt is not None
        if glass is not None:
            with suppress(TimeoutError, Trimmed, *Forgivable):
                await glass.settled(append)
            return
        history, me = actor.stage.history, append.process
        try:
            async with asyncio.timeout(10):
                await log.settled(append.receipt)
        except (TimeoutError, Trimmed, *Forgivable):
            return
        history.settled.append((append.ids[0], actor.stage.loop.time()))
        history.note(me, f"is told that {append.ids[0]} is settled")


async def resolve(stage: Stage, me: str, log: Log, append: Append, unknown: Unknown) -> bool:
    """Ask what became of an append; note the answer. False: the store could not say."""
    try:
        append.receipt = await log.resolve(unknown)
        told = Outcome.STORED
    except NotStored:
        told = Outcome.NOT_STORED
    except Forgivable:
        return False
    if append.told not in {Outcome.PENDING, told}:
        stage.history.problem(f"P6 resolve said {append.told.value}, now {told.value}: {append.ids[0]}")
    append.told = told
    stage.history.note(me, f"resolves {append.ids[0]}: {told.value}")
    return True


@dataclass(slots=True)
class Consumer:
    """Somebody who follows the log and saves how far it got. It outlives its processes."""

    name: str
    settled: bool
    position: str | None = None
    at_position: int = 0
    stream: Stream | None = None
    first_chapter: int = 0

    def begin(self, process: str, at_s: float) -> Stream:
        """Go on from what was saved."""
        before = tuple(self.stream.all[: self.at_position]) if self.stream else ()
        self.stream = Stream(self.name, process, self.settled, True, at_s, before, self.first_chapter)
        return self.stream

    def start_over(self, oldest: Position | None) -> None:
        """Forget what was seen: what comes next was dropped."""
        self.stream, self.at_position = None, 0
        self.position = None if oldest is None else str(oldest)
        self.first_chapter = first_chapter_after(oldest)

    def save(self, position: Position) -> None:
        """Remember the position after the last event seen."""
        assert self.stream is not None
        self.position, self.at_position = str(position), len(self.stream.before) + len(self.stream.events)


class Reading:
    """Follows the log, and now and then reads all of it at once."""

    writes = False
    endures = True

    def __init__(self, consumer: Consumer, *, reads: bool = False) -> None:
        self.consumer = consumer
        self._reads = reads

    async def work(self, actor: Actor, log: Log) -> None:
        """Follow until told to stop; start again from the saved position now and then."""
        assert actor.process is not None
        me, rng, stage = actor.process.name, actor.rng, actor.stage
        while not actor.stopping.is_set():
            following = asyncio.create_task(self._follow(actor, log))
            stopping = asyncio.create_task(actor.sleep(60))
            try:
                await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                following.cancel()
                stopping.cancel()
                await asyncio.wait([following, stopping])
            if not following.cancelled() and following.exception() is not None:
                await following
            if self._reads and rng.random() < 0.5:
                await read_all(stage, me, log, settled=rng.random() < 0.3)

    async def _follow(self, actor: Actor, log: Log) -> None:
        assert actor.process is not None
        me, rng, stage = actor.process.name, actor.rng, actor.stage
        stream = self.consumer.begin(me, stage.loop.time())
        stage.history.streams.append(stream)
        stage.history.note(me, f"{stream.consumer} follows after {len(stream.before)}")
        after = None if self.consumer.position is None else Position.parse(self.consumer.position)
        events = log.follow(after=after, settled=self.consumer.settled)
        try:
            async for event in events:
                stage.history.see(stream, event)
                if rng.random() < 0.3:
                    assert events.position is not None
                    self.consumer.save(events.position)
                if rng.random() < 0.02:
                    await actor.sleep(2)
        except Trimmed as error:
            stage.history.trim(me, str(error))
            self.consumer.start_over(await log.oldest())


async def read_all(stage: Stage, me: str, log: Log, *, settled: bool) -> Stream:
    """Read all of the log that is kept now."""
    while True:
        oldest = await log.oldest()
        stream = Stream(f"read {'settled ' if settled else ''}of {me}", me, settled, False, stage.loop.time())
        stream.first_chapter = first_chapter_after(oldest)
        stage.history.streams.append(stream)
        try:
            async for event in log.read(oldest, settled=settled):
                stage.history.see(stream, event)
        except Trimmed as error:
            stage.history.trim(me, str(error))
            continue
        stream.ended_s = stage.loop.time()
        return stream


def first_chapter_after(oldest: Position | None) -> int:
    """The first chapter that is kept, when reading begins there."""
    return 0 if oldest is None or oldest.last is None else oldest.last[0] + 1


class Viewing:
    """Keeps a view open and looks at it; opens another now and then. ``glass``: the one that is open now.

    By chance it has no memory budget, or one with room for a row or for none. That takes no number from the dice: where
    rows are changes nothing that anybody sees, so a seed means what it meant before there were budgets.
    """

    writes = False
    endures = False

    def __init__(self, name: str, *, follow: bool, pause_s: float) -> None:
        self.glass: Glass | None = None
        self._name = name
        self._follow = follow
        self._pause_s = pause_s
        self._opened = 0

    async def work(self, actor: Actor, log: Log) -> None:
        """Look at views until told to stop, and once more then."""
        assert actor.process is not None
        me, history = actor.process.name, actor.stage.history
        self.glass = None  # that of an earlier process
        while not actor.stopping.is_set():
            self._opened += 1
            try:
                await self._view(actor, log)
            except Trimmed as error:
                history.trim(me, str(error))

    async def _view(self, actor: Actor, log: Log) -> None:
        assert actor.process is not None
        me, history = actor.process.name, actor.stage.history
        acknowledged = len(history.acknowledged)
        chance = hash(actor.rng.getstate()[1])
        budget, goes_on = BUDGETS[chance % len(BUDGETS)], chance // len(BUDGETS) % 2 == 0
        async with View.open(log, Chain(), follow=self._follow, snapshots=goes_on, memory_bytes_max=budget) as view:
            glass = Glass(f"{self._name}{self._opened}", me, view, history, follows=self._follow)
            glass.look(acknowledged=acknowledged)
            watching = asyncio.create_task(glass.watch())
            self.glass = glass
            try:
                await self._look(actor, glass)
            finally:
                self.glass = None
                watching.cancel()
                await asyncio.wait([watching])
            if not watching.cancelled() and watching.exception() is not None:
                await watching

    async def _look(self, actor: Actor, glass: Glass) -> None:
        rng, history = actor.rng, actor.stage.history
        for _ in range(rng.randrange(5, 30)):
            await actor.sleep(self._pause_s)
            if actor.stopping.is_set():
                break
            patience_s = rng.choice([0.02, 1, None])
            known = [append for append in history.appends[-20:] if append.receipt is not None]
            with suppress(TimeoutError, *Forgivable):
                async with asyncio.timeout(patience_s):
                    match rng.choice(["refresh", "refresh", "wait", "wait", "nothing", "snapshot"]):
                        case "refresh":
                            await self._refresh(glass, history)
                        case "wait" if known:
                            await glass.wait_for(rng.choice(known))
                        case "snapshot":
                            await glass.snapshot()
            glass.look()
        with suppress(*Forgivable):
            await self._refresh(glass, history)
            await glass.compare_mirror()

    async def _refresh(self, glass: Glass, history: History) -> None:
        acknowledged = len(history.acknowledged)
        await glass.view.refresh()
        glass.look(acknowledged=acknowledged)


class Closer:
    """Ends chapters, much sooner than a keeper would."""

    writes = False
    endures = False

    def __init__(self, *, pause_s: float) -> None:
        self._pause_s = pause_s

    async def work(self, actor: Actor, log: Log) -> None:
        """Close a chapter now and then."""
        while not actor.stopping.is_set():
            await actor.sleep(self._pause_s)
            if not actor.stopping.is_set():
                await log.close_chapter()
                actor.stage.history.note(actor.name, "closed a chapter")


class Keeping:
    """Snapshots views, ends chapters, retires them and collects: what ``logstore keep`` does, and much sooner."""

    writes = False
    endures = False

    def __init__(
        self, *, pause_s: float, settings: KeepSettings, projections: Sequence[Callable[[], Projection]] = (Chain,)
    ) -> None:
        self._pause_s = pause_s
        self._settings = settings
        self._projections = projections

    async def work(self, actor: Actor, log: Log) -> None:
        """Keep the log until told to stop; with other views when these were too slow."""
        while not actor.stopping.is_set():
            try:
                goes_on = hash(actor.rng.getstate()[1]) % 2 == 0
                async with AsyncExitStack() as stack:
                    views = [
                        await stack.enter_async_context(View.open(log, projection(), follow=True, snapshots=goes_on))
                        for projection in self._projections
                    ]
                    await self._keep(actor, log, views)
            except Trimmed as error:
                assert actor.process is not None
                actor.stage.history.trim(actor.process.name, str(error))

    async def _keep(self, actor: Actor, log: Log, views: Sequence[View]) -> None:
        assert actor.process is not None
        keeper, history, me = log.keeper(self._settings), actor.stage.history, actor.process.name
        while not actor.stopping.is_set():
            await actor.sleep(self._pause_s)
            try:
                if await keeper.close_chapter():
                    history.note(me, "closed a chapter")
                for view in views:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(actor.rng.choice([1, 5])):
                            await view.snapshot()
                for retirement in await keeper.retire(dry_run=actor.rng.random() < 0.1):
                    history.note(me, str(retirement))
                async for garbage in keeper.collect(dry_run=actor.rng.random() < 0.1):
                    history.note(me, str(garbage))
            except Forgivable as error:
                history.note(me, f"keeps in vain: {error}")


class Pinning:
    """Holds a pin, renewed in time, on all that is kept when it begins; lets go of it now and then."""

    writes = False
    endures = False

    def __init__(self, *, pause_s: float) -> None:
        self._pause_s = pause_s

    async def work(self, actor: Actor, log: Log) -> None:
        """Hold one pin after the other."""
        while not actor.stopping.is_set():
            await actor.sleep(self._pause_s)
            try:
                async with log.pin(actor.name, for_ms=round(self._pause_s * 1_000)) as pin:
                    for _ in range(actor.rng.randrange(4)):
                        await actor.sleep(self._pause_s / 4)
                        await pin.renew()
            except Trimmed as error:
                assert actor.process is not None
                actor.stage.history.trim(actor.process.name, str(error))  # it was late: the pin had expired
