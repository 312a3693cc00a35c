"""Walk over listed objects in order, fetching ahead. For discovery and check; tailing never lists.

A listing says what is there; a walk brings it, decoded, in the order of the listing, with some GETs under way at a
time. What cannot be decoded is handed over as its error: whoever walks wants to see everything, not to stop.

Invariants:
- At most ``FETCHES_MAX`` objects, and beyond the first at most ``BYTES_MAX`` stored bytes, are fetched ahead.
- Only ``Unavailable`` and its like end a walk; damage does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from logstore.aside import decode_aside
from logstore.errors import Corrupt, NotFound
from logstore.filestore.base import FileStore, Listed

__all__ = ["Walked", "fetch", "walk"]

FETCHES_MAX: Final = 24
BYTES_MAX: Final = 64 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Walked(Generic[T]):
    """An object met: ``value`` decoded, or the ``damage`` that kept it from being; neither when it was absent.

    The times are those of ``Blob``.
    """

    key: str
    size: int
    value: T | None = None
    damage: Corrupt | None = None
    modified_ms: int | None = None
    now_ms: int | None = None

    @property
    def is_absent(self) -> bool:
        """Whether it was not there when asked for."""
        return self.value is None and self.damage is None


async def fetch(store: FileStore, key: str, decode: Callable[[str, bytes], T]) -> Walked[T]:
    """Get and decode one object. Cost: one GET; large ones decode in a thread. Raises Unavailable."""
    try:
        blob = await store.get(key)
    except NotFound as absent:
        return Walked(key, 0, now_ms=absent.now_ms)
    except Corrupt as error:  # of a protected store: it looks into what it fetches
        return Walked(key, 0, damage=error)
    value = damage = None
    try:
        value = await decode_aside(blob.size, decode, key, blob.data)
    except Corrupt as error:
        damage = error
    return Walked(key, blob.size, value, damage, blob.modified_ms, blob.now_ms)


async def walk(
    store: FileStore, listing: AsyncIterator[Listed], decode: Callable[[str, bytes], T]
) -> AsyncGenerator[Walked[T], None]:
    """Yield every object of ``listing``, decoded, in its order. Cost: one GET each. Raises Unavailable."""
    ahead: deque[tuple[asyncio.Task[Walked[T]], int]] = deque()
    ahead_bytes = 0
    try:
        async for listed in listing:
            while ahead and (len(ahead) >= FETCHES_MAX or ahead_bytes + listed.size > BYTES_MAX):
                task, size = ahead[0]
                yield await task
                ahead.popleft()
                ahead_bytes -= size
            ahead.append((asyncio.create_task(fetch(store, listed.key, decode)), listed.size))
            ahead_bytes += listed.size
        while ahead:
            yield await ahead[0][0]
            ahead.popleft()
    finally:
        for task, _ in ahead:
            task.cancel()
        if ahead:
            await asyncio.wait([task for task, _ in ahead])
