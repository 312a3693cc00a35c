"""Queries: against plain lists, filtered and sorted by plain comparisons."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from itertools import combinations
from types import MappingProxyType
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import InvalidArgument, InvalidCursor
from logstore.token import encode_token
from projections.index import Index, SortedIndex, build
from projections.query import OPERATORS, Difference, Query, choose, count, find
from tests.test_index import DOCUMENT, DOCUMENTS, FIELDS, INDEX, KEY, VALUE, read, small_parts
from tests.test_values import compare, rank

Documents: TypeAlias = dict[str, dict[str, Any]]
Where: TypeAlias = list[tuple[str, str, Any]]
SCOPE = "store/things/1"


@dataclass
class Table:
    """Rows and their indexes, kept as a view keeps them; counts the rows looked up."""

    documents: Documents
    declared: Sequence[Index] = ()
    looked_up: int = 0
    indexes: list[SortedIndex] = field(init=False)

    def __post_init__(self) -> None:
        self.documents = dict(self.documents)
        self.indexes = build(self.declared, self.documents.items())

    def __len__(self) -> int:
        return len(self.documents)

    def keys(self) -> Iterable[str]:
        return self.documents

    def look_up(self, keys: Iterable[str]) -> list[Mapping[str, Any]]:
        return list(map(self.document, keys))

    def document(self, key: str) -> Mapping[str, Any]:
        self.looked_up += 1
        frozen = freeze(self.documents[key])
        assert isinstance(frozen, Mapping)
        return frozen

    def put(self, key: str, document: dict[str, Any] | None) -> None:
        for index in self.indexes:
            index.change(key, self.documents.get(key), document)
        self.documents.pop(key, None)
        if document is not None:
            self.documents[key] = document


def freeze(value: Any) -> Any:
    """A value as a view hands it out: read-only all through."""
    if isinstance(value, dict):
        return MappingProxyType({name: freeze(inner) for name, inner in value.items()})
    return tuple(map(freeze, value)) if isinstance(value, list) else value


# The oracle: nothing of projections is used ------------------------------------------------


def holds(found: Any, sign: str, value: Any) -> bool:
    """What each operator means, in plain comparisons."""
    alike = rank(found) == rank(value)
    match sign:
        case "==":
            return compare(found, value) == 0
        case "!=":
            return compare(found, value) != 0
        case "in":
            return any(compare(found, one) == 0 for one in value)
        case "not-in":
            return all(compare(found, one) != 0 for one in value)
        case "<":
            return alike and compare(found, value) < 0
        case "<=":
            return alike and compare(found, value) <= 0
        case ">":
            return alike and compare(found, value) > 0
        case ">=":
            return alike and compare(found, value) >= 0
        case _:
            return isinstance(found, list) and any(compare(one, value) == 0 for one in found)


def stands(one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]], order_by: list[str]) -> int:
    """Which of two rows comes first."""
    for name in order_by:
        path = name.removeprefix("-")
        if different := compare(read(one[1], path), read(other[1], path)):
            return -different if name.startswith("-") else different
    return (one[0] > other[0]) - (one[0] < other[0])


def expected(documents: Documents, where: Where, order_by: list[str]) -> list[str]:
    """The keys of the rows that match, in order."""
    matching = {
        key: document
        for key, document in documents.items()
        if all(holds(read(document, path), sign, value) for path, sign, value in where)
    }

    def order(one: str, other: str) -> int:
        return stands((one, matching[one]), (other, matching[other]), order_by)

    return sorted(matching, key=cmp_to_key(order))


@st.composite
def clauses(draw: st.DrawFn) -> tuple[str, str, Any]:
    """One clause, of any operator."""
    sign = draw(st.sampled_from(list(OPERATORS)))
    value = draw(st.lists(VALUE, max_size=4) if sign in ("in", "not-in") else VALUE)
    return draw(st.sampled_from(FIELDS)), sign, value


WHERE = st.lists(clauses(), max_size=3)
ORDER = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(FIELDS)), max_size=3, unique_by=lambda field: field[1]
).map(lambda fields: [sign + name for sign, name in fields])
INDEXES = st.lists(INDEX, max_size=3)
LIMIT = st.none() | st.integers(1, 5)


@settings(max_examples=200)
@given(DOCUMENTS, INDEXES, WHERE, ORDER, LIMIT)
def test_find_returns_what_a_plain_list_would(
    documents: Documents, declared: list[Index], where: Where, order_by: list[str], limit: int | None
) -> None:
    """Page by page to the end: the rows that match, in order, whatever the indexes; the last page has no cursor."""
    with small_parts():
        table = Table(documents, declared)
        query = Query.parse(where, order_by)
        keys: list[str] = []
        cursor = None
        while True:
            page = find(query, table, table.indexes, limit=limit, cursor=cursor, scope=SCOPE)
            assert page.rows == [freeze(documents[key]) for key in page.keys]
            assert limit is None or len(page.keys) <= limit
            keys += page.keys
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.keys) == limit
        assert keys == expected(documents, where, order_by)


@given(DOCUMENTS, INDEXES, WHERE)
def test_count_counts_what_find_returns(documents: Documents, declared: list[Index], where: Where) -> None:
    """``count`` is the number of rows that match; where one index answers all clauses, no row is looked up."""
    table = Table(documents, declared)
    query = Query.parse(where)
    assert count(query, table, table.indexes) == len(expected(documents, where, []))
    answers = [{".".join(field.path) for field in index.fields} for index in declared]
    if any(all(path in paths and sign != "contains" for path, sign, _ in where) for paths in answers):
        assert table.looked_up == 0


@settings(max_examples=100)
@given(
    st.builds(Table, DOCUMENTS, INDEXES),
    WHERE,
    ORDER,
    st.integers(1, 4),
    st.lists(st.lists(st.tuples(KEY, st.none() | DOCUMENT), max_size=4), max_size=8),
)
def test_pages_go_on_behind_the_last_row_whatever_changes(
    table: Table,
    where: Where,
    order_by: list[str],
    limit: int,
    changes: list[list[tuple[str, dict[str, Any] | None]]],
) -> None:
    """Each page is the first rows that match now and stand behind where the last row stood when it was returned.

    So what stays put is returned once, whatever else moves; and a page without a cursor was the last one.
    """
    documents = dict(table.documents)
    query = Query.parse(where, order_by)
    last: tuple[str, dict[str, Any]] | None = None
    cursor = None
    returned: list[str] = []
    moved: set[str] = set()
    remaining = iter(changes)
    while True:
        page = find(query, table, table.indexes, limit=limit, cursor=cursor, scope=SCOPE)
        rest = [
            key
            for key in expected(table.documents, where, order_by)
            if last is None or stands((key, table.documents[key]), last, order_by) > 0
        ]
        assert page.keys == rest[:limit]
        assert (page.cursor is None) == (len(rest) <= limit)
        returned += page.keys
        cursor = page.cursor
        if cursor is None:
            break
        last = page.keys[-1], table.documents[page.keys[-1]]
        for key, document in next(remaining, []):
            table.put(key, document)
            moved.add(key)
    stayed = [key for key in expected(documents, where, order_by) if key not in moved]
    assert [key for key in returned if key not in moved] == stayed


def difference(table: Table, documents: Documents) -> Difference:
    """What to ask ``table`` with, to be told about ``documents``."""
    old, new = table.documents, documents
    differ = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return Difference(differ & old.keys(), Table({key: new[key] for key in differ & new.keys()}))


@settings(max_examples=200)
@given(
    DOCUMENTS,
    st.dictionaries(KEY, st.none() | DOCUMENT, max_size=4),
    INDEXES,
    st.tuples(WHERE, ORDER),
    LIMIT,
)
def test_rows_that_differ_are_found_as_if_they_were_there(
    documents: Documents,
    changes: dict[str, dict[str, Any] | None],
    declared: list[Index],
    asked: tuple[Where, list[str]],
    limit: int | None,
) -> None:
    """With indexes over some rows, and how others differ from these: what a plain list of the others would return."""
    changed = {key: document for key, document in {**documents, **changes}.items() if document is not None}
    where, order_by = asked
    table, query = Table(changed, declared), Query.parse(where, order_by)
    differs = difference(table, documents)
    keys: list[str] = []
    cursor = None
    while True:
        page = find(query, table, table.indexes, limit=limit, cursor=cursor, scope=SCOPE, difference=differs)
        assert page.rows == [freeze(documents[key]) for key in page.keys]
        keys += page.keys
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.keys) == limit
    assert keys == expected(documents, where, order_by)
    assert count(Query.parse(where), table, table.indexes, difference=differs) == len(keys)


def test_rows_that_do_not_differ_are_not_scanned() -> None:
    """Where an index yields the order, what is looked up is the page, and the rows that differ."""
    documents = {f"d-{number:03d}": {"p": number % 2, "n": number} for number in range(200)}
    table = Table({**documents, "d-006": {"p": 0, "n": 1_000}}, [Index("p", "-n")])
    differs = difference(table, documents)
    page = find(Query.parse([("p", "==", 0)], ["-n"]), table, table.indexes, limit=3, difference=differs)
    assert page.keys == ["d-198", "d-196", "d-194"]
    assert table.looked_up == 4  # the first of the next page is placed, too
    assert page.examined == 4 + 1


def test_a_page_asked_again_is_remembered_until_a_row_of_its_group_changes() -> None:
    """Asked twice, nothing is looked up any more; any change of a row counts; and pages are the caller's own."""
    table = Table({f"d-{number}": {"p": number % 2, "n": number} for number in range(9)}, [Index("p", "-n")])
    (index,) = table.indexes
    query = Query.parse([("p", "==", 0)], ["-n"])

    def looked_up() -> int:
        table.looked_up = 0
        page = find(query, table, table.indexes, limit=2, scope=SCOPE)
        assert page.keys == expected(table.documents, [("p", "==", 0)], ["-n"])[:2]
        assert page.rows == [table.documents[key] for key in page.keys]
        page.keys.clear()
        page.rows.clear()
        index._check()
        return table.looked_up

    assert [looked_up(), looked_up(), looked_up()] == [2, 2, 0]
    table.put("d-1", {"p": 1, "n": 100})  # another group
    assert looked_up() == 0
    for key, document in (
        ("d-8", {"p": 0, "n": 8, "said": "more"}),
        ("d-8", {"p": 1, "n": 8}),
        ("d-8", {"p": 0, "n": 7}),
        ("d-6", None),
        ("d-9", {"p": 0, "n": 9}),
    ):
        table.put(key, document)
        assert [looked_up(), looked_up(), looked_up()] == [2, 2, 0]
    index.forget_finds()
    assert looked_up() == 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More questions than that are answered as well."""
    monkeypatch.setattr("projections.index._FINDS_REMEMBERED_MAX", 1_000)
    table = Table({f"d-{number}": {"p": number, "n": number} for number in range(700)}, [Index("p", "n")])
    for limit in (1, 2):
        for number in range(700):
            assert find(Query.parse([("p", "==", number)]), table, table.indexes, limit=limit).keys == [f"d-{number}"]
        table.indexes[0]._check()


@given(DOCUMENTS, INDEXES, WHERE, ORDER)
def test_only_rows_that_need_it_are_looked_up(
    documents: Documents, declared: list[Index], where: Where, order_by: list[str]
) -> None:
    """Where an index answers all clauses and yields the order, the rows returned are the only ones looked up."""
    table = Table(documents, declared)
    query = Query.parse(where, order_by)
    plan = choose(query, table.indexes, row_count=len(table), limit=2)
    page = find(query, table, table.indexes, limit=2, scope=SCOPE)
    if not plan.filters and (plan.ordered or not query.order):
        assert table.looked_up == len(page.rows)
    assert table.looked_up <= len(documents)


@given(WHERE, ORDER, st.randoms(use_true_random=False))
def test_a_cursor_is_good_for_the_same_question_asked_otherwise(
    where: Where, order_by: list[str], chance: random.Random
) -> None:
    """Clauses and listed values may change their places: what is asked is the same."""
    query = Query.parse(where, order_by)
    shuffled = [
        (path, sign, chance.sample(value, len(value)) if sign in ("in", "not-in") else value)
        for path, sign, value in chance.sample(where, len(where))
    ]
    position = query.position("k", {"a": 1})
    assert Query.parse(shuffled, order_by).parse_cursor(query.cursor(position, SCOPE), SCOPE) == position


QUERY = Query.parse([("a", "==", 1)], ["-b"])
CURSOR = QUERY.cursor(QUERY.position("k", {"a": 1, "b": 2}), SCOPE)


@pytest.mark.parametrize(
    ("where", "order_by", "scope"),
    [
        ([("a", "==", 2)], ["-b"], SCOPE),
        ([("a", "==", True)], ["-b"], SCOPE),
        ([("a", "!=", 1)], ["-b"], SCOPE),
        ([("a", "in", [1])], ["-b"], SCOPE),
        ([("b", "==", 1)], ["-b"], SCOPE),
        ([("a", "==", 1), ("a", "==", 1)], ["-b"], SCOPE),
        ([], ["-b"], SCOPE),
        ([("a", "==", 1)], ["b"], SCOPE),
        ([("a", "==", 1)], [], SCOPE),
        ([("a", "==", 1)], ["-b", "n.x"], SCOPE),
        ([("a", "==", 1)], ["-b"], "other-store/things/1"),
        ([("a", "==", 1)], ["-b"], "store/things/2"),
    ],
)
def test_a_cursor_of_another_query_or_store_is_refused(where: Where, order_by: list[str], scope: str) -> None:
    """A cursor is bound to clauses, order and scope: with any other it is InvalidCursor."""
    table = Table({"k": {"a": 1}})
    assert find(QUERY, table, [], cursor=CURSOR, scope=SCOPE, limit=1).keys == ["k"]
    with pytest.raises(InvalidCursor):
        find(Query.parse(where, order_by), table, [], limit=1, cursor=CURSOR, scope=scope)


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "e30=", "cursor-", CURSOR[:-1], CURSOR + "A", CURSOR.upper(), "é", 5, b"cursor", ["a"]),
        *(encode_token("receipt", [1]), encode_token("cursor", []), encode_token("cursor", [b"", [], "k"])),
    ],
)
def test_garbage_is_no_cursor(cursor: Any) -> None:
    """Anything that no query of this library returned is InvalidCursor, never another error, and never a page."""
    with pytest.raises(InvalidCursor):
        find(QUERY, Table({}), [], cursor=cursor, scope=SCOPE)


@pytest.mark.parametrize(
    "clause",
    [
        ("a", "=", 1),
        ("a", "==", math.nan),
        ("a", "==", 2**64),
        ("a", "<", -(2**63) - 1),
        ("a", "==", "\ud800"),
        ("a", "==", object()),
        ("a", "==", [[math.nan]]),
        ("a", "in", 1),
        ("a", "in", "text"),
        ("a", "in", {"b": 1}),
        ("a", "not-in", None),
        ("a", "in", [1, math.nan]),
        ("a", "contains", math.nan),
        ("", "==", 1),
        ("a..b", "==", 1),
        ("-a", "==", 1),
        (5, "==", 1),
        ("a", ["=="], 1),
        ("a", "=="),
        "a==1",
        None,
    ],
)
def test_a_clause_that_means_nothing_is_named(clause: Any) -> None:
    """InvalidArgument, with the clause in its message: unknown operators, NaN, too large integers, lists of nothing."""
    with pytest.raises(InvalidArgument, match="clause="):
        Query.parse([("b", "==", 1), clause])


@pytest.mark.parametrize("order_by", [[""], ["a", "-a"], ["a", "a"], [None], ["a."], "a", {"a": 1}, 5])
def test_an_order_that_means_nothing_is_refused(order_by: Any) -> None:
    """InvalidArgument for empty or doubled fields and for what is no list."""
    with pytest.raises(InvalidArgument):
        Query.parse([], order_by)


@pytest.mark.parametrize("where", ["a", {"a": 1}, 5, None])
def test_filters_are_a_list(where: Any) -> None:
    """InvalidArgument for anything but a list of clauses."""
    with pytest.raises(InvalidArgument):
        Query.parse(where)


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, "1"])
def test_a_limit_is_a_positive_number(limit: Any) -> None:
    """InvalidArgument for anything else; None is no limit."""
    with pytest.raises(InvalidArgument):
        find(Query.parse(), Table({}), [], limit=limit)


def test_one_is_not_true_in_a_query_asked_again() -> None:
    """Queries are remembered by what they mean: 1, 1.0 and true in the same place never stand for one another."""
    table = Table({"one": {"a": 1}, "true": {"a": True}, "false": {"a": False}, "zero": {"a": 0.0}})
    found = [find(Query.parse([("a", "==", value)]), table, []).keys for value in (1, True, 1.0, False, 0, 0.0)]
    assert found == [["one"], ["true"], ["one"], ["false"], ["zero"], ["zero"]]


def test_a_set_may_list_values() -> None:
    """``in`` takes lists, tuples and sets."""
    table = Table({"k": {"a": 1}})
    for values in ([1, "x"], (1, "x"), {1, "x"}, frozenset({1, "x"})):
        assert find(Query.parse([("a", "in", values)]), table, []).keys == ["k"]


@pytest.mark.parametrize(
    ("where", "order_by", "explained"),
    [
        (
            [("p", "==", 1)],
            ["-t"],
            "Index('p', '-t') where p == 1: 100 rows in 1 stretches; comes in order of -t; examines about 11 rows",
        ),
        (
            [("p", "==", 1)],
            ["t"],
            "Index('p', '-t') where p == 1: 100 rows in 1 stretches; comes in order of t; examines about 11 rows",
        ),
        (
            [("p", "==", 1), ("t", ">=", 1_000), ("s", "==", 2)],
            ["-t"],
            (
                "Index('p', '-t') where p == 1 and t >= 1000: 50 rows in 1 stretches; tests s == 2; "
                "comes in order of -t; examines about 11 rows"
            ),
        ),
        (
            [("p", "in", [1, 2])],
            ["-t"],
            "Index('p', '-t') where p in [1, 2]: 200 rows in 2 stretches; comes in order of -t; examines about 12 rows",
        ),
        (
            [("q", "==", 7), ("s", "in", [0, 1])],
            [],
            (
                "Index('q', 's') where q == 7 and s in [0, 1]: 14 rows in 2 stretches; comes in order of key; "
                "examines about 12 rows"
            ),
        ),
        (
            [("q", "==", 7)],
            ["name"],
            "Index('q', 's') where q == 7: 20 rows in 1 stretches; sorts by name; examines about 20 rows",
        ),
        ([], ["-t"], "Index('p', '-t'): 2000 rows in 20 stretches; comes in order of -t; examines about 30 rows"),
        ([("name", "==", "n")], [], "scan of all 2000 rows; tests name == 'n'; sorts by key; examines about 2000 rows"),
        ([("p", "in", [])], [], "nothing satisfies p in []"),
    ],
)
def test_a_plan_explains_itself(where: Where, order_by: list[str], explained: str) -> None:
    """Which index, the clauses it answers, the rows that leaves, what is tested, and whether order is given or made."""
    documents = {f"k{n}": {"p": n % 20, "q": n % 100, "s": n // 100 % 3, "t": n, "name": "n"} for n in range(2_000)}
    table = Table(documents, [Index("p", "-t"), Index("q", "s")])
    plan = choose(Query.parse(where, order_by), table.indexes, row_count=len(table), limit=10)
    assert str(plan) == explained


def test_an_index_that_selects_few_wins_over_one_in_order() -> None:
    """Rows in the right order are of no use when most of them do not match."""
    documents = {f"k{n}": {"p": 1, "t": n, "name": f"n{n % 500}"} for n in range(2_000)}
    table = Table(documents, [Index("p", "-t"), Index("name")])
    query = Query.parse([("p", "==", 1), ("name", "==", "n7")], ["-t"])
    assert choose(query, table.indexes, row_count=2_000, limit=10).index == Index("name")
    page = find(query, table, table.indexes, limit=10)
    assert page.keys == ["k1507", "k1007", "k507", "k7"]
    assert page.examined == 4


# The workload ------------------------------------------------------------------------------

NOW = 1_750_000_000
DAY = 86_400
U = ["-updated_at"]
PAGE = 30
APPLICATION_OPTIONS: Where = [
    ("disabled", "==", True),
    ("kind", "==", 3),
    ("sync_state.status", "==", 2),
    ("name", "==", "name-77"),
    ("piped_id", "==", "piped-27"),
]
DEPLOYMENT_OPTIONS: Where = [
    ("status", "==", 2),
    ("kind", "==", 3),
    ("application_id", "==", "app-77"),
    ("application_name", "==", "name-77"),
]


def by_time(*names: str, time: str = "-updated_at") -> list[Index]:
    """For each field an index within the project, newest first."""
    return [Index("project_id", name, time) for name in names]


INDEXES_OF: dict[str, list[Index]] = {
    "Application": [
        Index("project_id", "-updated_at"),
        Index("piped_id", "disabled"),
        Index("created_at"),
        *by_time("disabled", "kind", "sync_state.status", "name", "piped_id"),
    ],
    "Deployment": [
        Index("project_id", "-updated_at"),
        Index("piped_id", "status"),
        Index("deployment_trace_commit_hash"),
        Index("deployment_chain_id"),
        Index("completed_at"),
        *by_time("status", "kind", "application_id", "application_name"),
    ],
    "DeploymentChain": [Index("project_id", "-updated_at"), Index("status")],
    "DeploymentTrace": [Index("project_id", "-updated_at"), Index("project_id", "commit_hash", "-updated_at")],
    "Piped": [Index("project_id", "disabled")],
    "Command": [Index("piped_id", "status"), Index("status", "created_at")],
    "Event": [
        Index("project_id", "name", "event_key", "-created_at"),
        Index("project_id", "-created_at"),
        Index("project_id", "status", "-created_at"),
        Index("project_id", "-updated_at"),
        *by_time("name", "status"),
    ],
    "APIKey": [Index("project_id", "disabled"), Index("disabled")],
}


def options(optional: Where) -> Iterator[Where]:
    """No optional filter, each alone, each pair, and all."""
    for chosen in (0, 1, 2, len(optional)):
        yield from map(list, combinations(optional, chosen))


P: Where = [("project_id", "==", "project-7")]
RECENT = NOW - 10 * DAY
WORKLOAD: list[tuple[int, str, Where, list[str], int | None]] = [
    (1, "Application", [*P, ("piped_id", "==", "piped-27"), ("disabled", "==", False)], [], None),
    *((2, "Application", [*P, *more], U, None) for more in options(APPLICATION_OPTIONS)),
    *((3, "Application", [*P, ("disabled", "==", False), *more], U, PAGE) for more in options(APPLICATION_OPTIONS[3:])),
    *((4, "Application", [*P, *more], [], None) for more in options([("name", "==", "name-77"), ("kind", "==", 3)])),
    (5, "Application", [], ["created_at"], 100),
    (6, "Deployment", [("piped_id", "==", "piped-27"), ("status", "in", [0, 1, 2, 3])], [], None),
    *((7, "Deployment", [*P, ("updated_at", ">=", RECENT), *more], U, PAGE) for more in options(DEPLOYMENT_OPTIONS)),
    *((8, "Deployment", [*P, *more], U, PAGE) for more in options(DEPLOYMENT_OPTIONS)),
    (9, "Deployment", [("deployment_trace_commit_hash", "==", "commit-123")], [], None),
    (10, "Deployment", [("deployment_chain_id", "==", "chain-77")], [], None),
    (11, "Deployment", [("completed_at", "<=", NOW), ("completed_at", ">=", RECENT)], ["completed_at"], 50),
    (12, "DeploymentChain", [*P, ("updated_at", ">", RECENT)], U, PAGE),
    (13, "DeploymentChain", [("status", "in", [0, 1])], [], None),
    *(
        (14, "DeploymentTrace", [*P, ("updated_at", ">=", RECENT), *more], U, PAGE)
        for more in options([("commit_hash", "==", "commit-127")])
    ),
    *((15, "Piped", [*P, *more], [], None) for more in options([("disabled", "==", True)])),
    (16, "Command", [("piped_id", "==", "piped-27"), ("status", "==", 0)], [], None),
    (17, "Command", [("status", "==", 0), ("created_at", "<=", NOW - DAY)], [], None),
    (18, "Event", [*P, ("name", "==", "name-77"), ("event_key", "==", "key-77")], ["-created_at"], 1),
    *(
        (19, "Event", [*P, *more], order_by, None)
        for more in options([("created_at", ">=", RECENT), ("created_at", "<", NOW - DAY), ("status", "==", 0)])
        for order_by in (["-created_at"], ["created_at"], [])
    ),
    *(
        (20, "Event", [*P, ("updated_at", ">=", RECENT), *more], U, PAGE)
        for more in options([("name", "==", "name-77"), ("status", "==", 0)])
    ),
    *((21, "APIKey", [*P, *more], [], None) for more in options([("disabled", "==", True)])),
    (22, "APIKey", [("disabled", "==", False)], [], None),
]


@pytest.fixture(scope="module")
def control_plane() -> dict[str, Table]:
    """20,000 documents that have the fields of every kind, and for each kind its indexes."""
    chance = random.Random(4)
    documents: Documents = {}
    for number in range(20_000):
        app = chance.randrange(1_000)
        updated_at = NOW - chance.randrange(30 * DAY)
        documents[f"id-{chance.getrandbits(64):016x}"] = {
            "project_id": f"project-{app % 10}",
            "piped_id": f"piped-{app % 50}",
            "application_id": f"app-{app}",
            "application_name": f"name-{app}",
            "name": f"name-{app}",
            "event_key": f"key-{app}",
            "kind": app // 25 % 5,
            "disabled": chance.random() < 0.2,
            "status": chance.choice([0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 5, 6]),
            "sync_state": {"status": chance.randrange(4)},
            "deployment_chain_id": f"chain-{number % 4_000}",
            "deployment_trace_commit_hash": f"commit-{number % 3_000}",
            "commit_hash": f"commit-{app}",
            "created_at": updated_at - chance.randrange(DAY),
            "updated_at": updated_at,
            "completed_at": updated_at,
        }
    return {kind: Table(documents, declared) for kind, declared in INDEXES_OF.items()}


def test_the_workload_is_all_there() -> None:
    """Every query shape of PipeCD is asked, but the one for everything."""
    assert {number for number, *_ in WORKLOAD} == set(range(1, 23))


@pytest.mark.parametrize(
    ("kind", "where", "order_by", "limit"),
    [
        pytest.param(kind, where, order_by, limit, id=f"{number}-{'-'.join(path for path, _, _ in where)}-{order_by}")
        for number, kind, where, order_by, limit in WORKLOAD
    ],
)
def test_the_workload_runs_on_indexes(
    control_plane: dict[str, Table], kind: str, where: Where, order_by: list[str], limit: int | None
) -> None:
    """At most ten rows are examined for each row returned, plus a hundred; on every page."""
    table = control_plane[kind]
    query = Query.parse(where, order_by)
    assert choose(query, table.indexes, row_count=len(table), limit=limit).index is not None
    cursor = None
    keys: list[str] = []
    for _ in range(3):
        page = find(query, table, table.indexes, limit=limit, cursor=cursor, scope=SCOPE)
        assert page.examined <= 10 * len(page.rows) + 100
        keys += page.keys
        cursor = page.cursor
        if cursor is None:
            break
    within = where[0][2] if where[:1] == P else None  # so that the plain list has less to do
    documents = {key: row for key, row in table.documents.items() if within in (None, row["project_id"])}
    assert keys == expected(documents, where, order_by)[: len(keys)]


@pytest.mark.parametrize("value", [None, True])
def test_nothing_above_a_value_of_one_byte_is_nothing_in_a_descending_index(value: Any) -> None:
    """Regression: no value of its type is above null, or true, and an index on "-a" found those that are equal."""
    documents: Documents = {"0": {} if value is None else {"a": value}, "1": {"a": 1}}
    for declared in ([Index("-a", "b")], [Index("-a")], [Index("a", "b")]):
        table = Table(documents, declared)
        for where in ([("a", ">", value)], [("a", ">=", value), ("a", "!=", value)]):
            page = find(Query.parse(where, []), table, table.indexes, limit=None, cursor=None, scope=SCOPE)
            assert page.keys == []
