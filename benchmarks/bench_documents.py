"""Documents of about 525 bytes in a directory, shared by many writers: deployments are reported on, pages asked.

update  as many callers as there are documents change one each, at once; each is durable and visible when it returns
page    one document of a project that has twenty is changed, durably, then the project's page asked, newest first

Beside them:

FileDB  PipeCD's own documents in files, re-told over the same store (``filedb.py``): a get and a put an update; a
        list of everything, a get of what changed and a filter a page, in no order
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

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

    def change_and_find(self, times: int) -> None:
        async def change_and_find() -> None:
            for number in range(times):
                await self.ours.update(self.ids[number * PROJECT_SIZE], {"status": next(self._turns)})
                page = self.ours.find([("project_id", "==", uuid("project", number))], ["-updated_at"], limit=30)
                assert len(page.rows) == PROJECT_SIZE

        self._run(change_and_find())

    def change_and_find_theirs(self, times: int) -> None:
        def change(row: dict[str, Any]) -> None:
            row["status"] = next(self._turns)

        async def change_and_find() -> None:
            for number in range(times):
                await self.theirs.update(self.ids[number * PROJECT_SIZE], change)
                assert len(await self.theirs.find(project_id=uuid("project", number))) == PROJECT_SIZE

        self._run(change_and_find())

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


def test_page(race: Race, sizes: Sizes, both: Both) -> None:
    """Napkin: an update alone is a barrier and two syncs, a page of twenty 100 us; FileDB lists and stats all."""
    pages = sizes.shared_documents // PROJECT_SIZE
    race(
        f"a change, then a page of 20 of {sizes.shared_documents:,} documents",
        lambda: both.change_and_find(pages),
        count=pages,
        unit="pages/s",
        rounds=sizes.view_rounds,
        beside={"FileDB: list, get, filter": Peer(lambda: both.change_and_find_theirs(pages), steady=False)},
    )
