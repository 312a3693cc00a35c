"""Stamps: strictly increasing, after whatever was read, near the store's time, whatever the wall clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.clock import COUNTER_BITS, MEASUREMENT_ERROR_MS, SKEW_MS_MAX, StampClock, SystemClock, stamp_ms
from logstore.errors import ClockSkew
from logstore.testing import ManualClock

NOW_MS = 1_700_000_000_000
steps = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 100_000)),
        st.tuples(st.just("step"), st.integers(-10_000_000, 10_000_000)),
        st.tuples(st.just("merge"), st.integers(0, (NOW_MS + 10_000_000) << COUNTER_BITS)),
        st.tuples(st.just("next"), st.just(1)),
        st.tuples(st.just("compare"), st.integers(-20_000, 20_000)),
    ),
    max_size=30,
)


@given(steps)
def test_stamps_strictly_increase_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Every stamp exceeds all handed out and all merged before, through steps, comparisons and full counters."""
    manual = ManualClock(wall_ms=NOW_MS)
    clock = StampClock(manual)
    last = 0
    for what, value in steps:
        match what:
            case "advance":
                manual.advance(value)
            case "step":
                manual.step(value)
            case "compare":
                clock.compare(manual.wall_ms() + value, took_ms=abs(value) // 3)
            case "merge":
                clock.merge(value)
                last = max(last, value)
            case _:
                stamp = clock.next()
                assert stamp > last
                last = stamp
        assert clock.last == last


@given(steps)
def test_stamps_stand_at_the_physical_time_unless_ahead(steps: list[tuple[str, int]]) -> None:
    """A stamp is the physical time, or one more than the last where that is ahead; never further."""
    manual = ManualClock(wall_ms=NOW_MS)
    clock = StampClock(manual)
    for what, value in steps:
        if what == "advance":
            manual.advance(value)
        elif what == "next":
            before = clock.last
            assert clock.next() == max(before + 1, manual.wall_ms() << COUNTER_BITS)


@given(st.lists(st.integers(-(10**12), 10**12), max_size=5))
def test_a_stepping_wall_clock_moves_no_stamp(wall_steps: list[int]) -> None:
    """Between two comparisons the date is carried on by the elapsed clock alone."""
    manual = ManualClock(wall_ms=NOW_MS)
    clock = StampClock(manual)
    for step in wall_steps:
        manual.step(step)
        manual.advance(10)
    assert clock.physical_ms() == NOW_MS + 10 * len(wall_steps)


def test_a_full_counter_borrows_the_next_millisecond() -> None:
    """65,536 stamps in one millisecond run on into the next, as one integer."""
    clock = StampClock(ManualClock(wall_ms=1_000))
    stamps = [clock.next() for _ in range(1 << COUNTER_BITS)]
    assert {stamp_ms(stamp) for stamp in stamps} == {1_000}
    assert clock.next() == 1_001 << COUNTER_BITS


@pytest.mark.parametrize(
    ("store_ahead_ms", "took_ms", "skew_ms"),
    [
        (0, 0, 0),
        (300, 0, 300),
        (-300, 0, -300),
        (3_000, 0, 3_000),
        (-3_000, 0, -3_000),
        (3_000, 1_000, 3_000),  # the store is at least 3 s ahead, at most 4
        (-3_000, 1_000, -2_000),  # at least 2 s behind, at most 3
        (-8_000, 10_000, 0),  # a late answer: the clocks may well agree
        (-8_000, 2_000, -6_000),
        (8_000, 600_000, 8_000),
    ],
)
def test_of_the_possible_differences_the_smallest_counts(store_ahead_ms: int, took_ms: int, skew_ms: int) -> None:
    """The store read its clock somewhere between question and answer, so a paused process does not blame its clock."""
    clock = StampClock(ManualClock(wall_ms=NOW_MS))
    clock.compare(NOW_MS + store_ahead_ms, took_ms)
    assert clock.skew_ms == skew_ms


@pytest.mark.parametrize("sign", [1, -1])
def test_beyond_the_bound_nothing_is_posted(sign: int) -> None:
    """Five seconds are borne, a millisecond more is ClockSkew, and a later good comparison ends it."""
    clock = StampClock(ManualClock(wall_ms=NOW_MS))
    clock.compare(NOW_MS + sign * SKEW_MS_MAX, 0)
    clock.require_sane()
    clock.compare(NOW_MS + sign * (SKEW_MS_MAX + 1), 0)
    with pytest.raises(ClockSkew, match=f"skew_ms={sign * (SKEW_MS_MAX + 1)} bound_ms={SKEW_MS_MAX}; repair"):
        clock.require_sane()
    clock.compare(NOW_MS, 0)
    clock.require_sane()


@pytest.mark.parametrize("sign", [1, -1])
def test_within_the_error_of_measurement_nothing_is_corrected(sign: int) -> None:
    """Two seconds are noise; from there to the bound the store's time is taken over; beyond it nothing is."""
    clock = StampClock(ManualClock(wall_ms=NOW_MS))
    for ahead, corrected in (
        (MEASUREMENT_ERROR_MS, 0),
        (MEASUREMENT_ERROR_MS + 1, MEASUREMENT_ERROR_MS + 1),
        (SKEW_MS_MAX, SKEW_MS_MAX),
        (SKEW_MS_MAX + 1, SKEW_MS_MAX),  # the judgement of before stays
        (0, 0),
    ):
        clock.compare(NOW_MS + sign * ahead, 0)
        assert clock.physical_ms() == NOW_MS + sign * corrected


def test_a_wall_clock_set_right_is_taken_over_at_the_next_comparison() -> None:
    """The wall clock is judged anew each time: while it is wrong it pushes nothing, once right it counts."""
    manual = ManualClock(wall_ms=NOW_MS)
    clock = StampClock(manual)
    manual.step(60_000)
    clock.compare(NOW_MS, 0)
    with pytest.raises(ClockSkew):
        clock.require_sane()
    assert stamp_ms(clock.next()) == NOW_MS
    manual.step(-59_000)
    clock.compare(NOW_MS, 0)
    clock.require_sane()
    assert stamp_ms(clock.next()) == NOW_MS + 1_000


def test_a_clock_introduces_itself() -> None:
    """The repr shows the last stamp and what was found wrong with the wall clock."""
    clock = StampClock(ManualClock(wall_ms=NOW_MS))
    clock.merge(7)
    clock.compare(NOW_MS + 3_000, 0)
    assert repr(clock) == "<StampClock last=7 offset_ms=3000 skew_ms=3000>"


def test_the_elapsed_clock_of_the_system_goes_on() -> None:
    """It never steps back."""
    clock = SystemClock()
    readings = [clock.elapsed_ms() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.wall_ms() > NOW_MS
