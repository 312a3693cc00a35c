"""A stage for tests of the log's behaviour: one bucket, some processes, virtual time, and a script of what goes wrong.

Everything is production code but the loop, the bucket and the randomness. Where ``tests/simulation`` lets chance
decide, a scene is directed: a test says which request of which process meets what, and nothing else does.

    @directed
    async def test_a_lost_answer_is_no_loss(scene: Scene) -> None:
        web = scene.machine("web")
        web.script.on("create", "log/", lose)           # lands, but the answer is lost: once
        async with web.open() as log, log.writer("web") as writer:
            await writer.append(event("a"))
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Concatenate, Never, ParamSpec, TypeVar

import logstore
from logstore import (
    Event,
    Log,
    LogSettings,
    Protection,
    Reader,
    RetrySettings,
    StoredEvent,
    Unavailable,
    WriterSettings,
)
from logstore.entry import Closed, Entry, Open, decode_entry
from logstore.errors import LogStoreError
from logstore.event import EventEncoder
from logstore.filestore.base import Blob, FileStore, Listed
from logstore.frontier import Position
from logstore.keys import EntryKey, SegmentKey, parse_key, retired_key, segment_key
from logstore.retired import Retired, RetiredSession, encode_retired
from logstore.segment import Segment, SegmentEncoder, decode_segment
from logstore.session import SessionId, Tip
from logstore.testing.process import Process, SimulatedClock
from logstore.testing.simulation import CALM, SimulatedLoop, SimulatedStore, StoreFace, Weather
from tests.simulation.truth import Truth, is_garbage

__all__ = [
    "Carry",
    "Gate",
    "Machine",
    "Scene",
    "Script",
    "die",
    "directed",
    "event",
    "events",
    "hang",
    "hang_after",
    "keys_of",
    "lose",
    "quick",
    "read",
    "refuse",
    "take",
    "until",
]

T = TypeVar("T")
P = ParamSpec("P")
Carry = Callable[[], Awaitable[Any]]
Act = Callable[[Carry], Awaitable[Any]]
STEPS_MAX = 2_000_000
FOREVER = 1_000_000_000


def event(key: str, kind: str = "Thing") -> Event:
    """An event that can be told from all others by its key."""
    return Event(kind, key, "changed", {"id": key})


def events(*keys: str) -> list[Event]:
    return [event(key) for key in keys]


def keys_of(stored: Sequence[StoredEvent]) -> list[str]:
    return [each.key for each in stored]


async def read(log: Log, **arguments: Any) -> list[str]:
    """The keys of everything that ``log.read`` yields."""
    return [each.key async for each in log.read(**arguments)]


async def take(reader: Reader, count: int, timeout: float = 300) -> list[str]:
    """The keys of the next events of a reader that follows."""
    taken: list[str] = []
    async with asyncio.timeout(timeout):
        if count:
            async for each in reader:
                taken.append(each.key)
                if len(taken) == count:
                    break
    return taken


async def until(condition: Callable[[], bool], timeout: float = 10_000) -> None:
    """Let virtual time pass until something is so."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not condition():
        assert loop.time() - began_s < timeout, f"not so after {timeout} s"
        await asyncio.sleep(0.5)


def quick(
    *, writer: WriterSettings | None = None, deadline_ms: int = 1_000, follow_ms: int = 100, **settings: Any
) -> LogSettings:
    """Settings with which sessions die within seconds: for stores with a short grace."""
    return LogSettings(
        writer=writer or WriterSettings(idle_ms=1_000, idle_ms_max=2_000),
        follow=logstore.FollowSettings(poll_ms_min=follow_ms, poll_ms_max=follow_ms),
        retry=RetrySettings(attempt_timeout_ms=500, deadline_ms=deadline_ms, pause_first_ms=20, pause_max_ms=100),
        **settings,
    )


async def die(machine: Machine, *keys: str, settings: LogSettings | None = None) -> None:
    """A process that appends and is killed."""

    async def live() -> None:
        async with machine.open(settings or quick()) as log, log.writer(machine.name) as writer:
            for key in keys:
                await writer.append(event(key))
            machine.process.crash()
            await asyncio.sleep(0.001)

    living = machine.start(live())
    await asyncio.sleep(0.5)
    assert machine.process.state.value == "crashed"
    assert not living.done()


# What can happen to a request -----------------------------------------------------------------


async def refuse(_carry: Carry) -> Never:
    """Nothing is done, and the caller is told so."""
    raise Unavailable("refused by the script")


async def lose(carry: Carry) -> Never:
    """It is done, but its answer is lost, whatever it was."""
    with suppress(LogStoreError):
        await carry()
    raise Unavailable("answer lost by the script")


async def hang(_carry: Carry) -> Never:
    """Nothing is done, and nothing is ever said."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def hang_after(carry: Carry) -> Never:
    """It is done, and nothing is ever said."""
    with suppress(LogStoreError):
        await carry()
    await asyncio.get_running_loop().create_future()
    raise AssertionError


class Gate:
    """Holds requests until it is opened: before they arrive, after they did, or behind their callers' backs."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._met = asyncio.Event()
        self.held = 0
        self._late: list[asyncio.Task[None]] = []

    async def met(self) -> None:
        """Wait until a request stands before it."""
        async with asyncio.timeout(10_000):
            await self._met.wait()

    def open(self) -> None:
        self._opened.set()

    async def landed(self) -> None:
        """Open it, and wait until what is late has landed, in the order in which it was sent."""
        self.open()
        await asyncio.gather(*self._late)

    async def before(self, carry: Carry) -> Any:
        """The request waits, and is never sent if its caller gives up."""
        await self._hold()
        return await carry()

    async def after(self, carry: Carry) -> Any:
        """The request is done; its answer waits, an error too."""
        try:
            return await carry()
        finally:
            await self._hold()

    async def late(self, carry: Carry) -> Never:
        """The caller is told Unavailable; the request is done when the gate opens."""
        self._send_late(carry)
        raise Unavailable("sent into the dark by the script")

    async def late_silent(self, carry: Carry) -> Never:
        """The caller hears nothing; the request is done when the gate opens, whether the caller still waits or not."""
        self._send_late(carry)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def _send_late(self, carry: Carry) -> None:
        before = self._late[-1:]

        async def land() -> None:
            await self._opened.wait()
            await asyncio.gather(*before)
            with suppress(LogStoreError):
                await carry()

        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self._late.append(loop.create_task(land(), context=loop.nowhere))
        self.held += 1
        self._met.set()

    async def _hold(self) -> None:
        self.held += 1
        self._met.set()
        await self._opened.wait()


@dataclass(slots=True)
class Rule:
    """The next ``times`` requests of ``verb`` whose key contains ``part`` meet ``act``."""

    verb: str
    part: str
    act: Act
    times: int
    skip: int
    met: int = 0


async def _nothing() -> None:
    """A listing is done as it is read; the script acts before."""


class Script:
    """A FileStore that does what the script says, and otherwise what the store within does."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.remote = store.remote
        self.rules: list[Rule] = []
        self.asked: list[tuple[str, str]] = []

    def on(self, verb: str, part: str, act: Act, times: int = 1, *, skip: int = 0) -> Rule:
        """From now on; the first rule that applies counts. ``skip``: so many requests pass first."""
        rule = Rule(verb, part, act, times, skip)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """The script is over."""
        self.rules.clear()

    async def create(self, key: str, data: bytes) -> int | None:
        now_ms: int | None = await self._call("create", key, lambda: self._store.create(key, data))
        return now_ms

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        blob: Blob = await self._call("get", key, lambda: self._store.get(key, start, stop))
        return blob

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        await self._call("list", prefix, _nothing)
        async for listed in self._store.list(prefix, after):
            yield listed

    async def delete(self, key: str) -> None:
        await self._call("delete", key, lambda: self._store.delete(key))

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _call(self, verb: str, key: str, carry: Carry) -> Any:
        self.asked.append((verb, key))
        for rule in self.rules:
            if rule.verb == verb and rule.part in key and rule.times:
                if rule.skip:
                    rule.skip -= 1
                    break
                rule.times -= 1
                rule.met += 1
                return await rule.act(carry)
        return await carry()

    def count(self, verb: str, part: str = "") -> int:
        """How many requests of ``verb`` had ``part`` in their key."""
        return sum(verb == asked and part in key for asked, key in self.asked)


# Those who act ---------------------------------------------------------------------------------


class MachineClock:
    """A machine's clocks, which go on while it is suspended though the timers of its processes do not."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._suspended_ms = 0

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self._suspended_ms

    def elapsed_ms(self) -> int:
        return self._clock.elapsed_ms() + self._suspended_ms

    def step(self, ms: int) -> None:
        """Set the wall clock forward or back."""
        self._clock.step(ms)

    def suspend(self, ms: int) -> None:
        """The lid is closed and opened again: time has passed, and no timer knows."""
        self._suspended_ms += ms


class Machine:
    """A process, its clock, and its scripted way to the bucket."""

    def __init__(self, scene: Scene, name: str, process: Process, face: StoreFace) -> None:
        self.scene = scene
        self.name = name
        self.process = process
        self.clock = MachineClock(process.clock)
        self.face = face
        self.script = Script(face)

    def open(self, settings: LogSettings | None = None, **arguments: Any) -> Log:
        """The log as this process sees it, to be entered."""
        rng = random.Random(f"{self.scene.seed} {self.name}")
        arguments.setdefault("protection", self.scene.protection)
        return logstore.open(self.script, settings=settings, clock=self.clock, rng=rng, **arguments)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``coroutine`` in this process, so that pausing and killing it reaches it."""
        return self.process.start(coroutine)


class Scene:
    """One bucket and those who use it. ``world`` is a way to the bucket that nothing goes wrong on."""

    def __init__(self, seed: int = 0, *, weather: Weather = CALM) -> None:
        self.seed = seed
        self.protection: Protection | None = None
        self.weather = weather
        self.loop = SimulatedLoop(random.Random(f"{seed} loop"), time_s_max=200_000, steps_max=STEPS_MAX)
        self.store = SimulatedStore(self.loop, random.Random(f"{seed} store"), is_garbage=is_garbage)
        self.world = self.store.face(None)

    def machine(self, name: str, *, skew_ms: int = 0, drift: float = 0.0) -> Machine:
        process = self.loop.process(name, skew_ms=skew_ms, drift=drift)
        return Machine(self, name, process, self.store.face(process, weather=self.weather))

    # The bucket, seen from outside

    def truth(self) -> Truth:
        """What the bucket holds, read by FORMAT alone."""
        return Truth.of(self.store.contents())

    def roster(self) -> list[Entry]:
        """The entries there are, in order."""
        named = ((parse_key(name), data) for name, data in sorted(self.store.contents().items()))
        return [decode_entry(key.chapter, key.number, data) for key, data in named if isinstance(key, EntryKey)]

    def bodies(self) -> list[str]:
        """The kinds of the roster's entries, in order."""
        return [type(entry.body).__name__ for entry in self.roster()]

    def ids(self) -> list[str]:
        """What was stored, in total order."""
        return self.truth().ids

    def segments(self, prefix: str = "log/") -> list[Segment]:
        """All segments below ``prefix``, in the order of their names."""
        found = []
        for name, data in self.store.contents().items():
            key = parse_key(name)
            if name.startswith(prefix) and isinstance(key, SegmentKey):
                found.append(decode_segment(key, data))
        return found

    def slot(self, writer: str, session: int, slot: int, chapter: int = 0) -> str:
        """The name of a segment."""
        return segment_key(writer, chapter, session, slot)

    # Other processes' hands

    def session(self, writer: str, number: int, chapter: int = 0) -> tuple[SessionId, Tip]:
        """A session, and its tip as the bucket has it: at its first absent slot, or its final."""
        opened = next(entry for entry in self.roster() if entry.address == (chapter, number))
        session, tip = SessionId.of(opened), Tip.of(opened)
        assert session.writer == writer
        contents = self.store.contents()
        while (data := contents.get(self.slot(writer, number, tip.slot, chapter))) is not None:
            segment = decode_segment(session.segment_key(tip.slot), data)
            if segment.final:
                break
            tip = tip.after(segment)
        return session, tip

    async def seal(self, writer: str, number: int, chapter: int = 0) -> Segment:
        """Somebody else's seal: a final at the tip of a session."""
        session, tip = self.session(writer, number, chapter)
        return await self.put_segment(session, tip, final=True)

    async def put_segment(self, session: SessionId, tip: Tip, *keys: str, final: bool = False) -> Segment:
        """Create a segment (or a seal) that attaches at ``tip``, as somebody else would."""
        encode = EventEncoder().encode
        data, segment = SegmentEncoder().encode(
            session.segment_key(tip.slot),
            [encode(event(key)) for key in keys],
            first_sequence=tip.sequence,
            stamp=tip.stamp + 1,
            acknowledged=tip.slot,
            previous=tip.digest,
            final=final,
            sealed=final,
        )
        await self.world.create(self.slot(session.writer, session.number, tip.slot, session.chapter), data)
        return segment

    # Retention, as issue 4 will do it

    async def retire(self, chapter: int) -> Retired:
        """Create the record of a chapter that is closed and whose sessions are all final."""
        truth = self.truth()
        entries = [entry for entry in truth.entries if entry.chapter == chapter]
        closed = entries[-1]
        assert isinstance(closed.body, Closed), "only a closed chapter is retired"
        sessions: dict[int, RetiredSession] = {}
        for session, true in truth.sessions.items():
            if session.chapter == chapter:
                assert true.final, f"not final {session}"
                held = [segment for segment in self._held(session.writer, chapter, session.number) if not segment.final]
                last = max((segment.stamp for segment in held), default=true.opened.stamp)
                sessions[session.number] = RetiredSession(true.slots - 1, last)
        record = Retired(chapter, closed.number, closed.digest, closed.stamp, closed.scopes, sessions)
        await self.world.create(retired_key(chapter), encode_retired(record))
        return record

    def _held(self, writer: str, chapter: int, session: int) -> list[Segment]:
        """A session's segments up to its first final."""
        held: list[Segment] = []
        for segment in self.segments():
            key = segment.key
            ended = bool(held) and held[-1].final
            if (key.writer, key.chapter, key.session, key.slot) == (writer, chapter, session, len(held)) and not ended:
                held.append(segment)
        return held

    def forget(self, name: str) -> None:
        """See SimulatedStore."""
        self.store.forget(name)

    def collect(self, chapter: int) -> list[str]:
        """Delete what a retired chapter held, names and all."""
        gone = []
        for name in self.store.contents():
            key = parse_key(name)
            if isinstance(key, EntryKey | SegmentKey) and key.chapter == chapter:
                self.forget(name)  # P4 ends with the record: what lands here later is garbage
                gone.append(name)
        return gone


def opened_by(entries: Sequence[Entry], writer: str) -> list[Entry]:
    """The open entries of a writer."""
    return [entry for entry in entries if isinstance(entry.body, Open) and entry.body.writer == writer]


def moved_by(position: Position | None) -> str:
    """A position as another process gets it."""
    assert position is not None
    return str(position)


def directed(test: Callable[Concatenate[Scene, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Play a test on a scene of its own, in virtual time; asyncio must have nothing to complain about."""

    def play(*args: P.args, **kwargs: P.kwargs) -> None:
        scene = Scene()
        try:
            scene.loop.run_until_complete(test(scene, *args, **kwargs))
        finally:
            scene.loop.close()
        assert scene.loop.complaints == []

    play.__name__, play.__qualname__, play.__doc__ = test.__name__, test.__qualname__, test.__doc__
    play.__module__ = test.__module__
    parameters = list(inspect.signature(test).parameters.values())[1:]
    play.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # pytest reads it
    return play
