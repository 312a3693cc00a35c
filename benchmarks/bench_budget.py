"""Views within a memory budget of 64 bytes for each document of about 525: an eighth of the rows in memory, or less.

memory  documents with three indexes, in a process of their own: resident, once all is indexed
open    documents from the log to the first answer
get     keys at random among these, each looked at for the first time
find    30 of a project, newest first; and the same from a time in the middle of the log, where no row was looked at
change  rows at random replaced, a thousand to a segment, until the view has them in rows and indexes

Beside them: the same view without a budget. The cache file is in the page cache of the machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count

import pytest

import logstore
from benchmarks.conftest import Once, Race, Record, Sizes
from benchmarks.documents import FIRST_TIME, PROJECTS, Deployments, deployment, deployments, project, uuid
from benchmarks.figure import Figure
from benchmarks.loading import store_events
from benchmarks.memory import MANY, measure_apart
from logstore import Event
from projections import View

BYTES_PER_DOCUMENT = 64
BATCH = 1_000
WITHOUT = "the same without a budget"


def test_memory(once: Once[dict[str, int]], record: Record, sizes: Sizes, documents_url: str) -> None:
    """Napkin, per document: key 85, dict 42, three entries of 90, budget 64, log 64: 525, once its payload."""
    figures = once(lambda: measure_apart(documents_url, sizes.documents, BYTES_PER_DOCUMENT * sizes.documents))
    assert figures["rows"] == sizes.documents
    work, payload = f"memory of {figures['rows']:,} documents, 3 indexes, with a budget", figures["msgpack_bytes"]
    beside = "their msgpack bytes"
    goal = 1.2 if sizes.documents >= MANY else None
    record(Figure(work, figures["resident_bytes"], payload, "bytes", beside, less=True, goal=goal))
    record(Figure(f"{work}, at its peak", figures["peak_bytes"], payload, "bytes", beside, less=True))
    record(Figure(f"{work}, in the file", figures["file_bytes"], payload, "bytes", beside, less=True))


@dataclass(frozen=True)
class Pair:
    """Two views of one log, one with a budget. Closed, they go on showing what they held."""

    runner: asyncio.Runner
    url: str
    documents: int

    @property
    def budget(self) -> int:
        return BYTES_PER_DOCUMENT * self.documents

    def open(self, budget: int | None) -> View:
        async def open_and_ask() -> View:
            async with (
                logstore.open(self.url, read_only=True) as log,
                View.open(log, Deployments(), memory_bytes_max=budget) as view,
            ):
                assert view.find([("project_id", "==", project(0))], ["-updated_at"], limit=30).rows
                return view

        return self.runner.run(open_and_ask())


@pytest.fixture(scope="module")
def pair(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    url = (tmp_path_factory.mktemp("budget") / "log").as_uri()
    asyncio.run(store_events(url, deployments(sizes.documents_found), BATCH))
    with asyncio.Runner() as runner:
        yield Pair(runner, url, sizes.documents_found)


def test_open(race: Race, sizes: Sizes, pair: Pair) -> None:
    """Napkin, per row: 11 us without; 2 us to compress and write, 1 to unpack it for the indexes."""
    race(
        "documents with a budget, to first query",
        lambda: pair.open(pair.budget),
        count=pair.documents,
        unit="rows/s",
        rounds=sizes.view_rounds,
        beside={WITHOUT: lambda: pair.open(None)},
    )


@pytest.fixture(scope="module")
def views(pair: Pair) -> tuple[View, View]:
    bounded, plain = pair.open(pair.budget), pair.open(None)
    assert bounded.statistics().cold_rows > 0.8 * len(bounded) == 0.8 * len(plain)
    return bounded, plain


def test_get(race: Race, sizes: Sizes, views: tuple[View, View]) -> None:
    """Napkin: a block of 2.5 kB read, decompressed to 9, unpacked: 16 us; 4 us as without."""
    keys = random.Random(5).sample(sorted(views[1].keys()), min(sizes.reads * 16, len(views[1])))
    chunks = iter([keys[start : start + sizes.reads] for start in range(0, len(keys), sizes.reads)] * 100)

    def get(view: View) -> None:
        for key in next(chunks):
            view.get(key)

    race(
        "get with a budget, not looked at before",
        lambda: get(views[0]),
        count=sizes.reads,
        unit="reads/s",
        rounds=sizes.view_rounds,
        beside={WITHOUT: lambda: get(views[1])},
    )


@pytest.mark.parametrize("newest", [True, False], ids=["newest", "old"])
def test_find(race: Race, sizes: Sizes, views: tuple[View, View], *, newest: bool) -> None:
    """Napkin, a page: 200 us without; of 30 rows, newest, nearly all are in memory; of old ones, 30 blocks of 16 us."""
    turns = count()
    span = len(views[1]) // 4

    def find(view: View) -> None:
        turn = next(turns)
        for number in range(PROJECTS):
            before = 2 * FIRST_TIME + turn if newest else FIRST_TIME + span // 2 + turn
            view.find([("project_id", "==", project(number)), ("updated_at", "<", before)], ["-updated_at"], limit=30)

    race(
        f"find 30 with a budget, {'newest' if newest else 'old ones'}",
        lambda: find(views[0]),
        count=PROJECTS,
        unit="pages/s",
        rounds=sizes.view_rounds,
        beside={WITHOUT: lambda: find(views[1])},
    )


def test_change(race: Race, sizes: Sizes, pair: Pair) -> None:
    """Napkin, per change: 16 us for the old row, 2 to write the new one, as much again for rows of sparse blocks."""
    rng, changes, stack = random.Random(6), min(20 * BATCH, pair.documents), AsyncExitStack()

    async def begin() -> tuple[logstore.Log, View, View]:
        log = await stack.enter_async_context(logstore.open(pair.url))
        views = [
            await stack.enter_async_context(View.open(log, Deployments(), memory_bytes_max=budget))
            for budget in (pair.budget, None)
        ]
        for view in views:
            view.explain()  # builds the indexes
        return log, views[0], views[1]

    async def append() -> None:
        async with log.writer("bench") as writer:
            for _ in range(changes // BATCH):
                numbers = [rng.randrange(pair.documents) for _ in range(BATCH)]
                await writer.append_many(
                    [Event("Deployment", uuid("deployment", n), "changed", {**deployment(n), "n": n}) for n in numbers]
                )

    run = pair.runner.run
    log, bounded, plain = run(begin())
    race(
        "rows changed with a budget",
        lambda: run(bounded.refresh()),
        count=changes,
        unit="rows/s",
        rounds=sizes.view_rounds,
        beside={WITHOUT: lambda: run(plain.refresh())},  # to what was appended a round before
        prepare=lambda: run(append()),
    )
    run(stack.aclose())
