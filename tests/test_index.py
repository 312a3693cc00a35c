"""Sorted indexes: against sorted lists of documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cmp_to_key
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import projections.index
from logstore.errors import InvalidArgument
from projections.index import Field, Index, Selection, SortedIndex, build, key_of
from projections.spans import Spans, above, union_of_points
from projections.values import encode
from tests.test_values import VALUES, compare

PLAIN: list[Any] = [None, False, True, 0, 1, 1.0, -1, 0.5, 2**53, 2**53 + 1, 2**64 - 1, -(2**63), float(2**63)]
PLAIN += ["", "a", "b", "é", "\x00", "a\x00b", "\U0001f600", b"", b"\x00", b"a", [], [1], ["a", None], {}, {"x": 1}]
FIELDS = ("a", "b", "n.x")
VALUE = st.sampled_from(PLAIN) | st.integers(0, 3) | VALUES
DOCUMENT = st.fixed_dictionaries(
    {}, optional={"a": VALUE, "b": VALUE, "n": st.fixed_dictionaries({}, optional={"x": VALUE}) | VALUE}
)
KEY = st.text(min_size=1, max_size=4) | st.sampled_from(["k", "ka", "k\x00", "ÿ", "\U0001f600", "\x00"])
DOCUMENTS = st.dictionaries(KEY, DOCUMENT, max_size=20)
INDEX = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(FIELDS)),
    min_size=1,
    max_size=3,
    unique_by=lambda field: field[1],
).map(lambda fields: Index(*(sign + name for sign, name in fields)))


@contextmanager
def small_parts() -> Iterator[None]:
    """Let a few rows be many: runs become sorted lists, and going backwards takes several blocks."""
    with patch.multiple(projections.index, _SHORT_MAX=3, _BLOCK=2, _CHUNK=4, _REMEMBERED_MAX=2):
        yield


def read(document: dict[str, Any], path: str) -> Any:
    """A dotted field, None when missing: told independently of the index."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def in_order(documents: dict[str, dict[str, Any]], fields: list[str]) -> list[str]:
    """The keys, sorted by fields and then key, by plain comparisons."""

    def order(one: str, other: str) -> int:
        for name in fields:
            path = name.removeprefix("-")
            if different := compare(read(documents[one], path), read(documents[other], path)):
                return -different if name.startswith("-") else different
        return (one > other) - (one < other)

    return sorted(documents, key=cmp_to_key(order))


def everything(index: SortedIndex) -> list[str]:
    """All keys, as the index has them."""
    return [key_of(entry) for stretch in index.stretches(Selection.of(index.index, {})) for entry in stretch.entries()]


@given(INDEX, DOCUMENTS)
def test_an_index_holds_rows_in_its_order(index: Index, documents: dict[str, dict[str, Any]]) -> None:
    """Rows come by the fields declared, in their directions, then by key; built at once or one by one."""
    expected = in_order(documents, [str(field) for field in index.fields])
    with small_parts():
        (built,) = build([index], documents.items())
        grown = SortedIndex(index)
        for key, document in documents.items():
            grown.add(key, document)
        for sorted_index in (built, grown):
            sorted_index._check()
            assert everything(sorted_index) == expected
            assert len(sorted_index) == len(documents)


@given(INDEX, DOCUMENTS, st.lists(st.tuples(KEY, st.none() | DOCUMENT), max_size=30))
def test_an_index_follows_its_rows(
    index: Index, documents: dict[str, dict[str, Any]], changes: list[tuple[str, dict[str, Any] | None]]
) -> None:
    """After any changes an index is what one built from the rows would be."""
    with small_parts():
        (sorted_index,) = build([index], documents.items())
        rows = dict(documents)
        for key, document in changes:
            sorted_index.change(key, rows.get(key), document)
            rows.pop(key, None)
            if document is not None:
                rows[key] = document
            sorted_index._check()
        assert everything(sorted_index) == in_order(rows, [str(field) for field in index.fields])


@given(DOCUMENTS)
def test_going_backwards_turns_the_last_field_but_not_the_key(documents: dict[str, dict[str, Any]]) -> None:
    """A stretch read backwards has values the other way round, and equal ones still by key; from any entry on."""
    with small_parts():
        (sorted_index,) = build([Index("a")], documents.items())
        expected = in_order(documents, ["-a"])
        for stretch in sorted_index.stretches(Selection.of(sorted_index.index, {})):
            entries = list(stretch.turned_entries())
            assert list(map(key_of, entries)) == expected
            for place, entry in enumerate(entries):
                assert list(stretch.turned_entries(entry)) == entries[place + 1 :]


@given(DOCUMENTS, st.integers(0, 3))
def test_forwards_from_any_entry(documents: dict[str, dict[str, Any]], value: int) -> None:
    """A stretch goes on behind any entry, and a stretch of one value behind any key."""
    (sorted_index,) = build([Index("-a")], documents.items())
    choices: list[dict[tuple[str, ...], Spans]] = [{}, {("a",): union_of_points([encode(value)])}]
    for sets in choices:
        for stretch in sorted_index.stretches(Selection.of(sorted_index.index, sets)):
            entries = list(stretch.entries())
            for place, entry in enumerate(entries):
                assert list(stretch.entries(entry)) == entries[place + 1 :]
            if stretch.point is not None:
                keys = list(stretch.keys())
                assert keys == [key_of(entry).encode() for entry in entries]
                for place, key in enumerate(keys):
                    assert list(stretch.keys(key)) == keys[place + 1 :]


@given(st.lists(VALUE, min_size=1, max_size=8), KEY)
@example([0, 1, 2**49 - 1], "k")
@example([0, 2**49, 2**60], "k")
def test_everyday_numbers_are_told_from_others(values: list[Any], key: str) -> None:
    """Where a stretch says that it holds everyday numbers, every key begins behind nine bytes."""
    for index in (Index("a"), Index("-a")):
        (sorted_index,) = build([index], [(f"{key}{place}", {"a": value}) for place, value in enumerate(values)])
        (stretch,) = sorted_index.stretches(Selection.of(index, {}))
        if stretch.holds_everyday_numbers():
            assert all(entry[9:].decode() == key_of(entry) for entry in stretch.entries())


def test_groups_are_looked_up_or_gone_through() -> None:
    """Listed values of leading fields cost a look-up each; a range over one, the groups within it."""
    rows = [(f"{a}-{b}-{c}", {"a": a, "b": b, "c": c}) for a in range(5) for b in range(5) for c in range(3)]
    (sorted_index,) = build([Index("a", "-b", "c")], rows)
    one, two = union_of_points([encode(1)]), union_of_points([encode(1), encode(3)])
    lookup = Selection.of(sorted_index.index, {("a",): one, ("b",): two})
    ranged = Selection.of(sorted_index.index, {("a",): one, ("b",): above(encode(2), inclusive=False)})
    walked = Selection.of(sorted_index.index, {("b",): one})
    assert [sorted_index.groups_at_most(selection) for selection in (lookup, ranged, walked)] == [2, 2, 25]
    assert [len(sorted_index.stretches(selection)) for selection in (lookup, ranged, walked)] == [2, 2, 5]


def test_several_indexes_are_built_from_one_reading() -> None:
    """``build`` takes rows from an iterator, once, for all indexes."""
    rows = iter([(f"k{number}", {"a": number % 3, "b": str(number % 5)}) for number in range(3_000)])
    one, other = build([Index("a", "b"), Index("-b")], rows)
    assert len(one) == len(other) == 3_000
    one._check()
    other._check()
    assert repr(one) == "<SortedIndex Index('a', 'b') rows=3000 groups=3>"


def test_a_run_grows_long_and_shrinks_to_nothing() -> None:
    """What a group holds moves into a sorted list when it is long; a group without rows is gone."""
    sorted_index = SortedIndex(Index("a", "b"))
    rows = [(f"k{number}", {"a": 1, "b": number * 7919 % 3_001}) for number in range(3_000)]
    for row in rows:
        sorted_index.add(*row)
    sorted_index._check()
    for row in rows:
        sorted_index.remove(*row)
    sorted_index._check()
    assert repr(sorted_index) == "<SortedIndex Index('a', 'b') rows=0 groups=0>"


@pytest.mark.parametrize("missing", [("k", {"a": 2}), ("other", {"a": 1}), ("k", {})])
def test_only_what_was_added_can_be_removed(missing: tuple[str, dict[str, Any]]) -> None:
    """Another key, or another document than the one added, is a ValueError and changes nothing."""
    rows = [("k", {"a": 1}), *((f"k{number}", {"a": 1}) for number in range(4))]
    with small_parts():
        for held in (rows[:1], rows):
            (sorted_index,) = build([Index("a")], held)
            with pytest.raises(ValueError, match="not in"):
                sorted_index.remove(*missing)
            sorted_index._check()
            assert len(sorted_index) == len(held)


@pytest.mark.parametrize(
    "fields", [(), ("",), ("-",), ("--a",), ("a..b",), (".a",), ("a", "-a"), (1,), (None,), (b"a",)]
)
def test_nonsense_is_no_index(fields: tuple[Any, ...]) -> None:
    """No field, an empty or a doubled one, and what is no text are InvalidArgument."""
    with pytest.raises(InvalidArgument):
        Index(*fields)


def test_indexes_are_values() -> None:
    """Equal declarations are equal, hash alike, and print as they are written."""
    index = Index("project_id", "-sync_state.status")
    assert index == Index("project_id", "-sync_state.status") != Index("project_id", "sync_state.status")
    assert hash(index) == hash(Index("project_id", "-sync_state.status"))
    assert repr(index) == "Index('project_id', '-sync_state.status')"
    assert index.fields[1] == Field(("sync_state", "status"), descending=True)
