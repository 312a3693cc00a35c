r"""Sets of values as spans of the one order over all values. Pure.

Every operator but ``contains`` asks for a set of values: one, several, all but some, all above one within its
type. In the order of ``values.encode`` such a set is a few disjoint *spans*. So several clauses on one field are an
intersection, ``!=`` is a complement, and an index finds a span by two bisections.

A *bound* is a place between values: ``(encoded, False)`` lies just before an encoding and all bytes that begin with
it, ``(encoded, True)`` just after them. A bound of one byte, ``(b"\x05", False)``, lies between two types.

Invariants:
- Spans are half-open, ascending and disjoint.
- Bounds compare as tuples, and ``bound_bytes`` compare with encodings, with entries and with each other, the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeAlias

from projections.values import descending, encode

__all__ = [
    "ALL",
    "Bound",
    "Span",
    "Spans",
    "above",
    "below",
    "bound_bytes",
    "complement",
    "encoded_end",
    "intersection",
    "only_points",
    "point",
    "turned",
    "union_of_points",
]

Bound: TypeAlias = tuple[bytes, bool]
Span: TypeAlias = tuple[Bound, Bound]
Spans: TypeAlias = tuple[Span, ...]

# The first byte of an encoding tells its type.
_EXAMPLES: Final[tuple[object, ...]] = (False, True, 0, "", b"", [], {})
_FALSE, _TRUE, _NUMBER, _TEXT, _BYTES, _LIST, _MAP = (encode(example)[0] for example in _EXAMPLES)
_TURNED: Final = 0x80  # upright, the first byte is below; turned round, it is not
_NUMBER_TURNED: Final = 0xFF - _NUMBER
_WIDE_FROM: Final = encode(1 << 53)[1:3]  # a number this large or larger has two bytes more than others,
_WIDE_TO: Final = descending(encode(1 << 53))[1:3]  # and so has one this far below zero, or below; turned or not

_FIRST: Final[Bound] = (encode(None), False)
_LAST: Final[Bound] = (bytes([_MAP + 1]), False)

ALL: Final[Spans] = ((_FIRST, _LAST),)


def point(encoded: bytes) -> Span:
    """Return the span that holds this value alone."""
    return (encoded, False), (encoded, True)


def union_of_points(encodings: Sequence[bytes]) -> Spans:
    """Return the set of these values."""
    return tuple(map(point, sorted(set(encodings))))


def below(encoded: bytes, *, inclusive: bool) -> Spans:
    """Return all values of the same type below this one, with itself when ``inclusive``."""
    low, high = _type_start(encoded), (encoded, inclusive)
    return ((low, high),) if low < high else ()  # nothing is below null


def above(encoded: bytes, *, inclusive: bool) -> Spans:
    """Return all values of the same type above this one, with itself when ``inclusive``."""
    return (((encoded, not inclusive), _type_stop(encoded)),)


def _type_start(encoded: bytes) -> Bound:
    tag = encoded[0]
    return bytes([_FALSE if tag == _TRUE else tag]), False


def _type_stop(encoded: bytes) -> Bound:
    tag = encoded[0]
    return bytes([tag + 2 if tag == _FALSE else tag + 1]), False


def complement(spans: Spans) -> Spans:
    """Return all values that are not in the set.

    >>> complement(complement(union_of_points([encode(1)]))) == union_of_points([encode(1)])
    True
    """
    bounds = [_FIRST, *chain.from_iterable(spans), _LAST]
    return tuple((low, high) for low, high in zip(bounds[::2], bounds[1::2], strict=True) if low < high)


def intersection(some: Spans, others: Spans) -> Spans:
    """Return the values that are in both sets. Cost: O(len(some) + len(others)).

    >>> intersection(above(encode(1), inclusive=True), below(encode(1), inclusive=True)) == (point(encode(1)),)
    True
    """
    both: list[Span] = []
    at = other_at = 0
    while at < len(some) and other_at < len(others):
        (low, high), (other_low, other_high) = some[at], others[other_at]
        if max(low, other_low) < min(high, other_high):
            both.append((max(low, other_low), min(high, other_high)))
        if high <= other_high:
            at += 1
        else:
            other_at += 1
    return tuple(both)


def only_points(spans: Spans) -> tuple[bytes, ...] | None:
    """Return the set's members when it lists them; None when it holds a range."""
    if all(low[0] == high[0] and not low[1] for low, high in spans):
        return tuple(low[0] for low, _ in spans)
    return None


def turned(spans: Spans) -> Spans:
    """Return the same set among ``descending`` encodings.

    What lies between a value of one byte and the next type is nothing; turned, its bounds are one.
    """
    return tuple((low, high) for low, high in map(_turned_span, reversed(spans)) if low < high)


def _turned_span(span: Span) -> Span:
    low, high = span
    return point(descending(low[0])) if low[0] == high[0] else (_turned_bound(high), _turned_bound(low))


def _turned_bound(bound: Bound) -> Bound:
    encoded, after = bound
    if len(encoded) == 1:  # between types; and just after a value that is one byte is just before the next type
        return bytes([256 - encoded[0] - after]), False
    return descending(encoded), not after


def bound_bytes(bound: Bound) -> bytes:
    """Return the bytes that sort where the bound lies, among encodings that something follows."""
    encoded, after = bound
    return encoded + b"\xff" if after else encoded  # no encoding, upright or turned, and no UTF-8 begins with 0xff


def encoded_end(data: bytes, start: int = 0) -> int:
    """Return where the encoding, upright or turned, ends that begins at ``start``; what follows may be anything.

    Cost: a fifth of a microsecond for a number, half of one for another scalar, O(bytes).

    >>> encoded_end(encode("name") + b"row-1") == encoded_end(descending(encode("name"))) == len(encode("name"))
    True
    """
    tag = data[start]
    if tag in (_NUMBER, _NUMBER_TURNED):
        return start + (9 if _WIDE_TO < data[start + 1 : start + 3] < _WIDE_FROM else 11)
    if tag >= _TURNED:
        return encoded_end(descending(data), start)
    if tag in (_TEXT, _BYTES):
        return data.index(b"\x00\x00", start + 1) + 2  # within, a zero is always followed by 0xff
    if tag in (_LIST, _MAP):
        at = start + 1
        while data[at]:
            at = encoded_end(data, at)
        return at + 1
    return start + 1
