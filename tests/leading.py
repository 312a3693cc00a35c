"""What a process does that leads, or stands by, until it gets SIGTERM: serve clients, and note what they were told.

Each note is a line of JSON. A deed is noted before it is begun where it writes, and again when it has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import logstore
from logstore import FollowSettings, Log, LogSettings, RetrySettings, WriterSettings
from logstore.errors import Conflict, Fenced, LogStoreError, NotFound, NotStored
from projections import Collection, DocumentStore

__all__ = ["SEAL_S", "SETTINGS", "lead"]

IDLE_MS, DEADLINE_MS = 300, 300
SEAL_S: Final = (IDLE_MS + 4 * DEADLINE_MS) / 1_000
SETTINGS: Final = LogSettings(
    writer=WriterSettings(idle_ms=IDLE_MS, idle_ms_max=IDLE_MS, session_age_ms_max=2_000, tick_ms=500),
    follow=FollowSettings(poll_ms_min=5, poll_ms_max=20),
    retry=RetrySettings(attempt_timeout_ms=DEADLINE_MS, deadline_ms=DEADLINE_MS),
)
DOC: Final = Collection("Doc", exclusive=True)
KEYS: Final = ("d0", "d1", "d2")
CLIENTS: Final = 3
CLOSING_S: Final = 1.0

Note = Callable[..., None]


async def lead(*, url: str, writer: str, file: str, how: str) -> None:
    """Lead, at first as ``how`` says (standby, takeover), then as a standby, again and again."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(**fields: Any) -> None:
        os.write(handle, json.dumps(fields).encode() + b"\n")

    async with logstore.open(url, settings=SETTINGS) as log:
        while not stopping.is_set():
            serving = asyncio.create_task(_lead_once(log, writer, {how: True}, note, stopping))
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                await asyncio.wait([serving], timeout=CLOSING_S)
            serving.cancel()
            waiting.cancel()
            await asyncio.wait([serving, waiting])
            how = "standby"


async def _lead_once(log: Log, writer: str, how: dict[str, Any], note: Note, stopping: asyncio.Event) -> None:
    try:
        async with DocumentStore.open(log, writer=writer, collections=[DOC], mode="exclusive", **how) as db:
            note(leads=time.monotonic())
            async with asyncio.TaskGroup() as group:
                for client in range(CLIENTS):
                    name = f"{writer}/{os.getpid()}/{client}/{time.monotonic_ns()}"
                    group.create_task(_serve(db, name, note, stopping))
    except* LogStoreError as errors:
        note(ends=time.monotonic(), why=repr(errors.exceptions[0]))


async def _serve(db: DocumentStore, client: str, note: Note, stopping: asyncio.Event) -> None:
    rng, docs, number = random.Random(client), db.collection("Doc"), 0
    while not stopping.is_set():
        number += 1
        key, reads = rng.choice(KEYS), dict[str, Any]()
        deed = {"id": f"{client}/{number}", "called": time.monotonic(), "reads": reads}
        if rng.random() < 0.5:
            await db.confirm()
            reads[key] = dict(docs.get(key)) if key in docs else None
            note(**deed, do="read", told="done", ended=time.monotonic())
            continue
        note(**deed, do="write", told="nothing")
        try:
            await _write(db, key, reads, str(deed["id"]))
        except (Conflict, NotStored) as error:
            note(**deed, do="write", told="otherwise", why=repr(error))
        except Fenced as error:
            note(**deed, do="write", told="otherwise", why=repr(error))
            raise
        else:
            note(**deed, do="write", told="done", ended=time.monotonic())


async def _write(db: DocumentStore, key: str, reads: dict[str, Any], id_: str) -> None:
    async with db.transaction() as tx:
        try:
            before = dict(await tx.get("Doc", key))
        except NotFound:
            await tx.create("Doc", key, {"n": 0, "by": id_}, meta={"id": id_})
            reads[key] = None
        else:
            await tx.update("Doc", key, {"n": before["n"] + 1, "by": id_}, meta={"id": id_})
            reads[key] = before
