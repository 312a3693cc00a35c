"""Tombstones: what a fold is still told of a row that it deleted, until the watermark has passed a stamp; for State."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import Event, StoredEvent
from logstore.catchup import Run
from logstore.clock import STAMP_MAX
from logstore.digest import rows_digest
from logstore.errors import Corrupt, InvalidArgument
from logstore.event import EventEncoder
from logstore.keys import SegmentKey
from logstore.segment import SegmentEncoder
from projections.bounded import MemoryBudget
from projections.projection import Projection, Rejected
from projections.state import State
from projections.tombstone import Tombstone, decode_state, encode_state, is_tombstone, tombstone_until

FIRST, LAST = 1, 40  # stamps in the histories below; what lasts longer lies beyond the last
ENCODER, SEGMENTS = EventEncoder(), SegmentEncoder()


class Graves(Projection):
    """An event says what to make of the state, and each leaves a trace in what comes after it, if it is seen."""

    name, kinds, on_failure, tombstones = "graves", frozenset({"A"}), "park", True

    def apply(self, state: Any, event: StoredEvent) -> Any:
        data = event.data
        assert data is not None
        seen = [*(state["seen"] if state is not None else ()), event.stamp]
        match data["do"]:
            case "live":
                return {"seen": seen}
            case "bury":
                return Tombstone({"seen": seen}, until=event.stamp + data["for"])
            case "delete":
                return None
            case "keep":
                return state
            case "reject":
                raise Rejected(f"after {seen}")
            case _:
                raise ValueError(data["do"])


@dataclass(frozen=True)
class Arrival:
    """A run, and whether the watermark rises as far as it may right after it."""

    run: Run
    rises: bool


def run_of(events: list[Event], stamp: int, *, session: int = 1, slot: int = 0, settled: bool = False) -> Run:
    _, segment = SEGMENTS.encode(
        SegmentKey("w", 0, session, slot),
        [ENCODER.encode(event) for event in events],
        first_sequence=slot * 10,
        stamp=stamp,
        acknowledged=0,
        previous=b"",
    )
    return Run(segment, 0, settled=settled)


def grave(key: str, do: str, lasts: int = 0) -> Event:
    return Event("A", key, "changed", {"do": do, "for": lasts})


_EVENTS = st.builds(
    grave,
    st.sampled_from("xy"),
    st.sampled_from(["live", "bury", "bury", "delete", "keep", "reject", "fail"]),
    st.sampled_from([0, 1, 3, 10, 1_000]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival]:
    """Runs of up to three sessions, each in its order, mixed at will."""
    sessions: list[list[Run]] = []
    for session in range(1, draw(st.integers(1, 3)) + 1):
        stamp, runs = 0, []
        for slot in range(draw(st.integers(0, 4))):
            stamp += draw(st.integers(1, 9))
            runs.append(run_of(draw(st.lists(_EVENTS, min_size=1, max_size=3)), stamp, session=session, slot=slot))
        sessions.append(runs)
    arrivals = []
    while any(sessions):
        arrivals.append(Arrival(draw(st.sampled_from([runs for runs in sessions if runs])).pop(0), draw(st.booleans())))
    return arrivals


def events_of(arrivals: list[Arrival]) -> list[StoredEvent]:
    return sorted((event for a in arrivals for event in a.run.events(a.run.indices)), key=lambda event: event.order)


def told(fold: Graves, events: list[StoredEvent], watermark: int) -> tuple[dict[str, bytes], dict[Any, str]]:
    """The rows and verdicts of a fold that is told nothing of what is over, and forgets what the watermark has reached.

    The simplest telling: one event after the other, decoded; a tombstone is nothing to an event stamped above it.
    """
    rows: dict[str, Any] = {}
    verdicts: dict[Any, str] = {}
    for event in events:
        state = rows.get(event.key)
        seen = None if isinstance(state, Tombstone) and state.until < event.stamp else state
        try:
            after = fold.apply(seen, event)
        except (Rejected, ValueError) as error:
            verdicts[event.order] = str(error)
            continue
        rows[event.key] = state if after is seen and seen is not None else after
    kept = {
        key: encode_state(state, key, ENCODER)
        for key, state in rows.items()
        if state is not None and not (isinstance(state, Tombstone) and state.until <= watermark)
    }
    return kept, verdicts


def rise_after(state: State, arrivals: list[Arrival], count: int) -> None:
    """The watermark rises as far as it may when so many have arrived."""
    unseen = [arrival.run.segment.stamp for arrival in arrivals[count:]]
    state.rise(max(state.watermark, min(unseen, default=LAST) - 1))


@given(arrivals=histories())
def test_rows_and_digest_are_those_of_a_naive_fold_at_every_moment(arrivals: list[Arrival]) -> None:
    """P8: whatever order runs arrive in, and however the watermark rises: rows, base, and digests."""
    state = State(Graves())
    for count, arrival in enumerate(arrivals, 1):
        state.take(arrival.run)
        state._check()
        if arrival.rises:
            rise_after(state, arrivals, count)
            state._check()
        seen = events_of(arrivals[:count])
        rows, _ = told(Graves(), seen, state.watermark)
        base, _ = told(Graves(), [event for event in seen if event.stamp <= state.watermark], state.watermark)
        assert dict(state.rows.items()) == rows
        assert dict(state.base_rows().items()) == base
        assert rows_digest(state.base_rows().items()) == rows_digest(base.items())
        assert state.tombstones == {key for key, row in rows.items() if is_tombstone(row)}


@given(arrivals=histories(), steps=st.lists(st.integers(FIRST, LAST), max_size=5))
def test_rows_and_verdicts_do_not_depend_on_how_the_watermark_rose(arrivals: list[Arrival], steps: list[int]) -> None:
    """P8: all at once when all has come, in steps of any length, or settled run by settled run."""
    at_once, in_steps, settled = State(Graves()), State(Graves()), State(Graves())
    for arrival in arrivals:
        at_once.take(arrival.run)
        in_steps.take(arrival.run)
    for step in sorted(steps):
        in_steps.rise(step)
        in_steps._check()
    by_stamp = sorted(arrivals, key=lambda each: (each.run.segment.stamp, each.run.segment.key.session))
    last_of_stamp = {arrival.run.segment.stamp: arrival for arrival in by_stamp}
    for arrival in by_stamp:
        run, complete = arrival.run, last_of_stamp[arrival.run.segment.stamp] is arrival
        settled.take(Run(run.segment, run.start, settled=True, complete=complete))
        settled._check()
    for state in (at_once, in_steps, settled):
        state.rise(LAST)
        state._check()
    rows, verdicts = told(Graves(), events_of(arrivals), LAST)
    for state in (at_once, in_steps, settled):
        assert dict(state.rows.items()) == rows
        assert state.final_verdicts() == at_once.final_verdicts()
        for event in events_of(arrivals):
            verdict = state.verdict((event.chapter, event.session, event.seq))
            assert (verdict is not None) == (event.order in verdicts)
            if verdict is not None and verdict.kind == "rejected":
                assert verdict.reason == verdicts[event.order]


@given(arrivals=histories(), cut=st.integers(FIRST, LAST))
def test_a_snapshot_and_the_rest_is_the_whole(arrivals: list[Arrival], cut: int) -> None:
    """P10: rows loaded with their tombstones at any watermark, then what is stamped above it, equal the whole."""
    whole, before = State(Graves()), State(Graves())
    for arrival in arrivals:
        whole.take(arrival.run)
        if arrival.run.segment.stamp <= cut:
            before.take(arrival.run)
    before.rise(cut)
    after = State(Graves())
    after.load(dict(before.rows.items()), cut, before.final_verdicts())
    after._check()
    for arrival in arrivals:
        if arrival.run.segment.stamp > cut:
            after.take(arrival.run)
            after._check()
    whole.rise(cut)
    assert dict(after.base_rows().items()) == dict(whole.base_rows().items())
    assert dict(after.rows.items()) == dict(whole.rows.items())
    for state in (whole, after):
        state.rise(LAST)
        state._check()
    assert dict(after.rows.items()) == dict(whole.rows.items())


def visible(rows: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Those that are no tombstones."""
    return {key: row for key, row in rows.items() if row is not None and not is_tombstone(row)}


@given(arrivals=histories())
def test_what_changed_is_told_with_what_it_was(arrivals: list[Arrival]) -> None:
    """Putting back what ``take_changes`` tells gives what was visible, and ``take_since`` base with its tombstones."""
    state = State(Graves())
    state.track_changes()
    state.take_since()
    was: dict[str, bytes] = {}
    base_was: dict[str, bytes] = {}
    for count, arrival in enumerate(arrivals, 1):
        state.take(arrival.run)
        if arrival.rises:
            rise_after(state, arrivals, count)
        undone: dict[str, bytes | None] = {**dict(state.rows.items()), **state.take_changes()}
        assert visible(undone) == was
        was = visible(dict(state.rows.items()))
        since = state.take_since()
        assert since is not None
        base_undone: dict[str, bytes | None] = {**dict(state.base_rows().items()), **since.rows}
        assert {key: row for key, row in base_undone.items() if row is not None} == base_was
        base_was = dict(state.base_rows().items())


@given(arrivals=histories(), bytes_max=st.sampled_from([1, 200]))
def test_a_memory_budget_changes_nothing(arrivals: list[Arrival], bytes_max: int) -> None:
    """Rows, base, changes and tombstones, wherever rows lie."""
    plain, bounded = State(Graves()), State(Graves(), MemoryBudget(bytes_max).new_rows)
    for state in (plain, bounded):
        state.track_changes()
    for count, arrival in enumerate(arrivals, 1):
        for state in (plain, bounded):
            state.take(arrival.run)
            state.shrink()
            if arrival.rises:
                rise_after(state, arrivals, count)
            state._check()
        assert dict(bounded.rows.items()) == plain.rows
        assert dict(bounded.base_rows().items()) == plain.base_rows()
        assert bounded.take_changes() == plain.take_changes()
        assert bounded.tombstones == plain.tombstones


def test_a_tombstone_goes_exactly_when_the_watermark_reaches_its_stamp() -> None:
    """Not one earlier; without an event; settled rows and visible ones alike."""
    state = State(Graves())
    state.take(run_of([grave("x", "live")], 1))
    state.take(run_of([grave("x", "bury", lasts=8)], 2, slot=1))
    for watermark in range(1, 10):
        state.rise(watermark)
        assert ("x" in state.rows) == ("x" in state.tombstones) == (watermark < 10)
    state.rise(10)
    assert dict(state.rows.items()) == {}
    assert state.tombstones == set()


def test_an_event_stamped_above_a_tombstone_is_not_told_of_it() -> None:
    """Also where the watermark is below it still; one at its very stamp is told."""
    for stamp, seen in ((12, [2, 12]), (13, [13])):
        state = State(Graves())
        state.take(run_of([grave("x", "bury", lasts=10)], 2))
        state.take(run_of([grave("x", "live")], stamp, slot=1))
        assert msgpack.unpackb(state.rows["x"]) == {"seen": seen}


def test_a_tombstone_that_is_over_before_it_is_settled_leaves_nothing() -> None:
    """``until`` below the event's own stamp, or below the watermark by then."""

    class Past(Projection):
        name, kinds, tombstones = "past", frozenset({"A"}), True

        def apply(self, state: Any, event: StoredEvent) -> Any:
            return Tombstone({}, until=event.stamp - 1)

    for settled in (True, False):
        state = State(Past())
        state.take(run_of([grave("x", "any")], 5, settled=settled))
        state.rise(5)
        state._check()
        assert len(state.rows) == 0


def test_a_projection_says_that_it_makes_tombstones() -> None:
    """One that does not is told so: nobody would bury them."""

    class Silent(Graves):
        tombstones = False

    state = State(Silent())
    state.take(run_of([grave("x", "bury", lasts=1)], 1))
    verdict = state.verdict((0, 1, 0))
    assert verdict is not None
    assert "does not say tombstones = True" in verdict.reason
    assert len(state.rows) == 0


@given(
    data=st.dictionaries(st.text(max_size=3), st.integers() | st.none(), max_size=2), until=st.integers(0, STAMP_MAX)
)
def test_a_tombstone_is_read_back_as_it_was_and_taken_for_no_row(data: Any, until: int) -> None:
    """Its bytes begin as no row's do (FORMAT §9)."""
    if any(value is not None and not -(2**63) <= value < 2**64 for value in data.values()):
        return
    row = encode_state(Tombstone(data, until), "k", ENCODER)
    back = decode_state(row, "k")
    assert isinstance(back, Tombstone)
    assert (dict(back), back.until) == (data, until)
    assert row == b"\x92\xcf" + until.to_bytes(8, "big") + msgpack.packb(data)
    assert is_tombstone(row)
    assert tombstone_until(row) == until
    assert not is_tombstone(encode_state(data, "k", ENCODER))


@pytest.mark.parametrize("rest", [b"", b"\xc0", b"\x90", b"\x01", b"\x81", b"\x80\x80", b"\xc1"])
def test_a_tombstone_of_other_bytes_is_damage(rest: bytes) -> None:
    """Corrupt names the key."""
    with pytest.raises(Corrupt, match="key=k"):
        decode_state(b"\x92\xcf" + (7).to_bytes(8, "big") + rest, "k")


def test_what_cannot_be_stored_is_no_tombstone() -> None:
    """As for rows."""
    with pytest.raises(InvalidArgument):
        encode_state(Tombstone({"x": {1}}, 5), "k", ENCODER)
