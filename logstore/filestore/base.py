"""The port to the outside: named, immutable objects behind five verbs.

Everything else in the library stands on this page. A backend adds only *how*; behaviour
(retries, counting, faults) stacks as wrappers, each a ``FileStore`` around a ``FileStore``.
There is no verb that overwrites.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Blob", "FileStore", "Listed"]


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

    Keys are ``/``-separated, non-empty segments of ``A-Z a-z 0-9 . _ - % ~``, at most 900 bytes,
    no segment being ``.`` or ``..``; others raise ``InvalidArgument``.

    Every method may raise ``Unavailable``. All may be called concurrently.
    """

    remote: bool
    """Whether a round trip crosses a network: the default poll and linger times depend on it."""

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
