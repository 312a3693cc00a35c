"""Segments: columns of events to bytes and back. No I/O.

docs/FORMAT.md §5 and §6. A segment is a framed header and one zstd frame of columns. On the way in,
events are turned into columns; on the way out, columns stay columns: a thousand events are a handful of
lists, and nothing is built per event.

Invariants:
- Whatever one bit of a segment is changed to, decoding raises Corrupt and returns nothing.
- Decoding builds nothing larger than the header announces, and the header announces at most the limits below.
- An empty segment has no columns; a final is always empty.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack
import zstandard

from logstore.errors import Corrupt
from logstore.event import NAME_BYTES_MAX, EncodedEvent
from logstore.frame import ObjectType, decode_frame, encode_frame, unpack
from logstore.keys import SegmentKey, segment_key

__all__ = [
    "COUNT_MAX",
    "Columns",
    "Segment",
    "SegmentEncoder",
    "attached_to",
    "decode_archived_segment",
    "decode_segment",
    "is_seal",
    "unpack_columns",
]

FINAL: Final = 0x0001
SEALED: Final = 0x0002
COUNT_MAX: Final = 65_536
STORED_BYTES_MAX: Final = 32 << 20
COLUMNS_BYTES_MAX: Final = 64 << 20
_ONE_BYTE_NAMES_MAX: Final = 256
_LISTS_MAX: Final = 10  # the lists that columns consist of; more is a bomb
_ZSTD_LEVEL: Final = 1  # on small, alike events level 3 costs a third more time and saves nothing
_HEADER: Final = struct.Struct(">QQQQQQIII32s32s")
FRAME_BYTES: Final = 168  # of every segment: a prefix of 12, the header, a digest


@dataclass(frozen=True, slots=True)
class Columns:
    """The events of one segment, by column. Where ``*_codes`` is None every event has the only name."""

    kind_names: tuple[str, ...]
    kind_codes: Sequence[int] | None
    type_names: tuple[str, ...]
    type_codes: Sequence[int] | None
    keys: list[str]
    payloads: list[bytes]
    metas: dict[int, bytes]

    def kind(self, index: int) -> str:
        """The kind of event ``index``."""
        return self.kind_names[0 if self.kind_codes is None else self.kind_codes[index]]

    def type(self, index: int) -> str:
        """The type of event ``index``."""
        return self.type_names[0 if self.type_codes is None else self.type_codes[index]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded segment: its header, its own digest, and its columns (None when empty).

    ``acknowledged``: when it was built, the slots below that number were stored for certain.
    """

    key: SegmentKey
    final: bool
    sealed: bool
    first_sequence: int
    count: int
    stamp: int
    acknowledged: int
    previous: bytes
    digest: bytes
    columns: Columns | None
    columns_bytes: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return 1_000 + self.columns_bytes + 120 * self.count


class SegmentEncoder:
    """Builds segments. Keeps its compressor between calls; one per writer, not thread-safe."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)

    def encode(
        self,
        key: SegmentKey,
        events: Sequence[EncodedEvent],
        *,
        first_sequence: int,
        stamp: int,
        acknowledged: int,
        previous: bytes,
        final: bool = False,
        sealed: bool = False,
    ) -> tuple[bytes, Segment]:
        """Return the bytes of a segment, and the segment as a reader has it."""
        assert len(events) <= COUNT_MAX
        assert not (final and events), "a final is empty"
        assert final or not sealed, "only finals are sealed"
        assert acknowledged == key.slot or not final, "a final says that all below it is stored"
        count = len(events)
        columns, packed = None, b""
        if events:
            columns, packed = _pack_columns(events)
        stored = self._compressor.compress(packed) if packed else b""
        assert len(packed) <= COLUMNS_BYTES_MAX
        assert len(stored) <= STORED_BYTES_MAX
        header = _HEADER.pack(
            key.chapter,
            key.session,
            key.slot,
            first_sequence,
            stamp,
            acknowledged,
            count,
            len(stored),
            len(packed),
            previous,
            hashlib.sha256(stored).digest(),
        )
        framed = encode_frame(ObjectType.SEGMENT, FINAL * final | SEALED * sealed, header)
        segment = Segment(
            key,
            final,
            sealed,
            first_sequence,
            count,
            stamp,
            acknowledged,
            previous,
            framed[-32:],
            columns,
            len(packed),
        )
        return framed + stored, segment


def _pack_columns(events: Sequence[EncodedEvent]) -> tuple[Columns, bytes]:
    kinds, keys, types, payloads, all_metas = zip(*events, strict=True)
    kind_names, kind_codes, kind_bytes = _to_names(kinds)
    type_names, type_codes, type_bytes = _to_names(types)
    metas = {index: meta for index, meta in enumerate(all_metas) if meta is not None} if any(all_metas) else {}
    columns = Columns(
        kind_names,
        kind_codes,
        type_names,
        type_codes,
        list(keys),
        list(payloads),
        metas,
    )
    packed: bytes = msgpack.packb(
        [
            [kind_names, kind_bytes],
            [type_names, type_bytes],
            columns.keys,
            columns.payloads,
            [list(metas), list(metas.values())] if metas else None,
        ]
    )
    return columns, packed


def _to_names(values: Sequence[str]) -> tuple[tuple[str, ...], Sequence[int] | None, bytes | None]:
    """Return the distinct names, the code of each value, and the codes as they are stored."""
    names = tuple(dict.fromkeys(values))
    if len(names) == 1:
        return names, None, None
    index = {name: code for code, name in enumerate(names)}
    codes = tuple([index[value] for value in values])
    if len(names) <= _ONE_BYTE_NAMES_MAX:
        return names, bytes(codes), bytes(codes)
    return names, codes, struct.pack(f">{len(codes)}H", *codes)


def decode_segment(key: SegmentKey, data: bytes) -> Segment:
    """Decode the object found under ``key``; Corrupt, naming it, when it is anything but a whole segment of that name.

    Cost: one SHA-256 and one unpacking of the columns; no object per event but its key and payload.
    """
    header = _decode_header(key, data)
    rest = header.rest
    if len(rest) != header.stored_size or hashlib.sha256(rest).digest() != header.stored_digest:
        raise Corrupt(
            f"segment body differs from its digest key={_name(key)} bytes={len(rest)} want={header.stored_size};"
            " restore it"
        )
    return _segment(key, header, lambda: _decompress(rest, header.columns_size))


def decode_archived_segment(key: SegmentKey, framed: bytes, packed: bytes) -> Segment:
    """Decode a segment from its frame and its columns unpacked, as archives hold them. Raises Corrupt, naming it."""
    header = _decode_header(key, framed)
    if len(header.rest) or len(packed) != header.columns_size:
        raise Corrupt(f"archived segment has another size than its frame says key={_name(key)} bytes={len(packed)}")
    return _segment(key, header, lambda: packed)


def unpack_columns(segment: Segment, data: bytes) -> tuple[bytes, bytes]:
    """Split the bytes of a segment, which decoded to ``segment``, into its frame and its columns unpacked."""
    framed, stored = data[:FRAME_BYTES], data[FRAME_BYTES:]
    return framed, _decompress(stored, segment.columns_bytes) if stored else b""


class _Header(NamedTuple):
    """What the frame of a segment says, and the bytes that follow it."""

    final: bool
    sealed: bool
    first_sequence: int
    events: int
    stamp: int
    acknowledged: int
    previous: bytes
    digest: bytes
    columns_size: int
    stored_size: int
    stored_digest: bytes
    rest: memoryview


def _decode_header(key: SegmentKey, data: bytes) -> _Header:
    """Take the frame off; Corrupt unless it is that of this segment, and does not contradict itself."""
    name = _name(key)
    frame = decode_frame(name, data, ObjectType.SEGMENT, FINAL | SEALED)
    if len(frame.body) != _HEADER.size:
        raise Corrupt(f"segment header has another size key={name} bytes={len(frame.body)}; restore the object")
    (
        chapter,
        session,
        slot,
        first_sequence,
        stamp,
        acknowledged,
        count,
        stored_size,
        columns_size,
        previous,
        stored_digest,
    ) = _HEADER.unpack(frame.body)
    if (chapter, session, slot) != (key.chapter, key.session, key.slot):
        raise Corrupt(f"segment lies under another's name key={name} is={(chapter, session, slot)}; restore the object")
    final, sealed = bool(frame.flags & FINAL), bool(frame.flags & SEALED)
    limits_held = count <= COUNT_MAX and stored_size <= STORED_BYTES_MAX and columns_size <= COLUMNS_BYTES_MAX
    empty_alike = (count == 0) == (stored_size == 0) == (columns_size == 0)
    if (
        not limits_held
        or not empty_alike
        or (final and count)
        or (sealed and not final)
        or acknowledged > slot
        or (final and acknowledged != slot)
    ):
        raise Corrupt(f"segment header contradicts itself key={name}; restore the object")
    return _Header(
        final,
        sealed,
        first_sequence,
        count,
        stamp,
        acknowledged,
        previous,
        frame.digest,
        columns_size,
        stored_size,
        stored_digest,
        frame.rest,
    )


def _segment(key: SegmentKey, header: _Header, unpacked: Callable[[], bytes]) -> Segment:
    return Segment(
        key,
        header.final,
        header.sealed,
        header.first_sequence,
        header.events,
        header.stamp,
        header.acknowledged,
        header.previous,
        header.digest,
        _decode_columns(key, header.events, unpacked) if header.events else None,
        header.columns_size,
    )


class _Nonsense(ValueError):
    """The columns are not what FORMAT §6 says."""


def _decode_columns(key: SegmentKey, count: int, unpacked: Callable[[], bytes]) -> Columns:
    """Check the columns that ``unpacked`` brings to light."""
    try:
        columns = unpack(unpacked(), containers_max=_LISTS_MAX, max_array_len=COUNT_MAX, max_map_len=0)
        return _check_columns(columns, count)
    except (ValueError, TypeError, msgpack.UnpackException, zstandard.ZstdError, RecursionError) as error:
        raise Corrupt(
            f"segment columns cannot be read key={_name(key)} cause={error!r:.80}; restore the object"
        ) from error


def _decompress(stored: bytes | memoryview, size: int) -> bytes:
    if zstandard.frame_content_size(stored) != size:
        raise _Nonsense("size announced twice, differently")
    return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)


def _check_columns(unpacked: Any, count: int) -> Columns:
    (kind_names, kind_codes), (type_names, type_codes), keys, payloads, metas = unpacked
    _require_all(keys, str, count)
    _require_all(payloads, bytes, count)
    return Columns(
        *_check_names(kind_names, kind_codes, count),
        *_check_names(type_names, type_codes, count),
        keys,
        payloads,
        _check_metas(metas, count),
    )


def _require_all(column: Any, type_: type, count: int) -> None:
    if type(column) is not list or len(column) != count or (count and set(map(type, column)) != {type_}):
        raise _Nonsense(f"column of {count} {type_.__name__}")


def _check_names(names: Any, codes: Any, count: int) -> tuple[tuple[str, ...], Sequence[int] | None]:
    _require_all(names, str, len(names))
    if len(set(names)) != len(names) or not all(1 <= len(name.encode()) <= NAME_BYTES_MAX for name in names):
        raise _Nonsense("names")
    if len(names) == 1 and codes is None:
        return tuple(names), None
    code_bytes = 1 if len(names) <= _ONE_BYTE_NAMES_MAX else 2
    if len(names) < 2 or type(codes) is not bytes or len(codes) != count * code_bytes:
        raise _Nonsense("codes")
    values: Sequence[int] = codes if code_bytes == 1 else struct.unpack(f">{count}H", codes)
    if max(values) >= len(names):
        raise _Nonsense("codes")
    return tuple(names), values


def _check_metas(metas: Any, count: int) -> dict[int, bytes]:
    if metas is None:
        return {}
    indices, values = metas
    _require_all(indices, int, len(values))
    _require_all(values, bytes, len(indices))
    if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < count:
        raise _Nonsense("metas")
    return dict(zip(indices, values, strict=True))


def is_seal(framed: bytes) -> bool:
    """Whether a segment that begins so says that it ends a session in its owner's stead; decoding tells if it may."""
    return bool(int.from_bytes(framed[6:8], "big") & SEALED)


def attached_to(previous: bytes, key: SegmentKey, data: bytes) -> tuple[bytes, bytes]:
    """Return the segment ``data``, found under ``key``, as it is after what has the digest ``previous``; and its own.

    The columns stay as they are. Cost: two SHA-256 of a header.
    """
    frame = decode_frame(_name(key), data, ObjectType.SEGMENT, FINAL | SEALED)
    *fields, found, stored_digest = _HEADER.unpack(frame.body)
    if found == previous:
        return data, frame.digest
    framed = encode_frame(ObjectType.SEGMENT, frame.flags, _HEADER.pack(*fields, previous, stored_digest))
    return framed + frame.rest, framed[-32:]


def _name(key: SegmentKey) -> str:
    return segment_key(key.writer, key.chapter, key.session, key.slot)
