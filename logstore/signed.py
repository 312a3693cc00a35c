"""A store that holds objects signed by who made them. docs/FORMAT.md §17, RFC 0013."""

from __future__ import annotations

from collections.abc import AsyncIterator

from logstore.errors import InvalidArgument
from logstore.filestore.base import Blob, FileStore, Listed, check_range
from logstore.keys import parse_key
from logstore.signature import ENVELOPE_BYTES, SigningKey, Trust, sign, verify

__all__ = ["SignedStore"]


class SignedStore:
    """Signs what goes into the store within, and verifies what comes out. Sizes are those of the objects within.

    What has no name of ours is passed as it is. A range that begins behind an object's frame is not verified; digests
    in the frame are for that. Cost: that of the store, and some 0.1 ms per object. Raises Corrupt, KeyNeeded; to
    create, InvalidArgument where the signer may not, or there is no ``key``.
    """

    def __init__(self, store: FileStore, trust: Trust, key: SigningKey | None) -> None:
        self._store = store
        self._trust = trust
        self._key = key
        self.remote = store.remote

    def __repr__(self) -> str:
        return f"<SignedStore {self._store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        if parse_key(key) is not None:
            if self._key is None:
                raise InvalidArgument(f"needs a signing key to create in this store key={key}; give it one")
            data = sign(key, data, self._key, self._trust)
        return await self._store.create(key, data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        check_range(start, stop)
        if parse_key(key) is None:
            return await self._store.get(key, start, stop)
        if start:
            blob = await self._store.get(key, ENVELOPE_BYTES + start, None if stop is None else ENVELOPE_BYTES + stop)
            data = blob.data
        else:
            blob = await self._store.get(key, 0, None if stop is None else ENVELOPE_BYTES + stop)
            data = verify(key, blob.data, self._trust)
        return Blob(data, max(blob.size - ENVELOPE_BYTES, 0), blob.modified_ms, blob.now_ms)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore."""
        async for listed in self._store.list(prefix, after):
            is_plain = parse_key(listed.key) is None
            size = listed.size if is_plain else max(listed.size - ENVELOPE_BYTES, 0)
            yield Listed(listed.key, size, listed.modified_ms)

    async def delete(self, key: str) -> None:
        """See FileStore."""
        await self._store.delete(key)

    async def aclose(self) -> None:
        """Close the store within."""
        await self._store.aclose()
