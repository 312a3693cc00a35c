"""A real history: that of PipeCD's repository, each commit deploying the directories it touched (``history.py``).

store  from the first commit to the last, 100 commits at a time, durable; every document is visible when it is done
size   what lies in the directory afterwards
find   of each application in turn its twenty newest deployments: never looked at before, and asked before

Beside them:

SQLite  WAL, synchronous=FULL: documents as msgpack, their id, and the two fields that are asked for with an index,
        which lies in its file; ours are built in memory. A transaction for 100 commits, each change replacing the
        whole document, as PipeCD does. Its documents are at hand for the change, so it never reads
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import pytest

import logstore
from benchmarks.conftest import Once, Race, Record, Sizes
from benchmarks.figure import Figure
from benchmarks.history import Commit, events_of, history
from logstore import Event
from projections import Index, Projection, View

COMMITS_AT_ONCE = 100
PAGE = 20


class Deployments(Projection):
    """Whole deployments, newest of an application first."""

    name, kinds, fold = "history", frozenset({"Deployment"}), "patch"
    indexes = (Index("application_id", "-updated_at"),)


class Told:
    """The history as commits, as batches of events, and what it is called."""

    def __init__(self, sizes: Sizes) -> None:
        self.name, commits = history()
        self.commits: list[Commit] = commits[: sizes.commits]
        told = events_of(self.commits)
        self.batches = [
            [event for events in told[first : first + COMMITS_AT_ONCE] for event in events]
            for first in range(0, len(told), COMMITS_AT_ONCE)
        ]
        self.count = sum(map(len, self.batches))
        self.applications = sorted({directory for commit in self.commits for directory in commit.directories})


class Sqlite:
    """A table of documents in a database that is synced at each commit."""

    QUERY: ClassVar = "SELECT data FROM deployments WHERE application_id = ? ORDER BY updated_at DESC, id LIMIT ?"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE deployments (id TEXT PRIMARY KEY, application_id TEXT, updated_at INTEGER, data BLOB)"
        )
        self._connection.execute("CREATE INDEX newest ON deployments (application_id, updated_at DESC, id)")
        self._documents: dict[str, dict[str, Any]] = {}

    def store(self, events: list[Event]) -> None:
        def rows() -> Iterator[tuple[str, str, int, bytes]]:
            for event in events:
                assert event.data is not None
                self._documents[event.key] = document = {**self._documents.get(event.key, {}), **event.data}
                yield event.key, document["application_id"], document["updated_at"], msgpack.packb(document)

        with self._connection:
            self._connection.executemany(
                "INSERT INTO deployments VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, data = excluded.data",
                rows(),
            )

    def find(self, application: str) -> list[dict[str, Any]]:
        return [msgpack.unpackb(data) for (data,) in self._connection.execute(self.QUERY, (application, PAGE))]

    def size(self) -> int:
        """Bytes of its file, with all that was written in it."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._path.stat().st_size

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def told(sizes: Sizes) -> Told:
    return Told(sizes)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def sqlite(told: Told, directory: Path) -> Iterator[Sqlite]:
    sqlite = Sqlite(directory / "whole.db")
    for events in told.batches:
        sqlite.store(events)
    yield sqlite
    sqlite.close()


@pytest.fixture(scope="module")
def url(told: Told, directory: Path) -> str:
    url = (directory / "log").as_uri()
    asyncio.run(_store(url, told))
    return url


async def _store(url: str, told: Told) -> None:
    async with logstore.open(url) as log, View.open(log, Deployments()) as view, log.writer("migration") as writer:
        receipts = [await writer.append_many(events) for events in told.batches]
        await view.wait_for(receipts[-1])
        assert len(view) == told.count // 4


def test_store(race: Race, sizes: Sizes, told: Told, directory: Path) -> None:
    """Napkin, per 100 commits: two syncs, one segment of 870 events 2 ms; the view 3 us an event."""
    numbers = count()

    def store_in_sqlite() -> None:
        sqlite = Sqlite(directory / f"{next(numbers)}.db")
        for events in told.batches:
            sqlite.store(events)
        sqlite.close()

    race(
        f"{told.name}: stored, {COMMITS_AT_ONCE} commits at a time",
        lambda: asyncio.run(_store((directory / str(next(numbers))).as_uri(), told)),
        count=told.count,
        rounds=sizes.view_rounds,
        beside={"SQLite, a transaction each": store_in_sqlite},
    )


def test_size(once: Once[int], record: Record, told: Told, *, url: str, sqlite: Sqlite, directory: Path) -> None:
    """Napkin, per deployment: what does not compress is a UUID of 16 bytes and a share of a hash: 40 bytes."""

    def bytes_in_log() -> int:
        return sum(path.stat().st_size for path in (directory / "log").rglob("*") if path.is_file())

    ours = once(bytes_in_log)
    beside = "SQLite's file, an index in it"
    record(Figure(f"{told.name}: all that is stored", ours, sqlite.size(), "bytes", beside, less=True))


@pytest.mark.parametrize("before", ["never looked at", "asked before"])
def test_find(race: Race, sizes: Sizes, told: Told, *, url: str, sqlite: Sqlite, before: str) -> None:
    """Napkin: a page that was asked before 5 us; else 6 us a row, SQLite and msgpack 4, a dozen rows on average."""
    with asyncio.Runner() as runner:
        log = logstore.open(url, read_only=True)
        runner.run(log.__aenter__())
        opening = View.open(log, Deployments())
        view = runner.run(opening.__aenter__())

        def find(application: str) -> list[Any]:
            return list(view.find([("application_id", "==", application)], ["-updated_at"], limit=PAGE).rows)

        application = told.applications[0]
        assert [row["id"] for row in find(application)] == [row["id"] for row in sqlite.find(application)]
        race(
            f"{told.name}: the newest {PAGE} of {len(told.applications)} applications, {before}",
            lambda: [find(application) for application in told.applications],
            count=len(told.applications),
            unit="pages/s",
            rounds=sizes.view_rounds,
            prepare=view._decoded.clear if before == "never looked at" else lambda: None,
            beside={"SQLite, index, msgpack": lambda: [sqlite.find(application) for application in told.applications]},
        )
        runner.run(opening.__aexit__(None, None, None))
        runner.run(log.__aexit__(None, None, None))
