"""A view's state: whatever order runs arrive in, rows are the fold of all events in total order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import Event, StoredEvent
from logstore.catchup import Run
from logstore.event import EventEncoder
from logstore.keys import SegmentKey
from logstore.segment import SegmentEncoder
from projections.bounded import MemoryBudget, Rows
from projections.patch import merge_patch
from projections.projection import FoldFailed, Projection, Rejected
from projections.state import State


class Puts(Projection):
    name, kinds, fold = "puts", frozenset({"A", "B"}), "put"


class Patches(Projection):
    name, kinds, fold = "patches", frozenset({"A"}), "patch"


class History(Projection):
    """Order-sensitive on purpose: the state lists what happened, in order, and a guard looks at it."""

    name, kinds, on_failure = "history", frozenset({"A", "B"}), "park"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        seen = [] if state is None else list(state["seen"])
        if event.data is None:
            return None
        number = event.data.get("n", 0)
        if seen and number == seen[-1]:
            raise Rejected("the same again")
        if number == 6:
            raise ValueError("six")
        return {"seen": [*seen, number]}


@dataclass(frozen=True)
class Arrival:
    """A run, and whether the watermark rises as far as it may right after it."""

    run: Run
    rises: bool


def naive_fold(projection: Projection, events: list[StoredEvent]) -> dict[str, Any]:
    """Fold decoded events one by one, in total order, into a dict."""
    rows: dict[str, Any] = {}
    for event in sorted(events, key=lambda event: event.order):
        if event.kind not in projection.kinds:
            continue
        before = rows.get(event.key)
        if projection.fold == "apply":
            try:
                after = projection.apply(before, event)
            except (Rejected, ValueError):
                continue
        elif event.data is None or projection.fold == "put":
            after = event.data
        else:
            after = merge_patch(before, event.data)
        if after is None:
            rows.pop(event.key, None)
        else:
            rows[event.key] = msgpack.unpackb(msgpack.packb(after, default=dict))
    return rows


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival]:
    """Runs of up to three sessions: each session in its order, the sessions mixed at will."""
    sessions: list[list[Run]] = []
    for session in range(draw(st.integers(1, 3))):
        runs, stamp, sequence = [], draw(st.integers(1, 20)), 0
        for slot in range(draw(st.integers(0, 4))):
            events = draw(
                st.lists(
                    st.builds(_event, st.sampled_from("AABC"), st.sampled_from("xyz"), _DATA), min_size=1, max_size=4
                )
            )
            encoder = EventEncoder()
            _, segment = SegmentEncoder().encode(
                SegmentKey("w", 0, session + 1, slot),
                [encoder.encode(event) for event in events],
                first_sequence=sequence,
                stamp=stamp,
                acknowledged=0,
                previous=b"",
            )
            runs.append(Run(segment, 0, settled=False))
            stamp, sequence = segment.stamp + draw(st.integers(1, 10)), sequence + len(events)
        sessions.append(runs)
    arrivals = []
    while any(sessions):
        runs = draw(st.sampled_from([runs for runs in sessions if runs]))
        arrivals.append(Arrival(runs.pop(0), draw(st.booleans())))
    return arrivals


_DATA = st.one_of(
    st.none(),
    st.fixed_dictionaries({"n": st.integers(0, 6)}),
    st.fixed_dictionaries({"m": st.none() | st.fixed_dictionaries({"k": st.none() | st.integers(0, 1)})}),
)


def _event(kind: str, key: str, data: Any) -> Event:
    return Event(kind, key, "changed", data)


def _stamps(arrivals: list[Arrival]) -> list[int]:
    return [arrival.run.segment.stamp for arrival in arrivals]


def _events(arrivals: list[Arrival]) -> list[StoredEvent]:
    return [event for a in arrivals for event in a.run.events(a.run.indices)]


@pytest.mark.parametrize("projection", [Puts(), Patches(), History()], ids=lambda p: p.name)
@given(arrivals=histories())
def test_rows_are_the_fold_in_total_order_at_every_moment(projection: Projection, arrivals: list[Arrival]) -> None:
    """After every arrival and every rise rows equal a naive fold; base equals that up to the watermark."""
    state = State(projection)
    for count, arrival in enumerate(arrivals, 1):
        state.take(arrival.run)
        state._check()
        if arrival.rises:
            unseen = _stamps(arrivals[count:])
            state.rise(max(state.watermark, min(unseen, default=1 << 60) - 1))
            state._check()
        seen = _events(arrivals[:count])
        rows = {key: msgpack.unpackb(row) for key, row in state.rows.items()}
        base = {key: msgpack.unpackb(row) for key, row in state.base_rows().items()}
        assert rows == naive_fold(projection, seen)
        assert base == naive_fold(projection, [event for event in seen if event.stamp <= state.watermark])


@given(arrivals=histories())
def test_verdicts_do_not_depend_on_the_order_of_arrival(arrivals: list[Arrival]) -> None:
    """Which events a guard rejects, or a failure parks, is decided by their places in the order alone."""
    late, in_order = State(History()), State(History())
    for arrival in arrivals:
        late.take(arrival.run)
    for run in sorted((a.run for a in arrivals), key=lambda run: run.event(0).order):
        in_order.take(run)
    for event in _events(arrivals):
        address = (event.chapter, event.session, event.seq)
        assert late.verdict(address) == in_order.verdict(address)


@given(arrivals=histories())
def test_changes_lead_from_what_was_to_what_is(arrivals: list[Arrival]) -> None:
    """Putting the old rows of ``take_changes`` back gives the rows as they were at the call before."""
    state = State(Puts())
    state.track_changes()
    was: dict[str, bytes] = {}
    for arrival in arrivals:
        state.take(arrival.run)
        undone: dict[str, bytes | None] = {**state.rows, **state.take_changes()}
        assert {key: row for key, row in undone.items() if row is not None} == was
        was = dict(state.rows)


@pytest.mark.parametrize("projection", [Puts(), Patches(), History()], ids=lambda p: p.name)
@given(arrivals=histories(), bytes_max=st.sampled_from([1, 400, 2_000]), cuts=st.data())
def test_a_memory_budget_changes_nothing(
    projection: Projection, arrivals: list[Arrival], bytes_max: int, cuts: st.DataObject
) -> None:
    """Rows, base, changes, what has changed since a cut, cuts and verdicts: at every moment as without one."""
    plain, bounded = State(projection), State(projection, MemoryBudget(bytes_max).new_rows)
    cut: list[tuple[Rows, Rows]] = []
    for state in (plain, bounded):
        state.track_changes()
    for count, arrival in enumerate(arrivals, 1):
        for state in (plain, bounded):
            state.take(arrival.run)
            state.shrink()
            if arrival.rises:
                state.rise(max(state.watermark, min(_stamps(arrivals[count:]), default=1 << 60) - 1))
            state._check()
        assert dict(bounded.rows.items()) == plain.rows
        assert dict(bounded.base_rows().items()) == plain.base_rows()
        assert bounded.base_of_pending == plain.base_of_pending
        assert bounded.take_changes() == plain.take_changes()
        assert repr(bounded) == repr(plain)
        if cuts.draw(st.booleans()):
            assert bounded.take_since() == plain.take_since()
            cut.append((bounded.base_rows().copy(), plain.base_rows().copy()))
    for rows, others in cut:
        assert dict(rows.items()) == others
    for event in _events(arrivals):
        address = (event.chapter, event.session, event.seq)
        assert bounded.verdict(address) == plain.verdict(address)


def test_what_changed_since_a_cut_is_within_the_budget() -> None:
    """P13: when what rows were takes more than its share, nothing is remembered, and the next cut begins anew."""
    encode, budget = EventEncoder().encode, MemoryBudget(400)
    state = State(Puts(), budget.new_rows, budget.since_bytes_max)
    for slot, count in enumerate((10, 4, 10), 1):
        events = [encode(Event("A", str(number), "changed", {"slot": "x" * 13})) for number in range(count)]
        _, segment = SegmentEncoder().encode(
            SegmentKey("w", 0, 1, slot), events, first_sequence=0, stamp=slot, acknowledged=0, previous=b""
        )
        state.take(Run(segment, 0, settled=True))
        assert (state.take_since() is None) == (slot != 2)


def test_a_failing_fold_halts_by_default_naming_the_event() -> None:
    """Without ``on_failure="park"`` an exception in apply is FoldFailed with the event's address."""

    class Halting(Projection):
        name, kinds = "halting", frozenset({"A"})

        def apply(self, state: Any, event: StoredEvent) -> Any:
            raise ValueError(event.key)

    encoder = EventEncoder()
    events = [encoder.encode(Event("A", "x", "changed", {"n": 6}))]
    _, segment = SegmentEncoder().encode(
        SegmentKey("w", 0, 1, 0), events, first_sequence=0, stamp=1, acknowledged=0, previous=b""
    )
    with pytest.raises(FoldFailed, match=r"session=1 seq=0"):
        State(Halting()).take(Run(segment, 0, settled=True))


@given(arrivals=histories(), again=st.data())
def test_a_run_taken_twice_is_refused_and_changes_nothing(arrivals: list[Arrival], again: st.DataObject) -> None:
    """Each event is taken in once: at once, later, or after it has become base, a second delivery is our mistake."""
    state = State(History())
    for count, arrival in enumerate(arrivals, 1):
        state.take(arrival.run)
        if arrival.rises:
            state.rise(max(state.watermark, min(_stamps(arrivals[count:]), default=1 << 60) - 1))
        rows, pending = dict(state.rows), state.pending_events
        with pytest.raises(AssertionError, match="taken twice"):
            state.take(again.draw(st.sampled_from(arrivals[:count])).run)
        assert (dict(state.rows), state.pending_events) == (rows, pending)


def test_an_append_settles_whole() -> None:
    """P2: at no watermark does the base hold a part of a segment."""
    encoder, state = EventEncoder(), State(History())
    for session, stamp in ((1, 10), (2, 11)):
        events = [encoder.encode(Event("A", "x", "changed", {"n": session * 10 + index})) for index in range(2)]
        _, segment = SegmentEncoder().encode(
            SegmentKey("w", 0, session, 0), events, first_sequence=0, stamp=stamp, acknowledged=0, previous=b""
        )
        state.take(Run(segment, 0, settled=False))
    state.rise(10)
    assert msgpack.unpackb(state.base_rows()["x"]) == {"seen": [10, 11]}
    assert msgpack.unpackb(state.rows["x"]) == {"seen": [10, 11, 20, 21]}


def test_settled_runs_of_one_stamp_become_base_together() -> None:
    """The watermark is never at a stamp of which something is still to come, and base is what is at or below it."""
    encoder, state = EventEncoder(), State(History())
    for session, stamp, complete, watermark in (
        (1, 9, True, 9),
        (1, 10, False, 9),
        (2, 10, True, 9),
        (3, 11, True, 11),
    ):
        events = [encoder.encode(Event("A", "x", "changed", {"n": session * 100 + stamp}))]
        _, segment = SegmentEncoder().encode(
            SegmentKey("w", 0, session, stamp), events, first_sequence=0, stamp=stamp, acknowledged=0, previous=b""
        )
        state.take(Run(segment, 0, settled=True, complete=complete))
        state._check()
        assert state.watermark == watermark
        seen = {9: [109], 11: [109, 110, 210, 311]}[watermark]
        assert msgpack.unpackb(state.base_rows()["x"]) == {"seen": seen}
    assert msgpack.unpackb(state.rows["x"]) == {"seen": [109, 110, 210, 311]}


def test_the_oldest_verdicts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """P13: memory of why events changed nothing is bounded; the newest are kept."""
    monkeypatch.setattr("projections.state.VERDICTS_REMEMBERED_MAX", 3)
    monkeypatch.setattr("projections.state.VERDICTS_MAX", 1)
    encoder, state = EventEncoder(), State(History())
    events = [encoder.encode(Event("A", "x", "changed", {"n": 1})) for _ in range(6)]
    _, segment = SegmentEncoder().encode(
        SegmentKey("w", 0, 1, 0), events, first_sequence=0, stamp=1, acknowledged=0, previous=b""
    )
    state.take(Run(segment, 0, settled=True))
    assert [state.verdict((0, 1, seq)) is not None for seq in range(6)] == [False] * 3 + [True] * 3


def test_what_changed_since_a_cut_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """P13: when most rows have changed nothing is remembered of them, until the next cut; then it begins anew."""
    monkeypatch.setattr("projections.state.SINCE_ROWS_MIN", 2)
    encode, state = EventEncoder().encode, State(Puts())
    assert state.take_since() is None

    def change(slot: int, *keys: str) -> None:
        events = [encode(Event("A", key, "changed", {"slot": slot})) for key in keys]
        _, segment = SegmentEncoder().encode(
            SegmentKey("w", 0, 1, slot), events, first_sequence=0, stamp=slot, acknowledged=0, previous=b""
        )
        state.take(Run(segment, 0, settled=True))

    change(1, "a")
    since = state.take_since()
    assert since is not None
    assert since.rows == {"a": None}
    change(2, *"abcdefgh")
    assert state.take_since() is None
    change(3, "b")
    since = state.take_since()
    assert since is not None
    assert since.stamp == 2
    assert list(since.rows) == ["b"]
