"""The rows that a fold has built: right at every moment, whatever order segments arrive in. Pure.

*Base* holds what settled events made, which nothing can change any more. *Pending* are the events above it that
have arrived. ``rows`` is base with pending folded on top: what everybody looks at. For each key that a pending
event touches the base state is kept (``_base``), so that an event that arrives late costs a new fold of its key's
pending events, and nothing else.

A run of ``put`` events that comes in order is one ``dict.update``: no Python object is made per event.

Invariants:
- ``rows`` equals folding all events taken in, in total order, from nothing.
- A key is in ``_base`` exactly when a pending event touches it.
- ``_since`` has each key whose base row changed since the last cut, with what it was then.
- Every pending run is above ``watermark``; they are kept in total order.
- Every event is taken in once: whoever feeds a state hands over each session in order, and nothing twice.
- ``tombstones`` has the keys of which the row is one; of base rows none is left whose time has come.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from operator import attrgetter
from typing import Final, Literal, NamedTuple

from logstore.catchup import Run
from logstore.event import Data, EventEncoder, StoredEvent, decode_data
from logstore.manifest import VERDICT_STAMPS, VERDICTS_MAX, ManifestVerdict
from projections.bounded import Rows, shrink
from projections.patch import merge_patch
from projections.projection import FoldFailed, Projection, Rejected
from projections.tombstone import Tombstone, decode_state, encode_state, is_tombstone, tombstone_until

__all__ = ["Rejection", "Since", "State", "Verdict"]

DELETED: Final = b"\xc0"  # no data: the row goes
VERDICTS_REMEMBERED_MAX: Final = 100_000
SINCE_ROWS_MIN: Final = 100_000  # so many changes since a snapshot are remembered however few rows there are
NOT_KEPT: Final = "the reason is not kept in snapshots"

Address = tuple[int, int, int]
"""An event's place in the log: (chapter, session, sequence)."""


class Verdict(NamedTuple):
    """What became of an event that changed nothing: rejected by a guard, or parked because the fold failed on it."""

    kind: Literal["rejected", "parked"]
    reason: str


class Rejection(NamedTuple):
    """An event that changed nothing, finally: where it stands, what it was, and why."""

    kind: str
    key: str
    type: str
    writer: str
    chapter: int
    session: int
    seq: int
    stamp: int
    verdict: Verdict


class Since(NamedTuple):
    """Keys whose base row changed since the watermark was ``stamp``, each with its row then."""

    stamp: int
    rows: dict[str, bytes | None]


@dataclass(slots=True)
class _Pending:
    """A run above base: where its events of our kinds stand."""

    run: Run
    indices: range | list[int]
    by_key: dict[str, list[int]] | None = None

    @property
    def stamp(self) -> int:
        """The stamp of its events."""
        return self.run.segment.stamp

    @property
    def order(self) -> tuple[int, int, int]:
        """Its place among runs: the events of a segment are not parted by others."""
        key = self.run.segment.key
        return (self.stamp, key.chapter, key.session)

    def keys(self) -> set[str]:
        """The keys that its events touch."""
        keys = self.run.columns.keys
        return {keys[index] for index in self.indices}

    def of_key(self, key: str) -> list[int]:
        """The indices of a key's events; looked up by a table made at the first question."""
        if self.by_key is None:
            self.by_key = {}
            keys = self.run.columns.keys
            for index in self.indices:
                self.by_key.setdefault(keys[index], []).append(index)
        return self.by_key.get(key, [])


class State:
    """Rows as bytes, by key. Take runs in, let the watermark rise; look at ``rows``."""

    def __init__(
        self, projection: Projection, new_rows: Callable[[], Rows] = dict, since_bytes_max: float = inf
    ) -> None:
        self.new_rows = new_rows
        self.rows: Rows = new_rows()
        self.watermark = 0
        self._projection = projection
        self._kinds = frozenset(projection.kinds)
        self._encoder = EventEncoder()
        self._base: dict[str, bytes | None] = {}
        self._pending: list[_Pending] = []  # in total order
        self.pending_events = 0  # how many events have no final place yet
        self.events_taken = 0  # of its kinds, since it was made
        self._last_stamps: dict[tuple[int, int], int] = {}  # of sessions with something above the watermark
        self._verdicts: dict[Address, tuple[Verdict, int]] = {}  # with the event's stamp
        self._verdicts_max = VERDICTS_REMEMBERED_MAX
        self._rejections: dict[Address, Rejection] = {}  # whose verdict is not final
        self._final_rejections: list[Rejection] | None = None
        self.tombstones: set[str] = set()
        self._tombstones_until: list[tuple[int, str]] = []  # a heap of those in base, and of some that were
        self.verdicts_from = 0  # the stamp above which they are remembered
        self._since: Since | None = None
        self._since_bytes = 0
        self._since_bytes_max = since_bytes_max
        self._before: dict[str, bytes | None] | None = None

    def __repr__(self) -> str:
        return f"<State rows={len(self.rows)} pending={self.pending_events} watermark={self.watermark}>"

    @property
    def changed_since_cut(self) -> int | None:
        """How many base rows have changed since the last cut; None: there was none, or too many to remember."""
        return None if self._since is None else len(self._since.rows)

    @property
    def last_stamp(self) -> int:
        """The stamp of the newest event that has no final place yet; the watermark where all have one."""
        return self._pending[-1].stamp if self._pending else self.watermark

    @property
    def oldest_pending(self) -> int | None:
        """The stamp of the oldest event that has no final place yet; None where all have one."""
        pending = self._pending
        return pending[0].stamp if pending else None

    def pending_above(self, stamp: int) -> int:
        """How many of the pending events are stamped above ``stamp``. Cost: O(segments with such)."""
        first = bisect_right(self._pending, stamp, key=attrgetter("stamp"))
        return sum(len(pending.indices) for pending in self._pending[first:])

    def base_rows(self) -> Rows:
        """The rows at the watermark. Cost: a copy of the table where anything is pending."""
        if not self._base:
            return self.rows
        rows = self.rows.copy()
        for key, state in self._base.items():
            _put(rows, key, state)
        return rows

    @property
    def base_of_pending(self) -> Mapping[str, bytes | None]:
        """For each key that something pending touches, its row at the watermark; None where there is none."""
        return self._base

    def base_row(self, key: str) -> bytes | None:
        """A row at the watermark."""
        return self._base[key] if key in self._base else self.rows.get(key)

    def seen(self, key: str) -> Data | None:
        """What ``apply`` would be given for the next event of a key: its row, or what it left."""
        row = self.rows.get(key)
        return None if row is None else decode_state(row, key)

    def verdict(self, address: Address) -> Verdict | None:
        """Why the event at ``address`` changed nothing; None where it did. Final once the watermark has passed it."""
        judged = self._verdicts.get(address)
        return None if judged is None else judged[0]

    @property
    def parked_events(self) -> int:
        """How many events the fold has failed on, of those remembered. Cost: O(verdicts remembered)."""
        return sum(verdict.kind == "parked" for verdict, _ in list(self._verdicts.values()))

    # Cutting: what the rows at a watermark are, and how they differ from an earlier one

    def load(self, rows: Rows, watermark: int, verdicts: Iterable[ManifestVerdict]) -> None:
        """Start from a snapshot instead of from nothing. The rows are the state's from now on."""
        assert not self.watermark, "loaded first"
        self.rows, self.watermark = rows, watermark
        if self._projection.tombstones:
            self._note_tombstones(rows.items())
        for verdict in verdicts:
            address = (verdict.chapter, verdict.session, verdict.seq)
            self._verdicts[address] = (Verdict(verdict.kind, NOT_KEPT), verdict.stamp)
        self.verdicts_from = max(0, watermark - VERDICT_STAMPS)
        if len(self._verdicts) == VERDICTS_MAX:
            self.verdicts_from = min(stamp for _, stamp in self._verdicts.values())

    def take_since(self) -> Since | None:
        """How base rows differ from what they were at the last call; None at the first, or when most of them do.

        From now on it is tracked. Cost: O(keys changed).
        """
        since, self._since, self._since_bytes = self._since, Since(self.watermark, {}), 0
        if since is None:
            return None
        return Since(since.stamp, {key: row for key, row in since.rows.items() if row != self.base_row(key)})

    def final_verdicts(self) -> tuple[ManifestVerdict, ...]:
        """The verdicts that a manifest at the watermark holds. Cost: O(verdicts remembered)."""
        oldest = self.watermark - VERDICT_STAMPS
        final = [
            ManifestVerdict(*address, stamp, verdict.kind)
            for address, (verdict, stamp) in self._verdicts.items()
            if oldest < stamp <= self.watermark
        ]
        return tuple(sorted(final, key=attrgetter("order"))[-VERDICTS_MAX:])

    def track_rejections(self) -> None:
        """From now on keep those that become final, for ``take_rejections``."""
        if self._final_rejections is None:
            self._final_rejections = []

    def take_rejections(self) -> list[Rejection]:
        """The events that changed nothing, and whose verdict became final since the last call; in total order."""
        final = self._final_rejections
        if not final:
            return []
        self._final_rejections = []
        return final

    # Changes

    def track_changes(self) -> None:
        """From now on remember what rows were before they changed, for ``take_changes``."""
        if self._before is None:
            self._before = {}

    def take_changes(self) -> dict[str, bytes | None]:
        """The keys whose row changed since the last call, each with what it was before."""
        before = self._before
        if not before:
            return {}
        self._before = {}
        return {key: old for key, old in before.items() if self.rows.get(key) != old}

    def _note(self, keys: Iterable[str]) -> None:
        if self._before is not None:
            for key in keys:
                self._before.setdefault(key, self.rows.get(key))

    # Taking in

    def take(self, run: Run) -> None:
        """Take in a run. Cost: a dict update when its events are put, in order and settled; else a fold per event."""
        key = run.segment.key
        session, stamp = (key.chapter, key.session), run.segment.stamp
        assert stamp > max(self._last_stamps.get(session, 0), self.watermark), f"taken twice {key}"
        indices = self._indices(run)
        self.events_taken += len(indices)
        if run.settled:
            if self._pending:
                self.rise(stamp - 1)
            if run.complete and not self._pending:
                if self._since is not None:
                    self._keep_since(self.keys_in(run), self.rows)
                self._fold_run(run, indices)
                self.watermark = stamp
                self._settle(self.keys_in(run) if self._projection.tombstones else ())
                return
        self._last_stamps[session] = stamp
        if not indices:
            return
        pending = _Pending(run, indices)
        touched = pending.keys()
        self._note(touched)
        for touched_key in touched:
            self._base.setdefault(touched_key, self.rows.get(touched_key))
        insort(self._pending, pending, key=attrgetter("order"))
        self.pending_events += len(indices)
        if self._pending[-1] is pending:
            self._fold_run(run, indices)
        else:
            folded = {each: self._folded(each, self._base[each], self._pending) for each in touched}
            for touched_key, state in folded.items():
                self._put(touched_key, state)

    def rise(self, watermark: int) -> None:
        """The watermark has risen: what lies at or below it becomes base; one that is known changes nothing.

        Cost: O(pending events).
        """
        if watermark <= self.watermark:
            return
        count = bisect_right(self._pending, watermark, key=attrgetter("stamp"))
        settled, still = self._pending[:count], self._pending[count:]
        touched = set().union(*(pending.keys() for pending in settled))
        kept = {key for pending in still for key in pending.keys() & touched} if touched else touched
        base = {key: self._folded(key, self._base[key], settled) for key in kept}
        self._keep_since(touched, self._base)
        self.watermark = watermark
        self._last_stamps = {session: stamp for session, stamp in self._last_stamps.items() if stamp > watermark}
        self._pending = still
        self.pending_events -= sum(len(pending.indices) for pending in settled)
        self._base.update(base)
        for key in touched - kept:
            del self._base[key]
        self._settle(touched)

    def _settle(self, changed: Iterable[str]) -> None:
        """The watermark has risen, and these base rows changed: forget what nobody needs to know any more."""
        self._forget_verdicts()
        final = [each for each in self._rejections.values() if each.stamp <= self.watermark] if self._rejections else []
        for rejection in final:
            del self._rejections[rejection.chapter, rejection.session, rejection.seq]
        if self._final_rejections is not None:
            self._final_rejections += sorted(final, key=attrgetter("stamp", "chapter", "session", "seq"))
        if self._projection.tombstones:
            rows = ((key, self.base_row(key)) for key in changed)
            self._note_tombstones((key, row) for key, row in rows if row is not None)
            self._bury()

    def _note_tombstones(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Of these base rows, remember the tombstones and when they go."""
        for key, row in rows:
            if is_tombstone(row):
                heappush(self._tombstones_until, (tombstone_until(row), key))
                if key not in self._base:
                    self.tombstones.add(key)

    def _bury(self) -> None:
        """Remove base rows that are tombstones whose time has come."""
        while self._tombstones_until and self._tombstones_until[0][0] <= self.watermark:
            until, key = heappop(self._tombstones_until)
            row = self.base_row(key)
            if row is None or not is_tombstone(row) or tombstone_until(row) != until:
                continue
            self._keep_since([key], {key: row})
            if key in self._base:
                self._note([key])
                self._base[key] = None
                self._put(key, self._folded(key, None, self._pending))
            else:
                self._put(key, None)

    def shrink(self) -> None:
        """Bring the rows within their memory budget, where they have one. Raises Unavailable; none is lost."""
        shrink(self.rows)

    def _keep_since(self, keys: Iterable[str], before: Mapping[str, bytes | None]) -> None:
        """The base rows of these keys are about to change. When most have, comparing anew costs no more: forget all."""
        if self._since is None:
            return
        rows = self._since.rows
        for key in keys:
            if key not in rows:
                rows[key] = row = before.get(key)
                self._since_bytes += len(row) if row is not None else 0
        if len(rows) > SINCE_ROWS_MIN + len(self.rows) // 2 or self._since_bytes > self._since_bytes_max:
            self._since = None

    def keys_in(self, run: Run) -> set[str]:
        """The keys that the events of our kinds in a run are about."""
        return {run.columns.keys[index] for index in self._indices(run)}

    def _indices(self, run: Run) -> range | list[int]:
        columns = run.columns
        names = columns.kind_names
        if self._kinds.issuperset(names):
            return run.indices
        if self._kinds.isdisjoint(names) or columns.kind_codes is None:
            return []
        wanted = {code for code, name in enumerate(names) if name in self._kinds}
        return [index for index in run.indices if columns.kind_codes[index] in wanted]

    # Folding

    def _fold_run(self, run: Run, indices: range | list[int]) -> None:
        """Fold a run on top of ``rows``, event after event."""
        if self._projection.fold == "put":
            self._put_run(run, indices)
            return
        keys, rows = run.columns.keys, self.rows
        if self._before is not None:
            self._note({keys[index] for index in indices})
        after: dict[str, bytes | None] = {}  # put into the rows when all is folded: a fold may fail half way
        if self._projection.fold == "patch":
            for index in indices:
                key = keys[index]
                after[key] = self._fold(after[key] if key in after else rows.get(key), run, index)
        else:
            for event in run.events(indices):
                key = event.key
                after[key] = self._applied(after[key] if key in after else rows.get(key), event)
        for key, state in after.items():
            self._put(key, state)

    def _put(self, key: str, state: bytes | None) -> None:
        _put(self.rows, key, state)
        if self._projection.tombstones:
            if state is not None and is_tombstone(state):
                self.tombstones.add(key)
            else:
                self.tombstones.discard(key)

    def _put_run(self, run: Run, indices: range | list[int]) -> None:
        columns = run.columns
        if isinstance(indices, range):
            keys, payloads = columns.keys[run.start :], columns.payloads[run.start :]
        else:
            keys = [columns.keys[index] for index in indices]
            payloads = [columns.payloads[index] for index in indices]
        self._note(keys)
        self.rows.update(zip(keys, payloads, strict=True))
        if DELETED in payloads:
            for key in set(keys):
                if self.rows[key] == DELETED:
                    del self.rows[key]

    def _folded(self, key: str, state: bytes | None, runs: Iterable[_Pending]) -> bytes | None:
        """``state`` with the key's events in ``runs`` folded on."""
        for pending in runs:
            for index in pending.of_key(key):
                state = self._fold(state, pending.run, index)
        return state

    def _fold(self, state: bytes | None, run: Run, index: int) -> bytes | None:
        """The state after one event. A guard's or a parked failure's verdict is kept under the event's address."""
        columns = run.columns
        payload = columns.payloads[index]
        if self._projection.fold == "put":
            return None if payload == DELETED else payload
        if self._projection.fold == "patch":
            return self._patched(state, payload, columns.keys[index])
        return self._applied(state, run.event(index))

    def _applied(self, state: bytes | None, event: StoredEvent) -> bytes | None:
        """What the user's function makes of the state; as it was where a guard or a failure says so."""
        key = event.key
        if self._verdicts:
            self._verdicts.pop(_address(event), None)
            self._rejections.pop(_address(event), None)
        try:
            before = None if state is None else decode_state(state, key, event.stamp)
            after = self._projection.apply(before, event)
            if after is None:
                return None
            if after is before:
                return state
            if isinstance(after, Tombstone) and not self._projection.tombstones:
                raise TypeError("a tombstone from a projection that does not say tombstones = True")
            return event.payload if after is event.data else encode_state(after, key, self._encoder)
        except Rejected as rejection:
            self._judge(event, Verdict("rejected", str(rejection)))
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            if self._projection.on_failure == "halt":
                raise FoldFailed(
                    f"the fold failed projection={self._projection.name} event={event!r} cause={error!r}"
                ) from error
            self._judge(event, Verdict("parked", repr(error)))
        return state

    def _judge(self, event: StoredEvent, verdict: Verdict) -> None:
        address = _address(event)
        self._verdicts[address] = (verdict, event.stamp)
        self._rejections[address] = Rejection(
            event.kind, event.key, event.type, event.writer, *address, event.stamp, verdict
        )

    def _forget_verdicts(self) -> None:
        """Of many settled verdicts forget the oldest half; never one that a manifest at the watermark holds."""
        if len(self._verdicts) <= self._verdicts_max:
            return
        settled = sorted((s, a) for a, (_, s) in self._verdicts.items() if s <= self.watermark)
        count = min(len(settled) // 2, len(settled) - VERDICTS_MAX)
        for stamp, address in settled[: max(0, count)]:
            self.verdicts_from = stamp
            del self._verdicts[address]
        self._verdicts_max = max(VERDICTS_REMEMBERED_MAX, 2 * len(self._verdicts))

    def _patched(self, state: bytes | None, payload: bytes, key: str) -> bytes | None:
        if payload == DELETED:
            return None
        merged = merge_patch(_decoded(state, key), _decoded(payload, key))
        return self._encoder.encode_data(merged, key, "state")

    def _check(self) -> None:
        """Assert what must hold between any two calls; for tests."""
        touched = set().union(*(pending.keys() for pending in self._pending))
        # A key is in base exactly when a pending event touches it.
        assert self._base.keys() == touched
        # Pending events are counted.
        assert self.pending_events == sum(len(pending.indices) for pending in self._pending)
        # Every pending run is above the watermark, and they are in total order.
        assert all(pending.stamp > self.watermark for pending in self._pending)
        assert self._pending == sorted(self._pending, key=attrgetter("order"))
        # All tombstones are known, and of those in base none is left whose time has come.
        assert self.tombstones == {key for key, row in self.rows.items() if is_tombstone(row)}
        assert all(tombstone_until(row) > self.watermark for row in self.base_rows().values() if is_tombstone(row))
        # No row is a deleted one.
        assert DELETED not in self.rows.values()


def _address(event: StoredEvent) -> Address:
    return (event.chapter, event.session, event.seq)


def _decoded(state: bytes | None, key: str) -> Data | None:
    return None if state is None else decode_data(state, f"key={key}")


def _put(rows: Rows, key: str, state: bytes | None) -> None:
    if state is None:
        rows.pop(key, None)
    else:
        rows[key] = state
