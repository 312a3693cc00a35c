"""Views from cold: a log in a directory, newly opened, to the first answered query.

put      small events over a tenth as many keys, and over as many, folded by replacing; two indexes
apply    those over a tenth as many keys, folded by a Python function
memory   documents of about 525 bytes with three indexes, in a process of their own

A million events and documents by ``make bench-full``, fewer by ``make bench``. The first query is a page of 30: one
project, newest first. It builds the indexes.

Beside them:

SQLite          the same payloads in a table; select in order, unpack with msgpack, into a dict; no index, no query
eventsourcing   9.5 on SQLite, its own JSON; select its notification log, decode; no dict, no index, no query.
                A tenth of the events: it takes the same time for each, and a long one

All files come out of the page cache.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgpack
import pytest

import logstore
from benchmarks.conftest import Once, Peer, Race, Record, Sizes
from benchmarks.documents import AppliedStatuses, Statuses, project, status_events
from benchmarks.eventsourced import Eventsourced
from benchmarks.figure import Figure
from benchmarks.loading import store_events
from benchmarks.memory import MANY, measure_apart
from projections import Projection, View

BATCH = 1_000


class Stored:
    """The same small events in three places."""

    def __init__(self, directory: Path, sizes: Sizes, keys: int) -> None:
        directory.mkdir()
        self.url = (directory / "log").as_uri()
        self.count = sizes.view_events
        asyncio.run(store_events(self.url, status_events(self.count, keys), BATCH))
        self._sqlite = sqlite3.connect(directory / "sqlite.db")
        self._sqlite.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, key TEXT, payload BLOB)")
        with self._sqlite:
            rows = ((event.key, msgpack.packb(event.data)) for event in status_events(self.count, keys))
            self._sqlite.executemany("INSERT INTO events (key, payload) VALUES (?, ?)", rows)
        self.eventsourced = Eventsourced(directory / "eventsourcing.db")
        self.eventsourced_count = self.count // 10
        first = islice(status_events(self.count, keys), self.eventsourced_count)
        self.eventsourced.store(self.eventsourced.made(first))

    def close(self) -> None:
        self._sqlite.close()
        self.eventsourced.close()

    def fold_by_sqlite(self) -> dict[str, object]:
        unpack, rows = msgpack.unpackb, {}
        for key, payload in self._sqlite.execute("SELECT key, payload FROM events ORDER BY seq"):
            rows[key] = unpack(payload)
        return rows

    def open_view(self, projection: Projection) -> View:
        async def open_and_ask() -> View:
            async with logstore.open(self.url, read_only=True) as log, View.open(log, projection) as view:
                page = view.find([("project_id", "==", project(0))], ["-updated_at"], limit=30)
                assert page.rows
                return view

        return asyncio.run(open_and_ask())


@pytest.fixture(scope="module")
def few_keys(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    stored = Stored(tmp_path_factory.mktemp("views") / "few", sizes, sizes.view_keys)
    yield stored
    stored.close()


@pytest.fixture(scope="module")
def many_keys(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    stored = Stored(tmp_path_factory.mktemp("views") / "many", sizes, sizes.view_events)
    yield stored
    stored.close()


def test_put(race: Race, sizes: Sizes, few_keys: Stored) -> None:
    """Napkin, per event: read, decode to columns, merge 0.5 us, dict 0.1; per key: decode 1.2 us, two entries 3 us."""
    race(
        f"put, {sizes.view_keys:,} keys, to first query",
        lambda: few_keys.open_view(Statuses()),
        count=few_keys.count,
        rounds=sizes.view_rounds,
        beside={
            "SQLite select, msgpack, dict": Peer(few_keys.fold_by_sqlite, at_least=1),
            "eventsourcing select, decode": Peer(
                few_keys.eventsourced.select_and_decode, few_keys.eventsourced_count, at_least=9
            ),
        },
    )


def test_put_of_as_many_keys(race: Race, sizes: Sizes, many_keys: Stored) -> None:
    """Napkin, per event and key: 0.6 us to fold, 4.2 us to decode and index."""
    race(
        f"put, {sizes.view_events:,} keys, to first query",
        lambda: many_keys.open_view(Statuses()),
        count=many_keys.count,
        rounds=sizes.view_rounds,
        beside={
            "SQLite select, msgpack, dict": many_keys.fold_by_sqlite,
            "eventsourcing select, decode": Peer(
                many_keys.eventsourced.select_and_decode, many_keys.eventsourced_count, at_least=3
            ),
        },
    )


def test_apply(race: Race, sizes: Sizes, few_keys: Stored) -> None:
    """Napkin, per event: to columns 0.5 us; an object 0.6, its data 1.2, the call and its dict 0.4, packing 0.8 us."""
    race(
        f"apply, {sizes.view_keys:,} keys, to first query",
        lambda: few_keys.open_view(AppliedStatuses()),
        count=few_keys.count,
        rounds=sizes.view_rounds,
        beside={
            "SQLite select, msgpack, dict": Peer(few_keys.fold_by_sqlite, at_least=0.5),
            "eventsourcing select, decode": Peer(
                few_keys.eventsourced.select_and_decode, few_keys.eventsourced_count, at_least=4
            ),
        },
    )


def test_memory(once: Once[dict[str, int]], record: Record, sizes: Sizes, documents_url: str) -> None:
    """Napkin, per document: payload 525 + 33 and rounding, key 85, dict 30, three entries of 90: 1.75 times payload."""
    figures = once(lambda: measure_apart(documents_url, sizes.documents))
    assert figures["rows"] == sizes.documents
    work, payload, beside = (
        f"memory of {figures['rows']:,} documents, 3 indexes",
        figures["msgpack_bytes"],
        "their msgpack bytes",
    )
    goal = 2 if sizes.documents >= MANY else None  # below, what is the same for any number of documents is most
    record(Figure(work, figures["resident_bytes"], payload, "bytes", beside, less=True, goal=goal))
    record(Figure(f"{work}, at its peak", figures["peak_bytes"], payload, "bytes", beside, less=True))
