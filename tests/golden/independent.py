"""The format once more, written from docs/FORMAT.md alone: what the library is held against.

It imports nothing of the library, checks what a reader must check, and is as slow as it likes. Objects are plain
``values``, as they stand in the JSON files beside the golden bytes: bytes are hexadecimal text there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import msgpack
import zstandard

Values = dict[str, Any]
Row = dict[str, str]  # of a chunk: its key and state

STORE, ENTRY, SEGMENT, RETIRED, MANIFEST, CHUNK, PIN, CLAIM, ARCHIVE, REGISTRATION = 1, 2, 3, 4, 5, 6, 7, 8, 9, 11
STAGE_PAGE, STAGE_GONE = 10, 12
OPEN = 1  # a kind of entry
FINAL, SEALED = 0x0001, 0x0002
COMPLETE, ABANDONED = 0x0001, 0x0002
HEADER = struct.Struct(">6Q3I32s32s")
STAGE_HEADER = struct.Struct(">3Q3I32s32s32s")
CHUNK_HEADER = struct.Struct(">3I32s32s")
SEGMENT_FRAME = 12 + HEADER.size + 32


def frame(type_: int, flags: int, body: bytes) -> bytes:
    """FORMAT §2."""
    head = b"LGST" + bytes([1, type_]) + flags.to_bytes(2, "big") + len(body).to_bytes(4, "big") + body
    return head + hashlib.sha256(head).digest()


def unframe(data: bytes) -> tuple[int, int, bytes, bytes, bytes]:
    """Return type, flags, body, digest, and what follows."""
    assert data[:4] == b"LGST"
    assert data[4] == 1
    end = 12 + int.from_bytes(data[8:12], "big")
    assert hashlib.sha256(data[:end]).digest() == data[end : end + 32]
    return data[5], int.from_bytes(data[6:8], "big"), data[12:end], data[end : end + 32], data[end + 32 :]


def digest_of(data: bytes) -> bytes:
    """The object's digest: the last field of its frame."""
    return unframe(data)[3]


def plain(value: Any) -> Any:
    """Return a MessagePack value as JSON has it: bytes as ``{"hex": …}``."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def unplain(value: Any) -> Any:
    """The reverse of ``plain``."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if set(value) == {"hex"} else {k: unplain(v) for k, v in value.items()}
    return [unplain(item) for item in value] if isinstance(value, list) else value


def write_small(type_: int, values: Values) -> bytes:
    """FORMAT §3, §4, §7, §8, §10: one map."""
    return frame(type_, 0, msgpack.packb(unplain(values)))


def read_small(type_: int, data: bytes) -> Values:
    """Return the map of a small object."""
    found, flags, body, _, rest = unframe(data)
    assert (found, flags, rest) == (type_, 0, b"")
    values: Values = plain(msgpack.unpackb(body))
    return values


def pack_columns(values: Values) -> bytes:
    """FORMAT §6."""
    events = values["events"]
    metas = [(index, bytes.fromhex(event["meta"])) for index, event in enumerate(events) if event["meta"] is not None]
    packed: bytes = msgpack.packb(
        [
            pack_names([event["kind"] for event in events]),
            pack_names([event["type"] for event in events]),
            [event["key"] for event in events],
            [bytes.fromhex(event["payload"]) for event in events],
            [[index for index, _ in metas], [meta for _, meta in metas]] if metas else None,
        ]
    )
    return packed


def pack_names(column: list[str]) -> list[Any]:
    """Return a column of kinds or types as ``[names, codes]``."""
    names = sorted(set(column))
    if len(names) == 1:
        return [names, None]
    width = 1 if len(names) <= 256 else 2
    return [names, b"".join(names.index(name).to_bytes(width, "big") for name in column)]


def unpack_names(column: list[Any], count: int) -> list[str]:
    """Return the name of each event."""
    names: list[str] = column[0]
    codes = column[1]
    assert len(set(names)) == len(names)
    if codes is None:
        assert len(names) == 1
        return names * count
    width = 1 if len(names) <= 256 else 2
    assert len(codes) == count * width
    return [names[int.from_bytes(codes[at : at + width], "big")] for at in range(0, len(codes), width)]


def compress(columns: bytes) -> bytes:
    """One Zstandard frame with content size and content checksum."""
    return zstandard.ZstdCompressor(write_content_size=True, write_checksum=True).compress(columns) if columns else b""


def uncompress(stored: bytes) -> bytes:
    """The reverse of ``compress``."""
    return zstandard.ZstdDecompressor().decompress(stored) if stored else b""


def write_segment(values: Values, columns: bytes | None = None, stored: bytes | None = None, **header: Any) -> bytes:
    """FORMAT §5. ``columns``, ``stored`` and the header's fields may be given otherwise, digests made to agree."""
    if columns is None:
        columns = pack_columns(values) if values["events"] else b""
    if stored is None:
        stored = compress(columns)
    fields = {
        "chapter": values["chapter"],
        "session": values["session"],
        "slot": values["slot"],
        "first_sequence": values["first_sequence"],
        "stamp": values["stamp"],
        "acknowledged": values["acknowledged"],
        "count": len(values["events"]),
        "stored_size": len(stored),
        "columns_size": len(columns),
        "previous": bytes.fromhex(values["previous"]),
        "stored_digest": hashlib.sha256(stored).digest(),
        "flags": FINAL * values["final"] | SEALED * values["sealed"],
        "type": SEGMENT,
        **header,
    }
    flags, type_ = fields.pop("flags"), fields.pop("type")
    return frame(type_, flags, HEADER.pack(*fields.values())) + stored


def read_segment(data: bytes) -> Values:
    """Return the values of a segment."""
    type_, _, body, _, stored = unframe(data)
    assert type_ == SEGMENT
    *_, size, unpacked, _, checksum = HEADER.unpack(body)
    assert len(stored) == size
    assert hashlib.sha256(stored).digest() == checksum
    columns = uncompress(stored)
    assert len(columns) == unpacked
    return unpack_segment(data[:SEGMENT_FRAME], columns)


def unpack_segment(frame_: bytes, columns: bytes) -> Values:
    """Return the values of the segment that has this frame and, unpacked, these columns."""
    type_, flags, body, _, rest = unframe(frame_)
    assert (type_, rest) == (SEGMENT, b"")
    chapter, session, slot, sequence, stamp, acknowledged, count, _, unpacked, previous, _ = HEADER.unpack(body)
    assert len(columns) == unpacked
    assert bool(columns) == bool(count)
    events = []
    if count:
        kinds, types, keys, payloads, metas = msgpack.unpackb(columns)
        meta_of = {} if metas is None else dict(zip(*metas, strict=True))
        lists = (unpack_names(kinds, count), keys, unpack_names(types, count), payloads)
        for index, (kind, key, event_type, payload) in enumerate(zip(*lists, strict=True)):
            meta = meta_of[index].hex() if index in meta_of else None
            events.append(
                {
                    "kind": kind,
                    "key": key,
                    "type": event_type,
                    "payload": payload.hex(),
                    "meta": meta,
                }
            )
    return {
        "chapter": chapter,
        "session": session,
        "slot": slot,
        "final": bool(flags & FINAL),
        "sealed": bool(flags & SEALED),
        "first_sequence": sequence,
        "stamp": stamp,
        "acknowledged": acknowledged,
        "previous": previous.hex(),
        "events": events,
    }


def fingerprint(projection: str, version: int, kinds: list[str], fold: str, tag: str) -> bytes:
    """FORMAT §8: what tells a projection from another of its name and version."""
    return hashlib.sha256(msgpack.packb([projection, version, sorted(kinds), fold, tag])).digest()[:8]


def sum_of_rows(rows: Iterable[Row]) -> bytes:
    """FORMAT §8, ``digest``: what the rows alive sum up to, in whatever order."""
    total = 0
    for row in rows:
        key = row["key"].encode()
        hashed = hashlib.sha256(len(key).to_bytes(4, "big") + key + bytes.fromhex(row["state"]))
        total += int.from_bytes(hashed.digest(), "big")
    return (total % 2**256).to_bytes(32, "big")


def dead_bits(count: int, dead: set[int]) -> bytes | None:
    """FORMAT §8, ``dead``: a bit for each row, nil where none is dead."""
    bits = bytearray((count + 7) // 8)
    for index in dead:
        bits[index // 8] |= 1 << index % 8
    return bytes(bits) if dead else None


def alive(rows: list[Row], dead: bytes | None) -> list[Row]:
    """Return the rows of a chunk that a manifest does not call dead."""
    return [row for index, row in enumerate(rows) if dead is None or not dead[index // 8] >> index % 8 & 1]


def pack_rows(values: Values) -> bytes:
    """FORMAT §9: the columns of a chunk."""
    rows = values["rows"]
    packed: bytes = msgpack.packb([[row["key"] for row in rows], [bytes.fromhex(row["state"]) for row in rows]])
    return packed


def hash_of_rows(values: Values) -> bytes:
    """FORMAT §9: the hash that names a chunk."""
    return hashlib.sha256(pack_rows(values)).digest()


def write_chunk(values: Values, columns: bytes | None = None, stored: bytes | None = None, **header: Any) -> bytes:
    """FORMAT §9. ``columns``, ``stored`` and the header's fields may be given otherwise, digests made to agree."""
    if columns is None:
        columns = pack_rows(values)
    if stored is None:
        stored = compress(columns)
    fields = {
        "count": len(values["rows"]),
        "stored_size": len(stored),
        "columns_size": len(columns),
        "hash": hashlib.sha256(columns).digest(),
        "stored_digest": hashlib.sha256(stored).digest(),
        "flags": 0,
        "type": CHUNK,
        **header,
    }
    flags, type_ = fields.pop("flags"), fields.pop("type")
    return frame(type_, flags, CHUNK_HEADER.pack(*fields.values())) + stored


def read_chunk(data: bytes) -> Values:
    """Return the values of a chunk."""
    type_, flags, body, _, stored = unframe(data)
    assert (type_, flags, len(body)) == (CHUNK, 0, 76)
    count, size, unpacked, hash_, checksum = CHUNK_HEADER.unpack(body)
    assert len(stored) == size
    assert hashlib.sha256(stored).digest() == checksum
    columns = uncompress(stored)
    assert len(columns) == unpacked
    assert hashlib.sha256(columns).digest() == hash_
    keys, states = msgpack.unpackb(columns)
    assert 1 <= count == len(keys) == len(states)
    encoded = [key.encode() for key in keys]
    assert all(before < after for before, after in pairwise(encoded))
    return {"rows": [{"key": key, "state": state.hex()} for key, state in zip(keys, states, strict=True)]}


def digest_of_stage(key: str) -> str:
    """FORMAT, "Stage logs": what tells the pages of a stage log, one of which has this name."""
    return hashlib.sha256(key[: key.rindex("/") + 1].encode()).hexdigest()


def pack_blocks(values: Values) -> bytes:
    """FORMAT, "Stage logs": the blocks of a page."""
    blocks = values["blocks"]
    packed: bytes = msgpack.packb(
        [
            [block["index"] for block in blocks],
            [block["text"] for block in blocks],
            bytes(block["severity"] for block in blocks),
            [block["created_ms"] for block in blocks],
        ]
    )
    return packed


def write_stage_page(values: Values, packed: bytes | None = None, stored: bytes | None = None, **header: Any) -> bytes:
    """FORMAT, "Stage logs". What is packed, stored and in the header may be given otherwise; digests agree."""
    if packed is None:
        packed = pack_blocks(values) if values["blocks"] else b""
    if stored is None:
        stored = compress(packed)
    fields = {
        "number": values["number"],
        "run": values["run"],
        "stop": values["stop"],
        "count": len(values["blocks"]),
        "stored_size": len(stored),
        "unpacked_size": len(packed),
        "stage": bytes.fromhex(values["stage"]),
        "previous": bytes.fromhex(values["previous"]),
        "stored_digest": hashlib.sha256(stored).digest(),
        "flags": COMPLETE * values["complete"] | ABANDONED * values["abandoned"],
        "type": STAGE_PAGE,
        **header,
    }
    flags, type_ = fields.pop("flags"), fields.pop("type")
    return frame(type_, flags, STAGE_HEADER.pack(*fields.values())) + stored


def read_stage_page(data: bytes) -> Values:
    """Return the values of a page of a stage log."""
    type_, flags, body, _, stored = unframe(data)
    assert (type_, len(body)) == (STAGE_PAGE, 132)
    number, run, stop, count, size, unpacked, stage, previous, checksum = STAGE_HEADER.unpack(body)
    assert len(stored) == size
    assert hashlib.sha256(stored).digest() == checksum
    packed = uncompress(stored)
    assert len(packed) == unpacked
    assert bool(packed) == bool(count)
    assert count or flags & COMPLETE
    assert not flags & ABANDONED or (flags & COMPLETE and not count)
    blocks = []
    if count:
        indices, texts, severities, times = msgpack.unpackb(packed)
        assert all(before < after for before, after in pairwise(indices))
        assert 0 <= run < stop
        assert indices[-1] < stop
        rows = zip(indices, texts, severities, times, strict=True)
        blocks = [{"index": i, "text": text, "severity": s, "created_ms": ms} for i, text, s, ms in rows]
        assert len(blocks) == count
    return {
        "stage": stage.hex(),
        "number": number,
        "complete": bool(flags & COMPLETE),
        "abandoned": bool(flags & ABANDONED),
        "run": run,
        "stop": stop,
        "previous": previous.hex(),
        "blocks": blocks,
    }


class Place(NamedTuple):
    """FORMAT §11: where an entry or a segment stands in the order of an archive."""

    stamp: int
    is_segment: bool
    session: int
    number: int  # of the entry, or the slot


def place(data: bytes) -> Place:
    type_, _, body, _, _ = unframe(data)
    if type_ == SEGMENT:
        _, session, slot, _, stamp, *_ = HEADER.unpack(body)
        return Place(stamp, True, session, slot)
    entry = msgpack.unpackb(body)
    return Place(entry["stamp"], False, 0, entry["number"])


def pack_block(objects: list[bytes]) -> bytes:
    """FORMAT §11: what a block of these whole entries and segments unpacks to."""
    segments = [data for data in objects if data[5] == SEGMENT]
    packed: bytes = msgpack.packb(
        [
            [data for data in objects if data[5] == ENTRY],
            [data[:SEGMENT_FRAME] for data in segments],
            [uncompress(data[SEGMENT_FRAME:]) for data in segments],
        ]
    )
    return packed


def list_block(objects: list[bytes]) -> list[Any]:
    """FORMAT §11: ``entry``, ``entries`` and ``slots`` of a block of these objects, or of their frames."""
    places = [place(data) for data in objects]
    numbers = [each.number for each in places if not each.is_segment]
    slots: dict[int, list[int]] = {}
    for each in places:
        if each.is_segment:
            slots.setdefault(each.session, []).append(each.number)
    assert all(run == list(range(run[0], run[0] + len(run))) for run in (numbers, *slots.values()) if run)
    return [(numbers or [0])[0], len(numbers), [[session, run[0], len(run)] for session, run in sorted(slots.items())]]


def write_archive(
    chapter: int, number: int, blocks: list[list[bytes]], /, stored: list[bytes] | None = None, **fields: Any
) -> bytes:
    """FORMAT §11, of whole entries and segments. ``stored`` and fields may be given otherwise; digests agree."""
    packed = [pack_block(objects) for objects in blocks]
    if stored is None:
        stored = [compress(content) for content in packed]
    listed = [
        [len(held), len(content), hashlib.sha256(held).digest(), *list_block(objects)]
        for held, content, objects in zip(stored, packed, blocks, strict=True)
    ]
    body = {"chapter": chapter, "number": number, "blocks": listed, **fields}
    return frame(ARCHIVE, 0, msgpack.packb(body)) + b"".join(stored)


def read_archive(data: bytes, writers: dict[int, str] | None = None) -> tuple[Values, list[Values]]:
    """Return the values of an archive's object, and those of the entries and segments in it, in their order.

    Who wrote a session its open entry says. Where objects of the archive came before this one, ``writers`` are those
    found there; this one's are added.
    """
    type_, flags, body, _, rest = unframe(data)
    assert (type_, flags) == (ARCHIVE, 0)
    values = msgpack.unpackb(body)
    writers = {} if writers is None else writers
    names: list[Any] = []
    held: list[tuple[Place, Values]] = []
    for size, unpacked, digest, *listed in values["blocks"]:
        stored, rest = rest[:size], rest[size:]
        assert len(stored) == size
        assert hashlib.sha256(stored).digest() == digest
        content = uncompress(stored)
        assert len(content) == unpacked <= 80 << 20
        entries, frames, columns = msgpack.unpackb(content)
        assert list_block(entries + frames) == listed
        read = [(place(whole), read_small(ENTRY, whole), whole) for whole in entries]
        read += [
            (place(frame_), unpack_segment(frame_, its_columns), frame_)
            for frame_, its_columns in zip(frames, columns, strict=True)
        ]
        read.sort(key=lambda each: each[0])
        names.append([])
        for at, item, framed in read:
            assert item["chapter"] == values["chapter"]
            if item.get("kind") == OPEN:
                writers[item["number"]] = item["writer"]
            names[-1].append([name_of(at, item["chapter"], writers), digest_of(framed).hex()])
            held.append((at, item))
    assert not rest
    assert all(before < after for (before, _), (after, _) in pairwise(held))
    return {**plain(values), "objects": names}, [item for _, item in held]


def name_of(at: Place, chapter: int, writers: dict[int, str]) -> str:
    """FORMAT §1: the name under which an object of an archive lay."""
    if at.is_segment:
        return f"log/{escape(writers[at.session])}/{chapter:010d}/{at.session:010d}/{at.number:010d}"
    return f"roster/{chapter:010d}/{at.number:010d}"


def escape(name: str) -> str:
    """FORMAT §1: a writer's name as it stands in the name of an object."""
    written = quote(name, safe="")
    return "%2E" + written[1:] if written.startswith(".") else written
