"""A store that holds objects encrypted. docs/FORMAT.md §17, RFC 0013."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from logstore.aside import decode_aside
from logstore.encryption import (
    HEADER_BYTES,
    SALT_BYTES,
    Keyring,
    Span,
    decode_header,
    decrypt,
    encrypt,
    plain_size,
)
from logstore.filestore.base import Blob, FileStore, Listed, check_range
from logstore.keys import parse_key

__all__ = ["EncryptedStore"]


class EncryptedStore:
    """Encrypts what goes into the store within, and decrypts what comes out. Sizes are those of the plain objects.

    What has no name of ours is passed as it is. ``entropy``: that many random bytes. Cost: that of the store; a range
    that begins behind the first block takes a second GET, at the same time. Raises Corrupt, KeyNeeded.
    """

    def __init__(self, store: FileStore, keyring: Keyring, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._keyring = keyring
        self._entropy = entropy
        self.remote = store.remote

    def __repr__(self) -> str:
        return f"<EncryptedStore {self._store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        if parse_key(key) is not None:
            data = await decode_aside(len(data), encrypt, key, data, self._keyring, self._entropy(SALT_BYTES))
        return await self._store.create(key, data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        check_range(start, stop)
        if parse_key(key) is None:
            return await self._store.get(key, start, stop)
        span = Span(start, stop)
        if span.first == 0:
            blob = await self._store.get(key, 0, span.stored_stop)
            head, blocks = blob.data[:HEADER_BYTES], memoryview(blob.data)[HEADER_BYTES:]
        else:
            first, blob = await asyncio.gather(
                self._store.get(key, 0, HEADER_BYTES), self._store.get(key, span.stored_start, span.stored_stop)
            )
            head, blocks = first.data, memoryview(blob.data)
        header = decode_header(key, head)
        data = await decode_aside(len(blocks), decrypt, key, header, span, blocks, self._keyring)
        return Blob(data, header.size, blob.modified_ms, blob.now_ms)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore."""
        async for listed in self._store.list(prefix, after):
            is_plain = parse_key(listed.key) is None
            yield listed if is_plain else Listed(listed.key, plain_size(listed.size), listed.modified_ms)

    async def delete(self, key: str) -> None:
        """See FileStore."""
        await self._store.delete(key)

    async def aclose(self) -> None:
        """Close the store within."""
        await self._store.aclose()
