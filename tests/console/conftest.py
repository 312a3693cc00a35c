"""A console over a log in memory, with names and values that somebody chose who means no good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import IntEnum

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

import logstore
from logstore import Block, Event, Log, StageLogs, Writer
from logstore.event import Data
from logstore.filestore import MemoryStore
from projections import Collection, DocumentStore, Index, Rejected
from projections.console import Console, Source
from projections.console.look import Labels

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "../../etc/passwd",
    "..",
    "a/b?c=d&e=f#g%00%2e",
    "javascript:alert(1)",
    "gpj\u202e.exe\x00\x1b[31m\n",
    "{{7*7}}${7*7}",
    "&lt;b&gt;&#x3c;",
    " ",
    "ключ 鍵 🗝",
    "x" * 1_024,
)


class Status(IntEnum):
    PENDING = 0
    RUNNING = 1
    FAILURE = 2


def no_way_back(before: Data | None, after: Data | None) -> None:
    """A guard."""
    if before and after and after.get("status", 0) < before.get("status", 0):
        raise Rejected("a status <only> grows")


DEPLOYMENTS = Collection("Deployment", indexes=[Index("status", "-updated_at"), Index("sync.state")], guard=no_way_back)
PIPEDS = Collection("Piped <b>", unique=True)
LABELS: Labels = {"Deployment": {"status": Status, "stages.*.status": {1: "begun"}}}


@dataclass
class Scene:
    """A log that is written, and a console that looks at it. ``client`` asks that console."""

    store: MemoryStore
    log: Log
    writer: Writer
    db: DocumentStore
    source: Source
    client: TestClient[Request, Application]

    async def page(self, path: str, status: int = 200) -> str:
        """The text of a page, which must be answered so."""
        answer = await self.client.get(path)
        text = await answer.text()
        assert answer.status == status, (path, answer.status, text)
        return text


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await stage(stack)


@pytest.fixture
async def bare() -> AsyncIterator[Scene]:
    """The same, and nobody declared a collection."""
    async with AsyncExitStack() as stack:
        yield await stage(stack, declared=())


async def stage(
    stack: AsyncExitStack, declared: tuple[Collection, ...] = (DEPLOYMENTS, PIPEDS), names: tuple[str, ...] = HOSTILE
) -> Scene:
    """Set a scene: documents, raw events and stage logs under each of the names."""
    store = MemoryStore()
    log = await stack.enter_async_context(logstore.open(store))
    db = await stack.enter_async_context(DocumentStore.open(log, writer="web-1", collections=[DEPLOYMENTS, PIPEDS]))
    deployments = db.collection("Deployment")

    async def deploy(number: int, name: str) -> None:
        inside = {name: {name: [name, number]}, "sum": b"\x00\xff", "none": None, "yes": True, "part": 0.5}
        document = {"status": 0, "updated_at": 1_700_000_000 + number, "note": name, "stages": inside}
        await deployments.create(name, document, meta={"by": name})
        await deployments.update(name, {"status": 1, "stages": {"plan": {"status": 1}}}, type=name[:9])

    await asyncio.gather(*(deploy(number, name) for number, name in enumerate(names)))
    await db.collection("Piped <b>").create("p-1", {"name": "p"})
    writer = await stack.enter_async_context(log.writer("raw <i>writer</i>"))
    await writer.append_many([Event("Deployment", name, "meddled", {"status": name}) for name in names])
    await writer.append_many([Event("Raw & <kind>", name, name[:9], {name: name}, {"meta": name}) for name in names])
    for name in names:
        if len(name) <= 200:
            stage_log = StageLogs(log).stage(name, name, 1)
            await stage_log.append([Block(0, f"{name}\nsecond line\x1b[31m", 2, 1_700_000_000_000), Block(1, "", 1)])
    await StageLogs(log).stage(names[0], names[0], 1).complete()
    looking = await stack.enter_async_context(logstore.open(store, read_only=True))
    source = await stack.enter_async_context(Source(looking, declared, LABELS))
    application = Console(source, "memory://<scene>").application()
    client = await stack.enter_async_context(TestClient(TestServer(application)))
    return Scene(store, log, writer, db, source, client)
