"""Queries: filters, orders and pages over a view's rows, through its indexes where they help. Pure.

A ``Query`` is what was asked, checked once. Each clause but ``contains`` is a set of values (spans.py), so an index
answers any clause on its own fields exactly; the others are left over as *filters*, tested on decoded rows. ``choose``
makes a ``Plan``: that index, or none, by which the fewest rows are examined. ``find`` carries it out:

1. The index yields the order asked for: stretches are read as they stand, merged where several are equal in rank,
   until the page is full.
2. No order was asked for, so rows come by key: keys are gathered and sorted, rows looked up until the page is full.
3. Neither: all rows selected are looked up, filtered and sorted.

A question may be about other rows than those that the indexes hold, where few differ: those at the watermark. Then
the rows that differ are left out of what the indexes yield, and what they are instead is scanned and merged in.

A cursor is the *position* of the last row returned: the encodings of the fields it was ordered by, and its key. The
next page is the rows that match now and stand behind that position now. So while rows change between pages, a row
that matches and stays where it stands is returned exactly once; one that moves is returned where it is met.

Invariants:
- What is returned depends on rows, query, limit and cursor alone, never on which indexes there are, nor on what was
  asked before.
- Rows ascend by the fields asked for, then by key: no two are equal, whatever the directions.
- A page's cursor is None exactly when no further row matched when it was made.
"""

from __future__ import annotations

import heapq
import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import filterfalse, islice
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgpack

from logstore.errors import InvalidArgument, InvalidCursor
from logstore.token import decode_token, encode_token
from projections.index import (
    NUMBER_BYTES,
    Document,
    Field,
    Index,
    Path,
    Selection,
    SortedIndex,
    Stretch,
    key_of,
    parse_path,
)
from projections.spans import (
    ALL,
    Spans,
    above,
    below,
    bound_bytes,
    complement,
    intersection,
    only_points,
    union_of_points,
)
from projections.values import descending, encode, field_value

__all__ = [
    "OPERATORS",
    "Asked",
    "Clause",
    "Difference",
    "Page",
    "Plan",
    "Query",
    "Rows",
    "Where",
    "choose",
    "count",
    "find",
    "pack",
]

Where: TypeAlias = Sequence[tuple[str, str, Any]]
Test: TypeAlias = Callable[[Any], bool]

_QUERIES_REMEMBERED_MAX: Final = 1_000  # parsed, some 10 kB each
_PLACES_MAX: Final = 20_000  # questions come back, again and again, with the same values: agents poll
_ROWS_REMEMBERED_MAX: Final = 100  # of a page that is remembered whole

_KEY_OF_NUMBER: Final = operator.itemgetter(slice(NUMBER_BYTES, None))


class Rows(Protocol):
    """The rows of a view, as a query sees them."""

    def __len__(self) -> int:
        """How many there are."""

    def keys(self) -> Iterable[str]:
        """Every row's key, in any order."""

    def document(self, key: str) -> Document:
        """The row of that key, decoded, read-only."""

    def look_up(self, keys: Iterable[str]) -> list[Document]:
        """The rows of these keys."""


class Difference(NamedTuple):
    """How the rows that a question is about differ from those that are at hand, and in the indexes."""

    gone: Set[str]  # keys of rows at hand that are not among those asked about, or are otherwise there
    instead: Rows  # what is there and not at hand, or not so


# Clauses ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a field with a value. ``spans`` are the values it lets through; None for ``contains``."""

    path: Path
    operator: str
    value: Any
    spans: Spans | None
    test: Test
    encoded: tuple[bytes, ...]  # of the value; of each of them, sorted, where the operator takes several

    @classmethod
    def parse(cls, clause: object) -> Clause:
        """Return the clause that ``(field, operator, value)`` means; InvalidArgument, naming it, for anything else."""
        if not isinstance(clause, (tuple, list)) or len(clause) != 3:
            raise InvalidArgument(f"a clause is (field, operator, value) clause={reprlib.repr(clause):.100}")
        name, sign, value = clause
        if not isinstance(sign, str) or sign not in OPERATORS:
            raise InvalidArgument(
                f"no such operator clause={reprlib.repr(clause):.100}; there are {' '.join(OPERATORS)}"
            )
        try:
            return OPERATORS[sign](parse_path(name), sign, value)
        except (InvalidArgument, UnicodeEncodeError, RecursionError) as error:
            raise InvalidArgument(f"{error} clause={reprlib.repr(clause):.100}") from error

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} {self.operator} {self.value!r:.60}"


def _equal(path: Path, sign: str, value: Any) -> Clause:
    encoded = encode(value)
    return Clause(path, sign, value, union_of_points([encoded]), _is(value), (encoded,))


def _one_of(path: Path, sign: str, value: Any) -> Clause:
    if not isinstance(value, (list, tuple, Set)):
        raise InvalidArgument("takes a list of values")
    encodings = sorted(set(map(encode, value)))
    return Clause(path, sign, value, union_of_points(encodings), _is_one_of(value), tuple(encodings))


def _contains(path: Path, sign: str, value: Any) -> Clause:
    is_value = _is(value)
    return Clause(
        path,
        sign,
        value,
        None,
        lambda found: isinstance(found, (list, tuple)) and any(map(is_value, found)),
        (encode(value),),
    )


def _other_than(equals: Callable[[Path, str, Any], Clause]) -> Callable[[Path, str, Any], Clause]:
    def other_than(path: Path, sign: str, value: Any) -> Clause:
        clause = equals(path, sign, value)
        assert clause.spans is not None
        return Clause(path, sign, value, complement(clause.spans), lambda found: not clause.test(found), clause.encoded)

    return other_than


def _ranging(
    compare: Callable[[Any, Any], bool], side: Callable[..., Spans], *, inclusive: bool
) -> Callable[[Path, str, Any], Clause]:
    def ranging(path: Path, sign: str, value: Any) -> Clause:
        encoded = encode(value)
        spans = side(encoded, inclusive=inclusive)
        test = _beside(value, compare) or partial(_within, spans)
        return Clause(path, sign, value, spans, test, (encoded,))

    return ranging


OPERATORS: Final[Mapping[str, Callable[[Path, str, Any], Clause]]] = {
    "==": _equal,
    "!=": _other_than(_equal),
    "in": _one_of,
    "not-in": _other_than(_one_of),
    "<": _ranging(operator.lt, below, inclusive=False),
    "<=": _ranging(operator.le, below, inclusive=True),
    ">": _ranging(operator.gt, above, inclusive=False),
    ">=": _ranging(operator.ge, above, inclusive=True),
    "contains": _contains,
}


def _is(value: Any) -> Test:
    """Whether a value is equal in the order over all values: 1 is 1.0 but not true; text is text."""
    if value is None or isinstance(value, bool):
        return lambda found: found is value
    if isinstance(value, (int, float)):
        return lambda found: found == value and not isinstance(found, bool)
    if isinstance(value, (str, bytes)):
        return lambda found: bool(found == value)
    return partial(_within, union_of_points([encode(value)]))


def _is_one_of(values: Iterable[Any]) -> Test:
    texts = frozenset(value for value in values if isinstance(value, str))
    tests = [_is(value) for value in values if not isinstance(value, str)]
    return lambda found: found in texts if isinstance(found, str) else any(test(found) for test in tests)


def _beside(value: Any, compare: Callable[[Any, Any], bool]) -> Test | None:
    """Compare with a number, text or bytes as Python does, within that type; None for values of other types."""
    if isinstance(value, bool):
        return None
    for kinds in ((int, float), (str,), (bytes,)):
        if isinstance(value, kinds):
            return lambda found: isinstance(found, kinds) and not isinstance(found, bool) and compare(found, value)
    return None


def _within(spans: Spans, found: Any) -> bool:
    encoded = encode(found)
    return any(bound_bytes(low) <= encoded < bound_bytes(high) for low, high in spans)


# The query --------------------------------------------------------------------------------


class Position(NamedTuple):
    """Where a row stands in a query's order: the encodings of the fields ordered by, and its key."""

    values: tuple[bytes, ...]
    key: str


class Query:
    """What was asked: clauses that must all hold, and fields to order by. Rows that are equal in these come by key.

    Limit and cursor are no part of it: the same query goes on from page to page.

    >>> query = Query.parse([("project_id", "==", "p"), ("status", "in", [0, 1])], ["-updated_at"])
    >>> query.matches({"project_id": "p", "status": 1})
    True
    """

    __slots__ = ("_accesses", "_fingerprint", "_matches", "clauses", "order", "order_by", "packed", "sets")

    def __init__(self, clauses: tuple[Clause, ...], order_by: tuple[Field, ...], packed: bytes | None = None) -> None:
        self.packed = packed  # what it was asked by, where that can be told by it
        self.clauses = clauses
        self.order_by = order_by
        self.sets: dict[Path, Spans] = {}  # what all clauses on a field let through together
        for clause in clauses:
            if clause.spans is not None:
                self.sets[clause.path] = intersection(self.sets.get(clause.path, ALL), clause.spans)
        # A field with one value only orders nothing.
        self.order = tuple(field for field in order_by if not _is_point(self.sets.get(field.path, ALL)))
        self._matches = _all_hold(clauses)
        self._fingerprint = _fingerprint(clauses, order_by)
        self._accesses: dict[Index, Access] = {}

    @classmethod
    def parse(cls, where: Where = (), order_by: Sequence[str] = ()) -> Query:
        """Return the query that these arguments mean; InvalidArgument names the one that means none.

        Cost: some 10 microseconds; one for a query that was parsed before.
        """
        packed = pack(where, order_by)
        return _parse(where, order_by) if packed is None else _parse_packed(packed)

    def __repr__(self) -> str:
        return f"<Query where=[{_and(self.clauses)}] order_by={list(map(str, self.order_by))}>"

    @property
    def impossible(self) -> bool:
        """Whether no value can satisfy all clauses on some field."""
        return not all(self.sets.values())

    def matches(self, document: Document) -> bool:
        """Whether all clauses hold for this row. Cost: a fraction of a microsecond for each clause."""
        return self._matches(document)

    def position(self, key: str, document: Document) -> Position:
        """Return where this row stands."""
        return Position(tuple([field.encode(document) for field in self.order]), key)

    def access(self, index: Index) -> Access:
        """Return what ``index`` can do for this query. Cost: some microseconds, at the first call."""
        access = self._accesses.get(index)
        if access is None:
            access = self._accesses[index] = Access.of(self, index)
        return access

    def sole_group(self, indexes: Iterable[SortedIndex]) -> tuple[SortedIndex, bytes] | None:
        """Return the one group of an index that holds all rows that match, in order; None where there is none."""
        for sorted_index in indexes:
            access = self._accesses.get(sorted_index.index) or self.access(sorted_index.index)
            if access.perfect:
                prefixes = access.selection.prefixes
                return (sorted_index, prefixes[0]) if len(prefixes) == 1 else None
        return None

    def cursor(self, position: Position, scope: str) -> str:
        """Return an opaque token for a position, good for this query and this ``scope`` (store and projection)."""
        return encode_token("cursor", [self.binding(scope), list(position.values), position.key])

    def parse_cursor(self, cursor: object, scope: str) -> Position:
        """Return the position that ``cursor`` stands for; InvalidCursor for all but what ``self.cursor`` returned."""
        refusal = InvalidCursor(
            f"not a cursor of this query and store cursor={cursor!r:.60}; ask for the first page again"
        )
        if not isinstance(cursor, str):
            raise refusal
        try:
            binding, values, key = decode_token("cursor", cursor)
        except (InvalidArgument, ValueError) as error:
            raise refusal from error
        if binding != self.binding(scope) or type(values) is not list or type(key) is not str:
            raise refusal
        if len(values) != len(self.order) or not set(map(type, values)) <= {bytes}:
            raise refusal
        return Position(tuple(values), key)

    def binding(self, scope: str) -> bytes:
        """Return what tells this query in this scope from others, for tokens that are good for no other. Cost: none."""
        return blake2b(scope.encode(), digest_size=12, key=self._fingerprint).digest()


def pack(where: Where, order_by: Sequence[str]) -> bytes | None:
    """Return bytes that tell what was asked from all else that may be: 1 from true and from 1.0, unlike the values.

    None where it has none; what is wrong with it then, ``Query.parse`` says. Cost: a microsecond.
    """
    if not isinstance(where, (list, tuple)) or not isinstance(order_by, (list, tuple)):
        raise InvalidArgument(f"takes lists where={reprlib.repr(where):.60} order_by={reprlib.repr(order_by):.60}")
    try:
        packed: bytes = msgpack.packb([where, order_by])
    except (TypeError, ValueError, OverflowError):
        return None
    return packed


@lru_cache(_QUERIES_REMEMBERED_MAX)
def _parse_packed(packed: bytes) -> Query:
    where, order_by = msgpack.unpackb(packed, strict_map_key=False)
    return _parse(where, order_by, packed)


def _parse(where: Sequence[Any], order_by: Sequence[Any], packed: bytes | None = None) -> Query:
    fields = tuple(map(Field.parse, order_by))
    if len({field.path for field in fields}) < len(fields):
        raise InvalidArgument(f"orders by a field twice order_by={reprlib.repr(order_by):.100}")
    return Query(tuple(map(Clause.parse, where)), fields, packed)


def _is_point(spans: Spans) -> bool:
    return len(spans) == 1 and only_points(spans) is not None


def _all_hold(clauses: Iterable[Clause]) -> Callable[[Document], bool]:
    tests = [(_getter(clause.path), clause.test) for clause in clauses]

    def all_hold(document: Document) -> bool:
        for get, test in tests:  # noqa: SIM110  # all() would cost more than most tests
            if not test(get(document)):
                return False
        return True

    return all_hold


def _getter(path: Path) -> Callable[[Document], Any]:
    return operator.methodcaller("get", *path) if len(path) == 1 else lambda document: field_value(document, path)


def _fingerprint(clauses: Iterable[Clause], order_by: Iterable[Field]) -> bytes:
    """Equal for queries that mean the same: in another order of clauses, or of values, or with 1.0 for 1."""
    meaning = [sorted((clause.path, clause.operator, clause.encoded) for clause in clauses), list(map(str, order_by))]
    return blake2b(msgpack.packb(meaning), digest_size=32).digest()


def _and(clauses: Iterable[Clause]) -> str:
    return " and ".join(map(str, clauses))


# Plans ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """What one index can do for a query, whatever rows there are.

    ``ranks`` is None when the index does not yield the order asked for. Else stretches sort by these of their
    values, each a place among the index's fields and whether it is turned round; and rows within a stretch come
    by key where a stretch has one value (``pointed``), else by entry, ``turned`` round or not.
    """

    index: Index
    selection: Selection
    answered: tuple[Clause, ...]
    filters: tuple[Clause, ...]
    matches: Callable[[Document], bool]  # the filters, as a test
    ranks: tuple[tuple[int, bool], ...] | None
    pointed: bool
    turned: bool
    perfect: bool  # no other index can do better: each row selected matches, and comes in order

    @classmethod
    def of(cls, query: Query, index: Index) -> Access:
        """Return what ``index`` can do for ``query``."""
        places = {field.path: (place, field.descending) for place, field in enumerate(index.fields)}
        answers = [clause.spans is not None and clause.path in places for clause in query.clauses]
        selection = Selection.of(index, query.sets)
        pointed = all(value is not None for *_, value in selection.within)
        ranks: list[tuple[int, bool]] | None = None
        turned = False
        if all(field.path in places for field in query.order):
            ranks = [(places[field.path][0], places[field.path][1] != field.descending) for field in query.order]
            if not pointed:  # the last field varies within a stretch: the order must end with it, and nowhere else
                last = len(index.fields) - 1
                place, turned = ranks.pop() if ranks else (-1, False)
                if place != last:
                    ranks = None
        filters = tuple(clause for clause, answer in zip(query.clauses, answers, strict=True) if not answer)
        return cls(
            index,
            selection,
            answered=tuple(clause for clause, answer in zip(query.clauses, answers, strict=True) if answer),
            filters=filters,
            matches=_all_hold(filters),
            ranks=None if ranks is None else tuple(ranks),
            pointed=pointed,
            turned=turned,
            perfect=not filters and ranks is not None and selection.spans is None,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query is carried out. Made by ``explain``; ``str(plan)`` tells it.

    >>> print(choose(Query.parse([("status", "==", 1)], ["name"]), [], row_count=20))
    scan of all 20 rows; tests status == 1; sorts by name; examines about 20 rows
    """

    query: Query
    access: Access | None  # None: all rows are scanned
    stretches: list[Stretch]
    selected: int  # rows in the stretches, or all rows
    examined: int  # rows to look at, estimated

    @property
    def index(self) -> Index | None:
        """The index used, or None: all rows are scanned."""
        return None if self.access is None else self.access.index

    @property
    def filters(self) -> tuple[Clause, ...]:
        """What the index does not answer: tested on each row."""
        return self.query.clauses if self.access is None else self.access.filters

    @property
    def matches(self) -> Callable[[Document], bool]:
        """The test that is left over."""
        return self.query.matches if self.access is None else self.access.matches

    @property
    def ordered(self) -> bool:
        """Whether rows come in the order asked for, so that a page needs no others."""
        return self.access is not None and self.access.ranks is not None

    def __str__(self) -> str:
        if self.query.impossible:
            return f"nothing satisfies {_and(self.query.clauses)}"
        if self.access is None:
            source = f"scan of all {self.selected} rows"
        else:
            where = f" where {_and(self.access.answered)}" if self.access.answered else ""
            source = f"{self.access.index!r}{where}: {self.selected} rows in {len(self.stretches)} stretches"
        filters = f"; tests {_and(self.filters)}" if self.filters else ""
        order = ", ".join(map(str, self.query.order)) or "key"
        comes = "comes in order of" if self.ordered else "sorts by"
        return f"{source}{filters}; {comes} {order}; examines about {self.examined} rows"


def choose(query: Query, indexes: Iterable[SortedIndex], *, row_count: int, limit: int | None = None) -> Plan:
    """Return the plan by which the fewest rows are examined.

    How many an index selects is counted. How many of these match is not known, but no more than the index that
    selects the fewest; they are taken to be spread evenly. Cost: some microseconds for each index, and one for each
    group looked at; indexes with more groups to look at than another makes examine rows are passed over.
    """
    usable: list[tuple[int, Access, SortedIndex]] = []
    for sorted_index in indexes:
        access = query.access(sorted_index.index)
        if access.perfect:
            return _plan(query, access, sorted_index.stretches(access.selection), None, limit)
        usable.append((sorted_index.groups_at_most(access.selection), access, sorted_index))
    usable.sort(key=operator.itemgetter(0))
    found: list[tuple[Access, list[Stretch]]] = []
    best = scan = Plan(query, None, [], row_count, row_count)
    for groups, access, sorted_index in usable:
        if groups >= best.examined:
            break
        found.append((access, sorted_index.stretches(access.selection)))
        fewest = min(row_count, *(_rows_in(stretches) for _, stretches in found))
        best = min([scan, *(_plan(query, *option, fewest, limit) for option in found)], key=_cost)
    return best


def _plan(query: Query, access: Access, stretches: list[Stretch], matching: int | None, limit: int | None) -> Plan:
    """Return the plan for these stretches, where ``matching`` rows match, or all (None)."""
    selected = examined = _rows_in(stretches)
    if limit is not None and access.ranks is not None:
        share = 1.0 if matching is None or not access.filters else selected / max(matching, 1)
        examined = min(selected, math.ceil((limit + 1) * share) + len(stretches) - 1)
    return Plan(query, access, stretches, selected, examined)


def _rows_in(stretches: Iterable[Stretch]) -> int:
    return sum([stretch.stop - stretch.start for stretch in stretches])


def _cost(plan: Plan) -> tuple[int, bool, int, int]:
    return plan.examined, not plan.ordered, len(plan.filters), len(plan.stretches)


# Carrying it out --------------------------------------------------------------------------


class Page(NamedTuple):
    """Rows and their keys, in order. ``cursor`` asks for the next page; None: there are no further rows now."""

    rows: list[Document]
    keys: list[str]
    cursor: str | None
    examined: int  # rows looked at in indexes or in the view, to find these


_LIMITS: Final = (int, type(None))
_ASKED_ONCE: Final = Page([], [], None, 0)  # in place of a page that is remembered when it is asked again


def find(
    query: Query,
    rows: Rows,
    indexes: Sequence[SortedIndex],
    *,
    limit: int | None = None,
    cursor: str | None = None,
    scope: str = "",
    difference: Difference | None = None,
) -> Page:
    """Return the first ``limit`` rows that match, in order; those behind ``cursor``, where there is one.

    ``scope`` names store and projection: a cursor is good where it was given. ``difference``: the question is not
    quite about ``rows``. Cost: with an index that answers all clauses and yields the order, some 20 microseconds, and
    half of one for each row returned; if that is one group of the index, and none of its rows has changed since the
    same was asked twice, some 5 microseconds; O(rows) without any; and a scan of the rows that differ. Raises
    InvalidArgument for the limit, InvalidCursor.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidArgument(f"needs a positive number or None limit={limit!r:.60}")
    place = query.sole_group(indexes) if difference is None else None
    if place is None or query.packed is None or not isinstance(cursor, str | None):
        return _find(query, rows, indexes, limit=limit, cursor=cursor, scope=scope, difference=difference)
    sorted_index, group = place
    question = (query.packed, limit, cursor, scope)
    known: Page | None = sorted_index.recall(group, question)
    if known is None or known is _ASKED_ONCE:
        page = _find(query, rows, indexes, limit=limit, cursor=cursor, scope=scope, difference=None)
        if len(page.keys) <= _ROWS_REMEMBERED_MAX:
            sorted_index.remember(group, question, _ASKED_ONCE if known is None else page)
        known = page
    return _own(known)


class Asked:
    """Where the answers to what was asked before stand, so that it need not be parsed to be answered again.

    Of a question only its bytes are kept, and which group of which index has all its rows: a tenth of a query.
    Agents ask the same all the time, and there may be thousands of them.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[SortedIndex, bytes]] = {}

    def recall(self, packed: bytes, limit: int | None, cursor: str | None, scope: str) -> Page | None:
        """Return the page that is remembered, and right. Cost: some microseconds."""
        place = self._places.get(packed)
        if place is None or type(limit) not in _LIMITS or not isinstance(cursor, str | None):
            return None
        sorted_index, group = place
        known = sorted_index.recall(group, (packed, limit, cursor, scope))
        return None if known is None or known is _ASKED_ONCE else _own(known)

    def note(self, query: Query, indexes: Sequence[SortedIndex]) -> None:
        """This was asked of these. Cost: a microsecond."""
        if query.packed is None or query.packed in self._places:
            return
        place = query.sole_group(indexes)
        if place is not None:
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            self._places[query.packed] = place


def _own(page: Page) -> Page:
    """The caller's own."""
    return page._replace(rows=page.rows.copy(), keys=page.keys.copy())


def _find(
    query: Query,
    rows: Rows,
    indexes: Sequence[SortedIndex],
    *,
    limit: int | None,
    cursor: str | None,
    scope: str,
    difference: Difference | None,
) -> Page:
    after = None if cursor is None else query.parse_cursor(cursor, scope)
    if query.impossible:
        return Page([], [], None, 0)
    plan = choose(query, indexes, row_count=len(rows), limit=limit)
    if difference is None:
        keys, documents, examined = _carry_out(plan, rows, after, limit)
    else:
        keys, documents, examined = _carry_out(plan, rows, after, limit, difference.gone)
        documents += rows.look_up(keys[len(documents) :])
        there = _matching(query, difference.instead, after, limit)
        both = sorted([*zip(keys, documents, strict=True), *there], key=lambda row: query.position(*row))
        keys, documents = [key for key, _ in both], [document for _, document in both]
        examined += len(difference.instead)
    if limit is None or len(keys) <= limit:
        return Page(documents, keys, None, examined)
    del keys[limit:], documents[limit:]
    return Page(documents, keys, query.cursor(query.position(keys[-1], documents[-1]), scope), examined)


def count(query: Query, rows: Rows, indexes: Sequence[SortedIndex], *, difference: Difference | None = None) -> int:
    """Return how many rows match. Cost: no row is looked up when one index answers all clauses; else as ``find``.

    Where there is a ``difference``, both sides of it are looked at.
    """
    if difference is not None:
        gone, there = rows.look_up(difference.gone), difference.instead.look_up(difference.instead.keys())
        matches = query.matches
        return count(query, rows, indexes) - sum(map(matches, gone)) + sum(map(matches, there))
    if query.impossible:
        return 0
    if not query.clauses:
        return len(rows)
    accesses = [(query.access(sorted_index.index), sorted_index) for sorted_index in indexes]
    exact = [
        (sorted_index.groups_at_most(access.selection), sorted_index, access)
        for access, sorted_index in accesses
        if not access.filters
    ]
    if exact:
        _, sorted_index, access = min(exact, key=operator.itemgetter(0))
        return _rows_in(sorted_index.stretches(access.selection))
    plan = choose(query, indexes, row_count=len(rows))
    return sum(plan.matches(rows.document(key)) for key in _selected_keys(plan, rows))


def _carry_out(
    plan: Plan, rows: Rows, after: Position | None, limit: int | None, gone: Set[str] = frozenset()
) -> tuple[list[str], list[Document], int]:
    """Return the first rows that match, without those that are ``gone``, and how many were examined.

    There is one key more than ``limit`` where one more row matches; it may be without its row.
    """
    if plan.ordered:
        drawn = _in_order(plan, after)
        keys, documents, examined = _first(plan, rows, _without(gone, drawn), limit)
        examined += max(len(plan.stretches) - 1, 0)  # a merge looks one row ahead in each stretch
        return keys, documents, examined
    selected = _selected_keys(plan, rows)
    examined = len(selected)
    if gone:
        selected = list(_without(gone, selected))
    if not plan.query.order:
        keys, documents, _ = _first(plan, rows, _by_key(selected, after, limit), limit)
    else:
        keys, documents = _sorted(plan, rows, selected, after, limit)
    return keys, documents, examined


def _without(gone: Set[str], keys: Iterable[str]) -> Iterator[str]:
    return filterfalse(gone.__contains__, keys) if gone else iter(keys)


def _matching(query: Query, rows: Rows, after: Position | None, limit: int | None) -> Iterator[tuple[str, Document]]:
    """Return the first rows that match, and one more where there is one, by looking at all."""
    scan = Plan(query, None, [], len(rows), len(rows))
    return zip(*_sorted(scan, rows, list(rows.keys()), after, limit), strict=True)


def _first(plan: Plan, rows: Rows, keys: Iterator[str], limit: int | None) -> tuple[list[str], list[Document], int]:
    """Return the first rows that match, and one more key where there is one, and how many keys were drawn for it."""
    wanted = None if limit is None else limit + 1
    if not plan.filters:
        drawn = list(islice(keys, wanted))
        return drawn, rows.look_up(drawn[:limit]), len(drawn)
    matches, examined = plan.matches, 0
    found: list[str] = []
    documents: list[Document] = []
    for key in keys:
        examined += 1
        document = rows.document(key)
        if matches(document):
            found.append(key)
            documents.append(document)
            if len(found) == wanted:
                break
    return found, documents, examined


def _in_order(plan: Plan, after: Position | None) -> Iterator[str]:
    """Yield the keys behind ``after`` in the order asked for: stretches by rank, those of equal rank merged."""
    access = plan.access
    assert access is not None
    assert access.ranks is not None
    depth = len(access.ranks)
    for rank, stretches in _by_rank(plan.stretches, access.ranks):
        behind = None
        if after is not None and rank <= after.values[:depth]:
            if rank < after.values[:depth]:
                continue
            behind = b"".join(after.values[depth:]) + after.key.encode()
        if access.pointed:
            streams = [stretch.keys(behind) for stretch in stretches]
        elif access.turned:
            streams = [stretch.turned_entries(behind) for stretch in stretches]
        else:
            streams = [stretch.entries(behind) for stretch in stretches]
        stream = streams[0] if len(streams) == 1 else heapq.merge(*streams)
        if access.pointed:
            yield from map(bytes.decode, stream)
        elif len(stretches) == 1 and stretches[0].holds_everyday_numbers():
            yield from map(bytes.decode, map(_KEY_OF_NUMBER, stream))
        else:
            yield from map(key_of, stream)


def _by_rank(
    stretches: list[Stretch], ranks: tuple[tuple[int, bool], ...]
) -> Iterable[tuple[tuple[bytes, ...], list[Stretch]]]:
    if not ranks:
        return [((), stretches)]
    ranked: dict[tuple[bytes, ...], list[Stretch]] = {}
    for stretch in stretches:
        values = stretch.values()
        rank = tuple([descending(values[place]) if turned else values[place] for place, turned in ranks])
        ranked.setdefault(rank, []).append(stretch)
    return sorted(ranked.items())


def _selected_keys(plan: Plan, rows: Rows) -> list[str]:
    if plan.access is None:
        return list(rows.keys())
    return [key_of(entry) for stretch in plan.stretches for entry in stretch.entries()]


def _by_key(keys: list[str], after: Position | None, limit: int | None) -> Iterator[str]:
    """Yield the keys behind ``after``, ascending. Cost: O(n), and O(log n) for each taken, where there is a limit."""
    heap = [key for key in keys if key > after.key] if after is not None else keys
    if limit is None:
        yield from sorted(heap)
        return
    heapq.heapify(heap)
    while heap:
        yield heapq.heappop(heap)


def _sorted(
    plan: Plan, rows: Rows, keys: list[str], after: Position | None, limit: int | None
) -> tuple[list[str], list[Document]]:
    """Return the first rows that match and stand behind ``after``, and one more where there is one.

    Of the others none is kept, where there is a limit.
    """

    def found() -> Iterator[tuple[Position, Document]]:  # no two positions are equal, so documents are never compared
        for key in keys:
            document = rows.document(key)
            if plan.matches(document):
                position = plan.query.position(key, document)
                if after is None or position > after:
                    yield position, document

    ordered = sorted(found()) if limit is None else heapq.nsmallest(limit + 1, found())
    return [position.key for position, _ in ordered], [document for _, document in ordered]
