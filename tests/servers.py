"""What server processes do with documents: jobs for ``tests.zygote``. Each leaves what it was told in a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import logstore
from logstore import AlreadyExists, Event, LogSettings, NotStored, RetrySettings, Unknown, WriterSettings
from projections import Collection, DocumentStore

__all__ = ["COLLECTIONS", "JOBS", "SETTINGS", "add", "patch", "take_seats", "tell"]

COLLECTIONS = (Collection("Doc"), Collection("Seat", unique=True))
SETTINGS = LogSettings(
    writer=WriterSettings(idle_ms=200, idle_ms_max=200, tick_ms=500),
    retry=RetrySettings(attempt_timeout_ms=5_000, deadline_ms=10_000),
)
PAUSE_S = 0.002


async def until_there(path: Path) -> None:
    """Wait for a file that another process makes."""
    while not path.exists():  # noqa: ASYNC110 - nothing in this process knows
        await asyncio.sleep(PAUSE_S)


async def patch(*, url: str, writer: str, callers: int, times: int, ready: str, go: str) -> None:
    """Each caller counts up a field of its own, of the one document that all write."""
    async with (
        logstore.open(url, settings=SETTINGS) as log,
        DocumentStore.open(log, writer=writer, collections=COLLECTIONS) as db,
    ):
        docs = db.collection("Doc")
        Path(ready).touch()
        await until_there(Path(go))

        async def count(caller: int) -> None:
            for number in range(1, times + 1):
                await docs.update("d", {writer: {str(caller): number}})
                assert docs.get("d")[writer][str(caller)] == number

        await asyncio.gather(*map(count, range(callers)))


async def add(*, url: str, writer: str, times: int, ready: str, go: str) -> None:
    """Add one to a number, as if nobody else did at the time."""
    async with (
        logstore.open(url, settings=SETTINGS) as log,
        DocumentStore.open(log, writer=writer, collections=COLLECTIONS) as db,
    ):
        docs = db.collection("Doc")
        Path(ready).touch()
        await until_there(Path(go))
        for _ in range(times):
            await docs.modify("d", lambda document: document.update(n=document["n"] + 1), attempts_max=100)


async def take_seats(*, url: str, writer: str, callers: int, seats: int, ready: str, go: str, file: str) -> None:
    """So many callers create each seat; which of them were told that they did."""
    told: dict[str, list[str]] = {}
    async with (
        logstore.open(url, settings=SETTINGS) as log,
        DocumentStore.open(log, writer=writer, collections=COLLECTIONS) as db,
    ):
        documents = db.collection("Seat")
        Path(ready).touch()
        await until_there(Path(go))

        async def take(seat: str, caller: int) -> str:
            try:
                await documents.create(seat, {"by": f"{writer}-{caller}"})
            except AlreadyExists:
                return "exists"
            return f"{writer}-{caller}"

        for number in range(seats):
            seat = f"s{number}"
            told[seat] = list(await asyncio.gather(*(take(seat, caller) for caller in range(callers))))
    Path(file).write_text(json.dumps(told))


async def tell(*, url: str, writer: str, events: int, file: str, idle_ms: int, deadline_ms: int) -> None:
    """Append numbered events one after the other; note what was said of each: yes, no, an unknown's token."""
    settings = LogSettings(
        writer=WriterSettings(idle_ms=idle_ms, idle_ms_max=idle_ms),
        retry=RetrySettings(attempt_timeout_ms=deadline_ms, deadline_ms=deadline_ms),
    )
    async with logstore.open(url, settings=settings, create=False) as log, log.writer(writer) as appending:
        with Path(file).open("a") as lines:
            for number in range(events):
                try:
                    await appending.append(Event("Line", str(number), "written", {"id": str(number)}))
                    said = "yes"
                except NotStored:
                    said = "no"
                except Unknown as unknown:
                    said = unknown.token
                lines.write(said + "\n")
                lines.flush()


JOBS: dict[str, Any] = {"patch": patch, "add": add, "take_seats": take_seats, "tell": tell}
