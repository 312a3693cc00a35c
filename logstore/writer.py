"""Turn appended events into numbered segments under a session's own prefix.

Calls put encoded events into a buffer and wait. One task, the pump, looks at the whole state each time
something happened, decides synchronously what to do next (``_next_step``), and does it: acknowledge, send
the buffer as one segment (a *flight*), open a session, end one, settle trouble. Several flights are in the air at
once; they are acknowledged in the order of their slots.

Invariants:
- An event is acknowledged only after its slot and every earlier one of its session is stored.
- A slot is stored only when create returned, or the object found there is ours, in a chapter known unretired.
- An absent object proves nothing: a slot is given up only by sealing it.
- Events leave the buffer in the order of the calls; those that met a seal go back to its front, in order.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import chain
from typing import Final

from logstore.appended import Appended
from logstore.buffer import Batch, Buffer
from logstore.clock import Clock, StampClock, stamp_ms
from logstore.entry import FLIGHTS_MAX, Body, Entry, Open
from logstore.errors import (
    AlreadyExists,
    InvalidArgument,
    LimitExceeded,
    LogStoreError,
    Missing,
    NotStored,
    Unavailable,
    Unknown,
)
from logstore.event import EncodedEvent, Event, EventEncoder, payload_bytes
from logstore.keys import escape_name, segment_key
from logstore.looks import Looks
from logstore.notices import Notices
from logstore.objects import Objects
from logstore.receipt import Receipt
from logstore.retired import Retired
from logstore.roster import Roster
from logstore.seal import create_final
from logstore.segment import Segment, SegmentEncoder
from logstore.session import SessionId, Tip
from logstore.spans import Tracer, span_of
from logstore.unsettled import Question

__all__ = ["Writer", "WriterSettings", "WriterStatistics"]

_log = logging.getLogger(__name__)

APPEND_EVENTS_MAX: Final = 10_000
APPEND_BYTES_MAX: Final = 8 << 20
QUIET_CLOSE_MS_MAX: Final = 900  # a process that reads a tick while quiet closes its session within a second


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Plain values; durations in milliseconds, sizes in bytes.

    ``linger_ms``: how long the first event of a segment waits for company; None: 0 on a local store, 10 on a
    remote one. ``flights``: creations under way at once. ``buffer_*_max``: beyond this an append waits.
    ``idle_ms``: a session quiet for this long ends; doubled up to ``idle_ms_max`` when it is soon opened again.
    ``session_*_max``: a session ends at this age or size. ``tick_ms``: when the newest roster entry is this old and
    events lie above it, one tick is posted.

    >>> WriterSettings(linger_ms=20, flights=8).idle_ms
    30000
    """

    linger_ms: int | None = None
    flights: int = 4
    buffer_events_max: int = 100_000
    buffer_bytes_max: int = 64 << 20
    idle_ms: int = 30_000
    idle_ms_max: int = 600_000
    session_age_ms_max: int = 3_600_000
    session_bytes_max: int = 4 << 30
    tick_ms: int = 60_000

    def __post_init__(self) -> None:
        """Some go into the list that all share: what FORMAT has no place for there would stop every reader."""
        for setting in fields(self):
            value, least = getattr(self, setting.name), int(setting.name != "linger_ms")
            if value is None and setting.name == "linger_ms":
                continue
            if type(value) is not int or not least <= value < 1 << 63:
                raise InvalidArgument(f"needs a whole number, at least {least} {setting.name}={value!r:.40}")
        if self.flights > FLIGHTS_MAX:
            raise InvalidArgument(f"too many at once flights={self.flights} limit={FLIGHTS_MAX}")


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What a writer has done and holds, as of now. Counts are since it was made."""

    session: tuple[int, int] | None
    slots_acknowledged: int
    flights: int
    buffered_events: int
    buffered_bytes: int
    events_stored: int
    segments_stored: int
    bytes_stored: int
    sessions_opened: int
    events_sent_again: int
    events_not_stored: int
    events_unknown: int


class _Outcome(enum.Enum):
    STORED = enum.auto()
    SEALED = enum.auto()  # another's object lies in our slot: ours is not stored there and never will be
    GAVE_UP = enum.auto()  # no answer in time: it may be there, absent, or land later


@dataclass(slots=True, eq=False)
class _Flight:
    """A segment whose creation is under way. ``since_ms``: others may have seen nothing of the session since then."""

    segment: Segment
    data: bytes
    batches: list[Batch]
    since_ms: int
    began_s: float  # loop time: when the first of its events was buffered, or the flight before it sent
    task: asyncio.Task[_Outcome] = field(init=False)


@dataclass(slots=True, eq=False)
class _Session:
    """The session we write: the next segment goes to ``tip``; what is acknowledged ends at ``stored``."""

    id: SessionId
    tip: Tip
    stored: Tip
    opened_ms: int
    active_ms: int  # the start of the first attempt of its last creation: from then on others may have seen it
    bytes: int = 0


class _Step(enum.Enum):
    WAIT = enum.auto()
    LOOK = enum.auto()
    SETTLE = enum.auto()
    SEND = enum.auto()
    OPEN = enum.auto()
    END = enum.auto()
    STOP = enum.auto()


class Writer:
    """Appends under one name. Made by ``log.writer(name)``, used as ``async with``.

    >>> async def example(log):
    ...     async with log.writer("web-1") as writer:
    ...         return await writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
    """

    def __init__(
        self,
        name: str,
        *,
        objects: Objects,
        roster: Roster,
        looks: Looks,
        stamps: StampClock,
        clock: Clock,
        rng: random.Random,
        settings: WriterSettings,
        seal_ms_beyond_idle: int,
        post_tick: Callable[[int], Awaitable[object]],
        stored: Callable[[SessionId], None],
        tracer: Tracer | None = None,
    ) -> None:
        escape_name(name, "writer")
        self.name = name
        self._objects = objects
        self._roster = roster
        self._looks = looks
        self._stamps = stamps
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._seal_ms_beyond_idle = seal_ms_beyond_idle
        self._post_tick = post_tick
        self._on_stored = stored
        self._tracer = tracer
        self._linger_s = (settings.linger_ms or 0) / 1000
        self._events = EventEncoder()
        self._segments = SegmentEncoder()

        self._buffer = Buffer(
            held_events_max=settings.buffer_events_max,
            held_bytes_max=settings.buffer_bytes_max,
            segment_events_max=APPEND_EVENTS_MAX,
            segment_bytes_max=APPEND_BYTES_MAX,
        )
        self._flights: deque[_Flight] = deque()
        self._session: _Session | None = None
        self._idle_ms = settings.idle_ms
        self._idle_ended_ms: int | None = None
        self._quiet_close_ms: int | None = None
        self._tick_age_ms = self._jittered_tick_ms()
        self._tick_again_ms = 0  # not before this on the elapsed clock, whatever became of the last one
        self._tick_stamp = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._ticking: asyncio.Task[object] | None = None
        self._pump: asyncio.Task[None] | None = None

        self._appended = Appended()
        self._say = Notices(_log, store=roster.store, writer=name)

    def __repr__(self) -> str:
        session = self._session
        where = "no session" if session is None else f"session={session.id[:2]} next_slot={session.tip.slot}"
        return f"<Writer {self.name} {where} buffered={self._buffer.held_events} flights={len(self._flights)}>"

    def statistics(self) -> WriterStatistics:
        """What it has done and holds. Cost: none."""
        session = self._session
        return WriterStatistics(
            session=session.id[:2] if session else None,
            slots_acknowledged=session.stored.slot if session else 0,
            flights=len(self._flights),
            buffered_events=self._buffer.held_events,
            buffered_bytes=self._buffer.held_bytes,
            events_stored=self._appended.events,
            segments_stored=self._appended.segments,
            bytes_stored=self._appended.bytes,
            sessions_opened=self._appended.sessions_opened,
            events_sent_again=self._appended.events_sent_again,
            events_not_stored=self._appended.events_not_stored,
            events_unknown=self._appended.events_unknown,
        )

    async def __aenter__(self) -> Writer:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def appended(self) -> Appended:
        """What it has appended, counted on. Cost: none."""
        return self._appended

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed and has nothing left to do. Cost: none."""
        return self._closing and self._ticking is None and (self._pump is None or self._pump.done())

    async def aclose(self) -> None:
        """Send what is buffered, wait for it, end the session. Idempotent. Cost: the flush, one PUT, at most a tick."""
        self._closing = True
        self._wake.set()
        if self._pump is not None:
            await asyncio.shield(self._pump)
        if self._ticking is not None:
            await asyncio.wait([self._ticking])

    # Appending

    async def append(self, event: Event) -> Receipt:
        """Store one event; return when it is durable.

        Concurrent calls share a segment. Cancelling the call leaves the writer whole; the event may be stored or not.
        Cost: a share of one PUT, after the linger. Raises InvalidArgument, NotStored, Unknown, ClockSkew, Missing.
        """
        if self._tracer is not None:
            return await self._submit_traced([self._events.encode(event)])
        return await self._submit([self._events.encode(event)])

    async def append_many(self, events: Sequence[Event]) -> Receipt:
        """Store events that become visible together or not at all; return when they are durable.

        Cost: at most one PUT. Raises LimitExceeded above 10,000 events or 8 MiB, and whatever ``append`` raises.
        """
        if len(events) > APPEND_EVENTS_MAX:
            raise LimitExceeded(
                f"too many events at once events={len(events)} limit={APPEND_EVENTS_MAX}; append fewer at a time"
            )
        if not events:
            raise InvalidArgument("needs at least one event events=[]")
        encoded = self._events.encode_all(events)
        if self._tracer is not None:
            return await self._submit_traced(encoded)
        return await self._submit(encoded)

    def require_storable(self, event: Event) -> None:
        """Raise what ``append`` would find against the event itself: InvalidArgument, LimitExceeded. Cost: encoding."""
        _bytes_of([self._events.encode(event)])

    async def _submit_traced(self, events: Sequence[EncodedEvent]) -> Receipt:
        of = {"store": self._roster.store, "writer": self.name}
        with span_of(self._tracer, "logstore.append", **of, events=len(events)) as span:
            receipt = await self._submit(events)
            span.note(chapter=receipt.chapter, session=receipt.session, slot=receipt.slot)
            return receipt

    async def _submit(self, events: Sequence[EncodedEvent]) -> Receipt:
        size = _bytes_of(events)
        buffer = self._buffer
        if not buffer.is_open_to(len(events), size):
            await buffer.enter(len(events), size)
        if self._closing:
            raise InvalidArgument(f"this writer is closed writer={self.name}; use it inside its async with")
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name=f"logstore writer {self.name}")
        if not buffer:
            self._wake.set()
        batch = buffer.put(events, size)
        if buffer.is_segment_full:
            self._wake.set()
        try:
            return await batch.waiter
        except asyncio.CancelledError:
            buffer.withdraw(batch)
            raise

    # Deciding: plain functions of the state

    def _next_step(self) -> _Step:
        session, now_ms = self._session, self._clock.elapsed_ms()
        if self._flights and self._flights[0].task.done():
            return _Step.LOOK if self._flights[0].task.result() is _Outcome.STORED else _Step.SETTLE
        if self._buffer and session is None:
            return _Step.OPEN
        if session is not None and self._must_end(session, now_ms):
            return _Step.WAIT if self._flights else _Step.END
        if self._buffer and self._is_sending_time() and len(self._flights) < self._settings.flights:
            return _Step.SEND
        if self._closing and session is None:
            return _Step.STOP
        return _Step.WAIT

    def _must_end(self, session: _Session, now_ms: int) -> bool:
        settings = self._settings
        too_old = (
            now_ms - session.opened_ms >= settings.session_age_ms_max or session.bytes >= settings.session_bytes_max
        )
        if too_old:
            return True
        if self._buffer or self._flights:
            return False
        asked = self._quiet_close_ms is not None and now_ms >= self._quiet_close_ms
        return self._closing or asked or now_ms - session.active_ms >= self._idle_ms

    def _is_sending_time(self) -> bool:
        return self._closing or self._lingered_s() >= self._linger_s or self._buffer.is_segment_full

    def _lingered_s(self) -> float:
        return asyncio.get_running_loop().time() - self._buffer.since_s

    def _wait_s(self) -> float | None:
        """How long nothing will have to be done unless somebody wakes us."""
        session, now_ms = self._session, self._clock.elapsed_ms()
        waits = []
        if self._buffer and not self._is_sending_time():
            waits.append(self._linger_s - self._lingered_s())
        if session is not None and not self._flights:
            due_ms = [session.opened_ms + self._settings.session_age_ms_max]
            if not self._buffer:
                due_ms.append(session.active_ms + self._idle_ms)
                due_ms += [] if self._quiet_close_ms is None else [self._quiet_close_ms]
            waits.append((min(due_ms) - now_ms) / 1000)
        if (tick_in_ms := self._tick_due_in_ms()) is not None:
            waits.append(tick_in_ms / 1000)
        return max(0.0, min(waits)) if waits else None

    # Doing: the pump

    async def _run(self) -> None:
        try:
            while True:
                self._acknowledge_stored()
                match self._next_step():
                    case _Step.WAIT:
                        await self._wait()
                    case _Step.SEND:
                        self._send()
                    case _Step.OPEN:
                        await self._open()
                    case _Step.LOOK:
                        await self._settle(_Outcome.STORED)
                    case _Step.SETTLE:
                        await self._settle(self._flights[0].task.result())
                    case _Step.END:
                        await self._end()
                    case _Step.STOP:
                        return
                self._tick_if_due()
        finally:
            await self._abandon_all()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s()):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _acknowledge_stored(self) -> None:
        session = self._session
        while self._flights and self._flights[0].task.done() and self._flights[0].task.result() is _Outcome.STORED:
            assert session is not None
            if self._slept(self._flights[0]) or not self._looks.fresh(session.id.chapter):
                return
            self._acknowledge(session, self._flights.popleft())

    def _acknowledge(self, session: _Session, flight: _Flight) -> None:
        segment = flight.segment
        assert segment.key.slot == session.stored.slot, "slots are acknowledged in order"
        session.stored = session.stored.after(segment)
        self._appended.store(
            events=segment.count,
            batches=len(flight.batches),
            size=len(flight.data),
            seconds=asyncio.get_running_loop().time() - flight.began_s,
        )
        self._objects.remember_segment(segment)
        seq, key = segment.first_sequence, segment.key
        self._buffer.release(*flight.batches)
        for batch in flight.batches:
            batch.answer(Receipt(key.writer, key.chapter, key.session, key.slot, seq, len(batch.events), segment.stamp))
            seq += len(batch.events)
        self._on_stored(session.id)

    def _send(self) -> None:
        """Turn the front of the buffer into one segment and start its creation."""
        session = self._session
        assert session is not None
        began_s = self._buffer.since_s
        batches = self._buffer.take()
        events = list(chain.from_iterable(batch.events for batch in batches))
        data, segment = self._segments.encode(
            session.id.segment_key(session.tip.slot),
            events,
            first_sequence=session.tip.sequence,
            stamp=self._stamps.next(),
            acknowledged=session.stored.slot,
            previous=session.tip.digest,
        )
        flight = _Flight(segment, data, batches, since_ms=session.active_ms, began_s=began_s)
        session.tip = session.tip.after(segment)
        session.active_ms = self._clock.elapsed_ms()
        session.bytes += len(data)
        self._quiet_close_ms = None
        flight.task = asyncio.create_task(self._fly(segment, data))
        flight.task.add_done_callback(lambda _: self._wake.set())
        self._flights.append(flight)

    async def _fly(self, segment: Segment, data: bytes) -> _Outcome:
        try:
            await self._objects.create(_name(segment), data)
        except AlreadyExists:
            return await self._judge(segment)
        except LogStoreError as error:
            self._say("creation-given-up", key=_name(segment), error=error)
            return _Outcome.GAVE_UP
        return _Outcome.STORED

    async def _judge(self, segment: Segment) -> _Outcome:
        """Our slot is taken: by our own earlier attempt (stored), or by somebody else (not ours)."""
        try:
            found = await self._objects.segment(segment.key, remember=False)
        except LogStoreError as error:
            self._say("slot-unreadable", key=_name(segment), error=error)
            return _Outcome.GAVE_UP
        if found is None:
            return _Outcome.GAVE_UP
        return _Outcome.STORED if found.digest == segment.digest else _Outcome.SEALED

    # Doing, to sessions

    async def _open(self) -> None:
        self._choose_idle_ms()
        try:
            opened = await self._roster.post(self._open_body)
        except LogStoreError as error:
            self._refuse_buffer(error)
            return
        assert opened is not None
        now_ms = self._clock.elapsed_ms()
        tip = Tip.of(opened)
        self._session = _Session(SessionId.of(opened), tip, tip, opened_ms=now_ms, active_ms=now_ms)
        self._appended.sessions_opened += 1
        self._say("session-opened", session=_place(self._session.id))
        self._quiet_close_ms = None

    def _open_body(self, _tail: Entry) -> Body:
        return Open(self.name, self._idle_ms, self._idle_ms + self._seal_ms_beyond_idle, self._settings.flights)

    def _choose_idle_ms(self) -> None:
        """Opened again within the idle time after an idle close: it closes too early; else start from the setting."""
        ended_ms, settings = self._idle_ended_ms, self._settings
        soon = ended_ms is not None and self._clock.elapsed_ms() - ended_ms < self._idle_ms
        self._idle_ms = min(self._idle_ms * 2, settings.idle_ms_max) if soon else settings.idle_ms

    def _refuse_buffer(self, cause: LogStoreError) -> None:
        """No session could be opened: nothing in the buffer was ever sent."""
        kind = NotStored if isinstance(cause, Unavailable) else type(cause)
        if self._buffer.held_events:
            self._say("events-not-stored", events=self._buffer.held_events, error=cause)
        for batch in self._buffer.take_all():
            self._buffer.release(batch)
            self._appended.events_not_stored += len(batch.events)
            error = kind(f"nothing was stored: {cause}")
            error.__cause__ = cause
            batch.refuse(error)

    async def _end(self) -> None:
        """Create the final at the tip; everything before it is acknowledged."""
        session = self._session
        assert session is not None
        assert not self._flights
        now_ms = self._clock.elapsed_ms()
        self._idle_ended_ms = now_ms if now_ms - session.active_ms >= self._idle_ms else None
        self._session = None
        try:
            await create_final(self._objects, self._stamps, session.id, session.tip, sealed=False)
        except LogStoreError as error:
            self._say("session-not-ended", session=_place(session.id), error=error)
        else:
            self._say("session-ended", session=_place(session.id), slots=session.tip.slot)
        self._on_stored(session.id)
        self._tick_above(session.stored.stamp)

    # Doing, in trouble

    async def _settle(self, outcome: _Outcome) -> None:
        """Find out, and say, what became of the flights when the oldest one cannot simply be acknowledged."""
        session = self._session
        assert session is not None
        won = False
        try:
            if outcome is _Outcome.GAVE_UP:
                outcome, won = await self._seal_own_slot(session)
            if outcome is _Outcome.STORED and self._slept(self._flights[0]):
                outcome = await self._look_below(session)
            record = await self._looks.retired(session.id.chapter)
        except LogStoreError as error:
            await self._leave_session(session, partial(self._answer_unknown, cause=error))
            return
        if record is not None:
            await self._leave_retired_session(session, record)
        elif outcome is _Outcome.STORED:
            self._acknowledge(session, self._flights.popleft())
        elif won:
            await self._leave_session(session, self._answer_not_stored)
        else:
            await self._leave_session(session, None)

    async def _seal_own_slot(self, session: _Session) -> tuple[_Outcome, bool]:
        """Seal the oldest flight's slot: whether its events are stored, and whether our seal is what stands there."""
        flight = self._flights[0]
        if any(later.task.done() and later.task.result() is _Outcome.SEALED for later in self._flights):
            mine = await self._objects.fetch_segment(flight.segment.key, remember=False)
            if mine is None or mine.digest != flight.segment.digest:
                raise Missing(f"sealed above a slot that is gone key={_name(flight.segment)}; run `logstore check`")
            return _Outcome.STORED, False
        found = await create_final(self._objects, self._stamps, session.id, session.stored, sealed=False)
        if found is None:
            raise Unavailable("slot was taken and is empty again")
        segment, ours = found
        return (_Outcome.STORED if segment.digest == flight.segment.digest else _Outcome.SEALED), ours

    def _slept(self, flight: _Flight) -> bool:
        """Whether the session was silent so long, before this or under it, that others may have taken it for dead."""
        return self._clock.elapsed_ms() - flight.since_ms >= self._idle_ms + self._seal_ms_beyond_idle

    async def _look_below(self, session: _Session) -> _Outcome:
        """Stored after a long silence: had the store lost a slot below, a sealer may have put its final there.

        Ours would lie above it, void, though its creation succeeded. Only the last ``flights`` slots can have been lost
        without a later one that names them; higher up no sealer would have sealed. (RFC 0001 §4.) Cost: a GET for each.
        """
        tip = session.stored
        keys = [session.id.segment_key(slot) for slot in range(max(0, tip.slot - self._settings.flights), tip.slot)]
        found = await asyncio.gather(*(self._objects.fetch_segment(key, remember=False) for key in keys))
        if await self._looks.retired(session.id.chapter) is not None:
            return _Outcome.STORED  # the record knows better
        for key, segment in zip(keys, found, strict=True):
            if segment is None:
                name = segment_key(key.writer, key.chapter, key.session, key.slot)
                raise Missing(f"a slot below is gone key={name}; restore it")
            if segment.final:
                return _Outcome.SEALED
        return _Outcome.STORED

    async def _leave_retired_session(self, session: _Session, record: Retired) -> None:
        """The record says for ever which slots were stored; the others are sent again."""
        held = record.sessions.get(session.id.number)
        slots = 0 if held is None else held.slots
        while self._flights and self._flights[0].segment.key.slot < slots:
            flight = self._flights.popleft()
            flight.task.cancel()
            self._acknowledge(session, flight)
        await self._leave_session(session, None)

    async def _leave_session(self, session: _Session, answer: Callable[[_Flight], None] | None) -> None:
        """Give up the session: each flight's callers get ``answer``, or (None) its events go back to the buffer."""
        flights = list(self._flights)
        self._flights.clear()
        self._session = None
        for flight in flights:
            flight.task.cancel()
        if flights:
            await asyncio.wait([flight.task for flight in flights])
        if flights and answer is None:
            events = sum(flight.segment.count for flight in flights)
            self._say("session-lost", session=_place(session.id), events=events)
        for flight in reversed(flights):
            if answer is None:
                self._buffer.put_back(flight.batches)
                self._appended.events_sent_again += flight.segment.count
            else:
                answer(flight)
        self._on_stored(session.id)
        self._tick_above(session.stored.stamp)

    def _answer_not_stored(self, flight: _Flight) -> None:
        self._appended.events_not_stored += flight.segment.count
        self._say("events-not-stored", events=flight.segment.count)
        for batch in flight.batches:
            self._buffer.release(batch)
            name = _name(flight.segment)
            batch.refuse(NotStored(f"the store did not take it in time, slot sealed key={name}; append again"))

    def _answer_unknown(self, flight: _Flight, cause: LogStoreError) -> None:
        segment = flight.segment
        key, seq = segment.key, segment.first_sequence
        self._appended.events_unknown += segment.count
        self._say("events-unknown", key=_name(segment), events=segment.count, error=cause)
        for batch in flight.batches:
            self._buffer.release(batch)
            receipt = Receipt(key.writer, key.chapter, key.session, key.slot, seq, len(batch.events), segment.stamp)
            token = Question(receipt, segment.digest).token()
            message = f"may be stored or not key={_name(segment)} cause={cause}; settle it by log.resolve"
            error = Unknown(message, token=token)
            error.__cause__ = cause
            batch.refuse(error)
            seq += len(batch.events)

    async def _abandon_all(self) -> None:
        """The pump ends: normally with nothing left; if it was cancelled or broke, nobody may be left waiting."""
        self._closing = True
        cause = Unavailable("the writer was stopped")
        if self._session is not None and self._flights:
            await self._leave_session(self._session, partial(self._answer_unknown, cause=cause))
        self._refuse_buffer(cause)

    # Ticks

    def read_tick(self) -> None:
        """Somebody wants the watermark to move: end the session within a second if it is quiet. Cost: one PUT then."""
        if self._session is not None and not self._buffer and not self._flights and self._quiet_close_ms is None:
            self._quiet_close_ms = self._clock.elapsed_ms() + self._rng.randint(0, QUIET_CLOSE_MS_MAX)
            self._wake.set()

    def open_slots(self) -> tuple[int, int, int] | None:
        """The open session's (chapter, number, slots stored), None without one. Cost: none."""
        return (*self._session.id[:2], self._session.stored.slot) if self._session else None

    def _tick_due_in_ms(self) -> int | None:
        """When the newest entry will be so old that the events above it want a tick; None: none are, or it comes."""
        newest, session = self._roster.newest, self._session
        if newest is None or session is None or session.stored.stamp <= newest.stamp or self._ticking is not None:
            return None
        age_ms = self._stamps.physical_ms() - stamp_ms(newest.stamp)
        return max(self._tick_age_ms - age_ms, self._tick_again_ms - self._clock.elapsed_ms())

    def _tick_if_due(self) -> None:
        due_in_ms = self._tick_due_in_ms()
        if due_in_ms is not None and due_in_ms <= 0 and self._session is not None:
            self._tick_above(self._session.stored.stamp)

    def _tick_above(self, stamp: int) -> None:
        """Post one tick above ``stamp`` in the background, unless there is an entry above it."""
        newest = self._roster.newest
        if newest is not None and newest.stamp >= stamp:
            return
        self._tick_stamp = stamp
        if self._ticking is None:
            self._tick_age_ms = self._jittered_tick_ms()
            self._tick_again_ms = self._clock.elapsed_ms() + self._tick_age_ms
            self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        above = -1
        try:
            while above < self._tick_stamp:  # it may rise meanwhile: a tick under way can be below what came since
                above = self._tick_stamp
                await self._post_tick(above)
        except LogStoreError as error:
            self._say("tick-not-posted", error=error)
        finally:
            self._ticking = None
            self._wake.set()

    def _jittered_tick_ms(self) -> int:
        return round(self._settings.tick_ms * self._rng.uniform(0.75, 1.25))


def _name(segment: Segment) -> str:
    key = segment.key
    return segment_key(key.writer, key.chapter, key.session, key.slot)


def _place(session: SessionId) -> str:
    return f"{session.chapter}/{session.number}"


def _bytes_of(events: Sequence[EncodedEvent]) -> int:
    """What events to be stored together weigh. Raises LimitExceeded."""
    size = payload_bytes(events)
    if size > APPEND_BYTES_MAX:
        raise LimitExceeded(f"too much at once bytes={size} limit={APPEND_BYTES_MAX}; append less at a time")
    return size
