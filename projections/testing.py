"""Check a fold before a log depends on it: give it histories, and see whether its rows depend on anything else.

``check_fold`` draws *histories* (a few sessions append events; runs of these arrive at a view in an order of their own)
and folds each in many ways: event by event in total order, again with the same projection, with a fresh one, from
every cut on, as a view does while runs arrive late, and in processes that hash text differently. The first way is
what the others must equal, byte for byte. ``is_order_sensitive`` asks whether the *order* of events matters to a fold.

Both use Hypothesis to draw histories and to shrink one that fails to a few events. It is needed when they are called,
not when this module is imported: pip install hypothesis.

Invariants:
- Every fold starts from a copy of the projection as it was given, unless folding twice is what is tried.
- What is raised names the smallest failing history met, also where the failure does not repeat.
"""

from __future__ import annotations

import copy
import datetime
import os
import pickle
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import FrameType, MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from logstore import Event, LogStoreError, StoredEvent
from logstore.catchup import Run
from logstore.clock import COUNTER_BITS
from logstore.errors import InvalidArgument
from logstore.event import Data, EventEncoder
from logstore.keys import SegmentKey
from logstore.segment import SegmentEncoder
from projections.patch import merge_patch
from projections.projection import FoldFailed, Projection, Rejected
from projections.state import State
from projections.tombstone import decode_state, encode_state, is_tombstone

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Append", "FoldIncorrect", "History", "Outcome", "check_fold", "is_order_sensitive"]

Events: TypeAlias = "SearchStrategy[Event] | Sequence[Event] | Callable[[random.Random], Event]"
Rows: TypeAlias = dict[str, bytes]

WRITERS: Final = ("web-1", "web-2", "web-1")  # of sessions 1, 2, 3: the third is the first writer, restarted
APPENDS_MAX: Final = 8
EVENTS_MAX: Final = 3  # of one append
LATE_MAX: Final = 4  # how many appends a run may arrive behind its turn
FIRST_MS: Final = 1_700_000_000_000  # a day in November 2023
STEP_MS: Final = 1_000  # between two appends
HASH_SEEDS: Final = ("1", "2", "3")
_SIZE: Final = struct.Struct(">I")
_CLOCKS: Final = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time")
_CALLS_THAT_DIFFER: Final = {
    **{getattr(time, name): f"time.{name}" for name in _CLOCKS},
    datetime.datetime.now: "datetime.now",
    datetime.datetime.utcnow: "datetime.utcnow",
    datetime.date.today: "date.today",
    random.random: "random.random",
    random.getrandbits: "random",
    os.urandom: "os.urandom",
    os.getpid: "os.getpid",
}
_ENCODER: Final = EventEncoder()
_SEGMENTS: Final = SegmentEncoder()
_MAY_CALL_THEM: Final = ("logging", "hypothesis")  # a log line has its time; Hypothesis measures collections
_SERVE: Final = "import sys; sys.path[:] = eval(sys.argv[1]); import projections.testing as t; t._serve()"


class Append(NamedTuple):
    """One append of a history: events that a session stored together. Sessions count from 1."""

    session: int
    events: tuple[Event, ...]

    @property
    def writer(self) -> str:
        """Whose session it is."""
        return WRITERS[self.session - 1]


class Outcome(NamedTuple):
    """What one way of folding a history came to: ``rows`` decoded, or what went wrong."""

    way: str
    rows: Mapping[str, Data] | None = None
    error: str = ""

    def __str__(self) -> str:
        return f"{self.way}: {self.error or _plain(self.rows)}"


@dataclass(frozen=True)
class History:
    """Appends in total order, and how their runs arrive. ``str()`` tells it, one event a line.

    ``arrivals``: the places of the appends in the order in which a view meets them, each with whether the watermark
    rises as far as it may right after it. ``outcomes``: what differs, one way of folding and another.
    """

    appends: tuple[Append, ...]
    arrivals: tuple[tuple[int, bool], ...]
    outcomes: tuple[Outcome, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, in total order. Cost: O(events)."""
        return tuple(event for append in self.appends for event in append.events)

    def __str__(self) -> str:
        lines = ["history, in total order:"]
        for place, append in enumerate(self.appends, 1):
            for event in append.events:
                what = f"{event.kind} {event.key} {event.type} {_plain(event.data)}"
                lines.append(f"  {place}. {append.writer}, session {append.session}, appends {what}")
        if [place for place, _ in self.arrivals] != list(range(len(self.appends))) or any(r for _, r in self.arrivals):
            arrivals = [f"{place + 1}{' (watermark rises)' * rises}" for place, rises in self.arrivals]
            lines.append(f"arrives: {', '.join(arrivals)}")
        return "\n".join([*lines, *map(str, self.outcomes)])


class FoldIncorrect(AssertionError):
    """Two views could show different rows. ``history`` is the smallest found; mend the fold, then raise its version."""

    def __init__(self, reason: str, history: History) -> None:
        super().__init__(f"{reason}\n{history}")
        self.reason = reason
        self.history = history


def check_fold(projection: Projection, events: Events, *, max_examples: int = 100, hash_seeds: bool = True) -> None:
    """Raise FoldIncorrect, with a minimal history, when the rows of ``projection`` depend on more than the log.

    ``events``: a Hypothesis strategy for events, some events to choose from, or a function that makes one with the
    ``random.Random`` it is given. A fold passes when, for each history, it neither fails (a failure that
    ``on_failure="park"`` parks is fine) nor writes to its arguments, its states can be stored, and its rows are equal

    - folded twice by the same instance, and by a fresh one: no clock, no randomness, no memory of its own;
    - whatever the order of arrival, late writers included, as a view folds them, settled or not;
    - folded up to any cut, and from there by a fresh instance;
    - in other processes, whose sets have other orders (``hash_seeds``; the class must be importable there).

    Calls of clocks and random sources are refused where they are met, except by ``logging``.

    Cost: about 3 ms an example, and one second to start the processes. Raises InvalidArgument for a projection or
    events that cannot be used, ImportError without Hypothesis.

    >>> from logstore import Event
    >>> from projections import Projection
    >>> class Stock(Projection):
    ...     name, kinds = "stock", {"Item"}
    ...     def apply(self, state, event):
    ...         return {"left": (state["left"] if state else 0) + event.data["add"]}
    >>> check_fold(Stock(), [Event("Item", "nail", "moved", {"add": n}) for n in (1, 2)], hash_seeds=False)
    """
    projection.check()
    _copy(projection)
    histories = _histories(events)
    with ExitStack() as stack:
        others = [stack.enter_context(_process(projection, seed)) for seed in HASH_SEEDS] if hash_seeds else []

        def check(history: History) -> None:
            _check(projection, history, others)

        _search(check, histories, max_examples)


def is_order_sensitive(projection: Projection, events: Events, *, max_examples: int = 200) -> History | None:
    """Return a minimal history whose rows change when two events of a key change places; None: none was found.

    Change places: each is stamped as the other was; everything else about them goes along. A fold that is not
    sensitive gives the same rows whoever wins a race; one that is may need a guard. ``events`` as for ``check_fold``.

    Cost: some milliseconds an example. Raises InvalidArgument, ImportError without Hypothesis.

    >>> from logstore import Event
    >>> from projections import Projection
    >>> class Latest(Projection):
    ...     name, kinds, fold = "latest", {"Item"}, "put"
    >>> print(is_order_sensitive(Latest(), [Event("Item", "nail", "said", {"n": n}) for n in (1, 2)]))
    history, in total order:
      1. web-1, session 1, appends Item nail said {'n': 1}
      2. web-1, session 1, appends Item nail said {'n': 2}
    as it stands: {'nail': {'n': 2}}
    2 before 1: {'nail': {'n': 1}}
    """
    projection.check()
    _copy(projection)

    def check(history: History) -> None:
        appends = [Append(a.session, (event,)) for a in history.appends for event in a.events]
        single = History(tuple(appends), tuple((place, False) for place in range(len(appends))))
        straight = _folded(_copy(projection), single)
        for place, later in _neighbours(appends):
            swapped = [*appends]
            swapped[place], swapped[later] = swapped[later], swapped[place]
            other = _folded(_copy(projection), replace(single, appends=tuple(swapped)))
            if other != straight:
                shown = (("as it stands", straight), (f"{later + 1} before {place + 1}", other))
                outcomes = tuple(Outcome(way, _decoded(rows)) for way, rows in shown)
                raise FoldIncorrect("the order of events matters", replace(single, outcomes=outcomes))

    try:
        _search(check, _histories(events), max_examples)
    except FoldIncorrect as found:
        if found.reason != "the order of events matters":
            raise
        return found.history
    return None


def _neighbours(appends: Sequence[Append]) -> Iterator[tuple[int, int]]:
    """The places of events that follow each other on their key."""
    last: dict[str, int] = {}
    for place, append in enumerate(appends):
        key = append.events[0].key
        if key in last:
            yield last[key], place
        last[key] = place


# Histories --------------------------------------------------------------------------------


def _search(check: Callable[[History], None], histories: SearchStrategy[History], max_examples: int) -> None:
    """Let Hypothesis try histories; raise the failure with the smallest one."""
    from hypothesis import HealthCheck, Phase, errors, given, settings

    failures: list[FoldIncorrect] = []

    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories)
    def attempt(history: History) -> None:
        try:
            check(history)
        except FoldIncorrect as failure:
            failures.append(failure)
            raise

    try:
        attempt()
    except (FoldIncorrect, errors.Flaky):  # flaky: it failed, and did not fail again
        if not failures:
            raise
    if failures:
        smallest = _smaller(min(reversed(failures), key=_size), check)
        raise FoldIncorrect(smallest.reason, smallest.history) from smallest.__cause__


def _size(failure: FoldIncorrect) -> tuple[int, int]:
    return len(failure.history.events), len(str(failure.history))


def _smaller(failure: FoldIncorrect, check: Callable[[History], None]) -> FoldIncorrect:
    """The failure of the smallest history that can be had by leaving things out one by one."""
    for history in _with_less(failure.history):
        try:
            check(history)
        except FoldIncorrect as smaller:
            return _smaller(smaller, check)
    return failure


def _with_less(history: History) -> Iterator[History]:
    """The history with an append, an event, a rise of the watermark, or a late arrival less."""
    appends, arrivals = history.appends, history.arrivals
    for gone in range(len(appends)):
        left = tuple((place - (place > gone), rises) for place, rises in arrivals if place != gone)
        yield History(appends[:gone] + appends[gone + 1 :], left)
        for index in range(len(appends[gone].events)) if len(appends[gone].events) > 1 else ():
            events = appends[gone].events[:index] + appends[gone].events[index + 1 :]
            yield History((*appends[:gone], Append(appends[gone].session, events), *appends[gone + 1 :]), arrivals)
    for at, (place, rises) in enumerate(arrivals):
        if rises:
            yield History(appends, (*arrivals[:at], (place, False), *arrivals[at + 1 :]))
        if at and arrivals[at - 1][0] > place:
            yield History(appends, (*arrivals[: at - 1], arrivals[at], arrivals[at - 1], *arrivals[at + 1 :]))


def _histories(events: Events) -> SearchStrategy[History]:
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError("checking a fold needs Hypothesis; pip install hypothesis") from error

    sessions, late, rises = st.integers(1, len(WRITERS)), st.integers(0, LATE_MAX), st.booleans()
    together = st.lists(_strategy(events), min_size=1, max_size=EVENTS_MAX)
    return st.lists(st.tuples(sessions, together, late, rises), max_size=APPENDS_MAX).map(_history)


def _history(drawn: Sequence[tuple[int, Sequence[Event], int, bool]]) -> History:
    """The appends drawn; each run arrives as late as drawn, and each session in its own order."""
    appends, order = [], []
    due: dict[int, int] = {}
    for place, (session, events, late, rises) in enumerate(drawn):
        for event in events:
            _require_storable(event)
        appends.append(Append(session, tuple(events)))
        due[session] = max(due.get(session, 0), place + late)
        order.append((due[session], place, rises))
    return History(tuple(appends), tuple((place, rises) for _, place, rises in sorted(order)))


def _strategy(events: Events) -> SearchStrategy[Event]:
    from hypothesis import strategies as st

    if isinstance(events, st.SearchStrategy):
        return events
    if callable(events):
        return st.builds(events, st.randoms(use_true_random=False))
    if not events:
        raise InvalidArgument("no events to choose from events=[]; give some, or a strategy, or a function")
    return st.sampled_from(list(events))


def _require_storable(event: object) -> None:
    if not isinstance(event, Event):
        raise InvalidArgument(f"a history is made of Events event={event!r:.80}")
    _ENCODER.encode(event)


def _runs(history: History, settled: bool = False) -> list[Run]:
    """The appends as a reader hands them over."""
    runs = []
    slots: dict[int, int] = {}
    sequences: dict[int, int] = {}
    for place, (session, events) in enumerate(history.appends):
        _, segment = _SEGMENTS.encode(
            SegmentKey(WRITERS[session - 1], 0, session, slots.get(session, 0)),
            [_ENCODER.encode(event) for event in events],
            first_sequence=sequences.get(session, 0),
            stamp=FIRST_MS + place * STEP_MS << COUNTER_BITS,
            acknowledged=0,
            previous=b"",
        )
        slots[session] = slots.get(session, 0) + 1
        sequences[session] = sequences.get(session, 0) + len(events)
        runs.append(Run(segment, 0, settled))
    return runs


def _events(run: Run) -> list[StoredEvent]:
    return [run.event(index) for index in run.indices]


# Folding ----------------------------------------------------------------------------------


class _Broken(Exception):
    """The fold did what no fold may do."""


def _check(projection: Projection, history: History, others: Sequence[_Process]) -> None:
    """Fold a history in every way; FoldIncorrect when one differs from folding in total order."""

    def require_equal(reason: str, way: str, expected: Rows, rows: Rows) -> None:
        if rows != expected:
            outcomes = (Outcome("in total order", _decoded(expected)), Outcome(way, _decoded(rows)))
            raise FoldIncorrect(reason, replace(history, outcomes=outcomes))

    events = [event for run in _runs(history) for event in _events(run)]
    instance = _copy(projection)
    try:
        with _watching_calls():
            expected = _fold(instance, events)
        require_equal("not deterministic", "again, by the same instance", expected, _fold(instance, events))
        require_equal("not deterministic", "by a fresh instance", expected, _fold(_copy(projection), events))
        settled = [event for run in _runs(history, settled=True) for event in _events(run)]
        require_equal("rows depend on event.settled", "read when settled", expected, _fold(_copy(projection), settled))
        for cut in range(1, len(events)):
            rows = _fold(_copy(projection), events[cut:], _fold(_copy(projection), events[:cut]))
            require_equal("what is folded depends on more than the state", f"cut after event {cut}", expected, rows)
    except _Broken as broken:
        outcome = Outcome("in total order", error=str(broken))
        raise FoldIncorrect("the fold may not do that", replace(history, outcomes=(outcome,))) from broken.__cause__
    rows, base = _as_a_view(projection, history)
    expected = _without_tombstones(expected)  # a view has buried some
    require_equal("rows depend on the order of arrival", "as it arrives", expected, rows)
    require_equal("settled rows depend on the order of arrival", "as it settles", expected, base)
    for other in others:
        rows = _without_tombstones(other.fold(history))
        require_equal("rows depend on how text is hashed", f"in {other}", expected, rows)


def _folded(projection: Projection, history: History) -> Rows:
    events = [event for run in _runs(history) for event in _events(run)]
    try:
        return _fold(projection, events)
    except _Broken as broken:
        outcome = Outcome("in total order", error=str(broken))
        raise FoldIncorrect("the fold may not do that", replace(history, outcomes=(outcome,))) from broken.__cause__


def _fold(projection: Projection, events: Sequence[StoredEvent], base: Rows | None = None) -> Rows:
    """What folding means, with nothing clever: one event after the other, states kept as bytes."""
    rows = dict(base or {})
    for event in events:
        if event.kind not in projection.kinds:
            continue
        before = None if event.key not in rows else decode_state(rows[event.key], event.key, event.stamp)
        try:
            after = _apply(projection, before, event)
        except Rejected:
            continue
        except _Parked:
            continue
        if after is None:
            rows.pop(event.key, None)
        elif after is event.data:
            rows[event.key] = event.payload
        else:
            try:
                rows[event.key] = encode_state(after, event.key, _ENCODER)
            except InvalidArgument as error:
                raise _Broken(f"returned what cannot be stored after {_told(event)}: {error}") from error
    return rows


class _Parked(Exception):
    """The fold failed, and its projection says that the event shall be parked."""


def _apply(projection: Projection, before: Data | None, event: StoredEvent) -> Data | None:
    if projection.fold == "put":
        return event.data
    if projection.fold == "patch":
        return None if event.data is None else merge_patch(before, event.data)
    try:
        return projection.apply(before, event)
    except (Rejected, _Broken):
        raise
    except Exception as error:
        if _wrote_to_read_only(error):
            raise _Broken(f"wrote to its arguments on {_told(event)}: {error!r}; copy what you change") from error
        if projection.on_failure == "park":
            raise _Parked from error
        raise _Broken(f"failed on {_told(event)}: {error!r}") from error


def _wrote_to_read_only(error: Exception) -> bool:
    return isinstance(error, (TypeError, AttributeError)) and (
        "mappingproxy" in str(error) or str(error).startswith("'tuple' object")
    )


def _told(event: StoredEvent) -> str:
    return f"{event.kind} {event.key} {event.type} {_plain(event.data)}"


def _as_a_view(projection: Projection, history: History) -> tuple[Rows, Rows]:
    """The rows of a view that meets the runs as they arrive: visible, and when all is settled."""
    state, runs = State(_copy(projection)), _runs(history)
    try:
        for count, (place, rises) in enumerate(history.arrivals, 1):
            state.take(runs[place])
            unseen = [runs[later].segment.stamp for later, _ in history.arrivals[count:]]
            if rises and unseen:
                state.rise(max(state.watermark, min(unseen) - 1))
        rows = dict(state.rows)
        state.rise(FIRST_MS + len(runs) * STEP_MS << COUNTER_BITS)
    except FoldFailed as failure:
        outcome = Outcome("as it arrives", error=str(failure))
        raise FoldIncorrect("it fails as it arrives", replace(history, outcomes=(outcome,))) from failure
    return _without_tombstones(rows), _without_tombstones(dict(state.base_rows()))


def _without_tombstones(rows: Rows) -> Rows:
    return {key: row for key, row in rows.items() if not is_tombstone(row)}


def _copy(projection: Projection) -> Projection:
    """The projection as it was given: nothing that folding did to another is in it."""
    try:
        return copy.deepcopy(projection)
    except Exception as error:
        raise InvalidArgument(
            f"a projection to check must bear copy.deepcopy projection={projection.name} cause={error!r:.80}"
        ) from error


@contextmanager
def _watching_calls() -> Iterator[None]:
    """Raise _Broken when a clock or a random source was called within, by anybody but ``logging``."""
    met: list[str] = []

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and not str(frame.f_globals.get("__name__", "")).startswith(_MAY_CALL_THEM):
            try:
                name = _CALLS_THAT_DIFFER.get(called)
            except TypeError:  # a method of something that cannot be hashed
                return
            if name is not None:
                met.append(name)

    if sys.getprofile() is not None:  # somebody measures: there is room for one
        yield
        return
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
    if met:
        raise _Broken(f"calls {met[0]}, which answers differently each time; take what you need from the event")


def _decoded(rows: Rows) -> Mapping[str, Data]:
    return {key: decode_state(row, key) or {} for key, row in sorted(rows.items())}


def _plain(value: Any) -> Any:
    """A value as Python writes it: dicts and lists instead of their read-only kin."""
    if isinstance(value, (dict, MappingProxyType)):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


# Other processes --------------------------------------------------------------------------


class _Process:
    """A Python with another hash seed, which folds what it is sent."""

    def __init__(self, seed: str, pipe_in: IO[bytes], pipe_out: IO[bytes]) -> None:
        self._seed, self._pipe_in, self._pipe_out = seed, pipe_in, pipe_out

    def __str__(self) -> str:
        return f"a process with PYTHONHASHSEED={self._seed}"

    def fold(self, history: History) -> Rows:
        """Its rows of a history."""
        _send(self._pipe_in, history)
        rows = _receive(self._pipe_out)
        if isinstance(rows, Exception):
            outcome = Outcome(f"in {self}", error=str(rows))
            raise FoldIncorrect("it fails in another process", replace(history, outcomes=(outcome,)))
        assert isinstance(rows, dict)
        return rows


@contextmanager
def _process(projection: Projection, seed: str) -> Iterator[_Process]:
    try:
        pickled = pickle.dumps(projection)
    except Exception as error:
        raise InvalidArgument(
            f"another process cannot have this projection projection={projection.name} cause={error!r:.120};"
            " define its class in a module, or pass hash_seeds=False"
        ) from error
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, repr(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        _send(process.stdin, pickled)
        ready = _receive(process.stdout)
        if ready is not None:
            raise InvalidArgument(
                f"another process cannot import this projection projection={projection.name} cause={ready!r:.120};"
                " define its class in a module, or pass hash_seeds=False"
            )
        yield _Process(seed, process.stdin, process.stdout)


def _serve() -> None:
    """Be such a process."""
    pipe_in, pipe_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a fold prints must not get between the answers
    try:
        projection = pickle.loads(_receive(pipe_in))
    except Exception as error:  # noqa: BLE001  # importing somebody's module can fail in any way
        _send(pipe_out, repr(error))
        return
    _send(pipe_out, None)
    while (history := _receive(pipe_in)) is not None:
        try:
            _send(pipe_out, _folded(_copy(projection), history))
        except (FoldIncorrect, LogStoreError) as error:
            _send(pipe_out, RuntimeError(str(error)))


def _send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    pipe.write(_SIZE.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """The next message; None where the other side is gone."""
    size = pipe.read(_SIZE.size)
    return pickle.loads(pipe.read(_SIZE.unpack(size)[0])) if size else None
