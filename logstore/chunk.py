"""Chunks: rows of snapshots to bytes and back, by column. docs/FORMAT.md §9. Pure.

Invariants:
- Whatever one bit of a chunk is changed to, decoding raises Corrupt and returns nothing.
- The same rows have the same hash, whoever encodes them; keys ascend.
- Decoding builds nothing larger than the header announces, and the header announces at most the limits below.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any, Final

import msgpack
import zstandard

from logstore.errors import Corrupt, LimitExceeded
from logstore.frame import ObjectType, decode_frame, encode_frame, unpack
from logstore.keys import ChunkKey, chunk_key

__all__ = ["ROWS_MAX", "Chunk", "decode_chunk", "encode_chunk"]

ROWS_MAX: Final = 1 << 20
COLUMNS_BYTES_MAX: Final = 64 << 20
_LISTS: Final = 3
_ZSTD_LEVEL: Final = 3  # written once and read often: a third smaller than 1 for twice the time
_HEADER: Final = struct.Struct(">III32s32s")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows in the order of their keys: ``states[i]`` is that of ``keys[i]``."""

    keys: list[str]
    states: list[bytes]


def encode_chunk(keys: Sequence[str], states: Sequence[bytes]) -> tuple[bytes, bytes, int]:
    """Return the bytes of a chunk, the hash that names it, and the size of its columns unpacked.

    ``keys`` ascend by their UTF-8 bytes. Raises LimitExceeded for what a chunk cannot hold: one very large row.
    """
    assert 1 <= len(keys) == len(states) <= ROWS_MAX
    packed: bytes = msgpack.packb([list(keys), list(states)])
    if len(packed) > COLUMNS_BYTES_MAX:
        raise LimitExceeded(
            f"a row is too large for a snapshot key={keys[0]} bytes={len(packed)} max={COLUMNS_BYTES_MAX}; split it"
        )
    stored = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(packed)
    hash_ = hashlib.sha256(packed).digest()
    header = _HEADER.pack(len(keys), len(stored), len(packed), hash_, hashlib.sha256(stored).digest())
    return encode_frame(ObjectType.CHUNK, 0, header) + stored, hash_, len(packed)


def decode_chunk(key: ChunkKey, data: bytes) -> Chunk:
    """Decode the object found under ``key``; Corrupt, naming it, when it is anything but a whole chunk of that name.

    Cost: one SHA-256 and one unpacking of the columns; no row is decoded.
    """
    name = chunk_key(key)
    frame = decode_frame(name, data, ObjectType.CHUNK)
    if len(frame.body) != _HEADER.size:
        raise Corrupt(f"chunk header has another size key={name} bytes={len(frame.body)}; restore the object")
    count, stored_size, columns_size, hash_, stored_digest = _HEADER.unpack(frame.body)
    if hash_ != key.hash:
        raise Corrupt(f"chunk lies under another's name key={name}; restore the object")
    if not 1 <= count <= ROWS_MAX or columns_size > COLUMNS_BYTES_MAX or len(frame.rest) != stored_size:
        raise Corrupt(f"chunk header contradicts itself key={name}; restore the object")
    if hashlib.sha256(frame.rest).digest() != stored_digest:
        raise Corrupt(f"chunk body differs from its digest key={name}; restore the object")
    try:
        if zstandard.frame_content_size(frame.rest) != columns_size:
            raise ValueError("size announced twice, differently")
        packed = zstandard.ZstdDecompressor().decompress(frame.rest, allow_extra_data=False)
        if hashlib.sha256(packed).digest() != hash_:
            raise ValueError("columns differ from their hash")
        unpacked = unpack(packed, containers_max=_LISTS, max_array_len=ROWS_MAX, max_map_len=0)
        return _check_columns(unpacked, count)
    except (ValueError, TypeError, msgpack.UnpackException, zstandard.ZstdError, RecursionError) as error:
        raise Corrupt(f"chunk cannot be read key={name} cause={error!r:.80}; restore the object") from error


def _check_columns(unpacked: Any, count: int) -> Chunk:
    keys, states = unpacked
    for column, type_ in ((keys, str), (states, bytes)):
        if type(column) is not list or len(column) != count or set(map(type, column)) != {type_}:
            raise ValueError(f"column of {count} {type_.__name__}")
    encoded = keys if all(map(str.isascii, keys)) else [key.encode() for key in keys]
    if not all(map(lt, encoded, encoded[1:])):
        raise ValueError("keys do not ascend")
    return Chunk(keys, states)
