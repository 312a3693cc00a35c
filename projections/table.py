"""Rows to read: by key, or by query through the indexes. What views of now and of the past have in common.

Invariants:
- Rows and indexes agree whenever a caller can look.
- What is handed out is read-only, and right for as long as the caller keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final, NamedTuple

from logstore.digest import rows_digest
from logstore.event import Data, decode_data
from projections.bounded import MemoryBudget
from projections.decoded import DecodedRows, decode_each
from projections.heap import built_to_stay
from projections.index import SortedIndex, build
from projections.projection import Projection
from projections.query import Asked, Difference, Page, Plan, Query, Where, choose, count, find, pack
from projections.state import State
from projections.tombstone import is_tombstone

__all__ = ["Change", "Table", "decode_or_none"]

MANY_ROWS: Final = 20_000  # from here on the collector's visits to the indexes are felt


class Change(NamedTuple):
    """A row before and after; None where there was, or is, none."""

    key: str
    old: Data | None
    new: Data | None

    @property
    def differs(self) -> bool:
        """Whether there is anything to see: not so where a tombstone went."""
        return self.old is not self.new


class Table:
    """The rows of a projection. Not made by callers: ``View`` is one."""

    def __init__(self, projection: Projection, store_id: bytes, budget: MemoryBudget) -> None:
        self._projection = projection
        self._scope = f"{store_id.hex()} {projection.name} {projection.version}"  # what a cursor is bound to
        self._decoded = DecodedRows(budget.decoded_bytes_max)
        self._decoded_at_watermark = DecodedRows(budget.decoded_bytes_max)  # of keys with anything pending
        new_rows = partial(budget.new_rows, self._decoded.note_forgotten)
        self._state = State(projection, new_rows, budget.since_bytes_max)
        self._indexes: list[SortedIndex] | None = None  # built at the first question that wants them
        self._asked = Asked()
        self._times_forgotten = 0  # by ``_decoded``, when the indexes were last told

    def get(self, key: str, *, settled: bool = False) -> Data | None:
        """Return the row of ``key``, read-only, or None: everything visible, or what is settled.

        Cost: O(1); decoding, the first time a row is looked at.
        """
        row = self._state.base_row(key) if settled else self._state.rows.get(key)
        return None if row is None or is_tombstone(row) else self._decoded.of(key, row)

    def state(self, key: str) -> Data | None:
        """What the fold would be given for the next event of ``key``: its row, or the ``Tombstone`` that it left.

        Cost: O(1), and decoding.
        """
        return self._state.seen(key)

    def is_settled(self, key: str) -> bool:
        """Whether nothing about ``key`` is pending. Cost: O(1)."""
        return key not in self._state.base_of_pending

    @property
    def projection(self) -> Projection:
        """What it is a view of. Cost: none."""
        return self._projection

    def __len__(self) -> int:
        return len(self._state.rows) - len(self._state.tombstones)

    def find(
        self,
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
        cursor: str | None = None,
        *,
        settled: bool = False,
    ) -> Page:
        """Return the rows that match all of ``where``, in order, at most ``limit``: ``.rows``, ``.keys``, ``.cursor``.

        ``where``: (field, operator, value), with == != in not-in < <= > >= contains; ``order_by``: fields, "-" for
        descending; ties by key. ``cursor``: that of the page before, None when it was the last. ``settled``: among
        rows as they are at the watermark. Cost: as ``explain`` says; the first question builds the indexes, O(rows log
        rows); a settled one also looks at each key that has something pending. Raises InvalidArgument, InvalidCursor.

        >>> async def example(view):
        ...     return view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
        """
        indexes, scope = self._built_indexes(), self._scope
        packed = None if settled else pack(where, order_by)
        if packed is not None and (page := self._asked.recall(packed, limit, cursor, scope)) is not None:
            return page
        query = Query.parse(where, order_by)
        difference = self._difference() if settled else None
        page = find(query, self, indexes, limit=limit, cursor=cursor, scope=scope, difference=difference)
        self._asked.note(query, indexes)
        return page

    def find_instead(
        self, where: Where, order_by: Sequence[str], limit: int | None, instead: Mapping[str, Data | None]
    ) -> Page:
        """As ``find``, if these keys had these rows instead of theirs, None: none. Cost: its, and O(instead)."""
        rows = {key: row for key, row in instead.items() if row is not None}
        gone = (instead.keys() & self._state.rows.keys()) - self._state.tombstones
        difference = Difference(gone, _GivenRows(rows)) if instead else None
        query, indexes = Query.parse(where, order_by), self._built_indexes()
        return find(query, self, indexes, limit=limit, scope=self._scope, difference=difference)

    def count(self, where: Where = (), *, settled: bool = False) -> int:
        """Return how many rows match. Cost: looks at no row when one index answers all clauses; else as ``find``."""
        difference = self._difference() if settled else None
        return count(Query.parse(where), self, self._built_indexes(), difference=difference)

    def explain(self, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Plan:
        """Return how ``find`` would go about it; ``str()`` says it in words. Cost: some microseconds per index."""
        return choose(Query.parse(where, order_by), self._built_indexes(), row_count=len(self), limit=limit)

    def _built_indexes(self) -> list[SortedIndex]:
        if self._indexes is None:
            self._state.track_changes()
            self._asked = Asked()
            with built_to_stay() if len(self) >= MANY_ROWS else nullcontext():
                self._indexes = build(self._projection.indexes, decode_each(self._shown(self._state.rows.items())))
        elif self._times_forgotten != self._decoded.times_forgotten:
            self._forget_finds()
        return self._indexes

    def _forget_finds(self) -> None:
        """Let no index remember rows that are no longer remembered decoded."""
        self._times_forgotten = self._decoded.times_forgotten
        for index in self._indexes or ():
            index.forget_finds()

    def _difference(self) -> Difference | None:
        """How rows at the watermark differ from those that are visible. Cost: O(keys with anything pending)."""
        rows, base = self._state.rows, self._state.base_of_pending
        if not base:
            return None
        differing = {key: row for key, row in base.items() if row != rows.get(key)}
        instead = dict(self._shown((key, row) for key, row in differing.items() if row is not None))
        gone = (differing.keys() & rows.keys()) - self._state.tombstones
        return Difference(gone, _SomeRows(instead, self._decoded_at_watermark))

    def _shown(self, rows: Iterable[tuple[str, bytes]]) -> Iterable[tuple[str, bytes]]:
        """Those that are no tombstones."""
        if not self._projection.tombstones:
            return rows
        return ((key, row) for key, row in rows if not is_tombstone(row))

    def keys(self) -> Iterable[str]:
        """Every row's key, in no order. Cost: none; O(rows) with a memory budget. Do not keep it while it moves."""
        rows, tombstones = self._state.rows, self._state.tombstones
        keys = rows.keys() if isinstance(rows, dict) else rows.keys_as_stored()
        return (key for key in keys if key not in tombstones) if tombstones else keys

    def look_up(self, keys: Iterable[str]) -> list[Data]:
        """The rows of keys that are there. Raises KeyError. Cost: as ``get``, for each."""
        return self._decoded.all_of(keys, self._state.rows)

    def document(self, key: str) -> Data:
        """The row of a key that is there. Raises KeyError. Cost: as ``get``."""
        return self._decoded.of(key, self._state.rows[key])

    def digest(self, *, pending: bool = False) -> str:
        """A number in hexadecimal that two views share exactly when their rows are equal: at the watermark, or visible.

        The sum, modulo 2**256, of the SHA-256 of each key with its state's bytes. Cost: O(rows).
        """
        rows = self._state.rows if pending else self._state.base_rows()
        return f"{rows_digest(rows.items()):064x}"

    @property
    def watermark(self) -> int:
        """The stamp at or below which its rows can no longer change by late events. Cost: none."""
        return self._state.watermark

    def _index_changes(self, changes: Mapping[str, bytes | None]) -> None:
        """Bring the indexes up to date: these keys have changed, each from the row given here."""
        for key, before in changes.items():
            old, new = decode_or_none(key, before), decode_or_none(key, self._state.rows.get(key))
            for index in self._indexes or ():
                index.change(key, old, new)


class _SomeRows:
    """Rows for a query to look at."""

    def __init__(self, rows: Mapping[str, bytes], decoded: DecodedRows) -> None:
        self._rows = rows
        self._decoded = decoded

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> Iterable[str]:
        return self._rows.keys()

    def look_up(self, keys: Iterable[str]) -> list[Data]:
        return self._decoded.all_of(keys, self._rows)

    def document(self, key: str) -> Data:
        return self._decoded.of(key, self._rows[key])


class _GivenRows:
    """Rows that a query is to look at, decoded already."""

    def __init__(self, rows: Mapping[str, Data]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> Iterable[str]:
        return self._rows.keys()

    def look_up(self, keys: Iterable[str]) -> list[Data]:
        return [self._rows[key] for key in keys]

    def document(self, key: str) -> Data:
        return self._rows[key]


def decode_or_none(key: str, row: bytes | None) -> Data | None:
    """A row that may not be there, decoded."""
    return None if row is None or is_tombstone(row) else decode_data(row, f"key={key}")
