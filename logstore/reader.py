"""Reading events: once to the end of what is stored, or on and on as they come.

A reader owns a frontier and catches up with it (``catchup.py``): to the tail, or, when it follows, to the
follower's frontier each time that has moved. Its events come one by one, its runs as columns;
use one of the two.

Invariants:
- ``position`` is right after every event yielded, in the middle of a segment too.
- A settled reader yields in total order, for ever the same; the others yield each session in order, at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing
from typing import Protocol

from logstore.catchup import Run, catch_up
from logstore.clock import StampClock
from logstore.entry import Address, Closed, Entry, Open, Tick
from logstore.errors import InvalidArgument, LogStoreError, StaleStore
from logstore.event import StoredEvent
from logstore.follower import Follower
from logstore.frontier import Frontier, OpenSession, Order, Position, SessionPosition
from logstore.identity import Identity
from logstore.keys import entry_key
from logstore.looks import Looks
from logstore.objects import Objects
from logstore.receipt import Receipt
from logstore.retired import Retired
from logstore.session import SessionId
from logstore.trail import SettledTrail

__all__ = ["Reader", "resume"]


async def resume(position: Position, identity: Identity, objects: Objects, looks: Looks) -> Frontier:
    """Return the frontier that ``position`` stands for.

    Cost: one GET, and one per session listed. Raises StaleStore when the store is another, or was set back; Trimmed
    when what comes next is retired.
    """
    if position.store_id != identity.id:
        raise StaleStore(
            f"position belongs to another store position={position.store_id.hex()} store={identity.id.hex()};"
            " start without it"
        )
    if position.last is None:
        return Frontier(identity.id, identity.root, None)
    chapters = {position.last[0], *(session.chapter for session in position.sessions)}
    unshelved = sorted(chapters - objects.shelved())  # before a fetch: another reader may shelve one then
    last = await objects.fetch_entry(*position.last)
    opened = [await objects.entry(session.chapter, session.number) for session in position.sessions]
    records = [record for chapter in unshelved if (record := await looks.retired(chapter)) is not None]
    gone = {record.chapter: record for record in records}
    if position.last[0] in gone:
        last = _retired_last(position.last, position.digest, gone[position.last[0]])
    if last is None or last.digest != position.digest:
        raise StaleStore(
            f"the store is not the one that was read key={entry_key(*position.last)}; start without the position"
        )
    sessions = []
    for session, entry in zip(position.sessions, opened, strict=True):
        if session.chapter in gone:
            sessions.append(_retired_session(session))
        elif entry is None or not isinstance(entry.body, Open):
            name = entry_key(session.chapter, session.number)
            raise StaleStore(f"a session of the position is gone key={name}; start without the position")
        else:
            sessions.append(OpenSession(SessionId.of(entry), entry.body, session.tip, session.taken))
    frontier = Frontier(identity.id, identity.root, last, sessions)
    unread = [record for record in records if record.archives and not frontier.has_taken(record)]
    if unread:
        for record in unread:
            objects.shelve(record)
        return await resume(position, identity, objects, looks)
    for record in records:
        frontier.take_retirement(record)
    return frontier


def _retired_last(address: Address, digest: bytes, record: Retired) -> Entry | None:
    """What stands for a retired chapter's entry: whatever lies under its name now proves nothing, the record does."""
    is_closed = address[1] == record.closed
    if address[1] > record.closed or (is_closed and digest != record.digest):
        return None
    return Entry(*address, record.stamp, b"", b"", record.scopes, Closed() if is_closed else Tick(), digest)


def _retired_session(session: SessionPosition) -> OpenSession:
    """What stands for a session of a retired chapter until the record is taken in: only how far it was read counts."""
    nobody = Open("", idle_ms=0, seal_ms=0, flights=1)
    return OpenSession(SessionId(session.chapter, session.number, nobody.writer), nobody, session.tip, session.taken)


class Following(Protocol):
    """Whoever holds the log's one follower."""

    @property
    def follower(self) -> Follower | None:
        """The log's follower, if it runs."""
        ...

    def follower_from(self, frontier: Frontier) -> Follower:
        """The follower, started from a copy of ``frontier`` unless it runs."""
        ...


class Reader:
    """Events in order, as an async iterator. Made by ``log.read`` and ``log.follow``.

    A step that is cancelled, or fails, ends nothing: iterated again, it goes on after the last event yielded.

    ``damage``: what a reader that skips damage has met, in the order met.

    >>> async def example(log):
    ...     reader = log.read()
    ...     events = [event.key async for event in reader]
    ...     return events, str(reader.position)
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Frontier]],
        *,
        objects: Objects,
        looks: Looks,
        stamps: StampClock,
        kinds: Collection[str] | None,
        settled: bool,
        settled_at: Order | None,
        following: Following | None,
        skip_damage: bool,
    ) -> None:
        self._start = start
        self._objects = objects
        self._looks = looks
        self._stamps = stamps
        self._kinds = None if kinds is None else frozenset(kinds)
        self._settled = settled
        self._following = following
        self._skip_damage = skip_damage
        self.damage: list[LogStoreError] = []
        self._frontier: Frontier | None = None
        self._run: Run | None = None
        self._taken = 0
        self._last_order = settled_at
        self._events: AsyncIterator[StoredEvent] | None = None

    def __repr__(self) -> str:
        return f"<Reader {self._frontier!r} settled={self._settled} following={self._following is not None}>"

    @property
    def position(self) -> Position | None:
        """Where it is: after the last event yielded. None before the first step. Cost: none."""
        if self._frontier is None:
            return None
        frontier = self._frontier
        if self._run is not None:
            frontier = frontier.copy()
            frontier.take_events(self._run.segment, self._taken)
        return frontier.position(self._last_order if self._settled else None)

    @property
    def watermark(self) -> int:
        """The stamp at or below which nothing new can come from it; exact between batches. Cost: O(open sessions)."""
        return 0 if self._frontier is None else self._frontier.watermark()

    def holds(self, receipt: Receipt) -> bool:
        """Whether the events of ``receipt`` were yielded, and taken by asking for more. Cost: none."""
        frontier = self._frontier
        return frontier is not None and frontier.holds(receipt.chapter, receipt.session, receipt.slot)

    def holder(self) -> OpenSession | None:
        """The session that holds the watermark back, None when the roster's last entry does. Cost: O(open sessions)."""
        return self._frontier.holder() if self._frontier else None

    @property
    def led_kinds(self) -> frozenset[str]:
        """The kinds that only leaders write, for ever, as far as it has read. Cost: none."""
        last = None if self._frontier is None else self._frontier.last
        return frozenset(kind for scope in last.scopes for kind in scope.kinds) if last is not None else frozenset()

    @property
    def last_entry(self) -> int:
        """The stamp of the last roster entry read: the watermark rises no further. Cost: none."""
        last = self._frontier.last if self._frontier else None
        return last.stamp if last else 0

    def start_follower(self) -> Follower:
        """Let the log be followed from where this reader is, unless it is followed already. Cost: none."""
        if self._following is None or self._frontier is None:
            raise InvalidArgument("only a reader made by log.follow that has begun can be followed from")
        return self._following.follower_from(self._frontier)

    async def begin(self) -> None:
        """Begin where it was told to, unless it has. Cost: as ``resume``. Raises StaleStore, Trimmed, Unavailable."""
        if self._frontier is None:
            self._frontier = await self._start()

    def keep_trail(self) -> SettledTrail:
        """Return the trail of what it takes in from here on; it has begun. Cost: none."""
        assert self._frontier is not None, "begin first"
        trail = SettledTrail(self._frontier.position())
        self._frontier.trail = trail
        return trail

    def __aiter__(self) -> AsyncIterator[StoredEvent]:
        if self._events is None:
            self._events = self._iterate()
        return self._events

    async def _iterate(self) -> AsyncIterator[StoredEvent]:
        async with aclosing(self.events_by_run()) as runs:
            async for events in runs:
                for event in events:
                    yield event

    async def events_by_run(self) -> AsyncGenerator[Iterator[StoredEvent], None]:
        """The same, as an iterator of events for each run, to be exhausted before the next is asked for.

        For who fetches runs in one place and takes their events in another, as the sync face does.
        """
        try:
            async with aclosing(self.runs()) as runs:
                async for run in runs:
                    yield self._take(run)
        except BaseException:
            self._events = None  # interrupted, or out of reach: whoever iterates again goes on from here
            if self._run is not None and self._frontier is not None:
                self._frontier.take_events(self._run.segment, self._taken)
                self._run = None
            raise

    def _take(self, run: Run) -> Iterator[StoredEvent]:
        for event in _events(run, self._kinds):
            self._taken = event.seq - run.segment.first_sequence + 1
            self._last_order = event.order
            yield event
        self._taken = run.segment.count

    async def runs(self) -> AsyncGenerator[Run, None]:
        """The same, as runs of columns: no object per event, kinds not filtered.

        While a run is in hand ``position`` is before it, or within it when iterating over events.
        """
        async with aclosing(self.batch()) as runs:
            async for run in runs:
                yield run
        if self._following is None:
            return
        follower = self.start_follower()
        with follower.wanting_settled(self._settled):
            while True:
                changed = follower.changed()
                async with aclosing(self.batch()) as runs:
                    async for run in runs:
                        yield run
                await changed.wait()

    async def batch(self, *, to_tail: bool = False) -> AsyncGenerator[Run, None]:
        """Catch up once: to the follower's frontier, if this reader follows and the follower runs; else to the tail.

        ``to_tail``: there anyway. A follower that somebody starts meanwhile need not have come so far.
        """
        await self.begin()
        assert self._frontier is not None
        follower = self._following.follower if self._following and not to_tail else None
        async with aclosing(self._catch_up(self._frontier, follower.frontier.copy() if follower else None)) as runs:
            async for run in runs:
                yield run

    async def _catch_up(self, frontier: Frontier, bound: Frontier | None) -> AsyncGenerator[Run, None]:
        runs = catch_up(
            frontier,
            self._objects,
            self._looks,
            self._stamps,
            bound=bound,
            settled_only=self._settled,
            on_damage=self.damage.append if self._skip_damage else None,
        )
        async with aclosing(runs):
            async for run in runs:
                self._run, self._taken = run, run.start
                yield run
                self._run = None


def _events(run: Run, kinds: frozenset[str] | None) -> Iterator[StoredEvent]:
    columns, indices = run.columns, run.indices
    if kinds is None or kinds.issuperset(columns.kind_names):
        return run.events(indices)
    return run.events(index for index in indices if columns.kind(index) in kinds)
