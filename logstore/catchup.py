"""The only way events leave the log: from one frontier to a bound, in total order.

Catching up merges the roster and the sessions by stamp. A session's stream starts when the merge
reaches its open entry, so that what is in memory is a segment, and a few fetched ahead, per session open at that stamp.
Out come *runs*: a segment's columns, or what is left of them. A run is *settled* when, at that point of the merge, no
session has run dry without its final and the roster is known that far: that is, at or below the watermark.

Without a bound it goes on to what is stored when it starts: a session ends at its final, or at an absent slot; one that
seems to be written right now is measured once and read to there, so that a fast writer cannot keep a reader for ever.

Invariants:
- Runs of one catch-up are in total order: what comes too late for it is left to the next one.
- The frontier moves past a run when the next one is asked for.
- No slot and no entry is passed over; an absent one ends its stream, or is Missing when something says that it existed.
- Whatever is concluded from an object or an absence rests on the sleeper's rule.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from logstore.aside import retrieve
from logstore.clock import COUNTER_BITS, STAMP_MAX, StampClock
from logstore.entry import Address, Entry, Open, Tick
from logstore.errors import Corrupt, LogStoreError, Missing, Trimmed
from logstore.event import StoredEvent
from logstore.frontier import Frontier, OpenSession
from logstore.keys import retired_key, segment_key
from logstore.looks import Looks
from logstore.objects import Objects
from logstore.retired import Retired
from logstore.roster import gallop, is_tail
from logstore.segment import Columns, Segment
from logstore.session import SessionId
from logstore.witness import is_witnessed

__all__ = ["Run", "catch_up", "pass_retirement"]

WINDOW_MAX: Final = 8  # slots fetched ahead of one session; those beyond its end are wasted GETs
AHEAD_MAX: Final = 24  # segments fetched ahead of the merge in all, but that each session may always have:
EACH_AHEAD: Final = 2  # the slot waited for and the next; else a merge of many would wait for one GET after another
ENTRIES_AHEAD_MAX: Final = 32
MEASURED_AFTER_SLOTS: Final = 1_000  # so long a session costs 20 GETs to measure, and 1,000 to read so far


@dataclass(frozen=True, slots=True)
class Run:
    """The events of one segment from ``start`` on, next in the order.

    ``settled``: everything stamped below it has come. ``complete``: with it, also everything of its own stamp.
    ``exclusive``: the kinds that its session alone writes.
    """

    segment: Segment
    start: int
    settled: bool
    complete: bool = True
    exclusive: tuple[str, ...] = ()

    @property
    def indices(self) -> range:
        """Where its events stand in the columns."""
        return range(self.start, self.segment.count)

    @property
    def columns(self) -> Columns:
        """The columns of its segment, of which the run is ``indices``."""
        assert self.segment.columns is not None, "an empty segment makes no run"
        return self.segment.columns

    def event(self, index: int) -> StoredEvent:
        """The event at ``index`` of the columns, as an object."""
        return next(self.events([index]))

    def events(self, indices: Iterable[int]) -> Iterator[StoredEvent]:
        """Yield the events at ``indices`` of the columns, as objects. Cost: half a microsecond each."""
        segment, columns, settled = self.segment, self.columns, self.settled
        writer, chapter, session = segment.key.writer, segment.key.chapter, segment.key.session
        stamp, first = segment.stamp, segment.first_sequence
        keys, payloads, metas = columns.keys, columns.payloads, columns.metas
        kinds, kind_codes = columns.kind_names, columns.kind_codes
        types, type_codes = columns.type_names, columns.type_codes
        exclusive = self.exclusive
        for index in indices:
            kind = kinds[kind_codes[index] if kind_codes else 0]
            yield StoredEvent(  # by position: naming thirteen arguments costs as much again as the object
                kind,
                keys[index],
                types[type_codes[index] if type_codes else 0],
                payloads[index],
                metas.get(index),
                stamp,
                writer,
                chapter,
                session,
                first + index,
                settled,
                kind in exclusive,
            )


class _Budget:
    """How many segments may still be fetched ahead."""

    def __init__(self) -> None:
        self.left = AHEAD_MAX


class _Stream:
    """One session's segments, slot by slot, some of them fetched ahead."""

    def __init__(
        self,
        session: SessionId,
        *,
        slot: int,
        taken: int,
        stop: int | None,
        objects: Objects,
        now_stamp: int,
        budget: _Budget,
    ) -> None:
        self.session = session
        self.head: Segment | None = None
        self.taken = taken
        self.dry = False  # nothing more to read, though the session has not ended
        self._slot = slot
        self._stop = stop
        self._bounded = stop is not None
        self._objects = objects
        self._now_stamp = now_stamp
        self._first_slot = slot
        self._budget = budget
        self._window = 1
        self._ahead: deque[asyncio.Future[Segment | None]] = deque()

    @property
    def address(self) -> Address:
        """The session's number."""
        return self.session[:2]

    @property
    def slot(self) -> int:
        """The slot that is, or would be, the head."""
        return self._slot

    @property
    def at_stop(self) -> bool:
        """Whether this is as far as it is to be read: to its bound, or to where it was measured to end."""
        return self._stop is not None and self._slot >= self._stop

    @property
    def at_bound(self) -> bool:
        """Whether the bound says so, which was read by somebody else, without a gap."""
        return self.at_stop and self._bounded

    def fetch_ahead(self) -> None:
        """Start fetching the next slots, as far as window and budget go."""
        if not self._ahead and self._objects.remembered_segment(self.session.segment_key(self._slot)):
            return
        while len(self._ahead) < self._window and (len(self._ahead) < EACH_AHEAD or self._budget.left > 0):
            slot = self._slot + len(self._ahead)
            if self._stop is not None and slot >= self._stop:
                return
            self._budget.left -= 1
            fetching = asyncio.ensure_future(self._objects.segment(self.session.segment_key(slot)))
            fetching.add_done_callback(retrieve)
            self._ahead.append(fetching)

    async def load(self) -> Segment | None:
        """Fetch the head; None: absent, or at the stop."""
        assert self.head is None
        if self.at_stop:
            return None
        if self._ahead:
            self.head = await self._ahead[0]
            del self._ahead[0]
            self._budget.left += 1
        else:
            self.head = await self._objects.segment(self.session.segment_key(self._slot))
        if self.head is None:
            self.drop_ahead()
            return None
        if self._stop is None and self._may_be_endless(self.head):
            await self._measure()
        self._window = min(self._window * 2, WINDOW_MAX)
        return self.head

    def _may_be_endless(self, segment: Segment) -> bool:
        """Whether its writer may write as fast as we read: by its stamp or, were our clock wrong, by its length."""
        young = segment.stamp > self._now_stamp or segment.key.slot - self._first_slot >= MEASURED_AFTER_SLOTS
        return young and not segment.final and not self._objects.is_shelved(segment.key.chapter)

    async def _measure(self) -> None:
        """Being written right now: read to where it has got, and no further."""
        last = await gallop(lambda slot: self._objects.segment(self.session.segment_key(slot)), self._slot + 1)
        self._stop = self._slot + 1 if last is None else last[0] + 1

    def leave_for_later(self) -> None:
        """The head came after its turn: it was not stored when this reading began, and is the next one's."""
        self.head = None
        self.dry = True
        self.drop_ahead()

    def advance(self) -> None:
        """The head is used up."""
        assert self.head is not None
        self.head = None
        self.taken = 0
        self._slot += 1

    def drop_ahead(self) -> None:
        """Stop fetching."""
        for task in self._ahead:
            task.cancel()
        self._budget.left += len(self._ahead)
        self._ahead.clear()


class _Entries:
    """The roster's next entries, some of them fetched ahead."""

    def __init__(
        self, start: Address, stop: Address | None, objects: Objects, on_fetch: Callable[[Entry], None]
    ) -> None:
        self._next = start
        self._stop = stop
        self._objects = objects
        self._on_fetch = on_fetch
        self._ahead: deque[Entry] = deque()
        self._window = 1

    def first(self) -> Entry | None:
        """The next entry, if it is loaded."""
        return self._ahead[0] if self._ahead else None

    @property
    def next(self) -> Address:
        """The address of the entry to be loaded next."""
        return self._next

    @property
    def at_stop(self) -> bool:
        """Whether the bound, not the store, says that there is nothing more to read."""
        return self._stop is not None and self._next > self._stop

    async def load(self) -> bool:
        """Fetch the next entries of the chapter, or the begin of the one after it; False: there are none.

        What is remembered is taken alone: after a `closed` that is, there would be nothing to fetch.
        """
        chapter, number = self._next
        while self._next[0] == chapter and not self.at_stop and len(self._ahead) < ENTRIES_AHEAD_MAX:
            known = self._objects.remembered_entry(*self._next)
            if known is None:
                break
            self._take(known)
        if self._ahead:
            return True
        addresses = [(chapter, number + i) for i in range(self._window)]
        wanted = [address for address in addresses if self._stop is None or address <= self._stop]
        for entry in await asyncio.gather(*(self._objects.entry(*address) for address in wanted)):
            if entry is None or entry.address != self._next:
                break
            self._take(entry)
        self._window = min(self._window * 2, ENTRIES_AHEAD_MAX)
        return bool(self._ahead)

    def _take(self, entry: Entry) -> None:
        self._ahead.append(entry)
        self._next = entry.successor
        self._on_fetch(entry)

    def advance(self) -> None:
        """The first entry is used up."""
        self._ahead.popleft()


async def catch_up(
    frontier: Frontier,
    objects: Objects,
    looks: Looks,
    stamps: StampClock,
    *,
    bound: Frontier | None = None,
    settled_only: bool = False,
    on_damage: Callable[[LogStoreError], None] | None = None,
) -> AsyncGenerator[Run, None]:
    """Yield what lies between ``frontier`` and ``bound`` (None: all that is stored now), moving ``frontier`` along.

    With ``on_damage`` a damaged session is reported there and left; without, its error is raised. One that was left
    stays in ``frontier`` where its damage is: it holds the watermark, and whoever goes on from there meets it.

    Cost: one GET per roster entry and per segment not remembered; without a bound also one per session still open, and
    one per flight of these, to know that nothing is missing. Raises Corrupt, Missing, Trimmed, Unavailable.
    """
    course = _Course()
    while True:
        merge = _Merge(frontier, objects, looks, stamps=stamps, bound=bound, on_damage=on_damage, course=course)
        try:
            async for run in merge.runs(settled_only):
                yield run
        except _RetiredMeanwhile:
            continue
        finally:
            merge.close()
        return


@dataclass(slots=True)
class _Course:
    """What a catch-up remembers when it plans anew: the place of the last run yielded, and the sessions it left."""

    reached: tuple[int, Address] = (0, (0, 0))
    left: set[Address] = field(default_factory=set)


class _Merge:
    """One catch-up: the streams that are open at this point of the order, and the roster."""

    def __init__(
        self,
        frontier: Frontier,
        objects: Objects,
        looks: Looks,
        *,
        stamps: StampClock,
        bound: Frontier | None,
        on_damage: Callable[[LogStoreError], None] | None,
        course: _Course,
    ) -> None:
        self._course = course
        self._frontier = frontier
        self._objects = objects
        self._looks = looks
        self._bound = bound
        self._on_damage = on_damage
        self._shelved = objects.shelved()  # of these everything that is fetched here comes from archives
        self._now_stamp = max(stamps.physical_ms() << COUNTER_BITS, stamps.last)
        self._budget = _Budget()
        stop = bound.last.address if bound and bound.last else None
        self._entries = _Entries(frontier.next_address, stop, objects, self._fetch_ahead)
        self._at_tail = False
        unread = [session for session in frontier.sessions.values() if session.address not in course.left]
        self._streams = {session.address: self._stream(session) for session in unread}
        self._started_ahead: dict[Address, _Stream] = {}

    def close(self) -> None:
        """Stop all fetching."""
        for stream in (*self._streams.values(), *self._started_ahead.values()):
            stream.drop_ahead()

    def _stream(self, session: OpenSession) -> _Stream:
        return self._stream_of(session.id, session.tip.slot, session.taken)

    def _stream_of(self, session: SessionId, slot: int = 0, taken: int = 0) -> _Stream:
        stop = None
        if self._bound is not None and (bounding := self._bound.sessions.get(session[:2])) is not None:
            stop = bounding.tip.slot
        return _Stream(
            session,
            slot=slot,
            taken=taken,
            stop=stop,
            objects=self._objects,
            now_stamp=self._now_stamp,
            budget=self._budget,
        )

    async def runs(self, settled_only: bool) -> AsyncGenerator[Run, None]:
        """The merge itself."""
        while True:
            await self._load_heads()
            entry = await self._next_entry()
            heads = [(head.stamp, stream.address) for stream in self._streams.values() if (head := stream.head)]
            stamp, address = min(heads, default=(STAMP_MAX + 1, None))
            if entry is not None and entry.stamp < stamp:
                self._take_entry(entry)
                continue
            if address is None:
                return
            settled = stamp <= min(self._dry_stamp(), self._known_stamp(entry))
            if settled_only and not settled:
                return
            stream = self._streams[address]
            assert stream.head is not None
            self._course.reached = (stamp, address)
            complete = sum(stamp == other for other, _ in heads) == 1
            opened = self._frontier.sessions[address].opened
            kinds = opened.exclusive.kinds if opened.exclusive is not None else ()
            yield Run(stream.head, stream.taken, settled, complete, kinds)
            self._frontier.take_segment(stream.head)
            stream.advance()

    def _dry_stamp(self) -> int:
        """The least stamp at which a session ran dry or was left: an event at or below it can still be settled."""
        dry = {stream.address for stream in self._streams.values() if stream.dry} | self._course.left
        sessions = self._frontier.sessions
        return min((sessions[address].tip.stamp for address in dry if address in sessions), default=STAMP_MAX)

    def _known_stamp(self, entry: Entry | None) -> int:
        """The stamp up to which the roster is known: sessions opened later are above it."""
        known = entry or self._frontier.last  # taken in before, when the session's next slot was still absent
        return 0 if known is None else known.stamp

    # The roster

    async def _next_entry(self) -> Entry | None:
        """The entry that comes next, None: there is none up to the bound, or in the store."""
        entry = self._entries.first()
        if entry is not None or self._at_tail or self._entries.at_stop:
            return entry
        chapter, _ = self._entries.next
        found = await self._entries.load()
        await self._conclude(chapter)
        if not found and self._bound is None:
            found = not await is_tail(self._objects, self._looks, *self._entries.next) and await self._entries.load()
        self._at_tail = not found
        return self._entries.first()

    def _fetch_ahead(self, entry: Entry) -> None:
        """An entry that the merge has not reached yet: fetch its session's first slot meanwhile."""
        if isinstance(entry.body, Open) and entry.valid:
            stream = self._stream_of(SessionId.of(entry))
            stream.fetch_ahead()
            self._started_ahead[entry.address] = stream

    def _take_entry(self, entry: Entry) -> None:
        self._frontier.take_entry(entry)
        self._entries.advance()
        if (stream := self._started_ahead.pop(entry.address, None)) is not None:
            self._streams[entry.address] = stream
        if isinstance(entry.body, Tick):
            for stream in self._streams.values():
                stream.dry = stream.dry and (stream.at_stop or not self._is_named(stream))

    # The sessions

    async def _load_heads(self) -> None:
        """Give every stream a head, or find it dry or ended. Empty segments are taken in on the way."""
        waiting = [stream for stream in self._streams.values() if stream.head is None and not stream.dry]
        while waiting:
            for stream in waiting:
                stream.fetch_ahead()
            waiting = [stream for stream in waiting if await self._load_head(stream)]

    async def _load_head(self, stream: _Stream) -> bool:
        """Load one head; True when it was an empty segment and the next one is wanted."""
        try:
            segment = await stream.load()
            await self._conclude(stream.session.chapter)
            if segment is None:
                was_stored = not stream.at_bound and (self._is_named(stream) or await self._is_overtaken(stream))
                if was_stored:
                    await self._require_present(stream)
                stream.dry = stream.at_stop or not was_stored
                return not stream.dry
            self._frontier.sessions[stream.address].tip.after(segment)
            if stream.taken > segment.count:
                raise Corrupt(
                    f"segment has fewer events than were read of it key={_name(stream)}; run `logstore check`"
                )
        except (Corrupt, Missing) as damage:
            await self._conclude(stream.session.chapter)
            if self._on_damage is None:
                raise
            self._on_damage(damage)
            self._leave(stream)
            return False
        if segment.count:
            if (segment.stamp, stream.address) < self._course.reached:
                stream.leave_for_later()
            return False
        self._frontier.take_segment(segment)
        stream.advance()
        if segment.final:
            stream.drop_ahead()
            del self._streams[stream.address]
        return not segment.final

    def _is_named(self, stream: _Stream) -> bool:
        """Whether the stream's next slot is known to have been stored: by a tick, the bound, or our own reading."""
        named = self._frontier.sessions[stream.address].named
        reached = self._bound.last if self._bound else None
        bounded = reached is not None and stream.address <= reached.address
        return stream.slot < named or stream.taken > 0 or bounded

    async def _is_overtaken(self, stream: _Stream) -> bool:
        """Whether a later slot says that the stream's next one was stored. A bound was checked by who set it."""
        session = self._frontier.sessions[stream.address]
        return self._bound is None and await is_witnessed(session, self._objects)

    async def _require_present(self, stream: _Stream) -> None:
        """An absent slot that was stored: look once more, then it is Missing."""
        if await self._objects.segment(stream.session.segment_key(stream.slot)) is None:
            await self._conclude(stream.session.chapter)
            raise Missing(f"a segment is gone key={_name(stream)}; restore it, or `logstore copy --accept-loss`")

    def _leave(self, stream: _Stream) -> None:
        stream.drop_ahead()
        del self._streams[stream.address]
        self._course.left.add(stream.address)

    async def _conclude(self, chapter: int) -> None:
        """The sleeper's rule, after a GET of this chapter and before relying on it."""
        if chapter in self._shelved:
            return
        if self._objects.is_shelved(chapter):  # since we began, by another reader: what we have may be from before
            raise _RetiredMeanwhile
        if self._looks.fresh(chapter):
            return
        if (record := await self._looks.retired(chapter)) is not None:
            await pass_retirement(self._frontier, record, self._objects, self._looks)
            raise _RetiredMeanwhile


async def pass_retirement(frontier: Frontier, record: Retired, objects: Objects, looks: Looks) -> None:
    """Leave a retired chapter behind, or read on in its archive.

    Raises Trimmed when there is none of what is left; Missing when the record of the chapter before it is lost, for
    chapters are retired in order: who starts again at the oldest one would be told Trimmed for ever.
    """
    if record.archives and not frontier.has_taken(record):
        objects.shelve(record)
        return
    try:
        frontier.take_retirement(record)
    except Trimmed:
        if record.chapter and await looks.look(record.chapter - 1) is None:
            name = retired_key(record.chapter - 1)
            raise Missing(f"a later chapter is retired, and the record of this one is gone key={name}") from None
        raise


class _RetiredMeanwhile(Exception):
    """A chapter was retired while we read it; what it held is taken in, or in its archive: plan again from there."""


def _name(stream: _Stream) -> str:
    key = stream.session.segment_key(stream.slot)
    return segment_key(key.writer, key.chapter, key.session, key.slot)
