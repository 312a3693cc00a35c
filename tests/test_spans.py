"""Sets of values, against plain comparisons of their members."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from projections.spans import (
    ALL,
    Spans,
    above,
    below,
    bound_bytes,
    complement,
    encoded_end,
    intersection,
    only_points,
    turned,
    union_of_points,
)
from projections.values import descending, encode
from tests.test_values import VALUES, compare, rank

SETS = st.recursive(
    st.lists(VALUES, max_size=3).map(lambda values: union_of_points([encode(value) for value in values]))
    | st.builds(below, VALUES.map(encode), inclusive=st.booleans())
    | st.builds(above, VALUES.map(encode), inclusive=st.booleans()),
    lambda inner: inner.map(complement) | st.builds(intersection, inner, inner),
    max_leaves=4,
)


def holds(spans: Spans, value: Any) -> bool:
    """Whether a value is in a set, by its bytes."""
    return any(bound_bytes(low) <= encode(value) < bound_bytes(high) for low, high in spans)


@given(SETS)
def test_spans_are_ascending_and_disjoint(spans: Spans) -> None:
    """What the operations return are spans in order, none empty, none over another."""
    bounds = list(chain.from_iterable(spans))
    assert all(low <= high for low, high in pairwise(bounds))
    assert all(low < high for low, high in spans)


@given(VALUES, VALUES, st.booleans())
def test_ranges_stay_within_one_type(limit: Any, value: Any, inclusive: bool) -> None:
    """``below`` and ``above`` hold what compares so, and is of the same type."""
    order = compare(value, limit)
    alike = rank(value) == rank(limit)
    assert holds(below(encode(limit), inclusive=inclusive), value) == (
        alike and (order < 0 or (inclusive and not order))
    )
    assert holds(above(encode(limit), inclusive=inclusive), value) == (
        alike and (order > 0 or (inclusive and not order))
    )


@given(SETS, SETS, VALUES)
def test_sets_combine_like_sets(some: Spans, others: Spans, value: Any) -> None:
    """A value is in the complement when not in the set, and in an intersection when in both."""
    assert holds(complement(some), value) != holds(some, value)
    assert holds(intersection(some, others), value) == (holds(some, value) and holds(others, value))
    assert holds(ALL, value)


@given(st.lists(VALUES, max_size=4))
def test_a_set_that_lists_its_members_says_so(values: list[Any]) -> None:
    """Points are found again, in order, upright and turned; a range has none."""
    encodings = sorted({encode(value) for value in values})
    assert only_points(union_of_points(encodings)) == tuple(encodings)
    assert only_points(turned(union_of_points(encodings))) == tuple(map(descending, reversed(encodings)))
    assert only_points(ALL) is None


@given(SETS, VALUES, st.text(min_size=1))
def test_bounds_hold_among_entries(spans: Spans, value: Any, key: str) -> None:
    """An entry, an encoding that some key follows, lies in the set's spans when its value does; turned round, too."""
    for ends, encoded in ((spans, encode(value)), (turned(spans), descending(encode(value)))):
        entry = encoded + key.encode()
        assert any(bound_bytes(low) <= entry < bound_bytes(high) for low, high in ends) == holds(spans, value)


@given(VALUES, st.binary(), st.binary(max_size=3))
def test_an_encoding_ends_by_itself(value: Any, rest: bytes, before: bytes) -> None:
    """Its end is found whatever stands before and behind, whichever way it is turned."""
    for encoded in (encode(value), descending(encode(value))):
        assert encoded_end(before + encoded + rest, len(before)) == len(before) + len(encoded)
