"""Leading: one process at a time writes some kinds, in a session whose open entry says so.

docs/rfcs/0011-transactions.md.
A lead is taken by an exclusive entry in the roster, and kept by writing. One segment is under way at a time; what comes
meanwhile goes into the next. Whoever takes over seals the session, so that its next slot says who leads: absent, we do.

Invariants:
- Nothing is appended before the predecessor's session has ended and was read to its final.
- Once anything says that another leads, nothing is appended any more, and nothing is appended again.
- A commit is answered by what its slot holds; where that cannot be found out this lead is over.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from logstore.appended import Appended
from logstore.buffer import Batch, Buffer
from logstore.clock import Clock, StampClock
from logstore.entry import Address, Entry, Exclusive, Open, Scope
from logstore.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    InvalidArgument,
    LimitExceeded,
    LogStoreError,
    Missing,
    NotStored,
    Unavailable,
    Unknown,
)
from logstore.event import Event, EventEncoder, payload_bytes
from logstore.follower import Follower
from logstore.frontier import OpenSession
from logstore.keys import escape_name, segment_key
from logstore.looks import Looks
from logstore.notices import Notices
from logstore.objects import Objects
from logstore.receipt import Receipt
from logstore.roster import Roster
from logstore.seal import create_final, seal_silent
from logstore.segment import Segment, SegmentEncoder
from logstore.session import SessionId, Tip
from logstore.spans import Tracer, span_of
from logstore.unsettled import Question
from logstore.writer import APPEND_BYTES_MAX, APPEND_EVENTS_MAX, WriterSettings

__all__ = ["Lead"]

BEATS_PER_IDLE: Final = 2
BEAT_ASKED_MS_MAX: Final = 900  # a tick was read: somebody waits for the watermark, which a quiet leader holds

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Session:
    """The session that we lead by."""

    id: SessionId
    tip: Tip
    opened_ms: int
    active_ms: int
    bytes: int = 0
    ended: bool = False


class Lead:
    """The right to write some kinds. Made by ``log.lead``; ``acquire`` takes it, ``aclose`` gives it up.

    >>> async def example(log):
    ...     lead = log.lead("web-1", {"Account"})
    ...     await lead.acquire(standby=True)
    ...     try:
    ...         return await lead.append([Event(kind="Account", key="a", type="opened", data={"balance": 5})])
    ...     finally:
    ...         await lead.aclose()
    """

    def __init__(
        self,
        name: str,
        kinds: Collection[str],
        *,
        objects: Objects,
        roster: Roster,
        looks: Looks,
        stamps: StampClock,
        clock: Clock,
        rng: random.Random,
        settings: WriterSettings,
        seal_ms_beyond_idle: int,
        follow: Callable[[], Awaitable[Follower]],
        seal_silent_now: Callable[[], Awaitable[object]],
        stored: Callable[[SessionId], None],
        tracer: Tracer | None = None,
    ) -> None:
        escape_name(name, "writer")
        self.name = name
        self.kinds = tuple(sorted(set(kinds), key=str.encode))
        if not self.kinds:
            raise InvalidArgument("needs the kinds to lead kinds=[]")
        self._objects = objects
        self._roster = roster
        self._looks = looks
        self._stamps = stamps
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._seal_ms = settings.idle_ms + seal_ms_beyond_idle
        self._follow = follow
        self._seal_silent_now = seal_silent_now
        self._on_stored = stored
        self._tracer = tracer
        self._store_id = roster.store
        self._events = EventEncoder()
        self._segments = SegmentEncoder()
        self._buffer = Buffer(
            held_events_max=settings.buffer_events_max,
            held_bytes_max=settings.buffer_bytes_max,
            segment_events_max=APPEND_EVENTS_MAX,
            segment_bytes_max=APPEND_BYTES_MAX,
        )
        self._appended = Appended()
        self._say = Notices(_log, store=roster.store, writer=name)
        self._session: _Session | None = None
        self._under_way: Segment | None = None
        self._lost: LogStoreError | None = None
        self._newest: Address = (0, 0)  # of the entries of our scope that this process has read
        self._rolling_over = False
        self._beat_ms: int | None = None  # when to write an empty segment, though it is not due
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # to another session, or out of the lead
        self._acquired = self._closing = False
        self._pump: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._next_confirming: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        where = "not acquired" if self._session is None else f"session={self._session.id[:2]}"
        return f"<Lead {self.name} kinds={self.kinds} {where} lost={self._lost!r}>"

    @property
    def address(self) -> Address | None:
        """The session that it leads by; None before it leads. Cost: none."""
        return self._session.id[:2] if self._session is not None else None

    @property
    def appended(self) -> Appended:
        """What it has appended, counted on. Cost: none."""
        return self._appended

    @property
    def is_over(self) -> bool:
        """Whether it has nothing left to do: closed, or lost. Cost: none."""
        return (self._closing or self._lost is not None) and (self._pump is None or self._pump.done())

    def require(self) -> None:
        """Raise what ended it, if anything did that this process knows of. Cost: none."""
        if self._lost is not None:
            raise type(self._lost)(str(self._lost)) from self._lost
        if self._session is None or self._closing:
            raise InvalidArgument(f"this process does not lead writer={self.name}; acquire the lead first")

    # Taking it

    async def acquire(self, *, standby: bool = False, takeover: bool = False) -> None:
        """Become the leader; return once the predecessor has ended and was read.

        Where another leads: ``standby`` waits until it has ended, or was silent for its seal time; ``takeover`` ends it
        at once; else Conflict, unless it has been silent long enough already, for which all open sessions are looked at
        once (again, if this process slept for a seal time after that). Cost: to read to the tail, an entry; about six
        requests to seal; that look, one ``log.seal``. Raises InvalidArgument where its kinds are led in other sets;
        Fenced where another took over meanwhile; ClockSkew, Missing, Unavailable.
        """
        if self._acquired or self._closing:
            raise InvalidArgument(f"a lead is acquired once writer={self.name}; make another: log.lead(…)")
        self._acquired = True
        follower, looked_ms = await self._follow(), -math.inf
        while True:
            await follower.refresh()
            holder = self._holder(follower.frontier.last)
            if holder is not None and holder in follower.frontier.sessions and not takeover:
                if standby:
                    await _end_of(holder, follower)
                elif self._clock.elapsed_ms() - looked_ms < follower.frontier.sessions[holder].opened.seal_ms:
                    raise self._led_by(follower.frontier.sessions[holder])  # not silent then, or began after we looked
                else:
                    looked_ms = self._clock.elapsed_ms()
                    await self._seal_silent_now()
                continue
            opened = await self._roster.post(partial(self._open_after, holder))
            if opened is not None:
                break
        now_ms = self._clock.elapsed_ms()
        session = _Session(SessionId.of(opened), Tip.of(opened), now_ms, now_ms)
        await self._end_predecessors(follower, opened.address)
        self._session = session
        self._appended.sessions_opened += 1
        self._heed_newest()
        self.require()
        self._say("lead-acquired", session=_place(session.id), kinds=self.kinds)
        self._pump = asyncio.create_task(self._run(), name=f"logstore lead {self.name}")

    def _holder(self, newest: Entry | None) -> Address | None:
        """Whose session leads, as of an entry. Raises InvalidArgument where our kinds are led, but not together."""
        for scope in newest.scopes if newest is not None else ():
            if scope.kinds == self.kinds:
                return (scope.chapter, scope.number)
            if not set(scope.kinds).isdisjoint(self.kinds):
                raise InvalidArgument(
                    f"kinds are led together, for ever kinds={list(self.kinds)} led={list(scope.kinds)};"
                    " open the same set"
                )
        return None

    def _open_after(self, holder: Address | None, tail: Entry) -> Open | None:
        """The entry by which we lead after ``holder``; None: another does by now."""
        if self._holder(tail) != holder:
            return None
        return Open(self.name, self._settings.idle_ms, self._seal_ms, 1, Exclusive(self.kinds, holder))

    def _led_by(self, session: OpenSession) -> Conflict:
        return Conflict(
            f"another process leads writer={session.id.writer} kinds={list(self.kinds)};"
            " wait as a standby, or take over from it"
        )

    async def _end_predecessors(self, follower: Follower, own: Address) -> None:
        """Seal whoever led before us at its tail, however often it is faster; return when its final was read.

        They are several where one of them died between its entry and the end of its own predecessor, who leads on.
        """
        sessions = follower.frontier.sessions
        while earlier := [sessions[address] for address in sessions if address < own and self._led(sessions[address])]:
            for session in earlier:
                await seal_silent(session, self._objects, self._looks, self._stamps)
            await follower.refresh()

    def _led(self, session: OpenSession) -> bool:
        exclusive = session.opened.exclusive
        return exclusive is not None and exclusive.kinds == self.kinds

    # Appending

    async def append(self, events: Sequence[Event]) -> Receipt:
        """Store events that become visible together; return when they are durable. Concurrent calls share a segment.

        Cost: at most one PUT. Raises Fenced: another leads, and these events are not in the log; NotStored; Unknown,
        which ends this lead; LimitExceeded, InvalidArgument.
        """
        self.require()
        if not events:
            raise InvalidArgument("needs at least one event events=[]")
        encoded = self._events.encode_all(events)
        size = payload_bytes(encoded)
        if len(events) > APPEND_EVENTS_MAX or size > APPEND_BYTES_MAX:
            raise LimitExceeded(
                f"too much at once events={len(events)} limit={APPEND_EVENTS_MAX} bytes={size}"
                f" limit={APPEND_BYTES_MAX}; commit less at a time"
            )
        with span_of(
            self._tracer, "logstore.append", store=self._store_id, writer=self.name, events=len(events)
        ) as span:
            await self._buffer.enter(len(events), size)
            self.require()
            batch = self._buffer.put(encoded, size)
            batch.waiter.add_done_callback(_hear)
            self._wake.set()
            receipt = await asyncio.shield(batch.waiter)
            span.note(chapter=receipt.chapter, session=receipt.session, slot=receipt.slot)
            return receipt

    # Staying

    async def _run(self) -> None:
        try:
            while self._lost is None:
                session = self._session
                assert session is not None
                if session.ended or self._is_too_old(session):
                    await self._roll_over(session)
                elif self._buffer:
                    began_s = self._buffer.since_s
                    await self._commit(session, self._buffer.take(), began_s)
                elif self._closing:
                    await self._say_goodbye(session)
                    return
                elif self._beat_in_ms(session) <= 0:
                    await self._commit(session, [])
                else:
                    await self._wait(self._beat_in_ms(session))
        finally:
            self._lose(Unavailable("this process leads no more: it was stopped"))
            assert self._lost is not None
            for batch in self._buffer.take_all():
                self._refuse(batch, self._lost)

    async def _wait(self, for_ms: float) -> None:
        try:
            async with asyncio.timeout(for_ms / 1_000):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _is_too_old(self, session: _Session) -> bool:
        age_ms = self._clock.elapsed_ms() - session.opened_ms
        settings = self._settings
        return age_ms >= settings.session_age_ms_max or session.bytes >= settings.session_bytes_max

    def _beat_in_ms(self, session: _Session) -> float:
        now_ms = self._clock.elapsed_ms()
        due_ms = session.active_ms + self._settings.idle_ms // BEATS_PER_IDLE
        return max(0, min(due_ms, self._beat_ms if self._beat_ms is not None else due_ms) - now_ms)

    def read_tick(self) -> None:
        """Somebody waits for the watermark: write an empty segment within a second if nothing else comes."""
        if self._session is not None and self._beat_ms is None:
            self._beat_ms = self._clock.elapsed_ms() + self._rng.randint(0, BEAT_ASKED_MS_MAX)
            self._wake.set()

    def learn(self, entry: Entry) -> None:
        """Take notice of an entry that this process has read: another's may succeed ours."""
        if Scope(self.kinds, *entry.address) in entry.scopes:
            self._newest = entry.address
            self._heed_newest()

    def _heed_newest(self) -> None:
        """End where another's entry succeeds ours. While we roll over it may be our own: then the post tells."""
        if self._session is not None and not self._rolling_over and self._newest > self._session.id[:2]:
            self._fence(f"another process leads since entry={self._newest}")

    def _fence(self, why: str) -> None:
        self._lose(Fenced(f"{why} kinds={list(self.kinds)}; stop serving"))

    def _lose(self, error: LogStoreError) -> None:
        """Lead no more; what was first is told."""
        if self._lost is None:
            self._lost = error
            if not self._closing:
                self._say("lead-lost", kinds=self.kinds, error=error)
        self._wake.set()
        self._moved.set()

    def _refuse(self, batch: Batch, error: LogStoreError) -> None:
        self._buffer.release(batch)
        batch.refuse(type(error)(str(error)) if not isinstance(error, Unknown) else error)

    async def _commit(self, session: _Session, batches: list[Batch], began_s: float = 0) -> None:
        """Store one segment, empty where there is nothing to say, and answer. The first batch came at ``began_s``."""
        self._beat_ms = None
        data, segment = self._segments.encode(
            session.id.segment_key(session.tip.slot),
            [event for batch in batches for event in batch.events],
            first_sequence=session.tip.sequence,
            stamp=self._stamps.next(),
            acknowledged=session.tip.slot,
            previous=session.tip.digest,
        )
        since_ms, session.active_ms = session.active_ms, self._clock.elapsed_ms()
        self._under_way = segment
        try:
            await self._settle(session, segment, data, since_ms)
        except Fenced as error:
            self._fence(str(error))
            self._refuse_all(batches, error)
        except NotStored as error:
            session.ended = True
            self._appended.events_not_stored += segment.count
            if batches:
                self._say("events-not-stored", events=segment.count, error=error)
            self._refuse_all(batches, error)
        except LogStoreError as error:
            self._lose(self._give_up(segment, batches, error))
        except BaseException as error:
            self._lose(self._give_up(segment, batches, Unavailable(f"the leader was stopped: {error!r:.100}")))
            raise
        else:
            self._acknowledge(session, segment, len(data), batches)
            if batches:
                seconds = asyncio.get_running_loop().time() - began_s
                self._appended.store(events=segment.count, batches=len(batches), size=len(data), seconds=seconds)
        finally:
            self._under_way = None

    def _refuse_all(self, batches: list[Batch], error: LogStoreError) -> None:
        for batch in batches:
            self._refuse(batch, error)

    def _acknowledge(self, session: _Session, segment: Segment, size: int, batches: list[Batch]) -> None:
        session.tip = session.tip.after(segment)
        session.bytes += size
        self._objects.remember_segment(segment)
        self._on_stored(session.id)
        seq, key = segment.first_sequence, segment.key
        for batch in batches:
            self._buffer.release(batch)
            batch.answer(Receipt(key.writer, key.chapter, key.session, key.slot, seq, len(batch.events), segment.stamp))
            seq += len(batch.events)

    async def _store(self, session: _Session, segment: Segment, data: bytes) -> None:
        """Return: it is stored. Fenced, NotStored: it is not, and never will be. Else: nobody knows."""
        try:
            await self._objects.create(_name(segment), data)
        except AlreadyExists:
            found = await self._objects.segment(segment.key, remember=False)
            if found is None:
                raise Missing(f"a slot was taken, and is empty key={_name(segment)}; run `logstore check`") from None
            if found.digest != segment.digest:
                raise Fenced(f"another took over: it sealed our session key={_name(segment)}") from None
        except Unavailable as error:
            self._say("creation-given-up", key=_name(segment), error=error)
            sealed = await create_final(self._objects, self._stamps, session.id, session.tip, sealed=False)
            if sealed is None:
                raise Unavailable(f"a slot was taken and is empty again key={_name(segment)}") from error
            found, ours = sealed
            if ours:
                raise NotStored(f"the store did not take it in time key={_name(segment)}; commit again") from error
            if found.digest != segment.digest:
                raise Fenced(f"another took over: it sealed our session key={_name(segment)}") from error

    async def _settle(self, session: _Session, segment: Segment, data: bytes, since_ms: int) -> None:
        """As ``_store``; but had we slept, a sealer may have ended the session below, or its chapter may be gone."""
        slot = segment.key.slot
        refusal: LogStoreError | None = None
        try:
            await self._store(session, segment, data)
            if slot and self._clock.elapsed_ms() - since_ms >= self._seal_ms:
                below = await self._objects.fetch_segment(session.id.segment_key(slot - 1), remember=False)
                if below is not None and below.final:
                    raise Fenced(f"another took over while this process slept key={_name(below)}")
        except (Fenced, NotStored, Missing) as error:
            refusal = error
        record = await self._looks.retired(session.id.chapter)  # what we found in a retired chapter proves nothing
        if record is not None:
            held = record.sessions.get(session.id.number)
            if held is None or held.slots <= slot:
                raise Fenced(f"another took over, and the chapter is retired key={_name(segment)}")
        elif refusal is not None:
            raise refusal

    def _give_up(self, segment: Segment, batches: list[Batch], cause: LogStoreError) -> LogStoreError:
        """Nobody knows whether it is stored: so we do not know what we have acknowledged, and lead no more."""
        key, seq = segment.key, segment.first_sequence
        self._appended.events_unknown += segment.count
        if batches:
            self._say("events-unknown", key=_name(segment), events=segment.count, error=cause)
        for batch in batches:
            receipt = Receipt(key.writer, key.chapter, key.session, key.slot, seq, len(batch.events), segment.stamp)
            token = Question(receipt, segment.digest).token()
            message = f"may be stored or not key={_name(segment)} cause={cause}; settle it by log.resolve"
            self._refuse(batch, Unknown(message, token=token))
            seq += len(batch.events)
        return Unavailable(f"it is not known whether a commit is stored key={_name(segment)}; open the store again")

    async def _roll_over(self, session: _Session) -> None:
        """Go on in a new session, that succeeds this one before this one ends."""
        self._rolling_over = True
        try:
            opened = await self._roster.post(partial(self._open_after, session.id[:2]))
            if opened is None:
                self._fence("another process leads")
                return
            if not session.ended:
                ended = await create_final(self._objects, self._stamps, session.id, session.tip, sealed=False)
                if ended is not None and not ended[0].final:
                    self._fence(f"another writes in our session, a copy of this process key={_name(ended[0])}")
                    return
        except LogStoreError as error:
            self._lose(Unavailable(f"could not go on in a new session, and leads no more: {error}"))
            return
        self._on_stored(session.id)
        now_ms = self._clock.elapsed_ms()
        self._session = _Session(SessionId.of(opened), Tip.of(opened), now_ms, now_ms)
        self._appended.sessions_opened += 1
        self._rolling_over = False
        self._heed_newest()
        self._moved.set()

    async def _say_goodbye(self, session: _Session) -> None:
        try:
            await create_final(self._objects, self._stamps, session.id, session.tip, sealed=False)
        except LogStoreError as error:
            self._say("session-not-ended", session=_place(session.id), error=error)
        self._on_stored(session.id)

    async def aclose(self) -> None:
        """Commit what is buffered, and say goodbye: who stands by takes over at once. Idempotent. Cost: one PUT."""
        self._closing = True
        self._wake.set()
        if self._pump is not None:
            await asyncio.wait([self._pump])

    # Being sure

    async def confirm(self) -> None:
        """Return once it is certain that this process led at some moment after the call; raise Fenced where it did not.

        What it has acknowledged is then all there is. Concurrent calls share a request. Cost: one GET; two while a
        commit that has landed is not answered. Raises Unavailable: nobody knows.
        """
        self.require()
        if self._confirming is None or self._confirming.done():
            self._confirming = asyncio.create_task(self._look_whether_we_lead())
            self._confirming.add_done_callback(_hear)
            task = self._confirming
        else:  # that one began before this call
            if self._next_confirming is None:
                self._next_confirming = asyncio.create_task(self._confirm_after(self._confirming))
                self._next_confirming.add_done_callback(_hear)
            task = self._next_confirming
        await asyncio.shield(task)
        self.require()

    async def _confirm_after(self, earlier: asyncio.Task[None]) -> None:
        await asyncio.wait([earlier])
        self._confirming, self._next_confirming = self._next_confirming, None
        await self._look_whether_we_lead()

    async def _look_whether_we_lead(self) -> None:
        while True:
            self.require()
            session = self._session
            assert session is not None
            slot, sent_before = session.tip.slot, self._under_way is not None
            found = await self._objects.fetch_segment(session.id.segment_key(slot), remember=False)
            if sent_before and found is not None and self._is_ours(session, found):
                slot += 1  # it may have won its slot before the call, and have been sealed above since
                found = await self._objects.fetch_segment(session.id.segment_key(slot), remember=False)
            if found is None or self._is_ours(session, found):  # if ours, it was sent after the call, and won its slot
                if await self._looks.retired(session.id.chapter) is None:
                    return
                self._fence("another took over, and the chapter is retired")
            elif found.sealed:
                self._fence(f"another took over: it sealed our session key={_name(found)}")
            elif session is self._session:  # our own final: the next session says, unless the lead is lost
                self.require()
                self._moved.clear()
                await self._moved.wait()

    def _is_ours(self, session: _Session, found: Segment) -> bool:
        """Whether it is a commit of ours, acknowledged or under way."""
        mine = self._under_way
        acknowledged = session.tip.slot > found.key.slot
        return not found.final and (acknowledged or (mine is not None and mine.digest == found.digest))


def _name(segment: Segment) -> str:
    key = segment.key
    return segment_key(key.writer, key.chapter, key.session, key.slot)


def _place(session: SessionId) -> str:
    return f"{session.chapter}/{session.number}"


def _hear(answer: asyncio.Future[Any]) -> None:
    """Whoever waits for an answer may be cancelled: then nobody else hears what became of it, and nobody need."""
    if not answer.cancelled():
        answer.exception()


async def _end_of(holder: Address, follower: Follower) -> None:
    """Return when a session has ended: by itself, or sealed by whoever wants things settled."""
    with follower.wanting_settled():
        while holder in follower.frontier.sessions:
            await follower.changed().wait()
