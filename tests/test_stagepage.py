"""Pages of stage logs: whatever became of one, decoding it raises Corrupt naming its key, and builds little."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import Corrupt
from logstore.gone import decode_gone
from logstore.keys import StageGoneKey, StagePageKey, parse_key
from logstore.stagepage import HEAD_BYTES, Page, decode_head, decode_page
from tests.golden.independent import (
    ABANDONED,
    COMPLETE,
    SEGMENT,
    STAGE_GONE,
    Values,
    compress,
    write_small,
    write_stage_page,
)
from tests.golden.make import V1

NAMES: Final = sorted(path.stem for path in V1.glob("stagepage-*.bin"))


def golden(name: str) -> tuple[StagePageKey, bytes, Values]:
    path = Path(V1 / f"{name}.bin")
    values = json.loads(path.with_suffix(".json").read_text())
    key = parse_key(values.pop("key"))
    assert isinstance(key, StagePageKey)
    return key, path.read_bytes(), values


KEY, WHOLE, VALUES = golden("stagepage-two-blocks")


def decode(data: bytes, key: StagePageKey = KEY) -> Page:
    return decode_page(key, data)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_read_alone(name: str) -> None:
    """The first 176 bytes say what the whole page says of itself; fewer are damage."""
    key, data, _ = golden(name)
    assert decode_head(key, data[:HEAD_BYTES]) == decode_page(key, data).head
    for size in (0, 11, 12, HEAD_BYTES - 1):
        with pytest.raises(Corrupt):
            decode_head(key, data[:size])


@pytest.mark.parametrize("name", NAMES)
def test_any_changed_bit_is_found(name: str) -> None:
    """Each bit of each golden page, flipped."""
    key, data, _ = golden(name)
    for at in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(Corrupt, match="key=stagelogs/"):
            decode(bytes(flipped), key)


@given(st.binary(max_size=400))
def test_anything_else_is_damage(data: bytes) -> None:
    """Whatever bytes lie there."""
    with pytest.raises(Corrupt):
        decode(data)


HEADERS: Final[list[dict[str, Any]]] = [
    {"type": SEGMENT},
    {"flags": 0x0004},
    {"flags": 0x8000},
    {"flags": ABANDONED},
    {"flags": COMPLETE | ABANDONED},
    {"number": 1},
    {"stage": bytes(32)},
    {"previous": b"\x01" * 32},
    {"count": 0},
    {"count": 1},
    {"count": 3},
    {"count": 65_537},
    {"run": 2},
    {"run": 3},
    {"stop": 1},
    {"stop": 0},
    {"stop": 2**63 + 1},
    {"stored_size": 51},
    {"stored_size": 0},
    {"stored_size": 2**32 - 1},
    {"unpacked_size": 0},
    {"unpacked_size": 42},
    {"unpacked_size": 2**32 - 1},
    {"stored_digest": bytes(32)},
]


@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_head_that_contradicts_is_damage(header: dict[str, Any]) -> None:
    """One field otherwise, all digests made to agree: Corrupt."""
    assert decode(write_stage_page(VALUES)).head.count == 2
    with pytest.raises(Corrupt, match="key=stagelogs/"):
        decode(write_stage_page(VALUES, **header))


@pytest.mark.parametrize(
    "empty",
    [{"complete": False}, {"run": 1, "stop": 1}, {"run": 0, "stop": 0, "abandoned": True, "complete": False}],
    ids=repr,
)
def test_a_page_without_blocks_completes(empty: Values) -> None:
    """Nothing else is empty."""
    values = {**VALUES, "blocks": [], "run": 0, "stop": 0, "complete": True}
    assert decode(write_stage_page(values)).head.complete
    with pytest.raises(Corrupt):
        decode(write_stage_page({**values, **empty}))


COLUMNS: Final[list[Any]] = [
    None,
    [],
    {"a": 1},
    [[0, 1], ["a", "b"], b"\0\0"],
    [[0, 1], ["a", "b"], b"\0\0", [0, 0], []],
    [[1, 0], ["a", "b"], b"\0\0", [0, 0]],
    [[0, 0], ["a", "b"], b"\0\0", [0, 0]],
    [[-1, 0], ["a", "b"], b"\0\0", [0, 0]],
    [[0, 2], ["a", "b"], b"\0\0", [0, 0]],
    [[0, True], ["a", "b"], b"\0\0", [0, 0]],
    [[0.0, 1], ["a", "b"], b"\0\0", [0, 0]],
    [[0, 1], ["a"], b"\0\0", [0, 0]],
    [[0, 1], ["a", b"b"], b"\0\0", [0, 0]],
    [[0, 1], ["a", ["b"]], b"\0\0", [0, 0]],
    [[0, 1], ["a", "b"], b"\0", [0, 0]],
    [[0, 1], ["a", "b"], [0, 0], [0, 0]],
    [[0, 1], ["a", "b"], b"\0\0", [0, -1]],
    [[0, 1], ["a", "b"], b"\0\0", [0, None]],
    [[0, 1], ["a", "b"], b"\0\0", [0, {}]],
    [[0, 1], ["a", msgpack.ExtType(1, b"")], b"\0\0", [0, 0]],
]


@pytest.mark.parametrize("columns", COLUMNS, ids=repr)
def test_blocks_that_are_none_are_damage(columns: Any) -> None:
    """Columns of another kind, length or order, all digests made to agree: Corrupt."""
    with pytest.raises(Corrupt, match="key=stagelogs/"):
        decode(write_stage_page(VALUES, msgpack.packb(columns)))


def test_bytes_behind_are_damage() -> None:
    """Behind the blocks, behind the frame of them, and behind the object."""
    packed = msgpack.packb([[0, 1], ["a", "b"], b"\0\0", [0, 0]])
    decode(write_stage_page(VALUES, packed))
    for data in (
        write_stage_page(VALUES, packed + b"\xc0"),
        write_stage_page(VALUES, packed, compress(packed) + b"\0"),
        write_stage_page(VALUES, packed, compress(packed) + compress(packed)),
        write_stage_page(VALUES, packed) + b"\0",
    ):
        with pytest.raises(Corrupt):
            decode(data)


def test_a_bomb_is_not_built() -> None:
    """However much a few bytes announce, decoding takes no more memory than a page may."""
    arrays = b"\xdd\xff\xff\xff\xff" * 1_000
    bombs = [arrays, b"\x94" + b"\x90" * 100_000 + bytes(10), bytes(1 << 30)]
    for packed in bombs[:2]:
        data = write_stage_page(VALUES, packed)
        tracemalloc.start()
        try:
            with pytest.raises(Corrupt):
                decode(data)
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()
    stored = compress(bombs[2])
    data = write_stage_page(VALUES, b"", stored, unpacked_size=1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "other",
    [
        {"deployment": "d/3"},
        {"stage": "e"},
        {"retry": 4},
        {"retry": True},
        {"pages": -1},
        {"pages": None},
        {"digest": {"hex": "00"}},
    ],
    ids=repr,
)
def test_a_record_of_another_stage_log_is_damage(other: Values) -> None:
    """The record that a stage log is gone says which; it is believed under that name alone."""
    values = json.loads((V1 / "gone.json").read_text())
    key = parse_key(values.pop("key"))
    values.pop("object_digest")
    assert isinstance(key, StageGoneKey)
    assert decode_gone(key.stage, write_small(STAGE_GONE, values)).pages == 2
    with pytest.raises(Corrupt, match="gone"):
        decode_gone(key.stage, write_small(STAGE_GONE, {**values, **other}))
