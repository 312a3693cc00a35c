"""The order over all values, and its encoding."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.errors import InvalidArgument
from projections.values import descending, encode, field_value

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.sampled_from(
        [2**53, 2**53 + 1, 2**63, 2**63 - 1, 2**64 - 1, float(2**53), float(2**63), -0.0, 0, "\x00", b"\x00"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def rank(value: Any) -> int:
    """The place of a value's type, told independently of the encoder."""
    ranks: list[tuple[type, ...]] = [(type(None),), (bool,), (int, float), (str,), (bytes,), (list,), (dict,)]
    for place, types in enumerate(ranks):
        if isinstance(value, types):
            return place
    raise AssertionError(value)


def compare(left: Any, right: Any) -> int:
    """The order of DESIGN §7, written with Python's own exact comparisons."""
    if rank(left) != rank(right):
        return -1 if rank(left) < rank(right) else 1
    if isinstance(left, list):
        for one, other in zip(left, right, strict=False):
            if order := compare(one, other):
                return order
        return compare(len(left), len(right))
    if isinstance(left, dict):
        flat = ([part for item in sorted(value.items()) for part in item] for value in (left, right))
        return compare(*flat)
    if left is None or left == right:
        return 0
    return -1 if left < right else 1


@given(VALUES, VALUES)
def test_encodings_compare_like_values(left: Any, right: Any) -> None:
    """Bytes are in the same order as the values they encode, and equal exactly for equal values."""
    order = (encode(left) > encode(right)) - (encode(left) < encode(right))
    assert order == compare(left, right)


@given(VALUES, VALUES)
def test_descending_turns_the_order_round(left: Any, right: Any) -> None:
    """The complement of an encoding sorts the other way."""
    one, other = descending(encode(left)), descending(encode(right))
    assert (one > other) - (one < other) == compare(right, left)


@given(VALUES, VALUES)
def test_no_encoding_begins_with_all_of_another(left: Any, right: Any) -> None:
    """Encodings can be joined: none is a proper prefix of another."""
    one, other = encode(left), encode(right)
    assert one == other or not one.startswith(other)


def test_integers_are_exact_to_64_bits() -> None:
    """Neighbours around every power of two differ, and compare with floats as numbers do."""
    powers = [2**power for power in range(64)]
    near = sorted({sign * (power + step) for power in powers for step in (-1, 0, 1) for sign in (-1, 1)})
    near = [number for number in near if -(2**63) <= number < 2**64]
    for one, other in itertools.pairwise(near):
        assert encode(one) < encode(other)
    assert encode(2**53) == encode(float(2**53)) < encode(2**53 + 1) < encode(float(2**53 + 2))
    assert encode(-math.inf) < encode(-(2**63)) < encode(2**64 - 1) < encode(math.inf)


@pytest.mark.parametrize("value", [math.nan, 2**64, -(2**63) - 1, object(), {1, 2}])
def test_values_without_a_place_are_refused(value: Any) -> None:
    """NaN, integers beyond 64 bits and foreign types are InvalidArgument."""
    with pytest.raises(InvalidArgument):
        encode(value)


def test_a_missing_part_of_a_path_is_null() -> None:
    """A field that is not there, or below something that is no map, reads as None."""
    document = {"a": {"b": 1}, "c": 2}
    paths = [("a", "b"), ("a", "x"), ("c", "d"), ("x",)]
    assert [field_value(document, path) for path in paths] == [1, None, None, None]
    assert field_value(None, ("a",)) is None
