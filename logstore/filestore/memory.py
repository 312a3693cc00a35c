"""A FileStore in a dictionary: for tests, examples and throw-away logs.

It keeps every promise but durability: what a crash of the process leaves is nothing. It is as
strict as the local file system about keys, so that what works here works there. One coroutine
runs at a time and no method awaits between looking and changing, which makes ``create`` atomic.

Invariants:
- ``_keys`` holds exactly the keys of ``_objects``, sorted; the alphabet is ASCII, so that is byte order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator

from logstore.clock import Clock, SystemClock
from logstore.errors import AlreadyExists, InvalidArgument, NotFound
from logstore.filestore.base import Blob, Listed, check_key, check_prefix, check_range

__all__ = ["MemoryStore"]


class MemoryStore:
    """A FileStore whose objects live as long as it does.

    ``clock`` tells the times in its answers. Costs: ``create`` and ``delete`` O(log n) plus moving n
    references, ``get`` O(1), ``list`` O(log n) for each key. ``aclose`` keeps the objects, for the
    next one who opens the same ``memory://name``.
    """

    remote = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._keys: list[str] = []

    def __repr__(self) -> str:
        return f"<MemoryStore objects={len(self._keys)}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore. InvalidArgument when ``key`` is also the directory of others, or below another key."""
        check_key(key)
        now_ms = self._clock.wall_ms()
        if key in self._objects:
            raise AlreadyExists(f"the name is taken key={key}", now_ms=now_ms)
        self._require_one_kind(key)
        self._objects[key] = (bytes(data), now_ms)
        insort(self._keys, key)
        return now_ms

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        check_key(key)
        check_range(start, stop)
        now_ms = self._clock.wall_ms()
        if key not in self._objects:
            raise NotFound(f"no such object key={key}", now_ms=now_ms)
        data, modified_ms = self._objects[key]
        return Blob(data[start:stop], len(data), modified_ms, now_ms)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Keys that come or go while the caller walks are seen or not; none is seen twice."""
        check_prefix(prefix)
        at = bisect_left(self._keys, prefix) if after < prefix else bisect_right(self._keys, after)
        while at < len(self._keys) and (key := self._keys[at]).startswith(prefix):
            data, modified_ms = self._objects[key]
            yield Listed(key, len(data), modified_ms)
            at = bisect_right(self._keys, key)

    async def delete(self, key: str) -> None:
        """See FileStore."""
        check_key(key)
        if self._objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    async def aclose(self) -> None:
        """Do nothing: there are no handles."""

    def _require_one_kind(self, key: str) -> None:
        """Refuse what a file system cannot hold: one name for a file and for a directory."""
        above = (key[:i] for i, character in enumerate(key) if character == "/")
        at = bisect_left(self._keys, key + "/")
        if at < len(self._keys) and self._keys[at].startswith(key + "/"):
            raise InvalidArgument(f"an object cannot have the name of a directory key={key} below={self._keys[at]}")
        if (parent := next((p for p in above if p in self._objects), None)) is not None:
            raise InvalidArgument(f"an object cannot lie below another key={key} above={parent}")

    def _check(self) -> None:
        assert self._keys == sorted(self._objects), "the index lists every object once, in order"
