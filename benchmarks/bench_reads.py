"""Reading a view that is there: deployments of about 525 bytes, by key and by query.

get   keys at random among a million (by ``make bench``, fewer): each round others, or the same again
find  30 of a project, newest first, among a fifth as many; those of one status; the 20th page

Rows come decoded. Those looked at before (twice) are in the view's cache; for the others it was emptied. A page asked
before (twice) is remembered whole until a row of its project changes; "rows looked at" is one that was not, of rows
that were.

Beside them, the same payloads, unpacked by msgpack:

SQLite file         by primary key (the keys' text, without rowid), in WAL
SQLite in memory    with an index on the same fields and the key; the 20th page from the values of the row before it

MariaDB             where installed: PipeCD's table and indexes, JSON, by socket and pymysql
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest

import logstore
from benchmarks import mariadb
from benchmarks.conftest import Note, Peer, Race, Sizes
from benchmarks.documents import PROJECTS, Deployments, deployments, project
from benchmarks.loading import store_events
from projections import View

PAGE = 30
NEVER, ROWS, PAGE_ASKED = "not looked at", "rows looked at", "asked before"
DEEP = 20
FIND = "SELECT key, payload FROM documents WHERE project_id = ? ORDER BY updated_at DESC, key LIMIT 30"
FIND_STATUS = (
    "SELECT key, payload FROM documents WHERE project_id = ? AND status = ? ORDER BY updated_at DESC, key LIMIT 30"
)
FIND_DEEP = (
    "SELECT key, payload FROM documents WHERE project_id = ? AND updated_at <= ? AND (updated_at < ? OR key > ?)"
    " ORDER BY updated_at DESC, key LIMIT 30"
)


def open_view(runner: asyncio.Runner, url: str) -> View:
    async def open_and_close() -> View:
        async with logstore.open(url, read_only=True) as log, View.open(log, Deployments()) as view:
            return view  # closed, it goes on showing what it held

    return runner.run(open_and_close())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


# By key -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def view(runner: asyncio.Runner, documents_url: str) -> View:
    return open_view(runner, documents_url)


@pytest.fixture(scope="module")
def file(view: View, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path_factory.mktemp("get") / "sqlite.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE documents (key TEXT PRIMARY KEY, payload BLOB) WITHOUT ROWID")
    with connection:
        connection.executemany("INSERT INTO documents VALUES (?, ?)", sorted(view._state.rows.items()))
    yield connection
    connection.close()


@pytest.mark.parametrize("looked_at", [False, True], ids=["cold", "warm"])
def test_get(race: Race, sizes: Sizes, view: View, file: sqlite3.Connection, *, looked_at: bool) -> None:
    """Napkin: a lookup in a large dict 0.2 us, 525 bytes decoded 3 us; looked at before, two lookups and two calls."""
    keys = random.Random(5).sample(sorted(view.keys()), min(sizes.reads * 8, len(view)))
    chunks = [keys[start : start + sizes.reads] for start in range(0, len(keys), sizes.reads)]
    ours, theirs = iter(cycle(chunks[:1] if looked_at else chunks)), iter(cycle(chunks[:1] if looked_at else chunks))
    view._decoded.clear()

    def get() -> None:
        get = view.get
        for key in next(ours):
            get(key)

    def get_from_file() -> None:
        execute, unpack = file.execute, msgpack.unpackb
        for key in next(theirs):
            (payload,) = execute("SELECT payload FROM documents WHERE key = ?", (key,)).fetchone()
            unpack(payload)

    race(
        f"get among {sizes.documents:,}, {'' if looked_at else 'not '}looked at before",
        get,
        count=sizes.reads,
        unit="reads/s",
        rounds=sizes.view_rounds,
        beside={"SQLite file, primary key, msgpack": Peer(get_from_file, at_least=8 if looked_at else 2)},
    )


# By query ---------------------------------------------------------------------------------


class Turn(NamedTuple):
    """One page: as the view is asked for it, and as the databases are."""

    where: list[tuple[str, str, Any]]
    cursor: str | None
    query: str
    mariadb_query: str
    values: tuple[object, ...]

    @property
    def mariadb_values(self) -> tuple[object, ...]:
        """Those of a deep page end with a key."""
        return self.values if self.cursor is None else (*self.values[:-1], UUID(str(self.values[-1])).bytes)


class Pages:
    """A view and a database in memory of the same documents, and one page of each project from both."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self.view = open_view(runner, url)
        self.view.explain()  # builds the indexes
        self.database = sqlite3.connect(":memory:")
        self.database.execute(
            "CREATE TABLE documents"
            " (key TEXT PRIMARY KEY, project_id TEXT, status INTEGER, updated_at INTEGER, payload BLOB)"
        )
        for fields in ("project_id, updated_at DESC, key", "project_id, status, updated_at DESC, key"):
            self.database.execute(f'CREATE INDEX "{fields}" ON documents ({fields})')
        self.database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", self._rows())
        self.database.execute("ANALYZE")

    def _rows(self) -> Iterator[tuple[str, str, int, int, bytes]]:
        for key, payload in self.view._state.rows.items():
            data = msgpack.unpackb(payload)
            yield key, data["project_id"], data["status"], data["updated_at"], payload

    def find(self, turn: Turn) -> list[str]:
        return self.view.find(turn.where, ["-updated_at"], limit=PAGE, cursor=turn.cursor).keys

    def select(self, turn: Turn) -> list[str]:
        unpack = msgpack.unpackb
        keys = []
        documents = []
        for key, payload in self.database.execute(turn.query, turn.values):
            keys.append(key)
            documents.append(unpack(payload))
        return keys


@pytest.fixture(scope="module")
def pages(runner: asyncio.Runner, sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    url = (tmp_path_factory.mktemp("find") / "log").as_uri()
    asyncio.run(store_events(url, deployments(sizes.documents_found), 1_000))
    pages = Pages(runner, url)
    yield pages
    pages.database.close()


def newest(_: Pages) -> list[Turn]:
    return [Turn([("project_id", "==", p)], None, FIND, mariadb.FIND, (p,)) for p in map(project, range(PROJECTS))]


def newest_of_status(_: Pages) -> list[Turn]:
    return [
        Turn([("project_id", "==", p), ("status", "==", 3)], None, FIND_STATUS, mariadb.FIND_STATUS, (p, 3))
        for p in map(project, range(PROJECTS))
    ]


def deep(pages: Pages) -> list[Turn]:
    turns = []
    for p in map(project, range(PROJECTS)):
        where = [("project_id", "==", p)]
        before = page = pages.view.find(where, ["-updated_at"], limit=PAGE)
        for _ in range(DEEP - 1):
            if page.cursor is None:
                break
            before, page = page, pages.view.find(where, ["-updated_at"], limit=PAGE, cursor=page.cursor)
        last_time = before.rows[-1]["updated_at"]
        values = (p, last_time, last_time, before.keys[-1])
        turns.append(Turn(where, before.cursor, FIND_DEEP, mariadb.FIND_DEEP, values))
    return turns


@pytest.fixture(scope="module")
def database(pages: Pages, note: Note, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB | None]:
    if what := mariadb.missing():
        note(f"MariaDB: {what}, so not measured")
        yield None
        return
    with mariadb.instance(tmp_path_factory.mktemp("mariadb")) as database:
        database.store(msgpack.unpackb(payload) for payload in pages.view._state.rows.values())
        yield database


@pytest.mark.parametrize("before", [NEVER, ROWS, PAGE_ASKED])
@pytest.mark.parametrize("kind", [newest, newest_of_status, deep])
def test_find(
    race: Race,
    sizes: Sizes,
    pages: Pages,
    database: mariadb.MariaDB | None,
    *,
    kind: Callable[[Pages], list[Turn]],
    before: str,
) -> None:
    """Napkin, a page: 20 us to plan, then 30 keys at 0.5 us and 30 rows at 5 us; looked at before, 0.5 us a row.

    Asked before: 5 us. MariaDB: 30 rows of JSON, sent, received in Python and decoded, 10 us each.
    """
    turns = kind(pages)
    assert list(map(pages.find, turns)) == list(map(pages.select, turns))
    forget = {NEVER: pages.view._decoded.clear, ROWS: pages.view._forget_finds, PAGE_ASKED: lambda: None}[before]

    def find() -> None:
        for turn in turns:
            pages.find(turn)

    def select() -> None:
        for turn in turns:
            pages.select(turn)

    beside = {"SQLite in memory, index, msgpack": Peer(select, at_least={NEVER: 1.25, ROWS: 8, PAGE_ASKED: 8}[before])}
    if database is not None:
        ask = database.select
        assert [ask(turn.mariadb_query, turn.mariadb_values) for turn in turns] == list(map(pages.find, turns))

        def select_from_mariadb() -> None:
            for turn in turns:
                ask(turn.mariadb_query, turn.mariadb_values)

        beside["MariaDB, PipeCD's indexes, JSON"] = Peer(
            select_from_mariadb, at_least={NEVER: 6, ROWS: 30, PAGE_ASKED: 30}[before]
        )
    race(
        f"find {PAGE} of {sizes.documents_found:,}, {kind.__name__.replace('_', ' ')}, {before}",
        find,
        count=len(turns),
        unit="pages/s",
        rounds=sizes.view_rounds,
        prepare=forget,
        beside=beside,
    )
