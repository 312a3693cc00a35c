"""Chunks: rows in, rows out, one name for the same rows, and damage is found."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.chunk import decode_chunk, encode_chunk
from logstore.errors import Corrupt, LimitExceeded
from logstore.frame import ObjectType, encode_frame
from logstore.keys import ChunkKey

rows = st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=60), min_size=1, max_size=30)


def sorted_rows(rows: dict[str, bytes]) -> tuple[list[str], list[bytes]]:
    keys = sorted(rows, key=str.encode)
    return keys, [rows[key] for key in keys]


def made(packed: bytes, *, count: int = 2, size: int | None = None) -> tuple[ChunkKey, bytes]:
    """A chunk whose frame is whole, whatever its columns are."""
    stored, hash_ = zstandard.ZstdCompressor(write_checksum=True).compress(packed), hashlib.sha256(packed).digest()
    sizes = (count, len(stored), len(packed) if size is None else size)
    header = b"".join(number.to_bytes(4, "big") for number in sizes) + hash_ + hashlib.sha256(stored).digest()
    return ChunkKey(0, 7, hash_), encode_frame(ObjectType.CHUNK, 0, header) + stored


@given(rows)
@settings(max_examples=75, deadline=None)
def test_any_rows_come_back(rows: dict[str, bytes]) -> None:
    """A chunk decodes to its rows, under the name that their content gives it, whoever wrote it."""
    keys, states = sorted_rows(rows)
    data, hash_, size = encode_chunk(keys, states)
    chunk = decode_chunk(ChunkKey(0, 7, hash_), data)
    assert (chunk.keys, chunk.states) == (keys, states)
    assert encode_chunk(keys, states) == (data, hash_, size)
    assert size == len(msgpack.packb([keys, states]))


def test_every_flipped_bit_is_found() -> None:
    """Whichever bit of a chunk changes, decoding says Corrupt and names it; so does every truncation."""
    data, hash_, _ = encode_chunk(["a", "b"], [b"\x80", b"\x81\xa1x\x01"])
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt, match=f"key=chunks/.*{hash_.hex()}"):
            decode_chunk(ChunkKey(0, 7, hash_), bytes(flipped))
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            decode_chunk(ChunkKey(0, 7, hash_), data[:size])


def test_a_chunk_under_another_name_is_found() -> None:
    """A chunk is what its name says, or it is Corrupt: a swapped object is not taken for another."""
    data, _, _ = encode_chunk(["a"], [b"\x80"])
    with pytest.raises(Corrupt, match="another's name"):
        decode_chunk(ChunkKey(0, 7, bytes(32)), data)


@pytest.mark.parametrize(
    ("columns", "count"),
    [
        ([["a", "b"], [b"", b""]], 3),
        ([["a", "b"], [b"", b""]], 0),
        ([["a", "b"], [b""]], 2),
        ([["b", "a"], [b"", b""]], 2),
        ([["a", "a"], [b"", b""]], 2),
        ([["é", "z"], [b"", b""]], 2),
        ([["a", b"b"], [b"", b""]], 2),
        ([["a", "b"], [b"", "x"]], 2),
        ([["a", "b"], [b"", [b""]]], 2),
        ([["a", "b"], [b"", b""], []], 2),
        ([["a", "b"]], 2),
        ({"a": b""}, 2),
        ([[[], []], [[], []]], 2),
    ],
)
def test_columns_that_are_not_as_format_says(columns: object, count: int) -> None:
    """Whole in its frame and wrong within: Corrupt, whatever is wrong."""
    key, data = made(msgpack.packb(columns), count=count)
    with pytest.raises(Corrupt, match="key=chunks/"):
        decode_chunk(key, data)


def test_a_bomb_is_refused_by_its_size() -> None:
    """What unpacks to more than it announces, or announces more than the limit, is not unpacked."""
    key, data = made(msgpack.packb([["a"], [bytes(50 << 20)]]), count=1, size=100)
    with pytest.raises(Corrupt, match="announced twice"):
        decode_chunk(key, data)
    key, data = made(msgpack.packb([["a"], [bytes(65 << 20)]]), count=1)
    with pytest.raises(Corrupt, match="contradicts itself"):
        decode_chunk(key, data)


def test_a_row_that_no_chunk_can_hold_is_refused() -> None:
    """The limit is met where the snapshot is written, with the key, not where it is read."""
    with pytest.raises(LimitExceeded, match="key=large"):
        encode_chunk(["large"], [bytes(65 << 20)])
