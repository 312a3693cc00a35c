"""The log's objects, decoded, and a bounded memory of those just read or written.

One of these stands between the log and its store. Whatever this process creates or one of its
readers fetches is remembered for a while, so that a second reader, or the writer's own process,
need not fetch it: objects never change. Each answer also tells the time (to the clock and the
sleeper's rule), and each object's stamp is merged into the process's clock: what is written after
reading is ordered after what was read.

Invariants:
- What is remembered is what the store holds: own objects enter only when certainly stored.
- The memory holds at most about ``bytes_max`` bytes, the oldest leaving first.
- Of a chapter on the shelf everything comes from its archive, nothing from memory or from under the old names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from logstore.aside import decode_aside
from logstore.clock import Clock, StampClock
from logstore.entry import Entry, decode_entry
from logstore.errors import AlreadyExists, NotFound
from logstore.filestore.base import Blob, FileStore
from logstore.keys import SegmentKey, entry_key, segment_key
from logstore.looks import StoreTime
from logstore.retired import Retired
from logstore.segment import Segment, decode_segment
from logstore.shelf import ArchivedChapter, Blocks

__all__ = ["Objects"]

ENTRY_WEIGHT: Final = 2_000  # about the memory that a decoded entry takes


class Objects:
    """Gets and creates roster entries and segments. Absent is None, damage is Corrupt."""

    def __init__(
        self, store: FileStore, clock: Clock, stamps: StampClock, store_time: StoreTime, *, bytes_max: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._stamps = stamps
        self._store_time = store_time
        self._bytes_max = bytes_max
        self._bytes = 0
        self._memory: OrderedDict[str, tuple[Entry | Segment, int]] = OrderedDict()
        self._shelf: dict[int, ArchivedChapter] = {}
        self._blocks: Blocks = OrderedDict()

    def __repr__(self) -> str:
        return f"<Objects remembered={len(self._memory)} bytes={self._bytes} shelf={sorted(self._shelf)}>"

    # Reading

    def shelve(self, record: Retired) -> None:
        """Read a retired chapter from its archive from now on. Cost: none, until something of it is asked for."""
        self._shelf.setdefault(record.chapter, ArchivedChapter(record, self.get, self._blocks))

    def is_shelved(self, chapter: int) -> bool:
        """Whether a chapter is read from its archive: what is found of it, or absent, from now on is so for ever."""
        return chapter in self._shelf

    def shelved(self) -> frozenset[int]:
        """The chapters that are read from their archives."""
        return frozenset(self._shelf)

    def remembered_entry(self, chapter: int, number: int) -> Entry | None:
        """The entry, if it need not be fetched."""
        if chapter in self._shelf:
            return None
        found = self._memory.get(entry_key(chapter, number))
        return found[0] if found and isinstance(found[0], Entry) else None

    def remembered_segment(self, key: SegmentKey) -> Segment | None:
        """The segment, if it need not be fetched."""
        if key.chapter in self._shelf:
            return None
        found = self._memory.get(_name(key))
        return found[0] if found and isinstance(found[0], Segment) else None

    async def entry(self, chapter: int, number: int) -> Entry | None:
        """The entry, or None: absent when asked. Cost: one GET unless remembered."""
        entry = self.remembered_entry(chapter, number)
        if entry is None:
            entry = await self.fetch_entry(chapter, number)
        return entry

    async def fetch_entry(self, chapter: int, number: int) -> Entry | None:
        """The entry as the store has it now. Cost: one GET."""
        if (archived := self._shelf.get(chapter)) is not None:
            return await archived.entry(number)
        name = entry_key(chapter, number)
        blob = await self.get(name)
        if blob is None:
            return None
        entry = decode_entry(chapter, number, blob.data)
        self.remember_entry(entry)
        return entry

    async def segment(self, key: SegmentKey, *, remember: bool = True) -> Segment | None:
        """The segment, or None: absent when asked. Cost: one GET unless remembered; large ones decode in a thread."""
        segment = self.remembered_segment(key)
        return segment if segment is not None else await self.fetch_segment(key, remember=remember)

    async def fetch_segment(self, key: SegmentKey, *, remember: bool = True) -> Segment | None:
        """The segment as the store has it now. Cost: one GET."""
        if (archived := self._shelf.get(key.chapter)) is not None:
            return await archived.segment(key)
        blob = await self.get(_name(key))
        if blob is None:
            return None
        segment = await decode_aside(blob.size, decode_segment, key, blob.data)
        self._stamps.merge(segment.stamp)
        if remember:
            self.remember_segment(segment)
        return segment

    async def get(self, name: str, start: int = 0, stop: int | None = None) -> Blob | None:
        """An object, or a range of it, as it lies there, or None: absent when asked. Cost: one GET."""
        started_ms = self._clock.elapsed_ms()
        try:
            blob = await self._store.get(name, start, stop)
        except NotFound as absent:
            self._tell(absent.now_ms, started_ms)
            return None
        self._tell(blob.now_ms, started_ms)
        return blob

    # Creating

    async def create(self, name: str, data: bytes) -> None:
        """Create an object; AlreadyExists and Unavailable pass through. Cost: one PUT."""
        started_ms = self._clock.elapsed_ms()
        try:
            now_ms = await self._store.create(name, data)
        except AlreadyExists as taken:
            self._tell(taken.now_ms, started_ms)
            raise
        self._tell(now_ms, started_ms)

    def _tell(self, now_ms: int | None, started_ms: int) -> None:
        if now_ms is not None:
            self._store_time.tell(now_ms)
            self._stamps.compare(now_ms, self._clock.elapsed_ms() - started_ms)

    # Remembering

    def remember_entry(self, entry: Entry) -> None:
        """Keep an entry that is certainly stored; its stamp counts from now on."""
        self._stamps.merge(entry.stamp)
        self._remember(entry_key(*entry.address), entry, ENTRY_WEIGHT)

    def remember_segment(self, segment: Segment) -> None:
        """Keep a segment that is certainly stored."""
        self._remember(_name(segment.key), segment, segment.weight)

    def _remember(self, name: str, decoded: Entry | Segment, weight: int) -> None:
        _, replaced = self._memory.pop(name, (None, 0))
        self._memory[name] = (decoded, weight)
        self._bytes += weight - replaced
        while self._bytes > self._bytes_max and len(self._memory) > 1:
            _, (_, dropped) = self._memory.popitem(last=False)
            self._bytes -= dropped


def _name(key: SegmentKey) -> str:
    return segment_key(key.writer, key.chapter, key.session, key.slot)
