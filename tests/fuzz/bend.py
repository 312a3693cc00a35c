"""Bytes and values, bent.

A ``Raw`` stands for MessagePack that no packer would write: invalid UTF-8, lengths that lie, numbers in long forms. A
``Pairs`` is a map that may say a name twice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from hypothesis import strategies as st

__all__ = ["BOMB", "Draw", "Pairs", "Raw", "bend_bytes", "bend_value", "odd_values", "pack"]

Draw = Callable[..., Any]
LEVELS: Final = (99, 100, 101, 300, 499, 512, 1_100, 5_000)  # about where recursion, or a limit, ends


@dataclass(frozen=True, repr=False)
class Raw:
    """MessagePack as it stands."""

    packed: bytes

    def __repr__(self) -> str:
        return f"Raw({self.packed[:20]!r}, {len(self.packed)})"


@dataclass(frozen=True)
class Pairs:
    """A map of these, in this order."""

    pairs: tuple[tuple[Any, Any], ...]


def pack(value: Any) -> bytes:
    """Return a value as MessagePack."""
    match value:
        case Raw(packed):
            return packed
        case Pairs(pairs):
            return _head(0x80, 0xDE, len(pairs)) + b"".join(pack(inner) for pair in pairs for inner in pair)
        case dict():
            return pack(Pairs(tuple(value.items())))
        case list() | tuple():
            return _head(0x90, 0xDC, len(value)) + b"".join(map(pack, value))
        case _:
            scalar: bytes = msgpack.packb(value)
            return scalar


def _head(short: int, long: int, size: int) -> bytes:
    if size < 16:
        return bytes([short | size])
    return struct.pack(">BH", long, size) if size < 1 << 16 else struct.pack(">BI", long + 1, size)


RAW: Final = [
    *(b"\xa2\xff\xfe", b"\xa3\xed\xa0\x80", b"\xd9\x01\x80", b"\xa1\xc3"),  # text that is no UTF-8
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"),  # too long
    *(b"\xdd\x00\x10\x00\x01", b"\xdc\xff\xff", b"\xc5\xff\xff", b"\xda\xff\xff"),  # as long as may just be
    *(b"\xcc\x01", b"\xcf" + bytes(7) + b"\x01", b"\xd3" + b"\xff" * 8, b"\xd0\x05"),  # numbers in long forms
    *(b"\xd9\x01a", b"\xdb\x00\x00\x00\x01a", b"\xc5\x00\x01x", b"\xdc\x00\x01\xc0", b"\xde\x00\x00"),  # likewise
    *(b"\xd4\x05x", b"\xd6\xff\x00\x00\x00\x01", b"\xc7\x0c\xff" + bytes(12), b"\xc7\x00\x01"),  # extensions
    *(b"\xc1", b"", b"\xc0\xc0", b"\x81\xc0\xc0", b"\x82\xa1a\x01\xa1a\x02", b"\x81\xc4\x01a\x01", b"\x81\x90\x01"),
    *(b"\x81\xca\x7f\xc0\x00\x00\xc0", b"\xca\x7f\xc0\x00\x00", b"\x93\xc0"),
]
BOMB: Final = b"\xdd\x00\x00\xf0\x00" * 300 + bytes(0xF000)  # arrays that announce arrays
HEAVY: Final = [  # little that would take much
    *(b"\x91" * levels + b"\xc0" for levels in LEVELS),
    *(b"\x81\xa1a" * levels + b"\xc0" for levels in LEVELS),
    *(b"\xdc\x40\x00" + unit * (1 << 14) for unit in (b"\x90", b"\xa0", b"\x80")),
]
EDGES: Final = [
    *(0, 1, 2, 255, 256, 65_535, 65_536, 65_537, (1 << 20) + 1, 10**10 - 1, 10**10, (1 << 64) - 1),
    *((1 << bits) + by for bits in (31, 32, 53, 63) for by in (-1, 0, 1)),
]
BYTES: Final = [b"", b"\x00", bytes(8), bytes(16), bytes(32), b"\xff" * 32, b"\xc0", b"\x80", b"\x92\xcf" + bytes(8)]
TEXTS: Final = [
    "",
    "a",
    "\x00",
    "\n",
    "é" * 100,
    "a" * 200,
    "a" * 201,
    "/",
    ".",
    "..",
    "%2F",
    "a" * 1_025,
    "🙂",
    "$map",
]

odd_values: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from(EDGES),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([None, True, False, -1, 1.0, math.nan, math.inf, -math.inf, -0.0]),
    st.sampled_from(TEXTS),
    st.text(max_size=4),
    st.sampled_from(BYTES),
    st.binary(max_size=40),
    st.sampled_from([[], {}, [[]], {"": {}}, [{}], [0], [[0, 0], [0, 0]], {"a": 1}]),
    st.sampled_from(RAW).map(Raw),
    st.sampled_from(HEAVY).map(Raw),
    st.just(Raw(BOMB)),
)


def bend_value(draw: Draw, value: Any) -> Any:
    """Return ``value`` with one thing changed, mostly deep in it."""
    if isinstance(value, list | tuple) and value:
        return _bend_list(draw, list(value))
    if isinstance(value, dict) and value:
        return _bend_map(draw, value)
    if isinstance(value, int | str | bytes) and draw(st.integers(0, 4)) == 4:
        return _long(value)
    if type(value) is int and draw(st.booleans()):
        return min(max(value + draw(st.sampled_from([-1, 1, 2, -2, 1 << 32])), -(1 << 63)), (1 << 64) - 1)
    if isinstance(value, str | bytes) and draw(st.booleans()):
        cut = draw(st.integers(0, len(value)))
        return draw(st.sampled_from([value[:cut], value[cut:], value * 2, value[::-1], value[:cut] * 3]))
    return draw(odd_values)


def _long(value: int | str | bytes) -> Raw:
    """A scalar in the longest of its forms."""
    if isinstance(value, int):
        return Raw(struct.pack(">Bq", 0xD3, value) if value < 0 else struct.pack(">BQ", 0xCF, value))
    data = value if isinstance(value, bytes) else value.encode()
    return Raw(struct.pack(">BI", 0xC6 if isinstance(value, bytes) else 0xDB, len(data)) + data)


def _bend_list(draw: Draw, items: list[Any]) -> Any:
    at = draw(st.integers(0, len(items) - 1))
    match draw(st.sampled_from(["within"] * 8 + ["drop", "twice", "more", "swap", "turn", "odd"])):
        case "within":
            items[at] = bend_value(draw, items[at])
        case "drop":
            del items[at]
        case "twice":
            items.insert(at, items[at])
        case "more":
            items.insert(at, draw(odd_values))
        case "swap":
            items[at], items[0] = items[0], items[at]
        case "turn":
            items.reverse()
        case _:
            return draw(odd_values)
    return items


def _bend_map(draw: Draw, fields: dict[Any, Any]) -> Any:
    name = draw(st.sampled_from(list(fields)))
    match draw(st.sampled_from(["within"] * 8 + ["drop"] * 3 + ["more", "more", "twice", "rename", "order", "odd"])):
        case "within":
            return fields | {name: bend_value(draw, fields[name])}
        case "drop":
            return {other: value for other, value in fields.items() if other != name}
        case "more":
            return fields | {draw(st.sampled_from(["", "new", "root", "point", "a" * 300])): draw(odd_values)}
        case "twice":
            return Pairs((*fields.items(), (name, draw(odd_values))))
        case "rename":
            other = draw(
                st.sampled_from([name.encode() if isinstance(name, str) else b"", None, 7, "x", True, Raw(b"\x90")])
            )
            return Pairs(tuple((other if each == name else each, value) for each, value in fields.items()))
        case "order":
            return dict(reversed(fields.items()))
        case _:
            return draw(odd_values)


def bend_bytes(draw: Draw, data: bytes) -> bytes:
    """Return ``data`` as damage leaves it: bits flipped, ranges lost, repeated, moved or overwritten."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        stop = min(len(data), at + draw(st.sampled_from([0, 1, 2, 4, 32, 1_000])))
        match draw(st.sampled_from(["flip", "flip", "cut", "drop", "twice", "insert", "over", "move", "zeros"])):
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "drop":
                data = data[:at] + data[stop:]
            case "twice":
                data = data[:stop] + data[at:]
            case "insert":
                data = data[:at] + draw(st.binary(max_size=6) | st.sampled_from(RAW)) + data[at:]
            case "over":
                odd = draw(st.binary(max_size=6) | st.sampled_from(RAW))
                data = data[:at] + odd + data[at + len(odd) :]
            case "move":
                data = data[at:] + data[:at]
            case _:
                data = data[:at] + bytes(stop - at) + data[stop:]
    return data
