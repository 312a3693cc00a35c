"""The port to the outside: named, immutable objects behind five verbs.

Everything else in the library stands on this page. A backend adds only *how*; behaviour
(retries, counting, faults) stacks as wrappers, each a ``FileStore`` around a ``FileStore``.
There is no verb that overwrites.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from logstore.errors import InvalidArgument

__all__ = ["Blob", "FileStore", "Listed", "check_key", "check_prefix", "check_range", "is_key"]

KEY_BYTES_MAX = 900  # S3 allows 1,024; the rest is for the prefix in the store's address
SEGMENT_BYTES_MAX = 255  # the longest file name of every common file system
TEMPORARY = (
    "tmp"  # where LocalStore keeps unfinished files; reserved everywhere, so that any store can be copied to any
)

_CHARACTERS = r"[A-Za-z0-9._%~-]"
_KEY = re.compile(rf"{_CHARACTERS}+(?:/{_CHARACTERS}+)*", re.ASCII)
_PREFIX = re.compile(rf"(?:{_CHARACTERS}+/)*{_CHARACTERS}*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes asked for, and what the store said about the object.

    ``size`` is that of the whole object, ``modified_ms`` when it was created, ``now_ms`` the
    store's own time when it answered; the times are Unix milliseconds, None where not told.
    """

    data: bytes
    size: int
    modified_ms: int | None
    now_ms: int | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing: the key, its size in bytes, and when it was created (Unix milliseconds)."""

    key: str
    size: int
    modified_ms: int | None


class FileStore(Protocol):
    """Named, immutable objects.

    A key is written at most once and by one winner: when callers race on ``create``, exactly
    one returns and the others get ``AlreadyExists``. Once ``create`` has returned, every
    ``get`` and ``list`` started afterwards sees the object whole, and it survives what the
    store survives. A ``create`` that fails otherwise (``Unavailable``, cancellation) has an
    *ambiguous* outcome: the object may be there, absent, or land later. After an ambiguous
    attempt ``AlreadyExists`` may mean one's own object: callers read it to find out.

    Keys are ``/``-separated, non-empty segments of ``A-Z a-z 0-9 . _ - % ~``, each at most 255
    bytes and all of them at most 900, no segment being ``.`` or ``..`` and the first not ``tmp``;
    others raise ``InvalidArgument``. A key is not another's directory as well (``a`` and ``a/b``):
    a store that cannot hold both raises ``InvalidArgument`` for the second. Objects in the same
    place whose names are no keys are not listed.

    Every method may raise ``Unavailable``. All may be called concurrently.

    >>> import asyncio
    >>> from logstore.filestore import MemoryStore
    >>> async def example(store: FileStore):
    ...     await store.create("a/b", b"hello")
    ...     return (await store.get("a/b", 1, 4)).data, [listed.key async for listed in store.list("a/")]
    >>> asyncio.run(example(MemoryStore()))
    (b'ell', ['a/b'])
    """

    @property
    def remote(self) -> bool:
        """Whether a round trip crosses a network: the default poll and linger times depend on it."""
        ...

    async def create(self, key: str, data: bytes) -> int | None:
        """Store ``data`` under ``key``, all or nothing, durably; return the store's time (Unix ms) if it tells.

        Cost: one PUT. Raises AlreadyExists when the key is taken.
        """
        ...

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """Return the object, or its bytes ``start`` (inclusive) to ``stop`` (exclusive).

        A range beyond the end is cut at the end; one that starts at or beyond it is empty.
        Cost: one GET. Raises NotFound.
        """
        ...

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """Yield every key that starts with ``prefix`` and is greater than ``after``, in byte order.

        ``after`` is a position, not a look-up: it need not exist. Cost: one LIST per 1,000 keys.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove ``key``; absent is fine. Cost: one DELETE."""
        ...

    async def aclose(self) -> None:
        """Release connections and handles; idempotent."""
        ...


def is_key(key: str) -> bool:
    """Whether ``key`` keeps the rules for keys that ``FileStore`` states."""
    if len(key) > KEY_BYTES_MAX or _KEY.fullmatch(key) is None:
        return False
    segments = key.split("/")
    return segments[0] != TEMPORARY and all(len(s) <= SEGMENT_BYTES_MAX and s not in (".", "..") for s in segments)


def check_key(key: str) -> None:
    """Raise InvalidArgument unless ``key`` is one; after this no key leaves the root or prefix it is joined to."""
    if not is_key(key):
        raise InvalidArgument(f"not a key; the rules are at FileStore key={key[:120]!r} bytes={len(key)}")


def check_prefix(prefix: str) -> None:
    """Raise InvalidArgument when no key could start with ``prefix``. Empty is fine: every key does."""
    parents = prefix.split("/")[:-1]
    if len(prefix) > KEY_BYTES_MAX or _PREFIX.fullmatch(prefix) is None or "." in parents or ".." in parents:
        raise InvalidArgument(f"no key starts with this; the rules are at FileStore prefix={prefix[:120]!r}")


def check_range(start: int, stop: int | None) -> None:
    """Raise InvalidArgument unless ``0 <= start <= stop``."""
    if start < 0 or (stop is not None and stop < start):
        raise InvalidArgument(f"a range needs 0 <= start <= stop start={start} stop={stop}")
