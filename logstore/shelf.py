"""Retired chapters that were archived, open to read: their objects by the names that they had.

Whoever goes on reading in such a chapter asks for entries and segments as before; they come out of the archive, a block
at a time. docs/FORMAT.md §11, RFC 0006 §5.

Invariants:
- What is on the shelf is never asked of the store under its old name again: what lies there is garbage.
- An archive that does not hold all that the chapter's record says is Corrupt before anything of it is handed out.
- At most ``BLOCKS_MAX`` blocks are in memory, of all chapters of a log together.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from logstore.archive import Block, BlockContent, Part, decode_block, decode_part
from logstore.aside import decode_aside, retrieve
from logstore.entry import Entry, decode_entry
from logstore.errors import Corrupt, Missing
from logstore.filestore.base import Blob
from logstore.frame import frame_size
from logstore.keys import ArchiveKey, SegmentKey, archive_key, parse_key, retired_key
from logstore.retired import Retired
from logstore.segment import Segment, decode_archived_segment

__all__ = ["ArchivedChapter", "Blocks", "Get"]

BLOCKS_MAX: Final = 6  # 24 MiB: a merge reads in as many places as chapters have sessions open at that stamp
TABLE_BYTES: Final = 64 << 10  # of a few thousand blocks; a larger table takes a second GET

Get = Callable[[str, int, int | None], Awaitable[Blob | None]]
"""Fetches bytes ``start`` to ``stop`` of an object; None: it is not there."""

Blocks = OrderedDict[bytes, "asyncio.Task[BlockContent]"]
"""Blocks that are in memory, or on their way, by their digests; the one used last at the end."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A block, and the object in which it lies; ``first``: the first entry, or slot, that is looked for by it."""

    first: int
    part: Part
    block: Block


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where everything lies: entries, and the slots of each session, in order."""

    entries: list[_Place]
    slots: dict[int, list[_Place]]


class ArchivedChapter:
    """One chapter. Cost: a GET per object of the archive to open it, at the first question; one per block."""

    def __init__(self, record: Retired, get: Get, blocks: Blocks) -> None:
        self._record = record
        self._get = get
        self._tables: _Tables | None = None
        self._opening = asyncio.Lock()
        self._blocks = blocks

    def __repr__(self) -> str:
        return f"<ArchivedChapter {self._record.chapter} blocks={len(self._blocks)}>"

    async def entry(self, number: int) -> Entry | None:
        """A roster entry; None: the chapter had none of this number. Raises Corrupt, Missing, Unavailable."""
        tables = await self._opened()
        content = await self._content(tables.entries, number)
        data = None if content is None else content.entries.get(number)
        return None if data is None else decode_entry(self._record.chapter, number, data)

    async def segment(self, key: SegmentKey) -> Segment | None:
        """A segment; None: its session had none of this slot. Raises Corrupt, Missing, Unavailable."""
        tables = await self._opened()
        content = await self._content(tables.slots.get(key.session, []), key.slot)
        found = None if content is None else content.segments.get((key.session, key.slot))
        return None if found is None else await decode_aside(len(found[1]), decode_archived_segment, key, *found)

    async def _content(self, places: list[_Place], number: int) -> BlockContent | None:
        """The block in which ``number`` would be."""
        at = bisect_right(places, number, key=lambda place: place.first) - 1
        if at < 0:
            return None
        part, block = places[at].part, places[at].block
        fetching = self._blocks.get(block.digest)
        if fetching is None:
            fetching = self._blocks[block.digest] = asyncio.create_task(self._fetch(part, block))
            fetching.add_done_callback(retrieve)
            if len(self._blocks) > BLOCKS_MAX:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block.digest)
        try:
            return await asyncio.shield(fetching)
        except BaseException:
            if fetching.done() and self._blocks.get(block.digest) is fetching:
                del self._blocks[block.digest]  # who asks again fetches again
            raise

    async def _fetch(self, part: Part, block: Block) -> BlockContent:
        name = archive_key(part.key)
        blob = await self._get(name, block.start, block.start + block.stored)
        if blob is None:
            raise Missing(f"an archive is gone key={name}; restore it")
        return await decode_aside(block.unpacked, decode_block, part, block, blob.data)

    async def _opened(self) -> _Tables:
        async with self._opening:
            if self._tables is None:
                keys = [self._parse(name) for name in self._record.archives]
                parts = await asyncio.gather(*map(self._open_part, keys))
                self._tables = self._tabulate(parts)
            return self._tables

    def _parse(self, name: str) -> ArchiveKey:
        key = parse_key(name)
        if not isinstance(key, ArchiveKey) or key.chapter != self._record.chapter:
            raise Corrupt(f"not an archive of the chapter key={retired_key(self._record.chapter)} archive={name!r:.60}")
        return key

    async def _open_part(self, key: ArchiveKey) -> Part:
        name = archive_key(key)
        blob = await self._get(name, 0, TABLE_BYTES)
        if blob is not None and frame_size(blob.data) > TABLE_BYTES:
            blob = await self._get(name, 0, frame_size(blob.data))
        if blob is None:
            raise Missing(f"an archive is gone key={name}; restore it")
        return decode_part(key, blob.data, blob.size)

    def _tabulate(self, parts: list[Part]) -> _Tables:
        entries: list[_Place] = []
        slots: defaultdict[int, list[_Place]] = defaultdict(list)
        held: defaultdict[int, int] = defaultdict(int)
        held_entries = 0
        for part in parts:
            for block in part.blocks:
                if block.entries:
                    self._require(block.entry == held_entries)
                    entries.append(_Place(block.entry, part, block))
                    held_entries += block.entries
                for session, first, count in block.slots:
                    self._require(first == held[session])
                    slots[session].append(_Place(first, part, block))
                    held[session] += count
        self._require(held_entries == self._record.closed + 1)
        for number, recorded in self._record.sessions.items():
            none = not recorded.slots and not held[number]  # of an invalid session, which has no final either
            self._require(none or held[number] == recorded.slots + 1)
        self._require(held.keys() <= self._record.sessions.keys())
        return _Tables(entries, dict(slots))

    def _require(self, holds: bool) -> None:
        if not holds:
            name = retired_key(self._record.chapter)
            raise Corrupt(f"the archive does not hold what the chapter's record says key={name}; restore the archive")
