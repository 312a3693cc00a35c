"""Documents of about 525 bytes in a directory, shared by many writers: a deployment's status is reported, a page asked.

update  as many callers as there are documents change one each, at once; each is durable and visible when it returns
find    the page of a project that has twenty, newest first, while one document has changed since the last question

Beside them:

FileDB  PipeCD's own documents in files, re-told over the same store (``filedb.py``): a get and a put an update; a
        list of everything, a get of what changed and a filter a find, in no order
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import logstore
from benchmarks.conftest import Peer, Race, Sizes
from benchmarks.documents import deployment, uuid
from benchmarks.filedb import FileDB
from logstore.filestore import LocalStore
from projections import Collection, DocumentStore, Index

PROJECT_SIZE = 20


class Both:
    """The same documents in a document store and in FileDB."""

    def __init__(self, runner: asyncio.Runner, directory: Path, documents: int) -> None:
        self._run = runner.run
        self._log = logstore.open((directory / "log").as_uri())
        collection = Collection("Deployment", indexes=[Index("project_id", "-updated_at")])
        self._run(self._log.__aenter__())
        self._opening = DocumentStore.open(self._log, writer="bench", collections=[collection])
        self.ours = self._run(self._opening.__aenter__()).collection("Deployment")
        self._store = LocalStore(directory / "filedb")
        self.theirs = FileDB(self._store, "Deployment")
        self.ids = [uuid("deployment", number) for number in range(documents)]
        self._run(self._fill())
        self._turns = count(1)

    async def _fill(self) -> None:
        documents = [
            {**deployment(number), "project_id": uuid("project", number // PROJECT_SIZE)}
            for number in range(len(self.ids))
        ]
        await asyncio.gather(*map(self.ours.create, self.ids, documents))
        await asyncio.gather(*map(self.theirs.create, self.ids, documents))

    def update(self) -> None:
        turn = next(self._turns)

        async def update() -> None:
            await asyncio.gather(*(self.ours.update(id, {"status": turn}) for id in self.ids))

        self._run(update())

    def update_theirs(self) -> None:
        turn = next(self._turns)

        async def update() -> None:
            await asyncio.gather(*(self.theirs.update(id, lambda row: row.update(status=turn)) for id in self.ids))

        self._run(update())

    def find(self, times: int) -> None:
        async def find() -> None:
            await self.ours.update(self.ids[0], {"status": next(self._turns)})
            for number in range(times):
                where = [("project_id", "==", uuid("project", number * PROJECT_SIZE % len(self.ids) // PROJECT_SIZE))]
                page = self.ours.find(where, ["-updated_at"], limit=30)
                assert len(page.rows) == PROJECT_SIZE

        self._run(find())

    def find_theirs(self) -> None:
        async def find() -> None:
            await self.theirs.update(self.ids[0], lambda row: row.update(status=next(self._turns)))
            assert len(await self.theirs.find(project_id=uuid("project", 0))) == PROJECT_SIZE

        self._run(find())

    def close(self) -> None:
        self._run(self._opening.__aexit__(None, None, None))
        self._run(self._log.__aexit__(None, None, None))
        self._run(self._store.aclose())


@pytest.fixture(scope="module")
def both(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with asyncio.Runner() as runner:
        both = Both(runner, tmp_path_factory.mktemp("documents"), sizes.shared_documents)
        yield both
        both.close()


def test_update(race: Race, sizes: Sizes, both: Both) -> None:
    """Napkin, per update: a share of a barrier and of one segment, 200 us of Python; FileDB three syncs, 5 ms."""
    race(
        f"update, {sizes.shared_documents:,} callers at once",
        both.update,
        count=sizes.shared_documents,
        unit="updates/s",
        rounds=sizes.view_rounds,
        beside={"FileDB: get, delete, put": both.update_theirs},
    )


def test_find(race: Race, sizes: Sizes, both: Both) -> None:
    """Napkin: a page of twenty 100 us; FileDB lists and stats all, twice, and merges them."""
    pages = 100
    race(
        f"find 20 of {sizes.shared_documents:,} documents",
        lambda: both.find(pages),
        count=pages,
        unit="pages/s",
        rounds=sizes.view_rounds,
        beside={"FileDB: list, get, filter": Peer(both.find_theirs, 1, steady=False)},
    )
