"""The log: opens a store and wires the parts together.

One ``Log`` per process and store. It owns what its writers and readers share: the store with its
retries and meters, the clock, the memory of objects, the roster, and one follower, started when somebody follows.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from logstore.appended import Appended, AppendedStatistics
from logstore.catchup import catch_up
from logstore.claims import Claims
from logstore.clock import Clock, StampClock, SystemClock
from logstore.entry import Address, Body, Closed, Entry, Open, Tick
from logstore.errors import (
    AlreadyExists,
    Corrupt,
    InvalidArgument,
    LogStoreError,
    Missing,
    NotFound,
    Unknown,
)
from logstore.filestore import (
    MeteredStore,
    RetryingStore,
    RetrySettings,
    StoreStatistics,
    TracedStore,
    open_filestore,
    require_safe,
)
from logstore.filestore.base import FileStore
from logstore.filestore.local import LocalStore
from logstore.finding import Finding, Progress
from logstore.follower import LOCAL, REMOTE, Follower, FollowerStatistics, FollowSettings
from logstore.frontier import Frontier, OpenSession, Position, closed_by
from logstore.gone import decode_gone
from logstore.identity import HISTORIES, ID_BYTES, Identity, decode_identity, encode_identity
from logstore.keys import STORE, ManifestKey, StageId, entry_key, retired_key, stage_gone_key, stages_prefix
from logstore.lead import Lead
from logstore.looks import Look, Looks, StoreTime
from logstore.notices import Notices
from logstore.objects import Objects
from logstore.pins import PIN_MS, Pin, Pins
from logstore.protection import Protection, protect
from logstore.reader import Reader, resume
from logstore.receipt import Receipt
from logstore.retired import Retired
from logstore.roster import Roster
from logstore.seal import seal_silent
from logstore.session import SessionId
from logstore.snapshots import Snapshots
from logstore.spans import SafeTracer, Tracer, span_of
from logstore.stagechain import StageChain
from logstore.stagelisting import listed_stages
from logstore.stagelogs import Stage
from logstore.unsettled import Question, settle
from logstore.writer import Writer, WriterSettings

if TYPE_CHECKING:
    from logstore.keeper import Keeper, KeepSettings
    from logstore.survey import OpenSessionSurvey, Sealing, Survey

__all__ = ["Log", "LogSettings", "LogStatistics", "open_log"]

_log = logging.getLogger(__name__)

CREATION_DEADLINES_BEFORE_SEAL: Final = 4  # an answer may be lost, the creation retried, the final likewise
REMOTE_LINGER_MS: Final = 10
GRACE_MS: Final = 24 * 3_600_000
TICK_SESSIONS_MAX: Final = 10_000
T = TypeVar("T", Writer, Lead)
_NOT_OPEN: Final = "this log is not open; use it inside its async with"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Plain values. ``follow`` None: by the kind of store. ``seal``: whether to end others' silent sessions.

    ``retry`` bounds every request; its ``deadline_ms`` is the creation deadline that seal times are made of.
    ``memory_bytes_max``: how much of what was read or written is remembered, decoded.

    >>> LogSettings(writer=WriterSettings(linger_ms=5), seal=False).retry.deadline_ms
    10000
    """

    writer: WriterSettings = field(default_factory=WriterSettings)
    follow: FollowSettings | None = None
    retry: RetrySettings = field(default_factory=lambda: RetrySettings(attempt_timeout_ms=5_000, deadline_ms=10_000))
    memory_bytes_max: int = 64 << 20
    seal: bool = True


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """What this process does with a log, as of now. Counts are since it was opened; they only rise.

    ``requests``: every attempt, by verb; ``retries``: how many of them were not the first. ``appended``: by all writers
    and leads, closed ones too; ``buffered_*`` and ``flights``: what is not acknowledged yet. ``following``: how far its
    follower is, None where nobody follows. ``skew_ms``: how far the store's clock is ahead of this machine's.

    >>> async def slow_appends(log):
    ...     seen = log.statistics().appended.seconds
    ...     return sum(n for n, bound in zip(seen.counts, [*seen.bounds, 99]) if bound > 1)
    """

    requests: StoreStatistics
    retries: Mapping[str, int]
    appended: AppendedStatistics
    buffered_events: int
    buffered_bytes: int
    flights: int
    following: FollowerStatistics | None
    skew_ms: int


def open_log(
    store: str | FileStore,
    *,
    settings: LogSettings | None = None,
    read_only: bool = False,
    create: bool = True,
    history: str = "full",
    grace_ms: int = GRACE_MS,
    protection: Protection | None = None,
    tracer: Tracer | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Log:
    """Return the log in ``store``, an address or a filestore, to be entered by ``async with``.

    A store that holds no log yet is probed and made one, with ``history`` (full, archive, drop) and ``grace_ms``,
    unless ``read_only`` or not ``create``. ``protection``: how its objects are encrypted and signed, from the first on.
    ``tracer`` is told what goes on for how long, ``logstore.otel.OpenTelemetry()`` say. ``clock`` and ``rng`` are for
    tests.

    Entering costs one GET; a dozen requests when the log is new. It raises NotFound (no log there, and none to be
    made), KeyNeeded (it is protected), UnsafeStore, Missing, Corrupt, Unavailable, InvalidArgument.

    >>> import asyncio, logstore
    >>> from logstore import Event
    >>> async def example():
    ...     async with logstore.open("memory://doctest-open") as log, log.writer("web-1") as writer:
    ...         return (await writer.append(Event(kind="Greeting", key="g", type="said"))).slot
    >>> asyncio.run(example())
    0
    """
    return Log(
        open_filestore(store) if isinstance(store, str) else store,
        settings=settings or LogSettings(),
        read_only=read_only,
        create=create,
        history=history,
        grace_ms=grace_ms,
        protection=protection,
        tracer=tracer,
        clock=clock or SystemClock(),
        rng=rng or random.Random(secrets.randbits(128)),
    )


class Log:
    """An open log. Made by ``logstore.open``; everything it hands out ends with it.

    >>> import asyncio, logstore
    >>> from logstore import Event
    >>> async def example():
    ...     async with logstore.open("memory://doctest-log") as log, log.writer("web-1") as writer:
    ...         receipt = await writer.append(Event(kind="Greeting", key="g", type="said"))
    ...         await log.settled(receipt, timeout=5)
    ...         return [event.settled async for event in log.read()], log.requests().list.requests
    >>> asyncio.run(example())
    ([True], 0)
    """

    def __init__(
        self,
        store: FileStore,
        *,
        settings: LogSettings,
        read_only: bool,
        create: bool,
        history: str,
        grace_ms: int,
        protection: Protection | None,
        tracer: Tracer | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        if history not in HISTORIES:
            raise InvalidArgument(f"no such history policy history={history!r} known={', '.join(HISTORIES)}")
        if type(grace_ms) is not int or not 1 <= grace_ms < 1 << 63:
            raise InvalidArgument(f"needs a whole number of milliseconds, at least 1 grace_ms={grace_ms!r:.40}")
        self._local = store if isinstance(store, LocalStore) else None
        self._tracer = tracer = None if tracer is None else SafeTracer(tracer)
        self._metered = MeteredStore(TracedStore(store, tracer) if tracer is not None and tracer.requests else store)
        self._retrying = RetryingStore(self._metered, settings.retry, clock=clock, rng=rng)
        self._store = protect(self._retrying, protection)
        self._settings = settings
        self._read_only = read_only
        self._create = create
        self._history = history
        self._grace_ms = grace_ms
        self._clock = clock
        self._rng = rng
        self._stamps = StampClock(clock)
        self._store_time = StoreTime(clock)
        self._objects = Objects(self._store, clock, self._stamps, self._store_time, bytes_max=settings.memory_bytes_max)
        self._identity: Identity | None = None
        self._looks_: Looks | None = None
        self._roster_: Roster | None = None
        self._follower: Follower | None = None
        self._starting_follower = asyncio.Lock()
        self._writers: list[Writer] = []
        self._leads: list[Lead] = []
        self._appended_before = Appended()  # by those that are over
        self._counting = threading.Lock()  # while what one has appended moves there: other threads may ask

    def __repr__(self) -> str:
        return f"<Log {self._store!r} writers={len(self._writers)} follower={self._follower!r}>"

    async def __aenter__(self) -> Log:
        try:
            with span_of(self._tracer, "logstore.open", read_only=self._read_only) as span:
                self._identity = await self._read_or_create_identity()
                span.note(store=self._identity.id.hex())
        except BaseException:
            await self._store.aclose()
            raise
        self._looks_ = Looks(self._store, self._store_time, self._identity.grace_ms)
        self._roster_ = Roster(self._identity, self._objects, self._looks_, self._stamps, self._rng)
        self._say = Notices(_log, store=self._roster_.store)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for lead in self._leads:
            await lead.aclose()
        for writer in self._writers:
            await writer.aclose()
        if self._follower is not None:
            await self._follower.aclose()
        await self._store.aclose()

    # Opening

    async def _read_or_create_identity(self) -> Identity:
        identity = await self._read_identity()
        if identity is not None:
            return identity
        for key in (entry_key(0, 0), retired_key(0)):
            if await self._exists(key):
                identity = await self._read_identity()  # made meanwhile, by somebody faster?
                if identity is not None:
                    return identity
                raise Missing(f"the store says who writes but not which store it is key={STORE}; restore it")
        if self._read_only or not self._create:
            raise NotFound(f"no log in this store key={STORE}; open it for writing once to make one")
        await require_safe(self._store, self._rng.randbytes(8).hex())
        made = Identity(self._rng.randbytes(ID_BYTES), self._stamps.physical_ms(), self._grace_ms, self._history, None)
        with suppress(AlreadyExists):  # somebody was faster, or an earlier attempt landed: what is there counts
            await self._store.create(STORE, encode_identity(made))
        identity = await self._read_identity()
        if identity is None:
            raise Missing(f"an object is gone right after its creation key={STORE}; check the store")
        return identity

    async def _read_identity(self) -> Identity | None:
        started_ms = self._clock.elapsed_ms()
        try:
            blob = await self._store.get(STORE)
        except NotFound:
            return None
        if blob.now_ms is not None:
            self._store_time.tell(blob.now_ms)
            self._stamps.compare(blob.now_ms, self._clock.elapsed_ms() - started_ms)
        return decode_identity(blob.data)

    async def _exists(self, key: str) -> bool:
        try:
            await self._store.get(key, 0, 1)
        except NotFound:
            return False
        return True

    # What it is made of

    @property
    def identity(self) -> Identity:
        """Which store this is. Cost: none."""
        if self._identity is None:
            raise InvalidArgument(_NOT_OPEN)
        return self._identity

    @property
    def _looks(self) -> Looks:
        if self._looks_ is None:
            raise InvalidArgument(_NOT_OPEN)
        return self._looks_

    @property
    def _roster(self) -> Roster:
        if self._roster_ is None:
            raise InvalidArgument(_NOT_OPEN)
        return self._roster_

    @property
    def snapshots(self) -> Snapshots:
        """The objects of this log's snapshots. Cost: none."""
        return Snapshots(self._store, self._objects)

    @property
    def claims(self) -> Claims:
        """Who creates which document of a collection that is unique. Cost: none."""
        return Claims(self._objects, self._stamps, self._rng, self.identity.grace_ms)

    def keeper(self, settings: KeepSettings | None = None) -> Keeper:
        """Return who looks after this log's history: closes chapters, retires them, collects garbage. Cost: none."""
        from logstore.keeper import Keeper, KeepSettings

        self._require_writable()
        return Keeper(
            settings or KeepSettings(),
            self.identity,
            store=self._store,
            objects=self._objects,
            roster=self._roster,
            looks=self._looks,
            snapshots=self.snapshots,
            pins=self.pins,
            stamps=self._stamps,
            store_time=self._store_time,
            rng=self._rng,
            local=self._local,
            close_chapter=self.close_chapter,
            stage_chain=self.stage_chain,
        )

    @property
    def pins(self) -> Pins:
        """The pins of this log: who asks for patience. Cost: none."""
        return Pins(self._store, self._objects, self._store_time)

    def pin(self, owner: str, after: Position | str | None = None, *, for_ms: int = PIN_MS) -> Pin:
        """Return a pin to be entered by ``async with``: what lies after a position is not retired while it lasts.

        ``after`` None: all that is not retired yet. ``owner``: for operators to know whom to ask. A pin that is taken
        while a chapter is being retired may come too late for that chapter: then entering it raises Trimmed, or the pin
        begins later. Cost: a PUT, and two GETs and one per session of the position; a PUT to release it. Raises
        InvalidArgument (more than seven days; a read-only log), Trimmed, StaleStore, Unavailable.
        """
        self._require_writable()
        position = Position.parse(after) if isinstance(after, str) else after
        return Pin(
            self.pins, self._first_needed, self._looks, rng=self._rng, owner=owner, after=position, for_ms=for_ms
        )

    async def _first_needed(self, after: Position | None) -> int:
        """The first chapter that a reader needs which goes on after a position; looked at just now."""
        while True:
            if after is None:
                chapter = await self._roster.first_unretired()
            else:
                chapter = min((await resume(after, self.identity, self._objects, self._looks)).chapters)
            record = await self._looks.look(chapter)
            if record is None or record.archives:
                return chapter

    # Stage logs

    def stage_log(self, stage: StageId) -> Stage:
        """Return one stage log; ``StageLogs`` is the front door. Cost: none."""
        return Stage(
            self.stage_chain(stage),
            clock=self._clock,
            rng=self._rng,
            follow=self._follow_settings,
            read_only=self._read_only,
        )

    def stage_chain(self, stage: StageId) -> StageChain:
        """The objects of one stage log. Cost: none."""
        name = stage_gone_key(stage)
        look = Look(self._store, self._store_time, self.identity.grace_ms, name, lambda data: decode_gone(stage, data))
        return StageChain(stage, self._objects, look)

    async def stage_logs_of(self, deployment: str) -> list[StageId]:
        """See ``StageLogs.stages``."""
        found = listed_stages(self._store, stages_prefix(deployment))
        return [stage.id async for stage in found if stage.gone is None]

    @property
    def _follow_settings(self) -> FollowSettings:
        return self._settings.follow or (REMOTE if self._store.remote else LOCAL)

    @property
    def tracer(self) -> Tracer | None:
        """Who is told of spans, if anybody. Cost: none."""
        return self._tracer

    @property
    def read_only(self) -> bool:
        """Whether it was opened so as to write nothing. Cost: none."""
        return self._read_only

    def requests(self) -> StoreStatistics:
        """Requests and bytes by verb since the log was made; subtract two to count a stretch. Cost: none."""
        return self._metered.statistics()

    def statistics(self) -> LogStatistics:
        """What this process does with the log. Cost: O(open sessions). Any thread may call."""
        appended = Appended()
        with self._counting:
            appended.add(self._appended_before)
            writers = [writer.statistics() for writer in self._writers]
            for each in [*(writer.appended for writer in self._writers), *(lead.appended for lead in self._leads)]:
                appended.add(each)
        return LogStatistics(
            requests=self.requests(),
            retries=dict(self._retrying.retries),
            appended=appended.statistics(),
            buffered_events=sum(writer.buffered_events for writer in writers),
            buffered_bytes=sum(writer.buffered_bytes for writer in writers),
            flights=sum(writer.flights for writer in writers),
            following=self._follower.statistics() if self._follower is not None else None,
            skew_ms=self._stamps.skew_ms,
        )

    # Writing

    def writer(self, name: str, settings: WriterSettings | None = None) -> Writer:
        """Return a writer to be entered by ``async with``. Its first append opens a session.

        Any number of processes may write under one name. Cost: none. Raises InvalidArgument for a name that is
        empty, longer than 200 bytes, or not text; and on a read-only log.
        """
        self._require_writable()
        settings = settings or self._settings.writer
        if settings.linger_ms is None:
            settings = replace(settings, linger_ms=REMOTE_LINGER_MS if self._store.remote else 0)
        beyond_idle_ms = self._require_bearable(max(settings.idle_ms, settings.idle_ms_max))
        writer = Writer(
            name,
            objects=self._objects,
            roster=self._roster,
            looks=self._looks,
            stamps=self._stamps,
            clock=self._clock,
            rng=self._rng,
            settings=settings,
            seal_ms_beyond_idle=beyond_idle_ms,
            post_tick=self._post_tick,
            stored=self._take_own,
            tracer=self._tracer,
        )
        with self._counting:
            self._writers = self._without_ended(self._writers, lambda known: known.is_closed)
        self._writers.append(writer)
        return writer

    def lead(self, name: str, kinds: Collection[str], settings: WriterSettings | None = None) -> Lead:
        """Return the lead over some kinds, to be acquired: one process at a time has it. Cost: none.

        A kind is led, or written by all, for ever. Raises InvalidArgument on a read-only log.
        """
        self._require_writable()
        settings = settings or self._settings.writer
        beyond_idle_ms = self._require_bearable(settings.idle_ms)
        lead = Lead(
            name,
            kinds,
            objects=self._objects,
            roster=self._roster,
            looks=self._looks,
            stamps=self._stamps,
            clock=self._clock,
            rng=self._rng,
            settings=settings,
            seal_ms_beyond_idle=beyond_idle_ms,
            follow=self._follow_from_tail,
            seal_silent_now=self.seal,
            stored=self._take_own,
            tracer=self._tracer,
        )
        with self._counting:
            self._leads = self._without_ended(self._leads, lambda known: known.is_over)
        self._leads.append(lead)
        return lead

    def _without_ended(self, known: list[T], is_over: Callable[[T], bool]) -> list[T]:
        """Those that go on; what the others have appended stays counted."""
        going_on = []
        for each in known:
            if is_over(each):
                self._appended_before.add(each.appended)
            else:
                going_on.append(each)
        return going_on

    def _require_bearable(self, idle_ms: int) -> int:
        """How long after its idle time a session may be sealed; InvalidArgument where the grace is too short."""
        beyond_idle_ms = CREATION_DEADLINES_BEFORE_SEAL * self._settings.retry.deadline_ms
        if self.identity.grace_ms < 4 * (2 * idle_ms + beyond_idle_ms):
            raise InvalidArgument(
                f"idle times are too long for this store's grace longest_idle_ms={idle_ms}"
                f" grace_ms={self.identity.grace_ms}; grace must be 4 times the longest idle and seal time"
            )
        return beyond_idle_ms

    def _require_writable(self) -> None:
        if self._read_only:
            raise InvalidArgument("this log was opened read-only; open it without read_only=True")

    def _take_own(self, session: SessionId) -> None:
        if self._follower is not None:
            self._follower.take_own(session[:2])

    async def resolve(self, unknown: Unknown | str) -> Receipt:
        """Settle what an append left open, given its ``Unknown`` or the token of it, in any process.

        Returns the receipt when the events are stored; raises NotStored when they are not and never will be. Ends
        the session in question. Cost: one GET per slot of that session, at most one PUT. Raises Unavailable: ask
        again later.
        """
        self._require_writable()
        token = unknown if isinstance(unknown, str) else unknown.token
        return await settle(Question.parse(token), self._objects, self._stamps, self._looks)

    # Reading

    def read(
        self,
        after: Position | str | None = None,
        kinds: Collection[str] | None = None,
        *,
        settled: bool = False,
        on_damage: Literal["raise", "skip"] = "raise",
    ) -> Reader:
        """Return a reader of everything stored when it starts, in total order; of what is settled by then, if asked.

        ``on_damage="skip"`` leaves a damaged session, notes the error in ``reader.damage`` and goes on with the others;
        nothing above the damage is settled then, and who goes on from the position meets it again.
        Cost: one GET per roster entry and segment after ``after`` that is not remembered, and one per open session.
        Raises Corrupt, Missing, StaleStore, Trimmed, Unavailable as it goes.
        """
        if on_damage not in ("raise", "skip"):
            raise InvalidArgument(f"no such way to meet damage on_damage={on_damage!r}; use raise or skip")
        return self._reader(after, kinds, settled=settled, follow=False, skip_damage=on_damage == "skip")

    def follow(
        self, after: Position | str | None = None, kinds: Collection[str] | None = None, *, settled: bool = False
    ) -> Reader:
        """Return a reader that never ends: what is stored, then what comes; strictly in total order if settled.

        All readers of a log share one follower. Cost: as ``read`` to catch up; then one GET per poll, and one per
        open session.
        """
        return self._reader(after, kinds, settled=settled, follow=True, skip_damage=False)

    def _reader(
        self,
        after: Position | str | None,
        kinds: Collection[str] | None,
        *,
        settled: bool,
        follow: bool,
        skip_damage: bool,
    ) -> Reader:
        identity = self.identity
        position = Position.parse(after) if isinstance(after, str) else after

        async def start() -> Frontier:
            if position is None:
                return Frontier(identity.id, identity.root, None)
            return await resume(position, identity, self._objects, self._looks)

        return Reader(
            start,
            objects=self._objects,
            looks=self._looks,
            stamps=self._stamps,
            kinds=kinds,
            settled=settled,
            settled_at=position.settled if position else None,
            following=self if follow else None,
            skip_damage=skip_damage,
        )

    async def oldest(self) -> Position | None:
        """Where what is kept begins, for ``read`` and ``follow``; None: at the beginning, nothing was dropped.

        Cost: 1 GET, or 2·log2 of the retired chapters. Raises Corrupt, Unavailable.
        """
        record = await self._last_retirement()
        if record is None or record.archives:
            return None
        return Frontier(self.identity.id, self.identity.root, closed_by(record)).position()

    # Following

    @property
    def follower(self) -> Follower | None:
        """The one follower of this log, None until somebody follows, or when it met what ended it. Cost: none."""
        return self._follower if self._follower is not None and self._follower.is_alive else None

    def follower_from(self, frontier: Frontier) -> Follower:
        """The log's follower; if there is none yet, one that starts where ``frontier`` is. Cost: none."""
        follower = self.follower
        if follower is None:
            may_seal = self._settings.seal and not self._read_only
            follower = self._follower = Follower(
                frontier.copy(),
                objects=self._objects,
                looks=self._looks,
                clock=self._clock,
                rng=self._rng,
                settings=self._follow_settings,
                on_entry=self._notice_entry,
                seal=self._seal_session if may_seal else None,
                tick=self._post_tick if may_seal else None,
                event_stamp=self._stamps.last,
                seal_ms_max=self.identity.seal_ms_max,
            )
        return follower

    async def _follow_from_tail(self) -> Follower:
        """The follower; if there is none yet, one that starts at what is stored now."""
        async with self._starting_follower:
            if (follower := self.follower) is None:
                record = await self._last_retirement()  # up to its end nothing can be unsettled
                frontier = Frontier(self.identity.id, self.identity.root, closed_by(record) if record else None)
                async with aclosing(catch_up(frontier, self._objects, self._looks, self._stamps)) as runs:
                    async for _ in runs:
                        pass
                return self.follower_from(frontier)
            return follower

    async def _last_retirement(self) -> Retired | None:
        """The record of the newest retired chapter."""
        first = await self._roster.first_unretired()
        return await self._looks.retired(first - 1) if first else None

    def _notice_entry(self, entry: Entry) -> None:
        self._roster.learn(entry)
        for lead in self._leads:
            lead.learn(entry)
        if isinstance(entry.body, Tick):
            for writer in self._writers:
                writer.read_tick()
            for lead in self._leads:
                lead.read_tick()

    async def moves(self) -> AsyncGenerator[None, None]:
        """Yield once it looks, then each time that something new is stored, by anyone: an event, a session, a tick.

        What comes faster than it is asked for becomes one. Never ends by itself. Cost: one GET per poll, and one per
        open session; the first time in a process that does not follow yet, a survey. Raises Corrupt, Missing, Trimmed,
        Unavailable.
        """
        async with self._starting_follower:
            follower = self.follower
            if follower is None:
                _, frontier = await self._take_survey()
                follower = self.follower_from(frontier)
        while True:
            changed = follower.changed()
            yield
            await changed.wait()

    def now_ms(self) -> int:
        """The store's time as this process reckons it, in Unix milliseconds. Cost: none."""
        return self._stamps.physical_ms()

    @property
    def watermark(self) -> int:
        """The stamp at or below which this process knows that nothing new can appear; 0 while it does not follow."""
        return self._follower.frontier.watermark() if self._follower else 0

    async def settled(self, receipt: Receipt, timeout: float | None = None) -> None:
        """Wait until the events of ``receipt`` have their final place in the order; TimeoutError after ``timeout`` s.

        Posts a tick if none lies above them, and seals silent sessions that hold the watermark. Follows from now on.
        Cost: a tick (4 requests), and polls; the first time in a process that does not follow yet, a reading of all
        chapters that are not retired.
        """
        async with asyncio.timeout(timeout):
            await self.reach(receipt.stamp)

    async def reach(self, stamp: int) -> None:
        """Wait until the watermark of this process's follower has come to ``stamp``. Cost: as ``settled``."""
        follower = await self._follow_from_tail()
        with follower.wanting_settled():
            if not self._read_only:
                await self._post_tick(stamp)
            while True:
                changed = follower.changed()
                if follower.frontier.watermark() >= stamp:
                    return
                await changed.wait()

    async def tick(self, above: int) -> bool:
        """Let the watermark rise to ``above``, a stamp, as far as sessions allow: post a tick if no entry lies there.

        False: one did. Cost: 3 GETs, and 1 PUT; more when another process is faster. Raises ClockSkew, Missing,
        Unavailable (it may land yet).
        """
        self._require_writable()
        return await self._post_tick(above) is not None

    async def _post_tick(self, above: int) -> Entry | None:
        """Post a tick unless the newest entry's stamp is at or above ``above`` already."""
        return await self._roster.post(lambda tail: None if tail.stamp >= above else Tick(self._slots_read()))

    async def post_point(self, built_on: tuple[ManifestKey, ...], expect: Callable[[Address], None]) -> Entry:
        """Post a tick that is a snapshot point: snapshots at it build on these manifests.

        ``expect`` is told where it may come to lie, each time before it is sent. Cost: as ``tick``, always.
        """
        self._require_writable()

        def decide(tail: Entry) -> Tick:
            expect(tail.successor)
            return Tick(self._slots_read(), built_on)

        entry = await self._roster.post(decide)
        assert entry is not None, "it is posted whatever the tail"
        return entry

    def _slots_read(self) -> tuple[tuple[int, int, int], ...]:
        """What this process has read of the open sessions, or stored of its own."""
        slots: dict[tuple[int, int], int] = {}
        if self._follower is not None:
            slots.update((address, session.tip.slot) for address, session in self._follower.frontier.sessions.items())
        for writer in self._writers:
            if (own := writer.open_slots()) is not None:
                slots[own[0], own[1]] = max(own[2], slots.get((own[0], own[1]), 0))
        return tuple((*address, count) for address, count in sorted(slots.items()) if count)[:TICK_SESSIONS_MAX]

    # Looking after it

    async def _seal_session(self, session: OpenSession) -> bool:
        final = await seal_silent(session, self._objects, self._looks, self._stamps)
        if final is None:
            return False
        self._say_sealed(session.id.writer, session.address)
        newest = self._roster.newest
        if newest is None or newest.stamp < session.tip.stamp:
            with suppress(LogStoreError):  # only the watermark waits; whoever needs it posts one
                await self._post_tick(session.tip.stamp)
        return True

    def check(self, progress: Progress | None = None) -> AsyncGenerator[Finding, None]:
        """Return an iterator of everything that is wrong in the store, not only the first; notes too. Writes nothing.

        Cost: a LIST per 1,000 keys and one GET per object. Raises Unavailable; damage is yielded.
        """
        from logstore.check import check

        return check(self._store, progress)

    async def survey(self) -> Survey:
        """Return what the log holds and what holds its watermark.

        Cost: a LIST per 1,000 keys; one GET per roster entry and per session, a few more per open session. Raises
        Corrupt, Missing, Unavailable.
        """
        survey, _ = await self._take_survey()
        return survey

    async def _take_survey(self) -> tuple[Survey, Frontier]:
        from logstore.survey import take_survey

        return await take_survey(self._store, self.identity, self._stamps.skew_ms)

    async def seal(self, *, dry_run: bool = False, writer: str | None = None) -> tuple[Sealing, ...]:
        """End the sessions silent for their seal time, by the store's own times; return what came of each open one.

        ``dry_run`` only says what would be done. ``writer``: only that writer's, at once, for who knows that it is gone
        (one that lives loses nothing: it goes on in a new session; but a leader that lives is Fenced). Cost: a survey;
        about eight requests per session sealed, four for a tick. Raises Corrupt, Missing (of the survey), Unavailable.
        """
        if not dry_run:
            self._require_writable()
        survey, frontier = await self._take_survey()
        done = [
            await self._seal_surveyed(session, frontier, dry_run, gone=writer is not None)
            for session in survey.open_sessions
            if writer in (None, session.writer)
        ]
        if above := max((sealing.session.last_stamp for sealing in done if sealing.sealed and not dry_run), default=0):
            with suppress(LogStoreError):  # only the watermark waits; whoever needs it posts one
                await self._post_tick(above)
        return tuple(done)

    async def _seal_surveyed(
        self, session: OpenSessionSurvey, frontier: Frontier, dry_run: bool, *, gone: bool
    ) -> Sealing:
        from logstore.survey import Sealing

        if gone:
            pass
        elif session.silent_ms is None:
            return Sealing(session, False, "the store tells no times, so nobody knows how long it has been silent")
        elif not session.may_be_sealed:
            return Sealing(session, False, "its writer may live: it was not silent for its seal time")
        if dry_run:
            why = "its writer is gone" if gone else "it was silent for its seal time"
            return Sealing(session, True, f"it would be sealed: {why}")
        silent = frontier.sessions[session.chapter, session.session]
        try:
            final = await seal_silent(silent, self._objects, self._looks, self._stamps)
        except LogStoreError as error:
            return Sealing(
                session, False, f"{type(error).__name__}: {error}", damaged=isinstance(error, Missing | Corrupt)
            )
        if final is None:
            return Sealing(session, False, "it has gone on, ended or been retired meanwhile")
        self._say_sealed(session.writer, (session.chapter, session.session))
        return Sealing(session, True, f"sealed at slot {final.key.slot}")

    def _say_sealed(self, writer: str, session: Address) -> None:
        self._say("session-sealed", writer=writer, session=f"{session[0]}/{session[1]}")

    async def close_chapter(self) -> bool:
        """End the newest chapter; new sessions open in the next. False: it holds no session, or another ended it.

        Sessions of the old chapter run on. Cost: about 8 requests. Raises ClockSkew, Missing, Unavailable.
        """
        self._require_writable()
        tail = await self._roster.find_tail()
        if tail is None or isinstance(tail.body, Closed):
            return False
        chapter = tail.chapter
        if not await self._holds_session(chapter, tail.number):
            return False

        def decide(newest: Entry) -> Body | None:
            return Closed() if newest.chapter == chapter else None

        closed = await self._roster.post(decide)
        if closed is not None:
            await self._roster.post(lambda _: None)  # creates the next chapter's begin on its way
            self._say("chapter-ended", chapter=chapter)
        return closed is not None

    async def _holds_session(self, chapter: int, last: int) -> bool:
        for number in range(1, last + 1):
            entry = await self._objects.entry(chapter, number)
            if entry is None:
                return False
            if isinstance(entry.body, Open):
                return True
        return False
