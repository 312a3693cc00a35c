"""Durable appends to a local directory.

append_many     1,000 small events a call; one caller, or four or sixteen at once, each awaiting a call before its next
append          1,000 callers at once, one small event each

Beside them:

the bare limit  the same columns through msgpack and zstd into a file: write, fsync, link, unlink, fsync the directory
bare asyncio    as many callers, each waiting for one future that somebody else sets; nothing stored
SQLite          WAL, synchronous=FULL, payloads as msgpack; by one thread; no secondary index
eventsourcing   9.5 on SQLite, its own JSON; 1,000 events a commit
SlateDB         each event a put that is awaited until it is flushed, every 10 ms; not synced

As many calls share a file of the limit's, or a commit of SQLite's, as there are callers. Everything encodes its
payloads within the measured time, and is given objects that were made before.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgpack
import pytest
import zstandard

import logstore
from benchmarks.conftest import WARM_UP, Peer, Race, Sizes
from benchmarks.events import small_events
from benchmarks.eventsourced import Eventsourced
from benchmarks.slated import Slated
from logstore import Event, Writer


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def writer(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Writer]:
    log = logstore.open((tmp_path / "log").as_uri())
    runner.run(log.__aenter__())
    yield log.writer("bench")
    runner.run(log.__aexit__(None, None, None))


class Limit:
    """What durable appending cannot do without: encode, compress, make durable, publish under a name never used."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._packer = msgpack.Packer()
        self._compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self._slot = 0

    def append_many(self, events: list[Event]) -> None:
        kinds, keys, types, data, _ = zip(*events, strict=True)
        payloads = list(map(self._packer.pack, data))
        columns = [None, [list(set(kinds)), None], [list(set(types)), None], keys, payloads, None]
        stored = self._compressor.compress(msgpack.packb(columns))
        name, temporary = self._directory / str(self._slot), self._directory / "temporary"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(handle, stored)
        os.fsync(handle)
        os.close(handle)
        os.link(temporary, name)
        os.unlink(temporary)
        os.fsync(self._handle)
        self._slot += 1

    def close(self) -> None:
        os.close(self._handle)


@pytest.fixture
def limit(tmp_path: Path) -> Iterator[Limit]:
    limit = Limit(tmp_path / "limit")
    yield limit
    limit.close()


class Sqlite:
    """A table of events in a database that is synced at each commit."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT, key TEXT, type TEXT, payload BLOB)"
        )
        self._packer = msgpack.Packer()

    def append_many(self, events: list[Event]) -> None:
        pack = self._packer.pack
        with self._connection:
            self._connection.executemany(
                "INSERT INTO events (kind, key, type, payload) VALUES (?, ?, ?, ?)",
                [(event.kind, event.key, event.type, pack(event.data)) for event in events],
            )

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Sqlite]:
    sqlite = Sqlite(tmp_path / "sqlite.db")
    yield sqlite
    sqlite.close()


@pytest.fixture
def eventsourced(tmp_path: Path) -> Iterator[Eventsourced]:
    eventsourced = Eventsourced(tmp_path / "eventsourcing.db")
    yield eventsourced
    eventsourced.close()


@pytest.fixture
def slated(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Slated]:
    slated = runner.run(Slated.open(tmp_path / "slatedb"))
    yield slated
    runner.run(slated.aclose())


@pytest.mark.parametrize("callers", [1, 4, 16])
def test_append_many(
    race: Race,
    sizes: Sizes,
    callers: int,
    *,
    runner: asyncio.Runner,
    writer: Writer,
    limit: Limit,
    sqlite: Sqlite,
    eventsourced: Eventsourced,
) -> None:
    """Napkin, per call of 1,000: encoding 1 ms, columns and zstd 0.3 ms, a hop to a thread, two fsyncs.

    SQLite has one fsync a commit. Callers share segments, and the fsyncs of several overlap.
    """
    calls = [small_events(sizes.segment_events, first=call) for call in range(sizes.append_calls)]

    async def append() -> None:
        async def call_in_turn(first: int) -> None:
            for events in calls[first::callers]:
                await writer.append_many(events)

        await asyncio.gather(*map(call_in_turn, range(callers)))

    together = [list(chain.from_iterable(calls[first : first + callers])) for first in range(0, len(calls), callers)]

    def append_to_limit() -> None:
        for events in together:
            limit.append_many(events)

    def append_to_sqlite() -> None:
        for events in together:
            sqlite.append_many(events)

    made = iter([eventsourced.made(calls[0]) for _ in range(sizes.rounds + WARM_UP)])
    race(
        f"append_many of 1,000, {callers} caller{'s'[: callers - 1]}",
        lambda: runner.run(append()),
        count=sizes.append_calls * sizes.segment_events,
        beside={
            "the bare limit": Peer(append_to_limit, at_least=0.6 if callers == 1 else None),
            "SQLite, as many calls a commit": Peer(append_to_sqlite, at_least=1),
            "eventsourcing on SQLite": Peer(
                lambda: eventsourced.store(next(made)), sizes.segment_events, at_least=25, steady=False
            ),
        },
    )


def test_append_by_callers_at_once(
    race: Race, sizes: Sizes, *, runner: asyncio.Runner, writer: Writer, limit: Limit, sqlite: Sqlite, slated: Slated
) -> None:
    """Napkin, per 1,000 callers: a task, a future and a receipt each, 10 us; one to three segments, two fsyncs each."""
    events = small_events(sizes.callers)

    async def append() -> None:
        await asyncio.gather(*(writer.append(event) for event in events))

    async def wait_for_futures() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in events]

        async def wait(future: asyncio.Future[None]) -> None:
            await future

        async def release() -> None:
            for future in futures:
                future.set_result(None)

        await asyncio.gather(*(wait(future) for future in futures), release())

    def append_to_sqlite() -> None:
        for event in events:
            sqlite.append_many([event])

    race(
        "append, 1,000 callers at once",
        lambda: runner.run(append()),
        count=len(events),
        beside={
            "bare asyncio, nothing stored": Peer(lambda: runner.run(wait_for_futures()), at_least=0.5, steady=False),
            "the bare limit, all in one": Peer(lambda: limit.append_many(events), steady=False),
            "SQLite, one commit an event": Peer(append_to_sqlite, at_least=6, steady=False),
            "SlateDB, concurrent puts, not synced": Peer(
                lambda: runner.run(slated.put_all(events)), at_least=6, steady=False
            ),
        },
    )
