"""Snapshots of documents of about 525 bytes with three indexes, in a directory.

open          a view opened from a snapshot, and the same to the first answered query (which builds the indexes)
one percent   a snapshot after 1 % of the rows changed as a control plane changes them: new ones, recent ones, a few hot
              ones; beside the first snapshot, of everything

Beside opening: the limit. The same chunks, out of the page cache, decompressed, unpacked, and put into a dict by one
thread; for the query also three sorts of as many tuples of keys, made before, one for each index. No row is decoded.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import msgpack
import pytest
import zstandard

import logstore
from benchmarks.conftest import Once, Peer, Race, Record, Sizes
from benchmarks.documents import Deployments, deployment, deployments, project, uuid
from benchmarks.figure import Figure
from benchmarks.loading import store_events
from logstore import Event
from logstore.manifest import Manifest
from projections import View

BATCH = 1_000
FRAME_BYTES = 12 + 76 + 32


@dataclass(frozen=True)
class Taken:
    """A snapshot: the store that it lies in, and what it took."""

    url: str
    manifest: Manifest
    seconds: float

    def chunk_bytes(self) -> dict[str, int]:
        """The sizes of all chunks in the store, by name."""
        return {path.name: path.stat().st_size for path in self.chunks()}

    def chunks(self) -> list[Path]:
        """The files of all chunks."""
        return sorted((Path(urlparse(self.url).path) / "chunks").iterdir())


@pytest.fixture(scope="module")
def taken(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A log of documents with a snapshot of all of them."""
    url = (tmp_path_factory.mktemp("snapshots") / "log").as_uri()
    asyncio.run(store_events(url, deployments(sizes.documents), BATCH))

    async def take() -> Taken:
        async with logstore.open(url) as log, View.open(log, Deployments()) as view:
            started = time.process_time()
            return Taken(url, await view.snapshot(), time.process_time() - started)

    return asyncio.run(take())


def open_view(url: str, *, ask: bool) -> View:
    async def open_and_ask() -> View:
        async with logstore.open(url, read_only=True) as log, View.open(log, Deployments()) as view:
            assert not ask or view.find([("project_id", "==", project(0))], ["-updated_at"], limit=30).rows
            return view

    return asyncio.run(open_and_ask())


def unpack(paths: list[Path]) -> dict[str, bytes]:
    """The limit: rows out of chunks, unchecked."""
    rows: dict[str, bytes] = {}
    for path in paths:
        packed = zstandard.ZstdDecompressor().decompress(path.read_bytes()[FRAME_BYTES:])
        rows.update(zip(*msgpack.unpackb(packed), strict=True))
    return rows


def test_open(race: Race, sizes: Sizes, taken: Taken) -> None:
    """Napkin, per row: decompress and unpack 1.2 us, two digests of its bytes 0.7 us, the dict 0.1."""
    paths = taken.chunks()
    race(
        "a view from a snapshot",
        lambda: open_view(taken.url, ask=False),
        count=taken.manifest.rows,
        unit="rows/s",
        rounds=sizes.view_rounds,
        beside={"its chunks unpacked, dict": Peer(lambda: unpack(paths), at_least=1)},
    )


def test_open_to_first_query(race: Race, sizes: Sizes, taken: Taken) -> None:
    """Napkin, per row: 2.3 us as above, 3 to decode it, 5 for its entries in three indexes."""
    paths, keys = taken.chunks(), list(unpack(taken.chunks()))
    rng = random.Random(0)
    tuples = [[(rng.randrange(200), rng.random(), key) for key in keys] for _ in range(3)]

    def limit() -> None:
        unpack(paths)
        for each in tuples:
            sorted(each)

    race(
        "a view from a snapshot, to first query",
        lambda: open_view(taken.url, ask=True),
        count=taken.manifest.rows,
        unit="rows/s",
        rounds=sizes.view_rounds,
        beside={"its chunks unpacked, dict, 3 sorts": Peer(limit, at_least=1)},
    )


def test_one_percent(once: Once[dict[str, float]], record: Record, sizes: Sizes, taken: Taken) -> None:
    """Napkin: two rows written for each one changed are 2 %, and half a chunk.

    Who was not opened for snapshots compares all its rows with the last one's chunks, once: as much as opening.
    """
    count, rng = sizes.documents, random.Random(0)
    third = count // 300
    changing = {
        *(count + number for number in range(third)),
        *(count - 1 - rng.randrange(count // 50) for _ in range(third)),
        *(rng.randrange(300) * 7 for _ in range(third)),
    }
    events = [Event("Deployment", uuid("deployment", n), "changed", {**deployment(n), "status": 99}) for n in changing]

    async def change_and_take(*, snapshots: bool) -> float:
        async with (
            logstore.open(taken.url) as log,
            log.writer("bench") as writer,
            View.open(log, Deployments(), snapshots=snapshots) as view,
        ):
            for start in range(0, len(events), BATCH):
                await writer.append_many(events[start : start + BATCH])
            await view.refresh()
            started = time.process_time()
            await view.snapshot()
            return time.process_time() - started

    def change_and_take_both() -> dict[str, float]:
        which = {", opened for snapshots": True, ", opened to be read": False}
        return {said: asyncio.run(change_and_take(snapshots=snapshots)) for said, snapshots in which.items()}

    before = taken.chunk_bytes()
    seconds = once(change_and_take_both)
    after = taken.chunk_bytes()
    of_bytes = sum(after[name] for name in after.keys() - before.keys()) / len(seconds)
    work, beside = f"a snapshot after 1 % of {count:,} rows changed", "the first snapshot, of all"
    record(Figure(work, of_bytes, sum(before.values()), "bytes", beside, less=True, goal=0.05))
    for who, took in seconds.items():
        record(Figure(f"{work}{who}", took, taken.seconds, "s of CPU", beside, less=True, goal=0.1))
