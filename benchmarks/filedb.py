"""The peer FileDB, re-told: how PipeCD kept documents in a file store until v0.53, over our filestore.

One object of JSON for each document and kind of writer ("shard"). A create puts them one by one. An update gets one,
changes it, puts it back; here it deletes and creates, for nothing overwrites in our stores. A find lists the kind in
each shard, gets every object whose entity tag it has not cached, merges the shards of each, and filters: no order, no
limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from logstore.filestore import FileStore

SHARDS = ("client", "agent")  # of an Application, say


class FileDB:
    """Documents of one kind."""

    def __init__(self, store: FileStore, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._cache: dict[tuple[str, int | None, int], dict[str, Any]] = {}

    async def create(self, id: str, document: Mapping[str, Any]) -> None:
        for shard in SHARDS:
            await self._store.create(self._key(shard, id), json.dumps(document).encode())

    async def update(self, id: str, change: Callable[[dict[str, Any]], object], shard: str = "agent") -> None:
        key = self._key(shard, id)
        document = json.loads((await self._store.get(key)).data)
        change(document)
        await self._store.delete(key)
        await self._store.create(key, json.dumps(document).encode())

    async def find(self, **fields: object) -> list[dict[str, Any]]:
        """All documents that have these fields."""
        merged: dict[str, dict[str, Any]] = {}
        for shard in SHARDS:
            async for listed in self._store.list(f"{self._kind}/{shard}/"):
                tag = (listed.key, listed.modified_ms, listed.size)
                if tag not in self._cache:
                    self._cache[tag] = json.loads((await self._store.get(listed.key)).data)
                merged.setdefault(listed.key.rpartition("/")[2], {}).update(self._cache[tag])
        return [each for each in merged.values() if all(each.get(name) == value for name, value in fields.items())]

    def _key(self, shard: str, id: str) -> str:
        return f"{self._kind}/{shard}/{id}.json"
