"""The checker that users run on their folds: it lets good ones pass, and shows what is wrong with others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import strategies as st

from logstore import Event, StoredEvent
from logstore.errors import InvalidArgument
from projections.projection import Projection
from projections.testing import FoldIncorrect, check_fold, is_order_sensitive
from tests import folds

KEYS = ("x", "y")
COUNTERS = st.builds(
    lambda key, add: Event("Counter", key, "added", {"add": add}), st.sampled_from(KEYS), st.integers(-2, 2)
)
TAGS = st.builds(
    lambda tags: Event("Tags", "x", "tagged", {"tags": tags}), st.lists(st.text("abcdefgh", min_size=1), max_size=4)
)
EVENTS = COUNTERS | TAGS


@pytest.mark.parametrize("projection", folds.GOOD, ids=lambda p: p.name)
def test_a_good_fold_passes(projection: Projection) -> None:
    """Puts, patches, sums, guards and journals depend on the log alone, in this process and others."""
    check_fold(projection, EVENTS, max_examples=30)


BAD: list[tuple[type[Projection], int, str]] = [
    (folds.ReadsTheClock, 1, r"calls time\.time"),
    (folds.ReadsTheDate, 1, r"calls datetime\.now"),
    (folds.Draws, 1, "calls random"),
    (folds.DrawsOfItsOwn, 1, r"calls os\.urandom"),
    (folds.WritesToItsState, 2, "wrote to its arguments"),
    (folds.WritesToItsEvent, 1, "wrote to its arguments"),
    (folds.SharesItsDefault, 1, "again, by the same instance"),
    (folds.CountsGlobally, 1, "again, by the same instance"),
    (folds.ReturnsNan, 1, "returned what cannot be stored"),
    (folds.ReturnsASet, 1, "returned what cannot be stored"),
    (folds.ReturnsNoMapping, 1, "returned what cannot be stored"),
    (folds.Fails, 1, "failed on Counter x added {'add': -1}"),
    (folds.RemembersTheLast, 1, "again, by the same instance"),
    (folds.RemembersTotals, 1, "again, by the same instance"),
    (folds.LooksAtSettled, 1, r"depend on event\.settled"),
]


@pytest.mark.parametrize(("bad", "events", "message"), BAD, ids=[bad.__name__ for bad, _, _ in BAD])
def test_a_bad_fold_is_shown_with_the_smallest_history(bad: type[Projection], events: int, message: str) -> None:
    """Each thing that a fold may not do is found, and told with as few events as it takes."""
    with pytest.raises(FoldIncorrect, match=message) as caught:
        check_fold(bad(), COUNTERS, hash_seeds=False)
    assert len(caught.value.history.events) == events, caught.value


@pytest.mark.parametrize(("bad", "events"), [(folds.ListsASet, 1), (folds.Hashes, 1)])
def test_what_depends_on_hashing_is_found_in_other_processes(bad: type[Projection], events: int) -> None:
    """The order of a set of texts, or their hash, is the same all through a process, and another in the next."""
    with pytest.raises(FoldIncorrect, match="depend on how text is hashed") as caught:
        check_fold(bad(), EVENTS)
    assert len(caught.value.history.events) == events, caught.value
    assert "PYTHONHASHSEED=" in str(caught.value)


class Late(Projection):
    """Notices when it is asked about an event again, as it is when another arrives late."""

    name, kinds = "late", frozenset({"Counter"})

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int, int], int] = {}

    def apply(self, state: Any, event: StoredEvent) -> Any:
        at = (event.key, event.session, event.seq)
        self.seen[at] = self.seen.get(at, 0) + 1
        return {"refolded": self.seen[at] > 1}


def test_what_depends_on_the_order_of_arrival_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that notices being asked again is wrong as soon as an event arrives late: two sessions, two events."""
    monkeypatch.setattr("projections.testing._fold", once_each(folds_of=Late))
    with pytest.raises(FoldIncorrect, match="order of arrival") as caught:
        check_fold(Late(), COUNTERS, hash_seeds=False)
    history = caught.value.history
    assert [len(append.events) for append in history.appends] == [1, 1]
    assert [place for place, _ in history.arrivals] == [1, 0]
    assert "arrives: 2, 1" in str(history)


def once_each(folds_of: type[Projection]) -> Any:
    """The plain fold, by a fresh instance each time, so that only views are left to find anything."""
    from projections.testing import _fold

    return lambda _projection, events, base=None: _fold(folds_of(), events, base)


def test_a_failure_tells_who_appended_what_and_both_results() -> None:
    """The message is all that is needed to see the fault."""
    with pytest.raises(FoldIncorrect) as caught:
        check_fold(folds.RemembersTotals(), [Event("Counter", "x", "added", {"add": 1})], hash_seeds=False)
    assert str(caught.value).splitlines() == [
        "not deterministic",
        "history, in total order:",
        "  1. web-1, session 1, appends Counter x added {'add': 1}",
        "in total order: {'x': {'total': 1}}",
        "again, by the same instance: {'x': {'total': 2}}",
    ]


def test_the_cause_of_a_failure_is_kept() -> None:
    """An exception of the fold is what the report was raised from, traceback included."""
    with pytest.raises(FoldIncorrect) as caught:
        check_fold(folds.Fails(), COUNTERS, hash_seeds=False)
    assert isinstance(caught.value.__cause__, ValueError)


class FailsAtTimes(Projection):
    """Differs from itself so rarely that Hypothesis cannot make it fail again."""

    name, kinds = "at-times", frozenset({"Counter"})
    calls = 0

    def apply(self, state: Any, event: StoredEvent) -> Any:
        FailsAtTimes.calls += 1
        return {"odd": FailsAtTimes.calls == 100 or (state is not None and state["odd"])}


def test_a_failure_that_does_not_repeat_is_told_all_the_same() -> None:
    """What was met once is shown, not swallowed because it is flaky."""
    FailsAtTimes.calls = 0
    with pytest.raises(FoldIncorrect, match="'odd': True"):
        check_fold(FailsAtTimes(), COUNTERS, hash_seeds=False)


@pytest.mark.parametrize(
    ("projection", "events"),
    [(folds.Puts(), 2), (folds.Patches(), 2), (folds.Guarded(), 2), (folds.Journal(), 2), (folds.Sums(), None)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_order_sensitivity_is_told_with_a_minimal_witness(projection: Projection, events: int | None) -> None:
    """Sums do not care who came first; all others do, and two events of one key show it."""
    witness = is_order_sensitive(projection, COUNTERS, max_examples=60)
    assert (len(witness.events) if witness else None) == events
    if witness:
        assert len({event.key for event in witness.events}) == 1
        one, other = witness.outcomes
        assert one.rows != other.rows


def test_order_between_keys_does_not_count() -> None:
    """A fold is asked about each key alone: what happens to others cannot matter to it."""

    class Stamps(Projection):
        name, kinds = "stamps", frozenset({"Counter"})

        def apply(self, state: Any, event: StoredEvent) -> Any:
            return {"changed_at": event.stamp}

    assert is_order_sensitive(Stamps(), COUNTERS, max_examples=60) is None


def test_a_fold_that_fails_has_no_sensitivity() -> None:
    """The failure is told instead."""
    with pytest.raises(FoldIncorrect, match="negative"):
        is_order_sensitive(folds.Fails(), COUNTERS)


@pytest.mark.parametrize(
    "events",
    [
        COUNTERS,
        [Event("Counter", "x", "added", {"add": add}) for add in (1, -1)],
        lambda rng: Event("Counter", rng.choice(KEYS), "added", {"add": rng.randint(-1, 1)}),
    ],
    ids=["strategy", "list", "function"],
)
def test_events_come_from_a_strategy_a_list_or_a_function(events: Any) -> None:
    """All three find the guard that makes a fold order-sensitive."""
    witness = is_order_sensitive(folds.Guarded(), events)
    assert witness is not None
    assert sorted(event.data["add"] for event in witness.events if event.data) in ([-1, 1], [-1, 2], [-2, 2], [-2, 1])


@pytest.mark.parametrize("events", [[], ["x"], [Event("Counter", "", "added")]], ids=["none", "no events", "no key"])
def test_events_that_are_none_are_refused(events: Any) -> None:
    """The mistake is named."""
    with pytest.raises(InvalidArgument):
        check_fold(folds.Sums(), events, hash_seeds=False)


def test_a_projection_that_cannot_be_checked_is_refused() -> None:
    """A bad declaration, one that cannot be copied, one that other processes cannot have: each says so."""

    class Local(folds.Sums):
        pass

    with pytest.raises(InvalidArgument, match="attribute=apply"):
        check_fold(Projection.__new__(type("Nothing", (Projection,), {"name": "n", "kinds": {"A"}})), COUNTERS)
    with pytest.raises(InvalidArgument, match="hash_seeds=False"):
        check_fold(Local(), COUNTERS)
    holding = folds.Sums()
    holding.lock = __import__("threading").Lock()  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgument, match="deepcopy"):
        check_fold(holding, COUNTERS)


def test_histories_have_late_writers_and_restarts() -> None:
    """What the checker draws is what it says: several sessions, one writer restarted, runs out of order, rises."""
    writers: set[tuple[str, int]] = set()

    class Watched(folds.Sums):
        def apply(self, state: Any, event: StoredEvent) -> Any:
            writers.add((event.writer, event.session))
            return super().apply(state, event)

    check_fold(Watched(), COUNTERS, hash_seeds=False)
    assert writers == {("web-1", 1), ("web-2", 2), ("web-1", 3)}


def test_without_hypothesis_only_the_call_fails() -> None:
    """The module is imported without it; the error says what to install."""
    script = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from projections.testing import check_fold\n"
        "from tests.folds import Sums\n"
        "try: check_fold(Sums(), [])\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "checking a fold needs Hypothesis; pip install hypothesis\n"
