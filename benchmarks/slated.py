"""The peer SlateDB, by its Python binding: the same small events as rows of a database in a directory.

What is put is flushed every 10 ms, as long as our writers linger on S3; by itself it would take 100. Its local object
store does not sync files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgpack
from slatedb.uniffi import Db, DbBuilder, ObjectStore, Settings

from logstore import Event


class Slated:
    """A database of events by number."""

    def __init__(self, database: Db) -> None:
        self._database = database
        self._packer = msgpack.Packer()
        self._count = 0

    @classmethod
    async def open(cls, directory: Path) -> Slated:
        settings, builder = Settings.default(), DbBuilder(str(directory), ObjectStore.resolve("file:///"))
        settings.set("flush_interval", '"10ms"')
        builder.with_settings(settings)
        return cls(await builder.build())

    async def put_all(self, events: Sequence[Event]) -> None:
        """Put each by a call of its own, all at once; return when all are flushed."""
        await asyncio.gather(*map(self._put, events))

    async def _put(self, event: Event) -> None:
        self._count += 1
        row = self._packer.pack([event.kind, event.key, event.type, event.data])
        handle = await self._database.put(self._count.to_bytes(8), row)
        await handle.await_durable()

    async def aclose(self) -> None:
        await self._database.shutdown()
