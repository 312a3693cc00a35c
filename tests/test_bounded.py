"""Rows within a memory budget: a dict, but for where the rows are."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from logstore.errors import InvalidArgument, Unavailable
from projections.bounded import BoundedRows, MemoryBudget, PlacedRows
from tests.test_cachefile import full_disk

KEY = st.text("abcé", max_size=2)
ROW = st.binary(max_size=300) | st.just(b"long" * 1_000)  # of long ones few fit, so that there are short ones to try
BUDGET = st.sampled_from([1, 700, 4_000, 16_000])


def row_of(number: int) -> bytes:
    """About 500 bytes, half of which do not compress."""
    return b"%8d" % number + b"x" * 250 + random.Random(number).randbytes(250)


class Comparison(RuleBasedStateMachine):
    """The same is done to bounded rows and to a dict; copies are compared with what the dict was."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[PlacedRows, dict[str, bytes]]] = []

    @initialize(bytes_max=BUDGET)
    def begin(self, bytes_max: int) -> None:
        self.rows = BoundedRows(bytes_max)
        self.plain: dict[str, bytes] = {}

    @rule(key=KEY, row=ROW)
    def put(self, key: str, row: bytes) -> None:
        self.rows[key] = self.plain[key] = row

    @rule(pairs=st.lists(st.tuples(KEY, ROW), max_size=20))
    def put_many(self, pairs: list[tuple[str, bytes]]) -> None:
        self.rows.update(pairs)
        self.plain.update(pairs)

    @rule(key=KEY)
    def delete(self, key: str) -> None:
        assert self.rows.pop(key, None) == self.plain.pop(key, None)

    @rule()
    def shrink(self) -> None:
        self.rows.shrink()
        assert self.rows._fresh_bytes <= self.rows._fresh_bytes_max
        assert 2 * self.rows._dead_bytes <= self.rows._blocks_bytes

    @rule(keys=st.lists(KEY, max_size=10))
    def look(self, keys: list[str]) -> None:
        assert [self.rows.get(key) for key in keys] == [self.plain.get(key) for key in keys]

    @rule()
    def copy(self) -> None:
        self.copies.append((self.rows.copy(), self.plain.copy()))

    @rule(key=KEY, row=ROW | st.none())
    def change_copy(self, key: str, row: bytes | None) -> None:
        for rows in self.copies[-1:]:
            for each in rows:
                each.pop(key, None)
                if row is not None:
                    each[key] = row

    @rule()
    def clear(self) -> None:
        self.rows.clear()
        self.plain.clear()

    @invariant()
    def equal(self) -> None:
        if not hasattr(self, "rows"):
            return
        self.rows._check()
        for rows, plain in [(self.rows, self.plain), *self.copies]:
            assert dict(rows.items()) == plain
            assert len(rows) == len(plain)
            assert sorted(rows) == sorted(rows.keys_as_stored()) == sorted(plain)
            assert all(key in rows and rows[key] == row for key, row in plain.items())
            assert "absent" not in rows
        for copied, was in self.copies:
            elsewhere = dict(self.rows.items_elsewhere(copied))
            assert all(self.plain[key] == row for key, row in elsewhere.items())
            assert all(was[key] == self.plain[key] for key in self.plain.keys() - elsewhere.keys())


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_rows_in_memory_stay_within_the_budget() -> None:
    """However many are put, or looked at, once and again."""
    rows = BoundedRows(100_000)
    for number in range(2_000):
        rows[str(number)] = row_of(number)
        rows.shrink()
        assert rows[str(number // 2)] == rows[str(number // 2)] == row_of(number // 2)
        assert rows._fresh_bytes + rows._tried.bytes + rows._kept.bytes <= 100_000
    assert rows.rows_in_file > 1_800
    rows._check()


def test_the_file_stays_within_twice_what_is_alive() -> None:
    """However often rows are replaced, in whatever order; and half a page for each block."""
    rows, plain, rng = BoundedRows(30_000), dict[str, bytes](), random.Random(0)
    for number in range(20_000):
        key = str(rng.randrange(500) if number % 3 else number % 500)
        rows[key] = plain[key] = row_of(number)
        if number % 10 == 0:
            rows.shrink()
    rows._check()
    assert dict(rows.items()) == plain
    alive_bytes = rows._blocks_bytes - rows._dead_bytes
    assert rows.file_bytes <= 2.5 * alive_bytes


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_row_that_was_looked_at_and_is_replaced_is_the_new_one(looks: int) -> None:
    """Or none, once it is deleted: what is remembered of looks goes with the row."""
    rows = BoundedRows(50_000)

    def fill(number: int) -> None:
        rows.update((f"{number} {each}", row_of(each)) for each in range(100))
        rows.shrink()
        assert rows._fresh.keys().isdisjoint({"a", "b"})

    rows["a"] = rows["b"] = b"old"
    fill(0)
    assert [rows["a"] for _ in range(looks)] == [rows["b"] for _ in range(looks)] == [b"old"] * looks
    rows["a"] = b"new"
    del rows["b"]
    fill(1)
    rows._check()
    assert rows["a"] == b"new"
    assert rows.get("b") is None
    rows["b"] = b"again"
    fill(2)
    assert rows["b"] == b"again"


def test_a_scan_does_not_push_out_what_is_looked_at_again_and_again() -> None:
    """Rows kept are still in memory after all others were looked at once."""
    rows = BoundedRows(200_000)
    rows.update((str(number), row_of(number)) for number in range(3_000))
    rows.shrink()
    for _ in range(2):
        for number in range(10):
            assert rows[str(number)] == row_of(number)
    kept = {str(number): rows[str(number)] for number in range(10)}
    for number in range(10, 3_000):
        assert rows[str(number)] == row_of(number)
    assert all(rows[key] is row for key, row in kept.items())


def test_who_looked_at_rows_is_told_that_they_are_forgotten() -> None:
    """Pages that refer to decoded rows are not remembered for longer than the rows."""
    told: list[None] = []
    rows = BoundedRows(20_000, None, lambda: told.append(None))
    rows.update((str(number), row_of(number)) for number in range(100))
    rows.shrink()
    assert told == []
    assert all(rows[str(number)] for number in range(10))
    assert len(told) > 1


def test_where_the_disk_is_full_no_row_is_lost(tmp_path: Path) -> None:
    """They are all still there, more than the budget in memory; with room again they are written."""
    rows = BoundedRows(10_000, tmp_path)
    plain = {str(number): os.urandom(200) for number in range(200)}
    rows.update(plain)
    with full_disk(18_000), pytest.raises(Unavailable, match="make room"):
        rows.shrink()
    rows._check()
    assert dict(rows) == plain
    assert 0 < rows.rows_in_file < 150
    rows.shrink()
    rows._check()
    assert dict(rows) == plain
    assert rows.rows_in_file > 150


@given(ROW, st.integers(1, 50))
def test_a_copy_outlives_what_it_was_copied_from(row: bytes, count: int) -> None:
    """Blocks that only a copy refers to are neither freed nor written over."""
    rows = BoundedRows(1)
    rows.update((str(number), row) for number in range(count))
    rows.shrink()
    copied = rows.copy()
    for again in range(3):
        rows.update((str(number), b"%d" % again) for number in range(count))
        rows.shrink()
    assert dict(copied.items()) == {str(number): row for number in range(count)}


@pytest.mark.parametrize("bytes_max", [0, -1, True, 1.5, "1"])
def test_a_budget_is_a_number(bytes_max: Any) -> None:
    """Of bytes, at least one."""
    with pytest.raises(InvalidArgument, match="memory_bytes_max="):
        MemoryBudget(bytes_max)


def test_a_directory_without_a_budget_is_refused(tmp_path: Path) -> None:
    """Nothing would be kept there."""
    with pytest.raises(InvalidArgument, match="memory_bytes_max"):
        MemoryBudget(None, tmp_path)
