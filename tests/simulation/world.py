"""One seed, one world: who lives in it, what befalls them, and how it ends.

For a while actors write, read, keep views and close chapters, while chance pauses them, kills and restarts them, sets
their clocks, and changes the weather between them and the store. Then comes calm: the dead
stay dead, the others go on, writers stop, and everything must come to rest: sessions final, all settled,
every follower through. What is left is the evidence for the checkers.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

import logstore
from logstore import (
    Corrupt,
    FollowSettings,
    KeepSettings,
    LogSettings,
    LogStoreError,
    Missing,
    RetrySettings,
    WriterSettings,
)
from logstore.clock import STAMP_MAX
from logstore.keys import (
    ChunkKey,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    chunk_key,
    manifest_key,
    parse_key,
)
from logstore.manifest import decode_manifest
from logstore.segment import Segment
from logstore.testing.process import Process
from logstore.testing.simulation import CALM, Request, SimulatedLoop, SimulatedStore, StoreFace, Weather
from projections import Projection, View
from tests.simulation.actors import (
    Actor,
    Closer,
    Consumer,
    Job,
    Keeping,
    Pinning,
    Reading,
    Stage,
    Viewing,
    Writing,
    first_chapter_after,
    read_all,
    resolve,
)
from tests.simulation.checkers import check
from tests.simulation.coverage import Coverage, Site, origins_known
from tests.simulation.damage import judge, pick, read_through
from tests.simulation.evidence import Evidence
from tests.simulation.glimpses import TrueFold
from tests.simulation.history import History, Order
from tests.simulation.truth import Truth, is_garbage
from tests.simulation.views import Chain, Glass, rows_of

__all__ = ["CHANCE", "LATE_MS", "Circumstances", "Outcome", "World", "run"]

REST_S_MAX: Final = 600.0  # so long may it take in calm weather until all is settled and read
STEPS_MAX: Final = 3_000_000
REMEMBERS_ALL_BYTES: Final = 64 << 20
DAMAGES: Final = 3
LATE_MS: Final = 10_000.0  # what is under way lands within this time, if ever
SEAL_S: Final = 9.0  # about how long a silent session lives; long pauses are longer
GRACE_MS: Final = 13_000  # where history is lost: 4 times the idle and the seal time of these worlds
KEPT_LATE_MS: Final = 3_000.0  # there nothing lands later than a quarter of it
SLOWER: Final = 6  # there everybody does so much less in a second, for so much longer


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What befalls those who write, where it is not left to chance: to provoke a bug that seldom shows.

    ``fates``: which, as ``World._befall`` names them; empty: any. ``often_s``: about how often. ``lasts_s``: how long.
    ``storm``: which weather a storm brings. ``cut_off``: how often a long pause begins with nothing getting through.
    ``policy``: the store's history policy; None: by the seed, one in four loses history and lives longer.
    """

    fates: tuple[str, ...] = ()
    often_s: float | None = None
    lasts_s: tuple[float, float] = (8.0, 18.0)
    storm: Weather | None = None
    cut_off: float = 0.5
    policy: str | None = None


CHANCE: Final = Circumstances()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the world of one seed ended: ``problems`` is empty when every promise was kept."""

    seed: int
    problems: list[str]
    digest: str
    lines: list[str]
    counts: Counter[str]
    points: Counter[tuple[Site, str]]


def run(
    seed: int,
    circumstances: Circumstances = CHANCE,
    kind: type[World] | None = None,
    *,
    traced: bool = False,
    covered: bool = False,
) -> Outcome:
    """Live through the world of ``seed``, of a kind of worlds.

    ``lines`` are told only of one that is ``traced``, ``points`` of one that is ``covered``, and of those that need
    them: to know who sends costs a tenth of a world.
    """
    world = (kind or World)(seed, circumstances)
    world.covered = world.covered or covered
    gc.freeze()  # so that ending the world does not search what was there before
    try:
        with (
            patch.multiple("projections.layout", CHUNK_BYTES_MAX=30, SMALL_BYTES=10, FREE_ROWS=1),  # a row or two each
            origins_known() if world.covered else nullcontext(),
        ):
            problems = world.live()
        points = world.coverage.count(world.store.requests, world.calm_s) if world.covered else Counter()
    finally:
        world.close()
        gc.unfreeze()
    return Outcome(
        seed=seed,
        problems=[*problems, *(f"a complaint of asyncio: {line}" for line in world.loop.complaints)],
        digest=hashlib.sha256(f"{world.store.digest()} {world.history.digest()}".encode()).hexdigest(),
        lines=world.trace() if traced else [],
        counts=world.count(),
        points=points,
    )


class World:
    """Everything that lives under one seed."""

    projections: Sequence[Callable[[], Projection]] = (Chain,)
    covered = False  # whether the place in the library that sends each request is noted
    most = 3  # so many actors of a kind at most, where chance decides

    def __init__(self, seed: int, circumstances: Circumstances = CHANCE) -> None:
        self._seed = seed
        self._circumstances = circumstances
        self._rng = self.dice("world")
        rng = self._rng
        self._policy = circumstances.policy or {3: "drop", 7: "archive"}.get(seed % 8, "full")
        self.keeps = self._policy != "full"
        self.loop = SimulatedLoop(self.dice("loop"), time_s_max=3_600, steps_max=STEPS_MAX)
        self.store = SimulatedStore(
            self.loop,
            self.dice("store"),
            remote=rng.random() < 0.5,
            skew_ms=rng.randint(-1_000, 1_000),
            drift=rng.uniform(-1e-4, 1e-4),
            date_ms=rng.choice([1, 1_000]),
            is_garbage=is_garbage,
            on_send=self.on_send,
        )
        self.coverage = Coverage()
        self.history = History(self.loop.time)
        self.calm_s = math.inf
        self._decoded: dict[str, Segment] = {}
        self.stage = Stage(
            loop=self.loop,
            store=self.store,
            history=self.history,
            log_settings=draw_settings(rng),
            weather=draw_weather(rng),
            policy=self._policy,
        )
        if self.keeps:
            self.stage.grace_ms = GRACE_MS
            self.stage.log_settings = short_lived(self.stage.log_settings)
            self.stage.weather = replace(self.stage.weather, late_ms=KEPT_LATE_MS)
        self.actors = [*self.populate(rng), *(self.keepers() if self.keeps else ())]
        self.consumers = [job.consumer for actor in self.actors for job in actor.jobs if isinstance(job, Reading)]

    def dice(self, name: str) -> random.Random:
        """A random number generator of one's own: what one does with it does not disturb the others."""
        return random.Random(f"{self._seed} {name}")

    def populate(self, rng: random.Random) -> list[Actor]:
        closing_s = rng.choice([2.0, 8.0, 1e6])
        jobs: dict[str, list[Job]] = {
            "reader": [Reading(Consumer("reader", settled=False), reads=True)],
            "settled": [Reading(Consumer("settled", settled=True))],
            "barrier": [
                Reading(Consumer("barrier", settled=rng.random() < 0.5), reads=True),
                Closer(pause_s=closing_s),
            ],
        }
        jobs["reader"].append(Viewing("follows", follow=True, pause_s=rng.choice([0.1, 0.5]) * self.slower))
        jobs["barrier"].append(Viewing("stands", follow=False, pause_s=1.0 * self.slower))
        for i in range(rng.randint(1, 3)):
            name = rng.choice(["web", f"w{i}"])  # now and then several processes have one writer name
            viewing = (
                Viewing(f"own{i}-", follow=rng.random() < 0.7, pause_s=0.5 * self.slower)
                if rng.random() < 0.5
                else None
            )
            writing: list[Job] = [Writing(name, pause_s=rng.choice([0.1, 0.2, 0.5]) * self.slower, viewing=viewing)]
            if viewing is not None:
                writing.append(viewing)
            if rng.random() < 0.4:
                writing.append(Reading(Consumer(f"own{i}", settled=rng.random() < 0.5)))
            jobs[f"writer{i}"] = writing
        return self.cast(jobs, rng)

    def on_send(self, face: StoreFace, request: Request) -> Weather | None:
        """A process sends a request; in other worlds something may befall it at once."""
        if self.covered:
            self.coverage.note(request, face.process)
        return None

    def cast(self, jobs: Mapping[str, Sequence[Job]], rng: random.Random) -> list[Actor]:
        """Actors who do these jobs, by name, each on a machine of its own."""
        return [
            Actor(self.stage, name, self.dice(name), jobs_, drift=rng.uniform(-1e-3, 1e-3))
            for name, jobs_ in jobs.items()
        ]

    def keepers(self) -> list[Actor]:
        """Who ends chapters, retires and collects; and who pins."""
        rng = self.dice("keepers")
        settings = KeepSettings(chapter_age_ms=rng.choice([4_000, 8_000]), snapshots_kept=rng.choice([2, 2, 3]))
        keepers: dict[str, list[Job]] = {
            f"keeper{i}": [Keeping(pause_s=rng.choice([1.0, 3.0]), settings=settings, projections=self.projections)]
            for i in range(rng.choice([1, 2]))
        }
        if rng.random() < 0.3:
            keepers["pinner"] = [Pinning(pause_s=rng.choice([4.0, 20.0]))]
        return self.cast(keepers, rng)

    # Its course ---------------------------------------------------------------------------

    def live(self) -> list[str]:
        """Let everything happen; return what contradicts the promises."""
        try:
            self.loop.run_until_complete(self._live())
        except (AssertionError, LogStoreError) as error:  # Stuck, or an invariant of the store or of production code
            self.history.problem(f"{type(error).__name__}: {error}")
            return self.history.problems
        return self.judge()

    def judge(self) -> list[str]:
        remembers = self.stage.log_settings.memory_bytes_max >= REMEMBERS_ALL_BYTES and not self.keeps
        return check(
            Evidence(
                self.history,
                self.truth().by_place(),
                self.store.requests,
                remembers=remembers,
                contents=self.store.ever(),
                grace_ms=self.stage.grace_ms,
                policy=self._policy,
                store_ms=self._store_ms,
            )
        )

    def _store_ms(self, at_s: float) -> float:
        """What the store's clock showed at a virtual second; at most a tenth of a second off."""
        return self.store.clock.wall_ms() - (self.loop.time() - at_s) * 1_000

    def truth(self) -> Truth:
        """The log as it is, what was collected included."""
        return Truth.of(self.store.ever(), self._decoded)

    async def _live(self) -> None:
        for actor in self.actors:
            actor.start()
        async with asyncio.TaskGroup() as group:
            for actor in self.actors:
                group.create_task(
                    self._befall(
                        actor,
                        self.dice(f"fate of {actor.name}"),
                        self._rng.uniform(*self._circumstances.lasts_s) * self.slower,
                    )
                )
        await self._calm()

    async def _befall(self, actor: Actor, rng: random.Random, until_s: float) -> None:
        """What fate has in store for one actor."""
        bad_luck_s = rng.choice([1.5, 4.0, 10.0] if actor.writes else [4.0, 10.0, 1e9])
        fates = ["pause", "long pause", "crash", "storm", "storm", "clock", "close"]
        given = self._circumstances if actor.writes else CHANCE
        if actor.writes:
            fates += ["long pause"] * 4  # to wake up in a session that others have sealed
        if given.fates:
            fates = list(given.fates)
        bad_luck_s = given.often_s or bad_luck_s
        seal_s = SEAL_S * (self.slower / 2 if self.keeps else 1)  # there they sleep through a grace or two
        while (pause_s := rng.expovariate(1 / bad_luck_s) * self.slower) + self.loop.time() < until_s:
            await asyncio.sleep(pause_s)
            self._require_healthy(actor)
            if not actor.running:
                actor.revive()
                continue
            match rng.choice(fates):
                case "pause":
                    await self._pause(actor, rng.uniform(0, seal_s / 3))
                case "long pause":
                    if rng.random() < given.cut_off:
                        await self._cut_off(actor, rng.uniform(0, 0.5))
                    await self._pause(actor, rng.uniform(1, 2) * seal_s)
                case "crash":
                    actor.crash()
                    await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 2 * seal_s)]))
                    actor.revive()
                case "storm":
                    await self._storm(actor, self._storm_of(given, rng), rng.uniform(0, 2 * seal_s))
                case "clock":
                    await self._wrong_clock(actor, round(rng.gauss(0, 3_000)), rng.uniform(0, seal_s))
                case "close":
                    await self._stop(actor)
                    actor.stopping.clear()
                    actor.revive()
        await asyncio.sleep(max(0.0, until_s - self.loop.time()))

    @property
    def slower(self) -> int:
        return SLOWER if self.keeps else 1

    def _storm_of(self, given: Circumstances, rng: random.Random) -> Weather:
        storm = given.storm or draw_storm(rng)
        return replace(storm, late_ms=KEPT_LATE_MS) if self.keeps else storm

    async def _pause(self, actor: Actor, for_s: float) -> None:
        assert actor.process is not None
        self.history.note(actor.process.name, f"pauses for {for_s:.1f} s")
        actor.process.pause()
        await asyncio.sleep(for_s)
        if actor.face is not None:
            actor.face.weather = self.stage.weather
        actor.process.resume()
        self.history.note(actor.process.name, "goes on")

    async def _cut_off(self, actor: Actor, for_s: float) -> None:
        """Let nothing that the actor sends arrive; it is cured by sleep. So it wakes up with things under way."""
        assert actor.face is not None
        self.history.note(actor.name, "is cut off")
        actor.face.weather = Weather(unsent=1.0)
        await asyncio.sleep(for_s)

    async def _storm(self, actor: Actor, weather: Weather, for_s: float) -> None:
        assert actor.face is not None
        self.history.note(actor.name, f"is in a storm for {for_s:.1f} s: {weather}")
        actor.face.weather = weather
        await asyncio.sleep(for_s)
        actor.face.weather = self.stage.weather

    async def _wrong_clock(self, actor: Actor, ms: int, for_s: float) -> None:
        self.history.note(actor.name, f"has its clock set by {ms} ms for {for_s:.1f} s")
        actor.step_clock(ms)
        await asyncio.sleep(for_s)
        actor.step_clock(-ms)

    async def _stop(self, actor: Actor) -> None:
        """Ask an actor to end; it must, in bounded time."""
        assert actor.task is not None
        actor.stopping.set()
        await asyncio.wait([actor.task], timeout=REST_S_MAX)
        if not actor.task.done():
            self.history.problem(f"P13 {actor} does not end; who waits:\n{self.loop.waiting()}")
            actor.crash()
        self._require_healthy(actor)

    def _require_healthy(self, actor: Actor) -> None:
        """An actor forgives what is the world's fault; anything else that ends it is a bug."""
        if actor.task is not None and actor.task.done() and (error := actor.task.exception()) is not None:
            self.history.problem(f"{actor} broke: {_innermost(error)!r}")

    # Its end ------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Let the storm pass, the writers stop, and everything come to rest."""
        rng = self._rng
        self.history.note("world", "calm")
        self.calm_s = self.loop.time()
        self.stage.weather = CALM
        for actor in self.actors:
            if actor.face is not None:
                actor.face.weather = CALM
            if not actor.running and actor.jobs[0].endures:
                actor.start()
        for actor in filter(lambda actor: actor.writes, self.actors):
            actor.stopping.set()  # for good: one that was about to start again does not
            if actor.running and rng.random() < 0.3:
                actor.crash()
            elif actor.running:
                await self._stop(actor)
        await asyncio.sleep(LATE_MS / 1000)
        began_s = self.loop.time()
        while (rest := self.unrest()) and self.loop.time() - began_s < REST_S_MAX:  # noqa: ASYNC110  nothing tells when
            await asyncio.sleep(1)  # virtual: asking the truth anew each second costs nothing but steps
        if rest:
            self.history.problem(f"P13 no rest after {REST_S_MAX:.0f} s of calm: {rest}")
        for actor in self.actors:
            if actor.running:
                await self._stop(actor)
        await self.look_back()
        await self.damage()

    def unrest(self) -> str:
        """What still has to come to rest, empty when nothing has."""
        truth = self.truth()
        for id_, session in truth.sessions.items():
            if not session.final:
                return f"session {id_} is not final after {session.slots} slots"
        for consumer in self.consumers:
            stream = consumer.stream
            reader = next(
                a for a in self.actors if any(isinstance(j, Reading) and j.consumer is consumer for j in a.jobs)
            )
            events = truth.since(consumer.first_chapter)
            if reader.running and stream is not None and len(stream.all) < len(events):
                return f"{consumer.name} has seen {len(stream.all)} of {len(events)} events"
        return ""

    async def look_back(self) -> None:
        """A last process reads everything, both ways, and asks all questions that are still open."""
        process = self.loop.process("last")
        face = self.store.face(process)

        async def look_back() -> None:
            async with logstore.open(
                face, clock=process.clock, rng=self.dice("last"), settings=self.stage.log_settings
            ) as log:
                for append, unknown in self.stage.unknowns:
                    if not await resolve(self.stage, "last", log, append, unknown):
                        self.history.problem(f"P6 cannot be resolved in calm weather: {append.ids[0]}")
                for settled in (False, True):
                    stream = await read_all(self.stage, "last", log, settled=settled)
                    truth = self.truth().by_place()
                    if [event.id for event in stream.events] != [e.id for e in truth.since(stream.first_chapter)]:
                        self.history.problem(f"P1 the last reading differs from the log settled={settled}")
                async with View.open(log, Chain()) as view:
                    Glass("last", "last", view, self.history, follows=False).look(
                        acknowledged=len(self.history.acknowledged)
                    )
                    if view.digest() != view.digest(pending=True):
                        self.history.problem("P8 the last view has pending rows, though all is settled")

        await process.start(look_back())

    async def damage(self) -> None:
        """P12: one object is lost or flipped, somebody new reads, the object is restored; several times."""
        rng, contents = self.dice("damage"), self.store.contents()
        truth = self.truth().by_place()
        for number in range(DAMAGES if truth.events else 0):
            key, lost, skip = pick(rng, list(contents)), rng.random() < 0.5, rng.random() < 0.3
            process = self.loop.process(f"victim{number}")
            if lost:
                self.store.lose(key)
            else:
                self.store.flip(key, rng.randrange(8 * len(contents[key])))
            self.history.note("world", f"{'loses' if lost else 'flips a bit of'} {key}")
            events, error, first = await process.start(self._read_damaged(process, skip=skip))
            self.history.note(process.name, f"reads {len(events)} events {error}")
            self.history.problems += judge(key, lost, truth, events, error, skip=skip, first_chapter=first)
            if isinstance(parse_key(key), ManifestKey | ChunkKey | RegistrationKey):
                try:
                    await process.start(self._view_damaged(process, key, truth))
                except (Corrupt, Missing) as error:
                    if self._policy != "drop" or key not in str(error) or not _is_shared(key, contents):
                        raise
            self.store.restore(key, contents[key])

    async def _read_damaged(self, process: Process, *, skip: bool) -> tuple[list[tuple[Order, str]], str, int]:
        try:
            async with logstore.open(
                self.store.face(process),
                clock=process.clock,
                rng=self.dice(process.name),
                settings=self.stage.log_settings,
            ) as log:
                oldest = await log.oldest()
                return *await read_through(log, oldest, skip=skip), first_chapter_after(oldest)
        except (Corrupt, Missing) as error:
            return [], str(error), 0

    async def _view_damaged(self, process: Process, key: str, truth: Truth) -> None:
        """A snapshot is damaged: the log is not, and a view shows all of it."""
        face, rng = self.store.face(process), self.dice(process.name)
        async with (
            logstore.open(face, clock=process.clock, rng=rng, settings=self.stage.log_settings, read_only=True) as log,
            View.open(log, Chain()) as view,
        ):
            if rows_of(view) != TrueFold(truth).settled(STAMP_MAX - 1):
                self.history.problem(f"P12 with {key} damaged a view shows {rows_of(view)}, and notes {view.damage}")

    def trace(self) -> list[str]:
        """Everything that was observed and asked, in order of time."""
        lines = [(float(line.split(" ", 1)[0]), i, line) for i, line in enumerate(self.history.lines)]
        lines += [(request.sent_s, -1, f"    {request}") for request in self.store.requests]
        return [line for *_, line in sorted(lines, key=lambda each: each[0])]

    def count(self) -> Counter[str]:
        """How much happened: a world in which nothing goes wrong proves little."""
        counts = Counter(requests=len(self.store.requests), virtual_s=round(self.loop.time()))
        counts.update(f"appends {append.outcome.value}" for append in self.history.appends)
        counts.update(starts=sum(actor.starts for actor in self.actors), streams=len(self.history.streams))
        sessions = self.truth().sessions
        counts.update(sessions=len(sessions), sealed=sum(session.sealed for session in sessions.values()))
        counts.update(glimpses=len(self.history.glimpses), verdicts=len(self.history.verdicts))
        counts.update(snapshots=sum(isinstance(parse_key(name), ManifestKey) for name in self.store.contents()))
        counts.update(retired=sum(isinstance(parse_key(name), RetiredKey) for name in self.store.contents()))
        counts.update(deleted=sum(request.effect == "deleted" for request in self.store.requests))
        counts.update(trimmed=len(self.history.trimmed))
        counts.update(chapters=1 + max((chapter for chapter, *_ in sessions), default=0))
        return counts

    def close(self) -> None:
        """Forget everything that still runs."""
        self.loop.close()


def _is_shared(key: str, contents: dict[str, bytes]) -> bool:
    """Whether it is a chunk that the newest two snapshots of chains share: of dropped history all there is."""
    keys = [parsed for name in contents if isinstance(parsed := parse_key(name), ManifestKey)]
    of_chains = [each for each in keys if each.fold.projection == Chain.name]  # where all is at once, there are others
    manifests = [decode_manifest(each, contents[manifest_key(each)]) for each in of_chains]
    newest = sorted(manifests, key=lambda manifest: manifest.point)[-2:]
    return all(key in (chunk_key(chunk.key) for chunk in manifest.chunks) for manifest in newest)


def draw_settings(rng: random.Random) -> LogSettings:
    """Settings like those of production, only everything happens some thirty times sooner."""
    return LogSettings(
        writer=WriterSettings(
            linger_ms=rng.choice([0, 5, 50]),
            flights=rng.choice([1, 3, 8]),
            buffer_events_max=rng.choice([10, 100_000]),
            idle_ms=800,
            idle_ms_max=3_000,
            session_age_ms_max=rng.choice([3_000, 60_000]),
            tick_ms=rng.choice([1_000, 5_000]),
        ),
        follow=FollowSettings(poll_ms_min=rng.choice([20, 200]), poll_ms_max=1_000),
        retry=RetrySettings(
            attempts_max=5, attempt_timeout_ms=300, deadline_ms=1_000, pause_first_ms=20, pause_max_ms=200
        ),
        memory_bytes_max=rng.choice([20_000, REMEMBERS_ALL_BYTES, REMEMBERS_ALL_BYTES]),
    )


def short_lived(settings: LogSettings) -> LogSettings:
    """Settings of a store whose grace is short: sessions end, and are sealed, soon."""
    writer = replace(settings.writer, idle_ms=400, idle_ms_max=400, session_age_ms_max=5_000, tick_ms=1_500)
    follow = FollowSettings(poll_ms_min=200, poll_ms_max=2_000)
    return replace(settings, writer=writer, follow=follow, retry=replace(settings.retry, deadline_ms=600))


def draw_weather(rng: random.Random) -> Weather:
    """The usual weather of a world, from none at all to trying."""
    bad = rng.choice([0.0, 0.01, 0.05, 0.1])
    return Weather(
        latency_ms=rng.choice([1.0, 10.0, 30.0]),
        slow=bad,
        slow_ms=1_500,
        throttled=bad,
        conflict=bad,
        unsent=bad / 2,
        lost=bad,
        late=bad / 2,
        silent=bad / 2,
        late_ms=LATE_MS,
    )


def draw_storm(rng: random.Random) -> Weather:
    """A time in which hardly anything works, each in its own way."""
    fault = rng.choice(["throttled", "unsent", "lost", "late", "late", "silent", "slow"])
    strike: dict[str, Any] = {fault: rng.choice([0.3, 0.8, 1.0]), "verbs": rng.choice([(), ("create",)])}
    return replace(Weather(slow_ms=3_000, late_ms=LATE_MS), **strike)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
