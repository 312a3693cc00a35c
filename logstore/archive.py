"""Archives: the objects of a chapter, in total order, compressed together. docs/FORMAT.md §11. Pure.

Invariants:
- What goes in comes out: entries byte for byte, segments with their own frames, so that every chain still closes.
- A block is decoded only after its digest was found right, and to no more bytes than the table announces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgpack
import zstandard

from logstore.entry import Entry, decode_entry
from logstore.errors import Corrupt
from logstore.frame import DIGEST_BYTES, Fields, ObjectType, decode_frame, encode_frame, fields_of, unpack
from logstore.keys import NUMBER_MAX, ArchiveKey, SegmentKey, archive_key
from logstore.segment import FRAME_BYTES, Segment, decode_archived_segment, unpack_columns

__all__ = [
    "ArchiveWriter",
    "Block",
    "BlockContent",
    "Contents",
    "Part",
    "decode_archive",
    "decode_block",
    "decode_part",
]

BLOCK_BYTES_MAX: Final = 4 << 20
PART_BYTES_MAX: Final = 16 << 20
UNPACKED_BYTES_MAX: Final = 80 << 20
_OBJECTS_MAX: Final = 1 << 20
_LISTS_MAX: Final = 4
_ZSTD_LEVEL: Final = 19  # written once, read seldom, kept for years
_ADDRESS: Final = slice(20, 36)  # session and slot, in a segment's frame (FORMAT §5)


class Slots(NamedTuple):
    """Slots of a session that lie in one block: ``slots`` of them from ``first`` on."""

    session: int
    first: int
    slots: int


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies in its object, and what is in it: ``entries`` entries from ``entry`` on, and slots."""

    start: int
    stored: int
    unpacked: int
    digest: bytes
    entry: int
    entries: int
    slots: tuple[Slots, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The table of one object of an archive."""

    key: ArchiveKey
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class BlockContent:
    """A block unpacked: entries by number as they were stored, and each segment's frame and columns by its address."""

    entries: Mapping[int, bytes]
    segments: Mapping[tuple[int, int], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the blocks of one object: unpacked as they are gone through, each alone. Raises nothing then."""

    part: Part
    data: bytes

    def __iter__(self) -> Iterator[BlockContent]:
        for block in self.part.blocks:
            yield decode_block(self.part, block, self.data[block.start : block.start + block.stored])


@dataclass(slots=True)
class _Filling:
    """The block that is being filled."""

    entries: list[bytes] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    columns: list[bytes] = field(default_factory=list)
    first_entry: int = 0
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)
    size: int = 0


class ArchiveWriter:
    """Takes the objects of a chapter in order; hands out the objects of its archive as they are full."""

    def __init__(self, chapter: int, nonce: bytes) -> None:
        self._chapter = chapter
        self._nonce = nonce
        self._number = 0
        self._filling = _Filling()
        self._table: list[list[Any]] = []
        self._blocks: list[bytes] = []

    def take_entry(self, entry: Entry, data: bytes) -> tuple[ArchiveKey, bytes] | None:
        """Take the next roster entry; an object of the archive, if one is full now. Cost: now and then seconds."""
        full = self._make_room(len(data))
        filling = self._filling
        if not filling.entries:
            filling.first_entry = entry.number
        filling.entries.append(data)
        filling.size += len(data)
        return full

    def take_segment(self, segment: Segment, data: bytes) -> tuple[ArchiveKey, bytes] | None:
        """Take the next segment; an object of the archive, if one is full now. Cost: now and then seconds."""
        framed, columns = unpack_columns(segment, data)
        full = self._make_room(len(framed) + len(columns))
        filling = self._filling
        filling.frames.append(framed)
        filling.columns.append(columns)
        filling.size += len(framed) + len(columns)
        first, count = filling.slots.get(segment.key.session, (segment.key.slot, 0))
        filling.slots[segment.key.session] = (first, count + 1)
        return full

    def finish(self) -> tuple[ArchiveKey, bytes]:
        """The last object: what is left."""
        if self._filling.size:
            self._close_block()
        return self._close_part()

    def _make_room(self, size: int) -> tuple[ArchiveKey, bytes] | None:
        if not self._filling.size or self._filling.size + size <= BLOCK_BYTES_MAX:
            return None
        self._close_block()
        return self._close_part() if sum(map(len, self._blocks)) >= PART_BYTES_MAX else None

    def _close_block(self) -> None:
        filling, self._filling = self._filling, _Filling()
        packed: bytes = msgpack.packb([filling.entries, filling.frames, filling.columns])
        stored = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(packed)
        slots = [[session, *held] for session, held in sorted(filling.slots.items())]
        counts = [filling.first_entry, len(filling.entries)]
        self._table.append([len(stored), len(packed), hashlib.sha256(stored).digest(), *counts, slots])
        self._blocks.append(stored)

    def _close_part(self) -> tuple[ArchiveKey, bytes]:
        key = ArchiveKey(self._chapter, self._nonce, self._number)
        body = msgpack.packb({"chapter": key.chapter, "number": key.number, "blocks": self._table})
        data = b"".join([encode_frame(ObjectType.ARCHIVE, 0, body), *self._blocks])
        self._number, self._table, self._blocks = self._number + 1, [], []
        return key, data


def decode_part(key: ArchiveKey, data: bytes, size: int) -> Part:
    """Decode the table of an object of ``size`` bytes; its beginning is enough. Raises Corrupt, naming it."""
    name = archive_key(key)
    frame = decode_frame(name, data, ObjectType.ARCHIVE)
    fields = fields_of(name, frame)
    if (fields.number("chapter", NUMBER_MAX), fields.number("number", NUMBER_MAX)) != (key.chapter, key.number):
        raise Corrupt(f"archive lies under another's name key={name}; restore the object")
    blocks, start = [], len(data) - len(frame.rest)
    for stored, unpacked, digest, entry, entries, slots in fields.rows("blocks", int, int, bytes, int, int, list):
        numbered = entry + entries <= NUMBER_MAX + 1 and (entries or not entry)
        if len(digest) != DIGEST_BYTES or unpacked > UNPACKED_BYTES_MAX or not numbered:
            raise fields.damaged("blocks")
        blocks.append(Block(start, stored, unpacked, digest, entry, entries, _decode_slots(fields, slots)))
        start += stored
    if start != size:
        raise Corrupt(f"archive has another size than its table says key={name} bytes={size} want={start}; restore it")
    return Part(key, tuple(blocks))


def decode_archive(key: ArchiveKey, data: bytes) -> Contents:
    """Decode an object of an archive with all that is in it. Raises Corrupt, naming it.

    Blocks are unpacked one by one, here and when the contents are gone through: together they may have any size.
    """
    contents = Contents(decode_part(key, data, len(data)), data)
    for content in contents:
        try:
            for number, entry in content.entries.items():
                decode_entry(key.chapter, number, entry)
            for (session, slot), archived in content.segments.items():  # whose writer's name is in an open entry only
                decode_archived_segment(SegmentKey("-", key.chapter, session, slot), *archived)
        except Corrupt as error:
            raise Corrupt(f"archive holds what cannot be read key={archive_key(key)}; restore it: {error}") from error
    return contents


def _decode_slots(fields: Fields, slots: list[Any]) -> tuple[Slots, ...]:
    decoded = []
    for row in slots:
        if type(row) is not list or len(row) != 3 or not all(type(value) is int and value >= 0 for value in row):
            raise fields.damaged("blocks")
        session, first, count = row
        if session > NUMBER_MAX or not count or first + count > NUMBER_MAX + 1:
            raise fields.damaged("blocks")
        decoded.append(Slots(session, first, count))
    if any(later.session <= earlier.session for earlier, later in pairwise(decoded)):
        raise fields.damaged("blocks")
    return tuple(decoded)


def decode_block(part: Part, block: Block, stored: bytes) -> BlockContent:
    """Unpack a block. Cost: a SHA-256 and an unpacking. Raises Corrupt, naming the archive's object."""
    name = archive_key(part.key)
    if len(stored) != block.stored or hashlib.sha256(stored).digest() != block.digest:
        raise Corrupt(f"block of an archive differs from its digest key={name} start={block.start}; restore it")
    try:
        if zstandard.frame_content_size(stored) != block.unpacked:
            raise ValueError("size announced twice, differently")
        packed = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
        unpacked = unpack(packed, containers_max=_LISTS_MAX, max_array_len=_OBJECTS_MAX, max_map_len=0)
        return _check_block(block, unpacked)
    except (ValueError, TypeError, msgpack.UnpackException, zstandard.ZstdError, RecursionError) as error:
        raise Corrupt(
            f"block of an archive cannot be read key={name} start={block.start} cause={error!r:.80}; restore it"
        ) from error


def _check_block(block: Block, unpacked: Any) -> BlockContent:
    entries, frames, columns = unpacked
    for items in unpacked:
        if type(items) is not list or not set(map(type, items)) <= {bytes}:
            raise ValueError("not bytes")
    announced = sum(each.slots for each in block.slots)  # counted before they are listed: it may be any number
    if (len(entries), len(frames)) != (block.entries, announced) or not set(map(len, frames)) <= {FRAME_BYTES}:
        raise ValueError("not what the table says")
    addresses = [(int.from_bytes(raw[:8]), int.from_bytes(raw[8:])) for raw in (framed[_ADDRESS] for framed in frames)]
    expected = sorted((s.session, s.first + i) for s in block.slots for i in range(s.slots))
    if sorted(addresses) != expected:
        raise ValueError("not the slots that the table says")
    return BlockContent(
        dict(enumerate(entries, block.entry)),
        dict(zip(addresses, zip(frames, columns, strict=True), strict=True)),
    )
