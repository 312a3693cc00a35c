"""A closed chapter, read whole: every entry and every segment that counts, in total order, as stored.

For those who retire it: the chain of the roster and of each session is verified on the way, and what comes out of it
is the record of what the chapter held.

Invariants:
- Nothing is passed over: an absent slot means that its session has not ended, or that the store has lost it.
- In memory: the entries and slots fetched ahead, a few for each session open at that stamp.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from logstore.aside import decode_aside, retrieve
from logstore.entry import Closed, Entry, Open, decode_entry, require_follows
from logstore.errors import Missing
from logstore.frontier import OpenSession
from logstore.keys import SegmentKey, entry_key, segment_key
from logstore.objects import Objects
from logstore.retired import Retired, RetiredSession
from logstore.segment import Segment, decode_segment
from logstore.session import SessionId, Tip
from logstore.witness import is_witnessed

__all__ = ["Chapter", "NotEnded", "Stored"]

ENTRIES_AHEAD: Final = 32
SLOTS_AHEAD: Final = 4


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry or a segment, and its bytes."""

    value: Entry | Segment
    data: bytes


class NotEnded(Exception):
    """A session of the chapter has not ended, or the chapter is not closed."""


class Chapter:
    """One reading of a chapter. ``before``: the entry before its begin, None for the first; ``root``: see Identity."""

    def __init__(self, objects: Objects, number: int, before: Entry | None, root: bytes) -> None:
        self._objects = objects
        self._number = number
        self._before = before
        self._root = root
        self._closed: Entry | None = None
        self._sessions: dict[int, RetiredSession] = {}

    async def read(self) -> AsyncGenerator[Stored, None]:
        """Yield everything that counts, by stamp; of equal stamps an entry first.

        Cost: a GET per object. Raises NotEnded, Missing, Corrupt, Unavailable.
        """
        streams: dict[int, _Slots] = {}
        heads: list[tuple[int, int]] = []  # the stamp and session of the next segment of each
        try:
            async for entry, data in self._entries(streams):
                while heads and heads[0][0] < entry.stamp:
                    yield await self._next_segment(streams, heads)
                yield Stored(entry, data)
                if isinstance(entry.body, Open):
                    self._sessions[entry.number] = RetiredSession(0, entry.stamp)
                if entry.number in streams:
                    heapq.heappush(heads, (await streams[entry.number].load(), entry.number))
            while heads:
                yield await self._next_segment(streams, heads)
        finally:
            for stream in streams.values():
                stream.close()

    def record(self, archives: tuple[str, ...] = ()) -> Retired:
        """What the chapter held; it has been read to its end."""
        closed = self._closed
        assert closed is not None, "read it first"
        return Retired(
            self._number, closed.number, closed.digest, closed.stamp, closed.scopes, self._sessions, archives
        )

    async def _next_segment(self, streams: dict[int, _Slots], heads: list[tuple[int, int]]) -> Stored:
        """The first of the heads; the next one of its session takes its place."""
        _, number = heapq.heappop(heads)
        stream = streams[number]
        segment, data = stream.take()
        if segment.final:
            del streams[number]
        else:
            self._sessions[number] = RetiredSession(segment.key.slot + 1, segment.stamp)
            heapq.heappush(heads, (await stream.load(), number))
        return Stored(segment, data)

    async def _entries(self, streams: dict[int, _Slots]) -> AsyncGenerator[tuple[Entry, bytes], None]:
        """The roster of the chapter up to `closed`; sessions begin to be fetched when they come into sight."""
        previous, number = self._before, 0
        while True:
            window = range(number, number + ENTRIES_AHEAD)
            blobs = await asyncio.gather(*(self._objects.get(entry_key(self._number, n)) for n in window))
            found: list[tuple[Entry, bytes]] = []
            for at, blob in zip(window, blobs, strict=True):
                if blob is None:
                    break
                entry = decode_entry(self._number, at, blob.data)
                require_follows(entry, previous, self._root)
                previous = entry
                found.append((entry, blob.data))
                if isinstance(entry.body, Open) and entry.valid:
                    streams[at] = _Slots(entry, self._objects)
                if isinstance(entry.body, Closed):
                    break
            for entry, data in found:
                yield entry, data
            if found and isinstance(found[-1][0].body, Closed):
                self._closed = found[-1][0]
                return
            if len(found) < ENTRIES_AHEAD:
                raise NotEnded(f"the chapter is not closed entries={number + len(found)}")
            number += ENTRIES_AHEAD


class _Slots:
    """The segments of one session, one after the other, some fetched ahead."""

    def __init__(self, opened: Entry, objects: Objects) -> None:
        assert isinstance(opened.body, Open)
        self._session = OpenSession(SessionId.of(opened), opened.body, Tip.of(opened))
        self._objects = objects
        self._ahead: deque[asyncio.Task[tuple[Segment, bytes] | None]] = deque()
        self._head: tuple[Segment, bytes] | None = None
        self._fetch_to(1)

    def take(self) -> tuple[Segment, bytes]:
        """The segment that was loaded."""
        assert self._head is not None
        return self._head

    async def load(self) -> int:
        """Load the next segment; return its stamp. Raises NotEnded when there is none, Missing, Corrupt."""
        self._fetch_to(SLOTS_AHEAD)
        found = await self._ahead.popleft()
        if found is None:
            raise await self._why_absent()
        self._head = found
        self._session.tip = self._session.tip.after(found[0])
        if found[0].final:
            self.close()
        return found[0].stamp

    def close(self) -> None:
        """Stop fetching."""
        for task in self._ahead:
            task.add_done_callback(retrieve)
            task.cancel()
        self._ahead.clear()

    def _fetch_to(self, count: int) -> None:
        while len(self._ahead) < count:
            key = self._session.id.segment_key(self._session.tip.slot + len(self._ahead))
            self._ahead.append(asyncio.create_task(self._fetch(key)))

    async def _fetch(self, key: SegmentKey) -> tuple[Segment, bytes] | None:
        blob = await self._objects.get(segment_key(key.writer, key.chapter, key.session, key.slot))
        return None if blob is None else (await decode_aside(blob.size, decode_segment, key, blob.data), blob.data)

    async def _why_absent(self) -> Exception:
        """The next slot is absent: its session goes on, or the store has lost it."""
        id_ = self._session.id
        key = id_.segment_key(self._session.tip.slot)
        if await is_witnessed(self._session, self._objects) and await self._fetch(key) is None:
            name = segment_key(key.writer, key.chapter, key.session, key.slot)
            return Missing(f"a segment is gone key={name}; restore it, or `logstore copy --accept-loss`")
        return NotEnded(f"a session has not ended writer={id_.writer} session={id_.chapter}/{id_.number}")
