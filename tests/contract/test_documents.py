"""Documents over every kind of store: one of fifty creates, nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import logstore
from logstore import AlreadyExists
from logstore.filestore import FileStore
from projections import Collection, DocumentStore
from tests.contract.test_log import QUICK, Shared

COLLECTIONS = (Collection("Doc"), Collection("Seat", unique=True))
STORES, CALLERS = 4, 50


async def create(db: DocumentStore, by: str) -> str | None:
    try:
        await db.collection("Seat").create("s", {"by": by})
    except AlreadyExists:
        return None
    return by


async def test_one_of_fifty_creates(store: FileStore) -> None:
    """Callers of four logs: one is told that it did, and the document is its own; all others AlreadyExists."""
    async with AsyncExitStack() as stack:
        dbs = []
        for number in range(STORES):
            log = await stack.enter_async_context(logstore.open(Shared(store), settings=QUICK))
            opened = DocumentStore.open(log, writer=f"w{number}", collections=COLLECTIONS)
            dbs.append(await stack.enter_async_context(opened))
        told = await asyncio.gather(*(create(dbs[caller % STORES], f"c{caller}") for caller in range(CALLERS)))
        (winner,) = [by for by in told if by is not None]
        for db in dbs:
            await db.collection("Seat").view.refresh()
            assert db.collection("Seat").get("s") == {"by": winner}
        await dbs[0].collection("Seat").delete("s")
        assert await create(dbs[1], "again") == "again"
        assert [listed.key async for listed in store.list("claims/")] == [
            f"claims/Seat/s/{number:010d}" for number in range(2)
        ]


async def test_concurrent_patches_lose_nothing(store: FileStore) -> None:
    """Four logs patch fields of their own in one document; a fifth sees all of it."""
    async with AsyncExitStack() as stack:
        dbs = []
        for number in range(STORES):
            log = await stack.enter_async_context(logstore.open(Shared(store), settings=QUICK))
            opened = DocumentStore.open(log, writer=f"w{number}", collections=COLLECTIONS)
            dbs.append(await stack.enter_async_context(opened))
        await dbs[0].collection("Doc").create("d", {})

        async def count(number: int) -> None:
            for value in range(1, 6):
                await dbs[number].collection("Doc").update("d", {f"w{number}": value})

        await asyncio.gather(*map(count, range(STORES)))
    async with (
        logstore.open(Shared(store), settings=QUICK) as log,
        DocumentStore.open(log, collections=COLLECTIONS) as db,
    ):
        assert db.collection("Doc").get("d") == {f"w{number}": 5 for number in range(STORES)}
